//! Variety: how the suppressed copies of a message differ, if masks or a choice of fields fold different texts or hosts.
//!
//! A mark keeps one copy for its summary: the first one if nothing is folded, otherwise the last one and the number
//! of different texts and hosts.
//!
//! # Guarantees
//!
//! - Counts are exact up to [`DISTINCT_MAX`]; beyond that it is known that there are more.
//! - A mark whose policy folds nothing pays nothing for it: [`Kept`] is no larger than a frame.
//!
//! # Left out
//!
//! Room for what is kept (`engine`).

use std::fmt;

use super::{Sighting, alloc_octets};

/// What a mark keeps of the copies that it suppressed.
#[derive(Debug)]
pub(super) enum Kept {
    /// The first of them; empty before there is one.
    First(Box<[u8]>),
    /// The last of them, and how they differ.
    Varied(Box<Varied>),
}

#[derive(Debug)]
pub(super) struct Varied {
    /// The last copy, in the first `len` octets.
    buffer: Box<[u8]>,
    len: usize,
    texts: Distinct,
    hosts: Distinct,
}

/// How much the folded copies vary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Variety {
    /// Different texts, if texts are folded.
    pub texts: Option<Several>,
    /// Different hosts, if hosts are folded.
    pub hosts: Option<Several>,
}

/// A number that is known exactly, or known to be larger than [`DISTINCT_MAX`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Several {
    /// Exactly this many.
    Exactly(u8),
    /// At least this many.
    AtLeast(u8),
}

/// A small set of hashes.
#[derive(Debug, Default)]
struct Distinct {
    hashes: [u64; DISTINCT_MAX as usize],
    len: u8,
    /// Whether there were more than fit.
    overflows: bool,
}

impl Kept {
    pub(super) fn nothing() -> Self {
        Self::First(Box::default())
    }

    /// Keeps the first copy.
    pub(super) fn of(sighting: Sighting<'_>) -> Self {
        if sighting.variant.is_none() {
            return Self::First(sighting.frame.into());
        }
        Self::Varied(Box::new(Varied {
            buffer: sighting.frame.into(),
            len: sighting.frame.len(),
            texts: Distinct::default(),
            hosts: Distinct::default(),
        }))
    }

    /// Octets that keeping that copy as the first one allocates.
    pub(super) const fn octets_for(sighting: Sighting<'_>) -> usize {
        let varied = if sighting.variant.is_some() {
            VARIED_OCTETS
        } else {
            0
        };
        varied + alloc_octets(sighting.frame.len())
    }

    /// Octets that keeping a frame of `octets` octets as the first one allocates at most.
    pub(super) const fn octets_max(octets: usize) -> usize {
        VARIED_OCTETS + alloc_octets(octets)
    }

    /// Octets allocated. A copy must have been kept.
    pub(super) const fn octets(&self) -> usize {
        match self {
            Self::First(frame) => alloc_octets(frame.len()),
            Self::Varied(varied) => VARIED_OCTETS + alloc_octets(varied.buffer.len()),
        }
    }

    /// Octets that noting one more copy would allocate.
    #[inline]
    pub(super) fn growth(&self, sighting: Sighting<'_>) -> usize {
        match self {
            Self::Varied(varied)
                if sighting.variant.is_some() && sighting.frame.len() > varied.buffer.len() =>
            {
                alloc_octets(sighting.frame.len()) - alloc_octets(varied.buffer.len())
            }
            _ => 0,
        }
    }

    /// Notes one more copy. Allocates what [`Kept::growth`] says.
    pub(super) fn note(&mut self, sighting: Sighting<'_>) {
        let (Self::Varied(varied), Some(variant)) = (self, sighting.variant) else {
            return;
        };
        let frame = sighting.frame;
        match varied.buffer.get_mut(..frame.len()) {
            Some(place) => place.copy_from_slice(frame),
            None => varied.buffer = frame.into(),
        }
        varied.len = frame.len();
        varied.texts.note(variant.text);
        varied.hosts.note(variant.host);
    }

    /// The copy that is kept, and the variety of all copies.
    pub(super) fn into_parts(self) -> (Box<[u8]>, Option<Variety>) {
        match self {
            Self::First(frame) => (frame, None),
            Self::Varied(varied) => {
                let variety = Variety {
                    texts: varied.texts.several(),
                    hosts: varied.hosts.several(),
                };
                (varied.buffer[..varied.len].into(), Some(variety))
            }
        }
    }
}

