//! What the metrics and the log are told of the spool.
//!
//! # Guarantees
//!
//! - The metrics say how full the spool is, how old its oldest frame, and what its disk refuses, after each call that
//!   changes it.
//! - Each line that the way leads over the disk is followed by one that it does no more, before the next of them.
//! - A spool that is filled beyond [`FULL_PERCENT`] is logged at once and every [`REMIND_PERIOD`] while it stays so.

use tracing::{info, warn};

use super::{Overflow, State, trouble::Trouble};
use crate::{clock::Clock, config::WhenFull, forward::standing::REMIND_PERIOD, tick::Tick};

/// Whether it was logged that spool is filling up.
#[derive(Debug, Default)]
pub(super) struct Fill {
    told_at: Option<Tick>,
}

impl Fill {
    /// Whether it is to be logged that the spool holds `octets` of `limit`.
    fn is_due(&mut self, octets: u64, limit: u64, now: Tick) -> bool {
        let percent = percent(octets, limit);
        if percent < FREE_PERCENT {
            self.told_at = None;
        }
        let is_due =
            percent >= FULL_PERCENT && self.told_at.is_none_or(|at| now.since(at) >= REMIND_PERIOD);
        if is_due {
            self.told_at = Some(now);
        }
        is_due
    }
}

impl State {
    /// Logs that the way does not lead over the disk any more, if it was logged that it does. While the disk refuses that
    /// is not known: what comes next may have to wait for it.
    pub(super) fn tell_direct(&mut self) {
        if !self.spooled && !self.writing.is_on() && std::mem::take(&mut self.is_told) {
            info!("forwarding from memory");
        }
    }
}

impl Overflow {
    /// Lets the metrics say how the spool is, and the log if it fills up.
    pub(super) fn measure(&self) {
        let (octets, limit) = (self.spool.octets(), self.spool.max_octets());
        let (frames, oldest) = (self.spool.records(), self.spool.oldest());
        let spool = &self.metrics.spool;
        spool.octets.set(octets);
        spool.frames.set(frames);
        let micros = oldest.map_or(0, |at| u64::try_from(at.micros()).unwrap_or(0));
        spool.oldest.set(micros);
        let mut state = self.lock();
        let troubles = [
            &state.writing,
            &state.giving,
            &state.tending,
            &state.keeping,
        ];
        let trouble = troubles.into_iter().find_map(Trouble::told);
        spool.set_trouble(trouble);
        let is_due = state.fill.is_due(octets, limit, Clock::now());
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

    /// Logs that the way leads over the disk from now on, and why.
    pub(super) fn tell_spooled(&self, state: &State) {
        let queued_octets = self.outbox.octets();
        let is_half_full = queued_octets > self.outbox.bound() / 2;
        let why = match (state.lanes_up > 0, is_half_full || self.outbox.is_pressed()) {
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
}

fn percent(octets: u64, limit: u64) -> u64 {
    (u128::from(octets) * 100)
        .checked_div(u128::from(limit))
        .map_or(100, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
}

/// From here on the spool is said to fill up.
const FULL_PERCENT: u64 = 80;

/// Below this it has room again: the next time is said at once.
const FREE_PERCENT: u64 = 50;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_spool_that_fills_up_is_told_of_once_and_every_ten_minutes() {
        let mut fill = Fill::default();
        let minute = |minute: u64| Tick::from_nanos(1).after(Duration::from_secs(60 * minute));
        let told = [
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
        for (at, octets, expected) in told {
            assert_eq!(fill.is_due(octets, 100, minute(at)), expected, "{at}");
        }
    }
}
