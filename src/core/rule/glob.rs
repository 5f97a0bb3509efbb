//! Globs: names with gaps, for HOSTNAME and APP-NAME.
//!
//! `*` matches any octets or none, `?` one octet, `[a-z0-9]` one of these, `[!a-z]` one that is not one of these. Every
//! other octet matches itself, letter case included: two spellings of one host are two names, as they are two identities.
//! (A set with both cases, `[Ww]eb-*`, matches either.)
//!
//! # Guarantees
//!
//! - A glob matches the whole name or does not match.
//! - The usual globs (`web-*`, `*.example.com`) cost one comparison. Any other glob costs at most the octets of the name
//!   times the pieces of the glob, so it matches no name of more than [`NAME_OCTETS_MAX`].
//! - A glob that no name can match is refused; the error says where and what is wrong.
//!
//! # Left out
//!
//! Braces: use a list for alternatives. Paths: `*` matches `/` like any octet, as in `postfix/*`.

use std::fmt;

/// A glob, compiled.
#[derive(Clone, Eq, PartialEq)]
pub struct Glob {
    text: String,
    shape: Shape,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Shape {
    /// No gap: one name.
    Literal(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Pieces(Box<[Piece]>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    /// Any octets, or none.
    Any,
    /// One octet of a set of 256 bits.
    One([u64; 4]),
}

/// Why a glob is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("at octet {at} of `{glob}`: {what}")]
pub struct GlobError {
    /// The glob, as it was written.
    pub glob: String,
    /// The offset of the fault in it.
    pub at: usize,
    /// What is wrong there, and what is right.
    pub what: &'static str,
}

impl Glob {
    /// Compiles `text`.
    ///
    /// # Errors
    ///
    /// If `text` is no glob, or if no name can match it: names have no spaces and no control characters, and are not
    /// empty.
    pub fn new(text: &str) -> Result<Self, GlobError> {
        let refuse = |at, what| {
            let glob = text.to_owned();
            Err(GlobError { glob, at, what })
        };
        let octets = text.as_bytes();
        if octets.is_empty() {
            return refuse(0, "matches nothing: no name is empty; `*` matches any name");
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            let piece = match octet {
                b'*' => Piece::Any,
                b'?' => Piece::One([u64::MAX; 4]),
                b'[' => match set(octets, at) {
                    Ok((set, end)) => {
                        at = end;
                        Piece::One(set)
                    }
                    Err((at, what)) => return refuse(at, what),
                },
                _ if octet <= b' ' || octet == 0x7f => {
                    return refuse(
                        at,
                        "matches nothing: no name has spaces or control characters",
                    );
                }
                _ => Piece::One(singleton(octet)),
            };
            at += 1;
            if !(piece == Piece::Any && pieces.last() == Some(&Piece::Any)) {
                pieces.push(piece);
            }
            if pieces.len() > PIECES_MAX {
                return refuse(at, "longer than any name");
            }
        }
        Ok(Self {
            text: text.to_owned(),
            shape: Shape::of(pieces),
        })
    }

    /// The glob, as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name, if it matches only one.
    #[must_use]
    pub fn literal(&self) -> Option<&[u8]> {
        match &self.shape {
            Shape::Literal(name) => Some(name),
            _ => None,
        }
    }

    /// Whether it matches `name`.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        match &self.shape {
            Shape::Literal(literal) => name == &**literal,
            Shape::Prefix(prefix) => name.starts_with(prefix),
            Shape::Suffix(suffix) => name.ends_with(suffix),
            Shape::Pieces(pieces) => name.len() <= NAME_OCTETS_MAX && matches(pieces, name),
        }
    }

    /// Whether it certainly matches every name that `other` matches. False where that is not easy to see.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.shape, &other.shape) {
            (_, Shape::Literal(name)) => self.matches(name),
            (Shape::Prefix(short), Shape::Prefix(long)) => long.starts_with(short),
            (Shape::Suffix(short), Shape::Suffix(long)) => long.ends_with(short),
            (Shape::Prefix(all) | Shape::Suffix(all), _) if all.is_empty() => true,
            (one, other) => one == other,
        }
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Shape {
    fn of(pieces: Vec<Piece>) -> Self {
        let literal =
            |pieces: &[Piece]| -> Option<Box<[u8]>> { pieces.iter().map(Piece::only).collect() };
        if let Some(name) = literal(&pieces) {
            return Self::Literal(name);
        }
        let with_one_gap = match pieces.as_slice() {
            [head @ .., Piece::Any] => literal(head).map(Self::Prefix),
            [Piece::Any, tail @ ..] => literal(tail).map(Self::Suffix),
            _ => None,
        };
        with_one_gap.unwrap_or_else(|| Self::Pieces(pieces.into()))
    }
}

impl Piece {
    /// The octet, if it matches only one.
    fn only(&self) -> Option<u8> {
        let Self::One(set) = self else { return None };
        let mut members = (0..=u8::MAX).filter(|octet| holds(set, *octet));
        members.next().filter(|_| members.next().is_none())
    }
}

/// Whether `pieces` match all of `name`. After a mismatch only the last `*` that was met is extended: extending an earlier
/// one instead could not find a match that this misses.
fn matches(pieces: &[Piece], name: &[u8]) -> bool {
    let (mut piece, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pieces.get(piece), name.get(at)) {
            (Some(Piece::Any), _) => {
                retry = Some((piece + 1, at));
                piece += 1;
                continue;
            }
            (Some(Piece::One(set)), Some(octet)) if holds(set, *octet) => {
                (piece, at) = (piece + 1, at + 1);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match &mut retry {
            Some((behind, taken)) if *taken < name.len() => {
                *taken += 1;
                (piece, at) = (*behind, *taken);
            }
            _ => return false,
        }
    }
}

/// The set that begins at `start` of `glob`, and the offset of its `]`.
fn set(glob: &[u8], start: usize) -> Result<([u64; 4], usize), (usize, &'static str)> {
    let mut at = start + 1;
    let negated = glob.get(at) == Some(&b'!');
    at += usize::from(negated);
    let first = at;
    let mut set = [0; 4];
    loop {
        let low = match glob.get(at) {
            None => return Err((start, "the set has no `]`, expected `[a-z]`")),
            Some(b']') if at > first => break,
            Some(b']') => {
                return Err((start, "matches nothing: the set is empty, expected `[a-z]`"));
            }
            Some(&low) => low,
        };
        match (glob.get(at + 1), glob.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                if low > high {
                    return Err((at, "matches nothing: the range runs backwards"));
                }
                (low..=high).for_each(|octet| put(&mut set, octet));
                at += 3;
            }
            _ => {
                put(&mut set, low);
                at += 1;
            }
        }
    }
    if negated {
        set = set.map(|bits| !bits);
    }
    if !(b'!'..=u8::MAX).any(|octet| octet != 0x7f && holds(&set, octet)) {
        return Err((start, "matches nothing: no name has an octet of this set"));
    }
    Ok((set, at))
}

fn singleton(octet: u8) -> [u64; 4] {
    let mut set = [0; 4];
    put(&mut set, octet);
    set
}

fn put(set: &mut [u64; 4], octet: u8) {
    set[usize::from(octet >> 6)] |= 1 << (octet & 63);
}

fn holds(set: &[u64; 4], octet: u8) -> bool {
    set[usize::from(octet >> 6)] & (1 << (octet & 63)) != 0
}

/// Octets and gaps of a glob: no host name is longer.
const PIECES_MAX: usize = 255;

/// Octets of the longest name that a glob with several gaps matches: four times the longest host name.
const NAME_OCTETS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(glob: &str, names: &[(&str, bool)]) {
        let glob = Glob::new(glob).unwrap();
        for (name, expected) in names {
            assert_eq!(glob.matches(name.as_bytes()), *expected, "{glob:?} {name}");
        }
    }

