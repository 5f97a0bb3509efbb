//! One shard: an engine for each policy, and the budget they share.
//!
//! # Guarantees
//!
//! - After every call, the octets allocated are within the budget in force.
//! - To make room, the mark that started first in any engine is evicted first. Among marks that started at the
//!   same time, those of the engine that needs the room are evicted last. So no mark is evicted for its own
//!   next copy while there is another mark.
//! - When room is short, an engine that remembers nothing frees all its memory, and one that remembers one message
//!   keeps no more than that takes.
//! - One offer looks for room at most [`ROUNDS_MAX`] times. Each time it evicts at most [`EVICTED_PER_ROUND`] marks,
//!   and one more for every [`OCTETS_PER_EVICTED`] octets that it needs. If that is too little, or if it needs more
//!   than half the budget, the copy is forwarded and not remembered.
//!
//! # Left out
//!
//! Which shard a message belongs to, and the lock (`mod`). How policies and the budget change (`retire`).

use std::hint::black_box;
use std::mem::size_of;

use super::engine::{Engine, EngineCounters, Freed, Met, Refusal};
use super::group::{Group, Run};
use super::table::Place;
use super::timeline::{MARKS_SHIFT, Mark};
use super::{Claim, EndReason, Ended, EngineStats, Sighting, Verdict};
use crate::core::identity::Identity;
use crate::core::rule::{PolicyId, WindowPolicy};
use crate::core::tick::Tick;

/// Part of all identities, and what is remembered of them.
#[derive(Debug)]
pub(super) struct Shard {
    /// The engines of the policies, by [`PolicyId`], then those that retire.
    pub(super) engines: Vec<Engine>,
    /// How many engines do not retire.
    pub(super) policies: usize,
    /// Generation of the list of policies in force.
    pub(super) generation: u32,
    /// The budget in force. Above `target_octets` while there are marks to evict.
    pub(super) budget_octets: usize,
    /// The budget as configured.
    pub(super) target_octets: usize,
    /// Octets by which the engines may grow. May be too low: computing it takes longer than judging a copy.
    pub(super) room: usize,
    /// The latest time seen: time does not run backwards in a shard.
    pub(super) now: Tick,
    evicted: u64,
    unremembered: u64,
    /// Counts of engines that are gone.
    pub(super) gone: EngineCounters,
}

impl Shard {
    /// A shard with an engine for each policy and epoch.
    pub(super) fn new(
        policies: impl Iterator<Item = (WindowPolicy, u32)>,
        budget_octets: usize,
    ) -> Self {
        let mut shard = Self {
            engines: Vec::new(),
            policies: 0,
            generation: 0,
            budget_octets,
            target_octets: budget_octets,
            room: 0,
            now: Tick::ZERO,
            evicted: 0,
            unremembered: 0,
            gone: EngineCounters::default(),
        };
        let policies: Vec<_> = policies.collect();
        let shift = page_shift(budget_octets, policies.len());
        shard.policies = policies.len();
        shard.engines = (0..)
            .zip(policies)
            .map(|(id, (policy, epoch))| {
                let mut engine = Engine::new(policy, PolicyId(id), epoch, shift);
                engine.place(PolicyId(id), 0);
                engine
            })
            .collect();
        shard
    }

    /// Judges one copy. A policy that does not exist counts as the first one.
    pub(super) fn offer(
        &mut self,
        policy: PolicyId,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
        now: Tick,
        ended: &mut Vec<Ended>,
    ) -> Verdict {
        let now = self.advance_clock(now);
        let index = self.index_of(policy);
        self.judge(index, identity, sighting, None, now, ended).0
    }

