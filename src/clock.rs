//! The clocks: the only file that reads one.
//!
//! # Guarantees
//!
//! - [`Clock::now`] never runs backwards, counts the time in which the machine was suspended, and does
//!   not see steps of the wall clock: a window of ten seconds is ten seconds of the world outside.
//! - Wall time is for reports. Nothing is decided by it.
//!
//! # Left out
//!
//! Timers, which are tokio's. They stand still while the machine is suspended, so what a timer
//! wakes must ask the clock how late it is.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::tick::{Tick, WallTime};

/// The machine's clocks. Read once per batch, not per message.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

impl Clock {
    /// Nanoseconds since [`BEFORE_BOOT`] before the machine's boot, suspended time included.
    #[must_use]
    pub fn now() -> Tick {
        let since_boot = read(ClockId::CLOCK_BOOTTIME);
        let secs = u64::try_from(since_boot.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(since_boot.tv_nsec()).unwrap_or(0);
        Tick::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
            .after(BEFORE_BOOT)
    }

    /// What the wall clock says now.
    #[must_use]
    pub fn wall() -> WallTime {
        let since_epoch = read(ClockId::CLOCK_REALTIME);
        let micros = since_epoch
            .tv_sec()
            .saturating_mul(1_000_000)
            .saturating_add(since_epoch.tv_nsec() / 1_000);
        WallTime::from_micros(micros)
    }

    /// Both clocks at one moment, to tell the wall times of past ticks.
    #[must_use]
    pub fn reckon() -> Reckoning {
        Reckoning {
            now: Self::now(),
            wall: Self::wall(),
        }
    }
}

/// The processor time of this thread, from one moment on. Time in which others ran does not count.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTime(TimeSpec);

impl ThreadTime {
    /// From now on.
    #[must_use]
    pub fn now() -> Self {
        Self(read(ClockId::CLOCK_THREAD_CPUTIME_ID))
    }

    /// How much was used since then, by this same thread.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from(read(ClockId::CLOCK_THREAD_CPUTIME_ID) - self.0)
    }
}

/// What both clocks said at one moment. Times told from one reckoning keep the order of their ticks;
/// from two they may differ by what the clocks were slewed in between.
#[derive(Clone, Copy, Debug)]
pub struct Reckoning {
    now: Tick,
    wall: WallTime,
}

impl Reckoning {
    /// The wall time of a past [`Clock::now`], as the wall clock reckons now; of a future one, the wall
    /// time now.
    ///
    /// If the wall clock was stepped in between, the answer follows the corrected clock.
    #[must_use]
    pub fn wall_of(&self, tick: Tick) -> WallTime {
        self.wall.before(self.now.since(tick))
    }

    /// The wall time of a tick, be it past or yet to come.
    #[must_use]
    pub fn wall_at(&self, tick: Tick) -> WallTime {
        self.wall_of(tick).after(tick.since(self.now))
    }
}

/// How long before the machine's boot ticks begin, so that windows that were open before it have ticks, too: no age
/// that decides anything is as long.
pub const BEFORE_BOOT: Duration = Duration::from_secs(30 * 24 * 3600);

fn read(clock: ClockId) -> TimeSpec {
    clock_gettime(clock).expect("CLOCK_REALTIME and CLOCK_BOOTTIME exist since Linux 2.6.39")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_agrees_with_the_uptime_that_the_kernel_reports() {
        let before = Clock::now();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let after = Clock::now();

        let secs: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let uptime = Tick::ZERO
            .after(BEFORE_BOOT)
            .after(Duration::from_secs_f64(secs));
        // The kernel cuts the uptime to hundredths of a second.
        assert!(
            before <= uptime.after(Duration::from_millis(10)),
            "{before:?} {uptime:?}"
        );
        assert!(uptime <= after, "{uptime:?} {after:?}");
    }

    #[test]
    fn a_past_tick_is_that_much_before_the_wall_time() {
        let now = Clock::now();
        let uptime = now.since(Tick::ZERO);
        let booted = Clock::reckon().wall_of(Tick::ZERO);
        // The clocks are read one after the other, and the wall clock may be slewed in between.
        let tolerance = Duration::from_secs(60);
        let expected = Clock::wall().before(uptime);
        assert!(expected.before(tolerance) < booted, "{booted} {expected}");
        assert!(booted.before(tolerance) < expected, "{booted} {expected}");
    }

    #[test]
    fn a_moment_to_come_is_that_much_later() {
        let reckoning = Clock::reckon();
        let span = Duration::from_secs(3600);
        let future = reckoning.wall_at(Clock::now().after(span));
        assert!(future.before(span) >= reckoning.wall_of(Clock::now()));
        let past = reckoning.now;
        assert_eq!(reckoning.wall_at(past), reckoning.wall_of(past));
    }

    #[test]
    fn a_future_tick_is_reported_as_now() {
        let before = Clock::wall();
        let future = Clock::reckon().wall_of(Clock::now().after(Duration::from_secs(3600)));
        assert!(before <= future && future <= Clock::wall());
    }
}
