//! The time of a recorded log: stamps in, the core's ticks out.
//!
//! ```text
//! stamps   10:00:00  10:00:05  10:00:03  10:00:06     a straggler counts as of the time reached
//! ticks    10:00:00  10:00:05  10:00:05  10:00:06
//!
//! stamps   03:00:00  02:00:00 ... 02:01:00  02:01:30  after a minute without a stamp that keeps up,
//! ticks    03:00:00  03:00:00 ... 03:00:00  03:00:30  the clock was set back: time goes on from there
//! ```
//!
//! # Guarantees
//!
//! - Ticks never run backwards.
//! - A line without a timestamp takes the time of the line before.
//! - Hosts whose clocks differ may be mixed in one log: as long as one that is ahead goes on speaking, it
//!   leads, and the others keep its time.
//! - A stamp from the far future, a clock that was set back and a file that begins before the last
//!   one ended hold time up for no more than a minute of stamps.
//!
//! # Left out
//!
//! What a stamp means (`stamp`).

use super::timestamp::Timestamps;
use crate::tick::{Tick, WallTime};

/// Tells the time of one line after the other.
#[derive(Debug)]
pub(super) struct LogTime {
    stamps: Timestamps,
    /// The time reached, in nanoseconds. Never less than zero.
    now: i64,
    /// What is added to a stamp: zero until time was set back.
    offset: i64,
    /// The earliest of the stamps that were behind since one kept up.
    behind_since: Option<i64>,
    /// The next stamp is the first of a file.
    begins: bool,
    /// The last stamp, without any offset.
    shown: Option<i64>,
    /// What was odd.
    pub(super) oddities: Oddities,
}

/// How often time was not what it should be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Oddities {
    /// Lines without a timestamp, or with one that is no point in time.
    pub(super) unstamped: u64,
    /// Lines with a timestamp before the time reached.
    pub(super) out_of_order: u64,
    /// Times that a clock was found to have been set back, or a file to begin before the last ended.
    pub(super) set_back: u64,
}

impl LogTime {
    /// No line was seen.
    pub(super) fn new() -> Self {
        Self {
            stamps: Timestamps::new(),
            now: 0,
            offset: 0,
            behind_since: None,
            begins: true,
            shown: None,
            oddities: Oddities::default(),
        }
    }

    /// What comes now is from a file that was last written at `written`.
    pub(super) fn begin_file(&mut self, written: WallTime) {
        self.stamps.begin_file(written);
        self.begins = true;
    }

    /// When a line with this timestamp was said.
    #[inline]
    pub(super) fn tick(&mut self, timestamp: Option<&[u8]>) -> Tick {
        match timestamp.and_then(|stamp| self.stamps.read(stamp)) {
            Some(stamp) => self.take(stamp),
            None => self.oddities.unstamped += 1,
        }
        self.now()
    }

    /// The time reached.
    pub(super) fn now(&self) -> Tick {
        Tick::from_nanos(u64::try_from(self.now).unwrap_or(0))
    }

    /// The last stamp as it was meant; `None` before the first.
    pub(super) fn shown(&self) -> Option<WallTime> {
        self.shown.map(|nanos| WallTime::from_micros(nanos / 1000))
    }

    /// The time that the log would have shown at `tick`. If time was set back since, the answer
    /// follows the clock as it is now.
    pub(super) fn wall_of(&self, tick: Tick) -> WallTime {
        let nanos = i64::try_from(tick.nanos()).unwrap_or(i64::MAX);
        WallTime::from_micros(nanos.saturating_sub(self.offset) / 1000)
    }

    #[inline]
    fn take(&mut self, stamp: i64) {
        self.shown = Some(stamp);
        let time = stamp.saturating_add(self.offset);
        if time >= self.now {
            self.now = time;
            self.behind_since = None;
        } else {
            self.take_late(stamp);
        }
        self.begins = false;
    }

    #[cold]
    fn take_late(&mut self, stamp: i64) {
        self.oddities.out_of_order += 1;
        let since = self.behind_since.map_or(stamp, |since| since.min(stamp));
        self.behind_since = Some(since);
        if self.begins || stamp.saturating_sub(since) >= BEHIND_NANOS_MAX {
            self.offset = self.now.saturating_sub(stamp);
            self.behind_since = None;
            self.oddities.set_back += 1;
        }
    }
}

