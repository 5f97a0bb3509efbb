//! The one place that sees every stage: a batch of frames in, a chunk of survivors out.
//!
//! ```text
//! one read or recvmmsg ──▶ Batch: parse ─▶ rule ─▶ identity ─▶ dedup ─▶ Judged ──▶ delivery, aside
//!                                      └─ pass: in its turn ────┘ └─ drop: counted, and gone
//! ```
//!
//! # Guarantees
//!
//! - A frame is judged by the task that received it, in place: survivors leave in the order in which
//!   they were received.
//! - The clock is read, the rules are looked up and the counters are touched once a batch.
//! - Each frame handed to a batch is counted as received, and as suppressed, queued or dropped; also if a panic
//!   interrupts the batch (`panics`).
//!
//! # Left out
//!
//! Framing (the listener knows its transport), and waiting for room (see `forward`).

use std::{cell::Cell, mem, sync::Arc, thread, time::Duration};

use tokio::time::sleep;

use crate::{
    chunk::{Chunk, Entry},
    clock::Clock,
    custody::{Custody, Receipt},
    dedup::{Claim, Ended, Group, Shards, Sighting, Verdict, annotation::Annotation},
    fault,
    forward::{CopiesDoor, Delivery, OpenDoor},
    identity::{Identifier, IdentityKind, Key, Origin, Sender},
    ledger::InForce,
    metrics::{DropReason, ListenerMetrics, Metrics},
    panics::{self, Panics},
    parse::{Format, Message},
    rule::{Action, DEFAULT, LITERAL, Mode, PolicyId, Reach, Rules, Scratch},
    tick::Tick,
};

/// What all batches share.
#[derive(Debug)]
pub struct Pipeline {
    /// Every window there is.
    pub shards: Arc<Shards>,
    /// Where survivors go.
    pub delivery: Delivery,
    /// Where copies that are held back go, if anywhere.
    pub copies_door: CopiesDoor,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// This run's key.
    pub key: Key,
    /// How identities are kept.
    pub identity: IdentityKind,
    /// Which batches are safe.
    pub custody: Arc<Custody>,
    /// Told of panics that the relay cannot survive.
    pub panics: Panics,
}

impl Pipeline {
    /// A batch of frames that `listener` received just now.
    #[must_use]
    pub fn batch<'p, 'f>(&'p self, listener: &'p ListenerMetrics) -> Batch<'p, 'f> {
        let in_force = self.delivery.ledger().rules();
        let copies_door = self.copies_door.door();
        let mut group = GROUP.take().recycled();
        group.set_generation(in_force.generation);
        Batch {
            pipeline: self,
            listener,
            receipt: Some(self.custody.open()),
            is_settling: false,
            reach: in_force.rules.reach(listener.name()),
            tally: Tally::new(&in_force.rules),
            in_force,
            scratch: Scratch::default(),
            now: Clock::now(),
            identifier: Identifier::new(&self.key, self.identity),
            group,
            last: None,
            chunk: CHUNK.take(),
            copies: copies_door
                .as_ref()
                .map_or_else(Chunk::default, |_| COPIES.take()),
            copies_door,
            ended: Vec::new(),
        }
    }

    /// Hands on what came of a batch; waits while there is no room. False if a survivor had to be dropped.
    pub async fn deliver(&self, judged: Judged) -> bool {
        let _delivering = Delivering(&self.panics);
        // What is new does not wait for what is not.
        let is_whole = self.delivery.deliver(judged.survivors).await;
        if let Some(copies_door) = judged.copies_door {
            copies_door.deliver(judged.copies).await;
        }
        is_whole
    }

