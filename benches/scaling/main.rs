//! Scaling: what a message costs by the number of live messages, its length, the number of connections, threads and
//! shards. Prints a table and draws a plot (`docs/plots/*.svg`) for each.
//!
//! ```text
//! cargo bench --bench scaling                        all of them, 3 rounds: about ten minutes
//! cargo bench --bench scaling -- live length         only these; also connections, workers, contention
//! cargo bench --bench scaling -- --rounds 5 --plots DIRECTORY
//! ```
//!
//! - **live** (the engine alone): repeats in no order among 1,000 to 10 million live messages, exact and compact. The
//!   first repeat of a message allocates what its summary needs; later ones only count.
//! - **length** (the relay, TCP): messages of 64 octets to 8 KiB, of a flood and all new.
//! - **connections** (the relay, TCP): the same messages over 1 to 1,000 connections.
//! - **workers** (the relay, TCP, 8 connections): 1 to 8 worker threads, whatever the number of cores.
//! - **contention** (the engine alone): 1 to 8 threads at 1 to 64 shards, 10,000 live messages.
//!
//! Cost is processor time for each message: of the relay's process, or of the engine's threads. rsyslogd is measured
//! beside it if it is installed. Figures are medians of the rounds.

#![expect(clippy::print_stdout, reason = "the tables are the output")]
#![expect(clippy::print_stderr, reason = "progress is for people")]

#[path = "../bed/mod.rs"]
#[expect(dead_code, reason = "other benchmarks use the rest")]
mod bed;
mod engine;
#[path = "../bed/numbered.rs"]
mod numbered;
mod plot;

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use clap::Parser as _;

use bed::{
    case::{Case, Mix},
    floor,
    load::Load,
    median,
    peer::{self, Peer, Settings},
    run::run,
};
use engine::Filled;
use plot::{Line, Plot, Scale};
use tersed::core::identity::IdentityKind;

/// What a message costs, by different quantities.
#[derive(Debug, clap::Parser)]
#[command(bin_name = "cargo bench --bench scaling --")]
struct Arguments {
    /// How often each point is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Where the plots are written.
    #[arg(long, value_name = "DIRECTORY", default_value = PLOTS)]
    plots: PathBuf,
    /// Measure only these.
    words: Vec<By>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum By {
    Live,
    Length,
    Connections,
    Workers,
    Contention,
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

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&arguments.plots)?;
    for (by, file, measure) in ALL {
        if !arguments.words.is_empty() && !arguments.words.contains(&by) {
            continue;
        }
        let plot = measure(usize::from(arguments.rounds))?;
        eprint!("\r\x1b[K");
        print(&plot);
        plot.write(&arguments.plots.join(file))?;
    }
    Ok(())
}

fn by_live(rounds: usize) -> Result<Plot, Box<dyn Error>> {
    let kinds = [
        ("exact", IdentityKind::Exact),
        ("compact", IdentityKind::Compact),
    ];
    let mut lines = Vec::new();
    for (name, kind) in kinds {
        let (mut firsts, mut laters) = (Vec::new(), Vec::new());
        for live in LIVE {
            eprint!("\r\x1b[K{name}, {live} live messages");
            let (mut first, mut later) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let filled = Filled::new(kind, ENGINE_SHARDS, live);
                first.push(filled.repeat_each());
                later.push(filled.judge(VERDICTS, 1).cpu_nanos);
            }
            firsts.push((live as f64, median(first)));
            laters.push((live as f64, median(later)));
        }
        lines.push(line(&format!("{name}, first repeat"), firsts));
        lines.push(line(&format!("{name}, later repeats"), laters));
    }
    let reads = LIVE.map(|live| {
        let reads = (0..rounds).map(|_| engine::read_of_memory(live));
        (live as f64, median(reads.collect()))
    });
    lines.push(line("one read of memory", reads.to_vec()));
    Ok(Plot {
        title: "A verdict, by live messages (engine, repeats in no order)".to_owned(),
        x: "live messages",
        y: "CPU ns per verdict",
        scale: Scale::Logarithmic,
        lines,
    })
}

fn by_contention(rounds: usize) -> Result<Plot, Box<dyn Error>> {
    println!("| shards | threads | CPU ns | verdicts/s |\n|--:|--:|--:|--:|");
    let mut lines = Vec::new();
    for shards in [1, 4, 16, 64] {
        let filled = Filled::new(IdentityKind::Exact, shards, 10_000);
        let mut points = Vec::new();
        for threads in [1, 2, 4, 8] {
            eprint!("\r\x1b[K{shards} shards, {threads} threads");
            let judged: Vec<_> = (0..rounds)
                .map(|_| filled.judge(VERDICTS, threads))
                .collect();
            let cpu = median(judged.iter().map(|judged| judged.cpu_nanos).collect());
            let speed = median(judged.iter().map(|judged| judged.per_second).collect());
            eprint!("\r\x1b[K");
            println!("| {shards} | {threads} | {cpu:.0} | {speed:.0} |");
            points.push((threads as f64, cpu));
        }
        let plural = if shards == 1 { "" } else { "s" };
        lines.push(line(&format!("{shards} shard{plural}"), points));
    }
    println!();
    Ok(Plot {
        title: format!(
            "A verdict, by threads and shards (engine, 10,000 live, {})",
            cores()
        ),
        x: "threads",
        y: "CPU ns per verdict, all threads",
        scale: Scale::Linear,
        lines,
    })
}

