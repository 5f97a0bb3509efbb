//! Chance that can be had again: the same seed gives the same decisions, on every machine.
//!
//! What the machine makes of a decision (which octet a kill falls on) is its own affair: the schedule is
//! reproducible, the interleaving is not.

use std::ops::Range;

/// A stream of decisions (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The decisions of one round of one scene.
    pub(crate) fn new(seed: u64, scene: &str, round: u64) -> Self {
        let mut chance = Self(seed);
        for octet in scene.bytes() {
            chance.0 ^= u64::from(octet);
            chance.next();
        }
        chance.0 ^= round;
        chance.next();
        chance
    }

    /// A number of this range.
    pub(crate) fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, these: &[T]) -> T {
        let index = usize::try_from(self.of(0..these.len() as u64)).unwrap();
        these[index]
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
