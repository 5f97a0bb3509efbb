//! The answers that a RELP client still waits for: runs of unanswered transactions, and when each is due.
//!
//! # Guarantees
//!
//! - Answers leave in the order of the transactions, many with one write.
//! - A waiting transaction needs no memory of its own: answers are written out when they are due and the client takes
//!   them, about [`WIRE_OCTETS`] at a time. Beyond [`RUNS_MAX`] runs, messages of later reads share the outcome of those
//!   before them. So a connection takes at most [`OCTETS_MAX`].
//! - Messages that a stop cuts off are not answered at all, so that the client sends them again.
//! - Each answer is counted. Transactions that wait for an answer are counted until the connection is gone.
//!
//! # Left out
//!
//! Which transactions a client may begin (`relp`).

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
    core::{
        relp::{Response, Server, Txnr, offers::OfferError},
        tick::Tick,
    },
    delivery::custody::{Custody, Outcome, Promise},
    metrics::{AnswerResult, ListenerMetrics},
    socket::Socket,
};

/// The answers owed to one client. See the module page.
#[derive(Debug)]
pub(super) struct Answers {
    metrics: Arc<ListenerMetrics>,
    custody: Arc<Custody>,
    /// In the order of their transactions. No run is empty.
    runs: VecDeque<Run>,
    /// The transactions in `runs`; the gauge counts the same number.
    unanswered: usize,
    /// The first unanswered transaction.
    oldest: Txnr,
    wire: Vec<u8>,
    /// Octets of `wire` that the kernel took.
    written: usize,
    /// Since when the client takes nothing.
    blocked: Option<Tick>,
    /// Set while a run waits for custody.
    settled: Option<watch::Receiver<u64>>,
    /// Cancelled at a stop: from then on lost messages are not answered, so that the client sends them to the next relay.
    stop: CancellationToken,
}

/// Consecutive transactions that get the same answer.
#[derive(Debug)]
struct Run {
    count: u32,
    due: Due,
}

/// When a run is due, and what its answer is.
#[derive(Debug)]
pub(super) enum Due {
    /// Now: the session is open.
    Opened,
    /// Now: the session cannot be opened.
    Refused(OfferError),
    /// Now: the session has ended.
    Closed,
    /// Messages: due when the promise ends.
    Promised(Promise),
    /// Messages: due when they were handed on.
    Undelivered,
    /// Messages: due now, with this code.
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

    /// Appends the next `count` transactions.
    pub(super) fn push(&mut self, count: u32, due: Due) {
        if count == 0 {
            return;
        }
        if matches!(due, Due::Promised(_)) && self.settled.is_none() {
            self.settled = Some(self.custody.subscribe());
        }
        self.metrics.unanswered.add(u64::from(count));
        self.unanswered += count as usize;
        if self.runs.len() >= RUNS_MAX
            && let Some(last) = self.runs.back_mut()
            && let (Due::Promised(promise), Due::Promised(later)) = (&mut last.due, &due)
        {
            promise.and(*later);
            last.count += count;
            return;
        }
        self.runs.push_back(Run { count, due });
    }

    /// The undelivered messages were handed on: all of them are in the queue, or some were dropped.
    pub(super) fn delivered(&mut self, is_whole: bool) {
        let code = if is_whole { Response::OK } else { LOST };
        for run in &mut self.runs {
            if matches!(run.due, Due::Undelivered) {
                run.due = Due::Told(code);
            }
        }
        // Merges the last two runs if they are alike: a client that takes no answers would pile them up.
        let Some(last) = self.runs.pop_back() else {
            return;
        };
        match (self.runs.back_mut(), &last.due) {
            (Some(before), Due::Told(later)) if matches!(before.due, Due::Told(code) if code == *later) =>
            {
                before.count += last.count;
            }
            _ => self.runs.push_back(last),
        }
    }

