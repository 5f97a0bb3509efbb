//! Octet counting: reads `MSG-LEN SP MSG` (RFC 6587 3.4.1, RFC 5425 4.3) and tells it from a line.
//!
//! # Guarantees
//!
//! - Digits never overflow: more than [`MSG_LEN_DIGITS_MAX`] of them are no header, and a count
//!   above [`MSG_LEN_BELIEVABLE`] is never used.
//! - [`classify`] decides from a prefix of the stream: a header and `message_octets_max + 1` octets at
//!   most. No octet that follows changes the decision.
//!
//! # Left out
//!
//! State: the caller remembers the decision. The body of a counted frame: it is never looked at.

use memchr::memchr2;

use super::zlib::message_follows;
use crate::core::limits::{MSG_LEN_BELIEVABLE, MSG_LEN_DIGITS_MAX};

/// What stands at the front of the input, where a header may begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Header {
    /// A believable count; `header_octets` includes the space.
    MsgLen {
        header_octets: usize,
        msg_len: usize,
    },
    /// A count above [`MSG_LEN_BELIEVABLE`]: `digits` octets, then a space.
    TooLarge { digits: usize },
    /// No header: the octet behind `digits` octets does not fit.
    Absent { digits: usize },
    /// More octets could make it a header.
    Undecided,
}

/// What the digits at the front of the input are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// The header of a counted frame.
    Counted {
        header_octets: usize,
        msg_len: usize,
    },
    /// The beginning of a line.
    Line {
        scanned: usize,
    },
    /// The beginning of a line that looks like a counted frame of implausible length.
    CountTooLarge {
        scanned: usize,
    },
    Undecided {
        scanned: usize,
    },
}

/// Reads `MSG-LEN SP`, where `MSG-LEN = NONZERO-DIGIT *DIGIT`.
#[inline]
pub(super) fn header(input: &[u8]) -> Header {
    let mut msg_len: u64 = 0;
    for (digits, octet) in input.iter().enumerate() {
        match octet {
            b'0' if digits == 0 => return Header::Absent { digits },
            b'0'..=b'9' if digits < MSG_LEN_DIGITS_MAX => {
                msg_len = msg_len * 10 + u64::from(octet - b'0');
            }
            b' ' if digits > 0 => {
                return match usize::try_from(msg_len) {
                    Ok(msg_len_octets) if msg_len <= MSG_LEN_BELIEVABLE => Header::MsgLen {
                        header_octets: digits + 1,
                        msg_len: msg_len_octets,
                    },
                    _ => Header::TooLarge { digits },
                };
            }
            _ => return Header::Absent { digits },
        }
    }
    Header::Undecided
}

/// Decides whether `input`, which begins with a digit 1 to 9, is a counted frame or a line.
///
/// RFC 6587 3.4.3 says that a digit means octet counting. A line such as `2026 Mar 11 13:42:44 ...`
/// would then swallow its neighbours. So a count must be confirmed: by a PRI or a compressed message behind it, by
/// an earlier counted frame (`locked`), or by the octet where its frame would end.
///
/// `message_octets_max` bounds the look-ahead over `msg_len + 1` octets. A longer frame without PRI, on a
/// connection without an earlier counted frame, is a line **at once**: its end lies beyond the bound, and
/// a decision by the octets that happen to be there would depend on the cuts.
#[inline]
pub(super) fn classify(
    input: &[u8],
    scanned: usize,
    locked: bool,
    message_octets_max: usize,
) -> Class {
    let (header_octets, msg_len) = match header(input) {
        Header::MsgLen {
            header_octets,
            msg_len,
        } => (header_octets, msg_len),
        Header::Absent { digits } => return Class::Line { scanned: digits },
        Header::TooLarge { digits } => {
            return match pri_follows(input.split_at(digits + 1).1, usize::MAX) {
                Some(true) => Class::CountTooLarge { scanned: digits },
                Some(false) => Class::Line { scanned: digits },
                None => Class::Undecided { scanned: digits },
            };
        }
        Header::Undecided => return Class::Undecided { scanned: 0 },
    };
    let counted = Class::Counted {
        header_octets,
        msg_len,
    };
    if locked {
        return counted;
    }
    let (_, body) = input.split_at(header_octets);
    let follows = match pri_follows(body, msg_len) {
        Some(false) => message_follows(body, msg_len.min(message_octets_max)),
        pri => pri,
    };
    match follows {
        Some(true) => return counted,
        Some(false) => {}
        None => {
            return Class::Undecided {
                scanned: header_octets,
            };
        }
    }
    if msg_len > message_octets_max {
        return Class::Line {
            scanned: header_octets,
        };
    }

    let ahead = body.get(..=msg_len).unwrap_or(body);
    let from = scanned.saturating_sub(header_octets);
    match memchr2(b'\n', 0, ahead.split_at(from).1).map(|at| from + at) {
        // The trailer is the last octet of the body (OpenBSD counts it) or stands directly behind it.
        Some(at) if at + 1 >= msg_len => counted,
        Some(at) => Class::Line {
            scanned: header_octets + at,
        },
        None => match ahead.get(msg_len) {
            // The count of the next frame.
            Some(b'1'..=b'9') => counted,
            Some(_) => Class::Line {
                scanned: header_octets + ahead.len(),
            },
            None => Class::Undecided {
                scanned: header_octets + ahead.len(),
            },
        },
    }
}

/// The body of the counted frame that `input` is; `None` if it is not exactly one.
pub(super) fn exactly_counted(input: &[u8]) -> Option<&[u8]> {
    match header(input) {
        Header::MsgLen {
            header_octets,
            msg_len,
        } => input
            .get(header_octets..)
            .filter(|body| body.len() == msg_len),
        _ => None,
    }
}

/// Whether `input` begins with `"<" 1*3DIGIT ">"`, the form of a PRI, within `octets_max` octets; `None` if
/// more octets are needed. The framer does not look at the value.
fn pri_follows(input: &[u8], octets_max: usize) -> Option<bool> {
    for at in 0..PRI_OCTETS_MAX.min(octets_max) {
        match (at, input.get(at)?) {
            (0, b'<') | (1..=3, b'0'..=b'9') => {}
            (2.., b'>') => return Some(true),
            _ => return Some(false),
        }
    }
    Some(false)
}

/// Octets of the longest PRI.
const PRI_OCTETS_MAX: usize = 5;
