//! The timeline: marks in the order of their windows' start, and the octets they remember.
//!
//! ```text
//!            base                                             base + len
//!             │                                                   │
//! marks    ▒▒▒█████████│███████████████│███████████████│██████░░░░░   blocks of `block_marks`
//!             │      each mark knows where its octets start; they end where the next one's start
//! octets   ▒▒▒▒▒▒▒██████████████│███████████████████████│████████░░   pages of `page_octets`
//! ```
//!
//! Both are first-in, first-out and grow by a block or a page at a time, so growing moves no mark
//! and retiring is advancing two cursors. An identity may lie across pages; nothing is padded.
//!
//! A mark is named by its **generation**, which never changes, or by its **offset**: its distance from the oldest
//! mark, which is `generation - base`. An offset must be below `len`.
//!
//! # Guarantees
//!
//! - Appending and popping touch one mark and its octets, whatever the length of the timeline.
//! - [`Timeline::octets`] is what is allocated; [`Timeline::charged`] is never less.
//!
//! # Left out
//!
//! Finding a mark by its identity (`table`), when a mark expires (`engine`).

use std::collections::VecDeque;
use std::mem::size_of;

use super::{Repeats, alloc_octets};
use crate::core::tick::Tick;

/// The marks of one engine, oldest first.
#[derive(Debug)]
pub(super) struct Timeline {
    /// Generation of the oldest mark: one more than that of the mark retired last.
    base: u64,
    /// Marks in the timeline, dead ones included.
    len: usize,
    /// Dead marks in the timeline.
    dead: usize,
    /// All full but the last; the first `head` marks of the first one are retired.
    blocks: VecDeque<Vec<Mark>>,
    head: usize,
    /// All full but the last.
    pages: VecDeque<Vec<u8>>,
    /// Position of the first octet of the first page; positions count all octets ever appended.
    pages_start: u64,
    /// Position behind the last octet.
    end: u64,
    /// Emptied blocks and pages for reuse. They are freed only by a call that may take its time: with
    /// some allocators one `free` returns gigabytes at once.
    spare_blocks: Vec<Vec<Mark>>,
    spare_pages: Vec<Vec<u8>>,
    /// Blocks and pages emptied so far; wraps.
    emptied: u32,
    /// A page has two to this power octets, a block [`MARKS_SHIFT`] powers fewer marks.
    page_shift: u32,
}

/// One window of one message: 24 octets.
#[derive(Debug)]
pub(super) struct Mark {
    /// When the window started: for a refreshed message at most a quantum before the last copy.
    pub(super) start: Tick,
    /// Where the identity's octets start, and [`DEAD`].
    at: u64,
    /// What is known of the message's repeats, once there is one.
    pub(super) repeats: Option<Box<Repeats>>,
}

impl Mark {
    /// Whether the mark only keeps its place: its window was ended, reopened, or restarted by a younger mark.
    pub(super) const fn is_dead(&self) -> bool {
        self.at & DEAD != 0
    }

    const fn position(&self) -> u64 {
        self.at & !DEAD
    }
}

/// Blocks and pages for the caller to drop after it unlocked the shard.
#[derive(Debug, Default)]
pub(super) struct Spares {
    _blocks: Vec<Vec<Mark>>,
    _pages: Vec<Vec<u8>>,
}

impl Timeline {
    /// An empty timeline whose first mark gets the generation `base`; a page has
    /// `1 << page_shift` octets (at least `1 << MARKS_SHIFT`). Allocates nothing.
    pub(super) const fn new(base: u64, page_shift: u32) -> Self {
        Self {
            base,
            len: 0,
            dead: 0,
            blocks: VecDeque::new(),
            head: 0,
            pages: VecDeque::new(),
            pages_start: 0,
            end: 0,
            spare_blocks: Vec::new(),
            spare_pages: Vec::new(),
            emptied: 0,
            page_shift,
        }
    }

    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Messages remembered: marks that are not dead.
    pub(super) const fn live(&self) -> usize {
        self.len - self.dead
    }

