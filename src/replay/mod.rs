//! Replay: recorded logs through the core of the daemon, on their own time.
//!
//! ```text
//! Source ──text──▶ Framer ──line──▶ parse ─▶ time ─▶ rule ─▶ identity ─▶ Trial ─┬─▶ survivors, summaries
//! (gzip, zstd)     (LF)                   (the timestamp)                (engine)└─▶ Report, Series
//! ```
//!
//! # Guarantees
//!
//! - The core that judges a line is the daemon's, actions and modes included; only the clock differs. The sender of all
//!   lines is *local*, and no rule that names a listener takes them.
//! - Survivors come out byte for byte in the order of the log, each followed by LF. A summary comes out when its window ends:
//!   before the first line at or after that time.
//! - The same log yields the same output in every run, unless `dedup.memory` is used up.
//! - Memory is bounded: a log is read in pieces of [`PIECE_OCTETS`], whatever its length.
//! - If reading a log breaks off, all lines before that are judged; a line that is cut off is not.
//!
//! # Left out
//!
//! Joining lines that belong together: a line is a message, as it is in the daemon.

mod findings;
mod noisy;
mod offer;
mod plot;
mod report;
mod source;
mod time;
mod timestamp;
mod trial;

use std::io::{self, Write};

use memchr::memchr;

use self::findings::{Findings, RuleTotals, Totals, time_word};
use self::offer::{ORIGIN, Offer};
use self::plot::Series;
pub(crate) use self::report::{FileReport, OddityReport, Report};
use self::report::{LineReport, share};
pub(crate) use self::source::{Source, SourceError, probe};
use self::time::LogTime;
use self::trial::Trial;
use crate::clock::Clock;
use crate::config::{Config, time_text};
use crate::core::dedup::{Sighting, summary};
use crate::core::frame::{End, Framer, Framing, Outcome};
use crate::core::identity::{Identifier, Identity, Key};
use crate::core::parse::{Format, Message};
use crate::core::rule::{Fate, LITERAL, PolicyId, Reach, Rules, Scratch};
use crate::core::tick::WallTime;
use crate::explain::Ruling;

/// A replay of logs through the core.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    config: &'a Config,
    rules: &'a Rules,
    reach: Reach,
    scratch: Scratch,
    identifier: Identifier<'a>,
    /// The identity of the line at hand.
    octets: Vec<u8>,
    time: LogTime,
    trial: Trial,
    output: Output,
    totals: Totals,
    /// By policy. Messages that are never suppressed are listed only if there are any.
    by_rule: Vec<Option<RuleTotals<'a>>>,
    findings: Option<Findings>,
    /// With the first timestamp.
    series: Option<(Series, Option<WallTime>)>,
    files: Vec<FileReport>,
    buffer: Vec<u8>,
}

/// What a replay has to produce.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub lines: bool,
    /// A [`Report`] with the noisiest messages and other windows.
    pub report: bool,
    /// A plot of lines per minute.
    pub plot: bool,
}

/// Why a log was not replayed to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// It could not be read. Other logs may be readable.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The output could not be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Lines and summaries that are not written yet.
#[derive(Debug)]
struct Output {
    /// False if only a report is wanted.
    wanted: bool,
    octets: Vec<u8>,
}

