//! Datagrams, UDP and Unix: one datagram, one message (RFC 5426 3.1).
//!
//! ```text
//! a thread per socket: poll ──▶ recvmmsg ──▶ judge ──▶ deliver ──┐
//!                        ▲          ▲            under load: pause │
//!                        └─ quiet ──┴──────────────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - Up to [`BATCH`] datagrams are read with one call and judged as one batch.
//! - Under load the next call waits for [`PAUSE`], so that it finds many datagrams instead of one: waking up
//!   for each costs more than judging it. When it is quiet there is no pause.
//! - No UDP datagram is cut: the buffers hold the largest possible one. A longer Unix datagram is cut, and counted as
//!   truncated.
//! - What was read with one call is counted, also if judging it panics.
//! - Kernel drops are read from the socket itself and counted, also when nothing arrives any more and while the queue is
//!   full.
//!
//! Each socket has a thread instead of a task: the runtime's timers are too coarse for such a pause, and a pausing worker
//! would delay other tasks.
//!
//! # Left out
//!
//! Embedded line ends: a datagram is one message, even if it holds several lines.

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
    clock::Clock,
    config::{ListenUrl, ListenerConfig, Oversize},
    core::{identity::Sender, limits::DATAGRAM_OCTETS_MAX, tick::Tick},
    delivery::chunk::Chunk,
    fault,
    logging::PeerReason,
    metrics::{DropReason, FrameErrorReason, ListenerMetrics},
    panics,
    pipeline::Judged,
    sys::socket_drops,
};

/// A datagram socket that is read.
#[derive(Debug)]
pub(super) enum Socket {
    Udp(Arc<UdpSocket>),
    Unix(Arc<UnixDatagram>),
}

/// Reads `socket` until told to stop, and then what the kernel has received by then. EOF on `stopped` wakes it. Blocks
/// its thread, which must have entered a runtime. Earlier kernel drops are counted, unless the socket was `taken_over`
/// from a listener that has counted them.
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
    /// The kernel shortens the address length in here to what it wrote, so it can be used for one family only.
    headers: MultiHeaders<A>,
    sender: fn(A) -> Sender,
    /// One slot for each datagram of a batch. Only the pages that datagrams touch become resident.
    slots: Vec<u8>,
    /// Octets from one slot to the next, and the octets of a slot that are used.
    stride_octets: usize,
    slot_octets: usize,
}

/// The result of one `recvmmsg`.
struct Read {
    judged: Judged,
    datagrams: usize,
    at: Tick,
}