/// Timestamps may be behind the time reached for so long, by their own clock; then it is time that is wrong.
const BEHIND_NANOS_MAX: i64 = 60 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines with stamps of a day (`""` for none), against the time reached after each.
    #[track_caller]
    fn check(lines: &[(&str, &str)]) -> Oddities {
        let mut time = LogTime::new();
        time.begin_file(WallTime::from_micros(DAY_MICROS));
        check_on(&mut time, lines);
        time.oddities
    }

    #[track_caller]
    fn check_on(time: &mut LogTime, lines: &[(&str, &str)]) {
        for (index, (clock, expected)) in lines.iter().enumerate() {
            let stamp = format!("2026-03-01T{clock}Z");
            let stamp = Some(stamp.as_bytes()).filter(|_| !clock.is_empty());
            let before = time.now();
            let tick = time.tick(stamp);
            assert!(before <= tick, "line {index}");
            let reached = WallTime::from_micros(i64::try_from(tick.nanos() / 1000).unwrap());
            let expected = format!("2026-03-01T{expected}.000000Z");
            assert_eq!(reached.to_string(), expected, "line {index}");
        }
    }

    const DAY_MICROS: i64 = 1_795_341_600_000_000;

    #[test]
    fn a_straggler_counts_as_of_the_time_reached() {
        let oddities = check(&[
            ("10:00:00", "10:00:00"),
            ("10:00:05", "10:00:05"),
            ("10:00:03", "10:00:05"),
            ("", "10:00:05"),
            ("10:00:06", "10:00:06"),
        ]);
        let expected = Oddities {
            unstamped: 1,
            out_of_order: 1,
            set_back: 0,
        };
        assert_eq!(oddities, expected);
    }

    #[test]
    fn a_host_that_is_late_by_minutes_keeps_the_time_of_the_one_that_leads() {
        let mut lines = Vec::new();
        let clocks: Vec<_> = (0..50)
            .map(|second| (format!("10:05:{second:02}"), format!("10:00:{second:02}")))
            .collect();
        for (ahead, late) in &clocks {
            lines.extend([
                (ahead.as_str(), ahead.as_str()),
                (late.as_str(), ahead.as_str()),
            ]);
        }
        assert_eq!(check(&lines).set_back, 0);
    }

    #[test]
    fn after_a_minute_behind_the_clock_was_set_back_and_time_goes_on() {
        let oddities = check(&[
            ("03:00:00", "03:00:00"),
            ("02:00:00", "03:00:00"),
            ("02:00:59", "03:00:00"),
            ("02:01:00", "03:00:00"),
            ("02:01:30", "03:00:30"),
            // Once more, by an hour.
            ("01:00:00", "03:00:30"),
            ("01:01:00", "03:00:30"),
            ("01:01:05", "03:00:35"),
        ]);
        assert_eq!(oddities.set_back, 2);
    }

    #[test]
    fn a_stamp_from_the_future_holds_time_up_for_a_minute_only() {
        check(&[
            ("10:00:00", "10:00:00"),
            ("23:00:00", "23:00:00"),
            ("10:00:01", "23:00:00"),
            ("10:01:01", "23:00:00"),
            ("10:01:02", "23:00:01"),
        ]);
    }

    #[test]
    fn a_file_that_begins_earlier_goes_on_at_once() {
        let mut time = LogTime::new();
        time.begin_file(WallTime::from_micros(DAY_MICROS));
        check_on(&mut time, &[("10:00:00", "10:00:00")]);
        time.begin_file(WallTime::from_micros(DAY_MICROS));
        check_on(
            &mut time,
            &[("09:00:00", "10:00:00"), ("09:00:01", "10:00:01")],
        );
        let shown = time.shown().unwrap();
        assert_eq!(shown.to_string(), "2026-03-01T09:00:01.000000Z");
        assert_eq!(time.wall_of(time.now()), shown);
        assert_eq!(time.oddities.set_back, 1);
    }

    #[test]
    fn lines_before_the_first_stamp_are_at_the_beginning_of_time() {
        let mut time = LogTime::new();
        assert_eq!(time.tick(None), Tick::ZERO);
        assert_eq!(time.shown(), None);
    }
}
