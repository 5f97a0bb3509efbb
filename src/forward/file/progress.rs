//! What a writing thread and its lane tell each other while a batch is written.
//!
//! # Guarantees
//!
//! - The thread reports whole frames only.
//! - An interruption lasts until the next batch begins.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// The outcome of a batch.
#[derive(Debug)]
pub(super) struct Written {
    /// Octets of the whole frames that were taken.
    pub(super) taken: usize,
    /// True if all was taken, false if writing was interrupted.
    pub(super) outcome: io::Result<bool>,
}

/// What the thread and its lane tell each other while a batch is written.
#[derive(Debug, Default)]
pub(super) struct Progress {
    taken: AtomicUsize,
    signs: AtomicU64,
    is_interrupted: AtomicBool,
}

impl Progress {
    /// Begins the next batch.
    pub(super) fn begin(&self) {
        self.taken.store(0, Ordering::Release);
        self.is_interrupted.store(false, Ordering::Release);
    }

    /// Records that whole frames of `whole` octets of the batch are taken by now. More octets, a part of the next
    /// frame, may be taken as well.
    pub(super) fn took(&self, whole: usize) {
        self.taken.store(whole, Ordering::Release);
        self.sign();
    }

    /// Records that the reader is alive.
    pub(super) fn sign(&self) {
        self.signs.fetch_add(1, Ordering::AcqRel);
    }

    /// Asks the thread to stop between two frames.
    pub(super) fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Release);
    }

    /// Octets of whole frames of this batch taken so far.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// A number that changes whenever the reader took something.
    pub(super) fn signs(&self) -> u64 {
        self.signs.load(Ordering::Acquire)
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Acquire)
    }
}