impl Distinct {
    fn note(&mut self, hash: Option<u64>) {
        let Some(hash) = hash else { return };
        let known = usize::from(self.len);
        let mut hashes = self.hashes.iter_mut();
        if hashes.by_ref().take(known).any(|other| *other == hash) {
            return;
        }
        match self.hashes.get_mut(known) {
            Some(place) => {
                *place = hash;
                self.len += 1;
            }
            None => self.overflows = true,
        }
    }

    const fn several(&self) -> Option<Several> {
        match (self.len, self.overflows) {
            (0, _) => None,
            (len, false) => Some(Several::Exactly(len)),
            (len, true) => Some(Several::AtLeast(len + 1)),
        }
    }
}

impl Several {
    /// Whether it is more than one.
    #[must_use]
    pub const fn is_plural(self) -> bool {
        !matches!(self, Self::Exactly(1))
    }
}

impl Variety {
    /// Whether all copies have the same text and host.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        !self.texts.is_some_and(Several::is_plural) && !self.hosts.is_some_and(Several::is_plural)
    }
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(f, "{number}"),
            Self::AtLeast(number) => write!(f, ">= {number}"),
        }
    }
}

impl fmt::Display for Variety {
    /// `7 different texts from 3 hosts`, or the part of it that is more than one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |several: Option<Several>| several.filter(|several| several.is_plural());
        match (plural(self.texts), plural(self.hosts)) {
            (Some(texts), Some(hosts)) => write!(f, "{texts} different texts from {hosts} hosts"),
            (Some(texts), None) => write!(f, "{texts} different texts"),
            (None, Some(hosts)) => write!(f, "from {hosts} hosts"),
            (None, None) => Ok(()),
        }
    }
}

/// Different texts or hosts that are counted: enough to distinguish a handful from a crowd, in two cache lines.
pub const DISTINCT_MAX: u8 = 16;

const VARIED_OCTETS: usize = alloc_octets(size_of::<Varied>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::identity::Variant;

    #[test]
    fn what_is_kept_is_no_larger_than_a_frame() {
        assert_eq!(size_of::<Kept>(), size_of::<Box<[u8]>>());
    }

    #[test]
    fn the_last_copy_is_kept_and_different_ones_are_counted_once() {
        let copy = |number: u64, frame: &'static [u8]| {
            let variant = Variant {
                text: Some(number),
                host: Some(number % 2),
            };
            (variant, frame)
        };
        let check = |copies: &[(Variant, &[u8])], texts, hosts, last: &[u8]| {
            let sighting = |(variant, frame)| Sighting {
                frame,
                timestamp: None,
                variant: Some(variant),
            };
            let mut kept = Kept::of(sighting((&copies[0].0, copies[0].1)));
            for (variant, frame) in copies {
                let before = kept.octets();
                let growth = kept.growth(sighting((variant, frame)));
                kept.note(sighting((variant, frame)));
                assert_eq!(kept.octets(), before + growth);
            }
            let (frame, variety) = kept.into_parts();
            assert_eq!(&*frame, last);
            let (texts, hosts) = (Some(texts), Some(hosts));
            assert_eq!(variety, Some(Variety { texts, hosts }));
        };
        use Several::{AtLeast, Exactly};
        check(&[copy(0, b"one")], Exactly(1), Exactly(1), b"one");
        check(
            &[copy(0, b"a"), copy(1, &[b'b'; 99]), copy(0, b"cc")],
            Exactly(2),
            Exactly(2),
            b"cc",
        );
        let all: Vec<_> = (0..16).map(|number| copy(number, b"x")).collect();
        check(&all, Exactly(16), Exactly(2), b"x");
        let all: Vec<_> = (0..100).map(|number| copy(number, b"x")).collect();
        check(&all, AtLeast(17), Exactly(2), b"x");
    }

    #[test]
    fn only_what_varies_is_said() {
        use Several::{AtLeast, Exactly};
        for (texts, hosts, said) in [
            (Some(Exactly(7)), None, "7 different texts"),
            (Some(Exactly(7)), Some(Exactly(1)), "7 different texts"),
            (Some(Exactly(1)), Some(Exactly(3)), "from 3 hosts"),
            (
                Some(AtLeast(17)),
                Some(Exactly(3)),
                ">= 17 different texts from 3 hosts",
            ),
            (Some(Exactly(1)), Some(Exactly(1)), ""),
        ] {
            let variety = Variety { texts, hosts };
            assert_eq!(variety.to_string(), said);
            assert_eq!(variety.is_uniform(), said.is_empty());
        }
    }
}
