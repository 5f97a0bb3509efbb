//! A record: one frame on disk, and how to find the next record behind damage.
//!
//! ```text
//!      0        4        8           12              32          36           40
//!     │ length │ index  │ survivors │ claim or count │ frame CRC │ header CRC │ frame ...
//!      bit 31: summary   └ before it in its segment
//! ```
//!
//! # Guarantees
//!
//! - A record that is returned was written here, at this place: both CRCs are right, which start from the
//!   segment's salt, and its place fits between the record before it and the end.
//! - No length is used before its CRC was checked, and none that goes beyond the segment's end. The caller never has to
//!   hold more than one record to continue.
//! - The work is linear in the octets, including damaged ones (except for the CRCs of frames behind an intact header).
//!
//! # Left out
//!
//! Counting what was lost. The caller takes it from the places.

#![warn(clippy::indexing_slicing)]

use crc32fast::Hasher;

use crate::{core::dedup::Claim, delivery::chunk::Entry};

/// Octets of a record before its frame.
pub(super) const HEADER_OCTETS: usize = 40;

/// The numbers that a segment's CRCs start from. Senders of messages do not know them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Salt {
    header: u32,
    frame: u32,
}

impl Salt {
    pub(super) const fn new(random: u64) -> Self {
        let [a, b, c, d, frame @ ..] = random.to_le_bytes();
        Self {
            header: u32::from_le_bytes([a, b, c, d]),
            frame: u32::from_le_bytes(frame),
        }
    }
}

/// What comes before a record in its segment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) survivors: u32,
}

impl Place {
    /// For a segment whose end is not known.
    pub(super) const MAX: Self = Self {
        index: u32::MAX,
        survivors: u32::MAX,
    };

    /// The place behind a record at this place.
    pub(super) const fn after(self, entry: Entry) -> Self {
        Self {
            index: self.index.saturating_add(1),
            survivors: self
                .survivors
                .saturating_add(matches!(entry, Entry::Survivor(_)) as u32),
        }
    }

    /// True if a record with `entry` at this place can be between `from` and `to`.
    const fn fits(self, entry: Entry, from: Self, to: Self) -> bool {
        let after = self.after(entry);
        self.index >= from.index
            && self.survivors >= from.survivors
            && self.index - from.index >= self.survivors - from.survivors
            && self.index < u32::MAX
            && after.index <= to.index
            && after.survivors <= to.survivors
    }
}

/// Appends a record. Returns false, and appends nothing, if the frame is too long for one, or if it is a suppressed copy:
/// copies are not spooled.
pub(super) fn encode(
    into: &mut Vec<u8>,
    salt: Salt,
    place: Place,
    entry: Entry,
    frame: &[u8],
) -> bool {
    let Some(mut length) = u32::try_from(frame.len())
        .ok()
        .filter(|length| length & SUMMARY == 0)
    else {
        return false;
    };
    let about = match entry {
        Entry::Survivor(claim) => claim.to_octets(),
        Entry::Summary(count) => {
            length |= SUMMARY;
            let mut about = [0; Claim::OCTETS];
            for (octet, value) in about.iter_mut().zip(count.to_le_bytes()) {
                *octet = value;
            }
            about
        }
        Entry::Copy => return false,
    };
    let start = into.len();
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&place.index.to_le_bytes());
    into.extend_from_slice(&place.survivors.to_le_bytes());
    into.extend_from_slice(&about);
    into.extend_from_slice(&crc(salt.frame, frame).to_le_bytes());
    let (_, header) = into.split_at(start);
    let header_crc = crc(salt.header, header);
    into.extend_from_slice(&header_crc.to_le_bytes());
    into.extend_from_slice(frame);
    true
}

/// One record, read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// What comes before it in its segment.
    pub(super) place: Place,
    /// What it is. The claim is as it was written, even if another process wrote it.
    pub(super) entry: Entry,
    pub(super) frame: &'a [u8],
}

/// What is at the front of the octets that are left.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// A record, and how many octets it takes.
    Record(Record<'a>, usize),
    /// This many octets are needed to continue. The segment has that many left.
    More(usize),
    /// This many octets are damaged. Continue behind them.
    Damaged(usize),
    /// No octets are left.
    End,
}

/// Finds the records of one segment, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    salt: Salt,
    /// The place of the next record, or a lower bound for it.
    next: Place,
    /// Behind the last record.
    end: Place,
    /// The next record may begin at any octet.
    seeking: bool,
}

