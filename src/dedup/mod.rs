//! Dedup: has this been said within its window?
//!
//! [`Shards`] is a fixed set of shards; an identity's hash picks one. A shard holds one engine per
//! policy behind one short lock. An engine pairs a timeline (marks in the order of their windows'
//! start, with what they remember of their messages in first-in, first-out storage) with a table
//! (identity -> generation, a mark's absolute position in the timeline).
//!
//! # Guarantees
//!
//! - A message is [`Verdict::Fresh`] iff no copy was fresh within its policy's window (age >= window is
//!   fresh; `allow = K` lets K copies through; `refresh` restarts the window at each repeat, but a copy
//!   goes out at least every `max_quiet`).
//! - Identities are compared by all their octets, never by hash alone.
//! - An arrival retires at most a small constant number of marks; no growth moves more than one
//!   small segment of the table.
//! - All engines together stay within the byte budget; the oldest mark is evicted and counted.
//! - Each suppressed copy is reported by exactly one [`Ended`].
//! - Policies change in a step that touches no mark: what their windows held back comes out a bite at a time.
//! - Windows can be carried over a stop: [`Shards::export`] and [`Shards::restore`] change no verdict.
//! - The number of shards changes no verdict, unless the budget is reached or time runs backwards.
//!
//! # Left out
//!
//! What the octets of an identity are (`identity`), what time it is, who sends the summary.

use std::mem::size_of;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::identity::{Identity, Variant};
use crate::rule::{PolicyId, WindowPolicy};
use crate::tick::Tick;

pub use self::carry::{OpenWindow, Progress};
pub use self::group::Group;
use self::shard::Shard;
use self::variety::Kept;
pub use self::variety::{DISTINCT_MAX, Several, Variety};

pub mod annotation;
mod carry;
mod engine;
mod group;
mod least;
#[cfg(test)]
mod model;
mod retire;
mod shard;
pub mod summary;
mod table;
mod timeline;
mod variety;

/// What has been said lately, by identity. Shared by all tasks.
///
/// Somebody must call [`Shards::advance`] regularly: it makes counts come out without another message,
/// and it gives memory back.
#[derive(Debug)]
pub struct Shards {
    /// A power of two of them, so that the top bits of a hash pick one.
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// The epoch given out last, and the generation of the policies. Held while they are changed.
    given: Mutex<Given>,
}

#[derive(Debug)]
struct Given {
    epoch: u32,
    generation: u32,
}

impl Shards {
    /// Shards with an engine for each of the policies, `budget_octets` for all together.
    ///
    /// `shard_count` is rounded up to a power of two, at least 1 and at most 65,536. The budget covers all that is
    /// allocated for marks and what they hold; an empty engine allocates nothing and is itself of
    /// about 400 octets, which are not counted.
    #[must_use]
    pub fn new(shard_count: usize, policies: &[WindowPolicy], budget_octets: usize) -> Self {
        let count = shard_count.clamp(1, SHARDS_MAX).next_power_of_two();
        let shard = |_| {
            let engines = policies.iter().copied().zip(1..);
            CachePadded::new(Mutex::new(Shard::new(engines, budget_octets / count)))
        };
        let epoch = u32::try_from(policies.len()).unwrap_or(u32::MAX);
        Self {
            shards: (0..count).map(shard).collect(),
            given: Mutex::new(Given {
                epoch,
                generation: 0,
            }),
        }
    }

    /// Judges one copy of the message `identity`, seen at `now`.
    ///
    /// Windows that the call finds to be over, and marks that it evicts for room, are added to `ended`. A
    /// policy that does not exist (an id from before a reload) counts as the first one.
    pub fn offer(
        &self,
        policy: PolicyId,
        identity: Identity<'_>,
        sighting: Sighting<'_>,
        now: Tick,
        ended: &mut Vec<Ended>,
    ) -> Verdict {
        self.shard_of(identity.hash)
            .offer(policy, identity, sighting, now, ended)
    }

    /// Forgets the delivery behind `claim` because its survivor was dropped: the next copy is fresh.
    ///
    /// Copies held back meanwhile come out as an [`Ended`]. Does nothing if the delivery's window is over,
    /// was replaced by a later delivery's, or was reopened before. If `allow` let several copies
    /// through, they are one delivery: dropping any of them starts all over.
    pub fn reopen(&self, claim: Claim, ended: &mut Vec<Ended>) {
        self.shard_of(claim.hash).reopen(claim, ended);
    }

    /// Retires what is over at `now`, at most `marks_max` marks in each shard, so that no lock is held
    /// for long. So it does with what [`Shards::switch`] and [`Shards::forget_all`] left to be ended. True if
    /// more is due.
    ///
    /// Also gives back memory that is not needed any more, a part in each call.
    pub fn advance(&self, now: Tick, marks_max: usize, ended: &mut Vec<Ended>) -> bool {
        self.visit(|shard| shard.advance(now, marks_max, ended))
    }

