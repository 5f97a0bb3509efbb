//! The upstream in charge of a lane, and the connection to it: what it took, and what that proves.
//!
//! # Guarantees
//!
//! - A connection proves that its upstream works when something was acknowledged (TCP, Unix), answered (RELP) or not
//!   refused (UDP) and it lived for some time. A file proves it as soon as it has taken something.
//! - A connection on probation gets few octets until then (see `standing`).
//! - What may have to be sent again is kept as long as the ring says, and no longer, also while nothing is sent.
//!
//! # Left out
//!
//! Sending, and what happens when the connection is lost (`lane`).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    Shared,
    datagram::RECENT_AGE,
    encode::Encoder,
    ring::{ResendRing, Taken},
    standing::{PROBATION_OCTETS_MIN, PROOF_MIN, Standing},
    upstream::Connection,
};
use crate::{chunk::Chunk, config::ForwardConfig, socket::Socket, tick::Tick};

/// The upstream in charge and the connection to it.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) index: usize,
    pub(super) connection: Connection,
    pub(super) encoder: Encoder,
    pub(super) ring: ResendRing,
    /// The connection has proved that the upstream works.
    pub(super) is_proved: bool,
    since: Tick,
    first_write: Option<Tick>,
    /// RELP: something was answered.
    is_answered: bool,
    /// Octets written; counted while it is on probation.
    written: usize,
    /// Octets that it gets before it has proved itself.
    probation: Option<usize>,
    /// The upstream is trusted: it was not lost, or has proved itself since.
    trusted: Option<Counted>,
    /// It is not, and took something.
    in_doubt: Option<Counted>,
    /// Octets that the peer's kernel had not acknowledged when it was asked last.
    unacknowledged: usize,
    _in_charge: InCharge,
}

/// A lane is counted in a number that all lanes share, until this is dropped.
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

/// Says to the source that a lane has an upstream, until dropped.
#[derive(Debug)]
struct InCharge(Arc<Shared>);

impl InCharge {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.source.lane_up(true);
        Self(Arc::clone(shared))
    }
}

impl Drop for InCharge {
    fn drop(&mut self) {
        self.0.source.lane_up(false);
    }
}

impl Active {
    /// Puts `connection` to upstream `index`, of which `standing` is known, in charge.
    pub(super) fn new(
        index: usize,
        connection: Connection,
        encoder: Encoder,
        standing: &Standing,
        config: &ForwardConfig,
        shared: &Arc<Shared>,
        now: Tick,
    ) -> Self {
        let (ring, probation) = match &connection {
            Connection::Stream(stream) => {
                let octets = stream.unread_octets_max().min(config.resend_max);
                let ring = ResendRing::new(octets, config.resend_age);
                (ring, standing.probation(octets))
            }
            Connection::Datagram(datagram) => {
                let ring = ResendRing::new(datagram.recent_octets(), RECENT_AGE);
                (ring, standing.is_refused().then_some(PROBATION_OCTETS_MIN))
            }
            Connection::Blocking(_) | Connection::Relp(_) => {
                (ResendRing::new(0, Duration::ZERO), None)
            }
        };
        Self {
            index,
            connection,
            encoder,
            ring,
            is_proved: false,
            since: now,
            first_write: None,
            is_answered: false,
            written: 0,
            probation,
            trusted: (!standing.is_outage())
                .then(|| Counted::new(shared, |shared| &shared.source.lanes_trusted)),
            in_doubt: None,
            unacknowledged: 0,
            _in_charge: InCharge::new(shared),
        }
    }

    /// `chunk` was written, and counted as forwarded; so much of all that was written is `taken`.
    pub(super) fn wrote(&mut self, chunk: Chunk, taken: Taken, shared: &Arc<Shared>) {
        if self.trusted.is_none() && self.in_doubt.is_none() {
            let in_doubt = Counted::new(shared, |shared| &shared.source.lanes_in_doubt);
            self.in_doubt = Some(in_doubt);
        }
        self.first_write.get_or_insert(taken.now);
        self.unacknowledged = taken.unacknowledged;
        if self.probation.is_some() {
            let octets = self.encoder.chunk_octets(&chunk);
            self.written = self.written.saturating_add(octets);
        }
        if matches!(
            self.connection,
            Connection::Stream(_) | Connection::Datagram(_)
        ) && !chunk.is_empty()
        {
            self.ring.push(chunk, self.encoder, taken);
        }
    }

    /// Whether the upstream was not lost, or has proved itself since.
    pub(super) const fn is_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// The upstream is trusted from now on.
    pub(super) fn trust(&mut self, shared: &Arc<Shared>) {
        self.in_doubt = None;
        if self.trusted.is_none() {
            let trusted = Counted::new(shared, |shared| &shared.source.lanes_trusted);
            self.trusted = Some(trusted);
        }
    }

    /// The upstream has answered (RELP).
    pub(super) const fn was_answered(&mut self) {
        self.is_answered = true;
    }

