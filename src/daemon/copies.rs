//! Suppressed copies that are kept (`[suppressed]`): their queue and forwarder, which start, reload and stop manage.
//!
//! # Guarantees
//!
//! - When a reload switches this forwarder off, it still writes what it has within the grace period of a stop. What is
//!   left then is counted as dropped, and readers that waited at its queue continue.
//! - It shares nothing with the forwarder of survivors: neither waits for the other.
//!
//! # Left out
//!
//! Where copies wait while their destination is down (`forward`).

use std::{io, sync::Arc, time::Duration};

use tokio::{runtime, sync::watch, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::cut_off::{CUT_OFF_MAX, CutOff};
use crate::{
    config::ForwardConfig,
    delivery::{Delivery, Queue},
    fault,
    forward::{ForwardEnded, Forwarder, Stopping},
    pipeline::Pipeline,
    thread::{Broken, Running, Waiting},
};

/// The result of a forwarder.
pub(super) type Ended = Result<Result<(), ForwardEnded>, Broken>;

/// The forwarder of copies, running.
#[derive(Debug)]
pub(super) struct CopiesForwarder {
    pub(super) queue: Arc<Queue>,
    config: watch::Sender<Arc<ForwardConfig>>,
    pub(super) forwarder: Running<Result<(), ForwardEnded>>,
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
        pipeline: &Pipeline,
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
        let forwarder = run(forwarder, thread, tasks)?;
        let delivery = Delivery::new(Arc::clone(&queue), Arc::clone(ledger), changes);
        pipeline.copies_door.open(delivery);
        Ok(Self {
            queue,
            config,
            forwarder,
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
        if timeout(grace, &mut self.forwarder).await.is_ok() {
            info!("suppressed copies are no longer kept");
            return;
        }
        // Readers stop waiting for room, and what is left is dropped.
        self.queue.close();
        self.stopping.cut_off();
        if timeout(CUT_OFF_MAX, &mut self.forwarder).await.is_err() {
            error!("the forwarder of suppressed copies did not end; this is a fault of tersed");
        }
        self.cut_off.tell_copies();
    }
}

/// Waits until the forwarder of copies ends by itself; forever if there is no such forwarder.
pub(super) async fn ended(copies: &mut Option<CopiesForwarder>) -> Ended {
    match copies {
        Some(copies) => (&mut copies.forwarder).await,
        None => std::future::pending().await,
    }
}

/// Runs `forwarder` on a thread of its own, so that waking it wakes no worker.
///
/// # Errors
///
/// Its runtime cannot be built.
pub(super) fn run(
    forwarder: Forwarder,
    thread: Waiting,
    tasks: &TaskTracker,
) -> io::Result<Running<Result<(), ForwardEnded>>> {
    let forwarding = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tracked = tasks.token();
    Ok(thread.run(move || {
        let ended = forwarding.block_on(fault::tripping("forwarder", forwarder.run()));
        // A blocking write may never end.
        forwarding.shutdown_background();
        drop(tracked);
        ended
    }))
}

/// The name of its thread.
pub(super) const THREAD: &str = "tersed-copies";