    /// Ends all windows, at most `marks_max` marks in each shard. True while there are more; then the
    /// engines are empty.
    pub fn end_all(&self, reason: EndReason, marks_max: usize, ended: &mut Vec<Ended>) -> bool {
        self.visit(|shard| shard.end_all(reason, marks_max, ended))
    }

    /// Whether a panic interrupted a change of a shard: then its state is not known.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shards.iter().any(|shard| shard.is_poisoned())
    }

    /// Panics while a shard is locked, for tests.
    #[cfg(debug_assertions)]
    pub(crate) fn break_one(&self) {
        let _locked = self.shards.first().map(|shard| lock(shard));
        panic!("injected at shard");
    }

    /// What is held now and what has been counted since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for shard in &self.shards {
            lock(shard).add_to(&mut stats);
        }
        stats
    }

    /// The earliest time at which [`Shards::advance`] has something to retire; `None` if nothing is
    /// remembered. May be too early, never too late.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        self.shards
            .iter()
            .filter_map(|shard| lock(shard).next_due())
            .min()
    }

    /// The top bits of the hash: the table uses the lowest 32.
    fn index_of(&self, hash: u64) -> usize {
        let bits = self.shards.len().trailing_zeros();
        let index = (hash >> 1) >> (63 - bits);
        usize::try_from(index).unwrap_or(0)
    }

    fn shard_of(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.index_of(hash)])
    }

    /// Visits the shards one after the other, and drops what they give out without holding a lock.
    fn visit<T>(&self, mut visit: impl FnMut(&mut Shard) -> (bool, Vec<T>)) -> bool {
        let mut any = false;
        for shard in &self.shards {
            let (more, spoils) = visit(&mut lock(shard));
            drop(spoils);
            any |= more;
        }
        any
    }
}

/// A copy of a message as it was seen: what a summary needs of it.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The whole frame.
    pub frame: &'a [u8],
    /// TIMESTAMP as it stands in the frame.
    pub timestamp: Option<&'a [u8]>,
    /// In what it may differ from other copies, where the policy folds what differs.
    pub variant: Option<&'a Variant>,
}

/// What becomes of a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is to be forwarded. If it is dropped instead, the claim must be given to [`Shards::reopen`].
    Fresh(Claim),
    /// It is held back and counted.
    Duplicate,
}

/// Which delivery a survivor is: what [`Shards::reopen`] needs to forget it. 24 octets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    hash: u64,
    /// Generation of the mark that the delivery made.
    delivery: u64,
    /// Of the engine. Zero is no engine's.
    epoch: u32,
}

impl Claim {
    /// The claim of a survivor that is not remembered.
    pub(crate) const VOID: Self = Self {
        hash: 0,
        delivery: 0,
        epoch: 0,
    };

    /// Its three numbers, for a store that keeps many claims side by side. The last is zero if no engine made it.
    pub(crate) const fn into_parts(self) -> (u64, u64, u32) {
        (self.hash, self.delivery, self.epoch)
    }

    /// The claim with these numbers.
    pub(crate) const fn from_parts((hash, delivery, epoch): (u64, u64, u32)) -> Self {
        Self {
            hash,
            delivery,
            epoch,
        }
    }

    /// The claim of a survivor of an earlier run: whether its window is open, and which it is, nobody knows any more.
    pub(crate) const FORGOTTEN: Self = Self {
        delivery: u64::MAX,
        ..Self::VOID
    };

    /// The claim as octets, for a survivor that waits on disk. Means something only to the [`Shards`] that made it.
    pub(crate) fn to_octets(self) -> [u8; Self::OCTETS] {
        let mut octets = [0; Self::OCTETS];
        octets[..8].copy_from_slice(&self.hash.to_le_bytes());
        octets[8..16].copy_from_slice(&self.delivery.to_le_bytes());
        octets[16..].copy_from_slice(&self.epoch.to_le_bytes());
        octets
    }

    /// What [`Claim::to_octets`] made octets of. Any octets are some claim; one that no engine made reopens
    /// nothing, or at worst a window too many.
    pub(crate) fn from_octets(octets: [u8; Self::OCTETS]) -> Self {
        let [
            h0,
            h1,
            h2,
            h3,
            h4,
            h5,
            h6,
            h7,
            d0,
            d1,
            d2,
            d3,
            d4,
            d5,
            d6,
            d7,
            epoch @ ..,
        ] = octets;
        Self {
            hash: u64::from_le_bytes([h0, h1, h2, h3, h4, h5, h6, h7]),
            delivery: u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]),
            epoch: u32::from_le_bytes(epoch),
        }
    }

    /// Octets of [`Claim::to_octets`].
    pub(crate) const OCTETS: usize = 20;
}

