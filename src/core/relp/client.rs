//! The client's end of a session: numbers the messages, and matches answers to them.
//!
//! # Guarantees
//!
//! - Messages are numbered without a gap. Answers are taken in the same order. An answer to another
//!   transaction ends the session, because it says nothing about those in between.
//!
//! # Left out
//!
//! The messages: the caller keeps them in the order in which it sent them.

use super::{Command, Frame, RelpFault, Response, Txnr, offers};

/// The client's end of a session. See the module page.
#[derive(Clone, Debug)]
pub struct Client {
    open: bool,
    closing: bool,
    /// The number of the next transaction.
    next: Txnr,
    /// The oldest unanswered transaction; `next` if all are answered.
    oldest: Txnr,
    /// The number of unanswered transactions.
    unanswered: u32,
}

/// What a frame of the server means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// The session is open.
    Opened,
    /// The oldest unanswered transaction was answered.
    Answered(Answer),
    /// The server is about to close the session: the client must send nothing more.
    ServerClose,
    /// An unknown hint. The client ignores it.
    Hint,
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The server took the message.
    Ok,
    /// The server refused the message, with this code.
    Refused(u16),
}

impl Client {
    /// A session that is not open. Send [`Client::open`] first.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: false,
            closing: false,
            next: Txnr::FIRST,
            oldest: Txnr::FIRST,
            unanswered: 0,
        }
    }

    /// Writes `open`. Send nothing else before its answer.
    pub fn open(&mut self, out: &mut Vec<u8>) {
        self.send(Command::Open, offers::OURS.as_bytes(), out);
    }

    /// Writes a message.
    #[inline]
    pub fn syslog(&mut self, message: &[u8], out: &mut Vec<u8>) {
        self.send(Command::Syslog, message, out);
    }

    /// Writes `close`. Its answer is the last.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.closing = true;
        self.send(Command::Close, b"", out);
    }

    #[inline]
    fn send(&mut self, command: Command<'_>, data: &[u8], out: &mut Vec<u8>) {
        let txnr = self.next;
        Frame {
            txnr,
            command,
            data,
        }
        .write(out);
        self.next = txnr.next();
        self.unanswered += 1;
    }

    /// The number of unanswered transactions.
    #[must_use]
    pub const fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Takes the server's next frame.
    ///
    /// # Errors
    ///
    /// The session has ended. Send the unanswered messages again in another one.
    #[inline]
    pub fn take(&mut self, frame: Frame<'_>) -> Result<Heard, RelpFault> {
        match frame.command {
            Command::Rsp => {}
            Command::ServerClose => return Ok(Heard::ServerClose),
            _ if frame.txnr == Txnr::HINT => return Ok(Heard::Hint),
            _ => return Err(RelpFault::UnknownCommand),
        }
        if self.unanswered == 0 {
            return Err(RelpFault::Unasked);
        }
        if frame.txnr != self.oldest {
            return Err(RelpFault::OutOfOrder {
                found: frame.txnr.number(),
                expected: self.oldest.number(),
            });
        }
        // Only the answer to `close` has no data.
        if frame.data.is_empty() && !(self.closing && self.unanswered == 1) {
            return Err(RelpFault::BadResponse);
        }
        let response = Response::of(frame.data)?;
        self.oldest = self.oldest.next();
        self.unanswered -= 1;
        if !self.open {
            if response.code != Response::OK {
                return Err(RelpFault::Refused {
                    code: response.code,
                });
            }
            offers::check(response.rest)?;
            self.open = true;
            return Ok(Heard::Opened);
        }
        Ok(Heard::Answered(match response.code {
            Response::OK => Answer::Ok,
            code => Answer::Refused(code),
        }))
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
