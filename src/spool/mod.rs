//! The spool: frames wait on disk while the upstream is away.
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
//!     lock       locked while a process has the spool; contains its process id
//! ```
//!
//! A position in the spool is a number of records and of survivors since the spool was made. A header says what was
//! written before its segment, so the next segment's header is the total of the one before. A record says how many
//! records come before it in its segment. So what is missing between two things that can be read is always known
//! **exactly**: it is the difference of two numbers, whether a bit flipped in a record, a sector went bad, or a file
//! was deleted.
//!
//! # Guarantees
//!
//! - **Written whole or not at all.** When [`Spool::append`] returns `Ok`, all of it is on the disk (`fdatasync`,
//!   and the directory if a segment was made). Otherwise the segment is cut back to its previous end, and
//!   this process reads nothing of it. (If even the cut fails, this process does not write to that segment again. A
//!   later process may then find the records and send them: a duplicate, not a loss.)
//! - **Read in order, each once**, until acknowledged. A restart reads again what was not acknowledged.
//! - **Damage costs only the records that it hits.** A record whose frame is damaged is skipped by its length, which has a
//!   CRC of its own. Behind a damaged header the next record is searched octet by octet. A segment is lost only if both of
//!   its headers are damaged. The next [`Batch`] says how many survivors were lost.
//! - **No message can pass for a record.** Both CRCs start from numbers drawn at random for each segment, and the
//!   place in a record must fit.
//! - **Opens after a kill at any point.** A torn tail is cut off. The cursor of a killed process is good
//!   (the kernel has it). After a power cut it may be old; then records are sent again that it does not count.
//! - **Space comes back as it drains**: an acknowledged segment is deleted. The files together never take
//!   more than `max_octets`.
//! - **No removed file is kept open**, by either end. If we remove a file, the disk has its space at once. If another
//!   process removes one, the disk has its space with the next call of [`Spool::append`] or [`Spool::tend`].
//! - **The descriptor that wrote a segment reads it.** A second name, or another mode or owner, that a file got since then
//!   changes nothing. [`OPEN_SEGMENTS_MAX`] complete segments are kept open for that.
//! - **A file that is not safe to open is tried again.** [`Spool::read`] says what is wrong and what repairs it, and the next
//!   call tries again. Nothing behind the file is read before it. Its header says how much it holds, so all counts
//!   are right. [`Found::not_safe`] lists such files at the start, and [`Spool::first_not_safe`] the first that is not
//!   repaired yet. `disk` says what is safe, and why.
//! - **A cursor of another history is ignored** ([`Found::cursor_foreign`]). It may come from a backup that was
//!   restored in part. Then all records in the segments are read. No difference of two counts is less than zero.
//! - **Opens fast**: it reads headers only, and one segment in full.
//! - Appending waits for the disk without a lock that the reader needs.
//! - A claim of an earlier process is read back as forgotten: its windows are gone.
//! - **No other process's files**: the directory has mode 0700, files have mode 0600, and files are opened relative to the
//!   directory without following symlinks. A directory that others may write to or own, or whose parent others may
//!   write to, is refused. One process at a time.
//!
//! # When the disk fails
//!
//! Each failure is a [`SpoolError`] of its own, and the next call tries again. For a removed directory the caller gets
//! [`SpoolError::Gone`] once, and the next append makes it anew. The reader counts as lost what was in it.
//! For a directory that is not at its path any more (it was moved, or another file system is mounted over it) the caller
//! gets [`SpoolError::Moved`] as long as that lasts. Meanwhile nothing is appended, because the next process would not
//! find it, and nothing is made in the other directory. What the open directory holds is read and acknowledged as before.
//! A read error at one place is returned up to [`READ_TRIES`] times (the disk may come back). After that
//! the page counts as damaged.
//!
//! # Left out
//!
//! - Going back: the caller keeps what it read until it acknowledges it. A restart reads it again.
//! - Appending in parts: one call writes to one segment, which may exceed its size by that much.
//! - Compression and encryption: everyone who may read the directory may read the messages.
//! - Protection against an attacker who writes to the disk: CRCs find accidents.

