//! Datagrams to an upstream: one frame, one datagram (RFC 5426 3.1).
//!
//! ```text
//! frames ──send──▶ kernel, counted as forwarded ──▶ [ ring: the last RECENT_AGE of them ] ──▶ forgotten
//!                      refused (ICMP) ──▶ the upstream is away, and the frames of the ring are sent again
//! ```
//!
//! # Guarantees
//!
//! - UDP has no answers, so a frame is forwarded when the kernel has taken it. But a refusal is noticed at once, also
//!   while nothing is sent. Then the upstream is away like any other, and what was sent just before is sent again, as
//!   far as it is among the last [`RECENT_OCTETS`].
//! - After a refusal few frames are sent at first; the others follow when no refusal came for [`RECENT_AGE`].
//! - What waited while the upstream was away is sent in portions of [`PACE_FRAMES`] with a pause of [`PACE_PAUSE`]
//!   between them: a burst of it would overflow a receive buffer of the usual size.
//! - A name is looked up again every [`RESOLVE_PERIOD`] and when asked to. If it has moved, the caller is told.
//!
//! # Left out
//!
//! Datagrams that are lost on the way without a refusal.

use std::{collections::VecDeque, fmt, io, net::SocketAddr, path::Path, pin::Pin, time::Duration};

use tokio::{
    net::{UdpSocket, UnixDatagram},
    select,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    account::Account,
    dial::{Patience, connect_udp, resolve},
    error::{Lost, UpstreamError},
    evidence::{Evidence, Proof},
    standing::{PROBATION_OCTETS_MIN, Standing},
    stream::ring::{ResendRing, Taken},
};
use crate::{
    clock::Clock,
    core::tick::Tick,
    delivery::chunk::Chunk,
    metrics::{DropReason, FrameErrorReason},
};

/// A datagram socket to an upstream.
#[derive(Debug)]
pub(super) struct Datagram {
    socket: DatagramSocket,
    /// The upstream is given up when a send finds no room for this long.
    stall: Duration,
    /// What waited while the upstream was away is sent at a pace that its receive buffer can take.
    is_paced: bool,
    /// What is sent again after a refusal. Over a Unix socket it keeps nothing: the peer has what was sent.
    ring: ResendRing,
}

#[derive(Debug)]
enum DatagramSocket {
    Udp(UdpSocket, Name),
    Unix(UnixDatagram),
}

/// The name behind an address, and when to look it up again.
struct Name {
    host: String,
    port: u16,
    due: Instant,
    lookup: Option<Lookup>,
}

type Lookup = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, UpstreamError>> + Send + Sync>>;

/// How far sending a chunk came.
#[derive(Debug)]
struct Sent {
    /// Frames that the kernel took.
    frames: usize,
    /// Octets of these frames that were sent.
    octets: u64,
    /// How many of these frames were cut.
    cut: u64,
    /// Why it went no further.
    end: Option<Broke>,
}

#[derive(Debug)]
enum Broke {
    /// The next frame is longer than this socket can ever send.
    TooLarge,
    /// The upstream is away.
    Lost(UpstreamError),
}

