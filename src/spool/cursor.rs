//! The cursor: how far the spool was acknowledged and written, in a file of two slots.
//!
//! ```text
//!     0                                                                                                  4096
//!     │ magic │ turn │ acknowledged: records, survivors │ written: same │ first, last segment │ CRC │ ... │ the other slot
//!                                                                         number, salt
//! ```
//!
//! # Guarantees
//!
//! - The slots are written in turn, so that a torn or damaged one leaves the other, which is one turn older.
//! - A cursor that is lost or old costs duplicates, never a message.
//! - A cursor of another history is not believed (see [`Told::is_of`]): it counts other messages.
//! - A cursor that has a second name, or that others may write to, is not written to: a new file takes its name. It is
//!   believed unless others may write to it.
//!
//! # Left out
//!
//! - Waiting for the disk: only before a segment is deleted does it matter, see [`Cursor::file`].
//! - Cursors of versions before segments were named in them are read, and believed if their numbers fit.

use std::{collections::VecDeque, fs::File, sync::Arc};

use nix::fcntl::OFlag;

use super::{
    Found,
    disk::{self, Disk},
    error::{SpoolError, Unsafe},
    segment::Segment,
};

/// How much was written before a point of the spool, since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, PartialOrd, Ord)]
pub struct Position {
    pub(super) records: u64,
    pub(super) survivors: u64,
}

/// What the cursor says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Marks {
    /// All before it is done with.
    pub(super) acknowledged: Position,
    /// All before it was written.
    pub(super) written: Position,
}

/// What the cursor says, and of which segments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Told {
    pub(super) marks: Marks,
    /// The oldest and the newest segment that there were; `None` from a version that did not say.
    pub(super) ends: Option<Ends>,
}

/// The oldest and the newest segment.
pub(super) type Ends = [Witness; 2];

/// What tells a segment from any other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Witness {
    number: u64,
    salt: u64,
}

impl Witness {
    /// Where there is no segment.
    const NONE: Self = Self {
        number: u64::MAX,
        salt: 0,
    };
}

/// The oldest and the newest of `segments`.
pub(super) fn ends(segments: &VecDeque<Segment>) -> Ends {
    [segments.front(), segments.back()].map(|segment| {
        segment.map_or(Witness::NONE, |segment| Witness {
            number: segment.header.number,
            salt: segment.header.salt,
        })
    })
}

impl Told {
    /// Whether this was written beside `segments`, the last of which ends at `end`: nothing in them contradicts it, and
    /// one of the two that it names is among them, or else none of them had been made.
    pub(super) fn is_of(&self, segments: &VecDeque<Segment>, end: Position) -> bool {
        let Marks {
            acknowledged,
            written,
        } = self.marks;
        let fits = |place: Position| {
            [acknowledged, written]
                .into_iter()
                .all(|told| place.may_precede(told) || told.may_precede(place))
        };
        let mut befores = segments.iter().map(|segment| segment.header.before);
        if !(acknowledged.may_precede(written) && befores.all(fits) && fits(end)) {
            return false;
        }
        let (Some(ends), Some(first)) = (self.ends, segments.front()) else {
            return true;
        };
        let mut is_met = false;
        for witness in ends {
            let namesake = segments
                .iter()
                .find(|segment| segment.header.number == witness.number);
            if let Some(segment) = namesake {
                if segment.header.salt != witness.salt {
                    return false;
                }
                is_met = true;
            }
        }
        // What was acknowledged then cannot reach into what was made later.
        let [_, last] = ends;
        let is_older = last == Witness::NONE || last.number < first.header.number;
        is_met || (is_older && acknowledged.may_precede(first.header.before))
    }
}

/// The cursor's file.
#[derive(Debug)]
pub(super) struct Cursor {
    file: Option<Arc<File>>,
    turn: u64,
}

impl Cursor {
    /// Reads the cursor. Nothing is told if there is none that can be read; `true` if that may be older than what
    /// was last written.
    pub(super) fn load(disk: &dyn Disk, found: &mut Found) -> (Self, Option<Told>, bool) {
        let mut cursor = Self {
            file: None,
            turn: 0,
        };
        let Ok((file, not_safe)) = disk.peek(NAME) else {
            return (cursor, None, true);
        };
        if let Some(error) = not_safe {
            found.not_safe.push(error.to_string());
            if !error.is_second_name() {
                return (cursor, None, true);
            }
        }
        let mut best = None;
        let mut damaged = false;
        for slot in 0..SLOTS {
            let mut octets = [0; SLOT_OCTETS];
            let read = disk.read(&file, &mut octets, slot * SLOT_EVERY);
            match read.ok().and_then(|_| decode(&octets)) {
                Some((turn, told)) if best.is_none_or(|(other, _)| turn > other) => {
                    best = Some((turn, told));
                }
                Some(_) => {}
                None => damaged = true,
            }
        }
        cursor.turn = best.map_or(0, |(turn, _)| turn);
        (cursor, best.map(|(_, told)| told), damaged)
    }

