//! What listeners take of memory, at most.
//!
//! # Left out
//!
//! What the kernel holds for their sockets: that is no memory of the process, though a container's limit counts it.

use super::{datagram, pending, relp};
use crate::{
    chunk::Chunk,
    config::{ListenUrl, ListenerConfig},
    limits::{FRAME_OVERHEAD_OCTETS, RELP_DATA_OCTETS},
};

/// The most memory that a listener takes, in octets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// Tasks of connections, and answers owed to RELP clients.
    pub connections: usize,
    /// What has arrived of messages that are not whole, or that a RELP window has no room for: on each connection the
    /// longest message there may be.
    pub unfinished: usize,
    /// What was judged and waits at the door of the full queue. With the shortest messages their bookkeeping is most
    /// of it.
    pub waiting: usize,
    /// Buffers of datagram sockets, and what was judged of them.
    pub datagrams: usize,
}

/// What the listener of `config` takes, one of a relay with that many worker threads.
#[must_use]
pub fn held(config: &ListenerConfig, workers: usize) -> Held {
    if !config.url.is_stream() {
        let sockets = sockets(config, workers);
        return Held {
            datagrams: sockets.saturating_mul(datagram::octets_max(config)),
            ..Held::default()
        };
    }
    let count = config.connections_max;
    let connections = count as u64;
    let (owed, longest) = if config.url.is_relp() {
        let data = config.max_message_size.max(RELP_DATA_OCTETS);
        let held_up = pending::turn_for_window(connections);
        (relp::ANSWERS_OCTETS_MAX, data.saturating_add(held_up))
    } else {
        (0, config.max_message_size)
    };
    let unfinished = pending::kept_octets(longest.saturating_add(FRAME_OVERHEAD_OCTETS));
    // Those that began to read before the queue was full.
    let early = workers.saturating_mul(Chunk::octets_of(pending::READ_OCTETS));
    let turn = Chunk::octets_of(pending::turn_while_full(connections));
    Held {
        connections: count.saturating_mul(TASK_OCTETS + owed),
        unfinished: count.saturating_mul(unfinished),
        waiting: early.saturating_add(count.saturating_mul(turn)),
        datagrams: 0,
    }
}

/// How many sockets a datagram listener has, each with a thread.
#[must_use]
pub fn sockets(config: &ListenerConfig, workers: usize) -> usize {
    match config.url {
        ListenUrl::Udp(_) => workers,
        ListenUrl::UnixDgram(_) => 1,
        ListenUrl::Tcp(_) | ListenUrl::Relp(_) | ListenUrl::UnixStream(_) => 0,
    }
}

/// What a connection's task takes, and what the runtime keeps of it: measured with a thousand that are idle, 4,500
/// octets.
const TASK_OCTETS: usize = 5 * 1024;
