//! The memory queue between those who judge and those who forward: chunks, bounded in octets.
//!
//! ```text
//! readers ──push──▶ [chunk][chunk][chunk] ──pop──▶ lanes
//!            │ full: wait, or drop the newest, or drop the oldest; wait while a disk makes room
//! ```
//!
//! # Guarantees
//!
//! - The chunks in the queue never keep more than the bound in memory.
//! - Chunks leave in the order in which they were admitted; those who wait are admitted in the order in
//!   which they came.
//! - What is dropped is handed to the caller, who counts it and reopens its windows.
//! - Small chunks that come while others wait are put together: of two neighbours at least one is larger than
//!   [`SMALL_OCTETS_MAX`], or both are larger than [`MERGED_OCTETS_MAX`] together. So what a chunk costs beside its
//!   entries, which the bound does not see, is a small part of it.
//!
//! # Left out
//!
//! The batch that a lane has in hand and its resend ring, which have bounds of their own.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    select,
    sync::{Notify, Semaphore, watch},
};

use crate::{
    chunk::Chunk,
    clock::Clock,
    config::WhenFull,
    metrics::{Metrics, PauseCounters},
    tick::Tick,
};

/// The memory queue. Lanes pop; everybody pushes.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    /// One permit an octet of room. FIFO, so nobody who waits is overtaken for ever.
    room: Semaphore,
    /// Wakes those who pop.
    filled: Notify,
    /// Wakes those who wait for more room than there is now.
    resized: Notify,
    /// The queue was closed, or is closed and was emptied.
    ended: Notify,
    /// The queue holds more than somebody asked to be told of, or somebody waits.
    alarm: Notify,
    /// How many wait for room.
    waiting: AtomicUsize,
    /// The disk makes room.
    relief: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    /// What the metrics say of it is about survivors, not about copies.
    of_survivors: bool,
}

/// Somebody waits, until dropped.
struct Waiting<'o>(&'o Outbox);

impl<'o> Waiting<'o> {
    fn begin(outbox: &'o Outbox) -> Self {
        if outbox.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            // Added, not set: one that just ends waiting does the same at any time.
            outbox.pauses().now.add(1);
            outbox.pauses().total.inc();
        }
        outbox.alarm.notify_one();
        Self(outbox)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.pauses().now.sub(1);
        }
    }
}

#[derive(Debug)]
struct State {
    /// Each with the room that it takes and when it came; of chunks that were put together, the first.
    chunks: VecDeque<(Chunk, u32, Tick)>,
    /// Octets that the queue may hold.
    bound: u32,
    /// Permits in use beyond `bound`, because it became smaller: taken away as they come back.
    excess: u32,
    /// Octets admitted and not popped.
    held: u64,
    /// From how many octets on the alarm goes.
    alarm_above: u64,
    /// No chunk comes any more.
    closed: bool,
    /// The last chunk has more memory than it needs, for small ones to come.
    is_open: bool,
}

impl State {
    /// Puts `chunk`, for which `charged` octets of room were taken, behind the others; gives how many of those it keeps.
    fn put(&mut self, mut chunk: Chunk, charged: u32) -> u32 {
        if let Some((last, sum, _)) = self.chunks.back_mut() {
            let before = last.used();
            if chunk.used() <= SMALL_OCTETS_MAX {
                match last.absorb(chunk, MERGED_OCTETS_MAX) {
                    Ok(()) => {
                        self.is_open = true;
                        let more = u32::try_from(last.used() - before).unwrap_or(u32::MAX);
                        let kept = more.min(charged);
                        *sum += kept;
                        return kept;
                    }
                    Err(alone) => chunk = alone,
                }
            }
            if std::mem::take(&mut self.is_open) {
                last.shrink_to_fit();
            }
        }
        self.chunks.push_back((chunk, charged, Clock::now()));
        charged
    }
}

