//! One engine: the marks of one policy's messages, found by identity.
//!
//! Judging a copy takes one or two calls. [`Engine::meet`] finds the copy's mark. For most repeats it
//! also counts the copy, and the copy is judged. Otherwise the engine must grow: the caller passes to
//! [`Engine::admit`] the number of octets by which it may. If they are too few, `admit` changes nothing and
//! returns how many it needs.
//!
//! # Guarantees
//!
//! - Times and octets are compared exactly to decide whether a copy is fresh. Expired marks that are not
//!   retired yet, and stale slots not swept yet, do not affect verdicts.
//! - A copy retires at most [`RETIRED_PER_COPY`] marks, appends at most one, and inserts at most one slot.
//! - Suppressed copies are reported exactly once: when their mark ends, for whatever reason.
//!
//! # Refresh
//!
//! With `refresh` a repeat restarts the window. The timeline must stay sorted, so a restarted window needs
//! a younger mark. One mark for each repeat would let a busy message fill the memory. So a repeat only notes
//! its time in the mark; the message moves to a younger mark when the repeat comes a quantum (a sixteenth of
//! the window) or more after the start of the old one. The cost: up to 16 dead marks for each message and
//! window, and an expired mark may be retired up to a quantum late, because it stands behind a mark that was
//! restarted in place. Verdicts stay exact.
//!
//! # Left out
//!
//! Budgets and eviction order (`shard`), locks (`mod`). `now` must not run backwards; `shard` ensures that.

use std::mem::size_of;
use std::time::Duration;

use super::table::{Live, NoPlace, Place, Probe, Table};
use super::timeline::{Mark, Timeline};
use super::{Claim, EndReason, Ended, Kept, Repeats, Sighting, Verdict, alloc_octets};
use crate::core::identity::Identity;
use crate::core::rule::{PolicyId, WindowPolicy};
use crate::core::tick::Tick;

/// The marks of one policy in one shard.
#[derive(Debug)]
pub(super) struct Engine {
    policy: WindowPolicy,
    /// The policy's id in the list of that generation, which its [`Ended`] carry.
    pub(super) id: PolicyId,
    pub(super) generation: u32,
    /// Its ids in older lists, each valid from that generation until the next entry. Ascending, few.
    pub(super) before: Vec<(u32, PolicyId)>,
    /// Why its windows end once the engine retires.
    pub(super) ending: EndReason,
    /// The policy in ticks, for speed. A repeat moves its message to a younger mark if it comes `quantum` or
    /// more after the mark's start. Without refresh, `max_quiet` and `quantum` are longer than all time.
    window: u64,
    max_quiet: u64,
    quantum: u64,
    /// Distinguishes this engine's claims from those of earlier engines. The same in all shards, never zero.
    epoch: u32,
    pub(super) timeline: Timeline,
    pub(super) table: Table,
    /// Octets of all [`Repeats`] and their frames.
    pub(super) repeats_octets: usize,
    /// Messages that `refresh` moved to a younger mark.
    remarked: u64,
}

/// What [`Engine::meet`] found for a copy. Any other call makes it invalid.
#[derive(Clone, Copy, Debug)]
pub(super) enum Met {
    /// The mark at this offset has counted the copy: it is a duplicate.
    Counted(usize),
    /// The mark at this offset is the copy's, but counting it is not enough.
    Repeat(Place, usize),
    /// No mark has an open window. The new entry may go to the place, if there is one.
    Nothing(Option<Place>),
}

/// The engine cannot grow as the copy needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// It needs this many octets of room.
    Short(usize),
    /// No amount of room helps: the table is full of equal hashes.
    Full,
}

/// What an engine has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EngineCounters {
    pub(super) stale: u64,
    pub(super) sweeps: u64,
    pub(super) splits: u64,
    pub(super) merges: u64,
    pub(super) remarked: u64,
}

