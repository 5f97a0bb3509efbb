//! The core's time: a number that the caller passes in.
//!
//! A [`Tick`] is a count of nanoseconds since an origin that the caller chose and keeps. The daemon
//! counts from a month before the machine's boot, suspended time included (`CLOCK_BOOTTIME`), so that changes
//! of the wall clock do not matter; recorded traffic counts from the Unix epoch on its own
//! timestamps. The core never asks what time it is.
//!
//! A [`WallTime`] is for people to read: it is only written out, and never decides anything.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use jiff::Timestamp;

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
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A point in civil time, in microseconds since the Unix epoch (negative before it).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WallTime(i64);

impl WallTime {
    /// The point `micros` microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The point `span` earlier; the first representable one (292,000 years BC) if that is too far.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// The point `span` later; the last representable one if that is too far.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// Appends `2026-11-22T10:00:00.123456Z`: RFC 3339 in UTC, six fraction digits (the most that
    /// RFC 5424 6.2.3 allows), always 27 octets.
    ///
    /// RFC 3339 has four-digit years only: a time outside 0000 to 9999 is written as the first or
    /// the last that can be.
    pub fn write_rfc3339(&self, out: &mut Vec<u8>) {
        write!(out, "{self}").expect("a Vec takes whatever is written to it");
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.clamp(RFC3339_MICROS_MIN, RFC3339_MICROS_MAX);
        let timestamp =
            Timestamp::from_microsecond(micros).expect("jiff represents all of this range");
        write!(f, "{timestamp:.6}")
    }
}

const RFC3339_MICROS_MIN: i64 = -62_167_219_200_000_000;

/// 9999-12-30T21:59:59.999999Z: jiff ends here, 26 hours before the year does, so that the time at
/// every offset from UTC is still within it.
const RFC3339_MICROS_MAX: i64 = 253_402_207_199_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_runs_backwards_has_no_age() {
        assert_eq!(
            Tick::from_nanos(5).since(Tick::from_nanos(9)),
            Duration::ZERO
        );
    }

    #[test]
    fn a_span_beyond_the_end_of_time_saturates() {
        assert_eq!(Tick::from_nanos(5).after(Duration::MAX).nanos(), u64::MAX);
    }

    #[track_caller]
    fn check_rfc3339(micros: i64, expected: &str) {
        let mut out = b"> ".to_vec();
        WallTime::from_micros(micros).write_rfc3339(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("> {expected}"));
    }

    #[test]
    fn wall_time_is_written_as_rfc3339_with_six_fraction_digits() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1, "1970-01-01T00:00:00.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_795_341_600_123_456, "2026-11-22T10:00:00.123456Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (4_107_542_400_500_000, "2100-03-01T00:00:00.500000Z"),
            (RFC3339_MICROS_MIN, "0000-01-01T00:00:00.000000Z"),
            (RFC3339_MICROS_MAX, "9999-12-30T21:59:59.999999Z"),
        ] {
            check_rfc3339(micros, expected);
        }
    }

    #[test]
    fn wall_time_beyond_four_digit_years_is_written_as_the_nearest_that_fits() {
        check_rfc3339(i64::MAX, "9999-12-30T21:59:59.999999Z");
        check_rfc3339(RFC3339_MICROS_MIN - 1, "0000-01-01T00:00:00.000000Z");
        check_rfc3339(i64::MIN, "0000-01-01T00:00:00.000000Z");
    }

    #[test]
    fn wall_time_before_the_beginning_saturates() {
        assert_eq!(
            WallTime::from_micros(5)
                .before(Duration::from_micros(7))
                .micros(),
            -2
        );
        assert_eq!(
            WallTime::from_micros(-5).before(Duration::MAX).micros(),
            i64::MIN
        );
    }
}
