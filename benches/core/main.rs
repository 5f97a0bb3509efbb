//! The core of the relay without sockets, part by part.
//!
//! ```text
//! cargo bench --bench core                          the stages that a frame passes, one by one
//! cargo bench --bench core -- mixed parse           only the stages whose name contains one of the words
//! cargo bench --bench core -- engine [--long]       the engine beside two simpler designs
//! cargo bench --bench core -- growth                single verdicts while the engine grows to 10 M live messages
//! cargo bench --bench core -- mask                  finding and folding the variable parts of messages
//! cargo bench --bench core -- rule                  deciding among 0 to 250 rules
//! cargo bench --bench core -- spool DIRECTORY MIB   appending to a spool, draining and opening it
//! ```
//!
//! The page of each file says what its figures mean. All parts are one program because it takes long to link one.
//!
//! Without `--bench`, which `cargo bench` passes, a part runs once on very little data. `cargo test --benches` passes
//! nothing at all: then all parts run so, one after another.

#![expect(clippy::print_stdout, reason = "the tables are the output")]
#![expect(clippy::print_stderr, reason = "progress and errors are for people")]

mod engine;
#[path = "../bed/figures.rs"]
mod figures;
mod growth;
mod mask;
#[path = "../bed/numbered.rs"]
mod numbered;
#[path = "../bed/random.rs"]
mod random;
mod rule;
mod spool;
mod stages;

use std::{fs, io, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser as _};
use nix::time::{ClockId, clock_gettime};

/// Measures the core of the relay without sockets.
///
/// Without a command: the stages that a frame passes (framing, parsing, identity, verdict), one by one, in nanoseconds
/// per message. That takes 20 seconds.
#[derive(Debug, clap::Parser)]
#[command(
    bin_name = "cargo bench --bench core --",
    disable_help_subcommand = true
)]
struct Arguments {
    /// Only stages whose name contains one of these, such as `mixed` or `flood-parse`.
    words: Vec<String>,
    #[command(subcommand)]
    part: Option<Part>,
    /// Measure. `cargo bench` passes it. Without it everything runs once on very little data, as a test.
    #[arg(long, global = true)]
    bench: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// The engine beside two simpler designs: time, longest wait and memory (1 minute).
    Engine(engine::Arguments),
    /// The time of single verdicts, and octets per message, while the engine grows (10 minutes).
    Growth(growth::Arguments),
    /// How fast several sets of masks fold several kinds of text (5 seconds).
    Mask,
    /// What deciding among 0 to 250 rules costs (10 seconds).
    Rule,
    /// How fast a spool takes frames and is drained, and how long a full one takes to open (1 minute).
    Spool(spool::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let everything = !arguments.bench && arguments.part.is_none() && arguments.words.is_empty();
    let done = arguments.run().and_then(|()| {
        let parts = Arguments::command();
        let mut names = parts.get_subcommands().map(clap::Command::get_name);
        if everything {
            names.try_for_each(|name| Arguments::parse_from(["core", name]).run())
        } else {
            Ok(())
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn run(&self) -> io::Result<()> {
        let smoke = !self.bench;
        match &self.part {
            None => stages::run(&self.words, smoke),
            Some(Part::Engine(arguments)) => engine::run(arguments, smoke),
            Some(Part::Growth(arguments)) => growth::run(arguments, smoke),
            Some(Part::Mask) => mask::run(smoke),
            Some(Part::Rule) => rule::run(smoke),
            Some(Part::Spool(arguments)) => spool::run(arguments, smoke),
        }
    }
}

/// Copies messages to fresh memory: what the kernel takes for its pages.
#[derive(Debug, Default)]
struct Copies(Vec<Vec<u8>>);

impl Copies {
    fn push(&mut self, message: &[u8]) {
        match self.0.last_mut() {
            Some(chunk) if chunk.len() + message.len() <= chunk.capacity() => {
                chunk.extend_from_slice(message);
            }
            _ => {
                let mut chunk = Vec::with_capacity(1 << 16);
                chunk.extend_from_slice(message);
                self.0.push(chunk);
            }
        }
    }
}

/// Octets of this process that the kernel counts in `field` of its status, such as `VmRSS`.
fn resident(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.expect("the kernel knows our memory") * 1024.0
}

/// Processor time of this thread. What other threads took is not part of a wait.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("each thread has such a clock")
        .into()
}
