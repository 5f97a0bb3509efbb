//! A forwarder on its thread, with the queue that it empties; and what its end means.
//!
//! # Guarantees
//!
//! - The end of a forwarder is noticed once, whenever it comes. A panic is reported as one that costs the process.
//! - Its queue is closed then, so that no reader waits for room in it. What is left in the queue can be dropped and
//!   counted. What the forwarder had in hand when it panicked stays counted as queued.
//!
//! # Left out
//!
//! Whether it was time to end: the caller knows.

use std::{io, sync::Arc};

use tokio::runtime;
use tokio_util::task::TaskTracker;

use super::{DaemonError, cut_off::Within};
use crate::{
    delivery::{Queue, ledger::Ledger},
    fault,
    forward::{ForwardEnded, Forwarder},
    metrics::{DropReason, PanicTask},
    panics::Panics,
    thread::{Running, Waiting},
};

/// A forwarder that was started.
#[derive(Debug)]
pub(super) struct Forwarding {
    queue: Arc<Queue>,
    task: PanicTask,
    panics: Panics,
    /// `None` once its end was noticed.
    running: Option<Running<Result<(), ForwardEnded>>>,
    /// It ended with an error, or panicked.
    has_failed: bool,
}

impl Forwarding {
    /// Runs `forwarder`, which empties `queue`, on a thread of its own, so that waking it wakes no worker. `tasks` wait
    /// for its end.
    ///
    /// # Errors
    ///
    /// Its runtime cannot be built.
    pub(super) fn start(
        forwarder: Forwarder,
        queue: Arc<Queue>,
        thread: Waiting,
        tasks: &TaskTracker,
        task: PanicTask,
        panics: Panics,
    ) -> io::Result<Self> {
        let forwarding = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tracked = tasks.token();
        let running = thread.run(move || {
            // The point `forwarder` is passed by the forwarder of copies, too.
            let run = fault::tripping("forwarder", forwarder.run());
            let ended = forwarding.block_on(fault::tripping(task.label(), run));
            // A blocking write may never end.
            forwarding.shutdown_background();
            drop(tracked);
            ended
        });
        Ok(Self {
            queue,
            task,
            panics,
            running: Some(running),
            has_failed: false,
        })
    }

    /// Waits until the forwarder has ended, and closes its queue. Ready at once if its end was noticed before; then it
    /// is no error again.
    ///
    /// # Errors
    ///
    /// The forwarder failed or panicked. A panic is reported already.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(super) async fn ended(&mut self) -> Result<(), DaemonError> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let ended = running.await;
        self.running = None;
        self.has_failed = !matches!(ended, Ok(Ok(())));
        self.queue.close();
        let broken = match ended {
            Ok(ended) => return Ok(ended?),
            Err(broken) => broken,
        };
        let cause = format!("task {} {broken}", self.task.label());
        match broken.panic() {
            Some(panicked) => self.panics.fatal(self.task, panicked),
            None => self.panics.end(cause.clone()),
        }
        Err(DaemonError::Task(cause))
    }

    /// Waits until the forwarder has ended that only a stop should end. Returns why.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(super) async fn ended_early(&mut self) -> DaemonError {
        match self.ended().await {
            Ok(()) => DaemonError::Task(format!("task {} ended by itself", self.task.label())),
            Err(error) => error,
        }
    }

    /// The time in which it could forward.
    pub(super) const fn time(&self) -> Within {
        if self.has_failed {
            Within::LifeOfForwarder
        } else {
            Within::Grace
        }
    }

    /// Closes the queue: readers do not wait for room any more, and the forwarder ends when the queue is empty.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Drops what is left in the queue. Something is left only if the forwarder ended too early.
    pub(super) fn drop_rest(&self, ledger: &Ledger) {
        loop {
            let chunks = self.queue.try_pop(usize::MAX);
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
}
