//! Finds where a timestamp ends, in all forms that senders use in a header. The scanners of its parts
//! also serve the mask that finds times inside a text.
//!
//! # Guarantees
//!
//! - A timestamp is recognised by all of its octets, with its numbers in range. An incomplete one is no
//!   timestamp.
//! - Linear in the length of the timestamp. Nothing is computed from its digits.
//!
//! # Left out
//!
//! The point in time that a timestamp means. Days per month.

use super::octets;

/// Which forms of ISO 8601 are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dialect {
    /// RFC 5424 6.2.3 (RFC 3339, `T` required); also without an offset, and with lower-case letters.
    Rfc5424,
    /// Also with a space for the `T`, a comma for the point, and an offset without a colon.
    Legacy,
}

/// Length of the RFC 5424 timestamp at the front of `octets`.
#[inline]
pub(super) fn rfc5424(octets: &[u8]) -> Option<usize> {
    iso(octets, Dialect::Rfc5424).map(|behind| octets.len() - behind.len())
}

/// Length of the timestamp at the front of `octets` in any form that legacy senders use. SP, `:` or the
/// end follows it.
///
/// ```text
/// Mmm dd hh:mm:ss[.frac]     Mmm d hh:mm:ss    Mmm dd yyyy hh:mm:ss    Mmm dd hh:mm:ss yyyy
/// yyyy Mmm dd hh:mm:ss       yyyy-mm-dd(T| )hh:mm:ss[.frac][Z|+hh:mm]
/// ```
#[inline]
pub(super) fn legacy(octets: &[u8]) -> Option<usize> {
    let behind = match octets {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'-', ..] => {
            iso(octets, Dialect::Legacy)?
        }
        [_, _, _, b' ', behind @ ..] => {
            month(octets)?;
            month_first(behind)?
        }
        [_, _, _, _, b' ', month_on @ ..] => {
            year(octets)?;
            time(month_and_day(month_on)?)?
        }
        _ => return None,
    };
    is_boundary(behind).then_some(octets.len() - behind.len())
}

/// Length of the uptime that Cisco devices without a clock send: `3d02h`, `1w2d`, `00:00:46`. SP, `:` or
/// the end follows it.
pub(super) fn uptime(octets: &[u8]) -> Option<usize> {
    let (_, behind) = digits(octets)?;
    let behind = match behind {
        [b':', m1, m2, b':', s1, s2, behind @ ..] => {
            number(*m1, *m2, 0, 59)?;
            number(*s1, *s2, 0, 59)?;
            fraction(behind, b".")
        }
        _ => {
            let mut behind = octets;
            while let Some((_, unit)) = digits(behind) {
                let [b'y' | b'w' | b'd' | b'h' | b'm' | b's', next @ ..] = unit else {
                    return None;
                };
                behind = next;
            }
            behind
        }
    };
    is_boundary(behind).then_some(octets.len() - behind.len())
}

/// The octets behind `yyyy-mm-ddThh:mm:ss`, its fraction and its offset.
#[inline]
fn iso(octets: &[u8], dialect: Dialect) -> Option<&[u8]> {
    let [
        _,
        _,
        _,
        _,
        b'-',
        m1,
        m2,
        b'-',
        d1,
        d2,
        separator,
        clock @ ..,
    ] = octets
    else {
        return None;
    };
    year(octets)?;
    number(*m1, *m2, 1, 12)?;
    number(*d1, *d2, 1, 31)?;
    let (separator_fits, points): (bool, &[u8]) = match dialect {
        Dialect::Rfc5424 => (matches!(separator, b'T' | b't'), b"."),
        Dialect::Legacy => (matches!(separator, b'T' | b't' | b' '), b".,"),
    };
    if !separator_fits {
        return None;
    }
    let behind = fraction(hms(clock)?, points);
    match (behind, dialect) {
        ([b'Z' | b'z', behind @ ..], _) => Some(behind),
        ([b'+' | b'-', h1, h2, b':', m1, m2, behind @ ..], _)
        | ([b'+' | b'-', h1, h2, m1, m2, behind @ ..], Dialect::Legacy) => {
            number(*h1, *h2, 0, 23)?;
            number(*m1, *m2, 0, 59)?;
            Some(behind)
        }
        _ => Some(behind),
    }
}

