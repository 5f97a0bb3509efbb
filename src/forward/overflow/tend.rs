//! Tending: what is done each second, with or without traffic.
//!
//! # Guarantees
//!
//! - Files that were removed are let go of, and a directory that was is made anew, with nothing to be written or read.
//! - A disk that refused is asked again, with nothing left to write: it fails no longer than it has no room.
//! - A disk that did not take what was delivered is asked again as well.
//! - A directory that is not at its path any more counts as a disk that refused, with nothing to be written.
//!
//! # Left out
//!
//! A batch that the disk refused and that waits here: `append_all` tries to write it, which asks the disk as well.

use std::sync::Arc;

use tokio::{
    select,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Overflow, RETRY_PERIOD, on_disk};
use crate::spool::{Position, SpoolError};

impl Overflow {
    /// Does it until `closing` is cancelled.
    pub(super) async fn tend_all(&self, closing: &CancellationToken) {
        loop {
            select! {
                () = closing.cancelled() => return,
                () = sleep(RETRY_PERIOD) => {}
            }
            let spool = Arc::clone(&self.spool);
            let tended = on_disk(move || spool.tend()).await;
            if let Err(error @ SpoolError::Moved { .. }) = &tended {
                self.refuse(error);
                continue;
            }
            self.settle(|state| &mut state.tending, &tended);
            if self.lock().keeping.is_on() {
                // All that was delivered is known to the spool; only the disk is to take it.
                let spool = Arc::clone(&self.spool);
                let told = on_disk(move || spool.acknowledge(Position::default())).await;
                self.settle(|state| &mut state.keeping, &told);
            }
            self.measure();
            let (failed, octets) = {
                let state = self.lock();
                let is_idle = state.refused.is_empty() && !state.appending;
                let failed = state.retry_at.filter(|_| is_idle);
                (failed, state.refused_octets)
            };
            if failed.is_none() {
                continue;
            }
            let spool = Arc::clone(&self.spool);
            let answer = on_disk(move || spool.probe(octets)).await;
            let mut state = self.lock();
            // What was written meanwhile has its own answer.
            if state.retry_at == failed && !state.appending {
                match &answer {
                    Ok(()) => {
                        state.retry_at = None;
                        if state.writing.end() {
                            info!("spool accepts writes again");
                        }
                        state.tell_direct();
                        self.outbox.set_spool_takes(true);
                    }
                    Err(error) => state.writing.begin(error, &self.metrics),
                }
            }
            drop(state);
            self.measure();
            self.changed.notify_waiters();
        }
    }

    /// The disk would refuse whatever is written: it is asked again, by what is to be written or by `tend_all`.
    fn refuse(&self, error: &SpoolError) {
        let mut state = self.lock();
        if state.retry_at.is_none() {
            state.retry_at = Some(Instant::now());
            state.refused_octets = 1;
        }
        state.writing.begin(error, &self.metrics);
        drop(state);
        self.measure();
    }
}
