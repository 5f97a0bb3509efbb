//! One run: a relay is started, loaded, measured and ended.

use std::{
    fs,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    case::{Case, Transport},
    load::{Load, last},
    now,
    pace::Pace,
    peer::{Peer, Settings},
    process::{Cpu, Process},
    sink::Sink,
};

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) messages: usize,
    /// The time until everything was sent.
    pub(crate) sending: Duration,
    /// The time until everything had come out.
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Cpu,
    pub(crate) peak_octets: u64,
    pub(crate) out: u64,
    pub(crate) kernel_drops: u64,
    /// Whether `out` was compared with the expected number, and equals it.
    pub(crate) verified: bool,
}

impl Measured {
    /// Processor time for each message, in nanoseconds.
    pub(crate) fn cpu_nanos(&self) -> f64 {
        self.per_message(self.cpu.total)
    }

    pub(crate) fn per_message(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e9 / self.messages as f64
    }
}

/// Sends `load` through `peer`.
pub(crate) fn run(
    peer: Peer,
    case: &Case,
    load: &Load,
    settings: &Settings<'_>,
) -> io::Result<Measured> {
    let sink = Sink::open()?;
    let relay = Relay::start(peer, case, sink.address, settings)?;
    let cpu = relay.process.cpu()?;
    let drops = kernel_drops(relay.listen);
    let started = now();
    let sending = relay.send_all(case, load, &sink)?;
    let elapsed = started.elapsed();
    let cpu = relay.process.cpu()?.since(cpu);
    let kernel_drops = kernel_drops(relay.listen) - drops;
    let out = sink.lines() - sink.lasts();
    // After the window, repeats come out again; and a datagram that the kernel dropped may have been the only copy.
    let verified = peer == Peer::Tersed && elapsed < WINDOW && kernel_drops == 0;
    if verified && out != load.distinct as u64 {
        let distinct = load.distinct;
        return Err(io::Error::other(format!(
            "{out} came out, {distinct} expected"
        )));
    }
    Ok(Measured {
        messages: load.messages,
        sending,
        elapsed,
        cpu,
        peak_octets: relay.process.peak_octets()?,
        out,
        kernel_drops,
        verified,
    })
}

/// A relay that is listening.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) process: Process,
    pub(crate) listen: SocketAddr,
    /// Its files, which are removed with it.
    _dir: tempfile::TempDir,
}

impl Relay {
    /// Starts the relay in front of `sink`, and waits until it listens.
    pub(crate) fn start(
        peer: Peer,
        case: &Case,
        sink: SocketAddr,
        settings: &Settings<'_>,
    ) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let listen = free_port(case)?;
        let child = peer.start(case, listen, sink, dir.path(), settings)?;
        let mut relay = Self {
            process: Process(child),
            listen,
            _dir: dir,
        };
        let log = relay._dir.path().join("log");
        relay.wait_ready(case, &log)?;
        Ok(relay)
    }

    fn wait_ready(&mut self, case: &Case, log: &Path) -> io::Result<()> {
        let deadline = now() + PATIENCE;
        loop {
            let ready = match case.transport {
                Transport::Tcp { .. } => TcpStream::connect(self.listen).is_ok(),
                Transport::Udp { .. } => udp_line(self.listen).is_some(),
            };
            if ready {
                return Ok(());
            }
            if let Some(status) = self.process.0.try_wait()? {
                let log = fs::read_to_string(log).unwrap_or_default();
                return Err(io::Error::other(format!("ended with {status}: {log}")));
            }
            if now() > deadline {
                return Err(io::Error::other("the relay did not start to listen"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends all of `load`, and waits until all of it came out. Returns how long the sending took.
    pub(crate) fn send_all(&self, case: &Case, load: &Load, sink: &Sink) -> io::Result<Duration> {
        match case.transport {
            Transport::Tcp { connections } => self.send_tcp(load, connections, sink),
            Transport::Udp { rate } => self.send_udp(load, rate, sink),
        }
    }

    fn send_tcp(&self, load: &Load, connections: usize, sink: &Sink) -> io::Result<Duration> {
        let mut sockets = (0..connections)
            .map(|_| TcpStream::connect(self.listen))
            .collect::<io::Result<Vec<_>>>()?;
        let started = now();
        // Each connection gets whole frames, and they take turns.
        let share = load.messages / connections;
        let frames = (TURN_OCTETS / load.frame_octets).min(share).max(1);
        for (number, octets) in load.octets.chunks(frames * load.frame_octets).enumerate() {
            sockets[number % connections].write_all(octets)?;
        }
        let sending = started.elapsed();
        for (number, socket) in sockets.iter_mut().enumerate() {
            let mut line = last(number);
            line.push(b'\n');
            socket.write_all(&line)?;
        }
        // The connections stay open until the run has ended, because dropping them may reset what is unread.
        wait(sink, connections as u64, |_| Ok(()))?;
        Ok(sending)
    }

    fn send_udp(&self, load: &Load, rate: Option<usize>, sink: &Sink) -> io::Result<Duration> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(self.listen)?;
        let pace = rate.map(Pace::start);
        let started = now();
        for (number, frame) in load.octets.chunks(load.frame_octets).enumerate() {
            if let Some(pace) = pace
                && number % pace.burst() == 0
            {
                pace.wait(number);
            }
            // Without its LF.
            socket.send(&frame[..frame.len() - 1])?;
        }
        let sending = started.elapsed();
        // Through the same socket, because it might overtake through another. It may be lost, so it is sent again.
        wait(sink, 1, |attempt| {
            socket.send(&last(1_000_000 + attempt)).map(drop)
        })?;
        Ok(sending)
    }
}

/// Waits for so many last messages, and calls `again` meanwhile.
fn wait(sink: &Sink, lasts: u64, again: impl Fn(usize) -> io::Result<()>) -> io::Result<()> {
    let deadline: Instant = now() + PATIENCE;
    let mut attempt = 0;
    while sink.lasts() < lasts {
        if now() > deadline {
            return Err(io::Error::other("the last message did not come out"));
        }
        if attempt % ATTEMPTS_BETWEEN == 0 {
            again(attempt)?;
        }
        attempt += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn free_port(case: &Case) -> io::Result<SocketAddr> {
    match case.transport {
        Transport::Tcp { .. } => free_tcp_port(),
        Transport::Udp { .. } => UdpSocket::bind("127.0.0.1:0")?.local_addr(),
    }
}

/// An address on which no process listens.
pub(crate) fn free_tcp_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Datagrams that the kernel dropped on this port, over all of its sockets.
pub(crate) fn kernel_drops(listen: SocketAddr) -> u64 {
    udp_line(listen).unwrap_or(0)
}

fn udp_line(listen: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/udp").ok()?;
    let port = format!(":{:04X}", listen.port());
    let mut drops = None;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(1).is_some_and(|local| local.ends_with(&port)) {
            let these: u64 = fields
                .last()
                .and_then(|field| field.parse().ok())
                .unwrap_or(0);
            drops = Some(drops.unwrap_or(0) + these);
        }
    }
    drops
}

/// tersed's window. Within it, the output of a run is exactly the different messages.
const WINDOW: Duration = Duration::from_secs(10);

/// Longer than the slowest relay takes for the largest load.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much one connection is given at a time.
const TURN_OCTETS: usize = 65_536;

/// How many milliseconds pass between two attempts to send a last message over UDP.
const ATTEMPTS_BETWEEN: usize = 10;
