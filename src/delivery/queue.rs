//! The memory queue between judging and forwarding: chunks, limited in octets.
//!
//! ```text
//! readers ──push──▶ [chunk][chunk][chunk] ──pop─────▶ lanes
//!                                         ──try_pop─▶ spool; at a stop, what is left to be dropped
//! ```
//!
//! There is one for survivors (and summaries), and one for suppressed copies while these are kept. Only the first has
//! a spool behind it. All lanes of a forwarder pop from the same queue.
//!
//! What happens to a chunk, in [`Queue::push`]:
//!
//! ```text
//!             there is room: take it
//!   ( new ) ─────────────────────────────────────────────────────────▶ ( queued ) ──pop──▶ lane or spool
//!      │                                                                ▲   │
//!      │ full                                                           │   │ drop-oldest: room for a newer chunk
//!      │                                   room comes back              │   ▼
//!      ├─ wait ──────────▶ ( waiting ) ─────────────────────────────────┤ ( dropped )
//!      ├─ drop-*, while ─▶ ( waiting ) ─────────────────────────────────┤   ▲   ▲
//!      │  the spool takes      │  │                                     │   │   │
//!      │  chunks               │  └─ the spool refuses: as below        │   │   │
//!      │                       └──── the queue is closed ───────────────┼───┘   │
//!      ├─ drop-newest ── the front of the chunk that fits ──────────────┤       │
//!      │               └ the rest ──────────────────────────────────────┼───────┘
//!      └─ drop-oldest ── what leaves the front makes room ──────────────┘       │
//!                      └ the queue is empty, without room: the whole chunk ─────┘
//! ```
//!
//! The queue itself:
//!
//! ```text
//!   ( open ) ──close──▶ ( closed ) ──the last chunk leaves──▶ ( ended )
//!   push admits         push drops the whole chunk            pop returns None
//! ```
//!
//! At a stop the daemon closes the queue when all readers have ended and all counts are reported. Lanes go on until the
//! queue has ended, or the spool takes the rest. The daemon closes it sooner if the grace period is over, and the
//! forwarder if all its lanes have ended. A push that took its room just before does not put its chunk in any more. The
//! forwarder, and then the daemon, drop what is left.
//!
//! Room is counted in the permits of a semaphore, one for each octet:
//! permits available + collected by callers that wait + charged to chunks = `bound` + `excess`.
//! A chunk is charged its footprint, at most the whole bound. `excess` is what [`Queue::resize`] could not
//! take away yet, because chunks used it.
//!
//! # Guarantees
//!
//! - The chunks in the queue are charged no more than the bound. After a reload with a smaller bound they may be
//!   charged more, until enough of them have left.
//! - Two chunks may take more memory than they are charged: one that is larger than the whole bound, which goes in
//!   alone, and the last one, while small ones are merged into it (about [`MERGED_OCTETS_MAX`] more).
//! - Chunks leave in the order in which they were admitted. Callers that wait get room in the order in which they
//!   came; after a resize they ask anew.
//! - Dropped chunks are returned to the caller, which counts them, reopens their windows, and tells their batches
//!   (`ledger`).
//! - Small chunks that come while others are queued are merged: of two neighbours at least one is larger than
//!   [`SMALL_OCTETS_MAX`], or together they are larger than [`MERGED_OCTETS_MAX`]. So the memory of a chunk beside its
//!   entries, which the bound does not count, is a small part of it.
//! - A panic leaves the queue usable (`lock`). But a batch may be handed over by half, so the process ends (`panics`).
//!
//! # Left out
//!
//! The batch that a lane has in hand and its resend ring. Both have limits of their own. A kill: what is in memory is
//! gone. A sender that asked whether it is safe was not told so (`custody`).

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    select,
    sync::{Notify, Semaphore, watch},
};

use crate::{
    clock::Clock,
    config::WhenFull,
    core::tick::Tick,
    delivery::chunk::Chunk,
    lock::lock,
    metrics::{Metrics, PauseCounters},
};

