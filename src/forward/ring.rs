//! The replay ring: what was written to a stream and may not have been read.
//!
//! ```text
//!  oldest                                  written             not written
//!  [ chunk ][ chunk ][ chunk ][ chunk ]  [ batch ─ taken ─┼──────────────── ]
//!                    └──── uncertain octets ──────────────┘
//!                    ^ sent again from the first frame that reaches in here
//! ```
//!
//! # Guarantees
//!
//! - The ring holds at least what the peer's kernel has not acknowledged and the last `limit` octets
//!   before that (all, if fewer were written), and at most one chunk more.
//! - A chunk is safe as soon as the peer's kernel has acknowledged its last octet, and not before; it may stay in
//!   the ring. With a limit of nothing it stays until then.
//! - What is taken back is whole frames, in order: every frame any of whose octets is uncertain or not
//!   written.
//!
//! # Left out
//!
//! How many octets are uncertain.

use std::collections::VecDeque;

use super::Encoder;
use crate::chunk::Chunk;

/// The tail of what was written on one connection.
#[derive(Debug)]
pub(super) struct ReplayRing {
    /// Oldest first, each with its octets on the wire.
    chunks: VecDeque<(Chunk, usize)>,
    octets: usize,
    limit: usize,
    /// The last so many of the chunks may still be in our own kernel's hands: they are not safe.
    unsafe_chunks: usize,
    /// Their octets.
    unsafe_octets: usize,
}

