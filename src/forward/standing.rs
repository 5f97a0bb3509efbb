//! Standing: what is known about an upstream, and what it takes to trust it again.
//!
//! ```text
//!            lost, or not reached            proved
//!   trusted ─────────────────────▶ outage ───────────▶ trusted
//!      │                            │  ▲
//!      │ logged: WARN               └──┘ each further attempt is counted; logged again after ten minutes
//! ```
//!
//! # Guarantees
//!
//! - An outage is logged when it begins, every [`REMIND_PERIOD`] while it lasts, and when it ends, with the number of
//!   attempts.
//! - An upstream that had a connection and fails is logged as lost; any other as one that cannot be connected to.
//! - A connection ends an outage if it lived for [`PROOF_MIN`] and, if there was something to send, took some of it.
//!   Taking octets alone proves nothing: a load balancer without a backend accepts, takes octets, and closes.
//! - A connection that follows several that broke before they proved anything is on probation: it gets ever fewer
//!   octets until it has proved itself, because all of them may have to be sent again.
//!
//! # Left out
//!
//! When to try next (`failover`). What was lost with a connection (`stream::ring`).

use std::{sync::Arc, time::Duration};

use tracing::{debug, info, warn};

use super::error::UpstreamError;
use crate::{config::UpstreamConfig, core::tick::Tick, metrics::UpstreamMetrics};

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) config: UpstreamConfig,
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) standing: Standing,
}

/// What is known of an upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// From the loss until the upstream is trusted again.
    outage: Option<Outage>,
    /// It had a connection, and was not left for another upstream since.
    was_connected: bool,
    /// Its first connection was logged.
    is_known: bool,
    /// How many connections in a row broke before they proved anything, with frames that had to be sent again.
    broken_early: u32,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Tick,
    attempts: u32,
    /// The last attempt ended because datagrams were refused.
    is_refused: bool,
    told_at: Tick,
    /// The last connection ended in order: the upstream can be reached, but has not proved yet that it works.
    is_reached: bool,
}

impl Standing {
    /// Whether it was lost and is not trusted again.
    pub(super) const fn is_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// Whether it refused datagrams the last time some were sent.
    pub(super) fn is_refused(&self) -> bool {
        self.outage.is_some_and(|outage| outage.is_refused)
    }

    /// Whether its last attempt failed.
    pub(super) fn is_down(&self) -> bool {
        self.outage.is_some_and(|outage| !outage.is_reached)
    }

    /// Records that its connection ended in order.
    pub(super) const fn ended_in_order(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.is_reached = !outage.is_refused;
        }
    }

    pub(super) fn outage_since(&self) -> Option<Tick> {
        self.outage.map(|outage| outage.since)
    }

    /// How many attempts failed in this outage.
    pub(super) fn attempts(&self) -> u32 {
        self.outage.map_or(0, |outage| outage.attempts)
    }

    /// How many octets the next connection gets before it has proved itself; `None` means no limit. `resend_octets`
    /// may have to be sent again if it breaks.
    pub(super) fn probation(&self, resend_octets: usize) -> Option<usize> {
        // The first break may have been bad luck.
        let quarters = self
            .broken_early
            .checked_sub(1)
            .filter(|&times| times > 0)?;
        let octets = resend_octets.checked_shr(2 * quarters).unwrap_or(0);
        Some(octets.max(PROBATION_OCTETS_MIN))
    }

    /// Records that it was left for another upstream and stands by.
    pub(super) const fn left(&mut self) {
        self.was_connected = false;
    }

    /// Records that a connection has proved itself.
    pub(super) const fn proved(&mut self) {
        self.broken_early = 0;
    }

    /// Records that a connection broke before it proved anything, with frames that have to be sent again.
    pub(super) const fn broke_early(&mut self) {
        self.broken_early = self.broken_early.saturating_add(1);
    }
}