    /// Whether a panic left the windows, or the way to the queue, in an unknown state: nothing can be judged then.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.panics.is_core_broken() || self.shards.is_poisoned()
    }

    /// Whether a reader waits for room for survivors or copies: the next to read may have to keep what comes of it.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.delivery.is_pressed() || self.copies_door.is_pressed()
    }

    /// Retires what is over, so that no count waits for another message, and ends what a reload left to be ended.
    /// Bounded work for each lock that is taken; survivors pass in between, and do not find the queue filled
    /// with summaries. True if there is more to do after `ADVANCE_MAX`.
    pub async fn advance(&self) -> bool {
        let end = Clock::now().after(ADVANCE_MAX);
        let mut ended = Vec::new();
        let bite = (RETIRED_AT_ONCE / self.shards.count()).clamp(RETIRE_BITE.0, RETIRE_BITE.1);
        loop {
            let more = self.shards.advance(Clock::now(), bite, &mut ended);
            let is_many = ended.len() >= bite;
            self.report(&mut ended).await;
            if !more || Clock::now() >= end {
                return more;
            }
            tokio::task::yield_now().await;
            if is_many {
                self.give_way().await;
            }
        }
    }

    /// Waits for a moment, and for a few more while the queue holds more than a batch or two: survivors would wait
    /// behind the next summaries, here or in the kernel's buffers.
    async fn give_way(&self) {
        for _ in 0..GIVE_WAY_TIMES {
            if self.delivery.is_closed() {
                return;
            }
            sleep(GIVE_WAY_PERIOD).await;
            if self.delivery.octets() <= GIVE_WAY_OCTETS {
                return;
            }
        }
    }

    /// Hands over the summaries of what `ended`.
    pub async fn report(&self, ended: &mut Vec<Ended>) {
        let mut chunk = Chunk::default();
        self.delivery.ledger().report(ended, &mut chunk);
        self.delivery.deliver(chunk).await;
    }
}

/// A panic while this exists leaves a batch half handed over.
struct Delivering<'p>(&'p Panics);

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.break_core();
        }
    }
}

/// Frames of one read, being judged. They live as long as `'f`: they are looked at again when many of them have
/// come together.
#[derive(Debug)]
pub struct Batch<'p, 'f> {
    pipeline: &'p Pipeline,
    listener: &'p ListenerMetrics,
    in_force: Arc<InForce>,
    /// Which rules frames of this listener can fall under.
    reach: Reach,
    scratch: Scratch,
    now: Tick,
    identifier: Identifier<'p>,
    /// Frames that are not judged yet.
    group: Group<'f>,
    /// The frame that was parsed last; those behind it repeat it.
    last: Option<Last<'f>>,
    chunk: Chunk,
    /// Where copies go.
    copies_door: Option<Arc<OpenDoor>>,
    /// Copies that go there.
    copies: Chunk,
    ended: Vec<Ended>,
    tally: Tally,
    /// `None` once the batch is finished.
    receipt: Option<Receipt>,
    /// The group is being judged: a panic leaves windows open whose claims are not known.
    is_settling: bool,
}

/// What came of a batch, already counted as queued: it has to be delivered.
#[must_use = "what is not delivered stays queued for ever"]
#[derive(Debug)]
pub struct Judged {
    survivors: Chunk,
    copies: Chunk,
    copies_door: Option<Arc<OpenDoor>>,
    /// Who sent compressed messages.
    pub compressed_by: Vec<Sender>,
}

impl Judged {
    /// True if there is nothing to deliver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.survivors.is_empty() && self.copies.is_empty()
    }
}

/// A message, who sent it, and what is done with it.
#[derive(Debug)]
struct Last<'f> {
    message: Message<'f>,
    sender: Sender,
    policy: PolicyId,
    way: Way,
    is_binary: bool,
}

/// What is done with a frame when its rule is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// It is judged.
    Judged,
    /// It goes out in its turn.
    Passed,
    /// It ends here.
    Dropped,
}

/// Counts of one batch.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    octets: u64,
    unparsed: u64,
    binary: u64,
    queued: u64,
    /// What no rule takes.
    default: RuleTally,
    /// By rule; empty if there are none.
    rules: Vec<RuleTally>,
    /// By reason; empty on almost every batch.
    refused: Vec<(DropReason, u64)>,
    /// Who sent compressed messages, each once; empty on almost every batch.
    compressed_by: Vec<Sender>,
}

