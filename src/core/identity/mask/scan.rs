//! The single pass that finds the parts that the built-in masks fold.
//!
//! ```text
//! text ──words──▶ plain ───────────────────────────────▶ skipped: a name
//!        │        may be more ──▶ token ──▶ what is it? ──▶ folded, if selected
//!        └──between──▶ quote, slash, `::` ─────────────▶ the same
//! ```
//!
//! Most octets are looked at once: the class of a word's first octet tells whether the word can be
//! anything but a name. A word that is not found to be anything else is a name.
//!
//! # Guarantees
//!
//! - What a token is does not depend on the masks selected. They only choose which of the tokens found are
//!   folded. So no mask folds a part of another mask's address or hash, and masks add up.
//! - Three masks hide their inside, if selected: quoted, path, timestamp. If not selected, the inside is
//!   scanned, and the numbers of a date are numbers.
//! - The order is: quoted, path; then timestamp, UUID, MAC, IPv6, hex, IPv4, number.
//! - A word attached to a name by `-` or `.` is part of it (`xe-0/0/1`, `eth0.100`, `v1.12`). So is a word
//!   attached by `/` or `:` if the name ends in a digit (`Gi1/0/24`, `eth0:1`). Only unmistakable tokens
//!   are folded there: UUIDs, hashes, and dates.
//! - Linear in the text, without allocation. Found ranges are in order and do not overlap.
//!
//! # Left out
//!
//! The user's masks (see `pattern`), and how each token is recognised (see the files named for them).

use std::ops::Range;

use super::address::{ipv4_fits, ipv6, ipv6_run, is_ipv4, mac, pci};
use super::builtin::{Builtin, BuiltinSet};
use super::hex::{is_bare, prefixed, uuid};
use super::number::{Found, find, numbers, numbers_of_time};
use super::octet::{
    COLON, DIGIT, HEX, LEAD, QUOTE, SLASH, WORD, before, behind, class, has, is, part, run,
};
use super::outer::{drive, opens, path, quoted, url_path, url_slash};
use super::written_time::{WrittenTime, named, numeric};

/// Calls `fold` with each range of `text` that one of `selected` folds, from left to right.
pub(super) fn scan(
    text: &[u8],
    selected: BuiltinSet,
    fold: &mut impl FnMut(Range<usize>, Builtin),
) {
    Scan {
        text,
        selected,
        fold,
        names_from: 0,
        ipv6_run_end: 0,
        url_path: NOWHERE,
        unclosed_single: false,
        unclosed_double: false,
    }
    .all();
}

struct Scan<'t, F> {
    text: &'t [u8],
    selected: BuiltinSet,
    fold: &'t mut F,
    /// The offset behind the last token that is no name. Every word from here on is a name.
    names_from: usize,
    /// The offset behind the last run that is no IPv6 address. No IPv6 address begins inside it.
    ipv6_run_end: usize,
    /// Where the path of the current URL begins.
    url_path: usize,
    /// A single quote was met that is never closed. No single quote behind it is closed, either.
    unclosed_single: bool,
    /// The same for a double quote.
    unclosed_double: bool,
}

