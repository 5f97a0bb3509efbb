//! Storm: decides when memory that a storm of messages needed is given back to the system.
//!
//! # Guarantees
//!
//! - A little memory is kept, and much is given back in steps: the allocator blocks other threads meanwhile.
//!
//! # Left out
//!
//! Giving it back (`sys`).

/// Follows how much memory is in use.
#[derive(Debug, Default)]
pub(super) struct Storm {
    /// The most octets in use since memory was given back last.
    peak_octets: u64,
}

impl Storm {
    /// Whether enough memory was freed since the peak to be worth giving back, now that `octets` are in use.
    pub(super) fn abates(&mut self, octets: u64) -> bool {
        self.peak_octets = self.peak_octets.max(octets);
        let freed = self.peak_octets - octets;
        let abates = freed >= STORM_OCTETS_STEP
            || (self.peak_octets >= STORM_OCTETS_MIN && freed >= self.peak_octets / 2);
        if abates {
            self.peak_octets = octets;
        }
        abates
    }
}

/// A smaller peak is not worth giving memory back for.
const STORM_OCTETS_MIN: u64 = 8 << 20;

/// Octets given back in one step, which takes the allocator a few milliseconds.
const STORM_OCTETS_STEP: u64 = 32 << 20;
