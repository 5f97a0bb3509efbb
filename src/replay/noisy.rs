//! The noisiest messages: how many copies each has, in bounded memory.
//!
//! # Guarantees
//!
//! - At most [`KEPT_MAX`] messages are kept, with the first octets of one copy each.
//! - Counts are exact as long as no more different messages come. Then the half with the fewest copies is evicted. From then
//!   on a count may be too low by at most [`Noisy::missed`], and every message with more copies than that is still kept.
//!
//! # Left out
//!
//! Verdicts: messages are told apart here by 64 bits of a seeded hash, which is not enough to suppress one.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::offer::{ORIGIN, Offer};
use crate::core::rule::{Fate, PolicyId};
use crate::core::tick::WallTime;
use crate::explain::Namer;

/// Counts the copies of messages.
#[derive(Debug)]
pub(super) struct Noisy {
    /// By policy and hash of the identity.
    messages: HashMap<(PolicyId, u64), Noise, RandomState>,
    namer: Namer,
    /// No message that is not kept has more copies than this.
    pub(super) missed: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Noise {
    pub(super) count: u64,
    /// Copies suppressed or dropped.
    pub(super) suppressed: u64,
    /// The timestamps of the first and the last copy, if they had one.
    pub(super) first: Option<WallTime>,
    pub(super) last: Option<WallTime>,
    /// The identity that `explain` shows.
    pub(super) identity: String,
    /// The first octets of the first copy.
    pub(super) frame: Box<[u8]>,
}

impl Noisy {
    pub(super) fn new() -> Self {
        Self {
            messages: HashMap::default(),
            namer: Namer::default(),
            missed: 0,
        }
    }

    /// Counts a copy with this fate.
    pub(super) fn count(&mut self, offer: &Offer<'_, '_>, fate: Fate, at: Option<WallTime>) {
        let suppressed = u64::from(!fate.is_forwarded());
        let key = (offer.policy, offer.identity.hash);
        if let Some(noise) = self.messages.get_mut(&key) {
            noise.count += 1;
            noise.suppressed += suppressed;
            noise.last = at;
            return;
        }
        if self.messages.len() >= KEPT_MAX {
            self.evict_half();
        }
        let frame = offer.message.frame();
        let noise = Noise {
            count: 1,
            suppressed,
            first: at,
            last: at,
            identity: self
                .namer
                .name(offer.rules, offer.policy, offer.message, ORIGIN),
            frame: frame.get(..EXAMPLE_OCTETS_MAX).unwrap_or(frame).into(),
        };
        self.messages.insert(key, noise);
    }

    /// How many different messages there are, if none was evicted.
    pub(super) fn different(&self) -> Option<usize> {
        (self.missed == 0).then_some(self.messages.len())
    }

    /// The noisiest messages, by copies, then by their first octets, so that the order is the same in every run.
    pub(super) fn noisiest(&self, count: usize) -> Vec<Noise> {
        let mut all: Vec<_> = self.messages.values().collect();
        all.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.frame.cmp(&b.frame)));
        all.into_iter().take(count).cloned().collect()
    }

    fn evict_half(&mut self) {
        let mut counts: Vec<_> = self.messages.values().map(|noise| noise.count).collect();
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let median = *median;
        self.messages.retain(|_, noise| noise.count > median);
        // A message that comes again had at most so many copies, and may have been evicted before that.
        self.missed += median;
    }
}

/// Messages that are kept at most; with their examples they take about 20 MB.
pub(super) const KEPT_MAX: usize = 32 * 1024;

/// Octets of a copy that are kept, to show the message.
const EXAMPLE_OCTETS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::core::dedup::Sighting;
    use crate::core::identity::Identity;
    use crate::core::parse::Message;
    use crate::core::rule::{DEFAULT, Rules};
    use crate::core::tick::Tick;

    fn count(noisy: &mut Noisy, rules: &Rules, hash: u64, times: usize) {
        let frame = format!("app: message {hash}");
        let offer = Offer {
            rules,
            policy: DEFAULT,
            message: &Message::parse(frame.as_bytes()),
            identity: Identity { hash, octets: &[] },
            sighting: Sighting {
                frame: frame.as_bytes(),
                timestamp: None,
                variant: None,
            },
            now: Tick::ZERO,
        };
        for _ in 0..times {
            noisy.count(&offer, Fate::Forwarded, None);
        }
    }

    #[test]
    fn the_noisiest_come_first() {
        let (mut noisy, rules) = (Noisy::new(), Config::default().rules);
        for (hash, times) in [(1, 2), (2, 5), (3, 1), (4, 5)] {
            count(&mut noisy, &rules, hash, times);
        }
        let counts: Vec<_> = noisy
            .noisiest(3)
            .into_iter()
            .map(|n| (n.count, n.frame))
            .collect();
        let frame = |n: u32| format!("app: message {n}").into_bytes().into_boxed_slice();
        assert_eq!(counts, [(5, frame(2)), (5, frame(4)), (2, frame(1))]);
        assert_eq!(noisy.different(), Some(4));
    }

    #[test]
    fn a_flood_of_others_does_not_evict_what_is_said_often() {
        let (mut noisy, rules) = (Noisy::new(), Config::default().rules);
        count(&mut noisy, &rules, 1, 100);
        for hash in 2..3 * KEPT_MAX as u64 {
            count(&mut noisy, &rules, hash, 1);
            if hash % 1000 == 0 {
                count(&mut noisy, &rules, 1, 1);
            }
        }
        assert!(noisy.messages.len() <= KEPT_MAX);
        assert!(noisy.missed > 0 && noisy.different().is_none());
        let first = noisy.noisiest(1).remove(0);
        assert_eq!(&*first.frame, b"app: message 1");
        assert_eq!(first.count, 100 + 3 * KEPT_MAX as u64 / 1000);
    }
}
