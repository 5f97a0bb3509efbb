//! RELP: reads and answers connections whose sender keeps each message until it is answered.
//!
//! ```text
//! octets ──▶ frames of one read ──▶ one batch, under one promise ──▶ delivery
//!                                          │
//! answers of one write ◀── in order ◀── [ runs of unanswered transactions ]
//! ```
//!
//! # Guarantees
//!
//! - With `ack = "safe"` a message is answered with 200 only when it is safe: delivered as far as its upstream's protocol
//!   can confirm, or on disk. A suppressed copy is answered no sooner than its first copy is safe (see `custody`). With
//!   `ack = "queued"` a message is answered when it is in the memory queue.
//! - A message that was dropped, or may have been lost, is answered with 500. Messages of one read share one outcome.
//! - Answers leave in the order of the transactions, also while delivery waits for room.
//! - At most `window` transactions of a connection are unanswered; at the limit it is not read. It holds one message and
//!   one turn's octets meanwhile.
//! - A breach of the protocol is logged and counted, and ends the connection: the client sends unanswered messages again.
//! - At a stop nothing more is read. What becomes safe within the grace period is answered, what is cut off is not, and
//!   the client is told that the session closes.
//!
//! # Left out
//!
//! What a frame is, and which may come when (see the core's `relp`).

mod answers;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{select, task::yield_now, time::sleep};

pub(super) use self::answers::OCTETS_MAX as ANSWERS_OCTETS_MAX;
use self::answers::{Answers, Due};
use super::{
    Local,
    complaints::Long,
    hello::{self, Foreign, Hello},
    pending::{PendingInput, turn_for_window},
    stream::{is_transient, within},
};
use crate::{
    clock::Clock,
    config::{Ack, ListenerConfig, time_text},
    core::{
        identity::Sender,
        limits::RELP_DATA_OCTETS,
        relp::{Frame, RelpFault, Request, Server},
    },
    delivery::Delivery,
    logging::{Escaped, PeerReason},
    metrics::FrameErrorReason,
    panics::caught,
    pipeline::{Judged, Pipeline},
    socket::Socket,
};

/// Reads and answers one accepted connection to its end.
pub(super) async fn serve(
    socket: Socket,
    sender: Sender,
    config: Arc<ListenerConfig>,
    local: &Local,
) {
    // Answers are written together already. Waiting to fill a TCP segment would block a client whose window is full.
    if let Err(error) = socket.set_nodelay() {
        tracing::debug!(%error, "cannot set TCP_NODELAY; answers may be late");
    }
    let custody = Arc::clone(&local.context.pipeline.custody);
    let connection = Connection {
        answers: Answers::new(Arc::clone(&local.metrics), custody, local.stop.clone()),
        socket,
        sender,
        config,
        local,
        session: Server::new(),
        pending: PendingInput::default(),
        is_held: false,
        hello: Hello::Undecided,
        is_closed: false,
    };
    connection.serve().await;
}

struct Connection<'l> {
    socket: Socket,
    sender: Sender,
    config: Arc<ListenerConfig>,
    local: &'l Local,
    session: Server,
    pending: PendingInput,
    /// `pending` may hold whole frames, because the window was full.
    is_held: bool,
    /// The protocol of the first octets.
    hello: Hello,
    /// The peer closed its end while the window was full: no client waits for answers, so the rest is read without a
    /// window.
    is_closed: bool,
    answers: Answers,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    /// The peer closed it, or it broke.
    Ended,
    /// The peer sent nothing, or took no answers, for too long.
    TimedOut,
    /// The relay or the listener stops.
    Stopped,
    /// The client asked to close.
    Closed,
    /// The client's offers are not acceptable; it is told.
    Refused,
    /// The client broke the protocol.
    Fault(RelpFault),
}

/// What to do next.
enum Next {
    Read,
    Take,
    Nothing,
}

