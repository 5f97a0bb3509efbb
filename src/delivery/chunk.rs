//! A chunk: the survivors and summaries of one batch, side by side, each followed by an LF.
//!
//! ```text
//! octets   <13>...first survivor\n<13>...second\n<13>...third\n
//! entries                       ^0             ^1            ^2    where each ends, and what it is
//!
//!          0 ────────── head ────────── counted ────────── sent ────────── len
//!            taken off        forwarded,          not forwarded,      never sent
//!                             kept for resending  but sent before
//! ```
//!
//! # Guarantees
//!
//! - The octets of an entry are exactly those that were received.
//! - While [`Chunk::is_plain`] holds, the octets as they lie are already the wire form of LF framing: no
//!   entry contains an LF or a NUL, or ends with a terminator.
//! - Entries leave from the front, in order.
//! - The bookkeeping of an entry takes [`Chunk::ENTRY_OVERHEAD_OCTETS`], whatever the entry is. A short message takes
//!   little more memory than that.
//! - A wrong index or count of our own panics. Nothing is counted as forwarded that was not written.
//!
//! # Left out
//!
//! Limits: the code that fills a chunk decides when it is full.

use crate::{
    core::{dedup::Claim, frame::zlib},
    delivery::custody::Receipt,
};

/// What an entry is, and what its loss causes.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// A received frame. If it has to be dropped, the claim reopens its window (law 7).
    Survivor(Claim),
    /// A summary that reports this many frames. tersed itself wrote it.
    Summary(u64),
    /// A suppressed frame that is kept (`[suppressed]`). It has no window.
    Copy,
}

/// Survivors and summaries on their way to an upstream.
#[derive(Debug, Default)]
pub struct Chunk {
    octets: Vec<u8>,
    /// In the order of their octets.
    entries: Vec<Slot>,
    /// Entries before this one were taken off.
    head: usize,
    /// Entries before this one are counted as forwarded: as far as we know, an upstream has them. Not below `head`.
    counted: usize,
    /// Entries before this one were sent at least once. Sending them again is a resend. Not below `head`.
    sent: usize,
    /// At least one entry has to be rewritten for LF framing.
    rewrites: bool,
    /// At least one entry begins like a compressed message.
    may_hold_compressed: bool,
    /// The batch that the survivors came with, until they are safe.
    receipt: Option<Receipt>,
}

/// The bookkeeping of one entry. Packed by hand: an enum beside the end would take two thirds more.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The three parts of a survivor's claim, which may be any numbers. For other entries: the number of frames of a
    /// summary, and in `delivery` which kind it is.
    hash: u64,
    delivery: u64,
    epoch: u32,
    /// Where the entry ends in `octets`, without its LF. [`NO_SURVIVOR`] is added if it is not a survivor.
    end: u32,
}

impl Slot {
    fn new(end: usize, entry: Entry) -> Self {
        let (kind, (hash, delivery, epoch)) = match entry {
            Entry::Survivor(claim) => (0, claim.into_parts()),
            Entry::Summary(frames) => (NO_SURVIVOR, (frames, SUMMARY, 0)),
            Entry::Copy => (NO_SURVIVOR, (0, COPY, 0)),
        };
        Self {
            hash,
            delivery,
            epoch,
            end: end_in(end) | kind,
        }
    }

    const fn end(self) -> usize {
        (self.end & !NO_SURVIVOR) as usize
    }

    /// The same entry in a chunk in which it ends at `end`.
    fn at(self, end: usize) -> Self {
        Self {
            end: end_in(end) | (self.end & NO_SURVIVOR),
            ..self
        }
    }

    const fn entry(self) -> Entry {
        if self.end & NO_SURVIVOR == 0 {
            Entry::Survivor(Claim::from_parts((self.hash, self.delivery, self.epoch)))
        } else if self.delivery == SUMMARY {
            Entry::Summary(self.hash)
        } else {
            Entry::Copy
        }
    }
}

/// `end` as a slot stores it.
fn end_in(end: usize) -> u32 {
    u32::try_from(end)
        .ok()
        .filter(|end| end & NO_SURVIVOR == 0)
        .expect("a chunk is shorter than 2 GiB: a batch has at most 64 messages of at most 16 MiB")
}

impl Chunk {
    /// Appends `frame`.
    pub fn push(&mut self, frame: &[u8], entry: Entry) {
        self.may_hold_compressed |= zlib::may_be_compressed(frame);
        self.octets.extend_from_slice(frame);
        self.close(self.octets.len() - frame.len(), entry);
    }

