//! What the overflow knows: the way of the chunks, the upstreams, the disk, and what was logged.
//!
//! The page of [`overflow`](super) draws the states and their transitions.

use std::{collections::VecDeque, num::NonZeroUsize};

use tokio::time::Instant;

use super::{AWAY_MIN, READY_OCTETS, logged::Log, trouble::Disk};
use crate::{delivery::chunk::Chunk, spool::Position};

/// What the overflow knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) way: Way,
    pub(super) upstreams: Upstreams,
    pub(super) disk: Disk,
    /// Batches that were read and are not settled, in order: the number in `Overflow::read`, and the position behind
    /// the batch. Lanes may still have them after the way has changed. A number can be here twice, because the register
    /// hands out settled numbers again.
    pub(super) positions: VecDeque<(u64, Position)>,
    pub(super) log: Log,
}

/// The way that chunks take from the queue to the lanes.
#[derive(Debug)]
pub(super) enum Way {
    /// Straight from the queue. All records on the disk were read, and no chunk is on its way there.
    Memory,
    /// Over the disk.
    Spool(Passage),
}

/// What is on its way over the disk.
#[derive(Debug, Default)]
pub(super) struct Passage {
    /// Chunks to be written before those of the queue: they were given back, or the disk refused them.
    pub(super) unwritten: VecDeque<Chunk>,
    /// A call that writes is in progress. Its chunks are nowhere else.
    pub(super) is_appending: bool,
    pub(super) reading: Reading,
    /// Chunks that were read, for lanes to take.
    pub(super) ready: VecDeque<Chunk>,
}

/// What is known of records on the disk that were not read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Reading {
    /// There are none.
    #[default]
    Done,
    /// There may be some.
    Due,
    /// A call is in progress that reads, or drops the oldest records.
    Running {
        /// Records were appended since it began. If it drops: there may have been some then.
        more: bool,
    },
}

/// Whether lanes have upstreams in charge.
#[derive(Debug)]
pub(super) enum Upstreams {
    /// No lane has one.
    Away { since: Instant },
    /// This many lanes have one.
    Up { lanes: NonZeroUsize },
}

impl State {
    /// The state at the start. `holds_some`: the spool recovered records.
    pub(super) fn new(holds_some: bool) -> Self {
        Self {
            way: if holds_some {
                Way::Spool(Passage {
                    reading: Reading::Due,
                    ..Passage::default()
                })
            } else {
                Way::Memory
            },
            upstreams: Upstreams::Away {
                since: Instant::now(),
            },
            disk: Disk::default(),
            positions: VecDeque::new(),
            log: Log::new(holds_some),
        }
    }

    /// Leads the way over the spool from now on. If it already does, nothing changes.
    pub(super) fn enter_spool(&mut self) -> &mut Passage {
        if let Way::Memory = self.way {
            self.way = Way::Spool(Passage::default());
        }
        self.way.passage()
    }

    /// Whether chunks wait to be written before those of the queue.
    pub(super) fn has_unwritten(&self) -> bool {
        match &self.way {
            Way::Memory => false,
            Way::Spool(passage) => !passage.unwritten.is_empty(),
        }
    }

    /// Whether a call that writes is in progress.
    pub(super) const fn is_appending(&self) -> bool {
        match &self.way {
            Way::Memory => false,
            Way::Spool(passage) => passage.is_appending,
        }
    }

    /// Begins to read ahead if there may be records, a lane has an upstream, and less than [`READY_OCTETS`] are ready.
    /// Returns whether it did.
    pub(super) fn begin_read(&mut self) -> bool {
        let Way::Spool(passage) = &mut self.way else {
            return false;
        };
        let ahead: usize = passage.ready.iter().map(Chunk::footprint).sum();
        let begins =
            passage.reading == Reading::Due && self.upstreams.are_up() && ahead < READY_OCTETS;
        if begins {
            passage.reading = Reading::Running { more: false };
        }
        begins
    }
}

impl Way {
    /// The passage, for code that runs only while the way leads over the spool: a call is in progress.
    pub(super) fn passage(&mut self) -> &mut Passage {
        match self {
            Self::Spool(passage) => passage,
            Self::Memory => panic!("the way leads over the spool until all calls have ended"),
        }
    }
}

