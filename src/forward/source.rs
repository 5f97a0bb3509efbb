//! The source: lanes take chunks from here, and give back what they could not send.
//!
//! ```text
//! [ given back ]  then  [ overflow, if it holds chunks ]  then  [ memory queue ] ──next──▶ lanes
//!       ▲                                                                                   │
//!       └───────────────────────────────── give back ───────────────────────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - Chunks that were given back leave before newer ones.
//! - The source is drained when the queue is closed and no chunk waits here or in the queue, or when the spool takes
//!   the chunks that wait. Chunks that a lane has in hand do not count.
//!
//! # Left out
//!
//! Limits: the queue has its own, and lanes give back no more than they had in hand and in their resend rings.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{join, select, sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::overflow::{Overflow, POLL_PERIOD, Turn, take};
use crate::{
    delivery::{Queue, chunk::Chunk},
    lock::lock,
};

/// Where lanes take chunks from.
#[derive(Debug)]
pub(super) struct Source {
    queue: Arc<Queue>,
    /// Chunks that were given back. They leave before those in the queue.
    returned: Mutex<VecDeque<Chunk>>,
    /// A chunk was given back, or the last of these was taken.
    changed: Notify,
    overflow: Option<Overflow>,
    closing: CancellationToken,
    /// Lanes whose upstream is trusted.
    pub(super) lanes_trusted: AtomicUsize,
    /// Lanes whose upstream is not trusted, and took chunks that may come back.
    pub(super) lanes_in_doubt: AtomicUsize,
}

impl Source {
    /// The source that takes chunks from `queue`, and over the spool if there is an `overflow`.
    pub(super) fn new(queue: Arc<Queue>, overflow: Option<Overflow>) -> Self {
        Self {
            queue,
            returned: Mutex::default(),
            changed: Notify::new(),
            overflow,
            closing: CancellationToken::new(),
            lanes_trusted: AtomicUsize::new(0),
            lanes_in_doubt: AtomicUsize::new(0),
        }
    }

    /// Returns the next chunks to send, about [`BATCH_OCTETS`]; `None` once the source is drained.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is ready, nothing was taken.
    pub(super) async fn next(&self) -> Option<Vec<Chunk>> {
        loop {
            let changed = self.changed.notified();
            if let Some(batch) = self.take_returned() {
                return Some(batch);
            }
            let overflow_changed = self.overflow_changed();
            let turn = match &self.overflow {
                Some(overflow) => overflow.turn(BATCH_OCTETS),
                None => Turn::Direct,
            };
            let batch = match turn {
                Turn::Take(batch) => return Some(batch),
                Turn::Ended => None,
                Turn::Wait => {
                    select! {
                        () = changed => {}
                        () = overflow_changed => {}
                    }
                    continue;
                }
                Turn::Direct => select! {
                    biased;
                    () = changed => continue,
                    // From now on chunks on their way over the spool may be older than those in the queue.
                    () = overflow_changed => continue,
                    batch = self.queue.pop(BATCH_OCTETS) => batch,
                },
            };
            if batch.is_some() || self.lock().is_empty() {
                return batch;
            }
        }
    }

    /// Puts `chunks` back in front of all others.
    pub(super) fn give_back(&self, chunks: impl DoubleEndedIterator<Item = Chunk>) {
        let mut returned = self.lock();
        for chunk in chunks.rev() {
            returned.push_front(chunk);
        }
        drop(returned);
        self.changed.notify_waiters();
    }

    /// Adds a chunk that a lane made, such as summaries, behind the chunks that were given back.
    pub(super) fn add(&self, chunk: Chunk) {
        self.lock().push_back(chunk);
        self.changed.notify_waiters();
    }

