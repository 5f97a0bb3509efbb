//! Encoding: turns the entries of a chunk into the octets that an upstream gets (RFC 6587, RFC 5426).
//!
//! # Guarantees
//!
//! - Octet counting (RFC 6587 3.4.1) and datagrams leave every octet of a frame as it was received.
//! - LF framing (RFC 6587 3.4.2) drops trailing terminators and replaces an LF or NUL inside, which would cut the
//!   frame in two. Each such frame is counted as rewritten.
//! - A chunk that is its own wire form is not copied.
//! - A compressed message must keep every octet, so it is never rewritten: [`Encoder::take_out`] removes it before LF
//!   framing would have to.
//!
//! # Left out
//!
//! Writing to a socket or file.

use std::{borrow::Cow, collections::VecDeque};

use crate::{
    config::{LineBreaks, OutputFraming},
    delivery::chunk::{Chunk, is_terminator},
};

/// Encodes chunks for one stream upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Encoder {
    /// The framing of the upstream.
    pub framing: OutputFraming,
    /// What happens to line breaks inside a frame.
    pub line_breaks: LineBreaks,
}

impl Encoder {
    /// The wire form of the entries left in `chunk`, and how many frames were rewritten.
    #[must_use]
    pub(crate) fn encode<'a>(&self, chunk: &'a Chunk) -> (Cow<'a, [u8]>, u64) {
        if self.framing == OutputFraming::Lf && chunk.is_plain() {
            return (Cow::Borrowed(chunk.octets()), 0);
        }
        let mut wire = Vec::with_capacity(chunk.octets().len() + chunk.len() * 8);
        let mut rewritten = 0;
        for (frame, _, _) in chunk.entries() {
            match self.framing {
                OutputFraming::OctetCounting => {
                    wire.extend_from_slice(itoa::Buffer::new().format(frame.len()).as_bytes());
                    wire.push(b' ');
                    wire.extend_from_slice(frame);
                }
                OutputFraming::Lf => {
                    rewritten += u64::from(self.write_line(&mut wire, trimmed(frame)));
                }
            }
        }
        (Cow::Owned(wire), rewritten)
    }

    /// Removes from `batch` what this framing cannot carry, and returns it.
    #[must_use]
    pub(crate) fn take_out(&self, batch: &mut [Chunk]) -> Vec<Chunk> {
        match self.framing {
            OutputFraming::OctetCounting => Vec::new(),
            OutputFraming::Lf => batch
                .iter_mut()
                .filter_map(Chunk::split_compressed)
                .collect(),
        }
    }

    /// The wire forms of all of `batch`, and how many frames were rewritten.
    #[must_use]
    pub(crate) fn encode_all<'a>(&self, batch: &'a [Chunk]) -> (Vec<Cow<'a, [u8]>>, u64) {
        let mut rewritten = 0;
        let wire = batch
            .iter()
            .map(|chunk| {
                let (wire, count) = self.encode(chunk);
                rewritten += count;
                wire
            })
            .collect();
        (wire, rewritten)
    }

    /// Octets that `frame` takes on the wire.
    #[must_use]
    pub(crate) fn wire_octets(&self, frame: &[u8]) -> usize {
        match self.framing {
            OutputFraming::OctetCounting => {
                itoa::Buffer::new().format(frame.len()).len() + 1 + frame.len()
            }
            OutputFraming::Lf => {
                let line = trimmed(frame);
                let breaks = match self.line_breaks {
                    LineBreaks::Space => 0,
                    LineBreaks::Escape => memchr::memchr2_iter(b'\n', 0, line).count(),
                };
                line.len() + breaks * 3 + 1
            }
        }
    }

    /// Octets that the entries left in `chunk` take on the wire.
    #[must_use]
    pub(crate) fn chunk_octets(&self, chunk: &Chunk) -> usize {
        if self.framing == OutputFraming::Lf && chunk.is_plain() {
            return chunk.octets().len();
        }
        chunk
            .entries()
            .map(|(frame, _, _)| self.wire_octets(frame))
            .sum()
    }

    /// Octets that the first `count` of the entries left in `chunk` take on the wire.
    #[must_use]
    pub(crate) fn first_octets(&self, chunk: &Chunk, count: usize) -> usize {
        let first = chunk.entries().take(count);
        first.map(|(frame, _, _)| self.wire_octets(frame)).sum()
    }

    /// How many of the entries left in `chunk` lie wholly within its first `wire_octets` octets.
    #[must_use]
    pub(crate) fn whole_entries(&self, chunk: &Chunk, wire_octets: usize) -> usize {
        let mut end = 0;
        chunk
            .entries()
            .take_while(|(frame, _, _)| {
                end += self.wire_octets(frame);
                end <= wire_octets
            })
            .count()
    }

    /// How many of the first `wire_octets` octets of `batch` belong to whole frames.
    #[must_use]
    pub(crate) fn whole_octets(&self, batch: &[Chunk], wire_octets: usize) -> usize {
        let mut whole = 0;
        for (frame, _, _) in batch.iter().flat_map(Chunk::entries) {
            let end = whole + self.wire_octets(frame);
            if end > wire_octets {
                break;
            }
            whole = end;
        }
        whole
    }

    /// The frames of `chunks` that do not lie wholly in the first `wire_octets` octets.
    pub(super) fn beyond(
        self,
        chunks: impl Iterator<Item = Chunk>,
        wire_octets: usize,
    ) -> VecDeque<Chunk> {
        let mut beyond = VecDeque::new();
        let mut start = 0;
        for mut chunk in chunks {
            let octets = self.chunk_octets(&chunk);
            if start < wire_octets {
                chunk.advance(self.whole_entries(&chunk, wire_octets - start));
            }
            start += octets;
            if !chunk.is_empty() {
                beyond.push_back(chunk);
            }
        }
        beyond
    }

    fn write_line(self, wire: &mut Vec<u8>, line: &[u8]) -> bool {
        let mut at = 0;
        for found in memchr::memchr2_iter(b'\n', 0, line) {
            wire.extend_from_slice(&line[at..found]);
            let replacement: &[u8] = match (self.line_breaks, line[found]) {
                (LineBreaks::Space, _) => b" ",
                (LineBreaks::Escape, b'\n') => b"#012",
                (LineBreaks::Escape, _) => b"#000",
            };
            wire.extend_from_slice(replacement);
            at = found + 1;
        }
        wire.extend_from_slice(&line[at..]);
        wire.push(b'\n');
        at > 0
    }
}

