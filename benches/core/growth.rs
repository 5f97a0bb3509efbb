//! Growth: how long single messages wait for their verdict while the engine grows from empty to ten million live
//! messages, and how much memory each of them takes.
//!
//! ```text
//! cargo bench --bench core -- growth                      1 M and 10 M live messages, exact and compact, 3 rounds
//! cargo bench --bench core -- growth --rounds 1 --live 1000000
//! ```
//!
//! First every message is new, until all are live; then a fifth as many come again, at random. Each single
//! verdict is timed: the identity is made and hashed from a parsed message of 200 octets, and its shard
//! judges it. Four ways take turns, each in a process of its own:
//!
//! - **nothing**: the same loop judges nothing. It measures the clock, and what the machine does in between.
//! - **copy**: the same loop copies the message into fresh memory: what the kernel takes for its pages.
//! - **exact**, **compact**: the engine of the relay, with each of the two kinds of identity.
//!
//! A verdict takes as long as the wall clock says, but no longer than this thread had the processor: time that other
//! threads had is not the verdict's. The kernel's work for this thread, and the interrupts it serves, are
//! included; the rows of *nothing* and *copy* show how much they are. Figures are medians of the rounds, but the
//! maximum is the least of them: a pause that the algorithm causes comes in each round. The column beside it shows
//! the longest verdict by the wall clock alone.
//!
//! Memory is what the process occupies (RSS) beyond what it did at first, and what the engines count
//! against their budget, for each live message.

use std::{env, hint::black_box, io, process::Command, time::Duration};

use hdrhistogram::Histogram;

use tersed::core::{
    dedup::{Ended, Shards, Sighting},
    identity::{Identifier, IdentityKind, Key, Sender},
    parse::Message,
    rule::{PolicyId, WindowPolicy},
    tick::Tick,
};

use crate::{
    Copies, cpu_time,
    figures::{median, now},
    numbered::Numbered,
    random::Random,
    resident,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each way is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Grow to this many live messages; without it to 1,000,000 and then 10,000,000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1000..))]
    live: Option<u64>,
    /// Measure this way once and print its figures: the processes are started with it.
    #[arg(long, hide = true)]
    way: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, smoke: bool) -> io::Result<()> {
    let lives = arguments
        .live
        .map_or(vec![1_000_000, 10_000_000], |live| vec![live]);
    if let Some(way) = &arguments.way {
        for figure in measure(way, lives[0]) {
            print!("{figure} ");
        }
        println!();
        return Ok(());
    }
    let (lives, all_rounds) = if smoke {
        (vec![1000], 1)
    } else {
        (lives, arguments.rounds)
    };
    print!("| {:>10} | {:<7} |", "live", "way");
    for name in FIGURES {
        print!(" {name:>12} |");
    }
    print!("\n|{:->11}:|{:-<9}|", "", "");
    for _ in FIGURES {
        print!("{:->13}:|", "");
    }
    println!();
    for live in lives {
        let mut rounds: [Vec<[f64; FIGURES.len()]>; 4] = Default::default();
        for round in 1..=all_rounds {
            for (way, rounds) in WAYS.iter().zip(&mut rounds) {
                eprint!("\r\x1b[K{live} live, round {round}/{all_rounds}: {way}");
                let figures = in_a_process(way, live).ok_or_else(|| {
                    io::Error::other(format!("{way} did not get through {live} messages"))
                })?;
                rounds.push(figures);
            }
        }
        eprint!("\r\x1b[K");
        for (way, rounds) in WAYS.iter().zip(&rounds) {
            print!("| {live:>10} | {way:<7} |");
            for (at, name) in FIGURES.iter().enumerate() {
                let figures = rounds.iter().map(|figures| figures[at]);
                let figure = if *name == MAX {
                    figures.fold(f64::MAX, f64::min)
                } else {
                    median(figures.collect())
                };
                print!(" {:>12} |", shown(name, figure));
            }
            println!();
        }
    }
    Ok(())
}

fn in_a_process(way: &str, live: u64) -> Option<[f64; FIGURES.len()]> {
    let executable = env::current_exe().expect("this program has a path");
    let child = Command::new(executable)
        .args(["growth", "--way", way, "--live", &live.to_string()])
        .output()
        .ok()?;
    let figures: Vec<f64> = String::from_utf8_lossy(&child.stdout)
        .split_whitespace()
        .filter_map(|figure| figure.parse().ok())
        .collect();
    figures.try_into().ok()
}

fn shown(name: &str, figure: f64) -> String {
    if name.starts_with("octets") {
        format!("{figure:.0}")
    } else if figure < 10_000.0 {
        format!("{figure:.0} ns")
    } else {
        format!("{:.0} µs", figure / 1e3)
    }
}

