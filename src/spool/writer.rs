//! The writing end: it appends records to the active segment, and makes room for them.
//!
//! # Guarantees
//!
//! - If the directory or a segment was removed, [`Spool::append`] and [`Spool::tend`] close it, so that the disk gets its
//!   space back.
//! - A segment takes at most an eighth of the limit, and at most an eighth of the disk's room. So space comes back in parts
//!   on a small disk, too.
//! - The active segment is kept when everything is acknowledged, and deleted as soon as room is short.
//! - If the path does not lead to the open directory any more, nothing is appended until it does.
//! - [`Spool::probe`] finds out whether the disk has room, with nothing to write.

use std::{fs::File, sync::Arc};

use nix::fcntl::OFlag;

use super::{
    OPEN_SEGMENTS_MAX, Spool, disk,
    error::SpoolError,
    lock,
    position::Position,
    random,
    record::{self, Place},
    segment::{self, DATA_AT, Header, Segment},
};
use crate::{clock::Clock, delivery::chunk::Chunk};

#[derive(Debug)]
pub(super) struct Writer {
    /// The segment that is being written.
    active: Option<Active>,
    /// The number of the next segment.
    number: u64,
    /// Records on their way to the disk.
    buffer: Vec<u8>,
    /// The directory was removed, and has to be made anew.
    is_gone: bool,
}

#[derive(Debug)]
struct Active {
    header: Header,
    file: Arc<File>,
    /// The place behind its last record.
    place: Place,
    octets: u64,
    /// Once it is this long, it is complete: it is not written to again.
    octets_max: u64,
}

impl Writer {
    pub(super) const fn new(number: u64) -> Self {
        Self {
            active: None,
            number,
            buffer: Vec::new(),
            is_gone: false,
        }
    }

    /// Makes the active segment complete.
    #[cfg(test)]
    pub(super) fn complete(&mut self) {
        if let Some(active) = &mut self.active {
            active.octets_max = 0;
        }
    }
}

impl Spool {
    /// Writes the entries of all chunks to the disk, and waits until they are safe there.
    ///
    /// # Errors
    ///
    /// After an error none of these entries counts as written. After [`SpoolError::Full`], [`SpoolError::NoSpace`],
    /// [`SpoolError::ReadOnly`] and [`SpoolError::Io`] the caller may try again; after [`SpoolError::Gone`] the next try makes the directory anew.
    /// [`SpoolError::Moved`] is returned until the directory is back at its path.
    pub fn append(&self, chunks: &[Chunk]) -> Result<(), SpoolError> {
        if chunks.iter().all(Chunk::is_empty) {
            return Ok(());
        }
        let mut writer = lock(&self.writer);
        self.prepare_directory(&mut writer)?;
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
                // It has records that do not count, and they take space. The next segment's header tells where it ends.
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
                // Not after a failed sync: then it is unknown which part of the file is on the disk.
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
        let (progress, ends) = {
            let mut shared = lock(&self.shared);
            let start = shared.progress.written;
            shared.write_times.wrote(start, Clock::wall());
            shared.progress.written = segment.end;
            shared.put(segment);
            shared.cursor()
        };
        // The records are safe without the cursor. With it, a loss of the last ones can be counted.
        let _stored = cursor.store(&*self.disk, progress, ends);
        Ok(())
    }

