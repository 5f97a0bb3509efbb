//! RELP, the reliable event logging protocol: frames, and the two ends of a session as pure state.
//!
//! ```text
//! frame     TXNR SP COMMAND SP DATALEN [SP DATA] LF
//!
//! client    1 open 85 relp_version=0 …      2 syslog 7 <13>one     3 syslog 7 <13>two     4 close 0
//! server    1 rsp 93 200 OK …               2 rsp 6 200 OK         3 rsp 6 200 OK         4 rsp 0
//! ```
//!
//! [`Frame::first`] takes a frame from a stream, [`Frame::write`] writes one. [`offers`] is what the two
//! ends tell each other in `open` and its answer. [`Server`] and [`Client`] are the two ends of a session:
//! they know which command may come now, under which number, and what it answers.
//!
//! # Guarantees
//!
//! - The frames do not depend on how the stream was cut into reads. Nothing is remembered between two
//!   calls, and a frame is returned only when it is whole. A header ([`HEADER_OCTETS_MAX`]) that was cut is
//!   looked at again. Data never are.
//! - Data are a slice of the input: nothing is copied, and no length from the wire sizes a buffer.
//! - The caller holds at most the limit on data plus [`FRAME_OCTETS_EXTRA`] octets.
//! - Transactions are numbered 1, 2, … 999999999, 1. Each end checks the numbers of the other.
//!
//! # Left out
//!
//! When a message is safe, and so may be answered (see `listen`). What is sent again after a loss (see
//! `forward`). How many transactions may be under way: both ends count, the shell decides. TLS.
//! `abort` and `starttls`, which librelp's drafts mention: no known peer sends them.

#![warn(clippy::indexing_slicing)]

mod client;
pub mod offers;
mod server;

pub use self::{
    client::{Answer, Client, Heard},
    server::{Request, Server},
};

/// The number of a transaction. Hints have the number zero and no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Txnr(u32);

impl Txnr {
    /// The number of hints.
    pub const HINT: Self = Self(0);

    /// The first transaction of a session.
    pub const FIRST: Self = Self(1);

    /// The largest number. [`Txnr::FIRST`] follows it.
    pub const LAST: Self = Self(999_999_999);

    /// The transaction that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The transaction `count` behind this one. Zero is skipped.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        let index = self.0 as u64 + count as u64;
        let last = Self::LAST.0 as u64;
        if index <= last {
            return Self(self.0 + count);
        }
        let wrapped = (index - 1) % last + 1;
        #[expect(clippy::cast_possible_truncation, reason = "it is at most 999999999")]
        Self(wrapped as u32)
    }

    /// The number itself.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The command of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command<'a> {
    /// Begins a session. The data are offers.
    Open,
    /// Carries a message. The data are its octets.
    Syslog,
    /// Ends a session.
    Close,
    /// Answers a command. The data are a [`Response`].
    Rsp,
    /// Hints that the server is about to close the session.
    ServerClose,
    /// An unknown command.
    Other(&'a [u8]),
}

impl<'a> Command<'a> {
    fn of(word: &'a [u8]) -> Self {
        match word {
            b"syslog" => Self::Syslog,
            b"rsp" => Self::Rsp,
            b"open" => Self::Open,
            b"close" => Self::Close,
            b"serverclose" => Self::ServerClose,
            word => Self::Other(word),
        }
    }

    /// The command as it is written.
    #[must_use]
    pub const fn word(self) -> &'a [u8] {
        match self {
            Self::Open => b"open",
            Self::Syslog => b"syslog",
            Self::Close => b"close",
            Self::Rsp => b"rsp",
            Self::ServerClose => b"serverclose",
            Self::Other(word) => word,
        }
    }
}

