//! The report of a replay, for people and for programs.
//!
//! # Guarantees
//!
//! - `lines_in = lines_out + suppressed + dropped`, in all, for each rule and for each window that is tried. `tagged`
//!   and `shadowed` lines are among `lines_out`. Summaries are counted apart, because tersed writes them.
//! - Octets are those of messages as they came in, without line ends and annotations.
//! - Text from a log is escaped in the report for people.
//!
//! # Left out
//!
//! Counting (`findings`, and the module above).

use std::io::{self, Write};

use serde::Serialize;

use crate::config::count_text;
use crate::core::rule::Fates;
use crate::logging::printable;

/// What a replay found. The names of the fields are the keys in JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The files, in order.
    pub files: Vec<FileReport>,
    /// The window of messages that no rule matches.
    pub window: String,
    /// The first timestamp in the log, in UTC.
    pub first: Option<String>,
    /// The last timestamp in the log, in UTC.
    pub last: Option<String>,
    #[serde(flatten)]
    pub lines: LineReport,
    /// Octets of the lines judged.
    pub octets_in: u64,
    /// Octets of the lines that came out.
    pub octets_out: u64,
    /// Octets of the lines that rules drop.
    pub octets_dropped: u64,
    /// The lines that did not come out, in percent.
    pub reduction_percent: f64,
    /// The octets that did not come out, in percent.
    pub octets_reduction_percent: f64,
    /// Summaries of suppressed lines.
    pub summaries: u64,
    /// Octets of the summaries.
    pub summary_octets: u64,
    /// What was odd in the log.
    pub oddities: OddityReport,
    pub rules: Vec<RuleReport>,
    /// The results with other windows and masks.
    pub windows: Vec<WindowReport>,
    /// The messages with the most copies.
    pub noisiest: Vec<NoiseReport>,
    /// How many different messages there are; absent if there are too many to count.
    pub different_messages: Option<u64>,
    /// How much too low the counts of `noisiest` may be.
    pub noisiest_too_low_by: u64,
}

/// How many lines there are, and what became of them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct LineReport {
    pub lines_in: u64,
    /// Lines that came out.
    pub lines_out: u64,
    /// Lines that were suppressed as repeats.
    pub suppressed: u64,
    /// Lines that rules drop.
    pub dropped: u64,
    /// Lines that came out with an annotation, because their rule is in mode `tag`.
    pub tagged: u64,
    /// Lines that came out only because their rule is in mode `shadow`.
    pub shadowed: u64,
}

impl LineReport {
    pub(super) const fn of(lines: &Fates) -> Self {
        Self {
            lines_in: lines.matched,
            lines_out: lines.forwarded(),
            suppressed: lines.suppressed,
            dropped: lines.dropped,
            tagged: lines.annotated,
            shadowed: lines.shadowed,
        }
    }

