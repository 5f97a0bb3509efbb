//! The pipeline: the one place that sees every stage. A batch of frames goes in, a chunk of survivors comes out.
//!
//! ```text
//! one read or recvmmsg ──▶ Batch: parse ─▶ rule ─▶ identity ─▶ dedup ─▶ Judged ──▶ delivery, copies
//!                                           ├─ pass: keeps its place ─┘
//!                                           └─ drop: counted, ends here
//! ```
//!
//! # Guarantees
//!
//! - The task that received a frame judges it, in place: survivors leave in the order in which they were received.
//! - The clock is read, the rules are looked up and the counters are touched once a batch.
//! - Each frame handed to a batch is counted as received, and as suppressed, queued or dropped; also if a panic
//!   interrupts the batch (`panics`).
//!
//! # Left out
//!
//! What a verdict leads to (`rule::Fate`), framing (the listener knows its transport), and waiting for room (`forward`).

use std::{cell::Cell, mem, sync::Arc, thread, time::Duration};

use tokio::time::sleep;

use crate::{
    clock::Clock,
    core::{
        dedup::{Claim, Ended, Group, Shards, Sighting, Verdict},
        identity::{Identifier, IdentityKind, Key, Origin, Sender},
        parse::{Format, Message},
        rule::{DEFAULT, Fate, Fates, LITERAL, PolicyId, Reach, Rules, Scratch, Seen},
        tick::Tick,
    },
    delivery::{
        CopiesDoor, Delivery, OpenDoor,
        chunk::{Chunk, Entry},
        custody::{Custody, Receipt},
        ledger::InForce,
    },
    fault,
    metrics::{DropReason, ListenerMetrics, Metrics},
    panics::{self, Panics},
};

/// What all batches share.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub shards: Arc<Shards>,
    pub delivery: Delivery,
    /// Takes suppressed copies, if they are kept.
    pub copies_door: CopiesDoor,
    pub metrics: Arc<Metrics>,
    /// The key of this run, for identities.
    pub key: Key,
    /// How identities are kept.
    pub identity: IdentityKind,
    /// Knows which batches are safe.
    pub custody: Arc<Custody>,
    /// Reports panics that the relay cannot survive.
    pub panics: Panics,
}

