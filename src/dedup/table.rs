//! The table: which generations a hash may stand for.
//!
//! Extendible hashing, split finely. A directory of `2^depth` entries, indexed by the low bits of a
//! hash, names small segments; a segment is open addressing over [`SEGMENT_SLOTS`] slots of 8 octets.
//!
//! ```text
//! slot    generation, low 32 bits │ 1 │ low 31 bits of the hash
//!                                  used │ position ........ directory
//! ```
//!
//! A slot whose generation is not in the timeline any more is **stale**. Nobody looks for stale slots:
//! a new entry takes the place of one that it meets, and a full segment sweeps its own out. Only if more
//! than seven tenths of it live is it split, by bits that the slots carry, so that no mark is touched.
//!
//! # Guarantees
//!
//! - An insertion moves the slots of one segment at most a few times; a doubling of the directory
//!   copies 4 octets for about every hundred live entries.
//! - The directory is at most eight times as long as there are segments, whatever the hashes.
//!
//! # Left out
//!
//! Whether a hash's generation is the identity looked for: the caller compares. Generations are kept to 32
//! bits, so one that is 2^32 generations stale looks live; the comparison tells, and it costs a slot.

use std::mem::size_of;

use super::alloc_octets;

/// Hash to generation.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Which segment the hashes that end in an index's bits are in. Empty, or a power of two long.
    directory: Vec<u32>,
    segments: Vec<Segment>,
    /// Where [`Table::tidy`] goes on.
    tidied: usize,
    pub(super) counters: TableCounters,
}

/// What happened in a table.
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

    /// How many places behind the oldest mark a slot's mark stands; `None` if the slot is stale.
    const fn age(self, slot: u64) -> Option<u32> {
        let age = ((slot >> 32) as u32).wrapping_sub(self.base);
        if age < self.len { Some(age) } else { None }
    }
}

/// A slot. Void after anything was inserted elsewhere or tidied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    segment: u32,
    slot: usize,
}

/// What [`Table::probe`] found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Probe {
    /// The caller recognised the mark that is `age` places behind the oldest.
    Found { place: Place, age: u32 },
    /// It is not here. An entry may be put at the place, if there is one.
    Absent(Option<Place>),
}

/// Why there is no place for an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoPlace {
    /// The table must grow by that many octets.
    Short(usize),
    /// Too many live entries have hashes that a split does not tell apart.
    Full,
}

#[derive(Debug)]
struct Segment {
    slots: Box<[u64; SEGMENT_SLOTS]>,
    /// Slots that are not empty. Stale ones count.
    used: u16,
    /// Low bits that all hashes in the segment share.
    depth: u16,
    /// Those bits.
    suffix: u32,
}

impl Table {
    /// Looks for the entry of `hash` that `is_it` recognises by its age.
    pub(super) fn probe(&self, hash: u64, live: Live, mut is_it: impl FnMut(u32) -> bool) -> Probe {
        let tag = tag(hash);
        let Some(segment) = self.segment_of(tag) else {
            return Probe::Absent(None);
        };
        let slots = &self.segments[segment as usize].slots;
        let mut vacant = None;
        let mut slot = home(tag);
        for _ in 0..SEGMENT_SLOTS {
            let entry = slots[slot];
            let place = Place { segment, slot };
            if entry == EMPTY {
                return Probe::Absent(vacant.or(Some(place)));
            }
            match live.age(entry) {
                None => vacant = vacant.or(Some(place)),
                Some(age) if entry & TAG_BITS == tag && is_it(age) => {
                    return Probe::Found { place, age };
                }
                Some(_) => {}
            }
            slot = (slot + 1) % SEGMENT_SLOTS;
        }
        Probe::Absent(vacant)
    }

    /// The slot where probing for `hash` begins. Reading it for many hashes, one after the other, makes the
    /// processor fetch all of them at once.
    pub(super) fn glance(&self, hash: u64) -> u64 {
        let tag = tag(hash);
        self.segment_of(tag).map_or(EMPTY, |segment| {
            self.segments[segment as usize].slots[home(tag)]
        })
    }

