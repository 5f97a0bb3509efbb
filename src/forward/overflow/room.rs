//! Room: the oldest frames are dropped from the disk to make room for newer ones.
//!
//! # Guarantees
//!
//! - The oldest frames on the disk are dropped, in order and each once. They are read as if to be sent. So exactly
//!   their windows reopen (law 7), the summaries among them are counted as dropped, and damage is counted as damage.
//! - Frames that were read and that no lane has taken are older. They are dropped before those on the disk.
//! - One segment is dropped at a time: less gives no space back.
//! - Nothing is dropped if there is room again before that: what lanes deliver gives space back, too.
//! - The summaries of copies that were suppressed under dropped survivors are written behind the batch that made room
//!   necessary, as far as there is room. Nothing is dropped for them: a summary is longer than its message, so room
//!   for summaries would cost newer survivors, whose summaries would need more. Summaries without room are counted as
//!   dropped.
//!
//! # Left out
//!
//! - The answer to a RELP sender. It was sent when the disk had the message. An operator who chooses `drop-oldest`
//!   prefers the newest messages.
//! - Chunks that a lane has in hand. The lane keeps them, but the disk does not.

use std::sync::Arc;

use super::{Overflow, on_disk, state::Reading};
use crate::{
    config::WhenFull,
    delivery::{
        chunk::{Chunk, Entry},
        ledger::Ledger,
    },
    metrics::{DropReason, Metrics},
    spool::{Position, Spool, SpoolError},
};

impl Overflow {
    /// Whether to drop the oldest frames after `error`. Not for a batch that does not fit into an empty spool.
    pub(super) fn drops_oldest_for(&self, error: &SpoolError) -> bool {
        let may_fit = !matches!(error, SpoolError::Full { more, max, .. } if more >= max);
        error.is_full() && may_fit && self.config.borrow().when_full == WhenFull::DropOldest
    }

    /// Waits until the disk, which refused an append with `error`, has room again, or no call reads; in the second case
    /// drops the oldest frames: those that were read and that no lane has taken, then those on the disk. Returns whether
    /// to append again. Adds the summaries to `summaries`.
    pub(super) async fn make_room(&self, error: &SpoolError, summaries: &mut Vec<Chunk>) -> bool {
        let held = (self.spool.octets(), self.spool.records());
        loop {
            let changed = self.changed.notified();
            if self.has_room_again(error, held) {
                return true;
            }
            if self.lock().way.passage().begin_drop() {
                break;
            }
            changed.await;
        }
        let oldest = {
            let mut state = self.lock();
            let passage = state.way.passage();
            let ready = std::mem::take(&mut passage.ready);
            // Chunks without a receipt are empty, or summaries that were made here: the newest.
            let (oldest, others): (Vec<_>, Vec<_>) = ready
                .into_iter()
                .partition(|chunk| chunk.receipt().is_some());
            passage.ready = others.into();
            oldest
        };
        let upto = self.read_position();
        let spool = Arc::clone(&self.spool);
        let (ledger, metrics) = (Arc::clone(&self.ledger), Arc::clone(&self.metrics));
        let dropped = on_disk(move || make_room(&spool, &ledger, &metrics, oldest, upto)).await;
        let made_room = self.record_dropped(dropped, summaries);
        self.lock().way.passage().reading = Reading::Due;
        self.changed.notify_waiters();
        made_room
    }

    /// Whether the disk, which refused an append with `error`, may take it now. It held octets and records, as in `held`.
    fn has_room_again(&self, error: &SpoolError, held: (u64, u64)) -> bool {
        let octets = self.spool.octets();
        let fits = match error {
            SpoolError::Full { more, max, .. } => octets + more <= *max,
            _ => octets < held.0,
        };
        // The last segment of a spool that has drained is removed by the next append that needs its room.
        let has_drained = held.1 > 0 && self.spool.records() == 0;
        fits || has_drained
    }

    /// The position behind the last batch that was read, unless all are settled.
    pub(super) fn read_position(&self) -> Option<Position> {
        self.lock().positions.back().map(|(_, upto)| *upto)
    }

    /// Records what was dropped. Returns whether there is room now, and adds the summaries to `summaries`.
    pub(super) fn record_dropped(&self, dropped: Dropped, summaries: &mut Vec<Chunk>) -> bool {
        let mut state = self.lock();
        state.log.dropped += dropped.frames;
        match dropped.read_error {
            Some(error) => state.disk.reading.failed(&error, &self.metrics),
            None => {
                state.disk.reading.succeeded();
            }
        }
        if let Some(error) = dropped.acknowledge_error {
            state.disk.acknowledging.failed(&error, &self.metrics);
        }
        summaries.extend(dropped.summaries);
        dropped.made_room
    }
}

/// What a call dropped.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    frames: u64,
    /// The summaries of copies that were suppressed under them.
    summaries: Vec<Chunk>,
    /// A segment was removed, or everything that was left is acknowledged.
    made_room: bool,
    /// Why the oldest records on the disk could not be read.
    read_error: Option<SpoolError>,
    /// Why they could not be acknowledged.
    acknowledge_error: Option<SpoolError>,
}

