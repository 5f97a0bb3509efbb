//! Annotations: the mode `tag` adds one to a message that the rule, if enforced, would not have forwarded.
//!
//! ```text
//! RFC 5424  <34>1 2026-01-01T00:00:00Z host su 231 - [tersed@32473 verdict="repeated"] 'su root' failed
//! others    <34>Nov 22 10:00:09 host su[231]: 'su root' failed [repeated]
//! ```
//!
//! # Guarantees
//!
//! - Nothing but the annotation is added, and nothing is removed; the MSG of an RFC 5424 message stays as it was.

use super::summary::{SD_ID, write_behind_elements};
use crate::core::parse::{Format, Message};
pub use crate::core::rule::Annotation;

impl Annotation {
    /// The word that is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Dropped => "dropped",
        }
    }

    /// Appends `frame` with the annotation to `out`.
    pub fn write(self, out: &mut Vec<u8>, frame: &[u8]) {
        let message = Message::parse(frame);
        let word = self.word().as_bytes();
        if message.format == Format::Rfc5424 {
            let at = write_behind_elements(out, &message, 0, |out| {
                for part in [b"[", SD_ID.as_bytes(), b" verdict=\"", word, b"\"]"] {
                    out.extend_from_slice(part);
                }
            });
            out.extend_from_slice(&frame[at..]);
        } else {
            let (text, terminators) = frame.split_at(message.msg_range().end.min(frame.len()));
            for part in [text, b" [", word, b"]", terminators] {
                out.extend_from_slice(part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_an_element_where_there_are_elements_else_a_suffix() {
        for (frame, expected) in [
            (
                &b"<34>Nov 22 10:00:01 host su[231]: failed\r\n"[..],
                &b"<34>Nov 22 10:00:01 host su[231]: failed [repeated]\r\n"[..],
            ),
            (b"<13>{\"a\":1}", b"<13>{\"a\":1} [repeated]"),
            (b"<999>x", b"<999>x [repeated]"),
            (
                b"<34>1 - h a p m - text\n",
                b"<34>1 - h a p m [tersed@32473 verdict=\"repeated\"] text\n",
            ),
            (
                b"<34>1 - h a p m [x@1 a=\"b\"] text",
                b"<34>1 - h a p m [x@1 a=\"b\"][tersed@32473 verdict=\"repeated\"] text",
            ),
            (
                b"<34>1 - h a p m -",
                b"<34>1 - h a p m [tersed@32473 verdict=\"repeated\"]",
            ),
        ] {
            let mut out = Vec::new();
            Annotation::Repeated.write(&mut out, frame);
            assert_eq!(
                out.escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            );
        }
    }
}
