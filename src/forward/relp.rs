//! RELP to an upstream: the one protocol whose peer answers each message.
//!
//! What happens to a frame:
//!
//! ```text
//! take ──▶ [ not numbered ] ──window has room──▶ [ unanswered, up to WINDOW ] ─answer, in order─▶ 200: forwarded, safe
//!               chunks                                chunks, wire, input                         other: dropped
//! ```
//!
//! What happens to a session:
//!
//! ```text
//!                200 to `open`                  all answered, then `close`
//!   Opening ───────────────────▶ Open ──────────────────────────────────────▶ ended, nothing is left
//!      │                          │
//!      │                          │ the server announces its close
//!      │                          ▼
//!      │                       Leaving: numbers and writes nothing, takes answers
//!      │                          │
//!      │ other answer, or leaving │ all that was written whole is answered
//!      ▼                          ▼
//!     lost ◀───────────────────────── from any state: closed, broken, invalid RELP, no answer for `send_timeout`
//! ```
//!
//! `progress` and `finish` return the error when a session is lost. A session without unanswered frames may stay silent
//! as long as it likes.
//!
//! The connection makes the calls: [`Relp::open`] once; then, in any order, [`Relp::take`] while [`Relp::is_ready`],
//! and [`Relp::progress`]. [`Relp::act_on_answers`] follows each `progress` that returned `Ok`. If `progress` was
//! dropped before its end, the next one returns the answers. The last call is [`Relp::finish`], which acts on answers
//! itself. Once a call has failed, or `finish` was dropped, the connection calls `act_on_answers` and then
//! [`Relp::take_back`]: answers may have come before the failure, and their frames must not be sent again.
//!
//! # Guarantees
//!
//! - A frame is counted as forwarded when it is answered with 200. Its chunk is kept until its last frame is answered.
//! - When the session is lost, all frames that are not answered go back to the source, in order, each whole. The
//!   answered frames of their chunks do not.
//! - A frame that gets any other answer was refused by the upstream: it is dropped with that reason, and its window is
//!   reopened.
//! - A server that answers nothing for `send_timeout`, or violates the protocol, is given up. Only an answer counts;
//!   hints, and the first octets of an answer, do not.
//! - After a server has announced its close, nothing is written to it, not even the rest of a frame that was begun.
//! - A server that never stops sending hints costs a fixed share of a core, and no memory.
//!
//! # Left out
//!
//! Which upstream, and when to try again (see `lane`). The longest message that the server takes: RELP has no way to
//! ask.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    time::Duration,
};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tracing::{debug, error};

use super::{
    account::Account,
    dial::{Patience, connect_tcp},
    error::{Step, UpstreamError},
    evidence::Proof,
};
use crate::{
    clock::Clock,
    core::{
        relp::{Answer, Client, Frame, Heard},
        tick::Tick,
    },
    delivery::chunk::Chunk,
    metrics::DropReason,
    socket::Socket,
};

/// A session with an upstream.
#[derive(Debug)]
pub(super) struct Relp {
    socket: Socket,
    client: Client,
    /// The server agreed to the session.
    is_open: bool,
    /// A server that answers nothing for so long is given up.
    stall: Duration,
    /// What the server sent and is not framed yet.
    input: Vec<u8>,
    /// What is numbered and not written, behind what was written and is not cleared yet.
    wire: Vec<u8>,
    /// Octets of `wire` that were written.
    written: usize,
    /// Where each message in `wire` ends that is not written whole.
    ends: VecDeque<usize>,
    /// What was taken and is not answered, numbered or not. Oldest first. Answered frames have left them; none is
    /// empty.
    chunks: VecDeque<Chunk>,
    /// Memory that `chunks` take.
    held_octets: usize,
    /// The first chunk that is not numbered to its end, and how many of its entries are numbered.
    unnumbered: (usize, usize),
    /// Answers that were not acted upon, and how many of each came in a row.
    answered: VecDeque<(Answer, usize)>,
    /// A frame was answered.
    has_answered: bool,
    /// When the server answered last, or, if all was answered, when it was sent the first frame since.
    since: Tick,
    /// What reading cost since the last answer, or since the last pause: octets, and at least [`READ_COST`] for each
    /// read.
    idle_talk: usize,
    /// The server announced that it is closing.
    is_leaving: bool,
    /// When a refusal was logged last, and how many frames were refused since.
    refused: (Option<Tick>, u64),
    /// Frames numbered and octets written that are not in the upstream's metrics yet.
    uncounted: (u64, u64),
}

