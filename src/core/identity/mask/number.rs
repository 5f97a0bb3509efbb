//! Recognises decimal numbers inside a text, and digits that are not numbers: versions, positions, names.
//!
//! ```text
//! chain = item *( ( "-" / ":" / "/" ) item )             10-20   22:80   1/0/24   1h30m
//! item  = 1*DIGIT *( "," 3DIGIT ) [ "." 1*DIGIT ] [ "e" exponent ] [ unit ]
//! ```
//!
//! # Guarantees
//!
//! - Digits with two points or more are one version or address, never numbers.
//! - A chain that continues as a name (`220-135-7.example.net`, `64-bit`, `9a9`) is a name.
//! - A chain that is a position (`1/0/24`, `0/1`, `2:0:0:0`, `1-1.2:1.0`) is not folded, so that two
//!   interfaces, slots or devices stay different. A position has three or more small parts, or small parts
//!   with slashes between. (So `3/5` is not folded either: it may be a port.)
//! - A unit behind a number is not folded: 10 ms and 10 s differ in kind.
//! - Linear: each octet of a chain is looked at a few times at most.
//!
//! # Left out
//!
//! Units beyond those in the table, numbers in words, a comma for the decimal point.

use std::ops::Range;

use super::octet::{DIGIT, WORD, has, is, part, run};

/// What stands where digits begin. Each `end` is the offset behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// Digits with two points or more.
    Dotted { end: usize },
    /// A name or a position.
    Name { end: usize },
    /// Numbers, with their units. [`numbers`] lists them.
    Numbers { end: usize },
}

/// What the digit at `at` begins.
pub(super) fn find(text: &[u8], at: usize) -> Found {
    let first = Item::at(text, at);
    if first.dotted {
        return Found::Dotted { end: first.end };
    }
    let (mut count, mut digits_max) = (1, first.digits);
    let (mut measured, mut decimal) = (first.unit.is_some(), first.decimal);
    let (mut hyphen, mut only_slashes) = (false, true);
    let mut last = first;
    let mut broken = false;
    while let Some((joiner, next)) = last.next(text) {
        // `1h30` is no duration but part of a name.
        broken |= joiner.is_none() && last.unit == Some(Unit::Duration) && next.unit.is_none();
        count += 1;
        digits_max = digits_max.max(next.digits);
        measured |= next.unit.is_some();
        decimal |= next.decimal;
        hyphen |= joiner == Some(b'-');
        only_slashes &= joiner == Some(b'/');
        last = next;
    }
    let end = last.end;
    if is(text, end, WORD) {
        return Found::Name {
            end: run(text, end, WORD),
        };
    }
    if broken || (matches!(text.get(end), Some(b'.' | b'-')) && is(text, end + 1, WORD)) {
        return Found::Name { end };
    }
    let place = count >= 3 && digits_max <= PLACE_DIGITS_MAX && (!decimal || hyphen);
    let port = count >= 2 && digits_max <= PORT_DIGITS_MAX && !decimal && only_slashes;
    if !measured && (place || port) {
        Found::Name { end }
    } else {
        Found::Numbers { end }
    }
}

/// The numbers between `at` and `end`, where [`find`] found [`Found::Numbers`].
pub(super) fn numbers(text: &[u8], at: usize, end: usize) -> impl Iterator<Item = Range<usize>> {
    let mut next = Some((at, Item::at(text, at)));
    std::iter::from_fn(move || {
        let (start, item) = next.take()?;
        next = item
            .next(text)
            .map(|(_, following)| (following.start, following));
        Some(start..item.number_end)
    })
    .take_while(move |number| number.end <= end)
}

/// The numbers of the date or time between `at` and `end`. A fraction belongs to its seconds.
pub(super) fn numbers_of_time(
    text: &[u8],
    mut at: usize,
    end: usize,
) -> impl Iterator<Item = Range<usize>> {
    std::iter::from_fn(move || {
        while at < end && !is(text, at, DIGIT) {
            at += 1;
        }
        let start = at;
        at = run(text, at, DIGIT);
        if matches!(text.get(at), Some(b'.' | b',')) && is(text, at + 1, DIGIT) && at < end {
            at = run(text, at + 1, DIGIT);
        }
        (start < end).then_some(start..at)
    })
}

