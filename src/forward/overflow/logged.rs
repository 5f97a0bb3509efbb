//! What was logged about the spool, and which lines are due.
//!
//! # Guarantees
//!
//! - After each line `forwarding over the spool` there is one `forwarding from memory` before the next of them.
//! - A spool that is filled beyond [`FULL_PERCENT`] is logged at once, and every [`REMIND_PERIOD`] while it stays so.
//!
//! # Left out
//!
//! Writing the lines: see `report`.

use tokio::time::Instant;

use super::LOG_PERIOD;
use crate::{core::tick::Tick, forward::standing::REMIND_PERIOD};

#[derive(Debug)]
pub(super) struct Log {
    pub(super) way: LoggedWay,
    /// Survivors that were dropped to make room, and are not logged yet.
    pub(super) dropped: u64,
    pub(super) dropped_logged_at: Option<Instant>,
    pub(super) fill: Fill,
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
pub(super) enum LoggedWay {
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
    pub(super) fn enter_spool(&mut self) -> bool {
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
    pub(super) const fn enter_memory(&mut self) -> bool {
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
pub(super) struct Fill {
    logged_at: Option<Tick>,
}

impl Fill {
    /// Whether to log that the spool holds `octets` of `limit`.
    pub(super) fn is_due(&mut self, octets: u64, limit: u64, now: Tick) -> bool {
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

/// How many percent of `limit` are `octets`.
pub(super) fn percent(octets: u64, limit: u64) -> u64 {
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