impl Relp {
    /// Connects, opens a session, and waits until the server has agreed to it.
    ///
    /// # Errors
    ///
    /// There is no connection, or its peer does not speak RELP, or refuses the session, or takes no messages, or does
    /// not answer for `stall`, or `patience` has ended.
    pub(super) async fn open(
        host: &str,
        port: u16,
        stall: Duration,
        patience: Patience,
    ) -> Result<Self, UpstreamError> {
        let stream = connect_tcp(host, port, stall, patience).await?;
        let socket = Socket::Tcp(stream);
        socket.set_keepalive().map_err(UpstreamError::Open)?;
        let mut session = Self {
            socket,
            client: Client::new(),
            is_open: false,
            stall,
            input: Vec::new(),
            wire: Vec::new(),
            written: 0,
            ends: VecDeque::new(),
            chunks: VecDeque::new(),
            held_octets: 0,
            unnumbered: (0, 0),
            answered: VecDeque::new(),
            has_answered: false,
            since: Clock::now(),
            idle_talk: 0,
            is_leaving: false,
            refused: (None, 0),
            uncounted: (0, 0),
        };
        session.client.open(&mut session.wire);
        let step = Step::Session(format!("{host}:{port}"));
        patience.take(step, session.wait_open()).await?;
        Ok(session)
    }

    /// Waits until the server has agreed to the session.
    async fn wait_open(&mut self) -> Result<(), UpstreamError> {
        while !self.is_open {
            self.hear()?;
            if self.is_leaving {
                return Err(UpstreamError::Leaving);
            }
            self.write()?;
            if !self.is_open {
                self.wait().await?;
            }
        }
        Ok(())
    }

