//! Numbered messages, each sent a known number of times, and recognised when they arrive.
//!
//! Number `n` is sent `1 + n % 4` times, so every total is known without being kept. A [`Tally`] parses first copies
//! and summaries and adds them up.

use std::collections::BTreeMap;

/// A set of messages. Each has a number, and is sent a known number of times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    distinct: u64,
}

impl Numbered {
    /// A set of `total` messages, of which two fifths are distinct.
    pub(crate) fn with_total(total: u64) -> Self {
        assert!(
            total.is_multiple_of(10),
            "1 + 2 + 3 + 4 copies make a round"
        );
        Self {
            distinct: total / 10 * 4,
        }
    }

    /// How many different messages there are.
    pub(crate) fn distinct(self) -> u64 {
        self.distinct
    }

    /// How many messages are sent in all.
    pub(crate) fn total(self) -> u64 {
        (0..self.distinct).map(copies).sum()
    }

    /// The texts in the order of sending: all first copies, then all second ones, and so on, so that no copy directly
    /// follows another copy of it.
    pub(crate) fn texts(self) -> impl Iterator<Item = String> {
        (0..4).flat_map(move |round| {
            (0..self.distinct)
                .filter(move |&n| copies(n) > round)
                .map(text)
        })
    }

    /// The texts as RFC 3164 messages of one program on one host.
    pub(crate) fn rfc3164(self) -> impl Iterator<Item = String> {
        self.texts()
            .map(|text| format!("<13>Mar  1 12:00:00 host app[7]: {text}"))
    }
}

/// How often number `n` is sent.
pub(crate) fn copies(n: u64) -> u64 {
    1 + n % 4
}

fn text(n: u64) -> String {
    format!("number {n:08} of the test")
}

/// What arrived from a set of [`Numbered`] messages.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By number: how many copies arrived unchanged.
    pub(crate) copies: BTreeMap<u64, u64>,
    /// By number: how many more copies the summaries reported.
    pub(crate) reported: BTreeMap<u64, u64>,
    /// How many summaries there were.
    pub(crate) summaries: u64,
}

impl Tally {
    /// Parses messages.
    ///
    /// # Panics
    ///
    /// If a message has no number.
    #[track_caller]
    pub(crate) fn of(messages: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut tally = Self::default();
        for message in messages {
            let message = String::from_utf8_lossy(message.as_ref());
            let number = number_after(&message, "number ");
            let number = number
                .unwrap_or_else(|| panic!("a message that this test did not send: {message}"));
            if let Some(count) = repeats(&message) {
                tally.summaries += 1;
                *tally.reported.entry(number).or_default() += count;
            } else {
                *tally.copies.entry(number).or_default() += 1;
            }
        }
        tally
    }

    /// Asserts that each number arrived once, and that summaries report all of its other copies.
    #[track_caller]
    pub(crate) fn assert_once_each(&self, sent: Numbered) {
        self.assert_adds_up(sent);
        let twice: Vec<_> = self
            .copies
            .iter()
            .filter(|&(_, &count)| count != 1)
            .take(5)
            .collect();
        assert!(twice.is_empty(), "arrived more than once: {twice:?}");
    }

    /// Asserts for each number that the copies that arrived and those that were reported add up to those sent.
    #[track_caller]
    pub(crate) fn assert_adds_up(&self, sent: Numbered) {
        let wrong: Vec<_> = (0..sent.distinct())
            .map(|n| {
                let arrived = self.copies.get(&n).copied().unwrap_or(0);
                (n, arrived, self.reported.get(&n).copied().unwrap_or(0))
            })
            .filter(|&(n, arrived, reported)| arrived + reported != copies(n) || arrived == 0)
            .collect();
        assert!(
            wrong.is_empty(),
            "{} numbers do not add up; the first (number, arrived, reported): {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)]
        );
        let alien = self.copies.keys().chain(self.reported.keys()).max();
        assert!(
            alien.is_none_or(|&n| n < sent.distinct()),
            "number {alien:?} was never sent"
        );
    }
}

/// How many repeats this message reports; `None` if it is not a summary.
pub(crate) fn repeats(message: &str) -> Option<u64> {
    number_after(message, "message repeated ")
        .filter(|_| message.contains(" times: [") || message.ends_with(" times]"))
}

fn number_after(message: &str, words: &str) -> Option<u64> {
    let rest = message.split_once(words)?.1;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.split_at(end).0.parse().ok()
}
