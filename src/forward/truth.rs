//! Tests what becomes of frames on a connection that breaks, at any point and in any order, against a model that knows
//! where each frame is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    encode::Encoder,
    stream::ring::{ResendRing, Taken},
};
use crate::{
    config::{Config, LineBreaks, OutputFraming},
    core::{
        dedup::{Claim, Shards},
        rule::WindowPolicy,
        tick::Tick,
    },
    delivery::{
        chunk::{Chunk, Entry},
        ledger::Ledger,
    },
    metrics::{DropReason, Metrics},
};

/// One step in the life of a lane, or of the network.
#[derive(Clone, Debug)]
enum Step {
    /// This many frames arrive, each of this many octets.
    Arrive(usize, usize),
    /// The next chunk is written whole.
    Write,
    /// All octets written but this many are acknowledged.
    Acknowledge(usize),
    /// This many milliseconds pass.
    Wait(u64),
    /// The connection breaks after the first number of octets of the next chunk was taken. The peer may not have read
    /// the second number of octets before.
    Break(usize, usize),
    /// A stop drops what waits.
    Stop,
}

/// Where a frame is, as far as the relay can know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Waiting,
    /// Written to the connection that is open.
    Written,
    /// Written, and the peer certainly has it.
    Certain,
    Dropped,
}

/// The slow and obvious twin: tracks each frame by its number.
#[derive(Debug, Default)]
struct Model {
    places: BTreeMap<usize, Place>,
    /// What was written to the open connection: number, end on the wire, and when it was acknowledged.
    wire: Vec<(usize, usize, Option<Tick>)>,
}

impl Model {
    fn count(&self, place: Place) -> u64 {
        self.places
            .values()
            .filter(|found| **found == place)
            .count() as u64
    }

    fn written(&self) -> usize {
        self.wire.last().map_or(0, |(_, end, _)| *end)
    }

    fn write(&mut self, chunk: &Chunk) {
        for (frame, _, _) in chunk.entries() {
            let number = std::str::from_utf8(frame).unwrap().parse().unwrap();
            let end = self.written() + frame.len() + 1;
            self.wire.push((number, end, None));
            self.places.insert(number, Place::Written);
        }
    }

    fn acknowledge(&mut self, unacknowledged: usize, now: Tick) {
        let acknowledged = self.written() - unacknowledged;
        for (_, end, at) in &mut self.wire {
            if *end <= acknowledged {
                at.get_or_insert(now);
            }
        }
    }

    /// What the peer may not have when the connection breaks: what was not acknowledged, and what was acknowledged
    /// recently and may not have been read.
    fn doubtful(&self, unacknowledged: usize, unread: usize, now: Tick) -> Vec<usize> {
        let read = self.written().saturating_sub(unacknowledged + unread);
        let doubtful = self.wire.iter().filter(|(_, end, at)| match at {
            None => true,
            Some(at) => *end > read && now.since(*at) < AGE,
        });
        doubtful.map(|(number, _, _)| *number).collect()
    }

    fn set(&mut self, chunk: &Chunk, place: Place) {
        for number in numbers(chunk) {
            self.places.insert(number, place);
        }
    }
}

struct Bed {
    metrics: Arc<Metrics>,
    ledger: Ledger,
    ring: ResendRing,
    waiting: VecDeque<Chunk>,
    model: Model,
    arrived: usize,
    now: Tick,
    unacknowledged: usize,
    reached: Reached,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    taken_back: u64,
    broken_inside: u64,
    resent: u64,
    given_up: u64,
    aged: u64,
}

impl Bed {
    fn new() -> Self {
        let metrics = Metrics::new();
        let rules = Config::default().rules;
        let policies: Vec<WindowPolicy> = rules.policies().map(|policy| policy.window).collect();
        let shards = Arc::new(Shards::new(1, &policies, 16 << 20));
        Self {
            ledger: Ledger::new(Arc::clone(&metrics), shards, rules),
            metrics,
            ring: ResendRing::new(LIMIT, AGE),
            waiting: VecDeque::new(),
            model: Model::default(),
            arrived: 0,
            now: Tick::from_nanos(1),
            unacknowledged: 0,
            reached: Reached::default(),
        }
    }

    fn taken(&self) -> Taken {
        Taken {
            unacknowledged: self.unacknowledged,
            is_all: self.unacknowledged == 0,
            now: self.now,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Arrive(count, octets) => self.arrive(count, octets),
            Step::Write => self.write(),
            Step::Acknowledge(left) => {
                self.unacknowledged = self.unacknowledged.min(left);
                self.model.acknowledge(self.unacknowledged, self.now);
                self.ring.acknowledged(self.taken());
            }
            Step::Wait(millis) => {
                self.now = self.now.after(Duration::from_millis(millis));
                let before = self.ring.octets();
                self.ring.acknowledged(self.taken());
                self.reached.aged += u64::from(self.ring.octets() < before);
            }
            Step::Break(taken, unread) => self.break_off(taken, unread),
            Step::Stop => self.give_up(),
        }
        self.check(step);
    }

    fn arrive(&mut self, count: usize, octets: usize) {
        let mut chunk = Chunk::default();
        for _ in 0..count {
            let frame = format!("{:0octets$}", self.arrived);
            chunk.push(frame.as_bytes(), Entry::Survivor(Claim::VOID));
            self.model.places.insert(self.arrived, Place::Waiting);
            self.arrived += 1;
        }
        self.metrics
            .listener("in", "tcp:")
            .received
            .add(count as u64);
        self.metrics.frames.queued.add(count as u64);
        self.waiting.push_back(chunk);
    }

