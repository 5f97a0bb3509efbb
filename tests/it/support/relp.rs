//! Both ends of RELP, unhelped by a library: a client that sends what a test tells it to, and a server that records,
//! and answers as it is told. Neither shares code with the relay.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::wait::{LIMIT, wait_until};

/// A RELP client with one connection.
pub(crate) struct RelpClient {
    stream: TcpStream,
    /// The number of the next transaction.
    next: u32,
    unread: Vec<u8>,
}

impl RelpClient {
    /// A client that is connected and has sent nothing.
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, LIMIT).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            next: 1,
            unread: Vec::new(),
        }
    }

    /// A client with an open session.
    pub(crate) fn open(to: SocketAddr) -> Self {
        let mut client = Self::connect(to);
        client.send_command("open", OFFERS.as_bytes());
        let answer = client.answer();
        assert!(answer.starts_with("1 rsp 200 OK\n"), "{answer:?}");
        assert!(answer.contains("\ncommands=syslog"), "{answer:?}");
        client
    }

    /// Sends all messages with one write. Returns the number of the last.
    pub(crate) fn send_all(&mut self, messages: impl IntoIterator<Item = impl AsRef<[u8]>>) -> u32 {
        let mut out = Vec::new();
        for message in messages {
            self.write_frame("syslog", message.as_ref(), &mut out);
        }
        self.send_octets(&out);
        self.next - 1
    }

    /// Sends one message. Returns its number.
    pub(crate) fn send(&mut self, message: impl AsRef<[u8]>) -> u32 {
        self.send_all([message])
    }

    /// Sends one frame with the next number.
    pub(crate) fn send_command(&mut self, command: &str, data: &[u8]) {
        let mut out = Vec::new();
        self.write_frame(command, data, &mut out);
        self.send_octets(&out);
    }

    fn write_frame(&mut self, command: &str, data: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&frame(self.next, command, data));
        self.next = self.next % 999_999_999 + 1;
    }

    /// Sends octets as they are. The relay may have closed the connection.
    pub(crate) fn send_octets(&mut self, octets: &[u8]) {
        drop(self.stream.write_all(octets));
    }

    /// The relay's next frame: number, command and data, separated by spaces.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> String {
        self.next_answer(LIMIT).expect("the relay answers")
    }

    /// Expects answers to these transactions, in their order, each with `code`.
    #[track_caller]
    pub(crate) fn answers(&mut self, numbers: std::ops::RangeInclusive<u32>, code: &str) {
        for number in numbers {
            let answer = self.answer();
            let expected = format!("{number} rsp {code}");
            assert!(
                answer.starts_with(&expected),
                "{answer:?}, not {expected:?}"
            );
        }
    }

    /// Whether the relay has sent something by now.
    pub(crate) fn is_answered(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !self.unread.is_empty() || seen.is_ok()
    }

    /// All frames that the relay sends until it closes.
    #[track_caller]
    pub(crate) fn until_closed(mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(answer) = self.next_answer(LIMIT) {
            said.push(answer);
        }
        said
    }

    pub(crate) fn abandon(self) {
        drop(self);
    }

    /// `None` if the relay has closed.
    fn next_answer(&mut self, limit: Duration) -> Option<String> {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some((number, command, data, octets)) = first_frame(&self.unread) {
                let data = String::from_utf8(data).unwrap();
                self.unread.drain(..octets);
                return Some(format!("{number} {command} {data}").trim_end().to_owned());
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(err) if err.kind() == ErrorKind::ConnectionReset => return None,
                Err(err) => panic!("the relay sends nothing and does not close: {err}"),
            }
        }
    }
}

