//! What the metrics and the log say about the spool.
//!
//! # Guarantees
//!
//! - After each call that changes it, the metrics say how full the spool is, how old its oldest frame, and what its disk
//!   refuses.
//! - After each line `forwarding over the spool` there is one `forwarding from memory` before the next of them.
//! - A spool that is filled beyond [`FULL_PERCENT`] is logged at once, and every [`REMIND_PERIOD`] while it stays so.

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    LOG_PERIOD, Overflow,
    state::{State, Way},
};
use crate::{clock::Clock, config::WhenFull, core::tick::Tick, forward::standing::REMIND_PERIOD};

/// What was logged.
#[derive(Debug)]
pub(super) struct Log {
    way: LoggedWay,
    /// Survivors that were dropped to make room, and are not logged yet.
    pub(super) dropped: u64,
    dropped_logged_at: Option<Instant>,
    fill: Fill,
}

impl Log {
    /// `holds_some`: the start has logged that the spool recovered records.
    pub(super) fn new(holds_some: bool) -> Self {
        Self {
            way: if holds_some {
                LoggedWay::Spool { logged_at: None }
            } else {
                LoggedWay::Memory {
                    spool_logged_at: None,
                }
            },
            dropped: 0,
            dropped_logged_at: None,
            fill: Fill::default(),
        }
    }
}

/// Which way the log mentions last. With an upstream that is a little too slow the way changes many times a second, so
/// not each change is logged.
#[derive(Clone, Copy, Debug)]
enum LoggedWay {
    Memory {
        /// When the way over the spool was logged the last time.
        spool_logged_at: Option<Instant>,
    },
    Spool {
        /// `None` if the start logged it.
        logged_at: Option<Instant>,
    },
}

impl LoggedWay {
    /// Whether to log that the way leads over the spool now.
    fn enter_spool(&mut self) -> bool {
        let is_due = match *self {
            Self::Memory { spool_logged_at } => {
                spool_logged_at.is_none_or(|at| at.elapsed() >= LOG_PERIOD)
            }
            Self::Spool { .. } => false,
        };
        if is_due {
            *self = Self::Spool {
                logged_at: Some(Instant::now()),
            };
        }
        is_due
    }

    /// Whether to log that the way leads through memory now.
    const fn enter_memory(&mut self) -> bool {
        match *self {
            Self::Memory { .. } => false,
            Self::Spool { logged_at } => {
                *self = Self::Memory {
                    spool_logged_at: logged_at,
                };
                true
            }
        }
    }
}

/// Whether it was logged that the spool fills up.
#[derive(Debug, Default)]
struct Fill {
    logged_at: Option<Tick>,
}

impl Fill {
    /// Whether to log that the spool holds `octets` of `limit`.
    fn is_due(&mut self, octets: u64, limit: u64, now: Tick) -> bool {
        let percent = percent(octets, limit);
        if percent < FREE_PERCENT {
            self.logged_at = None;
        }
        let is_due = percent >= FULL_PERCENT
            && self
                .logged_at
                .is_none_or(|at| now.since(at) >= REMIND_PERIOD);
        if is_due {
            self.logged_at = Some(now);
        }
        is_due
    }
}

impl State {
    /// Logs that the way leads through memory, if the log said otherwise last. Not while the disk refuses: then the next
    /// chunks may have to wait for it.
    pub(super) fn log_memory(&mut self) {
        let is_memory = matches!(self.way, Way::Memory) && !self.disk.writing.refuses();
        if is_memory && self.log.way.enter_memory() {
            info!("forwarding from memory");
        }
    }
}

impl Overflow {
    /// Reports to the metrics how the spool is. Logs it if the spool fills up.
    pub(super) fn measure(&self) {
        let (octets, limit) = (self.spool.octets(), self.spool.max_octets());
        let (frames, oldest) = (self.spool.records(), self.spool.oldest());
        let spool = &self.metrics.spool;
        spool.octets.set(octets);
        spool.frames.set(frames);
        let micros = oldest.map_or(0, |at| u64::try_from(at.micros()).unwrap_or(0));
        spool.oldest.set(micros);
        let mut state = self.lock();
        spool.set_trouble(state.disk.trouble());
        let is_due = state.log.fill.is_due(octets, limit, Clock::now());
        drop(state);
        if is_due {
            let percent = percent(octets, limit);
            let when_full = match self.config.borrow().when_full {
                WhenFull::Wait => "wait: reading will pause when it is full",
                WhenFull::DropNewest => "drop-newest: new messages will be dropped when it is full",
                WhenFull::DropOldest => {
                    "drop-oldest: the oldest messages will be dropped when it is full"
                }
            };
            warn!(
                percent,
                octets,
                max_size = limit,
                frames,
                when_full,
                "spool is filling up"
            );
        }
    }

    /// Logs that the way leads over the spool from now on, and why. Call before it does.
    pub(super) fn log_spool(&self, state: &mut State) {
        let is_change = matches!(state.way, Way::Memory);
        if !is_change || !state.log.way.enter_spool() {
            return;
        }
        let queued_octets = self.outbox.octets();
        let is_half_full = queued_octets > self.outbox.bound() / 2;
        let is_full = is_half_full || self.outbox.is_pressed();
        let why = match (state.upstreams.are_up(), is_full) {
            (true, _) => {
                "the queue is half full: messages come faster than the upstream takes them"
            }
            (false, true) => "the queue is half full: no upstream is up",
            (false, false) => "no upstream is up",
        };
        let frames = self.spool.records();
        info!(
            why,
            queued_octets,
            queue = self.outbox.bound(),
            spooled_frames = frames,
            spooled_octets = self.spool.octets(),
            max_size = self.spool.max_octets(),
            "forwarding over the spool"
        );
    }

    /// Logs how many frames were dropped since the last such line, unless that was a moment ago.
    pub(super) fn log_dropped(&self) {
        let mut state = self.lock();
        let log = &mut state.log;
        let is_due = log
            .dropped_logged_at
            .is_none_or(|at| at.elapsed() >= LOG_PERIOD || self.outbox.is_closed());
        if log.dropped > 0 && is_due {
            let frames = std::mem::take(&mut log.dropped);
            log.dropped_logged_at = Some(Instant::now());
            error!(
                frames,
                "dropped the oldest frames because the spool is full"
            );
        }
    }
}

fn percent(octets: u64, limit: u64) -> u64 {
    (u128::from(octets) * 100)
        .checked_div(u128::from(limit))
        .map_or(100, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
}

/// From here on the log says that the spool fills up.
const FULL_PERCENT: u64 = 80;

/// Below this it has room again, and the next time is logged at once.
const FREE_PERCENT: u64 = 50;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_spool_that_fills_up_is_logged_at_once_and_every_ten_minutes() {
        let mut fill = Fill::default();
        let minute = |minute: u64| Tick::from_nanos(1).after(Duration::from_secs(60 * minute));
        let logged = [
            (0, 79, false),
            (1, 80, true),
            (2, 100, false),
            (10, 90, false),
            (11, 90, true),
            (12, 60, false),
            (13, 85, false),
            (14, 49, false),
            (15, 81, true),
        ];
        for (at, octets, expected) in logged {
            assert_eq!(fill.is_due(octets, 100, minute(at)), expected, "{at}");
        }
    }
}
