//! A segment: a file of records, with a header that says what was written before it.
//!
//! ```text
//!     0          56       4096           4152
//!     │ header   │  ...   │ header again │ record │ record │ ...
//!     header     magic, format, number, run, salt, before: records, survivors; CRC
//! ```
//!
//! # Guarantees
//!
//! - The records are still found if one sector of the file is lost, or any bits of one header.
//! - Octets that cannot be read, or that are missing from the file, read as zeros, which are not a record.

use std::{collections::VecDeque, fs::File, sync::Arc, time::UNIX_EPOCH};

use super::{
    Found, NotSafe, READ_TRIES,
    disk::Disk,
    error::SpoolError,
    position::Position,
    record::{Place, Salt, Scan, Step},
};
use crate::core::tick::WallTime;

/// The header of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    /// Its place among the segments, and its name.
    pub(super) number: u64,
    /// A random number that stands for the process that wrote it.
    pub(super) run: u64,
    pub(super) salt: u64,
    /// What was written before it.
    pub(super) before: Position,
}

/// A segment in the spool's directory.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    /// Where its records end in the file. The last of them may not count.
    pub(super) octets: u64,
    /// The position at its end. The segment that follows may start later, if one in between is missing.
    pub(super) end: Position,
    /// The descriptor that wrote it, if this process wrote it and has not closed it. It can read what it wrote, whatever
    /// happens to the file's names and mode.
    pub(super) file: Option<Arc<File>>,
}

impl Segment {
    /// When its file was made; when it was last written, if the file system does not tell.
    pub(super) fn begun(&self, disk: &dyn Disk) -> Option<WallTime> {
        let (file, _) = disk.peek(&name(self.header.number)).ok()?;
        let metadata = file.metadata().ok()?;
        let begun = metadata.created().or_else(|_| metadata.modified()).ok()?;
        let since_epoch = begun.duration_since(UNIX_EPOCH).ok()?;
        let micros = i64::try_from(since_epoch.as_micros()).ok()?;
        Some(WallTime::from_micros(micros))
    }
}

