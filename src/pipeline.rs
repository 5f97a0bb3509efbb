//! The one place that sees every stage: a batch of frames in, a chunk of survivors out.
//!
//! ```text
//! one read or recvmmsg ──▶ Batch: parse ─▶ rule ─▶ identity ─▶ dedup ─▶ Chunk ──▶ delivery
//! ```
//!
//! # Guarantees
//!
//! - A frame is judged by the task that received it, in place: survivors leave in the order in which
//!   they were received.
//! - The clock is read, the rules are looked up and the counters are touched once a batch.
//! - Each frame handed to a batch is counted as received, and as suppressed, queued or dropped.
//!
//! # Left out
//!
//! Framing (the listener knows its transport), and waiting for room (see `forward`).

use std::{cell::Cell, sync::Arc};

use crate::{
    chunk::{Chunk, Entry},
    clock::Clock,
    dedup::{Ended, Group, Shards, Sighting, Verdict},
    forward::Delivery,
    identity::{Identifier, IdentityKind, Key, Sender},
    metrics::{DropReason, ListenerMetrics, Metrics},
    parse::{Format, Message},
    rule::Rules,
    tick::Tick,
};

/// What all batches share.
#[derive(Debug)]
pub struct Pipeline {
    /// Every window there is.
    pub shards: Arc<Shards>,
    /// Where survivors go.
    pub delivery: Delivery,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// This run's key.
    pub key: Key,
    /// How identities are kept.
    pub identity: IdentityKind,
}

impl Pipeline {
    /// A batch of frames that `listener` received just now.
    #[must_use]
    pub fn batch<'p, 'f>(&'p self, listener: &'p ListenerMetrics) -> Batch<'p, 'f> {
        Batch {
            pipeline: self,
            listener,
            rules: self.delivery.ledger().rules(),
            now: Clock::now(),
            identifier: Identifier::new(&self.key, self.identity),
            group: GROUP.take().recycled(),
            last: None,
            chunk: Chunk::default(),
            ended: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Retires what is over, so that no count waits for another message. Bounded work for each lock
    /// that is taken; survivors pass in between.
    pub async fn advance(&self) {
        let mut ended = Vec::new();
        loop {
            let more = self.shards.advance(Clock::now(), RETIRE_BITE, &mut ended);
            self.report(&mut ended).await;
            if !more {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Hands over the summaries of what `ended`.
    pub async fn report(&self, ended: &mut Vec<Ended>) {
        let mut chunk = Chunk::default();
        self.delivery.ledger().report(ended, &mut chunk);
        self.delivery.deliver(chunk).await;
    }
}

/// Frames of one read, being judged. They live as long as `'f`: they are looked at again when many of them have
/// come together.
#[derive(Debug)]
pub struct Batch<'p, 'f> {
    pipeline: &'p Pipeline,
    listener: &'p ListenerMetrics,
    rules: Arc<Rules>,
    now: Tick,
    identifier: Identifier<'p>,
    /// Frames that are not judged yet.
    group: Group<'f>,
    /// The frame that was parsed last; those behind it repeat it.
    last: Option<Last<'f>>,
    chunk: Chunk,
    ended: Vec<Ended>,
    tally: Tally,
}

/// A message and who sent it.
#[derive(Debug)]
struct Last<'f> {
    message: Message<'f>,
    sender: Sender,
}

/// Counts of one batch.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    octets: u64,
    unparsed: u64,
    suppressed: u64,
    queued: u64,
    /// By reason; empty on almost every batch.
    refused: Vec<(DropReason, u64)>,
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
        if let Some(last) = &self.last
            && last.sender == sender
            && let Some(message) = last.message.repeated(frame)
        {
            let sighting = Sighting {
                frame,
                timestamp: message.timestamp(),
            };
            if self.group.push_again(sighting) {
                self.tally.unparsed += u64::from(message.format == Format::Unparsed);
                self.settle_if_full();
                return;
            }
        }
        let message = Message::parse(frame);
        self.tally.unparsed += u64::from(message.format == Format::Unparsed);
        let policy = self.rules.policy_for(&message);
        let sighting = Sighting {
            frame,
            timestamp: message.timestamp(),
        };
        let identifier = &self.identifier;
        self.group.push(policy, sighting, |octets| {
            identifier.append(&message, sender, octets)
        });
        // Its timestamp is in its identity.
        self.last = (!message.never_suppress).then_some(Last { message, sender });
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
        shards.offer_group(&mut self.group, self.now);
        let (chunk, tally) = (&mut self.chunk, &mut self.tally);
        self.group
            .settle(&mut self.ended, |frame, verdict, ended| match verdict {
                Verdict::Fresh(claim) => {
                    // What a window held back is reported before the copy that opens the next one.
                    delivery.ledger().report(ended, chunk);
                    tally.queued += 1;
                    chunk.push(frame, Entry::Survivor(claim));
                }
                Verdict::Duplicate => tally.suppressed += 1,
            });
    }

    /// A frame was received and is not judged.
    pub fn refuse(&mut self, frame: &[u8], reason: DropReason) {
        self.tally.received += 1;
        self.tally.octets += frame.len() as u64;
        match self
            .tally
            .refused
            .iter_mut()
            .find(|(counted, _)| *counted == reason)
        {
            Some((_, count)) => *count += 1,
            None => self.tally.refused.push((reason, 1)),
        }
    }

    /// Counts the batch and gives its survivors, already counted as queued: they have to be delivered.
    #[must_use]
    pub fn finish(mut self) -> Chunk {
        self.settle();
        GROUP.set(self.group.recycled());
        self.pipeline
            .delivery
            .ledger()
            .report(&mut self.ended, &mut self.chunk);
        // In before out: whoever reads the counters in between sees frames in hand, never too many.
        self.listener.received.add(self.tally.received);
        self.listener.octets.add(self.tally.octets);
        let frames = &self.pipeline.metrics.frames;
        frames.queued.add(self.tally.queued);
        frames.suppressed.add(self.tally.suppressed);
        frames.unparsed.add(self.tally.unparsed);
        for (reason, count) in self.tally.refused {
            frames.dropped[reason].add(count);
        }
        self.chunk
    }
}

thread_local! {
    /// A worker's memory for what it judges together, between two batches.
    static GROUP: Cell<Group<'static>> = const { Cell::new(Group::new()) };
}

/// Marks that are retired under one hold of a shard's lock when nobody is waiting for a verdict.
const RETIRE_BITE: usize = 256;
