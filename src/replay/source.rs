//! Sources: recorded logs, read as text whether they are packed or not.
//!
//! # Guarantees
//!
//! - gzip and zstd are recognised by their first octets, never by the name of the file. Several packed streams in one file
//!   are one text.
//! - Memory is bounded: a packed stream needs its window, which for zstd is at most 128 MiB.
//! - If a stream breaks off, all text before that was handed out; the error says how many octets.
//!
//! # Left out
//!
//! Lines (see `frame`), and whether the octets are text (see the module above). Other packers: the error names them.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use nix::unistd::{AccessFlags, access};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::core::tick::WallTime;
use crate::logging::printable;

/// A recorded log being read.
pub(crate) struct Source {
    name: String,
    packing: Packing,
    text: Box<dyn Read>,
    /// Octets of text that were handed out.
    offset: u64,
    /// Octets that were read from the file.
    taken: Rc<Cell<u64>>,
    written: Option<WallTime>,
}

impl Source {
    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// If it is not a readable file, or packed by a packer that is not supported.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let unreadable = |source| SourceError::unreadable(&name, source);
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(SourceError::Directory { name });
        }
        let written = metadata.is_file().then(|| written(&metadata));
        Self::new(name, file, written.flatten())
    }

    /// Reads `input`, which is called `name`. It counts as written just now.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is packed by a packer that is not supported.
    pub(crate) fn stream(name: &str, input: impl Read + 'static) -> Result<Self, SourceError> {
        Self::new(name.to_owned(), input, None)
    }

    fn new(
        name: String,
        input: impl Read + 'static,
        written: Option<WallTime>,
    ) -> Result<Self, SourceError> {
        let taken = Rc::new(Cell::new(0));
        let mut input = Counted {
            input,
            taken: Rc::clone(&taken),
        };
        let magic =
            first_octets(&mut input).map_err(|source| SourceError::unreadable(&name, source))?;
        let packing = Packing::of(&magic);
        let input = Cursor::new(magic).chain(input);
        let buffered = |input| BufReader::with_capacity(PACKED_OCTETS, input);
        let text: Box<dyn Read> = match packing {
            Packing::Plain => Box::new(input),
            Packing::Gzip => Box::new(MultiGzDecoder::new(buffered(input))),
            Packing::Zstd => Box::new(Zstd::new(buffered(input))),
            Packing::Unknown { packer, unpack } => {
                return Err(SourceError::Packed {
                    name,
                    packer,
                    unpack,
                });
            }
        };
        Ok(Self {
            name,
            packing,
            text,
            offset: 0,
            taken,
            written,
        })
    }

    /// Reads text into `buffer`; returns how many octets, zero at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read any further, or the packed stream is broken.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        loop {
            match self.text.read(buffer) {
                Ok(octets) => {
                    self.offset += octets as u64;
                    return Ok(octets);
                }
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(SourceError::Broken {
                        name: self.name.clone(),
                        packing: self.packing,
                        early: ends_early(&source),
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
    }

    /// The name of the file.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How it is packed.
    #[must_use]
    pub(crate) const fn packing(&self) -> Packing {
        self.packing
    }

    /// Octets that were read from the file so far, before unpacking.
    #[must_use]
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// When the file was last written; `None` if it is no regular file.
    #[must_use]
    pub(crate) const fn written(&self) -> Option<WallTime> {
        self.written
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("packing", &self.packing)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Checks that the file at `path` can be read; returns its size, if it has one. Does not open the file, because opening and
/// closing a named pipe would lose its text.
///
/// # Errors
///
/// If it does not exist, must not be read, or is a directory.
pub(crate) fn probe(path: &Path) -> Result<Option<u64>, SourceError> {
    let name = path.display().to_string();
    let metadata = fs::metadata(path).map_err(|source| SourceError::unreadable(&name, source))?;
    if metadata.is_dir() {
        return Err(SourceError::Directory { name });
    }
    access(path, AccessFlags::R_OK)
        .map_err(|errno| SourceError::unreadable(&name, errno.into()))?;
    Ok(metadata.is_file().then_some(metadata.len()))
}

/// How a log is packed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    /// By a packer that is not supported.
    Unknown {
        /// The name of the packer.
        packer: &'static str,
        /// The command that unpacks.
        unpack: &'static str,
    },
}

impl Packing {
    fn of(magic: &[u8]) -> Self {
        let unknown = |packer, unpack| Self::Unknown { packer, unpack };
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => unknown("xz", "xzcat"),
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', ..] => unknown("bzip2", "bzcat"),
            [0x04, 0x22, 0x4d, 0x18, ..] => unknown("lz4", "lz4cat"),
            [b'P', b'K', 3, 4, ..] => unknown("zip", "unzip -p"),
            _ => Self::Plain,
        }
    }

    /// The name of the packer, or `plain`.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Unknown { packer, .. } => packer,
        }
    }
}

