//! One run: a peer is started, loaded, waited for, measured and ended.

use std::{
    fs, io,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    case::{Case, Transport},
    load::{LAST, Load},
    peer::Peer,
};

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) messages: usize,
    pub(crate) elapsed: Duration,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) peak_octets: u64,
    pub(crate) out: u64,
    pub(crate) kernel_drops: u64,
}

/// Sends `load` through `peer`.
pub(crate) fn run(peer: Peer, case: &Case, load: &Load) -> io::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let sink = Sink::open()?;
    let listen = free_port(case)?;
    let child = peer.start(case, listen, sink.address, dir.path())?;
    let mut relay = Relay { child };
    relay.wait_ready(case, listen, dir.path())?;
    let (user, system) = relay.cpu()?;
    let drops = kernel_drops(listen);
    let started = now();
    match case.transport {
        Transport::Tcp { connections } => send_tcp(load, listen, connections)?,
        Transport::Udp { rate } => send_udp(load, listen, rate)?,
    }
    let lasts = match case.transport {
        Transport::Tcp { connections } => connections as u64,
        Transport::Udp { .. } => 1,
    };
    sink.wait(lasts, case, listen)?;
    let elapsed = started.elapsed();
    let (user_after, system_after) = relay.cpu()?;
    let kernel_drops = kernel_drops(listen) - drops;
    let measured = Measured {
        messages: load.messages,
        elapsed,
        user: user_after - user,
        system: system_after - system,
        peak_octets: relay.peak_octets()?,
        out: sink.lines() - sink.lasts(),
        kernel_drops,
    };
    if peer == Peer::Tersed && elapsed < WINDOW && kernel_drops == 0 {
        let distinct = load.distinct as u64;
        if measured.out != distinct {
            return Err(io::Error::other(format!(
                "{} came out, not {distinct}",
                measured.out
            )));
        }
    }
    Ok(measured)
}

/// A started relay; ended when dropped.
struct Relay {
    child: Child,
}

impl Relay {
    fn wait_ready(&mut self, case: &Case, listen: SocketAddr, dir: &Path) -> io::Result<()> {
        let deadline = now() + PATIENCE;
        loop {
            let ready = match case.transport {
                Transport::Tcp { .. } => TcpStream::connect(listen).is_ok(),
                Transport::Udp { .. } => udp_line(listen).is_some(),
            };
            if ready {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("ended with {status}: {log}")));
            }
            if now() > deadline {
                return Err(io::Error::other("did not start to listen"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// User and system time so far, all threads.
    fn cpu(&self) -> io::Result<(Duration, Duration)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| {
            let ticks: u64 = fields
                .get(index)
                .and_then(|field| field.parse().ok())
                .unwrap_or(0);
            // The kernel reports hundredths of a second (USER_HZ).
            Duration::from_millis(ticks * 10)
        };
        Ok((ticks(11), ticks(12)))
    }

    fn peak_octets(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|value| value.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.parse::<u64>().ok());
        Ok(kib.unwrap_or(0) * 1024)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The collector: counts lines.
struct Sink {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    lines: AtomicU64,
    lasts: AtomicU64,
}

impl Sink {
    fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let counting = Arc::clone(&counts);
        thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                let counts = Arc::clone(&counting);
                thread::spawn(move || count(connection, &counts));
            }
        });
        Ok(Self { address, counts })
    }

    fn lines(&self) -> u64 {
        self.counts.lines.load(Ordering::Acquire)
    }

    fn lasts(&self) -> u64 {
        self.counts.lasts.load(Ordering::Acquire)
    }

    /// Waits for the last message of each connection. Over UDP it may be lost, so it is sent again.
    fn wait(&self, lasts: u64, case: &Case, listen: SocketAddr) -> io::Result<()> {
        let deadline = now() + PATIENCE;
        let mut number = 1_000_000;
        while self.lasts() < lasts {
            if now() > deadline {
                return Err(io::Error::other("the last message did not come out"));
            }
            if matches!(case.transport, Transport::Udp { .. }) {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.send_to(&last(number), listen)?;
                number += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn count(mut connection: TcpStream, counts: &Counts) {
    let mut buffer = vec![0; 1 << 20];
    let mut held = 0;
    while let Ok(octets) = connection.read(&mut buffer[held..]) {
        if octets == 0 {
            return;
        }
        let end = held + octets;
        let Some(whole) = memchr::memrchr(b'\n', &buffer[..end]).map(|lf| lf + 1) else {
            held = end;
            continue;
        };
        let lines = memchr::memchr_iter(b'\n', &buffer[..whole]).count() as u64;
        let lasts = memchr::memmem::find_iter(&buffer[..whole], TAG).count() as u64;
        counts.lines.fetch_add(lines, Ordering::Release);
        counts.lasts.fetch_add(lasts, Ordering::Release);
        buffer.copy_within(whole..end, 0);
        held = end - whole;
    }
}

fn send_tcp(load: &Load, listen: SocketAddr, connections: usize) -> io::Result<()> {
    // Whole frames for each connection, in turns of 64 KiB.
    let turn = 65_536 / load.frame_octets * load.frame_octets;
    let mut sockets = (0..connections)
        .map(|_| TcpStream::connect(listen))
        .collect::<io::Result<Vec<_>>>()?;
    for (number, octets) in load.octets.chunks(turn).enumerate() {
        sockets[number % connections].write_all(octets)?;
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        let mut line = last(number);
        line.push(b'\n');
        socket.write_all(&line)?;
    }
    // The connections stay open until the run is over: dropping them may reset what is unread.
    thread::spawn(move || {
        let mut waste = [0; 64];
        for mut socket in sockets {
            while socket.read(&mut waste).is_ok_and(|octets| octets > 0) {}
        }
    });
    Ok(())
}

fn send_udp(load: &Load, listen: SocketAddr, rate: Option<usize>) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(listen)?;
    let started = now();
    for (number, frame) in load.octets.chunks(load.frame_octets).enumerate() {
        if let Some(rate) = rate
            && number % 50 == 0
        {
            let due = Duration::from_secs_f64(number as f64 / rate as f64);
            // Short of a millisecond the sleep would be longer than the wait.
            while let Some(wait) = due.checked_sub(started.elapsed()) {
                if wait > Duration::from_millis(1) {
                    thread::sleep(wait - Duration::from_micros(500));
                } else {
                    std::hint::spin_loop();
                }
            }
        }
        // Without its LF.
        socket.send(&frame[..frame.len() - 1])?;
    }
    Ok(())
}

fn last(number: usize) -> Vec<u8> {
    let mut line = LAST.to_vec();
    line.extend_from_slice(format!(" {number}").as_bytes());
    line
}

fn free_port(case: &Case) -> io::Result<SocketAddr> {
    match case.transport {
        Transport::Tcp { .. } => TcpListener::bind("127.0.0.1:0")?.local_addr(),
        Transport::Udp { .. } => UdpSocket::bind("127.0.0.1:0")?.local_addr(),
    }
}

/// Datagrams that the kernel dropped on this port, all its sockets together.
fn kernel_drops(listen: SocketAddr) -> u64 {
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

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The part of the last messages that no relay changes.
const TAG: &[u8] = b"the last message";

/// tersed's window, and what a run must stay below for its output to be exactly the different messages.
const WINDOW: Duration = Duration::from_secs(10);

/// Longer than the slowest peer takes for the largest load.
const PATIENCE: Duration = Duration::from_secs(120);