/// Counts of one batch under one rule.
#[derive(Clone, Copy, Debug, Default)]
struct RuleTally {
    matched: u64,
    suppressed: u64,
    dropped: u64,
    tagged: u64,
    shadowed: u64,
}

impl Tally {
    fn new(rules: &Rules) -> Self {
        Self {
            rules: vec![RuleTally::default(); rules.rules().len()],
            ..Self::default()
        }
    }

    fn of(&mut self, policy: PolicyId) -> &mut RuleTally {
        // The first two are the default's, in the same order as their counters.
        let rule = policy.index().checked_sub(LITERAL.index() + 1);
        match rule.and_then(|rule| self.rules.get_mut(rule)) {
            Some(rule) => rule,
            None => &mut self.default,
        }
    }

    fn refuse(&mut self, reason: DropReason) {
        match self
            .refused
            .iter_mut()
            .find(|(counted, _)| *counted == reason)
        {
            Some((_, count)) => *count += 1,
            None => self.refused.push((reason, 1)),
        }
    }

    fn compressed(&mut self, sender: Sender) {
        if !self.compressed_by.contains(&sender) {
            self.compressed_by.push(sender);
        }
    }

    /// Counts what fell under each rule, and gives how many frames were suppressed.
    fn count_rules(&self, in_force: &InForce) -> u64 {
        let ids = (LITERAL.0 + 1..).map(PolicyId);
        let rules = ids.zip(&self.rules);
        let mut suppressed = 0;
        for (id, tally) in std::iter::once((DEFAULT, &self.default)).chain(rules) {
            if tally.matched == 0 {
                continue;
            }
            suppressed += tally.suppressed;
            let counters = in_force.counters(id);
            counters.matched.add(tally.matched);
            for (counter, count) in [
                (&counters.suppressed, tally.suppressed),
                (&counters.dropped, tally.dropped),
                (&counters.tagged, tally.tagged),
                (&counters.shadowed, tally.shadowed),
            ] {
                if count > 0 {
                    counter.add(count);
                }
            }
        }
        suppressed
    }
}

