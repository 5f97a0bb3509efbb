//! One lane: chunks from the source to the upstream in charge of the lane.
//!
//! ```text
//! source ──batch──▶ [ in hand ] ──write──▶ upstream in charge        (the first of the list that is up)
//!    ▲                   │
//!    └── given back ◀────┴──── [ resend ring ]                       what the peer may not have read
//! ```
//!
//! # Guarantees
//!
//! - One upstream of the lane's list is in charge at a time; frames leave for it in the order of the source. When
//!   it is lost the next of the list that answers takes over, and charge returns up the list.
//! - A frame is counted as forwarded once, when the last of its octets was taken by the kernel (or the
//!   file); a frame broken off half-way is sent again whole on the next connection.
//! - What may have been lost with a connection goes back to the front of the source.
//! - A lane ends when the source is drained, or when it is told to leave; then everything it had in hand is with
//!   the upstream, or back in the source.
//!
//! # Left out
//!
//! How many lanes there are, and what becomes of what nobody sent (see the parent module).

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{select, sync::watch, task::yield_now, time::sleep};
use tracing::{debug, info};

use super::{
    ForwardEnded, Shared,
    active::{Active, WAIT_MIN},
    encode::Encoder,
    error::UpstreamError,
    standing::Upstream,
    upstream::{BrokenOff, Connection, Heard},
};
use crate::{
    chunk::Chunk,
    clock::Clock,
    config::{ForwardConfig, Strategy},
    failover::Failover,
    metrics::DropReason,
    tick::Tick,
};

/// Moves chunks from the source to the upstream in charge.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) changes: watch::Receiver<Arc<ForwardConfig>>,
    pub(super) config: Arc<ForwardConfig>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) failover: Failover,
    pub(super) active: Option<Active>,
    /// A stop has begun, and all upstreams are tried at once and again and again.
    hurries: bool,
}

/// What the main loop does next.
enum Next {
    Continue,
    Reload,
    Done,
}

/// An attempt to connect to the upstream of this index.
type Attempt = Pin<Box<dyn Future<Output = (usize, Result<Connection, UpstreamError>)> + Send>>;

impl Lane {
    /// A lane to the upstreams that `changes` names. It ends when the source is drained, the sender of the changes
    /// is gone, or it is cut off.
    pub(super) fn new(
        shared: Arc<Shared>,
        mut changes: watch::Receiver<Arc<ForwardConfig>>,
    ) -> Self {
        let config = Arc::clone(&changes.borrow_and_update());
        let mut lane = Self {
            shared,
            changes,
            config,
            upstreams: Vec::new(),
            failover: Failover::new(Vec::new()),
            active: None,
            hurries: false,
        };
        lane.set_upstreams();
        lane.tell();
        lane
    }

