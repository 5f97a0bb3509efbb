//! Replay: recorded logs through the very same core, on their own time.
//!
//! ```text
//! Source ──text──▶ Framer ──line──▶ parse ─▶ time ─▶ rule ─▶ identity ─▶ Trial ─┬─▶ survivors, summaries
//! (gzip, zstd)     (LF)                      (the stamp)                 (engine)└─▶ Report, Series
//! ```
//!
//! # Guarantees
//!
//! - A line is judged by what judges it in the daemon; only the clock is another one. Actions and modes are the
//!   daemon's. The sender of all lines is *local*, and no rule that names a listener takes them.
//! - Survivors come out byte for byte in the order of the log, each followed by an LF. A summary comes
//!   out at the time when its window ends: before the first line that is said then.
//! - The same log gives the same output in every run, unless `dedup.memory` is used up.
//! - Memory is bounded: a log is read in pieces of [`PIECE_OCTETS`], whatever its length.
//! - A log that breaks off gives what came before; a line that is cut off by it is not judged.
//!
//! # Left out
//!
//! Joining lines that belong together: a line is a message, as it is in the daemon.

mod fate;
mod findings;
mod noisy;
mod plot;
mod report;
mod source;
mod time;
mod timestamp;
mod trial;

use std::io::{self, Write};

use memchr::memchr;

use self::fate::{Fate, summary_style};
use self::findings::{Findings, Offer, RuleTotals, Totals, time_word};
use self::plot::Series;
use self::report::share;
pub use self::report::{FileReport, NoiseReport, OddityReport, Report, RuleReport, WindowReport};
pub use self::source::{Packing, Source, SourceError, probe};
use self::time::LogTime;
use self::trial::Trial;
use crate::clock::Clock;
use crate::config::{Config, time_text};
use crate::dedup::{Sighting, summary};
use crate::explain::Ruling;
use crate::frame::{End, Framer, Framing, Outcome};
use crate::identity::{Identifier, Identity, Key, Origin, Sender};
use crate::parse::{Format, Message};
use crate::rule::{Action, LITERAL, PolicyId, Reach, Rules, Scratch};
use crate::tick::WallTime;

/// Logs going through the core.
#[derive(Debug)]
pub struct Replay<'a> {
    config: &'a Config,
    rules: &'a Rules,
    reach: Reach,
    scratch: Scratch,
    identifier: Identifier<'a>,
    /// Of the line at hand, its identity.
    octets: Vec<u8>,
    time: LogTime,
    trial: Trial,
    /// Where lines go; nowhere if only a report is wanted.
    output: Output,
    totals: Totals,
    /// By policy.
    by_rule: Vec<Option<RuleTotals<'a>>>,
    findings: Option<Findings>,
    series: Option<(Series, Option<WallTime>)>,
    files: Vec<FileReport>,
    buffer: Vec<u8>,
}

/// What a replay is to give.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Survivors and summaries.
    pub lines: bool,
    /// A [`Report`] with the noisiest messages and other windows.
    pub report: bool,
    /// A picture.
    pub plot: bool,
}

/// Why a log was not replayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It could not be read. Others may be.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is nowhere to write to.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Lines and summaries of one piece, one behind the other.
#[derive(Debug)]
struct Output {
    wanted: bool,
    octets: Vec<u8>,
}

impl<'a> Replay<'a> {
    /// A replay through what `config` configures. `rules` are those of `config`; `key` is this run's.
    #[must_use]
    pub fn new(config: &'a Config, rules: &'a Rules, key: &'a Key, wanted: Wanted) -> Self {
        let memory = config.dedup.memory;
        let by_rule = |id| (id != LITERAL).then(|| RuleTotals::new(Ruling::of(rules, id)));
        let windows: Vec<_> = rules.policies().map(|policy| policy.window).collect();
        Self {
            config,
            rules,
            reach: rules.reach(ORIGIN.listener),
            scratch: Scratch::default(),
            identifier: Identifier::new(key, config.dedup.identity),
            octets: Vec::new(),
            time: LogTime::new(),
            trial: Trial::new(&windows, memory),
            output: Output {
                wanted: wanted.lines,
                octets: Vec::new(),
            },
            totals: Totals::default(),
            by_rule: (0..)
                .map(PolicyId)
                .take(rules.falls().len())
                .map(by_rule)
                .collect(),
            findings: wanted.report.then(|| Findings::new(rules, memory)),
            series: wanted.plot.then(|| (Series::new(), None)),
            files: Vec::new(),
            buffer: vec![0; PIECE_OCTETS],
        }
    }

