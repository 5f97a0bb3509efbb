//! Timestamps: the point in time that the TIMESTAMP of a message means.
//!
//! ```text
//! 2026-03-01T18:46:11.123+01:00     head, fraction, tail: the last head and tail are kept with their second, so that
//! └────── head ─────┘ └─┘└tail┘     a second is computed once, not once a line
//! ```
//!
//! # Guarantees
//!
//! - Every form that `parse` finds has a meaning, except the time since start that a Cisco device without a clock sends
//!   (`3d02h`).
//! - A timestamp without an offset counts as UTC: a replay needs only the distance between two timestamps.
//! - A timestamp without a year gets the year that continues from the timestamp before: the next year's January follows
//!   December, and a straggler of December still belongs to the old year. The first timestamp of a log gets the latest year
//!   in which it is not later than its file.
//!
//! # Left out
//!
//! Time zones by name and the hour that a clock is put back: `time` handles time that runs backwards.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan as _};
use memchr::memchr2;

use crate::core::tick::WallTime;

/// Reads the timestamps of one log after the other.
#[derive(Debug)]
pub(super) struct Timestamps {
    /// The latest second that a timestamp of this file can mean, since the epoch. A day later than the file, because the
    /// offset of its clock is unknown.
    latest: i64,
    /// The second of the timestamp before.
    previous: Option<i64>,
    /// No timestamp of this file was read yet.
    begins: bool,
    /// The head and tail that were read last, and the second that they mean.
    head: Vec<u8>,
    tail: Vec<u8>,
    second: Option<i64>,
}

impl Timestamps {
    /// The state before the first timestamp.
    pub(super) const fn new() -> Self {
        Self {
            latest: i64::MAX,
            previous: None,
            begins: true,
            head: Vec::new(),
            tail: Vec::new(),
            second: None,
        }
    }

    /// The timestamps that follow are from a file that was last written at `written`.
    pub(super) fn begin_file(&mut self, written: WallTime) {
        self.latest = written.micros().div_euclid(1_000_000).saturating_add(DAY);
        self.begins = true;
        self.second = None;
    }

    /// The time that `timestamp` means, in nanoseconds since the epoch; `None` if it is not a point in time.
    pub(super) fn read(&mut self, timestamp: &[u8]) -> Option<i64> {
        let (head, fraction, tail) = split(timestamp);
        let second = match self.second {
            Some(second) if self.head == head && self.tail == tail => second,
            _ => {
                let second = self.resolve(&Civil::read(head, tail)?)?;
                self.head.clear();
                self.head.extend_from_slice(head);
                self.tail.clear();
                self.tail.extend_from_slice(tail);
                self.second = Some(second);
                self.previous = Some(second);
                self.begins = false;
                second
            }
        };
        second.checked_mul(NANOS)?.checked_add(nanos(fraction))
    }

    fn resolve(&self, civil: &Civil) -> Option<i64> {
        match civil.year {
            Some(year) => civil.second_in(year),
            None => self.guess(civil),
        }
    }

    /// The second of a timestamp without a year.
    fn guess(&self, civil: &Civil) -> Option<i64> {
        let Some(previous) = self.previous else {
            return self.latest_of(civil);
        };
        if self.begins {
            let latest = self.latest_of(civil)?;
            let next = civil.second_in(year_of(latest)? + 1)?;
            // The years of this log were guessed one too late, and this is its next file.
            let goes_on =
                latest < previous - DAY && (previous - DAY..=previous + DAY).contains(&next);
            return Some(if goes_on { next } else { latest });
        }
        let year = year_of(previous)?;
        let before = civil.second_in(year - 1)?;
        if before >= previous - DAY {
            return Some(before);
        }
        let same = civil.second_in(year)?;
        if same >= previous - DAY {
            return Some(same);
        }
        let next = civil.second_in(year + 1)?;
        // Otherwise a clock was set back: a device without one starts at January 1.
        let goes_on = next <= self.latest || next - previous <= HALF_YEAR;
        Some(if goes_on { next } else { same })
    }

    /// The second in the latest year in which `civil` is not later than the file.
    fn latest_of(&self, civil: &Civil) -> Option<i64> {
        let last = year_of(self.latest).unwrap_or(YEAR_MAX).min(YEAR_MAX);
        (last - LEAP_YEARS_APART_MAX..=last)
            .rev()
            .filter(|year| civil.exists_in(*year))
            .filter_map(|year| civil.second_in(year))
            .find(|second| *second <= self.latest)
            .or_else(|| civil.second_in(last))
    }
}

