//! The source: where lanes take chunks from, and where they give back what they could not send.
//!
//! ```text
//! [ given back ]  then  [ overflow, if it holds any ]  then  [ memory queue ] ──next──▶ lanes
//!       ▲                                                                                 │
//!       └──────────────────────────────── give back ──────────────────────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - What was given back leaves before anything newer.
//! - The source is drained when no chunk comes any more and none waits, here or in the queue, or the disk takes
//!   what waits. What a lane has in hand is its own.
//!
//! # Left out
//!
//! Bounds: the queue has its own, and lanes give back no more than they had in hand and in their resend rings.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{join, select, sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Outbox,
    overflow::{Overflow, Turn},
};
use crate::chunk::Chunk;

/// Where lanes take chunks from.
#[derive(Debug)]
pub(super) struct Source {
    outbox: Arc<Outbox>,
    /// Leaves before anything from the queue.
    returned: Mutex<VecDeque<Chunk>>,
    /// Something was given back, or all of that was taken.
    changed: Notify,
    overflow: Option<Overflow>,
    closing: CancellationToken,
    /// Lanes whose upstream is trusted.
    pub(super) lanes_trusted: AtomicUsize,
    /// Lanes whose upstream is not, and took something.
    pub(super) lanes_in_doubt: AtomicUsize,
}

impl Source {
    /// The source behind `outbox`, and behind `overflow` if there is one.
    pub(super) fn new(outbox: Arc<Outbox>, overflow: Option<Overflow>) -> Self {
        Self {
            outbox,
            returned: Mutex::default(),
            changed: Notify::new(),
            overflow,
            closing: CancellationToken::new(),
            lanes_trusted: AtomicUsize::new(0),
            lanes_in_doubt: AtomicUsize::new(0),
        }
    }

    /// The next chunks to send, about [`BATCH_OCTETS`] of them; `None` once the source is drained.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was taken.
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
                    // From now on the queue may be ahead of what is on its way over the disk.
                    () = overflow_changed => continue,
                    batch = self.outbox.pop(BATCH_OCTETS) => batch,
                },
            };
            if batch.is_some() || self.lock().is_empty() {
                return batch;
            }
        }
    }

    /// Puts `chunks` back, in front of everything.
    pub(super) fn give_back(&self, chunks: impl DoubleEndedIterator<Item = Chunk>) {
        let mut returned = self.lock();
        for chunk in chunks.rev() {
            returned.push_front(chunk);
        }
        drop(returned);
        self.changed.notify_waiters();
    }

    /// Adds what came of a lane's own work, behind what was given back.
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
            let ended = self.outbox.ended();
            let overflow_changed = self.overflow_changed();
            if self.outbox.is_closed()
                && (self.disk_takes_the_rest()
                    || (self.outbox.is_empty() && self.lock().is_empty()))
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

    /// Waits for a change of the overflow; for ever if there is none.
    fn overflow_changed(&self) -> impl Future<Output = ()> {
        // From now on, not from when it is first polled.
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

    /// Whether some lane's upstream is trusted.
    pub(super) fn is_lane_trusted(&self) -> bool {
        self.lanes_trusted.load(Ordering::Relaxed) > 0
    }

    /// Whether some lane's upstream is not trusted, and took something that may come back.
    pub(super) fn is_lane_in_doubt(&self) -> bool {
        self.lanes_in_doubt.load(Ordering::Relaxed) > 0
    }

    /// One more lane has an upstream in charge, or one less.
    pub(super) fn lane_up(&self, up: bool) {
        if let Some(overflow) = &self.overflow {
            overflow.lane_up(up);
        }
    }

    /// Moves what the queue cannot hold, and what was given back while no upstream is there, to the disk and back, if
    /// there is one, until [`Source::close`].
    pub(super) async fn run(&self) {
        match &self.overflow {
            Some(overflow) => {
                join!(overflow.run(&self.closing), self.spool_returned(overflow));
            }
            None => self.closing.cancelled().await,
        }
    }

    /// Hands what was given back to the disk when no upstream is there to take it again: what is in memory would not
    /// outlive a kill.
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
                // How long upstreams have been away changes without notice.
                () = sleep(POLL_PERIOD), if is_owed => {}
            }
        }
    }

    /// Octets that wait, in memory and on the disk.
    pub(super) fn octets(&self) -> u64 {
        let returned: usize = self.lock().iter().map(Chunk::footprint).sum();
        let spooled = self.overflow.as_ref().map_or(0, Overflow::octets);
        self.outbox.octets() + returned as u64 + spooled
    }

    /// Whether no chunk comes any more.
    pub(super) fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    /// Whether something waits that was given back.
    pub(super) fn is_owed(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Ends [`Source::run`] when its calls under way have ended.
    pub(super) fn close(&self) {
        // From here on nobody can bring more: what waits at the door is dropped by its owner.
        self.outbox.close();
        self.closing.cancel();
    }

    /// Takes out everything that is left, or leaves it on the disk, if there is one. Waits for the disk.
    pub(super) fn take_rest(&self) -> Vec<Chunk> {
        let mut given_back: Vec<Chunk> = self.lock().drain(..).collect();
        let queued = self.outbox.try_pop(usize::MAX);
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
        let mut octets = 0;
        let mut batch = Vec::new();
        while octets < BATCH_OCTETS
            && let Some(chunk) = returned.pop_front()
        {
            octets += chunk.octets().len();
            batch.push(chunk);
        }
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
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Octets taken for one write: large enough that the write's cost is spread, small enough to stay in cache.
pub(super) const BATCH_OCTETS: usize = 256 * 1024;

/// How often it is looked whether upstreams have been away for long.
const POLL_PERIOD: Duration = Duration::from_millis(100);