impl Datagram {
    /// Opens a socket to the `attempt`-th address of `host`. A send that finds no room for `stall` has failed.
    ///
    /// # Errors
    ///
    /// The name has no address, or there is no route to any of them.
    pub(super) async fn udp(
        host: &str,
        port: u16,
        attempt: u32,
        stall: Duration,
        patience: Patience,
    ) -> Result<Self, UpstreamError> {
        let socket = connect_udp(host, port, attempt, patience).await?;
        let name = Name {
            host: host.to_owned(),
            port,
            due: Instant::now() + RESOLVE_PERIOD,
            lookup: None,
        };
        Ok(Self {
            socket: DatagramSocket::Udp(socket, name),
            stall,
            is_paced: attempt > 0,
            ring: ResendRing::new(RECENT_OCTETS, RECENT_AGE),
        })
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// No socket for datagrams is there.
    pub(super) fn unix(path: &Path, stall: Duration) -> Result<Self, UpstreamError> {
        let socket = UnixDatagram::unbound()
            .and_then(|socket| socket.connect(path).map(|()| socket))
            .map_err(|source| UpstreamError::at(path, source))?;
        Ok(Self {
            socket: DatagramSocket::Unix(socket),
            stall,
            is_paced: false,
            ring: ResendRing::new(0, RECENT_AGE),
        })
    }

    /// Waits until the name has moved, and returns its first address.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Refused`] as soon as the network reports it.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: a look-up under way continues at the next call.
    pub(super) async fn heard(&mut self) -> Result<SocketAddr, UpstreamError> {
        let DatagramSocket::Udp(socket, name) = &mut self.socket else {
            return std::future::pending().await;
        };
        let peer = socket.peer_addr().map_err(UpstreamError::Refused)?;
        let mut waste = [0; 1];
        loop {
            select! {
                // RFC 5426 has no answers: what is read is discarded.
                received = socket.recv(&mut waste) => {
                    received.map_err(UpstreamError::Refused)?;
                }
                address = name.moved_from(peer) => return Ok(address),
            }
        }
    }

    /// Makes the next [`Datagram::heard`] look the name up.
    pub(super) fn resolve_now(&mut self) {
        if let DatagramSocket::Udp(_, name) = &mut self.socket {
            name.due = Instant::now();
        }
    }

    /// Sends `batch` and counts it.
    ///
    /// # Errors
    ///
    /// The upstream is away; the frames that were not sent, and how far the first chunk of them was.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, the rest of the batch is lost without being counted.
    pub(super) async fn send(
        &mut self,
        batch: Vec<Chunk>,
        account: &Account<'_>,
        evidence: &mut Evidence,
    ) -> Result<(), Lost> {
        let frames: usize = batch.iter().map(Chunk::len).sum();
        let (shared, encoder) = (account.shared, account.encoder);
        let mut left = VecDeque::from(batch);
        while let Some(mut chunk) = left.pop_front() {
            let sent = self
                .send_chunk(&chunk, account.config.udp_max, &shared.stop.cut_off)
                .await;
            shared.metrics.frame_errors[FrameErrorReason::Truncated].add(sent.cut);
            shared.metrics.frames.cut.add(sent.cut);
            if let Some(Broke::Lost(error)) = sent.end {
                let taken = encoder.first_octets(&chunk, sent.frames);
                left.push_front(chunk);
                return Err(Lost {
                    batch: left.into(),
                    taken,
                    error,
                });
            }
            let mut whole = chunk.split_entries(sent.frames);
            account.forwarded(&mut whole, sent.frames, sent.octets);
            let now = Clock::now();
            evidence.wrote(now, || encoder.chunk_octets(&whole), shared);
            if !whole.is_empty() {
                self.ring.push(whole, encoder, taken_all(now));
            }
            if let Some(Broke::TooLarge) = sent.end {
                let lost = chunk.split_entries(1);
                account.dropped(&lost, DropReason::TooLarge);
            }
            if !chunk.is_empty() {
                left.push_front(chunk);
            }
        }
        // A small batch is all that waited.
        self.is_paced &= frames >= PACE_FRAMES;
        Ok(())
    }

    /// Removes what is old from the ring. Returns how long to wait before the next call.
    pub(super) fn tend(&mut self, now: Tick, is_awaited: bool) -> Duration {
        self.ring.tend(now, is_awaited, || taken_all(now))
    }

    /// Takes back what was not sent and, after a refusal, what the ring holds. Counts the frames of `batch` that were
    /// sent in its first `taken` octets.
    pub(super) fn take_back(
        &mut self,
        mut batch: Vec<Chunk>,
        taken: usize,
        error: &UpstreamError,
        account: &Account<'_>,
    ) -> VecDeque<Chunk> {
        // After a refusal: no process has listened there for as long as the ring remembers, or for a shorter time.
        let is_refused = matches!(error, UpstreamError::Refused(_));
        let uncertain = if is_refused { usize::MAX } else { 0 };
        account.partly_forwarded(&mut batch, taken);
        self.ring
            .take_back(batch, taken, uncertain, account.encoder)
    }

    /// The octets that it gets on probation, if the upstream refused datagrams before.
    pub(super) fn probation(standing: &Standing) -> Option<usize> {
        standing.is_refused().then_some(PROBATION_OCTETS_MIN)
    }

    /// Proved when no refusal came for [`RECENT_AGE`].
    pub(super) const fn proof() -> Proof {
        Proof::NoRefusal(RECENT_AGE)
    }

    /// Sends what is left in `chunk`, each frame cut to `octets_max`; waits while there is no room.
    async fn send_chunk(
        &self,
        chunk: &Chunk,
        octets_max: usize,
        cut_off: &CancellationToken,
    ) -> Sent {
        let mut sent = Sent {
            frames: 0,
            octets: 0,
            cut: 0,
            end: None,
        };
        for (frame, _, _) in chunk.entries() {
            let datagram = frame.get(..octets_max).unwrap_or(frame);
            let result = match self.socket.try_send(datagram) {
                Err(error) if is_no_room(&error) => select! {
                    biased;
                    result = self.send_when_there_is_room(datagram) => result,
                    () = cut_off.cancelled() => Err(Broke::Lost(UpstreamError::CutOff)),
                },
                result => result.map(drop).map_err(|error| self.broke(error)),
            };
            if let Err(broke) = result {
                sent.end = Some(broke);
                break;
            }
            sent.frames += 1;
            sent.octets += datagram.len() as u64;
            sent.cut += u64::from(datagram.len() < frame.len());
            if self.is_paced && sent.frames.is_multiple_of(PACE_FRAMES) {
                sleep(PACE_PAUSE).await;
            }
        }
        sent
    }

    async fn send_when_there_is_room(&self, datagram: &[u8]) -> Result<(), Broke> {
        let until = Instant::now() + self.stall;
        loop {
            select! {
                biased;
                writable = self.socket.writable() => {
                    writable.map_err(|error| self.broke(error))?;
                }
                () = sleep_until(until) => {
                    return Err(Broke::Lost(UpstreamError::Stalled(self.stall)));
                }
            }
            match self.socket.try_send(datagram) {
                Ok(_) => return Ok(()),
                // A queue behind the socket is full; no event tells when it has room again.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    if Instant::now() >= until {
                        return Err(Broke::Lost(UpstreamError::Broken(error)));
                    }
                    sleep(NO_BUFFERS_PAUSE).await;
                }
                Err(error) if is_no_room(&error) => {}
                Err(error) => return Err(self.broke(error)),
            }
        }
    }

    fn broke(&self, error: io::Error) -> Broke {
        match (error.raw_os_error(), &self.socket) {
            (Some(libc::EMSGSIZE), _) => Broke::TooLarge,
            (_, DatagramSocket::Udp(..)) => Broke::Lost(UpstreamError::Refused(error)),
            (_, DatagramSocket::Unix(_)) => Broke::Lost(UpstreamError::Broken(error)),
        }
    }
}

