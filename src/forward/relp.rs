//! RELP to an upstream: the one protocol that tells what the other end has taken for good.
//!
//! ```text
//! chunks ──number──▶ [ unanswered, up to WINDOW ] ──▶ wire
//!    200: forwarded, and safe ◀── in order ──┘
//!    500: dropped
//! ```
//!
//! # Guarantees
//!
//! - A frame is counted as forwarded when it is answered with 200, and its chunk is kept until its last frame is.
//! - What is unanswered when the connection is lost goes back to the source, in order, whole.
//! - A frame that is answered with anything else is the upstream's to refuse: it is dropped with that reason, and
//!   its window reopened.
//! - A server that answers nothing for `send_timeout`, or breaks the protocol, is given up. Only an answer counts:
//!   hints, and the octets of an answer that is not whole, do not. One that says that it leaves gets nothing more.
//! - A server that never stops sending hints costs a fixed share of a core, and no memory.
//!
//! # Left out
//!
//! Which upstream, and when to try again (see `lane`). How long a message the server takes: RELP has no way to ask.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    time::Duration,
};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tracing::error;

use super::{
    ForwardEnded,
    dial::{Patience, Step, connect_tcp},
    error::UpstreamError,
    lane::Lane,
    upstream::Connection,
};
use crate::{
    chunk::Chunk,
    clock::Clock,
    metrics::DropReason,
    relp::{Answer, Client, Frame, Heard},
    socket::Socket,
    tick::Tick,
};

/// A session with an upstream.
#[derive(Debug)]
pub(super) struct Relp {
    socket: Socket,
    client: Client,
    is_open: bool,
    /// An unanswered server is given up after so long.
    stall: Duration,
    /// What the server said and is not framed yet.
    input: Vec<u8>,
    /// What is numbered and not written.
    wire: Vec<u8>,
    /// Octets of `wire` that were written.
    written: usize,
    /// Oldest first; what was answered has left them.
    chunks: VecDeque<Chunk>,
    /// Memory that they take.
    held_octets: usize,
    /// The first chunk that is not numbered to its end, and how many of its entries are.
    unnumbered: (usize, usize),
    /// Answers that were not acted upon, and how many of each there are in a row.
    answered: VecDeque<(Answer, usize)>,
    /// When the server answered last, or was asked first.
    since: Tick,
    /// What it cost to read what the server said since it answered, or since it was not read for a while: octets,
    /// and no fewer than [`READ_COST`] each time.
    idle_talk: usize,
    /// The server said that it is about to close.
    is_leaving: bool,
    /// When it was logged last that it refuses, and how many it refused since.
    refused: (Option<Tick>, u64),
    /// Frames numbered and octets written that were not counted.
    uncounted: (u64, u64),
}

