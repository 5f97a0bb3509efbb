//! Standing: what is known of an upstream, and what it takes to trust it again.
//!
//! ```text
//!            lost, or not reached            proved
//!   trusted ─────────────────────▶ outage ───────────▶ trusted
//!      │                            │  ▲
//!      │ told once: WARN            └──┘ each further attempt is counted, not told
//! ```
//!
//! # Guarantees
//!
//! - An outage is told when it begins and when it ends, with the number of attempts; nothing in between.
//! - A connection ends an outage when it lived for [`PROOF_MIN`] and took something, if there was something. A load
//!   balancer without a backend accepts, takes octets, and closes.
//! - A connection that follows on several that broke before they proved anything is on probation: it gets ever fewer
//!   octets until it has proved itself, because all of them may have to be sent again.
//!
//! # Left out
//!
//! When the next attempt is (`failover`). What was lost with a connection (`ring`).

use std::{sync::Arc, time::Duration};

use tracing::{debug, info, warn};

use super::{error_chain, upstream::UpstreamError};
use crate::{config::UpstreamConfig, metrics::UpstreamMetrics, tick::Tick};

/// One upstream of a lane's list.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) config: UpstreamConfig,
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) standing: Standing,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Since it was lost, until it is trusted again.
    outage: Option<Outage>,
    /// It was told once that it is connected.
    is_known: bool,
    /// Connections in a row that broke before they proved anything, and took frames along.
    broken_early: u32,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Tick,
    attempts: u32,
    /// The last attempt ended with a refusal of datagrams.
    is_refused: bool,
}

impl Standing {
    /// Whether it was lost and is not trusted again.
    pub(super) const fn is_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// Whether it refused datagrams the last time it was sent some.
    pub(super) fn is_refused(&self) -> bool {
        self.outage.is_some_and(|outage| outage.is_refused)
    }

    /// How often in this outage it was tried without success.
    pub(super) fn attempts(&self) -> u32 {
        self.outage.map_or(0, |outage| outage.attempts)
    }

    /// Octets that the next connection gets before it has proved itself; `None` is as many as it takes. So much may
    /// be sent again: `replay_octets`.
    pub(super) fn probation(&self, replay_octets: usize) -> Option<usize> {
        // The first time may have been bad luck.
        let quarters = self
            .broken_early
            .checked_sub(1)
            .filter(|&times| times > 0)?;
        let octets = replay_octets.checked_shr(2 * quarters).unwrap_or(0);
        Some(octets.max(PROBATION_OCTETS_MIN))
    }

    /// A connection has proved itself.
    pub(super) const fn proved(&mut self) {
        self.broken_early = 0;
    }

    /// A connection broke before it proved anything, and frames have to be sent again.
    pub(super) const fn broke_early(&mut self) {
        self.broken_early = self.broken_early.saturating_add(1);
    }
}

impl Upstream {
    /// It could not be reached, or was lost.
    pub(super) fn failed(&mut self, error: &UpstreamError, now: Tick) {
        self.metrics.errors.inc();
        let cause = error_chain(error);
        let is_refused = matches!(error, UpstreamError::Refused(_));
        if let Some(outage) = &mut self.standing.outage {
            outage.attempts = outage.attempts.saturating_add(1);
            outage.is_refused = is_refused;
            debug!(upstream = %self.config.url, %cause, attempts = outage.attempts, "upstream still away");
            return;
        }
        self.standing.outage = Some(Outage {
            since: now,
            attempts: 1,
            is_refused,
        });
        warn!(upstream = %self.config.url, %cause, "upstream lost");
    }

    /// It is connected. Whether it is to be trusted shows later, if it was lost.
    pub(super) fn connected(&mut self) {
        self.metrics.connects.inc();
        if self.standing.is_outage() {
            debug!(upstream = %self.config.url, "upstream took a connection");
        } else if std::mem::replace(&mut self.standing.is_known, true) {
            debug!(upstream = %self.config.url, "upstream connected");
        } else {
            info!(upstream = %self.config.url, "upstream connected");
        }
    }

    /// It is to be trusted: an outage is over.
    pub(super) fn found(&mut self, now: Tick) {
        if let Some(Outage {
            since, attempts, ..
        }) = self.standing.outage.take()
        {
            let away = now.since(since);
            info!(upstream = %self.config.url, ?away, attempts, "upstream connected");
        }
        self.standing.is_known = true;
    }
}

/// How long a connection has to live to prove something.
pub(super) const PROOF_MIN: Duration = Duration::from_secs(5);

/// What a connection on probation gets in any case.
pub(super) const PROBATION_OCTETS_MIN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_take_along_in_vain_is_bounded() {
        let replay = 8 << 20;
        let mut standing = Standing::default();
        let mut octets = Vec::new();
        for _ in 0..30 {
            octets.push(standing.probation(replay));
            standing.broke_early();
        }
        assert_eq!(
            octets[..4],
            [None, None, Some(replay / 4), Some(replay / 16)]
        );
        assert_eq!(octets[29], Some(PROBATION_OCTETS_MIN));
    }
}
