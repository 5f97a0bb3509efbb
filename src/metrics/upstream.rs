//! What one upstream counts, and its state.
//!
//! # Guarantees
//!
//! - The condition changes with events (an attempt, a loss, a failover), never with a batch, so a lock guards it.
//! - An upstream that is not needed is [`UpstreamState::Standby`]. It is [`UpstreamState::Down`] only if the last attempt
//!   to reach it failed, or its connection was lost, and it has not proved since that it works.
//!
//! # Left out
//!
//! Which state it is in: `forward` decides that.

use std::sync::{Arc, Mutex, MutexGuard};

use super::counter::{Counter, Gauge};
use crate::clock::Clock;
use crate::core::tick::Tick;
use crate::lock::lock;

/// What one upstream counts.
#[derive(Debug, Default)]
pub(crate) struct UpstreamMetrics {
    url: String,
    condition: Mutex<UpstreamCondition>,
    /// Connections established, or files and sockets opened.
    pub connects: Counter,
    /// Failed attempts to connect, and connections lost.
    pub errors: Counter,
    /// Frames written, summaries and frames sent again included.
    pub frames: Counter,
    /// Octets written, framing included.
    pub octets: Counter,
    /// Octets written, or given to a RELP session, that the upstream had not acknowledged when the lane last looked.
    pub unacknowledged: Gauge,
    /// How often the file was renamed and a new one begun.
    pub rotations: Counter,
    /// Attempts to rotate, to compress or to delete that failed.
    pub rotation_errors: Counter,
    /// Rotated files deleted because more than `rotate_keep` were there.
    pub rotated_deleted: Counter,
}

/// The state of an upstream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum UpstreamState {
    /// Messages are sent to it, and it works.
    Active,
    /// Not needed: messages are sent to an earlier upstream of the list, or that one will be tried first.
    #[default]
    Standby,
    /// A connection is being made, and it is not known to be down.
    Connecting,
    /// The last attempt to reach it failed, or the connection was lost, and it has not proved since that it works.
    Down,
}

impl UpstreamState {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 4] = [Self::Active, Self::Standby, Self::Connecting, Self::Down];

    /// Its name in labels and on the status page.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Connecting => "connecting",
            Self::Down => "down",
        }
    }
}

/// What is known about an upstream now.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamCondition {
    pub state: UpstreamState,
    /// Whether messages are sent to it. One that is down is sent messages to find out whether it takes them.
    pub is_in_charge: bool,
    /// Since when it is in this state.
    pub since: Tick,
    /// Failed attempts since it was lost.
    pub attempts: u32,
    /// When it is tried again. `None` while no attempt is planned.
    pub retry_at: Option<Tick>,
    /// When the attempt under way began.
    pub trying_since: Option<Tick>,
    /// What went wrong last, and when.
    pub last_error: Option<(String, Tick)>,
}

/// An attempt to reach an upstream, under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Trying(Arc<UpstreamMetrics>);

impl Drop for Trying {
    fn drop(&mut self) {
        self.0.lock().trying_since = None;
    }
}

impl UpstreamMetrics {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..Self::default()
        }
    }

    /// Its URL: the label of all its metrics.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    #[must_use]
    pub(crate) fn condition(&self) -> UpstreamCondition {
        self.lock().clone()
    }

    /// Notes that an attempt to reach it begins.
    #[must_use]
    pub(crate) fn trying(self: &Arc<Self>) -> Trying {
        self.lock().trying_since = Some(Clock::now());
        Trying(Arc::clone(self))
    }

    /// Counts an error and keeps its text.
    pub(crate) fn failed(&self, error: &str, now: Tick) {
        self.errors.inc();
        self.lock().last_error = Some((error.to_owned(), now));
    }

    /// Notes its state, whether messages are sent to it, the number of failed attempts, and when the next one is. It has
    /// been in this state since `since`; if that is `None`, since the state changed.
    pub(crate) fn tell(
        &self,
        state: UpstreamState,
        is_in_charge: bool,
        since: Option<Tick>,
        attempts: u32,
        retry_at: Option<Tick>,
    ) {
        let mut condition = self.lock();
        if let Some(since) = since {
            condition.since = since;
        } else if condition.state != state || condition.since == Tick::ZERO {
            condition.since = Clock::now();
        }
        condition.state = state;
        condition.is_in_charge = is_in_charge;
        condition.attempts = attempts;
        condition.retry_at = retry_at;
        drop(condition);
        if !is_in_charge {
            self.unacknowledged.set(0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, UpstreamCondition> {
        lock(&self.condition)
    }
}
