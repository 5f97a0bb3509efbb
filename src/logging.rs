//! Logging: writes the relay's own log, and keeps peers from writing into it.
//!
//! # Guarantees
//!
//! - Everything goes to standard error. Standard output belongs to the forwarded messages.
//! - Octets taken from input appear [`Escaped`]: a peer cannot start a line, forge a field or control a terminal.
//! - Each event is one line. Characters that hide, reorder or end text are escaped in every value, also in names from the
//!   operator and errors from the system.
//! - Lines for the journal begin with their priority.
//! - Warnings about peers are limited per reason by a [`PeerLog`]: the first one is logged, then one per
//!   [`PEER_LOG_PERIOD`] with the count of those that were suppressed. The count is logged even if nothing happens any
//!   more.
//!
//! # Left out
//!
//! Sending our own log by syslog: it would come back through our own listeners. Rotating files: that is up to the process
//! that reads standard error.

mod line;
mod printable;

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{JsonFields, Writer, debug_fn, format};
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::Clock;
use crate::core::tick::Tick;
use crate::lock::lock;
use crate::metrics::{FrameErrorReason, Reason as _, RejectReason};

use self::line::{Line, stderr_is_journal, text_field};
use self::printable::Style;

pub(crate) use self::line::tell_end;
pub(crate) use self::printable::printable;

/// Sends everything that is logged from now on to standard error. To be called once, before any task runs.
///
/// `filter` is a level (`info`) or a list of levels for modules (`info,tersed::forward=debug`); modules that it does not
/// name log at `info`. Colours appear on a terminal only. Lines for the journal begin with their priority; in text format
/// they have no time, because the journal adds its own.
///
/// # Errors
///
/// `filter` is neither, or logging was set up before.
pub(crate) fn init(filter: &str, kind: LogFormat) -> Result<(), LogError> {
    let levels = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|source| LogError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(levels)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // It would report errors on standard error, and panic if standard error is what fails.
        .log_internal_errors(false);
    let to_journal = stderr_is_journal();
    let text = debug_fn(text_field).delimited(" ");
    let line = format().with_timer(WallTimer);
    let done = match kind {
        LogFormat::Json => log
            .fmt_fields(JsonFields::new())
            .event_format(Line {
                inner: line.json(),
                style: Style::Json,
                to_journal,
            })
            .try_init(),
        LogFormat::Text if to_journal => log
            .fmt_fields(text)
            .event_format(Line {
                inner: line.without_time(),
                style: Style::Text,
                to_journal,
            })
            .try_init(),
        LogFormat::Text => log
            .fmt_fields(text)
            .event_format(Line {
                inner: line,
                style: Style::Text,
                to_journal,
            })
            .try_init(),
    };
    done.map_err(|_| LogError::SetUpTwice)
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    /// One JSON object per line, always with a time.
    Json,
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The filter cannot be parsed.
    #[error(
        "log filter `{filter}` is neither a level (error, warn, info, debug, trace) nor a list of module=level"
    )]
    Filter { filter: String, source: ParseError },
    /// Another part of this process set logging up before.
    #[error("logging is set up already")]
    SetUpTwice,
}

/// Octets from input, in a form that is safe to log and to show.
///
/// Printable ASCII stands for itself, except that backslash and quotes are escaped; every other octet
/// is written as `\n`, `\r`, `\t` or `\x1b`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Escaped<'a> {
    octets: &'a [u8],
    /// How many octets there were: more than `octets` has if it is a head.
    total: usize,
}

impl<'a> Escaped<'a> {
    /// The first [`ESCAPED_OCTETS_MAX`] of `octets`; if there are more, the total number follows.
    #[must_use]
    pub(crate) fn head(octets: &'a [u8]) -> Self {
        let kept = octets.get(..ESCAPED_OCTETS_MAX).unwrap_or(octets);
        Self {
            octets: kept,
            total: octets.len(),
        }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.octets.escape_ascii())?;
        if self.octets.len() < self.total {
            write!(f, "... ({} octets)", self.total)?;
        }
        Ok(())
    }
}

/// How many octets of input a log line quotes at most.
pub(crate) const ESCAPED_OCTETS_MAX: usize = 64;

