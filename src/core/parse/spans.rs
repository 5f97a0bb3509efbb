//! The result of the parsers: the format, and where the parts stand in the frame.
//!
//! # Guarantees
//!
//! - A span takes eight octets, so a `Message` is small.
//! - The octets of a span are read with a check. A span that reaches beyond its frame panics.
//!
//! # Left out
//!
//! Order and overlap of spans: the parsers see to these.

use std::ops::Range;

/// The format of a frame.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Format {
    /// RFC 5424.
    Rfc5424,
    /// RFC 3164 in any form that senders really use, including a bare tag and free text.
    Rfc3164,
    /// Cisco's `[seq:] [host:] [*.]timestamp: %FAC-SEV-MNEMONIC: text`.
    Cisco,
    /// No format: a `<` that begins no valid PRI, or malformed RFC 5424.
    Unparsed,
}

/// Where the parts stand. An empty span is an absent part.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Spans {
    pub(super) timestamp: Span,
    pub(super) hostname: Span,
    pub(super) app_name: Span,
    pub(super) procid: Span,
    pub(super) msgid: Span,
    /// In RFC 5424 also `-`. If the sender left it out, an empty span at its place.
    pub(super) structured_data: Span,
    pub(super) msg: Span,
}

/// A range of octets of a frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Spans {
    /// MSG alone, from `at` to the end.
    pub(super) fn of_msg(text: &[u8], at: usize) -> Self {
        Self {
            msg: Span::new(at, text.len()),
            ..Self::default()
        }
    }
}

impl Span {
    /// From `start` to before `end`, both within [`FRAME_OCTETS_MAX`].
    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= FRAME_OCTETS_MAX);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "parsing looks at FRAME_OCTETS_MAX octets at most"
        )]
        let [start, end] = [start as u32, end as u32];
        Self { start, end }
    }

    /// The same, but an absent part if the octets are the NILVALUE.
    #[inline]
    pub(super) fn unless_nil(text: &[u8], start: usize, end: usize) -> Self {
        if text.get(start..end) == Some(b"-") {
            Self::default()
        } else {
            Self::new(start, end)
        }
    }

    #[inline]
    pub(super) const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    #[inline]
    pub(super) fn of(self, frame: &[u8]) -> &[u8] {
        frame.get(self.range()).expect("a span lies in its frame")
    }

    pub(super) const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// The largest offset that a [`Span`] can hold.
pub(super) const FRAME_OCTETS_MAX: usize = u32::MAX as usize;
