//! Trouble: what the spool's disk refuses, counted each time and logged once for each reason.

use tracing::error;

use crate::{
    forward::error_chain,
    metrics::{Metrics, SpoolErrno},
    spool::SpoolError,
};

/// What the disk refuses of one kind of call.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// What was logged, as long as it goes on.
    told: Option<String>,
}

impl Trouble {
    /// The call failed.
    pub(super) fn begin(&mut self, error: &SpoolError, metrics: &Metrics) {
        count(error, metrics);
        // How full it is changes each time.
        let reason = match error {
            SpoolError::Full { .. } => String::new(),
            error => error_chain(error),
        };
        if self.told.as_ref() != Some(&reason) {
            error!(error = error_chain(error), "the spool fails");
            self.told = Some(reason);
        }
    }

    /// The call did not fail; gives whether it had before.
    pub(super) fn end(&mut self) -> bool {
        self.told.take().is_some()
    }

    /// Whether the call failed the last time.
    pub(super) const fn is_on(&self) -> bool {
        self.told.is_some()
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
        SpoolError::Unsafe { .. } => SpoolErrno::Unsafe,
        SpoolError::Busy { .. }
        | SpoolError::Format { .. }
        | SpoolError::Foreign { .. }
        | SpoolError::TooLong { .. }
        | SpoolError::Io { .. } => SpoolErrno::Other,
    }
}