/// Keeps warnings about peers from flooding the log: for each reason the first one is logged at once, and then one line
/// per [`PEER_LOG_PERIOD`] for as long as it lasts.
///
/// ```text
/// noted        x x  x      x                    x
/// logged       0        2        1              0
///              |-period-|-period-|-period-|
/// ```
///
/// (The numbers count the lines suppressed before.) Has one slot for each reason, whatever peers do. Shared between tasks;
/// the lock of a slot is held for a few instructions and never while a line is written.
#[derive(Debug)]
pub(crate) struct PeerLog {
    slots: Box<[Mutex<Slot>]>,
    /// Hashes of the peers and reasons that [`PeerLog::note_once`] has logged.
    told: Mutex<HashSet<u64>>,
    /// Keyed at random, so that a peer cannot choose its hash.
    hasher: RandomState,
}

impl PeerLog {
    /// A log without any notes.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            slots: PeerReason::all().map(|_| Mutex::default()).collect(),
            told: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Notes that a peer caused a warning for `reason`. Calls `line` if one is due, with the number of lines suppressed since
    /// the last one.
    pub(crate) fn note(&self, reason: PeerReason, now: Tick, line: impl FnOnce(u64)) {
        // The guard must be gone when the line is written.
        let due = self.slot(reason).note(now);
        if let Some(suppressed) = due {
            line(suppressed);
        }
    }

    /// Calls `line` if this is the first warning about `peer` for `reason`. Beyond [`TOLD_PEERS_MAX`] peers this is
    /// [`PeerLog::note`], because peers can forge addresses. Not for a hot path.
    pub(crate) fn note_once(
        &self,
        reason: PeerReason,
        peer: impl Hash,
        now: Tick,
        line: impl FnOnce(u64),
    ) {
        let hash = self.hasher.hash_one((reason, peer));
        // The guard must be gone when the line is written.
        let is_new = {
            let mut told = lock(&self.told);
            let has_room = told.len() < TOLD_PEERS_MAX;
            if told.contains(&hash) {
                return;
            }
            has_room && told.insert(hash)
        };
        if is_new {
            line(0);
        } else {
            self.note(reason, now, line);
        }
    }

    /// Calls `line` for each reason whose period has ended and had suppressed lines. A timer calls this a few times per
    /// period.
    pub(crate) fn flush(&self, now: Tick, mut line: impl FnMut(PeerReason, u64)) {
        for reason in PeerReason::all() {
            let due = self.slot(reason).flush(now);
            if let Some(suppressed) = due {
                line(reason, suppressed);
            }
        }
    }

    /// Calls `line` for each reason with suppressed lines, whatever the time: the last call before the process ends.
    pub(crate) fn finish(&self, mut line: impl FnMut(PeerReason, u64)) {
        for reason in PeerReason::all() {
            let suppressed = std::mem::take(&mut *self.slot(reason)).suppressed;
            if suppressed > 0 {
                line(reason, suppressed);
            }
        }
    }

    fn slot(&self, reason: PeerReason) -> MutexGuard<'_, Slot> {
        lock(&self.slots[reason.index()])
    }
}

impl Default for PeerLog {
    fn default() -> Self {
        Self::new()
    }
}

/// The subject of a warning about a peer, in the same words as in the metrics.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum PeerReason {
    /// It sent a faulty frame.
    Frame(FrameErrorReason),
    /// Its connection was rejected.
    Reject(RejectReason),
    /// A datagram came from a source that is not allowed.
    Acl,
    /// It sends compressed messages.
    Compressed,
    /// Its connection broke: reset, timed out.
    Connection,
}

