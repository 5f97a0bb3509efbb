//! Numbered messages, and the account of those that arrived.
//!
//! A message is known by its source (one originator of one round) and its number there. All of its octets
//! follow from these two, so that a message that arrives mangled is told from one that arrives whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::support::numbered::repeats;

/// One originator of one round.
pub(crate) type Source = u64;

/// Message `number` of `source`: mostly short, now and then as long as a stack trace.
pub(crate) fn message(source: Source, number: u64) -> String {
    let mixed = (source << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let octets = if mixed.is_multiple_of(97) {
        4_000 + mixed % 16_000
    } else {
        60 + mixed % 400
    };
    let mut text = format!("{HEAD}{source}: number {number} ");
    let filler = usize::try_from(octets).unwrap().saturating_sub(text.len());
    text.extend(std::iter::repeat_n('x', filler));
    text
}

/// What a collector has: by source, the numbers in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    by_source: BTreeMap<Source, Numbers>,
    /// Messages that came more than once, each time but the first.
    again: u64,
    /// Heads of messages: what a relay that stops has of a line whose end it never read. It forwards them,
    /// because it cannot know that this was not all.
    torn: BTreeSet<String>,
    /// Messages that are none of ours, or are not as they were sent.
    strange: Vec<String>,
}

/// The numbers of one source that arrived.
#[derive(Debug, Default)]
struct Numbers {
    seen: BTreeSet<u64>,
    /// The largest so far; a first copy that is below it came out of order.
    last: Option<u64>,
    late: Vec<u64>,
}

impl Arrived {
    /// Takes down messages in the order in which they came. Summaries are not counted.
    pub(crate) fn note<'a>(&mut self, messages: impl IntoIterator<Item = &'a [u8]>) {
        for octets in messages {
            // A relay may ask with an empty line whether anybody is still there; receivers skip it.
            if octets.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(octets);
            if repeats(&text).is_some() {
                continue;
            }
            let Some((source, number)) = parse(&text) else {
                if is_torn(&text) {
                    self.torn.insert(text.into_owned());
                } else {
                    self.strange.push(text.chars().take(120).collect());
                }
                continue;
            };
            let numbers = self.by_source.entry(source).or_default();
            if !numbers.seen.insert(number) {
                self.again += 1;
            } else if numbers.last.is_some_and(|last| number < last) {
                numbers.late.push(number);
            } else {
                numbers.last = Some(number);
            }
        }
    }

    /// Different numbers of these sources.
    pub(crate) fn distinct(&self, sources: &[Source]) -> u64 {
        let of = |source| self.by_source.get(source).map_or(0, |n| n.seen.len());
        sources.iter().map(of).sum::<usize>() as u64
    }

    /// Different heads of messages that never came to an end.
    pub(crate) fn torn(&self) -> u64 {
        self.torn.len() as u64
    }

    /// Copies beyond the first of each, of all sources.
    pub(crate) fn again(&self) -> u64 {
        self.again
    }

    /// Whether a number arrived.
    pub(crate) fn has(&self, source: Source, number: u64) -> bool {
        let numbers = self.by_source.get(&source);
        numbers.is_some_and(|numbers| numbers.seen.contains(&number))
    }

    /// Those of `numbers` that did not arrive.
    pub(crate) fn missing(
        &self,
        source: Source,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Vec<u64> {
        let missing = |number: &u64| !self.has(source, *number);
        numbers.into_iter().filter(missing).collect()
    }

    /// None of `numbers` is missing.
    #[track_caller]
    pub(crate) fn assert_has(&self, source: Source, numbers: impl IntoIterator<Item = u64>) {
        let missing = self.missing(source, numbers);
        assert!(
            missing.is_empty(),
            "lost: {} numbers of source {source}: {}",
            missing.len(),
            spans(&missing)
        );
    }

    /// Nothing came that was not sent so.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        assert!(
            self.strange.is_empty(),
            "{} messages are not as they were sent: {:?}",
            self.strange.len(),
            &self.strange[..self.strange.len().min(5)]
        );
    }

    /// The same, and the first copies of each source came in the order in which they were sent.
    #[track_caller]
    pub(crate) fn assert_whole_and_ordered(&self) {
        self.assert_whole();
        for (source, numbers) in &self.by_source {
            assert!(
                numbers.late.is_empty(),
                "out of order: of source {source}: {}",
                spans(&numbers.late)
            );
        }
    }

    /// What arrived of a source has no gaps.
    #[track_caller]
    pub(crate) fn assert_without_gaps(&self, source: Source) {
        let Some(last) = self.by_source.get(&source).and_then(|numbers| numbers.last) else {
            return;
        };
        self.assert_has(source, 0..=last);
    }
}

/// Source and number of a message that is as it was sent.
fn parse(text: &str) -> Option<(Source, u64)> {
    let (source, number) = numbers(text)?;
    (text == message(source, number)).then_some((source, number))
}

/// Whether this is how a message begins.
fn is_torn(text: &str) -> bool {
    match numbers(text) {
        Some((source, number)) => message(source, number).starts_with(text),
        None => HEAD.starts_with(text) || (text.starts_with(HEAD) && text.len() < 60),
    }
}

/// What a message says of itself.
fn numbers(text: &str) -> Option<(Source, u64)> {
    let (source, rest) = text.strip_prefix(HEAD)?.split_once(": number ")?;
    let (number, _) = rest.split_once(' ')?;
    Some((source.parse().ok()?, number.parse().ok()?))
}

/// Numbers for a human: `3, 7-9, 12`, at most so many.
pub(crate) fn spans(numbers: &[u64]) -> String {
    let mut text = String::new();
    let mut rest = numbers;
    for _ in 0..20 {
        let Some(&first) = rest.first() else {
            return text;
        };
        let run = (first..).zip(rest).take_while(|(a, b)| a == *b).count();
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}{first}").unwrap();
        if run > 1 {
            write!(text, "-{}", rest[run - 1]).unwrap();
        }
        rest = &rest[run..];
    }
    text + ", ..."
}

const HEAD: &str = "<13>Mar  1 12:00:00 host app-";