mod cursor;
mod disk;
mod error;
mod look;
mod position;
mod reader;
mod record;
mod segment;
mod write_times;
mod writer;

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::Mutex,
};

use nix::fcntl::OFlag;

use self::{
    cursor::{Cursor, Ends, Progress},
    disk::{Disk, RealDisk},
    reader::Reader,
    segment::Segment,
    write_times::WriteTimes,
    writer::Writer,
};
use crate::{core::tick::WallTime, delivery::chunk::Chunk, lock::lock};

pub use self::{
    error::{SpoolError, Unsafe},
    look::look,
    position::Position,
};

/// Frames on disk, see the module page.
///
/// One thread may append while another reads and acknowledges.
#[derive(Debug)]
pub struct Spool {
    disk: Box<dyn Disk>,
    /// A random number that stands for this process.
    run: u64,
    max_octets: u64,
    found: Found,
    // These locks are taken in the order of the fields. The first three are kept while the disk is waited for, the last
    // only for moments.
    writer: Mutex<Writer>,
    reader: Mutex<Reader>,
    cursor: Mutex<Cursor>,
    shared: Mutex<Shared>,
    /// The files of `found` that are not known to be repaired. No other lock is taken meanwhile.
    not_safe: Mutex<VecDeque<NotSafe>>,
}

/// What [`Spool::open`] found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Survivors that wait, including those that may turn out to be damaged.
    pub recovered: u64,
    /// Octets cut off the end of the last segment, which was being written.
    pub torn_octets: u64,
    /// Segments of which both headers are damaged or cannot be read.
    pub unreadable_segments: u64,
    /// The cursor was missing or damaged: records that it did not count are read again.
    pub cursor_damaged: bool,
    /// The cursor does not belong to the segments: it is ignored, and all records are read.
    pub cursor_foreign: bool,
    /// Octets of free space that the disk lacks for the spool to reach its limit.
    pub lacking_octets: u64,
    /// Files that are not safe to open. The records of such a segment, and all records behind it, wait until it is
    /// repaired.
    pub not_safe: Vec<NotSafe>,
}

/// A file that is not safe to open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotSafe {
    /// Its name in the directory.
    name: String,
    /// What is wrong with it, and what repairs it.
    pub error: String,
}

impl NotSafe {
    fn of(name: &str, error: &SpoolError) -> Self {
        Self {
            name: name.to_owned(),
            error: error.to_string(),
        }
    }
}

/// What [`Spool::read`] returns.
#[derive(Debug)]
pub struct Batch {
    /// The next records, in order.
    pub chunk: Chunk,
    /// Survivors among or before them that are lost.
    pub lost: u64,
    /// The position behind them, for [`Spool::acknowledge`] once all of them were delivered or dropped.
    pub upto: Position,
}

/// What the writer and the reader share.
#[derive(Debug)]
struct Shared {
    progress: Progress,
    segments: VecDeque<Segment>,
    write_times: WriteTimes,
}

impl Shared {
    fn octets(&self) -> u64 {
        self.segments.iter().map(|segment| segment.octets).sum()
    }

    /// How many records and survivors are not acknowledged.
    const fn left(&self) -> Position {
        let Progress {
            acknowledged,
            written,
        } = self.progress;
        Position {
            records: written.records.saturating_sub(acknowledged.records),
            survivors: written.survivors.saturating_sub(acknowledged.survivors),
        }
    }

    /// What the cursor has to say.
    fn cursor(&self) -> (Progress, Ends) {
        (self.progress, cursor::ends(&self.segments))
    }

    /// Whether every record is acknowledged.
    fn is_drained(&self) -> bool {
        self.progress.acknowledged == self.progress.written
    }

    /// Adds the last segment, or updates it.
    fn put(&mut self, segment: Segment) {
        match self.segments.back_mut() {
            Some(last) if last.header.number == segment.header.number => *last = segment,
            _ => self.segments.push_back(segment),
        }
    }
}

