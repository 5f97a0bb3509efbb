//! Custody: which batches are safe, so that a sender who asks is answered only then.
//!
//! ```text
//! batches by number   [done][done][ open ][done][ open ][ open ]
//!                     ──── settled ───┘                        └── the next number
//!                                     all below are safe or lost
//! ```
//!
//! A batch gets its number before its first frame is judged, and is open until the last of its survivors is safe
//! or lost. A copy can only be held back for a survivor that was judged before it, so it is safe as soon as all
//! batches numbered by then are settled. That says too little at times (somebody else's batch may be late), never
//! too much, and costs nothing for each message.
//!
//! # Guarantees
//!
//! - [`Outcome::Safe`] is said only if every survivor of the batch, and every survivor that one of its copies was
//!   held back for, is where its upstream's protocol lets it be safe, or on disk.
//! - A batch without survivors, or whose chunks are gone, is settled: no number stays open by mistake.
//! - What is kept is an octet for each batch that is open, and for few others: repeats that come in while the
//!   upstream is away for days do not add up.
//!
//! # Left out
//!
//! What makes a survivor safe: whoever delivers it lets go of its [`Receipt`] then.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::watch;

/// The register of batches that are not settled.
#[derive(Debug)]
pub struct Custody {
    state: Mutex<State>,
    /// The lowest number that is open, for those who wait.
    settled: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the first in `open`. All below are settled.
    settled: u64,
    /// Whether the batch is open. Neither starts nor ends with one that is not.
    open: VecDeque<bool>,
    /// One more than the highest number that was lost.
    lost_below: u64,
}

/// A batch's number while it is open. It goes wherever survivors of the batch go; when the last clone is gone, the
/// batch is settled.
#[derive(Clone, Debug)]
pub struct Receipt(Arc<Held>);

#[derive(Debug)]
struct Held {
    custody: Arc<Custody>,
    number: u64,
}

/// What a batch has to wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Promise {
    /// All below were settled before the batch was judged.
    from: u64,
    /// Its own number and all it may depend on are below.
    upto: u64,
}

impl Promise {
    /// Promises what `later` does as well: it ends when both do, and a loss is one of both.
    pub fn and(&mut self, later: Self) {
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
pub enum Outcome {
    /// All is safe.
    Safe,
    /// Something was lost that this batch may depend on.
    Lost,
}

impl Custody {
    /// A register without open batches.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            settled: watch::Sender::new(0),
        })
    }

    /// Opens the next batch. To be called before its first frame is judged.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> Receipt {
        let mut state = self.lock();
        let number = state.next();
        state.open.push_back(true);
        drop(state);
        Receipt(Arc::new(Held {
            custody: Arc::clone(self),
            number,
        }))
    }

    /// Begins a promise about a batch: before the batch is opened.
    #[must_use]
    pub fn promise(&self) -> Promise {
        let from = self.lock().settled;
        Promise { from, upto: from }
    }

    /// Ends a promise's beginning: after the last frame of the batch was judged.
    pub fn seal(&self, promise: &mut Promise) {
        promise.upto = self.lock().next();
    }

    /// How a sealed promise ended, once it has.
    #[must_use]
    pub fn outcome(&self, promise: &Promise) -> Option<Outcome> {
        let state = self.lock();
        (state.settled_below() >= promise.upto).then_some(if state.lost_below > promise.from {
            Outcome::Lost
        } else {
            Outcome::Safe
        })
    }

    /// Every number below that was given out by now is settled.
    #[must_use]
    pub fn settled_below(&self) -> u64 {
        self.lock().settled_below()
    }

    /// Changes whenever more promises may have ended; to be had before asking for an outcome the first time. While
    /// somebody listens, survivors' safety is found out without delay.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// Whether somebody listens.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.settled.receiver_count() > 0
    }

    fn settle(&self, number: u64) {
        let mut state = self.lock();
        let Some(index) = number
            .checked_sub(state.settled)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        if let Some(open) = state.open.get_mut(index) {
            *open = false;
        }
        if index > 0 {
            // Behind the last that is open nobody needs a number any more: the next batches get them again.
            while state.open.back() == Some(&false) {
                state.open.pop_back();
            }
            return;
        }
        while state.open.front() == Some(&false) {
            state.open.pop_front();
            state.settled += 1;
        }
        let settled = state.settled;
        // Asked while the lock is held: whoever listens later sees the state as it is now.
        let is_awaited = self.is_awaited();
        drop(state);
        if is_awaited {
            // Another thread may have come further meanwhile.
            self.settled.send_if_modified(|told| {
                let is_news = *told < settled;
                *told = settled.max(*told);
                is_news
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Every number below that was given out is settled.
    fn settled_below(&self) -> u64 {
        if self.open.is_empty() {
            // Some of the last may be given out again.
            return u64::MAX;
        }
        self.settled
    }

    fn next(&self) -> u64 {
        self.settled + self.open.len() as u64
    }
}

impl Receipt {
    /// A survivor of the batch was lost. To be said before the receipt is let go.
    pub fn lose(&self) {
        let mut state = self.0.custody.lock();
        state.lost_below = state.lost_below.max(self.0.number + 1);
    }

    /// One receipt for this batch and that of `other`: that which was opened first. A promise about the other batch
    /// covers all numbers below its own, and was begun when this number was not settled: it ends no sooner, and
    /// hears of a loss.
    #[must_use]
    pub fn or_earlier(self, other: Self) -> Self {
        if other.0.number < self.0.number {
            other
        } else {
            self
        }
    }

    /// Whether the batch is registered there.
    #[must_use]
    pub fn is_of(&self, custody: &Arc<Custody>) -> bool {
        Arc::ptr_eq(&self.0.custody, custody)
    }

    /// The batch's number. Those that are open grow in the order of opening.
    #[must_use]
    pub fn number(&self) -> u64 {
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

impl Drop for Held {
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
    fn a_copy_waits_for_what_was_judged_before_it_by_anybody() {
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
    fn what_was_lost_before_is_no_concern_of_later_batches() {
        let custody = Custody::new();
        let lost = custody.open();
        lost.lose();
        drop(lost);
        let mut promise = custody.promise();
        custody.seal(&mut promise);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
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
    fn a_receipt_in_two_hands_is_open_until_both_let_go() {
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
        // Its number is given out again, and has to be waited for.
        let next = custody.open();
        drop(waits);
        assert_eq!(custody.outcome(&promise), None);
        drop(next);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
    }

    #[tokio::test]
    async fn those_who_wait_are_told() {
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