impl Dropped {
    /// Drops a chunk that was read and not delivered.
    fn drop_chunk(&mut self, chunk: &Chunk, ledger: &Ledger) {
        let entries = chunk.entries();
        let survivors = entries.filter(|(_, entry, _)| matches!(entry, Entry::Survivor(_)));
        self.frames += survivors.count() as u64;
        self.keep(ledger.dropped(chunk, DropReason::QueueFull));
    }

    fn keep(&mut self, summaries: Option<Chunk>) {
        let summaries = summaries.filter(|chunk| !chunk.is_empty());
        self.summaries.extend(summaries);
    }

    /// Drops the oldest records on the disk until that gives space back. Waits for the disk.
    fn drop_oldest(&mut self, spool: &Spool, ledger: &Ledger, metrics: &Metrics) {
        let before = spool.octets();
        while !self.made_room {
            let batch = match spool.read(READ_OCTETS) {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    self.made_room = self.frames > 0;
                    return;
                }
                Err(error) => {
                    self.read_error = Some(error);
                    return;
                }
            };
            if batch.lost > 0 {
                metrics.frames.lose(DropReason::SpoolDamaged, batch.lost);
                ledger.end_all_windows();
            }
            self.drop_chunk(&batch.chunk, ledger);
            if let Err(error) = spool.acknowledge(batch.upto) {
                self.acknowledge_error = Some(error);
                return;
            }
            self.made_room = spool.octets() < before;
        }
    }
}

/// Drops `oldest`, which was read from the disk before `upto`, and then the oldest records on the disk. Waits for the
/// disk.
pub(super) fn make_room(
    spool: &Spool,
    ledger: &Ledger,
    metrics: &Metrics,
    oldest: Vec<Chunk>,
    upto: Option<Position>,
) -> Dropped {
    let before = spool.octets();
    let mut dropped = Dropped::default();
    for chunk in oldest {
        dropped.drop_chunk(&chunk, ledger);
    }
    // What a lane has in hand is only in memory from now on.
    if let Some(upto) = upto
        && let Err(error) = spool.acknowledge(upto)
    {
        dropped.acknowledge_error = Some(error);
    }
    dropped.made_room = spool.octets() < before;
    dropped.drop_oldest(spool, ledger, metrics);
    dropped
}

/// Writes `summaries` as far as there is room, and drops the others. Returns those that the disk refused for another
/// reason. Waits for the disk.
pub(super) fn append_summaries(
    spool: &Spool,
    ledger: &Ledger,
    summaries: Vec<Chunk>,
) -> Vec<Chunk> {
    let octets: usize = summaries.iter().map(Chunk::footprint).sum();
    let part_octets = (octets / PARTS).max(PART_OCTETS_MIN);
    let (mut is_full, mut refused) = (false, Vec::new());
    for mut chunk in summaries {
        while !chunk.is_empty() {
            let mut part = chunk.split_front(part_octets);
            if part.is_empty() {
                part = chunk.split_first();
            }
            if !is_full && refused.is_empty() {
                match spool.append(std::slice::from_ref(&part)) {
                    Ok(()) => continue,
                    Err(error) => is_full = error.is_full(),
                }
            }
            if is_full {
                ledger.dropped(&part, DropReason::QueueFull);
            } else {
                refused.push(part);
            }
        }
    }
    refused
}

/// Summaries are written in about this many parts at most, because each part costs a wait for the disk. The ends of
/// chunks make more parts.
const PARTS: usize = 16;

/// The least octets of a part.
const PART_OCTETS_MIN: usize = 64 << 10;

/// Octets read at once.
const READ_OCTETS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        core::dedup::{Claim, Shards},
    };

    fn chunk(count: u64, entry: Entry) -> Chunk {
        let mut chunk = Chunk::default();
        for _ in 0..count {
            chunk.push(&[b'x'; 1000], entry);
        }
        chunk
    }

    /// Otherwise each dropped survivor would cost a newer one.
    #[test]
    fn summaries_take_the_room_that_is_there_and_nothing_is_dropped_for_them() {
        let above = tempfile::TempDir::new().unwrap();
        let spool = Spool::open(&above.path().join("spool"), 1 << 20).unwrap();
        let metrics = Metrics::new();
        let rules = Config::default().rules;
        let policies: Vec<_> = rules.policies().map(|policy| policy.window).collect();
        let shards = Arc::new(Shards::new(1, &policies, 1 << 20));
        let ledger = Ledger::new(Arc::clone(&metrics), shards, rules);
        let survivors = || chunk(100, Entry::Survivor(Claim::VOID));
        while spool.append(&[survivors()]).is_ok() {}
        let before = spool.survivors();

        metrics.frames.queued.add(before);
        let dropped = make_room(&spool, &ledger, &metrics, Vec::new(), None);
        assert!(dropped.made_room && dropped.frames < before);
        let left = spool.survivors();
        assert_eq!(dropped.frames, before - left);
        let queue_full = &metrics.frames.dropped[DropReason::QueueFull];
        assert_eq!(queue_full.get(), dropped.frames);

        let refused = append_summaries(&spool, &ledger, vec![chunk(1000, Entry::Summary(1))]);
        assert!(refused.is_empty());
        assert_eq!(spool.survivors(), left);
        let kept = spool.records() - left;
        let lost = metrics.summaries.dropped[DropReason::QueueFull].get();
        assert!(kept > 0 && lost > 0, "{kept} kept, {lost} lost");
        assert_eq!(kept + lost, 1000);
    }
}
