//! Accepting: each peer that connects gets a task, or is rejected.
//!
//! # Guarantees
//!
//! - A connection over a limit, or from an address that is not allowed, is closed at once, and other connections are
//!   not affected. The log names the limit.
//! - An error never ends a listener; running out of descriptors pauses it.
//! - Connections that wait in the kernel when a listener closes are accepted, and what their peers sent by then is read.
//!
//! # Left out
//!
//! Reading connections: see `stream` and `relp`. How many there may be: see `connections`.

use std::{
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit};
use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    select,
    sync::OwnedSemaphorePermit,
    time::sleep,
};

use super::{Local, connections::Peer, relp, stream};
use crate::{
    clock::Clock, config::ListenerConfig, core::identity::Sender, fault, logging::PeerReason,
    metrics::RejectReason, panics::caught, socket::Socket,
};

/// A socket that connections are accepted from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(Arc<TcpListener>),
    Unix(Arc<UnixListener>),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Self::over_ip(stream, peer.ip())
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Self::on_machine(stream))
            }
        }
    }

    /// Accepts a connection that waits in the kernel, whether the runtime knows of it or not.
    fn accept_held(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = SockRef::from(listener.as_ref()).accept()?;
                socket.set_nonblocking(true)?;
                let peer = peer.as_socket().ok_or(io::ErrorKind::NotConnected)?;
                Self::over_ip(TcpStream::from_std(socket.into())?, peer.ip())
            }
            Self::Unix(listener) => {
                let (socket, _) = SockRef::from(listener.as_ref()).accept()?;
                socket.set_nonblocking(true)?;
                let stream = UnixStream::from_std(OwnedFd::from(socket).into())?;
                Ok(Self::on_machine(stream))
            }
        }
    }

    fn over_ip(stream: TcpStream, from: IpAddr) -> io::Result<(Socket, Peer)> {
        let peer = Peer {
            sender: Sender::at(from),
            to: Some(stream.local_addr()?.ip()),
        };
        Ok((Socket::Tcp(stream), peer))
    }

    fn on_machine(stream: UnixStream) -> (Socket, Peer) {
        let peer = Peer {
            sender: Sender::Local,
            to: None,
        };
        (Socket::Unix(stream), peer)
    }

    /// Whether another task accepts from the same socket: a listener took it over.
    fn is_shared(&self) -> bool {
        match self {
            Self::Tcp(listener) => Arc::strong_count(listener) > 1,
            Self::Unix(listener) => Arc::strong_count(listener) > 1,
        }
    }

    /// Stops the kernel from starting handshakes on this socket; handshakes in progress can still complete. A peer whose
    /// SYN is dropped repeats it after a second, and reaches the socket that has the address then.
    fn refuse_handshakes(&self) {
        if let Self::Tcp(listener) = self
            && let Err(error) = SockRef::from(&listener.as_fd()).attach_filter(&without_syn())
        {
            tracing::debug!(%error, "cannot filter SYNs; connections being opened may be reset");
        }
    }
}

/// Accepts connections until told to stop.
pub(super) async fn serve(listener: Listener, local: Local) {
    accept_all(&listener, &local).await;
    // The listener that took the socket over accepts the connections that wait on it.
    if listener.is_shared() {
        return;
    }
    if local.is_moving.is_cancelled() {
        listener.refuse_handshakes();
        sleep(HANDSHAKE_MAX).await;
    }
    for _ in 0..HELD_MAX {
        let descriptors = Arc::clone(&local.context.descriptors);
        let Ok(descriptor) = descriptors.try_acquire_owned() else {
            return;
        };
        match listener.accept_held() {
            Ok((socket, peer)) => admit(socket, peer, descriptor, &local),
            Err(error) if is_of_one(&error) => {}
            Err(_) => return,
        }
    }
}