/// A window that held copies back has ended: what there is to report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// The policy it was held back by.
    pub policy: PolicyId,
    /// Of the list of policies that `policy` is an id of.
    pub generation: u32,
    /// Why it ended.
    pub reason: EndReason,
    /// Copies suppressed and not reported before. More than zero.
    pub count: u64,
    /// When the first of them was seen.
    pub first: Tick,
    /// When the last of them was seen.
    pub last: Tick,
    /// The policy's window.
    pub window: Duration,
    /// The first of them, whole; the last of them where they vary.
    pub frame: Box<[u8]>,
    /// How much they vary, where the policy folds what differs.
    pub variety: Option<Variety>,
    /// TIMESTAMP of the last of them.
    pub last_timestamp: Option<Stamp>,
}

/// Why a window ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EndReason {
    /// It was over, or a refreshed message had been quiet for `max_quiet`.
    Window,
    /// Its mark made room for others.
    Evicted,
    /// Its policy was changed or removed.
    Reload,
    /// The relay stops.
    Stop,
    /// Its survivor was dropped.
    Reopened,
}

/// The octets of a TIMESTAMP, at most 64, kept in place.
#[derive(Clone, Copy)]
pub struct Stamp {
    /// Octets that count; [`NO_STAMP`] if there is no timestamp, which nobody outside gets to see.
    len: u8,
    octets: [u8; STAMP_OCTETS_MAX],
}

impl Stamp {
    const NONE: Self = Self {
        len: NO_STAMP,
        octets: [0; STAMP_OCTETS_MAX],
    };

    /// Takes over a timestamp. One that is longer than any counts as none: a part of it would be wrong.
    fn set(&mut self, timestamp: Option<&[u8]>) {
        self.len = NO_STAMP;
        if let Some(timestamp) = timestamp
            && let Some(octets) = self.octets.get_mut(..timestamp.len())
            && let Ok(len) = u8::try_from(timestamp.len())
        {
            octets.copy_from_slice(timestamp);
            self.len = len;
        }
    }

    const fn is_some(&self) -> bool {
        self.len != NO_STAMP
    }
}

impl Deref for Stamp {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Stamp {}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

/// What all shards together hold now, and have counted since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Messages remembered. Those whose window is over count until they are retired.
    pub live_messages: usize,
    /// Octets allocated for them.
    pub octets: usize,
    /// The most octets there may be.
    pub budget_octets: usize,
    /// Messages forgotten before their window was over, for room.
    pub evicted_total: u64,
    /// Copies forwarded because there was no room to remember or to count them.
    pub unremembered_total: u64,
    /// Entries of the tables found to be stale and reused or removed.
    pub stale_total: u64,
    /// Segments of the tables rid of their stale entries.
    pub sweeps_total: u64,
    /// Segments of the tables split.
    pub splits_total: u64,
    /// Segments of the tables joined.
    pub merges_total: u64,
    /// Marks moved to a younger one because `refresh` restarted their window.
    pub remarked_total: u64,
}

/// What a mark knows beyond its start: made by the first copy after the survivor.
///
/// What counting a copy touches comes first and starts with a cache line, so that it is in that one unless the
/// timestamp is longer than any that is common.
#[derive(Debug)]
#[repr(C, align(64))]
struct Held {
    /// Copies suppressed.
    count: u64,
    /// When the last of them was seen; if there is none yet, the last one that `allow` let through.
    last: Tick,
    /// Of the last copy suppressed.
    last_timestamp: Stamp,
    /// Copies let through.
    passed: u32,
    /// When the first copy was suppressed.
    first: Tick,
    /// When the last copy was let through.
    forwarded: Tick,
    /// Generation of the mark that the delivery made; `refresh` moves what is held to younger marks.
    delivery: u64,
    /// The first copy suppressed, or the last where they vary.
    kept: Kept,
}

impl Held {
    /// For the delivery `delivery` made at `start`.
    fn new(start: Tick, delivery: u64) -> Self {
        Self {
            count: 0,
            first: start,
            last: start,
            forwarded: start,
            delivery,
            passed: 1,
            kept: Kept::nothing(),
            last_timestamp: Stamp::NONE,
        }
    }

    /// Counts a copy that is held back.
    #[inline]
    fn count_one(&mut self, sighting: Sighting<'_>, now: Tick) {
        self.count += 1;
        self.last = now;
        self.last_timestamp.set(sighting.timestamp);
        if sighting.variant.is_some() {
            self.kept.note(sighting);
        }
    }

    /// Octets that one more copy takes beyond what is there.
    #[inline]
    fn growth(&self, sighting: Sighting<'_>) -> usize {
        if sighting.variant.is_none() {
            return 0;
        }
        self.kept.growth(sighting)
    }
}

/// Takes the lock. If a panic interrupted the last holder, nobody knows what state the shard is in: it
/// starts over with nothing remembered, so that copies are forwarded (and what was held back goes unreported).
#[inline]
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(|poisoned| {
        let mut guard = poisoned.into_inner();
        guard.reset();
        shard.clear_poison();
        guard
    })
}

/// Octets that an allocation of `octets` takes from the allocator: 8 of its own, in steps of 16, at least
/// 32 (glibc; others differ little).
const fn alloc_octets(octets: usize) -> usize {
    let taken = (octets + 8).next_multiple_of(16);
    if taken < 32 { 32 } else { taken }
}

