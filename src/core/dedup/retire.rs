//! Retiring: many windows end at once because policies or the budget changed.
//!
//! ```text
//! switch, forget_all ──▶ [ engines of the policies ][ engines that retire ]      no mark is touched
//! advance            ──▶ ends marks of engines that retire                       a few at a time
//! ```
//!
//! # Guarantees
//!
//! - After a switch, no new message is judged by the windows of an engine that retires.
//! - A copy that got its policy before one or more switches is judged by the window that it would have met
//!   then. If that window is gone, the copy is forwarded.
//! - Windows of retiring engines count against the budget, and are ended first when room is needed.
//! - Each of their counts is reported once: by [`Shards::advance`], when room is made, or at a stop.
//! - A smaller budget is reached step by step. Until then the shard does not grow, but it remembers new messages.
//!
//! # Left out
//!
//! When [`Shards::advance`] is called, and who reports the windows that ended.

use std::mem::take;

use super::engine::{Engine, Freed};
use super::shard::{Shard, page_shift};
use super::{EndReason, Ended, Numbering, Shards, lock, lock_sound};
use crate::core::rule::{PolicyId, WindowPolicy};

impl Shards {
    /// The generation of the policies in force: how often they were switched.
    #[must_use]
    pub fn generation(&self) -> u32 {
        lock(&self.numbering).generation
    }

    /// Puts new policies and a new budget in force. Returns the oldest generation that still has windows.
    ///
    /// A new policy that comes with the id of an old one and has an equal [`WindowPolicy`] keeps the old one's
    /// engine, and the engine's claims stay valid. The other engines retire: [`Shards::advance`] ends their windows
    /// with [`EndReason::Reload`], with the id that the policy **had** and the generation of that id. A shard is
    /// locked only while its engines are exchanged.
    ///
    /// # Panics
    ///
    /// If an id belongs to no policy in force.
    pub fn switch(
        &self,
        policies: &[(WindowPolicy, Option<PolicyId>)],
        budget_octets: usize,
    ) -> u32 {
        let mut numbering = lock(&self.numbering);
        numbering.generation = numbering.generation.wrapping_add(1);
        let generation = numbering.generation;
        let epochs = numbering.epochs(policies.len());
        let target_octets = budget_octets / self.shards.len();
        let mut distance = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.switch(policies, &epochs, generation, target_octets);
            let engines = shard.engines.iter();
            let distances = engines.map(|engine| generation.wrapping_sub(engine.generation));
            distance = distance.max(distances.max().unwrap_or(0));
        }
        generation.wrapping_sub(distance)
    }

    /// Ends all windows because it is not known which of their survivors were lost: the next copy of each message is
    /// fresh. [`Shards::advance`] reports the copies they suppressed, with [`EndReason::Reopened`]. No mark is
    /// touched.
    ///
    /// Passes over poisoned shards. Does nothing if a panic interrupted a switch.
    pub fn forget_all(&self) {
        let Some(mut numbering) = lock_sound(&self.numbering) else {
            return;
        };
        // All of them have the same policies, because a switch changes them under the lock of the numbering.
        let mut epochs = None;
        for mut shard in self.shards.iter().filter_map(|shard| lock_sound(shard)) {
            let epochs = epochs.get_or_insert_with(|| numbering.epochs(shard.policies));
            shard.forget_all(epochs);
        }
    }

    /// The number of shards.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.len()
    }
}

impl Numbering {
    fn epochs(&mut self, count: usize) -> Vec<u32> {
        let next = || {
            self.epoch = self.epoch.wrapping_add(1).max(1);
            self.epoch
        };
        std::iter::repeat_with(next).take(count).collect()
    }
}

impl Shard {
    /// Puts the engines in the order of the new policies, and makes new ones for new policies. Engines without a
    /// new policy retire.
    fn switch(
        &mut self,
        policies: &[(WindowPolicy, Option<PolicyId>)],
        epochs: &[u32],
        generation: u32,
        target_octets: usize,
    ) {
        self.target_octets = target_octets;
        // A smaller budget comes into force step by step.
        self.budget_octets = self
            .charged()
            .min(self.budget_octets)
            .max(self.target_octets);
        self.room = 0;
        let retiring = self.engines.split_off(self.policies);
        let mut old: Vec<_> = take(&mut self.engines).into_iter().map(Some).collect();
        let shift = page_shift(target_octets, policies.len());
        for ((&(policy, kept), &epoch), id) in policies.iter().zip(epochs).zip(0..) {
            let kept =
                kept.and_then(|id| old[id.index()].take_if(|engine| engine.policy() == policy));
            let mut engine =
                kept.unwrap_or_else(|| Engine::new(policy, PolicyId(id), epoch, shift));
            engine.place(PolicyId(id), generation);
            self.engines.push(engine);
        }
        self.policies = self.engines.len();
        self.generation = generation;
        self.engines.extend(retiring);
        self.engines.extend(old.into_iter().flatten());
    }

