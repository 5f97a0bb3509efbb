//! Replay of large logs: the real binary, lines per second and memory.
//!
//!     cargo bench --bench replay                      every load, 3 rounds
//!     cargo bench --bench replay -- --lines 10000000 mixed
//!
//! Each load is written to a file of its own beside the build and read from the page cache; the output goes to
//! `/dev/null`. Lines are RFC 3164 without PRI, of 160 octets, 20,000 in a second of the log:
//!
//! - **flood**: 99 % are one message; **mixed**: 10,000 messages at random; **unique**: all are different.
//! - **gzip**, **zstd**: mixed, packed by `gzip -1` and `zstd`, which have to be installed; **report**: mixed, with
//!   `--report`.
//!
//! The output is the best of the rounds, by processor time (user and system): a process that is alone on its core takes
//! that long. Memory is the largest sample of the resident size.

#![expect(clippy::print_stdout, reason = "the table is the output")]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run shall say where"
)]

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut lines = 3_000_000;
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--lines" {
            lines = arguments.next().unwrap().parse().unwrap();
        } else {
            words.push(argument);
        }
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    println!("{lines} lines   M lines/s   MB/s   memory");
    for (name, mix, packer, flags) in LOADS {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let log = directory.join(format!("replay-{name}.log"));
        let octets = write(&log, mix, lines);
        let log = packer.map_or_else(|| log.clone(), |packer| pack(&log, packer));
        let runs = (0..ROUNDS).map(|_| run(&log, flags));
        let (seconds, memory) = runs
            .min_by(|(one, _), (other, _)| one.total_cmp(other))
            .unwrap();
        println!(
            "{name:<14} {:>11.2} {:>6.0} {:>5.1} MB",
            lines as f64 / 1e6 / seconds,
            octets as f64 / 1e6 / seconds,
            memory as f64 / 1e3
        );
        fs::remove_file(&log).unwrap();
    }
}

/// Which messages a load has.
#[derive(Clone, Copy)]
enum Mix {
    Flood,
    Mixed,
    Unique,
}

/// Writes a log; returns how many octets.
fn write(path: &Path, mix: Mix, lines: u64) -> u64 {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let mut random = 0x2545_F491_4F6C_DD17_u64;
    for number in 0..lines {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let what = match mix {
            Mix::Flood if number % 100 != 50 => 0,
            Mix::Mixed => random % 10_000,
            Mix::Flood | Mix::Unique => 1 + number,
        };
        let (second, pid) = (number / 20_000, 10_000 + number % 50_000);
        let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
        writeln!(
            out,
            "Nov 22 {hour:02}:{minute:02}:{second:02} host-17.example app[{pid}]: interface Gi1/0/{what:08} \
             changed state, reason link flap, neighbour lost 0123456789 abcdefghij 0123456789 012345"
        )
        .unwrap();
    }
    out.flush().unwrap();
    fs::metadata(path).unwrap().len()
}

/// Packs a log and removes it.
fn pack(path: &Path, (program, flags): (&str, &[&str])) -> PathBuf {
    let packed = path.with_extension("packed");
    let status = Command::new(program)
        .args(flags)
        .arg(path)
        .stdout(File::create(&packed).unwrap())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} is needed"
    );
    fs::remove_file(path).unwrap();
    packed
}

/// Replays a log; returns seconds of processor time, and kilobytes resident at most.
fn run(log: &Path, flags: &[&str]) -> (f64, u64) {
    let before = used();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tersed"))
        .arg("replay")
        .args(flags)
        .arg(log)
        .env_clear()
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut memory = 0;
    let status = loop {
        memory = resident_max(&child).unwrap_or(memory);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        thread::park_timeout(Duration::from_millis(2));
    };
    assert!(status.success());
    (used() - before, memory)
}

/// Seconds of processor time of all children that have ended.
fn used() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    micros as f64 / 1e6
}

/// Kilobytes resident at most; the kernel keeps the peak while the process runs.
fn resident_max(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

type Load = (
    &'static str,
    Mix,
    Option<(&'static str, &'static [&'static str])>,
    &'static [&'static str],
);

const LOADS: [Load; 6] = [
    ("flood", Mix::Flood, None, &[]),
    ("mixed", Mix::Mixed, None, &[]),
    ("unique", Mix::Unique, None, &[]),
    ("mixed-gzip", Mix::Mixed, Some(("gzip", &["-1", "-c"])), &[]),
    ("mixed-zstd", Mix::Mixed, Some(("zstd", &["-q", "-c"])), &[]),
    ("mixed-report", Mix::Mixed, None, &["--report"]),
];

const ROUNDS: usize = 3;