impl<'f> Batch<'_, 'f> {
    /// When the batch was received.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.now
    }

    /// Judges `frame` as `sender` sent it, at once or together with those that follow.
    pub fn judge(&mut self, frame: &'f [u8], sender: Sender) {
        self.tally.received += 1;
        self.tally.octets += frame.len() as u64;
        fault::look(frame);
        fault::trip("connection");
        if let Some(last) = &self.last
            && last.sender == sender
            && let Some(message) = last.message.repeated(frame)
        {
            let (policy, way, is_binary) = (last.policy, last.way, last.is_binary);
            let sighting = Sighting {
                frame,
                timestamp: message.timestamp(),
                variant: None,
            };
            if way != Way::Judged || self.group.push_again(sighting) {
                self.tally.unparsed += u64::from(message.format == Format::Unparsed);
                self.tally.binary += u64::from(is_binary);
                self.tally.of(policy).matched += 1;
                self.take_way(policy, way, frame);
                return;
            }
        }
        let message = Message::parse(frame);
        let is_binary = message.is_binary();
        self.tally.unparsed += u64::from(message.format == Format::Unparsed);
        self.tally.binary += u64::from(is_binary);
        if message.compressed {
            self.tally.compressed(sender);
        }
        let rules = &self.in_force.rules;
        let policy = rules.decide(&message, sender, self.reach, &mut self.scratch);
        self.tally.of(policy).matched += 1;
        let fall = rules.fall(policy);
        let way = match (fall.action, fall.policy.mode) {
            // Not even as the copies of a loop.
            (Action::Dedup, _) if message.compressed => Way::Passed,
            (Action::Dedup, _) => Way::Judged,
            (Action::Drop, Mode::Enforce) => Way::Dropped,
            (Action::Pass | Action::Drop, _) => Way::Passed,
        };
        if way == Way::Judged {
            let identifier = &self.identifier;
            let spec = &fall.policy.identity;
            let origin = Origin {
                sender,
                listener: self.listener.name(),
            };
            let variant = identifier.variant(spec, &message, sender);
            let seen = (frame, message.timestamp());
            self.group.push_varying(policy, seen, variant, |octets| {
                identifier.append_by(spec, &message, origin, octets)
            });
        }
        // The timestamp of what is never suppressed is in its identity.
        self.last = (!message.never_suppress).then_some(Last {
            message,
            sender,
            policy,
            way,
            is_binary,
        });
        self.take_way(policy, way, frame);
    }

    /// Does with a frame what is to be done before it is judged; what is judged is in the group already.
    fn take_way(&mut self, policy: PolicyId, way: Way, frame: &'f [u8]) {
        match way {
            Way::Judged => {}
            // In the group, so that it leaves in its turn.
            Way::Passed => self.group.push_passed(policy, frame),
            Way::Dropped => {
                self.tally.of(policy).dropped += 1;
                self.tally.refuse(DropReason::Rule);
                return;
            }
        }
        self.settle_if_full();
    }

    fn settle_if_full(&mut self) {
        if self.group.is_full() {
            self.settle();
        }
    }

    /// Judges what has come together.
    fn settle(&mut self) {
        let Pipeline {
            shards, delivery, ..
        } = self.pipeline;
        self.is_settling = true;
        #[cfg(debug_assertions)]
        if fault::is_due("shard") {
            shards.break_one();
        }
        shards.offer_group(&mut self.group, self.now);
        let (chunk, tally) = (&mut self.chunk, &mut self.tally);
        let mut copies = self.copies_door.is_some().then_some(&mut self.copies);
        let rules = &self.in_force.rules;
        self.group
            .settle_by_policy(&mut self.ended, |policy, frame, verdict, ended| {
                let fall = rules.fall(policy);
                let tag = match verdict {
                    Verdict::Fresh(claim) => {
                        // What a window held back is reported before the copy that opens the next one.
                        delivery.ledger().report(ended, chunk);
                        if fall.action != Action::Drop {
                            tally.queued += 1;
                            chunk.push(frame, Entry::Survivor(claim));
                            return;
                        }
                        Annotation::Dropped
                    }
                    Verdict::Duplicate => Annotation::Repeated,
                };
                let counts = tally.of(policy);
                // What goes out although it is not a delivery that a window belongs to.
                let entry = Entry::Survivor(Claim::VOID);
                match fall.policy.mode {
                    Mode::Enforce => {
                        counts.suppressed += 1;
                        if let Some(copies) = &mut copies {
                            copies.push(frame, Entry::Copy);
                        }
                        return;
                    }
                    Mode::Tag => {
                        counts.tagged += 1;
                        chunk.push_with(entry, |out| {
                            tag.write(out, frame);
                            true
                        });
                    }
                    Mode::Shadow => {
                        counts.shadowed += 1;
                        chunk.push(frame, entry);
                    }
                }
                tally.queued += 1;
            });
        self.is_settling = false;
    }

    /// A frame was received and is not judged.
    pub fn refuse(&mut self, frame: &[u8], reason: DropReason) {
        self.tally.received += 1;
        self.tally.octets += frame.len() as u64;
        self.tally.refuse(reason);
    }

    /// Counts the batch and gives what came of it.
    pub fn finish(mut self) -> Judged {
        self.settle();
        let receipt = self.receipt.take();
        let receipt = receipt.expect("a batch is finished once");
        GROUP.set(mem::replace(&mut self.group, Group::new()).recycled());
        self.pipeline
            .delivery
            .ledger()
            .report(&mut self.ended, &mut self.chunk);
        // In before out: whoever reads the counters in between sees frames in hand, never too many.
        self.listener.received.add(self.tally.received);
        self.listener.octets.add(self.tally.octets);
        let frames = &self.pipeline.metrics.frames;
        frames.queued.add(self.tally.queued);
        frames
            .suppressed
            .add(self.tally.count_rules(&self.in_force));
        if !self.copies.is_empty() {
            self.pipeline.metrics.copies.take(self.copies.len() as u64);
        }
        frames.unparsed.add(self.tally.unparsed);
        if self.tally.binary > 0 {
            frames.binary.add(self.tally.binary);
        }
        for (reason, count) in mem::take(&mut self.tally.refused) {
            frames.dropped[reason].add(count);
        }
        let mut survivors = self.chunk.take();
        CHUNK.set(mem::take(&mut self.chunk));
        if !survivors.is_empty() {
            survivors.entrust(receipt);
        }
        let copies = self.copies.take();
        if self.copies_door.is_some() {
            COPIES.set(mem::take(&mut self.copies));
        }
        Judged {
            survivors,
            copies,
            copies_door: self.copies_door.take(),
            compressed_by: mem::take(&mut self.tally.compressed_by),
        }
    }

    /// A panic interrupted the batch: counts what is in it as lost, and reopens the windows of its survivors. The
    /// reports of copies that were suppressed under these are lost, too.
    fn give_up(&mut self) {
        if self.is_settling {
            self.pipeline.panics.break_core();
        }
        let frames = &self.pipeline.metrics.frames;
        let suppressed = self.tally.count_rules(&self.in_force);
        let refused: u64 = self.tally.refused.iter().map(|(_, count)| count).sum();
        self.listener.received.add(self.tally.received);
        self.listener.octets.add(self.tally.octets);
        frames.suppressed.add(suppressed);
        for &(reason, count) in &self.tally.refused {
            frames.dropped[reason].add(count);
        }
        let lost = self.tally.received.saturating_sub(suppressed + refused);
        frames.dropped[DropReason::Panic].add(lost);
        if self.pipeline.is_broken() {
            return;
        }
        let mut ended = Vec::new();
        for (_, entry, _) in self.chunk.entries() {
            if let Entry::Survivor(claim) = entry {
                self.pipeline.shards.reopen(claim, &mut ended);
            }
        }
    }
}

