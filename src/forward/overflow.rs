//! Overflow: what the memory queue cannot hold goes to disk, and comes back in order.
//!
//! ```text
//!            direct   outbox ──────────────────────────────────────▶ lanes
//!  ┌───────────────▶ ───────────────────┐
//!  │ all was read                       │ the queue passed its mark, or all upstreams are away and somebody waits
//!  │ and taken                          ▼ for an answer, or a broken connection gave something back
//!  └──────── spooled  outbox ──append──▶ [ disk ] ──read──▶ ready ──▶ lanes
//! ```
//!
//! # Guarantees
//!
//! - Order: while anything is on the disk, or on its way there, lanes get nothing from the queue.
//! - Chunks are safe when the disk has them. What was read is acknowledged to the spool when all of it was
//!   delivered, or dropped and counted; until then a restart finds it again.
//! - When the disk refuses, the chunks in hand wait in front of the queue, lanes that have an upstream go on with
//!   them, and the disk is asked again every [`RETRY_PERIOD`], with or without something to write (`tend`). The queue
//!   fills meanwhile, with the consequences that it has without a spool.
//! - If the disk is full and `when_full` is `drop-oldest`, the oldest is dropped from the disk (`room`), and nothing from
//!   the queue.
//! - If the disk does not give a segment back for now (its file is not safe to open), all that is newer waits behind it,
//!   and the disk is asked again every [`RETRY_PERIOD`].
//! - What the disk has lost is counted as dropped, and since nobody knows which messages those were, all windows
//!   end, so that the next copy of each goes out (law 7).
//! - At the stop, what is on the disk stays there, and what is in memory goes there if nobody takes it.
//!
//! # Left out
//!
//! The disk (`spool`). Threads: all of this runs on the forwarder's thread, apart from calls that wait for the
//! disk, and the order rests on that.

mod calls;
mod finish;
mod room;
mod tend;
mod told;
mod trouble;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use self::{calls::on_disk, room::append_summaries, told::Fill, trouble::Trouble};
use super::Outbox;
use crate::{
    chunk::Chunk,
    config::ForwardConfig,
    custody::Custody,
    ledger::Ledger,
    metrics::{DropReason, Metrics},
    spool::{Batch, Position, Spool, SpoolError},
};

/// The way over the disk.
#[derive(Debug)]
pub(super) struct Overflow {
    spool: Arc<Spool>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    /// Says whether somebody waits for an answer.
    awaited: Arc<Custody>,
    /// What was read from the disk and is not delivered.
    read: Arc<Custody>,
    /// Says what to do when the queue and the disk are full.
    config: watch::Receiver<Arc<ForwardConfig>>,
    state: Mutex<State>,
    /// Octets written at once: [`APPEND_OCTETS`], or a share of what the spool may hold.
    append_octets: usize,
    /// The state changed in a way that somebody may wait for.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The way leads over the disk.
    spooled: bool,
    /// A call that writes is under way: its chunks are nowhere else.
    appending: bool,
    /// A call that reads is under way.
    reading: bool,
    /// There may be something on the disk that was not read.
    unread: bool,
    /// Read, for lanes to take.
    ready: VecDeque<Chunk>,
    /// Refused by the disk, or not written yet because it was given back: to be written before anything else.
    refused: VecDeque<Chunk>,
    /// What the disk says when it is written to.
    writing: Trouble,
    /// What it says when it is read.
    giving: Trouble,
    /// Files were not safe at the start: read once without a lane that takes it, to find out whether reading works.
    is_suspect: bool,
    /// What it says when it is told what was delivered.
    keeping: Trouble,
    /// What it says when it is looked after.
    tending: Trouble,
    /// When to ask the disk again.
    retry_at: Option<Instant>,
    /// Octets that it refused.
    refused_octets: u64,
    /// Survivors dropped to make room, and not logged.
    dropped: u64,
    /// When those before were.
    dropped_at: Option<Instant>,
    /// Positions behind what was read, and the number of the last batch before each.
    positions: VecDeque<(u64, Position)>,
    /// Lanes with an upstream in charge.
    lanes_up: usize,
    /// Since when there is none.
    away_since: Option<Instant>,
    /// It was logged that the way leads over the disk, and not that it does no more.
    is_told: bool,
    /// When it was logged last.
    told_at: Option<Instant>,
    /// Whether it was logged that the disk fills up.
    fill: Fill,
}

