//! Overflow: what the memory queue cannot hold goes to the spool, and comes back in order.
//!
//! # The way of the chunks
//!
//! ```text
//!  ( Memory )   queue ─────────────────────────────────────────────▶ lanes
//!     │   ▲
//!     │   └── turn: all records were read, no call is in progress, and no chunk waits in `ready` or `unwritten`
//!     │
//!     ├────── append: the queue holds more than `threshold`, or a reader waits for room
//!     ├────── take_back: chunks were given back, and all upstreams have been away for AWAY_MIN
//!     ▼
//!  ( Spool )    queue ──▶ unwritten ──append──▶ [ disk ] ──read──▶ ready ──▶ lanes
//! ```
//!
//! `append` changes the way before the disk has answered. A lane asks for chunks with `turn`. While no lane asks, the
//! way over the spool does not end.
//!
//! `unwritten` has what was given back, and what the disk refused. It is written before the queue. Once the disk has no
//! unread record, and `append` is not in progress, lanes take `unwritten` as it is.
//!
//! A lane can have chunks that it read from the disk when the way changes to Memory. The disk has them, too, until they
//! are acknowledged.
//!
//! In the way over the spool, what is known of the disk's content ([`Reading`]):
//!
//! ```text
//!              append                   read begins                        append
//!   ( Done ) ──────────▶ ( Due ) ────────────────────▶ ( Running ) ──────────────────▶ ( Running { more } )
//!      ▲                  ▲  ▲                            │    │                            │
//!      │                  │  └── a batch, or an error ────┘    │ no record                  │ the read ends
//!      │                  └─────────────────────────────────── │ ───────────────────────────┘
//!      └───────────────────────────────────────────────────────┘
//! ```
//!
//! At the start the way leads over the spool, with Due, if the spool recovered records; else through memory. Dropping
//! the oldest records (`room`) is a read, too: it begins in Done or Due, and ends in Due. It waits for a read in
//! progress. If lanes deliver enough meanwhile, nothing is dropped.
//!
//! # The calls
//!
//! The source makes these calls, for the lanes and for the forwarder:
//!
//! - [`Overflow::run`] once, from the start until the source is closed.
//! - [`Overflow::lane_up`] when a lane puts an upstream in charge, and when it loses or leaves it.
//! - [`Overflow::changed`] and then [`Overflow::turn`] when a lane asks for chunks and none that were given back wait
//!   in the source.
//! - [`Overflow::takes_back`] while chunks that lanes gave back wait in the source. If it says yes, the source hands
//!   all of them over at once ([`Overflow::take_back`]). If not, they stay in the source, and lanes take them first.
//! - [`Overflow::takes_the_rest`] once the queue is closed. If it says yes, the lanes end.
//! - [`Overflow::finish`] once, after all lanes and `run` have ended. The forwarder drops and counts what it returns.
//!
//! # The disk
//!
//! Four kinds of calls fail and recover independently of each other: write, read, acknowledge and tend. The kind of
//! error (full, read-only, removed, moved, not safe) is part of what each failure knows
//! ([`Failure`](trouble::Failure)). A new failure keeps the time at which the calls began to fail. If a probe fails, or
//! `tend` finds the directory moved once more, the time of the next `append` stays as it was.
//!
//! ```text
//!  writing      append fails: again in RETRY_PERIOD
//!               tend finds the directory moved: again at once           append or probe fails: new Failure
//!   ( Works ) ──────────────────────────────────────────▶ ( Refuses ) ─────────────────────────────────┐
//!       ▲                                                  │      ▲                                     │
//!       └──────────── append or probe succeeds ────────────┘      └─────────────────────────────────────┘
//!
//!  reading, acknowledging, tending
//!                             the call fails                          the call fails again: new Failure
//!   ( Works ) ──────────────────────────────────────────▶ ( Fails ) ───────────────────────────────────┐
//!       ▲                                                  │     ▲                                      │
//!       └──────────────── the call succeeds ───────────────┘     └──────────────────────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - Order: while the disk has unread records, or chunks are on their way to it, lanes get nothing from the queue.
//! - Chunks are safe once the disk has them. A batch that was read is settled when all of it was delivered, or dropped
//!   and counted. It is acknowledged to the spool when it and all batches before it are settled. Until then a restart
//!   reads all of it again, with the frames that were delivered.
//! - When the disk refuses, the chunks in hand wait in front of the queue. Lanes that have an upstream get what the
//!   disk has, then these chunks, then the queue. The disk is asked again every [`RETRY_PERIOD`], with or without
//!   chunks to write (`tend`). The queue fills meanwhile, with the consequences that it has without a spool: after a
//!   refused `append` it waits or drops as `when_full` says, until an `append` or a probe succeeds.
//! - If the disk is full and `when_full` is `drop-oldest`, the oldest frames are dropped from the disk (`room`), and
//!   none from the queue.
//! - If the disk cannot return a segment for now (its file is not safe to open), everything newer waits behind it,
//!   and the disk is asked again every [`RETRY_PERIOD`].
//! - Survivors that the disk has lost are counted as dropped. Since we do not know which messages they were, all
//!   windows end, so that the next copy of each goes out (law 7).
//! - At the stop, what is on the disk stays there. Once the queue is closed, and the disk takes writes, lanes get
//!   nothing over the spool, even if their upstream is up: what is in memory goes to the disk. In the way through
//!   memory, lanes that have an upstream empty the queue; if no lane has one, the queue goes to the disk.
//!
//! # Left out
//!
//! The disk (`spool`). Threads: all of this runs on the forwarder's thread, except for calls that wait for the
//! disk. The order depends on that.

