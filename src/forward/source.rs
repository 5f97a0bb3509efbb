//! The source: where lanes take chunks from, and where they give back what they could not send.
//!
//! ```text
//! [ given back ]  then  [ memory queue ] ──next──▶ lanes
//!       ▲                                            │
//!       └──────────────── give back ─────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - What was given back leaves before anything newer.
//! - The source is drained when no chunk comes any more and none waits, here or in the queue. What a lane has in
//!   hand is its own.
//!
//! # Left out
//!
//! Bounds: the queue has its own, and lanes give back no more than they had in hand and in their replay rings.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{select, sync::Notify};

use super::Outbox;
use crate::chunk::Chunk;

/// Where lanes take chunks from.
#[derive(Debug)]
pub(super) struct Source {
    outbox: Arc<Outbox>,
    /// Leaves before anything from the queue.
    returned: Mutex<VecDeque<Chunk>>,
    /// Something was given back, or all of that was taken.
    changed: Notify,
}

impl Source {
    /// The source behind `outbox`.
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            returned: Mutex::default(),
            changed: Notify::new(),
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
            let batch = select! {
                biased;
                () = changed => continue,
                batch = self.outbox.pop(BATCH_OCTETS) => batch,
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
            self.outbox.drained().await;
            if self.lock().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Whether no chunk comes any more.
    pub(super) fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    /// Whether something waits that was given back.
    pub(super) fn is_owed(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Closes the queue, and takes out everything that is left.
    pub(super) fn close(&self) -> Vec<Chunk> {
        // From here on nobody can bring more: what waits at the door is dropped by its owner.
        self.outbox.close();
        let mut rest: Vec<Chunk> = self.lock().drain(..).collect();
        rest.extend(self.outbox.try_pop(usize::MAX));
        rest
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
const BATCH_OCTETS: usize = 256 * 1024;
