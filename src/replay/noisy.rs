//! The noisiest messages: how often each was said, in a bounded memory.
//!
//! # Guarantees
//!
//! - At most [`KEPT_MAX`] messages are kept, with the first octets of one copy each.
//! - As long as there are no more different ones, counts are exact. Beyond, the half that was said
//!   least is forgotten: a count may then be too low by [`Noisy::missed`] at most, and whatever was
//!   said more often than that is still there.
//!
//! # Left out
//!
//! Verdicts are never taken from here: messages are told apart by 64 bits of a seeded hash.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::ORIGIN;
use super::fate::Fate;
use super::findings::Offer;
use crate::explain::Namer;
use crate::rule::PolicyId;
use crate::tick::WallTime;

/// Counts messages.
#[derive(Debug)]
pub(super) struct Noisy {
    /// By what it falls under, and the hash of the identity.
    messages: HashMap<(PolicyId, u64), Noise, RandomState>,
    namer: Namer,
    /// No message that is not kept was said more often than this.
    pub(super) missed: u64,
}

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Noise {
    /// Copies.
    pub(super) count: u64,
    /// Copies held back or dropped.
    pub(super) suppressed: u64,
    /// When the first and the last were said, if they said so.
    pub(super) first: Option<WallTime>,
    pub(super) last: Option<WallTime>,
    /// As `explain` gives it.
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

    /// Counts a copy, and what became of it.
    pub(super) fn count(&mut self, offer: &Offer<'_, '_>, fate: Fate, at: Option<WallTime>) {
        let suppressed = u64::from(!fate.goes_out());
        let key = (offer.policy, offer.identity.hash);
        if let Some(noise) = self.messages.get_mut(&key) {
            noise.count += 1;
            noise.suppressed += suppressed;
            noise.last = at;
            return;
        }
        if self.messages.len() >= KEPT_MAX {
            self.forget_half();
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

    /// Different messages, if none was forgotten.
    pub(super) fn different(&self) -> Option<usize> {
        (self.missed == 0).then_some(self.messages.len())
    }

    /// The noisiest, by copies; equal ones by their first octets, so that the order is always the same.
    pub(super) fn noisiest(&self, count: usize) -> Vec<Noise> {
        let mut all: Vec<_> = self.messages.values().collect();
        all.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.frame.cmp(&b.frame)));
        all.into_iter().take(count).cloned().collect()
    }

    fn forget_half(&mut self) {
        let mut counts: Vec<_> = self.messages.values().map(|noise| noise.count).collect();
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let median = *median;
        self.messages.retain(|_, noise| noise.count > median);
        // Whoever comes again was counted so often, and may have been forgotten before.
        self.missed += median;
    }
}

/// Messages that are kept: with their examples about 20 MB.
pub(super) const KEPT_MAX: usize = 32 * 1024;

/// Octets of a copy that are kept, to show what was said.
const EXAMPLE_OCTETS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::dedup::Sighting;
    use crate::identity::Identity;
    use crate::parse::Message;
    use crate::rule::{DEFAULT, Rules};
    use crate::tick::Tick;

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
            noisy.count(&offer, Fate::Out, None);
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
    fn a_flood_of_others_does_not_drive_out_what_is_said_often() {
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
