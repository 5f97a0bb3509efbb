//! Datagrams, UDP and Unix: one datagram, one message (RFC 5426 3.1).
//!
//! ```text
//! a thread a socket:   poll ──▶ recvmmsg ──▶ judge ──▶ deliver ──┐
//!                        ▲          ▲            under load: pause │
//!                        └─ quiet ──┴──────────────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - Up to [`BATCH`] datagrams are read with one call and judged as one batch.
//! - Under load the next call waits for [`PAUSE`], so that it finds many datagrams instead of one: waking up
//!   for each costs more than judging it. When it is quiet there is no pause.
//! - No UDP datagram is cut: the buffers hold the largest there is. A longer Unix datagram is cut, and
//!   counted as truncated.
//! - What the kernel dropped is read from the socket itself and counted, also when nothing arrives any
//!   more and while nothing can be handed on.
//!
//! A socket has a thread of its own and not a task: the runtime's timers are too coarse for such a pause,
//! and a worker that pauses would keep others waiting.
//!
//! # Left out
//!
//! Embedded line ends: a datagram is one message even if it holds several lines.

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, MultiHeaders, SockaddrLike, SockaddrStorage, recvmmsg},
};
use tokio::{runtime::Handle, select, time::sleep};

use super::{Local, complaints::Long};
use crate::{
    chunk::Chunk,
    clock::Clock,
    config::{ListenUrl, ListenerConfig, Oversize},
    identity::Sender,
    limits::DATAGRAM_OCTETS_MAX,
    logging::PeerReason,
    metrics::{DropReason, FrameErrorReason, ListenerMetrics},
    pipeline::Judged,
    sys::socket_drops,
    tick::Tick,
};

/// A datagram socket that is read.
#[derive(Debug)]
pub(super) enum Socket {
    Udp(Arc<UdpSocket>),
    Unix(Arc<UnixDatagram>),
}

/// Reads `socket` until told to stop, of which the end of `stopped` wakes it, and then what the kernel has received by
/// then. Blocks its thread, which belongs to a runtime. What the kernel dropped before counts if the socket was not
/// `taken_over` from a listener that has counted it.
pub(super) fn serve(socket: &Socket, local: Local, stopped: Option<&UnixStream>, taken_over: bool) {
    let seen = |socket: BorrowedFd<'_>| match socket_drops(socket) {
        Ok(drops) if taken_over => drops,
        _ => 0,
    };
    match socket {
        Socket::Udp(udp) => {
            Reader::new(local, sender_at, seen(udp.as_fd())).serve(udp, stopped);
        }
        Socket::Unix(unix) => {
            Reader::new(local, |()| Sender::Local, seen(unix.as_fd())).serve(unix, stopped);
        }
    }
}

/// Reads one socket, batch by batch. `A` is an address of its family.
struct Reader<A> {
    local: Local,
    config: Arc<ListenerConfig>,
    drops: Drops,
    pace: Pace,
    runtime: Handle,
    /// The kernel shortens the address length in there to what it wrote: one family's only.
    headers: MultiHeaders<A>,
    sender: fn(A) -> Sender,
    /// One slot for each datagram of a batch. Only the pages that datagrams touch become resident.
    slots: Vec<u8>,
    /// Octets from one slot to the next, and those of them that are used.
    stride_octets: usize,
    slot_octets: usize,
}

/// What one call to the kernel gave.
struct Read {
    /// To be delivered.
    judged: Judged,
    datagrams: usize,
    at: Tick,
}

impl<A: SockaddrLike + Copy> Reader<A> {
    fn new(mut local: Local, sender: fn(A) -> Sender, seen: u32) -> Self {
        let config = Arc::clone(&local.config.borrow_and_update());
        let slot_octets = slot_octets(&config);
        // A power of two would put all slots' first octets in the same few places of the caches.
        let stride_octets = slot_octets.next_multiple_of(CACHE_LINE_OCTETS) + 5 * CACHE_LINE_OCTETS;
        Self {
            drops: Drops {
                metrics: Arc::clone(&local.metrics),
                seen,
                due: Clock::now(),
            },
            local,
            config,
            pace: Pace::new(Clock::now()),
            runtime: Handle::current(),
            headers: MultiHeaders::preallocate(BATCH, None),
            sender,
            slots: vec![0; stride_octets * BATCH],
            stride_octets,
            slot_octets,
        }
    }

