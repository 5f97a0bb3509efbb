//! RFC 3164 as senders really use it: an optional timestamp in some form, an optional hostname, an
//! optional tag, and always MSG.
//!
//! ```text
//! [blanks] [TIMESTAMP (SP | ":")] [HOSTNAME SP] [TAG["[" PROCID "]"][":"][SP]] MSG
//! ```
//!
//! # Guarantees
//!
//! - Every text fits. A word that is not clearly a hostname or a tag belongs to MSG.
//! - A first word that neither `:` nor `[` follows is no tag: it stays in MSG.
//! - The common header, `Mmm dd hh:mm:ss host tag[pid]: `, is walked once, and only its own octets.
//!
//! # Left out
//!
//! Cisco's header, which begins like this one: `cisco` parses it.

use std::ops::Range;

use super::name::{Class, class, is_ipv6};
use super::octets::{behind, behind_blanks, behind_bom};
use super::repeat_count::is_repeat_count;
use super::spans::{Format, Span, Spans};
use super::{cisco, timestamp};

/// Finds the parts from `at`, behind PRI.
pub(super) fn parse(text: &[u8], at: usize) -> (Format, Spans) {
    let start = behind_bom(text, at);
    let timestamp_at = behind_blanks(text, start);
    match timestamp::legacy(behind(text, timestamp_at)) {
        Some(octets) => {
            let end = timestamp_at + octets;
            let mut spans = Spans {
                timestamp: Span::new(timestamp_at, end),
                ..Spans::default()
            };
            let cisco_likely = match text.get(end) {
                // A sender that puts a colon behind the timestamp puts no hostname there.
                Some(b':') => {
                    let at = end + 1;
                    let at = at + usize::from(text.get(at) == Some(&b' '));
                    tag_and_msg(text, at, &mut spans);
                    true
                }
                _ => host_tag_and_msg(text, behind_blanks(text, end), &mut spans),
            };
            if cisco_likely && let Some(spans) = cisco::parse(text, start) {
                return (Format::Cisco, spans);
            }
            (Format::Rfc3164, spans)
        }
        None => {
            if let Some(spans) = cisco::parse(text, start) {
                return (Format::Cisco, spans);
            }
            let mut spans = Spans::of_msg(text, start);
            if let Some(tag) = tag(text, start).filter(|tag| tag.is_unmistakable(text)) {
                tag.put_into(text, &mut spans);
            }
            (Format::Rfc3164, spans)
        }
    }
}

/// Finds the parts behind the timestamp. Returns whether the header may be Cisco's.
#[inline]
fn host_tag_and_msg(text: &[u8], at: usize, spans: &mut Spans) -> bool {
    let rest = behind(text, at);
    // The words of a repeat count are neither host nor tag.
    if is_repeat_count(rest) {
        spans.msg = Span::new(at, text.len());
        return false;
    }
    if let Some(origin_on) = rest.strip_prefix(b"Message forwarded from ") {
        let origin_at = text.len() - origin_on.len();
        if let Some(octets) = forwarded_from(origin_on) {
            spans.hostname = Span::unless_nil(text, origin_at, origin_at + octets);
            return tag_and_msg(text, origin_at + octets + 2, spans);
        }
    }
    let octets = match hostname(rest) {
        0 => 0,
        octets => {
            spans.hostname = Span::unless_nil(text, at, at + octets);
            octets + usize::from(octets < rest.len())
        }
    };
    let at = at + octets;
    tag_and_msg(text, at, spans)
}

/// Finds the parts behind the hostname. Returns whether the header may be Cisco's.
#[inline]
fn tag_and_msg(text: &[u8], at: usize, spans: &mut Spans) -> bool {
    let tag_at = behind_blanks(text, at);
    match tag(text, tag_at) {
        Some(tag) => {
            tag.put_into(text, spans);
            tag.end_octet == EndOctet::ColonAlone
                || leads_to_cisco(text, tag_at)
                || leads_to_cisco(text, tag.msg)
        }
        None => {
            spans.msg = Span::new(behind_bom(text, at), text.len());
            true
        }
    }
}

/// Whether the octet at `at` may begin a sequence number, a clock mark or a mnemonic.
#[inline]
fn leads_to_cisco(text: &[u8], at: usize) -> bool {
    matches!(text.get(at), Some(b'0'..=b'9' | b'*' | b'.' | b'%'))
}

/// Length of the hostname in AIX's `Message forwarded from HOSTNAME: `.
#[cold]
fn forwarded_from(origin_on: &[u8]) -> Option<usize> {
    let end = origin_on.iter().position(|&octet| octet == b' ')?;
    let (word, _) = origin_on.split_at(end);
    word.strip_suffix(b":")
        .map(<[u8]>::len)
        .filter(|octets| *octets > 0)
}