impl<F: FnMut(Range<usize>, Builtin)> Scan<'_, F> {
    fn all(&mut self) {
        let mut wanted = LEAD | COLON;
        let mut in_word = LEAD | COLON;
        if self.selected.contains(Builtin::Quoted) {
            wanted |= QUOTE;
        }
        if self.selected.contains(Builtin::Path) {
            wanted |= SLASH;
            // The colon of a scheme or drive stands directly behind a word.
            in_word = LEAD;
        }
        let mut at = 0;
        while let Some((start, class)) = self.next(at, wanted, in_word) {
            at = if class & WORD == 0 {
                self.signal(start, class)
            } else {
                self.token(start, class).unwrap_or(start + 1)
            };
        }
    }

    /// The next octet from `at` on of a class in `wanted`, and its classes. Behind a word octet, classes in
    /// `in_word` are skipped.
    #[inline]
    fn next(&self, at: usize, wanted: u8, in_word: u8) -> Option<(usize, u8)> {
        let everywhere = !in_word;
        let first = class(*self.text.get(at)?) & wanted;
        let shown = before(self.text, at).map_or(u8::MAX, behind);
        let mut found = at;
        if first & (shown | everywhere) == 0 {
            let pairs = self.text.get(at..)?.iter().zip(self.text.get(at + 1..)?);
            found += 1 + pairs.into_iter().position(|(before, octet)| {
                class(*octet) & wanted & (behind(*before) | everywhere) != 0
            })?;
        }
        Some((found, class(*self.text.get(found)?)))
    }

    /// Takes the token at `at`, which begins with no word octet. Returns where to continue.
    #[inline]
    fn signal(&mut self, at: usize, class: u8) -> usize {
        if class & COLON != 0 {
            self.colon(at)
        } else if class & QUOTE != 0 {
            self.quote(at)
        } else {
            self.slash(at)
        }
    }

    fn colon(&mut self, at: usize) -> usize {
        if self.selected.contains(Builtin::Path) && self.url_path != at && is_url(self.text, at) {
            self.url_path = url_slash(self.text, at + 1).unwrap_or(NOWHERE);
            // Nothing stands between the slashes.
            return at + 3;
        }
        if let Some(end) = self.drive(at) {
            return self.found(at - 1..end, Builtin::Path);
        }
        let begins = has(self.text, at + 1, b':')
            && at >= self.ipv6_run_end
            && !before(self.text, at).is_some_and(|octet| octet == b':' || class_is_word(octet));
        begins
            .then(|| self.ipv6(at))
            .flatten()
            .map_or(at + 1, |end| self.found(at..end, Builtin::Ipv6))
    }

    /// The offset behind the path whose drive's colon is at `at`.
    fn drive(&self, at: usize) -> Option<usize> {
        let letter = at.checked_sub(1)?;
        let is_drive = self.selected.contains(Builtin::Path)
            && letter >= self.names_from
            && self.text.get(letter).is_some_and(u8::is_ascii_alphabetic)
            && !letter
                .checked_sub(1)
                .is_some_and(|at| is(self.text, at, WORD));
        is_drive.then(|| drive(self.text, at)).flatten()
    }

    fn quote(&mut self, at: usize) -> usize {
        let unclosed = if has(self.text, at, b'"') {
            &mut self.unclosed_double
        } else {
            &mut self.unclosed_single
        };
        if *unclosed || !opens(self.text, at) {
            return at + 1;
        }
        match quoted(self.text, at) {
            Some(end) => self.found(at..end, Builtin::Quoted),
            None => {
                *unclosed = true;
                at + 1
            }
        }
    }

    fn slash(&mut self, at: usize) -> usize {
        let end = if at == self.url_path {
            Some(url_path(self.text, at))
        } else {
            path(self.text, at)
        };
        end.map_or(at + 1, |end| self.found(at..end, Builtin::Path))
    }

    /// Takes the token that begins with the word at `at`, if it is more than a name. Returns where it ends.
    #[inline]
    fn token(&mut self, at: usize, class: u8) -> Option<usize> {
        if class & DIGIT == 0 && is_plain(self.text, at) {
            return None;
        }
        let hex_end = run(self.text, at, HEX);
        if class & DIGIT == 0 {
            if is(self.text, hex_end, WORD) || hex_end == at {
                return self.named_time(at);
            }
            return self
                .hexadecimal(at, hex_end)
                .or_else(|| self.named_time(at));
        }
        if self.is_lone(at, hex_end) && !self.hangs(at) {
            return Some(self.lone_number(at, hex_end));
        }
        if let Some(end) = self
            .numeric_time(at)
            .or_else(|| self.hexadecimal(at, hex_end))
        {
            return Some(end);
        }
        if let Some(end) = prefixed(self.text, at) {
            return Some(self.found(at..end, Builtin::Hex));
        }
        if self.hangs(at) {
            return Some(run(self.text, at, WORD));
        }
        Some(self.decimal(at))
    }

    /// Whether the digits `at..end` are a number, judged by the next octet alone. Most are.
    #[inline]
    fn is_lone(&self, at: usize, end: usize) -> bool {
        let ends = match self.text.get(end) {
            None => true,
            // Two digits may be a day before its month.
            Some(b' ') => end - at > 2,
            Some(b'.' | b',' | b'-' | b':' | b'/') => false,
            Some(octet) => class(*octet) & WORD == 0,
        };
        ends && run(self.text, at, DIGIT) == end
    }

    fn lone_number(&mut self, at: usize, end: usize) -> usize {
        let sign = usize::from(is_signed(self.text, at));
        self.found(at - sign..end, Builtin::Number)
    }

    fn named_time(&mut self, at: usize) -> Option<usize> {
        if !has(self.text, at + 3, b' ') && !has(self.text, at + 3, b',') {
            return None;
        }
        let octets = named(part(self.text, at..self.text.len()))?;
        Some(self.time(at, at + octets))
    }

    fn numeric_time(&mut self, at: usize) -> Option<usize> {
        let (octets, form) = numeric(part(self.text, at..self.text.len()))?;
        let fits = match form {
            WrittenTime::Dated => true,
            WrittenTime::OfDay => !self.hangs(at),
        };
        fits.then(|| self.time(at, at + octets))
    }

    fn time(&mut self, start: usize, end: usize) -> usize {
        if self.selected.contains(Builtin::Number) && !self.selected.contains(Builtin::Timestamp) {
            for number in numbers_of_time(self.text, start, end) {
                (self.fold)(number, Builtin::Number);
            }
        }
        self.found(start..end, Builtin::Timestamp)
    }

    /// Takes a UUID, an address or a hash whose first run of hexadecimal digits is `at..hex_end`.
    #[inline]
    fn hexadecimal(&mut self, at: usize, hex_end: usize) -> Option<usize> {
        let address = match self.text.get(hex_end) {
            Some(b':') => self.with_colons(at, hex_end),
            Some(b'-') => {
                if let Some(end) = uuid(self.text, at, hex_end) {
                    // Words attached to it are part of a name: the pod of a deployment.
                    if self.selected.contains(Builtin::Uuid) {
                        (self.fold)(at..end, Builtin::Uuid);
                    }
                    return Some(end);
                }
                mac(self.text, at, hex_end).map(|end| (end, Some(Builtin::Mac)))
            }
            Some(b'.') => mac(self.text, at, hex_end).map(|end| (end, Some(Builtin::Mac))),
            _ => None,
        };
        match address {
            None => self.bare(at, hex_end),
            Some((end, Some(mask))) if !self.hangs(at) => Some(self.found(at..end, mask)),
            Some((end, _)) => Some(end),
        }
    }

    /// The offset behind an address or a PCI address. The mask is `None` for a PCI address.
    fn with_colons(&mut self, at: usize, hex_end: usize) -> Option<(usize, Option<Builtin>)> {
        if let Some(end) = mac(self.text, at, hex_end) {
            return Some((end, Some(Builtin::Mac)));
        }
        if let Some(end) = pci(self.text, at, hex_end) {
            return Some((end, None));
        }
        self.ipv6_word(at, hex_end)
            .map(|end| (end, Some(Builtin::Ipv6)))
    }

    #[inline]
    fn bare(&mut self, at: usize, hex_end: usize) -> Option<usize> {
        if !is_bare(self.text, at, hex_end) {
            return None;
        }
        // Words attached to it are part of a name, as with a UUID.
        if self.selected.contains(Builtin::Hex) {
            (self.fold)(at..hex_end, Builtin::Hex);
        }
        Some(hex_end)
    }

    fn ipv6_word(&mut self, at: usize, hex_end: usize) -> Option<usize> {
        let begins = has(self.text, hex_end, b':') && hex_end - at <= 4;
        (begins && at >= self.ipv6_run_end)
            .then(|| self.ipv6(at))
            .flatten()
    }

    fn ipv6(&mut self, at: usize) -> Option<usize> {
        let run_end = ipv6_run(self.text, at);
        let end = ipv6(self.text, at, run_end);
        if end.is_none() {
            self.ipv6_run_end = run_end;
        }
        end
    }

    /// Takes the token that begins with decimal digits at `at` and is attached to no name.
    fn decimal(&mut self, at: usize) -> usize {
        let on_slash = before(self.text, at) == Some(b'/') && self.is_behind_name(at);
        match find(self.text, at) {
            Found::Dotted { end } => {
                let is_address =
                    !on_slash && is_ipv4(part(self.text, at..end)) && ipv4_fits(self.text, at, end);
                if is_address {
                    self.found(at..end, Builtin::Ipv4)
                } else {
                    run(self.text, end, WORD)
                }
            }
            // The version of a product, as in `HTTP/1.1`, is not folded.
            Found::Numbers { end } if on_slash && is_decimal(self.text, at, end) => end,
            Found::Name { end } => end,
            Found::Numbers { end } => {
                if self.selected.contains(Builtin::Number) {
                    let mut sign = usize::from(is_signed(self.text, at));
                    for number in numbers(self.text, at, end) {
                        (self.fold)(number.start - sign..number.end, Builtin::Number);
                        sign = 0;
                    }
                }
                self.names_from = end;
                end
            }
        }
    }

    /// Whether the word at `at` is attached to the name before it.
    #[inline]
    fn hangs(&self, at: usize) -> bool {
        if !self.is_behind_name(at) {
            return false;
        }
        let on_digit = at >= 2 && is(self.text, at - 2, DIGIT);
        match before(self.text, at) {
            Some(b'-' | b'.') => true,
            Some(b'/') => on_digit,
            // A channel or alias of an interface has few digits. A port of a host has more.
            Some(b':') => on_digit && run(self.text, at, DIGIT) - at <= CHANNEL_DIGITS_MAX,
            _ => false,
        }
    }

    /// Whether a name ends one octet before `at`.
    #[inline]
    fn is_behind_name(&self, at: usize) -> bool {
        at.checked_sub(2)
            .is_some_and(|end| end >= self.names_from && is(self.text, end, WORD))
    }

    /// Folds `range` if its mask is selected. Returns its end.
    #[inline]
    fn found(&mut self, range: Range<usize>, mask: Builtin) -> usize {
        let end = range.end;
        self.names_from = end;
        if self.selected.contains(mask) {
            (self.fold)(range, mask);
        }
        end
    }
}

