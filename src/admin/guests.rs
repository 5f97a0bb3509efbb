//! Guests: the connections to the admin port, and which one makes room when there are too many.
//!
//! # Guarantees
//!
//! - There are never more than the limit, and a new one always gets in: after [`GRACE`] at most, in which those that are
//!   there can say what they want, the oldest that has not yet said it is closed; if all have, the oldest of all.
//!
//! # Left out
//!
//! What is said on a connection (`mod`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Those that are there.
#[derive(Debug)]
pub(super) struct Guests {
    slots: Arc<Semaphore>,
    /// In the order of their arrival; as many as there are slots at most.
    guests: Vec<Arc<Guest>>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Guest {
    arrived: Instant,
    /// Whether its request has been read.
    asked: AtomicBool,
    /// Cancelled when it has to go.
    pub(super) go: CancellationToken,
}

impl Guests {
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(max)),
            guests: Vec::new(),
        }
    }

    /// Lets one more in, for as long as the permit is held.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped lets no client in; another client may have been closed for it.
    pub(super) async fn enter(&mut self) -> (Arc<Guest>, OwnedSemaphorePermit) {
        let slot = loop {
            let slots = Arc::clone(&self.slots);
            if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                break slot;
            }
            let in_the_way = self.in_the_way();
            let due = in_the_way.map_or_else(Instant::now, |index| self.guests[index].arrived);
            tokio::select! {
                biased;
                slot = slots.acquire_owned() => {
                    break slot.expect("the semaphore is never closed");
                }
                // With all of them closed and not gone yet, it is looked again after a while.
                () = sleep_until(due + GRACE) => {
                    if let Some(index) = in_the_way {
                        self.guests.remove(index).go.cancel();
                    }
                }
            }
        };
        let guest = Arc::new(Guest {
            arrived: Instant::now(),
            asked: AtomicBool::new(false),
            go: CancellationToken::new(),
        });
        self.guests.push(Arc::clone(&guest));
        (guest, slot)
    }

    /// Which one is to go.
    fn in_the_way(&mut self) -> Option<usize> {
        // What only this list knows has ended.
        self.guests.retain(|guest| Arc::strong_count(guest) > 1);
        let silent = |guest: &Arc<Guest>| !guest.asked.load(Ordering::Relaxed);
        let oldest = (!self.guests.is_empty()).then_some(0);
        self.guests.iter().position(silent).or(oldest)
    }
}

/// The pages, for one connection: notes that it has asked for one.
#[derive(Debug)]
pub(super) struct PagesFor {
    pub(super) guest: Arc<Guest>,
    pub(super) pages: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for PagesFor {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.guest.asked.store(true, Ordering::Relaxed);
        self.pages.call(request)
    }
}

/// How long those that are there may still take when one more comes: a thousand in a row make way within half a second.
pub(super) const GRACE: Duration = Duration::from_millis(25);
