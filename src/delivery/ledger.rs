//! The ledger: what became of each frame, counted once.
//!
//! ```text
//! received = forwarded + suppressed + dropped{reason} + queued
//! ```
//!
//! # Guarantees
//!
//! - A survivor is *queued* from its verdict until it is forwarded or dropped, wherever it waits. If an
//!   upstream took it and may have lost it with its connection, it is queued again.
//! - A survivor that is dropped reopens its window (law 7). Its suppressed copies are reported, and its
//!   batch does not count as safe.
//! - A repeat counts as suppressed once it is judged. Where suppressed copies are kept (`[suppressed]`), they are counted
//!   apart: `kept = written + dropped{reason} + queued`.
//! - Summaries are counted apart from received frames, and so is what becomes of them.
//!
//! # Left out
//!
//! Receiving (each listener counts its own frames).

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::lock::{read, write};
use crate::{
    clock::Clock,
    core::{
        dedup::{Claim, EndReason, Ended, Shards, summary},
        rule::{PolicyId, Rules, WindowPolicy},
    },
    delivery::chunk::{Chunk, Entry},
    metrics::{DropReason, Metrics, RuleMetrics, SummaryReason},
};

/// Counts what becomes of frames, and writes the summaries of suppressed copies.
#[derive(Debug)]
pub(crate) struct Ledger {
    metrics: Arc<Metrics>,
    shards: Arc<Shards>,
    rules: RwLock<Known>,
    /// [`SUMMARIES_OCTETS_MAX`]; less in tests.
    summaries_octets_max: usize,
}

/// The rules in force, and earlier ones whose windows are still to be reported.
#[derive(Debug)]
struct Known {
    in_force: Arc<InForce>,
    others: Vec<Arc<InForce>>,
}

/// Rules, with their counters.
#[derive(Debug)]
pub(crate) struct InForce {
    pub rules: Arc<Rules>,
    /// The generation of these policies in the shards.
    pub generation: u32,
    counters: Vec<Arc<RuleMetrics>>,
}

impl InForce {
    fn new(rules: Arc<Rules>, generation: u32, metrics: &Metrics) -> Arc<Self> {
        let falls = rules.falls().iter();
        let counters = falls.map(|fall| metrics.rule(&fall.name)).collect();
        Arc::new(Self {
            rules,
            generation,
            counters,
        })
    }

    /// The counters of the policy `id` of these rules.
    #[must_use]
    pub(crate) fn counters(&self, id: PolicyId) -> &RuleMetrics {
        &self.counters[id.index()]
    }
}

impl Ledger {
    /// A ledger that counts in `metrics` and reopens windows in `shards`.
    #[must_use]
    pub(crate) fn new(metrics: Arc<Metrics>, shards: Arc<Shards>, rules: Arc<Rules>) -> Self {
        Self {
            rules: RwLock::new(Known {
                in_force: InForce::new(rules, shards.generation(), &metrics),
                others: Vec::new(),
            }),
            metrics,
            shards,
            summaries_octets_max: SUMMARIES_OCTETS_MAX,
        }
    }

    /// The rules in force.
    #[must_use]
    pub(crate) fn rules(&self) -> Arc<InForce> {
        Arc::clone(&self.known().in_force)
    }

    /// Puts `rules` in force, with `memory` octets for their windows. Windows of policies that did not change stay. The
    /// others end gradually, and are reported in the style under which their copies were suppressed.
    pub(crate) fn set_rules(&self, rules: Arc<Rules>, memory: usize) {
        let old = self.rules();
        let policies: Vec<(WindowPolicy, Option<PolicyId>)> = (0..)
            .zip(rules.policies())
            .map(|(id, policy)| (policy.window, rules.continued(PolicyId(id), &old.rules)))
            .collect();
        let next = InForce::new(rules, old.generation.wrapping_add(1), &self.metrics);
        // A window may end under the new rules before all shards have them.
        self.known_mut().others.push(Arc::clone(&next));
        let oldest = self.shards.switch(&policies, memory);
        let mut known = self.known_mut();
        let generation = next.generation;
        let span = generation.wrapping_sub(oldest).max(1);
        let old = std::mem::replace(&mut known.in_force, next);
        known.others.push(old);
        known.others.retain(|other| {
            let behind = generation.wrapping_sub(other.generation);
            // A batch that is being judged under these rules has one more reference.
            behind != 0 && (behind <= span || Arc::strong_count(other) > 1)
        });
    }

    /// The rules of `generation`. They may be forgotten if a window ended under them, and two reloads came before it is
    /// reported; then the rules in force.
    fn rules_of(&self, generation: u32) -> Arc<InForce> {
        let known = self.known();
        let mut others = known.others.iter();
        let other = others.find(|other| other.generation == generation);
        Arc::clone(other.unwrap_or(&known.in_force))
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        read(&self.rules)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        write(&self.rules)
    }

