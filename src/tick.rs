//! The core's time: a number it is handed.
//!
//! A [`Tick`] is a count of nanoseconds since an origin that the caller chose and keeps. The daemon
//! counts from the machine's boot with suspended time included (`CLOCK_BOOTTIME`), so that steps
//! of the wall clock change nothing; recorded traffic counts from the Unix epoch on its own
//! timestamps. The core never asks what time it is.

use std::time::Duration;

/// A point in time, in nanoseconds since the caller's origin.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tick(u64);

impl Tick {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The tick `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The tick that comes `span` later; the last representable one (584 years) if that is too far.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_runs_backwards_has_no_age() {
        assert_eq!(Tick::from_nanos(5).since(Tick::from_nanos(9)), Duration::ZERO);
    }

    #[test]
    fn a_span_beyond_the_end_of_time_saturates() {
        assert_eq!(Tick::from_nanos(5).after(Duration::MAX).nanos(), u64::MAX);
    }
}