impl Scan {
    /// Begins at a segment's first record. `end` is the place behind the last; [`Place::MAX`] if it is not known.
    pub(super) const fn new(salt: Salt, end: Place) -> Self {
        Self {
            salt,
            next: Place {
                index: 0,
                survivors: 0,
            },
            end,
            seeking: false,
        }
    }

    /// Sets the place behind the last record, which has grown.
    pub(super) const fn set_end(&mut self, end: Place) {
        self.end = end;
    }

    /// The place behind the last record found.
    pub(super) const fn place(&self) -> Place {
        self.next
    }

    /// Counts all records before `place` as lost. The next record begins at the next octets.
    pub(super) const fn resume(&mut self, place: Place) {
        self.next = place;
        self.seeking = false;
    }

    /// Looks at `octets`, which are the first of the segment's `remaining` ones.
    pub(super) fn step<'a>(&mut self, octets: &'a [u8], remaining: u64) -> Step<'a> {
        if remaining == 0 {
            return Step::End;
        }
        if !self.seeking {
            match self.look(octets, remaining) {
                Look::Record(record) => return self.found(record),
                Look::More(octets) => return Step::More(octets),
                Look::FrameDamaged(octets) => return Step::Damaged(octets),
                Look::Nothing => self.seeking = true,
            }
        }
        for at in 0..octets.len() {
            let (_, rest) = octets.split_at(at);
            match self.look(rest, remaining.saturating_sub(at as u64)) {
                Look::Record(record) if at == 0 => return self.found(record),
                Look::More(octets) if at == 0 => return Step::More(octets),
                Look::Record(_) | Look::More(_) => return Step::Damaged(at),
                Look::FrameDamaged(_) | Look::Nothing => {}
            }
        }
        if octets.is_empty() {
            return Step::More(1);
        }
        Step::Damaged(octets.len())
    }

    fn found<'a>(&mut self, record: Record<'a>) -> Step<'a> {
        self.next = record.place.after(record.entry);
        self.seeking = false;
        Step::Record(record, HEADER_OCTETS + record.frame.len())
    }

    fn look<'a>(&self, octets: &'a [u8], remaining: u64) -> Look<'a> {
        if remaining < HEADER_OCTETS as u64 {
            return Look::Nothing;
        }
        let Some(header) = octets.first_chunk::<HEADER_OCTETS>() else {
            return Look::More(HEADER_OCTETS);
        };
        // The cheap checks come first: few damaged octets get as far as the CRC.
        let length = word(header, 0);
        let frame_octets = (length & !SUMMARY) as usize;
        let octets_in_all = HEADER_OCTETS + frame_octets;
        let place = Place {
            index: word(header, 4),
            survivors: word(header, 8),
        };
        if octets_in_all as u64 > remaining
            || place.index < self.next.index
            || place.index >= self.end.index
        {
            return Look::Nothing;
        }
        let (covered, _) = header.split_at(HEADER_CRC_AT);
        if crc(self.salt.header, covered) != word(header, HEADER_CRC_AT) {
            return Look::Nothing;
        }
        let (_, about) = header.split_at(12);
        let about = *about
            .first_chunk::<{ Claim::OCTETS }>()
            .expect("a header has room for a claim");
        let entry = if length & SUMMARY == 0 {
            Entry::Survivor(Claim::from_octets(about))
        } else {
            let [a, b, c, d, e, f, g, h, ..] = about;
            Entry::Summary(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
        };
        if !place.fits(entry, self.next, self.end) {
            return Look::Nothing;
        }
        let Some(frame) = octets.get(HEADER_OCTETS..octets_in_all) else {
            return Look::More(octets_in_all);
        };
        if crc(self.salt.frame, frame) != word(header, FRAME_CRC_AT) {
            return Look::FrameDamaged(octets_in_all);
        }
        Look::Record(Record {
            place,
            entry,
            frame,
        })
    }
}

/// What the octets at one position are.
enum Look<'a> {
    Record(Record<'a>),
    /// The header is right as far as it is there. This many octets are needed to know more.
    More(usize),
    /// The header is right and the frame is damaged. Both together take this many octets.
    FrameDamaged(usize),
    Nothing,
}

fn crc(start: u32, octets: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(start);
    hasher.update(octets);
    hasher.finalize()
}

/// The number at octet `at` of a header.
fn word(header: &[u8; HEADER_OCTETS], at: usize) -> u32 {
    let (_, word) = header.split_at(at);
    let word = word.first_chunk().expect("no field goes beyond the header");
    u32::from_le_bytes(*word)
}

