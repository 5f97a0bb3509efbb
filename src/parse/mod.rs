//! Parsing: one frame in, a [`Message`] of named slices out (RFC 5424, RFC 3164 as it is really
//! sent, Cisco).
//!
//! # Guarantees
//!
//! - Every input gives a `Message`. What fits no format is [`Format::Unparsed`], with its PRI if that
//!   is valid. Parsing never decides whether a message is delivered.
//! - Linear time, no allocation, no octet outside the frame is read.
//! - Slices are exactly what was received; nothing is decoded or repaired.
//!
//! # Left out
//!
//! The value of a timestamp; the meaning of structured data beyond its elements' borders.

use std::ops::Range;

/// The format that a frame was found to be in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Format {
    /// RFC 5424.
    Rfc5424,
    /// RFC 3164 in any of the forms that are really sent, including a bare tag and free text.
    Rfc3164,
    /// Cisco's `[seq:] [host:] [*.]stamp: %FAC-SEV-MNEMONIC: text`.
    Cisco,
    /// None of them.
    Unparsed,
}

/// PRIVAL: facility times eight plus severity, 0 to 191 (RFC 5424 6.2.1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pri(u8);

impl Pri {
    /// What a message without PRI counts as: user.notice (RFC 3164 4.3.3).
    pub const ABSENT: Self = Self(13);

    /// `prival` if it is within 0..=191.
    #[must_use]
    pub const fn new(prival: u8) -> Option<Self> {
        if prival <= 191 { Some(Self(prival)) } else { None }
    }

    /// The PRIVAL.
    #[must_use]
    pub const fn prival(self) -> u8 {
        self.0
    }

    /// 0 (kern) to 23 (local7).
    #[must_use]
    pub const fn facility(self) -> u8 {
        self.0 >> 3
    }

    /// 0 (emergency) to 7 (debug).
    #[must_use]
    pub const fn severity(self) -> u8 {
        self.0 & 7
    }
}

/// A frame and where its parts stand in it.
///
/// An absent part (NILVALUE, or not in this format) is `None`; an empty one counts as absent, too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    frame: &'a [u8],
    /// The format found.
    pub format: Format,
    /// PRI, if there is a valid one.
    pub pri: Option<Pri>,
    /// A message that must never be suppressed: RFC 5848 `ssign`/`ssign-cert`, or a
    /// sender's own count of repeats (`last message repeated N times`, `message repeated N times: [`).
    pub never_suppress: bool,
    spans: Spans,
}

/// Ranges into the frame; an empty one is an absent part.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Spans {
    after_pri: u32,
    timestamp: Range<u32>,
    hostname: Range<u32>,
    app_name: Range<u32>,
    procid: Range<u32>,
    msgid: Range<u32>,
    structured_data: Range<u32>,
    msg: Range<u32>,
}
// Accessors:
//   pub fn parse(frame: &'a [u8]) -> Message<'a>
//   pub fn frame(&self) -> &'a [u8]
//   pub fn timestamp/hostname/app_name/procid/msgid(&self) -> Option<&'a [u8]>
//   pub fn structured_data(&self) -> Option<&'a [u8]>   // whole STRUCTURED-DATA, None if "-" or absent
//   pub fn sd_elements(&self) -> impl Iterator<Item = SdElement<'a>>  // each: sd_id, octets "[...]"
//   pub fn msg(&self) -> &'a [u8]      // without BOM, without trailing [\r\n\0]*; for Cisco from '%'; for Unparsed all after PRI
//   pub fn msg_range/timestamp_range/structured_data_range(&self) -> Range<usize>  // where it stands, for the summary; 
//        for RFC 5424 the structured_data range is that of "-" if NIL, and empty-at-its-place if SD was omitted
