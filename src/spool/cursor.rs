//! The cursor: how far the spool was acknowledged and written, in a file of two slots.
//!
//! ```text
//!     0                                                                          4096
//!     │ magic │ turn │ acknowledged: records, survivors │ written: same │ CRC │ ... │ the other slot
//! ```
//!
//! # Guarantees
//!
//! - The slots are written in turn, so that a torn or damaged one leaves the other, which is one turn older.
//! - A cursor that is lost or old costs duplicates, never a message.
//!
//! # Left out
//!
//! Waiting for the disk: only before a segment is deleted does it matter, see [`Cursor::file`].

use std::{fs::File, sync::Arc};

use nix::fcntl::OFlag;

use super::{disk::Disk, error::SpoolError};

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

/// The cursor's file.
#[derive(Debug)]
pub(super) struct Cursor {
    file: Option<Arc<File>>,
    turn: u64,
}

impl Cursor {
    /// Reads the cursor. Without marks if there is none that can be read; `true` if they may be older than what
    /// was last written.
    pub(super) fn load(disk: &dyn Disk) -> (Self, Option<Marks>, bool) {
        let mut cursor = Self {
            file: None,
            turn: 0,
        };
        let Ok(file) = disk.open(NAME, OFlag::O_RDONLY) else {
            return (cursor, None, true);
        };
        let mut best = None;
        let mut damaged = false;
        for slot in 0..SLOTS {
            let mut octets = [0; SLOT_OCTETS];
            let read = disk.read(&file, &mut octets, slot * SLOT_EVERY);
            match read.ok().and_then(|_| decode(&octets)) {
                Some((turn, marks)) if best.is_none_or(|(other, _)| turn > other) => {
                    best = Some((turn, marks));
                }
                Some(_) => {}
                None => damaged = true,
            }
        }
        cursor.turn = best.map_or(0, |(turn, _)| turn);
        (cursor, best.map(|(_, marks)| marks), damaged)
    }

    /// Writes the marks, over the older slot.
    pub(super) fn store(&mut self, disk: &dyn Disk, marks: Marks) -> Result<(), SpoolError> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(disk.open(NAME, OFlag::O_RDWR | OFlag::O_CREAT)?);
                // Both slots at once, so that an unwritten one is always a damaged one.
                self.put(disk, &file, marks)?;
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        self.put(disk, &file, marks)
    }

    fn put(&mut self, disk: &dyn Disk, file: &File, marks: Marks) -> Result<(), SpoolError> {
        let turn = self.turn.wrapping_add(1);
        disk.write(file, &encode(turn, marks), turn % SLOTS * SLOT_EVERY)?;
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
}

fn encode(turn: u64, marks: Marks) -> [u8; SLOT_OCTETS] {
    let mut octets = [0; SLOT_OCTETS];
    let numbers = [
        MAGIC,
        turn,
        marks.acknowledged.records,
        marks.acknowledged.survivors,
        marks.written.records,
        marks.written.survivors,
    ];
    let (covered, crc) = octets.split_at_mut(SLOT_OCTETS - 4);
    for (to, number) in covered.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    crc.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
    octets
}

fn decode(octets: &[u8; SLOT_OCTETS]) -> Option<(u64, Marks)> {
    let (covered, crc) = octets.split_last_chunk::<4>()?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut numbers = covered
        .as_chunks::<8>()
        .0
        .iter()
        .map(|octets| u64::from_le_bytes(*octets));
    let mut number = || numbers.next();
    if number()? != MAGIC {
        return None;
    }
    let turn = number()?;
    let mut position = || {
        Some(Position {
            records: number()?,
            survivors: number()?,
        })
    };
    let marks = Marks {
        acknowledged: position()?,
        written: position()?,
    };
    Some((turn, marks))
}

/// Octets that the file takes.
pub(super) const OCTETS: u64 = SLOT_EVERY + SLOT_OCTETS as u64;

const NAME: &str = "cursor";
const MAGIC: u64 = u64::from_le_bytes(*b"tersedCU");
const SLOTS: u64 = 2;
const SLOT_OCTETS: usize = 6 * 8 + 4;

/// A page apart, so that no sector holds both.
const SLOT_EVERY: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_of_a_slot_can_flip_unseen() {
        let marks = Marks {
            acknowledged: Position {
                records: 7,
                survivors: 6,
            },
            written: Position {
                records: 1 << 40,
                survivors: 1 << 39,
            },
        };
        let octets = encode(3, marks);
        assert_eq!(decode(&octets), Some((3, marks)));
        for bit in 0..octets.len() * 8 {
            let mut damaged = octets;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
    }
}
