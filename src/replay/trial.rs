//! Trials: one engine on recorded time. A replay has one trial that decides; a report has one more for each window that
//! it tries.
//!
//! # Guarantees
//!
//! - The engine is the daemon's. It has one shard, so windows end in the same order in every run.
//! - A window that has expired at the time of a message is reported before the message is judged, as by a daemon whose
//!   timer is never late.
//!
//! # Left out
//!
//! What time it is (`time`), and writing summaries.

use std::time::Duration;

use super::offer::Offer;
use crate::core::dedup::{EndReason, Ended, Shards, Verdict};
use crate::core::rule::{Fate, Rules, Seen, SummaryStyle, WindowPolicy};
use crate::core::tick::Tick;

/// One engine on recorded time.
#[derive(Debug)]
pub(super) struct Trial {
    shards: Shards,
    now: Tick,
    /// Windows that ended and are not reported yet.
    pub(super) ended: Vec<Ended>,
    /// The largest of all samples.
    pub(super) peak: Peak,
}

/// The most that an engine held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Peak {
    /// Messages, and so open windows.
    pub(super) messages: usize,
    pub(super) octets: usize,
    /// Messages evicted for lack of memory, and copies that were not remembered for lack of it.
    pub(super) evicted: u64,
}

impl Trial {
    /// A trial whose engine holds at most `memory` octets.
    pub(super) fn new(policies: &[WindowPolicy], memory: usize) -> Self {
        Self {
            shards: Shards::new(1, policies, memory),
            now: Tick::ZERO,
            ended: Vec::new(),
            peak: Peak::default(),
        }
    }

    /// Ends some of the windows that have expired at `now`; returns true if there are more. Call it until it returns false,
    /// and drain `ended` after each call.
    #[inline]
    pub(super) fn advance(&mut self, now: Tick) -> bool {
        if now == self.now {
            return false;
        }
        if self.shards.next_due().is_none_or(|due| now < due)
            || !self.shards.advance(now, ENDED_AT_ONCE, &mut self.ended)
        {
            self.now = now;
            return false;
        }
        true
    }

    /// Returns the fate of a line at the time last reached; judges it if no rule alone decides. The windows in `ended` ended
    /// before it.
    #[inline]
    pub(super) fn offer(&mut self, offer: &Offer<'_, '_>) -> Fate {
        let Offer {
            policy,
            identity,
            sighting,
            ..
        } = *offer;
        let fall = offer.rules.fall(policy);
        Fate::unjudged(fall, offer.message.compressed).unwrap_or_else(|| {
            let shards = &self.shards;
            let verdict = shards.offer(policy, identity, sighting, self.now, &mut self.ended);
            let seen = match verdict {
                Verdict::Fresh(_) => Seen::Fresh,
                Verdict::Duplicate => Seen::Repeat,
            };
            Fate::of(fall, seen)
        })
    }

    /// Ends some of the windows that are still open; returns true if there are more.
    pub(super) fn end(&mut self) -> bool {
        let ended = &mut self.ended;
        self.shards.end_all(EndReason::Stop, ENDED_AT_ONCE, ended)
    }

    /// Raises `peak` to what the engine holds now.
    pub(super) fn sample(&mut self) {
        let stats = self.shards.stats();
        self.peak = Peak {
            messages: self.peak.messages.max(stats.live_messages),
            octets: self.peak.octets.max(stats.octets),
            evicted: stats.evicted_total + stats.unremembered_total,
        };
    }
}

/// A trial of another window, of which only the counts are wanted.
#[derive(Debug)]
pub(super) struct TriedWindow {
    pub(super) window: Duration,
    pub(super) trial: Trial,
    /// Lines that come out, and their octets.
    pub(super) lines: u64,
    pub(super) octets: u64,
    pub(super) summaries: u64,
}

impl TriedWindow {
    /// Tries `rules` with `window` in place of every window.
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

    pub(super) fn offer(&mut self, offer: &Offer<'_, '_>) {
        while self.trial.advance(offer.now) {
            self.count_ended(offer.rules);
        }
        if self.trial.offer(offer).is_forwarded() {
            self.lines += 1;
            self.octets += offer.sighting.frame.len() as u64;
        }
        self.count_ended(offer.rules);
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
            let style = rules.policy(ended.policy).summary_style();
            self.summaries += u64::from(style != SummaryStyle::None);
        }
    }
}

/// Windows that are ended at once: bounds `ended`.
const ENDED_AT_ONCE: usize = 1024;
