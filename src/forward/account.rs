//! The account of a connection: counts what became of the frames that it was given.
//!
//! # Guarantees
//!
//! - A frame is counted in the ledger and in the upstream's metrics by the same call.
//! - A frame counts as forwarded when the last of its octets was taken, and not before.
//!
//! # Left out
//!
//! Deciding what became of a frame: the kinds of connection do that.

use std::{borrow::Cow, sync::Arc};

use super::{encode::Encoder, shared::Shared, standing::Upstream};
use crate::{config::ForwardConfig, delivery::chunk::Chunk, metrics::DropReason};

/// Where a connection counts, and the settings in force. Made anew for each call; costs nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) upstream: &'a Upstream,
    pub(super) config: &'a ForwardConfig,
    /// The encoder that the connection was opened with.
    pub(super) encoder: Encoder,
}

impl Account<'_> {
    /// Drops the messages in `batch` that the framing of a stream cannot carry, and removes empty chunks.
    pub(super) fn take_out(&self, batch: &mut Vec<Chunk>) {
        for lost in self.encoder.take_out(batch) {
            self.dropped(&lost, DropReason::Compressed);
        }
        batch.retain(|chunk| !chunk.is_empty());
    }

    /// The wire forms of all of `batch`.
    pub(super) fn encode<'b>(&self, batch: &'b [Chunk]) -> Vec<Cow<'b, [u8]>> {
        let (wire, rewritten) = self.encoder.encode_all(batch);
        self.shared.metrics.frames.rewritten.add(rewritten);
        wire
    }

    /// Counts the first `frames` of the entries left in `chunk`, which took `octets` on the wire, as forwarded.
    pub(super) fn forwarded(&self, chunk: &mut Chunk, frames: usize, octets: u64) {
        self.upstream.metrics.frames.add(frames as u64);
        self.upstream.metrics.octets.add(octets);
        self.shared.ledger.forwarded(chunk, frames);
    }

    /// Counts the frames that lie wholly in the first `taken` octets of `batch` as forwarded.
    pub(super) fn partly_forwarded(&self, batch: &mut [Chunk], taken: usize) {
        self.upstream.metrics.octets.add(taken as u64);
        let mut left = taken;
        for chunk in batch {
            let whole = self.encoder.whole_entries(chunk, left);
            left = left.saturating_sub(self.encoder.chunk_octets(chunk));
            self.forwarded(chunk, whole, 0);
        }
    }

    /// Counts what is left in `chunk` as dropped. The summaries of the windows that this reopens are to be sent next.
    pub(super) fn dropped(&self, chunk: &Chunk, reason: DropReason) {
        if let Some(summaries) = self.shared.ledger.dropped(chunk, reason) {
            self.shared.source.add(summaries);
        }
    }
}
