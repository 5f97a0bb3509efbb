//! The spool: what waits on disk while the upstream is away.
//!
//! A directory of segments, written at one end and read at the other:
//!
//! ```text
//!           acknowledged      read                     written
//!                │              │                         │
//!     ┌──────────┼────┐  ┌──────┼────────┐  ┌─────────────┤
//!     │ ........ │    │  │      │        │  │             │◀── append (write, fdatasync)
//!     └──────────┴────┘  └──────┴────────┘  └─────────────┘
//!       segment 7          segment 8          segment 9: the active one
//!
//!     segment    header, its copy one page on, then records
//!     header     run, salt, and what was written before this segment: records, survivors
//!     record     length, place in the segment, claim or count, two CRCs (40 octets), then the frame
//!     cursor     two slots, written in turn: records and survivors acknowledged, written
//!     lock       held while a process has the spool; says which
//! ```
//!
//! A place in the spool is a number of records and of survivors since the spool was made. A header says what was
//! written before its segment, so the next segment's header is the total of the one before; a record says what
//! stands before it in its segment. Whatever is missing between two things that can be read is therefore known
//! **exactly**: it is a difference of two numbers, whether a bit flipped in a record, a sector went bad, or a file
//! was deleted.
//!
//! # Guarantees
//!
//! - **Written whole or not at all.** When [[`Spool::append`]] returns `Ok`, all of it is on the disk (`fdatasync`,
//!   and the directory if a segment was made). When it does not, the segment is cut back to where it ended, and
//!   nothing of it will be read by this process. (If even the cut fails, that segment is not written to again; a
//!   later process may then find the records and send them: a duplicate, not a loss.)
//! - **Read in order, each once**, until acknowledged; again after a restart, if not acknowledged.
//! - **Damage costs what it hits.** A record whose frame is damaged is passed over by its length, which has a CRC
//!   of its own. Behind a damaged header the next record is looked for octet by octet. Both headers of a segment
//!   must be damaged to lose the segment. What was lost is told with the next [`Batch`].
//! - **No message can pass for a record.** Both CRCs start from numbers drawn at random for each segment, and a
//!   record must fit in by its place.
//! - **Opens after a kill at any point.** A torn tail is cut off. The cursor of a process that was killed is good
//!   (the kernel has it); after a power cut it may be old, and what it does not know of is sent again.
//! - **Space comes back as it drains**: a segment that is acknowledged is deleted. The files together never take
//!   more than `max_octets`.
//! - **No removed file is held open**, by either end. If we remove a file, the disk has its space at once; if another
//!   process does, with the next call of [`Spool::append`] or [`Spool::tend`].
//! - **The descriptor that wrote a segment reads it.** A second name, or another mode or owner, that a file got since changes
//!   nothing. [`HELD_MAX`] complete segments are kept open for that.
//! - **A file that is not safe to open is not given up.** [`Spool::read`] says what is wrong and what mends it, and the next
//!   call tries again; nothing behind the file is read before. Its header says how much it holds, so that all counts
//!   are right. [`Found::not_safe`] lists such files at the start. `disk` says what is safe, and why.
//! - **A cursor of another history is not believed** ([`Found::cursor_foreign`]). It may come from a backup that was put
//!   back in part; all that is in the segments is read then. No difference of two counts is less than zero.
//! - **Opens fast**: headers only, and one segment read through.
//! - Appending waits for the disk without a lock that a reader needs.
//! - A claim of an earlier process comes back as void: its windows are gone.
//! - **Nobody else's files**: the directory is 0700, files are 0600, opened relative to the directory without
//!   following symlinks; a directory that others may write to or own, or whose parent they may write to, is
//!   refused. One process at a time.
//!
//! # When the disk fails
//!
//! Each is a [`SpoolError`] of its own, and the next call tries again. A directory that was removed is told once,
//! as [`SpoolError::Gone`], and made anew by the next append; what was in it is counted as lost by the reader.
//! A directory that is not at its path any more (it was moved, or something is mounted over it) is told as
//! [`SpoolError::Moved`] as long as that lasts. Nothing is appended meanwhile, since the next process would not find it, and
//! nothing is made in the other directory; what is in the open one is read and acknowledged as before.
//! An error while reading is told [`READ_TRIES`] times at one place (the disk may come back); after that
//! the page is taken for damaged.
//!
//! # Left out
//!
//! - Going back: what was read is the caller's to keep until it acknowledges. A restart reads it again.
//! - Appending in parts: one call goes into one segment, which may grow beyond its size by that much.
//! - Compression, and encryption: whoever may read the directory may read the messages.
//! - A digest against an attacker who writes to the disk: CRCs find accidents.

