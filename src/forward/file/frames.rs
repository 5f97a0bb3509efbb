//! Finds where frames end in encoded octets.
//!
//! # Guarantees
//!
//! - The ends are those that `Encoder` wrote: behind each LF, or where each length says.
//! - One call looks at each octet at most once.
//!
//! # Left out
//!
//! Octets that no `Encoder` wrote: unframed octets count as one frame up to their end.

use crate::config::OutputFraming;

#[derive(Clone, Copy, Debug)]
pub(super) struct Frames(pub(super) OutputFraming);

impl Frames {
    /// Where the frame that begins at `from` ends.
    pub(super) fn next_end(self, wire: &[u8], from: usize) -> usize {
        let rest = &wire[from..];
        let octets = match self.0 {
            OutputFraming::Lf => memchr::memchr(b'\n', rest).map(|last| last + 1),
            OutputFraming::OctetCounting => counted(rest),
        };
        octets
            .and_then(|octets| from.checked_add(octets))
            .filter(|end| *end <= wire.len())
            .unwrap_or(wire.len())
    }

    /// The last end of a frame that is not beyond `limit`. If no frame ends there, returns `from`, where a frame begins.
    pub(super) fn last_end(self, wire: &[u8], from: usize, limit: usize) -> usize {
        if limit >= wire.len() {
            return wire.len();
        }
        match self.0 {
            OutputFraming::Lf => {
                memchr::memrchr(b'\n', &wire[from..limit]).map_or(from, |last| from + last + 1)
            }
            OutputFraming::OctetCounting => {
                let mut end = from;
                loop {
                    let next = self.next_end(wire, end);
                    if next > limit {
                        return end;
                    }
                    end = next;
                }
            }
        }
    }
}

/// The length of the counted frame at the front of `octets`, its MSG-LEN included (RFC 6587 3.4.1).
fn counted(octets: &[u8]) -> Option<usize> {
    let digits = memchr::memchr(b' ', octets)?;
    let length = octets.get(..digits)?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    length.checked_add(digits + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(framing: OutputFraming, wire: &[u8], ends: &[usize]) {
        let frames = Frames(framing);
        let mut from = 0;
        for &end in ends {
            assert_eq!(frames.next_end(wire, from), end);
            for limit in from..=wire.len() {
                let expected = ends.iter().rfind(|end| **end <= limit && **end > from);
                let expected = expected.copied().unwrap_or(from);
                assert_eq!(frames.last_end(wire, from, limit), expected, "{limit}");
            }
            from = end;
        }
        assert_eq!(from, wire.len());
    }

    #[test]
    fn a_line_ends_behind_its_lf() {
        check(OutputFraming::Lf, b"one\n\ntwo\nt\n", &[4, 5, 9, 11]);
    }

    #[test]
    fn a_counted_frame_ends_where_its_length_says() {
        let wire = b"3 one0 10 012\n567 893 \n\n\n";
        check(OutputFraming::OctetCounting, wire, &[5, 7, 20, 25]);
    }

    #[test]
    fn what_is_not_framed_is_one_frame() {
        for framing in [OutputFraming::Lf, OutputFraming::OctetCounting] {
            for wire in [
                &b"no end"[..],
                b"99 short",
                b"x y",
                b"99999999999999999999 a",
            ] {
                assert_eq!(Frames(framing).next_end(wire, 0), wire.len());
            }
        }
    }
}