/// One frame as it stood in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// The transaction that it belongs to.
    pub txnr: Txnr,
    /// What it asks for or answers.
    pub command: Command<'a>,
    /// The data, unchanged.
    pub data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the front of `input`, and its length in octets; `None` while it is not whole. `input`
    /// holds all octets received and not consumed.
    ///
    /// # Errors
    ///
    /// No octet that may follow could make it a frame, or it announces more than `data_octets_max` octets
    /// of data. The rest of the stream means nothing.
    #[inline]
    pub fn first(
        input: &'a [u8],
        data_octets_max: usize,
    ) -> Result<Option<(Self, usize)>, RelpFault> {
        let mut at = 0;
        let Some((txnr, ended_by)) = number(input, &mut at, RelpFault::BadTxnr)? else {
            return Ok(None);
        };
        if ended_by != b' ' {
            return Err(RelpFault::BadTxnr);
        }
        let Some(word) = word(input, &mut at)? else {
            return Ok(None);
        };
        let Some((data_len, ended_by)) = number(input, &mut at, RelpFault::BadDataLen)? else {
            return Ok(None);
        };
        let data_octets = data_len as usize;
        if data_octets > data_octets_max {
            return Err(RelpFault::TooLong {
                data_len,
                max: data_octets_max,
            });
        }
        let frame = |data| Self {
            txnr: Txnr(txnr),
            command: Command::of(word),
            data,
        };
        match ended_by {
            b'\n' if data_octets == 0 => return Ok(Some((frame(&[]), at))),
            b' ' => {}
            _ => return Err(RelpFault::BadDataLen),
        }
        let (_, rest) = input.split_at(at);
        match rest.get(data_octets) {
            None => Ok(None),
            Some(b'\n') => {
                let (data, _) = rest.split_at(data_octets);
                Ok(Some((frame(data), at + data_octets + 1)))
            }
            Some(_) => Err(RelpFault::NoTrailer),
        }
    }

    /// Appends the frame as it goes over the wire. Data have at most 999,999,999 octets: DATALEN has nine digits.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        write_number(out, self.txnr.0);
        out.push(b' ');
        out.extend_from_slice(self.command.word());
        out.push(b' ');
        debug_assert!(self.data.len() <= DATA_OCTETS_MAX);
        write_number(out, self.data_len());
        if !self.data.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.data);
        }
        out.push(b'\n');
    }

    /// The number of octets that [`Frame::write`] appends.
    #[must_use]
    pub fn wire_octets(&self) -> usize {
        let data = self.data.len();
        let separators = if data > 0 { 4 } else { 3 };
        let numbers = digits_of(self.txnr.0) + digits_of(self.data_len());
        numbers + self.command.word().len() + data + separators
    }

    #[inline]
    fn data_len(&self) -> u32 {
        u32::try_from(self.data.len()).expect("DATALEN has nine digits")
    }
}

/// The number of at most nine digits at `at`, and the octet that ended it. Moves `at` behind that octet.
#[inline]
fn number(input: &[u8], at: &mut usize, fault: RelpFault) -> Result<Option<(u32, u8)>, RelpFault> {
    let mut value = 0_u32;
    for digits in 0..=NUMBER_DIGITS_MAX {
        match input.get(*at + digits) {
            None => return Ok(None),
            // Nine digits stay below 2^32.
            Some(digit @ b'0'..=b'9') if digits < NUMBER_DIGITS_MAX => {
                value = value * 10 + u32::from(digit - b'0');
            }
            Some(&ended_by @ (b' ' | b'\n')) if digits > 0 => {
                *at += digits + 1;
                return Ok(Some((value, ended_by)));
            }
            Some(_) => return Err(fault),
        }
    }
    Err(fault)
}

/// The command at `at`, which a space ends. Moves `at` behind the space.
#[inline]
fn word<'a>(input: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, RelpFault> {
    let (_, rest) = input.split_at(*at);
    // A shortcut: nearly all frames carry a message.
    if rest.starts_with(b"syslog ") {
        *at += 7;
        return Ok(rest.get(..6));
    }
    let letters = rest
        .iter()
        .take(COMMAND_LETTERS_MAX + 1)
        .take_while(|octet| octet.is_ascii_alphabetic())
        .count();
    match rest.get(letters) {
        _ if letters > COMMAND_LETTERS_MAX => Err(RelpFault::BadCommand),
        None => Ok(None),
        Some(b' ') if letters > 0 => {
            *at += letters + 1;
            Ok(rest.get(..letters))
        }
        Some(_) => Err(RelpFault::BadCommand),
    }
}

