//! Dedup: was this message forwarded already within its window?
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
//!   small bucket of the table.
//! - All engines together stay within the byte budget; the oldest mark is evicted and counted.
//! - Each suppressed copy is reported by exactly one [`Ended`].
//! - Changing policies touches no mark: the windows of old policies are ended and reported a few at a time.
//! - Windows can be carried over a stop: [`Shards::export`] and [`Shards::restore`] change no verdict.
//! - The number of shards changes no verdict, unless the budget is reached or time runs backwards.
//! - A panic while a shard is locked poisons the shard: each later call that would judge by it, or report from it, panics.
//!   [`Shards::reopen`] and [`Shards::forget_all`] pass over it. They come after a loss, and no window of a poisoned
//!   shard suppresses anything more.
//!
//! # Left out
//!
//! What the octets of an identity are (`identity`), what time it is, who sends the summary.

use std::mem::size_of;
use std::ops::Deref;
use std::panic::panic_any;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::core::identity::{Identity, Variant};
use crate::core::rule::{PolicyId, WindowPolicy};
use crate::core::tick::Tick;

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

/// The messages seen within their windows, by identity. All tasks share it.
///
/// The owner must call [`Shards::advance`] regularly: it reports counts that no further message would
/// report, and it frees memory.
#[derive(Debug)]
pub struct Shards {
    /// A power of two of them, so that the top bits of a hash pick one.
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// The newest epoch, and the generation of the policies. Locked while either changes.
    numbering: Mutex<Numbering>,
}

#[derive(Debug)]
struct Numbering {
    epoch: u32,
    generation: u32,
}

impl Shards {
    /// Creates shards with an engine for each policy. All of them share `budget_octets`.
    ///
    /// `shard_count` is rounded up to a power of two, at least 1 and at most 65,536. The budget covers all
    /// allocations for marks and for what they store. It does not cover the engines themselves, which take
    /// about 400 octets each; an empty engine allocates nothing.
    #[must_use]
    pub fn new(shard_count: usize, policies: &[WindowPolicy], budget_octets: usize) -> Self {
        let count = shard_count.clamp(1, SHARDS_MAX).next_power_of_two();
        let shard = |_| {
            let engines = policies.iter().copied().zip(1..);
            CachePadded::new(Mutex::new(Shard::new(engines, budget_octets / count)))
        };
        let epoch = u32::try_from(policies.len()).expect("a policy's id has 16 bits");
        Self {
            shards: (0..count).map(shard).collect(),
            numbering: Mutex::new(Numbering {
                epoch,
                generation: 0,
            }),
        }
    }

    /// Judges one copy of the message `identity`, seen at `now`.
    ///
    /// Adds to `ended` the windows that the call finds expired and the marks that it evicts for room. A
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
    /// Copies suppressed meanwhile are reported as an [`Ended`]. The call does nothing if the delivery's window
    /// expired, was replaced by a later delivery's, or was reopened before. Copies that `allow` let through
    /// within one window are one delivery: dropping any of them reopens the window.
    ///
    /// Does nothing if the claim's shard is poisoned. Then nothing is judged by the shard, and the destructor of a batch
    /// that another panic interrupts may be the caller.
    pub fn reopen(&self, claim: Claim, ended: &mut Vec<Ended>) {
        if let Some(mut shard) = lock_sound(self.mutex_of(claim.hash)) {
            shard.reopen(claim, ended);
        }
    }

    /// Retires windows that are expired at `now`, or that [`Shards::switch`] or [`Shards::forget_all`] left
    /// to end: at most `marks_max` marks in each shard, so that no lock is held for long. Returns whether
    /// more are due.
    ///
    /// Each call also frees part of the memory that is not needed any more.
    pub fn advance(&self, now: Tick, marks_max: usize, ended: &mut Vec<Ended>) -> bool {
        self.visit(|shard| shard.advance(now, marks_max, ended))
    }

    /// Ends all windows, at most `marks_max` marks in each shard. Returns whether more are left; if not, the
    /// engines are empty.
    pub fn end_all(&self, reason: EndReason, marks_max: usize, ended: &mut Vec<Ended>) -> bool {
        self.visit(|shard| shard.end_all(reason, marks_max, ended))
    }

    /// Panics while a shard is locked, for tests.
    #[cfg(debug_assertions)]
    pub(crate) fn break_one(&self) {
        let _locked = self.shards.first().map(|shard| lock(shard));
        panic!("injected at shard");
    }

