//! The path of a frame without sockets, stage by stage: framing, parsing, identity, verdict.
//!
//!     cargo bench --bench core                  all stages of all loads
//!     cargo bench --bench core -- mixed parse   only those whose name contains one of the words
//!
//! Each row adds a stage to the one above it. `offer` judges messages one by one; `group` judges many together as the
//! relay does, and recognises frames that repeat the one before them. Figures are nanoseconds of one thread per
//! message, the best of all rounds: frames of 200 octets, RFC 3164, separated by LF.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::time::Duration;

use tersed::core::dedup::{Group, Shards, Sighting, Verdict};
use tersed::core::frame::{Framer, Framing, Outcome};
use tersed::core::identity::{Identifier, IdentityKind, Key, Sender};
use tersed::core::parse::Message;
use tersed::core::rule::{PolicyId, WindowPolicy};
use tersed::core::tick::Tick;

use crate::figures::now;
use crate::random::Random;

/// Measures the stages whose name contains one of `words`; without words all of them.
pub(crate) fn run(words: &[String], smoke: bool) -> io::Result<()> {
    let (messages, rounds) = if smoke { (1000, 1) } else { (500_000, 7) };
    let names: Vec<String> = LOADS
        .iter()
        .flat_map(|(load, _)| STAGES.map(|(stage, _)| format!("{load}-{stage}")))
        .collect();
    for word in words {
        if !names.iter().any(|name| name.contains(word)) {
            return Err(io::Error::other(format!(
                "{word}: neither a command nor in the name of a stage; the stages are {}",
                names.join(", ")
            )));
        }
    }
    for (name, distinct) in LOADS {
        for (stage, run) in STAGES {
            let full_name = format!("{name}-{stage}");
            if !words.is_empty() && !words.iter().any(|word| full_name.contains(word)) {
                continue;
            }
            let load = load(distinct, messages);
            let best = (0..rounds)
                .map(|_| run(&load))
                .min()
                .expect("there is a round");
            println!(
                "{name:8} {stage:10} {:7.1} ns",
                best.as_secs_f64() * 1e9 / messages as f64
            );
        }
    }
    Ok(())
}

/// Name and number of distinct messages; 1: all but one in a hundred are the same, 0: all differ.
const LOADS: [(&str, u64); 3] = [("flood", 1), ("mixed", 10_000), ("unique", 0)];

type Run = fn(&[u8]) -> Duration;

const STAGES: [(&str, Run); 5] = [
    ("frame", |load| stages(load, 1)),
    ("parse", |load| stages(load, 2)),
    ("identity", |load| stages(load, 3)),
    ("offer", |load| stages(load, 4)),
    ("group", |load| stages(load, 5)),
];

fn stages(load: &[u8], depth: u32) -> Duration {
    let policy = WindowPolicy {
        window: Duration::from_secs(10),
        allow: 1,
        refresh: None,
    };
    let shards = Shards::new(8, &[policy], 1 << 31);
    let key = Key::from_seed(1);
    let mut identifier = Identifier::new(&key, IdentityKind::Exact);
    let mut framer = Framer::new(Framing::Auto, 65536);
    let mut ended = Vec::new();
    let mut group = Group::new();
    let fresh = std::cell::Cell::new(0_u32);
    let started = now();
    for turn in load.chunks(200 * 1300) {
        let mut at = 0;
        let mut here = group.recycled();
        let mut last = None;
        let mut judge = |here: &mut Group<'_>| {
            shards.offer_group(here, Tick::ZERO);
            here.drain(&mut ended, |_, _, verdict, _| {
                fresh.set(fresh.get() + u32::from(verdict != Verdict::Duplicate))
            });
        };
        loop {
            let step = framer.next(&turn[at..]);
            at += step.consumed;
            let Outcome::Frame(frame) = step.outcome else {
                break;
            };
            if depth == 1 {
                black_box(frame);
                continue;
            }
            if depth == 5
                && let Some(message) = last
                    .as_ref()
                    .and_then(|last: &Message<'_>| last.repeated(frame.octets))
            {
                let sighting = Sighting {
                    frame: frame.octets,
                    timestamp: message.timestamp(),
                    variant: None,
                };
                if here.push_again(sighting) {
                    if here.is_full() {
                        judge(&mut here);
                    }
                    continue;
                }
            }
            let message = Message::parse(frame.octets);
            if depth == 2 {
                black_box(&message);
                continue;
            }
            if depth == 5 {
                let seen = (frame.octets, message.timestamp());
                here.push(PolicyId(0), seen, None, |octets| {
                    identifier.append(&message, Sender::Local, octets)
                });
                if here.is_full() {
                    judge(&mut here);
                }
                last = Some(message);
                continue;
            }
            let identity = identifier.identify(&message, Sender::Local);
            if depth == 3 {
                black_box(identity);
                continue;
            }
            let sighting = Sighting {
                frame: frame.octets,
                timestamp: message.timestamp(),
                variant: None,
            };
            let verdict =
                shards.offer(PolicyId(0), identity, sighting, Tick::ZERO, &mut Vec::new());
            fresh.set(fresh.get() + u32::from(verdict != Verdict::Duplicate));
        }
        judge(&mut here);
        group = here.recycled();
    }
    black_box(fresh.get());
    started.elapsed()
}

fn load(distinct: u64, messages: u64) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut random = Random::new(0x2545_F491_4F6C_DD17);
    let mut line = String::new();
    for number in 0..messages {
        let drawn = random.next();
        let what = match distinct {
            0 => number,
            1 if number % 100 == 50 => number,
            1 => 0,
            some => drawn % some,
        };
        line.clear();
        let second = number / 10_000;
        write!(line, "<34>Nov 22 10:{:02}:{:02} host-17.example app[12345]: interface Gi1/0/{what:08} changed state, reason link flap, neighbour lost ", second / 60 % 60, second % 60).expect("fits");
        while line.len() < 199 {
            line.push_str("0123456789 abcdefghij ");
        }
        line.truncate(199);
        octets.extend_from_slice(line.as_bytes());
        octets.push(b'\n');
    }
    octets
}