impl Header {
    /// Appends the header and its copy: everything up to the first record.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        let numbers = [
            MAGIC,
            u64::from(FORMAT),
            self.number,
            self.run,
            self.salt,
            self.before.records,
            self.before.survivors,
        ];
        for number in numbers {
            into.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&into[start..]);
        // It goes into the upper half of the format's number, which is zero while the CRC is computed.
        into[start + CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        into.resize(start + COPY_AT, 0);
        into.extend_from_within(start..start + HEADER_OCTETS);
    }

    /// Decodes a header or its copy; `None` if it is damaged. The error is a format that this version does not know.
    fn decode(octets: &[u8; HEADER_OCTETS]) -> Option<Result<Self, u32>> {
        let mut plain = *octets;
        let crc = plain.get_mut(CRC_AT..CRC_AT + 4)?;
        let stored = u32::from_le_bytes(<[u8; 4]>::try_from(&*crc).ok()?);
        crc.fill(0);
        if crc32fast::hash(&plain) != stored {
            return None;
        }
        let mut numbers = plain.as_chunks::<8>().0.iter();
        let mut number = || Some(u64::from_le_bytes(*numbers.next()?));
        if number()? != MAGIC {
            return None;
        }
        let format = u32::try_from(number()?).ok()?;
        if format != FORMAT {
            return Some(Err(format));
        }
        Some(Ok(Self {
            number: number()?,
            run: number()?,
            salt: number()?,
            before: Position {
                records: number()?,
                survivors: number()?,
            },
        }))
    }

    /// Reads the header of `file`, or else its copy. `None` if both are damaged.
    pub(super) fn read(
        disk: &dyn Disk,
        file: &File,
    ) -> Result<Option<Result<Self, u32>>, SpoolError> {
        let mut failed = None;
        for at in [0, COPY_AT as u64] {
            let mut octets = [0; HEADER_OCTETS];
            match disk.read(file, &mut octets, at) {
                Ok(_) => match Self::decode(&octets) {
                    None => {}
                    found => return Ok(found),
                },
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The salt of its records.
    pub(super) const fn salt(&self) -> Salt {
        Salt::new(self.salt)
    }
}

/// The name of a segment's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// The number of the segment with this name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = digits.parse().ok()?;
    (self::name(number) == name).then_some(number)
}

/// Reads a segment from the disk, in portions.
#[derive(Debug)]
pub(super) struct Feed {
    file: Arc<File>,
    /// The offset in the file of the first octet that is not consumed.
    at: u64,
    octets: Vec<u8>,
    /// How many octets at the front of `octets` are consumed.
    front: usize,
    /// How many errors of the medium there were at this place.
    tries: u32,
}

impl Feed {
    /// Begins at the first record.
    pub(super) const fn new(file: Arc<File>) -> Self {
        Self {
            file,
            at: DATA_AT,
            octets: Vec::new(),
            front: 0,
            tries: 0,
        }
    }

    /// The file that it reads.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where in the file [`Feed::octets`] begin.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// Octets that were read and are not consumed.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[self.front..]
    }

    /// Consumes the first `octets`.
    pub(super) fn consume(&mut self, octets: usize) {
        assert!(
            octets <= self.octets().len(),
            "only octets that were read can be consumed"
        );
        self.at += octets as u64;
        self.front += octets;
    }

    /// Reads until `wanted` octets are there, and some more if the file has them before `end`.
    ///
    /// # Errors
    ///
    /// The disk's error. An error of the medium is returned up to [`READ_TRIES`] times at one place. After that the page
    /// is skipped.
    pub(super) fn fill(
        &mut self,
        disk: &dyn Disk,
        wanted: usize,
        end: u64,
    ) -> Result<(), SpoolError> {
        assert!(
            self.at + wanted as u64 <= end,
            "a scan wants no octets beyond the end of the records"
        );
        self.octets.drain(..self.front);
        self.front = 0;
        self.octets.shrink_to(PORTION_OCTETS.max(wanted));
        while self.octets.len() < wanted {
            let have = self.octets.len();
            let from = self.at + have as u64;
            let left = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
            let portion = left.min(PORTION_OCTETS.max(wanted - have));
            let in_page = usize::try_from(from % PAGE_OCTETS as u64).expect("less than a page");
            let page = PAGE_OCTETS - in_page;
            let mut read = self.read(disk, portion, from);
            if read.as_ref().is_err_and(SpoolError::is_medium) {
                read = self.read(disk, portion.min(page), from);
            }
            match read {
                // The file was cut short. The rest reads as zeros, and counts as damaged.
                Ok(0) => self.octets.resize(have + portion, 0),
                Ok(_) => {}
                Err(error) => {
                    self.tries += u32::from(error.is_medium());
                    if self.tries < READ_TRIES {
                        return Err(error);
                    }
                    self.octets.resize(have + portion.min(page), 0);
                }
            }
            self.tries = 0;
        }
        Ok(())
    }

    fn read(&mut self, disk: &dyn Disk, octets: usize, from: u64) -> Result<usize, SpoolError> {
        let have = self.octets.len();
        self.octets.resize(have + octets, 0);
        let read = disk.read(&self.file, &mut self.octets[have..], from);
        let got = *read.as_ref().unwrap_or(&0);
        self.octets.truncate(have + got);
        read
    }
}

