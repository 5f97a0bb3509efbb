//! A RELP originator that never gives up. What is not answered is sent again on the next connection, until everything
//! was acknowledged. It also breaks its own connections.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::chance::Chance;
use super::messages::{Source, message};
use super::relp::{self, Decoder, Frame};
use crate::support::wait::{LIMIT, now, wait_for};

/// What an originator learned from the relay's answers.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) source: Source,
    /// Acknowledged numbers, whether as a first copy or as a repeat.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Transactions beyond the first of each number: repeats, and what was sent again.
    pub(crate) again: u64,
    /// Transactions that were answered with anything but `200`.
    pub(crate) refused: u64,
    pub(crate) connections: u64,
}

/// How the originator ends a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Close,
    Reset,
    /// In the middle of a frame.
    Torn,
    /// With `close`, after which all answers are awaited.
    Orderly,
    /// Not before everything is acknowledged.
    Never,
}

struct Originator<'a> {
    told: Told,
    numbers: u64,
    /// The smallest number that was not sent yet.
    next: u64,
    /// Numbers to send again before `next`.
    resend: VecDeque<u64>,
    chance: Chance,
    progress: &'a AtomicU64,
}

/// Sends `numbers` messages, some of them twice, until each is acknowledged. `progress` counts the acknowledged ones.
pub(crate) fn originate(
    to: SocketAddr,
    source: Source,
    numbers: u64,
    chance: Chance,
    progress: &AtomicU64,
) -> Told {
    let mut originator = Originator {
        told: Told {
            source,
            acknowledged: BTreeSet::new(),
            again: 0,
            refused: 0,
            connections: 0,
        },
        numbers,
        next: 0,
        resend: VecDeque::new(),
        chance,
        progress,
    };
    while (originator.told.acknowledged.len() as u64) < numbers {
        let stream = wait_for("a connection to the relay", LIMIT, || {
            TcpStream::connect(to).ok()
        });
        originator.told.connections += 1;
        let mut connection = Connection::over(stream);
        // After an error the next connection is opened, whatever the error was.
        drop(originator.converse(&mut connection));
        let unanswered = connection
            .unanswered
            .iter()
            .filter_map(|&(_, number)| number);
        let known = &originator.told.acknowledged;
        let again: BTreeSet<_> = unanswered
            .chain(originator.resend.iter().copied())
            .filter(|number| !known.contains(number))
            .collect();
        originator.resend = again.into_iter().collect();
    }
    originator.told
}

impl Originator<'_> {
    fn converse(&mut self, connection: &mut Connection) -> io::Result<()> {
        connection.open()?;
        let window = usize::try_from(self.chance.of(1..300)).unwrap();
        let ending = self.chance.pick(&[
            Ending::Close,
            Ending::Reset,
            Ending::Torn,
            Ending::Orderly,
            Ending::Never,
            Ending::Never,
        ]);
        let mut left = self.chance.of(1..self.numbers.max(2));
        loop {
            let whole = self.told.acknowledged.len() as u64 == self.numbers;
            if whole && connection.unanswered.is_empty() {
                return connection.close(|frame| self.take(frame));
            }
            let mut out = Vec::new();
            while connection.unanswered.len() < window && left > 0 {
                let Some(number) = self.pick() else { break };
                connection.transaction(&mut out, self.told.source, number);
                left -= u64::from(ending != Ending::Never);
            }
            connection.stream.write_all(&out)?;
            if left == 0 {
                return self.end(connection, ending);
            }
            connection.answers(|frame| self.take(frame))?;
        }
    }

    /// The number to send next; sometimes one that was sent before.
    fn pick(&mut self) -> Option<u64> {
        if let Some(number) = self.resend.pop_front() {
            self.told.again += 1;
            return Some(number);
        }
        if self.next == self.numbers {
            return None;
        }
        if self.next > 0 && self.chance.once_in(10) {
            self.told.again += 1;
            // Half the time a recent number, which is probably not answered yet.
            let from = if self.chance.once_in(2) {
                self.next.saturating_sub(20)
            } else {
                0
            };
            return Some(self.chance.of(from..self.next));
        }
        self.next += 1;
        Some(self.next - 1)
    }

    fn take(&mut self, answer: (u64, Vec<u8>)) {
        let (number, data) = answer;
        if data.starts_with(b"200") {
            if self.told.acknowledged.insert(number) {
                self.progress.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.told.refused += 1;
            self.resend.push_back(number);
        }
    }

    fn end(&mut self, connection: &mut Connection, ending: Ending) -> io::Result<()> {
        match ending {
            Ending::Close | Ending::Never => Ok(()),
            Ending::Reset => SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO)),
            Ending::Torn => {
                let mut out = Vec::new();
                relp::encode(
                    &mut out,
                    connection.txnr,
                    "syslog",
                    message(0, 0).as_bytes(),
                );
                let half = usize::try_from(self.chance.of(1..out.len() as u64)).unwrap();
                connection.stream.write_all(&out[..half])
            }
            Ending::Orderly => connection.close(|frame| self.take(frame)),
        }
    }
}

