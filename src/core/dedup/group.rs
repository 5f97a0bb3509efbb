//! A group: copies of messages that are judged together, shard by shard.
//!
//! Judging one copy waits for memory four times in a row: table, mark, identity, repeats. When many copies
//! are judged together, these waits overlap: each step is done for all copies of a shard before the next
//! step, and the shard is locked once for all of them.
//!
//! # Guarantees
//!
//! - The verdicts equal those of [`Shards::offer`] for the copies one after the other at one `now`, as
//!   long as the budget evicts nothing: copies of one identity are in one shard, and a shard judges in the order of
//!   the group.
//! - An expired window is reported before the copy that found it expired.
//! - An emptied group keeps its memory, but at most [`KEPT_OCTETS_MAX`] of it for identities.
//!
//! # Left out
//!
//! Where identities come from, and when a group is judged.

use std::mem::take;
use std::ops::Range;

use super::table::Place;
use super::{Claim, Ended, Shards, Sighting, Verdict, lock};
use crate::core::identity::{Identity, Variant};
use crate::core::rule::PolicyId;
use crate::core::tick::Tick;

/// Copies of messages, in the order in which they were received.
#[derive(Debug, Default)]
pub struct Group<'f> {
    /// The identities of all copies, side by side.
    octets: Vec<u8>,
    copies: Vec<Member<'f>>,
    /// The variants of those copies that have one.
    variants: Vec<Variant>,
    /// Whether some frame is only passed on.
    passes: bool,
    /// Generation of the list of policies that the copies' ids refer to.
    generation: u32,
    /// One for each copy; empty until the group is judged.
    verdicts: Vec<Verdict>,
    /// Windows that ended, each with the index of the copy before which it is to be reported. Unordered.
    ended: Vec<(usize, Ended)>,
    /// Scratch: copies not judged yet, and those that are being judged.
    left: Vec<usize>,
    run: Run,
}

#[derive(Debug)]
struct Member<'f> {
    policy: PolicyId,
    /// It has the identity and policy of the copy before it.
    is_again: bool,
    /// It is not judged: it goes out in its turn.
    is_passed: bool,
    /// Index of its variant in `variants`, or [`NO_VARIANT`].
    variant: u32,
    hash: u64,
    /// Where its identity is in `octets`.
    identity: Range<usize>,
    frame: &'f [u8],
    timestamp: Option<&'f [u8]>,
}

impl<'f> Group<'f> {
    /// An empty group. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            octets: Vec::new(),
            copies: Vec::new(),
            variants: Vec::new(),
            passes: false,
            generation: 0,
            verdicts: Vec::new(),
            ended: Vec::new(),
            left: Vec::new(),
            run: Vec::new(),
        }
    }

    /// Sets the generation of the list of policies that the copies' ids refer to. The group must be empty.
    pub fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Adds a copy. `write` appends the identity's octets to the vector and returns their hash.
    pub fn push(
        &mut self,
        policy: PolicyId,
        (frame, timestamp): (&'f [u8], Option<&'f [u8]>),
        variant: Option<Variant>,
        write: impl FnOnce(&mut Vec<u8>) -> u64,
    ) {
        let start = self.octets.len();
        let hash = write(&mut self.octets);
        let variant = match variant {
            None => NO_VARIANT,
            Some(variant) => {
                self.variants.push(variant);
                u32::try_from(self.variants.len() - 1).expect("a group is judged long before")
            }
        };
        self.copies.push(Member {
            policy,
            is_again: false,
            is_passed: false,
            variant,
            hash,
            identity: start..self.octets.len(),
            frame,
            timestamp,
        });
    }

    /// Adds a frame that goes out in its turn without being judged. Its verdict is fresh, its claim void.
    pub fn push_passed(&mut self, policy: PolicyId, frame: &'f [u8]) {
        self.passes = true;
        self.copies.push(Member {
            policy,
            is_again: false,
            is_passed: true,
            variant: NO_VARIANT,
            hash: 0,
            identity: 0..0,
            frame,
            timestamp: None,
        });
    }

    /// Adds another copy of the message added last, with the same variant. Returns false if the group is empty.
    #[must_use]
    pub fn push_again(&mut self, sighting: Sighting<'f>) -> bool {
        let Some(before) = self.copies.last() else {
            return false;
        };
        let again = Member {
            policy: before.policy,
            is_again: true,
            is_passed: false,
            variant: before.variant,
            hash: before.hash,
            identity: before.identity.clone(),
            frame: sighting.frame,
            timestamp: sighting.timestamp,
        };
        self.copies.push(again);
        true
    }

    /// Whether the group contains as much as is worth judging together.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.copies.len() >= COPIES_MAX || self.octets.len() >= KEPT_OCTETS_MAX
    }

    /// Empties the group: calls `each` with each copy's policy, frame and verdict, in order. Before the call,
    /// `ended` receives the windows to be reported before the copy; what `each` leaves there stays.
    pub fn drain(
        &mut self,
        ended: &mut Vec<Ended>,
        mut each: impl FnMut(PolicyId, &'f [u8], Verdict, &mut Vec<Ended>),
    ) {
        assert_eq!(
            self.copies.len(),
            self.verdicts.len(),
            "a group is judged before it is drained"
        );
        // Almost always empty. The sort is stable: windows of one copy stay in their order.
        self.ended.sort_by_key(|(copy, _)| *copy);
        let mut due = self.ended.drain(..).peekable();
        for (index, (copy, verdict)) in self
            .copies
            .drain(..)
            .zip(self.verdicts.drain(..))
            .enumerate()
        {
            while let Some((_, over)) = due.next_if(|(before, _)| *before <= index) {
                ended.push(over);
            }
            each(copy.policy, copy.frame, verdict, ended);
        }
        drop(due);
        self.variants.clear();
        self.passes = false;
        self.octets.clear();
        self.octets.shrink_to(KEPT_OCTETS_MAX);
    }

    /// The same group for frames of another lifetime. It should be empty: copies in it are dropped.
    #[must_use]
    pub fn recycled<'other>(mut self) -> Group<'other> {
        self.copies.clear();
        Group {
            octets: self.octets,
            // Collecting in place keeps the memory.
            copies: self.copies.into_iter().map_while(|_| None).collect(),
            variants: self.variants,
            passes: false,
            generation: self.generation,
            verdicts: self.verdicts,
            ended: self.ended,
            left: self.left,
            run: self.run,
        }
    }

    pub(super) fn copy(&self, index: usize) -> Copy<'_> {
        let member = &self.copies[index];
        Copy {
            policy: member.policy,
            is_again: member.is_again,
            identity: Identity {
                hash: member.hash,
                octets: &self.octets[member.identity.clone()],
            },
            sighting: Sighting {
                frame: member.frame,
                timestamp: member.timestamp,
                variant: (member.variant != NO_VARIANT)
                    .then(|| &self.variants[member.variant as usize]),
            },
        }
    }
}

