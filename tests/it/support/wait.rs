//! Waiting for a condition, with a limit, and with a sentence when the limit is reached.
//!
//! No test sleeps for a time that is hoped to be long enough. It names the condition and the longest time that this may
//! take on a loaded machine, and continues as soon as the condition holds.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The limit for something that usually takes milliseconds, on a machine that is busy compiling.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Seconds since the Unix epoch, as in the metrics.
#[expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that the relay reads"
)]
pub(crate) fn seconds_now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// If it does not within `limit`; the text names `what` was waited for.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// Waits while `condition` holds, at most `limit`. Returns whether it ended.
pub(crate) fn wait_while(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = now();
    while condition() {
        if start.elapsed() >= limit {
            return false;
        }
        thread::park_timeout((start.elapsed() / 100).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
    true
}

/// Waits until `probe` returns a value.
///
/// # Panics
///
/// If it does not within `limit`; the text names `what` was waited for.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = now();
    // The pause between two looks grows to a hundredth of the time waited so far. So a short wait is not prolonged, and
    // a long one costs no processor time.
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        let waited = start.elapsed();
        assert!(waited < limit, "waited {limit:?} in vain for: {what}");
        thread::park_timeout((waited / 100).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
}

/// The monotonic time. This is the only place in the tests that reads that clock.
#[expect(
    clippy::disallowed_methods,
    reason = "tests drive a real process in real time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Whether tests with a short form run in full: `TERSED_TEST_LONG=1`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("TERSED_TEST_LONG").is_some_and(|value| value == "1")
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