    /// Returns current sizes, and counts since the start.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.sound_stats().unwrap_or_else(|| panic_poisoned())
    }

    /// The same; `None` if a shard is poisoned.
    #[must_use]
    pub fn sound_stats(&self) -> Option<EngineStats> {
        let mut stats = EngineStats::default();
        for shard in &self.shards {
            lock_sound(shard)?.add_to(&mut stats);
        }
        Some(stats)
    }

    /// Returns the earliest time at which [`Shards::advance`] has something to retire, or `None` if no
    /// message is remembered. The time may be too early, never too late.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        self.shards
            .iter()
            .filter_map(|shard| lock(shard).next_due())
            .min()
    }

    /// Whether a task panicked while it held a lock. Then most calls panic. The answer may be old when it arrives, so a
    /// caller that must not panic needs a call that cannot.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.numbering.is_poisoned() || self.shards.iter().any(|shard| shard.is_poisoned())
    }

    /// Uses the top bits of the hash: the table uses the lowest 32.
    fn index_of(&self, hash: u64) -> usize {
        let bits = self.shards.len().trailing_zeros();
        let index = (hash >> 1) >> (63 - bits);
        usize::try_from(index).expect("there are at most 65,536 shards")
    }

    fn shard_of(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(self.mutex_of(hash))
    }

    fn mutex_of(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[self.index_of(hash)]
    }

    /// Visits each shard in turn. Drops what a visit frees only after unlocking the shard.
    fn visit<T>(&self, mut visit: impl FnMut(&mut Shard) -> (bool, Vec<T>)) -> bool {
        let mut any = false;
        for shard in &self.shards {
            let (more, freed) = visit(&mut lock(shard));
            drop(freed);
            any |= more;
        }
        any
    }
}

/// One copy of a message as it arrived, as far as a summary needs it.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The whole frame.
    pub frame: &'a [u8],
    /// TIMESTAMP as it stands in the frame.
    pub timestamp: Option<&'a [u8]>,
    /// What may differ from other copies, if the policy folds differences.
    pub variant: Option<&'a Variant>,
}

/// The decision about one copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Forward it. If it is dropped instead, the caller must pass the claim to [`Shards::reopen`].
    Fresh(Claim),
    /// It is suppressed and counted.
    Duplicate,
}

/// Names the delivery that a survivor belongs to, so that [`Shards::reopen`] can forget it. 24 octets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    hash: u64,
    /// Generation of the mark that the delivery made.
    delivery: u64,
    /// Epoch of the engine. Zero belongs to no engine.
    epoch: u32,
}

impl Claim {
    /// The claim of a survivor that is not remembered.
    pub(crate) const VOID: Self = Self {
        hash: 0,
        delivery: 0,
        epoch: 0,
    };

    /// Its three numbers, for a store that keeps many claims side by side. The last one is zero if no engine made
    /// the claim.
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

    /// The claim of a survivor of an earlier run. Whether its window is still open, and which window it is,
    /// is not known any more.
    pub(crate) const FORGOTTEN: Self = Self {
        delivery: u64::MAX,
        ..Self::VOID
    };

    /// The claim as octets, for a survivor that waits on disk. Only the [`Shards`] that made the claim can use it.
    pub(crate) fn to_octets(self) -> [u8; Self::OCTETS] {
        let mut octets = [0; Self::OCTETS];
        octets[..8].copy_from_slice(&self.hash.to_le_bytes());
        octets[8..16].copy_from_slice(&self.delivery.to_le_bytes());
        octets[16..].copy_from_slice(&self.epoch.to_le_bytes());
        octets
    }

    /// Reads the octets that [`Claim::to_octets`] wrote. Any octets are some claim; one that no engine made
    /// reopens nothing, or at worst a window too many.
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

    pub(crate) const OCTETS: usize = 20;
}

/// The report of a window that ended after suppressing copies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// The policy that suppressed them.
    pub policy: PolicyId,
    /// Generation of the list of policies that `policy` is an id in.
    pub generation: u32,
    /// Why the window ended.
    pub reason: EndReason,
    /// Copies suppressed since the last report. More than zero.
    pub count: u64,
    /// When the first of them was seen.
    pub first: Tick,
    /// When the last of them was seen.
    pub last: Tick,
    /// The policy's window.
    pub window: Duration,
    /// The first suppressed copy, whole; the last one if the copies vary.
    pub frame: Box<[u8]>,
    /// How much they vary, if the policy folds differences.
    pub variety: Option<Variety>,
    /// TIMESTAMP of the last of them.
    pub last_timestamp: Option<KeptTimestamp>,
}

/// Why a window ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EndReason {
    /// The window expired, or a refreshed message had been quiet for `max_quiet`.
    Window,
    /// Its mark was evicted to make room.
    Evicted,
    /// A reload changed or removed its policy.
    Reload,
    /// The relay stops.
    Stop,
    /// Its survivor was dropped.
    Reopened,
}

/// The octets of a TIMESTAMP, at most 64, stored in place.
#[derive(Clone, Copy)]
pub struct KeptTimestamp {
    /// Octets in use; [`NO_TIMESTAMP`] if there is no timestamp. Code outside never sees that value.
    len: u8,
    octets: [u8; TIMESTAMP_OCTETS_MAX],
}

impl KeptTimestamp {
    const NONE: Self = Self {
        len: NO_TIMESTAMP,
        octets: [0; TIMESTAMP_OCTETS_MAX],
    };