impl Upstream {
    /// Records and logs a failed attempt or a lost connection. The next attempt is after `retry_in`; `waiting_octets`
    /// are queued.
    pub(super) fn failed(
        &mut self,
        error: &UpstreamError,
        now: Tick,
        retry_in: Duration,
        waiting_octets: u64,
    ) {
        let upstream = &self.config.url;
        let cause = error.story();
        let is_refused = matches!(error, UpstreamError::Refused(_));
        self.metrics.failed(&cause, now);
        let retry_in = rounded(retry_in);
        if let Some(outage) = &mut self.standing.outage {
            outage.attempts = outage.attempts.saturating_add(1);
            outage.is_refused = is_refused;
            outage.is_reached = false;
            let (attempts, away) = (outage.attempts, rounded(now.since(outage.since)));
            if now.since(outage.told_at) >= REMIND_PERIOD {
                outage.told_at = now;
                warn!(%upstream, %cause, ?away, attempts, ?retry_in, waiting_octets, "upstream still away");
            } else {
                debug!(%upstream, %cause, ?away, attempts, ?retry_in, "upstream still away");
            }
            return;
        }
        self.standing.outage = Some(Outage {
            since: now,
            attempts: 1,
            is_refused,
            told_at: now,
            is_reached: false,
        });
        if std::mem::take(&mut self.standing.was_connected) {
            warn!(%upstream, %cause, ?retry_in, "upstream lost");
        } else {
            warn!(%upstream, %cause, ?retry_in, "cannot connect to upstream");
        }
    }

    /// Records and logs a connection. After an outage it must prove first that the upstream can be trusted.
    pub(super) fn connected(&mut self) {
        self.metrics.connects.inc();
        self.standing.was_connected = true;
        if self.standing.is_outage() {
            debug!(upstream = %self.config.url, "upstream took a connection");
        } else if std::mem::replace(&mut self.standing.is_known, true) {
            debug!(upstream = %self.config.url, "upstream connected");
        } else {
            info!(upstream = %self.config.url, "upstream connected");
        }
    }

    /// Ends the outage, if there is one, and logs that: the upstream is trusted.
    pub(super) fn found(&mut self, now: Tick) {
        if let Some(Outage {
            since, attempts, ..
        }) = self.standing.outage.take()
        {
            let away = rounded(now.since(since));
            info!(upstream = %self.config.url, ?away, attempts, "upstream connected");
        }
        self.standing.is_known = true;
    }
}

/// Rounds to what an operator reads: seconds from ten seconds on, else milliseconds.
fn rounded(span: Duration) -> Duration {
    let millis = span.as_millis();
    let unit = if millis >= 10_000 { 1000 } else { 1 };
    Duration::from_millis(u64::try_from(millis / unit * unit).unwrap_or(u64::MAX))
}

/// How often an outage is logged while it lasts.
pub(super) const REMIND_PERIOD: Duration = Duration::from_secs(600);

/// How long a connection has to live to prove something.
pub(super) const PROOF_MIN: Duration = Duration::from_secs(5);

/// What a connection on probation gets at least.
pub(super) const PROBATION_OCTETS_MIN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::UpstreamUrl, metrics::Metrics};

    #[test]
    fn what_connections_take_along_in_vain_is_bounded() {
        let resend = 8 << 20;
        let mut standing = Standing::default();
        let mut octets = Vec::new();
        for _ in 0..30 {
            octets.push(standing.probation(resend));
            standing.broke_early();
        }
        assert_eq!(
            octets[..4],
            [None, None, Some(resend / 4), Some(resend / 16)]
        );
        assert_eq!(octets[29], Some(PROBATION_OCTETS_MIN));
    }

    #[test]
    fn an_upstream_that_stays_away_is_told_of_every_ten_minutes() {
        let mut upstream = Upstream {
            config: UpstreamConfig::new(UpstreamUrl::Stdout),
            metrics: Metrics::new().upstream("stdout:"),
            standing: Standing::default(),
        };
        let begun = Tick::from_nanos(1);
        let mut told = Vec::new();
        // An attempt every half minute, for an hour.
        for number in 0..=120 {
            let span = Duration::from_secs(30 * number);
            let now = begun.after(span);
            let error = UpstreamError::Closed;
            upstream.failed(&error, now, span, 0);
            let outage = upstream.standing.outage.unwrap();
            if outage.told_at == now {
                told.push(span.as_secs() / 60);
            }
        }
        assert_eq!(told, [0, 10, 20, 30, 40, 50, 60]);
        assert_eq!(upstream.standing.attempts(), 121);
    }
}
