//! Forwarding: survivors from the queue to the upstreams.
//!
//! ```text
//!                    ┌──▶ lane ──▶ first upstream of its list that is up     failover: one lane with all upstreams
//! queue ──▶ source ──┼──▶ lane ──▶ upstream                                  balance: a lane for each
//!               ▲    └──▶ lane ──▶ upstream
//!               └───────────┘ what may have been lost with a connection
//! ```
//!
//! # Guarantees
//!
//! - Frames leave for an upstream in the order of the queue. With `failover` one upstream is in charge at a time. With
//!   `balance` each upstream that is up takes the next batch when it has written the last; what one of them may have
//!   lost, the others take over.
//! - A frame is counted as forwarded when the last of its octets was taken by the kernel (or the file). A frame broken
//!   off in the middle is sent again whole on the next connection.
//! - Plain TCP has no acknowledgement, so what was written is kept in the resend ring. After an orderly close with
//!   nothing on its way, nothing is sent again. After a reset, a time-out, any other error, or an end that may be that
//!   of one direction only, two parts are sent again: what the peer's kernel had not acknowledged, and as much before
//!   it as the peer's process may not have read (the largest window that it can ever advertise, at least 256 KiB, at
//!   most `resend_max`). Frames that are sent twice are counted as resent.
//! - RELP answers each frame, which counts as forwarded only then. What was not answered when the connection is lost is
//!   sent again.
//! - Messages to be forwarded are safe, for senders that wait to hear so, when they were answered (RELP), when the
//!   peer's kernel has acknowledged them (other streams), or when they were written (datagrams, files).
//! - Each frame that has to be dropped is counted with its reason, and reopens its window.
//!
//! # Left out
//!
//! What the peer's process read and then lost: only a protocol with acknowledgements covers that.

mod account;
mod active;
mod backoff;
mod connection;
mod datagram;
mod dial;
mod encode;
mod error;
mod evidence;
mod failover;
mod file;
mod held;
mod lane;
mod names;
mod overflow;
mod relp;
mod shared;
mod source;
mod standing;
mod stopping;
mod stream;
#[cfg(test)]
mod truth;
mod upstreams;

use std::{io, panic, sync::Arc};

use tokio::{select, sync::watch, task::JoinSet};
use tracing::error;

pub(crate) use self::{
    error::ForwardEnded,
    held::{held, held_by_spool},
    stopping::Stopping,
};
use self::{error::error_chain, lane::Lane, overflow::Overflow, shared::Shared, source::Source};
use crate::{
    config::{ForwardConfig, Strategy, UpstreamConfig},
    delivery::{Queue, custody::Custody, ledger::Ledger},
    metrics::{DropReason, Metrics},
    spool::Spool,
};

/// Moves chunks from the queue to the upstreams.
#[derive(Debug)]
pub(crate) struct Forwarder {
    shared: Arc<Shared>,
    changes: watch::Receiver<Arc<ForwardConfig>>,
    /// The lanes that were not told to end. Dropping a sender tells its lane to end.
    lanes: Vec<(LaneKey, watch::Sender<Arc<ForwardConfig>>)>,
}

/// Whether a lane serves one upstream, or all of them.
#[derive(Clone, Debug, Eq, PartialEq)]
enum LaneKey {
    All,
    One(UpstreamConfig),
}

type Lanes = JoinSet<Result<(), ForwardEnded>>;

/// Makes the threads that forwarding by `config` must have: for the disk, if there is a spool, and for look-ups, if an
/// upstream has a name. Later the system may make none.
///
/// # Errors
///
/// The system makes no thread.
pub(crate) fn keep_threads(config: &ForwardConfig, with_spool: bool) -> io::Result<()> {
    if with_spool {
        overflow::keep_threads()?;
    }
    names::keep_thread_for(&config.to)
}

