//! The table: which generations a hash may stand for.
//!
//! Extendible hashing with small buckets. A directory of `2^depth` entries, indexed by the low bits of a
//! hash, names the buckets; a bucket is open addressing over [`BUCKET_SLOTS`] slots of 8 octets.
//!
//! ```text
//! slot    generation, low 32 bits │ 1 │ low 31 bits of the hash: the fingerprint
//!                                  used │ position ........ directory
//! ```
//!
//! A slot whose generation is not in the timeline any more is **stale**. Stale slots are not searched for:
//! a new entry replaces one that its probe meets, and a full bucket sweeps its own out. A full bucket is
//! split only if more than seven tenths of its slots are live. The slots contain the bits that decide the split, so
//! no mark is touched.
//!
//! # Guarantees
//!
//! - An insertion moves the slots of one bucket at most a few times; a doubling of the directory
//!   copies 4 octets for about every hundred live entries.
//! - The directory is at most eight times as long as there are buckets, whatever the hashes.
//!
//! # Left out
//!
//! Whether a generation belongs to the identity looked for: the caller compares. Generations are kept to 32
//! bits, so a slot that is stale by 2^32 generations looks live; the comparison recognises it, and it costs a slot.

use std::mem::size_of;

use super::alloc_octets;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// The bucket of the hashes that end in the bits of the index. Empty, or a power of two long.
    directory: Vec<u32>,
    buckets: Vec<Bucket>,
    /// The bucket at which [`Table::tidy`] continues.
    tidied: usize,
    pub(super) counters: TableCounters,
}

/// Counts since the table was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableCounters {
    /// Stale slots reused or swept out.
    pub(super) stale: u64,
    pub(super) sweeps: u64,
    pub(super) splits: u64,
    pub(super) merges: u64,
}

/// The generations in the timeline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    base: u32,
    len: u32,
}

impl Live {
    /// `len` generations from `base` on. `len` is below `2^32`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "slots keep the low 32 bits of a generation"
    )]
    pub(super) const fn new(base: u64, len: usize) -> Self {
        Self {
            base: base as u32,
            len: len as u32,
        }
    }

    /// Offset of the slot's mark: its distance from the oldest mark. `None` if the slot is stale.
    const fn offset(self, slot: u64) -> Option<u32> {
        let offset = ((slot >> 32) as u32).wrapping_sub(self.base);
        if offset < self.len {
            Some(offset)
        } else {
            None
        }
    }
}

/// A slot. Inserting elsewhere or tidying makes it invalid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    bucket: u32,
    slot: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Probe {
    /// The caller recognised the mark at `offset`.
    Found { place: Place, offset: u32 },
    /// There is no such entry. A new one may be put at the place, if there is one.
    Absent(Option<Place>),
}

/// Why there is no place for an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoPlace {
    /// The table must grow by that many octets.
    Short(usize),
    /// Too many live entries have hashes that no split separates.
    Full,
}

#[derive(Debug)]
struct Bucket {
    slots: Box<[u64; BUCKET_SLOTS]>,
    /// Slots that are not empty, stale ones included.
    used: u16,
    /// How many low bits all hashes in the bucket share.
    depth: u16,
    suffix: u32,
}

impl Table {
    /// Searches the entry of `hash` that `is_it` recognises by its offset.
    pub(super) fn probe(&self, hash: u64, live: Live, mut is_it: impl FnMut(u32) -> bool) -> Probe {
        let fingerprint = fingerprint(hash);
        let Some(bucket) = self.bucket_of(fingerprint) else {
            return Probe::Absent(None);
        };
        let slots = &self.buckets[bucket as usize].slots;
        let mut vacant = None;
        let mut slot = home(fingerprint);
        for _ in 0..BUCKET_SLOTS {
            let entry = slots[slot];
            let place = Place { bucket, slot };
            if entry == EMPTY {
                return Probe::Absent(vacant.or(Some(place)));
            }
            match live.offset(entry) {
                None => vacant = vacant.or(Some(place)),
                Some(offset) if entry & FINGERPRINT_BITS == fingerprint && is_it(offset) => {
                    return Probe::Found { place, offset };
                }
                Some(_) => {}
            }
            slot = (slot + 1) % BUCKET_SLOTS;
        }
        Probe::Absent(vacant)
    }