impl<'a> Replay<'a> {
    /// A replay under `config`. `rules` are those of `config`; `key` is the key of this run, for identities.
    #[must_use]
    pub(crate) fn new(config: &'a Config, rules: &'a Rules, key: &'a Key, wanted: Wanted) -> Self {
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

    /// Replays all lines of `source`. Calls `progress` after each piece with the octets of the file that were read. Returns
    /// the offset of the first NUL in the text, if there is one; it stays in its line.
    ///
    /// # Errors
    ///
    /// If the log cannot be read to its end, or `out` cannot be written.
    pub(crate) fn run(
        &mut self,
        source: &mut Source,
        out: &mut impl Write,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<u64>, ReplayError> {
        let before = self.totals.lines.matched;
        let done = self.read(source, out, progress);
        self.files.push(FileReport {
            name: source.name().to_owned(),
            packing: source.packing().word(),
            lines: self.totals.lines.matched - before,
            error: done.as_ref().err().map(ToString::to_string),
        });
        done
    }

    /// Notes in the report that the file called `name` could not be opened.
    pub(crate) fn skip(&mut self, name: String, error: &SourceError) {
        self.files.push(FileReport {
            name,
            packing: "unknown",
            lines: 0,
            error: Some(error.to_string()),
        });
    }

    /// Ends the replay: reports all windows that are still open.
    ///
    /// # Errors
    ///
    /// If `out` cannot be written.
    pub(crate) fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
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
        // Taken out of `self`, so that lines can be judged where they stand in it.
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
            let room = &mut buffer[pending..];
            let octets = source.read(room)?;
            if nul.is_none()
                && let Some(at) = memchr(0, &room[..octets])
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
            let ended = (octets == 0).then_some(End::Closed);
            let consumed = self.judge_all(&buffer[..end], framer, ended, out)?;
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

    /// Judges the lines in `input`, the last of the log if it has `ended`; returns how many octets they have.
    fn judge_all(
        &mut self,
        input: &[u8],
        framer: &mut Framer,
        ended: Option<End>,
        out: &mut impl Write,
    ) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
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
        let is_judged = Fate::unjudged(fall, message.compressed).is_none();
        let mut identity = Identity {
            hash: 0,
            octets: &[],
        };
        let mut variant = None;
        if is_judged || self.findings.is_some() {
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
        let offer = Offer {
            rules,
            policy,
            message: &message,
            identity,
            sighting,
            now,
        };
        let fate = self.trial.offer(&offer);
        if let Some(findings) = &mut self.findings {
            findings.noisy.count(&offer, fate, self.time.shown());
            findings.offer(&self.identifier, offer);
        }

        // The summary of a window comes before the copy that opens the next one.
        self.report_ended();
        self.output.push(frame, fate);
        let totals = &mut self.totals;
        totals.lines.count(fate);
        totals.octets_in += frame.len() as u64;
        if fate.is_forwarded() {
            totals.octets_out += frame.len() as u64;
        } else if fate == Fate::Dropped {
            totals.octets_dropped += frame.len() as u64;
        }
        totals.unparsed += u64::from(message.format == Format::Unparsed);
        if totals.first.is_none() {
            totals.first = self.time.shown();
        }
        let rule = self.by_rule[policy.index()]
            .get_or_insert_with(|| RuleTotals::new(Ruling::of(rules, policy)));
        rule.lines.count(fate);
        if let Some((series, start)) = &mut self.series {
            if start.is_none() {
                *start = self.time.shown();
            }
            if start.is_some() {
                series.count(now.nanos(), 1, fate.is_forwarded().into());
            }
        }
        Ok(())
    }

    /// Writes the summaries of the windows that ended.
    #[inline]
    fn report_ended(&mut self) {
        if !self.trial.ended.is_empty() {
            self.write_ended();
        }
    }

    fn write_ended(&mut self) {
        for ended in self.trial.ended.drain(..) {
            let style = self.rules.policy(ended.policy).summary_style();
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

    /// The limit for a line: the largest of all listeners, because a file belongs to none of them.
    fn message_octets_max(&self) -> usize {
        let listeners = self.config.listeners.iter();
        listeners
            .map(|listener| listener.max_message_size)
            .max()
            .unwrap_or(crate::core::limits::MESSAGE_OCTETS_DEFAULT)
    }

    /// The report on all lines so far.
    #[must_use]
    pub(crate) fn report(&self) -> Report {
        let totals = &self.totals;
        let lines = LineReport::of(&totals.lines);
        let oddities = self.time.oddities;
        let findings = self.findings.as_ref();
        Report {
            files: self.files.clone(),
            window: time_text(self.config.dedup.policy.window.window),
            first: totals.first.map(time_word),
            last: self.time.shown().map(time_word),
            lines,
            octets_in: totals.octets_in,
            octets_out: totals.octets_out,
            octets_dropped: totals.octets_dropped,
            reduction_percent: lines.reduction_percent(),
            octets_reduction_percent: share(totals.octets_in - totals.octets_out, totals.octets_in),
            summaries: totals.summaries,
            summary_octets: totals.summary_octets,
            oddities: OddityReport {
                empty_lines: totals.empty,
                cut_lines: totals.cut,
                unparsed_lines: totals.unparsed,
                lines_without_timestamp: oddities.without_time,
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
    pub(crate) fn plot(&self) -> Option<String> {
        let (series, start) = self.series.as_ref()?;
        let totals = &self.totals;
        let caption = format!(
            "{} lines in; with a window of {} {} lines and {} summaries out",
            totals.lines.matched,
            time_text(self.config.dedup.policy.window.window),
            totals.lines.forwarded(),
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
            Fate::Forwarded | Fate::Shadowed => self.octets.extend_from_slice(frame),
            Fate::Annotated(annotation) => annotation.write(&mut self.octets, frame),
            Fate::Suppressed | Fate::Dropped => return,
        }
        self.octets.push(b'\n');
    }

    fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.octets)?;
        self.octets.clear();
        Ok(())
    }

    /// Bounds the memory when many windows end at once.
    fn flush_if_long(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.octets.len() >= PIECE_OCTETS {
            self.flush(out)?;
        }
        Ok(())
    }
}

const MINUTE_MICROS: i64 = 60_000_000;

/// Octets of text that are read and judged at once.
pub(crate) const PIECE_OCTETS: usize = 256 * 1024;

/// A file with a NUL before this offset is not text. Further on, a NUL may be what a crash left in a log.
const TEXT_PROBE_OCTETS: u64 = 8 * 1024;