/// A timestamp as it is written.
#[derive(Debug, Eq, PartialEq)]
struct Civil {
    year: Option<i16>,
    month: i8,
    day: i8,
    second: i64,
    /// Seconds that its clock is ahead of UTC.
    offset: i64,
}

impl Civil {
    /// Reads a timestamp without its fraction.
    fn read(head: &[u8], tail: &[u8]) -> Option<Self> {
        match head {
            [_, _, _, _, b'-', ..] => Self::read_iso(head, tail),
            _ => Self::read_words(head, tail),
        }
    }

    /// `yyyy-mm-ddThh:mm:ss` and an offset, or none.
    fn read_iso(head: &[u8], tail: &[u8]) -> Option<Self> {
        let zone = match head.get(ISO_OCTETS..)? {
            [] => tail,
            zone => zone,
        };
        let offset = match zone {
            [sign @ (b'+' | b'-'), h1, h2, digits @ ..] => {
                let minutes = number(digits.strip_prefix(b":").unwrap_or(digits))?;
                let seconds = number(&[*h1, *h2])? * 3600 + minutes * 60;
                if *sign == b'-' { -seconds } else { seconds }
            }
            _ => 0,
        };
        Some(Self {
            year: Some(i16::try_from(number(head.get(..4)?)?).ok()?),
            month: i8::try_from(number(head.get(5..7)?)?).ok()?,
            day: i8::try_from(number(head.get(8..10)?)?).ok()?,
            second: clock(head.get(11..ISO_OCTETS)?)?,
            offset,
        })
    }

    /// A month, a day, a time, and a year or none, in any order that devices send.
    fn read_words(head: &[u8], tail: &[u8]) -> Option<Self> {
        let (mut year, mut month, mut day, mut second) = (None, None, None, None);
        let words = head.split(|octet| *octet == b' ');
        for word in words.chain(tail.split(|octet| *octet == b' ')) {
            match word {
                [] => {}
                [_] | [_, _] => day = Some(i8::try_from(number(word)?).ok()?),
                [a, b, c] => month = Some(month_of([*a, *b, *c])?),
                [_, _, _, _] => year = Some(i16::try_from(number(word)?).ok()?),
                _ => second = Some(clock(word)?),
            }
        }
        Some(Self {
            year,
            month: month?,
            day: day?,
            second: second?,
            offset: 0,
        })
    }

    fn exists_in(&self, year: i16) -> bool {
        Date::new(year, self.month, self.day).is_ok()
    }

    /// Seconds since the epoch. A day that the month does not have is a day of the next month.
    fn second_in(&self, year: i16) -> Option<i64> {
        let first = Date::new(year, self.month, 1).ok()?;
        let date = first.checked_add((i32::from(self.day) - 1).days()).ok()?;
        let midnight = DateTime::from_parts(date, jiff::civil::Time::midnight());
        let midnight = Offset::UTC.to_timestamp(midnight).ok()?.as_second();
        Some(midnight + self.second - self.offset)
    }
}

/// `timestamp` before its fraction, the digits of the fraction, and the rest.
fn split(timestamp: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let Some((head, [_, rest @ ..])) =
        memchr2(b'.', b',', timestamp).map(|at| timestamp.split_at(at))
    else {
        return (timestamp, &[], &[]);
    };
    let digits = rest
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    let (fraction, tail) = rest.split_at(digits);
    (head, fraction, tail)
}

/// The nanoseconds of a fraction; digits after the ninth are ignored.
fn nanos(fraction: &[u8]) -> i64 {
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0'));
    digits
        .take(9)
        .fold(0, |nanos, digit| nanos * 10 + i64::from(digit & 0x0f))
}

fn clock(text: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = text else {
        return None;
    };
    Some(number(&[*h1, *h2])? * 3600 + number(&[*m1, *m2])? * 60 + number(&[*s1, *s2])?)
}

/// A number of a few digits.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + i64::from(digit - b'0'))
    })
}

fn month_of(name: [u8; 3]) -> Option<i8> {
    let name = name.map(|letter| letter | 0x20);
    let at = MONTHS.iter().position(|month| **month == name)?;
    i8::try_from(at + 1).ok()
}

