//! The ledger: what became of each frame, counted once.
//!
//! ```text
//! received = forwarded + suppressed + dropped{reason} + queued
//! ```
//!
//! # Guarantees
//!
//! - A survivor is *queued* from its verdict until it is forwarded or dropped, wherever it waits. One that an
//!   upstream took, and may have lost with its connection, is queued again.
//! - A survivor that is dropped reopens its window (law 7); the copies held back under it are reported, and its
//!   batch is not said to be safe.
//! - A copy that was held back is done with when it is suppressed; where it is set aside as well, what becomes of
//!   it there is counted apart: `set aside = written + dropped{reason} + queued`.
//! - A summary is counted apart from received frames, and so is what becomes of it.
//!
//! # Left out
//!
//! Receiving (each listener counts its own frames).

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{
    chunk::{Chunk, Entry},
    clock::Clock,
    dedup::{Claim, EndReason, Ended, Shards, summary},
    metrics::{DropReason, Metrics, RuleMetrics, SummaryReason},
    rule::{PolicyId, Rules, WindowPolicy},
};

/// Counts what becomes of frames, and speaks for those that were held back.
#[derive(Debug)]
pub struct Ledger {
    metrics: Arc<Metrics>,
    shards: Arc<Shards>,
    rules: RwLock<Known>,
}

/// The rules in force, and those before them whose windows are still to be reported.
#[derive(Debug)]
struct Known {
    in_force: Arc<InForce>,
    others: Vec<Arc<InForce>>,
}

/// The rules in force, and what they count.
#[derive(Debug)]
pub struct InForce {
    /// The rules.
    pub rules: Arc<Rules>,
    /// Of the policies in the shards.
    pub generation: u32,
    /// By [`PolicyId`].
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

    /// The counters of what `id` stands for.
    #[must_use]
    pub fn counters(&self, id: PolicyId) -> &RuleMetrics {
        self.counters.get(id.index()).unwrap_or(&self.counters[0])
    }
}