impl Pipeline {
    /// Opens a batch for frames that `listener` received just now.
    #[must_use]
    pub(crate) fn batch<'p, 'f>(&'p self, listener: &'p ListenerMetrics) -> Batch<'p, 'f> {
        let in_force = self.delivery.ledger().rules();
        let copies_door = self.copies_door.door();
        let mut group = GROUP.take().recycled();
        group.set_generation(in_force.generation);
        Batch {
            pipeline: self,
            listener,
            receipt: Some(self.custody.open()),
            is_judging: false,
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

    /// Counts frames that `listener` received, and that a panic kept from a batch, as lost.
    pub(crate) fn lose<'f>(
        &self,
        listener: &ListenerMetrics,
        frames: impl Iterator<Item = &'f [u8]>,
    ) {
        for frame in frames {
            listener.received.add(1);
            listener.octets.add(frame.len() as u64);
            self.metrics.frames.dropped[DropReason::Panic].inc();
        }
    }

    /// Hands on the outcome of a batch; waits while there is no room. Returns false if a survivor had to be dropped.
    pub(crate) async fn deliver(&self, mut judged: Judged) -> bool {
        let _delivering = Delivering(&self.panics);
        // Survivors do not wait for copies.
        let is_whole = self.delivery.deliver(judged.survivors).await;
        self.report(&mut judged.ended).await;
        if let Some(copies_door) = judged.copies_door {
            copies_door.deliver(judged.copies).await;
        }
        is_whole
    }

    /// Whether a panic left the windows, or the way to the queue, in an unknown state: nothing can be judged then.
    #[must_use]
    pub(crate) fn is_broken(&self) -> bool {
        self.panics.is_core_broken() || self.shards.is_poisoned()
    }

    /// Whether a reader waits for room for survivors or copies: the next reader may have to keep the outcome of its batch.
    #[must_use]
    pub(crate) fn is_pressed(&self) -> bool {
        self.delivery.is_pressed() || self.copies_door.is_pressed()
    }

    /// Retires expired windows, so that no summary waits for another message, and ends windows that a reload left to be
    /// ended. The work under each lock is bounded. Survivors pass between two locks and do not find the queue filled with
    /// summaries. Returns true if there is more to do after `ADVANCE_MAX`.
    pub(crate) async fn advance(&self) -> bool {
        let end = Clock::now().after(ADVANCE_MAX);
        let mut ended = Vec::new();
        let marks_max =
            (RETIRED_AT_ONCE / self.shards.count()).clamp(RETIRED_MIN_MAX.0, RETIRED_MIN_MAX.1);
        loop {
            let more = self.shards.advance(Clock::now(), marks_max, &mut ended);
            let is_many = ended.len() >= marks_max;
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

    /// Waits for a moment, and for a few more while the queue holds more than a batch or two. Without this, survivors would
    /// wait behind the next summaries, here or in the kernel's buffers.
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

    /// Delivers the summaries of the windows in `ended`.
    pub(crate) async fn report(&self, ended: &mut Vec<Ended>) {
        while !ended.is_empty() {
            let mut chunk = Chunk::default();
            self.delivery.ledger().report(ended, &mut chunk);
            self.delivery.deliver(chunk).await;
        }
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

/// The frames of one read, being judged. They must live for `'f`, because they are collected and then judged together.
#[derive(Debug)]
pub(crate) struct Batch<'p, 'f> {
    pipeline: &'p Pipeline,
    listener: &'p ListenerMetrics,
    in_force: Arc<InForce>,
    /// The rules that frames of this listener can fall under.
    reach: Reach,
    scratch: Scratch,
    now: Tick,
    identifier: Identifier<'p>,
    /// Frames that wait to be judged together.
    group: Group<'f>,
    /// The frame that was parsed last. Those after it, if any, differed from it in the timestamp alone.
    last: Option<Last<'f>>,
    chunk: Chunk,
    /// Takes suppressed copies, if they are kept.
    copies_door: Option<Arc<OpenDoor>>,
    copies: Chunk,
    ended: Vec<Ended>,
    tally: Tally,
    /// `None` once the batch is finished.
    receipt: Option<Receipt>,
    /// The group is being judged: a panic leaves windows open whose claims are not known.
    is_judging: bool,
}

/// The outcome of a batch, already counted as queued: it has to be delivered.
#[must_use = "survivors that are not delivered stay counted as queued for ever"]
#[derive(Debug)]
pub(crate) struct Judged {
    survivors: Chunk,
    copies: Chunk,
    copies_door: Option<Arc<OpenDoor>>,
    /// Windows whose summaries `survivors` had no room for.
    ended: Vec<Ended>,
    /// The senders of compressed messages.
    pub compressed_by: Vec<Sender>,
}

impl Judged {
    /// Whether there is nothing to deliver.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.survivors.is_empty() && self.copies.is_empty()
    }
}

/// What is known of the frame that was parsed last.
#[derive(Debug)]
struct Last<'f> {
    message: Message<'f>,
    sender: Sender,
    policy: PolicyId,
    /// `None` if the engine judges it.
    unjudged: Option<Fate>,
    is_binary: bool,
}

/// The counts of one batch.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    octets: u64,
    unparsed: u64,
    binary: u64,
    /// Frames that no rule takes.
    default: Fates,
    /// By rule; empty if there are no rules.
    rules: Vec<Fates>,
    /// By reason; empty in almost every batch.
    refused: Vec<(DropReason, u64)>,
    /// The senders of compressed messages, each once; empty in almost every batch.
    compressed_by: Vec<Sender>,
}

impl Tally {
    fn new(rules: &Rules) -> Self {
        Self {
            rules: vec![Fates::default(); rules.rules().len()],
            ..Self::default()
        }
    }

    #[inline]
    fn count(&mut self, policy: PolicyId, fate: Fate) {
        // The two policies before the first rule are counted together.
        let fates = match policy.index().checked_sub(LITERAL.index() + 1) {
            Some(rule) => &mut self.rules[rule],
            None => &mut self.default,
        };
        fates.count(fate);
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

    /// Adds the fates under each rule to the counters of that rule; returns how many frames are queued, and how many
    /// were suppressed.
    fn count_rules(&self, in_force: &InForce) -> (u64, u64) {
        let ids = (LITERAL.0 + 1..).map(PolicyId);
        let rules = ids.zip(&self.rules);
        let (mut queued, mut suppressed) = (0, 0);
        for (id, fates) in std::iter::once((DEFAULT, &self.default)).chain(rules) {
            if fates.matched == 0 {
                continue;
            }
            queued += fates.forwarded();
            suppressed += fates.suppressed;
            let counters = in_force.counters(id);
            counters.matched.add(fates.matched);
            for (counter, count) in [
                (&counters.suppressed, fates.suppressed),
                (&counters.dropped, fates.dropped),
                (&counters.tagged, fates.annotated),
                (&counters.shadowed, fates.shadowed),
            ] {
                if count > 0 {
                    counter.add(count);
                }
            }
        }
        (queued, suppressed)
    }
}

impl<'f> Batch<'_, 'f> {
    /// When the batch was received.
    #[must_use]
    pub(crate) const fn now(&self) -> Tick {
        self.now
    }

    /// Takes `frame`, which `sender` sent, and judges it at once or together with the frames that follow.
    pub(crate) fn judge(&mut self, frame: &'f [u8], sender: Sender) {
        self.tally.received += 1;
        self.tally.octets += frame.len() as u64;
        fault::look(frame);
        fault::trip("connection");
        if let Some(last) = &self.last
            && last.sender == sender
            && let Some(message) = last.message.repeated(frame)
        {
            let (policy, unjudged, is_binary) = (last.policy, last.unjudged, last.is_binary);
            let sighting = Sighting {
                frame,
                timestamp: message.timestamp(),
                variant: None,
            };
            if unjudged.is_some() || self.group.push_again(sighting) {
                self.tally.unparsed += u64::from(message.format == Format::Unparsed);
                self.tally.binary += u64::from(is_binary);
                self.collect(policy, unjudged, frame);
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
        let fall = rules.fall(policy);
        let unjudged = Fate::unjudged(fall, message.compressed);
        if unjudged.is_none() {
            let identifier = &self.identifier;
            let spec = &fall.policy.identity;
            let origin = Origin {
                sender,
                listener: self.listener.name(),
            };
            let variant = identifier.variant(spec, &message, sender);
            let seen = (frame, message.timestamp());
            self.group.push(policy, seen, variant, |octets| {
                identifier.append_by(spec, &message, origin, octets)
            });
        }
        // The identity of a message that is never suppressed holds its timestamp, so `Message::repeated` says too little.
        self.last = (!message.never_suppress).then_some(Last {
            message,
            sender,
            policy,
            unjudged,
            is_binary,
        });
        self.collect(policy, unjudged, frame);
    }

    /// Collects a frame in the group, unless it ends here. If the engine judges it, it is in the group already.
    fn collect(&mut self, policy: PolicyId, unjudged: Option<Fate>, frame: &'f [u8]) {
        match unjudged {
            None => {}
            Some(fate @ Fate::Dropped) => {
                self.tally.count(policy, fate);
                self.tally.refuse(DropReason::Rule);
                return;
            }
            // It passes through the group, so that it keeps its place among the others.
            Some(_) => self.group.push_passed(policy, frame),
        }
        if self.group.is_full() {
            self.judge_group();
        }
    }

    /// Judges all frames in the group, and does with each what its fate is.
    fn judge_group(&mut self) {
        let Pipeline {
            shards, delivery, ..
        } = self.pipeline;
        self.is_judging = true;
        #[cfg(debug_assertions)]
        if fault::is_due("shard") {
            shards.break_one();
        }
        shards.offer_group(&mut self.group, self.now);
        let (chunk, tally) = (&mut self.chunk, &mut self.tally);
        let mut copies = self.copies_door.is_some().then_some(&mut self.copies);
        let rules = &self.in_force.rules;
        self.group
            .drain(&mut self.ended, |policy, frame, verdict, ended| {
                let (seen, claim) = match verdict {
                    Verdict::Fresh(claim) => {
                        // The summary of a window comes before the copy that opens the next one.
                        delivery.ledger().report(ended, chunk);
                        (Seen::Fresh, claim)
                    }
                    // If it is forwarded all the same, no window belongs to that delivery.
                    Verdict::Duplicate => (Seen::Repeat, Claim::VOID),
                };
                let fate = Fate::of(rules.fall(policy), seen);
                tally.count(policy, fate);
                match fate {
                    Fate::Forwarded | Fate::Shadowed => {
                        chunk.push(frame, Entry::Survivor(claim));
                    }
                    Fate::Annotated(annotation) => {
                        chunk.push_with(Entry::Survivor(claim), |out| {
                            annotation.write(out, frame);
                            true
                        });
                    }
                    Fate::Suppressed => {
                        if let Some(copies) = &mut copies {
                            copies.push(frame, Entry::Copy);
                        }
                    }
                    Fate::Dropped => unreachable!("a frame that its rule drops is not collected"),
                }
            });
        self.is_judging = false;
    }

    /// Counts a frame that was received and is not judged.
    pub(crate) fn refuse(&mut self, frame: &[u8], reason: DropReason) {
        self.tally.received += 1;
        self.tally.octets += frame.len() as u64;
        self.tally.refuse(reason);
    }

    /// Judges the frames that are left, counts the batch and returns its outcome.
    pub(crate) fn finish(mut self) -> Judged {
        self.judge_group();
        let receipt = self.receipt.take();
        let receipt = receipt.expect("a batch is finished once");
        GROUP.set(mem::replace(&mut self.group, Group::new()).recycled());
        self.pipeline
            .delivery
            .ledger()
            .report(&mut self.ended, &mut self.chunk);
        // In before out: a scrape between the two sees frames in hand, never more frames out than in.
        self.listener.received.add(self.tally.received);
        self.listener.octets.add(self.tally.octets);
        let frames = &self.pipeline.metrics.frames;
        let (queued, suppressed) = self.tally.count_rules(&self.in_force);
        frames.queued.add(queued);
        frames.suppressed.add(suppressed);
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
            ended: mem::take(&mut self.ended),
            compressed_by: mem::take(&mut self.tally.compressed_by),
        }
    }

    /// A panic interrupted the batch: counts what is in it as lost, and reopens the windows of its survivors. The
    /// reports of copies that were suppressed under these are lost, too.
    fn give_up(&mut self) {
        if self.is_judging {
            self.pipeline.panics.break_core();
        }
        let Metrics { frames, copies, .. } = &*self.pipeline.metrics;
        let (_, suppressed) = self.tally.count_rules(&self.in_force);
        let refused: u64 = self.tally.refused.iter().map(|(_, count)| count).sum();
        self.listener.received.add(self.tally.received);
        self.listener.octets.add(self.tally.octets);
        frames.suppressed.add(suppressed);
        for &(reason, count) in &self.tally.refused {
            frames.dropped[reason].add(count);
        }
        let lost = self.tally.received.saturating_sub(suppressed + refused);
        frames.dropped[DropReason::Panic].add(lost);
        let kept = self.copies.len() as u64;
        if kept > 0 {
            copies.take(kept);
            copies.lose(DropReason::Panic, kept);
        }
        let is_core_broken = self.pipeline.panics.is_core_broken();
        let mut summaries = 0;
        for (_, entry, _) in self.chunk.entries() {
            match entry {
                // With a broken core the process ends, and its windows with it.
                Entry::Survivor(claim) if !is_core_broken => {
                    self.pipeline.shards.reopen(claim, &mut self.ended);
                }
                Entry::Survivor(_) | Entry::Copy => {}
                Entry::Summary(_) => summaries += 1,
            }
        }
        let ledger = self.pipeline.delivery.ledger();
        ledger.drop_reports(&mut self.ended, DropReason::Panic);
        self.pipeline.metrics.summaries.dropped[DropReason::Panic].add(summaries);
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
    /// The memory of a worker's group between two batches.
    static GROUP: Cell<Group<'static>> = const { Cell::new(Group::new()) };

    /// The same for survivors.
    static CHUNK: Cell<Chunk> = Cell::default();

    /// The same for copies.
    static COPIES: Cell<Chunk> = Cell::default();
}

/// How long `advance` works before it returns to its caller, if its summaries do not have to wait.
const ADVANCE_MAX: Duration = Duration::from_millis(100);

/// Marks that all shards together retire at a time: writing their summaries takes half a millisecond.
const RETIRED_AT_ONCE: usize = 512;

/// Marks that one shard retires under one lock, at least and at most.
const RETIRED_MIN_MAX: (usize, usize) = (4, 256);

/// Summaries wait while the queue holds more octets than this.
const GIVE_WAY_OCTETS: u64 = 128 * 1024;

/// How often they wait, at most: while an upstream is away, they must not wait forever.
const GIVE_WAY_TIMES: u32 = 20;

/// How long they wait before the queue is looked at again.
const GIVE_WAY_PERIOD: Duration = Duration::from_millis(1);
