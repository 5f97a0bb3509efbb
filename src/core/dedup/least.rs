//! The least memory with which windows work.
//!
//! # Guarantees
//!
//! - With [`Shards::octets_min`] octets or more, a copy that directly follows its message is suppressed, whatever the
//!   shard and the policy, as long as neither is longer than [`MESSAGE_OCTETS_EXPECTED`]: each engine of each
//!   shard has room for one message and one suppressed copy.
//!   This holds after any other messages: engines that remember none of them free all that they had grown to.
//! - The number is computed from what engines really allocate.
//!
//! # Left out
//!
//! How much is enough: the more messages are to be remembered at a time, the more memory they take.

use std::mem::size_of;
use std::time::Duration;

use super::Shards;
use super::engine::Engine;
use super::shard::{ROOM_AHEAD_OCTETS, page_shift};
use crate::core::limits::MESSAGE_OCTETS_EXPECTED;
use crate::core::rule::{PolicyId, WindowPolicy};

impl Shards {
    /// The least budget for this many shards and policies. Grows with both.
    #[must_use]
    pub fn octets_min(shard_count: usize, policies: usize) -> usize {
        let policies = policies.max(1);
        let one = engine_octets_min();
        // No message may take more than half of the budget.
        let per_shard = (policies * one).max(2 * one) + ROOM_AHEAD_OCTETS;
        shard_count * per_shard
    }

    /// The largest power of two of shards, at most `shards_max`, for which `budget_octets` is enough. Returns `None` if
    /// it is too little for one shard.
    #[must_use]
    pub fn count_max(budget_octets: usize, policies: usize, shards_max: usize) -> Option<usize> {
        (0..=shards_max.max(1).ilog2())
            .rev()
            .map(|shift| 1 << shift)
            .find(|count| Self::octets_min(*count, policies) <= budget_octets)
    }
}

/// Octets of an engine, one message and a suppressed copy of it.
fn engine_octets_min() -> usize {
    let policy = WindowPolicy {
        window: Duration::from_secs(1),
        allow: 1,
        refresh: None,
    };
    // With little memory the pages of timelines are the smallest; with more, they stay a small part of it.
    let engine = Engine::new(policy, PolicyId(0), 1, page_shift(0, 1));
    size_of::<Engine>() + engine.first_octets(MESSAGE_OCTETS_EXPECTED)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::core::dedup::{Ended, Sighting, Verdict, lock};
    use crate::core::identity::{Identity, Variant};
    use crate::core::tick::Tick;

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

    /// The hash of the first message, its policy, the octets of each message, and the number of messages.
    type Run = (u64, u16, usize, u64);

    /// Fills the memory with runs of messages. Then offers a message and its copy under each policy in turn, which
    /// reach all shards by turns. All have the same time: none is older than another.
    fn suppresses_after(
        fill: &[Run],
        shard_count: usize,
        policy_count: u16,
        more: usize,
        varied: bool,
    ) -> Result<(), TestCaseError> {
        let policy = WindowPolicy {
            window: Duration::from_secs(1),
            allow: 1,
            refresh: None,
        };
        let policies = vec![policy; usize::from(policy_count)];
        let budget = Shards::octets_min(shard_count, policies.len()) + more;
        let shards = Shards::new(shard_count, &policies, budget);
        let mut ended: Vec<Ended> = Vec::new();
        let variant = Variant {
            text: Some(1),
            host: None,
        };
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
        for &(hash, policy, octets, count) in fill {
            let octets = vec![b'x'; octets];
            for number in 0..count {
                offer(
                    policy % policy_count,
                    hash.wrapping_add(spread(number)),
                    &octets,
                );
            }
        }
        let longest = [b'y'; MESSAGE_OCTETS_EXPECTED];
        for policy in 0..policy_count {
            let hash = spread(u64::from(policy));
            let verdict = offer(policy, hash, &longest);
            prop_assert!(verdict != Verdict::Duplicate);
            let verdict = offer(policy, hash, &longest);
            prop_assert_eq!(
                verdict,
                Verdict::Duplicate,
                "{} of {}",
                policy,
                policy_count
            );
        }
        let stats = shards.stats();
        prop_assert!(stats.octets <= stats.budget_octets, "{:?}", stats);
        Ok(())
    }

    const fn spread(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// A message's own mark started at the same time as the others, and was evicted as if it were the oldest.
    #[test]
    fn a_mark_makes_no_room_for_its_own_copy_while_there_are_others() {
        for (policy_count, count) in [(2, 8), (4, 19), (12, 60), (260, 1500)] {
            let last = policy_count - 1;
            let fill = [
                (1, last, 88, 1),
                (1, last, 2055, count),
                (1, last, 1604, count),
            ];
            suppresses_after(&fill, 1, policy_count, 0, false).unwrap();
            suppresses_after(&fill, 2, policy_count, 0, true).unwrap();
        }
    }

    /// An engine must free what it had grown to.
    #[test]
    fn what_was_full_once_leaves_room_for_others() {
        for (policy_count, sizes) in [(2, &[1, 16, 2000][..]), (12, &[16, 2000])] {
            for &octets in sizes {
                let marks = u64::from(policy_count) * 16_000 / (24 + octets);
                let each: Vec<Run> = (0..policy_count)
                    .map(|policy| (7, policy, usize::try_from(octets).unwrap(), marks))
                    .collect();
                suppresses_after(&each, 1, policy_count, 0, false).unwrap();
            }
        }
    }

    /// With hundreds of engines, the handles of freed pages and blocks would add up to most of the budget.
    #[test]
    fn engines_that_remember_nothing_keep_nothing_while_room_is_short() {
        let policy = WindowPolicy {
            window: Duration::from_secs(1),
            allow: 1,
            refresh: None,
        };
        let shards = Shards::new(1, &[policy; 12], Shards::octets_min(1, 12));
        for (policy, number) in (0..12).flat_map(|policy| (0..100).map(move |n| (policy, n))) {
            let sighting = Sighting {
                frame: b"",
                timestamp: None,
                variant: None,
            };
            let identity = Identity {
                hash: spread(number),
                octets: &[b'x'; 2000],
            };
            let policy = PolicyId(policy);
            shards.offer(policy, identity, sighting, Tick::ZERO, &mut Vec::new());
        }
        let shard = lock(&shards.shards[0]);
        let empty = shard.engines.iter().filter(|engine| engine.marks() == 0);
        let kept: Vec<_> = empty.map(Engine::charged).collect();
        assert_eq!(kept, [0; 11]);
    }

    /// The smallest marks, of which the most must be evicted, and a first message, for which an engine needs the most.
    #[test]
    fn the_smallest_marks_make_room_for_the_first_message_of_another_policy() {
        for (more, count) in [(0, 2000), (4 << 20, 200_000)] {
            suppresses_after(&[(7, 1, 1, count)], 1, 2, more, true).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn with_the_least_memory_or_more_each_copy_is_suppressed(
            shard_shift in 0..6_u32,
            policy_count in 1..260_u16,
            more in prop_oneof![Just(0), 0..1_usize << 20, 0..1_usize << 28],
            fill in vec((any::<u64>(), any::<u16>(), 1..4000_usize), 0..300),
            runs in vec((any::<u64>(), any::<u16>(), 1..100_usize, 1..3000_u64), 0..3),
            varied in any::<bool>(),
        ) {
            let mut fill: Vec<Run> = fill.into_iter().map(|(hash, policy, octets)| (hash, policy, octets, 1)).collect();
            let place = fill.len() / 2;
            fill.splice(place..place, runs);
            suppresses_after(&fill, 1 << shard_shift, policy_count, more, varied)?;
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
