//! Retry delays: exponential, capped, with jitter.
//!
//! # Guarantees
//!
//! - The n-th delay lies between half and all of `min * 2^n`, capped at `max`: when a collector restarts, a hundred
//!   relays do not reconnect in step.
//! - The same seed yields the same delays.
//!
//! # Left out
//!
//! Waiting: the caller sleeps.

use std::time::Duration;

/// Computes the delays between attempts at one thing.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    attempt: u32,
    state: u64,
}

impl Backoff {
    /// Delays from `min` doubling to `max`, jittered by a generator that starts at `seed`.
    #[must_use]
    pub(super) const fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            min,
            max,
            attempt: 0,
            state: seed,
        }
    }

    /// The delay before the next attempt.
    pub(super) fn next_delay(&mut self) -> Duration {
        let full = self.min.saturating_mul(1 << self.attempt);
        let full = full.min(self.max);
        self.attempt = self.attempt.saturating_add(1).min(31);
        let half = full / 2;
        let span = u64::try_from((full - half).as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.random() % span.saturating_add(1))
    }

    /// Starts over at `min`: the attempt succeeded.
    pub(super) const fn reset(&mut self) {
        self.attempt = 0;
    }

    /// Starts over at `min`, and caps all further delays at `max`: time is short.
    pub(super) fn hurry(&mut self, max: Duration) {
        self.max = self.max.min(max);
        self.reset();
    }

    /// SplitMix64: jitter has to differ between processes, not to be unpredictable.
    const fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(seed: u64, count: usize) -> Vec<Duration> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30), seed);
        (0..count).map(|_| backoff.next_delay()).collect()
    }

    #[test]
    fn each_delay_lies_between_half_and_all_of_its_doubled_step() {
        for seed in 0..100 {
            for (n, delay) in delays(seed, 40).into_iter().enumerate() {
                let full = Duration::from_millis(100)
                    .saturating_mul(1 << n.min(20))
                    .min(Duration::from_secs(30));
                assert!(
                    delay >= full / 2 && delay <= full,
                    "delay {n}: {delay:?} of {full:?}"
                );
            }
        }
    }

    #[test]
    fn two_seeds_do_not_walk_in_step() {
        assert_ne!(delays(1, 8), delays(2, 8));
        assert_eq!(delays(1, 8), delays(1, 8));
    }

    #[test]
    fn in_a_hurry_no_delay_is_long() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 7);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.hurry(Duration::from_millis(500));
        assert!(backoff.next_delay() <= Duration::from_millis(100));
        for _ in 0..10 {
            assert!(backoff.next_delay() <= Duration::from_millis(500));
        }
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 7);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