impl Spool {
    /// Opens the spool in `directory`. Makes the directory if its parent exists.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Busy`], [`SpoolError::Unsafe`], [`SpoolError::Format`], [`SpoolError::Foreign`], or the
    /// system's error. Damage is not an error, see [`Spool::found`].
    pub fn open(directory: &Path, max_octets: u64) -> Result<Self, SpoolError> {
        Self::on(Box::new(RealDisk::open(directory)?), max_octets)
    }

    fn on(disk: Box<dyn Disk>, max_octets: u64) -> Result<Self, SpoolError> {
        let mut found = Found::default();
        let mut number = 0;
        let mut segments = segment::find(&*disk, &mut number, &mut found)?;
        let (cursor, stored, damaged) = Cursor::load(&*disk, &mut found);
        let end = Self::find_end(&*disk, &mut segments, &mut found)?;
        found.cursor_damaged = damaged && (stored.is_some() || !segments.is_empty());
        found.cursor_foreign = stored.is_some_and(|stored| !stored.is_of(&segments, end));
        let stored = stored.filter(|_| !found.cursor_foreign);
        let mut progress = stored.map(|stored| stored.progress).unwrap_or_default();
        if let Some(first) = segments.front()
            && (damaged || found.cursor_foreign)
        {
            // Segments that are not there any more may have been acknowledged, and the cursor that said so is lost.
            progress.acknowledged = progress.acknowledged.max(first.header.before);
        }
        progress.written = progress.written.max(end);
        progress.acknowledged = progress.acknowledged.min(progress.written);
        // A process that ended during `probe` may have left it.
        let _removed = disk.remove(writer::TRIAL);
        let mut write_times = WriteTimes::default();
        for segment in &segments {
            if let Some(begun) = segment.begun(&*disk) {
                write_times.wrote(segment.header.before, begun);
            }
        }
        let shared = Shared {
            progress,
            segments,
            write_times,
        };
        let room = disk.room().unwrap_or(u64::MAX);
        found.lacking_octets = max_octets.saturating_sub(shared.octets().saturating_add(room));
        found.recovered = shared.left().survivors;
        let not_safe = found.not_safe.iter().cloned().collect();
        let spool = Self {
            disk,
            run: random(),
            max_octets,
            found,
            writer: Mutex::new(Writer::new(number)),
            reader: Mutex::new(Reader::new(progress.acknowledged)),
            cursor: Mutex::new(cursor),
            shared: Mutex::new(shared),
            not_safe: Mutex::new(not_safe),
        };
        // On a full or read-only disk this may fail. A later call reports it when it matters.
        let _stored = spool.acknowledge(progress.acknowledged);
        Ok(spool)
    }