    /// Replays all lines of `source`, and tells `progress` after each piece how many octets of the
    /// file were read. Gives the offset of the first NUL in its text, if there is one: it stays in its
    /// line.
    ///
    /// # Errors
    ///
    /// If the log cannot be read to its end, or nothing can be written to `out` any more.
    pub fn run(
        &mut self,
        source: &mut Source,
        out: &mut impl Write,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<u64>, ReplayError> {
        let before = self.totals.lines.lines_in;
        let done = self.read(source, out, progress);
        self.files.push(FileReport {
            name: source.name().to_owned(),
            packing: source.packing().word(),
            lines: self.totals.lines.lines_in - before,
            error: done.as_ref().err().map(ToString::to_string),
        });
        done
    }

    /// The file called `name` could not even be begun: the report shall say so.
    pub fn skip(&mut self, name: String, error: &SourceError) {
        self.files.push(FileReport {
            name,
            packing: "unknown",
            lines: 0,
            error: Some(error.to_string()),
        });
    }

    /// The log ended: reports what is held back.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.trial.sample();
        loop {
            let more = self.trial.end();
            self.report_ended();
            self.output.flush(out)?;
            if !more {
                break;
            }
        }
        for tried in self.findings.iter_mut().flat_map(Findings::tried_windows) {
            tried.end(self.rules);
        }
        Ok(())
    }

    fn read(
        &mut self,
        source: &mut Source,
        out: &mut impl Write,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<u64>, ReplayError> {
        let written = source.written().unwrap_or_else(Clock::wall);
        self.time.begin_file(written);
        let mut framer = Framer::new(Framing::Lf, self.message_octets_max());
        // Lent out, so that lines can be judged while it is looked at.
        let mut buffer = std::mem::take(&mut self.buffer);
        let done = self.read_into(&mut buffer, source, &mut framer, out, progress);
        self.buffer = buffer;
        done
    }

    fn read_into(
        &mut self,
        buffer: &mut Vec<u8>,
        source: &mut Source,
        framer: &mut Framer,
        out: &mut impl Write,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<u64>, ReplayError> {
        let (mut pending, mut offset, mut nul) = (0, 0_u64, None);
        loop {
            if buffer.len() < pending + PIECE_OCTETS / 2 {
                buffer.resize(pending + PIECE_OCTETS, 0);
            }
            let room = buffer.get_mut(pending..).unwrap_or_default();
            let octets = source.read(room)?;
            if nul.is_none()
                && let Some(at) = memchr(0, room.get(..octets).unwrap_or_default())
            {
                let at = offset + at as u64;
                if at < TEXT_PROBE_OCTETS {
                    return Err(ReplayError::Source(SourceError::NotText {
                        name: source.name().to_owned(),
                        offset: at,
                    }));
                }
                nul = Some(at);
            }
            offset += octets as u64;
            let end = pending + octets;
            let input = buffer.get(..end).unwrap_or_default();
            let ended = (octets == 0).then_some(End::Closed);
            let consumed = self.judge_all(input, framer, ended, out)?;
            if octets == 0 {
                return Ok(nul);
            }
            buffer.copy_within(consumed..end, 0);
            pending = end - consumed;
            self.output.flush(out)?;
            self.sample();
            progress(source.taken());
        }
    }

    /// Judges the lines in `input`, which may be the last of its log; how many octets they are.
    fn judge_all(
        &mut self,
        input: &[u8],
        framer: &mut Framer,
        ended: Option<End>,
        out: &mut impl Write,
    ) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let step = match ended {
                Some(end) => framer.finish(rest, end),
                None => framer.next(rest),
            };
            at += step.consumed;
            match step.outcome {
                Outcome::Frame(frame) => {
                    self.totals.cut += u64::from(frame.oversize);
                    self.judge(frame.octets, out)?;
                }
                Outcome::Empty => self.totals.empty += 1,
                Outcome::More => return Ok(at),
                // Lines have no header that could be wrong.
                Outcome::Fault(_) | Outcome::Hopeless => {}
            }
        }
    }