    #[test]
    fn a_glob_takes_the_whole_name() {
        check(
            "web",
            &[("web", true), ("web1", false), ("Web", false), ("", false)],
        );
        check(
            "web-*",
            &[("web-", true), ("web-1.a", true), ("aweb-1", false)],
        );
        check("*.example", &[("a.example", true), ("a.example.b", false)]);
        check("*", &[("a", true), ("a/b", true)]);
        check("w?b", &[("web", true), ("w\u{e9}b", false), ("wb", false)]);
        check(
            "[Ww]eb[0-9]",
            &[("Web1", true), ("web9", true), ("weba", false)],
        );
        check("a[!0-9]*", &[("ab", true), ("a1", false), ("a", false)]);
        check("*a*b*", &[("xaxbx", true), ("ab", true), ("ba", false)]);
        check("*ab", &[("aab", true), ("abb", false), ("abab", true)]);
        check("a*a", &[("a", false), ("aa", true), ("aba", true)]);
        check("[a-]", &[("-", true), ("a", true), ("b", false)]);
        check("a**b", &[("ab", true), ("axxb", true)]);
    }

    #[test]
    fn a_glob_that_matches_nothing_is_refused_with_its_place() {
        for (glob, at) in [
            ("", 0),
            ("web 1", 3),
            ("web\t", 3),
            ("a[", 1),
            ("a[]b", 1),
            ("a[z-a]", 2),
            ("a[ ]", 1),
            ("a[!", 1),
        ] {
            assert_eq!(Glob::new(glob).map(|_| ()).unwrap_err().at, at, "{glob}");
        }
        assert!(Glob::new(&"a".repeat(PIECES_MAX + 1)).is_err());
        assert_eq!(
            Glob::new("a[z-a]").unwrap_err().to_string(),
            "at octet 2 of `a[z-a]`: matches nothing: the range runs backwards"
        );
    }

    #[test]
    fn what_covers_what_is_told_where_it_is_easy() {
        for (one, other, expected) in [
            ("*", "web-*", true),
            ("*", "w?b", true),
            ("web*", "web-*", true),
            ("web-*", "web*", false),
            ("*.b", "*.a.b", true),
            ("w?b", "web", true),
            ("w?b", "w?b", true),
            ("web", "w?b", false),
        ] {
            let [glob, covered] = [one, other].map(|text| Glob::new(text).unwrap());
            assert_eq!(glob.covers(&covered), expected, "{one} {other}");
        }
    }
}
