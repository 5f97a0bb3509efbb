//! Suppressed copies that are kept (`[suppressed]`): their queue and forwarder, which start, reload and stop manage.
//!
//! # Guarantees
//!
//! - When a reload switches this forwarder off, it still writes what it has within the grace period of a stop. What is
//!   left then is counted as dropped, and readers that waited at its queue continue.
//! - If it fails meanwhile, or panics, what is left is dropped as well. A panic costs the process, as at any other time.
//! - It shares nothing with the forwarder of survivors: neither waits for the other.
//!
//! # Left out
//!
//! Where copies wait while their destination is down (`forward`).

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::{
    DaemonError,
    cut_off::{CUT_OFF_MAX, CutOff},
    forwarding::Forwarding,
};
use crate::{
    config::ForwardConfig,
    delivery::{Delivery, Queue},
    forward::{Forwarder, Stopping},
    metrics::PanicTask,
    pipeline::Pipeline,
    thread::Waiting,
};

/// The forwarder of copies, running.
#[derive(Debug)]
pub(super) struct CopiesForwarder {
    pub(super) queue: Arc<Queue>,
    config: watch::Sender<Arc<ForwardConfig>>,
    pub(super) forwarder: Forwarding,
    pipeline: Arc<Pipeline>,
    stopping: Stopping,
    cut_off: Arc<CutOff>,
}

impl CopiesForwarder {
    /// Starts the forwarder of copies on `thread` with `config`, and opens the door to its queue.
    ///
    /// # Errors
    ///
    /// Its runtime cannot be built.
    pub(super) fn start(
        config: ForwardConfig,
        thread: Waiting,
        pipeline: Arc<Pipeline>,
        tasks: &TaskTracker,
        stopping: &Stopping,
        cut_off: Arc<CutOff>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::of_copies(
            config.queue,
            Arc::clone(&pipeline.metrics),
        ));
        let (config, changes) = watch::channel(Arc::new(config));
        let ledger = pipeline.delivery.ledger();
        let stopping = stopping.child();
        let forwarder = Forwarder::new(
            Arc::clone(&queue),
            Arc::clone(ledger),
            Arc::clone(&pipeline.metrics),
            Arc::clone(&pipeline.custody),
            // Copies are not spooled.
            None,
            changes.clone(),
            stopping.clone(),
        );
        let (own, panics) = (Arc::clone(&queue), pipeline.panics.clone());
        let forwarder =
            Forwarding::start(forwarder, own, thread, tasks, PanicTask::Copies, panics)?;
        let delivery = Delivery::new(Arc::clone(&queue), Arc::clone(ledger), changes);
        pipeline.copies_door.open(delivery);
        Ok(Self {
            queue,
            config,
            forwarder,
            pipeline,
            stopping,
            cut_off,
        })
    }

    /// Puts `config` in force.
    pub(super) fn change(&self, config: ForwardConfig) {
        self.queue.resize(config.queue);
        self.config.send_replace(Arc::new(config));
    }

    /// Writes what is left within `grace`, then ends. The door to its queue is shut already.
    pub(super) async fn leave(mut self, grace: Duration) {
        self.stopping.begin();
        match timeout(grace, self.forwarder.ended()).await {
            Ok(Ok(())) => info!("suppressed copies are no longer kept"),
            // A panic is reported already, and the queue closed.
            Ok(Err(_)) => {}
            Err(_) => {
                // Readers stop waiting for room, and what is left is dropped.
                self.forwarder.close();
                self.stopping.cut_off();
                if timeout(CUT_OFF_MAX, self.forwarder.ended()).await.is_err() {
                    error!(
                        "the forwarder of suppressed copies did not end; this is a fault of tersed"
                    );
                }
            }
        }
        self.forwarder.drop_rest(self.pipeline.delivery.ledger());
        self.cut_off.tell_copies(self.forwarder.time());
    }
}

/// Waits until the forwarder of copies ends by itself, and returns why; forever if there is no such forwarder.
pub(super) async fn ended_early(copies: &mut Option<CopiesForwarder>) -> DaemonError {
    match copies {
        Some(copies) => copies.forwarder.ended_early().await,
        None => std::future::pending().await,
    }
}

/// The name of its thread.
pub(super) const THREAD: &str = "tersed-copies";