impl Relp {
    /// Connects and opens a session.
    ///
    /// # Errors
    ///
    /// There is no connection, or nobody who speaks RELP and takes messages.
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
            chunks: VecDeque::new(),
            held_octets: 0,
            unnumbered: (0, 0),
            answered: VecDeque::new(),
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
            self.write()?;
            if !self.is_open {
                self.wait().await?;
            }
        }
        Ok(())
    }

    /// Whether more chunks may be given to it: all that it has are numbered, and the window has room.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_leaving
            && self.unnumbered.0 == self.chunks.len()
            && self.client.unanswered() < WINDOW
            && self.held_octets < HELD_OCTETS
            && self.wire.len() - self.written < WIRE_OCTETS
    }

    /// Memory of what is not answered.
    pub(super) const fn held_octets(&self) -> usize {
        self.held_octets
    }

    /// Takes chunks to send; [`Relp::progress`] sends them.
    pub(super) fn take(&mut self, batch: Vec<Chunk>) {
        let batch = batch.into_iter().filter(|chunk| !chunk.is_empty());
        for chunk in batch {
            self.held_octets += chunk.footprint();
            self.chunks.push_back(chunk);
        }
    }

    /// Sends and listens until something was answered, or more may be given to it.
    ///
    /// # Errors
    ///
    /// The session is over.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: what was sent and heard is remembered.
    pub(super) async fn progress(&mut self) -> Result<(), UpstreamError> {
        let was_ready = self.is_ready();
        loop {
            self.hear()?;
            self.number();
            if let Err(error) = self.write() {
                // What it answered before it broke the connection counts.
                let heard = self.hear();
                if self.answered.is_empty() {
                    return heard.and(Err(error));
                }
            }
            if !self.answered.is_empty() || (!was_ready && self.is_ready()) {
                return Ok(());
            }
            if self.is_leaving && self.client.unanswered() == 0 {
                return Err(UpstreamError::Leaving);
            }
            self.wait().await?;
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) -> Result<(), UpstreamError> {
        let is_waiting = self.client.unanswered() > 0;
        let left = self.stall.saturating_sub(Clock::now().since(self.since));
        if is_waiting && left.is_zero() {
            // A server that always has something to read does not get around this.
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
            writable = self.socket.writable(), if self.written < self.wire.len() => {
                writable.map_err(UpstreamError::Broken)
            }
            () = sleep(left), if is_waiting => Err(UpstreamError::Unanswered(self.stall)),
        }
    }

    /// Reads what the server said by now.
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
                Err(error) => UpstreamError::Broken(error),
            };
            // First what was answered; the next call says it again.
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
        loop {
            let input = self.input.get(at..).unwrap_or_default();
            let Some((frame, octets)) = Frame::first(input, ANSWER_OCTETS_MAX)? else {
                break;
            };
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

    /// Puts what the window has room for on the wire.
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
                self.unnumbered.1 += 1;
                self.uncounted.0 += 1;
            }
            self.unnumbered = (self.unnumbered.0 + 1, 0);
        }
    }

    /// Writes what the socket has room for.
    fn write(&mut self) -> Result<(), UpstreamError> {
        while let Some(rest) = self
            .wire
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match self.socket.try_write_vectored(&[IoSlice::new(rest)]) {
                Ok(octets) => {
                    self.written += octets;
                    self.uncounted.1 += octets as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.written >= WIRE_OCTETS {
                        self.wire.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UpstreamError::Broken(error)),
            }
        }
        self.wire.clear();
        self.written = 0;
        Ok(())
    }

    /// The next `count` frames were answered: their chunk, and how many of them are in it. The caller takes them
    /// off its front and says so ([`Relp::took_off`]).
    fn oldest(&mut self, count: usize) -> Option<(&mut Chunk, usize)> {
        let chunk = self.chunks.front_mut()?;
        let count = chunk.len().min(count);
        Some((chunk, count))
    }

    /// `count` entries were taken off the front.
    fn took_off(&mut self, count: usize) {
        let (chunks, entries) = &mut self.unnumbered;
        if *chunks == 0 {
            *entries = entries.saturating_sub(count);
        }
        if self.chunks.front().is_some_and(Chunk::is_empty) {
            let answered = self.chunks.pop_front();
            self.held_octets -= answered.map_or(0, |chunk| chunk.footprint());
            *chunks = chunks.saturating_sub(1);
        }
    }

    /// What is not answered, and how much of it may have arrived.
    pub(super) fn take_back(&mut self) -> (VecDeque<Chunk>, usize) {
        let (chunks, entries) = self.unnumbered;
        self.held_octets = 0;
        let whole: usize = self.chunks.iter().take(chunks).map(Chunk::len).sum();
        (std::mem::take(&mut self.chunks), whole + entries)
    }

    /// Ends a session in which everything is answered; waits for the last answer, which nobody needs, `limit` long.
    async fn close(&mut self, limit: Duration) {
        self.client.close(&mut self.wire);
        let closed = async {
            while self.client.unanswered() > 0 {
                self.hear()?;
                self.write()?;
                self.wait().await?;
            }
            Ok::<_, UpstreamError>(())
        };
        if !matches!(timeout(limit, closed).await, Ok(Ok(()))) {
            tracing::debug!("the server did not answer that it heard us close");
        }
    }
}