    /// The lines that did not come out, in percent.
    pub(super) fn reduction_percent(&self) -> f64 {
        share(self.suppressed + self.dropped, self.lines_in)
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct FileReport {
    pub name: String,
    /// `plain`, `gzip`, `zstd`, or `unknown`.
    pub packing: &'static str,
    pub lines: u64,
    /// Why it was not read to its end.
    pub error: Option<String>,
}

/// What was odd in the log. None of this is an error.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct OddityReport {
    /// Lines without an octet, ignored.
    pub empty_lines: u64,
    /// Lines longer than `max_message_size`, cut.
    pub cut_lines: u64,
    /// Lines in no known format.
    pub unparsed_lines: u64,
    /// Lines without a timestamp, which took the time of the line before.
    pub lines_without_timestamp: u64,
    /// Lines with a timestamp before the time reached, which took that time.
    pub out_of_order_lines: u64,
    /// How often a clock was set back, or a file began before the last one ended.
    pub times_set_back: u64,
    /// Messages evicted before their window ended, for lack of `dedup.memory`.
    pub evicted_messages: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RuleReport {
    /// Its name; `default` is `[dedup]`.
    pub rule: String,
    /// Its action, whatever its mode.
    pub action: &'static str,
    /// The lines that fell under it.
    #[serde(flatten)]
    pub lines: LineReport,
    /// The lines that did not come out, in percent.
    pub reduction_percent: f64,
}

/// The result with another window, or with other masks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WindowReport {
    /// `as configured`, or the masks that were added.
    pub identity: &'static str,
    /// The window, as in a configuration.
    pub window: String,
    /// Lines that come out.
    pub lines_out: u64,
    /// Lines that are suppressed.
    pub suppressed: u64,
    /// Lines that rules drop: as many under any window.
    pub dropped: u64,
    /// The lines that do not come out, in percent.
    pub reduction_percent: f64,
    /// The octets that do not come out, in percent.
    pub octets_reduction_percent: f64,
    /// Summaries of suppressed lines.
    pub summaries: u64,
    /// The most messages that were remembered at once: open windows.
    pub messages_max: u64,
    /// The most octets that they took.
    pub memory_max: u64,
    /// Messages evicted before their window ended, for lack of `dedup.memory`.
    pub evicted_messages: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct NoiseReport {
    pub count: u64,
    /// Copies suppressed or dropped.
    pub suppressed: u64,
    /// The timestamp of the first copy.
    pub first: Option<String>,
    /// The timestamp of the last copy.
    pub last: Option<String>,
    /// The identity that `tersed explain` shows.
    pub identity: String,
    pub hostname: Option<String>,
    pub app_name: Option<String>,
    /// The beginning of MSG.
    pub msg: String,
}

impl Report {
    /// Writes the report for programs, as one object.
    ///
    /// # Errors
    ///
    /// If `out` cannot be written.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes the report for people.
    ///
    /// # Errors
    ///
    /// If `out` cannot be written.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_totals(out)?;
        self.write_oddities(out)?;
        writeln!(out, "\nBy rule")?;
        let mut table = Table::new(&[Left, Left, Right, Right, Right, Right, Right, Right, Right]);
        table.row([
            "rule",
            "action",
            "lines in",
            "lines out",
            "suppressed",
            "dropped",
            "tagged",
            "shadowed",
            "fewer",
        ]);
        for rule in &self.rules {
            table.row([
                printable(&rule.rule).to_string(),
                rule.action.to_owned(),
                count_text(rule.lines.lines_in),
                count_text(rule.lines.lines_out),
                count_text(rule.lines.suppressed),
                count_text(rule.lines.dropped),
                count_text(rule.lines.tagged),
                count_text(rule.lines.shadowed),
                percent(rule.reduction_percent),
            ]);
        }
        table.write(out)?;
        self.write_windows(out)?;
        self.write_noisiest(out)
    }

    fn write_totals(&self, out: &mut impl Write) -> io::Result<()> {
        for file in &self.files {
            let lines = count_text(file.lines);
            write!(
                out,
                "{}: {lines} lines, {}",
                printable(&file.name),
                file.packing
            )?;
            match &file.error {
                Some(error) => writeln!(out, ", then: {}", printable(error))?,
                None => writeln!(out)?,
            }
        }
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            writeln!(out, "{first} to {last}")?;
        }
        writeln!(out, "\nEach message once in {}", self.window)?;
        let mut table = Table::new(&[Left, Right, Right, Right, Right]);
        table.row(["", "lines", "", "octets", ""]);
        let row = |name: &str, lines, octets, fewer: Option<(f64, f64)>| {
            let (lines_fewer, octets_fewer) = fewer.unzip();
            [
                name.to_owned(),
                count_text(lines),
                lines_fewer.map_or_else(String::new, percent),
                count_text(octets),
                octets_fewer.map_or_else(String::new, percent),
            ]
        };
        let fewer = (self.reduction_percent, self.octets_reduction_percent);
        let suppressed = self.octets_in - self.octets_out - self.octets_dropped;
        let fewer_suppressed = (
            share(self.lines.suppressed, self.lines.lines_in),
            share(suppressed, self.octets_in),
        );
        table.row(row("in", self.lines.lines_in, self.octets_in, None));
        table.row(row(
            "suppressed",
            self.lines.suppressed,
            suppressed,
            Some(fewer_suppressed),
        ));
        if self.lines.dropped > 0 {
            let dropped = self.octets_dropped;
            table.row(row("dropped", self.lines.dropped, dropped, None));
            let gone = self.lines.suppressed + self.lines.dropped;
            table.row(row("both", gone, suppressed + dropped, Some(fewer)));
        }
        table.row(row("out", self.lines.lines_out, self.octets_out, None));
        table.row(row("summaries", self.summaries, self.summary_octets, None));
        table.write(out)?;
        for (count, what) in [
            (self.lines.tagged, "annotated, by rules in mode tag"),
            (self.lines.shadowed, "by rules in mode shadow"),
        ] {
            if count > 0 {
                writeln!(out, "  {} came out {what}", count_text(count))?;
            }
        }
        Ok(())
    }

    fn write_oddities(&self, out: &mut impl Write) -> io::Result<()> {
        let oddities = &self.oddities;
        let notes = [
            (oddities.empty_lines, "empty lines, ignored"),
            (
                oddities.cut_lines,
                "lines longer than max_message_size, cut",
            ),
            (oddities.unparsed_lines, "lines in no known format"),
            (
                oddities.lines_without_timestamp,
                "lines without a timestamp, at the time of the line before",
            ),
            (
                oddities.out_of_order_lines,
                "lines out of order, at the time reached before",
            ),
            (
                oddities.times_set_back,
                "times a clock was set back, or a file began before the last one ended",
            ),
            (
                oddities.evicted_messages,
                "messages evicted too early: raise dedup.memory",
            ),
        ];
        for (count, note) in notes {
            if count > 0 {
                writeln!(out, "  {} {note}", count_text(count))?;
            }
        }
        Ok(())
    }