mod age;
mod cursor;
mod disk;
mod error;
mod look;
mod reader;
mod record;
mod segment;
mod writer;

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::fcntl::OFlag;

use self::{
    age::Ages,
    cursor::{Cursor, Marks},
    disk::{Disk, RealDisk},
    reader::Reader,
    segment::Segment,
    writer::Writer,
};
use crate::{chunk::Chunk, tick::WallTime};

pub use self::{
    cursor::Position,
    error::{SpoolError, Unsafe},
    look::look,
};

/// Frames on disk. See the module page.
///
/// One thread may append while another reads and acknowledges.
#[derive(Debug)]
pub struct Spool {
    disk: Box<dyn Disk>,
    /// This process, as a random number.
    run: u64,
    max_octets: u64,
    found: Found,
    /// Held while the disk is waited for. Locks are taken in the order of these fields.
    writer: Mutex<Writer>,
    reader: Mutex<Reader>,
    cursor: Mutex<Cursor>,
    /// Held for moments.
    shared: Mutex<Shared>,
}

/// What [`Spool::open`] found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Survivors that wait; those that turn out to be damaged included.
    pub recovered: u64,
    /// Octets cut off the last segment, which was being written.
    pub torn_octets: u64,
    /// Segments of which both headers are damaged or cannot be read.
    pub unreadable_segments: u64,
    /// The cursor was missing or damaged: what it did not know of comes again.
    pub cursor_damaged: bool,
    /// The cursor does not belong to the segments: it was not believed, and all that is in them comes.
    pub cursor_foreign: bool,
    /// Octets that the disk lacks for the spool to become as large as it may.
    pub lacking_octets: u64,
    /// What is wrong with files that are not safe to open, and what mends it. The records of such a segment, and all
    /// behind them, wait until then.
    pub not_safe: Vec<String>,
}

/// What [`Spool::read`] gives.
#[derive(Debug)]
pub struct Batch {
    /// The next records, in order.
    pub chunk: Chunk,
    /// Survivors that stood among them, and are lost.
    pub lost: u64,
    /// To be given to [`Spool::acknowledge`] once they are done with.
    pub upto: Position,
}

/// What both ends know.
#[derive(Debug)]
struct Shared {
    marks: Marks,
    segments: VecDeque<Segment>,
    ages: Ages,
}

impl Shared {
    fn octets(&self) -> u64 {
        self.segments.iter().map(|segment| segment.octets).sum()
    }

    /// Survivors and records that are not acknowledged.
    const fn left(&self) -> Position {
        let Marks {
            acknowledged,
            written,
        } = self.marks;
        Position {
            records: written.records.saturating_sub(acknowledged.records),
            survivors: written.survivors.saturating_sub(acknowledged.survivors),
        }
    }

    /// Whether all is acknowledged.
    fn is_drained(&self) -> bool {
        self.marks.acknowledged == self.marks.written
    }

    /// Adds the last segment, or says how long it is by now.
    fn put(&mut self, segment: Segment) {
        match self.segments.back_mut() {
            Some(last) if last.header.number == segment.header.number => *last = segment,
            _ => self.segments.push_back(segment),
        }
    }
}