    /// Calls `write` to append octets, and keeps them as an entry if it returns true.
    pub fn push_with(&mut self, entry: Entry, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.octets.len();
        if !write(&mut self.octets) {
            self.octets.truncate(start);
            return false;
        }
        self.close(start, entry);
        true
    }

    /// Ends the entry whose octets were appended from `start` on.
    fn close(&mut self, start: usize, entry: Entry) {
        let frame = &self.octets[start..];
        let ends_in_terminator = frame.last().is_some_and(|octet| is_terminator(*octet));
        self.rewrites |= ends_in_terminator || memchr::memchr2(b'\n', 0, frame).is_some();
        self.entries.push(Slot::new(self.octets.len(), entry));
        self.octets.push(b'\n');
    }

    /// True if no entry is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == self.entries.len()
    }

    /// Entries left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.head
    }

    /// Octets of memory that the chunk has allocated.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.octets.capacity() + self.entries.capacity() * size_of::<Slot>()
    }

    /// Octets of the footprint that entries use.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.octets.len() + self.entries.len() * size_of::<Slot>()
    }

    /// Frees unused memory if less than half is used.
    pub fn shrink(&mut self) {
        if self.is_sparse() {
            self.shrink_to_fit();
        }
    }

    /// Frees all unused memory.
    pub fn shrink_to_fit(&mut self) {
        self.octets.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Takes the entries out, as a chunk of their own. Keeps the allocation for the next batch if less than half was
    /// used; otherwise hands it out and allocates a new one of the same size. Never keeps more than `KEPT_OCTETS_MAX`
    /// of each kind.
    #[must_use]
    pub fn take(&mut self) -> Self {
        if !self.is_sparse() {
            let next = Self {
                octets: Vec::with_capacity(self.octets.capacity().min(KEPT_OCTETS_MAX)),
                entries: Vec::with_capacity(self.entries.capacity().min(KEPT_ENTRIES_MAX)),
                ..Self::default()
            };
            return std::mem::replace(self, next);
        }
        let taken = Self {
            octets: self.octets.as_slice().to_vec(),
            entries: self.entries.as_slice().to_vec(),
            receipt: self.receipt.take(),
            ..*self
        };
        self.octets.clear();
        self.entries.clear();
        self.octets.shrink_to(KEPT_OCTETS_MAX);
        self.entries.shrink_to(KEPT_ENTRIES_MAX);
        (self.head, self.counted, self.sent) = (0, 0, 0);
        (self.rewrites, self.may_hold_compressed) = (false, false);
        taken
    }

    /// True if less than half of the memory is used.
    fn is_sparse(&self) -> bool {
        self.used() < self.footprint() / 2
    }

    /// Appends all entries left in `other`, if both chunks together use at most `octets` and neither has entries that
    /// were sent before. A promise about the batch of either chunk then waits for both.
    ///
    /// # Errors
    ///
    /// `other`, unchanged.
    pub fn absorb(&mut self, other: Self, octets: usize) -> Result<(), Self> {
        let is_unsent = |chunk: &Self| chunk.sent == chunk.head;
        if self.used() + other.used() > octets || !is_unsent(self) || !is_unsent(&other) {
            return Err(other);
        }
        let start = other.start_of(other.head);
        let base = self.octets.len();
        self.octets.extend_from_slice(other.octets());
        let slots = &other.entries[other.head..];
        self.entries
            .extend(slots.iter().map(|slot| slot.at(base + slot.end() - start)));
        self.rewrites |= other.rewrites;
        self.may_hold_compressed |= other.may_hold_compressed;
        self.receipt = match (self.receipt.take(), other.receipt) {
            (Some(one), Some(another)) => Some(one.or_earlier(another)),
            (one, another) => one.or(another),
        };
        Ok(())
    }

    /// Octets that an entry takes in a chunk beside its frame: the LF and the bookkeeping.
    pub const ENTRY_OVERHEAD_OCTETS: usize = size_of::<Slot>() + 1;

    /// The most memory that messages of `octets` octets together take, terminators included, if none is shorter than
    /// `SHORT_OCTETS`. At that length the bookkeeping is most of it.
    #[must_use]
    pub const fn octets_of(octets: usize) -> usize {
        let count = octets.div_ceil(SHORT_OCTETS + 1);
        count.saturating_mul(SHORT_OCTETS + Self::ENTRY_OVERHEAD_OCTETS)
    }

    /// Ties the survivors to the batch that they came with.
    pub(crate) fn entrust(&mut self, receipt: Receipt) {
        self.receipt = Some(receipt);
    }

    /// The batch that the survivors came with; `None` once they are safe.
    #[must_use]
    pub(crate) const fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Says that the survivors are safe.
    pub fn safe(&mut self) {
        self.receipt = None;
    }

    /// True if [`Chunk::octets`] is the wire form of LF framing.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        !self.rewrites
    }

    /// The octets of the entries left, each followed by an LF.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[self.start_of(self.head)..]
    }

    /// The entries left, first to last: the octets, what the entry is, and whether it was sent before.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Entry, bool)> {
        self.entries_from(0)
    }

    /// The entries left without the first `skipped`.
    pub fn entries_from(&self, skipped: usize) -> impl Iterator<Item = (&[u8], Entry, bool)> {
        (self.head.saturating_add(skipped)..self.entries.len()).map(|index| {
            let slot = self.entries[index];
            let frame = &self.octets[self.start_of(index)..slot.end()];
            (frame, slot.entry(), index < self.sent)
        })
    }

    /// Takes off the first `count` of the entries left.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.len(),
            "only entries that are left can be taken off"
        );
        self.head += count;
        self.counted = self.counted.max(self.head);
        self.sent = self.sent.max(self.head);
    }

    /// Counts the first `count` of the entries left as forwarded. They stay in the chunk.
    pub fn count_forwarded(&mut self, count: usize) {
        assert!(
            count <= self.len(),
            "only entries that are left can be forwarded"
        );
        self.counted = self.counted.max(self.head + count);
        self.sent = self.sent.max(self.counted);
    }

    /// How many of the entries left are counted as forwarded. They are the first ones.
    #[must_use]
    pub const fn counted(&self) -> usize {
        self.counted - self.head
    }

    /// Counts no entry left as forwarded any more: the upstream may not have them.
    pub const fn uncount(&mut self) {
        self.counted = self.head;
    }

    /// Takes off the front the entries that fit into `footprint` octets, as a chunk of their own.
    #[must_use]
    pub fn split_front(&mut self, footprint: usize) -> Self {
        let mut room = footprint;
        let fits = |frame: &[u8]| {
            let need = frame.len() + Self::ENTRY_OVERHEAD_OCTETS;
            let fits = need <= room;
            room = room.saturating_sub(need);
            fits
        };
        let count = self.entries().map(|(frame, _, _)| frame).map(fits);
        let count = count.take_while(|fits| *fits).count();
        self.copy_front(count)
    }

    /// Takes off the first `count` of the entries left, as a chunk of their own. Does not copy if it takes all.
    #[must_use]
    pub fn split_entries(&mut self, count: usize) -> Self {
        if count >= self.len() {
            return std::mem::take(self);
        }
        self.copy_front(count)
    }

    /// Takes out the compressed messages, which LF framing cannot carry, as a chunk of their own; `None` if there are
    /// none. They have no window.
    #[must_use]
    pub fn split_compressed(&mut self) -> Option<Self> {
        if !self.may_hold_compressed {
            return None;
        }
        assert_eq!(
            self.counted(),
            0,
            "only a chunk that is not forwarded yet is encoded"
        );
        let with_receipt = || Self {
            receipt: self.receipt.clone(),
            ..Self::default()
        };
        let (mut kept, mut compressed) = (with_receipt(), with_receipt());
        for (frame, entry, is_sent) in self.entries() {
            if zlib::is_compressed(frame) {
                let entry = match entry {
                    Entry::Survivor(_) => Entry::Survivor(Claim::VOID),
                    other => other,
                };
                compressed.push(frame, entry);
            } else {
                kept.push(frame, entry);
                // Entries that were sent before are the first ones.
                kept.sent += usize::from(is_sent);
            }
        }
        kept.may_hold_compressed = false;
        kept.shrink_to_fit();
        *self = kept;
        (!compressed.is_empty()).then_some(compressed)
    }

    /// Takes off the first entry, as a chunk of its own.
    #[must_use]
    pub fn split_first(&mut self) -> Self {
        self.split_entries(1)
    }

    fn copy_front(&mut self, count: usize) -> Self {
        let mut front = Self {
            receipt: self.receipt.clone(),
            ..Self::default()
        };
        for (frame, entry, _) in self.entries().take(count) {
            front.push(frame, entry);
        }
        front.counted = self.counted().min(count);
        front.sent = (self.sent - self.head).min(count);
        self.advance(count);
        front.shrink_to_fit();
        front
    }

    /// Where the entry at `index` starts in `octets`; their end, if `index` is the number of entries.
    fn start_of(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.entries[index - 1].end() + 1,
        }
    }
}

