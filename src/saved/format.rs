//! The file format of saved windows.
//!
//! ```text
//! file      "tersed windows\n" version │ block ...
//! block     length of body │ CRC-32 of body │ body
//! body      'H' layout, kind, secret, moment     once, first
//!           'P' policy                           before its windows
//!           'W' windows, oldest first            as many as fit into about 64 KiB, then further blocks
//!           'E' number of windows                once, last
//! window    start │ length of the identity, and whether more follows │ passed, last, forwarded │ identity
//! ```
//!
//! Numbers are little-endian, 32 bits if they count octets or copies and 64 otherwise; times are ticks of the run
//! that wrote them.
//!
//! # Guarantees
//!
//! - A file that lacks a part, or has an octet that is not the one written, is refused.
//! - Reading holds one block at a time, and takes memory for the octets that exist, not for those that a length announces.
//! - Windows that are returned are plausible: they are sorted, they started in the past, and there are exactly as
//!   many as were written.
//!
//! # Left out
//!
//! Files (`mod`), and whether what was saved fits this run.

#![warn(clippy::indexing_slicing)]

use std::io::{self, Read, Write};
use std::ops::Range;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, TryGetError};

use super::away::Moment;
use crate::core::dedup::OpenWindow;
use crate::core::identity::{IdentityKind, LAYOUT, Secret};
use crate::core::rule::{Action, DEFAULT, Fall, LITERAL, Mode, PolicyId, WindowPolicy};
use crate::core::tick::{Tick, WallTime};

/// Why octets cannot be read as saved windows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    /// The disk returned an error.
    #[error("cannot read: {0}")]
    Unreadable(#[from] io::Error),
    /// The file does not start like a file of saved windows.
    #[error("not a file of saved windows")]
    Foreign,
    /// Another version wrote the file.
    #[error("format {found} is not supported, expected format {VERSION}")]
    Version { found: u8 },
    /// Another version wrote the file, and its identities have other octets.
    #[error("identity layout {found} is not supported, expected layout {LAYOUT}")]
    Layout { found: u32 },
    /// The octets are not as they were written.
    #[error("damaged: {what}, in the block at octet {at}")]
    Damaged {
        /// Octets before the block.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) kind: IdentityKind,
    /// `exact` identities need none.
    pub(super) secret: Option<Secret>,
    /// When the windows were saved.
    pub(super) saved: Moment,
}

/// Identifies a policy: windows are restored under a policy only if all of this is equal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PolicyKey {
    /// The default and the literal policy, which are not rules, have a place of their own.
    place: u8,
    action: u8,
    mode: u8,
    window: WindowPolicy,
    /// Fingerprint of what is compared.
    spec: u64,
    name: Vec<u8>,
}