    /// The slot where probing for `hash` begins. Reading it for many hashes, one after the other, makes the
    /// processor fetch all of them at once.
    pub(super) fn glance(&self, hash: u64) -> u64 {
        let fingerprint = fingerprint(hash);
        self.bucket_of(fingerprint).map_or(EMPTY, |bucket| {
            self.buckets[bucket as usize].slots[home(fingerprint)]
        })
    }

    /// The first live entry with the fingerprint of `hash`. Whether it is the right one is not checked.
    pub(super) fn candidate(&self, hash: u64, live: Live) -> Option<(Place, u32)> {
        let fingerprint = fingerprint(hash);
        let bucket = self.bucket_of(fingerprint)?;
        let slots = &self.buckets[bucket as usize].slots;
        let mut slot = home(fingerprint);
        for _ in 0..BUCKET_SLOTS {
            let entry = slots[slot];
            if entry == EMPTY {
                return None;
            }
            if entry & FINGERPRINT_BITS == fingerprint
                && let Some(offset) = live.offset(entry)
            {
                return Some((Place { bucket, slot }, offset));
            }
            slot = (slot + 1) % BUCKET_SLOTS;
        }
        None
    }

    /// The offset of the entry at `place` if it is live and has the fingerprint of `hash`. An invalid place does no harm.
    pub(super) fn confirm(&self, place: Place, hash: u64, live: Live) -> Option<u32> {
        let entry = self.buckets.get(place.bucket as usize)?.slots[place.slot];
        if entry & FINGERPRINT_BITS == fingerprint(hash) {
            live.offset(entry)
        } else {
            None
        }
    }

    /// A place for a new entry of `hash`: the one that its probe found, or one made by sweeping or splitting the
    /// bucket. The table grows by at most `room` octets, and subtracts its growth from `room`.
    pub(super) fn place(
        &mut self,
        hash: u64,
        found: Option<Place>,
        live: Live,
        room: &mut usize,
    ) -> Result<Place, NoPlace> {
        if let Some(place) = found {
            let bucket = &self.buckets[place.bucket as usize];
            if bucket.slots[place.slot] != EMPTY || usize::from(bucket.used) < USED_MAX {
                return Ok(place);
            }
        }
        let fingerprint = fingerprint(hash);
        loop {
            let Some(index) = self.bucket_of(fingerprint) else {
                let cost = self.first_octets();
                *room = room.checked_sub(cost).ok_or(NoPlace::Short(cost))?;
                self.buckets.push(Bucket::new(0, 0));
                self.directory.push(0);
                continue;
            };
            let bucket = &self.buckets[index as usize];
            if usize::from(bucket.used) >= USED_MAX {
                // Both sweeping and splitting remove the stale slots.
                if bucket.live(live) > LIVE_MAX && self.may_split(index) {
                    let cost = self.split_octets(index);
                    *room = room.checked_sub(cost).ok_or(NoPlace::Short(cost))?;
                    self.split(index, live);
                    continue;
                }
                self.counters.stale += self.buckets[index as usize].sweep(live);
                self.counters.sweeps += 1;
            }
            // Full without a split only if the hashes agree in all bits that the directory may use.
            return match self.buckets[index as usize].vacancy(fingerprint) {
                Some(slot) => Ok(Place {
                    bucket: index,
                    slot,
                }),
                None => Err(NoPlace::Full),
            };
        }
    }