impl PeerReason {
    /// Every reason, in the order of its index.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let frame = FrameErrorReason::ALL
            .iter()
            .map(|&reason| Self::Frame(reason));
        let reject = RejectReason::ALL.iter().map(|&reason| Self::Reject(reason));
        frame
            .chain(reject)
            .chain([Self::Acl, Self::Compressed, Self::Connection])
    }

    /// Its word in a log line.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Frame(reason) => reason.label(),
            Self::Reject(reason) => reason.label(),
            Self::Acl => "acl",
            Self::Compressed => "compressed",
            Self::Connection => "connection",
        }
    }

    fn index(self) -> usize {
        let (frames, rejects) = (FrameErrorReason::ALL.len(), RejectReason::ALL.len());
        match self {
            Self::Frame(reason) => reason.index(),
            Self::Reject(reason) => frames + reason.index(),
            Self::Acl => frames + rejects,
            Self::Compressed => frames + rejects + 1,
            Self::Connection => frames + rejects + 2,
        }
    }
}

/// For how long after a warning about peers no other is logged for the same reason.
pub(crate) const PEER_LOG_PERIOD: Duration = Duration::from_secs(10);

/// How many peers [`PeerLog::note_once`] logs one by one.
pub(crate) const TOLD_PEERS_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Slot {
    /// When the last line was logged; `None` before the first, and after a period without events.
    spoke_at: Option<Tick>,
    /// Lines suppressed since then; zero if `spoke_at` is `None`.
    suppressed: u64,
}

