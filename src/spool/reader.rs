//! The reading end: records in order, and what is missing between them.
//!
//! # Guarantees
//!
//! - A segment is read by the descriptor that wrote it, if this process wrote it and keeps that; else by its name.
//! - Nothing is read behind a file that cannot be opened. Only a file that is not there, or that the medium refused
//!   [`READ_TRIES`](super::READ_TRIES) times, counts as lost.
//! - The records of a batch are of one segment, so that the disk holds them as long as it holds that segment.
//! - No removed file is held open: the writing end says which segments are removed ([`Reader::close`]).

use std::{fs::File, sync::Arc};

use super::{
    Batch, Spool,
    cursor::Position,
    disk::{self, Disk},
    error::SpoolError,
    lock,
    record::{Scan, Step},
    segment::{self, Feed, Header, Segment},
};
use crate::{
    chunk::{Chunk, Entry},
    dedup::Claim,
};

use nix::fcntl::OFlag;

/// How far the spool was read.
#[derive(Debug)]
pub(super) struct Reader {
    /// All before it was given out or is lost.
    at: Position,
    /// Segments before this one are done with.
    number: u64,
    /// The segment that is being read.
    open: Option<Open>,
    /// Errors seen when opening it.
    tries: u32,
}

#[derive(Debug)]
struct Open {
    header: Header,
    feed: Feed,
    scan: Scan,
}

/// A segment, and what is known of its end.
struct View {
    segment: Segment,
    /// What was written before the next one; so far, if there is none.
    end: Position,
    /// It may grow.
    last: bool,
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

    /// The file of this segment is not there any more.
    pub(super) fn close(&mut self, number: u64) {
        self.open.take_if(|open| open.header.number == number);
    }

    /// Lets go of the file that is being read if it has no name any more; gives its number.
    pub(super) fn let_go_of_removed(&mut self) -> Option<u64> {
        let removed = self.open.take_if(|open| disk::is_removed(open.feed.file()));
        removed.map(|open| open.header.number)
    }

    /// Lets go of the file that is being read: all of them are gone.
    pub(super) fn let_go(&mut self) {
        self.open = None;
    }

    /// What was read before this point counts as lost.
    fn lose_up_to(&mut self, to: Position, lost: &mut u64) {
        *lost += to.survivors.saturating_sub(self.at.survivors);
        self.at = self.at.max(to);
    }

    /// The next records, `octets` of them as a chunk counts and one more at most.
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
                    // Nothing is left that could hold them.
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
        // An error will be met again, with nothing to give beside it.
        Ok(Some(Batch {
            chunk,
            lost,
            upto: self.at,
        }))
    }

    /// The first segment that is not done with; what was written, if there is none.
    fn view(&self, spool: &Spool) -> Result<View, Position> {
        let shared = lock(&spool.shared);
        let mut segments = shared
            .segments
            .iter()
            .skip_while(|segment| segment.header.number < self.number);
        let Some(segment) = segments.next() else {
            return Err(shared.marks.written);
        };
        let next = segments.next();
        Ok(View {
            segment: segment.clone(),
            end: next.map_or(shared.marks.written, |next| next.header.before),
            last: next.is_none(),
        })
    }

    /// Reads on in one segment. `true` if the next one is to be read as well.
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
                    if !view.last {
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

    /// Opens a segment. `None` if it is not there any more, or nothing of it can be read.
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