    pub(super) const fn page_shift(&self) -> u32 {
        self.page_shift
    }

    pub(super) fn first(&self) -> Option<&Mark> {
        Some(&self.blocks.front()?[self.head])
    }

    pub(super) fn last(&self) -> Option<&Mark> {
        self.len.checked_sub(1).map(|offset| self.mark(offset))
    }

    /// The mark at `offset`.
    pub(super) fn mark(&self, offset: usize) -> &Mark {
        let place = self.head + offset;
        &self.blocks[place >> self.block_shift()][place & (self.block_marks() - 1)]
    }

    pub(super) fn mark_mut(&mut self, offset: usize) -> &mut Mark {
        let place = self.head + offset;
        let (block, mark) = (
            place >> self.block_shift(),
            place & (self.block_marks() - 1),
        );
        &mut self.blocks[block][mark]
    }

    /// Appends what the mark remembers to `octets`.
    pub(super) fn copy_octets(&self, offset: usize, octets: &mut Vec<u8>) {
        let (start, end) = self.range(offset);
        let (mut page, mut at) = self.locate(start);
        let mut left = usize::try_from(end - start).expect("an identity is in memory");
        while left > 0 {
            let here = &self.pages[page][at..];
            let here = &here[..left.min(here.len())];
            octets.extend_from_slice(here);
            left -= here.len();
            (page, at) = (page + 1, 0);
        }
    }

    /// Whether the mark remembers exactly `octets`.
    pub(super) fn remembers(&self, offset: usize, octets: &[u8]) -> bool {
        let (start, end) = self.range(offset);
        if end - start != octets.len() as u64 {
            return false;
        }
        let (mut page, mut at) = self.locate(start);
        let mut rest = octets;
        while !rest.is_empty() {
            let here = &self.pages[page][at..];
            let (now, later) = rest.split_at(here.len().min(rest.len()));
            if here[..now.len()] != *now {
                return false;
            }
            (page, at, rest) = (page + 1, 0, later);
        }
        true
    }

    /// Reads an octet of each cache line of a mark's identity, up to [`TOUCHED_OCTETS`], and of its repeats.
    pub(super) fn touch(&self, offset: usize, octets: usize) -> u64 {
        let mark = self.mark(offset);
        let (page, at) = self.locate(mark.position());
        // The position of an empty identity may be behind the last page.
        let here = self.pages.get(page).map_or(&[][..], |page| &page[at..]);
        let here = &here[..octets.min(TOUCHED_OCTETS).min(here.len())];
        let octets: u64 = here
            .iter()
            .step_by(CACHE_LINE_OCTETS)
            .map(|octet| u64::from(*octet))
            .sum();
        octets + mark.repeats.as_ref().map_or(0, |repeats| repeats.count)
    }

    /// By how much [`Timeline::charged`] would grow if a mark of `octets` octets were appended.
    pub(super) fn append_octets(&self, octets: usize) -> usize {
        let first = if self.is_allocated() { 0 } else { self.slack() };
        let pages = octets / self.page_octets() + 1;
        let handles = growth(self.blocks.len(), self.blocks.capacity(), 1)
            + growth(self.pages.len(), self.pages.capacity(), pages);
        size_of::<Mark>() + octets + first + handles * HANDLE_OCTETS
    }