/// The memory queue. Readers and the timer that ends windows push; lanes and the spool pop.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// One permit for each octet of room. First in, first out: no waiting caller is overtaken for ever.
    room: Semaphore,
    /// Wakes callers of [`Queue::pop`].
    filled: Notify,
    /// Wakes callers that wait for room, to ask again for what their chunk needs now.
    resized: Notify,
    /// The queue was closed, or was closed before and is now empty.
    ended: Notify,
    /// Wakes the caller of [`Queue::above`]: the queue holds more than it asked for, or a caller began to wait for
    /// room.
    alarm: Notify,
    /// How many callers wait for room.
    waiting: AtomicUsize,
    /// Whether the spool takes chunks from this queue. False without a spool, and while the disk refuses.
    spool_takes: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    /// Whether this is the queue of survivors, and not that of suppressed copies. The metrics count them apart.
    of_survivors: bool,
}

#[derive(Debug)]
struct State {
    /// In the order of admission.
    chunks: VecDeque<Queued>,
    /// Octets that the queue may hold.
    bound: u32,
    /// Permits in use beyond `bound` since it became smaller. They are taken away as chunks leave.
    excess: u32,
    /// Octets charged to `chunks`.
    charged: u64,
    /// The alarm goes off when more octets than this are charged.
    alarm_above: u64,
    is_closed: bool,
    /// Small chunks were merged into the last one, which may have more memory than it needs.
    last_has_spare: bool,
}

#[derive(Debug)]
struct Queued {
    chunk: Chunk,
    /// Permits that it has, which come back when it leaves.
    charged: u32,
    /// When it was admitted; of merged chunks, the first.
    since: Tick,
}

/// Counts a caller that waits for room, until dropped. All callers that wait at the same time are one pause in the
/// metrics, so the guard of `PauseCounters`, which counts a pause for each of them, does not fit.
struct Waiting<'o>(&'o Queue);

impl<'o> Waiting<'o> {
    fn begin(queue: &'o Queue) -> Self {
        if queue.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            // Added, not set: another pause may end at the same time.
            queue.pauses().now.add(1);
            queue.pauses().total.inc();
        }
        queue.alarm.notify_one();
        Self(queue)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.pauses().now.sub(1);
        }
    }
}

impl State {
    /// Puts `chunk`, for which `charged` octets of room were taken, behind the others. A small one goes into the last
    /// chunk, if that has room. The merged chunk keeps the receipt of the batch that was opened first. Returns how many
    /// octets of room the queue keeps. The caller gives the rest back.
    fn put(&mut self, mut chunk: Chunk, charged: u32) -> u32 {
        if let Some(last) = self.chunks.back_mut() {
            let before = last.chunk.used();
            if chunk.used() <= SMALL_OCTETS_MAX {
                match last.chunk.absorb(chunk, MERGED_OCTETS_MAX) {
                    Ok(()) => {
                        self.last_has_spare = true;
                        let more = u32::try_from(last.chunk.used() - before)
                            .expect("a small chunk was absorbed");
                        let kept = more.min(charged);
                        last.charged += kept;
                        return kept;
                    }
                    Err(alone) => chunk = alone,
                }
            }
            if std::mem::take(&mut self.last_has_spare) {
                last.chunk.shrink_to_fit();
            }
        }
        self.chunks.push_back(Queued {
            chunk,
            charged,
            since: Clock::now(),
        });
        charged
    }
}

