//! The wire forms of messages: written by originators, read by sinks.
//!
//! This deliberately does not use the relay's own framer: the relay's output is checked by independent code.

/// How messages are separated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wire {
    /// A line feed ends a message.
    Lf,
    /// A NUL ends a message (syslog(3) on a stream socket).
    Nul,
    /// `MSG-LEN SP` precedes a message (RFC 6587 3.4.1).
    OctetCounting,
}

impl Wire {
    /// The wire form of `message`.
    pub(crate) fn encode(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Lf => [message, b"\n"].concat(),
            Self::Nul => [message, b"\0"].concat(),
            Self::OctetCounting => [format!("{} ", message.len()).as_bytes(), message].concat(),
        }
    }

    /// The first whole message in `octets`, and how many octets it takes with its framing; `None` if it is not whole.
    ///
    /// # Panics
    ///
    /// If the framing is octet counting and there is no octet count.
    pub(crate) fn decode(self, octets: &[u8]) -> Option<(&[u8], usize)> {
        match self {
            Self::Lf => decode_terminated(octets, b'\n'),
            Self::Nul => decode_terminated(octets, 0),
            Self::OctetCounting => decode_counted(octets),
        }
    }
}

fn decode_terminated(octets: &[u8], trailer: u8) -> Option<(&[u8], usize)> {
    let end = octets.iter().position(|&octet| octet == trailer)?;
    Some((&octets[..end], end + 1))
}

fn decode_counted(octets: &[u8]) -> Option<(&[u8], usize)> {
    let digits = octets
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    let separator = octets.get(digits)?;
    let head = &octets[..octets.len().min(40)];
    assert!(
        digits > 0 && *separator == b' ',
        "no octet count at {}",
        head.escape_ascii()
    );
    let msg_len: usize = std::str::from_utf8(&octets[..digits])
        .unwrap()
        .parse()
        .unwrap();
    let start = digits + 1;
    Some((octets.get(start..start + msg_len)?, start + msg_len))
}
