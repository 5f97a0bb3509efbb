//! Recognises dates and times of day inside a text: the forms that `<timestamp>` folds.
//!
//! ```text
//! 2026-11-22T10:00:00.123Z    2026-11-22 10:00:00,123 +0100    2026/11/22 10:00    2026-11-22
//! 20261122T100000Z            22/Nov/2026:10:00:00 +0000       22-Nov-2026         22/11/2026
//! [Sun ]Nov 22 10:00:00[ CET][ 2026]    Nov 22 2026 10:00:00   Nov 22, 2026        10:00:00.123456
//! [Sun, ]22 Nov 2026[ 10:00:00 GMT]
//! ```
//!
//! # Guarantees
//!
//! - All numbers are in range, and it is not part of a longer word or chain: `12:34:56:78` holds no time.
//! - A year is 1900 to 2199. `Nov 22` alone is no date (`May 10 come in?`).
//!
//! # Left out
//!
//! Seconds since the epoch: they are a number. Names of months in full or in other languages. Hours and
//! minutes without a date: they may be anything.

use super::octet::{DIGIT, WORD, is};
use crate::core::parse::timestamp::{fraction, hms, month, number, year};

/// The form of a date or time in a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WrittenTime {
    /// A date, with or without a time of day.
    Dated,
    /// A time of day alone.
    OfDay,
}

/// Length and form of the date or time that begins with a digit at the front of `rest`.
pub(super) fn numeric(rest: &[u8]) -> Option<(usize, WrittenTime)> {
    let (end, form) = match rest {
        [_, _, b':', ..] => (clock(rest)?, WrittenTime::OfDay),
        [_, _, _, _, b'-' | b'/', ..] => (year_first(rest)?, WrittenTime::Dated),
        [_, _, _, _, _, _, _, _, b'T' | b't', ..] => (basic(rest)?, WrittenTime::Dated),
        [_, separator @ (b'/' | b'-'), behind @ ..]
        | [_, _, separator @ (b'/' | b'-'), behind @ ..] => {
            (day_first(rest, *separator, behind)?, WrittenTime::Dated)
        }
        [_, b' ', behind @ ..] | [_, _, b' ', behind @ ..] => {
            (day_and_month(rest, behind)?, WrittenTime::Dated)
        }
        _ => return None,
    };
    Some((rest.len() - end.len(), form))
}

/// Length of the date that begins with the name of a month or a day at the front of `rest`.
pub(super) fn named(rest: &[u8]) -> Option<usize> {
    let [a, b, c, behind @ ..] = rest else {
        return None;
    };
    if !matches!(behind, [b' ' | b',', ..]) || !b.is_ascii_lowercase() || !c.is_ascii_lowercase() {
        return None;
    }
    let end = if WEEKDAYS.contains(&[*a, *b, *c]) {
        match behind {
            [b',', b' ', day_on @ ..] => {
                let [b' ', month_on @ ..] = one_or_two(day_on, 1, 31)? else {
                    return None;
                };
                day_and_month(day_on, month_on)?
            }
            [b' ', month_on @ ..] => month_first(month_on)?,
            _ => return None,
        }
    } else {
        month_first(rest)?
    };
    Some(rest.len() - end.len())
}

/// The octets behind `yyyy-mm-dd` or `yyyy/mm/dd` and a time.
fn year_first(rest: &[u8]) -> Option<&[u8]> {
    let [_, _, _, _, s1, m1, m2, s2, d1, d2, behind @ ..] = rest else {
        return None;
    };
    year(rest)?;
    number(*m1, *m2, 1, 12)?;
    number(*d1, *d2, 1, 31)?;
    if s1 != s2 {
        return None;
    }
    let timed = match behind {
        [b'T' | b't' | b' ' | b'_' | b'-', clock_on @ ..] => {
            clock(clock_on).or_else(|| hours_and_minutes(clock_on))
        }
        _ => None,
    };
    timed.or_else(|| date_end(behind))
}

/// The octets behind `yyyymmddThhmmss`.
fn basic(rest: &[u8]) -> Option<&[u8]> {
    let [
        _,
        _,
        _,
        _,
        m1,
        m2,
        d1,
        d2,
        _,
        h1,
        h2,
        i1,
        i2,
        s1,
        s2,
        behind @ ..,
    ] = rest
    else {
        return None;
    };
    year(rest)?;
    number(*m1, *m2, 1, 12)?;
    number(*d1, *d2, 1, 31)?;
    number(*h1, *h2, 0, 23)?;
    number(*i1, *i2, 0, 59)?;
    number(*s1, *s2, 0, 60)?;
    let behind = fraction(behind, b".,");
    zone(behind).or_else(|| ends(behind))
}

/// The octets behind `dd/Mmm/yyyy`, `dd/mm/yyyy` or `mm/dd/yyyy`, or one with hyphens, and a time. `behind` begins
/// behind the first separator.
fn day_first<'t>(rest: &'t [u8], separator: u8, behind: &'t [u8]) -> Option<&'t [u8]> {
    let day_on = one_or_two(rest, 1, 31)?;
    if day_on.len() != behind.len() + 1 {
        return None;
    }
    let year_on = match behind {
        [_, _, _, s, year_on @ ..] if *s == separator && month(behind).is_some() => year_on,
        _ => match one_or_two(behind, 1, 31)? {
            [s, year_on @ ..] if *s == separator => year_on,
            _ => return None,
        },
    };
    let behind = year(year_on)?;
    let timed = match behind {
        [b':' | b' ' | b'T', clock_on @ ..] => clock(clock_on),
        _ => None,
    };
    timed.or_else(|| date_end(behind))
}