/// Measures the [`FIGURES`] of one way.
fn measure(way: &str, live: u64) -> [f64; FIGURES.len()] {
    let at_first = resident("VmRSS");
    let mut watch = Watch::new();
    let counted = match way {
        "exact" | "compact" => {
            let kind = if way == "exact" {
                IdentityKind::Exact
            } else {
                IdentityKind::Compact
            };
            let key = Key::from_seed(7);
            let mut identifier = Identifier::new(&key, kind);
            let policy = WindowPolicy {
                window: Duration::from_secs(3600),
                allow: 1,
                refresh: None,
            };
            let shards = Shards::new(SHARDS, &[policy], BUDGET_OCTETS);
            let mut ended: Vec<Ended> = Vec::new();
            let mut now = Tick::ZERO;
            let mut octets_grown = 0;
            watch.follow(live, |watch, number, frame| {
                now = now.after(Duration::from_micros(1));
                let message = Message::parse(frame);
                let sighting = Sighting {
                    frame,
                    timestamp: None,
                    variant: None,
                };
                watch.time(|| {
                    let identity = identifier.identify(&message, Sender::Local);
                    black_box(shards.offer(PolicyId(0), identity, sighting, now, &mut ended));
                });
                if number + 1 == live {
                    octets_grown = shards.stats().octets;
                    watch.resident_octets = resident("VmRSS");
                }
                if number % MESSAGES_PER_TIMER == 0 {
                    // Nothing has expired. This shows what a timer costs beside the messages.
                    shards.advance(now, 128, &mut ended);
                    watch.skip();
                }
            });
            assert_eq!(shards.stats().live_messages as u64, live, "all are live");
            octets_grown
        }
        way => {
            let copies = way == "copy";
            let mut copied = Copies::default();
            watch.follow(live, |watch, number, frame| {
                watch.time(|| {
                    if copies && number < live {
                        copied.push(frame);
                    }
                    black_box(frame);
                });
                if number + 1 == live {
                    watch.resident_octets = resident("VmRSS");
                }
            });
            0
        }
    };
    let quantile =
        |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64;
    [
        quantile(&watch.all, 0.5),
        quantile(&watch.all, 0.99),
        quantile(&watch.all, 0.999),
        quantile(&watch.all, 0.9999),
        watch.all.max() as f64,
        watch.longest_wall.as_nanos() as f64,
        (watch.resident_octets - at_first) / live as f64,
        counted as f64 / live as f64,
    ]
}

/// Sends the messages, and times what it is asked to.
struct Watch {
    all: Histogram<u64>,
    longest_wall: Duration,
    /// Processor time of this thread at the last reading.
    cpu: Duration,
    timed: u32,
    /// Octets when all messages were live.
    resident_octets: f64,
}

impl Watch {
    fn new() -> Self {
        Self {
            all: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds in order"),
            longest_wall: Duration::ZERO,
            cpu: cpu_time(),
            timed: 0,
            resident_octets: 0.0,
        }
    }

    /// Sends `live` new messages, then a fifth as many of them at random.
    fn follow(&mut self, live: u64, mut each: impl FnMut(&mut Self, u64, &[u8])) {
        let mut message = Numbered::new();
        let mut random = Random::new(0x2545_F491_4F6C_DD17);
        for number in 0..live + live / 5 {
            message.set(if number < live {
                number
            } else {
                random.next() % live
            });
            each(self, number, &message.frame);
        }
    }

    /// Times one verdict. Reading the processor time takes as long as a verdict does, so it is read seldom, and after
    /// each verdict that seems to have taken long: that took at most what this thread has had since the last
    /// reading.
    fn time(&mut self, judge: impl FnOnce()) {
        let start = now();
        judge();
        let mut took = start.elapsed();
        self.longest_wall = self.longest_wall.max(took);
        self.timed += 1;
        if took > LONG || self.timed.is_multiple_of(16) {
            let cpu = cpu_time();
            took = took.min(cpu.saturating_sub(self.cpu));
            self.cpu = cpu;
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.all.saturating_record(nanos.max(1));
    }

    /// Leaves out what happened since the last verdict: it is no message's wait.
    fn skip(&mut self) {
        self.cpu = cpu_time();
    }
}

const WAYS: [&str; 4] = ["nothing", "copy", "exact", "compact"];

const FIGURES: [&str; 8] = [
    "p50",
    "p99",
    "p99.9",
    "p99.99",
    MAX,
    "max on wall",
    "octets, RSS",
    "octets",
];

const MAX: &str = "max";

const SHARDS: usize = 16;

/// More than ten million messages take.
const BUDGET_OCTETS: usize = 8 << 30;

/// A verdict that takes longer may have been interrupted.
const LONG: Duration = Duration::from_micros(4);

/// A timer fires every ten milliseconds of a stream of a hundred thousand a second.
const MESSAGES_PER_TIMER: u64 = 1000;
