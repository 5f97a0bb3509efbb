//! Stopping: how far a stop has come, for those who wait for an upstream.
//!
//! ```text
//! ──── begun: no upstream that is away is left alone any longer ──── over: nothing waits any more
//!      └─────────────────────────── the grace ──────────────────────┘
//! ```

use tokio_util::sync::CancellationToken;

/// How far a stop has come.
#[derive(Clone, Debug, Default)]
pub struct Stopping {
    begun: CancellationToken,
    /// Cancelled when the stop is over.
    pub(super) cut_off: CancellationToken,
}

impl Stopping {
    /// No stop. The stop of whoever owns this one is a stop of the new one as well.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            begun: self.begun.child_token(),
            cut_off: self.cut_off.child_token(),
        }
    }

    /// A stop begins: what is taken in already is to be delivered soon.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// The time is over.
    pub fn cut_off(&self) {
        self.begun.cancel();
        self.cut_off.cancel();
    }

    /// Whether a stop has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until a stop begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until the time is over.
    pub async fn over(&self) {
        self.cut_off.cancelled().await;
    }
}
