//! What the metrics and the status page are told of a lane's upstreams.
//!
//! # Guarantees
//!
//! - Of a list, the upstreams behind the one in charge stand by, unless they failed when they were tried last: they are
//!   not tried, and not down.
//! - One in charge that was lost is down until it has proved that it works: a peer that takes connections and nothing
//!   else has one most of the time.
//! - Told at each event (an attempt, a loss, a change of charge), not for each batch.

use super::lane::Lane;
use crate::metrics::UpstreamState;

impl Lane {
    /// Tells how each upstream of the list is now.
    pub(super) fn tell(&self) {
        let in_charge = self.active.as_ref().map(|active| active.index);
        let mut is_next_found = false;
        for (index, upstream) in self.upstreams.iter().enumerate() {
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
