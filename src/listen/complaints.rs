//! Warnings about what a peer sends, which an operator has to fix at the sender or in the configuration.
//!
//! # Guarantees
//!
//! - Each line names the listener, the peer, what was found, and what to do.
//! - A warning is logged at most once per ten seconds; without a cause it costs nothing.
//!
//! # Left out
//!
//! Rejected connections (see `hello` and `accept`), and octets that are not a frame (see `stream` and `relp`).

use super::Local;
use crate::{
    clock::Clock,
    config::{ListenerConfig, OVERSIZE, Oversize, size_text},
    core::identity::Sender,
    logging::{Escaped, PeerReason},
    metrics::{DropReason, FrameErrorReason},
    pipeline::Batch,
};

/// A frame longer than `max_message_size`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Long {
    /// A line whose end has not been received.
    Line,
    /// A frame with a count, or a datagram.
    Counted,
}

impl Local {
    /// Warns once about each of `senders` that it sends compressed messages.
    pub(super) fn complain_of_compression(&self, senders: &[Sender]) {
        for sender in senders {
            let (reason, now) = (PeerReason::Compressed, Clock::now());
            let log = &self.context.peer_log;
            log.note_once(reason, sender, now, |before| {
                tracing::warn!(listener = self.metrics.name(), peer = %sender, advice = COMPRESSION_ADVICE, before,
                    "compressed messages are forwarded as they are, or dropped");
            });
        }
    }

    /// Counts a frame that begins with `head` and is longer than `max_message_size`, warns about it, and judges its head
    /// or refuses it, as `oversize` says.
    pub(super) fn take_oversize<'f>(
        &self,
        batch: &mut Batch<'_, 'f>,
        long: Long,
        head: &'f [u8],
        sender: Sender,
        config: &ListenerConfig,
    ) {
        self.complain_of_length(long, head, sender, config);
        match config.oversize {
            Oversize::Truncate => batch.judge(head, sender),
            Oversize::Drop => batch.refuse(head, DropReason::Oversize),
        }
    }

    fn complain_of_length(&self, long: Long, head: &[u8], sender: Sender, config: &ListenerConfig) {
        let reason = FrameErrorReason::Oversize;
        self.context.metrics.frame_errors[reason].inc();
        let (log, now) = (&self.context.peer_log, Clock::now());
        log.note(PeerReason::Frame(reason), now, |before| {
            let listener = self.metrics.name();
            let max_message_size = size_text(config.max_message_size);
            let oversize = OVERSIZE.word(config.oversize);
            let octets = Escaped::head(head);
            match long {
                Long::Line => tracing::warn!(listener, peer = %sender, max_message_size, oversize, %octets,
                    advice = LINE_ADVICE, before, "a line has no end within max_message_size octets"),
                Long::Counted => tracing::warn!(listener, peer = %sender, max_message_size, oversize, %octets,
                    advice = LENGTH_ADVICE, before, "a message is longer than max_message_size"),
            }
        });
    }
}

const COMPRESSION_ADVICE: &str = "turn compression off at the sender (rsyslog: ZipLevel, compression.mode); compressed messages \
    are never suppressed, and are dropped if the upstream has framing = \"lf\"";
const LINE_ADVICE: &str = "if the sender counts octets, something precedes its first count, and nothing is framed; otherwise raise \
    max_message_size, or make the sender send shorter lines";
const LENGTH_ADVICE: &str = "raise max_message_size, or make the sender send shorter messages";