/// True for an octet that ends a message on some transport and is not part of its text.
#[must_use]
pub const fn is_terminator(octet: u8) -> bool {
    matches!(octet, b'\r' | b'\n' | 0)
}

/// The length of messages in a flood that is meant to take memory: shorter messages cannot all be different.
const SHORT_OCTETS: usize = 6;

/// Added to the `end` of a slot that does not hold a survivor.
const NO_SURVIVOR: u32 = 1 << 31;

/// `delivery` of a slot that holds a summary. Its `hash` is the number of frames.
const SUMMARY: u64 = 0;

/// `delivery` of a slot that holds a suppressed copy.
const COPY: u64 = 1;

/// The most memory that a chunk keeps for the next entries' octets: what a connection brings in two turns.
const KEPT_OCTETS_MAX: usize = 256 * 1024;

/// The same for bookkeeping.
const KEPT_ENTRIES_MAX: usize = KEPT_OCTETS_MAX / size_of::<Slot>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::custody::{Custody, Outcome};

    fn chunk(frames: &[&[u8]]) -> Chunk {
        let mut chunk = Chunk::default();
        for frame in frames {
            chunk.push(frame, Entry::Survivor(Claim::VOID));
        }
        chunk
    }

    fn frames(chunk: &Chunk) -> Vec<&[u8]> {
        chunk.entries().map(|(frame, _, _)| frame).collect()
    }

    fn sent(chunk: &Chunk) -> Vec<bool> {
        chunk.entries().map(|(_, _, sent)| sent).collect()
    }

    #[test]
    fn a_chunk_of_plain_lines_is_its_own_wire_form() {
        let mut lines = chunk(&[b"one", b"two"]);
        assert!(lines.is_plain());
        assert_eq!(lines.octets(), b"one\ntwo\n");
        lines.advance(1);
        assert_eq!(lines.octets(), b"two\n");
        assert_eq!(frames(&lines), [b"two"]);
    }

    #[test]
    fn a_frame_with_a_terminator_inside_or_behind_is_not_plain() {
        for frame in [&b"a\nb"[..], b"a\0b", b"a\r", b"a\n", b"a\0"] {
            assert!(!chunk(&[frame]).is_plain(), "{}", frame.escape_ascii());
        }
        assert!(chunk(&[b"a\rb", b""]).is_plain());
    }

    #[test]
    fn compressed_messages_are_taken_out_and_the_rest_stays_as_it_was() {
        let compressed: &[u8] = b"zx\x9c\xb2\x31\x34\x36\xb1\xf3\n";
        let mut mixed = chunk(&[b"one", compressed, b"zx^2 is text", b"two", compressed]);
        mixed.count_forwarded(4);
        mixed.uncount();
        let taken = mixed.split_compressed().unwrap();
        assert_eq!(frames(&taken), [compressed, compressed]);
        assert_eq!(frames(&mixed), [&b"one"[..], b"zx^2 is text", b"two"]);
        assert_eq!(sent(&mixed), [true, true, true]);
        assert!(mixed.is_plain());
        assert!(mixed.split_compressed().is_none());

        let mut absorbed = chunk(&[b"one"]);
        absorbed.absorb(chunk(&[compressed]), usize::MAX).unwrap();
        let mut absorbed = absorbed.take();
        assert!(absorbed.split_compressed().is_some());
        assert_eq!(frames(&absorbed), [b"one"]);
    }

    #[test]
    fn splitting_keeps_every_frame_once_and_in_order() {
        let all: &[&[u8]] = &[b"aa", b"bb", b"cc"];
        let each = 2 + Chunk::ENTRY_OVERHEAD_OCTETS;
        for room in 0..=4 * each {
            let mut rest = chunk(all);
            let front = rest.split_front(room);
            assert_eq!(front.len(), (room / each).min(3));
            assert_eq!([frames(&front), frames(&rest)].concat(), all);
        }
    }

    #[test]
    fn what_is_split_off_is_counted_as_before() {
        let mut lines = chunk(&[b"one", b"two", b"three"]);
        lines.count_forwarded(2);
        for expected in [true, true, false] {
            let first = lines.split_first();
            assert_eq!(sent(&first), [expected]);
            assert_eq!(first.counted(), usize::from(expected));
        }
        assert!(lines.is_empty());
    }

    #[test]
    fn what_is_taken_out_keeps_no_memory_that_it_does_not_need() {
        let mut scratch = Chunk::default();
        for count in [1_u32, 1000, 3, 999, 0, 2] {
            let lines: Vec<_> = (0..count).map(|line| line.to_string()).collect();
            for line in &lines {
                scratch.push(line.as_bytes(), Entry::Survivor(Claim::VOID));
            }
            let taken = scratch.take();
            let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(frames(&taken), lines);
            assert!(scratch.is_empty() && scratch.octets().is_empty());
            let used = taken.octets().len() + taken.len() * size_of::<(usize, Entry)>();
            assert!(
                taken.footprint() <= 3 * used + 256,
                "{} for {used}",
                taken.footprint()
            );
        }
    }

    #[test]
    fn what_an_entry_is_comes_back_as_it_was_put_in() {
        let claims = [
            Claim::VOID,
            Claim::FORGOTTEN,
            // A claim that comes from a disk may be anything.
            Claim::from_parts((u64::MAX, SUMMARY, u32::MAX)),
            Claim::from_parts((7, COPY, 0)),
        ];
        let mut lines = Chunk::default();
        for claim in claims {
            lines.push(b"survivor", Entry::Survivor(claim));
        }
        lines.push(b"summary", Entry::Summary(7));
        lines.push(b"copy", Entry::Copy);
        let entries: Vec<_> = lines.entries().map(|(_, entry, _)| entry).collect();
        let expected = claims.map(Entry::Survivor);
        let expected = expected.into_iter().chain([Entry::Summary(7), Entry::Copy]);
        let shown = |entry: Entry| format!("{entry:?}");
        assert_eq!(
            entries.into_iter().map(shown).collect::<Vec<_>>(),
            expected.map(shown).collect::<Vec<_>>()
        );
        assert_eq!(Chunk::ENTRY_OVERHEAD_OCTETS, 25);
    }

    #[test]
    fn what_is_absorbed_stands_behind_what_was_there() {
        let mut lines = chunk(&[b"one"]);
        let mut more = chunk(&[b"done", b"two", b"th\nree"]);
        more.advance(1);
        assert!(lines.absorb(more, 1024).is_ok());
        assert_eq!(frames(&lines), [&b"one"[..], b"two", b"th\nree"]);
        assert_eq!(lines.octets(), b"one\ntwo\nth\nree\n");
        assert!(!lines.is_plain());
        assert!(lines.entries().all(|(_, _, counted)| !counted));
        // Neither more than fits, nor what was counted.
        let before = lines.len();
        assert_eq!(
            frames(&lines.absorb(chunk(&[b"x"]), 64).unwrap_err()),
            [b"x"]
        );
        let mut counted = chunk(&[b"y"]);
        counted.count_forwarded(1);
        assert!(lines.absorb(counted, 1024).is_err());
        assert_eq!(lines.len(), before);
    }

    #[test]
    fn batches_that_came_together_are_safe_together() {
        let custody = Custody::new();
        let batch = || {
            let mut promise = custody.promise();
            let mut lines = chunk(&[b"one"]);
            lines.entrust(custody.open());
            custody.seal(&mut promise);
            (promise, lines)
        };
        let ((first, one), (second, two)) = (batch(), batch());
        let mut lines = one;
        assert!(lines.absorb(two, 1024).is_ok());
        assert_eq!(custody.outcome(&first), None);
        assert_eq!(custody.outcome(&second), None);
        lines.safe();
        assert_eq!(custody.outcome(&first), Some(Outcome::Safe));
        assert_eq!(custody.outcome(&second), Some(Outcome::Safe));
        // In the other order, and lost.
        let ((first, one), (second, mut two)) = (batch(), batch());
        assert!(two.absorb(one, 1024).is_ok());
        assert_eq!(custody.outcome(&first), None);
        assert_eq!(custody.outcome(&second), None);
        two.receipt().unwrap().lose();
        drop(two);
        assert_eq!(custody.outcome(&first), Some(Outcome::Lost));
        assert_eq!(custody.outcome(&second), Some(Outcome::Lost));
    }

    #[test]
    fn counted_entries_stay_to_be_sent_again() {
        let mut lines = chunk(&[b"one", b"two", b"three"]);
        lines.count_forwarded(2);
        assert_eq!(sent(&lines), [true, true, false]);
        lines.advance(1);
        assert_eq!(lines.counted(), 1);
        lines.uncount();
        assert_eq!((lines.counted(), lines.len()), (0, 2));
        assert_eq!(sent(&lines), [true, false], "what was sent stays known");
    }
}
