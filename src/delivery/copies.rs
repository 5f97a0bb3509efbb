//! The door for suppressed copies, where `[suppressed]` says that they are kept.
//!
//! ```text
//! judged ──survivors──▶ Delivery ──────────────▶ queue ──▶ forwarder
//!        └──copies────▶ CopiesDoor, if open ───▶ queue ──▶ forwarder       (both of its own)
//! ```
//!
//! # Guarantees
//!
//! - While the door is shut, it costs a batch one look at a flag.
//! - A batch that got the door before it was shut may still deliver. The queue is closed when the last batch has
//!   dropped the door. The forwarder behind it then ends, because its input is closed.
//!
//! # Left out
//!
//! Acknowledgements: a sender that asks whether its messages are safe gets an answer for survivors alone.
//! Copies that wait for their destination would otherwise keep all later batches open, whichever sender they came from.

use std::sync::{
    Arc, RwLock,
    atomic::{AtomicBool, Ordering},
};

use super::Delivery;
use crate::delivery::chunk::Chunk;
use crate::lock::{read, write};

/// The door for copies. A reload may open and shut it.
#[derive(Debug, Default)]
pub(crate) struct CopiesDoor {
    is_open: AtomicBool,
    door: RwLock<Option<Arc<OpenDoor>>>,
}

/// A door to the queue of copies. The queue is closed when the last owner drops it.
#[derive(Debug)]
pub(crate) struct OpenDoor(Delivery);

impl CopiesDoor {
    /// The door, if it is open.
    #[must_use]
    pub(crate) fn door(&self) -> Option<Arc<OpenDoor>> {
        if !self.is_open.load(Ordering::Relaxed) {
            return None;
        }
        read(&self.door).clone()
    }

    /// Whether a reader waits for room in the queue of copies.
    #[must_use]
    pub(crate) fn is_pressed(&self) -> bool {
        self.door().is_some_and(|door| door.0.is_pressed())
    }

    /// From the next batch on, copies go to `delivery`.
    pub(crate) fn open(&self, delivery: Delivery) {
        drop(self.replace(Some(Arc::new(OpenDoor(delivery)))));
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// From the next batch on, copies are not kept.
    pub(crate) fn shut(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        drop(self.replace(None));
    }

    /// Returns the door that was there, which the caller drops without the lock.
    fn replace(&self, door: Option<Arc<OpenDoor>>) -> Option<Arc<OpenDoor>> {
        let mut there = write(&self.door);
        std::mem::replace(&mut there, door)
    }
}

impl OpenDoor {
    /// Hands over `copies`, which are already counted as queued. If the queue is full, this waits or drops, as
    /// configured.
    pub(crate) async fn deliver(&self, copies: Chunk) {
        self.0.deliver(copies).await;
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.close();
    }
}
