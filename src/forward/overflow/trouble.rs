//! Trouble: which calls to the spool's disk fail. Each failure is counted. Each reason is logged once, and again every
//! ten minutes while it lasts.
//!
//! The page of [`overflow`](super) draws the states and their transitions.

use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use super::RETRY_PERIOD;
use crate::{
    clock::Clock,
    core::tick::Tick,
    forward::{error_chain, standing::REMIND_PERIOD},
    metrics::{Metrics, SpoolErrno, SpoolTrouble},
    spool::SpoolError,
};

/// How the disk answered the last call of each kind.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) writing: Writing,
    pub(super) reading: Health,
    /// The disk is told which batches were delivered.
    pub(super) acknowledging: Health,
    /// The directory and its files are checked.
    pub(super) tending: Health,
}

impl Disk {
    /// The failure that the metrics show: that of writing, else of reading, else of tending, else of acknowledging.
    pub(super) fn trouble(&self) -> Option<SpoolTrouble> {
        let failures = [
            self.writing.failure(),
            self.reading.failure(),
            self.tending.failure(),
            self.acknowledging.failure(),
        ];
        let failure = failures.into_iter().flatten().next();
        failure.map(|failure| failure.shown.clone())
    }
}

/// Whether the disk takes what is written.
#[derive(Debug, Default)]
pub(super) enum Writing {
    #[default]
    Works,
    Refuses {
        failure: Failure,
        /// When to write again.
        retry_at: Instant,
        /// How many octets it refused, for `Spool::probe`.
        octets: u64,
    },
}

impl Writing {
    /// It refused chunks of `octets`, which are written again after [`RETRY_PERIOD`].
    pub(super) fn refused(&mut self, octets: u64, error: &SpoolError, metrics: &Metrics) {
        let retry_at = Instant::now() + RETRY_PERIOD;
        let failure = Failure::of(error, self.failure(), metrics);
        *self = Self::Refuses {
            failure,
            retry_at,
            octets,
        };
    }

    /// A call other than an append found that it would refuse chunks. When to write again stays as it was; if it worked
    /// before, at once.
    pub(super) fn would_refuse(&mut self, error: &SpoolError, metrics: &Metrics) {
        let failure = Failure::of(error, self.failure(), metrics);
        let (retry_at, octets) = match self {
            Self::Works => (Instant::now(), 1),
            Self::Refuses {
                retry_at, octets, ..
            } => (*retry_at, *octets),
        };
        *self = Self::Refuses {
            failure,
            retry_at,
            octets,
        };
    }

    /// It took what was written, or would. Returns whether it refused before.
    pub(super) fn succeeded(&mut self) -> bool {
        let refused = self.refuses();
        *self = Self::Works;
        refused
    }

    pub(super) const fn refuses(&self) -> bool {
        matches!(self, Self::Refuses { .. })
    }

    /// When to write again, if it refuses.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Works => None,
            Self::Refuses { retry_at, .. } => Some(*retry_at),
        }
    }

    const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Works => None,
            Self::Refuses { failure, .. } => Some(failure),
        }
    }
}

/// How the last call of one kind ended.
#[derive(Debug, Default)]
pub(super) enum Health {
    #[default]
    Works,
    Fails(Failure),
}

impl Health {
    pub(super) fn failed(&mut self, error: &SpoolError, metrics: &Metrics) {
        *self = Self::Fails(Failure::of(error, self.failure(), metrics));
    }

    /// The call succeeded. Returns whether the one before failed.
    pub(super) fn succeeded(&mut self) -> bool {
        let failed = self.fails();
        *self = Self::Works;
        failed
    }

    pub(super) const fn fails(&self) -> bool {
        matches!(self, Self::Fails(_))
    }

    const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Works => None,
            Self::Fails(failure) => Some(failure),
        }
    }
}

/// What is known of a failure that lasts.
#[derive(Debug)]
pub(super) struct Failure {
    /// The cause without the parts that differ each time. A change is logged at once.
    reason: String,
    logged_at: Tick,
    shown: SpoolTrouble,
}

