//! Cut-off: how long tasks may still take after it, and a log of what it dropped. The log is made from the counters, so
//! that it and the metrics agree.
//!
//! # Guarantees
//!
//! - Each frame, summary and copy that was dropped with reason `shutdown` is counted in one line, wherever it waited:
//!   in the queue, in a lane whose upstream failed, or with a reader that waited for room.
//!
//! # Left out
//!
//! Dropping and counting (`forward`, `ledger`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::error;

use crate::metrics::{DropReason, Metrics};

/// How much of what was cut off has been logged.
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

    /// Logs how many messages and summaries were not forwarded `within` their time since the last call.
    pub(super) fn tell(&self, within: Within) {
        let metrics = &self.metrics;
        let frames = more(
            &self.frames,
            metrics.frames.dropped[DropReason::Shutdown].get(),
        );
        let dropped = metrics.summaries.dropped[DropReason::Shutdown].get();
        let summaries = more(&self.summaries, dropped);
        if frames == 0 && summaries == 0 {
            return;
        }
        match within {
            Within::Grace => error!(
                frames,
                summaries, "dropped messages that were not forwarded within the grace period"
            ),
            Within::LifeOfForwarder => error!(
                frames,
                summaries, "dropped messages that were not forwarded before the forwarder failed"
            ),
        }
    }

    /// Logs how many suppressed copies were not written `within` their time since the last call.
    pub(super) fn tell_copies(&self, within: Within) {
        let dropped = self.metrics.copies.dropped[DropReason::Shutdown].get();
        let copies = more(&self.copies, dropped);
        if copies == 0 {
            return;
        }
        match within {
            Within::Grace => error!(
                copies,
                "dropped suppressed copies that were not written within the grace period"
            ),
            Within::LifeOfForwarder => error!(
                copies,
                "dropped suppressed copies that were not written before their forwarder failed"
            ),
        }
    }
}

/// The time that there was.
#[derive(Clone, Copy, Debug)]
pub(super) enum Within {
    /// It ended with the grace period, or with a second signal.
    Grace,
    /// It ended when the forwarder failed.
    LifeOfForwarder,
}

/// Returns how much `total` exceeds `told`, and stores `total` there.
fn more(told: &AtomicU64, total: u64) -> u64 {
    total.saturating_sub(told.swap(total, Ordering::Relaxed))
}

/// How long tasks may take to end once none of them waits any more.
pub(super) const CUT_OFF_MAX: Duration = Duration::from_secs(1);
