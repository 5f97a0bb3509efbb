//! Complaints: what peers do that an operator has to put right at the sender, or by a key of the configuration.
//!
//! # Guarantees
//!
//! - Each line names the listener, the peer, what was found, and what to do.
//! - They cost nothing unless there is something to complain of, and a flood of that is one line per ten seconds.
//!
//! # Left out
//!
//! Connections that are turned away (see `hello` and `accept`), and octets that are no frame (see `stream` and `relp`).

use super::Local;
use crate::{
    clock::Clock,
    config::{ListenerConfig, OVERSIZE, size_text},
    identity::Sender,
    logging::{Escaped, PeerReason},
    metrics::FrameErrorReason,
};

/// What was longer than `max_message_size`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Long {
    /// A line, whose end has not come yet.
    Line,
    /// A frame whose length was told, or a datagram.
    Counted,
}

impl Local {
    /// Says, once for each of `senders`, that they send compressed messages.
    pub(super) fn complain_of_compression(&self, senders: &[Sender]) {
        for sender in senders {
            let (reason, now) = (PeerReason::Compressed, Clock::now());
            let log = &self.context.peer_log;
            log.note_once(reason, sender, now, |before| {
                tracing::warn!(listener = self.metrics.name(), peer = %sender, advice = COMPRESSION_ADVICE, before,
                    "compressed messages are passed on as they are, or dropped");
            });
        }
    }

    /// Counts a frame that begins with `head` and is longer than `max_message_size`, and says so.
    pub(super) fn complain_of_length(
        &self,
        long: Long,
        head: &[u8],
        sender: Sender,
        config: &ListenerConfig,
    ) {
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
                    advice = LINE_ADVICE, before, "a line without an end in max_message_size octets"),
                Long::Counted => tracing::warn!(listener, peer = %sender, max_message_size, oversize, %octets,
                    advice = LENGTH_ADVICE, before, "a message longer than max_message_size"),
            }
        });
    }
}

const COMPRESSION_ADVICE: &str = "turn compression off at the sender (rsyslog: ZipLevel, compression.mode); what is compressed \
    is never suppressed, and dropped where the upstream has framing = \"lf\"";
const LINE_ADVICE: &str = "does the sender count octets, with something in front of the first count? then nothing of it is framed; \
    else raise max_message_size, or let the sender send shorter lines";
const LENGTH_ADVICE: &str = "raise max_message_size, or let the sender send shorter messages";
