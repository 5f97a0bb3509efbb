//! What one upstream counts, and how it is.
//!
//! # Guarantees
//!
//! - The condition changes with events (an attempt, a loss, a change of charge), never with a batch: so a lock guards it.
//! - An upstream that is not needed is [`UpstreamState::Standby`]. It is [`UpstreamState::Down`] only if the last attempt
//!   to reach it failed, or its connection was lost, and it has not proved since then that it works.
//!
//! # Left out
//!
//! Who decides (`forward`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counter::{Counter, Gauge};
use crate::clock::Clock;
use crate::tick::Tick;

/// What one upstream counts.
#[derive(Debug)]
pub struct UpstreamMetrics {
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
    /// Octets written, or given to a RELP session, that the upstream has not acknowledged, as far as was seen last.
    pub unacknowledged: Gauge,
    /// A file given its rotated name, and a new one begun.
    pub rotations: Counter,
    /// Attempts to rotate, to compress or to delete that failed.
    pub rotation_errors: Counter,
    /// Rotated files deleted, as more than may be kept.
    pub rotated_deleted: Counter,
}

/// How an upstream is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UpstreamState {
    /// In charge, and not lost since it proved that it works.
    Active,
    /// Not needed: an earlier upstream of the list is in charge, or will be tried first.
    #[default]
    Standby,
    /// Being connected, and not known to be down.
    Connecting,
    /// Could not be reached when it was tried last, or was lost since, and has not proved since then that it works.
    Down,
}

impl UpstreamState {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Active, Self::Standby, Self::Connecting, Self::Down];

    /// Its name in labels and on the status page.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Connecting => "connecting",
            Self::Down => "down",
        }
    }
}

/// What is known of an upstream now.
#[derive(Clone, Debug, Default)]
pub struct UpstreamCondition {
    /// How it is.
    pub state: UpstreamState,
    /// It is in charge. One that is down and in charge is sent messages to find out whether it takes them.
    pub is_in_charge: bool,
    /// Since when it is in this state.
    pub since: Tick,
    /// Failed attempts since it was lost.
    pub attempts: u32,
    /// When it is tried again. `None` while it is not to be tried.
    pub retry_at: Option<Tick>,
    /// When the attempt under way began.
    pub trying_since: Option<Tick>,
    /// What went wrong last, and when.
    pub last_error: Option<(String, Tick)>,
}

/// An attempt is under way, until dropped.
#[derive(Debug)]
pub struct Trying(Arc<UpstreamMetrics>);

impl Drop for Trying {
    fn drop(&mut self) {
        self.0.lock().trying_since = None;
    }
}

impl UpstreamMetrics {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            condition: Mutex::default(),
            connects: Counter::default(),
            errors: Counter::default(),
            frames: Counter::default(),
            octets: Counter::default(),
            unacknowledged: Gauge::default(),
            rotations: Counter::default(),
            rotation_errors: Counter::default(),
            rotated_deleted: Counter::default(),
        }
    }

    /// Its URL, which is the label of all its metrics.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it is now.
    #[must_use]
    pub fn condition(&self) -> UpstreamCondition {
        self.lock().clone()
    }

    /// Notes that an attempt to reach it begins.
    #[must_use]
    pub fn trying(self: &Arc<Self>) -> Trying {
        self.lock().trying_since = Some(Clock::now());
        Trying(Arc::clone(self))
    }

    /// Counts what went wrong and keeps its text.
    pub fn failed(&self, error: &str, now: Tick) {
        self.errors.inc();
        self.lock().last_error = Some((error.to_owned(), now));
    }

    /// Notes its state, whether it is in charge, the attempts that failed and when the next one is. It is in this state
    /// `since` then, or else from when it came into it.
    pub fn tell(
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
        self.condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