impl Engine {
    /// An empty engine. Allocates nothing. `page_shift` as in [`Timeline::new`].
    pub(super) fn new(policy: WindowPolicy, id: PolicyId, epoch: u32, page_shift: u32) -> Self {
        let window = ticks(policy.window);
        Self {
            policy,
            id,
            generation: 0,
            before: Vec::new(),
            ending: EndReason::Reload,
            window,
            max_quiet: policy.refresh.map_or(u64::MAX, ticks),
            quantum: policy
                .refresh
                .map_or(u64::MAX, |_| window / QUANTA_PER_WINDOW),
            epoch,
            timeline: Timeline::new(0, page_shift),
            table: Table::default(),
            repeats_octets: 0,
            remarked: 0,
        }
    }

    /// Reads the slot where probing for a copy begins, so that it is in the cache when the copy is judged.
    pub(super) fn glance(&self, hash: u64) -> u64 {
        self.table.glance(hash)
    }

    /// Finds the place where the mark of a copy probably is, and reads that mark.
    pub(super) fn seek(&self, hash: u64) -> (Option<Place>, u64) {
        match self.table.candidate(hash, self.live()) {
            Some((place, offset)) => (
                Some(place),
                self.timeline.mark(offset as usize).start.nanos(),
            ),
            None => (None, 0),
        }
    }

    /// Reads the identity and the repeats of the mark that is probably at `place`.
    pub(super) fn touch(&self, place: Place, identity: Identity<'_>) -> u64 {
        let offset = self.table.confirm(place, identity.hash, self.live());
        offset.map_or(0, |offset| {
            self.timeline.touch(offset as usize, identity.octets.len())
        })
    }

    /// Finds the mark of a copy seen at `now`, looking at `likely` first. If the mark's window has expired, ends it.
    pub(super) fn meet(
        &mut self,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
        now: Tick,
        likely: Option<Place>,
        ended: &mut Vec<Ended>,
    ) -> Met {
        self.retire(now, RETIRED_PER_COPY, ended);
        let (timeline, live) = (&self.timeline, self.live());
        let mut counted = 0;
        let mut is_it = |offset: u32| {
            let mark = timeline.mark(offset as usize);
            // Reading this before comparing makes the processor fetch both at once.
            counted = mark.repeats.as_ref().map_or(0, |repeats| repeats.count);
            !mark.is_dead() && timeline.remembers(offset as usize, identity.octets)
        };
        let confirmed = likely.and_then(|place| {
            let offset = self.table.confirm(place, identity.hash, live)?;
            is_it(offset).then_some(Probe::Found { place, offset })
        });
        let probe = confirmed.unwrap_or_else(|| self.table.probe(identity.hash, live, &mut is_it));
        let (place, offset) = match probe {
            Probe::Found { place, offset } => (place, offset as usize),
            Probe::Absent(vacant) => return Met::Nothing(vacant),
        };
        let mark = self.timeline.mark_mut(offset);
        let restarted = match &mark.repeats {
            Some(repeats) if self.policy.refresh.is_some() => {
                let quiet = ticks_since(repeats.forwarded, now);
                if quiet >= self.max_quiet {
                    None
                } else {
                    Some(repeats.last)
                }
            }
            _ => Some(mark.start),
        };
        if restarted.is_none_or(|start| ticks_since(start, now) >= self.window) {
            self.end(offset, EndReason::Window, ended);
            return Met::Nothing(Some(place));
        }
        // Once a copy was suppressed, `allow` lets no further one through.
        match &mut mark.repeats {
            Some(repeats)
                if counted > 0
                    && ticks_since(mark.start, now) < self.quantum
                    && repeats.growth(sighting) == 0 =>
            {
                repeats.count_one(sighting, now);
                Met::Counted(offset)
            }
            _ => Met::Repeat(place, offset),
        }
    }

    /// Counts one more copy of the message just [`Met::Counted`], at the same time. Returns false if it cannot be
    /// counted in place.
    pub(super) fn count_again(&mut self, offset: usize, sighting: Sighting<'_>, now: Tick) -> bool {
        match &mut self.timeline.mark_mut(offset).repeats {
            Some(repeats) if repeats.growth(sighting) == 0 => {
                repeats.count_one(sighting, now);
                true
            }
            _ => false,
        }
    }