    /// Whether it takes more chunks: all that it has are numbered, the window has room, its chunks take less than
    /// [`HELD_OCTETS`], less than [`WIRE_OCTETS`] wait to be written, and the server has not announced its close.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_leaving
            && self.unnumbered.0 == self.chunks.len()
            && self.client.unanswered() < WINDOW
            && self.held_octets < HELD_OCTETS
            && self.wire.len() - self.written < WIRE_OCTETS
    }

    /// Memory of the chunks that are not answered.
    pub(super) const fn held_octets(&self) -> usize {
        self.held_octets
    }

    /// Takes chunks, which [`Relp::progress`] sends.
    pub(super) fn take(&mut self, batch: Vec<Chunk>) {
        let batch = batch.into_iter().filter(|chunk| !chunk.is_empty());
        for chunk in batch {
            self.held_octets += chunk.footprint();
            self.chunks.push_back(chunk);
        }
    }

    /// Sends and receives until something was answered, or until it is ready and was not at the call. If it is ready
    /// and nothing is unanswered, it waits until the session is lost. [`Relp::act_on_answers`] has to follow.
    ///
    /// # Errors
    ///
    /// The session is lost. Answers that came before are remembered: act on them before [`Relp::take_back`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: what was sent and received is remembered.
    pub(super) async fn progress(&mut self) -> Result<(), UpstreamError> {
        let was_ready = self.is_ready();
        loop {
            self.hear()?;
            self.number();
            if let Err(error) = self.write() {
                // What the server answered before it broke the connection counts.
                let heard = self.hear();
                if self.answered.is_empty() {
                    return heard.and(Err(error));
                }
            }
            if !self.answered.is_empty() || (!was_ready && self.is_ready()) {
                return Ok(());
            }
            if self.is_leaving && self.client.unanswered() as usize <= self.ends.len() {
                return Err(UpstreamError::Leaving);
            }
            self.wait().await?;
        }
    }

    /// Waits until there is something to read or room to write.
    async fn wait(&mut self) -> Result<(), UpstreamError> {
        let is_waiting = self.client.unanswered() > 0;
        let left = self.stall.saturating_sub(Clock::now().since(self.since));
        if is_waiting && left.is_zero() {
            // Checked here because the socket of a server that never stops sending is always readable.
            return Err(UpstreamError::Unanswered(self.stall));
        }
        let is_flooding = self.idle_talk >= IDLE_TALK_MAX;
        select! {
            readable = self.socket.readable(), if !is_flooding => {
                readable.map_err(UpstreamError::Broken)
            }
            () = sleep(FLOOD_PAUSE), if is_flooding => {
                self.idle_talk = 0;
                Ok(())
            }
            writable = self.socket.writable(), if self.has_to_write() => {
                writable.map_err(UpstreamError::Broken)
            }
            () = sleep(left), if is_waiting => Err(UpstreamError::Unanswered(self.stall)),
        }
    }

    /// Reads what has arrived.
    fn hear(&mut self) -> Result<(), UpstreamError> {
        for _ in 0..READS_MAX {
            if self.idle_talk >= IDLE_TALK_MAX {
                break;
            }
            self.input.reserve(READ_OCTETS);
            let error = match self.socket.try_read(&mut self.input) {
                Ok(0) => UpstreamError::Closed,
                Ok(octets) => {
                    self.idle_talk += octets.max(READ_COST);
                    self.take_answers()?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => UpstreamError::broken(error, self.stall),
            };
            // The answers come first; the next call returns the error again.
            if self.answered.is_empty() {
                return Err(error);
            }
            break;
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(())
    }

    fn take_answers(&mut self) -> Result<(), UpstreamError> {
        let mut at = 0;
        let mut is_answer = false;
        while let Some((frame, octets)) = Frame::first(&self.input[at..], ANSWER_OCTETS_MAX)? {
            match self.client.take(frame)? {
                Heard::Opened => {
                    self.is_open = true;
                    is_answer = true;
                }
                Heard::Answered(answer) => {
                    match self.answered.back_mut() {
                        Some((last, count)) if *last == answer => *count += 1,
                        _ => self.answered.push_back((answer, 1)),
                    }
                    is_answer = true;
                }
                Heard::ServerClose => self.is_leaving = true,
                Heard::Hint => {}
            }
            at += octets;
        }
        self.input.drain(..at);
        if is_answer {
            self.since = Clock::now();
            self.idle_talk = 0;
        }
        Ok(())
    }

    /// Numbers frames and puts them on the wire while the window has room.
    fn number(&mut self) {
        if self.is_leaving || !self.is_open {
            return;
        }
        if self.client.unanswered() == 0 {
            self.since = Clock::now();
        }
        while let Some(chunk) = self.chunks.get(self.unnumbered.0) {
            for (frame, _, _) in chunk.entries_from(self.unnumbered.1) {
                let is_full = self.client.unanswered() >= WINDOW
                    || self.wire.len() - self.written >= WIRE_OCTETS;
                if is_full {
                    return;
                }
                self.client.syslog(frame, &mut self.wire);
                self.ends.push_back(self.wire.len());
                self.unnumbered.1 += 1;
                self.uncounted.0 += 1;
            }
            self.unnumbered = (self.unnumbered.0 + 1, 0);
        }
    }

    /// Whether something is left to write. A server that is leaving gets nothing more.
    fn has_to_write(&self) -> bool {
        self.written < self.wire.len() && !self.is_leaving
    }

    /// Writes what the socket has room for.
    fn write(&mut self) -> Result<(), UpstreamError> {
        if self.is_leaving {
            return Ok(());
        }
        while self.has_to_write() {
            let rest = IoSlice::new(&self.wire[self.written..]);
            match self.socket.try_write_vectored(&[rest]) {
                Ok(octets) => {
                    self.written += octets;
                    self.uncounted.1 += octets as u64;
                    while self.ends.front().is_some_and(|end| *end <= self.written) {
                        self.ends.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.written >= WIRE_OCTETS {
                        self.wire.drain(..self.written);
                        for end in &mut self.ends {
                            *end -= self.written;
                        }
                        self.written = 0;
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UpstreamError::broken(error, self.stall)),
            }
        }
        self.wire.clear();
        self.written = 0;
        Ok(())
    }

    /// Counts what was sent, and does what the answers say: counts frames as forwarded or dropped.
    pub(super) fn act_on_answers(&mut self, account: &Account<'_>) {
        let metrics = &account.upstream.metrics;
        metrics.frames.add(self.uncounted.0);
        metrics.octets.add(self.uncounted.1);
        self.uncounted = (0, 0);
        while let Some((answer, mut left)) = self.answered.pop_front() {
            self.has_answered = true;
            while left > 0 {
                let chunk = self.chunks.front_mut();
                let chunk = chunk.expect("only what was sent is answered");
                let count = match answer {
                    Answer::Ok => {
                        let count = chunk.len().min(left);
                        account.shared.ledger.forwarded(chunk, count);
                        chunk.advance(count);
                        count
                    }
                    Answer::Refused(code) => {
                        // What is split off may take the chunk's memory along.
                        let before = chunk.footprint();
                        let lost = chunk.split_first();
                        self.held_octets = self.held_octets - before + chunk.footprint();
                        account.dropped(&lost, DropReason::Refused);
                        self.log_refusal(code, account);
                        1
                    }
                };
                self.took_off(count);
                left -= count;
            }
        }
    }

    fn log_refusal(&mut self, code: u16, account: &Account<'_>) {
        let now = Clock::now();
        let (told, frames) = &mut self.refused;
        *frames += 1;
        if told.is_none_or(|told| now.since(told) >= TELL_PERIOD) {
            let frames = std::mem::take(frames);
            *told = Some(now);
            error!(upstream = %account.upstream.config.url, code, frames, "the upstream refuses messages; they are dropped");
        }
    }

    /// Accounts for `count` answered entries, which were taken off the front of the first chunk.
    fn took_off(&mut self, count: usize) {
        let (chunks, entries) = &mut self.unnumbered;
        if *chunks == 0 {
            let left = entries.checked_sub(count);
            *entries = left.expect("only numbered frames are answered");
        }
        if self.chunks.front().is_some_and(Chunk::is_empty)
            && let Some(answered) = self.chunks.pop_front()
        {
            self.held_octets -= answered.footprint();
            let left = chunks.checked_sub(1);
            *chunks = left.expect("a chunk whose last frame is answered is numbered to its end");
        }
    }

    /// Takes back all frames that are not answered, numbered or not. Also returns how many of them were written whole:
    /// these may have arrived.
    pub(super) fn take_back(&mut self) -> (VecDeque<Chunk>, usize) {
        let (chunks, entries) = self.unnumbered;
        self.held_octets = 0;
        let whole: usize = self.chunks.iter().take(chunks).map(Chunk::len).sum();
        // A server can answer a message that is not written yet.
        let written = (whole + entries).saturating_sub(self.ends.len());
        (std::mem::take(&mut self.chunks), written)
    }

    /// Proved once a frame was answered, and the connection lived for some time.
    pub(super) const fn proof(&self) -> Proof {
        Proof::Answer {
            is_seen: self.has_answered,
        }
    }

    /// Ends the session in order: sends the frames that are left, acts on the answers to all frames, and then waits up
    /// to `close_max` for the answer to `close`.
    ///
    /// # Errors
    ///
    /// The session is lost, made no progress for `patience`, or the stop is over. `send_timeout` holds besides
    /// `patience`.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: what was sent and received is remembered. [`Relp::act_on_answers`] and
    /// [`Relp::take_back`] have to follow.
    pub(super) async fn finish(
        &mut self,
        patience: Duration,
        close_max: Duration,
        account: &Account<'_>,
    ) -> Result<(), UpstreamError> {
        while !self.chunks.is_empty() {
            select! {
                biased;
                () = account.shared.stop.over() => return Err(UpstreamError::CutOff),
                progress = self.progress() => progress?,
                () = sleep(patience) => return Err(UpstreamError::NotEnded(patience)),
            }
            self.act_on_answers(account);
        }
        self.close(close_max).await;
        Ok(())
    }

    /// Closes a session in which everything is answered, unless the server does that. Waits up to `limit` for the answer;
    /// a missing one does no harm.
    async fn close(&mut self, limit: Duration) {
        if self.is_leaving {
            return;
        }
        self.client.close(&mut self.wire);
        // All before was answered, maybe long ago.
        self.since = Clock::now();
        let closed = async {
            loop {
                self.hear()?;
                if self.client.unanswered() == 0 || self.is_leaving {
                    return Ok::<_, UpstreamError>(());
                }
                self.write()?;
                self.wait().await?;
            }
        };
        if !matches!(timeout(limit, closed).await, Ok(Ok(()))) {
            debug!("the server did not answer the close of the session");
        }
    }
}

/// Transactions that may be unanswered. If a server takes fewer at a time, they wait in the connection; a larger window
/// gains nothing.
const WINDOW: u32 = 4096;

/// Memory that unanswered messages may take before no further batch is taken: the window alone does not limit it.
pub(super) const HELD_OCTETS: usize = 8 * 1024 * 1024;

/// Octets that may be on the wire and not written before numbering pauses.
pub(super) const WIRE_OCTETS: usize = 128 * 1024;

/// Octets read at a time, and how many reads in a row: answers are short.
const READ_OCTETS: usize = 16 * 1024;
const READS_MAX: usize = 16;

/// How much a server may send without an answer before reading pauses, the least that a read counts as, and the pause.
const IDLE_TALK_MAX: usize = 256 * 1024;
const READ_COST: usize = 1024;
const FLOOD_PAUSE: Duration = Duration::from_millis(20);

/// Octets that an answer may have: offers, and a text for people.
const ANSWER_OCTETS_MAX: usize = 64 * 1024;

/// How often it is logged at most that the upstream refuses messages.
const TELL_PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
