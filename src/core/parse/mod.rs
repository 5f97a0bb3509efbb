//! Parsing: one frame in, a [`Message`] of named slices out (RFC 5424, RFC 3164 as senders really use
//! it, Cisco).
//!
//! ```text
//! [BOM] [blanks] <PRI> ─┬─ "1 " ──────▶ rfc5424 ── malformed ──▶ unparsed, PRI kept
//!                       ├─ otherwise ─▶ rfc3164 ─┬─ header leads to %FAC-SEV-MNEMONIC: ──▶ cisco
//!                       │                        └─ anything else: at least MSG
//!   no "<": PRI absent ─┘
//!   "<" but no PRI ───────────────────▶ unparsed
//! ```
//!
//! # Guarantees
//!
//! - Every frame yields a `Message`. A frame that fits no format is [`Format::Unparsed`], with its PRI if
//!   that is valid. Parsing never decides whether a message is delivered.
//! - Parsing takes linear time, allocates nothing and reads no octet outside the frame.
//! - Slices are exactly the octets received: nothing is decoded or repaired. They do not overlap, and
//!   MSG is the last of them.
//! - A hostname is never guessed. A message that does not clearly name a host has none. Then its sender
//!   stands in, and messages of two machines stay different.
//!
//! # Left out
//!
//! The value of a timestamp. The parameters of structured data.

#![warn(clippy::indexing_slicing)]

mod cisco;
mod name;
mod octets;
mod pri;
mod repeat_count;
mod rfc3164;
mod rfc5424;
mod spans;
mod structured_data;
pub(crate) mod timestamp;

use std::ops::Range;

use crate::core::frame::zlib;

use self::octets::{behind, behind_blanks, behind_bom, trimmed};
use self::pri::Prefix;
pub use self::pri::Pri;
use self::repeat_count::is_repeat_count;
pub use self::spans::Format;
use self::spans::{FRAME_OCTETS_MAX, Span, Spans};
use self::structured_data::Elements;
pub use self::structured_data::SdElement;

/// A frame and where its parts stand in it.
///
/// An absent part (NILVALUE, or not in this format) is `None`. An empty part counts as absent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    frame: &'a [u8],
    /// The format that was recognised.
    pub format: Format,
    /// `None` if the frame has no valid PRI.
    pub pri: Option<Pri>,
    /// The message must never be suppressed. It is an RFC 5848 `ssign` or `ssign-cert`, a sender's own count of
    /// repeats (`last message repeated N times`, `message repeated N times: [`), or compressed.
    pub never_suppress: bool,
    /// The message is in rsyslog's compressed form: no part of it can be read.
    pub compressed: bool,
    spans: Spans,
}

impl<'a> Message<'a> {
    /// Finds the parts of `frame`: one message as it stood between its framing, including trailing line
    /// ends. (Only the first 4 GiB of a frame count. No limit admits a longer one.)
    #[must_use]
    pub fn parse(frame: &'a [u8]) -> Self {
        let text = trimmed(frame.get(..FRAME_OCTETS_MAX).unwrap_or(frame));
        let at = behind_blanks(text, behind_bom(text, 0));
        let mut signature = false;
        let compressed = zlib::is_compressed(text);
        let (pri, format, spans) = match pri::prefix(behind(text, at)) {
            Prefix::Absent if compressed => (None, Format::Unparsed, Spans::of_msg(text, 0)),
            Prefix::Invalid => (None, Format::Unparsed, Spans::of_msg(text, 0)),
            Prefix::Absent => {
                let (format, spans) = rfc3164::parse(text, 0);
                (None, format, spans)
            }
            Prefix::Valid { pri, octets } => {
                let at = at + octets;
                let (format, spans) = match behind(text, at) {
                    [b'1', b' ', ..] => match rfc5424::parse(text, at + 2) {
                        Some(parsed) => {
                            signature = parsed.signature;
                            (Format::Rfc5424, parsed.spans)
                        }
                        None => (Format::Unparsed, Spans::of_msg(text, at)),
                    },
                    _ => rfc3164::parse(text, at),
                };
                (Some(pri), format, spans)
            }
        };
        let never_suppress =
            signature || compressed || is_repeat_count(content(format, spans.msg.of(text)));
        Self {
            frame,
            format,
            pri,
            never_suppress,
            compressed,
            spans,
        }
    }