    /// Judges a copy by what [`Engine::meet`] found. The engine grows by at most `room` octets, and subtracts
    /// from `room` its growth, or a few octets more.
    ///
    /// # Errors
    ///
    /// If `room` is too little. Then the copy is not judged and the engine remembers nothing of it.
    pub(super) fn admit(
        &mut self,
        met: Met,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
        now: Tick,
        room: &mut usize,
    ) -> Result<Verdict, Refusal> {
        match met {
            Met::Counted(_) => Ok(Verdict::Duplicate),
            Met::Repeat(place, offset) => {
                self.repeat(identity, sighting, now, room, (place, offset))
            }
            Met::Nothing(vacant) => {
                let delivery = self.remember(identity, now, room, vacant)?;
                Ok(Verdict::Fresh(Claim {
                    hash: identity.hash,
                    delivery,
                    epoch: self.epoch,
                }))
            }
        }
    }

    /// Forgets the delivery behind a claim, if its window is still the one that suppresses copies.
    pub(super) fn reopen(&mut self, claim: Claim, ended: &mut Vec<Ended>) {
        let timeline = &self.timeline;
        let probe = self.table.probe(claim.hash, self.live(), |offset| {
            let mark = timeline.mark(offset as usize);
            let own = timeline.base() + u64::from(offset);
            !mark.is_dead()
                && mark
                    .repeats
                    .as_ref()
                    .map_or(own, |repeats| repeats.delivery)
                    == claim.delivery
        });
        if let Probe::Found { offset, .. } = probe {
            self.end(offset as usize, EndReason::Reopened, ended);
        }
    }

    /// Retires expired marks at the head of the timeline, at most `marks_max`.
    pub(super) fn retire(&mut self, now: Tick, marks_max: usize, ended: &mut Vec<Ended>) {
        for _ in 0..marks_max {
            if !self.first_is_due(now) {
                break;
            }
            self.pop(EndReason::Window, ended);
        }
    }

    /// Removes the oldest mark. Returns whether its message was still remembered.
    pub(super) fn pop(&mut self, reason: EndReason, ended: &mut Vec<Ended>) -> bool {
        let Some((dead, repeats)) = self.timeline.pop() else {
            return false;
        };
        if let Some(repeats) = repeats {
            self.report(*repeats, reason, ended);
        }
        !dead
    }

    /// Whether the oldest mark is expired or dead.
    pub(super) fn first_is_due(&self, now: Tick) -> bool {
        self.timeline.first().is_some_and(|mark| {
            mark.is_dead() || ticks_since(self.restarted(mark), now) >= self.window
        })
    }