/// Why a recorded log cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It does not exist, or must not be read.
    #[error("{}: cannot be read: {source}", printable(name))]
    Unreadable { name: String, source: io::Error },
    /// It is a directory.
    #[error("{}: a directory, expected the files in it", printable(name))]
    Directory { name: String },
    /// It is packed by a packer that is not supported.
    #[error(
        "{0}: packed by {packer}, expected text, gzip or zstd; run `{unpack} {0} |` before the command",
        printable(name)
    )]
    Packed {
        name: String,
        /// The name of the packer.
        packer: &'static str,
        /// The command that unpacks.
        unpack: &'static str,
    },
    #[error("{}: {} after {offset} octets of text: {source}", printable(name), broken(*.packing, *.early))]
    Broken {
        name: String,
        /// How it is packed.
        packing: Packing,
        /// The packed stream is not complete.
        early: bool,
        /// Octets of text that were read before.
        offset: u64,
        source: io::Error,
    },
    /// It begins with octets that no text has.
    #[error(
        "{0}: not text: a NUL at octet {offset}; if it is a log all the same, remove the NULs: \
         `tr -d '\\0' <{0} |` before the command",
        printable(name)
    )]
    NotText {
        name: String,
        /// The offset in the text.
        offset: u64,
    },
}

impl SourceError {
    fn unreadable(name: &str, source: io::Error) -> Self {
        Self::Unreadable {
            name: name.to_owned(),
            source,
        }
    }
}

fn broken(packing: Packing, early: bool) -> String {
    match (packing, early) {
        (Packing::Plain, _) => "cannot be read".to_owned(),
        (packing, true) => format!("the {} stream ends early,", packing.word()),
        (packing, false) => format!("the {} stream is damaged", packing.word()),
    }
}

/// A reader that counts the octets that it reads.
struct Counted<R> {
    input: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let octets = self.input.read(buffer)?;
        self.taken.set(self.taken.get() + octets as u64);
        Ok(octets)
    }
}

/// Reads Zstandard frames one after the other. Leaves out skippable frames and compares checksums.
struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_OCTETS_MAX);
        Self {
            input,
            decoder,
            in_frame: false,
        }
    }

    /// Begins the next frame; returns false at the end.
    fn begin_frame(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.input) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(err) => return Err(io::Error::other(err)),
            }
        }
        Ok(false)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let expected = self.decoder.get_checksum_from_data();
        if expected.is_some() && expected != self.decoder.get_calculated_checksum() {
            return Err(io::Error::other("the checksum does not fit the text"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.in_frame || self.begin_frame()? {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let some = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.decoder
                    .decode_blocks(&mut self.input, some)
                    .map_err(io::Error::other)?;
            }
            let octets = self.decoder.read(buffer)?;
            if octets > 0 {
                return Ok(octets);
            }
            self.end_frame()?;
        }
        Ok(0)
    }
}

/// Reads the first octets of `input`: as many as it takes to recognise a packer.
fn first_octets(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut octets = Vec::with_capacity(MAGIC_OCTETS);
    let limit = MAGIC_OCTETS as u64;
    input.take(limit).read_to_end(&mut octets)?;
    Ok(octets)
}

fn written(metadata: &Metadata) -> Option<WallTime> {
    let since_epoch = metadata
        .modified()
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    let micros = i64::try_from(since_epoch.as_micros()).ok()?;
    Some(WallTime::from_micros(micros))
}

/// Whether `err` was caused by the end of the input.
fn ends_early(err: &io::Error) -> bool {
    if err.kind() == ErrorKind::UnexpectedEof {
        return true;
    }
    let mut cause = err.get_ref().map(|inner| inner as &dyn Error);
    while let Some(err) = cause {
        if err
            .downcast_ref::<io::Error>()
            .is_some_and(|err| err.kind() == ErrorKind::UnexpectedEof)
        {
            return true;
        }
        cause = err.source();
    }
    false
}