/// Reads the headers of all segments. Sets `number` to that of the next one.
pub(super) fn find(
    disk: &dyn Disk,
    number: &mut u64,
    found: &mut Found,
) -> Result<VecDeque<Segment>, SpoolError> {
    let names = disk.names()?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| self::number(name)).collect();
    numbers.sort_unstable();
    *number = numbers.last().map_or(0, |last| last.saturating_add(1));
    let mut segments: VecDeque<Segment> = VecDeque::with_capacity(numbers.len());
    for number in numbers {
        let name = name(number);
        let path = || disk.directory().join(&name);
        let (file, not_safe) = disk.peek(&name)?;
        found
            .not_safe
            .extend(not_safe.map(|error| NotSafe::of(&name, &error)));
        let octets = file
            .metadata()
            .map_err(|error| SpoolError::of("inspect", &path(), error))?
            .len();
        let header = match Header::read(disk, &file) {
            Ok(Some(Ok(header))) => header,
            Ok(Some(Err(found))) => {
                return Err(SpoolError::Format {
                    path: path(),
                    found,
                    known: FORMAT,
                });
            }
            Ok(None) => {
                // Either a process made it and ended before it wrote to it, or both headers are damaged. Without the salt
                // in a header no record can be recognised.
                found.unreadable_segments += u64::from(octets > DATA_AT);
                let _removed = disk.remove(&name);
                continue;
            }
            Err(_) => {
                found.unreadable_segments += 1;
                continue;
            }
        };
        let before = segments
            .back()
            .map_or(Position::default(), |last| last.header.before);
        if header.number != number || !before.may_precede(header.before) {
            return Err(SpoolError::Foreign { path: path() });
        }
        if let Some(last) = segments.back_mut() {
            last.end = header.before;
        }
        segments.push_back(Segment {
            header,
            octets,
            end: header.before,
            file: None,
        });
    }
    Ok(segments)
}

/// Reads a whole segment whose end is not recorded: how much it holds, and where its last record ends.
pub(super) fn survey(
    disk: &dyn Disk,
    file: File,
    salt: Salt,
    end: u64,
) -> Result<(Place, u64), SpoolError> {
    let mut feed = Feed::new(Arc::new(file));
    let mut scan = Scan::new(salt, Place::MAX);
    let mut good = DATA_AT.min(end);
    loop {
        match scan.step(feed.octets(), end.saturating_sub(feed.at())) {
            Step::Record(_, octets) => {
                feed.consume(octets);
                good = feed.at();
            }
            Step::Damaged(octets) => feed.consume(octets),
            Step::End => return Ok((scan.place(), good)),
            Step::More(octets) => match feed.fill(disk, octets, end) {
                // After enough tries the page is skipped.
                Err(error) if !error.is_medium() => return Err(error),
                _ => {}
            },
        }
    }
}

const SUFFIX: &str = ".segment";
const MAGIC: u64 = u64::from_le_bytes(*b"tersedSG");

/// The format of segments and records that this version writes and reads.
pub(super) const FORMAT: u32 = 1;

const HEADER_OCTETS: usize = 7 * 8;
const CRC_AT: usize = 12;

/// Where the header's copy is. No sector holds both.
const COPY_AT: usize = PAGE_OCTETS;

/// Where the first record is.
pub(super) const DATA_AT: u64 = (COPY_AT + HEADER_OCTETS) as u64;

/// The most that a disk loses as a whole.
const PAGE_OCTETS: usize = 4096;

/// Octets read at once.
const PORTION_OCTETS: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_what_hits_one_of_its_copies() {
        let header = Header {
            number: 3,
            run: 1 << 63,
            salt: 77,
            before: Position {
                records: 1 << 40,
                survivors: 5,
            },
        };
        let mut octets = Vec::new();
        header.encode(&mut octets);
        assert_eq!(octets.len() as u64, DATA_AT);
        for at in [0, COPY_AT] {
            let copy = octets[at..at + HEADER_OCTETS].try_into().unwrap();
            assert_eq!(Header::decode(&copy), Some(Ok(header)));
            for bit in 0..HEADER_OCTETS * 8 {
                let mut damaged = copy;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Header::decode(&damaged), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn only_names_that_we_choose_are_ours() {
        assert_eq!(number(&name(7)), Some(7));
        for other in [
            "7.segment",
            "lock",
            "cursor",
            "+0000000000000000007.segment",
            "",
        ] {
            assert_eq!(number(other), None);
        }
    }
}
