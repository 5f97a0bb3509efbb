//! The probe: sends numbered messages on time, and notes when each arrives.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::bed::{
    case::{Case, Mix},
    now,
    pace::Pace,
    peer::{Peer, Settings},
    random::Random,
    run::{Relay, kernel_drops},
};

/// How the load is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Tcp,
    Udp,
}

impl Input {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A load and how it is sent.
#[derive(Debug)]
pub(crate) struct Probe {
    input: Input,
    rate: usize,
    messages: usize,
    /// Frames of [`FRAME_OCTETS`], their LF included.
    frames: Vec<u8>,
}

/// The result of one run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) from_due: Quantiles,
    pub(crate) from_sent: Quantiles,
    /// Messages per second, as they were sent.
    pub(crate) rate: f64,
    pub(crate) lost: u64,
}

/// Microseconds, by the share of messages that took no longer.
#[derive(Debug)]
pub(crate) struct Quantiles(Histogram<u64>);

impl Quantiles {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds in order"))
    }

    pub(crate) fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Nanoseconds since the start at which each numbered message was due, was sent, and arrived; zero means never.
struct Times {
    started: Instant,
    due: Vec<AtomicU64>,
    sent: Vec<AtomicU64>,
    arrived: Vec<AtomicU64>,
}

impl Probe {
    pub(crate) fn new(input: Input, rate: usize, messages: usize) -> Self {
        let mut frames = Vec::with_capacity(messages * FRAME_OCTETS);
        let mut random = Random::new(0x2545_F491_4F6C_DD17);
        for number in 0..messages {
            let what = if is_numbered(number) {
                format!("{NUMBERED}{:08}", number / EVERY)
            } else {
                format!("one of the repeats, {:02}", random.next() % REPEATS)
            };
            frames.extend_from_slice(&frame(&what));
        }
        Self {
            input,
            rate,
            messages,
            frames,
        }
    }

    /// The case that a relay is started for.
    pub(crate) const fn case(&self) -> Case {
        match self.input {
            Input::Tcp => Case::tcp(Mix::Mixed, 1),
            Input::Udp => Case::udp(Mix::Mixed, Some(self.rate)),
        }
    }

    /// Sends all of it through `peer`, or straight to the receiver.
    pub(crate) fn run(&self, peer: Option<Peer>) -> io::Result<Measured> {
        let times = || (0..self.messages / EVERY).map(|_| AtomicU64::new(0));
        let times = Times {
            started: now(),
            due: times().collect(),
            sent: times().collect(),
            arrived: times().collect(),
        };
        let receiver = Receiver::open(matches!((self.input, peer), (Input::Udp, None)))?;
        let relay = peer
            .map(|peer| Relay::start(peer, &self.case(), receiver.address, &Settings::default()))
            .transpose()?;
        let target = relay
            .as_ref()
            .map_or(receiver.address, |relay| relay.listen);
        let (ready, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let sending = thread::scope(|scope| {
            let receiving = scope.spawn(|| receiver.receive(&times, &ready, &over));
            // Even if sending failed: nothing more will come.
            let sent = self.send(target, &times, &ready);
            over.store(true, Ordering::Relaxed);
            let received = receiving.join().expect("the receiver does not panic");
            sent.and_then(|sending| received.map(|()| sending))
        })?;
        let measured = times.measured(self.messages as f64 / sending.as_secs_f64());
        if measured.lost > 0 && relay.is_some_and(|relay| kernel_drops(relay.listen) == 0) {
            let lost = measured.lost;
            return Err(io::Error::other(format!("{lost} messages did not arrive")));
        }
        Ok(measured)
    }

    /// Returns how long sending took.
    fn send(&self, target: SocketAddr, times: &Times, ready: &AtomicBool) -> io::Result<Duration> {
        let socket = match self.input {
            Input::Tcp => Socket::Tcp(TcpStream::connect(target)?),
            Input::Udp => Socket::Udp(UdpSocket::bind("127.0.0.1:0")?),
        };
        match &socket {
            Socket::Tcp(tcp) => tcp.set_nodelay(true)?,
            Socket::Udp(udp) => udp.connect(target)?,
        }
        // A first message opens all connections; when it has arrived, the clock starts.
        socket.send(&frame(WARM_UP))?;
        let deadline = now() + PATIENCE;
        while !ready.load(Ordering::Relaxed) {
            if now() > deadline {
                return Err(io::Error::other("the first message does not arrive"));
            }
            thread::sleep(POLL);
        }
        let pace = Pace::start(self.rate);
        let started = now();
        let burst = pace.burst();
        for (first, frames) in (0..)
            .step_by(burst)
            .zip(self.frames.chunks(burst * FRAME_OCTETS))
        {
            let due = pace.wait(first);
            match &socket {
                Socket::Tcp(_) => {
                    times.note(first..first + frames.len() / FRAME_OCTETS, due);
                    socket.send(frames)?;
                }
                Socket::Udp(_) => {
                    for (number, frame) in (first..).zip(frames.chunks(FRAME_OCTETS)) {
                        times.note(number..number + 1, due);
                        socket.send(frame)?;
                    }
                }
            }
        }
        let took = started.elapsed();
        // Closing with octets unread may reset the connection.
        if let Socket::Tcp(tcp) = &socket {
            tcp.shutdown(std::net::Shutdown::Write)?;
            tcp.set_read_timeout(Some(QUIET))?;
            // The other end closes, or stays silent until the time-out.
            (&*tcp).read_exact(&mut [0]).ok();
        }
        Ok(took)
    }
}

impl Times {
    /// Notes that the numbered ones among `numbers` were due then, and are sent now.
    fn note(&self, numbers: std::ops::Range<usize>, due: Instant) {
        let mut sent = None;
        for number in numbers.filter(|number| is_numbered(*number)) {
            let sent = *sent.get_or_insert_with(|| self.nanos(now()));
            self.due[number / EVERY].store(self.nanos(due), Ordering::Relaxed);
            self.sent[number / EVERY].store(sent, Ordering::Relaxed);
        }
    }

