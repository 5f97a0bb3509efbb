//! Octets that were received on a connection and are not framed yet.
//!
//! # Guarantees
//!
//! - Octets are read in turns of at most [`READ_OCTETS`]. Turns are shorter where many connections may have to keep what
//!   they read: while the queue is full ([`turn_while_full`]), and on RELP, where a full window delays whole frames
//!   ([`turn_for_window`]). All connections of a listener together then keep a fixed number of octets, or a fixed small
//!   number each.
//! - Between two turns only unframed octets are kept, and none between frames: at most [`kept_octets`] of memory.
//!
//! # Left out
//!
//! Waiting. How much may be unframed: the framing bounds it.

use std::{cell::Cell, io, mem};

use bytes::BufMut as _;

use crate::socket::Socket;

/// Octets that were received and are not framed yet.
#[derive(Debug, Default)]
pub(super) struct PendingInput(Vec<u8>);

impl PendingInput {
    /// Appends at most `turn` octets; returns how many there were, zero at the end of the stream. The caller then looks
    /// at the octets and calls [`PendingInput::consume`], in any case.
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

    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes room for one turn's octets. Between turns the worker keeps the room: it stays warm in the cache, and a
    /// waiting connection has none.
    fn make_room(&mut self, turn: usize) {
        let unframed = self.0.len();
        if unframed > COPIED_OCTETS_MAX {
            // The beginning of a long message: copying it at each turn would add up.
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

    /// Removes the first `framed` octets, and frees memory that the rest does not need.
    pub(super) fn consume(&mut self, framed: usize) {
        let rest = &self.0[framed..];
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
    /// A worker's buffer for reading, between two turns.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How many octets each of `connections` may read in a turn while the queue is full: each may have to keep what it read.
/// While the queue is not full, all but a few have handed on what they read.
pub(super) fn turn_while_full(connections: u64) -> usize {
    share(FULL_OCTETS, connections).clamp(FULL_OCTETS_MIN, READ_OCTETS)
}

/// How many octets each of `connections` may read in a turn if a RELP window may fill before all of them are judged.
pub(super) fn turn_for_window(connections: u64) -> usize {
    share(WINDOWS_OCTETS, connections).clamp(WINDOWS_OCTETS_MIN, READ_OCTETS)
}

fn share(octets: usize, connections: u64) -> usize {
    usize::try_from(connections).map_or(0, |connections| octets / connections.max(1))
}

/// The most memory for an unfinished frame of which `unframed` octets were received. A long one gets some spare room, so
/// that it is not copied at each turn.
pub(super) const fn kept_octets(unframed: usize) -> usize {
    if unframed > EXACT_OCTETS_MAX {
        unframed + unframed / 4
    } else {
        unframed
    }
}

/// The most octets read in one turn.
pub(super) const READ_OCTETS: usize = 128 * 1024;

/// The most octets that are copied from one turn to the next; a longer rest stays where it is.
const COPIED_OCTETS_MAX: usize = 32 * 1024;

/// Up to this size an unfinished frame gets no spare room: the allocator can extend and shrink it in place, unless the
/// memory behind it was taken meanwhile.
const EXACT_OCTETS_MAX: usize = 256 * 1024;

/// Octets that all connections of a listener together may read while the queue is full. Up to 16 connections keep full
/// turns.
const FULL_OCTETS: usize = 2 * 1024 * 1024;

/// The shortest turn: a shorter one would cost more than it saves.
const FULL_OCTETS_MIN: usize = 1024;

/// Octets that the full windows of a listener may delay, and the shortest turn of a connection.
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
