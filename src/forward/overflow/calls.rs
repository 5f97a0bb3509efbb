//! Calls that wait for the disk, on threads of their own.

use std::{io, sync::LazyLock};

use crate::thread::Pool;

/// Makes the threads that calls to the disk need at least, so that none has to be made when memory is full.
///
/// # Errors
///
/// The system makes no thread.
pub(in crate::forward) fn keep_threads() -> io::Result<()> {
    DISK.keep(DISK_THREADS_MIN)
}

/// Makes a call that waits for the disk.
pub(super) async fn on_disk<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let called = DISK.call_when_possible(call).await;
    called.unwrap_or_else(|broken| broken.resume())
}

static DISK: LazyLock<Pool> = LazyLock::new(|| Pool::new("tersed-spool", DISK_THREADS_MAX));

/// Threads that are kept: one writes while another reads.
const DISK_THREADS_MIN: usize = 2;

/// Calls at the same time: append, read, acknowledge, tend, and one more to drop the oldest.
const DISK_THREADS_MAX: usize = 5;