    /// Judges the copies of `group` that `run` names, in the order of `run`. Adds to `ended` the windows that ended,
    /// each with the index of the copy that was being judged.
    pub(super) fn offer_run(
        &mut self,
        group: &Group<'_>,
        run: &mut Run,
        now: Tick,
        verdicts: &mut [Verdict],
        ended: &mut Vec<(usize, Ended)>,
    ) {
        let now = self.advance_clock(now);
        let generation = group.generation();
        self.fetch(group, run);
        let mut over = Vec::new();
        // The engine that counted the previous copy, and the offset of the mark.
        let mut counted: Option<(usize, usize)> = None;
        for &(index, likely) in &*run {
            let copy = group.copy(index);
            if copy.is_again
                && let Some((engine, offset)) = counted
                && self.engines[engine].count_again(offset, copy.sighting, now)
            {
                continue;
            }
            let Some(engine) = self.index_in(copy.policy, generation) else {
                verdicts[index] = Verdict::Fresh(Claim::VOID);
                counted = None;
                continue;
            };
            let (verdict, offset) =
                self.judge(engine, copy.identity, copy.sighting, likely, now, &mut over);
            counted = offset.map(|offset| (engine, offset));
            // The verdicts are preset to duplicate. Copying a whole verdict would wait for what judging wrote.
            if let Verdict::Fresh(claim) = verdict {
                verdicts[index] = Verdict::Fresh(claim);
            }
            if !over.is_empty() {
                ended.extend(over.drain(..).map(|over| (index, over)));
            }
        }
    }

    /// Reads what judging the copies will read, step by step for all of them, so that the processor waits
    /// for many reads at a time. Notes in `run` where their marks probably are.
    fn fetch(&self, group: &Group<'_>, run: &mut Run) {
        // A group of an older generation is rare.
        if run.len() < FETCHED_MIN
            || self.engines.is_empty()
            || group.generation() != self.generation
        {
            return;
        }
        let mut read = 0;
        for &(index, _) in &*run {
            let copy = group.copy(index);
            if copy.is_again {
                continue;
            }
            read ^= self.engines[self.index_of(copy.policy)].glance(copy.identity.hash);
        }
        for (index, likely) in &mut *run {
            let copy = group.copy(*index);
            if copy.is_again {
                continue;
            }
            let engine = &self.engines[self.index_of(copy.policy)];
            let (place, start) = engine.seek(copy.identity.hash);
            *likely = place;
            read ^= start;
        }
        for &(index, likely) in &*run {
            if let Some(place) = likely {
                let copy = group.copy(index);
                let engine = &self.engines[self.index_of(copy.policy)];
                read ^= engine.touch(place, copy.identity);
            }
        }
        // Otherwise the compiler would remove all of it.
        black_box(read);
    }

    fn index_of(&self, policy: PolicyId) -> usize {
        let index = usize::from(policy.0);
        if index < self.policies { index } else { 0 }
    }

    /// Index of the engine that has or had the id `policy` in the list of `generation`; `None` if it is gone.
    #[inline]
    fn index_in(&self, policy: PolicyId, generation: u32) -> Option<usize> {
        if generation == self.generation {
            return Some(self.index_of(policy));
        }
        self.index_before(policy, generation)
    }

    /// Judges one copy in the engine at `index`; its mark is probably at `likely`. If the mark only had to count
    /// the copy, also returns the mark's offset: it would count another copy, too.
    fn judge(
        &mut self,
        index: usize,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
        likely: Option<Place>,
        now: Tick,
        ended: &mut Vec<Ended>,
    ) -> (Verdict, Option<usize>) {
        // Once there is room for the mark, the table may turn out to need room, too.
        for _ in 0..ROUNDS_MAX {
            let Some(engine) = self.engines.get_mut(index) else {
                break;
            };
            let emptied = engine.emptied();
            let met = engine.meet(identity, sighting, now, likely, ended);
            if engine.emptied() != emptied {
                self.room = 0;
            }
            if let Met::Counted(offset) = met {
                return (Verdict::Duplicate, Some(offset));
            }
            let mut admitted = engine.admit(met, identity, sighting, now, &mut self.room);
            if let Err(Refusal::Short(_)) = admitted {
                // Marks retired since the last computation may have left enough.
                self.room = self.reckon_room();
                let engine = &mut self.engines[index];
                admitted = engine.admit(met, identity, sighting, now, &mut self.room);
            }
            let wanted = match admitted {
                Ok(verdict) => return (verdict, None),
                Err(Refusal::Full) => break,
                Err(Refusal::Short(wanted)) => wanted,
            };
            if !self.make_room_for(wanted, index, now, ended) {
                break;
            }
        }
        self.unremembered += 1;
        (Verdict::Fresh(Claim::VOID), None)
    }

