//! `[[listener]]`: where messages are received, and how.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::error::At;
use super::report::{Report, join};
use super::section::{Scope, Section, Visitor};
use super::url::ListenUrl;
use super::value::{Words, choice, count, duration, list, mode, name, network, size, unless, url};
use super::{
    CONNECTIONS_MAX, IDLE_TIMEOUT_MAX, MIB, RECEIVE_BUFFER_MAX, RECEIVE_BUFFER_MIN, RELP_WINDOW,
    RELP_WINDOW_MAX, TIMEOUT_MAX, TIMEOUT_MIN,
};
use crate::core::frame::Framing;
use crate::core::limits::{MESSAGE_OCTETS_DEFAULT, MESSAGE_OCTETS_MAX, MESSAGE_OCTETS_MIN};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerConfig {
    /// Unique among the listeners; in metrics and logs. The URL's text unless configured.
    pub name: String,
    pub url: ListenUrl,
    /// How a stream is cut into frames. Without effect on datagrams and `relp`.
    pub framing: Framing,
    /// The most octets of a message; [`MESSAGE_OCTETS_MIN`] to [`MESSAGE_OCTETS_MAX`].
    pub max_message_size: usize,
    /// What is done with a longer message.
    pub oversize: Oversize,
    /// The most connections at a time; 1 to [`CONNECTIONS_MAX`]. Streams only.
    pub connections_max: usize,
    /// The most connections at a time from one address; 1 to [`CONNECTIONS_MAX`]. `tcp` and `relp` only.
    pub connections_per_source_max: usize,
    /// A connection that sends nothing for this long is closed; `None` means never. Streams only.
    pub idle_timeout: Option<Duration>,
    /// A frame that gets no further octet for this long is given up (PROTOCOLS 2). Streams only.
    pub partial_frame_timeout: Duration,
    /// The most unanswered transactions of a connection; 1 to [`RELP_WINDOW_MAX`]. `relp` only.
    pub window: usize,
    /// When a transaction is answered. `relp` only.
    pub ack: Ack,
    /// Octets that the kernel is asked to buffer for us (`SO_RCVBUF`). Datagrams only.
    pub receive_buffer: usize,
    /// Permissions of a Unix socket's path; at most 0777.
    pub unix_mode: u32,
    /// Who may send, by address; empty means everyone. Not on Unix sockets, whose path has permissions.
    pub allow: Vec<IpNet>,
}

impl ListenerConfig {
    /// A listener at `url` with everything else at its default.
    #[must_use]
    pub(crate) fn new(url: ListenUrl) -> Self {
        Self {
            name: url.to_string(),
            url,
            framing: Framing::Auto,
            max_message_size: MESSAGE_OCTETS_DEFAULT,
            oversize: Oversize::Truncate,
            connections_max: 1024,
            connections_per_source_max: 128,
            idle_timeout: None,
            partial_frame_timeout: Duration::from_secs(60),
            window: RELP_WINDOW,
            ack: Ack::Safe,
            receive_buffer: 8 * MIB,
            unix_mode: 0o660,
            allow: Vec::new(),
        }
    }

    /// A listener to read a table into, which must have a URL.
    pub(super) fn without_url() -> Self {
        Self::new(ListenUrl::Udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
    }
}

impl Section for ListenerConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let (stream, relp) = (self.url.is_stream(), self.url.is_relp());
        let unix = self.url.path().is_some();
        let on =
            |applies, expected| Scope::new(applies, [self.url.transport(), "listeners"], expected);
        let network_sockets = on(!unix, "udp, tcp and relp listeners");
        let datagrams = on(!stream, "udp and unix-dgram listeners");
        let framed = on(self.url.has_framing(), "tcp and unix-stream listeners");
        let streams = on(stream, "tcp, relp and unix-stream listeners");
        let network_streams = on(stream && !unix, "tcp and relp listeners");
        let relps = on(relp, "relp listeners");
        let paths = on(unix, "unix-dgram and unix-stream listeners");

        let allowed = list(
            "a list of networks, such as [\"10.0.0.0/8\", \"2001:db8::/32\"]; [] is everyone",
            0,
            network(),
        );
        let message = size(MESSAGE_OCTETS_MIN, MESSAGE_OCTETS_MAX);
        let buffer = size(RECEIVE_BUFFER_MIN, RECEIVE_BUFFER_MAX);
        let connections = || count(1, CONNECTIONS_MAX);
        let idle = unless("off", duration(TIMEOUT_MIN, IDLE_TIMEOUT_MAX));
        let partial = duration(TIMEOUT_MIN, TIMEOUT_MAX);

        let v = visitor;
        v.key("url", url(ListenUrl::FORMS), &mut self.url);
        v.key("name", name(), &mut self.name);
        v.key("max_message_size", message, &mut self.max_message_size);
        v.key("oversize", choice(&OVERSIZE), &mut self.oversize);
        v.key_in(network_sockets, "allow", allowed, &mut self.allow);
        v.key_in(
            datagrams,
            "receive_buffer",
            buffer,
            &mut self.receive_buffer,
        );
        v.key_in(framed, "framing", choice(&FRAMING), &mut self.framing);
        v.key_in(
            streams,
            "connections_max",
            connections(),
            &mut self.connections_max,
        );
        v.key_in(
            network_streams,
            "connections_per_source_max",
            connections(),
            &mut self.connections_per_source_max,
        );
        v.key_in(streams, "idle_timeout", idle, &mut self.idle_timeout);
        v.key_in(
            streams,
            "partial_frame_timeout",
            partial,
            &mut self.partial_frame_timeout,
        );
        v.key_in(relps, "window", count(1, RELP_WINDOW_MAX), &mut self.window);
        v.key_in(relps, "ack", choice(&ACK), &mut self.ack);
        v.key_in(paths, "unix_mode", mode(), &mut self.unix_mode);
    }

    fn complete(&mut self, path: &str, at: &At, report: &mut Report) -> bool {
        if report.at(&join(path, "name")).is_none() {
            self.name = self.url.to_string();
        }
        report.requires(path, "url", at, URL_MISSING)
    }
}

/// What is done with a message longer than `max_message_size`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Oversize {
    /// Its head is judged and forwarded, the rest skipped.
    #[default]
    Truncate,
    /// All of it is skipped.
    Drop,
}

/// When a message that came by RELP is answered. Its sender then forgets it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Ack {
    /// When it is safe: delivered to its upstream, as far as the upstream's protocol tells, or on disk.
    #[default]
    Safe,
    /// When it is in the memory queue.
    Queued,
}

pub(crate) const FRAMING: Words<Framing> = Words(&[
    ("auto", Framing::Auto),
    ("octet-counting", Framing::OctetCounting),
    ("lf", Framing::Lf),
    ("nul", Framing::Nul),
]);
pub(crate) const OVERSIZE: Words<Oversize> =
    Words(&[("truncate", Oversize::Truncate), ("drop", Oversize::Drop)]);
pub(crate) const ACK: Words<Ack> = Words(&[("safe", Ack::Safe), ("queued", Ack::Queued)]);

const URL_MISSING: &str = "url = \"udp://ADDRESS:PORT\" or another listener URL";
