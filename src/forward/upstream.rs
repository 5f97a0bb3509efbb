//! One connection to an upstream: frames go in, and what becomes of them comes out.
//!
//! # Guarantees
//!
//! - No frame is written to a stream after its peer closed or reset it: a read is pending whenever the
//!   connection waits, and what the peer sends is read and thrown away (RFC 6587 has no answers).
//! - When sending breaks off, the caller learns how many octets the kernel took, so that no frame is
//!   continued on another connection.
//! - A peer that takes nothing for `send_timeout` is given up, whatever it sends meanwhile.
//!
//! # Left out
//!
//! Which upstream, when to try again, what has to be sent again (see the parent module).

use std::{
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr},
    os::fd::AsFd as _,
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::UnixStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    datagram::Datagram,
    dial::{Patience, Step, connect_tcp},
    error::UpstreamError,
    file::Blocking,
    relp::Relp,
};
use crate::{
    clock::Clock,
    config::{ForwardConfig, UpstreamConfig, UpstreamUrl},
    metrics::UpstreamMetrics,
    socket::Socket,
    sys,
    tick::Tick,
};

/// Sending broke off.
#[derive(Debug)]
pub(super) struct BrokenOff {
    /// Octets of the batch that were taken before it broke.
    pub(super) taken: usize,
    /// Why.
    pub(super) error: UpstreamError,
}

/// What was heard of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// It answered, or can take more.
    Progress,
    /// Its name has other addresses now; this is the first of them.
    Moved(SocketAddr),
}

/// An open way to an upstream.
#[derive(Debug)]
pub(super) enum Connection {
    /// A byte stream.
    Stream(Stream),
    /// A datagram socket.
    Datagram(Datagram),
    /// A file or standard output, written to by a thread of its own.
    Blocking(Blocking),
    /// A session that answers.
    Relp(Box<Relp>),
}

impl Connection {
    /// Opens `upstream`, for the `attempt`-th time since it was lost. Names are resolved anew each time and all their
    /// addresses are tried: one after the other, or, where a socket opens on any address, one at each attempt.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Resolve`], [`UpstreamError::Connect`], [`UpstreamError::Open`] or [`UpstreamError::TooSlow`], which
    /// names the step.
    pub(super) async fn open(
        upstream: &UpstreamConfig,
        forward: &ForwardConfig,
        metrics: &Arc<UpstreamMetrics>,
        attempt: u32,
    ) -> Result<Self, UpstreamError> {
        let patience = Patience::new(forward.connect_timeout);
        let stall = forward.send_timeout;
        Ok(match &upstream.url {
            UpstreamUrl::Tcp { host, port } => {
                let socket = connect_tcp(host, *port, stall, patience).await?;
                let socket = Socket::Tcp(socket);
                socket.set_keepalive().map_err(UpstreamError::Open)?;
                Self::Stream(Stream {
                    unread_octets_max: sys::peer_window_octets_max(socket.as_fd())
                        .unwrap_or(usize::MAX)
                        .max(UNREAD_OCTETS_MIN),
                    socket,
                    stall,
                })
            }
            UpstreamUrl::Relp { host, port } => {
                Self::Relp(Box::new(Relp::open(host, *port, stall, patience).await?))
            }
            UpstreamUrl::UnixStream(path) => {
                let connected = async {
                    let connected = UnixStream::connect(path).await;
                    connected.map_err(|source| UpstreamError::at(path, source))
                };
                let stream = patience.take(Step::ConnectTo(path.clone()), connected);
                Self::Stream(Stream {
                    socket: Socket::Unix(stream.await?),
                    stall,
                    unread_octets_max: UNIX_BUFFER_OCTETS,
                })
            }
            UpstreamUrl::Udp { host, port } => {
                Self::Datagram(Datagram::udp(host, *port, attempt, stall, patience).await?)
            }
            UpstreamUrl::UnixDgram(path) => Self::Datagram(Datagram::unix(path, stall)?),
            UpstreamUrl::File(_) | UpstreamUrl::Stdout => {
                let step = Step::Open(upstream.url.to_string());
                let opened = patience.take(step, Blocking::open(upstream, forward, metrics));
                Self::Blocking(opened.await?)
            }
        })
    }

    /// Waits until the peer has answered something, or has taken so much that it can take more, or has moved; never
    /// returns where there is no peer to hear from.
    ///
    /// # Errors
    ///
    /// The peer closed or broke the connection.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point; at most octets that nobody wants were read.
    pub(super) async fn heard(&mut self) -> Result<Heard, UpstreamError> {
        match self {
            Self::Stream(stream) => Err(stream.lost().await),
            Self::Relp(relp) => relp.progress().await.map(|()| Heard::Progress),
            Self::Datagram(datagram) => datagram.heard().await.map(Heard::Moved),
            Self::Blocking(_) => std::future::pending().await,
        }
    }

    /// Whether more can be sent. Where it cannot, [`Connection::heard`] returns when it can again.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Relp(relp) => relp.is_ready(),
            Self::Stream(_) | Self::Datagram(_) | Self::Blocking(_) => true,
        }
    }
}

/// A byte stream to an upstream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) socket: Socket,
    stall: Duration,
    unread_octets_max: usize,
}