    /// Writes the summaries of the windows that `ended` to `chunk`, and counts them. Once the chunk is as long as
    /// [`SUMMARIES_OCTETS_MAX`], the other windows stay in `ended`.
    pub(crate) fn report(&self, ended: &mut Vec<Ended>, chunk: &mut Chunk) {
        if ended.is_empty() {
            return;
        }
        let mut rules = self.rules();
        let reckoning = Clock::reckon();
        let summaries = &self.metrics.summaries;
        let mut reported = 0;
        for ended in &*ended {
            if chunk.used() >= self.summaries_octets_max {
                break;
            }
            reported += 1;
            if ended.generation != rules.generation {
                rules = self.rules_of(ended.generation);
            }
            let policy = rules.rules.policy(ended.policy);
            let style = policy.summary_style();
            let first = reckoning.wall_of(ended.first);
            let last = reckoning.wall_of(ended.last);
            let entry = Entry::Summary(ended.count);
            if chunk.push_with(entry, |out| summary::write(out, ended, style, first, last)) {
                summaries.made[summary_reason(ended.reason)].inc();
                summaries.frames.add(ended.count);
            }
        }
        ended.drain(..reported);
    }

    /// Counts the summaries of the windows that `ended` as made and dropped.
    pub(crate) fn drop_reports(&self, ended: &mut Vec<Ended>, reason: DropReason) {
        while !ended.is_empty() {
            let mut lost = Chunk::default();
            self.report(ended, &mut lost);
            self.metrics.summaries.dropped[reason].add(lost.len() as u64);
        }
    }

    /// Counts the first `count` of the entries left in `chunk` as forwarded: an upstream took them.
    pub(crate) fn forwarded(&self, chunk: &mut Chunk, count: usize) {
        let tally = Tally::of(chunk.entries().take(count).skip(chunk.counted()));
        chunk.count_forwarded(count);
        self.metrics.frames.deliver(tally.survivors);
        if tally.copies > 0 {
            self.metrics.copies.deliver(tally.copies);
        }
        self.metrics.frames.resent.add(tally.resent);
    }

    /// Counts the entries left in `chunk` as queued again: the upstream that took them may have lost them.
    pub(crate) fn taken_back(&self, chunk: &mut Chunk) {
        let tally = Tally::of(chunk.entries().take(chunk.counted()));
        chunk.uncount();
        if tally.survivors > 0 {
            self.metrics.frames.take_back(tally.survivors);
        }
        if tally.copies > 0 {
            self.metrics.copies.take_back(tally.copies);
        }
    }

    /// Ends all windows, because survivors were lost and we do not know which. Their suppressed copies are reported
    /// gradually (`Pipeline::advance`).
    pub(crate) fn end_all_windows(&self) {
        self.shards.forget_all();
    }

    /// Counts the entries left in `chunk` as dropped, and reopens their windows. Returns the summaries of
    /// the copies suppressed in those windows, if there are any.
    pub(crate) fn dropped(&self, chunk: &Chunk, reason: DropReason) -> Option<Chunk> {
        let (mut lost, mut copies) = (0, 0);
        let mut ended = Vec::new();
        let mut is_forgotten = false;
        debug_assert_eq!(
            chunk.counted(),
            0,
            "a chunk that is dropped was taken back from its upstream"
        );
        for (_, entry, _) in chunk.entries() {
            match entry {
                Entry::Survivor(claim) => {
                    lost += 1;
                    is_forgotten |= claim == Claim::FORGOTTEN;
                    self.shards.reopen(claim, &mut ended);
                }
                Entry::Copy => copies += 1,
                Entry::Summary(_) => self.metrics.summaries.dropped[reason].inc(),
            }
        }
        self.metrics.frames.lose(reason, lost);
        if copies > 0 {
            self.metrics.copies.lose(reason, copies);
        }
        if let Some(receipt) = chunk.receipt() {
            receipt.lose();
        }
        let mut summaries = Chunk::default();
        self.report(&mut ended, &mut summaries);
        // `summaries` has no room for these.
        self.drop_reports(&mut ended, reason);
        if is_forgotten {
            // An earlier process made the claim. Its window may be open again, and we cannot find it.
            self.end_all_windows();
        }
        (!summaries.is_empty()).then_some(summaries)
    }
}

/// How many entries there are of each kind that is counted.
#[derive(Default)]
struct Tally {
    survivors: u64,
    copies: u64,
    /// Entries of any kind that were sent before.
    resent: u64,
}

impl Tally {
    fn of<'c>(entries: impl Iterator<Item = (&'c [u8], Entry, bool)>) -> Self {
        let mut tally = Self::default();
        for (_, entry, is_sent) in entries {
            tally.resent += u64::from(is_sent);
            match entry {
                Entry::Survivor(_) => tally.survivors += 1,
                Entry::Copy => tally.copies += 1,
                Entry::Summary(_) => {}
            }
        }
        tally
    }
}

/// A chunk of that many octets takes no further summary. Their windows may hold more than a chunk can: each has a frame of
/// up to `max_message_size`. The survivors of a batch fit beside them.
const SUMMARIES_OCTETS_MAX: usize = 256 * 1024 * 1024;

