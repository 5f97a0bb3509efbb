//! The report of a replay: what it is told, for people and for programs.
//!
//! # Guarantees
//!
//! - `lines_in = lines_out + suppressed + dropped`, in all, for each rule and for each window that is tried. `tagged`
//!   and `shadowed` lines are among `lines_out`. Summaries are counted apart: they are lines of ours.
//! - Octets are those of messages as they came in, line ends and tags not counted.
//! - Text from a log is escaped where it is shown to people.
//!
//! # Left out
//!
//! How it is found out (see the module above).

use std::io::{self, Write};

use serde::Serialize;

use crate::explain::escaped;

/// What a replay found. The names are the keys in JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The files, in order.
    pub files: Vec<FileReport>,
    /// The window of messages that no rule matches.
    pub window: String,
    /// The first and the last timestamp, as they stood in the log.
    pub first: Option<String>,
    /// As `first`.
    pub last: Option<String>,
    /// Lines judged.
    pub lines_in: u64,
    /// Lines that came out.
    pub lines_out: u64,
    /// Lines held back.
    pub suppressed: u64,
    /// Lines that rules drop.
    pub dropped: u64,
    /// Lines that came out marked, because their rule is in mode `tag`.
    pub tagged: u64,
    /// Lines that came out only because their rule is in mode `shadow`.
    pub shadowed: u64,
    /// Octets of the lines judged.
    pub octets_in: u64,
    /// Octets of the lines that came out.
    pub octets_out: u64,
    /// Octets of the lines that rules drop.
    pub octets_dropped: u64,
    /// Of lines, what did not come out, in percent.
    pub reduction_percent: f64,
    /// Of octets, in percent.
    pub octets_reduction_percent: f64,
    /// Summaries of what was held back.
    pub summaries: u64,
    /// Their octets.
    pub summary_octets: u64,
    /// What was odd.
    pub oddities: OddityReport,
    /// By rule.
    pub rules: Vec<RuleReport>,
    /// What other windows and masks would have given.
    pub windows: Vec<WindowReport>,
    /// The noisiest messages.
    pub noisiest: Vec<NoiseReport>,
    /// Different messages; absent if there are too many to tell.
    pub different_messages: Option<u64>,
    /// The counts of `noisiest` may be too low by so many.
    pub noisiest_too_low_by: u64,
}

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// `plain`, `gzip`, `zstd`, or `unknown`.
    pub packing: &'static str,
    /// Lines judged.
    pub lines: u64,
    /// Why it was not read to its end.
    pub error: Option<String>,
}

/// What was odd. Nothing of it is an error.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct OddityReport {
    /// Lines without a single octet, ignored.
    pub empty_lines: u64,
    /// Lines longer than `max_message_size`, cut.
    pub cut_lines: u64,
    /// Lines in no format that is known.
    pub unparsed_lines: u64,
    /// Lines without a timestamp: they took the time of the line before.
    pub unstamped_lines: u64,
    /// Lines with a timestamp before the time reached: they took that time.
    pub out_of_order_lines: u64,
    /// Times that a clock was set back, or a file began before the last one ended.
    pub times_set_back: u64,
    /// Messages forgotten before their window was over, for want of `dedup.memory`.
    pub evicted_messages: u64,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// Its name; `default` is `[dedup]`.
    pub rule: String,
    /// What it does where it is enforced.
    pub action: &'static str,
    /// Lines that it decided about.
    pub lines_in: u64,
    /// Lines of these that came out.
    pub lines_out: u64,
    /// Lines of these held back.
    pub suppressed: u64,
    /// Lines of these dropped.
    pub dropped: u64,
    /// Lines of these that came out marked.
    pub tagged: u64,
    /// Lines of these that came out only because the rule is in mode `shadow`.
    pub shadowed: u64,
    /// Of lines, what did not come out, in percent.
    pub reduction_percent: f64,
}

/// What another window, or other masks, would have given.
#[derive(Clone, Debug, Serialize)]
pub struct WindowReport {
    /// How messages are told apart.
    pub identity: &'static str,
    /// The window.
    pub window: String,
    /// Lines that come out.
    pub lines_out: u64,
    /// Lines held back.
    pub suppressed: u64,
    /// Lines that rules drop: as many under any window.
    pub dropped: u64,
    /// Of lines, what does not come out, in percent.
    pub reduction_percent: f64,
    /// Of octets, in percent.
    pub octets_reduction_percent: f64,
    /// Summaries of what was held back.
    pub summaries: u64,
    /// Messages remembered, at most.
    pub messages_max: u64,
    /// Octets taken by them, at most.
    pub memory_max: u64,
    /// Messages forgotten before their window was over, for want of `dedup.memory`.
    pub evicted_messages: u64,
}

/// One message.
#[derive(Clone, Debug, Serialize)]
pub struct NoiseReport {
    /// Copies.
    pub count: u64,
    /// Copies held back or dropped.
    pub suppressed: u64,
    /// When the first was said.
    pub first: Option<String>,
    /// When the last was said.
    pub last: Option<String>,
    /// As `tersed explain` gives it.
    pub identity: String,
    /// HOSTNAME.
    pub hostname: Option<String>,
    /// APP-NAME.
    pub app_name: Option<String>,
    /// The beginning of MSG.
    pub msg: String,
}