    /// Replaces each engine that has marks with an empty one. The old engines retire.
    fn forget_all(&mut self, epochs: &[u32]) {
        self.room = 0;
        let shift = page_shift(self.target_octets, self.policies);
        for (index, &epoch) in (0..self.policies).zip(epochs) {
            let engine = &mut self.engines[index];
            if engine.marks() == 0 {
                continue;
            }
            let mut next = Engine::new(engine.policy(), engine.id, epoch, shift);
            next.replace(engine);
            let mut old = std::mem::replace(engine, next);
            old.ending = EndReason::Reopened;
            self.engines.push(old);
        }
    }

    /// Index of the engine that had the id `policy` in an older list; `None` if it is gone.
    #[cold]
    pub(super) fn index_before(&self, policy: PolicyId, generation: u32) -> Option<usize> {
        // Those in force come first: if two engines had the id, `forget_all` replaced one of them.
        let mut engines = self.engines.iter();
        engines.position(|engine| engine.place_in(generation) == Some(policy))
    }

    /// Whether marks are left to end because policies or the budget changed.
    pub(super) fn has_leftovers(&self) -> bool {
        self.budget_octets > self.target_octets
            || self.engines[self.policies..]
                .iter()
                .any(|engine| engine.marks() > 0)
    }

    /// Ends at most `marks_max` marks because policies or the budget changed. Returns whether more are left.
    pub(super) fn end_leftovers(
        &mut self,
        marks_max: usize,
        ended: &mut Vec<Ended>,
    ) -> (bool, Vec<Freed>) {
        let freed = self.remove_retired();
        let left = marks_max - self.end_retiring(marks_max, ended);
        self.lower_budget(left, ended);
        (self.has_leftovers(), freed)
    }

    /// Ends at most `marks_max` marks of engines that retire. Returns how many it ended.
    pub(super) fn end_retiring(&mut self, marks_max: usize, ended: &mut Vec<Ended>) -> usize {
        let mut left = marks_max;
        // From the last engine on, because only the last one can be removed.
        for engine in self.engines[self.policies..].iter_mut().rev() {
            while left > 0 && engine.marks() > 0 {
                engine.pop(engine.ending, ended);
                left -= 1;
            }
        }
        marks_max - left
    }

    /// Removes engines that have retired, from the end only: the indices of the others do not change.
    fn remove_retired(&mut self) -> Vec<Freed> {
        let mut freed = Vec::new();
        while self.engines.len() > self.policies
            && let Some(mut engine) = self.engines.pop_if(|engine| engine.marks() == 0)
        {
            self.gone.add(engine.counters());
            freed.push(engine.tidy(0));
        }
        freed
    }

    /// If the budget became smaller, evicts at most `marks_max` marks, and lowers it by what that freed.
    fn lower_budget(&mut self, marks_max: usize, ended: &mut Vec<Ended>) {
        if self.budget_octets <= self.target_octets {
            return;
        }
        let allowed = std::mem::replace(&mut self.budget_octets, self.target_octets);
        let now = self.now;
        self.make_room(0, None, marks_max, now, ended);
        if self.engines.iter().any(|engine| engine.marks() > 0) {
            self.budget_octets = self.charged().min(allowed).max(self.target_octets);
        }
    }
}

impl Engine {
    /// Sets the engine's id in the list of `generation`.
    pub(super) fn place(&mut self, id: PolicyId, generation: u32) {
        self.generation = generation;
        if self.before.last().is_none_or(|(_, last)| *last != id) {
            if self.before.len() == PLACES_MAX {
                self.before.remove(0);
            }
            self.before.push((generation, id));
        }
        self.id = id;
    }

    /// Takes over the ids of `old`, in older lists too.
    pub(super) fn replace(&mut self, old: &Self) {
        (self.generation, self.before) = (old.generation, old.before.clone());
    }

