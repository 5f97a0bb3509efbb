//! Pauses: how many readers or listeners wait because a limit is reached, and how often they have waited.
//!
//! # Guarantees
//!
//! - Beginning and ending a pause takes no lock. A pause lasts as long as its [`Pausing`] lives.
//!
//! # Left out
//!
//! How long a pause lasts: the daemon reads the gauge from time to time and adds up.

use super::{Counter, Gauge};

/// Pauses of one kind.
#[derive(Debug, Default)]
pub(crate) struct PauseCounters {
    /// How many wait now.
    pub now: Gauge,
    /// How many pauses have begun.
    pub total: Counter,
}

impl PauseCounters {
    /// Begins a pause, which ends when the returned value is dropped.
    pub(crate) fn begin(&self) -> Pausing<'_> {
        // Added, not set: other pauses begin and end at the same time.
        self.now.add(1);
        self.total.inc();
        Pausing(self)
    }
}

/// A pause, until dropped.
#[derive(Debug)]
#[must_use = "the pause ends when it is dropped"]
pub(crate) struct Pausing<'c>(&'c PauseCounters);

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.0.now.sub(1);
    }
}