/// How the server treats its clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answers {
    /// Records and answers each message.
    All,
    /// Accepts connections and never sends anything.
    NotEvenOpen,
    /// Records messages without answering them.
    None,
    /// Refuses messages that contain this text.
    AllBut(&'static str),
    /// Records so many messages of a connection and answers the first half of them; then resets it.
    HalfOf(usize),
    /// Records and answers so many messages of a connection; then sends `serverclose` and closes.
    LeaveAfter(usize),
    /// Records messages, and answers each after this time.
    EachAfter(Duration),
    /// Sends answers octet by octet with this pause; the answer to `open` too, if `open` is set.
    Drop { pause: Duration, open: bool },
    /// After a message came, sends only hints, with this pause; if `open` is set, already after `open`, which stays
    /// unanswered.
    Hints { pause: Duration, open: bool },
    /// Records and answers each message, and sends large hints without end.
    Flood,
}

/// A RELP server that records. It stops on drop.
pub(crate) struct RelpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

/// The numbers and messages of one connection, in order.
type Taken = Vec<(u32, Vec<u8>)>;

struct Shared {
    answers: Mutex<Answers>,
    /// By connection.
    messages: Mutex<Vec<Taken>>,
    stopping: AtomicBool,
    /// Octets of hints that the relay took.
    hint_octets: AtomicU64,
}

impl RelpServer {
    /// Starts a server on a free port.
    pub(crate) fn new(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers),
            messages: Mutex::default(),
            stopping: AtomicBool::new(false),
            hint_octets: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.unwrap(), Arc::clone(&of_thread));
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self {
            address,
            shared,
            listener: Some(listener),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("relp://{}", self.address)
    }

    /// Answers in this way from now on.
    pub(crate) fn answer(&self, answers: Answers) {
        *self.shared.answers.lock().unwrap() = answers;
    }

    /// Octets of hints that the relay took.
    pub(crate) fn hint_octets(&self) -> u64 {
        self.shared.hint_octets.load(Ordering::SeqCst)
    }

    /// The messages so far, by connection.
    pub(crate) fn by_connection(&self) -> Vec<Taken> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// The messages so far, repeated ones included.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        let messages = self.by_connection().into_iter().flatten();
        messages.map(|(_, message)| message).collect()
    }

    /// Waits until at least `count` messages came.
    #[track_caller]
    pub(crate) fn wait_messages(&self, count: usize) -> Vec<Vec<u8>> {
        let what = format!("{count} messages at the RELP server");
        wait_until(&what, LIMIT, || self.messages().len() >= count);
        self.messages()
    }
}

impl Drop for RelpServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}

/// Sends hints of so many octets each until the relay takes no more.
fn hint(
    (stream, turn): (&TcpStream, &Arc<Mutex<()>>),
    octets: usize,
    pause: Duration,
    shared: &Arc<Shared>,
) {
    let (mut stream, turn) = (stream.try_clone().unwrap(), Arc::clone(turn));
    let shared = Arc::clone(shared);
    let hint = frame(0, "hint", &vec![b'x'; octets]);
    thread::spawn(move || {
        let mut write = || {
            let _turn = turn.lock().unwrap();
            stream.write_all(&hint).is_ok()
        };
        while !shared.stopping.load(Ordering::SeqCst) && write() {
            let octets = hint.len().try_into().unwrap();
            shared.hint_octets.fetch_add(octets, Ordering::SeqCst);
            thread::park_timeout(pause);
        }
    });
}