impl Ledger {
    /// A ledger that counts in `metrics` and reopens windows in `shards`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, shards: Arc<Shards>, rules: Arc<Rules>) -> Self {
        Self {
            rules: RwLock::new(Known {
                in_force: InForce::new(rules, shards.generation(), &metrics),
                others: Vec::new(),
            }),
            metrics,
            shards,
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<InForce> {
        Arc::clone(&self.known().in_force)
    }

    /// Puts `rules` in force, `memory` octets for their windows. Windows of policies that did not change stay; the
    /// others end, by and by, and are reported in the style that copies were held back under.
    pub fn set_rules(&self, rules: Arc<Rules>, memory: usize) {
        let old = self.rules();
        let policies: Vec<(WindowPolicy, Option<PolicyId>)> = (0..)
            .zip(rules.policies())
            .map(|(id, policy)| (policy.window, rules.continued(PolicyId(id), &old.rules)))
            .collect();
        let next = InForce::new(rules, old.generation.wrapping_add(1), &self.metrics);
        // The first window may end under them before all shards have them.
        self.known_mut().others.push(Arc::clone(&next));
        let oldest = self.shards.switch(&policies, memory);
        let mut known = self.known_mut();
        let generation = next.generation;
        let span = generation.wrapping_sub(oldest).max(1);
        let old = std::mem::replace(&mut known.in_force, next);
        known.others.push(old);
        known.others.retain(|other| {
            let age = generation.wrapping_sub(other.generation);
            // A batch in hand has one more reference.
            age != 0 && (age <= span || Arc::strong_count(other) > 1)
        });
    }

    /// The rules of that generation, if they are still known; else those in force.
    fn rules_of(&self, generation: u32) -> Arc<InForce> {
        let known = self.known();
        let mut others = known.others.iter();
        let other = others.find(|other| other.generation == generation);
        Arc::clone(other.unwrap_or(&known.in_force))
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.rules.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the summaries of what `ended` to `chunk`, and counts them.
    pub fn report(&self, ended: &mut Vec<Ended>, chunk: &mut Chunk) {
        if ended.is_empty() {
            return;
        }
        let mut rules = self.rules();
        let reckoning = Clock::reckon();
        let summaries = &self.metrics.summaries;
        for ended in ended.drain(..) {
            if ended.generation != rules.generation {
                rules = self.rules_of(ended.generation);
            }
            let policy = rules.rules.policy(ended.policy);
            let style = policy.summary_style();
            let first = reckoning.wall_of(ended.first);
            let last = reckoning.wall_of(ended.last);
            let entry = Entry::Summary(ended.count);
            if chunk.push_with(entry, |out| summary::write(out, &ended, style, first, last)) {
                summaries.made[summary_reason(ended.reason)].inc();
                summaries.frames.add(ended.count);
            }
        }
    }

    /// The first `count` of the entries left in `chunk` were taken by an upstream.
    pub fn forwarded(&self, chunk: &mut Chunk, count: usize) {
        let (mut frames, mut copies, mut again) = (0, 0, 0);
        for (_, entry, sent) in chunk.entries().take(count).skip(chunk.counted()) {
            again += u64::from(sent);
            match entry {
                Entry::Survivor(_) => frames += 1,
                Entry::Copy => copies += 1,
                Entry::Summary(_) => {}
            }
        }
        chunk.count_forwarded(count);
        self.metrics.frames.deliver(frames);
        if copies > 0 {
            self.metrics.copies.deliver(copies);
        }
        self.metrics.frames.resent.add(again);
    }

    /// The upstream that took the entries left in `chunk` may have lost them: they wait again.
    pub fn taken_back(&self, chunk: &mut Chunk) {
        let (mut frames, mut copies) = (0, 0);
        for (_, entry, _) in chunk.entries().take(chunk.counted()) {
            match entry {
                Entry::Survivor(_) => frames += 1,
                Entry::Copy => copies += 1,
                Entry::Summary(_) => {}
            }
        }
        chunk.uncount();
        if frames > 0 {
            self.metrics.frames.take_back(frames);
        }
        if copies > 0 {
            self.metrics.copies.take_back(copies);
        }
    }

    /// Survivors were lost and nobody knows which: ends all windows. What was held back in them is reported by and by
    /// (`Pipeline::advance`).
    pub fn end_all_windows(&self) {
        self.shards.forget_all();
    }

    /// What is left in `chunk` is dropped: counts it and reopens its windows. Gives the summaries of
    /// the copies held back in those windows, if any.
    pub fn dropped(&self, chunk: &Chunk, reason: DropReason) -> Option<Chunk> {
        let (mut lost, mut copies) = (0, 0);
        let mut ended = Vec::new();
        let mut is_forgotten = false;
        // A shard that a panic broke reopens nothing: the process ends, and its windows with it.
        let is_poisoned = self.shards.is_poisoned();
        debug_assert_eq!(
            chunk.counted(),
            0,
            "what is dropped was taken back from its upstream"
        );
        for (_, entry, _) in chunk.entries() {
            match entry {
                Entry::Survivor(claim) => {
                    lost += 1;
                    if !is_poisoned {
                        is_forgotten |= claim == Claim::FORGOTTEN;
                        self.shards.reopen(claim, &mut ended);
                    }
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
        if is_forgotten {
            // Its window may be open again since the start, and nobody can find it.
            self.end_all_windows();
        }
        (!summaries.is_empty()).then_some(summaries)
    }
}

const fn summary_reason(reason: EndReason) -> SummaryReason {
    match reason {
        EndReason::Window => SummaryReason::Window,
        EndReason::Evicted => SummaryReason::Evicted,
        EndReason::Reload => SummaryReason::Reload,
        EndReason::Stop => SummaryReason::Stop,
        EndReason::Reopened => SummaryReason::Reopened,
    }
}