    /// Stores a timestamp. A timestamp that is too long is stored as none: part of it would be wrong.
    fn set(&mut self, timestamp: Option<&[u8]>) {
        self.len = NO_TIMESTAMP;
        if let Some(timestamp) = timestamp
            && let Some(octets) = self.octets.get_mut(..timestamp.len())
            && let Ok(len) = u8::try_from(timestamp.len())
        {
            octets.copy_from_slice(timestamp);
            self.len = len;
        }
    }

    const fn is_some(&self) -> bool {
        self.len != NO_TIMESTAMP
    }
}

impl Deref for KeptTimestamp {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

impl PartialEq for KeptTimestamp {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for KeptTimestamp {}

impl std::fmt::Debug for KeptTimestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_some() {
            write!(f, "\"{}\"", self.escape_ascii())
        } else {
            f.write_str("none")
        }
    }
}

/// Sizes and counts of all shards together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EngineStats {
    /// Messages remembered. Those with an expired window count until they are retired.
    pub live_messages: usize,
    /// Octets allocated for them.
    pub octets: usize,
    /// The most octets that may be allocated.
    pub budget_octets: usize,
    /// Messages evicted before their window expired.
    pub evicted_total: u64,
    /// Copies forwarded because there was no room to remember or to count them.
    pub unremembered_total: u64,
    /// Stale entries of the tables that were reused or removed.
    pub stale_total: u64,
    /// Buckets of the tables cleared of their stale entries.
    pub sweeps_total: u64,
    /// Buckets of the tables split.
    pub splits_total: u64,
    /// Buckets of the tables joined.
    pub merges_total: u64,
    /// Messages moved to a younger mark because `refresh` restarted their window.
    pub remarked_total: u64,
}

/// The repeats of one mark's message. The first repeat allocates it.
///
/// The fields that counting a copy touches come first and start at a cache line, so that they all lie in
/// one line, unless the timestamp is longer than common ones.
#[derive(Debug)]
#[repr(C, align(64))]
struct Repeats {
    count: u64,
    /// When the last of them was seen; before there is one, when `allow` let the last copy through.
    last: Tick,
    /// TIMESTAMP of the last suppressed copy.
    last_timestamp: KeptTimestamp,
    passed: u32,
    /// When the first copy was suppressed.
    first: Tick,
    /// When the last copy was let through.
    forwarded: Tick,
    /// Generation of the mark that the delivery made. `refresh` moves the repeats to younger marks.
    delivery: u64,
    /// The first suppressed copy, or the last one if the copies vary.
    kept: Kept,
}

impl Repeats {
    fn new(start: Tick, delivery: u64) -> Self {
        Self {
            count: 0,
            first: start,
            last: start,
            forwarded: start,
            delivery,
            passed: 1,
            kept: Kept::nothing(),
            last_timestamp: KeptTimestamp::NONE,
        }
    }

    /// Counts a suppressed copy.
    #[inline]
    fn count_one(&mut self, sighting: Sighting<'_>, now: Tick) {
        self.count += 1;
        self.last = now;
        self.last_timestamp.set(sighting.timestamp);
        if sighting.variant.is_some() {
            self.kept.note(sighting);
        }
    }

    /// Octets that counting one more copy would allocate.
    #[inline]
    fn growth(&self, sighting: Sighting<'_>) -> usize {
        if sighting.variant.is_none() {
            return 0;
        }
        self.kept.growth(sighting)
    }
}

/// Locks a shard, or the numbering of the shards.
///
/// # Panics
///
/// If a task panicked while it held the lock. What it left behind may be inconsistent and could suppress
/// messages that were never forwarded, so it must not be used any more.
#[inline]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    lock_sound(mutex).unwrap_or_else(|| panic_poisoned())
}

/// The same; `None` if a task panicked while it held the lock.
#[inline]
fn lock_sound<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.lock().ok()
}

#[cold]
fn panic_poisoned() -> ! {
    panic_any(POISONED)
}

/// The message of the panics of calls that need a poisoned shard. Another panic, which came before, has the cause.
pub(crate) const POISONED: &str =
    "a task panicked while it changed windows, so the windows of its shard cannot be trusted";

/// Octets that an allocation of `octets` takes from the allocator: 8 octets of overhead, in steps of 16,
/// at least 32 (glibc; others differ little).
const fn alloc_octets(octets: usize) -> usize {
    let taken = (octets + 8).next_multiple_of(16);
    if taken < 32 { 32 } else { taken }
}

/// The most shards: far more than cores.
const SHARDS_MAX: usize = 1 << 16;

/// The value of [`KeptTimestamp::len`] if there is no timestamp.
const NO_TIMESTAMP: u8 = u8::MAX;

/// Octets of a TIMESTAMP that are stored: RFC 5424's longest has 32.
const TIMESTAMP_OCTETS_MAX: usize = 64;

const _: () = assert!(
    size_of::<Claim>() <= 24,
    "a claim is kept for each survivor in flight"
);

#[cfg(test)]
mod tests;