impl Passage {
    /// Begins to drop the oldest records, unless a call reads. Returns whether it did. If not, the caller tries again
    /// when that call has ended.
    pub(super) fn begin_drop(&mut self) -> bool {
        let more = match self.reading {
            Reading::Running { .. } => return false,
            Reading::Done => false,
            Reading::Due => true,
        };
        self.reading = Reading::Running { more };
        true
    }
}

impl Reading {
    /// Records were appended.
    pub(super) const fn appended(&mut self) {
        *self = match self {
            Self::Done | Self::Due => Self::Due,
            Self::Running { .. } => Self::Running { more: true },
        };
    }

    /// The call that reads found no record.
    pub(super) const fn found_nothing(&mut self) {
        *self = match self {
            Self::Running { more: false } => Self::Done,
            Self::Running { more: true } => Self::Due,
            Self::Done | Self::Due => panic!("a call that ends was in progress"),
        };
    }

    /// Whether a call that begins now may find records that those before did not.
    pub(super) const fn may_find_more(self) -> bool {
        match self {
            Self::Due | Self::Running { more: true } => true,
            Self::Done | Self::Running { more: false } => false,
        }
    }
}

impl Upstreams {
    /// One more lane has an upstream in charge (`up`), or one less.
    pub(super) fn lane_up(&mut self, up: bool) {
        let before = match self {
            Self::Away { .. } => 0,
            Self::Up { lanes } => lanes.get(),
        };
        let lanes = if up {
            before.checked_add(1)
        } else {
            before.checked_sub(1)
        };
        let lanes = lanes.expect("a lane that loses its upstream had one");
        *self = match NonZeroUsize::new(lanes) {
            Some(lanes) => Self::Up { lanes },
            None => Self::Away {
                since: Instant::now(),
            },
        };
    }

    pub(super) const fn are_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// Whether no lane has had an upstream for [`AWAY_MIN`].
    pub(super) fn are_away_long(&self) -> bool {
        match self {
            Self::Away { since } => since.elapsed() >= AWAY_MIN,
            Self::Up { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Reading = Reading::Running { more: false };
    const MORE: Reading = Reading::Running { more: true };

    /// As the page of `overflow` draws it.
    #[test]
    fn what_is_on_the_disk_is_due_until_a_read_finds_nothing() {
        for (before, after) in [
            (Reading::Done, Reading::Due),
            (Reading::Due, Reading::Due),
            (RUNNING, MORE),
            (MORE, MORE),
        ] {
            let mut reading = before;
            reading.appended();
            assert_eq!(reading, after, "{before:?}");
        }
        for (before, after) in [(RUNNING, Reading::Done), (MORE, Reading::Due)] {
            let mut reading = before;
            reading.found_nothing();
            assert_eq!(reading, after, "{before:?}");
        }
    }

    #[test]
    fn nothing_is_read_without_a_lane_nor_far_ahead_nor_twice() {
        let mut state = State::new(true);
        assert!(!state.begin_read(), "no lane takes it");
        state.upstreams.lane_up(true);
        assert!(state.begin_read());
        assert_eq!(state.way.passage().reading, RUNNING);
        assert!(!state.begin_read() && !state.way.passage().begin_drop());
        let mut ahead = Chunk::default();
        ahead.push(
            &vec![b'x'; READY_OCTETS],
            crate::delivery::chunk::Entry::Summary(1),
        );
        let passage = state.way.passage();
        passage.ready.push_back(ahead);
        passage.reading = Reading::Due;
        assert!(!state.begin_read(), "enough is ready");
        assert!(state.way.passage().begin_drop());
        assert_eq!(state.way.passage().reading, MORE);
    }

    #[test]
    fn upstreams_are_away_when_no_lane_has_one() {
        let mut state = State::new(false);
        for (up, are_up) in [(true, true), (true, true), (false, true), (false, false)] {
            state.upstreams.lane_up(up);
            assert_eq!(state.upstreams.are_up(), are_up);
        }
        assert!(!state.upstreams.are_away_long());
    }

    #[test]
    fn the_way_leads_over_the_spool_once_it_was_entered() {
        let mut state = State::new(false);
        assert!(matches!(state.way, Way::Memory));
        assert!(!state.has_unwritten() && !state.is_appending() && !state.begin_read());
        state.enter_spool().is_appending = true;
        assert!(state.enter_spool().is_appending, "nothing is forgotten");
        assert!(state.is_appending() && !state.has_unwritten());
    }
}
