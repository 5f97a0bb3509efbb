//! A chunk: the survivors of one batch, side by side, each followed by an LF.
//!
//! ```text
//! octets   <13>...first survivor\n<13>...second\n<13>...third\n
//! entries                       ^0             ^1            ^2    where each ends, what it is
//! ```
//!
//! # Guarantees
//!
//! - The octets of an entry are exactly what was received.
//! - While [`Chunk::is_plain`] holds, the octets as they lie are already the wire form of LF framing: no
//!   entry contains an LF or NUL or ends in a trailing terminator.
//! - Entries leave from the front, in order.
//!
//! # Left out
//!
//! Bounds: whoever fills a chunk decides when it is full.

use crate::{custody::Receipt, dedup::Claim};

/// What an entry is, and what is owed if it is lost.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// A received frame. The claim reopens its window if it has to be dropped (law 7).
    Survivor(Claim),
    /// A summary of our own, reporting this many frames.
    Summary(u64),
    /// A frame that was held back and is set aside. No window belongs to it.
    Copy,
}

/// Survivors and summaries on their way to an upstream.
#[derive(Debug, Default)]
pub struct Chunk {
    octets: Vec<u8>,
    /// End of each entry in `octets`, its LF excluded, and what it is. Ascending.
    entries: Vec<(usize, Entry)>,
    /// Entries before this one are done with.
    head: usize,
    /// Entries before this one are counted as forwarded: an upstream has them, as far as is known.
    counted: usize,
    /// Entries before this one were sent at least once: sending them again is a replay.
    sent: usize,
    /// Some entry needs rewriting for LF framing.
    rewrites: bool,
    /// The batch that its survivors are of, until they are safe.
    receipt: Option<Receipt>,
}

impl Chunk {
    /// Appends `frame`.
    pub fn push(&mut self, frame: &[u8], entry: Entry) {
        let ends_in_terminator = frame.last().is_some_and(|octet| is_terminator(*octet));
        self.rewrites |= ends_in_terminator || memchr::memchr2(b'\n', 0, frame).is_some();
        self.octets.extend_from_slice(frame);
        self.close(entry);
    }

    /// Appends what `write` writes, if it says that it wrote something.
    pub fn push_with(&mut self, entry: Entry, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.octets.len();
        if !write(&mut self.octets) {
            self.octets.truncate(start);
            return false;
        }
        let frame = self.octets.get(start..).unwrap_or_default();
        let ends_in_terminator = frame.last().is_some_and(|octet| is_terminator(*octet));
        self.rewrites |= ends_in_terminator || memchr::memchr2(b'\n', 0, frame).is_some();
        self.close(entry);
        true
    }

    fn close(&mut self, entry: Entry) {
        self.entries.push((self.octets.len(), entry));
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

    /// Octets that the chunk keeps in memory.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.octets.capacity() + self.entries.capacity() * size_of::<(usize, Entry)>()
    }

    /// Gives back what was reserved and not used, if that is more than what is used.
    pub fn shrink(&mut self) {
        if self.is_sparse() {
            self.octets.shrink_to_fit();
            self.entries.shrink_to_fit();
        }
    }

    /// Takes the entries out, as a chunk of their own. Most of the memory stays for those that come next: all
    /// of it, if few of it was used, else as much again.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let (octets, entries) = (self.octets.capacity(), self.entries.capacity());
        if !self.is_sparse() {
            let next = Self {
                octets: Vec::with_capacity(octets),
                entries: Vec::with_capacity(entries),
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
        (self.head, self.counted, self.sent, self.rewrites) = (0, 0, 0, false);
        taken
    }

    /// More is reserved than used.
    const fn is_sparse(&self) -> bool {
        self.octets.len() < self.octets.capacity() / 2
    }

    /// Octets of an entry in a chunk beside the frame itself: its LF and its bookkeeping.
    pub const ENTRY_OVERHEAD_OCTETS: usize = size_of::<(usize, Entry)>() + 1;

    /// Ties the survivors to the batch that they are of.
    pub fn entrust(&mut self, receipt: Receipt) {
        self.receipt = Some(receipt);
    }

    /// The batch that the survivors are of, unless they are safe.
    #[must_use]
    pub const fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// The survivors are safe.
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
        self.octets
            .get(self.start_of(self.head)..)
            .unwrap_or_default()
    }

    /// The entries left, first to last: octets, what it is, and whether it was sent before.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Entry, bool)> {
        self.entries_from(0)
    }

    /// The same without the first `skipped` of them.
    pub fn entries_from(&self, skipped: usize) -> impl Iterator<Item = (&[u8], Entry, bool)> {
        (self.head.saturating_add(skipped)..self.entries.len()).filter_map(|index| {
            let (end, entry) = *self.entries.get(index)?;
            let frame = self.octets.get(self.start_of(index)..end)?;
            Some((frame, entry, index < self.sent))
        })
    }

    /// The first `count` of the entries left are done with.
    pub fn advance(&mut self, count: usize) {
        self.head = (self.head + count).min(self.entries.len());
        self.counted = self.counted.max(self.head);
        self.sent = self.sent.max(self.head);
    }

    /// The first `count` of the entries left were forwarded: they are counted, and stay.
    pub fn count_forwarded(&mut self, count: usize) {
        self.counted = self
            .counted
            .max((self.head + count).min(self.entries.len()));
        self.sent = self.sent.max(self.counted);
    }

    /// How many of the entries left are counted as forwarded. They are the first ones.
    #[must_use]
    pub const fn counted(&self) -> usize {
        self.counted.saturating_sub(self.head)
    }

    /// No entry left is counted as forwarded any more: the upstream may not have them.
    pub const fn uncount(&mut self) {
        self.counted = self.head;
    }

    /// Takes off the front what fits into `footprint` octets, as a chunk of its own.
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

    /// Takes the first `count` of the entries left off, as a chunk of its own. All of them are not copied.
    #[must_use]
    pub fn split_entries(&mut self, count: usize) -> Self {
        if count >= self.len() {
            return std::mem::take(self);
        }
        self.copy_front(count)
    }

    /// Takes the first entry off, as a chunk of its own.
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
        front.sent = self.sent.saturating_sub(self.head).min(count);
        self.advance(count);
        front.octets.shrink_to_fit();
        front.entries.shrink_to_fit();
        front
    }

    fn start_of(&self, index: usize) -> usize {
        match index
            .checked_sub(1)
            .and_then(|before| self.entries.get(before))
        {
            Some((end, _)) => end + 1,
            None => 0,
        }
    }
}

/// An octet that ends a message on some transport and is no part of its text.
#[must_use]
pub const fn is_terminator(octet: u8) -> bool {
    matches!(octet, b'\r' | b'\n' | 0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
