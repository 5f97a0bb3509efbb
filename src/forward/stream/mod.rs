//! A byte stream to an upstream, TCP or Unix: it has no answers, so what may not have been read is kept.
//!
//! ```text
//! batch ──encode, write──▶ kernel, counted as forwarded ──▶ [ resend ring ] ──acknowledged, old──▶ forgotten
//!                                                                 │ lost: what the peer may not have read
//!                                                                 └──▶ taken back
//! ```
//!
//! # Guarantees
//!
//! - No frame is written after the end or the reset of the peer was received: while the connection waits, and before
//!   each write, what the peer sends is read and discarded (RFC 6587 has no answers).
//! - A frame that broke off in the middle is taken back whole, so that no frame is continued on another connection.
//! - A peer that takes nothing for `send_timeout` is given up, whatever it sends meanwhile.
//! - Of a lost connection is taken back: nothing, if the peer closed and shows no sign that it has not read everything
//!   (see `end`); else what its kernel had not acknowledged, and as much before it as its process may not have read.
//!
//! # Left out
//!
//! Which upstream, and when to try again (`lane`).

mod end;
pub(super) mod ring;

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::Shutdown,
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::UnixStream,
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::ring::{ResendRing, Taken};
use super::{
    account::Account,
    dial::{Patience, connect_tcp},
    error::{BrokenOff, Lost, Step, UpstreamError},
    evidence::{Evidence, Proof},
};
use crate::{
    clock::Clock, config::ForwardConfig, core::tick::Tick, delivery::chunk::Chunk, socket::Socket,
    sys,
};

/// A byte stream to an upstream.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    /// The peer is given up when it takes nothing for this long.
    stall: Duration,
    /// At most how much the peer's kernel may have acknowledged and its process not read.
    ///
    /// Not the window that the peer advertises now: that is the room that is left, and close to zero where a process
    /// reads more slowly than we send, however large the buffer has grown.
    unread_octets_max: usize,
    ring: ResendRing,
    /// Octets that the peer's kernel had not acknowledged when it was asked last.
    unacknowledged: usize,
}