impl Failure {
    /// Counts and logs that a call failed. `before` is the failure of the last call of this kind, if it failed, too.
    /// The new failure goes on from it: it began when `before` began.
    fn of(error: &SpoolError, before: Option<&Self>, metrics: &Metrics) -> Self {
        count(error, metrics);
        let reason = reason(error);
        let now = Clock::now();
        let cause = error_chain(error);
        let since = before.map_or(now, |before| before.shown.since);
        let logged_at = match before {
            Some(before) if before.reason == reason => {
                let is_due = now.since(before.logged_at) >= REMIND_PERIOD;
                if is_due {
                    let failing_for = Duration::from_secs(now.since(since).as_secs());
                    error!(error = cause, ?failing_for, "spool error persists");
                }
                if is_due { now } else { before.logged_at }
            }
            _ => {
                error!(error = cause, "spool error");
                now
            }
        };
        Self {
            reason,
            logged_at,
            shown: SpoolTrouble {
                since,
                error: cause,
                retry_at: now.after(RETRY_PERIOD),
            },
        }
    }
}

/// The part of an error that makes it another one. Not how full the spool is, which changes each time, nor the name of
/// the segment that could not be made. But another file that is not safe is another file to repair.
fn reason(error: &SpoolError) -> String {
    match error {
        SpoolError::Full { .. } | SpoolError::NoSpace { .. } | SpoolError::ReadOnly { .. } => {
            errno(error).label().to_owned()
        }
        SpoolError::Io { action, source, .. } => format!("{action}: {source}"),
        error => error_chain(error),
    }
}

/// Counts an error of the disk.
pub(super) fn count(error: &SpoolError, metrics: &Metrics) {
    metrics.spool.errors[errno(error)].inc();
}

const fn errno(error: &SpoolError) -> SpoolErrno {
    match error {
        SpoolError::Full { .. } => SpoolErrno::MaxSize,
        SpoolError::NoSpace { .. } => SpoolErrno::NoSpace,
        SpoolError::ReadOnly { .. } => SpoolErrno::ReadOnly,
        SpoolError::Gone { .. } => SpoolErrno::Gone,
        SpoolError::Moved { .. } => SpoolErrno::Moved,
        SpoolError::Unsafe { .. } | SpoolError::NotOwn { .. } => SpoolErrno::Unsafe,
        SpoolError::Busy { .. }
        | SpoolError::Format { .. }
        | SpoolError::Foreign { .. }
        | SpoolError::TooLong { .. }
        | SpoolError::Io { .. } => SpoolErrno::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Unsafe;

    #[test]
    fn the_name_of_a_new_segment_makes_no_other_reason_but_a_file_to_repair_does() {
        let paths = ["/spool/1.segment", "/spool/2.segment"];
        let reasons = |error: &dyn Fn(&str) -> SpoolError| paths.map(|path| reason(&error(path)));
        let [one, other] = reasons(&|path| SpoolError::ReadOnly { path: path.into() });
        assert_eq!(one, other);
        let [one, other] = reasons(&|path| SpoolError::Io {
            action: "open",
            path: path.into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        });
        assert_eq!(one, other);
        let [one, other] = reasons(&|path| SpoolError::Unsafe {
            path: path.into(),
            why: Unsafe::Mode { mode: 0o660 },
        });
        assert_ne!(one, other);
        assert!(one.ends_with("; chmod go-w /spool/1.segment"), "{one}");
    }

    fn full() -> SpoolError {
        SpoolError::Full {
            octets: 1,
            more: 1,
            max: 1,
        }
    }

    #[test]
    fn a_refusal_keeps_its_retry_until_chunks_are_refused_again() {
        let metrics = Metrics::new();
        let mut writing = Writing::default();
        assert!(!writing.succeeded());
        writing.would_refuse(&full(), &metrics);
        let at_once = writing.retry_at().expect("it refuses");
        assert!(at_once <= Instant::now());
        writing.refused(7, &full(), &metrics);
        let later = writing.retry_at().expect("it refuses");
        assert!(later > at_once);
        writing.would_refuse(&full(), &metrics);
        assert!(
            matches!(writing, Writing::Refuses { retry_at, octets: 7, .. } if retry_at == later)
        );
        assert!(writing.succeeded() && writing.retry_at().is_none());
    }

    #[test]
    fn the_failure_of_writing_is_shown_before_all_others() {
        let metrics = Metrics::new();
        let mut disk = Disk::default();
        assert!(disk.trouble().is_none());
        let path = || "/spool/1.segment".into();
        let read_only = SpoolError::ReadOnly { path: path() };
        disk.tending.failed(&read_only, &metrics);
        let shown = disk.trouble().expect("tending fails");
        assert_eq!(shown.error, read_only.to_string());
        disk.writing.refused(1, &full(), &metrics);
        let shown = disk.trouble().expect("writing fails");
        assert_eq!(shown.error, full().to_string());
        assert!(disk.tending.succeeded() && disk.writing.succeeded());
        assert!(disk.trouble().is_none());
    }
}
