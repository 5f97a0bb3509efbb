//! The reading end: records in order, and how many are missing between them.
//!
//! # Guarantees
//!
//! - A segment is read by the descriptor that wrote it, if this process wrote it and still has that; else by its name.
//! - Nothing is read behind a file that cannot be opened. A file counts as lost only if it is not there, or if the medium
//!   failed [`READ_TRIES`](super::READ_TRIES) times.
//! - The records of a batch are from one segment, so the disk has all of them as long as it has that segment.
//! - No removed file is kept open: the writing end says which segments are removed ([`Reader::close`]).

use std::{fs::File, sync::Arc};

use super::{
    Batch, Spool,
    disk::{self, Disk},
    error::SpoolError,
    lock,
    position::Position,
    record::{Scan, Step},
    segment::{self, Feed, Header, Segment},
};
use crate::{
    core::dedup::Claim,
    delivery::chunk::{Chunk, Entry},
};

use nix::fcntl::OFlag;

/// How far the spool was read.
#[derive(Debug)]
pub(super) struct Reader {
    /// Every record before it was returned or is lost.
    at: Position,
    /// Segments with lower numbers were read to their end, or are lost.
    number: u64,
    /// The segment that is being read.
    open: Option<Open>,
    /// How often the medium failed when it was opened.
    tries: u32,
}

#[derive(Debug)]
struct Open {
    header: Header,
    feed: Feed,
    scan: Scan,
}

/// A segment, and where it ends.
struct View {
    segment: Segment,
    /// Where the next segment starts; for the last segment, the end of what was written.
    end: Position,
    /// It is the last one, and may grow.
    is_last: bool,
}

impl Reader {
    pub(super) const fn new(at: Position) -> Self {
        Self {
            at,
            number: 0,
            open: None,
            tries: 0,
        }
    }

    /// Closes the segment `number`, whose file was removed.
    pub(super) fn close(&mut self, number: u64) {
        self.open.take_if(|open| open.header.number == number);
    }

    /// Closes the segment that is being read if its file was removed. Returns its number then.
    pub(super) fn close_if_removed(&mut self) -> Option<u64> {
        let removed = self.open.take_if(|open| disk::is_removed(open.feed.file()));
        removed.map(|open| open.header.number)
    }

    /// Closes the segment that is being read, because all files are gone.
    pub(super) fn close_all(&mut self) {
        self.open = None;
    }

    /// Counts as lost the survivors between what was read and `to`.
    fn lose_up_to(&mut self, to: Position, lost: &mut u64) {
        *lost += to.survivors.saturating_sub(self.at.survivors);
        self.at = self.at.max(to);
    }

    /// Returns the next records: at most one more than fits into `octets` as a chunk counts them.
    pub(super) fn read(
        &mut self,
        spool: &Spool,
        octets: usize,
    ) -> Result<Option<Batch>, SpoolError> {
        let (mut chunk, mut lost, mut used) = (Chunk::default(), 0, 0);
        let failed = loop {
            let view = match self.view(spool) {
                Ok(view) => view,
                Err(written) => {
                    // There is no segment left. What was written and not read is lost.
                    self.open = None;
                    self.lose_up_to(written, &mut lost);
                    break None;
                }
            };
            match self.read_segment(spool, &view, octets, &mut used, &mut chunk, &mut lost) {
                Ok(true) if chunk.is_empty() => {}
                Ok(_) => break None,
                Err(error) => break Some(error),
            }
        };
        if chunk.is_empty() && lost == 0 {
            return failed.map_or(Ok(None), Err);
        }
        // The next call meets the error again, and then returns it.
        Ok(Some(Batch {
            chunk,
            lost,
            upto: self.at,
        }))
    }

    /// The first segment that is not read to its end. If there is no such segment, the error is the end of what was
    /// written.
    fn view(&self, spool: &Spool) -> Result<View, Position> {
        let shared = lock(&spool.shared);
        let mut segments = shared
            .segments
            .iter()
            .skip_while(|segment| segment.header.number < self.number);
        let Some(segment) = segments.next() else {
            return Err(shared.progress.written);
        };
        let next = segments.next();
        Ok(View {
            segment: segment.clone(),
            end: next.map_or(shared.progress.written, |next| next.header.before),
            is_last: next.is_none(),
        })
    }

    /// Reads on in one segment. Returns true if its end was reached and there is a next one.
    fn read_segment(
        &mut self,
        spool: &Spool,
        view: &View,
        octets: usize,
        used: &mut usize,
        chunk: &mut Chunk,
        lost: &mut u64,
    ) -> Result<bool, SpoolError> {
        let disk = &*spool.disk;
        let header = view.segment.header;
        let mut open = match self.open.take() {
            Some(open) if open.header.number == header.number => open,
            _ => match self.open_segment(disk, &view.segment)? {
                Some(open) => open,
                None => {
                    spool.forget_segment(header.number);
                    self.lose_up_to(view.end, lost);
                    self.number = header.number + 1;
                    return Ok(true);
                }
            },
        };
        self.lose_up_to(header.before, lost);
        open.scan.set_end(view.end.place_in(header.before));
        let outcome = loop {
            if *used >= octets && !chunk.is_empty() {
                break Ok(false);
            }
            let left = view.segment.octets.saturating_sub(open.feed.at());
            match open.scan.step(open.feed.octets(), left) {
                Step::Record(record, octets) => {
                    let after = header.before.at(record.place.after(record.entry));
                    if after > self.at {
                        self.lose_up_to(header.before.at(record.place), lost);
                        self.at = after;
                        let entry = match record.entry {
                            Entry::Survivor(_) if header.run != spool.run => {
                                Entry::Survivor(Claim::FORGOTTEN)
                            }
                            entry => entry,
                        };
                        chunk.push(record.frame, entry);
                        *used += record.frame.len() + Chunk::ENTRY_OVERHEAD_OCTETS;
                    }
                    open.feed.consume(octets);
                }
                Step::Damaged(octets) => open.feed.consume(octets),
                Step::More(wanted) => {
                    if let Err(error) = open.feed.fill(disk, wanted, view.segment.octets) {
                        break Err(error);
                    }
                }
                Step::End => {
                    self.lose_up_to(view.end, lost);
                    if !view.is_last {
                        self.number = header.number + 1;
                        return Ok(true);
                    }
                    open.scan.resume(view.end.place_in(header.before));
                    break Ok(false);
                }
            }
        };
        self.open = Some(open);
        outcome
    }

    /// Opens a segment; `None` if it is lost.
    fn open_segment(
        &mut self,
        disk: &dyn Disk,
        segment: &Segment,
    ) -> Result<Option<Open>, SpoolError> {
        let header = segment.header;
        let opened = |file: Arc<File>| Open {
            header,
            feed: Feed::new(file),
            scan: Scan::new(header.salt(), header.before.place_in(header.before)),
        };
        if let Some(file) = &segment.file
            && !disk::is_removed(file)
        {
            return Ok(Some(opened(Arc::clone(file))));
        }
        match disk.open(&segment::name(header.number), OFlag::O_RDONLY) {
            Ok(file) => {
                self.tries = 0;
                Ok(Some(opened(Arc::new(file))))
            }
            Err(error) => {
                self.tries += u32::from(error.is_medium());
                if !error.is_missing() && self.tries < super::READ_TRIES {
                    return Err(error);
                }
                self.tries = 0;
                Ok(None)
            }
        }
    }
}