mod calls;
mod finish;
mod logged;
mod report;
mod room;
mod state;
mod tend;
mod trouble;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    join, select,
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub(super) use self::calls::keep_threads;
use self::{
    calls::on_disk,
    room::append_summaries,
    state::{Reading, State, Upstreams, Way},
    trouble::Disk,
};
use crate::delivery::Queue;
use crate::{
    config::ForwardConfig,
    delivery::{chunk::Chunk, custody::Custody, ledger::Ledger},
    lock::lock,
    metrics::{DropReason, Metrics},
    spool::{Batch, Position, Spool, SpoolError},
};

/// The way over the spool.
#[derive(Debug)]
pub(super) struct Overflow {
    spool: Arc<Spool>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    /// The register of received batches. Tells whether a sender waits for an answer.
    received: Arc<Custody>,
    /// The register of batches that were read from the disk. They are settled when they were delivered.
    read: Arc<Custody>,
    /// Says what to do when the queue and the disk are full.
    config: watch::Receiver<Arc<ForwardConfig>>,
    state: Mutex<State>,
    /// Octets written at once: [`APPEND_OCTETS`], or a quarter of the spool's limit if that is less.
    append_octets: usize,
    changed: Notify,
}

/// Where a lane gets its next chunks.
#[derive(Debug)]
pub(super) enum Turn {
    /// In the queue. Ask again after a change of the state: the queue may not be next any more.
    Direct,
    /// These are the chunks.
    Take(Vec<Chunk>),
    /// Nowhere for now. Wait for a change of the state, and ask again.
    Wait,
    /// Nowhere: the queue is closed, and the disk keeps what it has and takes the rest.
    Ended,
}

