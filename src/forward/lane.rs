//! One lane: moves chunks from the source to the upstream in charge.
//!
//! ```text
//! source ──batch──▶ [ in hand ] ──send──▶ connection to the upstream in charge    (the first of the list that is up)
//!    ▲                                         │
//!    └──────────── given back ◀────────────────┘                    what the upstream may not have
//! ```
//!
//! A lane is in one of two states, and does one step at a time:
//!
//! ```text
//!               an attempt succeeded: take charge
//!   connecting ───────────────────────────────────▶ forwarding
//!    │ ▲  │ ▲                                        │ ▲  │
//!    │ │  └─┘ an attempt failed: next, or wait       │ └──┘ a batch: send; an answer: count;
//!    │ │                                             │      an earlier upstream answered: leave, take charge of that
//!    │ ├─── lost: take back, give back ◀─────────────┤
//!    │ └─── left: finish ◀───────────────────────────┤ the name has moved; it is time to rebind
//!    │                                               │
//!    └───────────┬───────────────────────────────────┘
//!                │ a reload in either state: take over the list; keep the connection, or leave
//!                │ drained, told to leave, or the stop is over: leave (finish, or take back), and end
//!                ▼
//!              ended
//! ```
//!
//! *Leave* becomes *lost* if the connection does not end in order. If something came back then, a drained lane continues.
//!
//! # Guarantees
//!
//! - One upstream of the lane's list is in charge at a time; frames leave for it in the order of the source. When it is
//!   lost, the next upstream of the list that answers takes over, and charge returns up the list.
//! - A frame is counted as forwarded when the last of its octets was taken by the kernel (or the file), or when it was
//!   answered (RELP). A frame broken off in the middle is sent again whole on the next connection.
//! - What may have been lost with a connection goes back to the front of the source.
//! - When a lane has ended, everything it had in hand is with the upstream, or back in the source.
//! - At a reload, a connection to an upstream that stays listed stays. A file is opened anew: that is how a file that
//!   another program rotated is closed. The name of a UDP upstream is looked up again, and upstreams that are away
//!   are tried at once.
//!
//! # Left out
//!
//! What the kinds of connection do (`connection`). How many lanes there are, and what becomes of chunks that no lane
//! sent (the parent module).

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{select, sync::watch, task::yield_now, time::sleep};
use tracing::{debug, error, info};

use super::{
    account::Account,
    active::Active,
    connection::{Connection, Heard},
    encode::Encoder,
    error::{ForwardEnded, Lost, UpstreamError, error_chain},
    shared::Shared,
    upstreams::Upstreams,
};
use crate::{
    clock::Clock,
    config::{ForwardConfig, Strategy, UpstreamUrl},
    core::tick::Tick,
    delivery::chunk::Chunk,
};