    /// Judges one line.
    #[inline]
    fn judge(&mut self, frame: &[u8], out: &mut impl Write) -> io::Result<()> {
        let message = Message::parse(frame);
        let now = self.time.tick(message.timestamp());
        while self.trial.advance(now) {
            self.report_ended();
            self.output.flush_if_long(out)?;
        }
        self.report_ended();

        let rules = self.rules;
        let policy = rules.decide(&message, ORIGIN.sender, self.reach, &mut self.scratch);
        let fall = rules.fall(policy);
        let spec = &fall.policy.identity;
        let mut identity = Identity {
            hash: 0,
            octets: &[],
        };
        let mut variant = None;
        if fall.action == Action::Dedup || self.findings.is_some() {
            self.octets.clear();
            identity.hash = self
                .identifier
                .append_by(spec, &message, ORIGIN, &mut self.octets);
            identity.octets = &self.octets;
            variant = self.identifier.variant(spec, &message, ORIGIN.sender);
        }
        let sighting = Sighting {
            frame,
            timestamp: message.timestamp(),
            variant: variant.as_ref(),
        };
        let trial = &mut self.trial;
        let fate = Fate::of(fall, || trial.offer(policy, identity, sighting));
        if let Some(findings) = &mut self.findings {
            let shown = self.time.shown();
            let offer = Offer {
                rules,
                policy,
                message: &message,
                identity,
                sighting,
                now,
            };
            findings.noisy.count(&offer, fate, shown);
            findings.offer(&self.identifier, offer);
        }

        // What a window held back is reported before the copy that opens the next one.
        self.report_ended();
        self.output.push(frame, fate);
        let totals = &mut self.totals;
        totals.lines.count(fate);
        totals.octets_in += frame.len() as u64;
        if fate.goes_out() {
            totals.octets_out += frame.len() as u64;
        } else if fate == Fate::Dropped {
            totals.octets_dropped += frame.len() as u64;
        }
        totals.unparsed += u64::from(message.format == Format::Unparsed);
        if totals.first.is_none() {
            totals.first = self.time.shown();
        }
        if let Some(slot) = self.by_rule.get_mut(policy.index()) {
            let rule = slot.get_or_insert_with(|| RuleTotals::new(Ruling::of(rules, policy)));
            rule.lines.count(fate);
        }
        if let Some((series, start)) = &mut self.series {
            if start.is_none() {
                *start = self.time.shown();
            }
            if start.is_some() {
                series.count(now.nanos(), 1, fate.goes_out().into());
            }
        }
        Ok(())
    }

    /// Writes the summaries of what ended.
    #[inline]
    fn report_ended(&mut self) {
        if !self.trial.ended.is_empty() {
            self.write_ended();
        }
    }

    fn write_ended(&mut self) {
        for ended in self.trial.ended.drain(..) {
            let style = summary_style(self.rules.policy(ended.policy));
            let (first, last) = (
                self.time.wall_of(ended.first),
                self.time.wall_of(ended.last),
            );
            let octets = &mut self.output.octets;
            let start = octets.len();
            if !summary::write(octets, &ended, style, first, last) {
                continue;
            }
            self.totals.summaries += 1;
            self.totals.summary_octets += (octets.len() - start) as u64;
            octets.push(b'\n');
            if !self.output.wanted {
                octets.truncate(start);
            }
            if let Some((series, Some(_))) = &mut self.series {
                series.count(self.time.now().nanos(), 0, 1);
            }
        }
    }

    fn sample(&mut self) {
        self.trial.sample();
        for tried in self.findings.iter_mut().flat_map(Findings::tried_windows) {
            tried.trial.sample();
        }
    }

