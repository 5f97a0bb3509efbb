//! Custody: which batches are safe, so that tersed answers a sender only then.
//!
//! A batch is what one read brought. It gets a number before its first frame is judged. The [`Receipt`] with the number
//! goes wherever the batch's survivors go. The batch is settled when all clones of the receipt are dropped: each
//! survivor is safe or lost by then. A promise is about a batch that a sender waits for.
//!
//! ```text
//!                    open()                          last Receipt dropped
//!  a number    ( free ) ─────────────▶ ( open ) ─────────────────────────────▶ ( settled )
//!                 ▲                       │  lose(): raises `lost_below`            │
//!                 │                       └─ stays open                             │
//!                 └── an open number is before it, and none behind it: reused ──────┘
//!                     no number is open: the next number is not below `lost_below`
//!
//!  a promise         promise()               seal()              every number below `upto` is settled
//!  about a batch   ───────────▶ ( begun ) ───────────▶ ( sealed ) ──┬─ lost_below <= from ─▶ Safe
//!                              `from` known          `upto` known   └─ lost_below > from ──▶ Lost
//!
//!  numbers     [settled][settled][ open ][settled][ open ][ open ]
//!              ── all below `settled` ──┘                          └── the next number
//! ```
//!
//! # Who calls what
//!
//! | in this order | caller | |
//! |---|---|---|
//! | [`Custody::promise`] | RELP listener | notes that all numbers below `from` are settled |
//! | [`Custody::open`] | pipeline | for each batch of any listener |
//! | | pipeline | judges the frames; gives the receipt to the chunk of survivors, or drops it if there are none |
//! | [`Custody::seal`] | RELP listener | notes the next number as `upto` |
//! | [`Custody::subscribe`] | RELP listener | before it asks first |
//! | [`Receipt::lose`] | ledger | for each chunk that is dropped, when it has reopened its windows |
//! | | forwarder | drops the receipt of a chunk when it is safe: on the disk, or with the upstream |
//! | [`Custody::outcome`] | RELP listener | after each change, until it can answer: 200 (Safe), or 500 (Lost) |
//!
//! The forwarder asks [`Custody::is_awaited`] whether a sender waits. Its spool has a register of its own, for what was
//! read from the disk: there [`Custody::settled_below`] says what to acknowledge to the spool.
//!
//! # Why this is enough
//!
//! - A copy is suppressed only because of a survivor that was judged before it. The number of that survivor's batch is
//!   below `upto`. So the copy is safe as soon as all numbers below `upto` are settled. This may be answered later
//!   than necessary (another connection's batch may be late), but never too early, and it costs nothing for
//!   each message.
//! - If that survivor is dropped later, its number was not settled at the promise, so it is not below `from`, and the
//!   promise is lost. If it was dropped before, its window was reopened before, and it suppressed nothing.
//! - The highest lost number stands for all of them. So a promise may be Lost although no survivor that it depends on
//!   was: another batch was, with a number that is not below `from`. Numbers are reused, so a promise that was begun
//!   after the loss may be Lost, too, until no batch is open, or `settled` has passed the lost number. The sender then
//!   sends again what is safe.
//!
//! # Guarantees
//!
//! - [`Outcome::Safe`] is answered only if every survivor of the batch, and every survivor because of which one of its
//!   copies was suppressed, is on the disk, or where its upstream's protocol says that it is safe.
//! - A batch without survivors, or whose chunks are gone, is settled. No number stays open by mistake.
//! - A panic that lets go of a receipt counts as a loss.
//! - The memory is one octet for each open batch, and for each settled one between two that are open. Repeats that
//!   come in while the upstream is away for days do not add up.
//!
//! # Left out
//!
//! What makes a survivor safe (`forward`). A restart: the register begins empty. A sender that was not answered sends
//! again. At a stop the listener ends the connection instead of answering 500. Suppressed copies that are kept: they
//! have no receipt.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use tokio::sync::watch;

use crate::lock::lock;

/// The register of batches that are not settled.
#[derive(Debug)]
pub(crate) struct Custody {
    state: Mutex<State>,
    /// Tells subscribers the number below which every batch is settled. Without a subscriber nothing is sent.
    settled: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the first batch in `open`; the next number if none is open. All below are settled.
    settled: u64,
    /// For each number from `settled` on: whether it is open. Both the first and the last are open.
    open: VecDeque<bool>,
    /// One more than the highest number of which a survivor was lost.
    lost_below: u64,
}

/// Keeps a batch open. Each chunk with survivors of the batch has a clone. When the last clone is dropped, the batch is
/// settled. Dropping alone says that the survivors are safe: call [`Receipt::lose`] first if they are not.
#[derive(Clone, Debug)]
pub(crate) struct Receipt(Arc<OpenBatch>);

#[derive(Debug)]
struct OpenBatch {
    custody: Arc<Custody>,
    number: u64,
}