/// The octets behind a timestamp that begins with `Mmm `, which was read.
#[inline]
fn month_first(octets: &[u8]) -> Option<&[u8]> {
    let clock = day(octets)?;
    if let Some(behind) = time(clock) {
        return Some(match behind {
            // The year may follow the time. But `2001:db8::1` is a hostname.
            [b' ', year_on @ ..] => match year(year_on) {
                Some(behind @ ([] | [b' ', ..] | [b':'] | [b':', b' ', ..])) => behind,
                _ => behind,
            },
            _ => behind,
        });
    }
    match year(clock)? {
        [b' ', clock @ ..] => time(clock),
        _ => None,
    }
}

/// The octets behind `Mmm dd `.
fn month_and_day(octets: &[u8]) -> Option<&[u8]> {
    month(octets)?;
    match octets {
        [_, _, _, b' ', behind @ ..] => day(behind),
        _ => None,
    }
}

/// Whether the name of a month, in any case, stands at the front.
#[inline]
pub(crate) fn month(octets: &[u8]) -> Option<()> {
    let [a, b, c, ..] = octets else {
        return None;
    };
    // With this bit set, only letters are letters.
    match &[a | 0x20, b | 0x20, c | 0x20] {
        b"jan" | b"feb" | b"mar" | b"apr" | b"may" | b"jun" | b"jul" | b"aug" | b"sep" | b"oct"
        | b"nov" | b"dec" => Some(()),
        _ => None,
    }
}

/// The octets behind `dd `, ` d ` or `d `.
#[inline]
fn day(octets: &[u8]) -> Option<&[u8]> {
    match octets {
        [b' ', b'1'..=b'9', b' ', behind @ ..] | [b'1'..=b'9', b' ', behind @ ..] => Some(behind),
        [d1, d2, b' ', behind @ ..] => number(*d1, *d2, 1, 31).map(|()| behind),
        _ => None,
    }
}

/// The octets behind `hh:mm:ss` and a fraction.
#[inline]
fn time(octets: &[u8]) -> Option<&[u8]> {
    hms(octets).map(|behind| fraction(behind, b"."))
}

/// The octets behind `hh:mm:ss`. Second 60 is a leap second.
#[inline]
pub(crate) fn hms(octets: &[u8]) -> Option<&[u8]> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, behind @ ..] = octets else {
        return None;
    };
    number(*h1, *h2, 0, 23)?;
    number(*m1, *m2, 0, 59)?;
    number(*s1, *s2, 0, 60)?;
    Some(behind)
}

/// The octets behind a point and its digits; all of `octets` if there is no fraction.
#[inline]
pub(crate) fn fraction<'a>(octets: &'a [u8], points: &[u8]) -> &'a [u8] {
    match octets {
        [point, behind @ ..] if points.contains(point) => {
            digits(behind).map_or(octets, |(_, behind)| behind)
        }
        _ => octets,
    }
}

/// The octets behind a year: four digits that begin with 19, 20 or 21, so that few other numbers are years.
#[inline]
pub(crate) fn year(octets: &[u8]) -> Option<&[u8]> {
    match octets {
        [b'1', b'9', b'0'..=b'9', b'0'..=b'9', behind @ ..]
        | [b'2', b'0' | b'1', b'0'..=b'9', b'0'..=b'9', behind @ ..] => Some(behind),
        _ => None,
    }
}

/// The digits at the front, at least one, and the octets behind them.
#[inline]
fn digits(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let count = octets::digits(octets);
    (count > 0).then(|| octets.split_at(count))
}

/// Whether two digits are a number from `min` to `max`.
#[inline]
pub(crate) fn number(tens: u8, ones: u8, min: u8, max: u8) -> Option<()> {
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    let number = (tens - b'0') * 10 + (ones - b'0');
    (min..=max).contains(&number).then_some(())
}

