//! RFC 5424: the header, STRUCTURED-DATA and MSG behind `<PRI>1 `.
//!
//! ```text
//! TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID [SP STRUCTURED-DATA] [SP MSG]
//! ```
//!
//! # Guarantees
//!
//! - All or nothing: for a malformed header, timestamp or element [`parse`] returns `None`.
//! - More is accepted than RFC 5424 6 allows where the meaning is plain: any octets but SP in a field,
//!   fields of any length, more than one SP before TIMESTAMP, STRUCTURED-DATA left out (Heroku).
//!
//! # Left out
//!
//! Versions other than 1: they are taken for RFC 3164.

use memchr::memchr;

use super::octets::{behind, behind_blanks, behind_bom};
use super::spans::{Span, Spans};
use super::structured_data::Elements;
use super::timestamp;

/// The parts behind `<PRI>1 `.
pub(super) struct Parsed {
    pub(super) spans: Spans,
    /// The message signs others (RFC 5848).
    pub(super) signature: bool,
}

/// Finds the parts from `at`, behind `<PRI>1 `.
pub(super) fn parse(text: &[u8], at: usize) -> Option<Parsed> {
    let mut spans = Spans::default();

    let at = behind_blanks(text, at);
    let at = match behind(text, at) {
        [b'-', b' ', ..] => at + 1,
        rest => {
            let end = at + timestamp::rfc5424(rest)?;
            spans.timestamp = Span::new(at, end);
            end
        }
    };
    let (hostname, at) = field(text, behind_space(text, at)?)?;
    let (app_name, at) = field(text, behind_space(text, at)?)?;
    let (procid, at) = field(text, behind_space(text, at)?)?;
    let (msgid, at) = field(text, behind_space(text, at)?)?;
    spans.hostname = hostname;
    spans.app_name = app_name;
    spans.procid = procid;
    spans.msgid = msgid;

    spans.structured_data = Span::new(at, at);
    spans.msg = Span::new(at, at);
    let mut signature = false;
    if let Some(at) = behind_space(text, at) {
        let end = match behind(text, at) {
            [b'-'] | [b'-', b' ', ..] => at + 1,
            elements_on @ [b'[', ..] => {
                let mut elements = Elements::of(elements_on);
                for element in elements.by_ref() {
                    signature |= element.is_signature();
                }
                let end = text.len() - elements.rest().len();
                (end > at).then_some(end)?
            }
            _ => at,
        };
        let msg = match behind(text, end) {
            _ if end == at => at,
            [] => end,
            [b' ', ..] => end + 1,
            _ => return None,
        };
        if end > at {
            spans.structured_data = Span::new(at, end);
        }
        // RFC 5424 6.4: the BOM tells the encoding of MSG. It is not part of the text.
        spans.msg = Span::new(behind_bom(text, msg), text.len());
    }
    Some(Parsed { spans, signature })
}

/// The field at `at`, up to SP or the end, and where it ends.
#[inline]
fn field(text: &[u8], at: usize) -> Option<(Span, usize)> {
    let rest = behind(text, at);
    let end = at + memchr(b' ', rest).unwrap_or(rest.len());
    (end > at).then(|| (Span::unless_nil(text, at, end), end))
}

#[inline]
fn behind_space(text: &[u8], at: usize) -> Option<usize> {
    (text.get(at) == Some(&b' ')).then_some(at + 1)
}