impl Spool {
    /// Opens the spool in `directory`, and makes it if the directory above is there.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Busy`], [`SpoolError::Unsafe`], [`SpoolError::Format`], [`SpoolError::Foreign`]; otherwise what
    /// the system says. Damage is no error, see [`Spool::found`].
    pub fn open(directory: &Path, max_octets: u64) -> Result<Self, SpoolError> {
        Self::on(Box::new(RealDisk::open(directory)?), max_octets)
    }

    fn on(disk: Box<dyn Disk>, max_octets: u64) -> Result<Self, SpoolError> {
        let mut found = Found::default();
        let mut number = 0;
        let mut segments = segment::find(&*disk, &mut number, &mut found)?;
        let (cursor, told, damaged) = Cursor::load(&*disk, &mut found);
        let end = Self::find_end(&*disk, &mut segments, &mut found)?;
        found.cursor_damaged = damaged && (told.is_some() || !segments.is_empty());
        found.cursor_foreign = told.is_some_and(|told| !told.is_of(&segments, end));
        let told = told.filter(|_| !found.cursor_foreign);
        let mut marks = told.map(|told| told.marks).unwrap_or_default();
        if let Some(first) = segments.front()
            && (damaged || found.cursor_foreign)
        {
            // What is not there any more may have been acknowledged by what is lost.
            marks.acknowledged = marks.acknowledged.max(first.header.before);
        }
        marks.written = marks.written.max(end);
        marks.acknowledged = marks.acknowledged.min(marks.written);
        // Left behind by a process that ended while it asked the disk for room.
        let _removed = disk.remove(writer::TRIAL);
        let mut ages = Ages::default();
        for segment in &segments {
            if let Some(begun) = segment.begun(&*disk) {
                ages.wrote(segment.header.before, begun);
            }
        }
        let shared = Shared {
            marks,
            segments,
            ages,
        };
        let room = disk.room().unwrap_or(u64::MAX);
        found.lacking_octets = max_octets.saturating_sub(shared.octets().saturating_add(room));
        found.recovered = shared.left().survivors;
        let spool = Self {
            disk,
            run: random(),
            max_octets,
            found,
            writer: Mutex::new(Writer::new(number)),
            reader: Mutex::new(Reader::new(marks.acknowledged)),
            cursor: Mutex::new(cursor),
            shared: Mutex::new(shared),
        };
        // What fails here on a full or read-only disk is told when it matters.
        let _stored = spool.acknowledge(marks.acknowledged);
        Ok(spool)
    }

    /// Where the last of the segments ends, which is cut off there.
    fn find_end(
        disk: &dyn Disk,
        segments: &mut VecDeque<Segment>,
        found: &mut Found,
    ) -> Result<Position, SpoolError> {
        let Some(last) = segments.back_mut() else {
            return Ok(Position::default());
        };
        let name = segment::name(last.header.number);
        let (file, _) = disk.peek(&name)?;
        let (place, octets) = segment::survey(disk, file, last.header.salt(), last.octets)?;
        found.torn_octets = last.octets - octets;
        if found.torn_octets > 0 {
            // It will not be read: cutting it gives the space back, if it can be done.
            let _cut = disk
                .open(&name, OFlag::O_RDWR)
                .and_then(|file| disk.cut(&file, octets));
        }
        last.octets = octets;
        last.end = last.header.before.at(place);
        Ok(last.end)
    }

    /// What was found when it was opened.
    #[must_use]
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Octets on the disk.
    #[must_use]
    pub fn octets(&self) -> u64 {
        lock(&self.shared).octets() + cursor::OCTETS
    }

    /// Octets that there may be on the disk.
    #[must_use]
    pub const fn max_octets(&self) -> u64 {
        self.max_octets
    }

    /// Records that are not acknowledged.
    #[must_use]
    pub fn records(&self) -> u64 {
        lock(&self.shared).left().records
    }

    /// Survivors among them.
    #[must_use]
    pub fn survivors(&self) -> u64 {
        lock(&self.shared).left().survivors
    }