impl DatagramSocket {
    fn try_send(&self, datagram: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket, _) => socket.try_send(datagram),
            Self::Unix(socket) => socket.try_send(datagram),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Udp(socket, _) => socket.writable().await,
            Self::Unix(socket) => socket.writable().await,
        }
    }
}

impl Name {
    /// Waits until `peer` is not among its addresses, and returns the first of them.
    async fn moved_from(&mut self, peer: SocketAddr) -> SocketAddr {
        loop {
            let lookup = match &mut self.lookup {
                Some(lookup) => lookup,
                None => {
                    sleep_until(self.due).await;
                    let (host, port) = (self.host.clone(), self.port);
                    self.lookup
                        .insert(Box::pin(async move { resolve(&host, port).await }))
                }
            };
            let addresses = lookup.await;
            self.lookup = None;
            self.due = Instant::now() + RESOLVE_PERIOD;
            // A name that does not resolve right now has not moved.
            if let Ok(addresses) = addresses
                && !addresses.contains(&peer)
                && let Some(first) = addresses.first()
            {
                return *first;
            }
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The kernel reports nothing about datagrams once it took them: all count as taken.
const fn taken_all(now: Tick) -> Taken {
    Taken {
        unacknowledged: 0,
        is_all: true,
        now,
    }
}

fn is_no_room(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// How long after a datagram was sent its refusal may arrive: longer than the round trip of most networks.
const RECENT_AGE: Duration = Duration::from_millis(200);

/// Octets that are kept for [`RECENT_AGE`].
pub(super) const RECENT_OCTETS: usize = 256 * 1024;

const RESOLVE_PERIOD: Duration = Duration::from_secs(30);

/// Datagrams in a portion of what waited: a receive buffer of 208 KiB holds some 270 short ones.
const PACE_FRAMES: usize = 64;

/// The pause between two portions, which the timer makes up to twice as long.
const PACE_PAUSE: Duration = Duration::from_millis(1);

/// How long a full queue behind the socket is left alone.
const NO_BUFFERS_PAUSE: Duration = Duration::from_millis(1);