    fn write_windows(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nWith other windows and masks")?;
        let mut table = Table::new(&[Left, Left, Right, Right, Right, Right, Right, Right]);
        table.row([
            "identity",
            "window",
            "lines out",
            "fewer",
            "summaries",
            "octets fewer",
            "open windows",
            "memory",
        ]);
        for window in &self.windows {
            table.row([
                window.identity.to_owned(),
                window.window.clone(),
                count_text(window.lines_out),
                percent(window.reduction_percent),
                count_text(window.summaries),
                percent(window.octets_reduction_percent),
                count_text(window.messages_max),
                memory(window.memory_max),
            ]);
        }
        table.write(out)?;
        for window in self.windows.iter().filter(|w| w.evicted_messages > 0) {
            writeln!(
                out,
                "  {}, {}: {} messages evicted too early, for lack of dedup.memory",
                window.identity,
                window.window,
                count_text(window.evicted_messages)
            )?;
        }
        Ok(())
    }

    fn write_noisiest(&self, out: &mut impl Write) -> io::Result<()> {
        if self.noisiest.is_empty() {
            return Ok(());
        }
        let count = self.noisiest.len();
        match self.different_messages {
            Some(all) => writeln!(
                out,
                "\nThe {count} noisiest of {} messages",
                count_text(all)
            )?,
            None => writeln!(
                out,
                "\nThe {count} noisiest messages (counts may be too low, by {} at most)",
                count_text(self.noisiest_too_low_by)
            )?,
        }
        let mut table = Table::new(&[Right, Right, Left, Left, Left]);
        table.row(["copies", "suppressed", "first", "last", "message"]);
        for noise in &self.noisiest {
            let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
            let words = [&noise.hostname, &noise.app_name].into_iter().flatten();
            let words = words.chain([&noise.msg]).map(String::as_str);
            table.row([
                count_text(noise.count),
                count_text(noise.suppressed),
                time(&noise.first),
                time(&noise.last),
                shortened(&printable(&words.collect::<Vec<_>>().join(" ")).to_string()),
            ]);
        }
        table.write(out)
    }
}

/// `part` of `whole`, in percent; zero if `whole` is zero.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}

/// A table of aligned columns.
struct Table {
    sides: &'static [Side],
    rows: Vec<Vec<String>>,
}

/// How the text of a column is aligned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Left,
    Right,
}

use Side::{Left, Right};

impl Table {
    const fn new(sides: &'static [Side]) -> Self {
        Self {
            sides,
            rows: Vec::new(),
        }
    }

    fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let row: Vec<String> = cells.into_iter().map(Into::into).collect();
        assert_eq!(
            row.len(),
            self.sides.len(),
            "a row has a cell for each column"
        );
        self.rows.push(row);
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.sides.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, side), width) in row.iter().zip(self.sides).zip(&widths) {
                line.push_str("  ");
                line.push_str(&match side {
                    Left => format!("{cell:<width$}"),
                    Right => format!("{cell:>width$}"),
                });
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn percent(percent: f64) -> String {
    format!("{percent:.1} %")
}

fn memory(octets: u64) -> String {
    match octets {
        0..0x10_0000 => format!("{} KiB", octets.div_ceil(1024)),
        _ => format!("{:.1} MiB", octets as f64 / f64::from(0x10_0000)),
    }
}

/// The beginning of `text`.
fn shortened(text: &str) -> String {
    if text.chars().count() <= MESSAGE_CHARS_MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(MESSAGE_CHARS_MAX - 3).collect();
    format!("{head}...")
}

/// Characters of a message in a table for people.
const MESSAGE_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_nothing_is_zero() {
        assert!(share(0, 0).abs() < f64::EPSILON);
        assert!((share(1, 4) - 25.0).abs() < f64::EPSILON);
    }

    #[test]
    fn text_of_a_log_drives_no_terminal_and_stays_on_its_line() {
        let report = Report {
            noisiest: vec![NoiseReport {
                count: 1,
                suppressed: 0,
                first: None,
                last: None,
                identity: String::new(),
                hostname: Some("h".to_owned()),
                app_name: None,
                msg: "\u{1b}[2J".repeat(50),
            }],
            ..Report::default()
        };
        let mut out = Vec::new();
        report.write_text(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        assert!(text.ends_with("...\n"), "{text}");
    }
}
