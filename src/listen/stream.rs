//! Streams of syslog frames, TCP and Unix: reads and frames one connection.
//!
//! # Guarantees
//!
//! - A connection's octets are read in turns of at most [`READ_OCTETS`](super::pending::READ_OCTETS), so a fast one does not
//!   starve the rest.
//! - A connection holds at most `max_message_size` and one turn's octets, which are fewer while the queue is full;
//!   an idle one holds none.
//! - While survivors cannot be handed on, nothing more is read: TCP slows the sender down.
//! - A connection that leaves a frame unfinished for `partial_frame_timeout`, or is silent for `idle_timeout`, is
//!   closed. An unfinished line is forwarded; an unfinished counted frame is dropped (RFC 6587 has no way to tell the
//!   sender).
//!
//! # Left out
//!
//! TLS and RELP. Their clients are recognised by their first octets and rejected (`hello`).

use std::{io, os::fd::AsFd as _, sync::Arc, time::Duration};

use tokio::{select, task::yield_now, time::timeout};

use super::{
    Local,
    complaints::Long,
    hello::{self, Hello},
    pending::PendingInput,
};
use crate::{
    clock::Clock,
    config::{FRAMING, ListenerConfig, time_text},
    core::{
        frame::{End, FrameFault, Framer, Outcome, Step},
        identity::Sender,
    },
    logging::{Escaped, PeerReason},
    metrics::FrameErrorReason,
    pipeline::Batch,
    socket::Socket,
    sys,
};

/// Reads one accepted connection to its end.
pub(super) async fn serve(
    socket: Socket,
    sender: Sender,
    config: Arc<ListenerConfig>,
    local: &Local,
) {
    Connection::new(socket, sender, config, local).serve().await;
}