impl PolicyKey {
    /// The key of the policy with that id, as `fall` describes it.
    pub(super) fn of(id: PolicyId, fall: &Fall) -> Self {
        Self {
            place: match id {
                DEFAULT => 0,
                LITERAL => 1,
                _ => 2,
            },
            action: match fall.action {
                Action::Dedup => 0,
                Action::Pass => 1,
                Action::Drop => 2,
            },
            mode: match fall.policy.mode {
                Mode::Enforce => 0,
                Mode::Tag => 1,
                Mode::Shadow => 2,
            },
            window: fall.policy.window,
            spec: fall.policy.identity.id(),
            name: fall.name.as_bytes().to_vec(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_slice(&[self.place, self.action, self.mode]);
        out.put_u64_le(nanos(self.window.window));
        out.put_u32_le(self.window.allow);
        // Zero means no refresh: no time is shorter than a millisecond.
        out.put_u64_le(self.window.refresh.map_or(0, nanos));
        out.put_u64_le(self.spec);
        out.put_slice(&self.name);
    }

    /// Reads a key up to the end of its block.
    fn read(mut octets: &[u8]) -> Result<Self, TryGetError> {
        Ok(Self {
            place: octets.try_get_u8()?,
            action: octets.try_get_u8()?,
            mode: octets.try_get_u8()?,
            window: WindowPolicy {
                window: Duration::from_nanos(octets.try_get_u64_le()?),
                allow: octets.try_get_u32_le()?,
                refresh: Some(octets.try_get_u64_le()?)
                    .filter(|quiet| *quiet > 0)
                    .map(Duration::from_nanos),
            },
            spec: octets.try_get_u64_le()?,
            name: octets.to_vec(),
        })
    }
}

#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    body: Vec<u8>,
    windows: u64,
    octets: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W, header: &Header) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&[VERSION])?;
        let mut writer = Self {
            out,
            body: vec![HEADER],
            windows: 0,
            octets: MAGIC.len() as u64 + 1,
        };
        let body = &mut writer.body;
        body.put_u32_le(LAYOUT);
        body.put_u8(match header.kind {
            IdentityKind::Exact => EXACT,
            IdentityKind::Compact => COMPACT,
        });
        let Secret(one, other) = header.secret.unwrap_or(Secret(0, 0));
        body.put_u64_le(one);
        body.put_u64_le(other);
        body.put_u64_le(header.saved.tick.nanos());
        body.put_i64_le(header.saved.wall.micros());
        // No boot has the id zero.
        body.put_u128_le(header.saved.boot.unwrap_or(0));
        writer.end_block()?;
        Ok(writer)
    }

    /// Starts the windows of that policy.
    pub(super) fn policy(&mut self, key: &PolicyKey) -> io::Result<()> {
        self.end_block()?;
        self.body.put_u8(POLICY);
        key.write(&mut self.body);
        self.end_block()
    }

    /// Writes the window of the message with `identity`. The caller writes the windows of a policy in the order of
    /// their starts.
    pub(super) fn window(&mut self, window: &OpenWindow, identity: &[u8]) -> io::Result<()> {
        // No identity is that long. The reader refuses such a length, so it must not be written either.
        let Some(length) = u32::try_from(identity.len())
            .ok()
            .filter(|length| *length <= IDENTITY_OCTETS_MAX)
        else {
            return Ok(());
        };
        if self.body.is_empty() {
            self.body.put_u8(WINDOWS);
        }
        let is_plain =
            window.passed == 1 && (window.last, window.forwarded) == (window.start, window.start);
        let body = &mut self.body;
        body.put_u64_le(window.start.nanos());
        body.put_u32_le(length | if is_plain { 0 } else { HAS_MORE });
        if !is_plain {
            body.put_u32_le(window.passed);
            body.put_u64_le(window.last.nanos());
            body.put_u64_le(window.forwarded.nanos());
        }
        body.put_slice(identity);
        self.windows += 1;
        if self.body.len() >= BLOCK_OCTETS {
            self.end_block()?;
        }
        Ok(())
    }

    /// Writes the last block. Returns the output, the number of windows, and the number of octets.
    pub(super) fn finish(mut self) -> io::Result<(W, u64, u64)> {
        self.end_block()?;
        self.body.put_u8(END);
        self.body.put_u64_le(self.windows);
        self.end_block()?;
        Ok((self.out, self.windows, self.octets))
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.body.len()).expect("a block exceeds 64 KiB by one window");
        let mut head = Vec::with_capacity(HEAD_OCTETS);
        head.put_u32_le(length);
        head.put_u32_le(crc32fast::hash(&self.body));
        self.out.write_all(&head)?;
        self.out.write_all(&self.body)?;
        self.octets += (head.len() + self.body.len()) as u64;
        self.body.clear();
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Reader<R> {
    input: R,
    header: Header,
    /// The block being read, and which part of it is not read yet.
    body: Vec<u8>,
    left: Range<usize>,
    /// Octets before that block, and up to its end.
    at: u64,
    end: u64,
    /// The start of the last window under the same policy. `None` before the first policy.
    youngest: Option<Tick>,
    windows: u64,
}

/// The next thing in the file.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// The windows that follow are of that policy.
    Policy(PolicyKey),
    /// A window, and its message's identity.
    Window(OpenWindow, &'a [u8]),
}

impl<R: Read> Reader<R> {
    pub(super) fn new(mut input: R) -> Result<Self, FormatError> {
        let mut magic = Vec::new();
        let octets = MAGIC.len() as u64 + 1;
        input.by_ref().take(octets).read_to_end(&mut magic)?;
        match magic.strip_prefix(MAGIC) {
            Some([VERSION]) => {}
            Some([found]) => return Err(FormatError::Version { found: *found }),
            _ => return Err(FormatError::Foreign),
        }
        let mut reader = Self {
            input,
            header: Header {
                kind: IdentityKind::Exact,
                secret: None,
                saved: Moment {
                    tick: Tick::ZERO,
                    wall: WallTime::default(),
                    boot: None,
                },
            },
            body: Vec::new(),
            left: 0..0,
            at: octets,
            end: octets,
            youngest: None,
            windows: 0,
        };
        reader.read_block()?;
        let mut octets = reader.body.as_slice();
        if octets.try_get_u8() != Ok(HEADER) {
            return Err(reader.damaged("no header"));
        }
        // Another layout may have another header.
        match octets.try_get_u32_le() {
            Ok(LAYOUT) => {}
            Ok(found) => return Err(FormatError::Layout { found }),
            Err(_) => return Err(reader.damaged("no header")),
        }
        match Header::read(octets) {
            Some(header) => reader.header = header,
            None => return Err(reader.damaged("invalid header")),
        }
        Ok(reader)
    }

    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    /// Octets read so far.
    pub(super) const fn octets(&self) -> u64 {
        self.end
    }

