//! A lane's list of upstreams: what is known about each, and which one is in charge.
//!
//! # Guarantees
//!
//! - What is known about an upstream stays while it is listed, also over a reload.
//! - In the metrics and on the status page, the upstreams behind the one in charge stand by, unless their last attempt
//!   failed: they are not tried, and not down.
//! - An upstream in charge that was lost is down until it has proved that it works: a peer that takes connections and
//!   nothing else would have one most of the time.
//! - The metrics are told at each event (an attempt, a loss, a change of charge), not for each batch.
//!
//! # Left out
//!
//! Connecting (`lane`).

use std::ops::{Index, IndexMut};

use super::standing::{Standing, Upstream};
use crate::{
    clock::Clock,
    config::{ForwardConfig, UpstreamConfig},
    forward::{backoff::Backoff, failover::Failover},
    metrics::{Metrics, UpstreamState},
};

#[derive(Debug)]
pub(super) struct Upstreams {
    list: Vec<Upstream>,
    /// Has a state for each of the list.
    pub(super) failover: Failover,
}

impl Upstreams {
    /// The upstreams of `config`, all of them away and due.
    pub(super) fn new(config: &ForwardConfig, metrics: &Metrics) -> Self {
        let mut upstreams = Self {
            list: Vec::new(),
            failover: Failover::new(Vec::new()),
        };
        upstreams.set(config, metrics);
        upstreams
    }

    /// Takes over the list of `config`. All upstreams are away and due then.
    pub(super) fn set(&mut self, config: &ForwardConfig, metrics: &Metrics) {
        let known = std::mem::take(&mut self.list);
        let standing_of = |config: &UpstreamConfig| {
            let known = known.iter().find(|known| known.config == *config);
            known.map_or_else(Standing::default, |known| known.standing.clone())
        };
        self.list.extend(config.to.iter().map(|upstream| Upstream {
            config: upstream.clone(),
            metrics: metrics.upstream(&upstream.url.to_string()),
            standing: standing_of(upstream),
        }));
        // Removes the upstreams that are not listed any more from the metrics.
        drop(known);
        let seed = Clock::now().nanos() ^ u64::from(std::process::id()).rotate_left(32);
        let backoffs = (0..config.to.len() as u64)
            .map(|index| Backoff::new(config.retry_min, config.retry_max, seed ^ index))
            .collect();
        self.failover = Failover::new(backoffs);
    }

    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Tells the metrics how each upstream is, while `in_charge` has a connection.
    pub(super) fn tell(&self, in_charge: Option<usize>) {
        let mut is_next_found = false;
        for (index, upstream) in self.list.iter().enumerate() {
            let standing = &upstream.standing;
            let is_in_charge = in_charge == Some(index);
            // The candidates: those before the one in charge.
            let is_tried = in_charge.is_none_or(|in_charge| index < in_charge);
            let state = if is_in_charge && !standing.is_outage() {
                UpstreamState::Active
            } else if is_in_charge || standing.is_down() {
                UpstreamState::Down
            } else if is_tried && !std::mem::replace(&mut is_next_found, true) {
                UpstreamState::Connecting
            } else {
                UpstreamState::Standby
            };
            let is_down = state == UpstreamState::Down;
            upstream.metrics.tell(
                state,
                is_in_charge,
                standing.outage_since().filter(|_| is_down),
                standing.attempts(),
                (is_down && is_tried).then(|| self.failover.retry_at(index)),
            );
        }
    }
}

impl Index<usize> for Upstreams {
    type Output = Upstream;

    fn index(&self, index: usize) -> &Upstream {
        &self.list[index]
    }
}

impl IndexMut<usize> for Upstreams {
    fn index_mut(&mut self, index: usize) -> &mut Upstream {
        &mut self.list[index]
    }
}
