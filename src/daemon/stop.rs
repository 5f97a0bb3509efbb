//! Stop: what was taken in is forwarded, reported and saved, within one deadline.
//!
//! # Guarantees
//!
//! - Each stage ends because its input closed: readers, windows, queue, forwarder.
//! - All upstreams that are away are tried at once, and again and again until the deadline.
//! - What the deadline cuts off is counted as dropped and told in one line, or left in the spool.
//! - Windows are saved only if everything before went well.
//!
//! # Left out
//!
//! What the exit code says (`main`).

use std::time::Duration;

use tokio::{
    select,
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{Daemon, copies::CopiesForwarder, log_suppressed_warnings, notify};
use crate::{
    clock::Clock,
    dedup::{EndReason, Progress},
    forward::{ForwardEnded, Outbox},
    listen::Context,
    signal::{Event, Signals},
    thread::Running,
};

impl Daemon {
    /// Drains: nothing new is taken in, everything that was is forwarded, within the deadline. Windows are saved
    /// unless something broke down: then nobody knows what became of their survivors.
    pub(super) async fn stop(mut self, mut is_whole: bool) {
        self.readiness.set_stopping();
        notify(&[sd_notify::NotifyState::Stopping]);
        info!(grace = ?self.config.shutdown_grace, "stopping");
        for running in &self.listeners {
            running.stop();
        }
        self.context.tasks.close();
        // Before anything waits: readers may wait for room in the queue, and that for an upstream.
        self.stopping.begin();
        let stopping = self.stopping.clone();
        let grace = self.config.shutdown_grace;
        let deadline = Clock::now().after(grace);
        let drained = {
            let (forwarder, copies) = (&mut self.forwarder, &mut self.copies);
            let drain = Self::drain(&self.context, &self.outbox, forwarder, copies);
            tokio::pin!(drain);
            select! {
                whole = &mut drain => {
                    is_whole &= whole;
                    true
                }
                () = sleep(grace) => {
                    warn!(?grace, "the time to drain is over");
                    false
                }
                // Whoever asks twice does not want to wait.
                () = told_to_stop(&mut self.signals) => {
                    warn!("told to stop again; no more waiting");
                    false
                }
            }
        };
        if !drained {
            // The forwarder drops what is left, which frees whoever waits at the queue; they and the
            // windows that are still open then end without waiting for an upstream.
            stopping.cut_off();
            self.outbox.close();
            if let Some(copies) = &self.copies {
                copies.outbox.close();
            }
            let (forwarder, copies) = (&mut self.forwarder, &mut self.copies);
            let drain = Self::drain(&self.context, &self.outbox, forwarder, copies);
            let ended = timeout(CUT_OFF_MAX, drain).await;
            if ended.is_err() {
                error!("tasks did not end after being cut off; this is a fault of tersed");
            }
            is_whole &= ended.unwrap_or(false);
        }
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
        let stats = self.context.pipeline.shards.stats();
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

    /// Each stage ends because its input closed: readers, windows, queue, forwarder. Can be called
    /// again after it was interrupted. False if the forwarder broke down.
    async fn drain(
        context: &Context,
        outbox: &Outbox,
        forwarder: &mut Running<Result<(), ForwardEnded>>,
        copies: &mut Option<CopiesForwarder>,
    ) -> bool {
        context.tasks.wait().await;
        // Nobody else has it any more.
        context.pipeline.copies_door.shut();
        let pipeline = &context.pipeline;
        let (mut ended, mut progress) = (Vec::new(), Progress::default());
        loop {
            // They stay open: a survivor that is dropped from here on reopens its window.
            let shards = &pipeline.shards;
            let more = shards.report_all(EndReason::Stop, &mut progress, END_BITE, &mut ended);
            pipeline.report(&mut ended).await;
            if !more {
                break;
            }
        }
        outbox.close();
        if !forwarder.is_finished() {
            match forwarder.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(error) => {
                    error!(%error, "the forwarder broke down");
                    return false;
                }
            }
        }
        if let Some(copies) = copies
            && !copies.forwarder.is_finished()
            && let Err(error) = (&mut copies.forwarder).await
        {
            error!(%error, "the forwarder of suppressed copies broke down");
        }
        true
    }
}

/// Waits until somebody asks for a stop; a reload is too late now.
async fn told_to_stop(signals: &mut Signals) {
    while signals.next().await == Event::Reload {
        info!("not reloading while stopping");
    }
}

/// Marks looked at under one hold of a shard's lock while stopping.
const END_BITE: usize = 4096;

/// How long tasks may take to end once nothing waits any more.
pub(super) const CUT_OFF_MAX: Duration = Duration::from_secs(1);