    fn nanos(&self, instant: Instant) -> u64 {
        let nanos = instant.saturating_duration_since(self.started).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    fn measured(&self, rate: f64) -> Measured {
        let (mut from_due, mut from_sent, mut lost) = (Quantiles::new(), Quantiles::new(), 0);
        for ((due, sent), arrived) in self.due.iter().zip(&self.sent).zip(&self.arrived) {
            let arrived = arrived.load(Ordering::Relaxed);
            if arrived == 0 {
                lost += 1;
                continue;
            }
            from_due
                .0
                .saturating_record(arrived.saturating_sub(due.load(Ordering::Relaxed)));
            from_sent
                .0
                .saturating_record(arrived.saturating_sub(sent.load(Ordering::Relaxed)));
        }
        Measured {
            from_due,
            from_sent,
            rate,
            lost,
        }
    }
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    fn send(&self, frames: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => (&*tcp).write_all(frames),
            Self::Udp(udp) => udp.send(frames).map(drop),
        }
    }
}

/// The collector.
struct Receiver {
    address: SocketAddr,
    socket: Listening,
}

enum Listening {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Receiver {
    fn open(is_udp: bool) -> io::Result<Self> {
        let (address, socket) = if is_udp {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20)?;
            (socket.local_addr()?, Listening::Udp(socket))
        } else {
            let socket = TcpListener::bind("127.0.0.1:0")?;
            (socket.local_addr()?, Listening::Tcp(socket))
        };
        Ok(Self { address, socket })
    }

    /// Notes when messages arrive, until all have arrived or no more come.
    fn receive(&self, times: &Times, ready: &AtomicBool, over: &AtomicBool) -> io::Result<()> {
        let mut source = match &self.socket {
            Listening::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let connection = loop {
                    match listener.accept() {
                        Ok((connection, _)) => break connection,
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                            return Err(error);
                        }
                        Err(_) if over.load(Ordering::Relaxed) => return Ok(()),
                        Err(_) => thread::sleep(POLL),
                    }
                };
                connection.set_nonblocking(false)?;
                connection.set_read_timeout(Some(QUIET))?;
                Socket::Tcp(connection)
            }
            Listening::Udp(socket) => {
                socket.set_read_timeout(Some(QUIET))?;
                Socket::Udp(socket.try_clone()?)
            }
        };
        let numbered = memchr::memmem::Finder::new(NUMBERED);
        let mut buffer = vec![0; 1 << 20];
        let (mut held, mut left) = (0, times.arrived.len());
        while left > 0 {
            let read = match &mut source {
                Socket::Tcp(tcp) => tcp.read(&mut buffer[held..]),
                Socket::Udp(udp) => udp.recv(&mut buffer[held..]),
            };
            let octets = match read {
                // In a process that was stopped and continued, the wait was interrupted.
                Err(error)
                    if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted]
                        .contains(&error.kind()) =>
                {
                    if over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    continue;
                }
                read => read?,
            };
            let arrived = times.nanos(now());
            if octets == 0 {
                return Ok(());
            }
            let end = held + octets;
            let whole = memchr::memrchr(b'\n', &buffer[..end]).map_or(0, |lf| lf + 1);
            if !ready.load(Ordering::Relaxed)
                && memchr::memmem::find(&buffer[..whole], WARM_UP.as_bytes()).is_some()
            {
                ready.store(true, Ordering::Relaxed);
            }
            for at in numbered.find_iter(&buffer[..whole]) {
                let digits = &buffer[at + NUMBERED.len()..][..8];
                let number = digits
                    .iter()
                    .fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
                if times.arrived[number].swap(arrived, Ordering::Relaxed) == 0 {
                    left -= 1;
                } else {
                    return Err(io::Error::other(format!("number {number} came twice")));
                }
            }
            buffer.copy_within(whole..end, 0);
            held = end - whole;
        }
        Ok(())
    }
}

const fn is_numbered(number: usize) -> bool {
    number % EVERY == EVERY - 1
}

fn frame(what: &str) -> Vec<u8> {
    let mut line = String::from("<34>Nov 22 10:00:00 host-17.example app[4711]: ");
    write!(line, "{what}; ").expect("a String takes whatever is written to it");
    while line.len() < FRAME_OCTETS - 1 {
        line.push_str("0123456789 abcdefghij ");
    }
    line.truncate(FRAME_OCTETS - 1);
    line.push('\n');
    line.into_bytes()
}

const FRAME_OCTETS: usize = 200;

/// One message in this many has a number and must be forwarded.
const EVERY: usize = 10;

/// How many different messages the others are.
const REPEATS: u64 = 100;

const NUMBERED: &str = "number=";

const WARM_UP: &str = "the first message";

/// After the last message was sent, the receiver gives up once nothing has come for this long.
const QUIET: Duration = Duration::from_secs(1);

/// Longer than any relay takes to connect.
const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(1);

/// A minute, in nanoseconds: longer times count as a minute.
const LONGEST: u64 = 60_000_000_000;