impl Report {
    /// Writes it for programs: one object.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes it for people.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_totals(out)?;
        self.write_oddities(out)?;
        writeln!(out, "\nBy rule")?;
        let mut table = Table::new(&[Left, Left, Right, Right, Right, Right, Right, Right, Right]);
        table.row([
            "rule",
            "action",
            "lines in",
            "lines out",
            "held back",
            "dropped",
            "tagged",
            "shadowed",
            "fewer",
        ]);
        for rule in &self.rules {
            table.row([
                escaped(&rule.rule),
                rule.action.to_owned(),
                grouped(rule.lines_in),
                grouped(rule.lines_out),
                grouped(rule.suppressed),
                grouped(rule.dropped),
                grouped(rule.tagged),
                grouped(rule.shadowed),
                percent(rule.reduction_percent),
            ]);
        }
        table.write(out)?;
        self.write_windows(out)?;
        self.write_noisiest(out)
    }

    fn write_totals(&self, out: &mut impl Write) -> io::Result<()> {
        for file in &self.files {
            let lines = grouped(file.lines);
            write!(
                out,
                "{}: {lines} lines, {}",
                escaped(&file.name),
                file.packing
            )?;
            match &file.error {
                Some(error) => writeln!(out, ", then: {}", escaped(error))?,
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
                grouped(lines),
                lines_fewer.map_or_else(String::new, percent),
                grouped(octets),
                octets_fewer.map_or_else(String::new, percent),
            ]
        };
        let fewer = (self.reduction_percent, self.octets_reduction_percent);
        let held_back = self.octets_in - self.octets_out - self.octets_dropped;
        let held_fewer = (
            share(self.suppressed, self.lines_in),
            share(held_back, self.octets_in),
        );
        table.row(row("in", self.lines_in, self.octets_in, None));
        table.row(row(
            "held back",
            self.suppressed,
            held_back,
            Some(held_fewer),
        ));
        if self.dropped > 0 {
            let dropped = self.octets_dropped;
            table.row(row("dropped", self.dropped, dropped, None));
            let gone = self.suppressed + self.dropped;
            table.row(row("both", gone, held_back + dropped, Some(fewer)));
        }
        table.row(row("out", self.lines_out, self.octets_out, None));
        table.row(row("summaries", self.summaries, self.summary_octets, None));
        table.write(out)?;
        for (count, what) in [
            (self.tagged, "marked, by rules in mode tag"),
            (self.shadowed, "by rules in mode shadow"),
        ] {
            if count > 0 {
                writeln!(out, "  {} went out {what}", grouped(count))?;
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
            (oddities.unparsed_lines, "lines in no format that is known"),
            (
                oddities.unstamped_lines,
                "lines without a timestamp, at the time of the line before",
            ),
            (
                oddities.out_of_order_lines,
                "lines out of order, at the time reached before",
            ),
            (
                oddities.times_set_back,
                "times that a clock was set back, or a file began before the last one ended",
            ),
            (
                oddities.evicted_messages,
                "messages forgotten too early: raise dedup.memory",
            ),
        ];
        for (count, note) in notes {
            if count > 0 {
                writeln!(out, "  {} {note}", grouped(count))?;
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
            "messages held",
            "memory",
        ]);
        for window in &self.windows {
            table.row([
                window.identity.to_owned(),
                window.window.clone(),
                grouped(window.lines_out),
                percent(window.reduction_percent),
                grouped(window.summaries),
                percent(window.octets_reduction_percent),
                grouped(window.messages_max),
                memory(window.memory_max),
            ]);
        }
        table.write(out)?;
        for window in self.windows.iter().filter(|w| w.evicted_messages > 0) {
            writeln!(
                out,
                "  {}, {}: {} messages forgotten too early, for want of dedup.memory",
                window.identity,
                window.window,
                grouped(window.evicted_messages)
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
            Some(all) => writeln!(out, "\nThe {count} noisiest of {} messages", grouped(all))?,
            None => writeln!(
                out,
                "\nThe {count} noisiest messages (counts may be too low, by {} at most)",
                grouped(self.noisiest_too_low_by)
            )?,
        }
        let mut table = Table::new(&[Right, Right, Left, Left, Left]);
        table.row(["copies", "held back", "first", "last", "message"]);
        for noise in &self.noisiest {
            let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
            let words = [&noise.hostname, &noise.app_name].into_iter().flatten();
            let words = words.chain([&noise.msg]).map(String::as_str);
            table.row([
                grouped(noise.count),
                grouped(noise.suppressed),
                time(&noise.first),
                time(&noise.last),
                shortened(&escaped(&words.collect::<Vec<_>>().join(" "))),
            ]);
        }
        table.write(out)
    }
}

/// `part` of `whole`, in percent; zero of nothing.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}

/// Columns under each other.
struct Table {
    sides: &'static [Side],
    rows: Vec<Vec<String>>,
}

/// Where a column's text stands.
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
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
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

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn nothing_of_nothing_is_no_share() {
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
