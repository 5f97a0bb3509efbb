//! Texts with late ends: each match of an expression makes the search look at all of the remaining text.
//!
//! After `qj`, a search for `qj(?:.*z)?` looks for a `z` up to the end of the text. If it has no `z`, the match is `qj`,
//! and the next search starts behind it. So the search looks at all of the remaining text once for each match. Such a
//! text begins with many heads, each a match and the beginning of a longer one. Then follows the inside of a longer
//! match, without its end.
//!
//! # Guarantees
//!
//! - The same expressions yield the same texts.
//! - An expression in which nothing must follow a long part yields no text.
//!
//! # Left out
//!
//! Insides that hold the octet with which they end: no text is made of these.

use regex_syntax::hir::{Hir, HirKind};

use super::hard::{Random, WORDS, collect_octets, ranges, sample};
use super::pattern::syntax_of;
use crate::core::limits::MASK_MATCHES_MAX;

/// The parts of a text with a late end.
#[derive(Debug)]
pub(crate) struct LateText {
    /// A match, and the beginning of a longer one.
    head: Vec<u8>,
    /// Octets that may stand inside the longer one.
    inside: Vec<u8>,
}

impl LateText {
    /// All texts that are worth trying for `expressions`.
    pub(crate) fn all<'e>(expressions: impl IntoIterator<Item = &'e str>) -> Vec<Self> {
        let expressions: Vec<_> = expressions
            .into_iter()
            .filter_map(|expression| syntax_of(expression).ok())
            .collect();
        let mut branches = Vec::new();
        for expression in &expressions {
            if expressions.len() > 1 {
                // Another expression may match the beginning of this one.
                push_branch(expression, &[], &mut branches);
            }
            collect_branches(expression, &mut Vec::new(), &mut branches);
        }
        branches.truncate(BRANCHES_MAX);
        let mut random = Random::new();
        let mut texts = Vec::new();
        for (head, arm) in &branches {
            let insides = insides(arm, &mut random);
            let mut octets = Vec::new();
            collect_octets(arm, &mut octets);
            let separators = [&b""[..], b" ", octets.get(..1).unwrap_or_default()];
            for separator in separators {
                let head = [head, separator].concat();
                if head.is_empty() {
                    continue;
                }
                texts.extend(insides.iter().map(|inside| Self {
                    head: head.clone(),
                    inside: inside.clone(),
                }));
            }
        }
        texts
    }

    /// The text with `len` octets and at most `matches` matches.
    pub(crate) fn text(&self, len: usize, matches: usize) -> Vec<u8> {
        // Heads take half of the text at most: searching the inside takes the time.
        let matches = matches.min(len / 2 / self.head.len().max(1)).max(1);
        let mut text = self.head.repeat(matches);
        text.extend(self.inside.iter().cycle().take(len));
        text.truncate(len);
        text
    }
}

/// Adds every optional part of `expression` that has a late end, with its head: the shortest text before it, and its
/// beginning.
fn collect_branches<'h>(
    expression: &'h Hir,
    before: &mut Vec<u8>,
    branches: &mut Vec<(Vec<u8>, &'h Hir)>,
) {
    if branches.len() >= BRANCHES_MAX || !is_late(expression) {
        return;
    }
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => {}
        HirKind::Repetition(repetition) => {
            if repetition.max != Some(repetition.min) {
                let len = before.len();
                for _ in 0..repetition.min {
                    push_shortest(&repetition.sub, before);
                }
                push_branch(&repetition.sub, before, branches);
                before.truncate(len);
            }
            collect_branches(&repetition.sub, before, branches);
        }
        HirKind::Capture(capture) => collect_branches(&capture.sub, before, branches),
        HirKind::Concat(parts) => {
            let len = before.len();
            for part in parts {
                collect_branches(part, before, branches);
                push_shortest(part, before);
            }
            before.truncate(len);
        }
        HirKind::Alternation(arms) => {
            for arm in arms {
                push_branch(arm, before, branches);
                collect_branches(arm, before, branches);
            }
        }
    }
}

