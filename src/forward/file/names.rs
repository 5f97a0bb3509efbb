//! Names of rotated files: the file's own name, a dot, and the time of the rotation.
//!
//! ```text
//! once.log   once.log.20261122T100000.123456Z   once.log.20261122T100000.123456Z.zst   ....zst.part
//! in use     rotated                            compressed                             being compressed
//! ```
//!
//! # Guarantees
//!
//! - Names of a file's rotations sort in the order of the rotations, whatever the wall clock does: a new name is later
//!   than all existing ones.
//! - Any other name is not ours and is left alone.
//!
//! # Left out
//!
//! Looking at the disk.

use jiff::Timestamp;

use crate::core::tick::WallTime;

/// The time of a rotation, as written in the name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct RotatedAt(WallTime);

/// What the file of a name is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Plain,
    Compressed,
    Part,
}

impl RotatedAt {
    /// `now`, or the microsecond after `newest` if that is later.
    pub(super) fn after(newest: Option<Self>, now: WallTime) -> Self {
        newest.map_or(Self(now), |newest| newest.next().max(Self(now)))
    }

    pub(super) const fn next(self) -> Self {
        Self(WallTime::from_micros(self.0.micros().saturating_add(1)))
    }

    /// The name for a rotation of the file `name` at this time.
    pub(super) fn name(self, name: &str, kind: Kind) -> String {
        let mut time = self.0.to_string();
        time.retain(|character| !matches!(character, '-' | ':'));
        format!("{name}.{time}{}", kind.ending())
    }

    /// Reads `found` as the name of a rotation of the file `name`; `None` if it is not one.
    pub(super) fn parse(name: &str, found: &str) -> Option<(Self, Kind)> {
        let rest = found.strip_prefix(name)?.strip_prefix('.')?;
        let (time, ending) = rest.split_at_checked(TIME_OCTETS)?;
        let kind = [Kind::Plain, Kind::Compressed, Kind::Part]
            .into_iter()
            .find(|kind| kind.ending() == ending)?;
        let at: Timestamp = time.parse().ok()?;
        let at = Self(WallTime::from_micros(at.as_microsecond()));
        // Only a name that we would have written.
        (at.name(name, kind) == found).then_some((at, kind))
    }
}

impl Kind {
    const fn ending(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Compressed => ".zst",
            Self::Part => ".zst.part",
        }
    }
}

const TIME_OCTETS: usize = 23;

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: WallTime = WallTime::from_micros(1_795_341_600_123_456);

    #[test]
    fn a_name_says_when_and_is_read_back() {
        for (kind, expected) in [
            (Kind::Plain, "a.log.20261122T100000.123456Z"),
            (Kind::Compressed, "a.log.20261122T100000.123456Z.zst"),
            (Kind::Part, "a.log.20261122T100000.123456Z.zst.part"),
        ] {
            let name = RotatedAt(NOON).name("a.log", kind);
            assert_eq!(name, expected);
            assert_eq!(
                RotatedAt::parse("a.log", &name),
                Some((RotatedAt(NOON), kind))
            );
        }
        let even = RotatedAt(WallTime::from_micros(0));
        let name = even.name("a", Kind::Plain);
        assert_eq!(name, "a.19700101T000000.000000Z");
        assert_eq!(RotatedAt::parse("a", &name), Some((even, Kind::Plain)));
    }

    #[test]
    fn what_only_resembles_a_name_is_left_alone() {
        for found in [
            "a.log",
            "a.log.1",
            "a.log.20261122T100000.123456Z.gz",
            "a.log.20261122T100000.123456Z.zst.part.part",
            "a.log.20261322T100000.123456Z",
            "a.log.2026-11-22T10:00:00.123Z",
            "a.log.20261122t100000.123456z",
            "a.log.20261122T100000,123456Z",
            "b.log.20261122T100000.123456Z",
            "a.logx.20261122T100000.123456Z",
            "a.log.aaaaaaaaaaaaaaaaaaaaaa\u{e9}",
        ] {
            assert_eq!(RotatedAt::parse("a.log", found), None, "{found}");
        }
    }

    #[test]
    fn a_later_rotation_sorts_later_though_the_clock_went_back() {
        let first = RotatedAt::after(None, NOON);
        let back = WallTime::from_micros(NOON.micros() - 3_600_000_000);
        let second = RotatedAt::after(Some(first), back);
        let third = RotatedAt::after(Some(second), NOON);
        let names = [first, second, third].map(|at| at.name("a", Kind::Plain));
        assert!(names.is_sorted_by(|one, two| one < two), "{names:?}");
    }
}
