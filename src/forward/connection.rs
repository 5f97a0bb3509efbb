//! A connection to an upstream, of any kind: batches go in, and what becomes of their frames is counted.
//!
//! ```text
//!            ┌─ heard: waits for the peer ──┐
//!   open ──▶ │  send, while it is ready     │ ──▶ finish ──▶ nothing is left, drop it
//!            └─ tend: after each of them ───┘        │
//!                 │ any of them fails                │ fails
//!                 └──────────────▶ take_back ◀───────┘     the frames that the upstream may not have
//! ```
//!
//! The calls, in order: [`Connection::open`]; then any number of [`Connection::heard`], [`Connection::send`] and
//! [`Connection::tend`]; then [`Connection::finish`]. Once a call fails, or a caller stops waiting for `finish`, only
//! [`Connection::take_back`] may follow, once. The facts ([`Connection::is_ready`] and the others) can be asked at any
//! time.
//!
//! What the kinds are, and when a frame counts as forwarded and is safe:
//!
//! | kind     | carries      | forwarded                | safe                      | taken back                       |
//! |----------|--------------|--------------------------|---------------------------|----------------------------------|
//! | stream   | TCP, Unix    | the kernel has all of it | the peer's kernel has it  | what the peer may not have read  |
//! | datagram | UDP, Unix    | the kernel has it        | at once                   | after a refusal, the last 200 ms |
//! | relp     | RELP         | answered with 200        | answered with 200         | all that is unanswered           |
//! | blocking | file, stdout | written                  | written                   | nothing                          |
//!
//! Besides these, each kind takes back the frames of a batch that it was given and did not send.
//!
//! # Guarantees
//!
//! - Frames leave in the order in which they were given, each whole. A frame that broke off is taken back whole.
//! - A frame is counted as forwarded, or dropped with a reason, or taken back; never two of these at the same time. One
//!   that was counted as forwarded and is taken back is counted as queued again.
//! - A peer that takes or answers nothing for `send_timeout` is lost. A file or pipe is lost for that only if another
//!   upstream can take over.
//!
//! | call        | may be dropped before its end                                       |
//! |-------------|---------------------------------------------------------------------|
//! | `open`      | yes                                                                 |
//! | `heard`     | yes, in `select!`; what was sent and received is remembered         |
//! | `send`      | no: the batch is lost without being counted                         |
//! | `finish`    | yes; then `take_back`                                               |
//! | `take_back` | no: the frames are lost without being counted                       |
//!
//! # Left out
//!
//! Which upstream, when to try again, and where frames go that were taken back (`lane`).

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use tokio::select;

use super::{
    account::Account,
    datagram::Datagram,
    dial::Patience,
    error::{Lost, Step, UpstreamError},
    evidence::{Evidence, Proof},
    file::Blocking,
    relp::Relp,
    standing::Standing,
    stream::Stream,
};
use crate::{
    clock::Clock,
    config::{ForwardConfig, UpstreamConfig, UpstreamUrl},
    core::tick::Tick,
    delivery::chunk::Chunk,
    metrics::UpstreamMetrics,
};

/// An open way to an upstream. See the module page.
#[derive(Debug)]
pub(super) enum Connection {
    Stream(Stream),
    Datagram(Datagram),
    /// A session whose peer answers.
    Relp(Box<Relp>),
    /// A file or standard output; a thread of its own writes to it.
    Blocking(Blocking),
}

/// What was heard from an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// It answered, or can take more.
    Progress,
    /// Its name has other addresses now; this is the first of them.
    Moved(SocketAddr),
}

