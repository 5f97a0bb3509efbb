//! What a stop cuts off, told once from what was counted, so that the log and the metrics agree.
//!
//! # Guarantees
//!
//! - Each frame, summary and copy that was dropped with reason `shutdown` is in one line, wherever it waited: in the
//!   queue, with an upstream that broke, or with a reader that waited for room.
//!
//! # Left out
//!
//! Dropping and counting (`forward`, `ledger`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tracing::error;

use crate::metrics::{DropReason, Metrics};

/// How much of it was told.
#[derive(Debug)]
pub(super) struct CutOff {
    metrics: Arc<Metrics>,
    frames: AtomicU64,
    summaries: AtomicU64,
    copies: AtomicU64,
}

impl CutOff {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            frames: AtomicU64::default(),
            summaries: AtomicU64::default(),
            copies: AtomicU64::default(),
        }
    }

    /// Tells what was cut off and not told yet.
    pub(super) fn tell(&self) {
        self.tell_copies();
        let metrics = &self.metrics;
        let frames = more(
            &self.frames,
            metrics.frames.dropped[DropReason::Shutdown].get(),
        );
        let dropped = metrics.summaries.dropped[DropReason::Shutdown].get();
        let summaries = more(&self.summaries, dropped);
        if frames > 0 || summaries > 0 {
            error!(
                frames,
                summaries, "dropped what could not be forwarded before the deadline"
            );
        }
    }

    /// Tells how many copies that were to be set aside were cut off and not told yet.
    pub(super) fn tell_copies(&self) {
        let dropped = self.metrics.copies.dropped[DropReason::Shutdown].get();
        let copies = more(&self.copies, dropped);
        if copies > 0 {
            error!(
                frames = copies,
                of = "suppressed copies",
                "dropped what could not be forwarded before the deadline"
            );
        }
    }
}

/// How much `total` is more than what was `told`, which it is from now on.
fn more(told: &AtomicU64, total: u64) -> u64 {
    total.saturating_sub(told.swap(total, Ordering::Relaxed))
}
