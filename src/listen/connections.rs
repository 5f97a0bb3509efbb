//! Who is connected to one listener: how many there may be, and who may stay at a reload.
//!
//! # Guarantees
//!
//! - Connections are capped, all together and per source address.
//! - A connection is let in by the settings in force at that moment, or it is there when a reload looks who may stay:
//!   none slips through in between.
//! - A connection lives by the settings that it was accepted with. At a reload it is stopped if its peer is not in
//!   `allow` any more, or if it came to an address on which the listener does not listen any more.
//!
//! # Left out
//!
//! How a connection stops: see `stream` and `relp`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::datagram::allowed;
use crate::{
    config::ListenerConfig,
    identity::Sender,
    metrics::{ListenerMetrics, RejectReason},
};

/// Who is connected to one listener. A listener that takes over another one's socket takes over this, too.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<Open>,
    /// The number of those in `open`, for readers that take no lock.
    count: AtomicUsize,
    /// Stops all of them, and those that come later.
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    connections: HashMap<u64, Connection>,
    /// Bounded by `connections`: an address without a connection is not in it.
    by_source: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Connection {
    peer: Peer,
    is_relp: bool,
    stop: CancellationToken,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) sender: Sender,
    /// Our own address; `None` on Unix sockets.
    pub(super) to: Option<IpAddr>,
}

/// One connection's place; given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    number: u64,
    sender: Sender,
    metrics: Arc<ListenerMetrics>,
    /// Stops this connection.
    pub(super) stop: CancellationToken,
}

/// What became of connections at a reload.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stay {
    /// Stopped, because their peers are not in `allow` any more.
    pub not_allowed: usize,
    /// Stopped, because they came to another address.
    pub elsewhere: usize,
    /// They stay, and speak another protocol than new connections do.
    pub other_protocol: usize,
}

impl Connections {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// A place for `peer`, and the settings that it lives by; or why it gets none by those settings.
    pub(super) fn enter(
        &self,
        peer: Peer,
        config: &watch::Receiver<Arc<ListenerConfig>>,
        metrics: &Arc<ListenerMetrics>,
    ) -> (Result<Place, RejectReason>, Arc<ListenerConfig>) {
        let mut open = self.lock();
        // Behind the lock: a reload changes the settings first and looks who may stay then.
        let config = Arc::clone(&config.borrow());
        let place = self.enter_as(&mut open, peer, &config, metrics);
        (place, config)
    }

    fn enter_as(
        &self,
        open: &mut Open,
        peer: Peer,
        config: &ListenerConfig,
        metrics: &Arc<ListenerMetrics>,
    ) -> Result<Place, RejectReason> {
        if !allowed(config, peer.sender) {
            return Err(RejectReason::Acl);
        }
        if open.connections.len() >= config.connections_max {
            return Err(RejectReason::Limit);
        }
        if let Sender::Address(source) = peer.sender {
            let count = open.by_source.entry(source).or_default();
            if *count >= config.connections_per_source_max {
                return Err(RejectReason::SourceLimit);
            }
            *count += 1;
        }
        open.last += 1;
        let stop = self.0.stop.child_token();
        if !listens_at(config, peer.to) {
            stop.cancel();
        }
        let connection = Connection {
            peer,
            is_relp: config.url.is_relp(),
            stop: stop.clone(),
        };
        open.connections.insert(open.last, connection);
        self.0
            .count
            .store(open.connections.len(), Ordering::Relaxed);
        metrics.connections.add(1);
        Ok(Place {
            connections: self.clone(),
            number: open.last,
            sender: peer.sender,
            metrics: Arc::clone(metrics),
            stop,
        })
    }

    /// Stops those that may not stay under `config`, which is in force already.
    pub fn stop_unfit(&self, config: &ListenerConfig) -> Stay {
        let mut stay = Stay::default();
        for connection in self.lock().connections.values() {
            let Connection {
                peer,
                is_relp,
                stop,
            } = connection;
            if stop.is_cancelled() {
                continue;
            }
            if !allowed(config, peer.sender) {
                stay.not_allowed += 1;
                stop.cancel();
            } else if !listens_at(config, peer.to) {
                stay.elsewhere += 1;
                stop.cancel();
            } else if *is_relp != config.url.is_relp() {
                stay.other_protocol += 1;
            }
        }
        stay
    }

    /// Stops all.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.sub(1);
        let mut open = self.connections.lock();
        open.connections.remove(&self.number);
        let count = &self.connections.0.count;
        count.store(open.connections.len(), Ordering::Relaxed);
        if let Sender::Address(source) = self.sender
            && let Some(count) = open.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&source);
            }
        }
    }
}

/// Whether `to` is an address that the listener of `config` listens on.
fn listens_at(config: &ListenerConfig, to: Option<IpAddr>) -> bool {
    let (Some(address), Some(to)) = (config.url.address(), to) else {
        return true;
    };
    let (own, to) = (address.ip(), to.to_canonical());
    match own {
        IpAddr::V4(own) => own.is_unspecified() && to.is_ipv4() || own == to,
        IpAddr::V6(own) => own.is_unspecified() || own == to,
    }
}