/// Moves chunks from the source to the upstream in charge.
#[derive(Debug)]
pub(super) struct Lane {
    shared: Arc<Shared>,
    changes: watch::Receiver<Arc<ForwardConfig>>,
    config: Arc<ForwardConfig>,
    upstreams: Upstreams,
    /// Set while an upstream is in charge.
    active: Option<Active>,
    /// A stop has begun: all upstreams are tried at once, and often.
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
    /// A lane to the upstreams of `changes`. It ends when the source is drained, the sender of the changes is gone, or
    /// the stop is over.
    pub(super) fn new(
        shared: Arc<Shared>,
        mut changes: watch::Receiver<Arc<ForwardConfig>>,
    ) -> Self {
        let config = Arc::clone(&changes.borrow_and_update());
        let lane = Self {
            upstreams: Upstreams::new(&config, &shared.metrics),
            shared,
            changes,
            config,
            active: None,
            hurries: false,
        };
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
        let failover = &mut self.upstreams.failover;
        if !self.hurries && self.shared.stop.has_begun() {
            self.hurries = true;
            failover.hurry(now, HURRIED_DELAY_MAX);
        }
        // In a hurry an upstream that does not answer does not delay the others.
        let at_once = if self.hurries { usize::MAX } else { 1 };
        let due: Vec<usize> = failover.all_due(now).take(at_once).collect();
        let next_due = failover.next_due();
        let mut attempts: Vec<Attempt> = due.into_iter().map(|index| self.attempt(index)).collect();
        if attempts.is_empty() {
            let wait = next_due.map_or(Duration::MAX, |due| due.since(now));
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
                // Nothing is left to send over the connection.
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

    /// Begins an attempt to connect to upstream `index`.
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

    /// One step while an upstream is in charge. `probe` is an attempt to reach an earlier one meanwhile.
    async fn forward(&mut self, probe: &mut Option<Attempt>) -> Result<Next, ForwardEnded> {
        let now = Clock::now();
        if probe.is_none()
            && let Some(index) = self.upstreams.failover.due(now)
        {
            *probe = Some(self.attempt(index));
        }
        let mut wait = match self.upstreams.failover.next_due() {
            Some(due) if probe.is_none() => due.since(now).max(WAIT_MIN),
            _ => Duration::MAX,
        };
        wait = wait.min(self.tend(now));
        let active = self.active.as_mut().expect(IN_CHARGE);
        if let Some(rebind) = self.config.rebind
            && active.connection.is_rebindable()
        {
            let rebind_in = active.evidence.rebind_in(rebind, now);
            if rebind_in.is_zero() {
                debug!(upstream = %self.upstreams[active.index].config.url, "ending a connection to open it anew (forward.rebind)");
                self.leave(true).await?;
                return Ok(Next::Continue);
            }
            wait = wait.min(rebind_in);
        }
        let is_stopping = self.shared.stop.has_begun();
        // During a stop, what an upstream takes and loses may come back too late for the other lanes.
        let gives_way =
            is_stopping && !active.evidence.is_trusted() && self.shared.source.is_lane_trusted();
        let has_used_up = active.evidence.has_used_up();
        let is_ready = active.connection.is_ready() && !has_used_up && !gives_way;
        let account = Account {
            shared: &self.shared,
            upstream: &self.upstreams[active.index],
            config: &self.config,
            encoder: active.encoder,
        };
        let batch = select! {
            biased;
            () = self.shared.stop.over() => return Ok(Next::Done),
            changed = self.changes.changed() => return Ok(Self::changed(changed.is_ok())),
            heard = active.connection.heard(&account) => {
                match heard {
                    Ok(Heard::Progress) => {}
                    Ok(Heard::Moved(to)) => {
                        info!(upstream = %self.upstreams[active.index].config.url, %to, "the upstream's name has moved");
                        self.leave(false).await?;
                    }
                    Err(error) => self.lost(error.into()).await?,
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
            return self.drained().await;
        };
        let (batch, rest) = active.evidence.cut(batch, active.encoder);
        if !rest.is_empty() {
            self.shared.source.give_back(rest.into_iter());
        }
        self.send(batch).await?;
        if self.config.strategy == Strategy::Balance {
            // A peer that takes everything at once leaves the other lanes their share.
            yield_now().await;
        }
        Ok(Next::Continue)
    }

    /// The last step: no chunk comes any more, and none waits.
    async fn drained(&mut self) -> Result<Next, ForwardEnded> {
        let active = self.active.as_ref().expect(IN_CHARGE);
        if active.evidence.is_trusted() && self.shared.source.is_lane_in_doubt() {
            // If that lane loses something, this one takes it over.
            select! {
                biased;
                () = self.shared.stop.over() => return Ok(Next::Done),
                () = sleep(DOUBT_POLL) => return Ok(Next::Continue),
            }
        }
        // A reset now means that the last frames may not have been read.
        self.leave(false).await?;
        Ok(if self.shared.source.is_owed() {
            Next::Continue
        } else {
            Next::Done
        })
    }

    /// Drops what has arrived from the resend ring, and checks whether the connection has proved that the upstream
    /// works. Returns how long to wait before the next look.
    fn tend(&mut self, now: Tick) -> Duration {
        let Active {
            index,
            connection,
            evidence,
            ..
        } = self.active.as_mut().expect(IN_CHARGE);
        let mut wait = connection.tend(now, self.shared.custody.is_awaited());
        let upstream = &mut self.upstreams[*index];
        let was_outage = upstream.standing.is_outage();
        let proof = connection.proof();
        let has_proved = evidence.has_proved(proof, now);
        if has_proved {
            evidence.trust(&self.shared);
            upstream.standing.proved();
            upstream.found(now);
        } else if was_outage && evidence.is_idle_long(now) {
            // There was nothing to send, so there can be no better proof.
            evidence.trust(&self.shared);
            upstream.found(now);
        }
        let is_outage = upstream.standing.is_outage();
        if !evidence.is_proved() || is_outage {
            wait = wait.min(evidence.proof_due(proof, now).max(WAIT_MIN));
        }
        upstream
            .metrics
            .unacknowledged
            .set(connection.unacknowledged());
        if has_proved {
            self.upstreams.failover.proved(*index);
        }
        if was_outage && !is_outage {
            self.tell();
        }
        wait
    }

    /// Sends `batch` to the upstream in charge.
    async fn send(&mut self, batch: Vec<Chunk>) -> Result<(), ForwardEnded> {
        let Active {
            index,
            connection,
            encoder,
            evidence,
            ..
        } = self.active.as_mut().expect(IN_CHARGE);
        let account = Account {
            shared: &self.shared,
            upstream: &self.upstreams[*index],
            config: &self.config,
            encoder: *encoder,
        };
        // A clone, so that the main loop sees the change as well.
        let leave = async { drop(self.changes.clone().changed().await) };
        match connection.send(batch, leave, &account, evidence).await {
            Ok(()) => Ok(()),
            Err(lost) => self.lost(lost).await,
        }
    }

    /// Takes back what the upstream in charge may not have, now that its connection is lost, and gives it back to the
    /// source.
    async fn lost(&mut self, mut lost: Lost) -> Result<(), ForwardEnded> {
        let mut active = self.active.take().expect(IN_CHARGE);
        let account = Account {
            shared: &self.shared,
            upstream: &self.upstreams[active.index],
            config: &self.config,
            encoder: active.encoder,
        };
        let is_trusted = active.evidence.is_trusted();
        let again = active
            .connection
            .take_back(&mut lost, is_trusted, &account)
            .await;
        let error = lost.error;
        let is_idle = again.is_empty();
        self.shared.source.give_back(again.into_iter());
        let upstream = &mut self.upstreams[active.index];
        if is_idle && error.is_orderly() && active.evidence.has_lived(Clock::now()) {
            // Some peers end connections on which nothing was sent for a while. That is an outage if the next attempt
            // fails.
            debug!(upstream = %upstream.config.url, "upstream closed an idle connection");
            self.let_go(active.index);
            return Ok(());
        }
        if !active.evidence.is_proved() && !is_idle && active.connection.is_put_on_probation() {
            upstream.standing.broke_early();
        }
        self.failed(active.index, error)
    }

    /// Records that upstream `index` could not be reached, or was lost.
    fn failed(&mut self, index: usize, error: UpstreamError) -> Result<(), ForwardEnded> {
        if matches!(error, UpstreamError::CutOff) {
            self.tell();
            return Ok(());
        }
        let now = Clock::now();
        let failover = &mut self.upstreams.failover;
        failover.failed(index, now);
        let retry_in = failover.retry_at(index).since(now);
        let waiting = self.shared.source.octets();
        self.upstreams[index].failed(&error, now, retry_in, waiting);
        self.tell();
        let is_only = self.upstreams.len() == 1;
        if is_only && matches!(error, UpstreamError::OutputClosed) {
            return Err(ForwardEnded::NoUpstream(error));
        }
        Ok(())
    }

    /// Puts upstream `index` in charge.
    fn take_charge(&mut self, index: usize, connection: Connection) {
        let upstream = &mut self.upstreams[index];
        upstream.connected();
        let encoder = Encoder {
            framing: upstream.config.framing,
            line_breaks: self.config.line_breaks,
        };
        self.upstreams.failover.connected(index);
        self.active = Some(Active::new(
            index,
            connection,
            encoder,
            &self.upstreams[index].standing,
            &self.shared,
            Clock::now(),
        ));
        self.tell();
    }

    /// Returns charge to upstream `index`, which stands before the one in charge and answered.
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

    /// Ends the connection to the upstream in charge in order, if there is one. With `doubt`, acknowledging everything
    /// is not enough: the peer has to close as well.
    async fn leave(&mut self, doubt: bool) -> Result<(), ForwardEnded> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let account = Account {
            shared: &self.shared,
            upstream: &self.upstreams[active.index],
            config: &self.config,
            encoder: active.encoder,
        };
        let is_trusted = active.evidence.is_trusted();
        let finished = active.connection.finish(doubt, is_trusted, &account).await;
        if let Err(error) = finished {
            return self.lost(error.into()).await;
        }
        let index = active.index;
        self.active = None;
        self.let_go(index);
        Ok(())
    }

    /// Records that upstream `index` is not connected any more, and that nothing is wrong with it.
    fn let_go(&mut self, index: usize) {
        self.upstreams.failover.left(index, Clock::now());
        self.upstreams[index].standing.ended_in_order();
        self.tell();
    }

    /// Takes over a changed configuration.
    async fn reload(&mut self) {
        self.config = Arc::clone(&self.changes.borrow_and_update());
        let kept = self.active.as_ref().and_then(|active| {
            let config = &self.upstreams[active.index].config;
            let is_file = matches!(config.url, UpstreamUrl::File(_));
            self.config
                .to
                .iter()
                .position(|upstream| upstream == config && !is_file)
        });
        if kept.is_none()
            && let Err(error) = self.leave(false).await
        {
            error!(cause = %error_chain(&error), "an upstream that the reload removed failed");
        }
        self.upstreams.set(&self.config, &self.shared.metrics);
        match (kept, &mut self.active) {
            (Some(index), Some(active)) => {
                active.index = index;
                active.encoder.line_breaks = self.config.line_breaks;
                active.connection.resolve_now();
                self.upstreams.failover.connected(index);
            }
            _ => self.active = None,
        }
        self.tell();
    }

    fn tell(&self) {
        let in_charge = self.active.as_ref().map(|active| active.index);
        self.upstreams.tell(in_charge);
    }

    /// What to do after the configuration changed (`is_change`), or after the lane was told to leave.
    const fn changed(is_change: bool) -> Next {
        if is_change { Next::Reload } else { Next::Done }
    }
}

/// The outcome of the running probe; never ready without one.
async fn poll_probe(probe: &mut Option<Attempt>) -> (usize, Result<Connection, UpstreamError>) {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

/// The outcome of the first of `attempts` that ends. Removes it from them.
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

const IN_CHARGE: &str = "these steps are taken only while an upstream is in charge";

/// The shortest sleep, so that a time that has just passed does not spin.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// How often a lane that has nothing more to send looks whether another lane is still in doubt.
const DOUBT_POLL: Duration = Duration::from_millis(50);

/// How long an upstream that is away is left alone at most during a stop.
const HURRIED_DELAY_MAX: Duration = Duration::from_millis(500);