/// `frame` without trailing CR, LF and NUL.
fn trimmed(frame: &[u8]) -> &[u8] {
    let end = frame
        .iter()
        .rposition(|octet| !is_terminator(*octet))
        .map_or(0, |last| last + 1);
    &frame[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::dedup::Claim, delivery::chunk::Entry};

    #[track_caller]
    fn check(
        framing: OutputFraming,
        line_breaks: LineBreaks,
        frames: &[&[u8]],
        wire: &[u8],
        rewritten: u64,
    ) {
        let encoder = Encoder {
            framing,
            line_breaks,
        };
        let mut chunk = Chunk::default();
        for frame in frames {
            chunk.push(frame, Entry::Survivor(Claim::VOID));
        }
        let (encoded, count) = encoder.encode(&chunk);
        assert_eq!(
            encoded.escape_ascii().to_string(),
            wire.escape_ascii().to_string()
        );
        assert_eq!(count, rewritten);
        let octets: usize = frames.iter().map(|frame| encoder.wire_octets(frame)).sum();
        assert_eq!(octets, wire.len(), "the length is known without encoding");
        for cut in 0..=wire.len() {
            let whole = encoder.whole_entries(&chunk, cut);
            let sum: usize = frames
                .iter()
                .take(whole)
                .map(|frame| encoder.wire_octets(frame))
                .sum();
            assert!(sum <= cut);
            if let Some(next) = frames.get(whole) {
                assert!(sum + encoder.wire_octets(next) > cut);
            }
        }
    }

    #[test]
    fn plain_lines_are_sent_as_they_lie() {
        use LineBreaks::Space;
        use OutputFraming::Lf;
        check(Lf, Space, &[b"one", b"tw\ro", b""], b"one\ntw\ro\n\n", 0);
        let mut chunk = Chunk::default();
        chunk.push(b"one", Entry::Survivor(Claim::VOID));
        let encoder = Encoder {
            framing: Lf,
            line_breaks: Space,
        };
        assert!(matches!(encoder.encode(&chunk), (Cow::Borrowed(_), 0)));
    }

    #[test]
    fn a_line_break_inside_never_cuts_a_frame_in_two() {
        use OutputFraming::Lf;
        let frames: &[&[u8]] = &[b"a\nb\0c\r\n\0", b"plain", b"\n\n"];
        check(Lf, LineBreaks::Space, frames, b"a b c\nplain\n\n", 1);
        check(Lf, LineBreaks::Escape, frames, b"a#012b#000c\nplain\n\n", 1);
    }

    #[test]
    fn octet_counting_leaves_every_octet_alone() {
        use OutputFraming::OctetCounting;
        let frames: &[&[u8]] = &[b"a\nb\0c\r\n\0", b"", b"0123456789"];
        check(
            OctetCounting,
            LineBreaks::Space,
            frames,
            b"8 a\nb\0c\r\n\x000 10 0123456789",
            0,
        );
    }
}