fn serve(mut stream: TcpStream, shared: &Arc<Shared>) {
    let index = {
        let mut messages = shared.messages.lock().unwrap();
        messages.push(Vec::new());
        messages.len() - 1
    };
    // Locked by each writer of a frame, so that frames are not mixed.
    let turn = Arc::new(Mutex::new(()));
    let mut unread = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut taken = 0;
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            return;
        }
        unread.extend_from_slice(&buffer[..count]);
        let mut out = Vec::new();
        let mut at = 0;
        while let Some((number, command, data, octets)) = first_frame(&unread[at..]) {
            at += octets;
            let answers = *shared.answers.lock().unwrap();
            if answers == Answers::NotEvenOpen {
                continue;
            }
            match (answers, command.as_str()) {
                (Answers::Hints { pause, open }, "open") if open => {
                    hint((&stream, &turn), 0, pause, shared);
                    continue;
                }
                (Answers::Hints { pause, .. }, "syslog") if taken == 0 => {
                    hint((&stream, &turn), 0, pause, shared);
                }
                (Answers::Flood, "open") => {
                    hint((&stream, &turn), 60_000, Duration::ZERO, shared);
                }
                (Answers::EachAfter(pause), "syslog") => {
                    stream.write_all(&std::mem::take(&mut out)).unwrap();
                    thread::park_timeout(pause);
                }
                _ => {}
            }
            match command.as_str() {
                "open" => {
                    let data = format!("200 OK\n{OFFERS}\nunknown=offer");
                    out.extend(frame(number, "rsp", data.as_bytes()));
                }
                "close" => out.extend(frame(number, "rsp", b"")),
                _ => {
                    taken += 1;
                    let refused = matches!(answers, Answers::AllBut(word)
                        if String::from_utf8_lossy(&data).contains(word));
                    shared.messages.lock().unwrap()[index].push((number, data));
                    match answers {
                        Answers::None | Answers::Hints { .. } => {}
                        _ if refused => out.extend(frame(number, "rsp", b"500 no")),
                        Answers::HalfOf(count) if taken > count / 2 => {
                            if taken == count {
                                drop(stream.write_all(&out));
                                // If octets are unread, this resets the connection.
                                return;
                            }
                        }
                        Answers::LeaveAfter(count) => {
                            out.extend(frame(number, "rsp", b"200 OK"));
                            if taken == count {
                                out.extend(frame(0, "serverclose", b""));
                                drop(stream.write_all(&out));
                                return;
                            }
                        }
                        _ => out.extend(frame(number, "rsp", b"200 OK")),
                    }
                }
            }
        }
        unread.drain(..at);
        let answers = *shared.answers.lock().unwrap();
        let each = match answers {
            Answers::Drop { pause, open } if open || taken > 0 => Some(pause),
            _ => None,
        };
        let parts = out.chunks(if each.is_some() { 1 } else { out.len().max(1) });
        for part in parts {
            let written = {
                let _turn = turn.lock().unwrap();
                stream.write_all(part)
            };
            if written.is_err() {
                return;
            }
            if let Some(pause) = each {
                thread::park_timeout(pause);
            }
        }
    }
}

/// A frame in its wire form.
pub(crate) fn frame(number: u32, command: &str, data: &[u8]) -> Vec<u8> {
    let mut out = format!("{number} {command} {}", data.len()).into_bytes();
    if !data.is_empty() {
        out.push(b' ');
        out.extend_from_slice(data);
    }
    out.push(b'\n');
    out
}

/// The first frame of `octets` if it is whole: number, command, data, and its length in octets.
fn first_frame(octets: &[u8]) -> Option<(u32, String, Vec<u8>, usize)> {
    let mut fields = Vec::new();
    let mut at = 0;
    while fields.len() < 3 {
        let end = at
            + octets[at..]
                .iter()
                .position(|octet| b" \n".contains(octet))?;
        fields.push(String::from_utf8(octets[at..end].to_vec()).unwrap());
        at = end + 1;
    }
    let count: usize = fields[2].parse().unwrap();
    let number = fields[0].parse().unwrap();
    let command = fields.swap_remove(1);
    if count == 0 {
        return Some((number, command, Vec::new(), at));
    }
    let data = octets.get(at..at + count)?.to_vec();
    let trailer = octets.get(at + count)?;
    assert_eq!(*trailer, b'\n', "no LF after the data");
    Some((number, command, data, at + count + 1))
}

/// The offers of both ends.
pub(crate) const OFFERS: &str = "relp_version=0\nrelp_software=test\ncommands=syslog";
