//! Datagrams, UDP and Unix: one datagram, one message (RFC 5426 3.1).
//!
//! # Guarantees
//!
//! - Up to [`BATCH`] datagrams are read with one call and judged as one batch.
//! - No UDP datagram is cut: the buffers hold the largest there is. A longer Unix datagram is cut, and
//!   counted as truncated.
//! - What the kernel dropped is read from the socket itself and counted, also when nothing arrives any
//!   more and while nothing can be handed on.
//!
//! # Left out
//!
//! Embedded line ends: a datagram is one message even if it holds several lines.

use std::{
    cell::RefCell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use tokio::{
    io::Interest,
    net::{UdpSocket, UnixDatagram},
    select,
    task::yield_now,
    time::interval,
};

use super::Local;
use crate::{
    chunk::Chunk,
    config::{ListenerConfig, Oversize},
    identity::Sender,
    limits::DATAGRAM_OCTETS_MAX,
    logging::PeerReason,
    metrics::{DropReason, FrameErrorReason, ListenerMetrics, Metrics},
    pipeline::Batch,
    sys::socket_drops,
};

/// A datagram socket that is read.
#[derive(Debug)]
pub(super) enum Socket {
    UdpV4(UdpSocket),
    UdpV6(UdpSocket),
    Unix(UnixDatagram),
}

/// Reads `socket` until told to stop, and then what the kernel has received by then.
pub(super) async fn serve(socket: Socket, local: Local) {
    let mut drops = Drops {
        metrics: Arc::clone(&local.metrics),
        seen: 0,
    };
    let context = local.context.clone();
    let mut reader = Reader::new(local);
    let mut drops_due = interval(DROPS_PERIOD);
    let mut in_a_row = 0;
    loop {
        let stopping = select! {
            biased;
            () = reader.local.stop.cancelled() => true,
            // Before reading, or a flood would keep its own drops from being counted.
            _ = drops_due.tick() => {
                drops.count(&socket);
                continue;
            }
            readable = socket.readable() => readable.is_err(),
        };
        // Bounded on stop, too: a sender that never pauses does not keep us from ending.
        for _ in 0..if stopping { LAST_BATCHES } else { 1 } {
            let mut received = None;
            let mut read = || {
                let (chunk, is_drained) = reader.read(&socket)?;
                received = Some(chunk);
                // Says that nothing is left, which spares a call that would only find that out.
                if is_drained {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            };
            // On stop the socket itself is asked: the runtime may not have heard of the last ones.
            let read = if stopping {
                read()
            } else {
                socket.try_io(read)
            };
            match (received, read) {
                (Some(chunk), _) if chunk.is_empty() => {
                    // Repeats alone wake nobody, but others want this worker as well.
                    in_a_row += 1;
                    if in_a_row == BATCHES_IN_A_ROW {
                        yield_now().await;
                        in_a_row = 0;
                    }
                }
                (Some(chunk), _) => {
                    // While the queue is full nothing is read, and that is when the kernel drops.
                    let mut delivery = pin!(context.pipeline.delivery.deliver(chunk));
                    loop {
                        select! {
                            biased;
                            () = &mut delivery => break,
                            _ = drops_due.tick() => drops.count(&socket),
                        }
                    }
                    // The forwarder was woken on this worker, and goes first.
                    yield_now().await;
                }
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                (None, Err(error)) => {
                    // ICMP errors of what we never send, or memory pressure: nothing to do but go on.
                    tracing::debug!(listener = reader.local.metrics.name(), %error, "receive error");
                    break;
                }
                (None, Ok(())) => {}
            }
        }
        if stopping {
            drops.count(&socket);
            return;
        }
    }
}

/// Reads one socket, batch by batch.
struct Reader {
    local: Local,
    config: Arc<ListenerConfig>,
    /// One slot for each datagram of a batch. Only the pages that datagrams touch become resident.
    slots: Vec<u8>,
    slot_octets: usize,
}

impl Reader {
    fn new(mut local: Local) -> Self {
        let config = Arc::clone(&local.config.borrow_and_update());
        let slot_octets = config.max_message_size.max(DATAGRAM_OCTETS_MAX + 1);
        Self {
            local,
            config,
            slots: vec![0; slot_octets * BATCH],
            slot_octets,
        }
    }

    /// One call to the kernel: what it had is judged; its survivors are to be delivered. Also says whether
    /// that was all it had.
    fn read(&mut self, socket: &Socket) -> io::Result<(Chunk, bool)> {
        if self.local.config.has_changed().unwrap_or(false) {
            self.config = Arc::clone(&self.local.config.borrow_and_update());
        }
        match socket {
            // The kernel shortens the address length in the headers to what it wrote, so headers are
            // kept apart by family.
            Socket::UdpV4(udp) => {
                HEADERS_V4.with_borrow_mut(|headers| self.read_with(udp, headers, sender_at))
            }
            Socket::UdpV6(udp) => {
                HEADERS_V6.with_borrow_mut(|headers| self.read_with(udp, headers, sender_at))
            }
            Socket::Unix(unix) => HEADERS_UNIX
                .with_borrow_mut(|headers| self.read_with(unix, headers, |()| Sender::Local)),
        }
    }

    fn read_with<A: nix::sys::socket::SockaddrLike + Copy>(
        &mut self,
        socket: &impl AsFd,
        headers: &mut MultiHeaders<A>,
        sender: impl Fn(A) -> Sender,
    ) -> io::Result<(Chunk, bool)> {
        let Self {
            local,
            config,
            slots,
            slot_octets,
            ..
        } = self;
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = slots
            .chunks_exact_mut(*slot_octets)
            .map(|slot| [IoSliceMut::new(slot)])
            .collect();
        let fd = socket.as_fd().as_raw_fd();
        let received = recvmmsg(fd, headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
        let metrics = &local.context.metrics;
        let mut batch = local.context.pipeline.batch(&local.metrics);
        let mut count = 0;
        for datagram in received {
            count += 1;
            let octets = datagram.iovs().next().unwrap_or_default();
            let Some(sender) = datagram.address.map(&sender) else {
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
                        tracing::warn!(listener = local.metrics.name(), peer = %sender, before,
                        "datagram refused: not in allow");
                    });
                continue;
            }
            let cut = datagram.flags.contains(MsgFlags::MSG_TRUNC);
            if cut {
                metrics.frame_errors[FrameErrorReason::Truncated].inc();
            }
            judge(&mut batch, octets, cut, sender, config, metrics);
        }
        Ok((batch.finish(), count < BATCH))
    }
}

/// What the kernel dropped on one socket.
struct Drops {
    metrics: Arc<ListenerMetrics>,
    /// The kernel's count when it was last looked at; it wraps.
    seen: u32,
}

impl Drops {
    fn count(&mut self, socket: &Socket) {
        if let Ok(drops) = socket_drops(socket.as_fd()) {
            let more = drops.wrapping_sub(self.seen);
            self.metrics.kernel_dropped.add(u64::from(more));
            self.seen = drops;
        }
    }
}

/// Judges one datagram. If it was `cut`, there was more of it, beyond a slot and so beyond
/// `max_message_size` as well.
fn judge<'f>(
    batch: &mut Batch<'_, 'f>,
    octets: &'f [u8],
    cut: bool,
    sender: Sender,
    config: &ListenerConfig,
    metrics: &Metrics,
) {
    let head = octets.get(..config.max_message_size).unwrap_or(octets);
    if head.len() < octets.len() {
        metrics.frame_errors[FrameErrorReason::Oversize].inc();
    }
    if config.oversize == Oversize::Drop && (cut || head.len() < octets.len()) {
        batch.refuse(head, DropReason::Oversize);
    } else {
        batch.judge(head, sender);
    }
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

impl Socket {
    /// The UDP socket, by its family.
    pub(super) fn udp(socket: UdpSocket) -> Self {
        match socket.local_addr() {
            Ok(SocketAddr::V6(_)) => Self::UdpV6(socket),
            Ok(SocketAddr::V4(_)) | Err(_) => Self::UdpV4(socket),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::UdpV4(socket) | Self::UdpV6(socket) => socket.readable().await,
            Self::Unix(socket) => socket.readable().await,
        }
    }

    fn try_io<R>(&self, read: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::UdpV4(socket) | Self::UdpV6(socket) => socket.try_io(Interest::READABLE, read),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, read),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::UdpV4(socket) | Self::UdpV6(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

thread_local! {
    // Headers hold pointers and cannot move between threads; each worker has its own.
    static HEADERS_V4: RefCell<MultiHeaders<SockaddrStorage>> = headers();
    static HEADERS_V6: RefCell<MultiHeaders<SockaddrStorage>> = headers();
    static HEADERS_UNIX: RefCell<MultiHeaders<()>> = headers();
}

fn headers<A: nix::sys::socket::SockaddrLike + Copy>() -> RefCell<MultiHeaders<A>> {
    RefCell::new(MultiHeaders::preallocate(BATCH, None))
}

/// Datagrams read with one call.
const BATCH: usize = 64;

/// Batches without a survivor before others have their turn: some hundred microseconds.
const BATCHES_IN_A_ROW: u32 = 8;

/// Batches read after the stop: more than a full receive buffer of short messages is not waited for.
const LAST_BATCHES: usize = 1024;

/// How often the kernel is asked what it dropped.
const DROPS_PERIOD: Duration = Duration::from_millis(250);