impl Connection {
    /// Opens `upstream`, for the `attempt`-th time since it was lost. Names are resolved anew each time. All their
    /// addresses are tried, one after the other; UDP, which opens on any address, tries another one at each attempt.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Resolve`], [`UpstreamError::Connect`], [`UpstreamError::Open`] or [`UpstreamError::TooSlow`],
    /// which names the step; over RELP also why there is no session.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(super) async fn open(
        upstream: &UpstreamConfig,
        forward: &ForwardConfig,
        metrics: &Arc<UpstreamMetrics>,
        attempt: u32,
    ) -> Result<Self, UpstreamError> {
        let patience = Patience::new(forward.connect_timeout);
        let stall = forward.send_timeout;
        Ok(match &upstream.url {
            UpstreamUrl::Tcp { host, port } => {
                Self::Stream(Stream::tcp(host, *port, forward, patience).await?)
            }
            UpstreamUrl::UnixStream(path) => {
                Self::Stream(Stream::unix(path, forward, patience).await?)
            }
            UpstreamUrl::Relp { host, port } => {
                Self::Relp(Box::new(Relp::open(host, *port, stall, patience).await?))
            }
            UpstreamUrl::Udp { host, port } => {
                Self::Datagram(Datagram::udp(host, *port, attempt, stall, patience).await?)
            }
            UpstreamUrl::UnixDgram(path) => Self::Datagram(Datagram::unix(path, stall)?),
            UpstreamUrl::File(_) | UpstreamUrl::Stdout => {
                let step = Step::Open(upstream.url.to_string());
                let opened = patience.take(step, Blocking::open(upstream, forward, metrics));
                Self::Blocking(opened.await?)
            }
        })
    }

    /// Waits until the peer has answered something, or can take more, or has moved; acts on answers. Never returns
    /// where there is no peer to hear from.
    ///
    /// # Errors
    ///
    /// The peer closed or broke the connection, or refused what was sent.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: what was sent and received is remembered.
    pub(super) async fn heard(&mut self, account: &Account<'_>) -> Result<Heard, UpstreamError> {
        match self {
            Self::Stream(stream) => Err(stream.lost().await),
            Self::Datagram(datagram) => datagram.heard().await.map(Heard::Moved),
            Self::Relp(relp) => {
                relp.progress().await?;
                relp.act_on_answers(account);
                Ok(Heard::Progress)
            }
            Self::Blocking(_) => std::future::pending().await,
        }
    }

    /// Sends `batch` and counts what became of it. Over RELP it only takes the batch: [`Connection::heard`] sends it. A
    /// file that has to wait for room stops when `leave` ends; the error is [`UpstreamError::CutOff`] then.
    ///
    /// # Errors
    ///
    /// The connection is lost; the part of the batch that was not sent.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, the batch is lost without being counted.
    pub(super) async fn send(
        &mut self,
        batch: Vec<Chunk>,
        leave: impl Future<Output = ()>,
        account: &Account<'_>,
        evidence: &mut Evidence,
    ) -> Result<(), Lost> {
        match self {
            Self::Stream(stream) => stream.send(batch, account, evidence).await,
            Self::Datagram(datagram) => datagram.send(batch, account, evidence).await,
            Self::Relp(relp) => {
                let octets = || batch.iter().map(|chunk| chunk.octets().len()).sum();
                evidence.wrote(Clock::now(), octets, account.shared);
                relp.take(batch);
                Ok(())
            }
            Self::Blocking(blocking) => blocking.send(batch, leave, account, evidence).await,
        }
    }

    /// Ends the connection in order.
    ///
    /// What a stream took is with the upstream if the peer closes as well, or has at least acknowledged everything.
    /// Only the former counts if there is `doubt`, or the upstream is not trusted; a stop waits for one that is not
    /// trusted as long as it can. A RELP session waits for the answers to all that was sent; if no further chunk can
    /// come, as long as the stop does. The other kinds have nothing to wait for.
    ///
    /// # Errors
    ///
    /// Why the upstream may not have everything.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point; only [`Connection::take_back`] may follow.
    pub(super) async fn finish(
        &mut self,
        doubt: bool,
        is_trusted: bool,
        account: &Account<'_>,
    ) -> Result<(), UpstreamError> {
        let shared = account.shared;
        match self {
            Self::Stream(stream) => {
                let is_long = !is_trusted && shared.stop.has_begun();
                let limit = if is_long { Duration::MAX } else { FINISH_MAX };
                select! {
                    biased;
                    () = shared.stop.over() => Err(UpstreamError::CutOff),
                    finished = stream.finish(limit, doubt || !is_trusted) => finished,
                }
            }
            Self::Relp(relp) => {
                // If another lane can take over, do not wait long for a silent server.
                let is_last = shared.source.is_closed();
                let patience = if is_last { Duration::MAX } else { FINISH_MAX };
                relp.finish(patience, FINISH_MAX, account).await
            }
            Self::Datagram(_) | Self::Blocking(_) => Ok(()),
        }
    }

    /// Takes back the frames that the upstream may not have, in order, after `lost`; counts them as queued again, and
    /// the others of the batch as forwarded. A stream may ask its peer first, for up to 2 s. If the upstream
    /// `is_trusted`, a peer that only we cut off is expected to read what its kernel has.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before its end, the frames are lost without being counted.
    pub(super) async fn take_back(
        &mut self,
        lost: &mut Lost,
        is_trusted: bool,
        account: &Account<'_>,
    ) -> VecDeque<Chunk> {
        let (mut batch, taken) = (std::mem::take(&mut lost.batch), lost.taken);
        let error = &lost.error;
        let mut again = match self {
            Self::Stream(stream) => {
                stream
                    .take_back(batch, taken, error, is_trusted, account)
                    .await
            }
            Self::Datagram(datagram) => datagram.take_back(batch, taken, error, account),
            Self::Relp(relp) => {
                relp.act_on_answers(account);
                let (again, sent) = relp.take_back();
                account.shared.metrics.frames.resent.add(sent as u64);
                again
            }
            Self::Blocking(_) => {
                account.partly_forwarded(&mut batch, taken);
                account.encoder.beyond(batch.into_iter(), taken)
            }
        };
        for chunk in &mut again {
            account.shared.ledger.taken_back(chunk);
        }
        again
    }

    /// Drops what need not be kept to be sent again, because it has arrived or is old. Returns how long to wait before
    /// the next call, which is short if a sender waits to hear that its messages are safe (`is_awaited`).
    pub(super) fn tend(&mut self, now: Tick, is_awaited: bool) -> Duration {
        match self {
            Self::Stream(stream) => stream.tend(now, is_awaited),
            Self::Datagram(datagram) => datagram.tend(now, is_awaited),
            Self::Relp(_) | Self::Blocking(_) => Duration::MAX,
        }
    }

    /// Makes the next [`Connection::heard`] look up the name of a UDP upstream.
    pub(super) fn resolve_now(&mut self) {
        match self {
            Self::Datagram(datagram) => datagram.resolve_now(),
            Self::Stream(_) | Self::Relp(_) | Self::Blocking(_) => {}
        }
    }

    /// Whether a batch may be sent. If not, [`Connection::heard`] returns when it may.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Relp(relp) => relp.is_ready(),
            Self::Stream(_) | Self::Datagram(_) | Self::Blocking(_) => true,
        }
    }

    /// Octets that were written, or given to a RELP session, and not acknowledged when this was last looked at.
    pub(super) const fn unacknowledged(&self) -> u64 {
        let octets = match self {
            Self::Stream(stream) => stream.unacknowledged(),
            Self::Relp(relp) => relp.held_octets(),
            Self::Datagram(_) | Self::Blocking(_) => 0,
        };
        octets as u64
    }

    /// What it takes to prove that the upstream works.
    pub(super) const fn proof(&self) -> Proof {
        match self {
            Self::Stream(stream) => stream.proof(),
            Self::Datagram(_) => Datagram::proof(),
            Self::Relp(relp) => relp.proof(),
            Self::Blocking(_) => Proof::Write,
        }
    }

    /// How many octets an upstream of this `standing` gets before it has proved to work; `None` means no limit.
    pub(super) fn probation(&self, standing: &Standing) -> Option<usize> {
        match self {
            Self::Stream(stream) => standing.probation(stream.resend_octets()),
            Self::Datagram(_) => Datagram::probation(standing),
            Self::Relp(_) | Self::Blocking(_) => None,
        }
    }

    /// Whether a break before the upstream has proved to work counts towards probation: all frames that the peer took
    /// have to be sent again. RELP's window limits these, and the other kinds have hardly any.
    pub(super) const fn is_put_on_probation(&self) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::Datagram(_) | Self::Relp(_) | Self::Blocking(_) => false,
        }
    }

    /// Whether making the connection anew may lead to another host, behind a load balancer.
    pub(super) const fn is_rebindable(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_tcp(),
            Self::Relp(_) => true,
            Self::Datagram(_) | Self::Blocking(_) => false,
        }
    }
}

/// How long a connection that is being ended may take to acknowledge, or answer, what it was sent.
const FINISH_MAX: Duration = Duration::from_secs(2);
