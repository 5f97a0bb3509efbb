//! The time of a recorded log: timestamps in, ticks of the core out.
//!
//! ```text
//! timestamps  10:00:00  10:00:05  10:00:03  10:00:06     a straggler takes the time reached
//! ticks       10:00:00  10:00:05  10:00:05  10:00:06
//!
//! timestamps  03:00:00  02:00:00 ... 02:01:00  02:01:30  no timestamp kept up for a minute, so the clock was
//! ticks       03:00:00  03:00:00 ... 03:00:00  03:00:30  set back, and time continues from there
//! ```
//!
//! # Guarantees
//!
//! - Ticks never run backwards.
//! - A line without a timestamp takes the time of the line before.
//! - Hosts whose clocks differ may be mixed in one log. As long as the host that is ahead keeps sending, its clock is the
//!   time of all.
//! - A timestamp from the far future, a clock that was set back, and a file that begins before the last one ended stop time
//!   for at most one minute of timestamps.
//!
//! # Left out
//!
//! What a timestamp means (`timestamp`).

use super::timestamp::Timestamps;
use crate::core::tick::{Tick, WallTime};

/// The time of each line, one after the other.
#[derive(Debug)]
pub(super) struct LogTime {
    timestamps: Timestamps,
    /// The time reached, in nanoseconds. Never less than zero.
    now: i64,
    /// Added to each timestamp. Zero until a clock was set back.
    offset: i64,
    /// The earliest timestamp among those that were behind since the last one that kept up.
    behind_since: Option<i64>,
    /// The next timestamp is the first of a file.
    begins: bool,
    /// The last timestamp, without `offset`.
    shown: Option<i64>,
    pub(super) oddities: Oddities,
}

/// How often the time of a line was odd.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Oddities {
    /// Lines without a timestamp, or with one that is no point in time.
    pub(super) without_time: u64,
    /// Lines with a timestamp before the time reached.
    pub(super) out_of_order: u64,
    /// How often a clock was set back, or a file began before the last one ended.
    pub(super) set_back: u64,
}

impl LogTime {
    /// The time before the first line.
    pub(super) fn new() -> Self {
        Self {
            timestamps: Timestamps::new(),
            now: 0,
            offset: 0,
            behind_since: None,
            begins: true,
            shown: None,
            oddities: Oddities::default(),
        }
    }

    /// The lines that follow are from a file that was last written at `written`.
    pub(super) fn begin_file(&mut self, written: WallTime) {
        self.timestamps.begin_file(written);
        self.begins = true;
    }

    /// Returns the time of a line with this timestamp.
    #[inline]
    pub(super) fn tick(&mut self, timestamp: Option<&[u8]>) -> Tick {
        match timestamp.and_then(|timestamp| self.timestamps.read(timestamp)) {
            Some(nanos) => self.take(nanos),
            None => self.oddities.without_time += 1,
        }
        self.now()
    }

    pub(super) fn now(&self) -> Tick {
        Tick::from_nanos(u64::try_from(self.now).expect("time begins at zero and is only raised"))
    }

    /// The last timestamp as the log shows it; `None` before the first.
    pub(super) fn shown(&self) -> Option<WallTime> {
        self.shown.map(|nanos| WallTime::from_micros(nanos / 1000))
    }

    /// The time that the log would have shown at `tick`. If a clock was set back since, this is the time by the clock as it
    /// is now.
    pub(super) fn wall_of(&self, tick: Tick) -> WallTime {
        let nanos =
            i64::try_from(tick.nanos()).expect("every tick of a replay was made from an i64");
        WallTime::from_micros(nanos.saturating_sub(self.offset) / 1000)
    }

    #[inline]
    fn take(&mut self, nanos: i64) {
        self.shown = Some(nanos);
        let time = nanos.saturating_add(self.offset);
        if time >= self.now {
            self.now = time;
            self.behind_since = None;
        } else {
            self.take_late(nanos);
        }
        self.begins = false;
    }

    #[cold]
    fn take_late(&mut self, nanos: i64) {
        self.oddities.out_of_order += 1;
        let since = self.behind_since.map_or(nanos, |since| since.min(nanos));
        self.behind_since = Some(since);
        if self.begins || nanos.saturating_sub(since) >= BEHIND_NANOS_MAX {
            self.offset = self.now.saturating_sub(nanos);
            self.behind_since = None;
            self.oddities.set_back += 1;
        }
    }
}

/// How long timestamps may be behind the time reached, by their own clock. After that the time reached is wrong.
const BEHIND_NANOS_MAX: i64 = 60 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads lines with timestamps of one day (`""` for none) and checks the time reached after each.
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
            let timestamp = format!("2026-03-01T{clock}Z");
            let timestamp = Some(timestamp.as_bytes()).filter(|_| !clock.is_empty());
            let before = time.now();
            let tick = time.tick(timestamp);
            assert!(before <= tick, "line {index}");
            let reached = WallTime::from_micros(i64::try_from(tick.nanos() / 1000).unwrap());
            let expected = format!("2026-03-01T{expected}.000000Z");
            assert_eq!(reached.to_string(), expected, "line {index}");
        }
    }

    const DAY_MICROS: i64 = 1_795_341_600_000_000;

    #[test]
    fn a_straggler_takes_the_time_reached() {
        let oddities = check(&[
            ("10:00:00", "10:00:00"),
            ("10:00:05", "10:00:05"),
            ("10:00:03", "10:00:05"),
            ("", "10:00:05"),
            ("10:00:06", "10:00:06"),
        ]);
        let expected = Oddities {
            without_time: 1,
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
    fn a_timestamp_from_the_future_stops_time_for_a_minute_only() {
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
    fn lines_before_the_first_timestamp_are_at_the_beginning_of_time() {
        let mut time = LogTime::new();
        assert_eq!(time.tick(None), Tick::ZERO);
        assert_eq!(time.shown(), None);
    }
}