    /// The message of `frame` if `frame` equals this message's frame octet for octet, except for a timestamp of the same
    /// form. It equals the result of [`Message::parse`] and takes a fraction of the time. `None` does not mean that the
    /// messages differ: parse the frame.
    ///
    /// Storms consist of such repeats.
    #[must_use]
    pub fn repeated<'b>(&self, frame: &'b [u8]) -> Option<Message<'b>> {
        let timestamp = self.spans.timestamp.range();
        if frame.len() != self.frame.len()
            || frame.get(timestamp.end..) != self.frame.get(timestamp.end..)
            || frame.get(..timestamp.start) != self.frame.get(..timestamp.start)
        {
            return None;
        }
        if frame.get(timestamp.clone()) != self.frame.get(timestamp.clone()) {
            let rest = trimmed(frame).get(timestamp.start..)?;
            let octets = match self.format {
                Format::Rfc5424 => timestamp::rfc5424(rest),
                Format::Rfc3164 => timestamp::legacy(rest),
                // Another timestamp may be found before theirs.
                Format::Cisco | Format::Unparsed => None,
            };
            if octets != Some(timestamp.len()) {
                return None;
            }
        }
        Some(Message {
            frame,
            format: self.format,
            pri: self.pri,
            never_suppress: self.never_suppress,
            compressed: self.compressed,
            spans: self.spans,
        })
    }

    /// Whether the frame is probably not text. It is compressed; or it fits no format or has no PRI, and holds a control
    /// octet other than TAB, CR and LF before its trailing CR, LF and NUL. Other frames are not searched.
    #[must_use]
    #[inline]
    pub fn is_binary(&self) -> bool {
        self.compressed
            || (self.format == Format::Unparsed || self.pri.is_none())
                && holds_controls(trimmed(self.frame))
    }

    /// Where the text of MSG stands: behind Cisco's `%FACILITY-SEV-MNEMONIC: `, in other formats all of
    /// MSG.
    #[must_use]
    pub fn content_range(&self) -> Range<usize> {
        let msg = self.msg_range();
        msg.end - content(self.format, self.msg()).len()..msg.end
    }

    /// All octets of the frame.
    #[must_use]
    pub const fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// PRI, or [`Pri::ABSENT`] if the frame has no valid PRI.
    #[must_use]
    pub fn pri_or_default(&self) -> Pri {
        self.pri.unwrap_or(Pri::ABSENT)
    }

    /// TIMESTAMP as it was sent, in any form.
    #[must_use]
    pub fn timestamp(&self) -> Option<&'a [u8]> {
        self.part(self.spans.timestamp)
    }

    /// HOSTNAME; in Cisco messages the origin.
    #[must_use]
    pub fn hostname(&self) -> Option<&'a [u8]> {
        self.part(self.spans.hostname)
    }

    /// APP-NAME; in RFC 3164 the tag, if a `:` or `[` follows it (a first word without either stays
    /// in MSG); in Cisco messages the process, which few of them name.
    #[must_use]
    pub fn app_name(&self) -> Option<&'a [u8]> {
        self.part(self.spans.app_name)
    }

    /// PROCID; in RFC 3164 the text in brackets behind the tag.
    #[must_use]
    pub fn procid(&self) -> Option<&'a [u8]> {
        self.part(self.spans.procid)
    }

    /// MSGID; in IOS XR messages the node that sent it (`RP/0/RSP0/CPU0`), so that two line cards of one
    /// router differ.
    #[must_use]
    pub fn msgid(&self) -> Option<&'a [u8]> {
        self.part(self.spans.msgid)
    }

    /// All of STRUCTURED-DATA, if it holds any element.
    #[must_use]
    pub fn structured_data(&self) -> Option<&'a [u8]> {
        self.part(self.spans.structured_data)
            .filter(|octets| *octets != b"-")
    }

    /// The elements of STRUCTURED-DATA, in order.
    pub fn sd_elements(&self) -> impl Iterator<Item = SdElement<'a>> + use<'a> {
        Elements::of(self.structured_data().unwrap_or_default())
    }

    /// MSG without a BOM at its start and without `[\r\n\0]*` at its end. In Cisco messages it begins
    /// with `%`. In unparsed frames it is everything behind PRI, or the whole frame.
    #[must_use]
    pub fn msg(&self) -> &'a [u8] {
        self.spans.msg.of(self.frame)
    }

    /// Where [`Message::msg`] stands in the frame. Only the frame's trailing terminators stand behind it.
    #[must_use]
    pub fn msg_range(&self) -> Range<usize> {
        self.spans.msg.range()
    }

    /// Where [`Message::timestamp`] stands in the frame.
    #[must_use]
    pub fn timestamp_range(&self) -> Option<Range<usize>> {
        Some(self.spans.timestamp.range()).filter(|range| !range.is_empty())
    }

    /// Where STRUCTURED-DATA stands in an RFC 5424 frame: its elements, or `-`. If the sender left it out,
    /// the range is empty and directly behind MSGID, where `SP STRUCTURED-DATA` can be inserted. In other
    /// formats the range is empty and means nothing.
    #[must_use]
    pub fn structured_data_range(&self) -> Range<usize> {
        self.spans.structured_data.range()
    }

    fn part(&self, span: Span) -> Option<&'a [u8]> {
        Some(span.of(self.frame)).filter(|octets| !octets.is_empty())
    }
}

/// Whether `octets` hold an ASCII control octet other than TAB, CR and LF. Looks at 64 octets at a time, without a
/// branch for each.
fn holds_controls(octets: &[u8]) -> bool {
    let is_control = |octet: u8| {
        (octet < b' ') & (octet != b'\t') & (octet != b'\n') & (octet != b'\r') | (octet == 0x7f)
    };
    octets.chunks(64).any(|portion| {
        portion
            .iter()
            .fold(false, |found, octet| found | is_control(*octet))
    })
}

/// The text of `msg`: behind Cisco's `%FACILITY-SEV-MNEMONIC: `, in other formats all of it.
#[inline]
fn content(format: Format, msg: &[u8]) -> &[u8] {
    let mnemonic = match format {
        Format::Cisco => memchr::memmem::find(msg, b": ").map_or(0, |colon| colon + 2),
        Format::Rfc5424 | Format::Rfc3164 | Format::Unparsed => 0,
    };
    behind(msg, mnemonic)
}

#[cfg(test)]
mod tests;