fn push_branch<'h>(arm: &'h Hir, before: &[u8], branches: &mut Vec<(Vec<u8>, &'h Hir)>) {
    if is_late(arm) {
        let mut head = before.to_vec();
        push_entry(arm, &mut head);
        branches.push((head, arm));
    }
}

/// Whether `expression` has a late end: something must follow a part that may be long.
fn is_late(expression: &Hir) -> bool {
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => false,
        HirKind::Repetition(repetition) => is_late(&repetition.sub),
        HirKind::Capture(capture) => is_late(&capture.sub),
        HirKind::Concat(parts) => {
            let mut long = false;
            parts.iter().any(|part| {
                let ends = long && (is_required(part) || !part.properties().look_set().is_empty());
                long |= may_be_long(part);
                ends || is_late(part)
            })
        }
        HirKind::Alternation(parts) => parts.iter().any(is_late),
    }
}

fn is_required(part: &Hir) -> bool {
    part.properties().minimum_len().is_none_or(|len| len > 0)
}

fn may_be_long(part: &Hir) -> bool {
    let longest = part.properties().maximum_len();
    longest.is_none_or(|len| len >= LONG)
}

/// Appends the beginning of `arm`, up to a part that may be long. Returns whether there is one.
fn push_entry(arm: &Hir, text: &mut Vec<u8>) -> bool {
    match arm.kind() {
        HirKind::Capture(capture) => push_entry(&capture.sub, text),
        HirKind::Concat(parts) => parts.iter().any(|part| push_entry(part, text)),
        HirKind::Alternation(parts) => {
            let part = parts.iter().find(|part| may_be_long(part));
            part.or_else(|| parts.first())
                .is_some_and(|part| push_entry(part, text))
        }
        HirKind::Repetition(repetition) if may_be_long(&repetition.sub) => {
            push_entry(&repetition.sub, text)
        }
        _ => {
            push_shortest(arm, text);
            may_be_long(arm)
        }
    }
}

/// Appends the shortest text that `part` matches, or one that is little longer.
fn push_shortest(part: &Hir, text: &mut Vec<u8>) {
    if text.len() >= HEAD_MAX {
        return;
    }
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.extend_from_slice(&literal.0),
        HirKind::Class(class) => {
            let ranges = ranges(class);
            let has = |octet: &u8| {
                ranges
                    .iter()
                    .any(|(first, last)| (first..=last).contains(&octet))
            };
            let plain = PLAIN.iter().copied().find(has);
            text.extend(plain.or_else(|| ranges.first().map(|(first, _)| *first)));
        }
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                if text.len() >= HEAD_MAX {
                    return;
                }
                push_shortest(&repetition.sub, text);
            }
        }
        HirKind::Capture(capture) => push_shortest(&capture.sub, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| push_shortest(part, text)),
        HirKind::Alternation(parts) => {
            let len = |part: &&Hir| part.properties().minimum_len().unwrap_or(usize::MAX);
            if let Some(part) = parts.iter().min_by_key(len) {
                push_shortest(part, text);
            }
        }
    }
}

/// Texts that may stand inside `arm`: octets by which it tells texts apart, pieces of it, words, and its literals with
/// gaps between. None holds an octet that ends `arm`.
fn insides(arm: &Hir, random: &mut Random) -> Vec<Vec<u8>> {
    let mut ends = Vec::new();
    collect_ends(arm, &mut ends);
    let may_stay = |octet: &u8| {
        !ends
            .iter()
            .any(|(first, last)| (first..=last).contains(&octet))
    };
    let mut octets = Vec::new();
    collect_octets(arm, &mut octets);
    octets.sort_unstable();
    octets.dedup();
    octets.retain(may_stay);
    let single: Vec<u8> = (0..INSIDE).map(|_| random.of(&octets)).collect();
    let mut pieces = Vec::with_capacity(INSIDE);
    let mut words = Vec::with_capacity(INSIDE);
    // A bounded loop: a piece may be empty.
    for _ in 0..INSIDE / 4 {
        let mut steps = INSIDE;
        sample(arm, random, &mut pieces, INSIDE, &mut steps);
        words.extend_from_slice(random.of(WORDS).as_bytes());
        words.push(b' ');
    }
    let mut literals = Vec::new();
    collect_literals(arm, &mut literals);
    let mut spread = Vec::with_capacity(INSIDE);
    while spread.len() < INSIDE && !literals.is_empty() {
        spread.extend_from_slice(random.of(&literals));
        for _ in 0..random.below(GAP_MAX) {
            spread.push(random.of(PLAIN));
        }
        spread.push(b'x');
    }
    spread.retain(may_stay);
    pieces.retain(may_stay);
    words.retain(may_stay);
    let mut all = vec![single, pieces, words, spread];
    all.retain(|inside| !inside.is_empty());
    all
}