/// Which batches a sender's answer depends on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Promise {
    /// All numbers below were settled when the promise was begun.
    from: u64,
    /// The batch's own number, and every number that it may depend on, are below. Until the promise is sealed, `from`.
    upto: u64,
}

impl Promise {
    /// Makes this promise cover `later` as well. Both are sealed. It ends when both have ended, and is lost if one is.
    pub(crate) fn and(&mut self, later: Self) {
        self.from = self.from.min(later.from);
        self.upto = self.upto.max(later.upto);
    }
}

#[cfg(test)]
impl Promise {
    /// All batches below this number were settled when the promise was begun.
    #[must_use]
    pub(crate) const fn from(&self) -> u64 {
        self.from
    }
}

/// How a promise ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Every survivor that the batch depends on is safe.
    Safe,
    /// A survivor was lost: of the batch, of one that it depends on, or of another batch (see above).
    Lost,
}

impl Custody {
    /// A register without open batches.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            settled: watch::Sender::new(0),
        })
    }

    /// Opens the next batch. Call before its first frame is judged.
    #[must_use]
    pub(crate) fn open(self: &Arc<Self>) -> Receipt {
        let mut state = self.lock();
        let number = state.next();
        state.open.push_back(true);
        drop(state);
        Receipt(Arc::new(OpenBatch {
            custody: Arc::clone(self),
            number,
        }))
    }

    /// Begins a promise about a batch. Call before the batch is opened: a survivor that is lost from now on, and may
    /// suppress a copy of the batch, then counts as a loss.
    #[must_use]
    pub(crate) fn promise(&self) -> Promise {
        let from = self.lock().settled;
        Promise { from, upto: from }
    }

    /// Records which batches the promise depends on: all that are open now. Call after the batch's last frame was
    /// judged.
    pub(crate) fn seal(&self, promise: &mut Promise) {
        promise.upto = self.lock().next();
    }

    /// How a sealed promise ended; `None` until it has. A loss is answered no sooner than a success. The outcome may
    /// change from Safe to Lost later, so the caller asks no more once it has one.
    #[must_use]
    pub(crate) fn outcome(&self, promise: &Promise) -> Option<Outcome> {
        let state = self.lock();
        (state.settled_below() >= promise.upto).then_some(if state.lost_below > promise.from {
            Outcome::Lost
        } else {
            Outcome::Safe
        })
    }

    /// Every number below this that was handed out before this call is settled. If none is open, this is the highest
    /// number there is, so do not compare it with a number that is handed out later.
    #[must_use]
    pub(crate) fn settled_below(&self) -> u64 {
        self.lock().settled_below()
    }

    /// Changes whenever more promises may have ended. Subscribe before asking for an outcome the first time. While
    /// there is a subscriber, upstreams are asked without delay whether survivors are safe.
    #[must_use]
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// Whether there is a subscriber.
    #[must_use]
    pub(crate) fn is_awaited(&self) -> bool {
        self.settled.receiver_count() > 0
    }

    /// The last receipt of batch `number` was dropped.
    fn settle(&self, number: u64) {
        let mut state = self.lock();
        let is_first = number == state.settled;
        *state.open_mut(number) = false;
        if !is_first {
            // Settled numbers behind the last open one are not needed any more: the next batches get them again.
            while state.open.back() == Some(&false) {
                state.open.pop_back();
            }
            return;
        }
        while state.open.front() == Some(&false) {
            state.open.pop_front();
            state.settled += 1;
        }
        if state.open.is_empty() {
            // The lost number may have been handed back. Promises that are begun from now on do not depend on it.
            state.settled = state.settled.max(state.lost_below);
        }
        let settled = state.settled;
        // Asked under the lock: a task that subscribes later sees this state.
        let is_awaited = self.is_awaited();
        drop(state);
        if is_awaited {
            // Another thread may have announced a higher number meanwhile.
            self.settled.send_if_modified(|announced| {
                let is_news = *announced < settled;
                *announced = settled.max(*announced);
                is_news
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn settled_below(&self) -> u64 {
        if self.open.is_empty() {
            // The last numbers may be handed out again.
            return u64::MAX;
        }
        self.settled
    }

    /// The number of the next batch.
    fn next(&self) -> u64 {
        self.settled + self.open.len() as u64
    }

    /// Whether the batch `number` is open, which it is until the last clone of its receipt is dropped.
    fn open_mut(&mut self, number: u64) -> &mut bool {
        let index = number.checked_sub(self.settled);
        index
            .and_then(|index| self.open.get_mut(usize::try_from(index).ok()?))
            .expect("a number is registered as long as its receipt lives")
    }
}

impl Receipt {
    /// Records that a survivor of the batch was lost. Call before the receipt is dropped.
    pub(crate) fn lose(&self) {
        let mut state = self.0.custody.lock();
        state.lost_below = state.lost_below.max(self.0.number + 1);
    }

    /// One receipt for two batches whose chunks are merged: that of the batch that was opened first. A promise about
    /// the later batch covers all numbers below its own, and was begun when the earlier one was not settled. So it
    /// ends no sooner than the receipt that is returned, and a loss reaches it.
    #[must_use]
    pub(crate) fn or_earlier(self, other: Self) -> Self {
        if other.0.number < self.0.number {
            other
        } else {
            self
        }
    }

    /// Whether the batch is registered with `custody`.
    #[must_use]
    pub(crate) fn is_of(&self, custody: &Arc<Custody>) -> bool {
        Arc::ptr_eq(&self.0.custody, custody)
    }

    /// The batch's number. Of two open batches the one that was opened later has the higher number.
    #[must_use]
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }
}

impl Drop for Receipt {
    /// A panic that lets go of a receipt loses the survivors that it stands for.
    fn drop(&mut self) {
        if thread::panicking() {
            self.lose();
        }
    }
}

impl Drop for OpenBatch {
    fn drop(&mut self) {
        self.custody.settle(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_safe_when_it_and_all_before_it_are_settled() {
        let custody = Custody::new();
        let first = custody.open();
        let mut promise = custody.promise();
        let second = custody.open();
        custody.seal(&mut promise);
        let third = custody.open();
        assert_eq!(custody.outcome(&promise), None);
        drop(second);
        assert_eq!(custody.outcome(&promise), None);
        drop(first);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
        drop(third);
    }

    #[test]
    fn a_copy_waits_for_what_was_judged_before_it_on_any_connection() {
        let custody = Custody::new();
        let mut promise = custody.promise();
        // Another connection's batch, opened after ours began and judged before ours ended.
        let other = custody.open();
        custody.seal(&mut promise);
        assert_eq!(custody.outcome(&promise), None);
        other.lose();
        drop(other);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Lost));
    }

    #[test]
    fn a_loss_does_not_affect_later_batches() {
        let custody = Custody::new();
        let lost = custody.open();
        lost.lose();
        drop(lost);
        let mut promise = custody.promise();
        custody.seal(&mut promise);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
    }

    /// The number of the lost batch was handed back, so `settled` stayed below it, and every further promise was lost.
    #[test]
    fn a_loss_behind_an_open_batch_does_not_affect_batches_after_both() {
        let custody = Custody::new();
        let waits = custody.open();
        let mut before = custody.promise();
        let lost = custody.open();
        custody.seal(&mut before);
        lost.lose();
        drop(lost);
        drop(waits);
        assert_eq!(custody.outcome(&before), Some(Outcome::Lost));
        for _ in 0..3 {
            let mut promise = custody.promise();
            let own = custody.open();
            custody.seal(&mut promise);
            assert_eq!(custody.outcome(&promise), None);
            drop(own);
            assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
        }
        let mut promise = custody.promise();
        let own = custody.open();
        custody.seal(&mut promise);
        own.lose();
        drop(own);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Lost));
        assert_eq!(
            custody.outcome(&before),
            Some(Outcome::Lost),
            "it stays lost"
        );
    }

    #[test]
    fn a_receipt_that_a_panic_lets_go_of_is_lost() {
        let custody = Custody::new();
        let mut promise = custody.promise();
        let receipt = custody.open();
        custody.seal(&mut promise);
        let panicked = crate::panics::catch(move || {
            let _in_hand = receipt;
            panic!("for the test");
        });
        assert!(panicked.is_err());
        assert_eq!(custody.outcome(&promise), Some(Outcome::Lost));
    }

    #[test]
    fn a_batch_is_open_until_all_clones_of_its_receipt_are_dropped() {
        let custody = Custody::new();
        let mut promise = custody.promise();
        let receipt = custody.open();
        custody.seal(&mut promise);
        let other = receipt.clone();
        drop(receipt);
        assert_eq!(custody.outcome(&promise), None);
        drop(other);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
        assert!(custody.lock().open.is_empty());
    }

    #[test]
    fn batches_without_survivors_do_not_add_up_behind_one_that_waits() {
        let custody = Custody::new();
        let waits = custody.open();
        for _ in 0..1000 {
            let (one, another) = (custody.open(), custody.open());
            drop(one);
            drop(another);
        }
        assert_eq!(custody.lock().open.len(), 1);
        let mut promise = custody.promise();
        let own = custody.open();
        custody.seal(&mut promise);
        drop(own);
        // Its number is handed out again, and the promise waits for it.
        let next = custody.open();
        drop(waits);
        assert_eq!(custody.outcome(&promise), None);
        drop(next);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
    }

    #[tokio::test]
    async fn subscribers_are_told() {
        let custody = Custody::new();
        let mut settled = custody.subscribe();
        let first = custody.open();
        let second = custody.open();
        drop(second);
        assert!(!settled.has_changed().unwrap());
        assert!(custody.settled_below() == 0);
        drop(first);
        settled.changed().await.unwrap();
        assert_eq!(custody.settled_below(), u64::MAX);
    }
}