#[derive(Clone, Copy, Debug)]
struct Item {
    start: usize,
    /// The offset behind the number.
    number_end: usize,
    /// The offset behind its unit.
    end: usize,
    unit: Option<Unit>,
    /// The most digits in a row.
    digits: usize,
    decimal: bool,
    dotted: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unit {
    /// Digits with a unit may follow directly: `1h30m`.
    Duration,
    /// Digits may follow directly: `1920x1080`.
    Times,
    Other,
}

impl Unit {
    /// Units that are a hexadecimal digit (`A`, `B`, `C`, `F`) are left out: slot 5A is a name.
    #[inline]
    #[rustfmt::skip]
    fn of(written: &[u8]) -> Option<Self> {
        Some(match written {
            b"x" => Self::Times,
            b"w" | b"d" | b"h" | b"m" | b"s" | b"ms" | b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => Self::Duration,
            b"ns" | b"nsec" | b"nsecs" | b"usec" | b"usecs" | b"msec" | b"msecs" | b"sec" | b"secs"
            | b"second" | b"seconds" | b"min" | b"mins" | b"minute" | b"minutes" | b"hr" | b"hrs"
            | b"hour" | b"hours" | b"day" | b"days" | b"week" | b"weeks" | b"y" | b"yr" | b"year" | b"years"
            | b"k" | b"K" | b"M" | b"G" | b"T" | b"P" | b"Ki" | b"Mi" | b"Gi" | b"Ti"
            | b"kB" | b"KB" | b"MB" | b"GB" | b"TB" | b"PB" | b"KiB" | b"MiB" | b"GiB" | b"TiB" | b"PiB"
            | b"kb" | b"Kb" | b"mb" | b"Mb" | b"gb" | b"Gb" | b"bit" | b"bits" | b"byte" | b"bytes"
            | b"bps" | b"kbps" | b"Kbps" | b"Mbps" | b"Gbps" | b"Hz" | b"kHz" | b"MHz" | b"GHz"
            | b"V" | b"mV" | b"W" | b"rpm" | b"\xc2\xb0" | b"\xc2\xb0C" | b"\xc2\xb0F" => Self::Other,
            _ => return None,
        })
    }
}

impl Item {
    #[inline]
    fn at(text: &[u8], start: usize) -> Self {
        let mut end = run(text, start, DIGIT);
        let mut digits = end - start;
        if digits <= 3 {
            while has(text, end, b',') && run(text, end + 1, DIGIT) == end + 4 {
                end += 4;
                digits += 3;
            }
        }
        let mut points = 0;
        while has(text, end, b'.') && is(text, end + 1, DIGIT) {
            let next = run(text, end + 1, DIGIT);
            digits = digits.max(next - end - 1);
            end = next;
            points += 1;
        }
        if points < 2 {
            end = exponent(text, end).unwrap_or(end);
        }
        let (unit_end, unit) = match unit(text, end) {
            Some((end, unit)) if points < 2 => (end, Some(unit)),
            _ => (end, None),
        };
        Self {
            start,
            number_end: end,
            end: unit_end,
            unit,
            digits,
            decimal: points == 1,
            dotted: points > 1,
        }
    }

    /// The next item of the chain, and the octet between.
    #[inline]
    fn next(&self, text: &[u8]) -> Option<(Option<u8>, Self)> {
        let (joiner, start) = match text.get(self.end)? {
            b'0'..=b'9' if matches!(self.unit, Some(Unit::Duration | Unit::Times)) => {
                (None, self.end)
            }
            joiner @ (b'-' | b':' | b'/') if is(text, self.end + 1, DIGIT) => {
                (Some(*joiner), self.end + 1)
            }
            _ => return None,
        };
        let item = Self::at(text, start);
        (!item.dotted).then_some((joiner, item))
    }
}

/// The offset behind an exponent at `at`.
#[inline]
fn exponent(text: &[u8], at: usize) -> Option<usize> {
    if !matches!(text.get(at), Some(b'e' | b'E')) {
        return None;
    }
    let sign = matches!(text.get(at + 1), Some(b'+' | b'-'));
    let start = at + 1 + usize::from(sign);
    let end = run(text, start, DIGIT);
    ((1..=3).contains(&(end - start)) && !is(text, end, WORD)).then_some(end)
}

/// The offset behind a unit at `at`.
#[inline]
fn unit(text: &[u8], at: usize) -> Option<(usize, Unit)> {
    if !is(text, at, WORD) {
        return None;
    }
    let rest = part(text, at..text.len());
    let octets = rest
        .iter()
        .take(UNIT_OCTETS_MAX + 1)
        .take_while(|octet| octet.is_ascii_alphabetic() || **octet >= 0x80)
        .count();
    let (written, behind) = rest.split_at(octets);
    let unit = Unit::of(written)?;
    // Word octets directly behind make it a longer word, which is no unit.
    let glued = is(behind, 0, WORD) && (unit == Unit::Other || !is(behind, 0, DIGIT));
    (!glued).then_some((at + octets, unit))
}

/// The most digits in a part of a position.
const PLACE_DIGITS_MAX: usize = 4;

/// The most digits in a part of a position with slashes.
const PORT_DIGITS_MAX: usize = 3;

const UNIT_OCTETS_MAX: usize = 7;
