//! The threads of the start: made with patience, because a machine that starts everything at once may have none left
//! for a moment.
//!
//! # Guarantees
//!
//! - Where no thread can be made, the start waits for [`PATIENCE`] in all, says so once, and then fails with the
//!   limits that forbid threads. It neither panics nor hangs.
//!
//! # Left out
//!
//! Threads after the start: a reload is refused, a pool has kept its thread (`thread`).

use std::{io, sync::mpsc::sync_channel, thread, time::Duration};

use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use crate::{
    clock::Clock,
    thread::{Waiting, prove},
    tick::Tick,
};

/// How long a start goes on trying.
#[derive(Debug)]
pub(super) struct Patience {
    until: Tick,
    has_waited: bool,
}

impl Patience {
    /// Begins to wait with the first thread that cannot be made.
    pub(super) fn new() -> Self {
        Self {
            until: Clock::now().after(PATIENCE),
            has_waited: false,
        }
    }

    /// Tries `attempt` until it succeeds or time is up. Blocks: nothing else is to be done meanwhile.
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub(super) fn insist<T>(
        &mut self,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut was_refused = false;
        loop {
            let error = match attempt() {
                Ok(done) => {
                    if was_refused {
                        info!("threads made; starting");
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            was_refused = true;
            if !std::mem::replace(&mut self.has_waited, true) {
                warn!(%error, patience = ?PATIENCE, "not enough threads to start; trying again");
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

/// The runtime, with `workers` threads.
///
/// tokio panics when it cannot make a worker, and then waits for ever for those that it has made. So it is first proven
/// that all can be made; and if another process takes them in between, it is not this thread that waits.
///
/// # Errors
///
/// Not all threads can be made, or there are no descriptors for it.
pub(super) fn runtime(workers: usize, patience: &mut Patience) -> io::Result<Runtime> {
    // One more builds it.
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
            "the {workers} threads {WORKER} could be made a moment ago and now they cannot; another process of \
             this user or cgroup has taken them"
        )))
    })
}

/// What the kernel calls tokio's threads.
const WORKER: &str = "tersed-worker";

/// How long a start waits for threads.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it tries meanwhile.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// How long building the runtime may take; it takes milliseconds.
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

    /// All threads of a start share the time.
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
