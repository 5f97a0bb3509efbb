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
//! An error while reading is told [`READ_TRIES`] times at one place (the disk may come back); after that
//! the page is taken for damaged.
//!
//! # Left out
//!
//! - Going back: what was read is the caller's to keep until it acknowledges. A restart reads it again.
//! - Appending in parts: one call goes into one segment, which may grow beyond its size by that much.
//! - Compression, and encryption: whoever may read the directory may read the messages.
//! - A digest against an attacker who writes to the disk: CRCs find accidents.

mod cursor;
mod disk;
mod error;
mod reader;
mod record;
mod segment;

use std::{
    collections::VecDeque,
    fs::File,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::fcntl::OFlag;

use self::{
    cursor::{Cursor, Marks},
    disk::{Disk, RealDisk},
    reader::Reader,
    record::Place,
    segment::{DATA_AT, Header, Segment},
};
use crate::chunk::Chunk;

pub use self::{
    cursor::Position,
    error::{SpoolError, Unsafe},
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
    /// A segment that has become so long is not written to again.
    segment_octets: u64,
    found: Found,
    /// Held while the disk is waited for. Locks are taken in the order of these fields.
    writer: Mutex<Writer>,
    reader: Mutex<Reader>,
    cursor: Mutex<Cursor>,
    /// Held for moments.
    shared: Mutex<Shared>,
}

/// What [`Spool::open`] found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Survivors that wait; those that turn out to be damaged included.
    pub recovered: u64,
    /// Octets cut off the last segment, which was being written.
    pub torn_octets: u64,
    /// Segments of which both headers are damaged or cannot be read.
    pub unreadable_segments: u64,
    /// The cursor was missing or damaged: what it did not know of comes again.
    pub cursor_damaged: bool,
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

/// The writing end.
#[derive(Debug)]
struct Writer {
    /// The segment that is being written.
    active: Option<Active>,
    /// Of the next segment.
    number: u64,
    /// Records on their way to the disk.
    buffer: Vec<u8>,
    /// The directory was removed, and is to be made anew.
    gone: bool,
}

#[derive(Debug)]
struct Active {
    header: Header,
    file: File,
    /// Behind its last record.
    place: Place,
    octets: u64,
}

/// What both ends know.
#[derive(Debug)]
struct Shared {
    marks: Marks,
    segments: VecDeque<Segment>,
}

impl Shared {
    fn octets(&self) -> u64 {
        self.segments.iter().map(|segment| segment.octets).sum()
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
        let (cursor, marks, damaged) = Cursor::load(&*disk);
        found.cursor_damaged = damaged && (marks.is_some() || !segments.is_empty());
        let mut marks = marks.unwrap_or_default();
        if let Some(first) = segments.front()
            && damaged
        {
            // What is not there any more may have been acknowledged by what is lost.
            marks.acknowledged = marks.acknowledged.max(first.header.before);
        }
        if let Some(last) = segments.back_mut() {
            let file = disk.open(&segment::name(last.header.number), OFlag::O_RDONLY)?;
            let (place, octets) = segment::survey(&*disk, file, last.header.salt(), last.octets)?;
            found.torn_octets = last.octets - octets;
            if found.torn_octets > 0 {
                // It will not be read: cutting it gives the space back, if it can be done.
                let name = segment::name(last.header.number);
                let _cut = disk
                    .open(&name, OFlag::O_RDWR)
                    .and_then(|file| disk.cut(&file, octets));
            }
            last.octets = octets;
            marks.written = marks.written.max(last.header.before.at(place));
        }
        marks.acknowledged = marks.acknowledged.min(marks.written);
        found.recovered = marks.written.survivors - marks.acknowledged.survivors;
        let spool = Self {
            disk,
            run: random(),
            max_octets,
            segment_octets: (max_octets / SEGMENTS_MIN).min(SEGMENT_OCTETS_MAX),
            found,
            writer: Mutex::new(Writer {
                active: None,
                number,
                buffer: Vec::new(),
                gone: false,
            }),
            reader: Mutex::new(Reader::new(marks.acknowledged)),
            cursor: Mutex::new(cursor),
            shared: Mutex::new(Shared { marks, segments }),
        };
        // What fails here on a full or read-only disk is told when it matters.
        let _stored = spool.acknowledge(marks.acknowledged);
        Ok(spool)
    }

    /// What was found when it was opened.
    #[must_use]
    pub const fn found(&self) -> Found {
        self.found
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
        let marks = lock(&self.shared).marks;
        marks.written.records - marks.acknowledged.records
    }

    /// Survivors among them.
    #[must_use]
    pub fn survivors(&self) -> u64 {
        let marks = lock(&self.shared).marks;
        marks.written.survivors - marks.acknowledged.survivors
    }

    /// Files that hold them.
    #[must_use]
    pub fn segments(&self) -> usize {
        lock(&self.shared).segments.len()
    }

    /// Puts the entries of all chunks on the disk, and waits for it.
    ///
    /// # Errors
    ///
    /// Then nothing of it counts. [`SpoolError::Full`], [`SpoolError::NoSpace`], [`SpoolError::ReadOnly`] and
    /// [`SpoolError::Io`] say that it may be tried again; after [`SpoolError::Gone`] that makes the directory anew.
    pub fn append(&self, chunks: &[Chunk]) -> Result<(), SpoolError> {
        if chunks.iter().all(Chunk::is_empty) {
            return Ok(());
        }
        let mut writer = lock(&self.writer);
        self.find_place(&mut writer)?;
        let (mut active, is_new) = self.take_active(&mut writer, chunks)?;
        let Writer { buffer, .. } = &mut *writer;
        let mut place = active.place;
        for (frame, entry, _) in chunks.iter().flat_map(Chunk::entries) {
            if !record::encode(buffer, active.header.salt(), place, entry, frame) {
                let octets = frame.len();
                if is_new {
                    self.disk.remove(&segment::name(active.header.number))?;
                } else {
                    writer.active = Some(active);
                }
                return Err(SpoolError::TooLong { octets });
            }
            place = place.after(entry);
        }
        let wrote = self.disk.write(&active.file, buffer, active.octets);
        let wrote_all = wrote.is_ok();
        let safe = wrote
            .and_then(|()| self.disk.sync(&active.file))
            .and_then(|()| {
                if is_new {
                    self.disk.sync_names()
                } else {
                    Ok(())
                }
            });
        if let Err(error) = safe {
            let number = active.header.number;
            let undone = if is_new {
                self.disk.remove(&segment::name(number))
            } else {
                self.disk.cut(&active.file, active.octets)
            };
            if undone.is_err() {
                // It holds what does not count, and takes the space. The next segment's header says where it ends.
                let octets = active
                    .file
                    .metadata()
                    .map_or(active.octets, |meta| meta.len());
                let header = active.header;
                lock(&self.shared).put(Segment { header, octets });
            } else if !is_new && !wrote_all {
                // After a sync that failed nobody knows what of the file is on the disk: not written to again.
                writer.active = Some(active);
            }
            return Err(error);
        }
        active.place = place;
        active.octets += buffer.len() as u64;
        buffer.clear();
        buffer.shrink_to(BUFFER_OCTETS_KEPT);
        let segment = Segment {
            header: active.header,
            octets: active.octets,
        };
        writer.active = Some(active);
        let mut cursor = lock(&self.cursor);
        let marks = {
            let mut shared = lock(&self.shared);
            shared.put(segment);
            shared.marks.written = segment.header.before.at(place);
            shared.marks
        };
        // What was written is safe without it; it lets the loss of the last records be counted.
        let _stored = cursor.store(&*self.disk, marks);
        Ok(())
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
        let mut cursor = lock(&self.cursor);
        let (marks, done) = {
            let mut shared = lock(&self.shared);
            let upto = upto.min(shared.marks.written);
            shared.marks.acknowledged = shared.marks.acknowledged.max(upto);
            let befores = shared
                .segments
                .iter()
                .skip(1)
                .map(|next| next.header.before);
            let done = befores.take_while(|end| *end <= shared.marks.acknowledged);
            (shared.marks, done.count())
        };
        let stored = cursor.store(&*self.disk, marks);
        let file = cursor.file();
        drop(cursor);
        match stored {
            // What was in the directory is gone, and nothing of it can come again.
            Err(_) if self.disk.is_gone() => return Ok(()),
            // A file system that never writes in place: room for the cursor comes from what it lets go of.
            Err(SpoolError::NoSpace { .. }) => {
                self.remove_front(done)?;
                lock(&self.cursor).store(&*self.disk, marks)?;
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
            let Some(first) = lock(&self.shared).segments.front().copied() else {
                break;
            };
            self.disk.remove(&segment::name(first.header.number))?;
            self.forget_segment(first.header.number);
        }
        Ok(())
    }

    /// Deletes the last segment if all of it is acknowledged and it is long enough to be worth a new one.
    fn remove_drained(&self) -> Result<(), SpoolError> {
        // Whoever appends just now makes it not drained.
        let Ok(mut writer) = self.writer.try_lock() else {
            return Ok(());
        };
        let last = {
            let shared = lock(&self.shared);
            let drained = shared.marks.acknowledged == shared.marks.written;
            shared.segments.back().copied().filter(|_| drained)
        };
        let Some(last) = last else { return Ok(()) };
        let active = writer.active.as_ref();
        let is_active = active.is_some_and(|active| active.header.number == last.header.number);
        if is_active && last.octets < DRAINED_OCTETS_KEPT.min(self.segment_octets) {
            return Ok(());
        }
        let file = lock(&self.cursor).file();
        file.map_or(Ok(()), |file| self.disk.sync(&file))?;
        if is_active {
            writer.active = None;
        }
        self.disk.remove(&segment::name(last.header.number))?;
        self.forget_segment(last.header.number);
        Ok(())
    }

    /// A file is not there any more.
    fn forget_segment(&self, number: u64) {
        let mut shared = lock(&self.shared);
        shared
            .segments
            .retain(|segment| segment.header.number != number);
    }

    /// Makes sure that what is written now will be found by its name.
    fn find_place(&self, writer: &mut Writer) -> Result<(), SpoolError> {
        if writer.gone {
            self.disk.restore().map_err(|error| match error {
                error if error.is_missing() => self.gone(),
                error => error,
            })?;
            writer.gone = false;
        } else if self.disk.is_gone() {
            writer.gone = true;
            writer.active = None;
            lock(&self.cursor).forget();
            lock(&self.shared).segments.clear();
            return Err(self.gone());
        }
        let removed = writer
            .active
            .take_if(|active| disk::is_removed(&active.file));
        if let Some(removed) = removed {
            self.forget_segment(removed.header.number);
        }
        Ok(())
    }

    fn gone(&self) -> SpoolError {
        SpoolError::Gone {
            directory: self.disk.directory().to_owned(),
        }
    }

    /// The segment that `chunks` go into, and whether it was made for them. The buffer then begins with its header.
    fn take_active(
        &self,
        writer: &mut Writer,
        chunks: &[Chunk],
    ) -> Result<(Active, bool), SpoolError> {
        writer.buffer.clear();
        writer
            .active
            .take_if(|active| active.octets >= self.segment_octets);
        let entries = chunks.iter().flat_map(Chunk::entries);
        let records = entries.map(|(frame, ..)| (record::HEADER_OCTETS + frame.len()) as u64);
        let header = if writer.active.is_some() { 0 } else { DATA_AT };
        let more = header + records.sum::<u64>();
        let (octets, before) = {
            let shared = lock(&self.shared);
            (shared.octets() + cursor::OCTETS, shared.marks.written)
        };
        if octets + more > self.max_octets {
            return Err(SpoolError::Full {
                octets,
                more,
                max: self.max_octets,
            });
        }
        if let Some(active) = writer.active.take() {
            return Ok((active, false));
        }
        let header = Header {
            number: writer.number,
            run: self.run,
            salt: random(),
            before,
        };
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        // Whatever is there under this name will not be under the next.
        writer.number += 1;
        let file = self.disk.open(&segment::name(header.number), flags)?;
        header.encode(&mut writer.buffer);
        let active = Active {
            header,
            file,
            place: Place::default(),
            octets: 0,
        };
        Ok((active, true))
    }
}

/// Drawn by the operating system, by way of the keys of a hash table.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A segment becomes at most so long before the next one is begun: what may be deleted at once, and what is read
/// through at start.
const SEGMENT_OCTETS_MAX: u64 = 64 * 1024 * 1024;

/// A full spool has at least so many segments, so that its space comes back in parts.
const SEGMENTS_MIN: u64 = 8;

/// An active segment shorter than this is kept when all is acknowledged: a new one costs two waits for the disk.
const DRAINED_OCTETS_KEPT: u64 = 1024 * 1024;

/// Memory kept for the next append.
const BUFFER_OCTETS_KEPT: usize = 8 * 1024 * 1024;

/// Errors of the medium at one place before it is passed over.
pub const READ_TRIES: u32 = 3;

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
