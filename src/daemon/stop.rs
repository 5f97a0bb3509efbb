//! Stop: forwards, reports and saves everything that was received, within one deadline.
//!
//! # Guarantees
//!
//! - Each stage ends because its input closed: readers, windows, queue, forwarder.
//! - Upstreams that are down are tried at once, and retried until the deadline.
//! - What the deadline cuts off is counted as dropped and logged in one line, or left in the spool.
//! - Windows are saved only if every stage before ended without an error.
//!
//! # Left out
//!
//! The exit code (`main`).

use std::sync::Arc;

use tokio::{
    select,
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    Daemon, copies::CopiesForwarder, cut_off::CUT_OFF_MAX, log_suppressed_warnings, notify,
};
use crate::{
    clock::Clock,
    core::dedup::{EndReason, EngineStats, Progress},
    delivery::Queue,
    forward::ForwardEnded,
    listen::Context,
    metrics::DropReason,
    pipeline::Pipeline,
    signal::{Event, Signals},
    thread::Running,
};

impl Daemon {
    /// Accepts nothing more and forwards what was received, within the deadline. Then saves the windows, unless a
    /// task failed: then it is not known whether the messages of the open windows were forwarded.
    pub(super) async fn stop(mut self, mut is_whole: bool) {
        self.readiness.set_stopping();
        notify(&[sd_notify::NotifyState::Stopping]);
        info!(grace = ?self.config.shutdown_grace, "stopping");
        for running in &self.listeners {
            running.stop();
        }
        self.context.tasks.close();
        // Without a forwarder, waiting for room would last until the deadline.
        if self.forwarder.is_finished() {
            self.queue.close();
        }
        if let Some(copies) = &self.copies
            && copies.forwarder.is_finished()
        {
            copies.queue.close();
        }
        // Comes before any waiting: readers may wait for room in the queue, and the queue for an upstream.
        self.stopping.begin();
        let stopping = self.stopping.clone();
        let grace = self.config.shutdown_grace;
        let deadline = Clock::now().after(grace);
        let copies_queue = self.copies.as_ref().map(|copies| Arc::clone(&copies.queue));
        let is_drained = {
            let (forwarder, copies) = (&mut self.forwarder, &mut self.copies);
            let drain = Self::drain(&self.context, &self.queue, forwarder, copies);
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
                    self.queue.close();
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
        is_whole &= is_drained && !self.context.pipeline.is_broken();
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
        self.cut_off.tell();
        let metrics = &self.context.metrics;
        let listeners = metrics.listeners();
        let kernel_dropped: u64 = listeners.iter().map(|one| one.kernel_dropped.get()).sum();
        let pipeline = &self.context.pipeline;
        let stats = if pipeline.is_broken() {
            EngineStats::default()
        } else {
            pipeline.shards.stats()
        };
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
    }

    /// Waits for each stage to end because its input closed: readers, windows, queue, forwarder. Returns false if the
    /// forwarder failed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped while it waits for room, the summaries in hand are lost without being counted.
    async fn drain(
        context: &Context,
        queue: &Queue,
        forwarder: &mut Running<Result<(), ForwardEnded>>,
        copies: &mut Option<CopiesForwarder>,
    ) -> bool {
        context.tasks.wait().await;
        // No batch is left that could use it.
        context.pipeline.copies_door.shut();
        let pipeline = &context.pipeline;
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
        if !forwarder.is_finished() {
            match forwarder.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(error) => {
                    error!(%error, "the forwarder failed");
                    return false;
                }
            }
        }
        drop_rest(queue, pipeline);
        if let Some(copies) = copies {
            if !copies.forwarder.is_finished()
                && let Err(error) = (&mut copies.forwarder).await
            {
                error!(%error, "the forwarder of suppressed copies failed");
            }
            drop_rest(&copies.queue, pipeline);
        }
        true
    }
}

/// Drops what is left in `queue`. Something is left only if the forwarder ended too early.
fn drop_rest(queue: &Queue, pipeline: &Pipeline) {
    let ledger = pipeline.delivery.ledger();
    loop {
        let chunks = queue.try_pop(usize::MAX);
        if chunks.is_empty() {
            return;
        }
        for chunk in chunks {
            if let Some(summaries) = ledger.dropped(&chunk, DropReason::Shutdown) {
                ledger.dropped(&summaries, DropReason::Shutdown);
            }
        }
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