    /// Makes the slot at `place` stand for `hash` and `generation`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "slots keep the low 32 bits of a generation"
    )]
    pub(super) fn put(&mut self, place: Place, hash: u64, generation: u64) {
        let bucket = &mut self.buckets[place.bucket as usize];
        let slot = &mut bucket.slots[place.slot];
        if *slot == EMPTY {
            bucket.used += 1;
        }
        *slot = u64::from(generation as u32) << 32 | fingerprint(hash);
    }

    /// Counts the reuse of a stale slot, if the slot at `place` is one.
    pub(super) fn count_reuse(&mut self, place: Place, live: Live) {
        let slot = self.buckets[place.bucket as usize].slots[place.slot];
        self.counters.stale += u64::from(slot != EMPTY && live.offset(slot).is_none());
    }

    /// Looks at the next `buckets` buckets. Joins a bucket with its neighbour if both together fill at most half of
    /// one. Returns the freed slots for the caller to drop.
    pub(super) fn tidy(&mut self, buckets: usize, live: Live) -> Vec<BucketSlots> {
        let mut freed = Vec::new();
        for _ in 0..buckets.min(self.buckets.len()) {
            if self.tidied >= self.buckets.len() {
                self.tidied = 0;
            }
            match self.merge(self.tidied, live) {
                Some(slots) => freed.push(slots),
                None => self.tidied += 1,
            }
        }
        if self.buckets.capacity() > 4 * self.buckets.len() {
            self.buckets.shrink_to(2 * self.buckets.len());
        }
        while self.directory.len() > 1 && self.directory.len() > 4 * self.buckets.len() {
            // The directory's upper half repeats the lower one unless a bucket needs its last bit.
            let half = self.directory.len() / 2;
            if self.buckets.iter().any(|bucket| 1 << bucket.depth > half) {
                break;
            }
            self.directory.truncate(half);
            self.directory.shrink_to_fit();
        }
        freed
    }

    /// Joins all buckets into one. Returns false if there are fewer than two. At most half a bucket's slots may be live.
    pub(super) fn join_all(&mut self, live: Live) -> bool {
        if self.buckets.len() <= 1 {
            return false;
        }
        for bucket in &mut self.buckets {
            self.counters.stale += bucket.sweep(live);
        }
        let others = self.buckets.split_off(1);
        self.counters.merges += others.len() as u64;
        for kept in &mut self.buckets {
            (kept.depth, kept.suffix) = (0, 0);
            let slots = others.iter().flat_map(|other| other.slots.iter());
            for slot in slots.copied().filter(|&slot| slot != EMPTY) {
                kept.insert(slot);
            }
        }
        self.directory.clear();
        self.directory.push(0);
        self.directory.shrink_to(HANDLES_MIN);
        self.buckets.shrink_to(HANDLES_MIN);
        self.tidied = 0;
        true
    }

    /// Slots in all buckets.
    pub(super) const fn slots(&self) -> usize {
        self.buckets.len() * BUCKET_SLOTS
    }

    /// Octets allocated, with the allocator's overhead.
    pub(super) const fn octets(&self) -> usize {
        self.buckets.len() * alloc_octets(BUCKET_SLOTS * size_of::<u64>())
            + self.buckets.capacity() * size_of::<Bucket>()
            + self.directory.capacity() * size_of::<u32>()
    }

    /// Octets that the first entry of an empty table takes.
    pub(super) fn first_octets(&self) -> usize {
        BUCKET_OCTETS + self.growth_octets(1)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "masked to the directory's length"
    )]
    fn bucket_of(&self, fingerprint: u64) -> Option<u32> {
        self.directory
            .get(fingerprint as usize & self.directory.len().wrapping_sub(1))
            .copied()
    }

    /// Whether splitting helps. A split needs bits that are not part of the position, and a directory that is
    /// not yet long for its buckets: otherwise many equal hashes would double it in vain.
    fn may_split(&self, index: u32) -> bool {
        let depth = u32::from(self.buckets[index as usize].depth);
        depth < DEPTH_MAX
            && (1 << depth < self.directory.len() || self.directory.len() <= 4 * self.buckets.len())
    }

    fn split_octets(&self, index: u32) -> usize {
        let doubled = if 1 << self.buckets[index as usize].depth < self.directory.len() {
            0
        } else {
            self.directory.len()
        };
        BUCKET_OCTETS + self.growth_octets(doubled)
    }

    /// Octets that the handles of one more bucket and `entries` more of the directory take.
    fn growth_octets(&self, entries: usize) -> usize {
        let handles = if self.buckets.len() < self.buckets.capacity() {
            0
        } else {
            self.buckets.len().max(HANDLES_MIN)
        };
        let entries = if entries == 0 {
            0
        } else {
            entries.max(HANDLES_MIN)
        };
        handles * size_of::<Bucket>() + entries * size_of::<u32>()
    }

    /// Divides the bucket's live entries by the next bit of their hashes.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are fewer buckets than 2^22 and 2^8 slots in each"
    )]
    fn split(&mut self, index: u32, live: Live) {
        self.counters.splits += 1;
        let new_index = self.buckets.len() as u32;
        let bucket = &mut self.buckets[index as usize];
        let bit = 1 << bucket.depth;
        bucket.depth += 1;
        let mut other = Bucket::new(bucket.depth, bucket.suffix | bit);
        let old = std::mem::replace(&mut *bucket.slots, [EMPTY; BUCKET_SLOTS]);
        let used = std::mem::take(&mut bucket.used);
        for slot in old
            .into_iter()
            .filter(|&slot| slot != EMPTY && live.offset(slot).is_some())
        {
            if slot & u64::from(bit) == 0 {
                bucket.insert(slot)
            } else {
                other.insert(slot)
            }
        }
        self.counters.stale += u64::from(used - bucket.used - other.used);
        if bit as usize == self.directory.len() {
            self.directory.extend_from_within(..);
        }
        for entry in self
            .directory
            .iter_mut()
            .skip(other.suffix as usize)
            .step_by(bit as usize * 2)
        {
            *entry = new_index;
        }
        self.buckets.push(other);
    }

    /// Joins the bucket at `index` with its sibling (the one it was split from, or that was split from it), if both have
    /// the same depth and their live entries fill at most half of one bucket.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are fewer buckets than 2^22"
    )]
    fn merge(&mut self, index: usize, live: Live) -> Option<BucketSlots> {
        let Bucket { depth, suffix, .. } = self.buckets[index];
        let bit = 1_u32 << depth.checked_sub(1)?;
        let other = self.directory[(suffix ^ bit) as usize] as usize;
        if self.buckets[other].depth != depth {
            return None;
        }
        for bucket in [index, other] {
            self.counters.stale += self.buckets[bucket].sweep(live);
        }
        if usize::from(self.buckets[index].used + self.buckets[other].used) > BUCKET_SLOTS / 2 {
            return None;
        }
        self.counters.merges += 1;
        // The later one is removed, so that the earlier one's index stays right.
        let (stays, goes) = (index.min(other), index.max(other));
        let gone = self.buckets.swap_remove(goes);
        let kept = &mut self.buckets[stays];
        (kept.depth, kept.suffix) = (depth - 1, suffix & !bit);
        for slot in gone.slots.iter().copied().filter(|&slot| slot != EMPTY) {
            kept.insert(slot);
        }
        self.point(stays as u32);
        if goes < self.buckets.len() {
            self.point(goes as u32);
        }
        Some(BucketSlots { _slots: gone.slots })
    }

    /// Enters the bucket at `index` in the directory.
    fn point(&mut self, index: u32) {
        let Bucket { depth, suffix, .. } = self.buckets[index as usize];
        for entry in self
            .directory
            .iter_mut()
            .skip(suffix as usize)
            .step_by(1 << depth)
        {
            *entry = index;
        }
    }
}

