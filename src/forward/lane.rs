//! One lane: chunks from the source to the upstream in charge of the lane.
//!
//! ```text
//! source ──batch──▶ [ in hand ] ──write──▶ upstream in charge        (the first of the list that is up)
//!    ▲                   │
//!    └── given back ◀────┴──── [ replay ring ]                       what the peer may not have read
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

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use tokio::{select, sync::watch, task::yield_now, time::sleep};
use tracing::{debug, info, warn};

use super::{
    ForwardEnded, Shared,
    encode::Encoder,
    error_chain,
    ring::ReplayRing,
    upstream::{BrokenOff, Connection, Sent, UpstreamError},
};
use crate::{
    chunk::Chunk,
    clock::Clock,
    config::{ForwardConfig, Strategy, UpstreamConfig},
    failover::Failover,
    metrics::{DropReason, FrameErrorReason, UpstreamMetrics},
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
}

/// One upstream of the list.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) config: UpstreamConfig,
    pub(super) metrics: Arc<UpstreamMetrics>,
    /// Its loss was logged; the next attempts are not, until it is back.
    pub(super) lost: bool,
}

/// The upstream in charge and the connection to it.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) index: usize,
    pub(super) connection: Connection,
    pub(super) encoder: Encoder,
    ring: ReplayRing,
    _in_charge: InCharge,
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

/// What the main loop does next.
enum Next {
    Continue,
    Reload,
    Done,
}

