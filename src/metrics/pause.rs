//! Pauses: what waits because something is full, now and how often so far.
//!
//! # Guarantees
//!
//! - Beginning and ending a pause takes no lock; what waits counts as long as its [`Pausing`] lives.
//!
//! # Left out
//!
//! For how long it waits: the daemon reads the gauge from time to time, and adds that up.

use super::{Counter, Gauge};

/// Work that waits because something is full.
#[derive(Debug, Default)]
pub struct PauseCounters {
    /// How many wait now.
    pub now: Gauge,
    /// How often the waiting began so far.
    pub total: Counter,
}

impl PauseCounters {
    /// Something waits until what this returns is dropped.
    pub fn begin(&self) -> Pausing<'_> {
        // Added, not set: others begin and end at any time.
        self.now.add(1);
        self.total.inc();
        Pausing(self)
    }
}

/// Something waits, until dropped.
#[derive(Debug)]
#[must_use = "the waiting is over when it is dropped"]
pub struct Pausing<'c>(&'c PauseCounters);

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.0.now.sub(1);
    }
}
