//! `[forward]`, `[spool]` and `[suppressed]`: where messages and suppressed copies go, and where they wait.

use std::path::PathBuf;
use std::time::Duration;

use super::section::{Scope, Section, Visitor};
use super::upstream::{Rotation, Upstream, UpstreamConfig};
use super::url::UpstreamUrl;
use super::value::{Maybe, Words, absolute_path, choice, duration, list, size, unless, unless_is};
use super::{
    GIB, MIB, QUEUE_MAX, QUEUE_MIN, REBIND_MAX, REBIND_MIN, RESEND_AGE_MIN, RESEND_MAX, SPOOL_MAX,
    SPOOL_MIN, TIMEOUT_MAX, TIMEOUT_MIN, UDP_PAYLOAD_MAX,
};
use crate::core::limits::MESSAGE_OCTETS_MIN;

/// Where messages are forwarded to, and what happens while they cannot be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ForwardConfig {
    /// At least one, no two the same.
    pub to: Vec<UpstreamConfig>,
    /// Which of them take messages.
    pub strategy: Strategy,
    /// The most octets that wait in memory while no upstream takes them. Holds the longest message.
    pub queue: usize,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
    /// The pause before the first attempt to connect again; it doubles from attempt to attempt.
    pub retry_min: Duration,
    /// The longest pause; at least `retry_min`.
    pub retry_max: Duration,
    /// How long an attempt to connect may take.
    pub connect_timeout: Duration,
    /// An upstream that accepts nothing for this long is given up; also `TCP_USER_TIMEOUT`.
    pub send_timeout: Duration,
    /// Octets written that are kept to be sent again after a connection broke; 0 means none.
    pub resend_max: usize,
    /// Octets that the peer's kernel acknowledged longer ago than this are not sent again.
    pub resend_age: Duration,
    /// A TCP or RELP connection of this age is ended in order and replaced; `None` means never.
    pub rebind: Option<Duration>,
    /// The most octets of a datagram; a longer message is cut. At most [`UDP_PAYLOAD_MAX`].
    pub udp_max: usize,
    /// What replaces an LF or NUL inside a message when the framing is LF.
    pub line_breaks: LineBreaks,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            to: vec![UpstreamConfig::new(UpstreamUrl::Stdout)],
            strategy: Strategy::Failover,
            queue: 64 * MIB,
            when_full: WhenFull::Wait,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            resend_max: 8 * MIB,
            resend_age: Duration::from_secs(10),
            rebind: None,
            udp_max: UDP_PAYLOAD_MAX,
            line_breaks: LineBreaks::Space,
        }
    }
}

impl Section for ForwardConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let to = list(
            "a list of one or more URLs, such as [\"tcp://collector.example:601\"]",
            1,
            Upstream {
                rotation: Rotation::OFF,
            },
        );
        let timeout = || duration(TIMEOUT_MIN, TIMEOUT_MAX);
        let resend_max = unless_is("off", 0, size(0, RESEND_MAX));
        let resend_age = duration(RESEND_AGE_MIN, TIMEOUT_MAX);
        let rebind = unless("off", duration(REBIND_MIN, REBIND_MAX));
        let datagram = size(MESSAGE_OCTETS_MIN, UDP_PAYLOAD_MAX);

        let v = visitor;
        v.key("to", to, &mut self.to);
        v.key("strategy", choice(&STRATEGY), &mut self.strategy);
        v.key("queue", size(QUEUE_MIN, QUEUE_MAX), &mut self.queue);
        v.key("when_full", choice(&WHEN_FULL), &mut self.when_full);
        v.key("retry_min", timeout(), &mut self.retry_min);
        v.key("retry_max", timeout(), &mut self.retry_max);
        v.key("connect_timeout", timeout(), &mut self.connect_timeout);
        v.key("send_timeout", timeout(), &mut self.send_timeout);
        v.key("resend_max", resend_max, &mut self.resend_max);
        v.key("resend_age", resend_age, &mut self.resend_age);
        v.key("rebind", rebind, &mut self.rebind);
        v.key("udp_max", datagram, &mut self.udp_max);
        v.key("line_breaks", choice(&LINE_BREAKS), &mut self.line_breaks);
    }
}

/// Where messages wait when memory cannot hold them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpoolConfig {
    /// Absolute; `None` means no spool.
    pub directory: Option<PathBuf>,
    /// Octets that it may take on the disk.
    pub max_size: usize,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            directory: None,
            max_size: GIB,
        }
    }
}

impl Section for SpoolConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let directory = unless("off", absolute_path("/var/lib/tersed/spool"));
        visitor.key("directory", directory, &mut self.directory);
        visitor.key("max_size", size(SPOOL_MIN, SPOOL_MAX), &mut self.max_size);
    }
}

/// Where suppressed copies go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SuppressedConfig {
    /// `None` means nowhere. It is neither one of `forward.to` nor one of our own listeners.
    pub to: Option<UpstreamConfig>,
    /// The most octets that wait in memory for it. Holds the longest message.
    pub queue: usize,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
}

impl Default for SuppressedConfig {
    fn default() -> Self {
        Self {
            to: None,
            queue: 16 * MIB,
            when_full: WhenFull::Wait,
        }
    }
}

impl Section for SuppressedConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let to = Maybe(Upstream {
            rotation: Rotation::OF_COPIES,
        });
        let expected = "copies with a destination (suppressed.to)";
        let kept = Scope::new(
            self.to.is_some(),
            ["suppressed copies", "that are not kept"],
            expected,
        );
        let kept = kept.depending_on(&["to"]);
        let v = visitor;
        v.key("to", to, &mut self.to);
        v.key_in(kept, "queue", size(QUEUE_MIN, QUEUE_MAX), &mut self.queue);
        v.key_in(kept, "when_full", choice(&WHEN_FULL), &mut self.when_full);
    }
}

/// Which upstreams take messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Strategy {
    /// The first of the list that works; the others stand by.
    #[default]
    Failover,
    /// All that work; each takes the next batch when it has taken the last.
    Balance,
}

/// What happens to a message when the queue is full.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum WhenFull {
    /// Streams are not read until there is room. The kernel drops datagrams that arrive meanwhile.
    #[default]
    Wait,
    DropNewest,
    /// Messages at the head of the queue are dropped until there is room; with a spool, the oldest messages on the disk.
    DropOldest,
}

/// What replaces an LF or NUL inside a message when LF sets messages apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum LineBreaks {
    #[default]
    Space,
    /// `#012` for LF and `#000` for NUL, as rsyslog writes them.
    Escape,
}

pub(crate) const STRATEGY: Words<Strategy> = Words(&[
    ("failover", Strategy::Failover),
    ("balance", Strategy::Balance),
]);
pub(crate) const WHEN_FULL: Words<WhenFull> = Words(&[
    ("wait", WhenFull::Wait),
    ("drop-newest", WhenFull::DropNewest),
    ("drop-oldest", WhenFull::DropOldest),
]);
pub(crate) const LINE_BREAKS: Words<LineBreaks> =
    Words(&[("space", LineBreaks::Space), ("escape", LineBreaks::Escape)]);
