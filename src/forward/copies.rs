//! Aside: where copies that are held back go as well, if they are to go anywhere.
//!
//! ```text
//! judged ──survivors──▶ delivery ──▶ outbox ──▶ forwarder
//!        └──copies────▶ aside ─────▶ outbox ──▶ forwarder       (of its own, all of it)
//! ```
//!
//! # Guarantees
//!
//! - While it is shut, a batch looks at one flag for it.
//! - Whoever got hold of the door before it was shut may still deliver; its queue is closed when the last has
//!   let go of it, and the forwarder behind it then ends because its input closed.
//!
//! # Left out
//!
//! Acknowledgements: a sender that asks whether its messages are safe is answered for survivors alone, because
//! copies that wait for their destination would keep all later batches open, whoever sent them.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use super::Delivery;
use crate::chunk::Chunk;

/// The door for copies, which a reload may open and shut.
#[derive(Debug, Default)]
pub struct CopiesDoor {
    is_open: AtomicBool,
    door: RwLock<Option<Arc<OpenDoor>>>,
}

/// A door to the queue of copies. The queue is closed when the last owner lets go.
#[derive(Debug)]
pub struct OpenDoor(Delivery);

impl CopiesDoor {
    /// The door, if it is open.
    #[must_use]
    pub fn door(&self) -> Option<Arc<OpenDoor>> {
        if !self.is_open.load(Ordering::Relaxed) {
            return None;
        }
        self.door
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a reader waits for room in the queue of copies.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.door().is_some_and(|door| door.0.is_pressed())
    }

    /// From the next batch on, copies go to `delivery`.
    pub fn open(&self, delivery: Delivery) {
        let door = Some(Arc::new(OpenDoor(delivery)));
        *self.door.write().unwrap_or_else(PoisonError::into_inner) = door;
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// From the next batch on, copies go nowhere.
    pub fn shut(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        let door = self
            .door
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(door);
    }
}

impl OpenDoor {
    /// Hands over `copies`, which are counted as queued already. When the queue is full this waits or drops, as
    /// configured.
    pub async fn deliver(&self, copies: Chunk) {
        self.0.deliver(copies).await;
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.close();
    }
}
