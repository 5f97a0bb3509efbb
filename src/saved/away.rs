//! The time away: how much older windows became between a stop and a start.
//!
//! # Guarantees
//!
//! - Within one boot of the machine the monotonic clock decides, to the nanosecond. Clock changes do not count.
//! - Across boots the wall clock decides. If it is unknown whether it was the same boot, the longer of both times
//!   counts: windows that end too early let a message through, windows that end too late suppress one.
//! - A wall clock that ran backwards, or ahead by more than [`AWAY_MAX`], is not believed.

use std::fs;
use std::time::Duration;

use crate::clock::Clock;
use crate::core::tick::{Tick, WallTime};

/// What the clocks say, and during which boot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Moment {
    pub(super) tick: Tick,
    pub(super) wall: WallTime,
    /// The kernel's id of this boot; `None` if it cannot be read, as in a service with `ProcSubset=pid`.
    pub(super) boot: Option<u128>,
}

/// Why the time away is unknown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum AwayError {
    /// The clock is behind where it was.
    #[error("saved at {saved}, but the clock says {now}: it ran backwards")]
    Backwards {
        /// When the windows were saved.
        saved: WallTime,
        /// What the clock says now.
        now: WallTime,
    },
    /// The clock is far ahead of where it was.
    #[error("saved at {saved}, but the clock says {now}: more than a year later")]
    Absurd {
        /// When the windows were saved.
        saved: WallTime,
        /// What the clock says now.
        now: WallTime,
    },
}

/// Converts ticks of the last run to ticks of this run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away {
    pub(super) span: Duration,
    saved: Tick,
    now: Tick,
}

impl Moment {
    /// Reads the clocks and the boot's id.
    pub(super) fn now() -> Self {
        let boot = fs::read_to_string(BOOT_ID).ok();
        Self {
            tick: Clock::now(),
            wall: Clock::wall(),
            boot: boot.and_then(|text| boot_id(&text)),
        }
    }
}

impl Away {
    /// The time from `saved` to `now`.
    pub(super) fn between(saved: &Moment, now: &Moment) -> Result<Self, AwayError> {
        let is_same_boot = saved.boot.zip(now.boot).map(|(one, other)| one == other);
        let span = match is_same_boot {
            Some(true) if saved.tick <= now.tick => now.tick.since(saved.tick),
            Some(_) => wall_span(saved, now)?,
            None => wall_span(saved, now)?.max(now.tick.since(saved.tick)),
        };
        Ok(Self {
            span,
            saved: saved.tick,
            now: now.tick,
        })
    }

    /// Converts a tick of the last run, at or before the time of saving. Returns `None` if it is too long ago for any
    /// window.
    pub(super) fn moved(&self, tick: Tick) -> Option<Tick> {
        let age = self.saved.since(tick).checked_add(self.span)?;
        let age = u64::try_from(age.as_nanos()).ok()?;
        self.now.nanos().checked_sub(age).map(Tick::from_nanos)
    }
}

fn wall_span(saved: &Moment, now: &Moment) -> Result<Duration, AwayError> {
    let (saved, now) = (saved.wall, now.wall);
    let micros = now.micros().saturating_sub(saved.micros());
    let micros = u64::try_from(micros).map_err(|_| AwayError::Backwards { saved, now })?;
    let span = Duration::from_micros(micros);
    if span > AWAY_MAX {
        return Err(AwayError::Absurd { saved, now });
    }
    Ok(span)
}

/// A UUID as the kernel writes it.
fn boot_id(text: &str) -> Option<u128> {
    u128::from_str_radix(&text.trim_end().replace('-', ""), 16).ok()
}

/// The longest time away that is believed: by far the longest window has expired by then.
const AWAY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[cfg(test)]
mod tests {
    use super::*;

    /// Uptime and wall clock in milliseconds.
    fn moment(uptime: u64, wall: i64, boot: Option<u128>) -> Moment {
        Moment {
            tick: Tick::from_nanos((MONTH + uptime) * 1_000_000),
            wall: WallTime::from_micros(wall * 1000),
            boot,
        }
    }

    #[track_caller]
    fn check(saved: Moment, now: Moment, millis: u64) {
        let away = Away::between(&saved, &now).unwrap();
        assert_eq!(away.span, Duration::from_millis(millis));
        let start = Tick::from_nanos(saved.tick.nanos() - 5_000_000);
        let age = now.tick.since(away.moved(start).unwrap());
        assert_eq!(age, Duration::from_millis(millis + 5));
    }

    #[test]
    fn within_a_boot_the_wall_clock_does_not_count() {
        for wall in [-1_000_000, 0, 7, 1_000_000_000_000] {
            check(moment(1000, 0, Some(1)), moment(4000, wall, Some(1)), 3000);
        }
    }

    #[test]
    fn across_boots_the_wall_clock_counts() {
        // Also for a window that was open before this boot.
        check(
            moment(9_000_000, 1000, Some(1)),
            moment(20, 91_003, Some(2)),
            90_003,
        );
        check(
            moment(20, 1000, Some(1)),
            moment(9_000_000, 2000, Some(2)),
            1000,
        );
    }

    #[test]
    fn where_the_boot_is_unknown_the_longer_time_counts() {
        check(moment(1000, 0, None), moment(4000, 3000, None), 3000);
        check(moment(1000, 0, None), moment(4000, 10, Some(1)), 3000);
        check(moment(1000, 0, Some(1)), moment(4000, 9000, None), 9000);
        check(moment(4000, 0, None), moment(1000, 9000, None), 9000);
    }

    #[test]
    fn a_clock_that_makes_no_sense_is_not_believed() {
        let saved = moment(1000, 1000, Some(1));
        for boot in [None, Some(2)] {
            let error = Away::between(&saved, &moment(2000, 999, boot)).unwrap_err();
            assert!(matches!(error, AwayError::Backwards { .. }), "{error}");
            let now = moment(2000, 1001 + 366 * 24 * 3_600_000, boot);
            let error = Away::between(&saved, &now).unwrap_err();
            assert!(matches!(error, AwayError::Absurd { .. }), "{error}");
        }
        // A clock that ran backwards cannot be of the same boot.
        let back = moment(900, 4000, Some(1));
        assert_eq!(
            Away::between(&saved, &back).unwrap().span,
            Duration::from_secs(3)
        );
    }

    #[test]
    fn what_was_too_long_ago_has_no_tick() {
        let (saved, now) = (
            moment(1000, 0, Some(1)),
            moment(20, 60 * 24 * 3_600_000, Some(2)),
        );
        let away = Away::between(&saved, &now).unwrap();
        assert_eq!(away.moved(saved.tick), None);
        assert_eq!(away.moved(Tick::ZERO), None);
    }

    #[test]
    fn this_boot_has_an_id_and_is_the_same_as_itself() {
        let now = Moment::now();
        assert!(now.boot.is_some_and(|id| id > 0), "{now:?}");
        assert_eq!(now.boot, Moment::now().boot);
        assert_eq!(boot_id("not an id"), None);
    }

    const MONTH: u64 = 30 * 24 * 3_600_000;
}