#[inline]
const fn is_boundary(behind: &[u8]) -> bool {
    matches!(behind, [] | [b' ' | b':', ..])
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::indexing_slicing,
        reason = "a test that indexes wrongly shall fail"
    )]

    use super::*;

    /// `scan` finds all of `timestamp`, alone and before what may follow. Cut short it is a shorter timestamp
    /// or none.
    fn check(scan: fn(&[u8]) -> Option<usize>, timestamp: &str) {
        for behind in ["", " host", ": text"] {
            let input = format!("{timestamp}{behind}");
            assert_eq!(scan(input.as_bytes()), Some(timestamp.len()), "{input:?}");
        }
        for (end, _) in timestamp.char_indices() {
            let short = &timestamp.as_bytes()[..end];
            assert!(
                scan(short).is_none_or(|octets| octets <= end),
                "{timestamp:?} cut at {end}"
            );
        }
    }

    fn check_none(scan: fn(&[u8]) -> Option<usize>, input: &str) {
        assert_eq!(scan(input.as_bytes()), None, "{input:?}");
    }

    #[test]
    fn every_legacy_form_is_found() {
        for timestamp in [
            "Mar  1 18:46:11",
            "Mar 1 18:46:11",
            "Mar 01 18:46:11",
            "MAR 31 23:59:60",
            "dec 10 00:00:00",
            "Mar  1 18:46:11.123456",
            "Mar  1 2026 18:46:11",
            "Mar 01 2026 18:46:11.123",
            "Mar  1 18:46:11 2026",
            "2026 Mar  1 18:46:11",
            "2026 Mar 11 13:42:44.123",
            "2026-03-01T18:46:11.123+01:00",
            "2026-03-01T18:46:11Z",
            "2026-03-01t18:46:11z",
            "2026-03-01 18:46:11",
            "2026-03-01 18:46:11,123",
            "2026-03-01T18:46:11+0100",
            "2026-03-01T18:46:11.123456789-09:30",
        ] {
            check(legacy, timestamp);
        }
        for month in [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ] {
            check(legacy, &format!("{month} 14 15:16:01"));
        }
    }

    /// CVE-2022-38725, CVE-2007-6437: incomplete timestamps, and timestamps with nothing behind them.
    #[test]
    fn what_is_short_or_out_of_range_is_no_timestamp() {
        for input in [
            "",
            "M",
            "Mar",
            "Mar ",
            "Mar 1",
            "Mar  1 ",
            "Mar  1 18:46:1",
            "Mar  1 18:46",
            "Mar  0 18:46:11",
            "Mar 32 18:46:11",
            "Mar  1 24:46:11",
            "Mar  1 18:60:11",
            "Mar  1 18:46:61",
            "Mar  1 18:46:11x",
            "Mar  1 18:46:11.",
            "Mar  1 18:46:11. host",
            "Mar  1 2026",
            "Mar  1 2026 ",
            "Mat  1 18:46:11",
            "M\u{e1}r 1 18:46:11",
            "2026",
            "2026 ",
            "2026 Mar",
            "2026-",
            "2026-13-01T18:46:11Z",
            "2026-03-32T18:46:11Z",
            "2026-03-01T18:46:11+24:00",
            "2026-03-01T18:46:11Zx",
            "2026-03-01",
            "9999 Mar  1 18:46:11",
        ] {
            check_none(legacy, input);
        }
    }

    #[test]
    fn a_word_behind_the_time_is_not_a_year_because_it_begins_like_one() {
        assert_eq!(legacy(b"Mar  1 18:46:11 2026a text"), Some(15));
        assert_eq!(legacy(b"Mar  1 18:46:11 10.1.1.1 text"), Some(15));
        assert_eq!(legacy(b"Mar  1 18:46:11 2001:db8::1 text"), Some(15));
        assert_eq!(legacy(b"Mar  1 18:46:11 2001::1 text"), Some(15));
        assert_eq!(legacy(b"Mar  1 18:46:11 2026"), Some(20));
    }

    #[test]
    fn rfc5424_timestamps_are_found() {
        for timestamp in [
            "1985-04-12T23:20:50.52Z",
            "2003-08-24T05:14:15.000003-07:00",
            "2026-03-01T18:46:11.123456789012345678901234567890Z",
            "2026-03-01t18:46:60z",
            "2026-03-01T18:46:11",
        ] {
            check(rfc5424, timestamp);
        }
        for input in [
            "-",
            "2026-03-01",
            "2026-03-01 18:46:11Z",
            "2026-13-01T18:46:11Z",
            "2026-03-01T25:46:11Z",
            "1380653443.857790",
            "Mar  1 18:46:11",
        ] {
            check_none(rfc5424, input);
        }
    }

    #[test]
    fn uptimes_are_found() {
        for timestamp in [
            "3d02h",
            "1w2d",
            "1y12w",
            "00:00:46",
            "123:45:59",
            "00:00:46.123",
        ] {
            check(uptime, timestamp);
        }
        for input in [
            "",
            "3",
            "3d0",
            "d",
            "00:00",
            "00:60:00",
            "3d02hx",
            "1234567: x",
        ] {
            check_none(uptime, input);
        }
    }
}