/// The octets behind `dd Mmm yyyy` and a time. `month_on` begins at the month.
fn day_and_month<'t>(rest: &'t [u8], month_on: &'t [u8]) -> Option<&'t [u8]> {
    one_or_two(rest, 1, 31)?;
    month(month_on)?;
    let [_, _, _, b' ', year_on @ ..] = month_on else {
        return None;
    };
    dated(year(year_on)?)
}

/// The octets behind `Mmm dd hh:mm:ss`, with a year before or behind the time, or behind `Mmm dd` and a year.
fn month_first(rest: &[u8]) -> Option<&[u8]> {
    month(rest)?;
    let [_, _, _, b' ', day_on @ ..] = rest else {
        return None;
    };
    let day_on = match day_on {
        [b' ', behind @ ..] if matches!(behind, [b'1'..=b'9', b' ', ..]) => behind,
        _ => day_on,
    };
    let behind = match one_or_two(day_on, 1, 31)? {
        [b',', b' ', year_on @ ..] => return dated(year(year_on)?),
        [b' ', behind @ ..] => behind,
        _ => return None,
    };
    let Some(timed) = clock(behind) else {
        return dated(year(behind)?);
    };
    // date(1) writes the zone, and the year last.
    let zoned = match timed {
        [b' ', zone_on @ ..] => {
            let letters = zone_on
                .iter()
                .take_while(|octet| octet.is_ascii_uppercase());
            match (letters.count(), zone_on) {
                (count @ 3..=5, _) => zone_on.split_at(count).1,
                _ => timed,
            }
        }
        _ => timed,
    };
    let with_year = match zoned {
        [b' ', year_on @ ..] => year(year_on).and_then(ends),
        _ => None,
    };
    Some(with_year.unwrap_or(timed))
}

/// The octets behind a date, and behind a time if one follows. `behind` begins behind the year.
fn dated(behind: &[u8]) -> Option<&[u8]> {
    let timed = match behind {
        [b' ', clock_on @ ..] => clock(clock_on),
        _ => None,
    };
    timed.or_else(|| date_end(behind))
}

/// The octets behind `hh:mm:ss`, its fraction and its zone.
fn clock(rest: &[u8]) -> Option<&[u8]> {
    let behind = fraction(hms(rest)?, b".,");
    zone(behind).or_else(|| ends(behind))
}

/// The octets behind `hh:mm`.
fn hours_and_minutes(rest: &[u8]) -> Option<&[u8]> {
    let [h1, h2, b':', m1, m2, behind @ ..] = rest else {
        return None;
    };
    number(*h1, *h2, 0, 23)?;
    number(*m1, *m2, 0, 59)?;
    zone(behind).or_else(|| ends(behind))
}

/// The octets behind a zone that ends the time: `Z`, `+01:00`, `+0100`, `UTC`, `GMT`; also `AM` and `PM`.
fn zone(rest: &[u8]) -> Option<&[u8]> {
    let written = rest.strip_prefix(b" ").unwrap_or(rest);
    let behind = match written {
        [b'Z' | b'z', behind @ ..] if written.len() == rest.len() => behind,
        [b'+' | b'-', h1, h2, b':', m1, m2, behind @ ..]
        | [b'+' | b'-', h1, h2, m1, m2, behind @ ..] => {
            number(*h1, *h2, 0, 23)?;
            number(*m1, *m2, 0, 59)?;
            behind
        }
        [b'U', b'T', b'C', behind @ ..]
        | [b'G', b'M', b'T', behind @ ..]
        | [b'A' | b'P', b'M', behind @ ..] => behind,
        _ => return None,
    };
    ends(behind)
}

/// Returns `behind` if a time may end before it.
fn ends(behind: &[u8]) -> Option<&[u8]> {
    let goes_on = is(behind, 0, WORD) || (behind.first() == Some(&b':') && is(behind, 1, DIGIT));
    (!goes_on).then_some(behind)
}

/// Returns `behind` if a date may end before it.
fn date_end(behind: &[u8]) -> Option<&[u8]> {
    let goes_on = is(behind, 0, WORD)
        || (matches!(behind.first(), Some(b'-' | b'/' | b':')) && is(behind, 1, DIGIT));
    (!goes_on).then_some(behind)
}

/// The octets behind a number of one or two digits, `min` to `max`.
fn one_or_two(rest: &[u8], min: u8, max: u8) -> Option<&[u8]> {
    match rest {
        [d1, d2 @ b'0'..=b'9', behind @ ..] => number(*d1, *d2, min, max).map(|()| behind),
        [d, behind @ ..] => number(b'0', *d, min, max).map(|()| behind),
        [] => None,
    }
}

const WEEKDAYS: [[u8; 3]; 7] = [
    *b"Mon", *b"Tue", *b"Wed", *b"Thu", *b"Fri", *b"Sat", *b"Sun",
];