/// One connection to the relay.
pub(crate) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    /// The next TXNR to use.
    txnr: u32,
    /// TXNR of each unanswered transaction in the order of sending, and the number that a `syslog` carries.
    unanswered: VecDeque<(u32, Option<u64>)>,
}

impl Connection {
    fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            txnr: 1,
            unanswered: VecDeque::new(),
        }
    }

    /// A connection on which `open` was answered.
    pub(crate) fn opened(to: SocketAddr) -> Self {
        let mut connection = Self::over(TcpStream::connect(to).unwrap());
        connection.open().unwrap();
        connection
    }

    /// Sends these numbers without waiting for answers.
    pub(crate) fn send(&mut self, source: Source, numbers: Range<u64>) {
        let mut out = Vec::new();
        for number in numbers {
            self.transaction(&mut out, source, number);
        }
        self.stream.write_all(&out).unwrap();
    }

    /// Reads the answers that have come: numbers answered with `200`, and the others.
    pub(crate) fn answered(&mut self) -> (Vec<u64>, Vec<u64>) {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        let read = self.answers(|(number, data)| {
            if data.starts_with(b"200") {
                taken.push(number);
            } else {
                refused.push(number);
            }
        });
        read.expect("the relay keeps the connection open");
        (taken, refused)
    }

    fn open(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(LOOK))?;
        // A relay that pushes back may take long, but it does take octets.
        self.stream.set_write_timeout(Some(LIMIT))?;
        let mut out = Vec::new();
        relp::encode(&mut out, self.txnr, "open", relp::OFFER);
        self.stream.write_all(&out)?;
        let answer = self.answer_to_open()?;
        if (answer.txnr, answer.command.as_str()) == (0, "serverclose") {
            // The relay is just stopping.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        assert_eq!((answer.txnr, answer.command.as_str()), (1, "rsp"));
        let text = String::from_utf8_lossy(&answer.data).into_owned();
        assert!(
            text.starts_with("200 OK\n"),
            "the answer to open was {text}"
        );
        assert!(
            text.contains("commands=syslog"),
            "the answer to open was {text}"
        );
        self.txnr = relp::next(self.txnr);
        Ok(())
    }

    fn answer_to_open(&mut self) -> io::Result<Frame> {
        let start = now();
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            self.read()?;
            assert!(start.elapsed() < LIMIT, "open is not answered");
        }
    }

    fn transaction(&mut self, out: &mut Vec<u8>, source: Source, number: u64) {
        relp::encode(out, self.txnr, "syslog", message(source, number).as_bytes());
        self.unanswered.push_back((self.txnr, Some(number)));
        self.txnr = relp::next(self.txnr);
    }

    /// Passes the answers that have come to `take`; if no answer has come, waits a moment.
    ///
    /// # Panics
    ///
    /// If a transaction is answered out of order.
    fn answers(&mut self, mut take: impl FnMut((u64, Vec<u8>))) -> io::Result<()> {
        self.read()?;
        while let Some(frame) = self.decoder.next()? {
            if frame.txnr == 0 {
                return Err(io::Error::other(frame.command));
            }
            assert_eq!(frame.command, "rsp", "{frame:?}");
            let first = self.unanswered.pop_front();
            let (txnr, number) = first.unwrap_or_else(|| panic!("answered twice: {frame:?}"));
            assert_eq!(
                frame.txnr, txnr,
                "answers must come in the order of commands"
            );
            if let Some(number) = number {
                take((number, frame.data));
            }
        }
        Ok(())
    }

    /// Sends `close`, and takes the answers that come before the answer to `close`.
    fn close(&mut self, mut take: impl FnMut((u64, Vec<u8>))) -> io::Result<()> {
        let mut out = Vec::new();
        relp::encode(&mut out, self.txnr, "close", b"");
        self.unanswered.push_back((self.txnr, None));
        self.stream.write_all(&out)?;
        let start = now();
        while !self.unanswered.is_empty() {
            self.answers(&mut take)?;
            // The upstream may be away for as long as the relay takes to close.
            if start.elapsed() > PATIENCE {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.decoder.push(&buffer[..count]);
                Ok(())
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(err) => Err(err),
        }
    }
}

const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(2);
