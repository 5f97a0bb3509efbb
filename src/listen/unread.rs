//! What was received on a connection and is not framed yet.
//!
//! # Guarantees
//!
//! - Octets are read in turns of at most [`READ_OCTETS`].
//! - Between two turns nothing but what is unframed is held, and nothing at all between frames.
//!
//! # Left out
//!
//! Waiting, and how much may be unframed: the framing bounds it.

use std::{cell::Cell, io, mem};

use bytes::BufMut as _;

use crate::socket::Socket;

/// Octets that were received and are not framed yet.
#[derive(Debug, Default)]
pub(super) struct Unread(Vec<u8>);

impl Unread {
    /// Appends one turn's octets; gives how many there were, zero at the end of the stream. After the octets were
    /// looked at, [`Unread::consume`] is called, whatever they were.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing now, or what broke the connection.
    pub(super) fn read(&mut self, socket: &Socket) -> io::Result<usize> {
        self.make_room();
        let read = socket.try_read(&mut (&mut self.0).limit(READ_OCTETS));
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
    fn make_room(&mut self) {
        if self.0.len() > COPIED_OCTETS_MAX {
            // A long message on its way; copying what there is of it at each turn would add up.
            self.0.reserve(READ_OCTETS);
            return;
        }
        let mut room = ROOM.take();
        room.reserve(self.0.len() + READ_OCTETS);
        room.extend_from_slice(&self.0);
        self.0 = room;
    }

    /// Lets go of the first `framed` octets, and of memory that the rest does not need.
    pub(super) fn consume(&mut self, framed: usize) {
        let rest = self.0.get(framed..).unwrap_or_default();
        if rest.len() > COPIED_OCTETS_MAX {
            self.0.drain(..framed);
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

/// Octets read in one turn.
pub(super) const READ_OCTETS: usize = 128 * 1024;

/// The most that is copied from one turn to the next; what is left of a longer message stays where it is.
const COPIED_OCTETS_MAX: usize = 32 * 1024;
