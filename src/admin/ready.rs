//! The page `/readyz`.
//!
//! ```text
//! ready: listeners are open          whether messages are accepted: the status code says the same
//! upstream tcp://a:601: up, active for 2h 5m      then one line for each thing that an operator should know
//! queued: 12 frames wait for an upstream; ...
//! spool: 0 frames, 64 octets of 1 GiB (spool.max_size)
//! ```
//!
//! # Guarantees
//!
//! - The status is 200 exactly while messages are accepted. No other line changes it: a relay whose upstreams are down
//!   accepts messages and queues them.
//! - The page is made from counters and remembered states: it takes no lock that a batch takes.
//!
//! # Left out
//!
//! Numbers over time (`/metrics`).

mod delivery;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::http::StatusCode;

use super::AdminState;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Whether the relay accepts messages. Shared; the daemon sets it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicU8>);

impl Readiness {
    /// The listeners are open and their tasks run.
    pub(crate) fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    /// No more messages are accepted; queued ones are still delivered.
    pub(crate) fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::Release);
    }

    /// Whether messages are accepted now.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == READY
    }

    /// The first line of the page.
    fn sentence(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            READY => "ready: listeners are open",
            STOPPING => "stopping: no new messages are accepted, queued ones are being delivered",
            _ => "starting: listeners are not open yet",
        }
    }
}

/// The status and text of the page.
pub(super) fn page(state: &AdminState) -> (StatusCode, String) {
    let (readiness, metrics) = (&state.readiness, &state.metrics);
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut lines = vec![String::from(readiness.sentence())];
    // Problems come first.
    lines.extend(state.in_force.refused_line(Clock::now()));
    lines.extend((state.losses)());
    lines.extend(delivery::upstreams(metrics));
    lines.extend(delivery::queue(metrics));
    lines.extend(delivery::spool(metrics));
    lines.extend(delivery::copies(metrics));
    lines.push(frames(metrics, &state.in_force.window_text()));
    lines.push(state.in_force.line());
    let mut text = lines.join("\n");
    text.push('\n');
    (status, text)
}

/// A summary of the counters of frames.
fn frames(metrics: &Metrics, window: &str) -> String {
    let balance = metrics.balance();
    let (received, suppressed) = (balance.received, balance.suppressed);
    let tenths = u128::from(suppressed) * 1000 / u128::from(received.max(1));
    let (percent, tenth) = (tenths / 10, tenths % 10);
    let dropped = balance.dropped;
    format!(
        "frames: {received} received, {suppressed} suppressed ({percent}.{tenth} %), {dropped} dropped; dedup.window = {window}"
    )
}

const READY: u8 = 1;
const STOPPING: u8 = 2;
