//! Accepting: whoever connects gets a task, or is turned away.
//!
//! # Guarantees
//!
//! - Connections are capped, all together and per source address; one too many is closed at once, and
//!   the others never notice.
//! - An error never ends a listener; running out of descriptors makes it pause.
//!
//! # Left out
//!
//! What connections say: see `stream` and `relp`.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    select,
    sync::OwnedSemaphorePermit,
    time::sleep,
};

use super::{Local, datagram::allowed, relp, stream};
use crate::{
    clock::Clock,
    config::ListenerConfig,
    identity::Sender,
    logging::PeerReason,
    metrics::{ListenerMetrics, RejectReason},
    socket::Socket,
};

/// A socket that connections are accepted from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Socket, Sender)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Sender::at(peer.ip())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Sender::Local))
            }
        }
    }
}

/// Accepts connections until told to stop.
pub(super) async fn serve(listener: Listener, local: Local) {
    let connections = Connections::default();
    loop {
        // At the limit of descriptors nothing is accepted: the kernel keeps those who knock.
        let descriptor = select! {
            biased;
            () = local.stop.cancelled() => return,
            permit = Arc::clone(&local.context.descriptors).acquire_owned() => permit,
        };
        let Ok(descriptor) = descriptor else { return };
        let accepted = select! {
            biased;
            () = local.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, sender)) => admit(socket, sender, descriptor, &connections, &local),
            Err(error) => {
                local.metrics.accept_errors.inc();
                local
                    .context
                    .peer_log
                    .note(PeerReason::Connection, Clock::now(), |before| {
                        tracing::warn!(listener = local.metrics.name(), %error, before,
                        "cannot accept a connection");
                    });
                if is_exhaustion(&error) {
                    select! {
                        () = local.stop.cancelled() => return,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }
}

/// Errors that are about us, not about the connection: they will be there again at once.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Starts a task for an accepted connection, or closes it.
fn admit(
    socket: Socket,
    sender: Sender,
    descriptor: OwnedSemaphorePermit,
    connections: &Connections,
    local: &Local,
) {
    local.metrics.accepted.inc();
    let config = Arc::clone(&local.config.borrow());
    let place = if allowed(&config, sender) {
        connections.enter(sender, &config, &local.metrics)
    } else {
        Err(RejectReason::Acl)
    };
    let place = match place {
        Ok(place) => place,
        Err(reason) => {
            local.context.metrics.connections_rejected[reason].inc();
            local
                .context
                .peer_log
                .note(PeerReason::Reject(reason), Clock::now(), |before| {
                    tracing::warn!(listener = local.metrics.name(), peer = %sender,
                    reason = reason.label(), before, "connection rejected");
                });
            return;
        }
    };
    let local = local.clone();
    let tasks = local.context.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = socket.set_keepalive() {
            tracing::debug!(%error, "no keepalive");
        }
        if config.url.is_relp() {
            relp::serve(socket, sender, config, &local).await;
        } else {
            stream::serve(socket, sender, config, &local).await;
        }
        drop((place, descriptor));
    });
}

/// Who is connected to one listener.
#[derive(Clone, Debug, Default)]
struct Connections(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Bounded by `all`: an address without a connection is not in it.
    by_source: HashMap<IpAddr, usize>,
}

/// One connection's place; given up when dropped.
#[derive(Debug)]
struct Place {
    connections: Connections,
    source: Option<IpAddr>,
    metrics: Arc<ListenerMetrics>,
}

impl Connections {
    fn enter(
        &self,
        sender: Sender,
        config: &ListenerConfig,
        metrics: &Arc<ListenerMetrics>,
    ) -> Result<Place, RejectReason> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= config.connections_max {
            return Err(RejectReason::Limit);
        }
        let source = match sender {
            Sender::Address(address) => Some(address),
            Sender::Local => None,
        };
        if let Some(source) = source {
            let count = counts.by_source.entry(source).or_default();
            if *count >= config.connections_per_source_max {
                return Err(RejectReason::SourceLimit);
            }
            *count += 1;
        }
        counts.all += 1;
        metrics.connections.add(1);
        Ok(Place {
            connections: self.clone(),
            source,
            metrics: Arc::clone(metrics),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.sub(1);
        let mut counts = self
            .connections
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(source) = self.source
            && let Some(count) = counts.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                counts.by_source.remove(&source);
            }
        }
    }
}

/// Time for descriptors to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