fn by_length(rounds: usize) -> Result<Plot, Box<dyn Error>> {
    let lengths = [64, 128, 256, 512, 1024, 2048, 4096, 8192];
    let cases = |octets| {
        [Mix::Flood, Mix::Unique].map(|mix| Case {
            octets,
            ..Case::tcp(mix, 1)
        })
    };
    Ok(Plot {
        title: "A message, by its length (relay, one TCP connection)".to_owned(),
        x: "octets per message",
        y: "CPU ns per message",
        scale: Scale::Logarithmic,
        lines: beside_rsyslogd(rounds, &lengths, cases)?,
    })
}

fn by_connections(rounds: usize) -> Result<Plot, Box<dyn Error>> {
    let cases = |connections| [Mix::Flood, Mix::Mixed].map(|mix| Case::tcp(mix, connections));
    Ok(Plot {
        title: "A message, by TCP connections (relay, same load)".to_owned(),
        x: "connections",
        y: "CPU ns per message",
        scale: Scale::Logarithmic,
        lines: beside_rsyslogd(rounds, &[1, 3, 10, 30, 100, 300, 1000], cases)?,
    })
}

fn by_workers(rounds: usize) -> Result<Plot, Box<dyn Error>> {
    println!("| load | workers | CPU ns | messages/s |\n|---|--:|--:|--:|");
    let mut lines = Vec::new();
    for mix in Mix::ALL {
        let case = Case::tcp(mix, 8);
        let load = Load::build(&case, MESSAGES_MAX);
        let mut points = Vec::new();
        for workers in [1_u32, 2, 4, 8] {
            eprint!("\r\x1b[K{case}, {workers} workers");
            let settings = Settings {
                workers: Some(workers as usize),
                ..Settings::default()
            };
            let measured = (0..rounds)
                .map(|_| run(Peer::Tersed, &case, &load, &settings))
                .collect::<Result<Vec<_>, _>>()?;
            let cpu = median(measured.iter().map(|m| m.cpu_nanos()).collect());
            let speeds = measured
                .iter()
                .map(|m| m.messages as f64 / m.elapsed.as_secs_f64());
            let speed = median(speeds.collect());
            eprint!("\r\x1b[K");
            println!("| {} | {workers} | {cpu:.0} | {speed:.0} |", mix.name());
            points.push((f64::from(workers), cpu));
        }
        lines.push(line(mix.name(), points));
    }
    println!();
    Ok(Plot {
        title: format!(
            "A message, by worker threads (relay, 8 TCP connections, {})",
            cores()
        ),
        x: "worker threads",
        y: "CPU ns per message",
        scale: Scale::Linear,
        lines,
    })
}

/// Returns a line for each relay and each of the cases that `cases` makes of an `x`. The relays take turns.
fn beside_rsyslogd<const N: usize>(
    rounds: usize,
    xs: &[usize],
    cases: impl Fn(usize) -> [Case; N],
) -> Result<Vec<Line>, Box<dyn Error>> {
    let (peers, _) = peer::installed();
    let compared = [Peer::Tersed, Peer::Rsyslogd];
    let peers: Vec<_> = compared.into_iter().filter(|p| peers.contains(p)).collect();
    let mut lines: Vec<Line> = Vec::new();
    for &x in xs {
        for case in cases(x) {
            let messages = (LOAD_OCTETS / case.octets).min(MESSAGES_MAX);
            let load = Load::build(&case, messages);
            let mut figures: Vec<_> = peers.iter().map(|_| Vec::new()).collect();
            for round in 1..=rounds {
                for (peer, figures) in peers.iter().zip(&mut figures) {
                    eprint!("\r\x1b[K{case} round {round}/{rounds}: {}", peer.name());
                    match run(*peer, &case, &load, &Settings::default()) {
                        Ok(measured) => figures.push(measured.cpu_nanos()),
                        Err(error) => peer::failed(*peer, &case, error)?,
                    }
                }
            }
            for (peer, figures) in peers.iter().zip(figures) {
                let name = format!("{}, {}", peer.name(), case.mix.name());
                if figures.is_empty() {
                    continue;
                }
                let point = (x as f64, median(figures));
                match lines.iter_mut().find(|line| line.name == name) {
                    Some(line) => line.points.push(point),
                    None => lines.push(line(&name, vec![point])),
                }
            }
        }
    }
    Ok(lines)
}

fn cores() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} core{}", if cores == 1 { "" } else { "s" })
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Line {
    Line {
        name: name.to_owned(),
        points,
    }
}

/// Prints the plot as a table.
fn print(plot: &Plot) {
    println!("### {}\n", plot.title);
    print!("| {} |", plot.x);
    for line in &plot.lines {
        print!(" {} |", line.name);
    }
    println!("\n|--:|{}", "--:|".repeat(plot.lines.len()));
    let xs = plot.lines.first().map_or(&[][..], |line| &line.points);
    for (x, _) in xs {
        print!("| {x} |");
        for line in &plot.lines {
            // A peer may have failed there.
            let y = line.points.iter().find(|(of, _)| of == x);
            print!(" {:.0} |", y.map_or(f64::NAN, |(_, y)| *y));
        }
        println!();
    }
    println!("\n{}.\n", plot.y);
}

type Measure = fn(usize) -> Result<Plot, Box<dyn Error>>;

const ALL: [(By, &str, Measure); 5] = [
    (By::Live, "live.svg", by_live),
    (By::Length, "length.svg", by_length),
    (By::Connections, "connections.svg", by_connections),
    (By::Workers, "workers.svg", by_workers),
    (By::Contention, "contention.svg", by_contention),
];

const PLOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plots");

const LIVE: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// What is sent for one point of the relay, in octets and in messages at most.
const LOAD_OCTETS: usize = 128 << 20;
const MESSAGES_MAX: usize = 500_000;

const VERDICTS: u64 = 4_000_000;

/// As many as a relay has on four cores.
const ENGINE_SHARDS: usize = 16;
