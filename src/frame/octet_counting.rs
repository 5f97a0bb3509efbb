//! Octet counting: `MSG-LEN SP MSG` (RFC 6587 3.4.1, RFC 5425 4.3), and telling it from a line.
//!
//! # Guarantees
//!
//! - Digits never overflow: more than [`MSG_LEN_DIGITS_MAX`] of them are no header, and no count
//!   above [`MSG_LEN_BELIEVABLE`] is used for anything.
//! - [`classify`] decides from a prefix of the stream that is at most a header and
//!   `message_octets_max + 1` octets long, and stays with its decision whatever follows.
//!
//! # Left out
//!
//! State: the caller remembers what was decided. The body: it is never looked at.

use memchr::memchr2;

use super::zlib::message_follows;
use crate::limits::{MSG_LEN_BELIEVABLE, MSG_LEN_DIGITS_MAX};

/// What stands at the front of the input where a header may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Header {
    /// A believable count; `header_octets` includes the space.
    MsgLen {
        header_octets: usize,
        msg_len: usize,
    },
    /// A count above [`MSG_LEN_BELIEVABLE`]: `digits` octets, then a space.
    TooLarge { digits: usize },
    /// No header: behind `digits` octets stands one that does not fit.
    Absent { digits: usize },
    /// It could still become one.
    Undecided,
}

/// What digits at the front of the input are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// The header of a counted frame.
    Counted {
        header_octets: usize,
        msg_len: usize,
    },
    /// The beginning of a line.
    Line { scanned: usize },
    /// The beginning of a line that looks like a counted frame of absurd length.
    CountTooLarge { scanned: usize },
    /// More octets are needed.
    Undecided { scanned: usize },
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
/// RFC 6587 3.4.3 says that a digit means octet counting; a line such as `2026 Mar 11 13:42:44 ...`
/// would then swallow its neighbours. So a count must be confirmed: by a PRI or a compressed message behind it, by
/// an earlier counted frame (`locked`), or by what stands where its frame would end.
///
/// The look-ahead over `msg_len + 1` octets is bounded by `message_octets_max`: a longer frame without
/// PRI on a connection that has not counted yet is a line **at once**. To wait for its end is not
/// possible within the bound, and to decide by how much of it happens to be there would let the cuts
/// decide.
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
            return match pri_follows(input.get(digits + 1..).unwrap_or_default(), usize::MAX) {
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
    let body = input.get(header_octets..).unwrap_or_default();
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
    let from = scanned.saturating_sub(header_octets).min(ahead.len());
    let unscanned = ahead.get(from..).unwrap_or_default();
    match memchr2(b'\n', 0, unscanned).map(|at| from + at) {
        // The trailer is the last octet of the body (OpenBSD counts it) or stands right behind it.
        Some(at) if at + 1 >= msg_len => counted,
        Some(at) => Class::Line {
            scanned: header_octets + at,
        },
        None => match ahead.get(msg_len) {
            // The next frame's count.
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

/// The body of a counted frame if `input` is the whole of one, to the octet.
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

/// Whether `input` begins with something in the form of a PRI, `"<" 1*3DIGIT ">"`, that is not longer
/// than `octets_max`; `None` if that needs more octets. (Its value is none of the framer's business.)
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