impl Overflow {
    /// The way over `spool`. What the spool recovered leaves before anything from `queue`.
    pub(super) fn new(
        spool: Arc<Spool>,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        ledger: Arc<Ledger>,
        received: Arc<Custody>,
        config: watch::Receiver<Arc<ForwardConfig>>,
    ) -> Self {
        let state = State::new(spool.records() > 0);
        let share = usize::try_from(spool.max_octets() / 4).unwrap_or(usize::MAX);
        let overflow = Self {
            append_octets: share.min(APPEND_OCTETS),
            spool,
            queue,
            metrics,
            ledger,
            received,
            read: Custody::new(),
            config,
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        overflow.queue.set_spool_takes(true);
        overflow
            .metrics
            .spool
            .limit
            .set(overflow.spool.max_octets());
        let not_safe = overflow.spool.found().not_safe.first();
        let not_safe = not_safe.map(|first| first.error.clone());
        overflow.metrics.spool.set_not_safe(not_safe);
        overflow.measure();
        overflow
    }

    /// Tells a lane where its next chunks are. Leads the way through memory if none are left over the spool. The lane
    /// gets up to `octets` of them at once, but at least a chunk.
    pub(super) fn turn(&self, octets: usize) -> Turn {
        let mut state = self.lock();
        let State {
            way: Way::Spool(passage),
            disk,
            ..
        } = &mut *state
        else {
            return Turn::Direct;
        };
        if self.queue.is_closed() && !disk.writing.refuses() {
            return Turn::Ended;
        }
        let batch = take(&mut passage.ready, octets);
        if !batch.is_empty() {
            drop(state);
            // There is room to read on.
            self.changed.notify_waiters();
            return Turn::Take(batch);
        }
        if passage.is_appending || passage.reading != Reading::Done {
            return Turn::Wait;
        }
        // Nothing is on the disk, but there may be chunks that it refused.
        let batch = take(&mut passage.unwritten, octets);
        if !batch.is_empty() {
            return Turn::Take(batch);
        }
        state.way = Way::Memory;
        state.log_memory();
        drop(state);
        self.changed.notify_waiters();
        Turn::Direct
    }

    /// Octets on the disk.
    pub(super) fn octets(&self) -> u64 {
        self.spool.octets()
    }

    /// Waits for a change of the state. Changes count from this call on, so call it before [`Overflow::turn`].
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// One more lane has an upstream in charge (`up`), or one less.
    pub(super) fn lane_up(&self, up: bool) {
        self.lock().upstreams.lane_up(up);
        self.changed.notify_waiters();
    }

    /// Whether chunks that were given back may go to the disk: all upstreams have been away for [`AWAY_MIN`], and the
    /// way leads through memory. Over the spool, newer chunks on the disk would leave before them.
    pub(super) fn takes_back(&self) -> bool {
        let state = self.lock();
        matches!(state.way, Way::Memory) && state.upstreams.are_away_long()
    }

    /// Takes chunks that were given back, and leads the way over the spool. They are written before anything from the
    /// queue. Call it only if [`Overflow::takes_back`] has just said yes.
    pub(super) fn take_back(&self, chunks: Vec<Chunk>) {
        let mut state = self.lock();
        self.log_spool(&mut state);
        state.enter_spool().unwritten.extend(chunks);
        drop(state);
        self.changed.notify_waiters();
    }

    /// For a closed queue: whether nothing is left for lanes to do, because the disk takes the rest. It does so if it
    /// takes writes, and the way leads over the spool or no lane has an upstream.
    pub(super) fn takes_the_rest(&self) -> bool {
        let state = self.lock();
        let is_over_spool = matches!(state.way, Way::Spool(_));
        !state.disk.writing.refuses() && (is_over_spool || !state.upstreams.are_up())
    }

    /// Moves chunks to the disk and back, until `closing` is cancelled and the calls in progress have ended.
    pub(super) async fn run(&self, closing: &CancellationToken) {
        join!(
            self.append_all(closing),
            self.read_all(closing),
            self.acknowledge_all(closing),
            self.tend_all(closing)
        );
    }

    /// Writes unwritten chunks, and the queue while it holds more than the threshold or a reader waits for room. After
    /// a refusal it waits until the disk may be asked again.
    async fn append_all(&self, closing: &CancellationToken) {
        while !closing.is_cancelled() {
            let changed = self.changed.notified();
            let threshold = self.threshold();
            let alarm = self.queue.above(threshold);
            let (retry_at, has_unwritten) = {
                let state = self.lock();
                (state.disk.writing.retry_at(), state.has_unwritten())
            };
            let is_due = retry_at.is_none_or(|at| at <= Instant::now());
            let is_above = self.queue.is_pressed() || self.queue.octets() > threshold;
            if !is_due || !(has_unwritten || is_above) {
                select! {
                    () = closing.cancelled() => {}
                    () = changed => {}
                    () = alarm, if is_due => {}
                    // Whether a sender waits for an answer changes without notice, and time passes.
                    () = sleep(POLL_PERIOD) => {}
                }
                continue;
            }
            self.append().await;
        }
    }

    /// Leads the way over the spool, and writes unwritten chunks, or chunks from the queue if there are none. What the
    /// disk refuses becomes unwritten, in front of the others.
    async fn append(&self) {
        let batch = {
            let mut state = self.lock();
            if !state.disk.writing.refuses() {
                self.log_spool(&mut state);
            }
            let passage = state.enter_spool();
            let mut batch = take(&mut passage.unwritten, self.append_octets);
            if batch.is_empty() {
                batch = self.queue.try_pop(self.append_octets);
            }
            passage.is_appending = true;
            batch
        };
        // Lanes that wait at the queue ask for their turn again.
        self.changed.notify_waiters();
        let batch = Arc::new(batch);
        let mut summaries = Vec::new();
        let result = loop {
            let (spool, batch) = (Arc::clone(&self.spool), Arc::clone(&batch));
            let result = on_disk(move || spool.append(&batch)).await;
            match &result {
                Err(error) if self.drops_oldest_for(error) => {
                    trouble::count(error, &self.metrics);
                    if !self.make_room(error, &mut summaries).await {
                        break result;
                    }
                }
                _ => break result,
            }
        };
        if result.is_ok() && !summaries.is_empty() {
            let (spool, ledger) = (Arc::clone(&self.spool), Arc::clone(&self.ledger));
            summaries = on_disk(move || append_summaries(&spool, &ledger, summaries)).await;
        }
        let mut state = self.lock();
        let State { way, disk, .. } = &mut *state;
        let passage = way.passage();
        passage.is_appending = false;
        passage.unwritten.extend(summaries);
        let is_written = result.is_ok();
        match result {
            Ok(()) => {
                passage.reading.appended();
                if disk.writing.succeeded() {
                    info!("spool accepts writes again");
                }
            }
            Err(error) => {
                let octets = batch.iter().map(|chunk| chunk.octets().len() as u64).sum();
                let batch = Arc::into_inner(batch)
                    .expect("the call has ended, and its clone of the batch is gone");
                for chunk in batch.into_iter().rev() {
                    passage.unwritten.push_front(chunk);
                }
                disk.writing.refused(octets, &error, &self.metrics);
            }
        }
        drop(state);
        self.queue.set_spool_takes(is_written);
        self.log_dropped();
        self.measure();
        self.changed.notify_waiters();
    }

    /// Chunks are written when the queue holds more octets than this.
    fn threshold(&self) -> u64 {
        let state = self.lock();
        let half = self.queue.bound() / 2;
        let is_awaited = self.received.is_awaited();
        match (&state.upstreams, &state.way) {
            // Otherwise the rest in memory would stay there as long as the upstreams are away.
            (Upstreams::Away { .. }, Way::Spool(_)) => 0,
            // Senders that wait get their answers once the disk has their messages.
            (away, Way::Memory) if is_awaited && away.are_away_long() => 0,
            // Lanes take everything from the disk before the queue. Senders that wait would otherwise wait for that.
            (Upstreams::Up { .. }, Way::Spool(passage))
                if is_awaited && passage.reading.may_find_more() =>
            {
                0
            }
            // The less is written, the sooner everything is read.
            (Upstreams::Up { .. }, Way::Spool(_)) => half / 4,
            (_, Way::Memory) => half,
        }
    }

    /// Reads ahead for lanes. After an error it waits for [`RETRY_PERIOD`].
    async fn read_all(&self, closing: &CancellationToken) {
        while !closing.is_cancelled() {
            let changed = self.changed.notified();
            if !self.lock().begin_read() {
                select! {
                    () = closing.cancelled() => {}
                    () = changed => {}
                }
                continue;
            }
            let spool = Arc::clone(&self.spool);
            let read = on_disk(move || spool.read(READ_OCTETS)).await;
            if read.is_ok() && self.lock().disk.reading.succeeded() {
                info!("spool can be read again");
                self.measure();
            }
            match read {
                Ok(Some(batch)) => self.keep_ready(batch),
                Ok(None) => self.lock().way.passage().reading.found_nothing(),
                Err(error) => {
                    self.lock().disk.reading.failed(&error, &self.metrics);
                    self.measure();
                    self.lock().way.passage().reading = Reading::Due;
                    self.changed.notify_waiters();
                    select! {
                        () = closing.cancelled() => {}
                        () = sleep(RETRY_PERIOD) => {}
                    }
                }
            }
            self.changed.notify_waiters();
        }
    }

    /// Keeps a batch that was read for lanes to take.
    fn keep_ready(&self, batch: Batch) {
        if batch.lost > 0 {
            self.lose(batch.lost);
        }
        let receipt = self.read.open();
        let number = receipt.number();
        let mut chunk = batch.chunk;
        if !chunk.is_empty() {
            chunk.entrust(receipt);
        }
        let mut state = self.lock();
        state.positions.push_back((number, batch.upto));
        let passage = state.way.passage();
        passage.ready.push_back(chunk);
        passage.reading = Reading::Due;
    }

    /// Counts `count` survivors that the disk has lost. We do not know which they were.
    fn lose(&self, count: u64) {
        error!(
            frames = count,
            "dropped frames that could not be read back from the spool"
        );
        self.metrics.frames.lose(DropReason::SpoolDamaged, count);
        self.ledger.end_all_windows();
    }

    /// Acknowledges batches to the spool when they and all before them are settled.
    async fn acknowledge_all(&self, closing: &CancellationToken) {
        let mut settled = self.read.subscribe();
        while !closing.is_cancelled() {
            select! {
                () = closing.cancelled() => return,
                Ok(()) = settled.changed() => {}
            }
            if let Some(position) = self.settled_position() {
                let spool = Arc::clone(&self.spool);
                let result = on_disk(move || spool.acknowledge(position)).await;
                self.record(|disk| &mut disk.acknowledging, &result);
                self.measure();
                // There may be room for an append that waits (`room`).
                self.changed.notify_waiters();
            }
        }
    }

    /// The position up to which all batches are settled; `None` if it is that of the last call. Forgets these batches.
    fn settled_position(&self) -> Option<Position> {
        let settled = self.read.settled_below();
        let mut state = self.lock();
        let mut position = None;
        while let Some((number, end)) = state.positions.front()
            && *number < settled
        {
            position = Some(*end);
            state.positions.pop_front();
        }
        position
    }

    /// Records the result of a call that no chunk waits for.
    fn record(
        &self,
        health: impl FnOnce(&mut Disk) -> &mut trouble::Health,
        result: &Result<(), SpoolError>,
    ) {
        let mut state = self.lock();
        let health = health(&mut state.disk);
        match result {
            Ok(()) => {
                if health.succeeded() {
                    info!("spool works again");
                }
            }
            Err(error) => health.failed(error, &self.metrics),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Takes chunks off the front, about `octets` of them.
pub(super) fn take(chunks: &mut VecDeque<Chunk>, octets: usize) -> Vec<Chunk> {
    let mut taken = Vec::new();
    let mut sum = 0;
    while sum < octets
        && let Some(chunk) = chunks.pop_front()
    {
        sum += chunk.octets().len();
        taken.push(chunk);
    }
    taken
}

/// Octets written at once: the time that the disk takes to sync is spread over them.
pub(super) const APPEND_OCTETS: usize = 8 << 20;

/// Octets read at once.
pub(super) const READ_OCTETS: usize = 256 << 10;

/// Octets read ahead for lanes.
pub(super) const READY_OCTETS: usize = 1 << 20;

/// How long the disk is left alone after it refused or could not be read, and how often it is tended.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// How often the log says at most that chunks go over the spool, and how many were dropped.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// How often we check what changes without notice: whether a sender waits for an answer, and whether all upstreams have
/// been away for long.
pub(super) const POLL_PERIOD: Duration = Duration::from_millis(100);

/// How long all upstreams have to be away before senders that wait get their answers from the disk. A collector that is
/// restarted comes back sooner.
const AWAY_MIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