impl Queue {
    /// An empty queue of survivors that holds up to `bound` octets (at most 4 GiB less one). `metrics` learn what
    /// waits in it.
    #[must_use]
    pub(crate) fn new(bound: usize, metrics: Arc<Metrics>) -> Self {
        let bound = u32::try_from(bound).unwrap_or(u32::MAX);
        Self {
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                bound,
                excess: 0,
                charged: 0,
                alarm_above: u64::MAX,
                is_closed: false,
                last_has_spare: false,
            }),
            room: Semaphore::new(bound as usize),
            filled: Notify::new(),
            resized: Notify::new(),
            ended: Notify::new(),
            alarm: Notify::new(),
            waiting: AtomicUsize::new(0),
            spool_takes: watch::Sender::new(false),
            metrics,
            of_survivors: true,
        }
    }

    /// An empty queue of suppressed copies. `metrics` learn whether a reader waits for room in it.
    #[must_use]
    pub(crate) fn of_copies(bound: usize, metrics: Arc<Metrics>) -> Self {
        let queue = Self {
            of_survivors: false,
            ..Self::new(bound, metrics)
        };
        queue.report_limit(bound);
        queue
    }

    /// Admits `chunk` as `when_full` says. Returns what had to be dropped for it, which may be chunks of others, or
    /// `chunk` itself. The caller settles the loss (`ledger`). While the spool takes chunks from the queue, this waits,
    /// and drops nothing unless the queue is closed. A closed queue admits nothing.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped while it waits, the chunk is lost and not counted, and its batch counts as safe. Await it to
    /// its end, or end with the process.
    pub(crate) async fn push(&self, mut chunk: Chunk, when_full: WhenFull) -> Vec<Chunk> {
        let mut dropped = Vec::new();
        if chunk.is_empty() {
            return dropped;
        }
        chunk.shrink();
        if when_full != WhenFull::Wait {
            let mut spool_takes = self.spool_takes.subscribe();
            select! {
                biased;
                need = self.wait_for_room(&mut chunk), if *spool_takes.borrow_and_update() => {
                    if let Some(need) = need {
                        dropped.extend(self.admit(chunk, need));
                        return dropped;
                    }
                    // The queue is closed: there is no room, so the chunk is dropped below.
                }
                _ = spool_takes.wait_for(|takes| !takes) => {}
            }
        }
        match when_full {
            WhenFull::Wait => match self.wait_for_room(&mut chunk).await {
                Some(need) => dropped.extend(self.admit(chunk, need)),
                None => dropped.push(chunk),
            },
            WhenFull::DropNewest => {
                let need = self.need(&chunk);
                if self.take_room(need) {
                    dropped.extend(self.admit(chunk, need));
                } else {
                    let front = chunk.split_front(self.room.available_permits());
                    let need = self.need(&front);
                    if !front.is_empty() && self.take_room(need) {
                        dropped.extend(self.admit(front, need));
                        dropped.push(chunk);
                    } else {
                        dropped.extend([front, chunk].into_iter().filter(|part| !part.is_empty()));
                    }
                }
            }
            WhenFull::DropOldest => {
                let need = loop {
                    // Asked each time: another thread may resize the queue.
                    let need = self.need(&chunk);
                    if self.take_room(need) {
                        break need;
                    }
                    if self.room.is_closed() {
                        dropped.push(chunk);
                        return dropped;
                    }
                    match self.drop_oldest(need) {
                        Some(oldest) => dropped.push(oldest),
                        // The whole queue was dropped, and other callers took the room since.
                        None => {
                            dropped.push(chunk);
                            return dropped;
                        }
                    }
                };
                dropped.extend(self.admit(chunk, need));
            }
        }
        dropped
    }

    /// Takes chunks off the front, up to `octets` of them together, but at least one. `None` once the
    /// queue is closed and empty.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is ready, nothing was taken, and another caller is woken.
    pub(crate) async fn pop(&self, octets: usize) -> Option<Vec<Chunk>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if !state.chunks.is_empty() {
                    return Some(self.take(&mut state, octets));
                }
                if state.is_closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// As [`Queue::pop`], without waiting: no chunk if the queue is empty, closed or not.
    pub(crate) fn try_pop(&self, octets: usize) -> Vec<Chunk> {
        self.take(&mut self.lock(), octets)
    }

    /// Closes the queue: callers that wait for room get their chunks back as dropped, and [`Queue::pop`] returns `None`
    /// once the queue is empty.
    pub(crate) fn close(&self) {
        self.room.close();
        self.lock().is_closed = true;
        self.ended.notify_waiters();
        self.filled.notify_waiters();
    }

    /// Waits for the next of two events: the queue is closed, or a closed queue becomes empty. An event counts from
    /// this call on, not from the first poll. One that came before does not: make the future, then ask
    /// [`Queue::is_closed`] and [`Queue::is_empty`], then await it.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> {
        self.ended.notified()
    }

    /// True if no chunk is in the queue.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().chunks.is_empty()
    }

    /// True once [`Queue::close`] was called.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// Says whether the spool takes chunks from this queue. While it does, [`Queue::push`] waits and drops nothing. The
    /// forwarder calls this at its start, and after each write to the disk.
    pub(crate) fn set_spool_takes(&self, takes: bool) {
        self.spool_takes.send_replace(takes);
    }

    /// Whether a caller waits for room.
    #[must_use]
    pub(crate) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until the queue may hold more than `octets`, or a caller begins to wait for room. The forwarder then moves
    /// chunks to the spool. There is one alarm: only the latest call counts. What was so before the call need not
    /// wake it: make the future, then ask [`Queue::octets`] and [`Queue::is_pressed`], then await it.
    pub(crate) fn above(&self, octets: u64) -> impl Future<Output = ()> {
        self.lock().alarm_above = octets;
        self.alarm.notified()
    }

    /// Octets that the queue may hold.
    #[must_use]
    pub(crate) fn bound(&self) -> u64 {
        u64::from(self.lock().bound)
    }

    /// Octets charged to the chunks in the queue.
    #[must_use]
    pub(crate) fn octets(&self) -> u64 {
        self.lock().charged
    }

    /// Changes the bound, at a reload. A smaller one takes effect as the queue drains. Nothing is dropped for it.
    pub(crate) fn resize(&self, bound: usize) {
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
        self.report_limit(bound as usize);
        self.resized.notify_waiters();
    }

    /// Takes the room that `chunk` needs, as soon as there is that much. Returns how much it took, or
    /// `None` once the queue is closed. While it waits, the chunk keeps no more memory than it needs.
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
                // The permits that this caller had collected went back; some of them may be excess now.
                () = resized => self.take_excess(&mut self.lock()),
            }
        }
    }

    /// Gives `octets` of room back, except for the excess.
    fn release(&self, state: &mut State, octets: u32) {
        let taken = octets.min(state.excess);
        state.excess -= taken;
        self.room.add_permits((octets - taken) as usize);
    }

    /// Takes the excess away, as far as no chunk uses it.
    fn take_excess(&self, state: &mut State) {
        let taken = self.room.forget_permits(state.excess as usize);
        state.excess -= u32::try_from(taken).expect("no more permits are forgotten than asked for");
    }

    /// Octets of room for `chunk`. A chunk larger than the bound takes the whole room, and goes in alone.
    fn need(&self, chunk: &Chunk) -> u32 {
        u32::try_from(chunk.footprint())
            .unwrap_or(u32::MAX)
            .min(self.lock().bound)
    }

    /// Takes `need` octets of room, if there are that many and the queue is not closed.
    fn take_room(&self, need: u32) -> bool {
        self.room
            .try_acquire_many(need)
            .map(tokio::sync::SemaphorePermit::forget)
            .is_ok()
    }

    /// Puts in a chunk for which `charged` octets of room were taken. Returns it if the queue was closed since.
    fn admit(&self, chunk: Chunk, charged: u32) -> Option<Chunk> {
        let mut state = self.lock();
        if state.is_closed {
            // What waits in a closed queue is taken out once. This would come too late.
            self.release(&mut state, charged);
            return Some(chunk);
        }
        let kept = state.put(chunk, charged);
        state.charged += u64::from(kept);
        self.release(&mut state, charged - kept);
        self.report(&state);
        let is_above = state.charged > state.alarm_above;
        drop(state);
        self.filled.notify_one();
        if is_above {
            self.alarm.notify_one();
        }
        None
    }

    /// Takes off the front what makes room for `need` octets, a whole chunk if necessary;
    /// `None` if the queue is empty.
    fn drop_oldest(&self, need: u32) -> Option<Chunk> {
        let mut state = self.lock();
        let Queued {
            mut chunk,
            charged,
            since,
        } = state.chunks.pop_front()?;
        let missing = (need as usize).saturating_sub(self.room.available_permits());
        let oldest = chunk.split_front(missing + DROP_AHEAD_OCTETS);
        let (oldest, freed) = if oldest.is_empty() || chunk.is_empty() {
            (if oldest.is_empty() { chunk } else { oldest }, charged)
        } else {
            // A chunk keeps its memory until its last entry leaves, so the rest moves to a new one.
            let chunk = chunk.split_front(usize::MAX);
            let kept = u32::try_from(chunk.footprint())
                .unwrap_or(u32::MAX)
                .min(charged);
            state.chunks.push_front(Queued {
                chunk,
                charged: kept,
                since,
            });
            (oldest, charged - kept)
        };
        self.uncharge(&mut state, freed);
        Some(oldest)
    }

    fn take(&self, state: &mut State, octets: usize) -> Vec<Chunk> {
        let mut taken = Vec::new();
        let mut sum = 0;
        let mut freed = 0_u32;
        while let Some(next) = state.chunks.front() {
            sum += next.chunk.footprint();
            if !taken.is_empty() && sum > octets {
                break;
            }
            let next = state.chunks.pop_front().expect("the front was just read");
            freed = freed
                .checked_add(next.charged)
                .expect("all charges together were permits, of which there are no more than 2^32");
            taken.push(next.chunk);
        }
        self.uncharge(state, freed);
        if state.is_closed && state.chunks.is_empty() {
            self.ended.notify_waiters();
            self.filled.notify_waiters();
        }
        taken
    }

    /// Gives back the room of chunks that left.
    fn uncharge(&self, state: &mut State, freed: u32) {
        state.charged = state
            .charged
            .checked_sub(u64::from(freed))
            .expect("only what was charged is given back");
        self.release(state, freed);
        self.report(state);
    }

    fn pauses(&self) -> &PauseCounters {
        match self.of_survivors {
            true => &self.metrics.pauses,
            false => &self.metrics.copies.pauses,
        }
    }

    fn report_limit(&self, bound: usize) {
        if !self.of_survivors {
            self.metrics.copies.queue_limit.set(bound as u64);
        }
    }

    /// Reports to the metrics how much waits, and since when.
    fn report(&self, state: &State) {
        if self.of_survivors {
            let oldest = state.chunks.front().map(|oldest| oldest.since);
            self.metrics.tell_queue(state.charged, oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Room that `drop-oldest` makes beyond what is needed, so that not every push splits a chunk.
const DROP_AHEAD_OCTETS: usize = 4096;

/// A chunk that uses more than this is not merged.
const SMALL_OCTETS_MAX: usize = 2048;

/// The most octets that merged chunks use.
const MERGED_OCTETS_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::dedup::Claim, delivery::chunk::Entry};

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

    const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

    #[tokio::test]
    async fn drop_newest_keeps_what_was_there_and_fills_the_last_room() {
        let queue = Queue::new(5 * ONE, Metrics::new());
        assert!(
            queue
                .push(chunk(0..3), WhenFull::DropNewest)
                .await
                .is_empty()
        );
        let dropped = queue.push(chunk(3..9), WhenFull::DropNewest).await;
        let kept = queue.try_pop(usize::MAX);
        assert_eq!(numbers(&kept), [0, 1, 2, 3, 4]);
        assert_eq!(numbers(&dropped), [5, 6, 7, 8]);
        assert_eq!(queue.octets(), 0);
    }

    #[tokio::test]
    async fn drop_oldest_keeps_the_newest_in_order() {
        let queue = Queue::new(1000 * ONE, Metrics::new());
        let mut dropped = Vec::new();
        for start in (0..5000).step_by(100) {
            dropped.extend(
                queue
                    .push(chunk(start..start + 100), WhenFull::DropOldest)
                    .await,
            );
            assert!(queue.octets() <= 1000 * ONE as u64);
        }
        let dropped = numbers(&dropped);
        let kept = numbers(&queue.try_pop(usize::MAX));
        assert!(kept.len() > 700, "{} kept", kept.len());
        assert_eq!([dropped, kept].concat(), (0..5000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn small_chunks_take_no_more_than_their_entries() {
        let count = 2000;
        let queue = Queue::new(count * ONE, Metrics::new());
        for number in 0..2000 {
            // As a worker hands it over, with spare memory.
            let mut one = Chunk::default();
            let frame = format!("frame {number:04}");
            one.push(frame.as_bytes(), Entry::Survivor(Claim::VOID));
            assert!(queue.push(one, WhenFull::DropNewest).await.is_empty());
        }
        let kept = queue.try_pop(usize::MAX);
        assert_eq!(numbers(&kept), (0..2000).collect::<Vec<_>>());
        assert!(kept.len() < 10, "{} chunks", kept.len());
        let footprint: usize = kept.iter().map(Chunk::footprint).sum();
        assert!(footprint <= count * ONE + MERGED_OCTETS_MAX, "{footprint}");
        assert_eq!(queue.octets(), 0);
        assert!(
            queue
                .push(chunk(0..2000), WhenFull::DropNewest)
                .await
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_caller_that_waits_is_admitted_when_room_comes_back() {
        let queue = Queue::new(4 * ONE, Metrics::new());
        queue.push(chunk(0..4), WhenFull::Wait).await;
        let (dropped, popped) = tokio::join!(queue.push(chunk(4..6), WhenFull::Wait), async {
            tokio::task::yield_now().await;
            assert_eq!(numbers(&queue.try_pop(0)), [0, 1, 2, 3]);
            queue.pop(usize::MAX).await
        });
        assert!(dropped.is_empty());
        assert_eq!(numbers(&popped.expect("open")), [4, 5]);
    }

    #[tokio::test]
    async fn a_closed_queue_returns_waiting_chunks_and_ends_when_empty() {
        let queue = Queue::new(2 * ONE, Metrics::new());
        queue.push(chunk(0..2), WhenFull::Wait).await;
        let (dropped, ()) = tokio::join!(queue.push(chunk(2..3), WhenFull::Wait), async {
            tokio::task::yield_now().await;
            queue.close();
        });
        assert_eq!(numbers(&dropped), [2]);
        assert_eq!(numbers(&queue.pop(1).await.expect("two are left")), [0, 1]);
        assert!(queue.pop(1).await.is_none());
    }

    /// The forwarder of copies had taken out the rest by then, and the chunk was never counted.
    #[test]
    fn a_chunk_that_comes_after_the_close_is_returned_although_it_had_room() {
        let queue = Queue::new(4 * ONE, Metrics::new());
        let late = chunk(0..2);
        let need = queue.need(&late);
        assert!(queue.take_room(need));
        queue.close();
        let returned = queue.admit(late, need);
        assert_eq!(numbers(&returned), [0, 1]);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_closed_queue_ends_a_push_that_waits_for_the_spool() {
        for when_full in [WhenFull::DropNewest, WhenFull::DropOldest] {
            let queue = Queue::new(2 * ONE, Metrics::new());
            queue.push(chunk(0..2), WhenFull::Wait).await;
            queue.set_spool_takes(true);
            let push = tokio::time::timeout(LIMIT, queue.push(chunk(2..3), when_full));
            let (dropped, ()) = tokio::join!(push, async {
                tokio::task::yield_now().await;
                queue.close();
            });
            assert_eq!(numbers(&dropped.expect("it ends")), [2]);
        }
    }

    #[tokio::test]
    async fn a_chunk_larger_than_the_queue_goes_in_alone() {
        let queue = Queue::new(ONE, Metrics::new());
        assert!(queue.push(chunk(0..10), WhenFull::Wait).await.is_empty());
        assert_eq!(numbers(&queue.try_pop(0)).len(), 10);
        assert!(queue.push(chunk(0..1), WhenFull::Wait).await.is_empty());
    }

    #[tokio::test]
    async fn a_smaller_bound_takes_effect_as_the_queue_drains() {
        let queue = Queue::new(10 * ONE, Metrics::new());
        queue.push(chunk(0..2), WhenFull::Wait).await;
        queue.resize(4 * ONE);
        let dropped = queue.push(chunk(2..9), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [4, 5, 6, 7, 8]);
        queue.resize(6 * ONE);
        let dropped = queue.push(chunk(9..12), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [11]);
        // Room in use is taken away as chunks leave.
        queue.resize(2 * ONE);
        assert_eq!(numbers(&queue.try_pop(usize::MAX)).len(), 6);
        queue.push(chunk(12..13), WhenFull::Wait).await;
        let dropped = queue.push(chunk(13..15), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [14]);
    }

    #[tokio::test]
    async fn a_waiting_chunk_larger_than_a_resized_queue_goes_in_alone() {
        let queue = Queue::new(8 * ONE, Metrics::new());
        queue.push(chunk(0..4), WhenFull::Wait).await;
        let (dropped, ()) = tokio::join!(queue.push(chunk(4..12), WhenFull::Wait), async {
            tokio::task::yield_now().await;
            queue.resize(2 * ONE);
            assert_eq!(numbers(&queue.try_pop(usize::MAX)), [0, 1, 2, 3]);
        });
        assert!(dropped.is_empty());
        assert_eq!(queue.octets(), 2 * ONE as u64);
        assert_eq!(numbers(&queue.try_pop(usize::MAX)).len(), 8);
        queue.push(chunk(12..13), WhenFull::Wait).await;
        let dropped = queue.push(chunk(13..15), WhenFull::DropNewest).await;
        assert_eq!(numbers(&dropped), [14]);
    }
}
