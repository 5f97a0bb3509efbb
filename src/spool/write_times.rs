//! Write times: about when the records in the spool were written.
//!
//! # Guarantees
//!
//! - No record is older than the time that is reported for it. It is younger by at most one step. A step is [`STEP_MIN`],
//!   doubled each time that [`STEPS_MAX`] steps do not reach back to the oldest record.
//!
//! # Left out
//!
//! The disk. For records of an earlier process the time of their segment's file counts.

use std::{collections::VecDeque, time::Duration};

use super::position::Position;
use crate::core::tick::WallTime;

/// When records were written, oldest first.
#[derive(Debug)]
pub(super) struct WriteTimes {
    /// Records that are written within this time get one entry.
    step: Duration,
    /// Records from this position on were written at this time or later.
    steps: VecDeque<(Position, WallTime)>,
}

impl Default for WriteTimes {
    fn default() -> Self {
        Self {
            step: STEP_MIN,
            steps: VecDeque::new(),
        }
    }
}

impl WriteTimes {
    /// Records from `start` on are written at `now`.
    pub(super) fn wrote(&mut self, start: Position, now: WallTime) {
        let from = now.before(self.step);
        let is_same = |(_, at): &(Position, WallTime)| *at > from && *at <= now;
        if self.steps.back().is_some_and(is_same) {
            return;
        }
        if self.steps.len() >= STEPS_MAX {
            self.step *= 2;
            let mut number = 0;
            self.steps.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.steps.push_back((start, now));
    }

    /// When the first record behind `acknowledged` was written; `None` if no record was.
    pub(super) fn oldest(&mut self, acknowledged: Position) -> Option<WallTime> {
        while let Some((next, _)) = self.steps.get(1)
            && *next <= acknowledged
        {
            self.steps.pop_front();
        }
        if self.steps.len() <= 1 {
            self.step = STEP_MIN;
        }
        self.steps.front().map(|(_, at)| *at)
    }
}

const STEP_MIN: Duration = Duration::from_secs(1);

/// How many steps are kept. Each takes 24 octets.
const STEPS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(records: u64) -> Position {
        Position {
            records,
            survivors: records,
        }
    }

    fn second(second: i64) -> WallTime {
        WallTime::from_micros(second * 1_000_000)
    }

    #[test]
    fn the_oldest_is_the_first_that_is_not_acknowledged() {
        let mut write_times = WriteTimes::default();
        assert_eq!(write_times.oldest(place(0)), None);
        for number in 0..10 {
            write_times.wrote(place(10 * number), second(number.cast_signed() * 5));
            write_times.wrote(place(10 * number + 5), second(number.cast_signed() * 5));
        }
        for (acknowledged, expected) in [(0, 0), (9, 0), (10, 5), (35, 15), (99, 45)] {
            assert_eq!(
                write_times.oldest(place(acknowledged)),
                Some(second(expected))
            );
        }
    }

    #[test]
    fn a_long_outage_takes_no_more_memory_and_forgets_no_time() {
        let mut write_times = WriteTimes::default();
        let many = 100_000;
        for number in 0..many {
            write_times.wrote(place(number), second(number.cast_signed()));
        }
        assert!(write_times.steps.len() <= STEPS_MAX);
        assert_eq!(write_times.oldest(place(0)), Some(second(0)));
        for acknowledged in [many / 2, many - 10] {
            let reported = write_times.oldest(place(acknowledged)).unwrap();
            let written = second(acknowledged.cast_signed());
            // 4,096 steps have to be this long to cover the outage.
            let earliest = written.before(Duration::from_secs(32));
            assert!(
                reported <= written && reported >= earliest,
                "{reported} {written}"
            );
        }
        assert!(write_times.oldest(place(many)).is_some());
        assert_eq!(write_times.step, STEP_MIN);
    }

    #[test]
    fn a_clock_that_was_set_back_begins_a_new_step() {
        let mut write_times = WriteTimes::default();
        write_times.wrote(place(0), second(100));
        write_times.wrote(place(1), second(50));
        assert_eq!(write_times.oldest(place(1)), Some(second(50)));
    }
}
