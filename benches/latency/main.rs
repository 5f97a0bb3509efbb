//! Latency: how much later the first copy of a message arrives because the relay stands in between.
//!
//! ```text
//! cargo bench --bench latency                       1,000, 50,000 and 200,000 messages/s, TCP and UDP, 3 rounds
//! cargo bench --bench latency -- tcp-50k udp-50k    only cases whose name contains one of the words
//! cargo bench --bench latency -- --peers            also through rsyslogd, syslog-ng and the floor
//! cargo bench --bench latency -- --rounds 5 --seconds 10
//! ```
//!
//! Nine of ten messages are repeats of a hundred; every tenth is new, carries a number, and must be forwarded. The
//! number is an index into a table of the instants at which that message was due and at which it was passed to the
//! kernel. One process sends and receives, so there is one clock. It receives over TCP, as the relay forwards.
//!
//! Latency is counted **from when a message was due**, which the rate alone decides. Counting from the sending
//! would miss the point: while a stalled relay blocks its sender, nothing is sent, and so nothing is late. The
//! price is that the latency includes the sender's own lateness. That is measured: in the rows of *nothing*, where the
//! same sender sends the same load straight to the same receiver, and in the columns counted from the sending. What the
//! relay adds is the difference to *nothing*.
//!
//! Figures are medians of the rounds, in microseconds. A numbered message that does not arrive is counted as lost, and
//! is an error unless the kernel dropped datagrams.

#![expect(clippy::print_stdout, reason = "the table is the output")]
#![expect(clippy::print_stderr, reason = "progress is for people")]

#[path = "../bed/mod.rs"]
#[expect(dead_code, reason = "other benchmarks use the rest")]
mod bed;
mod probe;

use std::{io, process::ExitCode};

use clap::Parser as _;

use bed::{floor, median, peer::Peer};
use probe::{Input, Measured, Probe};

/// How much later the first copy of a message arrives because of the relay.
#[derive(Debug, clap::Parser)]
#[command(bin_name = "cargo bench --bench latency --")]
struct Arguments {
    /// Also through rsyslogd, syslog-ng and the floor.
    #[arg(long)]
    peers: bool,
    /// How often each case is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long a run sends; four times as long at 1,000 messages/s, which are few.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// Only cases whose name contains one of these.
    words: Vec<String>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == floor::WORD) {
        return floor::run(&words);
    }
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    // First without a relay: what the machine does by itself.
    let mut through = vec![None, Some(Peer::Tersed)];
    if arguments.peers {
        let (peers, missing) = bed::peer::installed();
        through.extend(
            peers
                .into_iter()
                .filter(|peer| *peer != Peer::Tersed)
                .map(Some),
        );
        for name in missing {
            println!("not installed here, so not measured: {name}");
        }
    }
    let mut measured_any = false;
    for input in [Input::Tcp, Input::Udp] {
        for rate in RATES {
            let name = format!("{}-{}k", input.name(), rate / 1000);
            let words = &arguments.words;
            if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
                continue;
            }
            if !measured_any {
                heading();
                measured_any = true;
            }
            let slow = if rate < 10_000 { 4 } else { 1 };
            let messages = rate * usize::from(arguments.seconds) * slow;
            let probe = Probe::new(input, rate, messages);
            let through: Vec<_> = through
                .iter()
                .copied()
                .filter(|peer| peer.is_none_or(|peer| peer.fits(&probe.case())))
                .collect();
            let mut rounds: Vec<Vec<Measured>> = through.iter().map(|_| Vec::new()).collect();
            for round in 1..=arguments.rounds {
                for (peer, measured) in through.iter().zip(&mut rounds) {
                    let peer_name = peer.map_or("nothing", Peer::name);
                    eprint!(
                        "\r\x1b[K{name} round {round}/{}: {peer_name}",
                        arguments.rounds
                    );
                    let found = probe.run(*peer).map_err(|error| {
                        io::Error::other(format!("{peer_name} in {name}: {error}"))
                    })?;
                    measured.push(found);
                }
            }
            eprint!("\r\x1b[K");
            for (peer, measured) in through.iter().zip(&rounds) {
                row(&name, peer.map_or("nothing", Peer::name), measured);
            }
        }
    }
    if measured_any {
        Ok(())
    } else {
        Err(io::Error::other(
            "no case has such a name; they are tcp-1k, tcp-50k, tcp-200k, udp-1k, udp-50k, udp-200k",
        ))
    }
}

fn heading() {
    println!(
        "Microseconds from when a message was due (first four), or was sent, until it arrived.\n"
    );
    print!("| {:<8} | {:<11} |", "in", "through");
    for (name, _) in COLUMNS {
        print!(" {name:>10} |");
    }
    print!("\n|{:-<10}|{:-<13}|", "", "");
    for _ in COLUMNS {
        print!("{:->11}:|", "");
    }
    println!();
}

fn row(case: &str, through: &str, rounds: &[Measured]) {
    print!("| {case:<8} | {through:<11} |");
    for (_, figure) in COLUMNS {
        let figure = median(rounds.iter().map(figure).collect());
        print!(" {figure:>10.0} |");
    }
    println!();
}

type Column = (&'static str, fn(&Measured) -> f64);

const COLUMNS: [Column; 10] = [
    ("p50", |m| m.from_due.at(0.5)),
    ("p99", |m| m.from_due.at(0.99)),
    ("p99.9", |m| m.from_due.at(0.999)),
    ("max", |m| m.from_due.at(1.0)),
    ("sent: p50", |m| m.from_sent.at(0.5)),
    ("sent: p99", |m| m.from_sent.at(0.99)),
    ("sent p99.9", |m| m.from_sent.at(0.999)),
    ("sent: max", |m| m.from_sent.at(1.0)),
    ("sent/s", |m| m.rate),
    ("lost", |m| m.lost as f64),
];

const RATES: [usize; 3] = [1_000, 50_000, 200_000];