/// One copy as an engine needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy<'a> {
    pub(super) policy: PolicyId,
    /// It has the identity and policy of the copy before it, which is in the same run.
    pub(super) is_again: bool,
    pub(super) identity: Identity<'a>,
    pub(super) sighting: Sighting<'a>,
}

/// Indices of the copies of a group that one shard judges, and where their marks probably are.
pub(super) type Run = Vec<(usize, Option<Place>)>;

impl Shards {
    /// Judges the copies of `group`, seen at `now`. The verdicts are then available by [`Group::drain`].
    pub fn offer_group(&self, group: &mut Group<'_>, now: Tick) {
        let (mut verdicts, mut ended) = (take(&mut group.verdicts), take(&mut group.ended));
        let (mut left, mut run) = (take(&mut group.left), take(&mut group.run));
        verdicts.clear();
        verdicts.resize(group.copies.len(), Verdict::Duplicate);
        left.extend(0..group.copies.len());
        if group.passes {
            left.retain(|&index| {
                let is_passed = group.copies[index].is_passed;
                if is_passed {
                    verdicts[index] = Verdict::Fresh(Claim::VOID);
                }
                !is_passed
            });
        }
        while let Some(&first) = left.first() {
            let shard = self.index_of(group.copies[first].hash);
            left.retain(|&index| {
                let is_here = self.index_of(group.copies[index].hash) == shard;
                if is_here {
                    run.push((index, None));
                }
                !is_here
            });
            lock(&self.shards[shard]).offer_run(group, &mut run, now, &mut verdicts, &mut ended);
            run.clear();
        }
        (group.verdicts, group.ended) = (verdicts, ended);
        (group.left, group.run) = (left, run);
    }
}

/// Copies judged together: as many as a processor can have memory reads pending for, in each of a few shards.
const COPIES_MAX: usize = 128;

/// The value of [`Member::variant`] without one: a group never has so many.
const NO_VARIANT: u32 = u32::MAX;

