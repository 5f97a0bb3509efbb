//! The threads of a start: retried for a while, because a machine that is booting may run out of threads for a moment.
//!
//! # Guarantees
//!
//! - If a thread cannot be made, the start logs it once, retries for [`PATIENCE`] in all, and then fails with an error
//!   that names the limits on threads. It neither panics nor hangs.
//!
//! # Left out
//!
//! Threads after the start: a reload that gets none is refused, and a pool has kept its thread (`thread`).

use std::{io, sync::mpsc::sync_channel, thread, time::Duration};

use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use crate::{
    clock::Clock,
    core::tick::Tick,
    thread::{Waiting, prove},
};

/// How long a start retries; shared by all its threads.
#[derive(Debug)]
pub(super) struct Patience {
    until: Tick,
    has_waited: bool,
}

impl Patience {
    /// The time runs from now on.
    pub(super) fn new() -> Self {
        Self {
            until: Clock::now().after(PATIENCE),
            has_waited: false,
        }
    }

    /// Retries `attempt` until it succeeds or the time is up. Blocks the thread.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub(super) fn insist<T>(
        &mut self,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut was_refused = false;
        loop {
            let error = match attempt() {
                Ok(done) => {
                    if was_refused {
                        info!("enough threads now; starting");
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            was_refused = true;
            if !std::mem::replace(&mut self.has_waited, true) {
                warn!(%error, patience = ?PATIENCE, "not enough threads to start; retrying");
            }
            if Clock::now() >= self.until {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{error}; gave up after {PATIENCE:?}"),
                ));
            }
            thread::sleep(RETRY_PERIOD);
        }
    }
}

/// Builds the runtime with `workers` threads.
///
/// tokio panics when it cannot make a worker, and then waits forever for those that it has made. So this first proves
/// that all of them can be made. If another process takes the threads in between, only the building thread hangs.
///
/// # Errors
///
/// The threads or the descriptors are not available.
pub(super) fn runtime(workers: usize, patience: &mut Patience) -> io::Result<Runtime> {
    // One more thread builds the runtime.
    patience.insist(|| prove(WORKER, workers + 1))?;
    let (give, built) = sync_channel(1);
    let builder = patience.insist(|| Waiting::new("tersed-start"))?;
    builder.run(move || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name(WORKER)
            .enable_all()
            .build();
        drop(give.send(runtime));
    });
    built.recv_timeout(BUILD_MAX).unwrap_or_else(|_| {
        Err(io::Error::other(format!(
            "{workers} threads {WORKER} could be made a moment ago and cannot be made now: another process of this \
             user or cgroup took them"
        )))
    })
}

/// The name of tokio's worker threads.
const WORKER: &str = "tersed-worker";

/// How long a start retries to make threads.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two attempts.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// The limit for building the runtime, which takes milliseconds.
const BUILD_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_succeeds_in_the_end_has_succeeded() {
        let mut attempts = 0;
        let done = Patience::new().insist(|| {
            attempts += 1;
            if attempts < 3 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(attempts)
        });
        assert_eq!(done.unwrap(), 3);
    }

    /// All threads of a start share one patience.
    #[test]
    fn patience_ends() {
        let mut patience = Patience {
            until: Clock::now(),
            has_waited: false,
        };
        for _ in 0..2 {
            let mut attempts = 0;
            let failed: io::Result<()> = patience.insist(|| {
                attempts += 1;
                Err(io::Error::new(io::ErrorKind::WouldBlock, "no thread"))
            });
            assert_eq!(
                failed.unwrap_err().to_string(),
                "no thread; gave up after 5s"
            );
            assert_eq!(attempts, 1);
        }
    }
}