    /// Appends the youngest mark. Returns its generation. `start` is not before any other mark's.
    pub(super) fn append(
        &mut self,
        start: Tick,
        octets: &[u8],
        repeats: Option<Box<Repeats>>,
    ) -> u64 {
        let block_marks = self.block_marks();
        if self
            .blocks
            .back()
            .is_none_or(|block| block.len() == block_marks)
        {
            let block = self
                .spare_blocks
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(block_marks));
            self.blocks.push_back(block);
        }
        debug_assert!(
            self.last().is_none_or(|youngest| youngest.start <= start),
            "marks are appended in the order of their windows' start"
        );
        let block = self.blocks.back_mut().expect("there is a block with room");
        block.push(Mark {
            start,
            at: self.end,
            repeats,
        });
        let mut rest = octets;
        while !rest.is_empty() {
            let page_octets = self.page_octets();
            if self
                .pages
                .back()
                .is_none_or(|page| page.len() == page_octets)
            {
                let page = self
                    .spare_pages
                    .pop()
                    .unwrap_or_else(|| Vec::with_capacity(page_octets));
                self.pages.push_back(page);
            }
            let page = self.pages.back_mut().expect("there is a page with room");
            let (now, later) = rest.split_at(rest.len().min(page_octets - page.len()));
            page.extend_from_slice(now);
            rest = later;
        }
        self.end += octets.len() as u64;
        self.len += 1;
        self.base + (self.len as u64 - 1)
    }

    /// Makes a mark dead. Returns its repeats.
    pub(super) fn kill(&mut self, offset: usize) -> Option<Box<Repeats>> {
        let mark = self.mark_mut(offset);
        let (was_dead, repeats) = (mark.is_dead(), mark.repeats.take());
        mark.at |= DEAD;
        self.dead += usize::from(!was_dead);
        repeats
    }

    /// Removes the oldest mark. Returns whether it was dead, and its repeats.
    pub(super) fn pop(&mut self) -> Option<(bool, Option<Box<Repeats>>)> {
        let mark = &mut self.blocks.front_mut()?[self.head];
        let (dead, repeats) = (mark.is_dead(), mark.repeats.take());
        self.base += 1;
        self.len -= 1;
        self.head += 1;
        self.dead -= usize::from(dead);
        let kept = if self.len == 0 {
            self.end
        } else {
            self.mark(0).position()
        };
        if self.len == 0 || self.head == self.block_marks() {
            self.head = 0;
            self.emptied = self.emptied.wrapping_add(1);
            recycle(&mut self.blocks, &mut self.spare_blocks);
        }
        while kept - self.pages_start >= self.page_octets() as u64 {
            recycle(&mut self.pages, &mut self.spare_pages);
            self.pages_start += self.page_octets() as u64;
            self.emptied = self.emptied.wrapping_add(1);
        }
        if self.len == 0 {
            recycle(&mut self.pages, &mut self.spare_pages);
            self.pages_start = self.end;
        }
        Some((dead, repeats))
    }

    /// Octets allocated, with the allocator's overhead.
    pub(super) fn octets(&self) -> usize {
        (self.blocks.len() + self.spare_blocks.len()) * self.block_octets()
            + (self.pages.len() + self.spare_pages.len()) * alloc_octets(self.page_octets())
            + self.handle_octets()
    }

    /// Octets that count against the budget. The number changes smoothly, so that making room for one mark takes
    /// about one eviction: it counts partly used blocks and pages as if they were whole, and a few octets more.
    pub(super) fn charged(&self) -> usize {
        let slack = if self.is_allocated() { self.slack() } else { 0 };
        let start = self.first().map_or(self.end, Mark::position);
        let octets = usize::try_from(self.end - start).expect("the octets are in memory");
        self.len * size_of::<Mark>()
            + octets
            + slack
            + self.spare_blocks.len().saturating_sub(1) * self.block_octets()
            + self.spare_pages.len().saturating_sub(1) * alloc_octets(self.page_octets())
            + self.handle_octets()
    }

    /// Changes whenever the charged octets may have grown without an append: an emptied block or page
    /// counts in full again.
    pub(super) const fn emptied(&self) -> u32 {
        self.emptied
    }

    /// Takes out the spare blocks and pages, for the caller to drop.
    pub(super) fn take_spares(&mut self) -> Spares {
        if self.blocks.capacity() > 4 * self.blocks.len().max(HANDLES_MIN) {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
        if self.pages.capacity() > 4 * self.pages.len().max(HANDLES_MIN) {
            self.pages.shrink_to(2 * self.pages.len());
        }
        Spares {
            _blocks: std::mem::take(&mut self.spare_blocks),
            _pages: std::mem::take(&mut self.spare_pages),
        }
    }

    /// Frees a spare block and a spare page, but not the last ones of a timeline that is in use. Returns false if
    /// there are none.
    pub(super) fn free_spares(&mut self) -> bool {
        let keep = usize::from(self.len > 0);
        let block = if self.spare_blocks.len() > keep {
            self.spare_blocks.pop()
        } else {
            None
        };
        let page = if self.spare_pages.len() > keep {
            self.spare_pages.pop()
        } else {
            None
        };
        block.is_some() || page.is_some()
    }

    /// Frees unused capacity for handles, down to the least. Returns false if there is nothing to free.
    pub(super) fn trim(&mut self) -> bool {
        let before = self.handle_octets();
        self.blocks.shrink_to(HANDLES_MIN);
        self.pages.shrink_to(HANDLES_MIN);
        self.spare_blocks.shrink_to(HANDLES_MIN);
        self.spare_pages.shrink_to(HANDLES_MIN);
        self.handle_octets() < before
    }

    /// Whether [`Timeline::take_spares`] has something to take.
    pub(super) const fn has_spares(&self) -> bool {
        !self.spare_blocks.is_empty() || !self.spare_pages.is_empty()
    }

    /// Whether there is a block or page, in use or spare.
    fn is_allocated(&self) -> bool {
        !self.blocks.is_empty() || !self.pages.is_empty() || self.has_spares()
    }

    const fn page_octets(&self) -> usize {
        1 << self.page_shift
    }

    const fn block_shift(&self) -> u32 {
        self.page_shift - MARKS_SHIFT
    }

    const fn block_marks(&self) -> usize {
        1 << self.block_shift()
    }

    const fn block_octets(&self) -> usize {
        alloc_octets(self.block_marks() * size_of::<Mark>())
    }

    /// Octets by which the first and the last block and page may exceed what is used of them, a spare of
    /// each, and the allocator's overhead on those between.
    fn slack(&self) -> usize {
        3 * self.block_octets()
            + 3 * alloc_octets(self.page_octets())
            + (self.blocks.len() + self.pages.len()) * alloc_octets(0)
    }

    fn handle_octets(&self) -> usize {
        let handles = self.blocks.capacity()
            + self.pages.capacity()
            + self.spare_blocks.capacity()
            + self.spare_pages.capacity();
        handles * HANDLE_OCTETS
    }

    /// Where the octets of a mark start and end.
    fn range(&self, offset: usize) -> (u64, u64) {
        let start = self.mark(offset).position();
        let end = if offset + 1 < self.len {
            self.mark(offset + 1).position()
        } else {
            self.end
        };
        (start, end)
    }

    fn locate(&self, position: u64) -> (usize, usize) {
        let place = position - self.pages_start;
        let place = usize::try_from(place).expect("the octets are in memory");
        (place >> self.page_shift, place & (self.page_octets() - 1))
    }
}

