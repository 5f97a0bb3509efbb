//! The resend ring: what was written to an upstream and may not have been read.
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
//! - The ring holds at least what the peer's kernel has not acknowledged and the last `limit` octets before that (all,
//!   if fewer were written), and at most one chunk more.
//! - Chunks older than `age` are removed. A chunk's age counts from its acknowledgement, and stops at
//!   the last moment at which the peer was known to have taken everything: while a peer takes nothing, nothing ages.
//! - A chunk is safe once the peer's kernel has acknowledged its last octet, and not before. It may stay in the ring
//!   after that. With a limit of zero it stays until then.
//! - What is taken back is whole frames, in order: every frame with at least one octet that is uncertain or not
//!   written.
//!
//! # Left out
//!
//! How many octets are uncertain: the owner of the ring says so.

use std::{collections::VecDeque, iter, time::Duration};

use super::super::encode::Encoder;
use crate::{core::tick::Tick, delivery::chunk::Chunk};

/// The tail of what was written on one connection.
#[derive(Debug)]
pub(in crate::forward) struct ResendRing {
    chunks: VecDeque<Written>,
    octets: usize,
    limit: usize,
    /// How long a chunk stays after its acknowledgement.
    age: Duration,
    /// This many of the last chunks may still be in our own kernel's send buffer: they are not safe.
    unsafe_chunks: usize,
    unsafe_octets: usize,
    /// At least one chunk was acknowledged on this connection.
    is_acknowledged: bool,
}

#[derive(Debug)]
struct Written {
    chunk: Chunk,
    /// What it was written with. A reload may change the encoder of the connection.
    encoder: Encoder,
    /// Its length on the wire.
    octets: usize,
    /// When its acknowledgement was first seen. Meaningless before.
    acknowledged_at: Tick,
}

/// How much of what was written the peer has taken, at one moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::forward) struct Taken {
    /// Octets that are still in our own kernel's send buffer.
    pub(in crate::forward) unacknowledged: usize,
    /// The peer has taken everything, as far as its kernel tells.
    pub(in crate::forward) is_all: bool,
    pub(in crate::forward) now: Tick,
}

impl ResendRing {
    /// An empty ring that keeps `limit` octets for `age`.
    pub(in crate::forward) const fn new(limit: usize, age: Duration) -> Self {
        Self {
            chunks: VecDeque::new(),
            octets: 0,
            limit,
            age,
            unsafe_chunks: 0,
            unsafe_octets: 0,
            is_acknowledged: false,
        }
    }

    /// Octets that the ring keeps beyond the unacknowledged ones.
    pub(in crate::forward) const fn limit(&self) -> usize {
        self.limit
    }

    pub(in crate::forward) const fn octets(&self) -> usize {
        self.octets
    }

    /// Raises the limit to `limit`; a smaller one changes nothing.
    pub(in crate::forward) fn set_limit(&mut self, limit: usize) {
        self.limit = self.limit.max(limit);
    }

    /// Adds `chunk`, which was written and counted as forwarded. `taken` is the peer's progress including this chunk.
    pub(in crate::forward) fn push(&mut self, chunk: Chunk, encoder: Encoder, taken: Taken) {
        let octets = encoder.chunk_octets(&chunk);
        self.octets += octets;
        self.chunks.push_back(Written {
            chunk,
            encoder,
            octets,
            acknowledged_at: taken.now,
        });
        self.unsafe_chunks += 1;
        self.unsafe_octets += octets;
        self.acknowledged(taken);
    }

    /// Marks the chunks that the peer has taken wholly as safe, and removes what need not be kept.
    pub(in crate::forward) fn acknowledged(&mut self, taken: Taken) {
        let unacknowledged = taken.unacknowledged;
        let first = self.chunks.len() - self.unsafe_chunks;
        for written in self.chunks.range_mut(first..) {
            if self.unsafe_octets < unacknowledged.saturating_add(written.octets) {
                break;
            }
            self.unsafe_octets -= written.octets;
            self.unsafe_chunks -= 1;
            self.is_acknowledged = true;
            written.acknowledged_at = taken.now;
            written.chunk.safe();
        }
        debug_assert!(
            !taken.is_all || self.unsafe_chunks == 0,
            "a peer that has taken everything leaves no chunk unsafe"
        );
        let kept = self.limit.saturating_add(unacknowledged);
        while let Some(oldest) = self.chunks.front()
            && (self.octets - oldest.octets >= kept
                || (taken.is_all && taken.now.since(oldest.acknowledged_at) >= self.age))
        {
            self.octets -= oldest.octets;
            self.chunks.pop_front();
        }
    }