impl State {
    /// Whether it may be logged that the way leads over the disk: with an upstream that is a little slower than what
    /// comes, it changes many times a second.
    fn may_tell(&mut self) -> bool {
        let is_due = !self.is_told
            && self
                .told_at
                .is_none_or(|told_at| told_at.elapsed() >= TELL_PERIOD);
        if is_due {
            self.is_told = true;
            self.told_at = Some(Instant::now());
        }
        is_due
    }
}

/// What a lane is to do for its next chunks.
#[derive(Debug)]
pub(super) enum Turn {
    /// Take them from the queue.
    Direct,
    /// Here they are.
    Take(Vec<Chunk>),
    /// Wait for a change, and ask again.
    Wait,
    /// The rest stays on the disk.
    Ended,
}

impl Overflow {
    /// The way over `spool`. What it recovered leaves before anything from `outbox`.
    pub(super) fn new(
        spool: Arc<Spool>,
        outbox: Arc<Outbox>,
        metrics: Arc<Metrics>,
        ledger: Arc<Ledger>,
        awaited: Arc<Custody>,
        config: watch::Receiver<Arc<ForwardConfig>>,
    ) -> Self {
        let holds_some = spool.records() > 0;
        let state = State {
            spooled: holds_some,
            unread: holds_some,
            away_since: Some(Instant::now()),
            is_told: holds_some,
            is_suspect: !spool.found().not_safe.is_empty(),
            ..State::default()
        };
        let share = usize::try_from(spool.max_octets() / 4).unwrap_or(usize::MAX);
        let overflow = Self {
            append_octets: share.min(APPEND_OCTETS),
            spool,
            outbox,
            metrics,
            ledger,
            awaited,
            read: Custody::new(),
            config,
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        overflow.outbox.set_spool_takes(true);
        overflow
            .metrics
            .spool
            .limit
            .set(overflow.spool.max_octets());
        overflow.measure();
        overflow
    }

    /// What the lane that asks is to do. Up to `octets` are taken at once, at least a chunk.
    pub(super) fn turn(&self, octets: usize) -> Turn {
        let mut state = self.lock();
        if !state.spooled {
            return Turn::Direct;
        }
        if self.outbox.is_closed() && !state.writing.is_on() {
            return Turn::Ended;
        }
        let batch = take(&mut state.ready, octets);
        if !batch.is_empty() {
            drop(state);
            // There is room to read on.
            self.changed.notify_waiters();
            return Turn::Take(batch);
        }
        if state.unread || state.reading || state.appending {
            return Turn::Wait;
        }
        // Nothing is on the disk, but it may have refused what comes next.
        let batch = take(&mut state.refused, octets);
        if !batch.is_empty() {
            return Turn::Take(batch);
        }
        state.spooled = false;
        state.tell_direct();
        drop(state);
        self.changed.notify_waiters();
        Turn::Direct
    }

    /// Octets on the disk.
    pub(super) fn octets(&self) -> u64 {
        self.spool.octets()
    }

    /// Waits for a change.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// One more lane has an upstream in charge, or one less.
    pub(super) fn lane_up(&self, up: bool) {
        let mut state = self.lock();
        if up {
            state.lanes_up += 1;
        } else {
            state.lanes_up -= 1;
        }
        state.away_since = match state.away_since {
            _ if state.lanes_up > 0 => None,
            None => Some(Instant::now()),
            since => since,
        };
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether chunks that were given back may go to the disk: all upstreams have been away for some time, and nothing
    /// is on the disk that would then leave before them.
    pub(super) fn takes_back(&self) -> bool {
        let state = self.lock();
        let is_empty = !state.spooled && state.refused.is_empty();
        is_empty
            && state
                .away_since
                .is_some_and(|since| since.elapsed() >= AWAY_MIN)
    }

    /// Takes chunks that were given back, to write them before anything from the queue.
    pub(super) fn take_back(&self, chunks: Vec<Chunk>) {
        let mut state = self.lock();
        if state.may_tell() {
            self.tell_spooled(&state);
        }
        state.spooled = true;
        state.refused.extend(chunks);
        drop(state);
        self.changed.notify_waiters();
    }

    /// True if, now that no chunk comes any more, nothing is left for lanes to do: the disk takes the rest.
    pub(super) fn takes_the_rest(&self) -> bool {
        let state = self.lock();
        !state.writing.is_on() && (state.spooled || state.lanes_up == 0)
    }

    /// Moves chunks to the disk and back until `closing` is cancelled and the calls under way have ended.
    pub(super) async fn run(&self, closing: &CancellationToken) {
        join!(
            self.append_all(closing),
            self.read_all(closing),
            self.acknowledge_all(closing),
            self.tend_all(closing)
        );
    }

    /// Writes what passes the mark.
    async fn append_all(&self, closing: &CancellationToken) {
        while !closing.is_cancelled() {
            let changed = self.changed.notified();
            let threshold = self.threshold();
            let alarm = self.outbox.above(threshold);
            let (retry_at, refused) = {
                let state = self.lock();
                (state.retry_at, !state.refused.is_empty())
            };
            let due = retry_at.is_none_or(|at| at <= Instant::now());
            let pressed = self.outbox.is_pressed() || self.outbox.octets() > threshold;
            if !due || !(refused || pressed) {
                select! {
                    () = closing.cancelled() => {}
                    () = changed => {}
                    () = alarm, if due => {}
                    // Whether somebody waits for an answer, and since when, changes without notice.
                    () = sleep(POLL_PERIOD) => {}
                }
                continue;
            }
            self.append().await;
        }
    }

    /// Writes what was refused, or else what there is in the queue.
    async fn append(&self) {
        let batch = {
            let mut state = self.lock();
            if !state.spooled && !state.writing.is_on() && state.may_tell() {
                self.tell_spooled(&state);
            }
            state.spooled = true;
            let mut batch = take(&mut state.refused, self.append_octets);
            if batch.is_empty() {
                batch = self.outbox.try_pop(self.append_octets);
            }
            state.appending = true;
            batch
        };
        // Lanes that wait at the queue come here from now on.
        self.changed.notify_waiters();
        let batch = Arc::new(batch);
        let mut summaries = Vec::new();
        let result = loop {
            let (spool, batch) = (Arc::clone(&self.spool), Arc::clone(&batch));
            let result = on_disk(move || spool.append(&batch)).await;
            match &result {
                Err(error) if self.drops_oldest_for(error) => {
                    trouble::count(error, &self.metrics);
                    if !self.make_room(&mut summaries).await {
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
        state.appending = false;
        state.refused.extend(summaries);
        let is_taken = result.is_ok();
        match result {
            Ok(()) => {
                state.unread = true;
                state.retry_at = None;
                if state.writing.end() {
                    info!("spool accepts writes again");
                }
            }
            Err(error) => {
                state.retry_at = Some(Instant::now() + RETRY_PERIOD);
                state.refused_octets = batch.iter().map(|chunk| chunk.octets().len() as u64).sum();
                // The call has ended, so this is the only one that has it.
                for chunk in Arc::into_inner(batch).unwrap_or_default().into_iter().rev() {
                    state.refused.push_front(chunk);
                }
                state.writing.begin(&error, &self.metrics);
            }
        }
        drop(state);
        self.outbox.set_spool_takes(is_taken);
        self.tell_dropped();
        self.measure();
        self.changed.notify_waiters();
    }

    /// Octets in the queue from which on they are written.
    fn threshold(&self) -> u64 {
        let state = self.lock();
        let mark = self.outbox.bound() / 2;
        let is_awaited = self.awaited.is_awaited();
        let is_away_long = state
            .away_since
            .is_some_and(|since| since.elapsed() >= AWAY_MIN);
        match (state.lanes_up > 0, state.spooled) {
            // What is in memory then would stay there as long as the upstream is away.
            (false, true) => 0,
            (false, false) if is_awaited && is_away_long => 0,
            // Those who wait would wait for all that is on the disk.
            (true, true) if is_awaited && state.unread => 0,
            // The less is written, the sooner all is read.
            (true, true) => mark / 4,
            (_, false) => mark,
        }
    }

    /// Reads ahead for lanes.
    async fn read_all(&self, closing: &CancellationToken) {
        while !closing.is_cancelled() {
            let changed = self.changed.notified();
            let wanted = {
                let mut state = self.lock();
                let ahead: usize = state.ready.iter().map(Chunk::footprint).sum();
                let wanted =
                    state.unread && !state.reading && state.lanes_up > 0 && ahead < READY_OCTETS;
                if wanted {
                    // An append from now on says otherwise.
                    state.unread = false;
                    state.reading = true;
                    state.is_suspect = false;
                }
                wanted
            };
            if !wanted {
                select! {
                    () = closing.cancelled() => {}
                    () = changed => {}
                }
                continue;
            }
            let spool = Arc::clone(&self.spool);
            let read = on_disk(move || spool.read(READ_OCTETS)).await;
            if read.is_ok() && self.lock().giving.end() {
                info!("spool can be read again");
                self.measure();
            }
            match read {
                Ok(Some(batch)) => self.settle_read(batch).await,
                Ok(None) => self.lock().reading = false,
                Err(error) => {
                    self.complain(|state| &mut state.giving, &error);
                    self.measure();
                    self.read_failed();
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

    async fn settle_read(&self, batch: Batch) {
        if batch.lost > 0 {
            self.lose(batch.lost).await;
        }
        let receipt = self.read.open();
        let number = receipt.number();
        let mut chunk = batch.chunk;
        if !chunk.is_empty() {
            chunk.entrust(receipt);
        }
        let mut state = self.lock();
        state.positions.push_back((number, batch.upto));
        state.ready.push_back(chunk);
        state.unread = true;
        state.reading = false;
    }

    fn read_failed(&self) {
        let mut state = self.lock();
        state.unread = true;
        state.reading = false;
    }

    /// The disk has lost `count` survivors, nobody knows which.
    async fn lose(&self, count: u64) {
        error!(
            frames = count,
            "dropped frames that could not be read back from the spool"
        );
        self.metrics.frames.lose(DropReason::SpoolDamaged, count);
        self.ledger.end_all_windows();
    }

    /// Tells the spool what was delivered.
    async fn acknowledge_all(&self, closing: &CancellationToken) {
        let mut settled = self.read.subscribe();
        while !closing.is_cancelled() {
            select! {
                () = closing.cancelled() => return,
                Ok(()) = settled.changed() => {}
            }
            if let Some(position) = self.settled_position() {
                let spool = Arc::clone(&self.spool);
                let told = on_disk(move || spool.acknowledge(position)).await;
                self.settle(|state| &mut state.keeping, &told);
                self.measure();
            }
        }
    }

    /// Behind the last batch that was delivered, if more was than before.
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

    /// Keeps account of a call that nothing waits for.
    fn settle(&self, of: impl FnOnce(&mut State) -> &mut Trouble, result: &Result<(), SpoolError>) {
        let mut state = self.lock();
        let trouble = of(&mut state);
        match result {
            Ok(()) => {
                if trouble.end() {
                    info!("spool works again");
                }
            }
            Err(error) => trouble.begin(error, &self.metrics),
        }
    }

    fn complain(&self, of: impl FnOnce(&mut State) -> &mut Trouble, error: &SpoolError) {
        of(&mut self.lock()).begin(error, &self.metrics);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chunks off the front, about `octets` of them.
fn take(chunks: &mut VecDeque<Chunk>, octets: usize) -> Vec<Chunk> {
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

/// Octets written at once: the disk's time to sync is spread over them.
pub(super) const APPEND_OCTETS: usize = 8 << 20;

/// Octets read at once.
pub(super) const READ_OCTETS: usize = 256 << 10;

/// Octets read ahead for lanes.
pub(super) const READY_OCTETS: usize = 1 << 20;

/// How long the disk is left alone after it refused.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// How often it is logged that the way leads over the disk, at most.
const TELL_PERIOD: Duration = Duration::from_secs(10);

/// How often it is looked whether somebody waits for an answer.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// How long all upstreams are away before those who wait get their answers from the disk: a collector that is
/// restarted comes back sooner.
const AWAY_MIN: Duration = Duration::from_millis(500);