impl Slot {
    fn note(&mut self, now: Tick) -> Option<u64> {
        if self
            .spoke_at
            .is_some_and(|at| now.since(at) < PEER_LOG_PERIOD)
        {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.spoke_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }

    fn flush(&mut self, now: Tick) -> Option<u64> {
        if self
            .spoke_at
            .is_none_or(|at| now.since(at) < PEER_LOG_PERIOD)
        {
            return None;
        }
        if self.suppressed == 0 {
            self.spoke_at = None;
            return None;
        }
        self.spoke_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Writes the time of a line by our own clock, in the form that summaries use.
struct WallTimer;

impl FormatTime for WallTimer {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", Clock::wall())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn octets_from_input_are_shown_escaped() {
        for (octets, expected) in [
            (&b"plain text, 100%n"[..], "plain text, 100%n"),
            (b"two\r\nlines\0", r"two\r\nlines\x00"),
            (b"\x1b]0;title\x07", r"\x1b]0;title\x07"),
            (b"caf\xc3\xa9 \xff", r"caf\xc3\xa9 \xff"),
            (br"a\nb", r"a\\nb"),
            (b"\"quoted\"", r#"\"quoted\""#),
            (b"\x7f\t", r"\x7f\t"),
            (b"", ""),
        ] {
            assert_eq!(Escaped::head(octets).to_string(), expected);
        }
    }

    #[test]
    fn a_head_is_cut_and_says_so() {
        let limit = "a".repeat(ESCAPED_OCTETS_MAX);
        let over = "a".repeat(ESCAPED_OCTETS_MAX + 1);
        assert_eq!(Escaped::head(limit.as_bytes()).to_string(), limit);
        assert_eq!(
            Escaped::head(over.as_bytes()).to_string(),
            format!("{limit}... (65 octets)")
        );
    }

    proptest! {
        #[test]
        fn no_octet_gets_out_unescaped_and_no_head_is_long(octets: Vec<u8>) {
            let shown = Escaped::head(&octets).to_string();
            prop_assert!(shown.bytes().all(|octet| matches!(octet, b' '..=b'~')), "{shown:?}");
            prop_assert!(shown.len() <= 4 * ESCAPED_OCTETS_MAX + 40);
        }
    }

    /// Seconds since the origin.
    fn at(secs: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(secs))
    }

    const BAD: PeerReason = PeerReason::Frame(FrameErrorReason::BadFrame);

    fn noted(log: &PeerLog, reason: PeerReason, secs: u64) -> Option<u64> {
        let mut line = None;
        log.note(reason, at(secs), |suppressed| line = Some(suppressed));
        line
    }

    fn flushed(log: &PeerLog, secs: u64) -> Vec<(PeerReason, u64)> {
        let mut lines = Vec::new();
        log.flush(at(secs), |reason, suppressed| {
            lines.push((reason, suppressed))
        });
        lines
    }

    #[test]
    fn the_first_line_comes_out_at_once_and_the_next_ones_are_counted() {
        let log = PeerLog::new();
        assert_eq!(
            noted(&log, BAD, 0),
            Some(0),
            "also at the very origin of time"
        );
        assert_eq!(noted(&log, BAD, 1), None);
        assert_eq!(noted(&log, BAD, 9), None);
        assert_eq!(noted(&log, BAD, 10), Some(2));
        assert_eq!(noted(&log, BAD, 19), None);
    }

    #[test]
    fn the_count_comes_out_even_if_nothing_happens_any_more() {
        let log = PeerLog::new();
        assert_eq!(flushed(&log, 1), []);
        assert_eq!(noted(&log, BAD, 1), Some(0));
        assert_eq!(noted(&log, BAD, 2), None);
        assert_eq!(flushed(&log, 10), []);
        assert_eq!(flushed(&log, 11), [(BAD, 1)]);
        assert_eq!(flushed(&log, 12), []);
        assert_eq!(flushed(&log, 30), []);
    }

    #[test]
    fn a_steady_flood_gives_one_line_per_period() {
        let log = PeerLog::new();
        let (mut lines, mut told) = (0, 0);
        for secs in 0..100 {
            for (_, suppressed) in flushed(&log, secs) {
                lines += 1;
                told += suppressed;
            }
            for _ in 0..50 {
                if let Some(suppressed) = noted(&log, BAD, secs) {
                    lines += 1;
                    told += suppressed + 1;
                }
            }
        }
        log.finish(|_, suppressed| told += suppressed);
        assert_eq!(lines, 10);
        assert_eq!(told, 5_000);
    }

    #[test]
    fn after_a_quiet_period_the_next_line_comes_out_at_once() {
        let log = PeerLog::new();
        assert_eq!(noted(&log, BAD, 0), Some(0));
        assert_eq!(flushed(&log, 10), []);
        assert_eq!(noted(&log, BAD, 11), Some(0));
        assert_eq!(noted(&log, BAD, 12), None);
    }

    #[test]
    fn what_is_suppressed_at_the_end_comes_out_once() {
        let log = PeerLog::new();
        noted(&log, BAD, 0);
        noted(&log, BAD, 1);
        noted(&log, PeerReason::Acl, 1);
        let mut lines = Vec::new();
        log.finish(|reason, suppressed| lines.push((reason, suppressed)));
        log.finish(|reason, suppressed| lines.push((reason, suppressed)));
        assert_eq!(lines, [(BAD, 1)]);
    }

    #[test]
    fn reasons_do_not_silence_each_other() {
        let log = PeerLog::new();
        for (index, reason) in PeerReason::all().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(noted(&log, reason, 0), Some(0), "{}", reason.label());
        }
    }

    #[test]
    fn each_peer_is_told_of_once_and_a_flood_of_them_is_limited() {
        let log = PeerLog::new();
        let told = |peer: usize, secs| {
            let mut line = None;
            log.note_once(PeerReason::Compressed, peer, at(secs), |suppressed| {
                line = Some(suppressed);
            });
            line
        };
        for peer in 0..TOLD_PEERS_MAX {
            assert_eq!(told(peer, 0), Some(0));
            assert_eq!(told(peer, 100), None);
        }
        assert_eq!(told(TOLD_PEERS_MAX, 100), Some(0));
        assert_eq!(told(TOLD_PEERS_MAX + 1, 100), None);
        assert_eq!(told(TOLD_PEERS_MAX + 2, 110), Some(1));
        assert_eq!(told(0, 200), None);
    }

    #[test]
    fn a_line_may_be_written_about_the_reason_that_is_being_logged() {
        let log = PeerLog::new();
        // A deadlock if the slot were still locked.
        log.note(BAD, at(0), |_| log.note(BAD, at(0), |_| panic!("not due")));
        let mut lines = 0;
        log.flush(at(10), |_, _| {
            lines += 1;
            log.note(BAD, at(10), |_| panic!("not due"));
        });
        assert_eq!(lines, 1);
    }

    #[test]
    fn a_filter_that_is_none_is_refused_by_name() {
        let err = init("tersed=loud", LogFormat::Text).unwrap_err();
        assert!(
            err.to_string()
                .starts_with("log filter `tersed=loud` is neither"),
            "{err}"
        );
    }
}
