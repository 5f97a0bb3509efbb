//! A lane's part of a reload: another list of upstreams, or other settings.
//!
//! # Guarantees
//!
//! - A connection to an upstream that is still listed stays.
//! - A file is opened anew, because that is how a rotated one is let go.
//! - The name of a UDP upstream is looked up again, and upstreams that are away are tried at once.
//!
//! # Left out
//!
//! When (see `daemon`).

use std::sync::Arc;

use tracing::error;

use super::{
    lane::Lane,
    standing::{Standing, Upstream},
    upstream::Connection,
};
use crate::{
    backoff::Backoff,
    clock::Clock,
    config::{UpstreamConfig, UpstreamUrl},
    failover::Failover,
};

impl Lane {
    /// Takes over a changed configuration. A connection to an upstream that is still listed stays,
    /// except that a file is opened anew, because that is how a rotated one is let go.
    pub(super) async fn reload(&mut self) {
        self.config = Arc::clone(&self.changes.borrow_and_update());
        let kept = self.active.as_ref().and_then(|active| {
            let config = &self.upstreams[active.index].config;
            let is_file = matches!(config.url, UpstreamUrl::File(_));
            self.config
                .to
                .iter()
                .position(|upstream| upstream == config && !is_file)
        });
        if kept.is_none()
            && let Err(error) = self.leave(false).await
        {
            error!(cause = %super::error_chain(&error), "an upstream that the reload removed broke down");
        }
        self.set_upstreams();
        match (kept, &mut self.active) {
            (Some(index), Some(active)) => {
                active.index = index;
                active.encoder.line_breaks = self.config.line_breaks;
                if let Connection::Datagram(datagram) = &mut active.connection {
                    datagram.resolve_now();
                }
                self.failover.connected(index);
            }
            _ => self.active = None,
        }
        self.tell();
    }

    pub(super) fn set_upstreams(&mut self) {
        let Self {
            config,
            shared,
            upstreams,
            ..
        } = self;
        let known = std::mem::take(upstreams);
        let standing_of = |config: &UpstreamConfig| {
            let known = known.iter().find(|known| known.config == *config);
            known.map_or_else(Standing::default, |known| known.standing.clone())
        };
        upstreams.extend(config.to.iter().map(|upstream| Upstream {
            config: upstream.clone(),
            metrics: shared.metrics.upstream(&upstream.url.to_string()),
            standing: standing_of(upstream),
        }));
        // What was not taken over is gone from the metrics now.
        drop(known);
        let seed = Clock::now().nanos() ^ u64::from(std::process::id()).rotate_left(32);
        let backoffs = (0..config.to.len() as u64)
            .map(|index| Backoff::new(config.retry_min, config.retry_max, seed ^ index))
            .collect();
        self.failover = Failover::new(backoffs);
    }
}
