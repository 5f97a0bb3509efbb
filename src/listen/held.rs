//! The most memory that a listener takes.
//!
//! # Left out
//!
//! Socket buffers in the kernel: they are not memory of the process, although a container's limit counts them.

use super::{datagram, pending, relp};
use crate::{
    config::{ListenUrl, ListenerConfig},
    core::limits::{FRAME_OVERHEAD_OCTETS, RELP_DATA_OCTETS},
    delivery::chunk::Chunk,
};

/// The most memory that a listener takes, in octets, by its use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Held {
    /// Tasks of connections, and answers owed to RELP clients.
    pub connections: usize,
    /// Received messages that are not whole, or that a RELP window has no room for: the longest message on each
    /// connection.
    pub unfinished: usize,
    /// Judged messages that wait for room in the queue. If messages are short, most of it is their bookkeeping.
    pub waiting: usize,
    /// Buffers of datagram sockets, and what was judged from them.
    pub datagrams: usize,
}

/// The most memory of the listener of `config`, in a relay with `workers` threads.
#[must_use]
pub(crate) fn held(config: &ListenerConfig, workers: usize) -> Held {
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
    // Workers that began a full turn before the queue was full.
    let early = workers.saturating_mul(Chunk::octets_of(pending::READ_OCTETS));
    let turn = Chunk::octets_of(pending::turn_while_full(connections));
    Held {
        connections: count.saturating_mul(TASK_OCTETS + owed),
        unfinished: count.saturating_mul(unfinished),
        waiting: early.saturating_add(count.saturating_mul(turn)),
        datagrams: 0,
    }
}

/// How many sockets, each with a thread, a datagram listener has.
#[must_use]
pub(crate) fn sockets(config: &ListenerConfig, workers: usize) -> usize {
    match config.url {
        ListenUrl::Udp(_) => workers,
        ListenUrl::UnixDgram(_) => 1,
        ListenUrl::Tcp(_) | ListenUrl::Relp(_) | ListenUrl::UnixStream(_) => 0,
    }
}

/// Memory of a connection's task, including what the runtime keeps for it. Measured with a thousand idle connections:
/// 4,500 octets each.
const TASK_OCTETS: usize = 5 * 1024;