impl<A: SockaddrLike + Copy> Reader<A> {
    fn new(mut local: Local, sender: fn(A) -> Sender, seen: u32) -> Self {
        let config = Arc::clone(&local.config.borrow_and_update());
        let slot_octets = slot_octets(&config);
        // With a power of two, the first octets of all slots would fall into the same few cache sets.
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
            fault::trip("datagram");
            match self.read(socket) {
                Ok(read) => {
                    let (at, datagrams) = (read.at, read.datagrams);
                    self.deliver(read.judged, socket);
                    if self.pace.is_worth_a_pause(datagrams, at) {
                        thread::sleep(PAUSE);
                    }
                    // Less than a full batch means that the kernel had no more: another call would only confirm that.
                    if datagrams == BATCH || self.pace.is_busy {
                        if !self.local.stop.is_cancelled() {
                            continue;
                        }
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // ICMP errors, although this socket never sends, or memory pressure: reading continues.
                Err(error) => {
                    tracing::debug!(listener = self.local.metrics.name(), %error, "receive error");
                }
            }
            if self.wait(socket, stopped) {
                break;
            }
        }
        // Bounded, so that a sender that never pauses cannot delay the stop.
        for _ in 0..LAST_BATCHES {
            fault::trip("datagram");
            if self.local.context.pipeline.is_broken() {
                break;
            }
            match self.read(socket) {
                Ok(read) => self.deliver(read.judged, socket),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.drops.count(socket.as_fd());
    }

    /// Waits until there is something to read, and returns false; or returns true if told to stop. Counts drops
    /// meanwhile.
    fn wait(&mut self, socket: &impl AsFd, stopped: Option<&UnixStream>) -> bool {
        loop {
            let fds = [Some(socket.as_fd()), stopped.map(AsFd::as_fd)];
            let mut events: Vec<_> = fds
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let timeout = PollTimeout::try_from(DROPS_PERIOD).unwrap_or(PollTimeout::MAX);
            // Interrupted or out of memory: poll again.
            let ready = poll(&mut events, timeout).unwrap_or(0);
            let mut happened = events.iter().map(|event| event.any().unwrap_or(false));
            let readable = happened.next() == Some(true);
            // Checks the token, too: the socket pair may not exist.
            if happened.next() == Some(true) || self.local.stop.is_cancelled() {
                return true;
            }
            if ready > 0 && readable {
                return false;
            }
            self.drops.count_if_due(socket.as_fd());
        }
    }

    /// Reads one batch from the kernel and judges it. If that panics, the datagrams that are left are counted as lost, and
    /// the panic continues: the kernel has them no more.
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
        let mut received = received.map(|datagram| Datagram {
            octets: datagram.iovs().next().unwrap_or_default(),
            sender: datagram.address.map(*sender),
            was_cut: datagram.flags.contains(MsgFlags::MSG_TRUNC),
        });
        match panics::catch(|| judge(local, config, &mut received)) {
            Ok(read) => Ok(read),
            Err(panicked) => {
                let left = received.filter_map(Datagram::frame);
                local.context.pipeline.lose(&local.metrics, left);
                panicked.resume()
            }
        }
    }

    /// Hands on a judged batch. While the queue is full nothing is read, so the kernel may drop: drops are counted.
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

/// One datagram of a batch.
struct Datagram<'f> {
    octets: &'f [u8],
    /// `None` if the kernel named no sender that we know.
    sender: Option<Sender>,
    /// It was longer than its slot.
    was_cut: bool,
}

impl<'f> Datagram<'f> {
    /// The frame; `None` if the datagram is empty, or passed over.
    fn frame(self) -> Option<&'f [u8]> {
        let is_frame = self.sender.is_some() && !self.octets.is_empty();
        is_frame.then_some(self.octets)
    }
}

/// Judges what was `received` with one call.
fn judge<'f>(
    local: &Local,
    config: &ListenerConfig,
    received: &mut impl Iterator<Item = Datagram<'f>>,
) -> Read {
    let metrics = &local.context.metrics;
    let mut batch = local.context.pipeline.batch(&local.metrics);
    let at = batch.now();
    let mut datagrams = 0;
    for datagram in received {
        datagrams += 1;
        let Datagram {
            octets,
            sender: Some(sender),
            was_cut,
        } = datagram
        else {
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
        if was_cut {
            metrics.frame_errors[FrameErrorReason::Truncated].inc();
        }
        let head = octets.get(..config.max_message_size).unwrap_or(octets);
        if head.len() < octets.len() {
            local.take_oversize(&mut batch, Long::Counted, head, sender, config);
        } else if was_cut && config.oversize == Oversize::Drop {
            // It is longer than its slot, and so longer than `max_message_size`.
            batch.refuse(head, DropReason::Oversize);
        } else {
            batch.judge(head, sender);
        }
    }
    let judged = batch.finish();
    local.complain_of_compression(&judged.compressed_by);
    Read {
        judged,
        datagrams,
        at,
    }
}

/// How densely datagrams arrive.
#[derive(Debug)]
struct Pace {
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

    /// Whether to pause after a batch of `datagrams`, read at `now`: datagrams arrive densely, and the kernel had no
    /// more.
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

/// Counts what the kernel drops on one socket.
struct Drops {
    metrics: Arc<ListenerMetrics>,
    /// The kernel's count at the last look; it wraps.
    seen: u32,
    /// When to look next.
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

/// The size of a slot: the longest datagram, and one octet more to detect a longer one. UDP carries no longer ones, even
/// if messages may be longer.
fn slot_octets(config: &ListenerConfig) -> usize {
    match config.url {
        ListenUrl::Udp(_) => DATAGRAM_OCTETS_MAX + 1,
        _ => config.max_message_size.max(DATAGRAM_OCTETS_MAX + 1),
    }
}

/// The most memory of one socket: a full batch of the longest datagrams, and the judged messages of it that wait.
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

/// Whether `allow` of the listener contains `sender`; an empty list allows every sender.
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

/// How long a batch fills under load. The kernel adds its timer slack of 50 µs: a first copy waits at most 200 µs.
const PAUSE: Duration = Duration::from_micros(140);

/// A socket is busy if this many datagrams arrive during a pause: then pausing costs less than waking up for each.
const BUSY_DATAGRAMS: u128 = 4;

/// The span over which that is measured.
const PACE_SPAN: Duration = Duration::from_micros(500);

/// The most batches read after the stop: about a full receive buffer of short messages.
const LAST_BATCHES: usize = 1024;

/// How often the kernel is asked what it dropped.
const DROPS_PERIOD: Duration = Duration::from_millis(250);

const CACHE_LINE_OCTETS: usize = 64;