impl Forwarder {
    /// A forwarder that empties `queue` into the upstreams of `changes`, until the queue is closed and empty or
    /// `stop` is over. What the queue cannot hold goes over `spool`, if there is one. `custody` knows whether a sender
    /// waits to hear what is safe.
    #[must_use]
    pub(crate) fn new(
        queue: Arc<Queue>,
        ledger: Arc<Ledger>,
        metrics: Arc<Metrics>,
        custody: Arc<Custody>,
        spool: Option<Arc<Spool>>,
        changes: watch::Receiver<Arc<ForwardConfig>>,
        stop: Stopping,
    ) -> Self {
        let overflow = spool.map(|spool| {
            Overflow::new(
                spool,
                Arc::clone(&queue),
                Arc::clone(&metrics),
                Arc::clone(&ledger),
                Arc::clone(&custody),
                changes.clone(),
            )
        });
        Self {
            shared: Arc::new(Shared {
                source: Source::new(queue, overflow),
                ledger,
                metrics,
                custody,
                stop,
            }),
            changes,
            lanes: Vec::new(),
        }
    }

    /// Forwards until there is nothing left to forward, and ends the connections in order.
    ///
    /// # Errors
    ///
    /// [`ForwardEnded::NoUpstream`] if standard output was the only upstream and was closed; what
    /// was queued is counted as dropped then.
    pub(crate) async fn run(mut self) -> Result<(), ForwardEnded> {
        let mut running = Lanes::new();
        self.set_lanes(&mut running);
        let mut result = Ok(());
        let shared = Arc::clone(&self.shared);
        let overflowing = shared.source.run();
        tokio::pin!(overflowing);
        loop {
            let ended = select! {
                () = &mut overflowing => continue,
                Ok(()) = self.changes.changed() => {
                    self.set_lanes(&mut running);
                    continue;
                }
                ended = running.join_next() => ended,
            };
            match ended {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) if !running.is_empty() => {
                    error!(cause = %error_chain(&error), "an upstream was given up; the others continue");
                }
                Some(Ok(Err(error))) => result = Err(error),
                Some(Err(broken)) => {
                    if let Ok(panicked) = broken.try_into_panic() {
                        panic::resume_unwind(panicked);
                    }
                }
            }
        }
        self.shared.source.close();
        overflowing.await;
        self.drop_rest();
        result
    }

    /// Hands each lane its part of the configuration, starts new lanes, and tells the others to end.
    fn set_lanes(&mut self, running: &mut Lanes) {
        let config = Arc::clone(&self.changes.borrow_and_update());
        let mut old = std::mem::take(&mut self.lanes);
        for (key, part) in parts(&config) {
            let known = old.iter().position(|(known, _)| *known == key);
            let sender = match known {
                Some(known) => {
                    let (_, sender) = old.swap_remove(known);
                    // Not `send`: the lane may have ended by itself.
                    sender.send_replace(part);
                    sender
                }
                None => {
                    let (sender, changes) = watch::channel(part);
                    running.spawn(Lane::new(Arc::clone(&self.shared), changes).run());
                    sender
                }
            };
            self.lanes.push((key, sender));
        }
    }

    /// Counts what could not be sent as dropped. The stop logs it, with what others drop.
    fn drop_rest(&self) {
        let ledger = &self.shared.ledger;
        for chunk in self.shared.source.take_rest() {
            if let Some(summaries) = ledger.dropped(&chunk, DropReason::Shutdown) {
                ledger.dropped(&summaries, DropReason::Shutdown);
            }
        }
    }
}

/// The lanes of `config`, and the part of it that each has to know.
fn parts(config: &Arc<ForwardConfig>) -> Vec<(LaneKey, Arc<ForwardConfig>)> {
    match config.strategy {
        Strategy::Failover => vec![(LaneKey::All, Arc::clone(config))],
        Strategy::Balance => {
            let one = |upstream: &UpstreamConfig| {
                let to = vec![upstream.clone()];
                let part = Arc::new(ForwardConfig {
                    to,
                    ..(**config).clone()
                });
                (LaneKey::One(upstream.clone()), part)
            };
            config.to.iter().map(one).collect()
        }
    }
}
