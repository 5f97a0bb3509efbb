//! The door to forwarding: survivors go in, and what the full queue refuses is counted.
//!
//! # Guarantees
//!
//! - A chunk that was handed over is in the queue, or dropped and counted.
//! - The reports of copies that were held back under a dropped survivor get what room there is.
//!
//! # Left out
//!
//! What happens behind the queue.

use std::sync::Arc;

use tokio::sync::watch;

use super::Outbox;
use crate::{
    chunk::Chunk,
    config::{ForwardConfig, WhenFull},
    custody::Receipt,
    ledger::Ledger,
    metrics::DropReason,
};

/// The door to forwarding: takes chunks from everybody who has some.
#[derive(Debug)]
pub struct Delivery {
    outbox: Arc<Outbox>,
    ledger: Arc<Ledger>,
    config: watch::Receiver<Arc<ForwardConfig>>,
}

impl Delivery {
    /// A door to `outbox`; the receiver's current value says what happens when it is full.
    #[must_use]
    pub const fn new(
        outbox: Arc<Outbox>,
        ledger: Arc<Ledger>,
        config: watch::Receiver<Arc<ForwardConfig>>,
    ) -> Self {
        Self {
            outbox,
            ledger,
            config,
        }
    }

    /// The ledger in which dropped chunks are counted.
    #[must_use]
    pub const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// True once the queue was closed: whatever is handed over from then on is dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    /// Whether a reader waits for room.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.outbox.is_pressed()
    }

    /// Octets that wait in the queue.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.outbox.octets()
    }

    /// No chunk comes any more.
    pub(super) fn close(&self) {
        self.outbox.close();
    }

    /// Hands over `chunk`, whose survivors are counted as queued already. When the queue is full this
    /// waits or drops, as configured. Gives whether all of it is in the queue.
    pub async fn deliver(&self, chunk: Chunk) -> bool {
        if chunk.is_empty() {
            return true;
        }
        let when_full = self.config.borrow().when_full;
        let batch = chunk.receipt().map(Receipt::number);
        let mut is_whole = true;
        for lost in self.outbox.push(chunk, when_full).await {
            // Others may have been dropped to make room.
            is_whole &= lost.receipt().map(Receipt::number) != batch;
            self.drop_chunk(&lost).await;
        }
        is_whole
    }

    async fn drop_chunk(&self, lost: &Chunk) {
        let reason = self.reason();
        if let Some(summaries) = self.ledger.dropped(lost, reason) {
            // The reports of what was held back under dropped survivors get what room there is.
            for lost in self.outbox.push(summaries, WhenFull::DropNewest).await {
                self.ledger.dropped(&lost, self.reason());
            }
        }
    }

    fn reason(&self) -> DropReason {
        if self.outbox.is_closed() {
            DropReason::Shutdown
        } else {
            DropReason::QueueFull
        }
    }
}