    /// Forwards until there is nothing left to forward, and ends the connection in order.
    ///
    /// # Errors
    ///
    /// [`ForwardEnded::NoUpstream`] if standard output was the only upstream and was closed; what
    /// was queued is counted as dropped then.
    pub(super) async fn run(mut self) -> Result<(), ForwardEnded> {
        let mut probe: Option<Attempt> = None;
        let result = loop {
            let next = if self.active.is_some() {
                self.forward(&mut probe).await
            } else {
                probe = None;
                self.connect().await
            };
            match next {
                Ok(Next::Continue) => {}
                Ok(Next::Reload) => {
                    probe = None;
                    self.reload().await;
                }
                Ok(Next::Done) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What may not have been read goes back to the source.
        result.and(self.leave(false).await)
    }

    /// One step while no upstream is in charge.
    async fn connect(&mut self) -> Result<Next, ForwardEnded> {
        let now = Clock::now();
        if !self.hurries && self.shared.stop.has_begun() {
            self.hurries = true;
            self.failover.hurry(now, HURRIED_DELAY_MAX);
        }
        // In a hurry nothing waits for one that does not answer.
        let at_once = if self.hurries { usize::MAX } else { 1 };
        let due: Vec<usize> = self.failover.all_due(now).take(at_once).collect();
        let mut attempts: Vec<Attempt> = due.into_iter().map(|index| self.attempt(index)).collect();
        if attempts.is_empty() {
            let wait = self
                .failover
                .next_due()
                .map_or(Duration::MAX, |due| due.since(now));
            return Ok(select! {
                biased;
                () = self.shared.stop.over() => Next::Done,
                changed = self.changes.changed() => Self::changed(changed.is_ok()),
                () = self.shared.source.drained() => Next::Done,
                () = self.shared.stop.begun(), if !self.hurries => Next::Continue,
                () = sleep(wait.max(WAIT_MIN)) => Next::Continue,
            });
        }
        while !attempts.is_empty() {
            let (index, opened) = select! {
                biased;
                () = self.shared.stop.over() => return Ok(Next::Done),
                changed = self.changes.changed() => return Ok(Self::changed(changed.is_ok())),
                // Nobody waits for a connection that nothing is to be sent over.
                () = self.shared.source.drained() => return Ok(Next::Done),
                () = self.shared.stop.begun(), if !self.hurries => return Ok(Next::Continue),
                ended = first_to_end(&mut attempts) => ended,
            };
            match opened {
                Ok(connection) => {
                    self.take_charge(index, connection);
                    break;
                }
                Err(error) => self.failed(index, error)?,
            }
        }
        Ok(Next::Continue)
    }

    /// An attempt to connect to upstream `index`.
    fn attempt(&self, index: usize) -> Attempt {
        let upstream = &self.upstreams[index];
        let attempts = upstream.standing.attempts();
        let (upstream, metrics) = (upstream.config.clone(), Arc::clone(&upstream.metrics));
        let config = Arc::clone(&self.config);
        let trying = metrics.trying();
        Box::pin(async move {
            let _trying = trying;
            let opened = Connection::open(&upstream, &config, &metrics, attempts).await;
            (index, opened)
        })
    }

    /// One step while an upstream is in charge.
    async fn forward(&mut self, probe: &mut Option<Attempt>) -> Result<Next, ForwardEnded> {
        let now = Clock::now();
        if probe.is_none()
            && let Some(index) = self.failover.due(now)
        {
            *probe = Some(self.attempt(index));
        }
        let mut wait = match self.failover.next_due() {
            Some(due) if probe.is_none() => due.since(now).max(WAIT_MIN),
            _ => Duration::MAX,
        };
        wait = wait.min(self.tend(now));
        let Some(active) = &mut self.active else {
            return Ok(Next::Continue);
        };
        let rebind_in = active.rebind_in(self.config.rebind, now);
        if rebind_in == Some(Duration::ZERO) {
            debug!(upstream = %self.upstreams[active.index].config.url, "ending a connection to make it anew");
            self.leave(true).await?;
            return Ok(Next::Continue);
        }
        wait = wait.min(rebind_in.unwrap_or(Duration::MAX));
        let is_stopping = self.shared.stop.has_begun();
        // At a stop what one takes and loses comes too late for the others.
        let gives_way = is_stopping && !active.is_trusted() && self.shared.source.is_lane_trusted();
        let has_used_up = active.is_on_probation() && active.has_used_up();
        let is_ready = active.connection.is_ready() && !has_used_up && !gives_way;
        let batch = select! {
            biased;
            () = self.shared.stop.over() => return Ok(Next::Done),
            changed = self.changes.changed() => return Ok(Self::changed(changed.is_ok())),
            heard = active.connection.heard() => {
                match heard {
                    Ok(Heard::Progress) => self.act_on_answers(),
                    Ok(Heard::Moved(to)) => {
                        info!(upstream = %self.upstreams[active.index].config.url, %to, "the upstream's name has moved");
                        self.leave(false).await?;
                    }
                    Err(error) => self.lost(Vec::new(), 0, error).await?,
                }
                return Ok(Next::Continue);
            }
            (index, opened) = poll_probe(probe) => {
                *probe = None;
                match opened {
                    Ok(connection) => self.switch_to(index, connection).await?,
                    Err(error) => self.failed(index, error)?,
                }
                return Ok(Next::Continue);
            }
            batch = self.shared.source.next(), if is_ready => batch,
            () = self.shared.source.drained(), if !is_ready && is_stopping => None,
            () = self.shared.stop.begun(), if !is_stopping => return Ok(Next::Continue),
            () = sleep(wait) => return Ok(Next::Continue),
        };
        let Some(batch) = batch else {
            if active.is_trusted() && self.shared.source.is_lane_in_doubt() {
                // What that one may lose, this one takes over.
                select! {
                    biased;
                    () = self.shared.stop.over() => return Ok(Next::Done),
                    () = sleep(DOUBT_POLL) => return Ok(Next::Continue),
                }
            }
            // Closed and empty. A reset now means that the last frames may not have been read.
            self.leave(false).await?;
            return Ok(if self.shared.source.is_owed() {
                Next::Continue
            } else {
                Next::Done
            });
        };
        let (batch, rest) = active.cut(batch);
        if !rest.is_empty() {
            self.shared.source.give_back(rest.into_iter());
        }
        self.send(batch).await?;
        if self.config.strategy == Strategy::Balance {
            // A peer that takes all there is at once leaves the others their share.
            yield_now().await;
        }
        Ok(Next::Continue)
    }

    /// Lets go of what has arrived, and looks whether the connection has proved that the upstream works. Returns
    /// when to look again.
    fn tend(&mut self, now: Tick) -> Duration {
        let Some(active) = &mut self.active else {
            return Duration::MAX;
        };
        let is_awaited = self.shared.custody.is_awaited();
        let mut wait = active.tend(now, is_awaited);
        let upstream = &mut self.upstreams[active.index];
        let was_outage = upstream.standing.is_outage();
        if active.has_proved(now) {
            active.trust(&self.shared);
            upstream.standing.proved();
            upstream.found(now);
            self.failover.proved(active.index);
        } else if was_outage && active.is_idle_long(now) {
            // Nothing was there to send, so this is as much as can be known.
            active.trust(&self.shared);
            upstream.found(now);
        }
        if !active.is_proved || upstream.standing.is_outage() {
            wait = wait.min(active.proof_due(now).max(WAIT_MIN));
        }
        upstream.metrics.unacknowledged.set(active.unacknowledged());
        if was_outage && !upstream.standing.is_outage() {
            self.tell();
        }
        wait
    }

    /// Sends `batch` to the upstream in charge and counts what became of it.
    async fn send(&mut self, mut batch: Vec<Chunk>) -> Result<(), ForwardEnded> {
        let Some(active) = &mut self.active else {
            self.shared.source.give_back(batch.into_iter());
            return Ok(());
        };
        let encoder = active.encoder;
        if matches!(
            active.connection,
            Connection::Stream(_) | Connection::Blocking(_)
        ) {
            for lost in encoder.take_out(&mut batch) {
                // They have no windows, so no summaries come of it.
                drop(self.shared.ledger.dropped(&lost, DropReason::Compressed));
            }
            batch.retain(|chunk| !chunk.is_empty());
            if batch.is_empty() {
                return Ok(());
            }
        }
        let sent = match &mut active.connection {
            Connection::Stream(stream) => {
                let (wire, rewritten) = encoder.encode_all(&batch);
                self.shared.metrics.frames.rewritten.add(rewritten);
                let parts: Vec<&[u8]> = wire.iter().map(AsRef::as_ref).collect();
                let sent = stream.send(&parts, &self.shared.stop.cut_off).await;
                // A reload may have allowed more.
                let limit = stream.unread_octets_max().min(self.config.resend_max);
                active.ring.set_limit(limit);
                sent
            }
            Connection::Blocking(blocking) => {
                let (wire, rewritten) = encoder.encode_all(&batch);
                self.shared.metrics.frames.rewritten.add(rewritten);
                let wire = match wire.as_slice() {
                    [one] => one.to_vec(),
                    parts => parts.concat(),
                };
                // The change itself is for the main loop.
                let mut changes = self.changes.clone();
                let leave = async { drop(changes.changed().await) };
                blocking.send(wire, leave, &self.shared.stop).await
            }
            Connection::Datagram(_) => return self.send_datagrams(batch).await,
            Connection::Relp(relp) => {
                relp.take(batch);
                return Ok(());
            }
        };
        match sent {
            Ok(()) => {
                let taken = active.taken(Clock::now());
                let metrics = &self.upstreams[active.index].metrics;
                for mut chunk in batch {
                    let entries = chunk.len();
                    metrics.frames.add(entries as u64);
                    metrics.octets.add(encoder.chunk_octets(&chunk) as u64);
                    self.shared.ledger.forwarded(&mut chunk, entries);
                    active.wrote(chunk, taken, &self.shared);
                }
                Ok(())
            }
            Err(BrokenOff { taken, error }) => self.lost(batch, taken, error).await,
        }
    }

    /// The connection is gone after `taken` octets of `batch`: what may not have been read goes to the
    /// front of what is to be sent.
    pub(super) async fn lost(
        &mut self,
        mut batch: Vec<Chunk>,
        taken: usize,
        error: UpstreamError,
    ) -> Result<(), ForwardEnded> {
        self.act_on_answers();
        let Some(mut active) = self.active.take() else {
            return Ok(());
        };
        let uncertain = self.uncertain(&active, &batch, taken, &error).await;
        let mut left = taken;
        let metrics = &self.upstreams[active.index].metrics;
        metrics.octets.add(taken as u64);
        for chunk in &mut batch {
            let whole = active.encoder.whole_entries(chunk, left);
            left = left.saturating_sub(active.encoder.chunk_octets(chunk));
            metrics.frames.add(whole as u64);
            self.shared.ledger.forwarded(chunk, whole);
        }
        let mut again = match &mut active.connection {
            Connection::Relp(relp) => {
                let (again, sent) = relp.take_back();
                self.shared.metrics.frames.resent.add(sent as u64);
                again
            }
            _ => active
                .ring
                .take_back(batch, taken, uncertain, active.encoder),
        };
        // They are not with the upstream, for all we know: they wait again.
        for chunk in &mut again {
            self.shared.ledger.taken_back(chunk);
        }
        let is_idle = again.is_empty();
        self.shared.source.give_back(again.into_iter());
        let upstream = &mut self.upstreams[active.index];
        if is_idle && error.is_orderly() && active.has_lived(Clock::now()) {
            // Some peers end connections that say nothing for a while. That is an outage if the next attempt fails.
            debug!(upstream = %upstream.config.url, "upstream closed an idle connection");
            self.let_go(active.index);
            return Ok(());
        }
        if !active.is_proved && !is_idle && matches!(active.connection, Connection::Stream(_)) {
            upstream.standing.broke_early();
        }
        self.failed(active.index, error)
    }

    /// How many of the last octets written on a connection that is gone the peer may not have read.
    async fn uncertain(
        &self,
        active: &Active,
        batch: &[Chunk],
        taken: usize,
        error: &UpstreamError,
    ) -> usize {
        let stream = match &active.connection {
            Connection::Stream(stream) => stream,
            // Nobody listened there for as long as the ring remembers, or no longer.
            Connection::Datagram(_) if matches!(error, UpstreamError::Refused(_)) => {
                return usize::MAX;
            }
            _ => return 0,
        };
        // Before the peer is asked, which adds an octet.
        let unacknowledged = stream.unacknowledged_octets();
        if matches!(error, UpstreamError::CutOff) && active.is_trusted() {
            // The connection is not broken: what the peer's kernel has its process will read.
            return unacknowledged;
        }
        // With octets on their way an end tells nothing: they reset a peer that closed, whatever it had read.
        let is_askable = error.is_orderly() && unacknowledged == 0;
        let is_at_stake = active.ring.limit() > 0 && active.ring.octets() + taken > 0;
        let unread = if is_askable && is_at_stake {
            let between_frames = active.encoder.whole_octets(batch, taken) == taken;
            select! {
                biased;
                () = self.shared.stop.over() => usize::MAX,
                unread = stream.unread_octets(between_frames) => unread,
            }
        } else {
            usize::MAX
        };
        unacknowledged.saturating_add(unread.min(active.ring.limit()))
    }

    /// Upstream `index` could not be reached, or was lost.
    fn failed(&mut self, index: usize, error: UpstreamError) -> Result<(), ForwardEnded> {
        if matches!(error, UpstreamError::CutOff) {
            self.tell();
            return Ok(());
        }
        let now = Clock::now();
        self.failover.failed(index, now);
        let retry_in = self.failover.retry_at(index).since(now);
        let waiting = self.shared.source.octets();
        self.upstreams[index].failed(&error, now, retry_in, waiting);
        self.tell();
        let only = self.upstreams.len() == 1;
        if only && matches!(error, UpstreamError::OutputClosed) {
            return Err(ForwardEnded::NoUpstream(error));
        }
        Ok(())
    }

    fn take_charge(&mut self, index: usize, connection: Connection) {
        let upstream = &mut self.upstreams[index];
        upstream.connected();
        let encoder = Encoder {
            framing: upstream.config.framing,
            line_breaks: self.config.line_breaks,
        };
        self.failover.connected(index);
        self.active = Some(Active::new(
            index,
            connection,
            encoder,
            &upstream.standing,
            &self.config,
            &self.shared,
            Clock::now(),
        ));
        self.tell();
    }

    /// An upstream before the one in charge answered: charge returns to it.
    async fn switch_to(
        &mut self,
        index: usize,
        connection: Connection,
    ) -> Result<(), ForwardEnded> {
        let left = self.active.as_ref().map(|active| active.index);
        self.leave(false).await?;
        if let Some(left) = left {
            self.upstreams[left].standing.left();
        }
        self.take_charge(index, connection);
        Ok(())
    }

    /// Ends the connection to the upstream in charge in order.
    ///
    /// What it took is with the upstream if that closes, too, or has at least acknowledged everything. If there is `doubt`,
    /// or the upstream has not proved itself since it was lost, only the former counts; a stop waits for that as long as
    /// it can.
    pub(super) async fn leave(&mut self, doubt: bool) -> Result<(), ForwardEnded> {
        self.leave_relp(FINISH_MAX).await?;
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let is_trusted = active.is_trusted();
        let limit = if self.shared.stop.has_begun() && !is_trusted {
            Duration::MAX
        } else {
            FINISH_MAX
        };
        if let Connection::Stream(stream) = &mut active.connection {
            let finished = select! {
                biased;
                () = self.shared.stop.over() => Err(UpstreamError::CutOff),
                finished = stream.finish(limit, doubt || !is_trusted) => finished,
            };
            if let Err(error) = finished {
                return self.lost(Vec::new(), 0, error).await;
            }
        }
        let index = active.index;
        self.active = None;
        self.let_go(index);
        Ok(())
    }

    /// Upstream `index` is not connected any more, and nothing is wrong with it.
    fn let_go(&mut self, index: usize) {
        self.failover.left(index, Clock::now());
        self.upstreams[index].standing.ended_in_order();
        self.tell();
    }

    /// A change of configuration, or that no further one can come.
    const fn changed(is_change: bool) -> Next {
        if is_change { Next::Reload } else { Next::Done }
    }
}

/// The outcome of a running probe; never ready without one.
async fn poll_probe(probe: &mut Option<Attempt>) -> (usize, Result<Connection, UpstreamError>) {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

/// The outcome of the first of `attempts` that ends, which is taken out of them.
async fn first_to_end(attempts: &mut Vec<Attempt>) -> (usize, Result<Connection, UpstreamError>) {
    poll_fn(|context: &mut Context<'_>| {
        for place in 0..attempts.len() {
            if let Poll::Ready(ended) = attempts[place].as_mut().poll(context) {
                drop(attempts.remove(place));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

/// How long a connection that is being left may take to acknowledge what it was sent.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// How often a lane that has nothing more to send looks whether another one does well.
const DOUBT_POLL: Duration = Duration::from_millis(50);

/// How long an upstream that is away is left alone during a stop.
const HURRIED_DELAY_MAX: Duration = Duration::from_millis(500);
