//! The engine beside two simpler designs: time per message, memory, and the longest time that any one message
//! waited.
//!
//! ```text
//! cargo bench --bench core -- engine            one table, ready for the README
//! cargo bench --bench core -- engine --long     also with ten million live messages
//! ```
//!
//! - **plain**: a map from identity to the time it was forwarded. It never forgets.
//! - **eager**: a map and a timeline. It retires expired messages at once, and frees their memory at once.
//! - **tersed**: the engine of the relay, with its shards and their locks. It hashes each identity once.
//!
//! Each measurement runs in a process of its own, so that none inherits another's heap. The designs take
//! turns, and the table shows the median of all rounds. The longest wait is in processor time, and the least of all
//! rounds: a pause that the algorithm causes comes in each of them, one that the machine caused does
//! not. The row **nothing** judges nothing, and if all messages are new it copies them to fresh
//! memory: it shows what the loop, the clock and the machine themselves take.
//!
//! Memory is what the process occupies (RSS) beyond what it did at first.

use std::collections::{HashMap, VecDeque};
use std::env;
use std::hash::BuildHasher as _;
use std::hint::black_box;
use std::io;
use std::process::Command;
use std::time::Duration;

use foldhash::fast::{FixedState, RandomState};

use tersed::core::dedup::{Ended, Shards, Sighting, Verdict};
use tersed::core::identity::Identity;
use tersed::core::rule::{PolicyId, WindowPolicy};
use tersed::core::tick::Tick;

use crate::figures::{median, now};
use crate::random::Random;
use crate::{Copies, cpu_time, resident};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Also measure with ten million live messages.
    #[arg(long)]
    long: bool,
    /// Measure once and print the figures. The processes that measure are started with it.
    #[arg(long, hide = true, num_args = 4, value_names = ["WAY", "LOAD", "GAUGE", "DIVISOR"])]
    measure: Option<Vec<String>>,
    /// The same for memory alone: the octets of an identity, and by what to divide the million.
    #[arg(long, hide = true, num_args = 2, value_names = ["OCTETS", "DIVISOR"])]
    memory: Option<Vec<usize>>,
}

pub(crate) fn run(arguments: &Arguments, smoke: bool) -> io::Result<()> {
    if let Some([len, scale]) = arguments.memory.as_deref() {
        println!("{}", measure_memory(*len, *scale));
        return Ok(());
    }
    if let Some([way, load, gauge, scale]) = arguments.measure.as_deref() {
        let load = LOADS
            .iter()
            .find(|known| known.name == load)
            .expect("a load");
        let scale = scale.parse().expect("a number");
        measure(way, load, gauge == LONGEST, scale).print();
        return Ok(());
    }
    let long = arguments.long;
    let (rounds, scale) = if smoke { (1, 1000) } else { (ROUNDS, 1) };

    println!("| load | way | ns/message | longest wait | memory at the end | at most |");
    println!("|---|---|--:|--:|--:|--:|");
    for load in LOADS.iter().filter(|load| long || !load.long) {
        let rounds = if load.long {
            rounds.min(ROUNDS_LONG)
        } else {
            rounds
        };
        let mut speeds = WAYS.map(|_| Vec::new());
        let mut longest = WAYS.map(|_| Vec::new());
        for round in 0..rounds {
            for (at, way) in WAYS.iter().enumerate() {
                speeds[at].push(in_a_process(way, load, SPEED, scale));
                if round < ROUNDS_LONGEST {
                    longest[at].push(in_a_process(way, load, LONGEST, scale));
                }
            }
        }
        let fresh: Vec<_> = speeds[1..]
            .iter()
            .flatten()
            .map(|measured| measured.fresh)
            .collect();
        assert!(
            fresh.iter().all(|&count| count == fresh[0]),
            "{}: the ways disagree: {fresh:?}",
            load.name
        );
        for (at, way) in WAYS.iter().enumerate() {
            let median = |of: fn(&Measured) -> f64| median(speeds[at].iter().map(of).collect());
            let wait = longest[at]
                .iter()
                .map(|measured| measured.longest)
                .fold(f64::MAX, f64::min);
            println!(
                "| {} | {way} | {:.0} | {} | {} | {} |",
                load.name,
                median(|measured| measured.per_message),
                duration(wait),
                octets(median(|measured| measured.held)),
                octets(median(|measured| measured.held_most)),
            );
        }
    }
    memory(scale);
    Ok(())
}