    /// The engine's id in the list of `generation`, if it had one.
    pub(super) fn place_in(&self, generation: u32) -> Option<PolicyId> {
        let since = self.before.iter().rev();
        let mut place = since.filter(|(since, _)| *since <= generation);
        let (_, place) = place.next().filter(|_| generation <= self.generation)?;
        Some(*place)
    }
}

/// Changes of its id that an engine remembers. A batch that takes longer than so many such reloads is
/// judged as if it were new.
const PLACES_MAX: usize = 64;

#[cfg(test)]
impl Shards {
    /// As [`Shards::switch`]; also ends at once the windows of engines that retire, and evicts what exceeds
    /// the budget.
    pub(super) fn reconfigure(
        &self,
        policies: &[(WindowPolicy, Option<PolicyId>)],
        budget_octets: usize,
        ended: &mut Vec<Ended>,
    ) {
        self.switch(policies, budget_octets);
        while self.visit(|shard| {
            let (more, mut freed) = shard.end_leftovers(1024, ended);
            freed.extend(shard.tidy(128));
            (more, freed)
        }) {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::core::dedup::tests::salted_hash;
    use crate::core::dedup::{Group, Sighting, Verdict};
    use crate::core::identity::Identity;
    use crate::core::tick::Tick;

    const fn fixed(window: u64) -> WindowPolicy {
        WindowPolicy {
            window: Duration::from_nanos(window),
            allow: 1,
            refresh: None,
        }
    }

    /// Whether the copy is fresh.
    fn offer(shards: &Shards, policy: u16, text: &[u8], at: u64, ended: &mut Vec<Ended>) -> bool {
        let sighting = Sighting {
            frame: text,
            timestamp: None,
            variant: None,
        };
        let (identity, at) = (identity(text), Tick::from_nanos(at));
        shards.offer(PolicyId(policy), identity, sighting, at, ended) != Verdict::Duplicate
    }

    fn identity(octets: &[u8]) -> Identity<'_> {
        Identity {
            hash: salted_hash(7, octets),
            octets,
        }
    }

    fn counts(ended: &mut Vec<Ended>) -> Vec<(u32, u16, EndReason, u64)> {
        let counts = ended.drain(..);
        counts
            .map(|ended| (ended.generation, ended.policy.0, ended.reason, ended.count))
            .collect()
    }

    #[test]
    fn a_switch_ends_nothing_itself_and_old_windows_suppress_nothing() {
        let shards = Shards::new(1, &[fixed(1000), fixed(2000)], 1 << 20);
        let mut ended = Vec::new();
        for text in [b"a", b"b", b"c"] {
            assert!(offer(&shards, 0, text, 0, &mut ended));
            assert!(!offer(&shards, 0, text, 1, &mut ended));
        }
        assert!(offer(&shards, 1, b"kept", 1, &mut ended));
        let policies = [(fixed(2000), Some(PolicyId(1))), (fixed(3000), None)];
        assert_eq!(
            shards.switch(&policies, 1 << 20),
            0,
            "some windows are of the first generation"
        );
        assert!(!offer(&shards, 0, b"kept", 2, &mut ended));
        assert!(offer(&shards, 1, b"a", 2, &mut ended));
        assert!(!offer(&shards, 1, b"a", 3, &mut ended));
        assert_eq!(counts(&mut ended), []);
        // One mark at a time; after the third the first engine is empty.
        for more in [true, true, false] {
            assert_eq!(shards.advance(Tick::from_nanos(3), 1, &mut ended), more);
            assert_eq!(counts(&mut ended), [(0, 0, EndReason::Reload, 1)]);
        }
        shards.advance(Tick::from_nanos(3), 1, &mut ended);
        assert_eq!(
            lock(&shards.shards[0]).engines.len(),
            2,
            "the engine is gone"
        );
        assert_eq!(
            shards.switch(&policies, 1 << 20),
            1,
            "no window is of the first generation"
        );
        assert_eq!(shards.generation(), 2);
    }

    #[test]
    fn a_batch_that_was_given_its_policies_before_the_switch_is_judged_by_those() {
        let shards = Shards::new(2, &[fixed(1000), fixed(2000)], 1 << 20);
        let mut ended = Vec::new();
        assert!(offer(&shards, 0, b"a", 0, &mut ended));
        assert!(offer(&shards, 1, b"b", 0, &mut ended));
        let judge = |generation, policy, text: &'static [u8]| {
            let mut group = Group::new();
            group.set_generation(generation);
            for _ in 0..2 {
                group.push(PolicyId(policy), (text, None), None, |octets| {
                    octets.extend_from_slice(text);
                    identity(text).hash
                });
            }
            shards.offer_group(&mut group, Tick::from_nanos(1));
            let mut verdicts = Vec::new();
            group.drain(&mut Vec::new(), |_, _, verdict, _| {
                verdicts.push(verdict != Verdict::Duplicate);
            });
            verdicts
        };
        // The second policy takes the first place; the first one's engine retires.
        let policies = [(fixed(2000), Some(PolicyId(1))), (fixed(3000), None)];
        shards.switch(&policies, 1 << 20);
        assert_eq!(judge(0, 0, b"a"), [false, false], "by the one that retires");
        assert_eq!(judge(0, 1, b"b"), [false, false], "by the one that stayed");
        assert_eq!(judge(1, 0, b"b"), [false, false]);
        assert_eq!(judge(1, 0, b"a"), [true, false]);
        let now = Tick::from_nanos(1);
        while shards.advance(now, 100, &mut ended) {}
        assert_eq!(counts(&mut ended), [(0, 0, EndReason::Reload, 2)]);
        while shards.advance(now, 100, &mut ended) {}
        assert_eq!(
            judge(0, 0, b"a"),
            [true, true],
            "by none: the window is gone"
        );
    }

