//! The writing end: records behind one another in the active segment, and room for them.
//!
//! # Guarantees
//!
//! - If the directory or a segment was removed, [`Spool::append`] and [`Spool::tend`] close it, so that the disk gets its
//!   space back.
//! - A segment takes an eighth of the room at most, of the disk's as well as of the limit, so that space comes back in parts
//!   on a small disk, too.
//! - The active segment is kept when all is acknowledged, and deleted as soon as room is short.
//! - If the path does not lead to the open directory any more, nothing is appended until it does.
//! - The disk can be asked for room with nothing to be written ([`Spool::ask`]).

use std::{fs::File, sync::Arc};

use nix::fcntl::OFlag;

use super::{
    HELD_MAX, Spool, cursor,
    cursor::Position,
    disk,
    error::SpoolError,
    lock, random,
    record::{self, Place},
    segment::{self, DATA_AT, Header, Segment},
};
use crate::{chunk::Chunk, clock::Clock};

/// The writing end.
#[derive(Debug)]
pub(super) struct Writer {
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
    file: Arc<File>,
    /// Behind its last record.
    place: Place,
    octets: u64,
    /// When it has become so long it is not written to again.
    octets_max: u64,
}

impl Writer {
    pub(super) const fn new(number: u64) -> Self {
        Self {
            active: None,
            number,
            buffer: Vec::new(),
            gone: false,
        }
    }

    /// The active segment is not written to again.
    #[cfg(test)]
    pub(super) fn complete(&mut self) {
        if let Some(active) = &mut self.active {
            active.octets_max = 0;
        }
    }
}

