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
        let reason = reason(error);
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
        SpoolError::Unsafe { .. } => SpoolErrno::Unsafe,
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