/// Prints the memory that live messages take.
fn memory(scale: usize) {
    println!("\n| 1 M live, tersed | memory | counted against the budget |");
    println!("|---|--:|--:|");
    for (name, len) in [
        ("exact, 200 octets each", 200),
        ("compact, 16 octets each", 16),
    ] {
        let printed = printed_by_a_process(&["--memory", &len.to_string(), &scale.to_string()]);
        println!("| {name} | {} |", printed.trim());
    }
}

fn measure_memory(len: usize, scale: usize) -> String {
    let at_first = resident("VmRSS");
    let mut ours = Ours::new();
    for number in 0..1_000_000 / scale as u64 {
        ours.judge(&message(number)[..len], Tick::ZERO);
    }
    let held = resident("VmRSS") - at_first;
    format!(
        "{} | {}",
        octets(held),
        octets(ours.shards.stats().octets as f64)
    )
}

/// A stream of messages.
struct Load {
    name: &'static str,
    /// Sent before the clock is started.
    before: Option<Traffic>,
    measured: Traffic,
    /// Only with `--long`.
    long: bool,
}

/// Messages, `step` apart.
struct Traffic {
    kind: Kind,
    messages: usize,
    step: Duration,
}

#[derive(Clone, Copy)]
enum Kind {
    /// 99 of 100 are one message, the others are new.
    Flood,
    /// Each is one of this many, at random.
    Among(u64),
    /// Each is new.
    Unique,
}

const LOADS: [Load; 6] = [
    Load {
        name: "flood, 99 % one message",
        before: None,
        measured: Traffic {
            kind: Kind::Flood,
            messages: 1_000_000,
            step: Duration::from_micros(10),
        },
        long: false,
    },
    Load {
        name: "10,000 messages at random",
        before: None,
        measured: Traffic {
            kind: Kind::Among(10_000),
            messages: 1_000_000,
            step: Duration::from_micros(10),
        },
        long: false,
    },
    Load {
        name: "all new, 1 M live",
        before: None,
        measured: Traffic {
            kind: Kind::Unique,
            messages: 1_500_000,
            step: Duration::from_micros(10),
        },
        long: false,
    },
    Load {
        name: "10,000 at random, after 1 M new ones",
        before: Some(Traffic {
            kind: Kind::Unique,
            messages: 1_000_000,
            step: Duration::from_micros(1),
        }),
        measured: Traffic {
            kind: Kind::Among(10_000),
            messages: 1_000_000,
            step: Duration::from_micros(10),
        },
        long: false,
    },
    Load {
        name: "all new, 10 M live",
        before: None,
        measured: Traffic {
            kind: Kind::Unique,
            messages: 20_000_000,
            step: Duration::from_micros(1),
        },
        long: true,
    },
    Load {
        name: "10 M live messages at random",
        before: Some(Traffic {
            kind: Kind::Unique,
            messages: 10_000_000,
            step: Duration::ZERO,
        }),
        measured: Traffic {
            kind: Kind::Among(10_000_000),
            messages: 5_000_000,
            step: Duration::ZERO,
        },
        long: true,
    },
];

/// A design that decides whether a message came within its window.
trait Way {
    /// Whether the message is to be forwarded.
    fn judge(&mut self, identity: &[u8], now: Tick) -> bool;

    /// What a timer does beside the messages.
    fn advance(&mut self, _now: Tick) {}
}

/// Judges nothing.
struct Nothing {
    /// Where it copies the messages to, if it copies them.
    copies: Option<Copies>,
}

impl Way for Nothing {
    fn judge(&mut self, identity: &[u8], now: Tick) -> bool {
        if let Some(copies) = &mut self.copies {
            copies.push(identity);
        }
        black_box((identity, now));
        false
    }
}

/// The map that never forgets.
#[derive(Default)]
struct Plain {
    forwarded: HashMap<Vec<u8>, Tick, RandomState>,
}