#[inline]
fn write_number(out: &mut Vec<u8>, number: u32) {
    let mut digits = [b'0'; 10];
    let mut rest = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        let value = (rest % 10) as u8;
        *digit += value;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let (_, written) = digits.split_at(digits.len() - count);
    out.extend_from_slice(written);
}

fn digits_of(number: u32) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The data of an `rsp` frame: three digits, a text, and the rest of the answer behind an LF.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Response<'a> {
    /// 200 if the command was carried out, 500 if not.
    pub code: u16,
    /// A text for people.
    pub text: &'a [u8],
    /// In the answer to `open`, the server's offers.
    pub rest: &'a [u8],
}

impl<'a> Response<'a> {
    /// Reads the data of an `rsp` frame. No data, as in the answer to `close`, mean [`Response::OK`].
    ///
    /// # Errors
    ///
    /// [`RelpFault::BadResponse`] if they do not begin with a code.
    pub fn of(data: &'a [u8]) -> Result<Self, RelpFault> {
        if data.is_empty() {
            return Ok(Self {
                code: Self::OK,
                text: &[],
                rest: &[],
            });
        }
        let Some((code, behind)) = data.split_first_chunk::<3>() else {
            return Err(RelpFault::BadResponse);
        };
        if !code.iter().all(u8::is_ascii_digit) {
            return Err(RelpFault::BadResponse);
        }
        let code = code
            .iter()
            .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let (line, rest) = match memchr::memchr(b'\n', behind) {
            Some(at) => behind.split_at(at),
            None => (behind, &[][..]),
        };
        let text = match line.split_first() {
            None => line,
            Some((b' ', text)) => text,
            Some(_) => return Err(RelpFault::BadResponse),
        };
        Ok(Self { code, text, rest })
    }

    /// The code of success.
    pub const OK: u16 = 200;
}

/// Why a session must end. RELP has no message for it: the end that finds it closes the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RelpFault {
    /// The frame does not begin with a transaction number and a space.
    #[error("no transaction number of 1 to 9 digits where a frame begins")]
    BadTxnr,
    /// No command follows the transaction number.
    #[error("no command of 1 to 32 letters behind the transaction number")]
    BadCommand,
    /// No length follows the command.
    #[error("no data length of 1 to 9 digits behind the command")]
    BadDataLen,
    /// The frame announces more data than are accepted.
    #[error("a frame of {data_len} octets of data, limit {max}")]
    TooLong {
        /// Octets announced.
        data_len: u32,
        /// Octets accepted.
        max: usize,
    },
    /// The data are longer than announced.
    #[error("no LF behind the data")]
    NoTrailer,
    /// A transaction number was skipped or repeated.
    #[error("transaction {found}, expected {expected}")]
    OutOfOrder {
        /// The number received.
        found: u32,
        /// The next number in order.
        expected: u32,
    },
    /// Another command came before `open`.
    #[error("a command before open")]
    NotOpen,
    /// `open` came in an open session.
    #[error("open in an open session")]
    OpenTwice,
    /// The command is unknown, or only the other end may send it.
    #[error("a command that was not offered")]
    UnknownCommand,
    /// The response has no code.
    #[error("a response that does not begin with three digits")]
    BadResponse,
    /// The response answers no command.
    #[error("a response, but nothing is unanswered")]
    Unasked,
    /// The offers in an `open` or in its answer are not sufficient.
    #[error(transparent)]
    Offers(#[from] offers::OfferError),
    /// The server answered `open` with this code.
    #[error("the server refused to open, code {code}")]
    Refused {
        /// Its code.
        code: u16,
    },
}

/// The most digits of a TXNR or DATALEN.
const NUMBER_DIGITS_MAX: usize = 9;

/// The most octets that DATALEN can announce.
const DATA_OCTETS_MAX: usize = 999_999_999;

/// The most letters of a COMMAND.
const COMMAND_LETTERS_MAX: usize = 32;

/// The longest header: TXNR, COMMAND and DATALEN, each with its space.
pub const HEADER_OCTETS_MAX: usize = 2 * NUMBER_DIGITS_MAX + COMMAND_LETTERS_MAX + 3;

/// The most octets of a frame beside its data: the header and LF.
pub const FRAME_OCTETS_EXTRA: usize = HEADER_OCTETS_MAX + 1;

#[cfg(test)]
mod tests;