    /// Cuts off the torn tail of the last segment, and returns the position at its end.
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
            // The tail is never read. The cut only frees space, so it may fail.
            let _cut = disk
                .open(&name, OFlag::O_RDWR)
                .and_then(|file| disk.cut(&file, octets));
        }
        last.octets = octets;
        last.end = last.header.before.at(place);
        Ok(last.end)
    }

    /// What opening found.
    #[must_use]
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// The first file that was not safe to open at the start, and is neither repaired nor removed yet: what is wrong with
    /// it, and what repairs it. Waits for the disk.
    #[must_use]
    pub fn first_not_safe(&self) -> Option<String> {
        let mut not_safe = lock(&self.not_safe);
        while let Some(first) = not_safe.front() {
            match self.disk.peek(&first.name) {
                Ok((_, Some(error))) => return Some(error.to_string()),
                Err(error) if !error.is_missing() => return Some(first.error.clone()),
                Ok((_, None)) | Err(_) => drop(not_safe.pop_front()),
            }
        }
        None
    }

    /// Octets that the spool takes on the disk.
    #[must_use]
    pub fn octets(&self) -> u64 {
        lock(&self.shared).octets() + cursor::OCTETS
    }

    /// Octets that the spool may take on the disk.
    #[must_use]
    pub const fn max_octets(&self) -> u64 {
        self.max_octets
    }

    /// Records that are not acknowledged.
    #[must_use]
    pub fn records(&self) -> u64 {
        lock(&self.shared).left().records
    }

    /// Survivors that are not acknowledged.
    #[must_use]
    pub fn survivors(&self) -> u64 {
        lock(&self.shared).left().survivors
    }

    /// When the oldest record that is not acknowledged was written, or a little earlier; `None` if all are acknowledged.
    /// The record is not older than that.
    #[must_use]
    pub fn oldest(&self) -> Option<WallTime> {
        let mut shared = lock(&self.shared);
        let acknowledged = shared.progress.acknowledged;
        let oldest = shared.write_times.oldest(acknowledged);
        oldest.filter(|_| !shared.is_drained())
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        lock(&self.shared).segments.len()
    }

    /// Whether the batch that [`Spool::read`] returned with `upto` is still on the disk, so that the next process will read
    /// it again.
    #[must_use]
    pub fn holds(&self, upto: Position) -> bool {
        let shared = lock(&self.shared);
        let mut segments = shared.segments.iter();
        upto > shared.progress.acknowledged
            && segments.any(|segment| segment.header.before < upto && upto <= segment.end)
    }

    /// Returns the next records, about `octets` of them as a chunk, but at least one record; `None` if all were read.
    ///
    /// # Errors
    ///
    /// The disk's error. The next call tries again.
    pub fn read(&self, octets: usize) -> Result<Option<Batch>, SpoolError> {
        lock(&self.reader).read(self, octets)
    }

    /// Acknowledges all records before `upto`: they are not read again, and their space is freed.
    ///
    /// # Errors
    ///
    /// The disk's error. For this process they are acknowledged nevertheless. The next call that succeeds writes it to the
    /// disk.
    pub fn acknowledge(&self, upto: Position) -> Result<(), SpoolError> {
        let (stored, file, done) = {
            let mut cursor = lock(&self.cursor);
            let (progress, ends, done) = {
                let mut shared = lock(&self.shared);
                let upto = upto.min(shared.progress.written);
                shared.progress.acknowledged = shared.progress.acknowledged.max(upto);
                let befores = shared
                    .segments
                    .iter()
                    .skip(1)
                    .map(|next| next.header.before);
                let done = befores.take_while(|end| *end <= shared.progress.acknowledged);
                let done = done.count();
                let (progress, ends) = shared.cursor();
                (progress, ends, done)
            };
            (
                cursor.store(&*self.disk, progress, ends),
                cursor.file(),
                done,
            )
        };
        match stored {
            // The directory was removed, so nothing of it can be read again.
            Err(_) if self.disk.is_gone() => return Ok(()),
            // Either there is no cursor yet, or the file system never writes in place. Removing segments makes room for it.
            Err(SpoolError::NoSpace { .. }) => {
                self.remove_front(done)?;
                self.remove_drained()?;
                let (progress, ends) = lock(&self.shared).cursor();
                return lock(&self.cursor).store(&*self.disk, progress, ends);
            }
            stored => {
                stored?;
                if done > 0 {
                    // With a cursor older than the first segment, the next process would take deleted segments for lost.
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

    /// Deletes a segment and closes it.
    fn remove(&self, number: u64) -> Result<(), SpoolError> {
        self.disk.remove(&segment::name(number))?;
        // Waits for a read in progress, which would keep it open.
        lock(&self.reader).close(number);
        self.forget_segment(number);
        Ok(())
    }

    /// Forgets a segment whose file is not there any more.
    fn forget_segment(&self, number: u64) {
        let mut shared = lock(&self.shared);
        shared
            .segments
            .retain(|segment| segment.header.number != number);
    }
}

/// A random number from the operating system, taken from the keys of a hash table.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// How many complete segments this process keeps open, to read them by the descriptor that wrote them.
pub const OPEN_SEGMENTS_MAX: usize = 16;

/// Errors of the medium at one place before it is skipped.
pub const READ_TRIES: u32 = 3;

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