    /// A thread may stand still in the middle of a batch while the configuration is read again several times.
    #[test]
    fn a_batch_that_several_switches_overtook_is_judged_by_its_windows() {
        let shards = Shards::new(1, &[fixed(1000), fixed(2000)], 1 << 20);
        let mut ended = Vec::new();
        assert!(offer(&shards, 0, b"a", 0, &mut ended));
        assert!(offer(&shards, 1, b"b", 0, &mut ended));
        // The first changes places, back and forth; the second stays, retires, and is replaced.
        let lists: [&[(u64, Option<u16>)]; 4] = [
            &[(1000, Some(0)), (2000, Some(1))],
            &[(2000, Some(1)), (1000, Some(0))],
            &[(1000, Some(1)), (3000, None)],
            &[(1000, Some(0)), (2000, None)],
        ];
        for (generation, list) in (1..).zip(lists) {
            let list: Vec<_> = list
                .iter()
                .map(|(window, kept)| (fixed(*window), kept.map(PolicyId)))
                .collect();
            shards.switch(&list, 1 << 20);
            assert_eq!(shards.generation(), generation);
            for (generation, [a, b]) in (0..)
                .zip([[0, 1], [0, 1], [1, 0]])
                .take(generation as usize + 1)
            {
                let judge = |policy, text: &'static [u8]| {
                    let mut group = Group::new();
                    group.set_generation(generation);
                    group.push(PolicyId(policy), (text, None), None, |octets| {
                        octets.extend_from_slice(text);
                        identity(text).hash
                    });
                    shards.offer_group(&mut group, Tick::from_nanos(1));
                    let mut is_fresh = false;
                    group.drain(&mut Vec::new(), |_, _, verdict, _| {
                        is_fresh = verdict != Verdict::Duplicate;
                    });
                    is_fresh
                };
                assert!(!judge(a, b"a"), "{generation} of {}", shards.generation());
                assert!(!judge(b, b"b"), "{generation} of {}", shards.generation());
            }
        }
    }

    #[test]
    fn what_is_forgotten_passes_at_once_and_comes_out_once() {
        let shards = Shards::new(4, &[fixed(1000), fixed(2000)], 1 << 20);
        let mut ended = Vec::new();
        for text in 0..100_u8 {
            assert!(offer(&shards, u16::from(text % 2), &[text], 0, &mut ended));
            assert!(!offer(&shards, u16::from(text % 2), &[text], 1, &mut ended));
        }
        shards.forget_all();
        for text in 0..100_u8 {
            assert!(offer(&shards, u16::from(text % 2), &[text], 2, &mut ended));
        }
        assert_eq!(counts(&mut ended), []);
        while shards.advance(Tick::from_nanos(2), 3, &mut ended) {}
        let mut counts = counts(&mut ended);
        counts.sort_by_key(|count| count.1);
        let of = |policy| std::iter::repeat_n((0, policy, EndReason::Reopened, 1), 50);
        assert_eq!(counts, of(0).chain(of(1)).collect::<Vec<_>>());
        assert_eq!(shards.stats().live_messages, 100);
    }

    #[test]
    fn a_budget_that_shrinks_is_reached_by_and_by_and_what_is_new_is_remembered() {
        let shards = Shards::new(1, &[fixed(1 << 40)], 8 << 20);
        let mut ended = Vec::new();
        let text = |number: u32| [&number.to_be_bytes()[..], &[b'x'; 100]].concat();
        for number in 0..20_000 {
            assert!(offer(&shards, 0, &text(number), 0, &mut ended));
            assert!(!offer(&shards, 0, &text(number), 0, &mut ended));
        }
        let mut octets = shards.stats().octets;
        assert!(octets > 4 << 20, "{octets}");
        shards.switch(&[(fixed(1 << 40), Some(PolicyId(0)))], 1 << 20);
        let mut number = 20_000;
        let mut steps = 0;
        loop {
            for _ in 0..5 {
                assert!(offer(&shards, 0, &text(number), 1, &mut ended));
                assert!(!offer(&shards, 0, &text(number), 1, &mut ended));
                number += 1;
            }
            // An emptied page of the timeline may be charged in full again.
            assert!(shards.stats().octets <= octets + (64 << 10));
            octets = octets.min(shards.stats().octets);
            if !shards.advance(Tick::from_nanos(1), 100, &mut ended) {
                break;
            }
            steps += 1;
        }
        assert!(steps > 50, "{steps}");
        let stats = shards.stats();
        assert!(
            stats.octets <= 1 << 20 && stats.budget_octets == 1 << 20,
            "{stats:?}"
        );
        assert_eq!(stats.unremembered_total, 0);
        while shards.end_all(EndReason::Stop, 1000, &mut ended) {}
        assert_eq!(ended.len(), number as usize, "each count came out once");
        assert!(ended.iter().all(|ended| ended.count == 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Windows that end all at once, and the same windows ended step by step.
        #[test]
        fn ending_in_steps_changes_no_verdict_and_no_count(
            calls in vec((0..40_u64, 0..3_u16, 0..20_u8, 0..60_u8), 1..500),
            shard_count in 0..3_u32,
        ) {
            let policies = [fixed(400), fixed(900), fixed(2000)];
            let [at_once, in_steps] =
                [(); 2].map(|()| Shards::new(1 << shard_count, &policies, 64 << 20));
            let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
            let (mut now, mut duplicates) = (0, 0);
            for (step, policy, message, what) in calls {
                now += step;
                match what {
                    0 | 1 => {
                        // One policy changes, and two exchange their ids.
                        let changed = usize::from(policy);
                        let mut next = [0, 2, 1].map(|id| (policies[usize::from(id)], Some(PolicyId(id))));
                        next[changed].1 = None;
                        at_once.reconfigure(&next, 64 << 20, &mut of_one);
                        in_steps.switch(&next, 64 << 20);
                    }
                    2 => {
                        at_once.forget_all();
                        while at_once.advance(Tick::from_nanos(now), 100, &mut of_one) {}
                        in_steps.forget_all();
                    }
                    3..9 => {
                        in_steps.advance(Tick::from_nanos(now), usize::from(message % 4), &mut of_other);
                    }
                    _ => {
                        let one = offer(&at_once, policy, &[message], now, &mut of_one);
                        let other = offer(&in_steps, policy, &[message], now, &mut of_other);
                        prop_assert_eq!(one, other, "at {}", now);
                        duplicates += u64::from(!one);
                    }
                }
            }
            while at_once.end_all(EndReason::Stop, 100, &mut of_one) {}
            while in_steps.end_all(EndReason::Stop, 100, &mut of_other) {}
            let counts = |ended: &[Ended]| {
                let mut counts: HashMap<(u32, PolicyId, Box<[u8]>), u64> = HashMap::new();
                for ended in ended {
                    let key = (ended.generation, ended.policy, ended.frame.clone());
                    *counts.entry(key).or_default() += ended.count;
                }
                counts
            };
            prop_assert_eq!(of_one.iter().map(|ended| ended.count).sum::<u64>(), duplicates);
            // An unchanged window that expired may be found before or after its id changed.
            let sums = |ended: &[Ended]| {
                let mut sums: HashMap<Box<[u8]>, u64> = HashMap::new();
                for ((_, _, frame), count) in counts(ended) {
                    *sums.entry(frame).or_default() += count;
                }
                sums
            };
            prop_assert_eq!(sums(&of_one), sums(&of_other));
        }
    }
}