    /// When the oldest mark expires.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.timeline
            .first()
            .map(|mark| self.restarted(mark).after(self.policy.window))
    }

    /// Start of the oldest mark.
    pub(super) fn oldest(&self) -> Option<Tick> {
        self.timeline.first().map(|mark| mark.start)
    }

    /// Takes out spare memory, looking at no more than `buckets` buckets of the table. The caller drops it
    /// after unlocking the shard.
    pub(super) fn tidy(&mut self, buckets: usize) -> Freed {
        let mut freed = Freed::default();
        if self.timeline.len() == 0 {
            freed._timeline = self.take_timeline();
            freed._table = self.take_table();
            return freed;
        }
        if self.timeline.has_spares() {
            freed._spares = Some(self.timeline.take_spares());
        }
        if self.table.slots() > SLOTS_PER_MARK_MAX * self.timeline.len() {
            freed._buckets = self.table.tidy(buckets, self.live());
        }
        freed
    }

    /// Frees a little memory that holds no message. Returns false if there is no such memory.
    ///
    /// An empty engine's table is freed at once, which takes a tenth of a millisecond for a million slots. The table
    /// is still there only if [`Engine::tidy`] was not called since the engine became empty. An engine with one mark
    /// also frees at once all that it had grown to: otherwise that memory would take the mark's place.
    pub(super) fn free_spares(&mut self) -> bool {
        let live = self.live();
        match self.timeline.len() {
            0 => {
                let table = self.take_table();
                self.timeline.free_spares() || table.is_some() || self.take_timeline().is_some()
            }
            1 => {
                let is_joined = self.table.join_all(live);
                self.timeline.free_spares() || self.timeline.trim() || is_joined
            }
            _ => self.timeline.free_spares(),
        }
    }

    /// Sets the size of the timeline's pages, if the engine is empty.
    pub(super) fn resize_pages(&mut self, page_shift: u32) {
        if self.timeline.len() == 0 && self.timeline.page_shift() != page_shift {
            self.timeline = Timeline::new(self.timeline.base(), page_shift);
        }
    }

    pub(super) const fn policy(&self) -> WindowPolicy {
        self.policy
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Marks, dead ones included.
    pub(super) const fn marks(&self) -> usize {
        self.timeline.len()
    }

    /// Messages remembered. Those with an expired window count until they are retired.
    pub(super) const fn live_messages(&self) -> usize {
        self.timeline.live()
    }

    pub(super) fn octets(&self) -> usize {
        self.timeline.octets() + self.table.octets() + self.repeats_octets
    }

    /// Octets that count against the budget, never fewer than [`Engine::octets`].
    pub(super) fn charged(&self) -> usize {
        self.timeline.charged() + self.table.octets() + self.repeats_octets
    }

    /// Octets that an empty engine is charged for its first message, of `octets` octets, and a suppressed copy of the
    /// same length.
    pub(super) fn first_octets(&self, octets: usize) -> usize {
        self.timeline.append_octets(octets)
            + self.table.first_octets()
            + REPEATS_OCTETS
            + Kept::octets_max(octets)
    }

    pub(super) const fn emptied(&self) -> u32 {
        self.timeline.emptied()
    }

    pub(super) const fn counters(&self) -> EngineCounters {
        let table = self.table.counters;
        EngineCounters {
            stale: table.stale,
            sweeps: table.sweeps,
            splits: table.splits,
            merges: table.merges,
            remarked: self.remarked,
        }
    }

    /// When the window of a mark last started.
    fn restarted(&self, mark: &Mark) -> Tick {
        match &mark.repeats {
            Some(repeats) if self.policy.refresh.is_some() => repeats.last,
            _ => mark.start,
        }
    }

    /// Judges a copy inside the window: `allow` lets it through, or it is suppressed.
    fn repeat(
        &mut self,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
        now: Tick,
        room: &mut usize,
        (place, offset): (Place, usize),
    ) -> Result<Verdict, Refusal> {
        let mark = self.timeline.mark(offset);
        let repeats = mark.repeats.as_deref();
        let passes = repeats.map_or(1, |repeats| repeats.passed) < self.policy.allow;
        let keeps_frame = !passes && repeats.is_none_or(|repeats| repeats.count == 0);
        let remarks = ticks_since(mark.start, now) >= self.quantum;

        let mut repeats_octets = if repeats.is_none() { REPEATS_OCTETS } else { 0 };
        if keeps_frame {
            repeats_octets += Kept::octets_for(sighting);
        } else if !passes {
            repeats_octets += repeats.map_or(0, |repeats| repeats.growth(sighting));
        }
        let mut wanted = repeats_octets;
        if remarks {
            wanted += self.timeline.append_octets(identity.octets.len());
        }
        *room = room.checked_sub(wanted).ok_or(Refusal::Short(wanted))?;

        let delivery = self.timeline.base() + offset as u64;
        let mark = self.timeline.mark_mut(offset);
        let start = mark.start;
        let repeats = mark
            .repeats
            .get_or_insert_with(|| Box::new(Repeats::new(start, delivery)));
        let verdict = if passes {
            repeats.passed += 1;
            (repeats.forwarded, repeats.last) = (now, now);
            Verdict::Fresh(Claim {
                hash: identity.hash,
                delivery: repeats.delivery,
                epoch: self.epoch,
            })
        } else {
            if keeps_frame {
                repeats.first = now;
                repeats.kept = Kept::of(sighting);
            }
            repeats.count_one(sighting, now);
            Verdict::Duplicate
        };
        self.repeats_octets += repeats_octets;
        if remarks {
            let repeats = self.timeline.kill(offset);
            let generation = self.timeline.append(now, identity.octets, repeats);
            self.table.put(place, identity.hash, generation);
            self.remarked += 1;
        }
        Ok(verdict)
    }

    /// Starts a window. Returns the generation of its mark.
    pub(super) fn remember(
        &mut self,
        identity: Identity<'_>,
        now: Tick,
        room: &mut usize,
        vacant: Option<Place>,
    ) -> Result<u64, Refusal> {
        if self.timeline.len() >= MARKS_MAX {
            return Err(Refusal::Full);
        }
        let wanted = self.timeline.append_octets(identity.octets.len());
        *room = room.checked_sub(wanted).ok_or(Refusal::Short(wanted))?;
        let live = self.live();
        let place = match self.table.place(identity.hash, vacant, live, room) {
            Ok(place) => place,
            Err(NoPlace::Short(more)) => return Err(Refusal::Short(wanted + more)),
            Err(NoPlace::Full) => return Err(Refusal::Full),
        };
        self.table.count_reuse(place, live);
        let delivery = self.timeline.append(now, identity.octets, None);
        self.table.put(place, identity.hash, delivery);
        Ok(delivery)
    }

    /// Ends the window of the mark at `offset`. The mark stays in the timeline as a dead one.
    fn end(&mut self, offset: usize, reason: EndReason, ended: &mut Vec<Ended>) {
        if let Some(repeats) = self.timeline.kill(offset) {
            self.report(*repeats, reason, ended);
        }
    }

    pub(super) fn report(&mut self, repeats: Repeats, reason: EndReason, ended: &mut Vec<Ended>) {
        self.repeats_octets -= REPEATS_OCTETS;
        if repeats.count == 0 {
            return;
        }
        self.repeats_octets -= repeats.kept.octets();
        let Repeats {
            count,
            first,
            last,
            kept,
            last_timestamp,
            ..
        } = repeats;
        let (frame, variety) = kept.into_parts();
        let last_timestamp = last_timestamp.is_some().then_some(last_timestamp);
        let window = self.policy.window;
        ended.push(Ended {
            policy: self.id,
            generation: self.generation,
            reason,
            count,
            first,
            last,
            window,
            frame,
            variety,
            last_timestamp,
        });
    }

    pub(super) const fn live(&self) -> Live {
        Live::new(self.timeline.base(), self.timeline.len())
    }

    /// Takes the timeline of an empty engine. Generations continue.
    fn take_timeline(&mut self) -> Option<Timeline> {
        let next = Timeline::new(self.timeline.base(), self.timeline.page_shift());
        let timeline = std::mem::replace(&mut self.timeline, next);
        (timeline.octets() > 0).then_some(timeline)
    }

    /// Takes the table of an empty engine. Its counts stay.
    fn take_table(&mut self) -> Option<Table> {
        let table = std::mem::take(&mut self.table);
        self.table.counters = table.counters;
        (table.octets() > 0).then_some(table)
    }
}

