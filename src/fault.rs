//! Faults that tests inject. They exist only in builds with debug assertions; a release build has none of this.
//!
//! `TERSED_FAULT=POINT:MARKER` arms one point: when a frame that contains `MARKER` is judged, the code at `POINT` panics
//! the next time that it runs.
//!
//! | point | where |
//! |---|---|
//! | `connection` | judging the frame, outside a lock |
//! | `shard` | judging, while a shard's lock is held |
//! | `forwarder` | the thread of a forwarder |
//! | `copies` | the thread of the forwarder of suppressed copies |
//! | `windows` | the timer that ends windows |
//! | `datagram` | a datagram thread, between two batches |
//! | `listener` | accepting a connection |
//! | `configuration` | looking at the configuration file, on a thread of the pool |

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    };

    use tokio::sync::Notify;

    static FAULT: LazyLock<Option<(String, Vec<u8>)>> = LazyLock::new(|| {
        let fault = std::env::var(super::VARIABLE).ok()?;
        let (point, marker) = fault.split_once(':')?;
        Some((point.to_owned(), marker.as_bytes().to_owned()))
    });

    /// The marker was seen, and the point has not panicked since.
    static IS_DUE: AtomicBool = AtomicBool::new(false);

    /// Wakes the futures that [`tripping`] runs when the marker is seen.
    static SEEN: Notify = Notify::const_new();

    /// Looks for the marker in `frame`.
    pub(crate) fn look(frame: &[u8]) {
        if let Some((_, marker)) = &*FAULT
            && memchr::memmem::find(frame, marker).is_some()
        {
            IS_DUE.store(true, Ordering::Release);
            SEEN.notify_waiters();
        }
    }

    /// Whether `point` has to panic now.
    pub(crate) fn is_due(point: &str) -> bool {
        let is_armed = FAULT.as_ref().is_some_and(|(armed, _)| armed == point);
        is_armed && IS_DUE.swap(false, Ordering::AcqRel)
    }

    /// Runs `future`, and panics as soon as `point` is due, whatever `future` waits for.
    pub(crate) async fn tripping<F: Future>(point: &str, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let mut seen = std::pin::pin!(SEEN.notified());
        std::future::poll_fn(|context| {
            while seen.as_mut().poll(context).is_ready() {
                seen.set(SEEN.notified());
            }
            trip(point);
            future.as_mut().poll(context)
        })
        .await
    }

    /// Panics if `point` is due. The message has two lines, and must be one in the log.
    #[track_caller]
    pub(crate) fn trip(point: &str) {
        assert!(!is_due(point), "injected\nat {point}");
    }
}

#[cfg(debug_assertions)]
pub(crate) use armed::{is_due, look, trip, tripping};

/// The variable that arms a point.
#[cfg(debug_assertions)]
pub(crate) const VARIABLE: &str = "TERSED_FAULT";

#[cfg(not(debug_assertions))]
mod disarmed {
    #[inline]
    pub(crate) const fn look(_: &[u8]) {}

    #[inline]
    pub(crate) async fn tripping<F: Future>(_: &str, future: F) -> F::Output {
        future.await
    }

    #[inline]
    pub(crate) const fn trip(_: &str) {}
}

#[cfg(not(debug_assertions))]
pub(crate) use disarmed::{look, trip, tripping};
