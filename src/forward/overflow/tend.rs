//! Tending: what is done each second, with or without traffic.
//!
//! # Guarantees
//!
//! - Removed files are closed, and a removed directory is made anew, even with nothing to write or read.
//! - A disk that refused is asked again, even with nothing left to write. So it counts as failing only as long as it
//!   has no room.
//! - A file that was not safe to open at the start is looked at until it is repaired, so that the metrics know of it
//!   before its turn to be read.
//! - A disk that did not take an acknowledgement is asked again as well.
//! - A directory that is not at its path any more counts as a disk that refuses, even with nothing to write. As long as
//!   it is not there, this page neither probes nor repeats an acknowledgement.
//!
//! # Left out
//!
//! A batch that the disk refused and that waits in memory: `append_all` tries to write it, which asks the disk as well.

use std::sync::Arc;

use tokio::{
    select,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Overflow, RETRY_PERIOD, on_disk, state::State, trouble::Writing};
use crate::spool::{Position, SpoolError};

impl Overflow {
    /// Tends the spool every [`RETRY_PERIOD`] until `closing` is cancelled.
    pub(super) async fn tend_all(&self, closing: &CancellationToken) {
        loop {
            select! {
                () = closing.cancelled() => return,
                () = sleep(RETRY_PERIOD) => {}
            }
            let spool = Arc::clone(&self.spool);
            let (tended, not_safe) = on_disk(move || (spool.tend(), spool.first_not_safe())).await;
            self.metrics.spool.set_not_safe(not_safe);
            if let Err(error @ SpoolError::Moved { .. }) = &tended {
                let mut state = self.lock();
                state.disk.writing.would_refuse(error, &self.metrics);
                drop(state);
                self.measure();
                continue;
            }
            self.record(|disk| &mut disk.tending, &tended);
            if self.lock().disk.acknowledging.fails() {
                // The spool knows all that was acknowledged. This call only writes it to the disk.
                let spool = Arc::clone(&self.spool);
                let result = on_disk(move || spool.acknowledge(Position::default())).await;
                self.record(|disk| &mut disk.acknowledging, &result);
            }
            self.measure();
            let refused = self.lock().refused();
            if let Some((retry_at, octets)) = refused {
                self.probe(retry_at, octets).await;
            }
        }
    }

    /// Asks the disk whether it would take `octets` now. `retry_at` is that of its refusal.
    async fn probe(&self, retry_at: Instant, octets: u64) {
        let spool = Arc::clone(&self.spool);
        let answer = on_disk(move || spool.probe(octets)).await;
        let mut state = self.lock();
        // An append since then has an answer of its own.
        let is_current = state.disk.writing.retry_at() == Some(retry_at) && !state.is_appending();
        if is_current {
            match &answer {
                Ok(()) => {
                    if state.disk.writing.succeeded() {
                        info!("spool accepts writes again");
                    }
                    state.log_memory();
                    self.queue.set_spool_takes(true);
                }
                Err(error) => state.disk.writing.would_refuse(error, &self.metrics),
            }
        }
        drop(state);
        self.measure();
        self.changed.notify_waiters();
    }
}

impl State {
    /// When the disk is asked again, and for how many octets, if it refused and no append will ask it.
    fn refused(&self) -> Option<(Instant, u64)> {
        match self.disk.writing {
            Writing::Refuses {
                retry_at, octets, ..
            } if !self.has_unwritten() && !self.is_appending() => Some((retry_at, octets)),
            _ => None,
        }
    }
}