/// Slots for the caller to drop after it unlocked the shard.
#[derive(Debug)]
pub(super) struct BucketSlots {
    _slots: Box<[u64; BUCKET_SLOTS]>,
}

impl Bucket {
    fn new(depth: u16, suffix: u32) -> Self {
        Self {
            slots: Box::new([EMPTY; BUCKET_SLOTS]),
            used: 0,
            depth,
            suffix,
        }
    }

    /// Puts a new entry into the next empty slot. There is one.
    fn insert(&mut self, entry: u64) {
        let mut slot = home(entry);
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) % BUCKET_SLOTS;
        }
        self.slots[slot] = entry;
        self.used += 1;
    }

    /// The slot for a new entry with that fingerprint; `None` if all slots are used.
    fn vacancy(&self, fingerprint: u64) -> Option<usize> {
        (0..BUCKET_SLOTS)
            .map(|step| (home(fingerprint) + step) % BUCKET_SLOTS)
            .find(|&slot| self.slots[slot] == EMPTY)
    }

    /// How many entries are live.
    fn live(&self, live: Live) -> usize {
        let is_live = |slot: &&u64| **slot != EMPTY && live.offset(**slot).is_some();
        self.slots.iter().filter(is_live).count()
    }

    /// Removes stale entries. Returns how many.
    fn sweep(&mut self, live: Live) -> u64 {
        let used = self.used;
        let old = std::mem::replace(&mut *self.slots, [EMPTY; BUCKET_SLOTS]);
        self.used = 0;
        for slot in old
            .into_iter()
            .filter(|&slot| slot != EMPTY && live.offset(slot).is_some())
        {
            self.insert(slot);
        }
        u64::from(used - self.used)
    }
}

