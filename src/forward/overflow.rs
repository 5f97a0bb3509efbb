//! Overflow: what the memory queue cannot hold goes to disk, and comes back in order.
//!
//! ```text
//!            direct   outbox ──────────────────────────────────────▶ lanes
//!  ┌───────────────▶ ───────────────────┐
//!  │ all was read                       │ the queue passed its mark, or nobody is there to send to and somebody
//!  │ and taken                          ▼ waits for an answer
//!  └──────── spooled  outbox ──append──▶ [ disk ] ──read──▶ ready ──▶ lanes
//! ```
//!
//! # Guarantees
//!
//! - Order: while anything is on the disk, or on its way there, lanes get nothing from the queue.
//! - Chunks are safe when the disk has them. What was read is acknowledged to the spool when all of it was
//!   delivered, or dropped and counted; until then a restart finds it again.
//! - When the disk refuses, the chunks in hand wait in front of the queue, lanes that have an upstream go on with
//!   them, and the disk is asked again every [`RETRY_PERIOD`]. The queue fills meanwhile, with the consequences
//!   that it has without a spool.
//! - What the disk has lost is counted as dropped, and since nobody knows which messages those were, all windows
//!   end, so that the next copy of each goes out (law 7).
//! - At the stop, what is on the disk stays there, and what is in memory goes there if nobody takes it.
//!
//! # Left out
//!
//! The disk (`spool`). Threads: all of this runs on the forwarder's thread, apart from calls that wait for the
//! disk, and the order rests on that.

use std::{
    collections::VecDeque,
    panic,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    join, select,
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Outbox, error_chain};
use crate::{
    chunk::Chunk,
    custody::Custody,
    ledger::Ledger,
    metrics::{DropReason, Metrics, SpoolErrno},
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
    /// Refused by the disk.
    refused: VecDeque<Chunk>,
    /// The disk refused the last time.
    failing: bool,
    /// When to ask the disk again.
    retry_at: Option<Instant>,
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
}

