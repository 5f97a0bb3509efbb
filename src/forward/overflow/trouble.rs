//! Trouble: what the spool's disk refuses, counted each time, and logged once for each reason and every ten minutes while it
//! goes on.

use std::time::Duration;

use tracing::error;

use super::RETRY_PERIOD;
use crate::{
    clock::Clock,
    forward::{error_chain, standing::REMIND_PERIOD},
    metrics::{Metrics, SpoolErrno, SpoolTrouble},
    spool::SpoolError,
    tick::Tick,
};

/// What the disk refuses of one kind of call.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// What is going on, if something is.
    now: Option<Now>,
}

/// What is going on.
#[derive(Debug)]
struct Now {
    /// What was logged last, without what differs each time.
    reason: String,
    /// When.
    told_at: Tick,
    told: SpoolTrouble,
}

impl Trouble {
    /// The call failed.
    pub(super) fn begin(&mut self, error: &SpoolError, metrics: &Metrics) {
        count(error, metrics);
        let reason = reason(error);
        let now = Clock::now();
        let cause = error_chain(error);
        let since = self.now.as_ref().map_or(now, |now| now.told.since);
        let told_at = match &self.now {
            Some(known) if known.reason == reason => {
                let is_due = now.since(known.told_at) >= REMIND_PERIOD;
                if is_due {
                    let failing_for = Duration::from_secs(now.since(since).as_secs());
                    error!(error = cause, ?failing_for, "spool error persists");
                }
                if is_due { now } else { known.told_at }
            }
            _ => {
                error!(error = cause, "spool error");
                now
            }
        };
        self.now = Some(Now {
            reason,
            told_at,
            told: SpoolTrouble {
                since,
                error: cause,
                retry_at: now.after(RETRY_PERIOD),
            },
        });
    }

    /// The call did not fail; gives whether it had before.
    pub(super) fn end(&mut self) -> bool {
        self.now.take().is_some()
    }

    /// Whether the call failed the last time.
    pub(super) const fn is_on(&self) -> bool {
        self.now.is_some()
    }

    /// What is refused, for those who ask.
    pub(super) fn told(&self) -> Option<SpoolTrouble> {
        self.now.as_ref().map(|now| now.told.clone())
    }
}

/// What makes an error another one. How full the spool is changes each time, and so does the name of the segment that
/// could not be made; but another file that is not safe is another thing to mend.
fn reason(error: &SpoolError) -> String {
    match error {
        SpoolError::Full { .. } | SpoolError::NoSpace { .. } | SpoolError::ReadOnly { .. } => {
            errno(error).label().to_owned()
        }
        SpoolError::Io { action, source, .. } => format!("{action}: {source}"),
        error => error_chain(error),
    }
}

/// Counts what the disk refused.
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
    fn the_name_of_a_new_segment_is_no_other_reason_and_a_file_to_mend_is() {
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
}
