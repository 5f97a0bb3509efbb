//! The engine by itself: what a verdict costs by the number of live messages, and by threads and shards.
//!
//! The cost covers the work between a parsed message and its verdict: the identity is made and hashed, and its shard
//! judges it. The cost of the loop around it (the message is made and parsed) is measured separately and
//! subtracted. All figures are processor time of the threads.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use tersed::core::{
    dedup::{Group, Shards},
    identity::{Identifier, IdentityKind, Key, Sender},
    parse::Message,
    rule::{PolicyId, WindowPolicy},
    tick::Tick,
};

use crate::{
    bed::{now, random::Random},
    numbered::Numbered,
};

/// An engine with `live` messages in it.
#[derive(Debug)]
pub(crate) struct Filled {
    key: Key,
    kind: IdentityKind,
    shards: Shards,
    live: u64,
}

/// What threads took to judge messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    /// Processor time for each message, all threads together, in nanoseconds.
    pub(crate) cpu_nanos: f64,
    /// Verdicts per second by the wall clock, the loop around them included.
    pub(crate) per_second: f64,
}

impl Filled {
    pub(crate) fn new(kind: IdentityKind, shards: usize, live: u64) -> Self {
        let policy = WindowPolicy {
            window: Duration::from_secs(3600),
            allow: 1,
            refresh: None,
        };
        let filled = Self {
            key: Key::from_seed(7),
            kind,
            shards: Shards::new(shards, &[policy], BUDGET_OCTETS),
            live,
        };
        let mut numbers = 0..live;
        filled.offer(live, true, || numbers.next().expect("one for each message"));
        filled
    }

    /// Offers each live message once more, in no particular order. Returns the processor time for each, in nanoseconds.
    pub(crate) fn repeat_each(&self) -> f64 {
        let run = |judges: bool| {
            let mut number = 0;
            let before = cpu_time();
            self.offer(self.live, judges, || {
                number += STRIDE;
                number % self.live
            });
            cpu_time() - before
        };
        let around = run(false);
        let cpu = run(true);
        let stats = self.shards.stats();
        assert_eq!(
            stats.evicted_total + stats.unremembered_total,
            0,
            "the budget suffices"
        );
        (cpu.as_secs_f64() - around.as_secs_f64()) * 1e9 / self.live as f64
    }

    /// Each of `threads` judges its part of `messages` repeats at random.
    pub(crate) fn judge(&self, messages: u64, threads: u64) -> Judged {
        let share = messages / threads;
        let run = |judges: bool| {
            let start: Instant = now();
            let cpu: Duration = thread::scope(|scope| {
                let workers: Vec<_> = (1..=threads)
                    .map(|seed| {
                        scope.spawn(move || {
                            let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                            let before = cpu_time();
                            self.offer(share, judges, || random.next() % self.live);
                            cpu_time() - before
                        })
                    })
                    .collect();
                workers
                    .into_iter()
                    .map(|worker| worker.join().expect("it does not panic"))
                    .sum()
            });
            (cpu, start.elapsed())
        };
        let (around, _) = run(false);
        let (cpu, elapsed) = run(true);
        let messages = (share * threads) as f64;
        Judged {
            cpu_nanos: (cpu.as_secs_f64() - around.as_secs_f64()) * 1e9 / messages,
            per_second: messages / elapsed.as_secs_f64(),
        }
    }

    /// Judges messages in groups, as the relay does.
    fn offer(&self, messages: u64, judges: bool, mut number: impl FnMut() -> u64) {
        let mut frames: Vec<_> = (0..GROUP).map(|_| Numbered::new()).collect();
        let identifier = Identifier::new(&self.key, self.kind);
        let mut ended = Vec::new();
        let mut spare = Group::new();
        let mut left = messages;
        while left > 0 {
            let together = left.min(GROUP);
            left -= together;
            let frames = &mut frames[..usize::try_from(together).expect("a group is small")];
            for frame in &mut *frames {
                frame.set(number());
            }
            let mut group = spare.recycled();
            for Numbered { frame, .. } in &*frames {
                let message = Message::parse(frame);
                if !judges {
                    black_box(&message);
                    continue;
                }
                group.push(PolicyId(0), (frame, None), None, |octets| {
                    identifier.append(&message, Sender::Local, octets)
                });
            }
            self.shards.offer_group(&mut group, Tick::from_nanos(1));
            group.drain(&mut ended, |_, _, verdict, _| {
                black_box(verdict);
            });
            spare = group.recycled();
        }
    }
}

/// Processor time of one read, at random, of as much memory as `live` messages of 200 octets take, in nanoseconds. Each
/// read waits for the one before, as a table's entry, its mark and its octets wait for each other.
pub(crate) fn read_of_memory(live: u64) -> f64 {
    let cells = usize::try_from(live).expect("they fit into memory") * CELLS_PER_MESSAGE;
    // `black_box` makes the kernel really allocate the zeros.
    let memory: Vec<u64> = (0..cells).map(|_| black_box(0)).collect();
    let mut random = Random::new(7);
    let mut found = 0;
    let before = cpu_time();
    for _ in 0..READS {
        let at = (random.next() ^ found) % cells as u64;
        found = memory[usize::try_from(at).expect("it is below `cells`")];
    }
    black_box(found);
    (cpu_time() - before).as_secs_f64() * 1e9 / READS as f64
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("each thread has such a clock")
        .into()
}

/// More than ten million messages take, each with a suppressed repeat.
const BUDGET_OCTETS: usize = 16 << 30;

/// Messages judged together.
const GROUP: u64 = 128;

/// Cells of 8 octets.
const CELLS_PER_MESSAGE: usize = 25;

const READS: u64 = 2_000_000;

/// A prime: multiples of it pass all numbers below any power of ten before one comes again.
const STRIDE: u64 = 7_368_787;