    /// Reads the next thing. Returns `None` at the end, if everything is as it was written.
    pub(super) fn next(&mut self) -> Result<Option<Item<'_>>, FormatError> {
        while self.left.is_empty() {
            self.read_block()?;
            let mut octets = self.body.as_slice();
            match octets.try_get_u8() {
                Ok(POLICY) => {
                    let Ok(key) = PolicyKey::read(octets) else {
                        return Err(self.damaged("invalid policy"));
                    };
                    self.youngest = Some(Tick::ZERO);
                    return Ok(Some(Item::Policy(key)));
                }
                Ok(WINDOWS) if self.youngest.is_some() => self.left = 1..self.body.len(),
                Ok(END) => {
                    if octets.try_get_u64_le() != Ok(self.windows) || octets.has_remaining() {
                        return Err(self.damaged("wrong number of windows"));
                    }
                    let mut rest = [0];
                    return match self.input.read(&mut rest)? {
                        0 => Ok(None),
                        _ => Err(self.damaged("data after the end")),
                    };
                }
                _ => return Err(self.damaged("invalid block")),
            }
        }
        let left = self.body.get(self.left.clone());
        let mut octets = left.expect("what is left of the body is in the body");
        let Ok((window, length)) = read_window(&mut octets) else {
            return Err(self.damaged("invalid window"));
        };
        if length > octets.remaining() {
            return Err(self.damaged("invalid window"));
        }
        let saved = self.header.saved.tick;
        if self.youngest > Some(window.start)
            || window.start > window.last
            || window.last > saved
            || window.forwarded > window.last
            || window.passed == 0
        {
            return Err(self.damaged("impossible window"));
        }
        self.youngest = Some(window.start);
        self.windows += 1;
        let (identity, rest) = octets.split_at(length);
        self.left.start = self.left.end - rest.len();
        Ok(Some(Item::Window(window, identity)))
    }

    fn read_block(&mut self) -> Result<(), FormatError> {
        self.at = self.end;
        let mut head = [0; HEAD_OCTETS];
        self.input.read_exact(&mut head).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.damaged("the file ends early")
            } else {
                error.into()
            }
        })?;
        let mut head = head.as_slice();
        let (length, checksum) = (head.get_u32_le(), head.get_u32_le());
        if !(1..=BLOCK_OCTETS_MAX).contains(&length) {
            return Err(self.damaged("invalid length"));
        }
        self.body.clear();
        self.left = 0..0;
        let input = self.input.by_ref().take(u64::from(length));
        { input }.read_to_end(&mut self.body)?;
        self.end += (HEAD_OCTETS + self.body.len()) as u64;
        if u32::try_from(self.body.len()) != Ok(length) {
            return Err(self.damaged("the file ends early"));
        }
        if crc32fast::hash(&self.body) != checksum {
            return Err(self.damaged("wrong checksum"));
        }
        Ok(())
    }

    const fn damaged(&self, what: &'static str) -> FormatError {
        FormatError::Damaged { at: self.at, what }
    }
}

impl Header {
    /// Reads what follows the layout, up to the end of the block.
    fn read(mut octets: &[u8]) -> Option<Self> {
        let kind = match octets.try_get_u8().ok()? {
            EXACT => IdentityKind::Exact,
            COMPACT => IdentityKind::Compact,
            _ => return None,
        };
        let secret = Secret(octets.try_get_u64_le().ok()?, octets.try_get_u64_le().ok()?);
        let header = Self {
            kind,
            secret: (kind == IdentityKind::Compact).then_some(secret),
            saved: Moment {
                tick: Tick::from_nanos(octets.try_get_u64_le().ok()?),
                wall: WallTime::from_micros(octets.try_get_i64_le().ok()?),
                boot: Some(octets.try_get_u128_le().ok()?).filter(|id| *id != 0),
            },
        };
        (!octets.has_remaining()).then_some(header)
    }
}

/// Reads a window, up to its identity. Returns the number of octets of the identity.
fn read_window(octets: &mut &[u8]) -> Result<(OpenWindow, usize), TryGetError> {
    let start = Tick::from_nanos(octets.try_get_u64_le()?);
    let length = octets.try_get_u32_le()?;
    let (passed, last, forwarded) = if length & HAS_MORE == 0 {
        (1, start, start)
    } else {
        (
            octets.try_get_u32_le()?,
            Tick::from_nanos(octets.try_get_u64_le()?),
            Tick::from_nanos(octets.try_get_u64_le()?),
        )
    };
    let window = OpenWindow {
        start,
        passed,
        last,
        forwarded,
    };
    let length = usize::try_from(length & !HAS_MORE).expect("a usize has 32 bits at least");
    Ok((window, length))
}