    /// Finds out whether the disk would take this many octets now. Nothing of them stays on the disk.
    ///
    /// # Errors
    ///
    /// As for [`Spool::append`].
    pub fn probe(&self, octets: u64) -> Result<(), SpoolError> {
        let mut writer = lock(&self.writer);
        self.prepare_directory(&mut writer)?;
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

    /// Closes files that were removed, and makes a removed directory anew. Call from time to time.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Gone`] if the directory was removed, or the error that prevents making it anew.
    /// [`SpoolError::Moved`] if it is not at its path. [`SpoolError::Unsafe`] if others may write to it by
    /// now: this process keeps running, but the next one will not start.
    pub fn tend(&self) -> Result<(), SpoolError> {
        self.prepare_directory(&mut lock(&self.writer))?;
        self.disk.check_place()?;
        self.disk.check()
    }

    /// Deletes the last segment if everything is acknowledged and the segment is long enough to be worth a new one.
    pub(super) fn remove_drained(&self) -> Result<(), SpoolError> {
        // An append has the lock: its records will not be acknowledged.
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

    /// Deletes the last segment if everything is acknowledged.
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

    /// Makes sure that the next process will find by its name what is written now. Closes what was removed.
    fn prepare_directory(&self, writer: &mut Writer) -> Result<(), SpoolError> {
        if writer.is_gone {
            self.disk.restore().map_err(|error| match error {
                error if error.is_missing() => self.gone(),
                error => error,
            })?;
            writer.is_gone = false;
        } else if self.disk.is_gone() {
            writer.is_gone = true;
            writer.active = None;
            lock(&self.reader).close_all();
            lock(&self.cursor).forget();
            lock(&self.shared).segments.clear();
            return Err(self.gone());
        }
        self.disk.keep_lock()?;
        writer
            .active
            .take_if(|active| disk::is_removed(&active.file));
        let read = lock(&self.reader).close_if_removed();
        lock(&self.cursor).close_if_removed();
        let removed = {
            let shared = lock(&self.shared);
            let removed = shared.segments.iter().filter(|segment| {
                let file = segment.file.as_deref();
                file.is_some_and(disk::is_removed) || read == Some(segment.header.number)
            });
            removed
                .map(|segment| segment.header.number)
                .collect::<Vec<_>>()
        };
        for number in removed {
            self.handle_removed(number);
        }
        match self.disk.check_place() {
            Err(error @ SpoolError::Moved { .. }) => Err(error),
            // If the path cannot be checked, the directory may still be there. `tend` returns that error.
            _ => Ok(()),
        }
    }

    /// Forgets a segment whose file was removed. If there is another file of its name, that is a copy, and is read instead.
    fn handle_removed(&self, number: u64) {
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

    /// The segment for `chunks`, and whether it was made for them. If it was, the buffer begins with its header.
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
            self.limit_open(complete.header.number);
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
        // A file that is already there under this name is left alone: the next try takes the next name.
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

    /// Checks that `records` more octets keep to the limit. Returns the position at the end of what was written.
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
        Ok(lock(&self.shared).progress.written)
    }

    /// How long the next segment may become, in octets.
    fn segment_octets(&self) -> u64 {
        let room = self.disk.room().unwrap_or(u64::MAX);
        let room = room.saturating_add(self.octets()).min(self.max_octets);
        (room / SEGMENTS_MIN).clamp(SEGMENT_OCTETS_MIN, SEGMENT_OCTETS_MAX)
    }

    /// Closes the segment `number`, which is complete, if enough segments are open.
    fn limit_open(&self, number: u64) {
        let mut shared = lock(&self.shared);
        let open = shared.segments.iter();
        let open = open.filter(|segment| segment.file.is_some()).count();
        if open > OPEN_SEGMENTS_MAX
            && let Some(last) = shared.segments.back_mut()
            && last.header.number == number
        {
            last.file = None;
        }
    }
}

/// The file with which [`Spool::probe`] takes room, and frees it again.
pub(super) const TRIAL: &str = "trial";

/// Octets written to it, to find out whether the disk fails or is read-only.
const TRIAL_OCTETS: usize = 4096;

/// A segment of this length is complete. It limits how much is deleted at once, and how much is read in full at the
/// start.
const SEGMENT_OCTETS_MAX: u64 = 64 * 1024 * 1024;

/// A segment of less length is not complete: a new one costs two waits for the disk.
const SEGMENT_OCTETS_MIN: u64 = 64 * 1024;

/// A full spool has at least this many segments, so that its space comes back in parts.
const SEGMENTS_MIN: u64 = 8;

/// An active segment shorter than this is kept when everything is acknowledged: a new one costs two waits for the disk.
const DRAINED_OCTETS_KEPT: u64 = 1024 * 1024;

/// Octets of memory kept for the next append.
const BUFFER_OCTETS_KEPT: usize = 8 * 1024 * 1024;