/// Shards at most: far more than cores.
const SHARDS_MAX: usize = 1 << 16;

/// [`Stamp::len`] of none.
const NO_STAMP: u8 = u8::MAX;

/// Octets of a TIMESTAMP that are kept: RFC 5424's longest has 32.
const STAMP_OCTETS_MAX: usize = 64;

const _: () = assert!(
    size_of::<Claim>() <= 24,
    "a claim is kept for each survivor in flight"
);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::hash::{DefaultHasher, Hasher as _};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_forwarded_once_per_window() {
        // LeetCode 359, with its window of 10.
        check(
            fixed(10),
            &[
                (1, "foo", Fresh),
                (2, "bar", Fresh),
                (3, "foo", Duplicate),
                (8, "bar", Duplicate),
                (10, "foo", Duplicate),
                (11, "foo", Fresh),
            ],
        );
    }

    #[test]
    fn age_of_exactly_the_window_is_fresh_and_one_tick_less_is_not() {
        check(
            fixed(10),
            &[
                (0, "a", Fresh),
                (9, "a", Duplicate),
                (10, "a", Fresh),
                (19, "a", Duplicate),
                (20, "a", Fresh),
            ],
        );
    }

    #[test]
    fn repeats_do_not_extend_a_fixed_window() {
        check(
            fixed(10),
            &[
                (0, "a", Fresh),
                (5, "a", Duplicate),
                (9, "a", Duplicate),
                (10, "a", Fresh),
                (15, "a", Duplicate),
            ],
        );
    }

    #[test]
    fn time_that_runs_backwards_stands_still() {
        check(
            fixed(10),
            &[
                (20, "a", Fresh),
                (5, "a", Duplicate),
                (5, "b", Fresh),
                (29, "b", Duplicate),
                (30, "b", Fresh),
            ],
        );
    }

    #[test]
    fn allow_lets_so_many_copies_through_from_the_first_on() {
        let policy = WindowPolicy {
            allow: 3,
            ..fixed(10)
        };
        check(
            policy,
            &[
                (0, "a", Fresh),
                (1, "a", Fresh),
                (8, "a", Fresh),
                (9, "a", Duplicate),
                (10, "a", Fresh),
                (11, "a", Fresh),
                (12, "a", Fresh),
                (13, "a", Duplicate),
            ],
        );
    }

    #[test]
    fn refresh_restarts_the_window_at_each_repeat() {
        check(
            refreshed(32, 1000),
            &[
                (0, "a", Fresh),
                (1, "a", Duplicate),
                (32, "a", Duplicate),
                (63, "a", Duplicate),
                (94, "a", Duplicate),
                (126, "a", Fresh),
                (157, "a", Duplicate),
                (189, "a", Fresh),
            ],
        );
    }

    #[test]
    fn refresh_never_starves_beyond_max_quiet() {
        check(
            refreshed(32, 70),
            &[
                (0, "a", Fresh),
                (31, "a", Duplicate),
                (62, "a", Duplicate),
                (69, "a", Duplicate),
                (70, "a", Fresh),
                (100, "a", Duplicate),
                (131, "a", Duplicate),
                (139, "a", Duplicate),
                (140, "a", Fresh),
            ],
        );
        // A steady flood, too: one copy every max_quiet, to the tick.
        let flood: Vec<_> = (0..500)
            .map(|at| (at, "a", if at % 70 == 0 { Fresh } else { Duplicate }))
            .collect();
        check(refreshed(32, 70), &flood);
    }

    #[test]
    fn max_quiet_counts_from_the_last_copy_that_allow_let_through() {
        let policy = WindowPolicy {
            allow: 2,
            ..refreshed(32, 40)
        };
        check(
            policy,
            &[
                (0, "a", Fresh),
                (20, "a", Fresh),
                (45, "a", Duplicate),
                (59, "a", Duplicate),
                (60, "a", Fresh),
            ],
        );
    }

    #[test]
    fn equal_hashes_are_told_apart_by_their_octets() {
        let bed = Bed::new(fixed(10));
        for number in 0..100_u8 {
            let octets = [number, 0];
            assert_eq!(
                bed.offer_hashed(u64::from(number / 20), 7, &octets),
                Fresh,
                "{octets:?}"
            );
        }
        assert_eq!(bed.offer_hashed(6, 7, &[99, 0]), Duplicate);
        assert_eq!(
            bed.offer_hashed(6, 7, &[99]),
            Fresh,
            "a prefix is another identity"
        );
        assert_eq!(bed.offer_hashed(6, 7, &[]), Fresh, "so is nothing at all");
    }

    #[test]
    fn identities_that_differ_in_the_last_of_many_octets_are_told_apart() {
        let bed = Bed::new(fixed(1000));
        let mut long = vec![b'x'; 100_000];
        assert_eq!(bed.offer_hashed(0, 7, &long), Fresh);
        long[99_999] = 0;
        assert_eq!(bed.offer_hashed(0, 7, &long), Fresh);
        assert_eq!(bed.offer_hashed(0, 7, &long[..99_999]), Fresh);
        assert_eq!(bed.offer_hashed(0, 7, &long), Duplicate);
        long[50_000] = 0xff;
        assert_eq!(bed.offer_hashed(0, 7, &long), Fresh);
    }

    #[test]
    fn a_window_that_held_copies_back_reports_them_once() {
        let bed = Bed::new(fixed(10));
        for (at, text) in [(0, "a"), (0, "quiet"), (2, "a"), (5, "a"), (9, "a")] {
            bed.offer(at, text);
        }
        assert_eq!(bed.ended(), []);
        assert!(
            !bed.shards
                .advance(tick(9), 100, &mut bed.ended.borrow_mut())
        );
        assert_eq!(bed.ended(), [], "one tick before the end");
        assert_eq!(bed.shards.next_due(), Some(tick(10)));
        bed.shards
            .advance(tick(10), 100, &mut bed.ended.borrow_mut());
        let ended = bed.ended();
        assert_eq!(ended.len(), 1, "what was said once is silent");
        let Ended {
            policy,
            generation: 0,
            reason,
            count,
            first,
            last,
            window,
            frame,
            variety,
            last_timestamp,
        } = &ended[0]
        else {
            panic!("{ended:?}");
        };
        assert_eq!(*variety, None, "nothing is folded");
        assert_eq!(
            (*policy, *reason, *count),
            (PolicyId(0), EndReason::Window, 3)
        );
        assert_eq!(
            (*first, *last, *window),
            (tick(2), tick(9), Duration::from_nanos(10))
        );
        assert_eq!(**frame, *b"2 a", "the first copy held back");
        assert_eq!(last_timestamp.as_deref(), Some(&b"9"[..]), "the last one's");
        assert_eq!(
            (bed.shards.next_due(), bed.shards.stats().live_messages),
            (None, 0)
        );
        bed.shards
            .advance(tick(1000), 100, &mut bed.ended.borrow_mut());
        assert_eq!(bed.ended(), []);
    }

    #[test]
    fn the_copy_that_starts_a_new_window_brings_out_the_old_count() {
        let bed = Bed::new(fixed(10));
        for at in [0, 1, 2] {
            bed.offer(at, "a");
        }
        // More is over than one offer retires: the count must come out all the same.
        for other in 3..9 {
            bed.offer(2, &other.to_string());
        }
        assert_eq!(bed.offer(30, "a"), Fresh);
        assert_eq!(bed.counts(), [(EndReason::Window, 2)]);
    }

    #[test]
    fn a_timestamp_longer_than_any_is_not_kept() {
        let mut stamp = Stamp::NONE;
        for (len, kept) in [
            (64, Some(64)),
            (65, None),
            (0, Some(0)),
            (300, None),
            (15, Some(15)),
        ] {
            stamp.set(Some(&vec![b'x'; len]));
            assert_eq!(stamp.is_some().then(|| stamp.len()), kept, "{len}");
        }
        stamp.set(None);
        assert!(!stamp.is_some());
    }

    #[test]
    fn a_reopened_window_lets_the_next_copy_through() {
        let bed = Bed::new(fixed(10));
        let claim = bed.claim(0, "a");
        assert_eq!(
            (bed.offer(1, "a"), bed.offer(2, "a")),
            (Duplicate, Duplicate)
        );
        bed.reopen(claim);
        assert_eq!(bed.counts(), [(EndReason::Reopened, 2)]);
        bed.reopen(claim);
        assert_eq!(bed.counts(), [], "once is enough");
        let second = bed.claim(3, "a");
        assert_eq!(
            bed.offer(12, "a"),
            Duplicate,
            "the second delivery has a window of its own"
        );
        bed.reopen(claim);
        assert_eq!(
            bed.offer(12, "a"),
            Duplicate,
            "the first one's claim does not touch it"
        );
        bed.reopen(second);
        assert_eq!(bed.offer(12, "a"), Fresh);
    }

    #[test]
    fn a_claim_whose_window_is_over_does_nothing() {
        let bed = Bed::new(fixed(10));
        let claim = bed.claim(0, "a");
        assert_eq!(bed.offer(10, "a"), Fresh);
        bed.reopen(claim);
        assert_eq!(bed.offer(11, "a"), Duplicate);
        assert_eq!(bed.counts(), []);
    }

    #[test]
    fn reopening_one_copy_that_allow_let_through_starts_all_over() {
        let bed = Bed::new(WindowPolicy {
            allow: 2,
            ..fixed(10)
        });
        let first = bed.claim(0, "a");
        let second = bed.claim(1, "a");
        assert_eq!(bed.offer(2, "a"), Duplicate);
        bed.reopen(second);
        assert_eq!(bed.counts(), [(EndReason::Reopened, 1)]);
        bed.claim(3, "a");
        bed.reopen(first);
        assert_eq!(
            (bed.offer(4, "a"), bed.offer(5, "a")),
            (Fresh, Duplicate),
            "the first claim is void by then"
        );
    }

    #[test]
    fn a_refreshed_message_is_reopened_by_the_claim_of_its_delivery() {
        let bed = Bed::new(refreshed(32, 1000));
        let claim = bed.claim(0, "a");
        for at in (10..100).step_by(10) {
            assert_eq!(bed.offer(at, "a"), Duplicate);
        }
        assert!(bed.shards.stats().remarked_total > 3);
        bed.reopen(claim);
        assert_eq!(bed.counts(), [(EndReason::Reopened, 9)]);
        let later = bed.claim(101, "a");
        assert_eq!(bed.offer(121, "a"), Duplicate);
        bed.reopen(claim);
        assert_eq!(
            bed.offer(122, "a"),
            Duplicate,
            "the successor is another delivery"
        );
        bed.reopen(later);
        assert_eq!(bed.counts(), [(EndReason::Reopened, 2)]);
    }

    #[test]
    fn a_refreshed_message_ends_a_window_after_its_last_copy() {
        let bed = Bed::new(refreshed(32, 1000));
        for at in [0, 1, 20, 21] {
            bed.offer(at, "a");
        }
        bed.shards
            .advance(tick(52), 100, &mut bed.ended.borrow_mut());
        assert_eq!(bed.counts(), []);
        bed.shards
            .advance(tick(53), 100, &mut bed.ended.borrow_mut());
        assert_eq!(bed.counts(), [(EndReason::Window, 3)]);
    }

    #[test]
    fn stopping_brings_everything_out_a_part_at_a_time() {
        let bed = Bed::new(fixed(10));
        for text in 0..100 {
            bed.offer(0, &text.to_string());
            bed.offer(0, &text.to_string());
        }
        let mut calls = 1;
        while bed
            .shards
            .end_all(EndReason::Stop, 10, &mut bed.ended.borrow_mut())
        {
            calls += 1;
        }
        assert_eq!(calls, 10);
        assert_eq!(bed.counts(), [(EndReason::Stop, 1); 100]);
        let stats = bed.shards.stats();
        assert_eq!((stats.live_messages, stats.octets), (0, 0));
        assert_eq!(bed.offer(1, "5"), Fresh);
    }

    #[test]
    fn a_reload_keeps_the_engines_it_is_told_to_and_ends_the_others() {
        let bed = Bed::with(&[fixed(10), fixed(20), fixed(30)], 1 << 20);
        let claims: Vec<_> = (0..3)
            .map(|id| bed.claim_in(PolicyId(id), 0, "a"))
            .collect();
        (0..3).for_each(|id| assert_eq!(bed.offer_in(PolicyId(id), 1, "a"), Duplicate));
        let reload = [
            (fixed(30), Some(PolicyId(2))),
            (fixed(10), Some(PolicyId(0))),
            (fixed(40), Some(PolicyId(1))),
        ];
        bed.shards
            .reconfigure(&reload, 1 << 20, &mut bed.ended.borrow_mut());
        let ended = bed.ended();
        assert_eq!(ended.len(), 1, "a changed window is another engine");
        assert_eq!(
            (ended[0].policy, ended[0].reason),
            (PolicyId(1), EndReason::Reload)
        );
        assert_eq!(
            bed.offer_in(PolicyId(0), 2, "a"),
            Duplicate,
            "kept, under its new id"
        );
        assert_eq!(
            bed.offer_in(PolicyId(1), 2, "a"),
            Duplicate,
            "kept, under its new id"
        );
        assert_eq!(bed.offer_in(PolicyId(2), 2, "a"), Fresh);
        bed.reopen(claims[1]);
        assert_eq!(
            bed.offer_in(PolicyId(2), 3, "a"),
            Duplicate,
            "the claim went with its engine"
        );
        bed.reopen(claims[2]);
        let ended = bed.ended();
        assert_eq!((ended[0].policy, ended[0].count), (PolicyId(0), 2));
        assert_eq!(bed.offer_in(PolicyId(0), 3, "a"), Fresh);
        assert_eq!(
            bed.offer_in(PolicyId(9), 3, "a"),
            Duplicate,
            "an unknown policy is the first one"
        );
    }

    #[test]
    fn a_smaller_budget_holds_when_the_call_returns() {
        let bed = Bed::with(&[fixed(10_000)], 4 << 20);
        for text in 0..5000 {
            bed.offer(text, &text.to_string());
            bed.offer(text, &text.to_string());
        }
        let before = bed.shards.stats();
        assert_eq!((before.live_messages, before.evicted_total), (5000, 0));
        for budget in [before.octets / 2, 65_536, 8192, 4 << 20] {
            bed.shards.reconfigure(
                &[(fixed(10_000), Some(PolicyId(0)))],
                budget,
                &mut bed.ended.borrow_mut(),
            );
            let stats = bed.shards.stats();
            assert!(
                stats.octets <= budget,
                "{} octets in {budget}",
                stats.octets
            );
            assert_eq!(stats.live_messages as u64 + stats.evicted_total, 5000);
            assert!(
                stats.live_messages == 0 || budget > 8192,
                "{} in {budget}",
                stats.live_messages
            );
        }
        let evicted = bed.shards.stats().evicted_total;
        assert_eq!(
            bed.counts(),
            vec![(EndReason::Evicted, 1); usize::try_from(evicted).unwrap()]
        );
        for text in 0..2000 {
            bed.offer(6000, &text.to_string());
        }
        assert_eq!(
            bed.shards.stats().evicted_total,
            evicted,
            "the larger budget is in force"
        );
    }

    #[test]
    fn what_does_not_fit_the_budget_is_forwarded_and_evicts_nothing() {
        let bed = Bed::with(&[fixed(10)], 100_000);
        assert_eq!(bed.offer(0, "small"), Fresh);
        let large = vec![b'x'; 100_000];
        for at in 1..4 {
            assert_eq!(bed.offer_hashed(at, 7, &large), Fresh);
        }
        let stats = bed.shards.stats();
        assert_eq!(
            (
                stats.unremembered_total,
                stats.evicted_total,
                stats.live_messages
            ),
            (3, 0, 1)
        );
        assert_eq!(bed.offer(5, "small"), Duplicate);
    }

    #[test]
    fn without_a_budget_or_policy_everything_is_forwarded() {
        for bed in [Bed::with(&[fixed(10)], 0), Bed::with(&[], 1 << 20)] {
            let claim = bed.claim(0, "a");
            bed.reopen(claim);
            assert_eq!((bed.offer(0, "a"), bed.offer(0, "a")), (Fresh, Fresh));
            let stats = bed.shards.stats();
            assert_eq!(
                (stats.octets, stats.live_messages, stats.unremembered_total),
                (0, 0, 3)
            );
        }
    }

    #[test]
    fn an_idle_shard_allocates_nothing() {
        let bed = Bed::new(fixed(10));
        assert_eq!(bed.shards.stats().octets, 0);
        bed.offer(0, "a");
        bed.shards
            .advance(tick(10), 100, &mut bed.ended.borrow_mut());
        assert_eq!(bed.shards.stats().octets, 0, "nor one that has become idle");
    }

    #[test]
    fn a_million_live_messages_take_no_more_than_promised() {
        // DESIGN 10: exact identities of 200 octets, and compact ones of 16. All shards full at once
        // is the worst case for the tables, halfway between is the best.
        for (octets, shard_count, octets_max) in [
            (200, 1, 300_000_000),
            (200, 16, 300_000_000),
            (16, 1, 64_000_000),
            (16, 16, 64_000_000),
        ] {
            let shards = Shards::new(shard_count, &[fixed(10)], 1 << 30);
            let mut identity = [b'x'; 200];
            for number in 0..1_000_000_u64 {
                identity[..8].copy_from_slice(&number.to_le_bytes());
                let octets = &identity[..octets];
                let sighting = Sighting {
                    frame: octets,
                    timestamp: None,
                    variant: None,
                };
                let identity = Identity {
                    hash: hash(&octets[..8]),
                    octets,
                };
                shards.offer(PolicyId(0), identity, sighting, tick(0), &mut Vec::new());
            }
            let stats = shards.stats();
            assert_eq!(
                (stats.live_messages, stats.unremembered_total),
                (1_000_000, 0)
            );
            assert!(
                stats.octets <= octets_max,
                "{octets} each in {shard_count} shards: {stats:?}"
            );
        }
    }

    #[test]
    fn a_poisoned_shard_starts_over() {
        let bed = Bed::new(fixed(10));
        let claim = bed.claim(0, "a");
        std::thread::scope(|scope| {
            let shards = &bed.shards;
            let panics = scope.spawn(|| {
                let _guard = shards.shards[0].lock();
                std::panic::resume_unwind(Box::new("poison"));
            });
            assert!(panics.join().is_err());
        });
        assert_eq!((bed.offer(1, "a"), bed.offer(1, "a")), (Fresh, Duplicate));
        bed.reopen(claim);
        assert_eq!(bed.offer(1, "a"), Duplicate, "claims from before are void");
        assert!(!bed.shards.shards[0].is_poisoned());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_number_of_shards_changes_no_verdict(calls in vec((0..6_u64, 0..2_u16, 0..30_u8, 0..40_usize), 1..300)) {
            let policies = [WindowPolicy { allow: 2, ..fixed(40) }, refreshed(30, 100)];
            let runs = [1, 2, 8, 64].map(|shard_count| {
                let shards = Shards::new(shard_count, &policies, 64 << 20);
                let (mut at, mut verdicts, mut claims, mut ended) = (0, Vec::new(), Vec::new(), Vec::new());
                for (call, &(step, policy, message, reopened)) in calls.iter().enumerate() {
                    at += step;
                    let identity = Identity { hash: hash(&[message]), octets: &[message] };
                    let frame = call.to_be_bytes();
                    let sighting = Sighting { frame: &frame, timestamp: None, variant: None };
                    let verdict = shards.offer(PolicyId(policy), identity, sighting, tick(at), &mut ended);
                    verdicts.push(seen(verdict));
                    if let Verdict::Fresh(claim) = verdict {
                        claims.push(claim);
                    }
                    if let Some(index) = claims.len().checked_sub(reopened + 1) {
                        shards.reopen(claims[index], &mut ended);
                    }
                }
                while shards.end_all(EndReason::Stop, 100, &mut ended) {}
                let duplicates = verdicts.iter().filter(|&&seen| seen == Duplicate).count() as u64;
                assert_eq!(ended.iter().map(|ended| ended.count).sum::<u64>(), duplicates);
                // Why a window that is over comes out late may differ, and when, but not what comes out.
                let mut ended: Vec<_> =
                    ended.into_iter().map(|ended| Ended { reason: EndReason::Window, ..ended }).collect();
                ended.sort_by(|a, b| a.frame.cmp(&b.frame));
                (verdicts, ended)
            });
            for run in &runs {
                prop_assert_eq!(run, &runs[0]);
            }
        }
    }

    /// A verdict without its claim.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Seen {
        Fresh,
        Duplicate,
    }
    use Seen::{Duplicate, Fresh};

    /// One shard, and what has come out of it.
    struct Bed {
        shards: Shards,
        ended: RefCell<Vec<Ended>>,
    }

    impl Bed {
        fn new(policy: WindowPolicy) -> Self {
            Self::with(&[policy], 1 << 20)
        }

        fn with(policies: &[WindowPolicy], budget_octets: usize) -> Self {
            Self {
                shards: Shards::new(1, policies, budget_octets),
                ended: RefCell::default(),
            }
        }

        fn offer(&self, at: u64, text: &str) -> Seen {
            self.offer_in(PolicyId(0), at, text)
        }

        fn offer_in(&self, policy: PolicyId, at: u64, text: &str) -> Seen {
            seen(self.judge(policy, at, text))
        }

        fn claim(&self, at: u64, text: &str) -> Claim {
            self.claim_in(PolicyId(0), at, text)
        }

        fn claim_in(&self, policy: PolicyId, at: u64, text: &str) -> Claim {
            match self.judge(policy, at, text) {
                Verdict::Fresh(claim) => claim,
                Verdict::Duplicate => panic!("{text} at {at} is a duplicate"),
            }
        }

        fn judge(&self, policy: PolicyId, at: u64, text: &str) -> Verdict {
            let identity = Identity {
                hash: hash(text.as_bytes()),
                octets: text.as_bytes(),
            };
            let (frame, stamp) = (format!("{at} {text}"), at.to_string());
            let sighting = Sighting {
                frame: frame.as_bytes(),
                timestamp: Some(stamp.as_bytes()),
                variant: None,
            };
            self.shards.offer(
                policy,
                identity,
                sighting,
                tick(at),
                &mut self.ended.borrow_mut(),
            )
        }

        fn offer_hashed(&self, at: u64, hash: u64, octets: &[u8]) -> Seen {
            let sighting = Sighting {
                frame: octets,
                timestamp: None,
                variant: None,
            };
            let identity = Identity { hash, octets };
            seen(self.shards.offer(
                PolicyId(0),
                identity,
                sighting,
                tick(at),
                &mut self.ended.borrow_mut(),
            ))
        }

        fn reopen(&self, claim: Claim) {
            self.shards.reopen(claim, &mut self.ended.borrow_mut());
        }

        /// What has come out since the last look.
        fn ended(&self) -> Vec<Ended> {
            self.ended.take()
        }

        fn counts(&self) -> Vec<(EndReason, u64)> {
            self.ended()
                .iter()
                .map(|ended| (ended.reason, ended.count))
                .collect()
        }
    }

    /// Offers copies in order, on their own and among a crowd of others.
    fn check(policy: WindowPolicy, copies: &[(u64, &str, Seen)]) {
        let alone = Bed::new(policy);
        let crowded = Bed::new(policy);
        for (step, &(at, text, expected)) in copies.iter().enumerate() {
            assert_eq!(alone.offer(at, text), expected, "{text} at {at}");
            for other in 0..7 {
                crowded.offer(at, &format!("{other} in step {step}"));
            }
            assert_eq!(crowded.offer(at, text), expected, "{text} at {at}, crowded");
        }
    }

    fn seen(verdict: Verdict) -> Seen {
        match verdict {
            Verdict::Fresh(_) => Fresh,
            Verdict::Duplicate => Duplicate,
        }
    }

    fn hash(octets: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(octets);
        hasher.finish()
    }

    fn tick(nanos: u64) -> Tick {
        Tick::from_nanos(nanos)
    }

    const fn fixed(window: u64) -> WindowPolicy {
        WindowPolicy {
            window: Duration::from_nanos(window),
            allow: 1,
            refresh: None,
        }
    }

    const fn refreshed(window: u64, max_quiet: u64) -> WindowPolicy {
        WindowPolicy {
            refresh: Some(Duration::from_nanos(max_quiet)),
            ..fixed(window)
        }
    }
}