/// Octets of identities judged together, and kept for the next group.
const KEPT_OCTETS_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::core::dedup::EndReason;
    use crate::core::rule::WindowPolicy;

    /// What happened for one copy: what was reported before it, and whether it is fresh.
    type Outcome = (Vec<Ended>, bool);

    fn shards(shard_count: usize) -> Shards {
        let fixed = |window, allow| WindowPolicy {
            window: Duration::from_nanos(window),
            allow,
            refresh: None,
        };
        let refreshed = WindowPolicy {
            refresh: Some(Duration::from_nanos(100)),
            ..fixed(30, 1)
        };
        Shards::new(shard_count, &[fixed(40, 2), refreshed], 64 << 20)
    }

    /// Judges `texts`, each with its policy, at `now`: as a group, or one after the other.
    fn judge(shards: &Shards, now: Tick, texts: &[(u16, [u8; 3])], grouped: bool) -> Vec<Outcome> {
        // Few different hashes, so that copies meet the marks of others.
        let hash = |text: &[u8; 3]| u64::from(text[0] % 4) << 62 | u64::from(text[1] % 4);
        let sighting = |text| Sighting {
            frame: text,
            timestamp: None,
            variant: None,
        };
        let mut outcomes = Vec::new();
        if grouped {
            let mut group = Group::default();
            let mut before = None;
            for (policy, text) in texts {
                if before != Some((policy, text)) || !group.push_again(sighting(text)) {
                    group.push(PolicyId(*policy), (text, None), None, |octets| {
                        octets.extend_from_slice(text);
                        hash(text)
                    });
                }
                before = Some((policy, text));
            }
            shards.offer_group(&mut group, now);
            group.drain(&mut Vec::new(), |_, _, verdict, ended| {
                outcomes.push((take(ended), verdict != Verdict::Duplicate));
            });
            assert!(group.copies.is_empty() && group.octets.is_empty());
        } else {
            for (policy, text) in texts {
                let identity = Identity {
                    hash: hash(text),
                    octets: text,
                };
                let mut ended = Vec::new();
                let policy = PolicyId(*policy);
                let verdict = shards.offer(policy, identity, sighting(text), now, &mut ended);
                outcomes.push((ended, verdict != Verdict::Duplicate));
            }
        }
        outcomes
    }

    fn all(shards: &Shards, outcomes: &[Vec<Outcome>]) -> Vec<Ended> {
        let mut ended: Vec<_> = outcomes
            .iter()
            .flatten()
            .flat_map(|(ended, _)| ended.clone())
            .collect();
        while shards.end_all(EndReason::Stop, 100, &mut ended) {}
        // The reason and the time of a late report may differ.
        for over in &mut ended {
            over.reason = EndReason::Window;
        }
        ended.sort_by(|a, b| (a.policy.0, &a.frame, a.first).cmp(&(b.policy.0, &b.frame, b.first)));
        ended
    }

    #[test]
    fn a_window_is_reported_before_the_copy_that_opens_the_next_one() {
        let shards = shards(2);
        let copy = (1, *b"abc");
        judge(&shards, Tick::ZERO, &[copy, copy], true);
        let later = Tick::from_nanos(1000);
        let outcomes = judge(&shards, later, &[(0, *b"xyz"), copy, copy], true);
        assert_eq!(
            outcomes.iter().map(|(_, fresh)| *fresh).collect::<Vec<_>>(),
            [true, true, false]
        );
        let before: usize = outcomes[..2].iter().map(|(ended, _)| ended.len()).sum();
        assert_eq!((before, outcomes[2].0.len()), (1, 0));
    }

    #[test]
    fn an_emptied_group_serves_frames_that_live_elsewhere() {
        let shards = shards(1);
        let mut group = Group::new();
        for round in 0..3_u64 {
            let frame = round.to_le_bytes();
            let mut here = group.recycled();
            here.push(PolicyId(0), (&frame, None), None, |octets| {
                octets.extend_from_slice(&frame);
                round
            });
            shards.offer_group(&mut here, Tick::ZERO);
            let mut fresh = 0;
            here.drain(&mut Vec::new(), |_, drained, _, _| {
                assert_eq!(drained, frame);
                fresh += 1;
            });
            assert_eq!(fresh, 1);
            group = here.recycled();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_group_is_judged_like_its_copies_one_after_the_other(
            groups in vec((0..30_u64, vec((0..2_u16, [0..6_u8, 0..6_u8, 0..2_u8], 1..5_usize), 0..40)), 1..20),
            shard_count in 0..4_u32,
        ) {
            let groups: Vec<(u64, Vec<_>)> = groups
                .into_iter()
                .map(|(step, copies)| {
                    let copies = copies.into_iter();
                    (step, copies.flat_map(|(policy, text, times)| repeat_n((policy, text), times)).collect())
                })
                .collect();
            let runs = [true, false].map(|grouped| {
                let shards = shards(1 << shard_count);
                let mut now = 0;
                let outcomes: Vec<_> = groups
                    .iter()
                    .map(|(step, texts)| {
                        now += step;
                        judge(&shards, Tick::from_nanos(now), texts, grouped)
                    })
                    .collect();
                let ended = all(&shards, &outcomes);
                let fresh: Vec<_> = outcomes.into_iter().flatten().map(|(_, fresh)| fresh).collect();
                (fresh, ended)
            });
            prop_assert_eq!(&runs[0], &runs[1]);
        }
    }
}
