//! What a RELP client is still owed: runs of unanswered transactions, and when each of them is due.
//!
//! # Guarantees
//!
//! - Answers leave in the order of the transactions, many with one write.
//! - What waits costs nothing for each transaction: answers are written out when they are due and the client takes
//!   them, at most [`WIRE_OCTETS`] at a time.
//! - What a stop cuts off is not answered at all, so that the client sends it again.
//! - Each answer is counted, and the transactions that wait for one are, too, until the connection is gone.
//!
//! # Left out
//!
//! Which transactions there may be.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    custody::{Custody, Outcome, Promise},
    metrics::{AnswerResult, ListenerMetrics},
    relp::{Response, Server, Txnr, offers::OfferError},
    socket::Socket,
    tick::Tick,
};

/// What a client is owed. See the module page.
#[derive(Debug)]
pub(super) struct Answers {
    metrics: Arc<ListenerMetrics>,
    custody: Arc<Custody>,
    /// In the order of their transactions. None is empty.
    runs: VecDeque<Run>,
    /// Transactions of `runs`, which are those that the gauge counts.
    unanswered: usize,
    /// The first of them.
    oldest: Txnr,
    /// Answers on their way.
    wire: Vec<u8>,
    /// Octets of `wire` that were taken.
    written: usize,
    /// Since when the client takes nothing.
    blocked: Option<Tick>,
    /// There while a run waits for custody.
    settled: Option<watch::Receiver<u64>>,
    /// We stop: from then on what was lost is not answered, and whoever comes after us gets it again.
    stop: CancellationToken,
}

/// Transactions that are answered alike.
#[derive(Debug)]
struct Run {
    count: u32,
    due: Due,
}

/// When a run is due, and what is answered.
#[derive(Debug)]
pub(super) enum Due {
    /// The session is open.
    Opened,
    /// It cannot be opened.
    Refused(OfferError),
    /// It is over.
    Closed,
    /// Messages, due when this ends.
    Promised(Promise),
    /// Messages, due when they were handed on.
    Undelivered,
    /// Messages, due with this code.
    Told(u16),
}

