//! The cursor: how far the spool was acknowledged and written. A file of two slots.
//!
//! ```text
//!     0                                                                                                  4096
//!     │ magic │ turn │ acknowledged: records, survivors │ written: same │ first, last segment │ CRC │ ... │ the other slot
//!                                                                         number, salt
//! ```
//!
//! # Guarantees
//!
//! - The slots are written in turn. If one is torn or damaged, the other is left, which is one turn older.
//! - A lost or old cursor costs duplicates, never a message.
//! - A cursor of another history is ignored (see [`Stored::is_of`]): it counts other messages.
//! - A cursor that has a second name, or that others may write to, is not written to. A new file takes its name. It is
//!   believed unless others may write to it.
//!
//! # Left out
//!
//! - Waiting for the disk. That matters only before a segment is deleted, see [`Cursor::file`].
//! - Naming segments in the cursors of earlier versions: those are read, and believed if their numbers fit.

use std::{collections::VecDeque, fs::File, sync::Arc};

use nix::fcntl::OFlag;

use super::{
    Found, NotSafe,
    disk::{self, Disk},
    error::{SpoolError, Unsafe},
    position::Position,
    segment::Segment,
};

/// How far the spool was acknowledged and written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Progress {
    /// Every record before it is acknowledged.
    pub(super) acknowledged: Position,
    /// Every record before it was written.
    pub(super) written: Position,
}

/// What the cursor's file says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stored {
    pub(super) progress: Progress,
    /// The oldest and the newest segment at that time; `None` if an earlier version wrote it.
    pub(super) ends: Option<Ends>,
}

/// The oldest and the newest segment.
pub(super) type Ends = [SegmentId; 2];

/// Identifies a segment across histories: its number is reused, its salt is random.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SegmentId {
    number: u64,
    salt: u64,
}

impl SegmentId {
    /// Stands for "no segment".
    const NONE: Self = Self {
        number: u64::MAX,
        salt: 0,
    };
}

/// The oldest and the newest of `segments`.
pub(super) fn ends(segments: &VecDeque<Segment>) -> Ends {
    [segments.front(), segments.back()].map(|segment| {
        segment.map_or(SegmentId::NONE, |segment| SegmentId {
            number: segment.header.number,
            salt: segment.header.salt,
        })
    })
}

impl Stored {
    /// Whether this cursor belongs to `segments`, the last of which ends at `end`: their numbers do not contradict it, and
    /// either one of the two segments that it names is among them, or all of them were made later.
    pub(super) fn is_of(&self, segments: &VecDeque<Segment>, end: Position) -> bool {
        let Progress {
            acknowledged,
            written,
        } = self.progress;
        let fits = |place: Position| {
            [acknowledged, written]
                .into_iter()
                .all(|stored| place.may_precede(stored) || stored.may_precede(place))
        };
        let mut befores = segments.iter().map(|segment| segment.header.before);
        if !(acknowledged.may_precede(written) && befores.all(fits) && fits(end)) {
            return false;
        }
        let (Some(ends), Some(first)) = (self.ends, segments.front()) else {
            return true;
        };
        let mut is_met = false;
        for id in ends {
            let namesake = segments
                .iter()
                .find(|segment| segment.header.number == id.number);
            if let Some(segment) = namesake {
                if segment.header.salt != id.salt {
                    return false;
                }
                is_met = true;
            }
        }
        // Records that were acknowledged at that time cannot lie in segments that were made later.
        let [_, last] = ends;
        let is_older = last == SegmentId::NONE || last.number < first.header.number;
        is_met || (is_older && acknowledged.may_precede(first.header.before))
    }
}

#[derive(Debug)]
pub(super) struct Cursor {
    file: Option<Arc<File>>,
    turn: u64,
}

