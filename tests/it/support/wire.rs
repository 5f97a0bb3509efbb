//! How messages stand on a wire: written by originators, read back by sinks.
//!
//! Deliberately not the relay's own framer: what the relay sends is judged by a second opinion.

/// How one message is told from the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wire {
    /// A line feed ends it.
    Lf,
    /// A NUL ends it (syslog(3) on a stream socket).
    Nul,
    /// `MSG-LEN SP` stands before it (RFC 6587 3.4.1).
    OctetCounting,
}

impl Wire {
    /// `message` as it goes out.
    pub(crate) fn encode(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Lf => [message, b"\n"].concat(),
            Self::Nul => [message, b"\0"].concat(),
            Self::OctetCounting => [format!("{} ", message.len()).as_bytes(), message].concat(),
        }
    }

    /// The first whole message in `octets`, and how many octets it took with its framing; `None`
    /// while it is not whole.
    ///
    /// # Panics
    ///
    /// When octet counting was agreed upon and no octet count is there.
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
