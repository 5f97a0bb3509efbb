//! Accepting: whoever connects gets a task, or is turned away.
//!
//! # Guarantees
//!
//! - A connection too many, or from an address that is not allowed, is closed at once, and the others never notice.
//!   The log names the limit.
//! - An error never ends a listener; running out of descriptors makes it pause.
//! - Connections that the kernel holds when a listener closes are accepted; what they said by then is read.
//!
//! # Left out
//!
//! What connections say: see `stream` and `relp`. How many there may be: see `connections`.

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
    clock::Clock, config::ListenerConfig, identity::Sender, logging::PeerReason,
    metrics::RejectReason, socket::Socket,
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

    /// A connection that the kernel holds now, whether the runtime has heard of it or not.
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

    /// Whether another task accepts from the same socket: the listener was taken over.
    fn is_shared(&self) -> bool {
        match self {
            Self::Tcp(listener) => Arc::strong_count(listener) > 1,
            Self::Unix(listener) => Arc::strong_count(listener) > 1,
        }
    }

    /// Lets the kernel begin no connection on this socket any more; those that it has begun can still be completed.
    /// A peer that begins one meanwhile tries again after a second, and finds the socket that has the address then.
    fn begin_no_more(&self) {
        if let Self::Tcp(listener) = self
            && let Err(error) = SockRef::from(&listener.as_fd()).attach_filter(&without_syn())
        {
            tracing::debug!(%error, "connections that are being opened may be reset");
        }
    }
}

/// Accepts connections until told to stop.
pub(super) async fn serve(listener: Listener, local: Local) {
    accept_all(&listener, &local).await;
    // The listener that takes the socket over accepts what it holds.
    if listener.is_shared() {
        return;
    }
    if local.is_moving.is_cancelled() {
        listener.begin_no_more();
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
        // At the limit of descriptors nothing is accepted: the kernel keeps those who knock.
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

/// Errors that are about us, not about the connection: they will be there again at once.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Errors that are about one connection; the next may be sound.
fn is_of_one(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::WouldBlock && !is_exhaustion(error)
}

/// What helps against an error of accepting.
fn remedy(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!(
            "the process may open {} files: raise LimitNOFILE= of its unit (ulimit -n), or lower connections_max",
            open_files_max()
        ),
        Some(libc::ENFILE) => "the machine has too many open files: raise fs.file-max".to_owned(),
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "the kernel has no memory for connections: free some, or lower connections_max"
                .to_owned()
        }
        _ => "nothing: the connection broke before it was accepted".to_owned(),
    }
}

/// How many files the process may open.
pub fn open_files_max() -> u64 {
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
    // What it is told to do is stopping, by whatever stops it: its listener, or a reload.
    let local = Local {
        stop: place.stop.clone(),
        home: Some(Arc::clone(&place.home)),
        ..local.clone()
    };
    let tasks = local.context.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = socket.set_keepalive() {
            tracing::debug!(%error, "no keepalive");
        }
        if config.url.is_relp() {
            relp::serve(socket, peer.sender, config, &local).await;
        } else {
            stream::serve(socket, peer.sender, config, &local).await;
        }
        drop((place, descriptor));
    });
}

/// The setting that a connection was rejected for, as it stands in the configuration.
#[derive(Clone, Copy)]
struct Limit<'c>(RejectReason, &'c ListenerConfig);

impl Limit<'_> {
    /// What helps.
    const fn remedy(self) -> &'static str {
        match self.0 {
            RejectReason::Acl => "add the peer's network to this listener's allow if it may send",
            RejectReason::Limit => {
                "raise connections_max of this listener, or let senders close connections that they do not use"
            }
            RejectReason::SourceLimit => {
                "raise connections_per_source_max of this listener, or see why one address connects so often"
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

/// Networks of `allow` that a log line names.
const NETWORKS_SHOWN: usize = 8;

/// Time for descriptors to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Connections accepted after the stop: as many as the kernel holds at most.
const HELD_MAX: usize = 4096;

/// How long a handshake may take that had begun when another socket took the address: a round trip of most networks.
const HANDSHAKE_MAX: Duration = Duration::from_millis(250);

/// Drops segments that begin a connection (SYN without ACK), and passes all others. The kernel shows it a segment from
/// its TCP header on; connections that were accepted inherit it, and get no such segments.
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