/// Where the CRC of the frame is in a header.
const FRAME_CRC_AT: usize = 32;

/// Where the CRC of the header is. It covers what is before it.
const HEADER_CRC_AT: usize = 36;

/// The bit of the length that marks a summary.
const SUMMARY: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt::new(0x0123_4567_89ab_cdef);

    /// A frame, whether it is a survivor's, and where its record begins.
    type Written = (Vec<u8>, bool, usize);

    /// Three survivors and a summary. One frame looks like a record of another segment, and one is empty.
    fn records() -> (Vec<u8>, Vec<Written>) {
        let mut forged = Vec::new();
        assert!(encode(
            &mut forged,
            Salt::new(7),
            Place::default(),
            Entry::Survivor(Claim::VOID),
            b"forged"
        ));
        let frames: [(&[u8], bool); 4] = [
            (b"<13>first", true),
            (&forged, true),
            (b"<13>message repeated", false),
            (b"", true),
        ];
        let (mut octets, mut place, mut written) = (Vec::new(), Place::default(), Vec::new());
        for (frame, survivor) in frames {
            let entry = if survivor {
                Entry::Survivor(Claim::VOID)
            } else {
                Entry::Summary(9)
            };
            let start = octets.len();
            assert!(encode(&mut octets, SALT, place, entry, frame));
            place = place.after(entry);
            written.push((frame.to_vec(), survivor, start));
        }
        (octets, written)
    }

    /// All frames that are found, with the octets handed over `step` at a time.
    fn read(octets: &[u8], end: Place, step: usize) -> Vec<Vec<u8>> {
        let (mut scan, mut found) = (Scan::new(SALT, end), Vec::new());
        let (mut at, mut have) = (0, 0);
        loop {
            let there = octets.get(at..octets.len().min(at + have)).unwrap();
            match scan.step(there, (octets.len() - at) as u64) {
                Step::Record(record, octets) => {
                    found.push(record.frame.to_vec());
                    at += octets;
                    have = have.saturating_sub(octets);
                }
                Step::More(wanted) => {
                    assert!(wanted > there.len() && wanted <= octets.len() - at);
                    have = wanted.max(have + step);
                }
                Step::Damaged(damaged) => {
                    assert!(damaged > 0);
                    at += damaged;
                    have = have.saturating_sub(damaged);
                }
                Step::End => return found,
            }
        }
    }

    #[test]
    fn records_come_back_however_they_are_handed_over() {
        let (octets, written) = records();
        let frames: Vec<_> = written.into_iter().map(|(frame, ..)| frame).collect();
        for step in [0, 1, 7, 1000] {
            assert_eq!(read(&octets, Place::MAX, step), frames);
        }
    }

    #[test]
    fn a_flipped_bit_costs_the_record_that_it_hits() {
        let (octets, written) = records();
        let end = Place {
            index: 4,
            survivors: 3,
        };
        for bit in 0..octets.len() * 8 {
            let mut damaged = octets.clone();
            *damaged.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
            let hit = written.iter().rposition(|(.., start)| *start <= bit / 8);
            let left: Vec<_> = (0..written.len())
                .filter(|index| Some(*index) != hit)
                .map(|index| written.get(index).unwrap().0.clone())
                .collect();
            for step in [0, 1000] {
                assert_eq!(read(&damaged, end, step), left, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_cut_leaves_what_is_before_it() {
        let (octets, written) = records();
        for cut in 0..=octets.len() {
            let whole = written
                .iter()
                .zip(
                    written
                        .iter()
                        .skip(1)
                        .map(|(.., start)| *start)
                        .chain([octets.len()]),
                )
                .filter(|(_, end)| *end <= cut)
                .map(|((frame, ..), _)| frame.clone());
            let found = read(octets.get(..cut).unwrap(), Place::MAX, 0);
            assert_eq!(found, whole.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_record_of_another_place_is_none() {
        let (octets, written) = records();
        let (.., second) = written.get(1).unwrap();
        let twice = [octets.get(..*second).unwrap(), &octets].concat();
        let all: Vec<_> = written.iter().map(|(frame, ..)| frame.clone()).collect();
        assert_eq!(read(&twice, Place::MAX, 0), all);
        // Records beyond the segment's end are left over from a write that did not count.
        let end = Place {
            index: 2,
            survivors: 2,
        };
        assert_eq!(read(&octets, end, 0), all.get(..2).unwrap());
    }
}
