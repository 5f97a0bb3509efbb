//! Hard texts: texts on which a search for given expressions is slow, made from the expressions themselves.
//!
//! The search runs an automaton that is built while it runs. It is slow on a text that makes it build states without
//! end, or that keeps very many places of the expression in play. Repetitions with a large count are the worst. No
//! single kind of text finds all slow expressions, so there are several.
//!
//! # Guarantees
//!
//! - The same expressions yield the same sequence of texts.
//! - Making a text takes time in proportion to its length, whatever the expressions.
//!
//! # Left out
//!
//! The time that a search takes: `config` measures it.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::pattern::syntax_of;

/// Makes hard texts for given expressions.
#[derive(Debug)]
pub(crate) struct HardTexts {
    expressions: Vec<Hir>,
    /// The octets by which the expressions tell texts apart: literals and the ends of classes. Not empty.
    octets: Vec<u8>,
    /// Places in the expressions, counted repetitions written out.
    places: usize,
    random: Random,
}

/// The kind of a hard text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Pieces that match, or that lack only their last octet to match.
    Matches,
    Octets,
    /// Runs of one octet.
    Runs,
    /// One octet, repeated: the first, middle or last of [`HardTexts::octets`].
    First,
    Middle,
    Last,
    /// A few letters, drawn at random.
    Letters,
    /// Words that are common in logs.
    Log,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Matches,
        Self::Octets,
        Self::Runs,
        Self::First,
        Self::Middle,
        Self::Last,
        Self::Letters,
        Self::Log,
    ];
}

impl HardTexts {
    /// Texts for `expressions`. Those that are no regular expressions are left out.
    pub(crate) fn of<'e>(expressions: impl IntoIterator<Item = &'e str>) -> Self {
        let expressions: Vec<_> = expressions
            .into_iter()
            .filter_map(|expression| syntax_of(expression).ok())
            .collect();
        let mut octets = Vec::new();
        let mut places = 0_usize;
        for expression in &expressions {
            collect_octets(expression, &mut octets);
            places = places.saturating_add(places_of(expression));
        }
        octets.sort_unstable();
        octets.dedup();
        if octets.is_empty() {
            octets.push(b'x');
        }
        Self {
            expressions,
            octets,
            places,
            random: Random::new(),
        }
    }

    /// Places in the expressions, counted repetitions written out: about the number of states that they compile to.
    pub(crate) const fn places(&self) -> usize {
        self.places
    }

    /// The next text of `kind`, with `len` octets.
    pub(crate) fn next(&mut self, kind: Kind, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + SLACK);
        while text.len() < len {
            match kind {
                Kind::Matches => self.push_match(&mut text, len),
                Kind::Octets => text.push(self.random.of(&self.octets)),
                Kind::Runs => {
                    let octet = self.random.of(&self.octets);
                    let run = 1 + self.random.below(RUN_MAX);
                    text.resize(text.len() + run, octet);
                }
                Kind::First => self.fill(&mut text, len, 0),
                Kind::Middle => self.fill(&mut text, len, self.octets.len() / 2),
                Kind::Last => self.fill(&mut text, len, self.octets.len() - 1),
                Kind::Letters => text.push(self.random.of(LETTERS)),
                Kind::Log => {
                    text.extend_from_slice(self.random.of(WORDS).as_bytes());
                    text.push(b' ');
                }
            }
        }
        text.truncate(len);
        text
    }

    fn fill(&self, text: &mut Vec<u8>, len: usize, index: usize) {
        let octet = self.octets.get(index);
        text.resize(len, *octet.expect("`octets` is not empty"));
    }

    fn push_match(&mut self, text: &mut Vec<u8>, len: usize) {
        let start = text.len();
        let index = self.random.below(self.expressions.len());
        if let Some(expression) = self.expressions.get(index) {
            let mut steps = STEPS_PER_OCTET * (len - start + SLACK);
            sample(expression, &mut self.random, text, len, &mut steps);
        }
        // Most pieces do not match without their last octet. Each piece adds at least one octet.
        if text.len() > start + 1 && self.random.below(4) > 0 {
            text.pop();
        } else {
            text.push(b' ');
        }
    }
}