impl Way for Plain {
    fn judge(&mut self, identity: &[u8], now: Tick) -> bool {
        if let Some(forwarded) = self.forwarded.get_mut(identity) {
            let fresh = now.since(*forwarded) >= WINDOW;
            if fresh {
                *forwarded = now;
            }
            return fresh;
        }
        self.forwarded.insert(identity.to_vec(), now);
        true
    }
}

/// The map and the timeline that shrink as soon as they can.
#[derive(Default)]
struct Eager {
    live: HashMap<Vec<u8>, (), RandomState>,
    timeline: VecDeque<(Tick, Vec<u8>)>,
}

impl Way for Eager {
    fn judge(&mut self, identity: &[u8], now: Tick) -> bool {
        while self
            .timeline
            .front()
            .is_some_and(|(start, _)| now.since(*start) >= WINDOW)
        {
            if let Some((_, over)) = self.timeline.pop_front() {
                self.live.remove(&over);
            }
        }
        // Shrinking at every chance would copy all marks for each message.
        if self.timeline.len() < self.timeline.capacity() / 4 {
            self.timeline.shrink_to_fit();
            self.live.shrink_to_fit();
        }
        if self.live.contains_key(identity) {
            return false;
        }
        self.live.insert(identity.to_vec(), ());
        self.timeline.push_back((now, identity.to_vec()));
        true
    }
}

struct Ours {
    hasher: FixedState,
    shards: Shards,
    ended: Vec<Ended>,
}

impl Ours {
    fn new() -> Self {
        let policy = WindowPolicy {
            window: WINDOW,
            allow: 1,
            refresh: None,
        };
        Self {
            hasher: FixedState::default(),
            shards: Shards::new(SHARDS, &[policy], BUDGET_OCTETS),
            ended: Vec::new(),
        }
    }
}

impl Way for Ours {
    fn judge(&mut self, identity: &[u8], now: Tick) -> bool {
        let sighting = Sighting {
            frame: identity,
            timestamp: identity.get(..15),
            variant: None,
        };
        let identity = Identity {
            hash: self.hasher.hash_one(identity),
            octets: identity,
        };
        matches!(
            self.shards
                .offer(PolicyId(0), identity, sighting, now, &mut self.ended),
            Verdict::Fresh(_)
        )
    }

    fn advance(&mut self, now: Tick) {
        self.shards.advance(now, 128, &mut self.ended);
        self.ended.clear();
    }
}

/// What one process measured.
struct Measured {
    /// Nanoseconds for each message.
    per_message: f64,
    /// Nanoseconds that the slowest message took; only if it was asked for.
    longest: f64,
    /// Octets of RSS at the end, and at most.
    held: f64,
    held_most: f64,
    /// Messages forwarded.
    fresh: usize,
}

impl Measured {
    fn print(&self) {
        let Self {
            per_message,
            longest,
            held,
            held_most,
            fresh,
        } = self;
        println!("{per_message} {longest} {held} {held_most} {fresh}");
    }

    fn parse(printed: &str) -> Option<Self> {
        let mut words = printed.split_whitespace();
        let mut figure = || words.next()?.parse().ok();
        let (per_message, longest, held, held_most) = (figure()?, figure()?, figure()?, figure()?);
        Some(Self {
            per_message,
            longest,
            held,
            held_most,
            fresh: words.next()?.parse().ok()?,
        })
    }
}

fn in_a_process(way: &str, load: &Load, gauge: &str, scale: usize) -> Measured {
    let printed = printed_by_a_process(&["--measure", way, load.name, gauge, &scale.to_string()]);
    Measured::parse(&printed).unwrap_or_else(|| panic!("{way} did not get through {}", load.name))
}

fn printed_by_a_process(arguments: &[&str]) -> String {
    let executable = env::current_exe().expect("this program has a path");
    let child = Command::new(executable)
        .arg("engine")
        .args(arguments)
        .output();
    String::from_utf8_lossy(&child.expect("this program can be run").stdout).into_owned()
}

fn measure(way: &str, load: &Load, each: bool, scale: usize) -> Measured {
    match way {
        "nothing" => {
            let copies = matches!(load.measured.kind, Kind::Unique).then(Copies::default);
            measure_way(&mut Nothing { copies }, load, each, scale)
        }
        "plain" => measure_way(&mut Plain::default(), load, each, scale),
        "eager" => measure_way(&mut Eager::default(), load, each, scale),
        _ => measure_way(&mut Ours::new(), load, each, scale),
    }
}