    /// Whether some of what was written is not known to be with the peer.
    pub(in crate::forward) const fn is_uncertain(&self) -> bool {
        self.unsafe_chunks > 0
    }

    /// Whether the peer's kernel has acknowledged a chunk.
    pub(in crate::forward) const fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// When the oldest chunk will be old enough to be removed, if nothing changes; `None` if that does not depend on
    /// time alone.
    pub(in crate::forward) fn ages_at(&self) -> Option<Tick> {
        let oldest = self.chunks.front().filter(|_| !self.is_uncertain())?;
        Some(oldest.acknowledged_at.after(self.age))
    }

    /// Empties the ring after the connection was lost `taken` octets into `batch`, which was written with `encoder`.
    /// Returns the frames that reach into the last `uncertain` octets written, and those not written.
    pub(in crate::forward) fn take_back(
        &mut self,
        batch: Vec<Chunk>,
        taken: usize,
        uncertain: usize,
        encoder: Encoder,
    ) -> VecDeque<Chunk> {
        let mut certain = (self.octets + taken).saturating_sub(uncertain);
        self.octets = 0;
        (self.unsafe_chunks, self.unsafe_octets) = (0, 0);
        let mut again = VecDeque::new();
        for written in self.chunks.drain(..) {
            let frames = written.encoder.beyond(iter::once(written.chunk), certain);
            again.extend(frames);
            certain = certain.saturating_sub(written.octets);
        }
        again.extend(encoder.beyond(batch.into_iter(), certain));
        again
    }

    /// Marks what the peer has taken as safe and removes what is old; asks for the progress only if that may change
    /// something. Returns how long to wait before the next call, which is short if a sender waits to hear what has
    /// arrived. `taken` asks for the peer's progress.
    pub(in crate::forward) fn tend(
        &mut self,
        now: Tick,
        is_awaited: bool,
        taken: impl FnOnce() -> Taken,
    ) -> Duration {
        if self.is_uncertain() || self.ages_at().is_some_and(|at| at <= now) {
            self.acknowledged(taken());
        }
        if self.is_uncertain() {
            return if is_awaited { AWAITED_POLL } else { POLL };
        }
        let ages_in = self.ages_at().map(|at| at.since(now));
        // A Unix peer that has not read yet does not let it go.
        ages_in.map_or(Duration::MAX, |wait| wait.max(POLL))
    }
}