const fn ticks_since(earlier: Tick, now: Tick) -> u64 {
    debug_assert!(
        earlier.nanos() <= now.nanos(),
        "a shard's time does not run backwards"
    );
    now.nanos().saturating_sub(earlier.nanos())
}

fn ticks(span: Duration) -> u64 {
    Tick::ZERO.after(span).nanos()
}

/// Memory for the caller to drop after it unlocked the shard, so that no other task waits for that.
#[derive(Debug, Default)]
pub(super) struct Freed {
    _timeline: Option<Timeline>,
    _spares: Option<super::timeline::Spares>,
    _buckets: Vec<super::table::BucketSlots>,
    _table: Option<Table>,
}

/// Marks that one copy retires at most: one more than it appends, so that retiring catches up.
const RETIRED_PER_COPY: usize = 2;

/// A refreshed message gets a younger mark once its last one is this part of a window old.
const QUANTA_PER_WINDOW: u64 = 16;

/// Marks of one engine at most: 32 bits must distinguish their generations.
const MARKS_MAX: usize = 1 << 31;

/// The table is too large if it has more slots than this for each mark.
const SLOTS_PER_MARK_MAX: usize = 6;

/// Octets of a [`Repeats`] without its frame. Its alignment may waste octets in front of it; they are counted too.
pub(super) const REPEATS_OCTETS: usize = alloc_octets(size_of::<Repeats>()) + align_of::<Repeats>();