    /// No listener stands behind a file: the one that takes the longest messages sets the bound.
    fn message_octets_max(&self) -> usize {
        let listeners = self.config.listeners.iter();
        listeners
            .map(|listener| listener.max_message_size)
            .max()
            .unwrap_or(crate::limits::MESSAGE_OCTETS_DEFAULT)
    }

    /// What was found so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let totals = &self.totals;
        let lines = &totals.lines;
        let oddities = self.time.oddities;
        let findings = self.findings.as_ref();
        Report {
            files: self.files.clone(),
            window: time_text(self.config.dedup.policy.window.window),
            first: totals.first.map(time_word),
            last: self.time.shown().map(time_word),
            lines_in: lines.lines_in,
            lines_out: lines.lines_out,
            suppressed: lines.suppressed,
            dropped: lines.dropped,
            tagged: lines.tagged,
            shadowed: lines.shadowed,
            octets_in: totals.octets_in,
            octets_out: totals.octets_out,
            octets_dropped: totals.octets_dropped,
            reduction_percent: share(lines.lines_in - lines.lines_out, lines.lines_in),
            octets_reduction_percent: share(totals.octets_in - totals.octets_out, totals.octets_in),
            summaries: totals.summaries,
            summary_octets: totals.summary_octets,
            oddities: OddityReport {
                empty_lines: totals.empty,
                cut_lines: totals.cut,
                unparsed_lines: totals.unparsed,
                unstamped_lines: oddities.unstamped,
                out_of_order_lines: oddities.out_of_order,
                times_set_back: oddities.set_back,
                evicted_messages: self.trial.peak.evicted,
            },
            rules: self
                .by_rule
                .iter()
                .flatten()
                .map(RuleTotals::report)
                .collect(),
            windows: findings.map_or_else(Vec::new, |findings| findings.windows(totals)),
            noisiest: findings.map_or_else(Vec::new, Findings::noisiest),
            different_messages: findings
                .and_then(|findings| findings.noisy.different())
                .map(|count| count as u64),
            noisiest_too_low_by: findings.map_or(0, |findings| findings.noisy.missed),
        }
    }

    /// Lines per minute, before and after, as SVG.
    #[must_use]
    pub fn plot(&self) -> Option<String> {
        let (series, start) = self.series.as_ref()?;
        let totals = &self.totals;
        let caption = format!(
            "{} lines in; with a window of {} {} lines and {} summaries out",
            totals.lines.lines_in,
            time_text(self.config.dedup.policy.window.window),
            totals.lines.lines_out,
            totals.summaries
        );
        // The first bin begins with its minute.
        let minute = start.map_or(0, |start| start.micros().div_euclid(MINUTE_MICROS));
        let start = WallTime::from_micros(minute * MINUTE_MICROS);
        Some(series.svg(start, &caption))
    }
}

impl Output {
    fn push(&mut self, frame: &[u8], fate: Fate) {
        if !self.wanted {
            return;
        }
        match fate {
            Fate::Out | Fate::Shadowed => self.octets.extend_from_slice(frame),
            Fate::Tagged(tag) => tag.write(&mut self.octets, frame),
            Fate::Suppressed | Fate::Dropped => return,
        }
        self.octets.push(b'\n');
    }

    fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.octets)?;
        self.octets.clear();
        Ok(())
    }

    /// Many windows may end at once.
    fn flush_if_long(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.octets.len() >= PIECE_OCTETS {
            self.flush(out)?;
        }
        Ok(())
    }
}

/// Who sends all lines: somebody on this host, to no listener that a rule could name.
const ORIGIN: Origin<'static> = Origin {
    sender: Sender::Local,
    listener: "",
};

const MINUTE_MICROS: i64 = 60_000_000;

/// Octets of text that are read and judged at once.
pub const PIECE_OCTETS: usize = 256 * 1024;

/// A NUL before this says that a file is no text. Further on it may be what a crash left in a log.
const TEXT_PROBE_OCTETS: u64 = 8 * 1024;