    /// When the oldest of them was written, as far as is known: it is not older. `None` if there are none.
    #[must_use]
    pub fn oldest(&self) -> Option<WallTime> {
        let mut shared = lock(&self.shared);
        let acknowledged = shared.marks.acknowledged;
        let oldest = shared.ages.oldest(acknowledged);
        oldest.filter(|_| !shared.is_drained())
    }

    /// Files that hold them.
    #[must_use]
    pub fn segments(&self) -> usize {
        lock(&self.shared).segments.len()
    }

    /// Whether what [`Spool::read`] gave with `upto` is on the disk, to be given again by the next process.
    #[must_use]
    pub fn holds(&self, upto: Position) -> bool {
        let shared = lock(&self.shared);
        let mut segments = shared.segments.iter();
        upto > shared.marks.acknowledged
            && segments.any(|segment| segment.header.before < upto && upto <= segment.end)
    }

    /// The next records, until the chunk takes about `octets`; `None` if there are none. One record at least, however
    /// long it is.
    ///
    /// # Errors
    ///
    /// What the disk says; the next call tries again.
    pub fn read(&self, octets: usize) -> Result<Option<Batch>, SpoolError> {
        lock(&self.reader).read(self, octets)
    }

    /// All before `upto` is done with: it does not come again, and its space is given back.
    ///
    /// # Errors
    ///
    /// What the disk says. It is acknowledged in this process nevertheless; the disk learns of it with the next one.
    pub fn acknowledge(&self, upto: Position) -> Result<(), SpoolError> {
        let (stored, file, done) = {
            let mut cursor = lock(&self.cursor);
            let (marks, ends, done) = {
                let mut shared = lock(&self.shared);
                let upto = upto.min(shared.marks.written);
                shared.marks.acknowledged = shared.marks.acknowledged.max(upto);
                let befores = shared
                    .segments
                    .iter()
                    .skip(1)
                    .map(|next| next.header.before);
                let done = befores.take_while(|end| *end <= shared.marks.acknowledged);
                (shared.marks, cursor::ends(&shared.segments), done.count())
            };
            (cursor.store(&*self.disk, marks, ends), cursor.file(), done)
        };
        match stored {
            // What was in the directory is gone, and nothing of it can come again.
            Err(_) if self.disk.is_gone() => return Ok(()),
            // A file system that never writes in place, or no cursor yet: room for it comes from what is let go of.
            Err(SpoolError::NoSpace { .. }) => {
                self.remove_front(done)?;
                self.remove_drained()?;
                let (marks, ends) = {
                    let shared = lock(&self.shared);
                    (shared.marks, cursor::ends(&shared.segments))
                };
                return lock(&self.cursor).store(&*self.disk, marks, ends);
            }
            stored => {
                stored?;
                if done > 0 {
                    // A cursor older than the first segment would take what is deleted for lost.
                    file.map_or(Ok(()), |file| self.disk.sync(&file))?;
                    self.remove_front(done)?;
                }
            }
        }
        self.remove_drained()
    }

    /// Deletes the first `count` segments.
    fn remove_front(&self, count: usize) -> Result<(), SpoolError> {
        for _ in 0..count {
            let first = lock(&self.shared).segments.front().cloned();
            let Some(first) = first else {
                break;
            };
            self.remove(first.header.number)?;
        }
        Ok(())
    }

    /// Deletes a segment, and lets go of it.
    fn remove(&self, number: u64) -> Result<(), SpoolError> {
        self.disk.remove(&segment::name(number))?;
        // Waits for a read that is under way, which would hold it open.
        lock(&self.reader).close(number);
        self.forget_segment(number);
        Ok(())
    }

    /// A file is not there any more.
    fn forget_segment(&self, number: u64) {
        let mut shared = lock(&self.shared);
        shared
            .segments
            .retain(|segment| segment.header.number != number);
    }
}

/// Drawn by the operating system, by way of the keys of a hash table.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Complete segments that this process wrote and keeps open, to read them by the descriptor that wrote them.
pub const HELD_MAX: usize = 16;

/// Errors of the medium at one place before it is passed over.
pub const READ_TRIES: u32 = 3;

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
