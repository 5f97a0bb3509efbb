//! Stop: forwards, reports and saves everything that was received, within one deadline.
//!
//! # Guarantees
//!
//! - Each stage ends because its input closed: readers, windows, queue, forwarder.
//! - Upstreams that are down are tried at once, and retried until the deadline.
//! - What the deadline cuts off is counted as dropped and logged in one line, or left in the spool.
//! - Windows are saved only if every stage before ended without an error.
//! - A forwarder that ends while something waits for it is noticed at once. What it leaves is dropped and counted.
//!
//! # Left out
//!
//! The exit code (`main`).

use std::sync::Arc;

use tokio::{
    join, select,
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    Daemon, DaemonError,
    copies::CopiesForwarder,
    cut_off::{CUT_OFF_MAX, Within},
    forwarding::Forwarding,
    log_suppressed_warnings, notify, stats_of,
};
use crate::{
    clock::Clock,
    core::dedup::{EndReason, Progress},
    delivery::Queue,
    listen::Context,
    signal::{Event, Signals},
};

impl Daemon {
    /// Accepts nothing more and forwards what was received, within the deadline. Then saves the windows, unless a
    /// task failed, before (not `is_whole`) or now: then it is not known whether the messages of the open windows were
    /// forwarded.
    ///
    /// # Errors
    ///
    /// A task panicked whose panic costs the process.
    pub(super) async fn stop(mut self, mut is_whole: bool) -> Result<(), DaemonError> {
        self.readiness.set_stopping();
        notify(&[sd_notify::NotifyState::Stopping]);
        info!(grace = ?self.config.shutdown_grace, "stopping");
        for running in &self.listeners {
            running.stop();
        }
        self.context.tasks.close();
        // Comes before any waiting: readers may wait for room in the queue, and the queue for an upstream.
        self.stopping.begin();
        let stopping = self.stopping.clone();
        let grace = self.config.shutdown_grace;
        let deadline = Clock::now().after(grace);
        let queue = Arc::clone(&self.queue);
        let copies_queue = self.copies.as_ref().map(|copies| Arc::clone(&copies.queue));
        let is_drained = {
            let (forwarder, copies) = (&mut self.forwarder, &mut self.copies);
            let drain = Self::drain(&self.context, forwarder, copies, &queue);
            tokio::pin!(drain);
            let in_time = select! {
                whole = &mut drain => Some(whole),
                () = sleep(grace) => {
                    warn!(?grace, "shutdown grace period expired");
                    None
                }
                () = second_stop(&mut self.signals) => {
                    warn!("second stop signal; not waiting any longer");
                    None
                }
            };
            match in_time {
                Some(whole) => whole,
                None => {
                    // The forwarder drops what is left in the queue, so that readers stop waiting for room; they and the
                    // open windows then end without waiting for an upstream. The drain goes on: it may have summaries in
                    // hand.
                    stopping.cut_off();
                    queue.close();
                    if let Some(queue) = copies_queue {
                        queue.close();
                    }
                    let ended = timeout(CUT_OFF_MAX, drain).await;
                    if ended.is_err() {
                        error!(
                            "tasks did not end after the grace period; this is a fault of tersed"
                        );
                    }
                    ended.unwrap_or(false)
                }
            }
        };
        let panics = self.context.panics.clone();
        is_whole &= is_drained && !self.context.pipeline.is_broken() && panics.cause().is_none();
        if is_whole {
            self.save_windows(deadline).await;
        }
        self.stop_housekeeping.cancel();
        self.housekeeping.close();
        if timeout(CUT_OFF_MAX, self.housekeeping.wait())
            .await
            .is_err()
        {
            debug!("housekeeping did not end in time");
        }
        self.context.peer_log.finish(log_suppressed_warnings);
        self.cut_off.tell(self.forwarder.time());
        let copies = self.copies.as_ref();
        let time = copies.map_or(Within::Grace, |copies| copies.forwarder.time());
        self.cut_off.tell_copies(time);
        let metrics = &self.context.metrics;
        let listeners = metrics.listeners();
        let kernel_dropped: u64 = listeners.iter().map(|one| one.kernel_dropped.get()).sum();
        let stats = stats_of(&self.context.pipeline.shards);
        let balance = metrics.balance();
        info!(
            received = balance.received,
            recovered = balance.recovered,
            forwarded = balance.forwarded,
            suppressed = balance.suppressed,
            dropped = balance.dropped,
            queued = balance.queued,
            kernel_dropped,
            evicted = stats.evicted_total,
            unremembered = stats.unremembered_total,
            reading_pauses = metrics
                .all_pauses()
                .map(|pauses| pauses.total.get())
                .iter()
                .sum::<u64>(),
            "stopped"
        );
        match panics.cause() {
            Some(cause) => Err(DaemonError::Task(cause.to_owned())),
            None => Ok(()),
        }
    }

    /// Waits for each stage to end because its input closed: readers and the timer of windows, windows, queue, forwarder.
    /// A forwarder that ends too early closes its queue, so that the other stages do not wait for it. Returns false if
    /// the forwarder failed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped while it waits for room, the summaries in hand are lost without being counted.
    async fn drain(
        context: &Context,
        forwarder: &mut Forwarding,
        copies: &mut Option<CopiesForwarder>,
        queue: &Queue,
    ) -> bool {
        let pipeline = &context.pipeline;
        let reported = async {
            context.tasks.wait().await;
            // No batch is left that could use it.
            pipeline.copies_door.shut();
            let (mut ended, mut progress) = (Vec::new(), Progress::default());
            while !pipeline.is_broken() {
                // The windows stay open, so that a survivor dropped from here on can reopen its window.
                let shards = &pipeline.shards;
                let more =
                    shards.report_all(EndReason::Stop, &mut progress, REPORTED_AT_ONCE, &mut ended);
                pipeline.report(&mut ended).await;
                if !more {
                    break;
                }
            }
            queue.close();
        };
        let copied = async {
            // What it failed to write is counted, and says nothing about windows.
            if let Some(copies) = copies.as_mut() {
                copies.forwarder.ended().await.ok();
            }
        };
        let ((), forwarded, ()) = join!(reported, forwarder.ended(), copied);
        let ledger = pipeline.delivery.ledger();
        forwarder.drop_rest(ledger);
        if let Some(copies) = copies {
            copies.forwarder.drop_rest(ledger);
        }
        forwarded.is_ok()
    }
}

/// Waits for another signal to stop. A reload is refused by now.
async fn second_stop(signals: &mut Signals) {
    while signals.next().await == Event::Reload {
        info!("not reloading while stopping");
    }
}

/// Marks reported under one hold of a shard's lock while stopping.
const REPORTED_AT_ONCE: usize = 4096;
