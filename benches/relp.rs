//! Compares RELP with plain TCP: the same load comes in, and goes out, by each of them through tersed.
//!
//! ```text
//! cargo bench --bench relp                     all loads, in and out, 3 rounds
//! cargo bench --bench relp -- --rounds 5 --messages 2000000
//! ```
//!
//! In: the client pipelines as fast as the relay reads, and counts answers. The collector behind the relay is a
//! plain TCP one, so a message is safe, and is answered, when the collector's kernel has it. Out: the load comes by
//! plain TCP and every message is new. The RELP server answers all messages of one read with one write. A run ends
//! when the last message has come out and, in by RELP, the last answer has arrived.
//!
//! The output is the median of the rounds: messages per second, and processor time of the relay's process per message,
//! user and system. The time of the client, the server and the collector is not counted, but on a machine with few
//! cores they take it from the relay.

#![expect(clippy::print_stdout, reason = "the table is the output")]
#![expect(clippy::print_stderr, reason = "progress is for people")]

#[path = "bed/mod.rs"]
#[expect(dead_code, reason = "other benchmarks use the rest")]
mod bed;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Parser as _;

use bed::{
    case::{Case, Mix},
    load::{Load, last},
    median, now,
    process::Process,
    run::free_tcp_port,
    sink::Sink,
};
use tersed::core::relp::{Client, Frame, Heard, Request, Server};

/// Compares RELP with plain TCP.
#[derive(Debug, clap::Parser)]
#[command(bin_name = "cargo bench --bench relp --")]
struct Arguments {
    /// Rounds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Messages per run.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    messages: u32,
    /// Cargo passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The protocol by which messages come or leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Tcp,
    Relp,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    println!("load     in    out      msgs/s   CPU ns/message");
    let mut ways: Vec<_> = Mix::ALL
        .into_iter()
        .flat_map(|mix| [(mix, Way::Tcp, Way::Tcp), (mix, Way::Relp, Way::Tcp)])
        .collect();
    ways.push((Mix::Unique, Way::Tcp, Way::Relp));
    ways.push((Mix::Unique, Way::Relp, Way::Relp));
    for (mix, from, to) in ways {
        let load = Load::build(&Case::tcp(mix, 1), arguments.messages as usize);
        let mut figures = Vec::new();
        for round in 1..=arguments.rounds {
            eprint!("\r\x1b[K{} {from:?} {to:?} round {round}", mix.name());
            figures.push(run(&load, from, to)?);
        }
        eprint!("\r\x1b[K");
        let (rates, nanos) = figures.into_iter().unzip();
        println!(
            "{:8} {:5} {:5} {:>9.0}   {:>6.0}",
            mix.name(),
            from.scheme(),
            to.scheme(),
            median(rates),
            median(nanos)
        );
    }
    Ok(())
}