impl Stream {
    /// Connects to the first address of `host` that accepts.
    ///
    /// # Errors
    ///
    /// See [`connect_tcp`].
    pub(super) async fn tcp(
        host: &str,
        port: u16,
        forward: &ForwardConfig,
        patience: Patience,
    ) -> Result<Self, UpstreamError> {
        let stream = connect_tcp(host, port, forward.send_timeout, patience).await?;
        let socket = Socket::Tcp(stream);
        socket.set_keepalive().map_err(UpstreamError::Open)?;
        let window = sys::peer_window_octets_max(socket.as_fd()).unwrap_or(usize::MAX);
        Ok(Self::new(socket, window.max(UNREAD_OCTETS_MIN), forward))
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Connect`], or [`UpstreamError::TooSlow`].
    pub(super) async fn unix(
        path: &Path,
        forward: &ForwardConfig,
        patience: Patience,
    ) -> Result<Self, UpstreamError> {
        let connected = async {
            let connected = UnixStream::connect(path).await;
            connected.map_err(|source| UpstreamError::at(path, source))
        };
        let step = Step::ConnectTo(path.to_owned());
        let socket = Socket::Unix(patience.take(step, connected).await?);
        Ok(Self::new(socket, UNIX_BUFFER_OCTETS, forward))
    }

    fn new(socket: Socket, unread_octets_max: usize, forward: &ForwardConfig) -> Self {
        let limit = unread_octets_max.min(forward.resend_max);
        Self {
            socket,
            stall: forward.send_timeout,
            unread_octets_max,
            ring: ResendRing::new(limit, forward.resend_age),
            unacknowledged: 0,
        }
    }

    /// Writes `batch`, counts it, and keeps it in the ring.
    ///
    /// # Errors
    ///
    /// The connection is lost; the batch, and how much of it was taken.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, the batch is lost without being counted.
    pub(super) async fn send(
        &mut self,
        mut batch: Vec<Chunk>,
        account: &Account<'_>,
        evidence: &mut Evidence,
    ) -> Result<(), Lost> {
        account.take_out(&mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        let wire = account.encode(&batch);
        let parts: Vec<&[u8]> = wire.iter().map(AsRef::as_ref).collect();
        let written = self.write(&parts, &account.shared.stop.cut_off).await;
        drop(wire);
        // A reload may have raised `resend_max`.
        let limit = self.unread_octets_max.min(account.config.resend_max);
        self.ring.set_limit(limit);
        if let Err(broken) = written {
            return Err(broken.in_batch(batch));
        }
        let taken = taken(&self.socket, Clock::now());
        self.unacknowledged = taken.unacknowledged;
        for mut chunk in batch {
            let (entries, octets) = (chunk.len(), account.encoder.chunk_octets(&chunk));
            account.forwarded(&mut chunk, entries, octets as u64);
            evidence.wrote(taken.now, || octets, account.shared);
            self.ring.push(chunk, account.encoder, taken);
        }
        Ok(())
    }

    /// Writes all of `wire`, in order.
    ///
    /// # Errors
    ///
    /// How many octets were taken before the peer closed, broke or stalled the connection.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, the number of octets taken is lost.
    async fn write(
        &mut self,
        wire: &[&[u8]],
        cut_off: &CancellationToken,
    ) -> Result<(), BrokenOff> {
        let mut slices: Vec<IoSlice<'_>> = wire.iter().map(|part| IoSlice::new(part)).collect();
        let mut left: &mut [IoSlice<'_>] = &mut slices;
        let total: usize = wire.iter().map(|part| part.len()).sum();
        let mut taken = 0;
        // Reset only when the peer takes something, not by what it sends.
        let mut full_since: Option<Tick> = None;
        while taken < total {
            // The end of a peer that closed is read here, before the write.
            if let Err(error) = self.discard_input() {
                return Err(BrokenOff { taken, error });
            }
            let window = left.len().min(IOV_MAX);
            match self.socket.try_write_vectored(&left[..window]) {
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
                    let waited = select! {
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
                        error: UpstreamError::broken(error, self.stall),
                    });
                }
            }
        }
        Ok(())
    }

    /// Waits until the peer closes or breaks the connection; what it sends is discarded.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(super) async fn lost(&self) -> UpstreamError {
        loop {
            if let Err(error) = self.socket.readable().await {
                return UpstreamError::Broken(error);
            }
            if let Err(error) = self.discard_input() {
                return error;
            }
        }
    }

    /// Reads and discards what the peer has sent; an error if it closed or broke the connection.
    fn discard_input(&self) -> Result<(), UpstreamError> {
        let mut waste = [0; 4096];
        // Limited, so that a peer that never stops sending does not keep us from writing.
        for _ in 0..64 {
            match self.socket.try_read(&mut waste.as_mut_slice()) {
                Ok(0) => return Err(UpstreamError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UpstreamError::broken(error, self.stall)),
            }
        }
        Ok(())
    }

    /// Marks what the peer has taken as safe, and removes what is old from the ring. Returns how long to wait before
    /// the next call.
    pub(super) fn tend(&mut self, now: Tick, is_awaited: bool) -> Duration {
        let (socket, unacknowledged) = (&self.socket, &mut self.unacknowledged);
        self.ring.tend(now, is_awaited, || {
            let taken = taken(socket, now);
            *unacknowledged = taken.unacknowledged;
            taken
        })
    }

    /// Ends the connection in order: writes no more, and waits until the peer closes, which it does when it has read
    /// everything. If it shows no sign of closing, it has to acknowledge everything within `limit`. If the peer ended
    /// its direction before we ended ours, that is no answer, and an error.
    ///
    /// With `doubt` acknowledging is not enough: the peer has to close, and not at about the same time as we do.
    ///
    /// # Errors
    ///
    /// Why the peer may not have everything.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point; the connection is only good for [`Stream::take_back`] then.
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
            while unacknowledged_octets(&self.socket) > 0 {
                select! {
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

    /// Takes back the frames that the peer may not have read, after the connection was lost by `error`, `taken` octets
    /// into `batch`. Counts the frames of `batch` that were taken. May ask the peer (see `end`).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, the frames are lost without being counted.
    pub(super) async fn take_back(
        &mut self,
        mut batch: Vec<Chunk>,
        taken: usize,
        error: &UpstreamError,
        is_trusted: bool,
        account: &Account<'_>,
    ) -> VecDeque<Chunk> {
        let uncertain = self
            .uncertain(&batch, taken, error, is_trusted, account)
            .await;
        account.partly_forwarded(&mut batch, taken);
        self.ring
            .take_back(batch, taken, uncertain, account.encoder)
    }

    /// How many of the last octets written the peer may not have read.
    async fn uncertain(
        &self,
        batch: &[Chunk],
        taken: usize,
        error: &UpstreamError,
        is_trusted: bool,
        account: &Account<'_>,
    ) -> usize {
        // Before the peer is asked, which adds an octet.
        let unacknowledged = unacknowledged_octets(&self.socket);
        if matches!(error, UpstreamError::CutOff) && is_trusted {
            // The connection is not broken: the peer's process will read what its kernel has.
            return unacknowledged;
        }
        // With octets on their way an end tells nothing: they reset a peer that closed, whatever it had read.
        let is_askable = error.is_orderly() && unacknowledged == 0;
        let is_at_stake = self.ring.limit() > 0 && self.ring.octets() + taken > 0;
        let unread = if is_askable && is_at_stake {
            let between_frames = account.encoder.whole_octets(batch, taken) == taken;
            select! {
                biased;
                () = account.shared.stop.over() => usize::MAX,
                unread = end::unread_octets(&self.socket, between_frames) => unread,
            }
        } else {
            usize::MAX
        };
        unacknowledged.saturating_add(unread.min(self.ring.limit()))
    }

    /// Octets that the peer's kernel had not acknowledged when it was asked last.
    pub(super) const fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// The most that may have to be sent again beyond what was not acknowledged.
    pub(super) const fn resend_octets(&self) -> usize {
        self.ring.limit()
    }

    /// Proved once the peer has acknowledged a chunk, and the connection lived for some time.
    pub(super) const fn proof(&self) -> Proof {
        Proof::Answer {
            is_seen: self.ring.is_acknowledged(),
        }
    }

    /// Whether the peer is reached over IP.
    pub(super) const fn is_tcp(&self) -> bool {
        matches!(self.socket, Socket::Tcp(_))
    }
}

/// How much of what was written the peer has taken by now.
fn taken(socket: &Socket, now: Tick) -> Taken {
    // Asked once: an acknowledgement between two questions would make the two answers disagree.
    let left = sys::unacknowledged_octets(socket.as_fd());
    Taken {
        // Over a Unix stream the kernel tells even what the peer has read.
        is_all: matches!(left, Ok(0)),
        unacknowledged: match socket {
            Socket::Tcp(_) => left.unwrap_or(usize::MAX),
            Socket::Unix(_) => 0,
        },
        now,
    }
}

/// Octets that the peer's kernel has not acknowledged; can be asked after the connection died. Zero on a Unix stream,
/// where what was written is with the peer.
fn unacknowledged_octets(socket: &Socket) -> usize {
    match socket {
        Socket::Tcp(_) => sys::unacknowledged_octets(socket.as_fd()).unwrap_or(usize::MAX),
        Socket::Unix(_) => 0,
    }
}

/// Slices that one `writev` takes (IOV_MAX on Linux).
const IOV_MAX: usize = 1024;

/// A peer that scales no windows may buffer several of them; at least this much counts as unread.
const UNREAD_OCTETS_MIN: usize = 256 * 1024;

/// What a Unix stream holds at most: the size of its sender's buffer, rounded up.
pub(super) const UNIX_BUFFER_OCTETS: usize = 256 * 1024;

/// How long a peer that has everything may take to close its end.
const CLOSE_PATIENCE: Duration = Duration::from_millis(250);

/// How long a peer in doubt has to end the connection first: some end connections without reading them.
const DOUBT_PATIENCE: Duration = Duration::from_millis(50);

/// How often the output queue is asked for while a connection is being ended.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;

    /// They were the answers to two questions. The ring panicked if an acknowledgement came in between.
    #[tokio::test]
    async fn what_is_left_and_whether_that_is_nothing_never_disagree() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        sender.set_nonblocking(true).unwrap();
        let kernel = sender.try_clone().unwrap();
        let socket = Socket::Tcp(tokio::net::TcpStream::from_std(sender).unwrap());
        // The closure has the sockets: when it ends, so does the receiver.
        thread::scope(move |scope| {
            scope.spawn(move || {
                let mut waste = vec![0; 64 * 1024];
                while receiver.read(&mut waste).unwrap() > 0 {}
            });
            let (begun, mut seen) = (Clock::now(), 0);
            for round in 0..ROUNDS {
                // The last acknowledgement comes at any time after this.
                let send = |_: &usize| SockRef::from(&kernel).send(&[b'x'; 16 * 1024]).is_ok();
                let _sent = (0..SENDS_MAX).take_while(send).count();
                loop {
                    let taken = taken(&socket, Clock::now());
                    let unacknowledged = taken.unacknowledged;
                    assert_eq!(taken.is_all, unacknowledged == 0, "{unacknowledged} octets");
                    if taken.is_all {
                        break;
                    }
                    seen += 1;
                    assert!(
                        taken.now.since(begun) < LIMIT,
                        "round {round} lasts too long"
                    );
                }
            }
            assert!(seen > 0, "no octet was ever unacknowledged");
        });
    }

    const ROUNDS: usize = 50;
    const SENDS_MAX: usize = 200;
    const LIMIT: Duration = Duration::from_secs(30);
}