fn measure_way(way: &mut impl Way, load: &Load, each: bool, scale: usize) -> Measured {
    let at_first = resident("VmRSS");
    let mut stream = Stream {
        sent: 0,
        unique: 0,
        random: Random::new(0x2545_f491_4f6c_dd1d),
        now: Tick::ZERO,
    };
    if let Some(before) = &load.before {
        stream.send(way, before, scale, |_| ());
        // After a storm its windows expire first; a crowd that does not end continues at once.
        stream.now = if before.step.is_zero() {
            stream.now
        } else {
            stream.now.after(WINDOW)
        };
    }
    let start = now();
    let mut longest = Duration::ZERO;
    let fresh = if each {
        // Reading the processor time takes as long as several messages do, so it is read seldom. A wait is
        // at most what this thread has had of the processor since the last reading.
        let (mut last, mut cpu, mut steps) = (now(), cpu_time(), 0_u32);
        stream.send(way, &load.measured, scale, |step| {
            let took = last.elapsed();
            steps += 1;
            if took > longest || steps.is_multiple_of(16) {
                let now = cpu_time();
                // What a timer does is no message's wait.
                if step == Step::Judged {
                    longest = longest.max(took.min(now.saturating_sub(cpu)));
                }
                cpu = now;
            }
            last = now();
        })
    } else {
        stream.send(way, &load.measured, scale, |_| ())
    };
    let took = start.elapsed().as_nanos() as f64;
    Measured {
        per_message: took / (load.measured.messages / scale) as f64,
        longest: longest.as_nanos() as f64,
        held: resident("VmRSS") - at_first,
        held_most: resident("VmHWM") - at_first,
        fresh,
    }
}

/// Where a stream is.
struct Stream {
    sent: usize,
    unique: u64,
    random: Random,
    now: Tick,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Step {
    Judged,
    Advanced,
}

impl Stream {
    /// Sends all of it. Returns how many messages were forwarded.
    fn send(
        &mut self,
        way: &mut impl Way,
        traffic: &Traffic,
        scale: usize,
        mut after: impl FnMut(Step),
    ) -> usize {
        let mut fresh = 0;
        let mut frame = message(0);
        for _ in 0..traffic.messages / scale {
            self.now = self.now.after(traffic.step);
            self.sent += 1;
            let number = match traffic.kind {
                Kind::Flood if !self.sent.is_multiple_of(100) => u64::MAX,
                Kind::Flood | Kind::Unique => {
                    self.unique += 1;
                    self.unique - 1
                }
                Kind::Among(messages) => self.random.next() % messages,
            };
            frame[..8].copy_from_slice(&number.to_le_bytes());
            fresh += usize::from(way.judge(&frame, self.now));
            after(Step::Judged);
            if self.sent.is_multiple_of(MESSAGES_PER_TIMER) {
                way.advance(self.now);
                after(Step::Advanced);
            }
        }
        fresh
    }
}

fn message(number: u64) -> [u8; 200] {
    let mut frame = [b'x'; 200];
    frame[..8].copy_from_slice(&number.to_le_bytes());
    frame
}

fn duration(nanos: f64) -> String {
    if nanos < 1e6 {
        format!("{:.1} µs", nanos / 1e3)
    } else {
        format!("{:.1} ms", nanos / 1e6)
    }
}

fn octets(octets: f64) -> String {
    format!("{:.1} MB", octets / 1e6)
}

const WAYS: [&str; 4] = ["nothing", "plain", "eager", "tersed"];

/// The two things that are measured separately: reading the clock for each message would slow down all of them.
const SPEED: &str = "speed";
const LONGEST: &str = "longest";

const ROUNDS: usize = 5;
const ROUNDS_LONG: usize = 1;
const ROUNDS_LONGEST: usize = 3;

const WINDOW: Duration = Duration::from_secs(10);

const SHARDS: usize = 16;

const BUDGET_OCTETS: usize = 8 << 30;

/// A timer fires every ten milliseconds of a stream of a hundred thousand a second.
const MESSAGES_PER_TIMER: usize = 1000;
