//! PRI: `"<" 1*3DIGIT ">"` (RFC 5424 6.2.1, RFC 3164 4.1.1).
//!
//! # Guarantees
//!
//! - A [`Pri`] is 0 to 191. No number computed from it is out of range.
//! - At most five octets are read.
//!
//! # Left out
//!
//! The names of facilities and severities (see `rule`).

/// PRIVAL: facility times eight plus severity, 0 to 191 (RFC 5424 6.2.1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pri(u8);

impl Pri {
    /// The PRI of a message that has none: user.notice (RFC 3164 4.3.3).
    pub const ABSENT: Self = Self(13);

    /// The PRI of `prival`; `None` above 191.
    #[must_use]
    pub const fn new(prival: u8) -> Option<Self> {
        if prival <= 191 {
            Some(Self(prival))
        } else {
            None
        }
    }

    /// The number, 0 to 191.
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

/// What stands where a PRI may begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Prefix {
    /// A PRI of `octets` octets.
    Valid {
        pri: Pri,
        octets: usize,
    },
    /// A `<` that begins no valid PRI.
    Invalid,
    Absent,
}

/// Reads a PRI. Leading zeros are illegal (RFC 5424 6.2.1), but some senders use them.
#[inline]
pub(super) fn prefix(octets: &[u8]) -> Prefix {
    let (digits, octets) = match octets {
        [b'<', a, b'>', ..] => ([b'0', b'0', *a], 3),
        [b'<', a, b, b'>', ..] => ([b'0', *a, *b], 4),
        [b'<', a, b, c, b'>', ..] => ([*a, *b, *c], 5),
        [b'<', ..] => return Prefix::Invalid,
        _ => return Prefix::Absent,
    };
    let mut prival: u16 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Prefix::Invalid;
        }
        prival = prival * 10 + u16::from(digit - b'0');
    }
    match u8::try_from(prival).ok().and_then(Pri::new) {
        Some(pri) => Prefix::Valid { pri, octets },
        None => Prefix::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Option<u8>) {
        let expected = match expected.and_then(Pri::new) {
            Some(pri) => Prefix::Valid {
                pri,
                octets: input.find('>').unwrap() + 1,
            },
            None => Prefix::Invalid,
        };
        assert_eq!(prefix(input.as_bytes()), expected, "{input:?}");
    }

    #[test]
    fn every_prival_is_read_with_and_without_leading_zeros() {
        for prival in 0..=191 {
            check(&format!("<{prival}>x"), Some(prival));
            check(&format!("<{prival:02}>"), Some(prival));
            check(&format!("<{prival:03}>1 "), Some(prival));
        }
    }

    /// CVE-2014-3634, CVE-2014-3683: such a value indexed an array, and the first fix missed some.
    #[test]
    fn a_value_out_of_range_is_no_pri() {
        for prival in 192..=1999 {
            check(&format!("<{prival}>"), None);
        }
        for input in [
            "<4294967309>",
            "<18446744073709551629>",
            "<999>",
            "<256>",
            "<269>",
        ] {
            check(input, None);
        }
    }

    #[test]
    fn what_is_not_one_to_three_digits_is_no_pri() {
        for input in [
            "<", "<>", "<1", "<13", "<133", "<1331", "<-1>", "<+1>", "< 1>", "<1 >", "<a>",
            "<0013>",
        ] {
            check(input, None);
        }
        assert_eq!(prefix(b""), Prefix::Absent);
        assert_eq!(prefix(b" <13>"), Prefix::Absent);
        assert_eq!(prefix(b"13>"), Prefix::Absent);
    }

    #[test]
    fn facility_and_severity_make_up_the_prival() {
        for prival in 0..=191 {
            let pri = Pri::new(prival).unwrap();
            assert_eq!(pri.facility() * 8 + pri.severity(), prival);
            assert!(pri.facility() <= 23 && pri.severity() <= 7);
        }
        assert_eq!(Pri::new(192), None);
    }
}