impl State {
    /// Whether it may be logged that the way leads over the disk: with an upstream that is a little slower than what
    /// comes, it changes many times a second.
    fn may_tell(&mut self) -> bool {
        let is_due = self
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
    ) -> Self {
        let holds_some = spool.records() > 0;
        let state = State {
            spooled: holds_some,
            unread: holds_some,
            away_since: Some(Instant::now()),
            is_told: holds_some,
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
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        overflow.outbox.set_relief(true);
        overflow.measure();
        overflow
    }

    /// What the lane that asks is to do. Up to `octets` are taken at once, at least a chunk.
    pub(super) fn turn(&self, octets: usize) -> Turn {
        let mut state = self.lock();
        if !state.spooled {
            return Turn::Direct;
        }
        if self.outbox.is_closed() && !state.failing {
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
        if !state.failing && std::mem::take(&mut state.is_told) {
            info!("forwarding from memory");
        }
        drop(state);
        self.changed.notify_waiters();
        Turn::Direct
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

    /// True if, now that no chunk comes any more, nothing is left for lanes to do: the disk takes the rest.
    pub(super) fn takes_the_rest(&self) -> bool {
        let state = self.lock();
        !state.failing && (state.spooled || state.lanes_up == 0)
    }

    /// Moves chunks to the disk and back until `closing` is cancelled and the calls under way have ended.
    pub(super) async fn run(&self, closing: &CancellationToken) {
        join!(
            self.append_all(closing),
            self.read_all(closing),
            self.acknowledge_all(closing)
        );
    }

    /// Leaves what is on the disk there and takes what is not to it: what was `given_back`, what the disk refused, and
    /// what was `queued`. Waits for the disk. Gives what could not be kept.
    pub(super) fn finish(&self, given_back: Vec<Chunk>, queued: Vec<Chunk>) -> Vec<Chunk> {
        if let Some(position) = self.settled_position()
            && let Err(error) = self.spool.acknowledge(position)
        {
            self.complain(&error);
        }
        let mut state = self.lock();
        let ready = std::mem::take(&mut state.ready);
        let refused = std::mem::take(&mut state.refused);
        drop(state);
        let is_on_disk = |chunk: &Chunk| {
            chunk
                .receipt()
                .is_some_and(|receipt| receipt.is_of(&self.read))
        };
        let mut left: VecDeque<Chunk> = given_back
            .into_iter()
            .chain(ready)
            .chain(refused)
            .chain(queued)
            .filter(|chunk| !chunk.is_empty() && !is_on_disk(chunk))
            .collect();
        let mut kept = 0;
        while !left.is_empty() {
            let batch = take(&mut left, self.append_octets);
            if let Err(error) = self.spool.append(&batch) {
                self.complain(&error);
                self.measure();
                return batch.into_iter().chain(left).collect();
            }
            kept += batch.iter().map(Chunk::len).sum::<usize>();
        }
        self.measure();
        let waiting = self.spool.records();
        if waiting > 0 {
            info!(frames = waiting, added = kept, "left in the spool");
        }
        Vec::new()
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
            if !state.spooled && !state.failing && state.may_tell() {
                info!("forwarding over the spool");
            }
            state.spooled = true;
            let mut batch: Vec<Chunk> = state.refused.drain(..).collect();
            if batch.is_empty() {
                batch = self.outbox.try_pop(self.append_octets);
            }
            state.appending = true;
            batch
        };
        // Lanes that wait at the queue come here from now on.
        self.changed.notify_waiters();
        let batch = Arc::new(batch);
        let result = {
            let (spool, batch) = (Arc::clone(&self.spool), Arc::clone(&batch));
            on_disk(move || spool.append(&batch)).await
        };
        let mut state = self.lock();
        state.appending = false;
        let was_failing = std::mem::replace(&mut state.failing, result.is_err());
        match &result {
            Ok(()) => {
                state.unread = true;
                state.retry_at = None;
            }
            Err(_) => {
                state.retry_at = Some(Instant::now() + RETRY_PERIOD);
                // The call has ended, so this is the only one that has it.
                state.refused = Arc::into_inner(batch).unwrap_or_default().into();
            }
        }
        drop(state);
        self.outbox.set_relief(result.is_ok());
        match result {
            Ok(()) if was_failing => info!("the spool takes frames again"),
            Ok(()) => {}
            Err(error) if was_failing => self.count(&error),
            Err(error) => self.complain(&error),
        }
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
                let wanted = state.unread && state.lanes_up > 0 && ahead < READY_OCTETS;
                if wanted {
                    // An append from now on says otherwise.
                    state.unread = false;
                    state.reading = true;
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
            match on_disk(move || spool.read(READ_OCTETS)).await {
                Ok(Some(batch)) => self.settle_read(batch).await,
                Ok(None) => self.lock().reading = false,
                Err(error) => {
                    self.complain(&error);
                    self.read_failed();
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
        error!(frames = count, "dropped what the spool could not give back");
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
                if let Err(error) = on_disk(move || spool.acknowledge(position)).await {
                    self.complain(&error);
                }
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

    fn complain(&self, error: &SpoolError) {
        self.count(error);
        error!(error = error_chain(error), "the spool fails");
    }

    fn count(&self, error: &SpoolError) {
        self.metrics.spool.errors[errno(error)].inc();
    }

    fn measure(&self) {
        let spool = &self.metrics.spool;
        spool.octets.set(self.spool.octets());
        spool.frames.set(self.spool.records());
        spool.failing.set(u64::from(self.lock().failing));
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

/// Makes a call that waits for the disk.
async fn on_disk<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(call).await {
        Ok(result) => result,
        Err(broken) => panic::resume_unwind(broken.into_panic()),
    }
}

const fn errno(error: &SpoolError) -> SpoolErrno {
    match error {
        SpoolError::Full { .. } => SpoolErrno::MaxSize,
        SpoolError::NoSpace { .. } => SpoolErrno::NoSpace,
        SpoolError::ReadOnly { .. } => SpoolErrno::ReadOnly,
        SpoolError::Gone { .. } => SpoolErrno::Gone,
        SpoolError::Busy { .. }
        | SpoolError::Unsafe { .. }
        | SpoolError::Format { .. }
        | SpoolError::Foreign { .. }
        | SpoolError::TooLong { .. }
        | SpoolError::Io { .. } => SpoolErrno::Other,
    }
}

/// Octets written at once: the disk's time to sync is spread over them.
const APPEND_OCTETS: usize = 8 << 20;

/// Octets read at once.
const READ_OCTETS: usize = 256 << 10;

/// Octets read ahead for lanes.
const READY_OCTETS: usize = 1 << 20;

/// How long the disk is left alone after it refused.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// How often it is logged that the way leads over the disk, at most.
const TELL_PERIOD: Duration = Duration::from_secs(10);

/// How often it is looked whether somebody waits for an answer.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// How long all upstreams are away before those who wait get their answers from the disk: a collector that is
/// restarted comes back sooner.
const AWAY_MIN: Duration = Duration::from_millis(500);