async fn accept_all(listener: &Listener, local: &Local) {
    loop {
        // Without a free descriptor nothing is accepted: the connections wait in the kernel.
        let descriptors = &local.context.descriptors;
        let is_full = descriptors.available_permits() == 0;
        let pausing = is_full.then(|| local.context.metrics.accept_pauses.begin());
        let descriptor = select! {
            biased;
            () = local.stop.cancelled() => return,
            permit = Arc::clone(descriptors).acquire_owned() => permit,
        };
        drop(pausing);
        let Ok(descriptor) = descriptor else { return };
        let accepted = select! {
            biased;
            () = local.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        fault::trip("listener");
        match accepted {
            Ok((socket, peer)) => admit(socket, peer, descriptor, local),
            Err(error) => {
                local.metrics.accept_errors.inc();
                complain(local, |before| {
                    tracing::warn!(listener = local.metrics.name(), %error, help = remedy(&error), before,
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

fn complain(local: &Local, line: impl FnOnce(u64)) {
    let log = &local.context.peer_log;
    log.note(PeerReason::Connection, Clock::now(), line);
}

/// Whether an error is about this process, not about the connection: the next accept would fail as well.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Whether an error is about one connection: the next may be accepted.
fn is_of_one(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::WouldBlock && !is_exhaustion(error)
}

/// What an operator can do about an error of accepting.
fn remedy(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!(
            "at most {} files may be open: raise LimitNOFILE= of its unit (ulimit -n), or lower connections_max",
            open_files_max()
        ),
        Some(libc::ENFILE) => "the machine has too many open files: raise fs.file-max".to_owned(),
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "the kernel has no memory for connections: free memory, or lower connections_max"
                .to_owned()
        }
        _ => "none needed: the connection broke before it was accepted".to_owned(),
    }
}

/// The soft limit of open files.
pub(crate) fn open_files_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Starts a task for an accepted connection, or closes it.
fn admit(socket: Socket, peer: Peer, descriptor: OwnedSemaphorePermit, local: &Local) {
    local.metrics.accepted.inc();
    let (place, config) = local.connections.enter(peer, &local.config, &local.metrics);
    let place = match place {
        Ok(place) => place,
        Err(reason) => {
            local.context.metrics.connections_rejected[reason].inc();
            let limit = Limit(reason, &config);
            local
                .context
                .peer_log
                .note(PeerReason::Reject(reason), Clock::now(), |before| {
                    tracing::warn!(listener = local.metrics.name(), peer = %peer.sender, reason = reason.label(),
                        %limit, help = limit.remedy(), before, "connection rejected");
                });
            return;
        }
    };
    // A stop and a reload both stop a connection by the token of its place.
    let local = Local {
        stop: place.stop.clone(),
        home: Some(Arc::clone(&place.home)),
        ..local.clone()
    };
    let tasks = local.context.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = socket.set_keepalive() {
            tracing::debug!(%error, "cannot enable TCP keepalive");
        }
        // Boxed, because a future that is handed over takes its place twice.
        let served = caught(Box::pin(async {
            if config.url.is_relp() {
                relp::serve(socket, peer.sender, config, &local).await;
            } else {
                stream::serve(socket, peer.sender, config, &local).await;
            }
        }));
        if let Err(panicked) = served.await {
            let listener = local.metrics.name();
            let panics = &local.context.panics;
            panics.connection(listener, peer.sender, &panicked);
        }
        drop((place, descriptor));
    });
}

/// The setting that a connection was rejected for, written as in the configuration.
#[derive(Clone, Copy)]
struct Limit<'c>(RejectReason, &'c ListenerConfig);

impl Limit<'_> {
    /// What an operator can do.
    const fn remedy(self) -> &'static str {
        match self.0 {
            RejectReason::Acl => "add the peer's network to this listener's allow if it may send",
            RejectReason::Limit => {
                "raise connections_max of this listener, or make senders close unused connections"
            }
            RejectReason::SourceLimit => {
                "raise connections_per_source_max of this listener, or find out why one address opens so many"
            }
            _ => "",
        }
    }
}

impl fmt::Display for Limit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reason, config) = self;
        match reason {
            RejectReason::Acl => {
                f.write_str("allow = [")?;
                for (index, network) in config.allow.iter().take(NETWORKS_SHOWN).enumerate() {
                    let separator = if index > 0 { ", " } else { "" };
                    write!(f, "{separator}\"{network}\"")?;
                }
                match config.allow.len().saturating_sub(NETWORKS_SHOWN) {
                    0 => f.write_str("]"),
                    more => write!(f, ", and {more} more]"),
                }
            }
            RejectReason::Limit => write!(f, "connections_max = {}", config.connections_max),
            RejectReason::SourceLimit => write!(
                f,
                "connections_per_source_max = {}",
                config.connections_per_source_max
            ),
            other => f.write_str(other.label()),
        }
    }
}

/// How many networks of `allow` a log line lists.
const NETWORKS_SHOWN: usize = 8;

/// The pause after an error of this process, in which descriptors or memory may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Connections accepted after the stop: the most that wait in the kernel.
const HELD_MAX: usize = 4096;

/// How long a handshake in progress may take when another socket took the address: a round trip on most networks.
const HANDSHAKE_MAX: Duration = Duration::from_millis(250);

/// A filter that drops TCP segments which begin a connection (SYN without ACK), and passes all others. The kernel runs it
/// on the segment from the TCP header on. Accepted connections inherit it, and never get such segments.
fn without_syn() -> [SockFilter; 5] {
    const FLAGS: u32 = 13;
    const SYN_AND_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    // ld flags; and SYN|ACK; jeq SYN; ret nothing; ret all
    [
        SockFilter::new(0x30, 0, 0, FLAGS),
        SockFilter::new(0x54, 0, 0, SYN_AND_ACK),
        SockFilter::new(0x15, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ]
}
