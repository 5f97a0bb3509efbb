//! Steps over octets that the parsers share.
//!
//! # Guarantees
//!
//! - An offset that is passed in was found in the text. A wrong one panics.
//!
//! # Left out
//!
//! Names and timestamps (see `name` and `timestamp`).

/// `frame` without trailing LF, CR and NUL: some senders put them into the frame.
#[inline]
pub(super) fn trimmed(mut frame: &[u8]) -> &[u8] {
    while let [head @ .., b'\r' | b'\n' | 0] = frame {
        frame = head;
    }
    frame
}

#[inline]
pub(super) fn behind_bom(text: &[u8], at: usize) -> usize {
    match behind(text, at) {
        [0xef, 0xbb, 0xbf, ..] => at + 3,
        _ => at,
    }
}

#[inline]
pub(super) fn behind_blanks(text: &[u8], at: usize) -> usize {
    let blanks = behind(text, at).iter().take_while(|octet| **octet == b' ');
    at + blanks.count()
}

/// The octets of `text` from `at` on. The caller found `at` in `text`.
#[inline]
#[track_caller]
pub(super) fn behind(text: &[u8], at: usize) -> &[u8] {
    text.get(at..)
        .expect("an offset found in a text lies in it")
}

/// How many decimal digits `octets` begin with.
#[inline]
pub(super) fn digits(octets: &[u8]) -> usize {
    octets
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .count()
}
