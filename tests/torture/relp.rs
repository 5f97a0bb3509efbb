//! RELP for both ends of the torture.
//!
//! Written from the protocol's description, not from the relay's code, which it tests. A frame is `TXNR SP COMMAND SP
//! DATALEN [SP DATA] LF`.

use std::io;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) txnr: u32,
    pub(crate) command: String,
    pub(crate) data: Vec<u8>,
}

/// Appends a frame to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, txnr: u32, command: &str, data: &[u8]) {
    out.extend_from_slice(format!("{txnr} {command} {}", data.len()).as_bytes());
    if !data.is_empty() {
        out.push(b' ');
        out.extend_from_slice(data);
    }
    out.push(b'\n');
}

/// The TXNR that follows `txnr`.
pub(crate) fn next(txnr: u32) -> u32 {
    if txnr >= TXNR_MAX { 1 } else { txnr + 1 }
}

/// Cuts received octets into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    octets: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds received octets.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        if self.start > COMPACT_OCTETS {
            self.octets.drain(..self.start);
            self.start = 0;
        }
        self.octets.extend_from_slice(octets);
    }

    /// Returns the next whole frame.
    ///
    /// # Errors
    ///
    /// If the octets are not RELP.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let rest = &self.octets[self.start..];
        let head = &rest[..rest.len().min(80)];
        let wrong = |what| io::Error::other(format!("{what}: {}", head.escape_ascii()));
        // Finds the end of the length: two spaces, then digits, then an octet that is not a digit.
        let mut spaces = 0;
        let end = head.iter().position(|&octet| {
            spaces += usize::from(octet == b' ');
            (spaces == 2 && octet != b' ' && !octet.is_ascii_digit()) || spaces == 3
        });
        let Some(end) = end else {
            return if rest.len() > 60 {
                Err(wrong("a head without end"))
            } else {
                Ok(None)
            };
        };
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| wrong("head is not UTF-8"))?;
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap_or("");
        let (txnr, command, datalen) = (word(), word().to_owned(), word());
        let number = |digits: &str| match digits.len() {
            1..=9 => digits.parse::<u32>().ok(),
            _ => None,
        };
        let txnr = number(txnr).ok_or_else(|| wrong("invalid TXNR"))?;
        let datalen = number(datalen).ok_or_else(|| wrong("invalid DATALEN"))? as usize;
        let is_command = |c: &str| {
            (1..=32).contains(&c.len()) && c.bytes().all(|octet| octet.is_ascii_alphabetic())
        };
        if !is_command(&command) {
            return Err(wrong("invalid COMMAND"));
        }
        let data_start = end + usize::from(datalen > 0);
        let Some(trailer) = rest.get(data_start + datalen) else {
            return Ok(None);
        };
        if (datalen > 0 && rest[end] != b' ') || *trailer != b'\n' {
            return Err(wrong("invalid framing"));
        }
        let data = rest[data_start..data_start + datalen].to_vec();
        self.start += data_start + datalen + 1;
        Ok(Some(Frame {
            txnr,
            command,
            data,
        }))
    }
}

/// The offers sent with `open`, and with the answer to it.
pub(crate) const OFFER: &[u8] =
    b"relp_version=0\nrelp_software=torture,1,https://localhost\ncommands=syslog\nunheard_of=1";
const TXNR_MAX: u32 = 999_999_999;
const COMPACT_OCTETS: usize = 1024 * 1024;