    /// Forgets the delivery behind a claim.
    pub(super) fn reopen(&mut self, claim: Claim, ended: &mut Vec<Ended>) {
        if let Some(engine) = self
            .engines
            .iter_mut()
            .find(|engine| engine.epoch() == claim.epoch)
        {
            engine.reopen(claim, ended);
        }
    }

    /// Retires at most `marks_max` marks: those that have expired, those of engines that retire, and those that
    /// exceed a smaller budget. Returns whether more are due, and memory that the caller drops after unlocking the
    /// shard.
    pub(super) fn advance(
        &mut self,
        now: Tick,
        marks_max: usize,
        ended: &mut Vec<Ended>,
    ) -> (bool, Vec<Freed>) {
        let now = self.advance_clock(now);
        self.room = 0;
        let mut left = marks_max;
        for engine in self.engines.iter_mut().take(self.policies) {
            let before = engine.marks();
            engine.retire(now, left, ended);
            left -= before - engine.marks();
        }
        let (more, mut freed) = self.end_leftovers(left, ended);
        let mut policies = self.engines.iter().take(self.policies);
        let due = more || policies.any(|engine| engine.first_is_due(now));
        freed.extend(self.tidy(marks_max / MARKS_PER_BUCKET + 1));
        (due, freed)
    }

    /// Ends at most `marks_max` marks. Returns whether more are left, and memory to drop.
    pub(super) fn end_all(
        &mut self,
        reason: EndReason,
        marks_max: usize,
        ended: &mut Vec<Ended>,
    ) -> (bool, Vec<Freed>) {
        self.room = 0;
        let mut left = marks_max;
        for engine in &mut self.engines {
            while left > 0 && engine.marks() > 0 {
                engine.pop(reason, ended);
                left -= 1;
            }
        }
        let more = self.engines.iter().any(|engine| engine.marks() > 0);
        (more, self.tidy(marks_max / MARKS_PER_BUCKET + 1))
    }

    /// When there is something to retire next.
    pub(super) fn next_due(&self) -> Option<Tick> {
        if self.has_leftovers() {
            return Some(self.now);
        }
        self.engines.iter().filter_map(Engine::next_due).min()
    }

    /// Adds this shard's sizes and counts.
    pub(super) fn add_to(&self, stats: &mut EngineStats) {
        let mut counters = self.gone;
        for engine in &self.engines {
            stats.live_messages += engine.live_messages();
            stats.octets += engine.octets();
            counters.add(engine.counters());
        }
        stats.budget_octets += self.target_octets;
        stats.evicted_total += self.evicted;
        stats.unremembered_total += self.unremembered;
        stats.stale_total += counters.stale;
        stats.sweeps_total += counters.sweeps;
        stats.splits_total += counters.splits;
        stats.merges_total += counters.merges;
        stats.remarked_total += counters.remarked;
    }

    pub(super) fn advance_clock(&mut self, now: Tick) -> Tick {
        self.now = self.now.max(now);
        self.now
    }

    pub(super) fn charged(&self) -> usize {
        self.engines.iter().map(Engine::charged).sum()
    }

    pub(super) fn reckon_room(&self) -> usize {
        self.budget_octets.saturating_sub(self.charged())
    }