/// Octets of the longest magic number.
const MAGIC_OCTETS: usize = 6;

/// Octets that are read from a packed file at once.
const PACKED_OCTETS: usize = 128 * 1024;

/// The limit of `zstd -d` without options (`--ultra`, and `--long` up to 27).
const ZSTD_WINDOW_OCTETS_MAX: u64 = 128 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    /// Reads all text of `octets`; returns it with the error that ended it.
    fn read(octets: Vec<u8>) -> (Vec<u8>, Option<SourceError>) {
        let mut text = Vec::new();
        let mut source = match Source::stream("log", Cursor::new(octets)) {
            Ok(source) => source,
            Err(err) => return (text, Some(err)),
        };
        let mut buffer = [0; 1000];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return (text, None),
                Ok(octets) => text.extend_from_slice(&buffer[..octets]),
                Err(err) => return (text, Some(err)),
            }
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    fn text() -> Vec<u8> {
        (0..20_000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect()
    }

    #[test]
    fn packed_and_plain_logs_are_the_same_text() {
        for pack in [<[u8]>::to_vec, gzip, zstd] {
            let (read, err) = read(pack(&text()));
            assert!(err.is_none(), "{err:?}");
            assert!(read == text());
        }
    }

    #[test]
    fn short_and_empty_logs_are_read() {
        for short in [&b""[..], b"a", b"a\n", b"abcdef", b"abcdefg"] {
            assert_eq!(read(short.to_vec()).0, short);
            assert_eq!(read(gzip(short)).0, short);
            assert_eq!(read(zstd(short)).0, short);
        }
    }

    #[test]
    fn several_streams_in_one_file_are_one_text() {
        for pack in [gzip, zstd] {
            let octets = [pack(b"one\n"), pack(b""), pack(b"two\n")].concat();
            assert_eq!(read(octets).0, b"one\ntwo\n");
        }
        let skippable = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let octets = [&skippable[..], &zstd(b"one\n"), &skippable].concat();
        assert_eq!(read(octets).0, b"one\n");
    }

    #[test]
    fn a_stream_cut_anywhere_gives_what_was_there_and_says_that_it_ends_early() {
        for (pack, word) in [(gzip as fn(&[u8]) -> Vec<u8>, "gzip"), (zstd, "zstd")] {
            let whole = pack(&text());
            for cut in [8, 20, whole.len() / 2, whole.len() - 1] {
                let (read, err) = read(whole[..cut].to_vec());
                assert!(text().starts_with(&read), "{word} cut at {cut}");
                let Some(err @ SourceError::Broken { early: true, .. }) = err else {
                    panic!("{word} cut at {cut}: {err:?}");
                };
                let said = format!(
                    "log: the {word} stream ends early, after {} octets of text",
                    read.len()
                );
                assert!(err.to_string().starts_with(&said), "{err}");
            }
        }
    }

    #[test]
    fn a_stream_with_a_changed_octet_is_damaged_or_ends_early() {
        for pack in [gzip, zstd] {
            let mut octets = pack(&text());
            let middle = octets.len() / 2;
            for octet in &mut octets[middle..middle + 8] {
                *octet ^= 0x55;
            }
            let (_, err) = read(octets);
            assert!(matches!(err, Some(SourceError::Broken { .. })), "{err:?}");
        }
    }

    #[test]
    fn other_packers_are_named() {
        let (_, err) = read(b"\xfd7zXZ\0\0".to_vec());
        assert_eq!(
            err.unwrap().to_string(),
            "log: packed by xz, expected text, gzip or zstd; run `xzcat log |` before the command"
        );
    }

    #[test]
    fn what_is_no_file_is_told_before_anything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let said = probe(dir.path()).unwrap_err().to_string();
        assert!(
            said.ends_with(": a directory, expected the files in it"),
            "{said}"
        );
        let said = probe(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(
            said.contains("absent: cannot be read: No such file"),
            "{said}"
        );
        let path = dir.path().join("log");
        fs::write(&path, "12345").unwrap();
        assert_eq!(probe(&path).unwrap(), Some(5));
        assert!(Source::open(&path).unwrap().written().is_some());
    }
}
