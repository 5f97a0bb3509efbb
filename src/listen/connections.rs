//! The connections of one listener: how many there may be, and which stay at a reload.
//!
//! # Guarantees
//!
//! - Connections are capped, in all and per source address.
//! - A connection is either admitted by the settings in force, or present when a reload checks which may stay: none slips
//!   through in between.
//! - A connection keeps the settings that it was accepted with. A reload assigns it to the listener that has its local
//!   address ([`Connections::reassign`]), in whatever order listeners are configured. It is stopped if there is no such
//!   listener, or if its peer is not in that listener's `allow`. The same holds for a connection that a closing listener
//!   still accepts.
//!
//! # Left out
//!
//! How a connection stops: see `stream` and `relp`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::datagram::allowed;
use crate::{
    config::{ListenUrl, ListenerConfig},
    core::identity::Sender,
    lock::lock,
    metrics::{ListenerMetrics, RejectReason},
};

/// The connections of one listener. A listener that takes over another one's socket takes over this, too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<Open>,
    /// The number of connections in `open`, for readers that take no lock.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    connections: HashMap<u64, Connection>,
    /// Connections per source address, none zero: bounded by `connections`.
    by_source: HashMap<IpAddr, usize>,
    /// New connections are stopped, unless an heir takes them.
    is_stopped: bool,
    /// Its `[::]` takes IPv6 alone.
    only_v6: bool,
    /// The listener's URL at the last [`Connections::reassign`].
    reassigned_for: Option<ListenUrl>,
    /// Other listeners on the same port since the last reload.
    heirs: Vec<Heir>,
}

#[derive(Debug)]
struct Connection {
    peer: Peer,
    is_relp: bool,
    stop: CancellationToken,
    home: Arc<Home>,
}

/// The listener that counts a connection now, and the connection's number there.
#[derive(Debug)]
pub(super) struct Home(Mutex<(Connections, u64)>);

/// A listener that may take over connections of another one on the same port.
#[derive(Clone, Debug)]
pub(crate) struct Heir {
    pub connections: Connections,
    pub config: watch::Receiver<Arc<ListenerConfig>>,
    /// Its `[::]` takes IPv6 alone.
    pub only_v6: bool,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) sender: Sender,
    /// The local address; `None` on Unix sockets.
    pub(super) to: Option<IpAddr>,
}

/// One admitted connection; dropping it removes the connection from its listener.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) home: Arc<Home>,
    metrics: Arc<ListenerMetrics>,
    pub(super) stop: CancellationToken,
}

/// What a reload did with the connections of a listener.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reassigned {
    /// Stopped because their peers are not in `allow` any more.
    pub not_allowed: usize,
    /// Stopped because no listener has their local address any more.
    pub elsewhere: usize,
    /// Handed to another listener, which has their local address now.
    pub handed_over: usize,
    /// Kept, although they speak another protocol than new connections.
    pub other_protocol: usize,
}

impl Connections {
    /// The number of connections.
    pub(super) fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Whether both are the connections of one listener.
    #[must_use]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Admits `peer`, and returns the settings that apply to it; or returns why those settings reject it.
    pub(super) fn enter(
        &self,
        peer: Peer,
        config: &watch::Receiver<Arc<ListenerConfig>>,
        metrics: &Arc<ListenerMetrics>,
    ) -> (Result<Place, RejectReason>, Arc<ListenerConfig>) {
        let mut open = self.lock();
        // Under the lock, because a reload changes the settings first and checks the connections then.
        let own = Arc::clone(&config.borrow());
        if open.is_stopped || !listens_at(&own, open.only_v6, peer.to) {
            let mut heirs = open.heirs.iter();
            if let Some(heir) = heirs.find(|heir| heir.listens_at(peer.to)).cloned() {
                drop(open);
                let mut open = heir.connections.lock();
                let config = Arc::clone(&heir.config.borrow());
                let place = heir.connections.enter_as(&mut open, peer, &config, metrics);
                return (place, config);
            }
        }
        let place = self.enter_as(&mut open, peer, &own, metrics);
        (place, own)
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
            let count = open.by_source.get(&source).copied().unwrap_or(0);
            if count >= config.connections_per_source_max {
                return Err(RejectReason::SourceLimit);
            }
        }
        let stop = CancellationToken::new();
        // If the URL has just changed, the reload still has to assign this connection.
        let is_reassigned = open.reassigned_for.as_ref() == Some(&config.url);
        if is_reassigned && !listens_at(config, open.only_v6, peer.to) {
            stop.cancel();
        }
        let home = Arc::new(Home(Mutex::new((self.clone(), 0))));
        let connection = Connection {
            peer,
            is_relp: config.url.is_relp(),
            stop: stop.clone(),
            home: Arc::clone(&home),
        };
        // No other thread has seen it yet.
        home.lock().1 = self.insert(open, connection);
        metrics.connections.add(1);
        Ok(Place {
            home,
            metrics: Arc::clone(metrics),
            stop,
        })
    }

    fn insert(&self, open: &mut Open, connection: Connection) -> u64 {
        if open.is_stopped {
            connection.stop.cancel();
        }
        if let Sender::Address(source) = connection.peer.sender {
            *open.by_source.entry(source).or_default() += 1;
        }
        open.last += 1;
        open.connections.insert(open.last, connection);
        self.0
            .count
            .store(open.connections.len(), Ordering::Relaxed);
        open.last
    }

    fn remove(&self, number: u64) -> Option<Connection> {
        let mut open = self.lock();
        let connection = open.connections.remove(&number)?;
        self.0
            .count
            .store(open.connections.len(), Ordering::Relaxed);
        if let Sender::Address(source) = connection.peer.sender {
            let count = open.by_source.get_mut(&source);
            let count = count.expect("insert counts each connection under its source");
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&source);
            }
        }
        Some(connection)
    }

    /// Assigns each connection to the listener that has its local address: its own, whose settings in force are `own`, or
    /// one of `heirs`. Stops a connection if no listener has that address, or if the listener does not allow its peer.
    pub(crate) fn reassign(
        &self,
        own: Option<&ListenerConfig>,
        only_v6: bool,
        heirs: Vec<Heir>,
    ) -> Reassigned {
        let mut stay = Reassigned::default();
        let mut leaving = Vec::new();
        let mut open = self.lock();
        open.is_stopped = own.is_none();
        open.only_v6 = only_v6;
        open.reassigned_for = own.map(|own| own.url.clone());
        open.heirs.clone_from(&heirs);
        for connection in open.connections.values() {
            if connection.stop.is_cancelled() {
                continue;
            }
            match own.filter(|own| listens_at(own, only_v6, connection.peer.to)) {
                Some(own) => stay.check(connection, own),
                None => leaving.push(Arc::clone(&connection.home)),
            }
        }
        drop(open);
        for home in leaving {
            home.leave_for(&heirs, &mut stay);
        }
        stay
    }

    /// Stops all connections, and those that come later.
    pub(crate) fn stop(&self) {
        let mut open = self.lock();
        open.is_stopped = true;
        open.heirs.clear();
        for connection in open.connections.values() {
            connection.stop.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        lock(&self.0.open)
    }
}