    /// Writes what is so, over the older slot.
    pub(super) fn store(
        &mut self,
        disk: &dyn Disk,
        marks: Marks,
        ends: Ends,
    ) -> Result<(), SpoolError> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(open(disk)?);
                // Both slots at once, so that an unwritten one is always a damaged one.
                self.put(disk, &file, marks, ends)?;
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        self.put(disk, &file, marks, ends)
    }

    fn put(
        &mut self,
        disk: &dyn Disk,
        file: &File,
        marks: Marks,
        ends: Ends,
    ) -> Result<(), SpoolError> {
        let turn = self.turn.wrapping_add(1);
        let octets = encode(turn, marks, ends);
        disk.write(file, &octets, turn % SLOTS * SLOT_EVERY)?;
        self.turn = turn;
        Ok(())
    }

    /// The file, to wait until it is on the disk.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    /// The file was removed: the next marks go into a new one.
    pub(super) fn forget(&mut self) {
        self.file = None;
    }

    /// Lets go of the file if it was removed.
    pub(super) fn let_go_of_removed(&mut self) {
        self.file.take_if(|file| disk::is_removed(file));
    }
}

/// Opens the file to write to it, and makes it if there is none. If what is there has another name as well, or others
/// may write to it, it only loses this name.
fn open(disk: &dyn Disk) -> Result<File, SpoolError> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT;
    match disk.open(NAME, flags) {
        Err(SpoolError::Unsafe {
            why: Unsafe::Names { .. } | Unsafe::Mode { .. },
            ..
        }) => {
            disk.remove(NAME)?;
            disk.open(NAME, flags | OFlag::O_EXCL)
        }
        opened => opened,
    }
}

fn encode(turn: u64, marks: Marks, ends: Ends) -> [u8; SLOT_OCTETS] {
    let mut octets = [0; SLOT_OCTETS];
    let [first, last] = ends;
    let numbers = [
        MAGIC,
        turn,
        marks.acknowledged.records,
        marks.acknowledged.survivors,
        marks.written.records,
        marks.written.survivors,
        first.number,
        first.salt,
        last.number,
        last.salt,
    ];
    let (covered, crc) = octets.split_at_mut(SLOT_OCTETS - 4);
    for (to, number) in covered.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    crc.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
    octets
}

fn decode(octets: &[u8; SLOT_OCTETS]) -> Option<(u64, Told)> {
    let names_segments = octets.starts_with(&MAGIC.to_le_bytes());
    let slot = if names_segments {
        octets.as_slice()
    } else {
        octets.get(..OLD_SLOT_OCTETS)?
    };
    let (covered, crc) = slot.split_last_chunk::<4>()?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut numbers = covered
        .as_chunks::<8>()
        .0
        .iter()
        .map(|octets| u64::from_le_bytes(*octets));
    let mut number = || numbers.next();
    if !matches!(number()?, MAGIC | OLD_MAGIC) {
        return None;
    }
    let turn = number()?;
    let mut pair = || Some((number()?, number()?));
    let mut position = || pair().map(|(records, survivors)| Position { records, survivors });
    let marks = Marks {
        acknowledged: position()?,
        written: position()?,
    };
    let mut witness = || pair().map(|(number, salt)| Witness { number, salt });
    let ends = names_segments
        .then(|| Some([witness()?, witness()?]))
        .flatten();
    Some((turn, Told { marks, ends }))
}

/// Octets that the file takes.
pub(super) const OCTETS: u64 = SLOT_EVERY + SLOT_OCTETS as u64;

const NAME: &str = "cursor";
const MAGIC: u64 = u64::from_le_bytes(*b"tersedC2");
const SLOTS: u64 = 2;
const SLOT_OCTETS: usize = 10 * 8 + 4;

/// Of a version that did not name segments.
const OLD_MAGIC: u64 = u64::from_le_bytes(*b"tersedCU");
const OLD_SLOT_OCTETS: usize = 6 * 8 + 4;

/// A page apart, so that no sector holds both.
const SLOT_EVERY: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(records: u64, survivors: u64) -> Position {
        Position { records, survivors }
    }

    const MARKS: Marks = Marks {
        acknowledged: at(7, 6),
        written: at(1 << 40, 1 << 39),
    };

    #[test]
    fn no_bit_of_a_slot_can_flip_unseen() {
        let ends = [Witness { number: 3, salt: 9 }, Witness::NONE];
        let told = Told {
            marks: MARKS,
            ends: Some(ends),
        };
        let octets = encode(3, MARKS, ends);
        assert_eq!(decode(&octets), Some((3, told)));
        for bit in 0..octets.len() * 8 {
            let mut damaged = octets;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_slot_of_the_version_before_is_read() {
        let mut octets = [0; SLOT_OCTETS];
        let numbers = [OLD_MAGIC, 5, 7, 6, 1 << 40, 1 << 39];
        for (to, number) in octets.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&octets[..OLD_SLOT_OCTETS - 4]);
        octets[OLD_SLOT_OCTETS - 4..OLD_SLOT_OCTETS].copy_from_slice(&crc.to_le_bytes());
        let told = Told {
            marks: MARKS,
            ends: None,
        };
        assert_eq!(decode(&octets), Some((5, told)));
    }
}
