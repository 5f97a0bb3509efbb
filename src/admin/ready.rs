//! Ready: what `/readyz` answers.
//!
//! ```text
//! ready: listeners are open          whether messages are taken: the status code says the same
//! upstream tcp://a:601: up, active   then one line for each thing that an operator should know
//! queued: 12 frames wait for an upstream
//! ```
//!
//! # Guarantees
//!
//! - The status is 200 exactly while messages are taken. Nothing that the other lines say changes it: a relay whose
//!   upstreams are away takes messages and queues them.
//! - The page is made from counters and what is remembered of them: it takes no lock that relaying takes.
//!
//! # Left out
//!
//! Numbers over time (`/metrics`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::http::StatusCode;

use super::AdminState;
use crate::logging::Escaped;
use crate::metrics::{Metrics, UpstreamMetrics};

/// Whether the relay takes messages: shared, set by whoever starts and stops it.
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
    lines.extend(upstreams(metrics));
    lines.extend(queue(metrics));
    lines.extend(spool(metrics));
    lines.extend((state.remarks)());
    let mut text = lines.join("\n");
    text.push('\n');
    (status, text)
}

/// A line for each upstream.
fn upstreams(metrics: &Metrics) -> Vec<String> {
    let line = |upstream: &UpstreamMetrics| {
        let up = if upstream.up.get() == 1 { "up" } else { "down" };
        let active = if upstream.active.get() == 1 {
            ", active"
        } else {
            ""
        };
        let url = Escaped::whole(upstream.url().as_bytes());
        format!("upstream {url}: {up}{active}")
    };
    let upstreams = metrics.upstreams();
    upstreams.iter().map(|upstream| line(upstream)).collect()
}

/// What waits, if something does.
fn queue(metrics: &Metrics) -> Option<String> {
    let queued = metrics.balance().queued;
    (queued > 0).then(|| format!("queued: {queued} frames wait for an upstream"))
}

/// How the spool is, if it is not well.
fn spool(metrics: &Metrics) -> Option<String> {
    (metrics.spool.failing.get() == 1).then(|| String::from("spool: failing"))
}

const READY: u8 = 1;
const STOPPING: u8 = 2;