    fn serve(&mut self, socket: &impl AsFd, stopped: Option<&UnixStream>) {
        loop {
            self.drops.count_if_due(socket.as_fd());
            match self.read(socket) {
                Ok(read) => {
                    let (at, datagrams) = (read.at, read.datagrams);
                    self.deliver(read.judged, socket);
                    if self.pace.is_worth_a_pause(datagrams, at) {
                        thread::sleep(PAUSE);
                    }
                    // With less than a full batch the kernel had no more: asking again would only tell that.
                    if datagrams == BATCH || self.pace.is_busy {
                        if !self.local.stop.is_cancelled() {
                            continue;
                        }
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // ICMP errors of what we never send, or memory pressure: nothing to do but go on.
                Err(error) => {
                    tracing::debug!(listener = self.local.metrics.name(), %error, "receive error");
                }
            }
            if self.wait(socket, stopped) {
                break;
            }
        }
        // Bounded: a sender that never pauses does not keep us from ending.
        for _ in 0..LAST_BATCHES {
            match self.read(socket) {
                Ok(read) => self.deliver(read.judged, socket),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.drops.count(socket.as_fd());
    }

    /// Waits until there is something to read; true if it is time to stop. Looks up when drops are to be
    /// counted.
    fn wait(&mut self, socket: &impl AsFd, stopped: Option<&UnixStream>) -> bool {
        loop {
            let fds = [Some(socket.as_fd()), stopped.map(AsFd::as_fd)];
            let mut events: Vec<_> = fds
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let timeout = PollTimeout::try_from(DROPS_PERIOD).unwrap_or(PollTimeout::MAX);
            // Interrupted or out of memory: a turn more.
            let ready = poll(&mut events, timeout).unwrap_or(0);
            let mut happened = events.iter().map(|event| event.any().unwrap_or(false));
            let readable = happened.next() == Some(true);
            // Also when nobody is left who could tell.
            if happened.next() == Some(true) || self.local.stop.is_cancelled() {
                return true;
            }
            if ready > 0 && readable {
                return false;
            }
            self.drops.count_if_due(socket.as_fd());
        }
    }

    /// One call to the kernel: what it had is judged.
    fn read(&mut self, socket: &impl AsFd) -> io::Result<Read> {
        let Self {
            local,
            config,
            headers,
            slots,
            stride_octets,
            slot_octets,
            sender,
            ..
        } = self;
        if local.config.has_changed().unwrap_or(false) {
            *config = Arc::clone(&local.config.borrow_and_update());
        }
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = slots
            .chunks_exact_mut(*stride_octets)
            .filter_map(|slot| Some([IoSliceMut::new(slot.get_mut(..*slot_octets)?)]))
            .collect();
        let fd = socket.as_fd().as_raw_fd();
        let received = recvmmsg(fd, headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
        let metrics = &local.context.metrics;
        let mut batch = local.context.pipeline.batch(&local.metrics);
        let at = batch.now();
        let mut datagrams = 0;
        for datagram in received {
            datagrams += 1;
            let octets = datagram.iovs().next().unwrap_or_default();
            let Some(sender) = datagram.address.map(*sender) else {
                continue;
            };
            if octets.is_empty() {
                local.metrics.empty.inc();
                continue;
            }
            if !allowed(config, sender) {
                batch.refuse(octets, DropReason::Acl);
                local
                    .context
                    .peer_log
                    .note(PeerReason::Acl, batch.now(), |before| {
                        tracing::warn!(listener = local.metrics.name(), peer = %sender,
                            advice = "add its network to allow of this listener, if it may send", before,
                        "datagram refused: not in allow");
                    });
                continue;
            }
            let cut = datagram.flags.contains(MsgFlags::MSG_TRUNC);
            if cut {
                metrics.frame_errors[FrameErrorReason::Truncated].inc();
            }
            let head = octets.get(..config.max_message_size).unwrap_or(octets);
            let is_long = head.len() < octets.len();
            if is_long {
                local.complain_of_length(Long::Counted, head, sender, config);
            }
            // There was more of what was cut, beyond a slot and so beyond `max_message_size` as well.
            if config.oversize == Oversize::Drop && (cut || is_long) {
                batch.refuse(head, DropReason::Oversize);
            } else {
                batch.judge(head, sender);
            }
        }
        let judged = batch.finish();
        local.complain_of_compression(&judged.compressed_by);
        Ok(Read {
            judged,
            datagrams,
            at,
        })
    }

    /// Hands on what came of a batch. While the queue is full nothing is read, and that is when the kernel drops.
    fn deliver(&mut self, judged: Judged, socket: &impl AsFd) {
        if judged.is_empty() {
            return;
        }
        let (pipeline, drops) = (&self.local.context.pipeline, &mut self.drops);
        self.runtime.block_on(async {
            let mut delivery = pin!(pipeline.deliver(judged));
            loop {
                select! {
                    biased;
                    _ = &mut delivery => return,
                    () = sleep(DROPS_PERIOD) => drops.count(socket.as_fd()),
                }
            }
        });
    }
}

/// How densely datagrams come.
#[derive(Debug)]
struct Pace {
    /// Datagrams since then.
    count: usize,
    since: Tick,
    is_busy: bool,
}

impl Pace {
    const fn new(now: Tick) -> Self {
        Self {
            count: 0,
            since: now,
            is_busy: false,
        }
    }

    /// Whether to pause after a batch of `datagrams`, read at `now`: many have come for a while, and the kernel had
    /// no more.
    fn is_worth_a_pause(&mut self, datagrams: usize, now: Tick) -> bool {
        self.count += datagrams;
        let span = now.since(self.since);
        if span >= PACE_SPAN {
            let due = span.as_micros() * BUSY_DATAGRAMS / PAUSE.as_micros();
            self.is_busy = self.count as u128 >= due;
            self.count = 0;
            self.since = now;
        }
        self.is_busy && datagrams < BATCH
    }
}

/// What the kernel dropped on one socket.
struct Drops {
    metrics: Arc<ListenerMetrics>,
    /// The kernel's count when it was last looked at; it wraps.
    seen: u32,
    /// When to look again.
    due: Tick,
}

impl Drops {
    fn count_if_due(&mut self, socket: BorrowedFd<'_>) {
        let now = Clock::now();
        if now >= self.due {
            self.due = now.after(DROPS_PERIOD);
            self.count(socket);
        }
    }

    fn count(&mut self, socket: BorrowedFd<'_>) {
        if let Ok(drops) = socket_drops(socket) {
            let more = drops.wrapping_sub(self.seen);
            self.metrics.kernel_dropped.add(u64::from(more));
            self.seen = drops;
        }
    }
}

/// Octets that one datagram may have, and one more, which tells that it has too many. UDP carries no longer ones,
/// however long messages may be.
fn slot_octets(config: &ListenerConfig) -> usize {
    match config.url {
        ListenUrl::Udp(_) => DATAGRAM_OCTETS_MAX + 1,
        _ => config.max_message_size.max(DATAGRAM_OCTETS_MAX + 1),
    }
}

/// The most memory that one socket takes: a full batch of the longest datagrams, and what was judged of them and waits.
pub(super) fn octets_max(config: &ListenerConfig) -> usize {
    let slot = slot_octets(config);
    let judged = slot.min(config.max_message_size) + Chunk::ENTRY_OVERHEAD_OCTETS;
    BATCH.saturating_mul(slot.saturating_add(judged))
}

fn sender_at(address: SockaddrStorage) -> Sender {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    let address = v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()));
    address.map_or(Sender::Local, Sender::at)
}

/// Whether `sender` is on the listener's list; an empty list lets everybody in.
pub(super) fn allowed(config: &ListenerConfig, sender: Sender) -> bool {
    match sender {
        Sender::Local => true,
        Sender::Address(address) => {
            config.allow.is_empty() || config.allow.iter().any(|net| net.contains(&address))
        }
    }
}

/// Datagrams read with one call.
const BATCH: usize = 64;

/// How long a batch fills under load. The kernel adds its timer slack, 50 µs: a first copy waits 200 µs at most.
const PAUSE: Duration = Duration::from_micros(140);

/// It is busy if so many datagrams come in a pause's time: then pausing takes less than waking up for them.
const BUSY_DATAGRAMS: u128 = 4;

/// Over how long that is measured.
const PACE_SPAN: Duration = Duration::from_micros(500);

/// Batches read after the stop: more than a full receive buffer of short messages is not waited for.
const LAST_BATCHES: usize = 1024;

/// How often the kernel is asked what it dropped.
const DROPS_PERIOD: Duration = Duration::from_millis(250);

const CACHE_LINE_OCTETS: usize = 64;