impl Connection<'_> {
    async fn serve(mut self) {
        let over = loop {
            let over = match self.wait().await {
                Ok(Next::Read) => self.read().await.err(),
                Ok(Next::Take) => self.take().await.err(),
                Ok(Next::Nothing) => continue,
                Err(over) => Some(over),
            };
            match over {
                // A socket that always has more would keep this worker for a hundred turns, and keep out the forwarder,
                // which was just woken on it.
                None => yield_now().await,
                Some(over) => break over,
            }
        };
        self.end(over).await;
    }

    /// Writes due answers until there is something to read and the window has room.
    async fn wait(&mut self) -> Result<Next, Over> {
        let may_read = self.room() > 0;
        if self.is_held && may_read {
            return Ok(Next::Take);
        }
        let patience = self.patience();
        let stall = self.config.partial_frame_timeout;
        select! {
            biased;
            () = self.local.stop.cancelled() => Err(Over::Stopped),
            answered = self.answers.progress(&self.socket, stall) => {
                answered.map(|()| Next::Nothing).map_err(|error| self.broken(&error))
            }
            readable = within(patience, self.socket.readable()), if may_read => match readable {
                Some(Ok(())) => Ok(Next::Read),
                Some(Err(_)) => Err(Over::Ended),
                None => Err(Over::TimedOut),
            },
            () = self.socket.closed_by_peer(), if !may_read => {
                self.is_closed = true;
                Ok(Next::Nothing)
            }
        }
    }

    /// How many transactions the window has room for.
    fn room(&self) -> usize {
        if self.is_closed {
            return usize::MAX;
        }
        self.config.window.saturating_sub(self.answers.unanswered())
    }

    /// How long the client may be silent now.
    fn patience(&self) -> Option<Duration> {
        let is_partial = !self.pending.is_empty() && !self.is_held;
        if is_partial || !self.session.is_open() {
            Some(self.config.partial_frame_timeout)
        } else if self.answers.unanswered() > 0 {
            // The client waits for the relay.
            None
        } else {
            self.config.idle_timeout
        }
    }

    /// Reads one turn's octets and takes the frames that they complete.
    async fn read(&mut self) -> Result<(), Over> {
        let turn = turn_for_window(self.local.connections()).min(self.local.turn());
        match self.pending.read(&self.socket, turn) {
            Ok(0) => Err(Over::Ended),
            Ok(_) if self.is_undecided() => {
                self.pending.consume(0);
                Ok(())
            }
            Ok(_) => self.take().await,
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// Whether more octets are needed to tell which protocol this is.
    fn is_undecided(&mut self) -> bool {
        if self.hello == Hello::Undecided {
            self.hello = hello::on_relp(self.pending.octets());
        }
        self.hello == Hello::Undecided
    }

    /// Judges the whole frames in `pending` that the window has room for, and hands on the survivors.
    async fn take(&mut self) -> Result<(), Over> {
        let local = self.local;
        let pipeline = &local.context.pipeline;
        // Before the first frame is judged: see `custody`.
        let mut promise = pipeline.custody.promise();
        let mut batch = pipeline.batch(&local.metrics);
        let data_octets_max = self.config.max_message_size.max(RELP_DATA_OCTETS);
        let mut room = self.room();
        let (mut at, mut messages, mut opened) = (0, 0, false);
        self.is_held = false;
        let over = loop {
            if room == 0 {
                self.is_held = true;
                break None;
            }
            let input = &self.pending.octets()[at..];
            let (frame, octets) = match Frame::first(input, data_octets_max) {
                Ok(Some(whole)) => whole,
                Ok(None) => break None,
                Err(fault) => break Some(Over::Fault(fault)),
            };
            match self.session.take(frame) {
                Ok(Request::Syslog(data)) => {
                    messages += 1;
                    room -= 1;
                    if data.is_empty() {
                        local.metrics.empty.inc();
                    } else if let Some(head) = data.get(..self.config.max_message_size)
                        && head.len() < data.len()
                    {
                        let config = &self.config;
                        local.take_oversize(&mut batch, Long::Counted, head, self.sender, config);
                    } else {
                        batch.judge(data, self.sender);
                    }
                }
                Ok(Request::Open) => opened = true,
                Ok(Request::Close) => break Some(Over::Closed),
                Ok(Request::Hint) => {}
                Err(RelpFault::Offers(error)) => {
                    self.answers.push(1, Due::Refused(error));
                    break Some(Over::Refused);
                }
                Err(fault) => break Some(Over::Fault(fault)),
            }
            at += octets;
        };
        let judged = batch.finish();
        local.complain_of_compression(&judged.compressed_by);
        pipeline.custody.seal(&mut promise);
        if opened {
            self.answers.push(1, Due::Opened);
        }
        let due = match self.config.ack {
            Ack::Safe => Due::Promised(promise),
            Ack::Queued => Due::Undelivered,
        };
        self.answers.push(messages, due);
        if over == Some(Over::Closed) {
            self.answers.push(1, Due::Closed);
        }
        if let Some(Over::Fault(fault)) = over {
            self.complain_of(fault, at);
        }
        self.pending.consume(at);
        let delivered = self.hand_on(judged, pipeline).await;
        over.map_or(delivered, Err)
    }

    /// Hands on what was `judged`, and writes answers that become due while this waits for room.
    async fn hand_on(&mut self, judged: Judged, pipeline: &Pipeline) -> Result<(), Over> {
        let stall = self.config.partial_frame_timeout;
        let mut delivering = pin!(pipeline.deliver(judged));
        let (mut broken, mut panicked) = (None, None);
        let is_whole = loop {
            let may_answer = broken.is_none() && panicked.is_none();
            select! {
                biased;
                is_whole = &mut delivering => break is_whole,
                answered = caught(self.answers.progress(&self.socket, stall)), if may_answer => {
                    match answered {
                        Ok(answered) => broken = answered.err(),
                        Err(caught) => panicked = Some(caught),
                    }
                }
            }
        };
        // Only now: what was judged is handed on first.
        if let Some(panicked) = panicked {
            panicked.resume();
        }
        self.answers.delivered(is_whole);
        broken.map_or(Ok(()), |error| Err(self.broken(&error)))
    }

    fn broken(&self, error: &std::io::Error) -> Over {
        if error.kind() == std::io::ErrorKind::TimedOut {
            return Over::TimedOut;
        }
        tracing::debug!(peer = %self.sender, %error, "connection broken");
        Over::Ended
    }

    /// Counts and logs that the client broke the protocol `at` octets into `pending`.
    fn complain_of(&self, fault: RelpFault, at: usize) {
        if self.hello == Hello::Foreign(Foreign::Tls) {
            Foreign::turn_away_tls_from_relp(self.local, self.sender);
            return;
        }
        let octets = &self.pending.octets()[at..];
        let (found, advice) = match self.hello {
            Hello::Foreign(foreign) => (foreign.name(), foreign.advice()),
            Hello::Undecided | Hello::Other => {
                ("an unknown protocol", "check what sends to this address")
            }
        };
        let reason = FrameErrorReason::Relp;
        self.local.context.metrics.frame_errors[reason].inc();
        self.complain(PeerReason::Frame(reason), |before| {
            tracing::warn!(listener = self.local.metrics.name(), peer = %self.sender, %fault, found, advice,
                octets = %Escaped::head(octets), before, "not RELP; connection closed");
        });
    }

    fn complain(&self, reason: PeerReason, line: impl FnOnce(u64)) {
        self.local.context.peer_log.note(reason, Clock::now(), line);
    }

    async fn end(mut self, over: Over) {
        match over {
            // RELP would have been recognised by now.
            Over::Ended if self.hello == Hello::Undecided => {
                let first = Frame::first(self.pending.octets(), RELP_DATA_OCTETS);
                if let Err(fault) = first {
                    self.complain_of(fault, 0);
                }
            }
            Over::Ended => {}
            Over::TimedOut => {
                if !self.pending.is_empty() && !self.is_held {
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
            // Writes what is due, and waits for nothing.
            Over::Fault(_) => self.answers.flush(&self.socket),
            Over::Closed | Over::Refused => self.drain().await,
            Over::Stopped => {
                self.drain().await;
                self.answers.leave(&self.socket);
            }
        }
    }

    /// Answers everything that is owed, while the client is connected and the grace period lasts.
    async fn drain(&mut self) {
        let stall = self.config.partial_frame_timeout;
        let mut cut_off = pin!(cut_off(&self.local.context.pipeline.delivery));
        while self.answers.is_owing() {
            select! {
                biased;
                answered = self.answers.progress(&self.socket, stall) => if answered.is_err() {
                    return;
                },
                () = self.socket.closed_by_peer() => return,
                () = &mut cut_off => return,
            }
        }
    }
}

/// Waits until the grace period has passed, and until the messages that it cut off are settled.
async fn cut_off(delivery: &Delivery) {
    while !delivery.is_closed() {
        sleep(CUT_OFF_POLL).await;
    }
    sleep(CUT_OFF_SETTLED).await;
}

/// How often a draining connection checks whether the grace period has passed.
const CUT_OFF_POLL: Duration = Duration::from_millis(100);

/// How long messages that were cut off may take to be on disk or counted as lost.
const CUT_OFF_SETTLED: Duration = Duration::from_millis(500);