impl Drop for Batch<'_, '_> {
    fn drop(&mut self) {
        let Some(receipt) = self.receipt.take() else {
            return;
        };
        receipt.lose();
        // A panic that left a destructor would abort the process.
        if let Err(panicked) = panics::catch(|| self.give_up()) {
            tracing::error!(%panicked, "cannot count what a panic cost; this is a fault of tersed");
        }
    }
}

thread_local! {
    /// A worker's memory for what it judges together, between two batches.
    static GROUP: Cell<Group<'static>> = const { Cell::new(Group::new()) };

    /// Its memory for survivors.
    static CHUNK: Cell<Chunk> = Cell::default();

    /// Its memory for copies that are set aside.
    static COPIES: Cell<Chunk> = Cell::default();
}

/// How long retiring goes on before its caller has a turn, if nothing holds up what is reported.
const ADVANCE_MAX: Duration = Duration::from_millis(100);

/// Marks that are retired at a time of all shards together: their summaries take half a millisecond to write ...
const RETIRED_AT_ONCE: usize = 512;

/// ... and of each, under one hold of its lock, at least and at most.
const RETIRE_BITE: (usize, usize) = (4, 256);

/// Octets in the queue above which what is not urgent waits.
const GIVE_WAY_OCTETS: u64 = 128 * 1024;

/// How often it waits, at most: with an upstream away, summaries must go on, too.
const GIVE_WAY_TIMES: u32 = 20;

/// How long it waits before it looks again.
const GIVE_WAY_PERIOD: Duration = Duration::from_millis(1);
