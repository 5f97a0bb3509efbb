//! The clocks. No other file reads one.
//!
//! # Guarantees
//!
//! - [`Clock::now`] never runs backwards, counts time spent suspended, and ignores changes of the wall clock: a window of
//!   ten seconds lasts ten seconds of real time.
//! - Wall time is for reports only. No decision depends on it.
//!
//! # Left out
//!
//! Timers, which are tokio's. They stand still while the machine is suspended, so a task that a timer wakes must ask the
//! clock for the time.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::core::tick::{Tick, WallTime};

/// The machine's clocks. Read once per batch, not per message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock;

impl Clock {
    /// Nanoseconds since [`BEFORE_BOOT`] before the machine's boot, suspended time included.
    #[must_use]
    pub(crate) fn now() -> Tick {
        let since_boot = read(ClockId::CLOCK_BOOTTIME);
        let secs = u64::try_from(since_boot.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(since_boot.tv_nsec()).unwrap_or(0);
        Tick::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
            .after(BEFORE_BOOT)
    }

    /// The wall time now.
    #[must_use]
    pub(crate) fn wall() -> WallTime {
        let since_epoch = read(ClockId::CLOCK_REALTIME);
        let micros = since_epoch
            .tv_sec()
            .saturating_mul(1_000_000)
            .saturating_add(since_epoch.tv_nsec() / 1_000);
        WallTime::from_micros(micros)
    }

    /// Reads both clocks at one moment, to convert ticks to wall times.
    #[must_use]
    pub(crate) fn reckon() -> Reckoning {
        Reckoning {
            now: Self::now(),
            wall: Self::wall(),
        }
    }
}

/// The processor time of this thread since one moment. Time in which other threads ran does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadTime(TimeSpec);

impl ThreadTime {
    #[must_use]
    pub(crate) fn now() -> Self {
        Self(read(ClockId::CLOCK_THREAD_CPUTIME_ID))
    }

    /// The processor time used since then. To be called on the same thread.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from(read(ClockId::CLOCK_THREAD_CPUTIME_ID) - self.0)
    }
}

/// Both clocks at one moment. Wall times from one reckoning keep the order of their ticks. Those from two reckonings may
/// differ by how far the wall clock was slewed in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reckoning {
    now: Tick,
    wall: WallTime,
}

impl Reckoning {
    /// The wall time of a past [`Clock::now`], by the wall clock of now. For a future one, the wall time now.
    ///
    /// If the wall clock was set in between, the result follows the corrected clock.
    #[must_use]
    pub(crate) fn wall_of(&self, tick: Tick) -> WallTime {
        self.wall.before(self.now.since(tick))
    }

    /// The wall time of a tick, past or future.
    #[must_use]
    pub(crate) fn wall_at(&self, tick: Tick) -> WallTime {
        self.wall_of(tick).after(tick.since(self.now))
    }
}

/// How long before the machine's boot ticks begin, so that windows that were open before the boot have ticks, too. No age
/// that decides anything is as long.
pub(crate) const BEFORE_BOOT: Duration = Duration::from_secs(30 * 24 * 3600);

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