impl Cursor {
    /// Reads the cursor. Returns `None` for its content if it cannot be read, and `true` if the content may be older than
    /// what was last written.
    pub(super) fn load(disk: &dyn Disk, found: &mut Found) -> (Self, Option<Stored>, bool) {
        let mut cursor = Self {
            file: None,
            turn: 0,
        };
        let Ok((file, not_safe)) = disk.peek(NAME) else {
            return (cursor, None, true);
        };
        if let Some(error) = not_safe {
            found.not_safe.push(NotSafe::of(NAME, &error));
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
                Some((turn, stored)) if best.is_none_or(|(other, _)| turn > other) => {
                    best = Some((turn, stored));
                }
                Some(_) => {}
                None => damaged = true,
            }
        }
        cursor.turn = best.map_or(0, |(turn, _)| turn);
        (cursor, best.map(|(_, stored)| stored), damaged)
    }

    /// Overwrites the older slot.
    pub(super) fn store(
        &mut self,
        disk: &dyn Disk,
        progress: Progress,
        ends: Ends,
    ) -> Result<(), SpoolError> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(open(disk)?);
                // Writes both slots of a new file, so that a slot that was never written always counts as damaged.
                self.put(disk, &file, progress, ends)?;
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        self.put(disk, &file, progress, ends)
    }

    fn put(
        &mut self,
        disk: &dyn Disk,
        file: &File,
        progress: Progress,
        ends: Ends,
    ) -> Result<(), SpoolError> {
        let turn = self.turn.wrapping_add(1);
        let octets = encode(turn, progress, ends);
        disk.write(file, &octets, turn % SLOTS * SLOT_EVERY)?;
        self.turn = turn;
        Ok(())
    }

    /// The file, for the caller to sync.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    /// Closes the file, which was removed. The next call of [`Cursor::store`] makes a new one.
    pub(super) fn forget(&mut self) {
        self.file = None;
    }

    /// Closes the file if it was removed.
    pub(super) fn close_if_removed(&mut self) {
        self.file.take_if(|file| disk::is_removed(file));
    }
}

/// Opens the file to write to it. Makes it if it does not exist. If the file has a second name, or others
/// may write to it, only this name is removed, and a new file takes it.
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

fn encode(turn: u64, progress: Progress, ends: Ends) -> [u8; SLOT_OCTETS] {
    let mut octets = [0; SLOT_OCTETS];
    let [first, last] = ends;
    let numbers = [
        MAGIC,
        turn,
        progress.acknowledged.records,
        progress.acknowledged.survivors,
        progress.written.records,
        progress.written.survivors,
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

fn decode(octets: &[u8; SLOT_OCTETS]) -> Option<(u64, Stored)> {
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
    let progress = Progress {
        acknowledged: position()?,
        written: position()?,
    };
    let mut segment = || pair().map(|(number, salt)| SegmentId { number, salt });
    let ends = names_segments
        .then(|| Some([segment()?, segment()?]))
        .flatten();
    Some((turn, Stored { progress, ends }))
}

/// Octets that the file takes.
pub(super) const OCTETS: u64 = SLOT_EVERY + SLOT_OCTETS as u64;

const NAME: &str = "cursor";
const MAGIC: u64 = u64::from_le_bytes(*b"tersedC2");
const SLOTS: u64 = 2;
const SLOT_OCTETS: usize = 10 * 8 + 4;

/// The magic number of versions that did not name segments.
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

    const PROGRESS: Progress = Progress {
        acknowledged: at(7, 6),
        written: at(1 << 40, 1 << 39),
    };

    #[test]
    fn no_bit_of_a_slot_can_flip_unseen() {
        let ends = [SegmentId { number: 3, salt: 9 }, SegmentId::NONE];
        let stored = Stored {
            progress: PROGRESS,
            ends: Some(ends),
        };
        let octets = encode(3, PROGRESS, ends);
        assert_eq!(decode(&octets), Some((3, stored)));
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
        let stored = Stored {
            progress: PROGRESS,
            ends: None,
        };
        assert_eq!(decode(&octets), Some((5, stored)));
    }
}