const fn fingerprint(hash: u64) -> u64 {
    hash & FINGERPRINT_BITS | USED
}

/// The slot where probing for an entry starts.
#[expect(clippy::cast_possible_truncation, reason = "masked")]
const fn home(entry: u64) -> usize {
    (entry >> (31 - BUCKET_SLOTS.ilog2())) as usize & (BUCKET_SLOTS - 1)
}

/// A slot that never had an entry.
const EMPTY: u64 = 0;

/// Set in every slot that is not empty.
const USED: u64 = 1 << 31;

/// The bits of a slot that distinguish entries: the hash's, and [`USED`].
const FINGERPRINT_BITS: u64 = (1 << 32) - 1;

/// Slots of a bucket: splitting one takes about a microsecond.
const BUCKET_SLOTS: usize = 256;

/// Used slots at which a bucket is swept: with more, probing takes longer and longer.
const USED_MAX: usize = BUCKET_SLOTS / 8 * 7;

/// A full bucket with more live slots than this is split. With fewer, sweeping makes room for long enough.
const LIVE_MAX: usize = BUCKET_SLOTS / 10 * 7;

/// Bits of a hash that the directory may use: the rest determine the position.
const DEPTH_MAX: u32 = 31 - BUCKET_SLOTS.ilog2();

/// The least capacity for buckets, and for entries of the directory, once there are any.
const HANDLES_MIN: usize = 4;

/// Octets of one more bucket.
const BUCKET_OCTETS: usize = alloc_octets(BUCKET_SLOTS * size_of::<u64>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_joined_is_as_small_as_a_new_one_and_finds_what_lives() {
        let mut table = Table::default();
        let mut room = table.first_octets();
        let least = room;
        let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for number in 0..10_000 {
            let live = Live::new(0, usize::try_from(number).unwrap());
            let place = table.place(hash(number), None, live, &mut room);
            let place = place.or_else(|_| {
                room = 1 << 20;
                table.place(hash(number), None, live, &mut room)
            });
            table.put(place.unwrap(), hash(number), number);
        }
        let live = Live::new(9990, 10);
        assert!(table.octets() > 20 * least);
        assert!(table.join_all(live));
        assert_eq!(table.octets(), least);
        assert!(!table.join_all(live), "there is only one bucket");
        for number in 9980..10_000 {
            let probe = table.probe(hash(number), live, |offset| {
                u64::from(offset) + 9990 == number
            });
            assert_eq!(matches!(probe, Probe::Found { .. }), number >= 9990);
        }
    }
}