    /// The first live entry that may be that of `hash`, unseen by the caller.
    pub(super) fn candidate(&self, hash: u64, live: Live) -> Option<(Place, u32)> {
        let tag = tag(hash);
        let segment = self.segment_of(tag)?;
        let slots = &self.segments[segment as usize].slots;
        let mut slot = home(tag);
        for _ in 0..SEGMENT_SLOTS {
            let entry = slots[slot];
            if entry == EMPTY {
                return None;
            }
            if entry & TAG_BITS == tag
                && let Some(age) = live.age(entry)
            {
                return Some((Place { segment, slot }, age));
            }
            slot = (slot + 1) % SEGMENT_SLOTS;
        }
        None
    }

    /// The age of the entry at `place` if it is live and may be that of `hash`. A void place is no harm.
    pub(super) fn confirm(&self, place: Place, hash: u64, live: Live) -> Option<u32> {
        let entry = self.segments.get(place.segment as usize)?.slots[place.slot];
        if entry & TAG_BITS == tag(hash) {
            live.age(entry)
        } else {
            None
        }
    }

    /// A place for a new entry of `hash`: the one that its probe found, or one that is made by sweeping
    /// or splitting the segment. Grows by at most `room` octets, of which it leaves what it did not take.
    pub(super) fn place(
        &mut self,
        hash: u64,
        found: Option<Place>,
        live: Live,
        room: &mut usize,
    ) -> Result<Place, NoPlace> {
        if let Some(place) = found {
            let segment = &self.segments[place.segment as usize];
            if segment.slots[place.slot] != EMPTY || usize::from(segment.used) < USED_MAX {
                return Ok(place);
            }
        }
        let tag = tag(hash);
        loop {
            let Some(index) = self.segment_of(tag) else {
                let cost = self.first_octets();
                *room = room.checked_sub(cost).ok_or(NoPlace::Short(cost))?;
                self.segments.push(Segment::new(0, 0));
                self.directory.push(0);
                continue;
            };
            let segment = &self.segments[index as usize];
            if usize::from(segment.used) >= USED_MAX {
                // Either way the stale ones go.
                if segment.live(live) > LIVE_MAX && self.may_split(index) {
                    let cost = self.split_octets(index);
                    *room = room.checked_sub(cost).ok_or(NoPlace::Short(cost))?;
                    self.split(index, live);
                    continue;
                }
                self.counters.stale += self.segments[index as usize].sweep(live);
                self.counters.sweeps += 1;
            }
            // Short of a split, only hashes that agree in all bits of the directory bring this about.
            return match self.segments[index as usize].vacancy(tag) {
                Some(slot) => Ok(Place {
                    segment: index,
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
        let segment = &mut self.segments[place.segment as usize];
        let slot = &mut segment.slots[place.slot];
        if *slot == EMPTY {
            segment.used += 1;
        }
        *slot = u64::from(generation as u32) << 32 | tag(hash);
    }

    /// Counts the reuse of a stale slot, if the slot at `place` is one.
    pub(super) fn count_reuse(&mut self, place: Place, live: Live) {
        let slot = self.segments[place.segment as usize].slots[place.slot];
        self.counters.stale += u64::from(slot != EMPTY && live.age(slot).is_none());
    }

    /// Looks at the next `segments` segments and joins those with their neighbours that have become
    /// so empty that both fit in one by half. For the caller to drop: what was freed.
    pub(super) fn tidy(&mut self, segments: usize, live: Live) -> Vec<SegmentSlots> {
        let mut freed = Vec::new();
        for _ in 0..segments.min(self.segments.len()) {
            if self.tidied >= self.segments.len() {
                self.tidied = 0;
            }
            match self.merge(self.tidied, live) {
                Some(slots) => freed.push(slots),
                None => self.tidied += 1,
            }
        }
        if self.segments.capacity() > 4 * self.segments.len() {
            self.segments.shrink_to(2 * self.segments.len());
        }
        while self.directory.len() > 1 && self.directory.len() > 4 * self.segments.len() {
            // The directory's upper half repeats the lower one unless a segment needs its last bit.
            let half = self.directory.len() / 2;
            if self
                .segments
                .iter()
                .any(|segment| 1 << segment.depth > half)
            {
                break;
            }
            self.directory.truncate(half);
            self.directory.shrink_to_fit();
        }
        freed
    }

    /// Joins all segments into one; false if there is no more than one. At most half a segment lives.
    pub(super) fn join_all(&mut self, live: Live) -> bool {
        if self.segments.len() <= 1 {
            return false;
        }
        for segment in &mut self.segments {
            self.counters.stale += segment.sweep(live);
        }
        let others = self.segments.split_off(1);
        self.counters.merges += others.len() as u64;
        for kept in &mut self.segments {
            (kept.depth, kept.suffix) = (0, 0);
            let slots = others.iter().flat_map(|other| other.slots.iter());
            for slot in slots.copied().filter(|&slot| slot != EMPTY) {
                kept.settle(slot);
            }
        }
        self.directory.clear();
        self.directory.push(0);
        self.directory.shrink_to(HANDLES_MIN);
        self.segments.shrink_to(HANDLES_MIN);
        self.tidied = 0;
        true
    }

    /// Slots in all segments.
    pub(super) const fn slots(&self) -> usize {
        self.segments.len() * SEGMENT_SLOTS
    }

    /// Octets allocated, with the allocator's overhead.
    pub(super) const fn octets(&self) -> usize {
        self.segments.len() * alloc_octets(SEGMENT_SLOTS * size_of::<u64>())
            + self.segments.capacity() * size_of::<Segment>()
            + self.directory.capacity() * size_of::<u32>()
    }

    /// Octets that the first entry of an empty table takes.
    pub(super) fn first_octets(&self) -> usize {
        SEGMENT_OCTETS + self.growth_octets(1)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "masked to the directory's length"
    )]
    fn segment_of(&self, tag: u64) -> Option<u32> {
        self.directory
            .get(tag as usize & self.directory.len().wrapping_sub(1))
            .copied()
    }

    /// A split needs bits that are not part of the position, and a directory that is not already long
    /// for its segments: else many equal hashes would double it for nothing.
    fn may_split(&self, index: u32) -> bool {
        let depth = u32::from(self.segments[index as usize].depth);
        depth < DEPTH_MAX
            && (1 << depth < self.directory.len()
                || self.directory.len() <= 4 * self.segments.len())
    }

    fn split_octets(&self, index: u32) -> usize {
        let doubled = if 1 << self.segments[index as usize].depth < self.directory.len() {
            0
        } else {
            self.directory.len()
        };
        SEGMENT_OCTETS + self.growth_octets(doubled)
    }

    /// Octets that the handles of one more segment and `entries` more of the directory take.
    fn growth_octets(&self, entries: usize) -> usize {
        let handles = if self.segments.len() < self.segments.capacity() {
            0
        } else {
            self.segments.len().max(HANDLES_MIN)
        };
        let entries = if entries == 0 {
            0
        } else {
            entries.max(HANDLES_MIN)
        };
        handles * size_of::<Segment>() + entries * size_of::<u32>()
    }

    /// Divides the segment's live entries by the next bit of their hashes.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are fewer segments than 2^22 and 2^8 slots in each"
    )]
    fn split(&mut self, index: u32, live: Live) {
        self.counters.splits += 1;
        let new_index = self.segments.len() as u32;
        let segment = &mut self.segments[index as usize];
        let bit = 1 << segment.depth;
        segment.depth += 1;
        let mut other = Segment::new(segment.depth, segment.suffix | bit);
        let old = std::mem::replace(&mut *segment.slots, [EMPTY; SEGMENT_SLOTS]);
        let used = std::mem::take(&mut segment.used);
        for slot in old
            .into_iter()
            .filter(|&slot| slot != EMPTY && live.age(slot).is_some())
        {
            if slot & u64::from(bit) == 0 {
                segment.settle(slot)
            } else {
                other.settle(slot)
            }
        }
        self.counters.stale += u64::from(used - segment.used - other.used);
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
        self.segments.push(other);
    }

    /// Joins the segment at `index` with the one it was split from or that was split from it, if both
    /// are as deep and what lives in them fills no more than half of one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are fewer segments than 2^22"
    )]
    fn merge(&mut self, index: usize, live: Live) -> Option<SegmentSlots> {
        let Segment { depth, suffix, .. } = self.segments[index];
        let bit = 1_u32 << depth.checked_sub(1)?;
        let other = self.directory[(suffix ^ bit) as usize] as usize;
        if self.segments[other].depth != depth {
            return None;
        }
        for segment in [index, other] {
            self.counters.stale += self.segments[segment].sweep(live);
        }
        if usize::from(self.segments[index].used + self.segments[other].used) > SEGMENT_SLOTS / 2 {
            return None;
        }
        self.counters.merges += 1;
        // The later one goes, so that the earlier one's index stays right.
        let (stays, goes) = (index.min(other), index.max(other));
        let gone = self.segments.swap_remove(goes);
        let kept = &mut self.segments[stays];
        (kept.depth, kept.suffix) = (depth - 1, suffix & !bit);
        for slot in gone.slots.iter().copied().filter(|&slot| slot != EMPTY) {
            kept.settle(slot);
        }
        self.point(stays as u32);
        if goes < self.segments.len() {
            self.point(goes as u32);
        }
        Some(SegmentSlots { _slots: gone.slots })
    }

    /// Enters the segment at `index` in the directory.
    fn point(&mut self, index: u32) {
        let Segment { depth, suffix, .. } = self.segments[index as usize];
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

/// Slots to be dropped where dropping them makes nobody wait.
#[derive(Debug)]
pub(super) struct SegmentSlots {
    _slots: Box<[u64; SEGMENT_SLOTS]>,
}

impl Segment {
    fn new(depth: u16, suffix: u32) -> Self {
        Self {
            slots: Box::new([EMPTY; SEGMENT_SLOTS]),
            used: 0,
            depth,
            suffix,
        }
    }

    /// Puts an entry that is not in the segment at the next empty slot. There is one.
    fn settle(&mut self, entry: u64) {
        let mut slot = home(entry);
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) % SEGMENT_SLOTS;
        }
        self.slots[slot] = entry;
        self.used += 1;
    }

    /// Where an entry of that tag would be put; `None` if all slots are used.
    fn vacancy(&self, tag: u64) -> Option<usize> {
        (0..SEGMENT_SLOTS)
            .map(|step| (home(tag) + step) % SEGMENT_SLOTS)
            .find(|&slot| self.slots[slot] == EMPTY)
    }

    /// How many entries are live.
    fn live(&self, live: Live) -> usize {
        let is_live = |slot: &&u64| **slot != EMPTY && live.age(**slot).is_some();
        self.slots.iter().filter(is_live).count()
    }

    /// Removes what is stale, and says how many that were.
    fn sweep(&mut self, live: Live) -> u64 {
        let used = self.used;
        let old = std::mem::replace(&mut *self.slots, [EMPTY; SEGMENT_SLOTS]);
        self.used = 0;
        for slot in old
            .into_iter()
            .filter(|&slot| slot != EMPTY && live.age(slot).is_some())
        {
            self.settle(slot);
        }
        u64::from(used - self.used)
    }
}