    fn write(&mut self) {
        let Some(mut chunk) = self.waiting.pop_front() else {
            return;
        };
        self.model.write(&chunk);
        self.unacknowledged += LF.chunk_octets(&chunk);
        let entries = chunk.len();
        self.ledger.forwarded(&mut chunk, entries);
        self.ring.push(chunk, LF, self.taken());
    }

    /// Does what a lane does when it loses its connection.
    fn break_off(&mut self, taken: usize, unread: usize) {
        let mut batch: Vec<Chunk> = self.waiting.pop_front().into_iter().collect();
        let octets: usize = batch.iter().map(|chunk| LF.chunk_octets(chunk)).sum();
        let taken = taken.min(octets);
        for chunk in &mut batch {
            let whole = LF.whole_entries(chunk, taken);
            self.reached.broken_inside += u64::from(whole < chunk.len());
            let certain: Vec<usize> = numbers(chunk).into_iter().take(whole).collect();
            for number in certain {
                self.model.places.insert(number, Place::Written);
            }
            self.ledger.forwarded(chunk, whole);
        }
        let unread = unread.min(self.ring.limit());
        let doubtful = self.model.doubtful(self.unacknowledged, unread, self.now);
        let uncertain = self.unacknowledged + taken + unread;
        let mut again = self.ring.take_back(batch, taken, uncertain, LF);
        // What does not come back is with the peer.
        for place in self.model.places.values_mut() {
            if *place == Place::Written {
                *place = Place::Certain;
            }
        }
        for chunk in &mut again {
            self.reached.taken_back += chunk.counted() as u64;
            self.ledger.taken_back(chunk);
            self.model.set(chunk, Place::Waiting);
        }
        for number in doubtful {
            let place = self.model.places[&number];
            assert_eq!(
                place,
                Place::Waiting,
                "frame {number} of {:?}",
                self.model.wire
            );
        }
        self.model.wire.clear();
        for chunk in again.into_iter().rev() {
            self.waiting.push_front(chunk);
        }
        self.ring = ResendRing::new(LIMIT, AGE);
        self.unacknowledged = 0;
    }

    fn give_up(&mut self) {
        for chunk in std::mem::take(&mut self.waiting) {
            self.model.set(&chunk, Place::Dropped);
            self.reached.given_up += chunk.len() as u64;
            assert!(self.ledger.dropped(&chunk, DropReason::Shutdown).is_none());
        }
    }

    fn check(&mut self, step: &Step) {
        let balance = self.metrics.balance();
        assert!(balance.holds(), "{step:?}: {balance:?}");
        let model = &self.model;
        let with_the_peer = model.count(Place::Written) + model.count(Place::Certain);
        assert_eq!(balance.forwarded, with_the_peer, "{step:?}");
        let waiting = i64::try_from(model.count(Place::Waiting)).unwrap();
        assert_eq!(balance.queued, waiting, "{step:?}");
        assert_eq!(balance.dropped, model.count(Place::Dropped), "{step:?}");
        let waiting: Vec<usize> = self.waiting.iter().flat_map(numbers).collect();
        assert!(waiting.is_sorted(), "{step:?}: out of order: {waiting:?}");
        self.reached.resent = self.metrics.frames.resent.get();
    }
}

fn numbers(chunk: &Chunk) -> Vec<usize> {
    let number = |frame: &[u8]| std::str::from_utf8(frame).unwrap().parse().unwrap();
    chunk.entries().map(|(frame, _, _)| number(frame)).collect()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..20_usize, 4..40_usize).prop_map(|(count, octets)| Step::Arrive(count, octets)),
        6 => Just(Step::Write),
        3 => (0..400_usize).prop_map(Step::Acknowledge),
        1 => Just(Step::Acknowledge(0)),
        2 => (1..12_000_u64).prop_map(Step::Wait),
        2 => (0..500_usize, 0..2000_usize).prop_map(|(taken, unread)| Step::Break(taken, unread)),
        1 => Just(Step::Stop),
    ]
}

/// Under any order of writing, acknowledging, breaking, taking back and stopping, the law holds at each step, and no
/// frame counts as forwarded that the model says was not taken.
#[test]
fn forwarded_is_what_was_taken_and_the_law_holds_at_each_step() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut sum = Reached::default();
    for _ in 0..150 {
        let steps = prop::collection::vec(step(), 1..120);
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let mut bed = Bed::new();
        for step in &steps {
            bed.step(step);
        }
        sum.taken_back += bed.reached.taken_back;
        sum.broken_inside += bed.reached.broken_inside;
        sum.resent += bed.reached.resent;
        sum.given_up += bed.reached.given_up;
        sum.aged += bed.reached.aged;
    }
    let Reached {
        taken_back,
        broken_inside,
        resent,
        given_up,
        aged,
    } = sum;
    assert!(
        [taken_back, broken_inside, resent, given_up, aged]
            .iter()
            .all(|count| *count > 20),
        "{sum:?}"
    );
}

use proptest::strategy::ValueTree as _;

const LF: Encoder = Encoder {
    framing: OutputFraming::Lf,
    line_breaks: LineBreaks::Space,
};
const LIMIT: usize = 1000;
const AGE: Duration = Duration::from_secs(10);