impl Answers {
    pub(super) fn new(
        metrics: Arc<ListenerMetrics>,
        custody: Arc<Custody>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            metrics,
            custody,
            runs: VecDeque::new(),
            unanswered: 0,
            oldest: Txnr::FIRST,
            wire: Vec::new(),
            written: 0,
            blocked: None,
            settled: None,
            stop,
        }
    }

    /// The next `count` transactions.
    pub(super) fn push(&mut self, count: u32, due: Due) {
        if count == 0 {
            return;
        }
        if matches!(due, Due::Promised(_)) && self.settled.is_none() {
            self.settled = Some(self.custody.subscribe());
        }
        self.metrics.unanswered.add(u64::from(count));
        self.unanswered += count as usize;
        self.runs.push_back(Run { count, due });
    }

    /// What was undelivered is in the queue, all of it or not.
    pub(super) fn delivered(&mut self, is_whole: bool) {
        let code = if is_whole { Response::OK } else { LOST };
        for run in &mut self.runs {
            if matches!(run.due, Due::Undelivered) {
                run.due = Due::Told(code);
            }
        }
    }

    /// Transactions without an answer on its way.
    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether something has not been answered, or not been taken.
    pub(super) const fn is_owing(&self) -> bool {
        self.unanswered > 0 || self.written < self.wire.len()
    }

    /// Waits until answers are due, and writes them.
    ///
    /// # Errors
    ///
    /// The connection broke; `TimedOut` if the client took nothing for as long as `stall`.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: what was written is known, and the rest is still there.
    pub(super) async fn progress(&mut self, socket: &Socket, stall: Duration) -> io::Result<()> {
        loop {
            self.collect();
            if self.written < self.wire.len() {
                if self.write(socket)? {
                    return Ok(());
                }
                let blocked = *self.blocked.get_or_insert_with(Clock::now);
                let left = stall.saturating_sub(Clock::now().since(blocked));
                match timeout(left, socket.writable()).await {
                    Ok(writable) => writable?,
                    Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                }
                continue;
            }
            match &mut self.settled {
                // It ends with the relay.
                Some(settled) => settled
                    .changed()
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?,
                None => std::future::pending().await,
            }
        }
    }

    /// Writes what is due, as far as the client takes it at once.
    pub(super) fn flush(&mut self, socket: &Socket) {
        self.collect();
        while self.written < self.wire.len() && matches!(self.write(socket), Ok(true)) {
            self.collect();
        }
    }

    /// Tells the client that we leave, if nothing stands before it.
    pub(super) fn leave(&mut self, socket: &Socket) {
        if self.wire.is_empty() {
            Server::leave(&mut self.wire);
            if let Err(error) = self.write(socket) {
                tracing::debug!(%error, "the client did not hear that we leave");
            }
        }
    }

    /// Writes once; true if all that was to be written was taken.
    fn write(&mut self, socket: &Socket) -> io::Result<bool> {
        let rest = self.wire.get(self.written..).unwrap_or_default();
        match socket.try_write_vectored(&[IoSlice::new(rest)]) {
            Ok(octets) => {
                self.written += octets;
                self.blocked = None;
            }
            Err(error) if super::is_transient(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.written < self.wire.len() {
            return Ok(false);
        }
        self.written = 0;
        self.wire.clear();
        if self.runs.is_empty() {
            // A connection that waits holds nothing.
            self.wire = Vec::new();
            self.runs = VecDeque::new();
        }
        Ok(true)
    }

    /// Puts what is due on the wire.
    fn collect(&mut self) {
        let (mut ok, mut refused) = (0, 0);
        while self.wire.len() < WIRE_OCTETS
            && let Some(run) = self.runs.front_mut()
        {
            let code = match run.due {
                Due::Opened => {
                    Server::accept(&mut self.wire);
                    None
                }
                Due::Refused(error) => {
                    Server::refuse(error, &mut self.wire);
                    None
                }
                Due::Closed => {
                    Server::goodbye(self.oldest, &mut self.wire);
                    None
                }
                Due::Told(code) => Some(code),
                Due::Undelivered => break,
                Due::Promised(promise) => match self.custody.outcome(&promise) {
                    None => break,
                    Some(Outcome::Safe) => Some(Response::OK),
                    Some(Outcome::Lost) => Some(LOST),
                },
            };
            let count = match code {
                Some(LOST) if self.stop.is_cancelled() => {
                    self.runs.clear();
                    self.metrics.unanswered.sub(self.unanswered as u64);
                    self.unanswered = 0;
                    break;
                }
                None => run.count,
                Some(code) => {
                    let count = run.count.min(ANSWERS_AT_ONCE);
                    for index in 0..count {
                        Server::answer(self.oldest.plus(index), code, &mut self.wire);
                    }
                    if code == Response::OK {
                        ok += u64::from(count);
                    } else {
                        refused += u64::from(count);
                    }
                    if count < run.count {
                        // The outcome stays as it is.
                        run.due = Due::Told(code);
                    }
                    count
                }
            };
            self.oldest = self.oldest.plus(count);
            self.unanswered -= count as usize;
            self.metrics.unanswered.sub(u64::from(count));
            run.count -= count;
            if run.count == 0 {
                self.runs.pop_front();
            }
        }
        for (result, count) in [(AnswerResult::Ok, ok), (AnswerResult::Refused, refused)] {
            if count > 0 {
                self.metrics.answers[result].add(count);
            }
        }
        if self.runs.is_empty() {
            self.settled = None;
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.metrics.unanswered.sub(self.unanswered as u64);
    }
}

/// The code of a message that was lost, or may have been.
const LOST: u16 = 500;

/// Octets of answers that are written out at a time.
const WIRE_OCTETS: usize = 32 * 1024;

/// Answers of one run that are written out before the bound is looked at again.
const ANSWERS_AT_ONCE: u32 = 1024;
