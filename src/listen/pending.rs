//! What was received on a connection and is not framed yet.
//!
//! # Guarantees
//!
//! - Octets are read in turns of at most [`READ_OCTETS`], and of fewer where many connections may have to keep what
//!   they read: while the queue is full ([`turn_while_full`]), and on RELP, where a full window holds whole frames up
//!   ([`turn_for_window`]). All of a listener's connections together then keep a fixed number of octets, or a
//!   fixed small number each.
//! - Between two turns nothing but what is unframed is held, and nothing at all between frames: at most
//!   [`kept_octets`] of memory.
//!
//! # Left out
//!
//! Waiting, and how much may be unframed: the framing bounds it.

use std::{cell::Cell, io, mem};

use bytes::BufMut as _;

use crate::socket::Socket;

/// Octets that were received and are not framed yet.
#[derive(Debug, Default)]
pub(super) struct PendingInput(Vec<u8>);

impl PendingInput {
    /// Appends at most `turn` octets; gives how many there were, zero at the end of the stream. After the octets were
    /// looked at, [`PendingInput::consume`] is called, whatever they were.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing now, or what broke the connection.
    pub(super) fn read(&mut self, socket: &Socket, turn: usize) -> io::Result<usize> {
        self.make_room(turn);
        let read = socket.try_read(&mut (&mut self.0).limit(turn));
        if !matches!(read, Ok(1..)) {
            self.consume(0);
        }
        read
    }

    /// All of them.
    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }

    /// True if there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes room for one turn's octets. Between turns the room lies with the worker: it stays warm,
    /// and a connection that waits has none.
    fn make_room(&mut self, turn: usize) {
        let unframed = self.0.len();
        if unframed > COPIED_OCTETS_MAX {
            // A long message on its way; copying what there is of it at each turn would add up.
            if self.0.capacity() - unframed < turn {
                self.0.reserve_exact(turn.max(unframed / 4));
            }
            return;
        }
        let mut room = ROOM.take();
        room.reserve(unframed + turn);
        room.extend_from_slice(&self.0);
        self.0 = room;
    }

    /// Lets go of the first `framed` octets, and of memory that the rest does not need.
    pub(super) fn consume(&mut self, framed: usize) {
        let rest = self.0.get(framed..).unwrap_or_default();
        if rest.len() > COPIED_OCTETS_MAX {
            self.0.drain(..framed);
            self.0.shrink_to(kept_octets(self.0.len()));
            return;
        }
        let rest = rest.to_vec();
        let mut room = mem::replace(&mut self.0, rest);
        if room.capacity() <= 2 * READ_OCTETS {
            room.clear();
            ROOM.set(room);
        }
    }
}

thread_local! {
    /// What a worker reads into, between two turns.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Octets to read in a turn while the queue is full: one of `connections` that will wait at its door with what it
/// read. As long as it is not full all but a few have handed on what they read.
pub(super) fn turn_while_full(connections: u64) -> usize {
    share(FULL_OCTETS, connections).clamp(FULL_OCTETS_MIN, READ_OCTETS)
}

/// Octets to read in a turn on one of `connections` whose window may fill before all of them were judged.
pub(super) fn turn_for_window(connections: u64) -> usize {
    share(WINDOWS_OCTETS, connections).clamp(WINDOWS_OCTETS_MIN, READ_OCTETS)
}

fn share(octets: usize, connections: u64) -> usize {
    usize::try_from(connections).map_or(0, |connections| octets / connections.max(1))
}

/// The most memory that an unfinished frame takes of which `unframed` octets are there: what it needs, and if it is long
/// some more, so that what there is of it is not copied at each turn.
pub(super) const fn kept_octets(unframed: usize) -> usize {
    if unframed > EXACT_OCTETS_MAX {
        unframed + unframed / 4
    } else {
        unframed
    }
}

/// Octets read in one turn.
pub(super) const READ_OCTETS: usize = 128 * 1024;

/// The most that is copied from one turn to the next; what is left of a longer message stays where it is.
const COPIED_OCTETS_MAX: usize = 32 * 1024;

/// An unfinished frame of so many octets has no room to spare: the allocator takes the room for a turn from behind it and
/// back without copying, unless another took it meanwhile.
const EXACT_OCTETS_MAX: usize = 256 * 1024;

/// Octets that all connections of a listener together may read while the queue is full. With up to 16 of them
/// turns are as long as ever.
const FULL_OCTETS: usize = 2 * 1024 * 1024;

/// The least that each may: below it turns cost more than what they bring.
const FULL_OCTETS_MIN: usize = 1024;

/// Octets that full windows of a listener may hold up, and the least that each may.
const WINDOWS_OCTETS: usize = 16 * 1024 * 1024;
const WINDOWS_OCTETS_MIN: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_connections_read_adds_up_to_little() {
        for (connections, door, window) in [
            (0, READ_OCTETS, READ_OCTETS),
            (16, READ_OCTETS, READ_OCTETS),
            (128, 16 * 1024, READ_OCTETS),
            (1024, 2048, 16 * 1024),
            (1_000_000, 1024, 8 * 1024),
        ] {
            assert_eq!(turn_while_full(connections), door, "{connections}");
            assert_eq!(turn_for_window(connections), window, "{connections}");
        }
    }
}