/// Moves the emptied first block or page to the spares, or frees it if there are enough of those.
fn recycle<T>(queue: &mut VecDeque<Vec<T>>, spares: &mut Vec<Vec<T>>) {
    if let Some(mut first) = queue.pop_front()
        && spares.len() < SPARES_MAX
    {
        first.clear();
        spares.push(first);
    }
}

/// By how many handles the capacity of a queue grows if `more` are pushed.
fn growth(len: usize, capacity: usize, more: usize) -> usize {
    if len + more <= capacity {
        0
    } else {
        capacity.max(len + more - capacity).max(HANDLES_MIN)
    }
}

/// Octets of an identity that are worth fetching ahead: of a longer one the processor itself fetches the rest.
const TOUCHED_OCTETS: usize = 256;

const CACHE_LINE_OCTETS: usize = 64;

const DEAD: u64 = 1 << 63;

/// A block has this many powers of two fewer marks than a page has octets: 24 octets a mark.
pub(super) const MARKS_SHIFT: u32 = 5;

/// Octets of the handle of a block or page in its queue.
const HANDLE_OCTETS: usize = size_of::<Vec<u8>>();

/// The least capacity for handles of a queue, once it has any.
const HANDLES_MIN: usize = 4;

/// Spare blocks, and spare pages, kept at most.
const SPARES_MAX: usize = 64;
