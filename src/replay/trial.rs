//! A trial: one engine on recorded time. The run has one that decides; a report has one beside it for
//! each other window.
//!
//! # Guarantees
//!
//! - The engine is the daemon's. It has one shard, so that what ends comes out in the order of its
//!   windows, the same in every run.
//! - What is over at the time of a message is reported before the message is judged, as by a daemon
//!   whose timer never is late.
//!
//! # Left out
//!
//! What time it is (`time`), and who is told.

use std::time::Duration;

use super::fate::{Fate, summary_style};
use crate::dedup::{EndReason, Ended, Shards, Sighting, Verdict};
use crate::identity::Identity;
use crate::rule::{PolicyId, Rules, SummaryStyle, WindowPolicy};
use crate::tick::Tick;

/// One engine on recorded time.
#[derive(Debug)]
pub(super) struct Trial {
    shards: Shards,
    now: Tick,
    /// Ended and not taken yet.
    pub(super) ended: Vec<Ended>,
    /// The most messages and octets that it was seen to hold.
    pub(super) peak: Peak,
}

/// What an engine held at most.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Peak {
    pub(super) messages: usize,
    pub(super) octets: usize,
    /// Messages forgotten for want of room, and copies that found none.
    pub(super) evicted: u64,
}

impl Trial {
    /// An engine that holds at most `memory` octets.
    pub(super) fn new(policies: &[WindowPolicy], memory: usize) -> Self {
        Self {
            shards: Shards::new(1, policies, memory),
            now: Tick::ZERO,
            ended: Vec::new(),
            peak: Peak::default(),
        }
    }

    /// Ends some of what is over at `now`; true if there is more. To be called, and `ended` to be taken,
    /// until there is not.
    #[inline]
    pub(super) fn advance(&mut self, now: Tick) -> bool {
        if now == self.now {
            return false;
        }
        if self.shards.next_due().is_none_or(|due| now < due)
            || !self.shards.advance(now, BITE, &mut self.ended)
        {
            self.now = now;
            return false;
        }
        true
    }

    /// Judges a message at the time last reached. What is in `ended` then ended before it.
    #[inline]
    pub(super) fn offer(
        &mut self,
        policy: PolicyId,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
    ) -> Verdict {
        self.shards
            .offer(policy, identity, sighting, self.now, &mut self.ended)
    }

    /// Ends some of what is left; true if there is more.
    pub(super) fn end(&mut self) -> bool {
        self.shards.end_all(EndReason::Stop, BITE, &mut self.ended)
    }

    /// Looks at what is held now.
    pub(super) fn sample(&mut self) {
        let stats = self.shards.stats();
        self.peak = Peak {
            messages: self.peak.messages.max(stats.live_messages),
            octets: self.peak.octets.max(stats.octets),
            evicted: stats.evicted_total + stats.unremembered_total,
        };
    }
}

/// A trial of which only the counts are wanted: what another window would have given.
#[derive(Debug)]
pub(super) struct TriedWindow {
    pub(super) window: Duration,
    pub(super) trial: Trial,
    /// Survivors and their octets.
    pub(super) lines: u64,
    pub(super) octets: u64,
    pub(super) summaries: u64,
}

impl TriedWindow {
    /// `rules` with `window` in place of every window.
    pub(super) fn new(rules: &Rules, window: Duration, memory: usize) -> Self {
        let policies: Vec<_> = rules
            .policies()
            .map(|policy| WindowPolicy {
                window,
                refresh: policy.window.refresh.map(|quiet| quiet.max(window)),
                ..policy.window
            })
            .collect();
        Self {
            window,
            trial: Trial::new(&policies, memory),
            lines: 0,
            octets: 0,
            summaries: 0,
        }
    }

    pub(super) fn offer(
        &mut self,
        rules: &Rules,
        policy: PolicyId,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
        now: Tick,
    ) {
        while self.trial.advance(now) {
            self.count_ended(rules);
        }
        let trial = &mut self.trial;
        let fate = Fate::of(rules.fall(policy), || {
            trial.offer(policy, identity, sighting)
        });
        if fate.goes_out() {
            self.lines += 1;
            self.octets += sighting.frame.len() as u64;
        }
        self.count_ended(rules);
    }

    pub(super) fn end(&mut self, rules: &Rules) {
        self.trial.sample();
        while self.trial.end() {
            self.count_ended(rules);
        }
        self.count_ended(rules);
    }

    fn count_ended(&mut self, rules: &Rules) {
        for ended in self.trial.ended.drain(..) {
            let speaks = summary_style(rules.policy(ended.policy)) != SummaryStyle::None;
            self.summaries += u64::from(speaks);
        }
    }
}

/// Marks that are ended at once, so that what ends need not be kept all at once.
const BITE: usize = 1024;