/// Whether the word at `at`, which begins with a letter, is clearly only a name. Many words begin with a
/// hexadecimal digit, so this must be fast: it looks at eight octets without a branch.
#[inline]
fn is_plain(text: &[u8], at: usize) -> bool {
    let Some(Ok(word)) = text.get(at..at + 8).map(<[u8; 8]>::try_from) else {
        return false;
    };
    let mut hex = 0_u32;
    for (place, octet) in word.into_iter().enumerate() {
        hex |= u32::from(class(octet) & HEX != 0) << place;
    }
    // A month begins with a capital.
    let is_small = text.get(at).is_some_and(u8::is_ascii_lowercase);
    let behind = word.get(hex.trailing_ones() as usize);
    is_small && behind.is_some_and(|octet| !matches!(octet, b':' | b'-' | b'.'))
}

/// Whether the colon at `at` is part of `scheme://`.
fn is_url(text: &[u8], at: usize) -> bool {
    at > 0 && is(text, at - 1, WORD) && has(text, at + 1, b'/') && has(text, at + 2, b'/')
}

fn class_is_word(octet: u8) -> bool {
    class(octet) & WORD != 0
}

fn is_decimal(text: &[u8], start: usize, end: usize) -> bool {
    part(text, start..end).contains(&b'.')
}

/// Whether a sign, and not a hyphen, stands before the digits at `at`.
fn is_signed(text: &[u8], at: usize) -> bool {
    matches!(before(text, at), Some(b'-' | b'+'))
        && match at.checked_sub(2).and_then(|at| text.get(at)) {
            None => true,
            Some(octet) => SIGN_BEHIND.contains(octet),
        }
}

/// An offset that is in no text.
const NOWHERE: usize = usize::MAX - 1;

/// The most digits of an interface's channel: `eth0:1`, `Serial0/0/0:15`.
const CHANNEL_DIGITS_MAX: usize = 2;

/// A sign may stand behind one of these.
const SIGN_BEHIND: &[u8] = b" \t\n=([{<>,;:|*\"'";
