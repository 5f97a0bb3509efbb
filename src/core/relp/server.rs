//! The server's end of a session: knows which command may come now, and under which number.
//!
//! ```text
//!            open             syslog
//!           ┌────┐            ┌────┐
//!           │    ▼            │    ▼
//!         AWAIT ─────────────▶ OPEN ──close──▶ OVER
//!           └── insufficient offers ─────────────▲
//! ```
//!
//! # Guarantees
//!
//! - Transactions are taken in the order of their numbers, without a gap or a repeat.
//! - Hints (number 0) have no effect and no answer.
//!
//! # Left out
//!
//! When a transaction is answered, and how many may be unanswered. A client that sends more is not at fault:
//! the listener stops reading from it.

use super::{Command, Frame, RelpFault, Response, Txnr, offers};

/// The server's end of a session. See the module page.
#[derive(Clone, Debug)]
pub struct Server {
    state: State,
    /// The number of the next transaction.
    pub(super) next: Txnr,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Await,
    Open,
    Over,
}

/// A client's request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// To open the session. Answer at once, with [`Server::accept`].
    Open,
    /// To take this message.
    Syslog(&'a [u8]),
    /// To end the session, after everything before it is answered.
    Close,
    /// Nothing. Do not answer.
    Hint,
}

impl Server {
    /// A session that is not open.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Await,
            next: Txnr::FIRST,
        }
    }

    /// Takes the client's next frame.
    ///
    /// # Errors
    ///
    /// The session has ended. After [`RelpFault::Offers`] tell the client ([`Server::refuse`]). After any other
    /// fault close the connection.
    #[inline]
    pub fn take<'a>(&mut self, frame: Frame<'a>) -> Result<Request<'a>, RelpFault> {
        let request = self.request(frame);
        if request.is_err() {
            self.state = State::Over;
        }
        request
    }

    #[inline]
    fn request<'a>(&mut self, frame: Frame<'a>) -> Result<Request<'a>, RelpFault> {
        if self.state == State::Over {
            return Err(RelpFault::NotOpen);
        }
        if frame.txnr == Txnr::HINT {
            return Ok(Request::Hint);
        }
        // Checked before the number, because this names the mistake.
        match (self.state, frame.command) {
            (State::Open, Command::Syslog | Command::Close) | (State::Await, Command::Open) => {}
            (State::Open, Command::Open) => return Err(RelpFault::OpenTwice),
            (State::Await, Command::Syslog | Command::Close) => return Err(RelpFault::NotOpen),
            _ => return Err(RelpFault::UnknownCommand),
        }
        if frame.txnr != self.next {
            return Err(RelpFault::OutOfOrder {
                found: frame.txnr.number(),
                expected: self.next.number(),
            });
        }
        self.next = self.next.next();
        Ok(match frame.command {
            Command::Syslog => Request::Syslog(frame.data),
            Command::Close => {
                self.state = State::Over;
                Request::Close
            }
            _ => {
                offers::check(frame.data)?;
                self.state = State::Open;
                Request::Open
            }
        })
    }

    /// Whether the client opened the session and has not closed it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The number of the client's next transaction.
    #[must_use]
    pub const fn next(&self) -> Txnr {
        self.next
    }

    /// Writes the answer to `open`.
    pub fn accept(out: &mut Vec<u8>) {
        let data = [b"200 OK\n", offers::OURS.as_bytes()].concat();
        Self::respond(Txnr::FIRST, &data, out);
    }

    /// Writes the answer to an `open` with insufficient offers.
    pub fn refuse(error: offers::OfferError, out: &mut Vec<u8>) {
        let data = format!("500 {}", error.text());
        Self::respond(Txnr::FIRST, data.as_bytes(), out);
    }

    /// Writes the answer to a message: `code` is [`Response::OK`] if it is safe, any other if it was dropped.
    #[inline]
    pub fn answer(txnr: Txnr, code: u16, out: &mut Vec<u8>) {
        let data: &[u8] = match code {
            Response::OK => b"200 OK",
            _ => b"500 dropped",
        };
        Self::respond(txnr, data, out);
    }

    /// Writes the answer to `close`.
    pub fn goodbye(txnr: Txnr, out: &mut Vec<u8>) {
        Self::respond(txnr, b"", out);
    }

    /// Writes the hint that the server is about to close the session.
    pub fn leave(out: &mut Vec<u8>) {
        Frame {
            txnr: Txnr::HINT,
            command: Command::ServerClose,
            data: b"",
        }
        .write(out);
    }

    #[inline]
    fn respond(txnr: Txnr, data: &[u8], out: &mut Vec<u8>) {
        Frame {
            txnr,
            command: Command::Rsp,
            data,
        }
        .write(out);
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}
