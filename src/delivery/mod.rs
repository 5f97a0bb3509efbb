//! Delivery: where survivors wait until they are delivered.
//!
//! ```text
//!             survivors
//! pipeline ──┬─────────▶ Delivery ─────▶ Queue ─────▶ forward ──────▶ upstreams
//!            │           the door        chunks        │     ◀──────▶ spool
//!            │              │                          │
//!            │              │ dropped                  │ forwarded, taken back, dropped
//!            │              └───────────▶ Ledger ◀─────┘
//!            │                              └─ reopens the windows of what was dropped
//!            │ copies
//!            └─────────▶ CopiesDoor ──▶ a Queue of its own ──▶ a forwarder of its own
//!
//! a batch's Receipt   pipeline opens it ──▶ its chunk carries it ──▶ forward drops it when the chunk is safe
//! Custody             knows which batches are open ──────────────────▶ RELP listener answers the sender
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | here | the door: chunks go into the queue, and what the full queue drops is counted |
//! | `queue` | chunks wait here, limited in octets, until a lane or the spool takes them |
//! | `chunk` | the survivors and summaries of one batch, side by side |
//! | `custody` | which batches are safe, so that a sender can be answered |
//! | `ledger` | what became of each frame, counted once; a survivor that is dropped reopens its window |
//! | `copies` | the door for suppressed copies, where they are kept |
//!
//! # Guarantees
//!
//! - A chunk that was handed over is in the queue, or dropped and counted.
//! - If a survivor is dropped, the summary of its suppressed copies goes into the queue, as far as there is room.
//!
//! # Left out
//!
//! What happens to chunks behind the queue (`forward`, `spool`).

pub mod chunk;
pub(crate) mod custody;
pub(crate) mod ledger;

mod copies;
mod queue;

use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use self::{
    copies::{CopiesDoor, OpenDoor},
    queue::Queue,
};
use crate::{
    config::{ForwardConfig, WhenFull},
    delivery::{chunk::Chunk, custody::Receipt, ledger::Ledger},
    metrics::DropReason,
};

/// The door to forwarding. Every reader hands its chunks over here.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    config: watch::Receiver<Arc<ForwardConfig>>,
}

impl Delivery {
    /// A door to `queue`. The current value of `config` says what happens when the queue is full.
    #[must_use]
    pub(crate) const fn new(
        queue: Arc<Queue>,
        ledger: Arc<Ledger>,
        config: watch::Receiver<Arc<ForwardConfig>>,
    ) -> Self {
        Self {
            queue,
            ledger,
            config,
        }
    }

    /// The ledger in which dropped chunks are counted.
    #[must_use]
    pub(crate) const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// True once the queue was closed. Every chunk that is handed over from then on is dropped.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Whether a reader waits for room.
    #[must_use]
    pub(crate) fn is_pressed(&self) -> bool {
        self.queue.is_pressed()
    }

    /// Octets that wait in the queue.
    #[must_use]
    pub(crate) fn octets(&self) -> u64 {
        self.queue.octets()
    }

    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Hands over `chunk`, whose survivors are already counted as queued. If the queue is full, this
    /// waits or drops, as configured. Returns whether the whole chunk is in the queue.
    ///
    /// # Cancel safety
    ///
    /// As [`Queue::push`]: if this is dropped while it waits, the chunk is lost and not counted.
    pub(crate) async fn deliver(&self, chunk: Chunk) -> bool {
        if chunk.is_empty() {
            return true;
        }
        let when_full = self.config.borrow().when_full;
        let batch = chunk.receipt().map(Receipt::number);
        let mut is_whole = true;
        for lost in self.queue.push(chunk, when_full).await {
            // A chunk of another batch may have been dropped to make room.
            is_whole &= lost.receipt().map(Receipt::number) != batch;
            self.drop_chunk(&lost).await;
        }
        is_whole
    }

    async fn drop_chunk(&self, lost: &Chunk) {
        let reason = self.reason();
        if let Some(summaries) = self.ledger.dropped(lost, reason) {
            for lost in self.queue.push(summaries, WhenFull::DropNewest).await {
                self.ledger.dropped(&lost, self.reason());
            }
        }
    }

    fn reason(&self) -> DropReason {
        if self.queue.is_closed() {
            DropReason::Shutdown
        } else {
            DropReason::QueueFull
        }
    }
}