struct Connection<'l> {
    socket: Socket,
    sender: Sender,
    config: Arc<ListenerConfig>,
    local: &'l Local,
    framer: Framer,
    /// Received and not framed yet. Empty, and without memory, between frames.
    pending: PendingInput,
    /// The first octets are no other protocol's.
    is_plain: bool,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    /// The peer closed it, or it broke. What was received counts.
    Ended,
    /// The peer was silent for too long.
    TimedOut,
    /// The relay or the listener stops.
    Stopped,
    /// The stream cannot be framed any further: the rest of it is not forwarded.
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
            pending: PendingInput::default(),
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
                // A socket that always has more would keep this worker for a hundred turns, and keep out the forwarder,
                // which was just woken on it.
                None => yield_now().await,
                Some(Over::Stopped) => break self.read_last().await,
                Some(over) => break over,
            }
        };
        if !self.local.context.pipeline.is_broken() {
            self.end(over).await;
        }
    }

    /// Waits until there is something to read, for as long as the peer may be silent.
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

    /// Whether a frame has begun and is not finished.
    fn is_partial(&self) -> bool {
        !self.pending.is_empty() || !self.framer.between_frames()
    }

    /// Reads one turn's octets, judges the frames that they complete, and hands on the survivors. Returns how many
    /// octets it read.
    async fn read(&mut self) -> Result<usize, Over> {
        let octets = match self.pending.read(&self.socket, self.local.turn()) {
            Ok(0) => return Err(Over::Ended),
            Ok(octets) => octets,
            Err(error) if is_transient(&error) => return Ok(0),
            Err(error) => {
                tracing::debug!(peer = %self.sender, %error, "connection broken");
                return Err(Over::Ended);
            }
        };
        if !self.is_plain {
            match hello::of(self.pending.octets()) {
                Hello::Foreign(foreign) => {
                    foreign.turn_away(self.local, self.sender);
                    return Err(Over::Hopeless);
                }
                // The framer must not consume octets that the decision still needs.
                Hello::Undecided => {
                    self.pending.consume(0);
                    return Ok(octets);
                }
                Hello::Other => self.is_plain = true,
            }
        }
        let mut batch = self.local.context.pipeline.batch(&self.local.metrics);
        let mut at = 0;
        let over = loop {
            let input = &self.pending.octets()[at..];
            let step = self.framer.next(input);
            at += step.consumed;
            match step.outcome {
                Outcome::More => break None,
                Outcome::Hopeless => break Some(Over::Hopeless),
                _ => self.account(&mut batch, step, input),
            }
        };
        let judged = batch.finish();
        self.pending.consume(at);
        self.local.complain_of_compression(&judged.compressed_by);
        self.local.context.pipeline.deliver(judged).await;
        over.map_or(Ok(octets), Err)
    }

    /// Reads what the kernel has received when the stop begins, and nothing that the sender adds later. Ends early when
    /// the grace period expires.
    async fn read_last(&mut self) -> Over {
        let mut left = sys::readable_octets(self.socket.as_fd()).unwrap_or(0);
        while left > 0 && self.local.may_read_last() {
            // The runtime may not know of the last octets yet; the kernel has them.
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
                let long = if self.framer.skips_by_count() {
                    Long::Counted
                } else {
                    Long::Line
                };
                let (octets, config) = (frame.octets, &self.config);
                self.local
                    .take_oversize(batch, long, octets, self.sender, config);
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
                // A fault that consumes nothing: the next steps frame these octets as text.
                let octets = match step.consumed {
                    0 => line(input),
                    consumed => &input[..consumed],
                };
                self.complain(PeerReason::Frame(reason), |before| {
                    tracing::warn!(listener = self.local.metrics.name(), peer = %self.sender,
                        %fault, framing = FRAMING.word(self.config.framing), advice = advice(fault),
                        octets = %Escaped::head(octets), before,
                        "bad framing");
                });
            }
            Outcome::More | Outcome::Hopeless => {}
        }
    }

    fn complain(&self, reason: PeerReason, line: impl FnOnce(u64)) {
        self.local.context.peer_log.note(reason, Clock::now(), line);
    }

    /// Ends the connection. The rest of a line is a message; the rest of a counted frame is not.
    async fn end(mut self, over: Over) {
        match over {
            Over::Hopeless => return,
            Over::TimedOut => {
                if self.is_partial() {
                    let reason = FrameErrorReason::Timeout;
                    self.local.context.metrics.frame_errors[reason].inc();
                    self.complain(PeerReason::Frame(reason), |before| {
                        tracing::warn!(listener = self.local.metrics.name(), peer = %self.sender,
                            partial_frame_timeout = time_text(self.config.partial_frame_timeout),
                            advice = "check whether the sender hangs; if it only pauses, raise partial_frame_timeout",
                            octets = %Escaped::head(self.pending.octets()), before, "unfinished frame");
                    });
                }
                tracing::debug!(peer = %self.sender, "connection timed out");
            }
            Over::Ended | Over::Stopped => {}
        }
        let mut batch = self.local.context.pipeline.batch(&self.local.metrics);
        let mut at = 0;
        loop {
            let input = &self.pending.octets()[at..];
            let step = self.framer.finish(input, End::Closed);
            at += step.consumed;
            match step.outcome {
                Outcome::More | Outcome::Hopeless => break,
                // Already counted as a time-out: each fault has one reason.
                Outcome::Fault(FrameFault::Incomplete) if over == Over::TimedOut => {}
                _ => self.account(&mut batch, step, input),
            }
        }
        let judged = batch.finish();
        self.local.complain_of_compression(&judged.compressed_by);
        self.local.context.pipeline.deliver(judged).await;
    }
}

/// The first line of `input`, or all of it.
fn line(input: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'\n', 0, input).unwrap_or(input.len());
    &input[..end]
}

/// What an operator can do about a peer's `fault`.
const fn advice(fault: FrameFault) -> &'static str {
    match fault {
        FrameFault::CountTooLarge => {
            "check what the sender counts: the number before its message is not a length"
        }
        FrameFault::Incomplete => {
            "check whether the sender was stopped, or counts more octets than it sends (characters, or a line end)"
        }
        FrameFault::BadFrame => {
            "make the sender count octets, or set framing = \"auto\" for this listener"
        }
    }
}

/// Whether the next attempt to read or write may succeed.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Awaits `future`; returns `None` when `patience` runs out first.
pub(super) async fn within<F: Future>(patience: Option<Duration>, future: F) -> Option<F::Output> {
    match patience {
        Some(patience) => timeout(patience, future).await.ok(),
        None => Some(future.await),
    }
}

/// How long the runtime may take to notice octets that the kernel has.
const LAST_OCTETS_MAX: Duration = Duration::from_millis(100);