impl Spool {
    /// Puts the entries of all chunks on the disk, and waits for it.
    ///
    /// # Errors
    ///
    /// Then nothing of it counts. [`SpoolError::Full`], [`SpoolError::NoSpace`], [`SpoolError::ReadOnly`] and
    /// [`SpoolError::Io`] say that it may be tried again; after [`SpoolError::Gone`] that makes the directory anew.
    /// [`SpoolError::Moved`] is said until the directory is back at its path.
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
                lock(&self.shared).put(Segment {
                    header: active.header,
                    octets,
                    end: active.header.before.at(active.place),
                    file: Some(active.file),
                });
            } else if !is_new && !wrote_all {
                // Not after a sync that failed: what of the file is on the disk is unknown then.
                writer.active = Some(active);
            }
            if error.is_full() {
                self.make_room(&mut writer)?;
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
            end: active.header.before.at(place),
            file: Some(Arc::clone(&active.file)),
        };
        writer.active = Some(active);
        let mut cursor = lock(&self.cursor);
        let (marks, ends) = {
            let mut shared = lock(&self.shared);
            let start = shared.marks.written;
            shared.ages.wrote(start, Clock::wall());
            shared.marks.written = segment.end;
            shared.put(segment);
            (shared.marks, cursor::ends(&shared.segments))
        };
        // What was written is safe without it; it lets the loss of the last records be counted.
        let _stored = cursor.store(&*self.disk, marks, ends);
        Ok(())
    }

    /// Asks whether so many octets would be taken now, with nothing to be kept.
    ///
    /// # Errors
    ///
    /// As [`Spool::append`].
    pub fn ask(&self, octets: u64) -> Result<(), SpoolError> {
        let mut writer = lock(&self.writer);
        self.find_place(&mut writer)?;
        self.check_limit(&mut writer, octets)?;
        self.disk.remove(TRIAL)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = self.disk.open(TRIAL, flags)?;
        let tried = self
            .disk
            .allocate(&file, octets)
            .and_then(|()| self.disk.write(&file, &[0; TRIAL_OCTETS], 0))
            .and_then(|()| self.disk.sync(&file));
        drop(file);
        let removed = self.disk.remove(TRIAL);
        if tried.as_ref().is_err_and(SpoolError::is_full) {
            self.make_room(&mut writer)?;
        }
        tried.and(removed)
    }

    /// To be called from time to time: lets go of files that were removed, and makes a directory anew that was.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Gone`] for a directory that was removed, and what keeps it from being made anew.
    /// [`SpoolError::Moved`] for one that is not at its path. [`SpoolError::Unsafe`] for one that others may write to by
    /// now: this process goes on, the next will not start.
    pub fn tend(&self) -> Result<(), SpoolError> {
        self.find_place(&mut lock(&self.writer))?;
        self.disk.check_place()?;
        self.disk.check()
    }

    /// Deletes the last segment if all of it is acknowledged and it is long enough to be worth a new one.
    pub(super) fn remove_drained(&self) -> Result<(), SpoolError> {
        // An append that is under way makes it not drained.
        let Ok(mut writer) = self.writer.try_lock() else {
            return Ok(());
        };
        let is_short = writer.active.as_ref().is_some_and(|active| {
            active.octets < DRAINED_OCTETS_KEPT && active.octets < active.octets_max
        });
        if is_short {
            return Ok(());
        }
        self.make_room(&mut writer)
    }

    /// Deletes the last segment if all of it is acknowledged.
    fn make_room(&self, writer: &mut Writer) -> Result<(), SpoolError> {
        let last = {
            let shared = lock(&self.shared);
            let last = shared.segments.back().filter(|_| shared.is_drained());
            last.map(|last| last.header.number)
        };
        let Some(last) = last else { return Ok(()) };
        let file = lock(&self.cursor).file();
        file.map_or(Ok(()), |file| self.disk.sync(&file))?;
        writer.active.take_if(|active| active.header.number == last);
        self.remove(last)
    }

    /// Makes sure that what is written now will be found by its name, and lets go of what was removed.
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
            lock(&self.reader).let_go();
            lock(&self.cursor).forget();
            lock(&self.shared).segments.clear();
            return Err(self.gone());
        }
        self.disk.keep_lock()?;
        writer
            .active
            .take_if(|active| disk::is_removed(&active.file));
        let read = lock(&self.reader).let_go_of_removed();
        lock(&self.cursor).let_go_of_removed();
        let removed = {
            let shared = lock(&self.shared);
            let held = shared.segments.iter().filter(|segment| {
                let file = segment.file.as_deref();
                file.is_some_and(disk::is_removed) || read == Some(segment.header.number)
            });
            held.map(|segment| segment.header.number)
                .collect::<Vec<_>>()
        };
        for number in removed {
            self.let_go_of(number);
        }
        match self.disk.check_place() {
            Err(error @ SpoolError::Moved { .. }) => Err(error),
            // That it cannot be looked at does not make it another one; `tend` tells it.
            _ => Ok(()),
        }
    }

    /// The file of a segment was removed. If there is another file of its name, that is a copy, and is read instead.
    fn let_go_of(&self, number: u64) {
        let copy = self.disk.peek(&segment::name(number));
        if copy.is_err_and(|error| error.is_missing()) {
            self.forget_segment(number);
            return;
        }
        let mut shared = lock(&self.shared);
        let mut segments = shared.segments.iter_mut();
        if let Some(segment) = segments.find(|segment| segment.header.number == number) {
            segment.file = None;
        }
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
        let complete = writer
            .active
            .take_if(|active| active.octets >= active.octets_max);
        if let Some(complete) = complete {
            self.hold(complete.header.number);
        }
        let entries = chunks.iter().flat_map(Chunk::entries);
        let records = entries.map(|(frame, ..)| (record::HEADER_OCTETS + frame.len()) as u64);
        let before = self.check_limit(writer, records.sum::<u64>())?;
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
        let octets_max = self.segment_octets();
        let file = self.disk.open(&segment::name(header.number), flags)?;
        header.encode(&mut writer.buffer);
        let active = Active {
            header,
            file: Arc::new(file),
            place: Place::default(),
            octets: 0,
            octets_max,
        };
        Ok((active, true))
    }

    /// Keeps to the limit with `records` octets more; gives what was written so far.
    fn check_limit(&self, writer: &mut Writer, records: u64) -> Result<Position, SpoolError> {
        let look = |writer: &Writer| {
            let header = if writer.active.is_some() { 0 } else { DATA_AT };
            (self.octets(), header + records)
        };
        let (mut octets, mut more) = look(writer);
        if octets + more > self.max_octets {
            self.make_room(writer)?;
            (octets, more) = look(writer);
        }
        if octets + more > self.max_octets {
            return Err(SpoolError::Full {
                octets,
                more,
                max: self.max_octets,
            });
        }
        Ok(lock(&self.shared).marks.written)
    }

    /// How long the next segment may become.
    fn segment_octets(&self) -> u64 {
        let room = self.disk.room().unwrap_or(u64::MAX);
        let room = room.saturating_add(self.octets()).min(self.max_octets);
        (room / SEGMENTS_MIN).clamp(SEGMENT_OCTETS_MIN, SEGMENT_OCTETS_MAX)
    }

    /// A segment is complete: keeps it open, or not if there are enough.
    fn hold(&self, number: u64) {
        let mut shared = lock(&self.shared);
        let held = shared.segments.iter();
        let held = held.filter(|segment| segment.file.is_some()).count();
        if held > HELD_MAX
            && let Some(last) = shared.segments.back_mut()
            && last.header.number == number
        {
            last.file = None;
        }
    }
}

/// The file that takes room and gives it back, to find out whether there is any.
pub(super) const TRIAL: &str = "trial";

/// Octets written to it: a disk that is read-only or fails takes none.
const TRIAL_OCTETS: usize = 4096;

/// A segment becomes at most so long before the next one is begun: what may be deleted at once, and what is read
/// through at start.
const SEGMENT_OCTETS_MAX: u64 = 64 * 1024 * 1024;

/// And at least so long: a new one costs two waits for the disk.
const SEGMENT_OCTETS_MIN: u64 = 64 * 1024;

/// A full spool has at least so many segments, so that its space comes back in parts.
const SEGMENTS_MIN: u64 = 8;

/// An active segment shorter than this is kept when all is acknowledged: a new one costs two waits for the disk.
const DRAINED_OCTETS_KEPT: u64 = 1024 * 1024;

/// Memory kept for the next append.
const BUFFER_OCTETS_KEPT: usize = 8 * 1024 * 1024;