/// Length of the first word behind the timestamp if it is a hostname; 0 if it is a tag or part of a text.
#[inline]
fn hostname(rest: &[u8]) -> usize {
    let end = rest
        .iter()
        .position(|&octet| class(octet) != Class::Name)
        .unwrap_or(rest.len());
    match rest.get(end) {
        None | Some(b' ') => end,
        Some(b':' | b'[') => address(rest),
        Some(_) => 0,
    }
}

/// The same for a word with a `:` or `[` in it: of hostnames only addresses have these.
#[cold]
fn address(rest: &[u8]) -> usize {
    let end = rest
        .iter()
        .position(|&octet| octet == b' ')
        .unwrap_or(rest.len());
    let (word, _) = rest.split_at(end);
    if is_ipv6(word) || is_bracketed_address(word) {
        end
    } else {
        0
    }
}

struct Tag {
    name: Range<usize>,
    procid: Range<usize>,
    end_octet: EndOctet,
    msg: usize,
}

/// What ended the tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EndOctet {
    /// A colon, followed by a space or the end.
    Colon,
    /// A colon, followed by more text without a space.
    ColonAlone,
    /// A bracket without a colon behind it.
    Bracket,
}

impl Tag {
    #[inline]
    fn put_into(&self, text: &[u8], spans: &mut Spans) {
        spans.app_name = Span::unless_nil(text, self.name.start, self.name.end);
        spans.procid = Span::unless_nil(text, self.procid.start, self.procid.end);
        spans.msg = Span::new(behind_bom(text, self.msg), text.len());
    }

    /// Whether this is a tag even without a timestamp before it: `tag: ` or `tag[pid]:`.
    fn is_unmistakable(&self, text: &[u8]) -> bool {
        match self.end_octet {
            EndOctet::Colon => true,
            EndOctet::ColonAlone => text.get(self.name.end) == Some(&b'['),
            EndOctet::Bracket => false,
        }
    }
}

/// The tag at `at`: a name followed by `:` or `[`.
#[inline]
fn tag(text: &[u8], at: usize) -> Option<Tag> {
    let rest = behind(text, at);
    let end = rest.iter().position(|&octet| class(octet) != Class::Name)?;
    if end == 0 {
        return None;
    }
    match behind(rest, end) {
        [b':', text_on @ ..] => {
            // Junos has a colon inside the name: `CTX:rpd[123]: `.
            if !matches!(text_on, [] | [b' ', ..])
                && let Some(name_end) = name_before_procid(text, at + end)
                && let Some(tag) = with_procid(text, at..name_end)
                && tag.end_octet == EndOctet::Colon
            {
                return Some(tag);
            }
            Some(behind_name(text, at..at + end, 0..0, at + end))
        }
        [b'[', ..] => {
            let name = at..at + end;
            // Brackets that hold a space, or are not closed, hold no PROCID.
            let bare = Tag {
                name: name.clone(),
                procid: 0..0,
                end_octet: EndOctet::Bracket,
                msg: name.end,
            };
            Some(with_procid(text, name).unwrap_or(bare))
        }
        _ => None,
    }
}

/// The tag `name` if `[PROCID]` follows it.
#[inline]
fn with_procid(text: &[u8], name: Range<usize>) -> Option<Tag> {
    let procid_at = name.end + 1;
    let inner = behind(text, procid_at);
    // Most have a few digits: too few for memchr to pay.
    let octets = inner
        .iter()
        .position(|octet| matches!(octet, b']' | b' '))?;
    if inner.get(octets) != Some(&b']') {
        return None;
    }
    let procid = procid_at..procid_at + octets;
    let end = procid.end + 1;
    Some(behind_name(text, name, procid, end))
}

/// The tag that ends at `at`. A colon and one space there, if present, separate it from MSG.
#[inline]
fn behind_name(text: &[u8], name: Range<usize>, procid: Range<usize>, at: usize) -> Tag {
    let (end_octet, msg) = match behind(text, at) {
        [b':', b' ', ..] => (EndOctet::Colon, at + 2),
        [b':'] => (EndOctet::Colon, at + 1),
        [b':', ..] => (EndOctet::ColonAlone, at + 1),
        [b' ', ..] => (EndOctet::Bracket, at + 1),
        _ => (EndOctet::Bracket, at),
    };
    Tag {
        name,
        procid,
        end_octet,
        msg,
    }
}

/// Where the `[` of the word at `at` stands, if only name octets and colons stand before it.
#[cold]
fn name_before_procid(text: &[u8], at: usize) -> Option<usize> {
    let rest = behind(text, at);
    let end = rest
        .iter()
        .position(|&o| class(o) != Class::Name && o != b':')?;
    (rest.get(end) == Some(&b'[')).then_some(at + end)
}

/// Whether `word` is an address in brackets (ArubaOS, and IPv6 as in a URL).
fn is_bracketed_address(word: &[u8]) -> bool {
    matches!(word, [b'[', address @ .., b']'] if !address.is_empty()
        && address.iter().all(|octet| octet.is_ascii_hexdigit() || matches!(octet, b'.' | b':')))
}