    /// Waits until the source is drained.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(super) async fn drained(&self) {
        loop {
            let changed = self.changed.notified();
            let ended = self.queue.ended();
            let overflow_changed = self.overflow_changed();
            if self.queue.is_closed()
                && (self.disk_takes_the_rest() || (self.queue.is_empty() && self.lock().is_empty()))
            {
                return;
            }
            select! {
                () = changed => {}
                () = ended => {}
                () = overflow_changed => {}
            }
        }
    }

    /// Waits for a change of the overflow; for ever if there is no overflow.
    fn overflow_changed(&self) -> impl Future<Output = ()> {
        // Made here, so that a change counts from this call on and not from the first poll.
        let changed = self.overflow.as_ref().map(Overflow::changed);
        async move {
            match changed {
                Some(changed) => changed.await,
                None => pending().await,
            }
        }
    }

    fn disk_takes_the_rest(&self) -> bool {
        self.overflow.as_ref().is_some_and(Overflow::takes_the_rest)
    }

    /// Whether at least one lane's upstream is trusted.
    pub(super) fn is_lane_trusted(&self) -> bool {
        self.lanes_trusted.load(Ordering::Relaxed) > 0
    }

    /// Whether at least one lane's upstream is not trusted, and took chunks that may come back.
    pub(super) fn is_lane_in_doubt(&self) -> bool {
        self.lanes_in_doubt.load(Ordering::Relaxed) > 0
    }

    /// One more lane has an upstream in charge (`up`), or one less.
    pub(super) fn lane_up(&self, up: bool) {
        if let Some(overflow) = &self.overflow {
            overflow.lane_up(up);
        }
    }

    /// Until [`Source::close`]: moves to the spool what the queue cannot hold and what was given back while no upstream
    /// is up, and back. Without a spool it only waits.
    pub(super) async fn run(&self) {
        match &self.overflow {
            Some(overflow) => {
                join!(overflow.run(&self.closing), self.spool_returned(overflow));
            }
            None => self.closing.cancelled().await,
        }
    }

    /// Hands chunks that were given back to the spool if no upstream is up to take them again. In memory they would not
    /// survive a kill.
    async fn spool_returned(&self, overflow: &Overflow) {
        while !self.closing.is_cancelled() {
            let changed = self.changed.notified();
            let is_owed = self.is_owed();
            if is_owed && overflow.takes_back() {
                let returned = self.lock().drain(..).collect();
                overflow.take_back(returned);
                continue;
            }
            select! {
                () = self.closing.cancelled() => {}
                () = changed => {}
                // Time alone changes whether upstreams have been away for long.
                () = sleep(POLL_PERIOD), if is_owed => {}
            }
        }
    }

    /// Octets that wait, in memory and in the spool.
    pub(super) fn octets(&self) -> u64 {
        let returned: usize = self.lock().iter().map(Chunk::footprint).sum();
        let spooled = self.overflow.as_ref().map_or(0, Overflow::octets);
        self.queue.octets() + returned as u64 + spooled
    }

    /// Whether the queue is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Whether a chunk waits that was given back.
    pub(super) fn is_owed(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Closes the queue, and ends [`Source::run`] once its calls to the disk have ended.
    pub(super) fn close(&self) {
        // Readers that wait for room get their chunks back, and drop and count them.
        self.queue.close();
        self.closing.cancel();
    }

    /// Takes out all chunks that are left, without a spool; with one, leaves them there, and returns those that it
    /// could not take. Waits for the disk.
    pub(super) fn take_rest(&self) -> Vec<Chunk> {
        let mut given_back: Vec<Chunk> = self.lock().drain(..).collect();
        let queued = self.queue.try_pop(usize::MAX);
        match &self.overflow {
            Some(overflow) => overflow.finish(given_back, queued),
            None => {
                given_back.extend(queued);
                given_back
            }
        }
    }

    fn take_returned(&self) -> Option<Vec<Chunk>> {
        let mut returned = self.lock();
        let batch = take(&mut returned, BATCH_OCTETS);
        let is_last = returned.is_empty();
        drop(returned);
        if batch.is_empty() {
            return None;
        }
        if is_last {
            self.changed.notify_waiters();
        }
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Chunk>> {
        lock(&self.returned)
    }
}

/// Octets taken for one write: large enough to spread the write's cost, small enough to stay in the cache.
pub(super) const BATCH_OCTETS: usize = 256 * 1024;
