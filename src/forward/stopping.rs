//! Stopping: tells tasks that wait for an upstream how far a stop has come.
//!
//! ```text
//! ──── begun: upstreams that are away are tried often ──── over: nothing waits any more
//!      └─────────────────── grace period ────────────────┘
//! ```

use tokio_util::sync::CancellationToken;

/// How far a stop has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping {
    begun: CancellationToken,
    /// Cancelled when the grace period has passed.
    pub(super) cut_off: CancellationToken,
}

impl Stopping {
    /// A new value, not stopped. A stop of `self` stops the new one as well.
    #[must_use]
    pub(crate) fn child(&self) -> Self {
        Self {
            begun: self.begun.child_token(),
            cut_off: self.cut_off.child_token(),
        }
    }

    /// Begins a stop: what was accepted is to be delivered soon.
    pub(crate) fn begin(&self) {
        self.begun.cancel();
    }

    /// Ends the grace period.
    pub(crate) fn cut_off(&self) {
        self.begun.cancel();
        self.cut_off.cancel();
    }

    /// Whether a stop has begun.
    #[must_use]
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until a stop begins.
    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until the grace period has passed.
    pub(crate) async fn over(&self) {
        self.cut_off.cancelled().await;
    }
}
