//! Which upstream is in charge: a state machine.
//!
//! ```text
//!            attempt due                connected
//!   Away ────────────────▶ (caller ──────────────▶ Up
//!    ▲ ▲                    connects)               │
//!    │ └──── failed: retry later ◀──┘               │
//!    └────────────────── lost ──────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - The upstream in charge is the first of the list that is up.
//! - While a later upstream is in charge, each earlier one is tried again at its own backed-off times, so that charge
//!   returns up the list.
//! - A failed upstream is not tried before its delay has passed.
//!
//! # Left out
//!
//! Connecting, sockets, sleeping. The caller acts on [`Failover::due`] and reports the outcome.

use std::time::Duration;

use crate::{core::tick::Tick, forward::backoff::Backoff};

/// The state of each upstream of the list.
#[derive(Clone, Debug)]
pub(super) struct Failover {
    upstreams: Vec<State>,
}

#[derive(Clone, Debug)]
struct State {
    up: bool,
    /// When the next attempt may begin. Meaningless while `up`.
    retry_at: Tick,
    backoff: Backoff,
}

impl Failover {
    /// All upstreams away and due at once. `backoffs` has their delays, in the order of the list.
    #[must_use]
    pub(super) fn new(backoffs: Vec<Backoff>) -> Self {
        let upstreams = backoffs
            .into_iter()
            .map(|backoff| State {
                up: false,
                retry_at: Tick::ZERO,
                backoff,
            })
            .collect();
        Self { upstreams }
    }

    /// The upstream in charge: the first that is up. Linear in the list, which is short.
    #[must_use]
    pub(super) fn in_charge(&self) -> Option<usize> {
        self.upstreams.iter().position(|upstream| upstream.up)
    }

    /// The first upstream to connect to at `now`: away, due, and before the one in charge.
    #[must_use]
    pub(super) fn due(&self, now: Tick) -> Option<usize> {
        self.all_due(now).next()
    }

    /// All upstreams for which [`Failover::due`] holds.
    pub(super) fn all_due(&self, now: Tick) -> impl Iterator<Item = usize> {
        self.candidates()
            .filter(move |&index| self.upstreams[index].retry_at <= now)
    }

    /// When [`Failover::due`] will next return an upstream; `None` if the first upstream is in charge.
    #[must_use]
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.candidates()
            .map(|index| self.upstreams[index].retry_at)
            .min()
    }

    /// When upstream `index` may be tried again. Meaningless while it is up.
    #[must_use]
    pub(super) fn retry_at(&self, index: usize) -> Tick {
        self.upstreams[index].retry_at
    }

    /// Records that upstream `index` accepted a connection.
    pub(super) fn connected(&mut self, index: usize) {
        self.upstreams[index].up = true;
    }

    /// Records that upstream `index` works: its next failure starts with a short delay again. Neither a connection nor
    /// octets taken prove that: some peers accept, take octets, and close a moment later.
    pub(super) fn proved(&mut self, index: usize) {
        self.upstreams[index].backoff.reset();
    }

    /// Records that upstream `index` refused, timed out or was lost at `now`.
    pub(super) fn failed(&mut self, index: usize, now: Tick) {
        let upstream = &mut self.upstreams[index];
        upstream.up = false;
        upstream.retry_at = now.after(upstream.backoff.next_delay());
    }

    /// Records that upstream `index` was left for an earlier one; it may be tried again at once.
    pub(super) fn left(&mut self, index: usize, now: Tick) {
        let upstream = &mut self.upstreams[index];
        upstream.up = false;
        upstream.retry_at = now;
    }

    /// Makes all upstreams that are away due at `now`, and again after at most `delay_max`: time is short.
    pub(super) fn hurry(&mut self, now: Tick, delay_max: Duration) {
        for upstream in &mut self.upstreams {
            upstream.retry_at = upstream.retry_at.min(now);
            upstream.backoff.hurry(delay_max);
        }
    }

    fn candidates(&self) -> impl Iterator<Item = usize> {
        0..self.in_charge().unwrap_or(self.upstreams.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn three() -> Failover {
        Failover::new(
            (0..3)
                .map(|seed| Backoff::new(STEP, STEP * 8, seed))
                .collect(),
        )
    }

    #[test]
    fn the_list_is_tried_in_order() {
        let now = Tick::from_nanos(1);
        let mut failover = three();
        assert_eq!(failover.due(now), Some(0));
        failover.failed(0, now);
        assert_eq!(failover.due(now), Some(1));
        failover.failed(1, now);
        assert_eq!(failover.due(now), Some(2));
        failover.failed(2, now);
        assert_eq!(failover.due(now), None);
        let next = failover.next_due().expect("all three wait");
        assert!(next > now && next <= now.after(STEP));
    }

    #[test]
    fn in_a_hurry_all_are_tried_at_once() {
        let now = Tick::from_nanos(1);
        let mut failover = three();
        for _ in 0..5 {
            (0..3).for_each(|index| failover.failed(index, now));
        }
        assert_eq!(failover.all_due(now).count(), 0);
        failover.hurry(now, STEP * 2);
        assert!(failover.all_due(now).eq(0..3));
        for _ in 0..5 {
            failover.failed(0, now);
        }
        assert_eq!(failover.due(now.after(STEP * 2)), Some(0));
    }

    #[test]
    fn charge_returns_up_the_list() {
        let now = Tick::from_nanos(1);
        let mut failover = three();
        failover.failed(0, now);
        failover.connected(1);
        assert_eq!(failover.in_charge(), Some(1));
        assert_eq!(
            failover.due(now),
            None,
            "the first is backed off, the third is behind"
        );
        let later = now.after(STEP);
        assert_eq!(failover.due(later), Some(0));
        failover.connected(0);
        failover.left(1, later);
        assert_eq!(failover.in_charge(), Some(0));
        assert_eq!(failover.next_due(), None);
    }

    #[test]
    fn an_upstream_that_accepts_and_closes_is_tried_ever_later() {
        let mut failover = three();
        let mut now = Tick::ZERO;
        let mut waits = Vec::new();
        for _ in 0..4 {
            failover.connected(0);
            failover.failed(0, now);
            waits.push(failover.upstreams[0].retry_at.since(now));
            now = failover.upstreams[0].retry_at;
        }
        assert!(waits[3] > waits[0], "{waits:?}");
        failover.proved(0);
        failover.failed(0, now);
        assert!(failover.upstreams[0].retry_at.since(now) <= STEP);
    }
}
