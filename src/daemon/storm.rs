//! Storm: when memory that was needed for one is to be given back.
//!
//! # Guarantees
//!
//! - Little is not given back, and much is in steps: the allocator makes others wait while it gives back.
//!
//! # Left out
//!
//! Giving it back (`sys`).

/// When memory that was needed for a storm is to be given back.
#[derive(Debug, Default)]
pub(super) struct Storm {
    /// The most octets in use since then.
    peak_octets: u64,
}

impl Storm {
    /// Whether so much less is in use now than there was that giving it back is worth the while. Said in steps:
    /// the allocator makes others wait while it gives back.
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

/// Octets in use that make a storm: less is not worth giving back.
const STORM_OCTETS_MIN: u64 = 8 << 20;

/// Octets given back at once: takes the allocator a few milliseconds.
const STORM_OCTETS_STEP: u64 = 32 << 20;