/// Appends a text that `expression` matches. It is cut off after `steps` steps or at `len` octets.
pub(super) fn sample(
    expression: &Hir,
    random: &mut Random,
    text: &mut Vec<u8>,
    len: usize,
    steps: &mut usize,
) {
    if text.len() >= len || *steps == 0 {
        return;
    }
    *steps -= 1;
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.extend_from_slice(&literal.0),
        HirKind::Class(class) => {
            let ranges = ranges(class);
            if let Some(&(first, last)) = ranges.get(random.below(ranges.len())) {
                let span = usize::from(last - first);
                let beyond = u8::try_from(random.below(span + 1));
                text.push(first + beyond.expect("a span is below 256"));
            }
        }
        HirKind::Repetition(repetition) => {
            let min = repetition.min as usize;
            let max = repetition
                .max
                .map_or(min + OPEN_REPEATS, |max| max as usize)
                .min(min + len);
            // Half of the time, as many as are allowed.
            let count = if random.below(2) == 0 {
                max
            } else {
                min + random.below(max - min + 1)
            };
            for _ in 0..count {
                if text.len() >= len || *steps == 0 {
                    return;
                }
                sample(&repetition.sub, random, text, len, steps);
            }
        }
        HirKind::Capture(capture) => sample(&capture.sub, random, text, len, steps),
        HirKind::Concat(parts) => {
            for part in parts {
                sample(part, random, text, len, steps);
            }
        }
        HirKind::Alternation(parts) => {
            let part = parts.get(random.below(parts.len()));
            let part = part.expect("an alternation has parts");
            sample(part, random, text, len, steps);
        }
    }
}

/// The ranges of octets in `class`.
pub(super) fn ranges(class: &Class) -> Vec<(u8, u8)> {
    match class {
        Class::Bytes(class) => class
            .ranges()
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect(),
        // The parser does without Unicode, so such a class is ASCII.
        Class::Unicode(class) => class
            .ranges()
            .iter()
            .filter_map(|range| {
                let first = u8::try_from(range.start()).ok()?;
                Some((first, u8::try_from(range.end()).unwrap_or(u8::MAX)))
            })
            .collect(),
    }
}

/// Adds the octets of literals and the ends of classes to `octets`.
pub(super) fn collect_octets(expression: &Hir, octets: &mut Vec<u8>) {
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => octets.extend_from_slice(&literal.0),
        HirKind::Class(class) => {
            octets.extend(
                ranges(class)
                    .into_iter()
                    .flat_map(|(first, last)| [first, last]),
            );
        }
        HirKind::Repetition(repetition) => collect_octets(&repetition.sub, octets),
        HirKind::Capture(capture) => collect_octets(&capture.sub, octets),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().for_each(|part| collect_octets(part, octets));
        }
    }
}

fn places_of(expression: &Hir) -> usize {
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1) as usize;
            places_of(&repetition.sub).saturating_mul(times)
        }
        HirKind::Capture(capture) => places_of(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts
            .iter()
            .fold(0, |sum: usize, part| sum.saturating_add(places_of(part))),
    }
}

/// xorshift64*. The texts must be the same each time, not unpredictable.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from((self.next() >> 16) % bound).expect("`bound` was a usize")
    }

    /// One of `some`; the default if `some` is empty.
    pub(super) fn of<T: Copy + Default>(&mut self, some: &[T]) -> T {
        some.get(self.below(some.len()))
            .copied()
            .unwrap_or_default()
    }
}

/// Repeats of a part whose repetition has no upper limit.
const OPEN_REPEATS: usize = 8;

/// The most octets of a run: more than most counted repetitions have.
const RUN_MAX: usize = 400;

/// Parts of an expression that may be visited for each octet wanted.
const STEPS_PER_OCTET: usize = 16;

/// A text may exceed its length by about this many octets before it is cut.
const SLACK: usize = 512;

const LETTERS: &[u8] = b"ab01 x";

pub(super) const WORDS: &[&str] = &[
    "Failed",
    "password",
    "for",
    "root",
    "from",
    "192.0.2.7",
    "port",
    "40022",
    "ssh2",
    "user=bob",
    "session",
    "a1b2c3",
    "took",
    "12.5ms",
    "/var/log/x",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_length_and_are_the_same_each_time() {
        for expression in [
            "[0-9]+",
            r"\bx?\b",
            "(a{0,9}){0,9}b",
            "",
            "(((a?){100}){100}){9}b",
        ] {
            let (mut one, mut other) = (HardTexts::of([expression]), HardTexts::of([expression]));
            for kind in Kind::ALL {
                for len in [0, 1, 64, 4000] {
                    let text = one.next(kind, len);
                    assert_eq!(text.len(), len, "{expression} {kind:?}");
                    assert_eq!(text, other.next(kind, len));
                }
            }
        }
    }

    #[test]
    fn repetitions_are_written_out() {
        let places = |expression| HardTexts::of([expression]).places();
        assert_eq!(places("abc[0-9]+"), 4);
        assert_eq!(places("(ab{0,500}){10}"), 5010);
        assert_eq!(HardTexts::of(["a", "b|cd"]).places(), 4);
    }

    #[test]
    fn matches_match() {
        let regex = regex_automata::meta::Regex::new("job-[0-9]+x").unwrap();
        let text = HardTexts::of(["job-[0-9]+x"]).next(Kind::Matches, 4000);
        assert!(regex.find_iter(&text).count() > 10);
    }
}
