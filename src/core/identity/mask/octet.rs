//! Classes of octets for the scanner: one table, and runs of octets of a class.
//!
//! # Guarantees
//!
//! - A word consists of ASCII letters, digits, `_` and every octet from 0x80 on. So letters in UTF-8, and
//!   octets that are not UTF-8, belong to the word around them. (So does punctuation in UTF-8: a number
//!   between typographic quotes is part of a word and is not folded. That errs on the safe side.)
//!
//! # Left out
//!
//! Characters: the scanner knows octets only.

use std::ops::Range;

/// Part of a word.
pub(super) const WORD: u8 = 1;
pub(super) const DIGIT: u8 = 1 << 1;
pub(super) const HEX: u8 = 1 << 2;
/// A word that begins with it may be more than a word: a hexadecimal digit, or the first letter of a month
/// or a day of the week.
pub(super) const LEAD: u8 = 1 << 3;
/// A colon. Not part of a word, but may begin an address or a path.
pub(super) const COLON: u8 = 1 << 4;
/// A quote. Not part of a word, but may begin quoted text.
pub(super) const QUOTE: u8 = 1 << 5;
/// The first octet of a path.
pub(super) const SLASH: u8 = 1 << 6;
/// Part of a component of a path.
pub(super) const COMPONENT: u8 = 1 << 7;

/// The classes of `octet`.
#[inline]
pub(super) fn class(octet: u8) -> u8 {
    looked(1);
    #[expect(clippy::indexing_slicing, reason = "there are 256 octets")]
    CLASSES[usize::from(octet)]
}

/// The classes that may begin something behind `octet`: none if it is part of a word, otherwise all. This
/// is a table, too: the compiler turns a computation into a branch, which is mispredicted at each word.
#[inline]
pub(super) fn behind(octet: u8) -> u8 {
    #[expect(clippy::indexing_slicing, reason = "there are 256 octets")]
    BEHIND[usize::from(octet)]
}

/// Whether an octet of one of `classes` stands at `at`.
#[inline]
pub(super) fn is(text: &[u8], at: usize, classes: u8) -> bool {
    text.get(at)
        .is_some_and(|octet| class(*octet) & classes != 0)
}

/// Whether `octet` stands at `at`.
#[inline]
pub(super) fn has(text: &[u8], at: usize, octet: u8) -> bool {
    looked(1);
    text.get(at) == Some(&octet)
}

/// The offset behind the run of octets of `classes` at `at`.
#[inline]
pub(super) fn run(text: &[u8], mut at: usize, classes: u8) -> usize {
    while is(text, at, classes) {
        at += 1;
    }
    at
}

/// The octets of `text` in `range`. The caller found `range` in `text`.
#[inline]
#[track_caller]
pub(super) fn part(text: &[u8], range: Range<usize>) -> &[u8] {
    text.get(range).expect("a range found in a text lies in it")
}

/// The octet before `at`.
#[inline]
pub(super) fn before(text: &[u8], at: usize) -> Option<u8> {
    text.get(at.checked_sub(1)?).copied()
}

/// Counts octets that were looked at, for the test that the work is linear.
#[inline]
pub(super) fn looked(octets: usize) {
    #[cfg(test)]
    work::LOOKED.with(|looked| looked.set(looked.get() + octets));
    #[cfg(not(test))]
    let _: usize = octets;
}

static BEHIND: [u8; 256] = {
    let mut behind = classes();
    let mut octet = 0;
    while octet < 256 {
        #[expect(clippy::indexing_slicing, reason = "constants cannot call `get_mut`")]
        {
            behind[octet] = if behind[octet] & WORD == 0 {
                u8::MAX
            } else {
                0
            };
        }
        octet += 1;
    }
    behind
};

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        // The lint asks for a conversion that constants cannot call.
        #[expect(clippy::cast_possible_truncation, reason = "it counts to 255")]
        let o = octet as u8;
        let mut class = 0;
        if o.is_ascii_alphanumeric() || o == b'_' || o >= 0x80 {
            class |= WORD | COMPONENT;
        }
        if o.is_ascii_digit() {
            class |= DIGIT;
        }
        if o.is_ascii_hexdigit() {
            class |= HEX | LEAD;
        }
        class |= match o {
            b'J' | b'M' | b'N' | b'O' | b'S' | b'T' | b'W' => LEAD,
            b':' => COLON,
            b'"' | b'\'' => QUOTE,
            b'/' | b'\\' => SLASH,
            b'.' | b'~' => SLASH | COMPONENT,
            b'-' | b'+' | b'@' | b'%' | b'#' | b'=' | b'$' | b'{' | b'}' | b'!' => COMPONENT,
            _ => 0,
        };
        #[expect(clippy::indexing_slicing, reason = "constants cannot call `get_mut`")]
        {
            classes[octet] = class;
        }
        octet += 1;
    }
    classes
}

#[cfg(test)]
pub(super) mod work {
    thread_local! {
        pub(in super::super) static LOOKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }
}
