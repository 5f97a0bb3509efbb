//! Recognises quoted text and paths: the masks that fold everything inside as one.
//!
//! # Guarantees
//!
//! - Where either mask is selected, nothing inside is masked on its own. Of two that overlap, the one that
//!   begins first includes the other.
//! - A double quote pairs with the next one. A single quote opens where no word stands before it and
//!   closes where no word stands behind it, so `don't` opens nothing. A backslash escapes the octet behind
//!   it. A quote that is never closed is an ordinary octet.
//! - A path is absolute, or begins with `./`, `../` or `~/`. `and/or`, `1/0/24`, `/24`, `</tag>` and `/`
//!   alone are no paths.
//! - In a URL only the path is folded. Scheme, host and query are masked on their own.
//!
//! # Left out
//!
//! Typographic quotes, backticks, spaces inside paths.

use super::octet::{COMPONENT, WORD, before, has, is, looked, part, run};

/// The offset behind the quote that closes the one at `open`.
pub(super) fn quoted(text: &[u8], open: usize) -> Option<usize> {
    let quote = *text.get(open)?;
    let mut at = open + 1;
    loop {
        let rest = text.get(at..)?;
        let next = memchr::memchr2(quote, b'\\', rest);
        looked(next.unwrap_or(rest.len()));
        at += next?;
        if has(text, at, b'\\') {
            at += 2;
        } else if quote == b'\'' && is(text, at + 1, WORD) {
            at += 1;
        } else {
            return Some(at + 1);
        }
    }
}

/// Whether the quote at `at` may open.
pub(super) fn opens(text: &[u8], at: usize) -> bool {
    match before(text, at) {
        Some(b'\\') => false,
        Some(_) if has(text, at, b'\'') => !is(text, at - 1, WORD),
        _ => true,
    }
}

/// The offset behind the path at `at`, which begins with one of `/ \ . ~`.
pub(super) fn path(text: &[u8], at: usize) -> Option<usize> {
    if at > 0
        && (is(text, at - 1, WORD) || before(text, at).is_some_and(|o| b"/.~<\\-".contains(&o)))
    {
        return None;
    }
    match text.get(at..)? {
        [b'/', ..] => unix(text, at),
        [b'.', b'/', ..] | [b'~', b'/', ..] => unix(text, at + 1),
        [b'.', b'.', b'/', ..] => unix(text, at + 2),
        [b'\\', b'\\', ..] if is(text, at + 2, WORD) => windows(text, at + 1),
        _ => None,
    }
}

/// The offset behind the path of a URL whose `/` is at `at`.
pub(super) fn url_path(text: &[u8], at: usize) -> usize {
    trimmed(text, at, components(text, at, b"/"))
}

/// Where the path begins of the URL whose `//` is at `at`; `None` if it has no path.
pub(super) fn url_slash(text: &[u8], at: usize) -> Option<usize> {
    let authority = text.get(at + 2..)?;
    let octets = authority
        .iter()
        .take_while(|octet| !b"/?# \t\r\n\"'<>\\".contains(octet))
        .count();
    looked(octets);
    let slash = at + 2 + octets;
    has(text, slash, b'/').then_some(slash)
}

/// The offset behind the path with a drive whose colon is at `colon`: `C:\Windows`, `C:/Windows`.
pub(super) fn drive(text: &[u8], colon: usize) -> Option<usize> {
    match text.get(colon..)? {
        [b':', b'\\', ..] => windows(text, colon + 1),
        [b':', b'/', other, ..] if *other != b'/' => unix(text, colon + 1),
        _ => None,
    }
}

/// The offset behind the slashes and components at `slash`. `/` alone and a prefix length (`/24`) are no paths.
fn unix(text: &[u8], slash: usize) -> Option<usize> {
    if has(text, slash + 1, b'/') {
        return None;
    }
    let end = trimmed(text, slash, components(text, slash, b"/"));
    let path = part(text, slash..end);
    let network = slash + 1..end;
    let is_length = network.len() <= 3 && path.iter().skip(1).all(u8::is_ascii_digit);
    (path.len() > 1 && !is_length).then_some(end)
}

fn windows(text: &[u8], separator: usize) -> Option<usize> {
    let end = trimmed(text, separator, components(text, separator, b"\\/"));
    (end > separator + 1).then_some(end)
}

fn components(text: &[u8], start: usize, separators: &[u8]) -> usize {
    let mut end = start;
    loop {
        let next = run(text, end, COMPONENT);
        match text.get(next) {
            Some(octet) if separators.contains(octet) => end = next + 1,
            _ => return next,
        }
    }
}

/// `end` without the points that end a sentence.
fn trimmed(text: &[u8], start: usize, end: usize) -> usize {
    let path = part(text, start..end);
    let is_point = |octet: &&u8| matches!(octet, b'.' | b'!');
    let points = path.iter().rev().take_while(is_point).count();
    looked(points);
    end - points
}