/// How often a stream is asked for what has arrived: while a sender waits to hear it, and while none does.
const AWAITED_POLL: Duration = Duration::from_millis(1);
const POLL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{LineBreaks, OutputFraming},
        core::dedup::Claim,
        delivery::{
            chunk::Entry,
            custody::{Custody, Outcome},
        },
    };

    const LF: Encoder = Encoder {
        framing: OutputFraming::Lf,
        line_breaks: LineBreaks::Space,
    };

    const AGE: Duration = Duration::from_secs(10);

    /// `unacknowledged` octets are unacknowledged, in the first second.
    const fn with(unacknowledged: usize) -> Taken {
        taken_at(unacknowledged, 0)
    }

    const fn taken_at(unacknowledged: usize, seconds: u64) -> Taken {
        Taken {
            unacknowledged,
            is_all: unacknowledged == 0,
            now: Tick::from_nanos(seconds * 1_000_000_000),
        }
    }

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

    /// Writes four frames of four octets on the wire, and `taken` octets of two more.
    #[track_caller]
    fn check(taken: usize, uncertain: usize, expected: &[&str]) {
        let mut ring = ResendRing::new(1000, AGE);
        ring.push(chunk(&["aaa", "bbb"]), LF, with(0));
        ring.push(chunk(&["ccc", "ddd"]), LF, with(0));
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

    /// The ring measured what it holds by the encoder that a reload had set since.
    #[test]
    fn a_reload_that_changes_the_encoder_does_not_change_what_was_written() {
        let escape = Encoder {
            line_breaks: LineBreaks::Escape,
            ..LF
        };
        for (before, after) in [(LF, escape), (escape, LF)] {
            let written = ["a\nb", "c\nd", "e\nf"];
            let last = before.wire_octets(written[2].as_bytes());
            for (uncertain, expected) in [
                (0, &["g\nh"][..]),
                (1, &["e\nf", "g\nh"]),
                (last, &["e\nf", "g\nh"]),
                (last + 1, &["c\nd", "e\nf", "g\nh"]),
            ] {
                let mut ring = ResendRing::new(1000, AGE);
                ring.push(chunk(&written[..2]), before, with(0));
                ring.push(chunk(&written[2..]), before, with(0));
                let again = ring.take_back(vec![chunk(&["g\nh"])], 0, uncertain, after);
                let change = (before.line_breaks, after.line_breaks);
                assert_eq!(
                    frames(&again),
                    expected,
                    "{change:?}, uncertain {uncertain}"
                );
            }
        }
    }

    #[test]
    fn the_ring_keeps_its_limit_and_at_most_a_chunk_more() {
        let mut ring = ResendRing::new(10, AGE);
        for _ in 0..100 {
            ring.push(chunk(&["aaa", "bbb"]), LF, with(0));
            assert!(ring.octets < 10 + 8);
        }
        assert!(ring.octets >= 10);
        ring.set_limit(20);
        ring.set_limit(10);
        for _ in 0..100 {
            ring.push(chunk(&["aaa"]), LF, with(0));
        }
        assert!((20..24).contains(&ring.octets));
        // What our own kernel still holds is kept on top: a socket's buffer may hold far more.
        for _ in 0..100 {
            ring.push(chunk(&["aaa"]), LF, with(40));
        }
        assert!((60..64).contains(&ring.octets));
    }

    #[test]
    fn chunks_are_safe_once_the_peer_has_all_their_octets() {
        let custody = Custody::new();
        let mut ring = ResendRing::new(1000, AGE);
        let mut unacknowledged = 0;
        for _ in 0..3 {
            let mut written = chunk(&["aaa"]);
            written.entrust(custody.open());
            unacknowledged += 4;
            ring.push(written, LF, with(unacknowledged));
        }
        let mut all = custody.promise();
        custody.seal(&mut all);
        let mut safe = Vec::new();
        for unacknowledged in (0..=12).rev() {
            ring.acknowledged(with(unacknowledged));
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
        let mut ring = ResendRing::new(0, AGE);
        ring.push(chunk(&["aaa"]), LF, with(0));
        assert_eq!(ring.octets, 0);
        let mut written = chunk(&["bbb"]);
        written.entrust(custody.open());
        ring.push(written, LF, with(4));
        let mut promise = custody.promise();
        custody.seal(&mut promise);
        ring.acknowledged(with(1));
        assert_eq!(custody.outcome(&promise), None, "it has not arrived");
        ring.push(chunk(&["ccc"]), LF, with(5));
        ring.acknowledged(with(4));
        assert_eq!(custody.outcome(&promise), Some(Outcome::Safe));
        let again = ring.take_back(Vec::new(), 0, 4, LF);
        assert_eq!(frames(&again), ["ccc"]);
    }

    #[test]
    fn what_was_acknowledged_long_ago_is_let_go() {
        let mut ring = ResendRing::new(1000, AGE);
        ring.push(chunk(&["aaa"]), LF, taken_at(0, 1));
        ring.push(chunk(&["bbb"]), LF, taken_at(4, 2));
        assert_eq!(ring.ages_at(), None, "the last has not arrived");
        ring.acknowledged(taken_at(0, 5));
        assert_eq!(ring.ages_at(), Some(taken_at(0, 11).now));
        ring.acknowledged(taken_at(0, 10));
        assert_eq!(ring.octets(), 8);
        ring.acknowledged(taken_at(0, 11));
        assert_eq!(ring.octets(), 4, "its age counts from when it had arrived");
        ring.acknowledged(taken_at(0, 15));
        assert_eq!((ring.octets(), ring.ages_at()), (0, None));
        let again = ring.take_back(vec![chunk(&["ccc"])], 0, usize::MAX, LF);
        assert_eq!(frames(&again), ["ccc"]);
    }

    #[test]
    fn nothing_ages_while_the_peer_takes_nothing() {
        let mut ring = ResendRing::new(1000, AGE);
        ring.push(chunk(&["aaa"]), LF, taken_at(0, 1));
        ring.push(chunk(&["bbb"]), LF, taken_at(4, 2));
        ring.acknowledged(taken_at(4, 60));
        let again = ring.take_back(Vec::new(), 0, usize::MAX, LF);
        assert_eq!(frames(&again), ["aaa", "bbb"]);
    }
}
