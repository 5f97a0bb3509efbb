//! What a connection has shown so far: whether its upstream works, and how much it may get until then.
//!
//! ```text
//!           proof seen (see `Proof`)
//!   open ─────────────────────────────▶ proved        on probation: few octets until then
//!
//!            lost                                         proved
//!   trusted ───────▶ not trusted ──took something──▶ in doubt ───▶ trusted
//!                         └────────── idle for PROOF_MIN ────────────▲
//! ```
//!
//! The second line is the upstream's: a connection to one that was not lost begins as trusted.
//!
//! # Guarantees
//!
//! - A connection on probation gets few octets until it is proved (see `standing`), but at least one frame a batch.
//! - All lanes know how many of them are trusted, and how many are in doubt. At a stop trusted lanes get the batches, and
//!   do not end while a lane in doubt may give something back.
//!
//! # Left out
//!
//! What is logged about it, and the delays between attempts (`standing`, `failover`).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    encode::Encoder,
    shared::Shared,
    standing::{PROOF_MIN, Standing},
};
use crate::{core::tick::Tick, delivery::chunk::Chunk};

/// What it takes to prove that the upstream behind a connection works.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// Something was acknowledged or answered (`is_seen`), and the connection lived for [`PROOF_MIN`].
    Answer {
        is_seen: bool,
    },
    /// No refusal came for this long after the first write.
    NoRefusal(Duration),
    Write,
}

/// What one connection has shown.
#[derive(Debug)]
pub(super) struct Evidence {
    is_proved: bool,
    since: Tick,
    /// When the first frame was written, or taken by a RELP session.
    first_write: Option<Tick>,
    /// Octets written. Counted on probation only.
    written: usize,
    /// How many octets it gets before it is proved; `None` means no limit.
    probation: Option<usize>,
    /// Set if the upstream is trusted: it was not lost, or has proved itself since.
    trusted: Option<Counted>,
    /// Set if the upstream is not trusted, and took something.
    in_doubt: Option<Counted>,
}

/// Counts this lane in a number that all lanes share, until dropped.
#[derive(Debug)]
struct Counted(Arc<Shared>, fn(&Shared) -> &AtomicUsize);

impl Counted {
    fn new(shared: &Arc<Shared>, number: fn(&Shared) -> &AtomicUsize) -> Self {
        number(shared).fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Evidence {
    /// The evidence of a connection that was just opened to an upstream of this `standing`.
    pub(super) fn new(
        standing: &Standing,
        probation: Option<usize>,
        shared: &Arc<Shared>,
        now: Tick,
    ) -> Self {
        let trusted = (!standing.is_outage())
            .then(|| Counted::new(shared, |shared| &shared.source.lanes_trusted));
        Self {
            is_proved: false,
            since: now,
            first_write: None,
            written: 0,
            probation,
            trusted,
            in_doubt: None,
        }
    }

    /// Records that `octets` were written, or taken by a RELP session, at `now`.
    pub(super) fn wrote(
        &mut self,
        now: Tick,
        octets: impl FnOnce() -> usize,
        shared: &Arc<Shared>,
    ) {
        if self.trusted.is_none() && self.in_doubt.is_none() {
            let in_doubt = Counted::new(shared, |shared| &shared.source.lanes_in_doubt);
            self.in_doubt = Some(in_doubt);
        }
        self.first_write.get_or_insert(now);
        if self.probation.is_some() {
            self.written = self.written.saturating_add(octets());
        }
    }

    pub(super) const fn is_proved(&self) -> bool {
        self.is_proved
    }

    /// Whether the upstream was not lost, or has proved itself since.
    pub(super) const fn is_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// Trusts the upstream from now on.
    pub(super) fn trust(&mut self, shared: &Arc<Shared>) {
        self.in_doubt = None;
        if self.trusted.is_none() {
            let trusted = Counted::new(shared, |shared| &shared.source.lanes_trusted);
            self.trusted = Some(trusted);
        }
    }

    /// Whether the connection has proved just now that the upstream works; true once.
    pub(super) fn has_proved(&mut self, proof: Proof, now: Tick) -> bool {
        let is_proved = match proof {
            Proof::Answer { is_seen } => is_seen && self.has_lived(now),
            Proof::NoRefusal(age) => self.first_write.is_some_and(|at| now.since(at) >= age),
            Proof::Write => self.first_write.is_some(),
        };
        is_proved && !std::mem::replace(&mut self.is_proved, true)
    }

    /// How long to wait before looking for a proof again.
    pub(super) fn proof_due(&self, proof: Proof, now: Tick) -> Duration {
        let due = match (proof, self.first_write) {
            (Proof::NoRefusal(age), Some(first)) => first.after(age),
            _ => self.since.after(PROOF_MIN),
        };
        if due > now {
            due.since(now)
        } else {
            // It lived long enough, and waits for something to be sent or acknowledged.
            PROOF_MIN
        }
    }

    /// Whether it lived for [`PROOF_MIN`] without anything to send.
    pub(super) fn is_idle_long(&self, now: Tick) -> bool {
        self.first_write.is_none() && self.probation.is_none() && self.has_lived(now)
    }

    /// Whether it lived as long as it takes to prove something.
    pub(super) fn has_lived(&self, now: Tick) -> bool {
        now.since(self.since) >= PROOF_MIN
    }

    /// Whether it has got all the octets that it gets on probation, and has not proved to work.
    pub(super) fn has_used_up(&self) -> bool {
        self.on_probation()
            .is_some_and(|octets| self.written >= octets)
    }

    /// Splits `batch` into what a connection on probation still gets, at least one frame, and the rest.
    pub(super) fn cut(&self, batch: Vec<Chunk>, encoder: Encoder) -> (Vec<Chunk>, VecDeque<Chunk>) {
        let Some(octets) = self.on_probation() else {
            return (batch, VecDeque::new());
        };
        let mut left = octets.saturating_sub(self.written);
        let (mut first, mut rest) = (Vec::new(), VecDeque::new());
        for mut chunk in batch {
            let fits = encoder.whole_entries(&chunk, left);
            let count = fits.max(usize::from(first.is_empty()));
            if !rest.is_empty() || count == 0 {
                rest.push_back(chunk);
                continue;
            }
            let part = chunk.split_entries(count);
            left = left.saturating_sub(encoder.chunk_octets(&part));
            first.push(part);
            if !chunk.is_empty() {
                rest.push_back(chunk);
            }
        }
        (first, rest)
    }

    /// How long until the connection is to be made anew, if that is due every `rebind`. Up to a tenth earlier, at
    /// random, so that a hundred relays do not reconnect in the same instant.
    pub(super) fn rebind_in(&self, rebind: Duration, now: Tick) -> Duration {
        let chance = u32::try_from(self.since.nanos() % 1000).expect("a remainder is small");
        let rebind = rebind - rebind / 10 * chance / 1000;
        self.since.after(rebind).since(now)
    }

    /// The octets that it gets on probation; `None` if it is not on probation, or not any more.
    fn on_probation(&self) -> Option<usize> {
        self.probation.filter(|_| !self.is_proved)
    }
}
