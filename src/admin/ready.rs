//! Ready: what `/readyz` answers.
//!
//! ```text
//! ready: listeners are open          whether messages are taken: the status code says the same
//! upstream tcp://a:601: up, active for 2h 5m      then one line for each thing that an operator should know
//! queued: 12 frames wait for an upstream; ...
//! spool: 0 frames, 64 octets of 1 GiB (spool.max_size)
//! ```
//!
//! # Guarantees
//!
//! - The status is 200 exactly while messages are taken. Nothing that the other lines say changes it: a relay whose
//!   upstreams are away takes messages and queues them.
//! - The page is made from counters and states, and what is remembered of them: it takes no lock that a batch takes.
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

/// Whether the relay takes messages: shared; the daemon sets it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

impl Readiness {
    /// The listeners are open and their tasks run.
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    /// No more messages are taken; what is queued is delivered.
    pub fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::Release);
    }

    /// Whether messages are taken now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == READY
    }

    /// One sentence for people.
    fn sentence(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            READY => "ready: listeners are open",
            STOPPING => "stopping: no new messages are taken, queued ones are being delivered",
            _ => "starting: listeners are not open yet",
        }
    }
}

/// The page and its status.
pub(super) fn page(state: &AdminState) -> (StatusCode, String) {
    let (readiness, metrics) = (&state.readiness, &state.metrics);
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut lines = vec![String::from(readiness.sentence())];
    // What hurts comes first.
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

/// What became of what came, in short.
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