    /// Makes room for the `wanted` octets that the engine at `index` needs, as far as one round allows. Returns false if
    /// they are too many.
    pub(super) fn make_room_for(
        &mut self,
        wanted: usize,
        index: usize,
        now: Tick,
        ended: &mut Vec<Ended>,
    ) -> bool {
        // Otherwise it would evict half of all other marks, and still might not fit.
        if wanted > self.budget_octets / 2 {
            return false;
        }
        // A little more than needed, so that not every offer has to make room.
        let ahead = ROOM_AHEAD_OCTETS.min(wanted);
        let evicted_max = EVICTED_PER_ROUND + wanted / OCTETS_PER_EVICTED;
        self.make_room(wanted + ahead, Some(index), evicted_max, now, ended);
        true
    }

    /// Frees spare memory, then ends marks of engines that retire, then evicts the oldest marks, until `wanted`
    /// octets are free or `marks_max` marks are gone. Returns how many are gone. Among equally old marks, those of
    /// the engine at `spared` are evicted last.
    pub(super) fn make_room(
        &mut self,
        wanted: usize,
        spared: Option<usize>,
        marks_max: usize,
        now: Tick,
        ended: &mut Vec<Ended>,
    ) -> usize {
        self.room = 0;
        let mut popped = 0;
        while self.charged().saturating_add(wanted) > self.budget_octets && popped < marks_max {
            if self.engines.iter_mut().any(Engine::free_spares) {
                continue;
            }
            if self.end_retiring(1, ended) > 0 {
                popped += 1;
                continue;
            }
            let oldest = self
                .engines
                .iter_mut()
                .enumerate()
                .filter(|(_, engine)| engine.marks() > 0)
                .min_by_key(|(index, engine)| (engine.oldest(), Some(*index) == spared));
            let Some((_, engine)) = oldest else { break };
            popped += 1;
            if engine.first_is_due(now) {
                engine.pop(EndReason::Window, ended);
            } else if engine.pop(EndReason::Evicted, ended) {
                self.evicted += 1;
            }
        }
        popped
    }

    pub(super) fn tidy(&mut self, buckets: usize) -> Vec<Freed> {
        let shift = page_shift(self.budget_octets, self.policies);
        self.engines
            .iter_mut()
            .map(|engine| {
                let freed = engine.tidy(buckets);
                engine.resize_pages(shift);
                freed
            })
            .collect()
    }
}

impl EngineCounters {
    pub(super) const fn add(&mut self, other: Self) {
        self.stale += other.stale;
        self.sweeps += other.sweeps;
        self.splits += other.splits;
        self.merges += other.merges;
        self.remarked += other.remarked;
    }
}

/// The size of a page of a timeline, as a power of two: about a thousandth of the budget, 1 to 64 KiB. Pages are
/// small enough that partly used ones do not matter, and large enough that there are not too many. Each engine
/// has a few partly used ones, so with many engines pages are smaller.
pub(super) fn page_shift(budget_octets: usize, engines: usize) -> u32 {
    let shift = (budget_octets / (PAGES_PER_ENGINE * engines).max(1024))
        .checked_ilog2()
        .unwrap_or(0)
        .clamp(10, 16);
    debug_assert!(shift > MARKS_SHIFT, "a block holds at least one mark");
    shift
}

/// Pages in an engine's equal share of the budget, at least.
const PAGES_PER_ENGINE: usize = 64;

/// Copies below which reading ahead takes longer than it saves.
const FETCHED_MIN: usize = 3;

/// How often an offer is tried.
const ROUNDS_MAX: usize = 3;

/// The most marks that an offer evicts each time it finds too little room, apart from [`OCTETS_PER_EVICTED`].
const EVICTED_PER_ROUND: usize = 64;

/// An offer evicts one mark more for every so many octets that it needs: each mark frees at least as many, so that one
/// round is enough, however short the messages were.
const OCTETS_PER_EVICTED: usize = size_of::<Mark>();

/// Octets freed beyond what an offer needs, but never more than it needs.
pub(super) const ROOM_AHEAD_OCTETS: usize = 4096;

/// For each so many marks that may be retired in a call, the call may look at one bucket of the table.
const MARKS_PER_BUCKET: usize = 8;