impl Lane {
    /// Does what the upstream's answers say, and counts what was sent.
    pub(super) fn act_on_answers(&mut self) {
        let Some(active) = &mut self.active else {
            return;
        };
        let Connection::Relp(relp) = &mut active.connection else {
            return;
        };
        let upstream = &self.upstreams[active.index];
        upstream.metrics.frames.add(relp.uncounted.0);
        upstream.metrics.octets.add(relp.uncounted.1);
        relp.uncounted = (0, 0);
        if relp.answered.is_empty() {
            return;
        }
        while let Some((answer, count)) = relp.answered.pop_front() {
            let mut left = count;
            while let Some((chunk, count)) = relp.oldest(left).filter(|(_, count)| *count > 0) {
                let count = match answer {
                    Answer::Ok => {
                        self.shared.ledger.forwarded(chunk, count);
                        chunk.advance(count);
                        count
                    }
                    Answer::Refused(code) => {
                        let lost = chunk.split_first();
                        let reason = DropReason::Refused;
                        if let Some(summaries) = self.shared.ledger.dropped(&lost, reason) {
                            self.shared.source.add(summaries);
                        }
                        relp.refused.1 += 1;
                        let now = Clock::now();
                        if relp
                            .refused
                            .0
                            .is_none_or(|told| now.since(told) >= TELL_PERIOD)
                        {
                            let (_, frames) = std::mem::replace(&mut relp.refused, (Some(now), 0));
                            error!(upstream = %upstream.config.url, code, frames, "the upstream refuses messages; they are dropped");
                        }
                        1
                    }
                };
                relp.took_off(count);
                left -= count;
            }
        }
        active.was_answered();
    }

    /// Ends a RELP session in order: waits for the answers that are owed.
    pub(super) async fn leave_relp(&mut self, close_max: Duration) -> Result<(), ForwardEnded> {
        let is_last = self.shared.source.is_closed();
        while let Some(active) = &mut self.active
            && let Connection::Relp(relp) = &mut active.connection
        {
            if relp.chunks.is_empty() {
                relp.close(close_max).await;
                return Ok(());
            }
            // Where others take over, nobody waits long for a server that says nothing.
            let patience = if is_last { Duration::MAX } else { close_max };
            let progress = select! {
                biased;
                () = self.shared.stop.over() => Err(UpstreamError::CutOff),
                progress = relp.progress() => progress,
                () = sleep(patience) => Err(UpstreamError::NotEnded(patience)),
            };
            match progress {
                Ok(()) => self.act_on_answers(),
                Err(error) => return self.lost(Vec::new(), 0, error).await,
            }
        }
        Ok(())
    }
}

/// Transactions that may be unanswered. A server that takes fewer at a time lets them wait in the connection;
/// more than this brings nothing.
const WINDOW: u32 = 4096;

/// Memory of messages that may be unanswered, and a batch more: the window alone does not bound it.
pub(super) const HELD_OCTETS: usize = 8 * 1024 * 1024;

/// Octets on the wire that are not written, before more is numbered.
pub(super) const WIRE_OCTETS: usize = 128 * 1024;

/// Octets read at a time, and how many times in a row: answers are short.
const READ_OCTETS: usize = 16 * 1024;
const READS_MAX: usize = 16;

/// How much a server may say without an answer before it is not read for a while, and how long that is.
const IDLE_TALK_MAX: usize = 256 * 1024;
const READ_COST: usize = 1024;
const FLOOD_PAUSE: Duration = Duration::from_millis(20);

/// Octets that an answer may have: offers, and a text for people.
const ANSWER_OCTETS_MAX: usize = 64 * 1024;

/// How often it is logged that the upstream refuses, at most.
const TELL_PERIOD: Duration = Duration::from_secs(10);
