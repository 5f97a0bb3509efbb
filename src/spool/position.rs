//! A position: a point in the spool, counted in records and survivors since the spool was made.
//!
//! # Guarantees
//!
//! - What lies between two positions is their difference, whether or not it can still be read.
//! - A position and its place in a segment can be told from each other, if it is known where the segment starts.
//!
//! # Left out
//!
//! Where a position is on the disk: see `segment` and `cursor`. How places are written: see `record`.

use super::record::Place;

/// A point in the spool, as what was written before it since the spool was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, PartialOrd, Ord)]
pub struct Position {
    pub(super) records: u64,
    pub(super) survivors: u64,
}

impl Position {
    /// Whether `later` can be this position or a later one: in between are no fewer records than survivors.
    pub(super) const fn may_precede(self, later: Self) -> bool {
        later.records >= self.records
            && later.survivors >= self.survivors
            && later.survivors - self.survivors <= later.records - self.records
    }

    /// The position of `place` in a segment that starts at this position.
    pub(super) fn at(self, place: Place) -> Self {
        Self {
            records: self.records.saturating_add(place.index.into()),
            survivors: self.survivors.saturating_add(place.survivors.into()),
        }
    }

    /// The place of this position in a segment that starts at `start`.
    pub(super) fn place_in(self, start: Self) -> Place {
        let word =
            |number: u64, start| u32::try_from(number.saturating_sub(start)).unwrap_or(u32::MAX);
        Place {
            index: word(self.records, start.records),
            survivors: word(self.survivors, start.survivors),
        }
    }
}
