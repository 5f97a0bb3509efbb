//! Guests: the connections to the admin port, and which one is closed when there are too many.
//!
//! # Guarantees
//!
//! - There are never more connections than the limit, and a new one is always admitted: after at most [`GRACE`], in which
//!   the others can send their request, the oldest connection without a request is closed; if all have sent one, the
//!   oldest of all.
//!
//! # Left out
//!
//! Serving a connection (`mod`).

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

#[derive(Debug)]
pub(super) struct Guests {
    slots: Arc<Semaphore>,
    /// In the order of their arrival; never more than there are slots.
    guests: Vec<Arc<Guest>>,
}

#[derive(Debug)]
pub(super) struct Guest {
    arrived: Instant,
    /// Whether its request has been read.
    asked: AtomicBool,
    /// Cancelled when the connection has to close.
    pub(super) go: CancellationToken,
}

impl Guests {
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(max)),
            guests: Vec::new(),
        }
    }

    /// Admits one more connection, for as long as the permit is held.
    ///
    /// # Cancel safety
    ///
    /// A dropped future admits no client, but may have closed another one.
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
                // If all are told to close and none has yet, this checks again later.
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

    /// Which connection to close.
    fn in_the_way(&mut self) -> Option<usize> {
        // A guest that only this list refers to has ended.
        self.guests.retain(|guest| Arc::strong_count(guest) > 1);
        let silent = |guest: &Arc<Guest>| !guest.asked.load(Ordering::Relaxed);
        let oldest = (!self.guests.is_empty()).then_some(0);
        self.guests.iter().position(silent).or(oldest)
    }
}

/// The pages for one connection: records that it has sent a request.
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

/// How long the open connections may still take when one more arrives. A thousand arriving in a row make way within half
/// a second.
pub(super) const GRACE: Duration = Duration::from_millis(25);
