//! Recognises hexadecimal inside a text: `0x...`, hashes, and UUIDs.
//!
//! # Guarantees
//!
//! - Bare hexadecimal is a whole word of [`BARE_DIGITS_MIN`] or more decimal digits and letters, mixed:
//!   `deadbeef` and `facade` are words, `12345678` is a number, `c0ffee` is too short.
//! - Before a point and a word, as in the name of a host, it has at least [`HASH_DIGITS_MIN`] digits.
//!
//! # Left out
//!
//! Hexadecimal digits in a word with other letters.

use super::octet::{DIGIT, HEX, WORD, has, is, part, run};

/// The offset behind `0x` and its digits at `start`.
pub(super) fn prefixed(text: &[u8], start: usize) -> Option<usize> {
    if !has(text, start, b'0') || !matches!(text.get(start + 1), Some(b'x' | b'X')) {
        return None;
    }
    let end = run(text, start + 2, HEX);
    (end > start + 2 && !is(text, end, WORD)).then_some(end)
}

/// Whether the run of hexadecimal digits `start..end` is a number or hash of its own.
pub(super) fn is_bare(text: &[u8], start: usize, end: usize) -> bool {
    if end - start < BARE_DIGITS_MIN || is(text, end, WORD) {
        return false;
    }
    let host = has(text, end, b'.') && is(text, end + 1, WORD) && !is(text, end + 1, DIGIT);
    let digits = part(text, start..end);
    (!host || digits.len() >= HASH_DIGITS_MIN)
        && digits.iter().any(u8::is_ascii_digit)
        && digits.iter().any(u8::is_ascii_alphabetic)
}

/// The offset behind the UUID at `start`, whose first run of hexadecimal digits ends at `hex_end`.
pub(super) fn uuid(text: &[u8], start: usize, hex_end: usize) -> Option<usize> {
    if hex_end - start != 8 {
        return None;
    }
    let mut end = hex_end;
    for digits in [4, 4, 4, 12] {
        let group = end + 1;
        end = group + digits;
        if !has(text, group - 1, b'-') || !(group..end).all(|at| is(text, at, HEX)) {
            return None;
        }
    }
    (!is(text, end, WORD)).then_some(end)
}

/// In 24 MB of logs, package descriptions and change logs, all mixed words of 8 digits or more were
/// hashes and binary literals. Those of 6 were colours and part numbers. Those of 7, to which git
/// abbreviates, were hashes, but so short a word may be a serial number, or 1234e56.
const BARE_DIGITS_MIN: usize = 8;

/// MD5, the shortest hash in use.
const HASH_DIGITS_MIN: usize = 32;