impl ReplayRing {
    /// An empty ring that keeps `limit` octets.
    #[must_use]
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            octets: 0,
            limit,
            unsafe_chunks: 0,
            unsafe_octets: 0,
        }
    }

    /// Octets that the ring keeps beyond those that were not acknowledged.
    #[must_use]
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Octets in the ring.
    #[must_use]
    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    /// Keeps `limit` octets from now on, unless that is fewer than now.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = self.limit.max(limit);
    }

    /// `chunk` was written, and counted as forwarded; of all that was written `unacknowledged` octets
    /// are still in our own kernel's hands.
    pub(super) fn push(&mut self, chunk: Chunk, encoder: Encoder, unacknowledged: usize) {
        let octets = encoder.chunk_octets(&chunk);
        self.octets += octets;
        self.chunks.push_back((chunk, octets));
        self.unsafe_chunks += 1;
        self.unsafe_octets += octets;
        self.acknowledged(unacknowledged);
    }

    /// All but the last `unacknowledged` octets written are with the peer: the chunks that lie wholly before those
    /// are safe. What need not be kept any longer is let go.
    pub(super) fn acknowledged(&mut self, unacknowledged: usize) {
        let first = self.chunks.len() - self.unsafe_chunks;
        for (chunk, octets) in self.chunks.range_mut(first..) {
            if self.unsafe_octets < unacknowledged.saturating_add(*octets) {
                break;
            }
            self.unsafe_octets -= *octets;
            self.unsafe_chunks -= 1;
            chunk.safe();
        }
        let kept = self.limit.saturating_add(unacknowledged);
        while let Some((_, oldest)) = self.chunks.front()
            && self.octets - oldest >= kept
        {
            self.octets -= oldest;
            self.chunks.pop_front();
        }
    }

    /// Whether some of what was written is not known to be with the peer.
    #[must_use]
    pub(super) const fn is_uncertain(&self) -> bool {
        self.unsafe_chunks > 0
    }

    /// Empties the ring after the connection was lost `taken` octets into `batch`: the frames that
    /// reach into the last `uncertain` octets written, and those not written.
    #[must_use]
    pub(super) fn take_back(
        &mut self,
        batch: Vec<Chunk>,
        taken: usize,
        uncertain: usize,
        encoder: Encoder,
    ) -> VecDeque<Chunk> {
        let certain = (self.octets + taken).saturating_sub(uncertain);
        self.octets = 0;
        (self.unsafe_chunks, self.unsafe_octets) = (0, 0);
        let mut again = VecDeque::new();
        let mut start = 0;
        let written = self.chunks.drain(..).map(|(chunk, _)| chunk);
        for mut chunk in written.chain(batch) {
            let octets = encoder.chunk_octets(&chunk);
            if start < certain {
                chunk.advance(encoder.whole_entries(&chunk, certain - start));
            }
            start += octets;
            if !chunk.is_empty() {
                again.push_back(chunk);
            }
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chunk::Entry,
        config::{LineBreaks, OutputFraming},
        custody::{Custody, Outcome},
        dedup::Claim,
    };

    const LF: Encoder = Encoder {
        framing: OutputFraming::Lf,
        line_breaks: LineBreaks::Space,
    };

    fn chunk(frames: &[&str]) -> Chunk {
        let mut chunk = Chunk::default();
        for frame in frames {
            chunk.push(frame.as_bytes(), Entry::Survivor(Claim::VOID));
        }
        chunk
    }

    fn frames(chunks: &VecDeque<Chunk>) -> Vec<String> {
        chunks
            .iter()
            .flat_map(Chunk::entries)
            .map(|(frame, _, _)| String::from_utf8(frame.to_vec()).unwrap())
            .collect()
    }

    /// Four frames of four octets on the wire were written, and `taken` octets of two more.
    #[track_caller]
    fn check(taken: usize, uncertain: usize, expected: &[&str]) {
        let mut ring = ReplayRing::new(1000);
        ring.push(chunk(&["aaa", "bbb"]), LF, 0);
        ring.push(chunk(&["ccc", "ddd"]), LF, 0);
        let again = ring.take_back(vec![chunk(&["eee", "fff"])], taken, uncertain, LF);
        assert_eq!(
            frames(&again),
            expected,
            "taken {taken}, uncertain {uncertain}"
        );
    }

    #[test]
    fn every_frame_that_reaches_into_the_uncertain_octets_is_sent_again() {
        check(0, 0, &["eee", "fff"]);
        check(3, 0, &["eee", "fff"]);
        check(4, 0, &["fff"]);
        check(8, 0, &[]);
        check(8, 1, &["fff"]);
        check(8, 4, &["fff"]);
        check(8, 5, &["eee", "fff"]);
        check(5, 3, &["eee", "fff"]);
        check(0, 1, &["ddd", "eee", "fff"]);
        check(0, 9, &["bbb", "ccc", "ddd", "eee", "fff"]);
        check(0, usize::MAX, &["aaa", "bbb", "ccc", "ddd", "eee", "fff"]);
    }

    #[test]
    fn the_ring_keeps_its_limit_and_at_most_a_chunk_more() {
        let mut ring = ReplayRing::new(10);
        for _ in 0..100 {
            ring.push(chunk(&["aaa", "bbb"]), LF, 0);
            assert!(ring.octets < 10 + 8);
        }
        assert!(ring.octets >= 10);
        ring.set_limit(20);
        ring.set_limit(10);
        for _ in 0..100 {
            ring.push(chunk(&["aaa"]), LF, 0);
        }
        assert!((20..24).contains(&ring.octets));
        // What our own kernel still holds comes on top: a socket's buffer may hold far more.
        for _ in 0..100 {
            ring.push(chunk(&["aaa"]), LF, 40);
        }
        assert!((60..64).contains(&ring.octets));
    }

    #[test]
    fn chunks_are_safe_once_the_peer_has_all_their_octets() {
        let custody = Custody::new();
        let mut ring = ReplayRing::new(1000);
        let mut unacknowledged = 0;
        for _ in 0..3 {
            let mut written = chunk(&["aaa"]);
            written.entrust(custody.open());
            unacknowledged += 4;
            ring.push(written, LF, unacknowledged);
        }
        let mut all = custody.promise();
        custody.seal(&mut all);
        let mut safe = Vec::new();
        for unacknowledged in (0..=12).rev() {
            ring.acknowledged(unacknowledged);
            safe.push(custody.promise());
        }
        let settled: Vec<_> = safe.iter().map(|promise| promise.from()).collect();
        assert_eq!(settled, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]);
        assert!(!ring.is_uncertain());
        assert_eq!(custody.outcome(&all), Some(Outcome::Safe));
        assert_eq!(ring.octets, 12, "safe chunks stay to be sent again");
    }

    #[test]
    fn a_ring_without_room_keeps_what_has_not_arrived() {
        let custody = Custody::new();
        let mut ring = ReplayRing::new(0);
        ring.push(chunk(&["aaa"]), LF, 0);
        assert_eq!(ring.octets, 0);
        let mut written = chunk(&["bbb"]);
        written.entrust(custody.open());
        ring.push(written, LF, 4);
        let mut promise = custody.promise();
        custody.seal(&mut promise);
        ring.acknowledged(1);
        assert_eq!(custody.outcome(&promise), None, "it has not arrived");
        ring.push(chunk(&["ccc"]), LF, 5);
        ring.acknowledged(4);
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
        let again = ring.take_back(Vec::new(), 0, 4, LF);
        assert_eq!(frames(&again), ["ccc"]);
    }
}
