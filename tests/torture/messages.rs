//! Numbered messages, and the record of those that arrived.
//!
//! A message is identified by its source (one originator in one round) and its number there. These two determine all of
//! its octets, so a mangled message is recognised.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::support::numbered::repeats;

/// One originator in one round.
pub(crate) type Source = u64;

/// Message `number` of `source`: mostly short, sometimes as long as a stack trace.
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

/// The messages that a collector has: for each source, the numbers in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    by_source: BTreeMap<Source, Numbers>,
    /// How many messages came again: all copies except first ones.
    again: u64,
    /// Beginnings of messages. A relay that stops has read only the beginning of some line, and forwards that, because
    /// it cannot know that more was to come.
    torn: BTreeSet<String>,
    /// Messages that this test did not send, or not in this form.
    strange: Vec<String>,
}

/// The numbers that arrived from one source.
#[derive(Debug, Default)]
struct Numbers {
    seen: BTreeSet<u64>,
    /// The largest so far. A first copy with a smaller number came out of order.
    last: Option<u64>,
    late: Vec<u64>,
}

impl Arrived {
    /// Records messages in the order in which they came. Summaries are not counted.
    pub(crate) fn note<'a>(&mut self, messages: impl IntoIterator<Item = &'a [u8]>) {
        for octets in messages {
            // A relay may send an empty line to ask whether the peer still reads. Receivers skip it.
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

    /// How many different messages of these sources arrived.
    pub(crate) fn distinct(&self, sources: &[Source]) -> u64 {
        let of = |source| self.by_source.get(source).map_or(0, |n| n.seen.len());
        sources.iter().map(of).sum::<usize>() as u64
    }

    /// How many different messages broke off and never came whole.
    pub(crate) fn torn(&self) -> u64 {
        self.torn.len() as u64
    }

    /// How many copies beyond first ones came, from all sources.
    pub(crate) fn again(&self) -> u64 {
        self.again
    }

    pub(crate) fn has(&self, source: Source, number: u64) -> bool {
        let numbers = self.by_source.get(&source);
        numbers.is_some_and(|numbers| numbers.seen.contains(&number))
    }

    /// The `numbers` that did not arrive.
    pub(crate) fn missing(
        &self,
        source: Source,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Vec<u64> {
        let missing = |number: &u64| !self.has(source, *number);
        numbers.into_iter().filter(missing).collect()
    }

    /// Asserts that all `numbers` arrived.
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

    /// Asserts that every message arrived as it was sent.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        assert!(
            self.strange.is_empty(),
            "{} messages are not as they were sent: {:?}",
            self.strange.len(),
            &self.strange[..self.strange.len().min(5)]
        );
    }

    /// As [`assert_whole`](Self::assert_whole); the first copies of each source also came in the order of sending.
    #[track_caller]
    pub(crate) fn assert_whole_and_ordered(&self) {
        self.assert_whole();
        for (source, numbers) in &self.by_source {
            assert!(
                numbers.late.is_empty(),
                "out of order: source {source}: {}",
                spans(&numbers.late)
            );
        }
    }

    /// Asserts that the numbers of a source have no gaps.
    #[track_caller]
    pub(crate) fn assert_without_gaps(&self, source: Source) {
        let Some(last) = self.by_source.get(&source).and_then(|numbers| numbers.last) else {
            return;
        };
        self.assert_has(source, 0..=last);
    }
}

/// Source and number of an intact message.
fn parse(text: &str) -> Option<(Source, u64)> {
    let (source, number) = numbers(text)?;
    (text == message(source, number)).then_some((source, number))
}

/// Whether `text` is the beginning of a message.
fn is_torn(text: &str) -> bool {
    match numbers(text) {
        Some((source, number)) => message(source, number).starts_with(text),
        None => HEAD.starts_with(text) || (text.starts_with(HEAD) && text.len() < 60),
    }
}

/// The source and number in a message's text.
fn numbers(text: &str) -> Option<(Source, u64)> {
    let (source, rest) = text.strip_prefix(HEAD)?.split_once(": number ")?;
    let (number, _) = rest.split_once(' ')?;
    Some((source.parse().ok()?, number.parse().ok()?))
}

/// Numbers for a human reader, such as `3, 7-9, 12`; a long list is cut.
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