const fn tag(hash: u64) -> u64 {
    hash & TAG_BITS | USED
}

/// Where the probing for an entry starts.
#[expect(clippy::cast_possible_truncation, reason = "masked")]
const fn home(entry: u64) -> usize {
    (entry >> (31 - SEGMENT_SLOTS.ilog2())) as usize & (SEGMENT_SLOTS - 1)
}

/// A slot that no entry was ever put in.
const EMPTY: u64 = 0;

/// Set in every slot that is not empty.
const USED: u64 = 1 << 31;

/// The bits of a slot that tell entries apart: the hash's, and [`USED`].
const TAG_BITS: u64 = (1 << 32) - 1;

/// Slots of a segment: splitting one takes about a microsecond.
const SEGMENT_SLOTS: usize = 256;

/// Used slots at which a segment is swept: probing takes longer and longer beyond.
const USED_MAX: usize = SEGMENT_SLOTS / 8 * 7;

/// Live slots above which a swept segment is split; below, sweeping has made room for long enough.
const LIVE_MAX: usize = SEGMENT_SLOTS / 10 * 7;

/// Bits of a hash that the directory may use: the rest give the position.
const DEPTH_MAX: u32 = 31 - SEGMENT_SLOTS.ilog2();

/// Segments, and entries of the directory, that there is room for once there is room for one.
const HANDLES_MIN: usize = 4;

/// Octets of one more segment.
const SEGMENT_OCTETS: usize = alloc_octets(SEGMENT_SLOTS * size_of::<u64>());

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
        assert!(!table.join_all(live), "there is but one");
        for number in 9980..10_000 {
            let probe = table.probe(hash(number), live, |age| u64::from(age) + 9990 == number);
            assert_eq!(matches!(probe, Probe::Found { .. }), number >= 9990);
        }
    }
}