/// Whether `octets` begin like a file of saved windows.
pub(super) fn is_ours(octets: &[u8]) -> bool {
    octets.starts_with(MAGIC)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The first octets of a file of saved windows.
pub(super) const MAGIC: &[u8] = b"tersed windows\n";

const VERSION: u8 = 1;

const HEADER: u8 = b'H';
const POLICY: u8 = b'P';
const WINDOWS: u8 = b'W';
const END: u8 = b'E';

const EXACT: u8 = 0;
const COMPACT: u8 = 1;

/// Octets before a body.
const HEAD_OCTETS: usize = 8;

/// Set in the length of an identity if `passed`, `last` and `forwarded` stand before it.
const HAS_MORE: u32 = 1 << 31;

/// A body is written once it has this many octets.
const BLOCK_OCTETS: usize = 64 * 1024;

/// Octets of an identity at most: the longest message, all of which masks made twice as long.
const IDENTITY_OCTETS_MAX: u32 = 48 << 20;

/// Octets of a body at most: one window more than fits.
const BLOCK_OCTETS_MAX: u32 = IDENTITY_OCTETS_MAX + (1 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of an older version are read by a newer one.
    #[test]
    fn the_octets_of_a_file_are_these() {
        let header = Header {
            kind: IdentityKind::Compact,
            secret: Some(Secret(0x0102_0304_0506_0708, 0x1112_1314_1516_1718)),
            saved: Moment {
                tick: Tick::from_nanos(1_000_000),
                wall: WallTime::from_micros(-5),
                boot: Some(0x2122_2324_2526_2728_292a_2b2c_2d2e_2f30),
            },
        };
        let policy = PolicyKey {
            place: 2,
            action: 0,
            mode: 1,
            window: WindowPolicy {
                window: Duration::from_secs(10),
                allow: 3,
                refresh: Some(Duration::from_secs(60)),
            },
            spec: 0x3132_3334_3536_3738,
            name: b"sshd".to_vec(),
        };
        let window = |start, passed, last, forwarded| OpenWindow {
            start: Tick::from_nanos(start),
            passed,
            last: Tick::from_nanos(last),
            forwarded: Tick::from_nanos(forwarded),
        };
        let windows = [
            (window(900, 1, 900, 900), &b"abcd"[..]),
            (window(950, 7, 990, 980), &b"xy"[..]),
        ];
        let expected: [&[u8]; 5] = [
            b"tersed windows\n\x01",
            b"6\x00\x00\x00\xfe\xa1DSH\x01\x00\x00\x00\x01\x08\x07\x06\x05\x04\x03\x02\x01\x18\x17\x16\
              \x15\x14\x13\x12\x11@B\x0f\x00\x00\x00\x00\x00\xfb\xff\xff\xff\xff\xff\xff\xff0/.-,+*)('&%\
              $#\"!",
            b"$\x00\x00\x00\x07:\x0d\xcdP\x02\x00\x01\x00\xe4\x0bT\x02\x00\x00\x00\x03\x00\x00\x00\x00XG\
              \xf8\x0d\x00\x00\x0087654321sshd",
            b"3\x00\x00\x00:\x80\xa1\xc1W\x84\x03\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00abcd\xb6\x03\
              \x00\x00\x00\x00\x00\x00\x02\x00\x00\x80\x07\x00\x00\x00\xde\x03\x00\x00\x00\x00\x00\x00\
              \xd4\x03\x00\x00\x00\x00\x00\x00xy",
            b"\x09\x00\x00\x00\x9bU)0E\x02\x00\x00\x00\x00\x00\x00\x00",
        ];
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        writer.policy(&policy).unwrap();
        for (window, identity) in &windows {
            writer.window(window, identity).unwrap();
        }
        let (octets, count, written) = writer.finish().unwrap();
        assert_eq!((count, written), (2, octets.len() as u64));
        assert_eq!(
            octets.escape_ascii().to_string(),
            expected.concat().escape_ascii().to_string()
        );

        let mut reader = Reader::new(&octets[..]).unwrap();
        assert_eq!(*reader.header(), header);
        let Some(Item::Policy(read)) = reader.next().unwrap() else {
            panic!("the policy comes first");
        };
        assert_eq!(read, policy);
        for (window, identity) in &windows {
            let Some(Item::Window(read, octets)) = reader.next().unwrap() else {
                panic!("then the windows");
            };
            assert_eq!((&read, octets), (window, *identity));
        }
        assert!(reader.next().unwrap().is_none());
        assert_eq!(reader.octets(), octets.len() as u64);
    }
}