impl Reassigned {
    /// Stops `connection` if `config`, whose listener has its local address, does not allow its peer.
    fn check(&mut self, connection: &Connection, config: &ListenerConfig) {
        if !allowed(config, connection.peer.sender) {
            self.not_allowed += 1;
            connection.stop.cancel();
        } else if connection.is_relp != config.url.is_relp() {
            self.other_protocol += 1;
        }
    }
}

impl Heir {
    fn listens_at(&self, to: Option<IpAddr>) -> bool {
        to.is_some() && listens_at(&self.config.borrow(), self.only_v6, to)
    }
}

impl Home {
    /// The number of connections of the listener that counts this one.
    pub(super) fn count(&self) -> usize {
        self.lock().0.count()
    }

    /// Hands the connection to the one of `heirs` that has its local address, or stops it.
    fn leave_for(&self, heirs: &[Heir], stay: &mut Reassigned) {
        // Stays locked, so that the connection does not end in between.
        let mut home = self.lock();
        let (connections, number) = &*home;
        let Some(connection) = connections.remove(*number) else {
            return;
        };
        let to = connection.peer.to;
        let heir = heirs.iter().find(|heir| heir.listens_at(to));
        let new = if let Some(heir) = heir {
            stay.handed_over += 1;
            stay.check(&connection, &heir.config.borrow());
            &heir.connections
        } else {
            stay.elsewhere += 1;
            connection.stop.cancel();
            connections
        };
        let number = new.insert(&mut new.lock(), connection);
        *home = (new.clone(), number);
    }

    fn lock(&self) -> MutexGuard<'_, (Connections, u64)> {
        lock(&self.0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.sub(1);
        let home = self.home.lock();
        home.0.remove(home.1);
    }
}

/// Whether the listener of `config` listens on the address `to`. With `only_v6` its `[::]` takes IPv6 alone.
fn listens_at(config: &ListenerConfig, only_v6: bool, to: Option<IpAddr>) -> bool {
    let (Some(address), Some(to)) = (config.url.address(), to) else {
        return true;
    };
    let (own, to) = (address.ip(), to.to_canonical());
    match own {
        IpAddr::V4(own) => own.is_unspecified() && to.is_ipv4() || own == to,
        IpAddr::V6(own) if own.is_unspecified() => to.is_ipv6() || !only_v6,
        IpAddr::V6(own) => own == to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    /// It waited in the kernel when the reload closed its listener: it goes where the accepted connections went.
    #[test]
    fn a_connection_that_a_closed_listener_accepts_goes_to_the_one_that_has_its_address() {
        let metrics = Metrics::new().listener("old", "tcp://0.0.0.0:514");
        let of = |url: &str| {
            let config = ListenerConfig::new(url.parse().unwrap());
            watch::Sender::new(Arc::new(config))
        };
        let (old, new) = (of("tcp://0.0.0.0:514"), of("tcp://127.0.0.1:514"));
        let (closed, open) = (Connections::default(), Connections::default());
        let heir = Heir {
            connections: open.clone(),
            config: new.subscribe(),
            only_v6: false,
        };
        let stay = closed.reassign(None, false, vec![heir]);
        assert_eq!(stay, Reassigned::default());
        for (to, goes_on) in [("127.0.0.1", true), ("127.0.0.2", false)] {
            let peer = Peer {
                sender: Sender::at("127.0.0.9".parse().unwrap()),
                to: Some(to.parse().unwrap()),
            };
            let (place, config) = closed.enter(peer, &old.subscribe(), &metrics);
            let place = place.unwrap();
            assert_eq!(place.stop.is_cancelled(), !goes_on, "{to}");
            assert_eq!(Arc::ptr_eq(&config, &new.borrow()), goes_on, "{to}");
            let counts = (closed.count(), open.count());
            assert_eq!(counts, if goes_on { (0, 1) } else { (1, 0) }, "{to}");
            drop(place);
            assert_eq!((closed.count(), open.count()), (0, 0), "{to}");
        }
        assert_eq!(metrics.connections.get(), 0);
    }
}
