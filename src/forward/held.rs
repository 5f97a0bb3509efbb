//! How much memory forwarding takes at most, besides the queue.
//!
//! # Left out
//!
//! The queue, whose limit is in the configuration.

use super::{datagram, overflow, relp, source::BATCH_OCTETS, stream::UNIX_BUFFER_OCTETS};
use crate::{
    config::{Compression, ForwardConfig, Strategy, UpstreamConfig, UpstreamUrl},
    delivery::chunk::Chunk,
};

/// An upper limit of the memory that forwarding takes, in octets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Held {
    /// Written, and kept to be sent again. With the shortest messages most of it is bookkeeping.
    pub resend: usize,
    /// Being sent: batches, their wire form, and messages that a RELP upstream has not answered.
    pub sending: usize,
}

/// The memory that the upstreams of `config` take.
#[must_use]
pub(crate) fn held(config: &ForwardConfig) -> Held {
    let each = config.to.iter().map(|upstream| by(upstream, config));
    match config.strategy {
        // Only one of them is in charge at a time.
        Strategy::Failover => each.fold(Held::default(), |most, one| Held {
            resend: most.resend.max(one.resend),
            sending: most.sending.max(one.sending),
        }),
        Strategy::Balance => each.fold(Held::default(), |all, one| Held {
            resend: all.resend.saturating_add(one.resend),
            sending: all.sending.saturating_add(one.sending),
        }),
    }
}

fn by(upstream: &UpstreamConfig, config: &ForwardConfig) -> Held {
    let written = |buffer| Held {
        resend: Chunk::octets_of(config.resend_max.saturating_add(buffer)),
        sending: 2 * BATCH_OCTETS,
    };
    match &upstream.url {
        UpstreamUrl::Tcp { .. } => written(TCP_BUFFER_OCTETS),
        UpstreamUrl::UnixStream(_) => written(UNIX_BUFFER_OCTETS),
        UpstreamUrl::Relp { .. } => Held {
            resend: 0,
            sending: relp::HELD_OCTETS + BATCH_OCTETS + 2 * relp::WIRE_OCTETS,
        },
        UpstreamUrl::Udp { .. } => Held {
            resend: Chunk::octets_of(datagram::RECENT_OCTETS),
            sending: BATCH_OCTETS,
        },
        UpstreamUrl::UnixDgram(_) => Held {
            resend: 0,
            sending: BATCH_OCTETS,
        },
        UpstreamUrl::File(_) | UpstreamUrl::Stdout => {
            let rotation = upstream.rotation;
            let compresses = rotation.is_on() && rotation.compression == Compression::Zstd;
            Held {
                resend: 0,
                sending: 3 * BATCH_OCTETS + if compresses { ZSTD_OCTETS } else { 0 },
            }
        }
    }
}

/// The memory that a spool of `max_size` takes: the batch being appended, its records, and what is read ahead.
#[must_use]
pub(crate) fn held_by_spool(max_size: usize) -> usize {
    let append = overflow::APPEND_OCTETS.min(max_size / 4);
    append + append + append / 2 + overflow::READY_OCTETS + 4 * overflow::READ_OCTETS
}

/// What our own kernel may hold of a TCP connection, which the ring keeps beyond `resend_max`: the third number of
/// `net.ipv4.tcp_wmem`, unless changed.
const TCP_BUFFER_OCTETS: usize = 4 * 1024 * 1024;

/// What compressing a rotated file takes at our level.
const ZSTD_OCTETS: usize = 4 * 1024 * 1024;
