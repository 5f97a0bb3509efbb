//! Non-transparent framing: octets up to a trailer (RFC 6587 3.4.2).
//!
//! # Guarantees
//!
//! - No octet is scanned twice. No octet is scanned beyond the longest line that is kept and its CR LF.
//! - A line of exactly `message_octets_max` octets is whole, with or without a CR before its LF.
//!
//! # Left out
//!
//! State: the caller remembers how many octets of a line were scanned.

use memchr::{memchr, memchr2};

/// What ends a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trailer {
    /// LF; one CR before it is removed.
    Lf,
    Nul,
    /// LF, with one CR before it removed, or NUL.
    LfOrNul,
}

impl Trailer {
    /// Where the first trailer stands in `input`.
    #[inline]
    pub(super) fn find(self, input: &[u8]) -> Option<usize> {
        match self {
            Self::Lf => memchr(b'\n', input),
            Self::Nul => memchr(0, input),
            Self::LfOrNul => memchr2(b'\n', 0, input),
        }
    }

    /// Whether a CR before an LF belongs to the trailer.
    #[inline]
    const fn takes_cr(self) -> bool {
        !matches!(self, Self::Nul)
    }
}

/// What stands at the front of the input where a line begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Line<'a> {
    /// A whole line; `consumed` includes its trailer.
    Whole { octets: &'a [u8], consumed: usize },
    /// The line is certainly longer than the maximum. `head` is the part that is kept.
    Oversize { head: &'a [u8] },
    /// No trailer yet in `scanned` octets, and the line may still be short enough.
    Undecided { scanned: usize },
}

/// Looks for the end of the line at the front of `input`. Its first `scanned` octets hold no trailer.
#[inline]
pub(super) fn line(
    input: &[u8],
    scanned: usize,
    trailer: Trailer,
    message_octets_max: usize,
) -> Line<'_> {
    // The longest line that is kept, and its CR LF.
    let window = input
        .get(..message_octets_max.saturating_add(2))
        .unwrap_or(input);
    // The look-ahead for a count may have scanned beyond the window.
    let unscanned = window.get(scanned..).unwrap_or_default();
    if let Some(at) = trailer.find(unscanned) {
        let (line, behind) = window.split_at(scanned + at);
        let octets = match (line, behind) {
            ([octets @ .., b'\r'], [b'\n', ..]) if trailer.takes_cr() => octets,
            _ => line,
        };
        if octets.len() <= message_octets_max {
            return Line::Whole {
                octets,
                consumed: line.len() + 1,
            };
        }
    }
    let Some((head, beyond)) = window.split_at_checked(message_octets_max) else {
        return Line::Undecided {
            scanned: window.len(),
        };
    };
    match beyond {
        [] => Line::Undecided {
            scanned: window.len(),
        },
        // An LF may follow. Then the CR is part of the trailer.
        [b'\r'] if trailer.takes_cr() => Line::Undecided {
            scanned: window.len(),
        },
        _ => Line::Oversize { head },
    }
}