type Probe = Pin<Box<dyn Future<Output = (usize, Result<Connection, UpstreamError>)> + Send>>;

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
        };
        lane.set_upstreams();
        lane
    }

    /// Forwards until there is nothing left to forward, and ends the connection in order.
    ///
    /// # Errors
    ///
    /// [`ForwardEnded::NoUpstream`] if standard output was the only upstream and was closed; what
    /// was queued is counted as dropped then.
    pub(super) async fn run(mut self) -> Result<(), ForwardEnded> {
        let mut probe: Option<Probe> = None;
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
        result.and(self.leave().await)
    }

    /// One step while no upstream is in charge.
    async fn connect(&mut self) -> Result<Next, ForwardEnded> {
        let now = Clock::now();
        let Some(index) = self.failover.due(now) else {
            let wait = self
                .failover
                .next_due()
                .map_or(Duration::MAX, |due| due.since(now));
            return Ok(select! {
                biased;
                () = self.shared.cut_off.cancelled() => Next::Done,
                changed = self.changes.changed() => Self::changed(changed.is_ok()),
                () = self.shared.source.drained() => Next::Done,
                () = sleep(wait.max(WAIT_MIN)) => Next::Continue,
            });
        };
        let upstream = self.upstreams[index].config.clone();
        let metrics = Arc::clone(&self.upstreams[index].metrics);
        let opened = select! {
            biased;
            () = self.shared.cut_off.cancelled() => return Ok(Next::Done),
            changed = self.changes.changed() => return Ok(Self::changed(changed.is_ok())),
            // Nobody waits for a connection that nothing is to be sent over.
            () = self.shared.source.drained() => return Ok(Next::Done),
            opened = Connection::open(&upstream, &self.config, &metrics) => opened,
        };
        match opened {
            Ok(connection) => self.take_charge(index, connection),
            Err(error) => self.failed(index, error)?,
        }
        Ok(Next::Continue)
    }

    /// One step while an upstream is in charge.
    async fn forward(&mut self, probe: &mut Option<Probe>) -> Result<Next, ForwardEnded> {
        let now = Clock::now();
        if probe.is_none()
            && let Some(index) = self.failover.due(now)
        {
            let upstream = self.upstreams[index].config.clone();
            let config = Arc::clone(&self.config);
            let metrics = Arc::clone(&self.upstreams[index].metrics);
            *probe = Some(Box::pin(async move {
                (index, Connection::open(&upstream, &config, &metrics).await)
            }));
        }
        let mut wait = match self.failover.next_due() {
            Some(due) if probe.is_none() => due.since(now).max(WAIT_MIN),
            _ => Duration::MAX,
        };
        let Some(active) = &mut self.active else {
            return Ok(Next::Continue);
        };
        if !active.acknowledge() {
            let is_awaited = self.shared.custody.is_awaited();
            wait = wait.min(if is_awaited {
                WAIT_MIN
            } else {
                ACKNOWLEDGED_POLL
            });
        }
        let is_ready = active.connection.is_ready();
        let batch = select! {
            biased;
            () = self.shared.cut_off.cancelled() => return Ok(Next::Done),
            changed = self.changes.changed() => return Ok(Self::changed(changed.is_ok())),
            heard = active.connection.heard() => {
                match heard {
                    Ok(()) => self.settle(),
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
            () = sleep(wait) => return Ok(Next::Continue),
        };
        let Some(batch) = batch else {
            // Closed and empty. A reset now means that the last frames may not have been read.
            self.leave().await?;
            return Ok(if self.shared.source.is_owed() {
                Next::Continue
            } else {
                Next::Done
            });
        };
        self.send(batch).await?;
        if self.config.strategy == Strategy::Balance {
            // A peer that takes all there is at once leaves the others their share.
            yield_now().await;
        }
        Ok(Next::Continue)
    }

    /// Sends `batch` to the upstream in charge and counts what became of it.
    async fn send(&mut self, mut batch: Vec<Chunk>) -> Result<(), ForwardEnded> {
        let Some(active) = &mut self.active else {
            self.shared.source.give_back(batch.into_iter());
            return Ok(());
        };
        let encoder = active.encoder;
        let sent = match &mut active.connection {
            Connection::Stream(stream) => {
                let (wire, rewritten) = encoder.encode_all(&batch);
                self.shared.metrics.frames.rewritten.add(rewritten);
                let parts: Vec<&[u8]> = wire.iter().map(AsRef::as_ref).collect();
                let sent = stream.send(&parts, &self.shared.cut_off).await;
                // A reload may have allowed more.
                let limit = stream.unread_octets_max().min(self.config.replay_max);
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
                blocking.send(wire, leave, &self.shared.cut_off).await
            }
            Connection::Datagram(_) => return self.send_datagrams(batch).await,
            Connection::Relp(relp) => {
                relp.take(batch);
                return Ok(());
            }
        };
        match sent {
            Ok(()) => {
                let upstream = &mut self.upstreams[active.index];
                let unacknowledged = match &active.connection {
                    Connection::Stream(stream) => stream.unacknowledged_octets(),
                    _ => 0,
                };
                for mut chunk in batch.drain(..) {
                    let entries = chunk.len();
                    upstream.metrics.frames.add(entries as u64);
                    upstream
                        .metrics
                        .octets
                        .add(encoder.chunk_octets(&chunk) as u64);
                    self.shared.ledger.forwarded(&mut chunk, entries);
                    if matches!(active.connection, Connection::Stream(_)) {
                        active.ring.push(chunk, encoder, unacknowledged);
                    }
                }
                if upstream.lost {
                    upstream.found();
                }
                self.failover.proved(active.index);
                Ok(())
            }
            Err(BrokenOff { taken, error }) => self.lost(batch, taken, error).await,
        }
    }

    async fn send_datagrams(&mut self, batch: Vec<Chunk>) -> Result<(), ForwardEnded> {
        let mut batch = VecDeque::from(batch);
        while let Some(chunk) = batch.front_mut() {
            let Some(active) = &mut self.active else {
                break;
            };
            let Connection::Datagram(datagram) = &mut active.connection else {
                break;
            };
            let Some((frame, _, _)) = chunk.entries().next() else {
                batch.pop_front();
                continue;
            };
            let upstream = &self.upstreams[active.index].metrics;
            let cut = frame.get(..self.config.udp_max).unwrap_or(frame);
            if cut.len() < frame.len() {
                self.shared.metrics.frame_errors[FrameErrorReason::Truncated].inc();
            }
            let octets = cut.len() as u64;
            let sent = select! {
                biased;
                sent = datagram.send(cut) => sent,
                () = self.shared.cut_off.cancelled() => Err(UpstreamError::CutOff),
            };
            match sent {
                Ok(sent @ (Sent::Taken | Sent::TakenAfter(_))) => {
                    if let Sent::TakenAfter(error) = sent {
                        upstream.errors.inc();
                        debug!(upstream = %self.upstreams[active.index].config.url, %error,
                            "an earlier datagram was refused");
                    }
                    upstream.frames.inc();
                    upstream.octets.add(octets);
                    self.shared.ledger.forwarded(chunk, 1);
                    chunk.advance(1);
                    self.failover.proved(active.index);
                }
                Ok(Sent::TooLarge) => {
                    let lost = chunk.split_first();
                    if let Some(summaries) = self.shared.ledger.dropped(&lost, DropReason::TooLarge)
                    {
                        self.shared.source.add(summaries);
                    }
                }
                Err(error) => {
                    // In front of what may have come from a dropped one meanwhile.
                    self.shared.source.give_back(batch.into_iter());
                    return self.lost(Vec::new(), 0, error).await;
                }
            }
        }
        Ok(())
    }

    /// The connection is gone after `taken` octets of `batch`: what may not have been read goes to the
    /// front of what is to be sent.
    pub(super) async fn lost(
        &mut self,
        mut batch: Vec<Chunk>,
        taken: usize,
        error: UpstreamError,
    ) -> Result<(), ForwardEnded> {
        self.settle();
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
        let again = match &mut active.connection {
            Connection::Relp(relp) => {
                let (again, sent) = relp.take_back();
                self.shared.metrics.frames.replayed.add(sent as u64);
                again
            }
            _ => active
                .ring
                .take_back(batch, taken, uncertain, active.encoder),
        };
        self.shared.source.give_back(again.into_iter());
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
        let Connection::Stream(stream) = &active.connection else {
            return 0;
        };
        // Before the peer is asked, which adds an octet.
        let unacknowledged = stream.unacknowledged_octets();
        // With octets on their way an end tells nothing: they reset a peer that closed, whatever it had read.
        let is_askable = error.is_orderly() && unacknowledged == 0;
        let is_at_stake = active.ring.limit() > 0 && active.ring.octets() + taken > 0;
        let unread = if is_askable && is_at_stake {
            let between_frames = active.encoder.whole_octets(batch, taken) == taken;
            select! {
                biased;
                () = self.shared.cut_off.cancelled() => usize::MAX,
                unread = stream.unread_octets(between_frames) => unread,
            }
        } else {
            usize::MAX
        };
        unacknowledged.saturating_add(unread.min(active.ring.limit()))
    }

    /// Upstream `index` could not be reached, or was lost.
    fn failed(&mut self, index: usize, error: UpstreamError) -> Result<(), ForwardEnded> {
        let only = self.upstreams.len() == 1;
        let upstream = &mut self.upstreams[index];
        upstream.metrics.up.set(0);
        upstream.metrics.active.set(0);
        if matches!(error, UpstreamError::CutOff) {
            return Ok(());
        }
        upstream.metrics.errors.inc();
        self.failover.failed(index, Clock::now());
        let cause = error_chain(&error);
        if upstream.lost {
            debug!(upstream = %upstream.config.url, %cause, "upstream still away");
        } else {
            upstream.lost = true;
            warn!(upstream = %upstream.config.url, %cause, "upstream lost");
        }
        if only && matches!(error, UpstreamError::OutputClosed) {
            return Err(ForwardEnded::NoUpstream(error));
        }
        Ok(())
    }

    fn take_charge(&mut self, index: usize, connection: Connection) {
        let upstream = &mut self.upstreams[index];
        upstream.metrics.connects.inc();
        upstream.metrics.up.set(1);
        upstream.metrics.active.set(1);
        // A file opens on a full disk, too: it is back when it has taken something.
        if !upstream.lost || !matches!(connection, Connection::Blocking(_)) {
            upstream.found();
        }
        let encoder = Encoder {
            framing: upstream.config.framing,
            line_breaks: self.config.line_breaks,
        };
        self.failover.connected(index);
        let unread_max = if let Connection::Stream(stream) = &connection {
            stream.unread_octets_max()
        } else {
            0
        };
        let ring = ReplayRing::new(unread_max.min(self.config.replay_max));
        self.active = Some(Active {
            index,
            connection,
            encoder,
            ring,
            _in_charge: InCharge::new(&self.shared),
        });
    }

    /// An upstream before the one in charge answered: charge returns to it.
    async fn switch_to(
        &mut self,
        index: usize,
        connection: Connection,
    ) -> Result<(), ForwardEnded> {
        self.leave().await?;
        self.take_charge(index, connection);
        Ok(())
    }

    /// Ends the connection to the upstream in charge in order.
    pub(super) async fn leave(&mut self) -> Result<(), ForwardEnded> {
        self.leave_relp(FINISH_MAX).await?;
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if let Connection::Stream(stream) = &mut active.connection {
            let finished = select! {
                biased;
                () = self.shared.cut_off.cancelled() => Err(UpstreamError::CutOff),
                finished = stream.finish(FINISH_MAX) => finished,
            };
            if let Err(error) = finished {
                return self.lost(Vec::new(), 0, error).await;
            }
        }
        let index = active.index;
        self.active = None;
        self.failover.left(index, Clock::now());
        let metrics = &self.upstreams[index].metrics;
        metrics.up.set(0);
        metrics.active.set(0);
        Ok(())
    }

    /// A change of configuration, or that no further one can come.
    const fn changed(is_change: bool) -> Next {
        if is_change { Next::Reload } else { Next::Done }
    }
}

impl Active {
    /// Lets go of what has arrived; true if that is all that was written.
    fn acknowledge(&mut self) -> bool {
        if let Connection::Stream(stream) = &self.connection
            && self.ring.is_uncertain()
        {
            self.ring.acknowledged(stream.unacknowledged_octets());
        }
        !self.ring.is_uncertain()
    }
}

impl Upstream {
    /// It is there (again).
    fn found(&mut self) {
        self.lost = false;
        info!(upstream = %self.config.url, "upstream connected");
    }
}

/// The outcome of a running probe; never ready without one.
async fn poll_probe(probe: &mut Option<Probe>) -> (usize, Result<Connection, UpstreamError>) {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

/// How long a connection that is being left may take to acknowledge what it was sent.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// How often a stream is asked for what has arrived while nobody waits to hear of it.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(100);

/// The shortest sleep, so that a time that has just passed does not spin.
const WAIT_MIN: Duration = Duration::from_millis(1);