impl Outbox {
    /// An empty queue of survivors that holds up to `bound` octets (at most 4 GiB less one). `metrics` say what waits in it.
    #[must_use]
    pub fn new(bound: usize, metrics: Arc<Metrics>) -> Self {
        let bound = u32::try_from(bound).unwrap_or(u32::MAX);
        Self {
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                bound,
                excess: 0,
                held: 0,
                alarm_above: u64::MAX,
                closed: false,
                is_open: false,
            }),
            room: Semaphore::new(bound as usize),
            filled: Notify::new(),
            resized: Notify::new(),
            ended: Notify::new(),
            alarm: Notify::new(),
            waiting: AtomicUsize::new(0),
            relief: watch::Sender::new(false),
            metrics,
            of_survivors: true,
        }
    }

    /// An empty queue of copies. `metrics` say whether a reader waits for room in it.
    #[must_use]
    pub fn of_copies(bound: usize, metrics: Arc<Metrics>) -> Self {
        let outbox = Self {
            of_survivors: false,
            ..Self::new(bound, metrics)
        };
        outbox.tell_limit(bound);
        outbox
    }

    /// Admits `chunk` according to `when_full` and gives back what had to be dropped for it. While the disk makes
    /// room, nothing is dropped, but waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the chunk is lost without being counted: callers await it to its end
    /// or are ended with the process.
    pub async fn push(&self, mut chunk: Chunk, when_full: WhenFull) -> Vec<Chunk> {
        let mut dropped = Vec::new();
        if chunk.is_empty() {
            return dropped;
        }
        chunk.shrink();
        if when_full != WhenFull::Wait {
            let mut relief = self.relief.subscribe();
            select! {
                biased;
                Some(need) = self.wait_for_room(&mut chunk), if *relief.borrow_and_update() => {
                    self.admit(chunk, need);
                    return dropped;
                }
                _ = relief.wait_for(|relieved| !relieved) => {}
            }
        }
        let need = self.need(&chunk);
        match when_full {
            WhenFull::Wait => match self.wait_for_room(&mut chunk).await {
                Some(need) => self.admit(chunk, need),
                None => dropped.push(chunk),
            },
            WhenFull::DropNewest => {
                if self.take_room(need) {
                    self.admit(chunk, need);
                } else {
                    let front = chunk.split_front(self.room.available_permits());
                    let need = self.need(&front);
                    if !front.is_empty() && self.take_room(need) {
                        self.admit(front, need);
                        dropped.push(chunk);
                    } else {
                        dropped.extend([front, chunk].into_iter().filter(|part| !part.is_empty()));
                    }
                }
            }
            WhenFull::DropOldest => {
                while !self.take_room(need) {
                    if self.room.is_closed() {
                        dropped.push(chunk);
                        return dropped;
                    }
                    match self.drop_oldest(need) {
                        Some(oldest) => dropped.push(oldest),
                        // Everything in the queue was dropped, and others took the room since.
                        None => {
                            dropped.push(chunk);
                            return dropped;
                        }
                    }
                }
                self.admit(chunk, need);
            }
        }
        dropped
    }

    /// Takes chunks off the front, up to `octets` of them together but at least one; `None` once the
    /// queue is closed and empty.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was taken.
    pub async fn pop(&self, octets: usize) -> Option<Vec<Chunk>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if !state.chunks.is_empty() {
                    return Some(self.take(&mut state, octets));
                }
                if state.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Takes what is there now, up to `octets` of chunks together.
    pub fn try_pop(&self, octets: usize) -> Vec<Chunk> {
        self.take(&mut self.lock(), octets)
    }

    /// No chunk comes any more: those who wait get theirs back as dropped, and [`Outbox::pop`] ends
    /// when the queue is empty.
    pub fn close(&self) {
        self.room.close();
        self.lock().closed = true;
        self.ended.notify_waiters();
        self.filled.notify_waiters();
    }

    /// Waits until the queue was closed, or is closed and was emptied, from now on.
    pub(super) fn ended(&self) -> impl Future<Output = ()> {
        self.ended.notified()
    }

    /// True if no chunk is in the queue.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().chunks.is_empty()
    }

    /// True once [`Outbox::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// Whether the disk makes room: then nothing is dropped.
    pub(super) fn set_relief(&self, relieved: bool) {
        self.relief.send_replace(relieved);
    }

    /// Whether somebody waits for room.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until the queue may hold more than `octets`, or somebody waits for room. For one caller, whose latest
    /// call counts.
    pub(super) fn above(&self, octets: u64) -> impl Future<Output = ()> {
        self.lock().alarm_above = octets;
        self.alarm.notified()
    }

    /// Octets that the queue may hold.
    #[must_use]
    pub fn bound(&self) -> u64 {
        u64::from(self.lock().bound)
    }

    /// Octets in the queue.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.lock().held
    }

    /// Changes the bound. A smaller one takes effect as the queue drains.
    pub fn resize(&self, bound: usize) {
        let bound = u32::try_from(bound).unwrap_or(u32::MAX);
        let mut state = self.lock();
        if let Some(more) = bound.checked_sub(state.bound) {
            self.release(&mut state, more);
        } else {
            state.excess += state.bound - bound;
            self.take_excess(&mut state);
        }
        state.bound = bound;
        drop(state);
        self.tell_limit(bound as usize);
        self.resized.notify_waiters();
    }

    /// Takes the room that `chunk` needs, as soon as there is so much; gives how much that is, or
    /// `None` once the queue is closed. While it waits the chunk keeps no more than it needs.
    async fn wait_for_room(&self, chunk: &mut Chunk) -> Option<u32> {
        let need = self.need(chunk);
        if self.take_room(need) {
            return Some(need);
        }
        chunk.shrink_to_fit();
        let _waiting = Waiting::begin(self);
        loop {
            let resized = self.resized.notified();
            let need = self.need(chunk);
            select! {
                biased;
                room = self.room.acquire_many(need) => {
                    room.ok()?.forget();
                    return Some(need);
                }
                // What it had of its room by then went back; part of it may be too much now.
                () = resized => self.take_excess(&mut self.lock()),
            }
        }
    }

    /// `octets` of room come back, less what there is too much.
    fn release(&self, state: &mut State, octets: u32) {
        let taken = octets.min(state.excess);
        state.excess -= taken;
        self.room.add_permits((octets - taken) as usize);
    }

    /// Takes away what there is too much, as far as nobody uses it.
    fn take_excess(&self, state: &mut State) {
        let taken = self.room.forget_permits(state.excess as usize);
        state.excess -= u32::try_from(taken).unwrap_or(state.excess);
    }

    /// A chunk larger than the whole queue is charged as much as the queue holds: it goes in alone.
    fn need(&self, chunk: &Chunk) -> u32 {
        u32::try_from(chunk.footprint())
            .unwrap_or(u32::MAX)
            .min(self.lock().bound)
    }

    fn take_room(&self, need: u32) -> bool {
        self.room
            .try_acquire_many(need)
            .map(tokio::sync::SemaphorePermit::forget)
            .is_ok()
    }

    fn admit(&self, chunk: Chunk, charged: u32) {
        let mut state = self.lock();
        let kept = state.put(chunk, charged);
        state.held += u64::from(kept);
        self.release(&mut state, charged - kept);
        self.tell(&state);
        let is_above = state.held > state.alarm_above;
        drop(state);
        self.filled.notify_one();
        if is_above {
            self.alarm.notify_one();
        }
    }

    /// Takes off the front what makes room for `need` octets, a whole chunk if it comes to that;
    /// `None` if the queue is empty.
    fn drop_oldest(&self, need: u32) -> Option<Chunk> {
        let mut state = self.lock();
        let (mut chunk, charged, since) = state.chunks.pop_front()?;
        let missing = (need as usize).saturating_sub(self.room.available_permits());
        let oldest = chunk.split_front(missing + DROP_AHEAD_OCTETS);
        let (oldest, freed) = if oldest.is_empty() || chunk.is_empty() {
            (if oldest.is_empty() { chunk } else { oldest }, charged)
        } else {
            // A chunk keeps its memory until its last entry leaves, so the rest moves to a new one.
            let rest = chunk.split_front(usize::MAX);
            let kept = u32::try_from(rest.footprint())
                .unwrap_or(u32::MAX)
                .min(charged);
            state.chunks.push_front((rest, kept, since));
            (oldest, charged - kept)
        };
        state.held -= u64::from(freed);
        self.release(&mut state, freed);
        self.tell(&state);
        Some(oldest)
    }

    fn take(&self, state: &mut State, octets: usize) -> Vec<Chunk> {
        let mut taken = Vec::new();
        let mut sum = 0;
        let mut freed = 0_u32;
        while let Some((chunk, ..)) = state.chunks.front() {
            sum += chunk.footprint();
            if !taken.is_empty() && sum > octets {
                break;
            }
            let Some((chunk, charged, _)) = state.chunks.pop_front() else {
                break;
            };
            freed = freed.saturating_add(charged);
            taken.push(chunk);
        }
        state.held -= u64::from(freed);
        self.release(state, freed);
        self.tell(state);
        if state.closed && state.chunks.is_empty() {
            self.ended.notify_waiters();
            self.filled.notify_waiters();
        }
        taken
    }

    fn pauses(&self) -> &PauseCounters {
        match self.of_survivors {
            true => &self.metrics.pauses,
            false => &self.metrics.copies.pauses,
        }
    }

    fn tell_limit(&self, bound: usize) {
        if !self.of_survivors {
            self.metrics.copies.queue_limit.set(bound as u64);
        }
    }

    /// Lets the metrics say how much waits, and since when.
    fn tell(&self, state: &State) {
        if self.of_survivors {
            let oldest = state.chunks.front().map(|(.., since)| *since);
            self.metrics.tell_queue(state.held, oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere while the lock was held cannot leave the queue half-changed in a way that
        // matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that is made at once beyond what is needed, so that not every push splits a chunk.
const DROP_AHEAD_OCTETS: usize = 4096;

/// A chunk that uses more than this stays alone.
const SMALL_OCTETS_MAX: usize = 2048;

/// Small chunks are put together until they use so much.
const MERGED_OCTETS_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chunk::Entry, dedup::Claim};

    fn chunk(frames: std::ops::Range<u32>) -> Chunk {
        let mut chunk = Chunk::default();
        for number in frames {
            chunk.push(
                format!("frame {number:04}").as_bytes(),
                Entry::Survivor(Claim::VOID),
            );
        }
        // With no more memory than it needs.
        chunk.split_front(usize::MAX)
    }

    fn numbers<'a>(chunks: impl IntoIterator<Item = &'a Chunk>) -> Vec<u32> {
        chunks
            .into_iter()
            .flat_map(Chunk::entries)
            .map(|(frame, _, _)| std::str::from_utf8(&frame[6..]).unwrap().parse().unwrap())
            .collect()
    }

    const ONE: usize = 10 + Chunk::ENTRY_OVERHEAD_OCTETS;

    #[tokio::test]
    async fn drop_newest_keeps_what_was_there_and_fills_the_last_room() {
        let outbox = Outbox::new(5 * ONE, Metrics::new());
        assert!(
            outbox
                .push(chunk(0..3), WhenFull::DropNewest)
                .await
                .is_empty()
        );
        let dropped = outbox.push(chunk(3..9), WhenFull::DropNewest).await;
        let kept = outbox.try_pop(usize::MAX);
        assert_eq!(numbers(&kept), [0, 1, 2, 3, 4]);
        assert_eq!(numbers(&dropped), [5, 6, 7, 8]);
        assert_eq!(outbox.octets(), 0);
    }

    #[tokio::test]
    async fn drop_oldest_keeps_the_newest_in_order() {
        let outbox = Outbox::new(1000 * ONE, Metrics::new());
        let mut dropped = Vec::new();
        for start in (0..5000).step_by(100) {
            dropped.extend(
                outbox
                    .push(chunk(start..start + 100), WhenFull::DropOldest)
                    .await,
            );
            assert!(outbox.octets() <= 1000 * ONE as u64);
        }
        let dropped = numbers(&dropped);
        let kept = numbers(&outbox.try_pop(usize::MAX));
        assert!(kept.len() > 700, "{} kept", kept.len());
        assert_eq!([dropped, kept].concat(), (0..5000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn small_chunks_take_no_more_than_their_entries() {
        let count = 2000;
        let outbox = Outbox::new(count * ONE, Metrics::new());
        for number in 0..2000 {
            // As it comes from a worker's memory, with room for more.
            let mut one = Chunk::default();
            let frame = format!("frame {number:04}");
            one.push(frame.as_bytes(), Entry::Survivor(Claim::VOID));
            assert!(outbox.push(one, WhenFull::DropNewest).await.is_empty());
        }
        let kept = outbox.try_pop(usize::MAX);
        assert_eq!(numbers(&kept), (0..2000).collect::<Vec<_>>());
        assert!(kept.len() < 10, "{} chunks", kept.len());
        let footprint: usize = kept.iter().map(Chunk::footprint).sum();
        assert!(footprint <= count * ONE + MERGED_OCTETS_MAX, "{footprint}");
        assert_eq!(outbox.octets(), 0);
        assert!(
            outbox
                .push(chunk(0..2000), WhenFull::DropNewest)
                .await
                .is_empty()
        );
    }

    #[tokio::test]
    async fn whoever_waits_is_admitted_when_room_comes_back() {
        let outbox = Outbox::new(4 * ONE, Metrics::new());
        outbox.push(chunk(0..4), WhenFull::Wait).await;
        let (dropped, popped) = tokio::join!(outbox.push(chunk(4..6), WhenFull::Wait), async {
            tokio::task::yield_now().await;
            assert_eq!(numbers(&outbox.try_pop(0)), [0, 1, 2, 3]);
            outbox.pop(usize::MAX).await
        });
        assert!(dropped.is_empty());
        assert_eq!(numbers(&popped.expect("open")), [4, 5]);
    }

    #[tokio::test]
    async fn a_closed_queue_gives_back_what_waits_and_ends_when_empty() {
        let outbox = Outbox::new(2 * ONE, Metrics::new());
        outbox.push(chunk(0..2), WhenFull::Wait).await;
        let (dropped, ()) = tokio::join!(outbox.push(chunk(2..3), WhenFull::Wait), async {
            tokio::task::yield_now().await;
            outbox.close();
        });
        assert_eq!(numbers(&dropped), [2]);
        assert_eq!(numbers(&outbox.pop(1).await.expect("two are left")), [0, 1]);
        assert!(outbox.pop(1).await.is_none());
    }

    #[tokio::test]
    async fn a_chunk_larger_than_the_queue_goes_in_alone() {
        let outbox = Outbox::new(ONE, Metrics::new());
        assert!(outbox.push(chunk(0..10), WhenFull::Wait).await.is_empty());
        assert_eq!(numbers(&outbox.try_pop(0)).len(), 10);
        assert!(outbox.push(chunk(0..1), WhenFull::Wait).await.is_empty());
    }

    #[tokio::test]
    async fn a_smaller_bound_takes_effect_as_the_queue_drains() {
        let outbox = Outbox::new(10 * ONE, Metrics::new());
        outbox.push(chunk(0..2), WhenFull::Wait).await;
        outbox.resize(4 * ONE);
        let dropped = outbox.push(chunk(2..9), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [4, 5, 6, 7, 8]);
        outbox.resize(6 * ONE);
        let dropped = outbox.push(chunk(9..12), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [11]);
        // What is in use now goes as it leaves.
        outbox.resize(2 * ONE);
        assert_eq!(numbers(&outbox.try_pop(usize::MAX)).len(), 6);
        outbox.push(chunk(12..13), WhenFull::Wait).await;
        let dropped = outbox.push(chunk(13..15), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [14]);
    }

    #[tokio::test]
    async fn whoever_waits_for_more_than_a_smaller_queue_has_goes_in_alone() {
        let outbox = Outbox::new(8 * ONE, Metrics::new());
        outbox.push(chunk(0..4), WhenFull::Wait).await;
        let (dropped, ()) = tokio::join!(outbox.push(chunk(4..12), WhenFull::Wait), async {
            tokio::task::yield_now().await;
            outbox.resize(2 * ONE);
            assert_eq!(numbers(&outbox.try_pop(usize::MAX)), [0, 1, 2, 3]);
        });
        assert!(dropped.is_empty());
        assert_eq!(outbox.octets(), 2 * ONE as u64);
        assert_eq!(numbers(&outbox.try_pop(usize::MAX)).len(), 8);
        outbox.push(chunk(12..13), WhenFull::Wait).await;
        let dropped = outbox.push(chunk(13..15), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [14]);
    }
}