impl Stream {
    /// Writes all of `wire`, in order.
    ///
    /// # Errors
    ///
    /// How many octets were taken before the peer closed, broke or stalled the connection.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped half-way, the number of octets taken is lost.
    pub(super) async fn send(
        &mut self,
        wire: &[&[u8]],
        cut_off: &CancellationToken,
    ) -> Result<(), BrokenOff> {
        let mut slices: Vec<IoSlice<'_>> = wire.iter().map(|part| IoSlice::new(part)).collect();
        let mut left: &mut [IoSlice<'_>] = &mut slices;
        let total: usize = wire.iter().map(|part| part.len()).sum();
        let mut taken = 0;
        // What the peer sends meanwhile does not count: it has to take something.
        let mut full_since: Option<Tick> = None;
        while taken < total {
            // A peer that closed is noticed before the write, not by it.
            if let Err(error) = self.discard_input() {
                return Err(BrokenOff { taken, error });
            }
            let window = left.len().min(IOV_MAX);
            match self
                .socket
                .try_write_vectored(left.get(..window).unwrap_or_default())
            {
                Ok(octets) => {
                    taken += octets;
                    full_since = None;
                    IoSlice::advance_slices(&mut left, octets);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = Clock::now();
                    let waited = now.since(*full_since.get_or_insert(now));
                    if waited >= self.stall {
                        let error = UpstreamError::Stalled(self.stall);
                        return Err(BrokenOff { taken, error });
                    }
                    let waited = tokio::select! {
                        ready = self.socket.writable() => ready.map_err(UpstreamError::Broken),
                        readable = self.socket.readable() => readable.map_err(UpstreamError::Broken),
                        () = sleep(self.stall - waited) => {
                            Err(UpstreamError::Stalled(self.stall))
                        }
                        () = cut_off.cancelled() => Err(UpstreamError::CutOff),
                    };
                    if let Err(error) = waited {
                        return Err(BrokenOff { taken, error });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(BrokenOff {
                        taken,
                        error: UpstreamError::Broken(error),
                    });
                }
            }
        }
        Ok(())
    }

    /// What the peer's kernel may have acknowledged and its process not read, at most.
    ///
    /// The window that the peer advertises now does not tell: it is the room that is left, and next to
    /// none where a process reads more slowly than we send, however large the buffer has grown.
    pub(super) fn unread_octets_max(&self) -> usize {
        self.unread_octets_max
    }

    /// Octets that the peer's kernel has not acknowledged; readable after the connection died. Zero on
    /// a Unix stream, where what was written is with the peer.
    pub(super) fn unacknowledged_octets(&self) -> usize {
        match &self.socket {
            Socket::Tcp(_) => sys::unacknowledged_octets(self.socket.as_fd()).unwrap_or(usize::MAX),
            Socket::Unix(_) => 0,
        }
    }

    /// Whether the peer has taken everything, as far as its kernel lets us know. Over a Unix stream that is: read it.
    pub(super) fn has_taken_all(&self) -> bool {
        sys::unacknowledged_octets(self.socket.as_fd()).is_ok_and(|octets| octets == 0)
    }

    /// Ends the connection in order: no more is written; waits until the peer closed, which it does
    /// when it has read everything, or has at least acknowledged everything and shows no sign of
    /// closing, or `limit`. An end of the peer's that came before ours is no answer to it, and an error.
    ///
    /// Where there is `doubt`, only a peer that closes after we did, and not at about the same time, has read everything.
    ///
    /// # Errors
    ///
    /// Why the peer may not have everything.
    pub(super) async fn finish(
        &mut self,
        limit: Duration,
        doubt: bool,
    ) -> Result<(), UpstreamError> {
        self.discard_input()?;
        if doubt && let Ok(error) = timeout(limit.min(DOUBT_PATIENCE), self.lost()).await {
            return Err(error);
        }
        let shut_down = match &self.socket {
            Socket::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Socket::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        };
        shut_down.map_err(UpstreamError::Broken)?;
        let patience = if doubt {
            limit
        } else {
            limit.min(CLOSE_PATIENCE)
        };
        match timeout(patience, self.lost()).await {
            Ok(UpstreamError::Closed) => return Ok(()),
            Ok(error) => return Err(error),
            Err(_) if doubt => return Err(UpstreamError::NotEnded(limit)),
            Err(_) => {}
        }
        let acknowledged = async {
            // The FIN that was sent counts as one octet until it is acknowledged.
            while self.unacknowledged_octets() > 0 {
                tokio::select! {
                    error = self.lost() => match error {
                        UpstreamError::Closed => return Ok(()),
                        error => return Err(error),
                    },
                    () = sleep(ACKNOWLEDGED_POLL) => {}
                }
            }
            Ok(())
        };
        timeout(limit, acknowledged)
            .await
            .unwrap_or(Err(UpstreamError::NotEnded(limit)))
    }

    async fn lost(&mut self) -> UpstreamError {
        loop {
            if let Err(error) = self.socket.readable().await {
                return UpstreamError::Broken(error);
            }
            if let Err(error) = self.discard_input() {
                return error;
            }
        }
    }

    /// Reads and throws away what the peer has sent; an error if it closed or broke the connection.
    fn discard_input(&self) -> Result<(), UpstreamError> {
        let mut waste = [0; 4096];
        // Bounded: a peer that never stops sending does not keep us from writing.
        for _ in 0..64 {
            match self.socket.try_read(&mut waste.as_mut_slice()) {
                Ok(0) => return Err(UpstreamError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UpstreamError::Broken(error)),
            }
        }
        Ok(())
    }
}

/// Slices that one `writev` takes (IOV_MAX on Linux).
const IOV_MAX: usize = 1024;

/// A peer that scales no windows may hold several of them; so much is kept in any case.
const UNREAD_OCTETS_MIN: usize = 256 * 1024;

/// What a Unix stream holds at most: the size of its sender's buffer, rounded up.
pub(super) const UNIX_BUFFER_OCTETS: usize = 256 * 1024;

/// How long a peer that has everything may take to close its end.
const CLOSE_PATIENCE: Duration = Duration::from_millis(250);

/// How long a peer has for an end of its own, if it ends connections without reading them.
const DOUBT_PATIENCE: Duration = Duration::from_millis(50);

/// How often the output queue is looked at while a connection is being ended.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(5);
