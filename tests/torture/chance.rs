//! Reproducible random decisions: the same seed yields the same decisions on every machine.
//!
//! Only the schedule is reproducible. The interleaving is not: which octet a kill falls on depends on the machine.

use std::ops::Range;

/// A stream of decisions (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The decisions for one round of one scene.
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

    /// A number within `range`.
    pub(crate) fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// Returns true once in `times` calls, on average.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    /// One of `these`.
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