const fn summary_reason(reason: EndReason) -> SummaryReason {
    match reason {
        EndReason::Window => SummaryReason::Window,
        EndReason::Evicted => SummaryReason::Evicted,
        EndReason::Reload => SummaryReason::Reload,
        EndReason::Stop => SummaryReason::Stop,
        EndReason::Reopened => SummaryReason::Reopened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        core::{
            dedup::{Sighting, Verdict},
            identity::Identity,
            tick::Tick,
        },
    };

    /// Windows that suppressed a copy each.
    struct Windows {
        ledger: Ledger,
        metrics: Arc<Metrics>,
        survivors: Chunk,
    }

    impl Windows {
        /// A chunk takes summaries until it has so many octets.
        fn new(summaries_octets_max: usize) -> Self {
            let metrics = Metrics::new();
            let rules = Config::default().rules;
            let policies: Vec<_> = rules.policies().map(|policy| policy.window).collect();
            let shards = Arc::new(Shards::new(1, &policies, 1 << 20));
            let mut survivors = Chunk::default();
            for number in 0..WINDOWS {
                let frame = frame(number);
                let identity = Identity {
                    hash: number as u64,
                    octets: &frame,
                };
                let sighting = Sighting {
                    frame: &frame,
                    timestamp: None,
                    variant: None,
                };
                let offer =
                    || shards.offer(PolicyId(0), identity, sighting, Tick::ZERO, &mut vec![]);
                let Verdict::Fresh(claim) = offer() else {
                    panic!("the first copy goes through");
                };
                assert_eq!(offer(), Verdict::Duplicate);
                survivors.push(&frame, Entry::Survivor(claim));
            }
            metrics.frames.queued.add(WINDOWS as u64);
            let ledger = Ledger::new(Arc::clone(&metrics), shards, rules);
            Self {
                ledger: Ledger {
                    summaries_octets_max,
                    ..ledger
                },
                metrics,
                survivors,
            }
        }

        /// All windows, ended.
        fn end(&self) -> Vec<Ended> {
            let mut ended = Vec::new();
            let shards = &self.ledger.shards;
            let is_more = shards.end_all(EndReason::Stop, 2 * WINDOWS, &mut ended);
            assert!(!is_more && ended.len() == WINDOWS);
            ended
        }
    }

    fn frame(number: usize) -> Vec<u8> {
        format!(
            "<13>Mar  1 12:00:00 host app: number {number:04} {:x<900}",
            ""
        )
        .into_bytes()
    }

    /// The number of the message of each summary.
    fn numbers(chunk: &Chunk) -> Vec<usize> {
        let number = |(frame, _, _): (&[u8], Entry, bool)| {
            let text = std::str::from_utf8(frame).unwrap();
            let (_, rest) = text.split_once("repeated 1 times: [ number ").unwrap();
            let (number, _) = rest.split_once(' ').unwrap();
            number.parse().unwrap()
        };
        chunk.entries().map(number).collect()
    }

    /// A chunk that takes more than it can hold panics.
    #[test]
    fn summaries_that_a_chunk_has_no_room_for_go_into_the_next_one() {
        let windows = Windows::new(2500);
        let mut ended = windows.end();
        let order = {
            let (mut all, mut ended) = (Chunk::default(), ended.clone());
            Windows::new(usize::MAX).ledger.report(&mut ended, &mut all);
            numbers(&all)
        };
        let mut reported = Vec::new();
        let mut lengths = Vec::new();
        while !ended.is_empty() {
            let mut chunk = Chunk::default();
            windows.ledger.report(&mut ended, &mut chunk);
            reported.extend(numbers(&chunk));
            lengths.push(chunk.len());
        }
        assert_eq!(lengths, [3, 3, 3, 1], "one reaches over the limit");
        assert_eq!(reported, order);
        let made = &windows.metrics.summaries;
        assert_eq!(made.made[SummaryReason::Stop].get(), WINDOWS as u64);
        assert_eq!(made.frames.get(), WINDOWS as u64);
    }

    #[test]
    fn a_full_chunk_takes_no_summary() {
        let windows = Windows::new(2500);
        let mut ended = windows.end();
        let mut full = Chunk::default();
        full.push(&[b'x'; 2500], Entry::Copy);
        windows.ledger.report(&mut ended, &mut full);
        assert_eq!((full.len(), ended.len()), (1, WINDOWS));
    }

    #[test]
    fn summaries_of_dropped_survivors_without_room_are_counted_as_dropped() {
        let windows = Windows::new(2500);
        let reason = DropReason::QueueFull;
        let left = windows.ledger.dropped(&windows.survivors, reason).unwrap();
        assert_eq!(left.len(), 3);
        let summaries = &windows.metrics.summaries;
        assert_eq!(
            summaries.made[SummaryReason::Reopened].get(),
            WINDOWS as u64
        );
        assert_eq!(summaries.dropped[reason].get(), WINDOWS as u64 - 3);
        assert_eq!(windows.metrics.frames.queued.get(), 0);
    }

    const WINDOWS: usize = 10;
}