    /// How much of what was written the peer has taken by now.
    pub(super) fn taken(&self, now: Tick) -> Taken {
        let (unacknowledged, is_all) = match &self.connection {
            Connection::Stream(stream) => (stream.unacknowledged_octets(), stream.has_taken_all()),
            _ => (0, true),
        };
        Taken {
            unacknowledged,
            is_all,
            now,
        }
    }

    /// Octets that were written, or given to a RELP session, and are not acknowledged, as far as was seen last.
    pub(super) fn unacknowledged(&self) -> u64 {
        let octets = match &self.connection {
            Connection::Relp(relp) => relp.held_octets(),
            _ => self.unacknowledged,
        };
        octets as u64
    }

    /// Lets go of what has arrived or is old. Returns when to look again, which is soon where somebody waits to
    /// hear what has arrived.
    pub(super) fn tend(&mut self, now: Tick, is_awaited: bool) -> Duration {
        if self.ring.is_uncertain() || self.ring.ages_at().is_some_and(|at| at <= now) {
            let taken = self.taken(now);
            self.unacknowledged = taken.unacknowledged;
            self.ring.acknowledged(taken);
        }
        if self.ring.is_uncertain() {
            return if is_awaited {
                WAIT_MIN
            } else {
                ACKNOWLEDGED_POLL
            };
        }
        let ages_in = self.ring.ages_at().map(|at| at.since(now));
        // A Unix peer that has not read yet does not let it go.
        ages_in.map_or(Duration::MAX, |wait| wait.max(ACKNOWLEDGED_POLL))
    }

    /// Whether the connection has proved just now that the upstream works.
    pub(super) fn has_proved(&mut self, now: Tick) -> bool {
        let is_proved = match &self.connection {
            Connection::Stream(_) => self.ring.is_acknowledged() && self.has_lived(now),
            Connection::Relp(_) => self.is_answered && self.has_lived(now),
            Connection::Datagram(_) => self
                .first_write
                .is_some_and(|first| now.since(first) >= RECENT_AGE),
            Connection::Blocking(_) => self.first_write.is_some(),
        };
        is_proved && !std::mem::replace(&mut self.is_proved, true)
    }

    /// When it is worth asking again.
    pub(super) fn proof_due(&self, now: Tick) -> Duration {
        let due = match (&self.connection, self.first_write) {
            (Connection::Datagram(_), Some(first)) => first.after(RECENT_AGE),
            _ => self.since.after(PROOF_MIN),
        };
        if due > now {
            due.since(now)
        } else {
            // It lived long enough, and waits for something to be sent or acknowledged.
            PROOF_MIN
        }
    }

    /// Whether it has lived long without anything to send.
    pub(super) fn is_idle_long(&self, now: Tick) -> bool {
        self.first_write.is_none() && self.probation.is_none() && self.has_lived(now)
    }

    /// Whether it lived as long as it takes to prove something.
    pub(super) fn has_lived(&self, now: Tick) -> bool {
        now.since(self.since) >= PROOF_MIN
    }

    /// Whether it gets few octets only.
    pub(super) const fn is_on_probation(&self) -> bool {
        self.probation.is_some() && !self.is_proved
    }

    /// Whether it has got all that a connection on probation gets.
    pub(super) fn has_used_up(&self) -> bool {
        self.probation.is_some_and(|octets| self.written >= octets)
    }

    /// What of `batch` a connection on probation still gets, at least a frame, and the rest.
    pub(super) fn cut(&self, batch: Vec<Chunk>) -> (Vec<Chunk>, VecDeque<Chunk>) {
        let Some(octets) = self.probation.filter(|_| !self.is_proved) else {
            return (batch, VecDeque::new());
        };
        let mut left = octets.saturating_sub(self.written);
        let (mut first, mut rest) = (Vec::new(), VecDeque::new());
        for mut chunk in batch {
            let fits = self.encoder.whole_entries(&chunk, left);
            let count = fits.max(usize::from(first.is_empty()));
            if !rest.is_empty() || count == 0 {
                rest.push_back(chunk);
                continue;
            }
            let part = chunk.split_entries(count);
            left = left.saturating_sub(self.encoder.chunk_octets(&part));
            first.push(part);
            if !chunk.is_empty() {
                rest.push_back(chunk);
            }
        }
        (first, rest)
    }

    /// How long until the connection is to be made anew, if each is after `rebind`: a little earlier, by chance, so
    /// that a hundred relays do not come in the same instant.
    pub(super) fn rebind_in(&self, rebind: Option<Duration>, now: Tick) -> Option<Duration> {
        let is_bound = match &self.connection {
            Connection::Stream(stream) => matches!(stream.socket, Socket::Tcp(_)),
            Connection::Relp(_) => true,
            Connection::Datagram(_) | Connection::Blocking(_) => false,
        };
        let rebind = rebind.filter(|_| is_bound)?;
        let chance = u32::try_from(self.since.nanos() % 1000).unwrap_or(0);
        let rebind = rebind - rebind / 10 * chance / 1000;
        Some(self.since.after(rebind).since(now))
    }
}

/// How often a stream is asked for what has arrived while nobody waits to hear of it.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(100);

/// The shortest sleep, so that a time that has just passed does not spin.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(1);