fn year_of(second: i64) -> Option<i16> {
    let time = Timestamp::from_second(second).ok()?;
    Some(Offset::UTC.to_datetime(time).year())
}

const MONTHS: [&[u8; 3]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

const ISO_OCTETS: usize = 19;

const NANOS: i64 = 1_000_000_000;

const DAY: i64 = 24 * 3600;

/// A timestamp without a year does not continue into the next year over a longer gap, if it would then be later than its
/// file.
const HALF_YEAR: i64 = 183 * DAY;

/// 1896 to 1904 and 2096 to 2104.
const LEAP_YEARS_APART_MAX: i16 = 8;

/// `parse` accepts no later year.
const YEAR_MAX: i16 = 2199;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A log may hold any timestamps in any order.
        #[test]
        fn no_timestamps_are_too_strange_to_be_read_one_after_the_other(
            written: i64,
            timestamps in proptest::collection::vec(
                prop_oneof![
                    "[JFMASOND][aepuco][nbrylgptvc] [ 0-9][0-9] [0-2][0-9]:[0-5][0-9]:[0-6][0-9]([.][0-9]{0,12})?( [12][0-9]{3})?",
                    "[12][0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](,[0-9]{3})?(Z|[+-][0-9]{2}:?[0-9]{2})?",
                    "[ -~]{0,40}",
                ],
                0..20,
            ),
        ) {
            let mut reader = Timestamps::new();
            reader.begin_file(WallTime::from_micros(written));
            for timestamp in &timestamps {
                reader.read(timestamp.as_bytes());
            }
            reader.begin_file(WallTime::from_micros(written));
            for timestamp in &timestamps {
                reader.read(timestamp.as_bytes());
            }
        }
    }

    /// The timestamps read one after the other, from a file last written at `written`.
    #[track_caller]
    fn check(written: &str, timestamps: &[(&str, &str)]) {
        let mut reader = Timestamps::new();
        reader.begin_file(wall(written));
        for (timestamp, expected) in timestamps {
            assert_eq!(read(&mut reader, timestamp), *expected, "{timestamp}");
        }
    }

    fn read(reader: &mut Timestamps, timestamp: &str) -> String {
        let Some(nanos) = reader.read(timestamp.as_bytes()) else {
            return "none".to_owned();
        };
        Timestamp::from_nanosecond(nanos.into())
            .unwrap()
            .to_string()
    }

    fn wall(text: &str) -> WallTime {
        let timestamp: Timestamp = text.parse().unwrap();
        WallTime::from_micros(timestamp.as_microsecond())
    }

    const WRITTEN: &str = "2026-11-22T10:00:00Z";

    #[test]
    fn every_form_means_a_point_in_time() {
        for (timestamp, expected) in [
            ("Mar  1 18:46:11", "2026-03-01T18:46:11Z"),
            ("Mar 1 18:46:11", "2026-03-01T18:46:11Z"),
            ("MAR 01 18:46:11.123456", "2026-03-01T18:46:11.123456Z"),
            ("Mar  1 2025 18:46:11", "2025-03-01T18:46:11Z"),
            ("Mar 01 2025 18:46:11.5", "2025-03-01T18:46:11.5Z"),
            ("Mar  1 18:46:11 2025", "2025-03-01T18:46:11Z"),
            ("Mar  1 18:46:11.25 2025", "2025-03-01T18:46:11.25Z"),
            ("2025 Mar  1 18:46:11", "2025-03-01T18:46:11Z"),
            ("2026-03-01T18:46:11.123+01:00", "2026-03-01T17:46:11.123Z"),
            ("2026-03-01T18:46:11-0930", "2026-03-02T04:16:11Z"),
            ("2026-03-01t18:46:11z", "2026-03-01T18:46:11Z"),
            ("2026-03-01 18:46:11,123", "2026-03-01T18:46:11.123Z"),
            ("2026-03-01 18:46:11", "2026-03-01T18:46:11Z"),
            ("2026-06-30T23:59:60Z", "2026-07-01T00:00:00Z"),
            (
                "2026-03-01T18:46:11.12345678999999Z",
                "2026-03-01T18:46:11.123456789Z",
            ),
            ("3d02h", "none"),
            ("00:00:46", "none"),
            ("123:45:59", "none"),
        ] {
            check(WRITTEN, &[(timestamp, expected)]);
        }
    }

    #[test]
    fn the_first_timestamp_is_of_the_latest_year_that_the_file_knows() {
        check(WRITTEN, &[("Nov 22 09:59:59", "2026-11-22T09:59:59Z")]);
        // The clock may be up to a day ahead of UTC.
        check(WRITTEN, &[("Nov 23 09:59:59", "2026-11-23T09:59:59Z")]);
        check(WRITTEN, &[("Nov 24 00:00:00", "2025-11-24T00:00:00Z")]);
        check(
            "2026-01-01T00:30:00Z",
            &[("Dec 31 23:00:00", "2025-12-31T23:00:00Z")],
        );
        check(WRITTEN, &[("Feb 29 12:00:00", "2024-02-29T12:00:00Z")]);
    }

    #[test]
    fn december_is_followed_by_the_next_years_january_and_stragglers_stay_behind() {
        check(
            "2026-01-05T00:00:00Z",
            &[
                ("Dec 31 23:59:58", "2025-12-31T23:59:58Z"),
                ("Jan  1 00:00:01", "2026-01-01T00:00:01Z"),
                ("Dec 31 23:59:59", "2025-12-31T23:59:59Z"),
                ("Jan  1 00:00:02", "2026-01-01T00:00:02Z"),
            ],
        );
        // Also if the year was guessed too late, because the file was copied later.
        check(
            WRITTEN,
            &[
                ("Oct  1 00:00:00", "2026-10-01T00:00:00Z"),
                ("Dec 31 23:59:58", "2026-12-31T23:59:58Z"),
                ("Jan  1 00:00:01", "2027-01-01T00:00:01Z"),
            ],
        );
    }

    #[test]
    fn a_clock_that_starts_in_january_does_not_begin_a_year() {
        check(
            WRITTEN,
            &[
                ("May  5 12:00:00", "2026-05-05T12:00:00Z"),
                ("Jan  1 00:00:07", "2026-01-01T00:00:07Z"),
                ("May  5 12:01:00", "2026-05-05T12:01:00Z"),
            ],
        );
    }

    #[test]
    fn a_long_silence_within_a_year_goes_forward() {
        check(
            WRITTEN,
            &[
                ("Jan  5 12:00:00", "2026-01-05T12:00:00Z"),
                ("Oct 30 00:00:07", "2026-10-30T00:00:07Z"),
            ],
        );
    }

    #[test]
    fn the_next_file_goes_on_or_starts_again() {
        let mut reader = Timestamps::new();
        reader.begin_file(wall(WRITTEN));
        assert_eq!(read(&mut reader, "Nov 30 23:59:59"), "2025-11-30T23:59:59Z");
        reader.begin_file(wall(WRITTEN));
        assert_eq!(read(&mut reader, "Dec  1 00:00:00"), "2025-12-01T00:00:00Z");

        let mut reader = Timestamps::new();
        reader.begin_file(wall(WRITTEN));
        assert_eq!(read(&mut reader, "Oct 30 00:00:00"), "2026-10-30T00:00:00Z");
        assert_eq!(read(&mut reader, "Nov 30 23:59:59"), "2026-11-30T23:59:59Z");
        reader.begin_file(wall(WRITTEN));
        assert_eq!(read(&mut reader, "Dec  1 00:00:00"), "2026-12-01T00:00:00Z");
        reader.begin_file(wall(WRITTEN));
        assert_eq!(read(&mut reader, "Oct 30 00:00:00"), "2026-10-30T00:00:00Z");
    }

    #[test]
    fn a_day_that_does_not_exist_is_in_the_next_month() {
        check(WRITTEN, &[("2026-02-30T00:00:00Z", "2026-03-02T00:00:00Z")]);
        check(
            WRITTEN,
            &[
                ("Feb 28 00:00:00", "2026-02-28T00:00:00Z"),
                ("Feb 29 00:00:00", "2026-03-01T00:00:00Z"),
            ],
        );
    }

    #[test]
    fn equal_seconds_with_other_fractions_and_offsets_are_told_apart() {
        check(
            WRITTEN,
            &[
                ("2026-03-01T18:46:11.1Z", "2026-03-01T18:46:11.1Z"),
                ("2026-03-01T18:46:11.2Z", "2026-03-01T18:46:11.2Z"),
                ("2026-03-01T18:46:11.2+01:00", "2026-03-01T17:46:11.2Z"),
                ("2026-03-01T18:46:11Z", "2026-03-01T18:46:11Z"),
            ],
        );
    }
}
