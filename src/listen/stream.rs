//! Streams, TCP and Unix: connections are accepted, read and framed.
//!
//! # Guarantees
//!
//! - Connections are capped, all together and per source address; one too many is closed at once, and
//!   the others never notice.
//! - A connection's octets are read in turns of at most [`READ_OCTETS`], so a fast one does not
//!   starve the rest.
//! - A connection holds at most `max_message_size` and one turn's octets; an idle one holds none.
//! - When survivors cannot be handed on, nothing more is read: the sender's TCP feels it.
//! - A connection that leaves a frame unfinished, or says nothing for `idle_timeout`, is closed; an
//!   unfinished line is forwarded, an unfinished counted frame is dropped (RFC 6587 has no way to tell
//!   the sender).
//!
//! # Left out
//!
//! TLS. A TLS client on a plain listener is recognised by its first octets and turned away.

use std::{
    cell::Cell,
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::BufMut as _;
use tokio::{
    net::{TcpListener, UnixListener},
    select,
    sync::OwnedSemaphorePermit,
    task::yield_now,
    time::{sleep, timeout},
};

use super::{Local, datagram::allowed};
use crate::{
    clock::Clock,
    config::{ListenerConfig, Oversize},
    frame::{End, FrameFault, Framer, Outcome, Step},
    identity::Sender,
    logging::{Escaped, PeerReason},
    metrics::{DropReason, FrameErrorReason, ListenerMetrics, RejectReason},
    pipeline::Batch,
    socket::Socket,
    sys,
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
        Connection::new(socket, sender, config, &local)
            .serve()
            .await;
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

/// One accepted connection.
struct Connection<'l> {
    socket: Socket,
    sender: Sender,
    config: Arc<ListenerConfig>,
    local: &'l Local,
    framer: Framer,
    /// Received and not framed yet. Empty, and without memory, between frames.
    pending: Vec<u8>,
    /// The first octets were looked at, and it is no TLS client.
    is_plain: bool,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    /// The peer closed it, or it broke; what was received counts.
    Ended,
    /// Nothing came for too long.
    TimedOut,
    /// We stop.
    Stopped,
    /// It makes no sense to go on: nothing of what is left is forwarded.
    Hopeless,
}

impl<'l> Connection<'l> {
    fn new(socket: Socket, sender: Sender, config: Arc<ListenerConfig>, local: &'l Local) -> Self {
        let framer = Framer::new(config.framing, config.max_message_size);
        Self {
            socket,
            sender,
            config,
            local,
            framer,
            pending: Vec::new(),
            is_plain: false,
        }
    }

    async fn serve(mut self) {
        let over = loop {
            let over = match self.wait().await {
                Ok(()) => self.read().await.err(),
                Err(over) => Some(over),
            };
            match over {
                // A socket that always has more would keep this worker for a hundred turns, and the
                // forwarder, which was just woken on it, out.
                None => yield_now().await,
                Some(Over::Stopped) => break self.read_last().await,
                Some(over) => break over,
            }
        };
        self.end(over).await;
    }

    /// Waits until there is something to read, as long as the connection may be silent.
    async fn wait(&self) -> Result<(), Over> {
        let patience = if self.is_partial() {
            Some(self.config.partial_frame_timeout)
        } else {
            self.config.idle_timeout
        };
        select! {
            biased;
            () = self.local.stop.cancelled() => Err(Over::Stopped),
            readable = within(patience, self.socket.readable()) => match readable {
                Some(Ok(())) => Ok(()),
                Some(Err(_)) => Err(Over::Ended),
                None => Err(Over::TimedOut),
            },
        }
    }

    /// A frame was begun and is not finished.
    fn is_partial(&self) -> bool {
        !self.pending.is_empty() || !self.framer.between_frames()
    }

    /// Reads one turn's octets, judges what they complete, and hands on the survivors. Gives how many
    /// octets there were.
    async fn read(&mut self) -> Result<usize, Over> {
        self.make_room();
        let mut turn = (&mut self.pending).limit(READ_OCTETS);
        let octets = match self.socket.try_read(&mut turn) {
            Ok(0) => return Err(Over::Ended),
            Ok(octets) => octets,
            Err(error) if is_transient(&error) => {
                self.settle(0);
                return Ok(0);
            }
            Err(error) => {
                tracing::debug!(peer = %self.sender, %error, "connection broken");
                return Err(Over::Ended);
            }
        };
        if !self.is_plain {
            match self.is_tls_client() {
                Some(true) => return Err(Over::Hopeless),
                // The framer would consume what the decision needs.
                None => {
                    self.settle(0);
                    return Ok(octets);
                }
                Some(false) => self.is_plain = true,
            }
        }
        let mut batch = self.local.context.pipeline.batch(&self.local.metrics);
        let mut at = 0;
        let over = loop {
            let input = self.pending.get(at..).unwrap_or_default();
            let step = self.framer.next(input);
            at += step.consumed;
            match step.outcome {
                Outcome::More => break None,
                Outcome::Hopeless => break Some(Over::Hopeless),
                _ => self.account(&mut batch, step, input),
            }
        };
        let judged = batch.finish();
        self.settle(at);
        self.local.context.pipeline.deliver(judged).await;
        over.map_or(Ok(octets), Err)
    }

    /// Makes room for one turn's octets. Between turns the room lies with the worker: it stays warm,
    /// and a connection that waits has none.
    fn make_room(&mut self) {
        if self.pending.len() > COPIED_OCTETS_MAX {
            // A long message on its way; copying what there is of it at each turn would add up.
            self.pending.reserve(READ_OCTETS);
            return;
        }
        let mut room = ROOM.take();
        room.reserve(self.pending.len() + READ_OCTETS);
        room.extend_from_slice(&self.pending);
        self.pending = room;
    }

    /// Lets go of the first `framed` octets received, and of memory that the rest does not need.
    fn settle(&mut self, framed: usize) {
        let rest = self.pending.get(framed..).unwrap_or_default();
        if rest.len() > COPIED_OCTETS_MAX {
            self.pending.drain(..framed);
            return;
        }
        let rest = rest.to_vec();
        let mut room = std::mem::replace(&mut self.pending, rest);
        if room.capacity() <= 2 * READ_OCTETS {
            room.clear();
            ROOM.set(room);
        }
    }

    /// We stop: reads what the kernel has by now, and not what a sender that never pauses adds to it;
    /// nothing more once the time to drain is over.
    async fn read_last(&mut self) -> Over {
        let mut left = sys::unread_octets(self.socket.as_fd()).unwrap_or(0);
        while left > 0 && !self.local.context.pipeline.delivery.is_closed() {
            // The runtime may not have heard of the last octets yet; the kernel has them.
            let readable = timeout(LAST_OCTETS_MAX, self.socket.readable()).await;
            if !matches!(readable, Ok(Ok(()))) {
                break;
            }
            match self.read().await {
                Ok(octets) => left = left.saturating_sub(octets),
                Err(over) => return over,
            }
        }
        Over::Stopped
    }

    /// Counts one step of the framer, and judges its frame.
    fn account<'f>(&self, batch: &mut Batch<'_, 'f>, step: Step<'f>, input: &[u8]) {
        let metrics = &self.local.context.metrics;
        match step.outcome {
            Outcome::Frame(frame) if frame.oversize => {
                metrics.frame_errors[FrameErrorReason::Oversize].inc();
                match self.config.oversize {
                    Oversize::Truncate => batch.judge(frame.octets, self.sender),
                    Oversize::Drop => batch.refuse(frame.octets, DropReason::Oversize),
                }
            }
            Outcome::Frame(frame) => batch.judge(frame.octets, self.sender),
            Outcome::Empty => self.local.metrics.empty.inc(),
            Outcome::Fault(fault) => {
                let reason = match fault {
                    FrameFault::CountTooLarge => FrameErrorReason::CountTooLarge,
                    FrameFault::Incomplete => FrameErrorReason::Incomplete,
                    FrameFault::BadFrame => FrameErrorReason::BadFrame,
                };
                metrics.frame_errors[reason].inc();
                let octets = input.get(..step.consumed).unwrap_or(input);
                self.complain(PeerReason::Frame(reason), |before| {
                    tracing::warn!(listener = self.local.metrics.name(), peer = %self.sender,
                        %fault, octets = %Escaped::head(octets), before, "bad framing");
                });
            }
            Outcome::More | Outcome::Hopeless => {}
        }
    }

    /// Whether these are the first octets of a TLS handshake record (RFC 8446 5.1): type 22, version
    /// 3.x. No syslog message starts like that. `None` while that takes more octets.
    fn is_tls_client(&self) -> Option<bool> {
        match self.pending.as_slice() {
            [0x16] | [0x16, 0x03] => None,
            [0x16, 0x03, 0..=4, ..] => {
                let reason = RejectReason::TlsOnPlaintext;
                self.local.context.metrics.connections_rejected[reason].inc();
                self.complain(PeerReason::Reject(reason), |before| {
                    tracing::warn!(listener = self.local.metrics.name(), peer = %self.sender, before,
                        "a TLS client on a listener without TLS; let it send plain TCP");
                });
                Some(true)
            }
            _ => Some(false),
        }
    }

    fn complain(&self, reason: PeerReason, line: impl FnOnce(u64)) {
        self.local.context.peer_log.note(reason, Clock::now(), line);
    }

    /// The connection is over: what is left of a line is a message, what is left of a counted frame
    /// is not.
    async fn end(mut self, over: Over) {
        match over {
            Over::Hopeless => return,
            Over::TimedOut => {
                if self.is_partial() {
                    let reason = FrameErrorReason::Timeout;
                    self.local.context.metrics.frame_errors[reason].inc();
                    self.complain(PeerReason::Frame(reason), |before| {
                        tracing::warn!(listener = self.local.metrics.name(), peer = %self.sender,
                            octets = %Escaped::head(&self.pending), before, "unfinished frame");
                    });
                }
                tracing::debug!(peer = %self.sender, "connection timed out");
            }
            Over::Ended | Over::Stopped => {}
        }
        let mut batch = self.local.context.pipeline.batch(&self.local.metrics);
        let mut at = 0;
        loop {
            let input = self.pending.get(at..).unwrap_or_default();
            let step = self.framer.finish(input, End::Closed);
            at += step.consumed;
            match step.outcome {
                Outcome::More | Outcome::Hopeless => break,
                // Counted as a time-out already: one fault, one reason.
                Outcome::Fault(FrameFault::Incomplete) if over == Over::TimedOut => {}
                _ => self.account(&mut batch, step, input),
            }
        }
        let judged = batch.finish();
        self.local.context.pipeline.deliver(judged).await;
    }
}

/// Nothing to read now; try again later.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// `future`, as long as `patience` lasts.
async fn within<F: Future>(patience: Option<Duration>, future: F) -> Option<F::Output> {
    match patience {
        Some(patience) => timeout(patience, future).await.ok(),
        None => Some(future.await),
    }
}

thread_local! {
    /// What a worker reads into, between two turns.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Octets read in one turn.
const READ_OCTETS: usize = 128 * 1024;

/// The most that is copied from one turn to the next; what is left of a longer message stays where it is.
const COPIED_OCTETS_MAX: usize = 32 * 1024;

/// How long the runtime may take to hear of octets that the kernel has.
const LAST_OCTETS_MAX: Duration = Duration::from_millis(100);

/// Time for descriptors to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