/// Messages per second, and nanoseconds of processor time per message.
fn run(load: &Load, from: Way, to: Way) -> io::Result<(f64, f64)> {
    let (sink, server) = (Sink::open()?, Collector::open()?);
    let upstream = match to {
        Way::Tcp => sink.address,
        Way::Relp => server.address,
    };
    let listen = free_tcp_port()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tersed"));
    command
        .args(["run", "--listen", &format!("{}://{listen}", from.scheme())])
        .args(["--forward", &format!("{}://{upstream}", to.scheme())])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let relay = Process(command.spawn()?);
    let deadline = now() + PATIENCE;
    while TcpStream::connect(listen).is_err() {
        if now() > deadline {
            return Err(io::Error::other("the relay did not start to listen"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let wire = from.wire(load);
    let mut socket = TcpStream::connect(listen)?;
    let answered = match from {
        Way::Tcp => None,
        Way::Relp => Some(thread::spawn({
            let socket = socket.try_clone()?;
            let count = load.messages + 2;
            move || hear(socket, count)
        })),
    };
    let cpu = relay.cpu()?;
    let started = now();
    socket.write_all(&wire)?;
    if let Some(answered) = answered {
        answered
            .join()
            .map_err(|_| io::Error::other("the client panicked"))??;
    }
    while sink.lasts() == 0 && server.messages() < load.distinct + 1 {
        if now() > deadline + PATIENCE {
            return Err(io::Error::other("the last message did not come out"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let elapsed = started.elapsed();
    let cpu = relay.cpu()?.since(cpu);
    let messages = load.messages as f64;
    Ok((
        messages / elapsed.as_secs_f64(),
        cpu.total.as_secs_f64() * 1e9 / messages,
    ))
}

impl Way {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Relp => "relp",
        }
    }

    /// The load and its last message as they go over the wire.
    fn wire(self, load: &Load) -> Vec<u8> {
        let last = last(0);
        if self == Self::Tcp {
            return [&load.octets[..], &last, b"\n"].concat();
        }
        let mut out = Vec::with_capacity(load.octets.len() * 5 / 4);
        let mut client = Client::new();
        client.open(&mut out);
        for frame in load.octets.chunks(load.frame_octets) {
            client.syslog(&frame[..frame.len() - 1], &mut out);
        }
        client.syslog(&last, &mut out);
        out
    }
}

/// Reads `count` answers. All of them must be good.
fn hear(mut socket: TcpStream, count: usize) -> io::Result<()> {
    let mut client = Client::new();
    let mut sent = Vec::new();
    client.open(&mut sent);
    for _ in 1..count {
        sent.clear();
        client.syslog(b"", &mut sent);
    }
    let mut buffer = vec![0; 1 << 20];
    let (mut held, mut heard) = (0, 0);
    while heard < count {
        let octets = socket.read(&mut buffer[held..])?;
        if octets == 0 {
            return Err(io::Error::other("the relay closed"));
        }
        let end = held + octets;
        let mut at = 0;
        while let Some((frame, octets)) =
            Frame::first(&buffer[at..end], 1000).map_err(io::Error::other)?
        {
            match client.take(frame).map_err(io::Error::other)? {
                Heard::Opened | Heard::Answered(tersed::core::relp::Answer::Ok) => heard += 1,
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
            at += octets;
        }
        buffer.copy_within(at..end, 0);
        held = end - at;
    }
    Ok(())
}

/// A RELP server that counts and answers all messages.
#[derive(Debug)]
struct Collector {
    address: SocketAddr,
    messages: Arc<AtomicUsize>,
}

impl Collector {
    fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let messages = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&messages);
        // The thread ends with the process.
        thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                let messages = Arc::clone(&counting);
                thread::spawn(move || collect(connection, &messages));
            }
        });
        Ok(Self { address, messages })
    }

    fn messages(&self) -> usize {
        self.messages.load(Ordering::Acquire)
    }
}

fn collect(mut connection: TcpStream, messages: &AtomicUsize) {
    connection
        .set_nodelay(true)
        .expect("TCP_NODELAY can be set on a TCP socket");
    let mut server = Server::new();
    let mut buffer = vec![0; 1 << 20];
    let mut held = 0;
    let mut out = Vec::new();
    while let Ok(octets @ 1..) = connection.read(&mut buffer[held..]) {
        let end = held + octets;
        let (mut at, mut count) = (0, 0);
        out.clear();
        while let Ok(Some((frame, octets))) = Frame::first(&buffer[at..end], 128 * 1024) {
            match server.take(frame) {
                Ok(Request::Open) => Server::accept(&mut out),
                Ok(Request::Syslog(_)) => {
                    Server::answer(frame.txnr, 200, &mut out);
                    count += 1;
                }
                _ => return,
            }
            at += octets;
        }
        buffer.copy_within(at..end, 0);
        held = end - at;
        messages.fetch_add(count, Ordering::Release);
        if connection.write_all(&out).is_err() {
            return;
        }
    }
}

/// More than the slowest run takes.
const PATIENCE: Duration = Duration::from_secs(60);