    /// The number of transactions without an answer on the wire.
    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether an answer is due later, or not written yet.
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
    /// Can be dropped at any point: what was written is recorded, and the rest is kept.
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
                // The sender lives as long as the relay.
                Some(settled) => settled
                    .changed()
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?,
                None => std::future::pending().await,
            }
        }
    }

    /// Writes the due answers that the client takes at once.
    pub(super) fn flush(&mut self, socket: &Socket) {
        self.collect();
        while self.written < self.wire.len() && matches!(self.write(socket), Ok(true)) {
            self.collect();
        }
    }

    /// Tells the client that the relay closes the session, if no answer waits before it.
    pub(super) fn leave(&mut self, socket: &Socket) {
        if self.wire.is_empty() {
            Server::leave(&mut self.wire);
            if let Err(error) = self.write(socket) {
                tracing::debug!(%error, "cannot tell the client that the session closes");
            }
        }
    }

    /// Writes once; returns whether everything on the wire was taken.
    fn write(&mut self, socket: &Socket) -> io::Result<bool> {
        let rest = &self.wire[self.written..];
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
        // A waiting connection keeps little memory, and none if no answer is owed.
        self.wire.shrink_to(WIRE_OCTETS_KEPT);
        if self.runs.is_empty() {
            self.wire = Vec::new();
            self.runs = VecDeque::new();
        }
        Ok(true)
    }

    /// Puts the due answers on the wire.
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
                        // The outcome is final: the rest of the run gets the same code.
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

/// The code for a message that was lost, or may have been.
const LOST: u16 = 500;

/// Octets of answers written at a time: some hundred answers, which share the cost of the call.
const WIRE_OCTETS: usize = 8 * 1024;

/// The capacity that is kept between two writes.
const WIRE_OCTETS_KEPT: usize = 1024;

/// Answers of one run that are put on the wire before [`WIRE_OCTETS`] is checked again.
const ANSWERS_AT_ONCE: u32 = 256;

/// Runs that may wait before later ones are merged: a client that sends message by message, each in a read of its own,
/// gets this many separate outcomes.
const RUNS_MAX: usize = 128;

/// The most memory that a client's answers take. Vectors grow by doubling.
pub(in crate::listen) const OCTETS_MAX: usize = 2 * WIRE_OCTETS + 2 * RUNS_MAX * size_of::<Run>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn runs_that_wait_are_bounded_and_none_is_answered_early() {
        let custody = Custody::new();
        let metrics = Metrics::new().listener("relp", "relp://127.0.0.1:1");
        let stop = CancellationToken::new();
        let mut answers = Answers::new(metrics, Arc::clone(&custody), stop);
        let mut open = Vec::new();
        for _ in 0..3 * RUNS_MAX {
            let mut promise = custody.promise();
            open.push(custody.open());
            custody.seal(&mut promise);
            answers.push(2, Due::Promised(promise));
        }
        assert_eq!(answers.runs.len(), RUNS_MAX);
        assert_eq!(answers.unanswered(), 6 * RUNS_MAX);
        let last = open.pop();
        // All but the last batch are safe: the runs merged with that one wait for it.
        drop(open);
        answers.collect();
        assert_eq!(answers.unanswered(), 2 * (2 * RUNS_MAX + 1));
        drop(last);
        while answers.unanswered() > 0 {
            assert!(answers.wire.capacity() <= 2 * WIRE_OCTETS);
            answers.wire.clear();
            answers.collect();
        }
        let told = String::from_utf8(std::mem::take(&mut answers.wire)).unwrap();
        assert!(
            told.ends_with(&format!("{} rsp 6 200 OK\n", 6 * RUNS_MAX)),
            "{told}"
        );
    }

    #[test]
    fn what_a_client_does_not_take_is_kept_as_one_run() {
        let custody = Custody::new();
        let metrics = Metrics::new().listener("relp", "relp://127.0.0.1:1");
        let stop = CancellationToken::new();
        let mut answers = Answers::new(metrics, custody, stop);
        for code in [true, true, false, false, true] {
            for _ in 0..1000 {
                answers.push(1, Due::Undelivered);
                answers.delivered(code);
            }
        }
        let runs: Vec<_> = answers.runs.iter().map(|run| run.count).collect();
        assert_eq!(runs, [2000, 2000, 1000]);
        assert_eq!(answers.unanswered(), 5000);
    }
}