fn collect_literals<'h>(arm: &'h Hir, literals: &mut Vec<&'h [u8]>) {
    match arm.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => {}
        HirKind::Literal(literal) => literals.push(&literal.0),
        HirKind::Repetition(repetition) => collect_literals(&repetition.sub, literals),
        HirKind::Capture(capture) => collect_literals(&capture.sub, literals),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts
                .iter()
                .for_each(|part| collect_literals(part, literals));
        }
    }
}

/// Adds the octets of which one must come last.
fn collect_ends(arm: &Hir, ends: &mut Vec<(u8, u8)>) {
    match arm.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => ends.extend(literal.0.last().map(|octet| (*octet, *octet))),
        HirKind::Class(class) => ends.extend(ranges(class)),
        HirKind::Repetition(repetition) => collect_ends(&repetition.sub, ends),
        HirKind::Capture(capture) => collect_ends(&capture.sub, ends),
        HirKind::Concat(parts) => {
            if let Some(last) = parts.iter().rev().find(|part| is_required(part)) {
                collect_ends(last, ends);
            }
        }
        HirKind::Alternation(parts) => parts.iter().for_each(|part| collect_ends(part, ends)),
    }
}

/// Matches in the hardest text.
pub(crate) const LATE_MATCHES: usize = MASK_MATCHES_MAX;

/// Parts of expressions that are tried.
const BRANCHES_MAX: usize = 8;

/// A part that may have this many octets is long.
const LONG: usize = 1024;

/// The most octets of a head, about. Longer ones fit into a text too seldom to matter.
const HEAD_MAX: usize = 1024;

/// Octets of an inside before it repeats.
const INSIDE: usize = 65_536;

/// Literals have fewer octets than this between them.
const GAP_MAX: usize = 12;

/// A class is represented by the first of these that it has.
const PLAIN: &[u8] = b"x0a_-/ ";

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(expressions: &[&str]) -> Vec<String> {
        let texts = LateText::all(expressions.iter().copied());
        let mut heads: Vec<_> = texts
            .iter()
            .map(|text| String::from_utf8_lossy(&text.head).into_owned())
            .collect();
        heads.dedup();
        heads
    }

    #[test]
    fn heads_are_matches_with_the_beginning_of_a_longer_one() {
        for (expressions, head) in [
            (&["qj(?:.*a.{40}z)?"][..], "qj"),
            (&[r"req=\S+( .* took .{0,60}ms!)?"], "req=x "),
            (&["x.*y|x"], "x"),
            (&["q(?:foo.*z)?"], "qfoo"),
            (&["qj.*a.{40}z", "qj"], "qj"),
            (&["qj(?:x(?:.*z)?)?"], "qjx"),
        ] {
            let heads = heads(expressions);
            assert!(
                heads.iter().any(|one| one == head),
                "{expressions:?}: {heads:?}"
            );
        }
        for expressions in [
            &["[0-9]+"][..],
            &[r"user=\w+", r"id=\S+"],
            &["took [0-9.]+( ms)?"],
        ] {
            assert!(heads(expressions).is_empty(), "{expressions:?}");
        }
    }

    #[test]
    fn texts_have_their_length_and_are_the_same_each_time() {
        let texts = || {
            LateText::all([r"req=\S+( .* took .{0,60}ms!)?"])
                .iter()
                .flat_map(|late| [0, 7, 4000].map(|len| (len, late.text(len, LATE_MATCHES))))
                .collect::<Vec<_>>()
        };
        assert!(!texts().is_empty());
        for (len, text) in texts() {
            assert_eq!(text.len(), len);
        }
        assert_eq!(texts(), texts());
    }
}
