//! The stop: what is on the disk stays there, and what is in memory goes there.
//!
//! # Guarantees
//!
//! - A chunk that was read from the disk is left there if the disk still has it. The next process reads the whole batch
//!   again, with the frames of it that were delivered. If it was dropped there to make room, or its file was removed,
//!   the rest of the chunk is written again, behind the other records.
//! - With `drop-oldest` a full disk makes room for newer frames, as before the stop.

use std::collections::VecDeque;

use tracing::info;

use super::{
    Overflow,
    room::{append_summaries, make_room},
    state::{Passage, Way},
    take,
};
use crate::{delivery::chunk::Chunk, spool::SpoolError};

impl Overflow {
    /// Writes to the spool what is not on the disk, in this order: what was `given_back`, what was read and no lane has
    /// taken, what the disk refused, and what was `queued`. Returns what could not be written. Waits for the disk. Call
    /// it once, after [`Overflow::run`] and all lanes have ended.
    pub(in crate::forward) fn finish(
        &self,
        given_back: Vec<Chunk>,
        queued: Vec<Chunk>,
    ) -> Vec<Chunk> {
        if let Some(position) = self.settled_position()
            && let Err(error) = self.spool.acknowledge(position)
        {
            self.acknowledge_failed(&error);
        }
        let passage = match &mut self.lock().way {
            Way::Memory => Passage::default(),
            Way::Spool(passage) => std::mem::take(passage),
        };
        let in_hand = given_back
            .into_iter()
            .chain(passage.ready)
            .chain(passage.unwritten);
        let (mut on_disk, mut left): (Vec<_>, VecDeque<_>) = (Vec::new(), VecDeque::new());
        for chunk in in_hand.chain(queued).filter(|chunk| !chunk.is_empty()) {
            if self.is_on_disk(&chunk) {
                on_disk.push(chunk);
            } else {
                left.push_back(chunk);
            }
        }
        self.acknowledge_gone();
        let (mut kept, mut summaries) = (0, Vec::new());
        while !left.is_empty() {
            let batch = take(&mut left, self.append_octets);
            let Err(error) = self.spool.append(&batch) else {
                kept += batch.iter().map(Chunk::len).sum::<usize>();
                continue;
            };
            self.lock().disk.writing.would_refuse(&error, &self.metrics);
            for chunk in batch.into_iter().rev() {
                left.push_front(chunk);
            }
            let mut made_room = false;
            if self.drops_oldest_for(&error) {
                let oldest = std::mem::take(&mut on_disk);
                let upto = self.read_position();
                let dropped = make_room(&self.spool, &self.ledger, &self.metrics, oldest, upto);
                made_room = self.record_dropped(dropped, &mut summaries);
            }
            if !made_room {
                left.extend(summaries);
                self.log_dropped();
                self.measure();
                return left.into();
            }
        }
        let refused = append_summaries(&self.spool, &self.ledger, summaries);
        self.log_dropped();
        self.measure();
        let waiting = self.spool.records();
        if waiting > 0 {
            info!(frames = waiting, added = kept, "left in the spool");
        }
        refused
    }

    /// Acknowledges chunks in hand that the disk has no more. They are written again, so the disk must not count them
    /// as lost as well.
    fn acknowledge_gone(&self) {
        let gone = {
            let state = self.lock();
            let ends = state.positions.iter().map(|(_, upto)| *upto);
            ends.take_while(|upto| !self.spool.holds(*upto)).last()
        };
        if let Some(upto) = gone
            && let Err(error) = self.spool.acknowledge(upto)
        {
            self.acknowledge_failed(&error);
        }
    }

    fn acknowledge_failed(&self, error: &SpoolError) {
        let mut state = self.lock();
        state.disk.acknowledging.failed(error, &self.metrics);
    }

    /// Whether a chunk was read from the disk and is still there, so that the next process reads it again.
    fn is_on_disk(&self, chunk: &Chunk) -> bool {
        let Some(receipt) = chunk.receipt().filter(|receipt| receipt.is_of(&self.read)) else {
            return false;
        };
        let state = self.lock();
        // The last one: those before it with the same number are settled.
        let mut newest_first = state.positions.iter().rev();
        let known = newest_first.find(|(number, _)| *number == receipt.number());
        known.is_some_and(|(_, upto)| self.spool.holds(*upto))
    }
}
