//! Pace: when the next messages are due, and waiting for that time.
//!
//! Messages are sent in bursts, [`BURSTS_PER_SECOND`] times a second and [`BURST_MAX`] at most, because a sleep for
//! each single message would cost more than sending it. A burst that is late is followed by the next one at once, so
//! the rate holds as long as the machine can keep it.

use std::time::{Duration, Instant};

use super::now;

/// A steady rate from a start on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    started: Instant,
    rate: usize,
}

impl Pace {
    /// Starts now. Also lets this thread wake on time: by default the kernel may be 50 µs late.
    pub(crate) fn start(rate: usize) -> Self {
        // Without this, the bursts are later and the rate is the same.
        nix::sys::prctl::set_timerslack(1).ok();
        Self {
            started: now(),
            rate,
        }
    }

    /// Messages of one burst.
    pub(crate) fn burst(&self) -> usize {
        (self.rate / BURSTS_PER_SECOND).clamp(1, BURST_MAX)
    }

    /// Waits until message `number` is due, and returns when that was.
    pub(crate) fn wait(&self, number: usize) -> Instant {
        let due = self.started + Duration::from_secs_f64(number as f64 / self.rate as f64);
        while let Some(wait) = due.checked_duration_since(now()) {
            match wait.checked_sub(AWAKE) {
                Some(sleep) => std::thread::sleep(sleep),
                None => std::hint::spin_loop(),
            }
        }
        due
    }
}

const BURSTS_PER_SECOND: usize = 4000;

const BURST_MAX: usize = 50;

/// How long before the time that a burst is due its sender wakes: a sleep takes that much longer than asked for.
const AWAKE: Duration = Duration::from_micros(40);
