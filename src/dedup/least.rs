//! The least memory with which windows work.
//!
//! # Guarantees
//!
//! - With [`Shards::octets_min`] octets or more, a copy that follows its message is held back, whatever the shard and
//!   the policy, as long as neither is longer than [`MESSAGE_OCTETS_EXPECTED`]: each engine of each shard has room
//!   for a message of its own and what it holds back.
//! - The number is reckoned from what engines really allocate.
//!
//! # Left out
//!
//! How much is enough: the more messages are to be remembered at a time, the more memory they take.

use std::mem::size_of;
use std::time::Duration;

use super::Shards;
use super::engine::Engine;
use super::shard::{ROOM_AHEAD_OCTETS, granule_shift};
use crate::limits::MESSAGE_OCTETS_EXPECTED;
use crate::rule::{PolicyId, WindowPolicy};

impl Shards {
    /// The least budget for so many shards and policies. Grows with both.
    #[must_use]
    pub fn octets_min(shard_count: usize, policies: usize) -> usize {
        let policies = policies.max(1);
        let one = engine_octets_min();
        // No message may take more than half of the budget.
        let per_shard = (policies * one).max(2 * one) + ROOM_AHEAD_OCTETS;
        shard_count * per_shard
    }

    /// The largest power of two of shards, at most `shards_max`, for which `budget_octets` is enough; `None` if not even
    /// one is possible.
    #[must_use]
    pub fn count_max(budget_octets: usize, policies: usize, shards_max: usize) -> Option<usize> {
        (0..=shards_max.max(1).ilog2())
            .rev()
            .map(|shift| 1 << shift)
            .find(|count| Self::octets_min(*count, policies) <= budget_octets)
    }
}

/// What an engine takes for itself and one message that holds back a copy.
fn engine_octets_min() -> usize {
    let policy = WindowPolicy {
        window: Duration::from_secs(1),
        allow: 1,
        refresh: None,
    };
    // With little memory the pieces of timelines are the smallest; with more, they stay a small part of it.
    let engine = Engine::new(policy, PolicyId(0), 1, granule_shift(0, 1));
    size_of::<Engine>() + engine.first_octets(MESSAGE_OCTETS_EXPECTED)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::dedup::{Ended, Sighting, Verdict};
    use crate::identity::{Identity, Variant};
    use crate::tick::Tick;

    #[test]
    fn a_machine_of_any_size_has_room_for_its_shards_by_default() {
        assert_eq!(Shards::count_max(256 << 20, 2, 4096), Some(4096));
        assert_eq!(Shards::count_max(1 << 20, 2, 8), Some(8));
        assert_eq!(Shards::count_max(1 << 20, 258, 4096), None);
        assert!(
            Shards::octets_min(1, 2) < 40_000,
            "{}",
            Shards::octets_min(1, 2)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Each message is followed by its copy, under one policy after the other, in all shards by turns, after
        /// others have filled the memory.
        #[test]
        fn with_the_least_memory_or_more_each_copy_is_held_back(
            shard_shift in 0..6_u32,
            policy_count in 1..260_u16,
            more in prop_oneof![Just(0), 0..1_usize << 20, 0..1_usize << 28],
            fill in vec((any::<u64>(), any::<u16>(), 1..4000_usize), 0..300),
            varied in any::<bool>(),
        ) {
            let policy = WindowPolicy {
                window: Duration::from_secs(1),
                allow: 1,
                refresh: None,
            };
            let policies = vec![policy; usize::from(policy_count)];
            let count = 1 << shard_shift;
            let budget = Shards::octets_min(count, policies.len()) + more;
            let shards = Shards::new(count, &policies, budget);
            let mut ended: Vec<Ended> = Vec::new();
            let variant = Variant { text: Some(1), host: None };
            let mut offer = |policy: u16, hash: u64, octets: &[u8]| {
                let sighting = Sighting {
                    frame: octets,
                    timestamp: None,
                    variant: varied.then_some(&variant),
                };
                let identity = Identity { hash, octets };
                ended.clear();
                shards.offer(PolicyId(policy), identity, sighting, Tick::ZERO, &mut ended)
            };
            for (hash, policy, octets) in fill {
                offer(policy % policy_count, hash, &vec![b'x'; octets]);
            }
            let longest = [b'y'; MESSAGE_OCTETS_EXPECTED];
            for number in 0..u64::from(policy_count) {
                let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let policy = u16::try_from(number).unwrap();
                let verdict = offer(policy, hash, &longest);
                prop_assert!(verdict != Verdict::Duplicate);
                prop_assert_eq!(offer(policy, hash, &longest), Verdict::Duplicate, "{} of {}", number, policy_count);
            }
        }

        /// All policies of one shard at the same time.
        #[test]
        fn the_least_memory_holds_a_message_of_each_policy(policy_count in 1..260_u16) {
            let policy = WindowPolicy {
                window: Duration::from_secs(1),
                allow: 1,
                refresh: None,
            };
            let policies = vec![policy; usize::from(policy_count)];
            let shards = Shards::new(1, &policies, Shards::octets_min(1, policies.len()));
            let octets = [b'y'; MESSAGE_OCTETS_EXPECTED];
            for copy in 0..3 {
                for policy in 0..policy_count {
                    let sighting = Sighting { frame: &octets, timestamp: None, variant: None };
                    let identity = Identity { hash: 7, octets: &octets };
                    let mut ended = Vec::new();
                    let verdict = shards.offer(PolicyId(policy), identity, sighting, Tick::ZERO, &mut ended);
                    prop_assert_eq!(verdict == Verdict::Duplicate, copy > 0, "{} of {}", policy, policy_count);
                }
            }
        }
    }
}
