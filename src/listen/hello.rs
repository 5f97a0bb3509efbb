//! The first octets of a connection: recognises clients of other protocols.
//!
//! # Guarantees
//!
//! - Octets that are taken for another protocol cannot be a syslog frame that a sender meant.
//! - The decision is a function of the octets, however they are cut into reads, and [`HELLO_OCTETS_MAX`] of them always
//!   decide. If a connection ends or falls silent before that, its octets are a message like any other.
//!
//! # Left out
//!
//! Anything else that is not syslog: it is text, and forwarded as it is.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Local;
use crate::{
    clock::Clock,
    core::{frame::zlib, identity::Sender},
    logging::PeerReason,
    metrics::RejectReason,
};

/// What the first octets are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hello {
    /// More octets are needed to decide.
    Undecided,
    Foreign(Foreign),
    /// Not a recognised foreign protocol.
    Other,
}

/// A protocol that the listener does not speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Foreign {
    /// A TLS handshake record (RFC 8446 5.1): type 22, version 3.x. No syslog message starts like that.
    Tls,
    /// `1 open` and an offer. Taken for text it would be forwarded, and the client would wait for an answer that never
    /// comes.
    Relp,
    /// A request line of HTTP/1 (RFC 9112 3), or the preface of HTTP/2: a health check, or a browser.
    Http,
    /// The header that a load balancer puts before a connection, version 1 or 2.
    ProxyProtocol,
    /// A stream that is compressed by zlib as a whole.
    Zlib,
    /// Text with two octets per character.
    Utf16,
    /// Syslog frames, on a listener for RELP.
    Syslog,
}

/// Examines the first octets on a syslog listener.
pub(super) fn of(octets: &[u8]) -> Hello {
    verdict(&[
        (tls(octets), Foreign::Tls),
        (relp(octets), Foreign::Relp),
        (http(octets), Foreign::Http),
        (proxy_protocol(octets), Foreign::ProxyProtocol),
        (zlib::begins_stream(octets), Foreign::Zlib),
        (utf16(octets), Foreign::Utf16),
    ])
}

/// Examines the first octets on a RELP listener.
pub(super) fn on_relp(octets: &[u8]) -> Hello {
    verdict(&[
        (tls(octets), Foreign::Tls),
        (http(octets), Foreign::Http),
        (proxy_protocol(octets), Foreign::ProxyProtocol),
        (zlib::begins_stream(octets), Foreign::Zlib),
        (utf16(octets), Foreign::Utf16),
        (syslog(octets), Foreign::Syslog),
    ])
}

fn verdict(tried: &[(Option<bool>, Foreign)]) -> Hello {
    if let Some((_, foreign)) = tried.iter().find(|(is_it, _)| *is_it == Some(true)) {
        return Hello::Foreign(*foreign);
    }
    if tried.iter().any(|(is_it, _)| is_it.is_none()) {
        Hello::Undecided
    } else {
        Hello::Other
    }
}

/// Whether these are the first octets of a TLS client; `None` while more are needed.
fn tls(octets: &[u8]) -> Option<bool> {
    match octets {
        [] | [0x16] | [0x16, 0x03] => None,
        [0x16, 0x03, 0..=4, ..] => Some(true),
        _ => Some(false),
    }
}

/// Whether these are the first octets of a RELP client; `None` while more are needed.
fn relp(octets: &[u8]) -> Option<bool> {
    let Some(behind) = octets.strip_prefix(b"1 open ") else {
        return begins(b"1 open ", octets);
    };
    let digits = behind
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    if digits > 9 {
        return Some(false);
    }
    let (_, offers) = behind.split_at(digits);
    // librelp's drafts begin the offers with an LF.
    any(&[begins(b" relp_", offers), begins(b" \nrelp_", offers)])
}

/// Whether these are the first octets of an HTTP client: a method, and a line that ends with the version. A message may
/// begin with `GET `, or quote a request before other words.
fn http(octets: &[u8]) -> Option<bool> {
    let methods: [&[u8]; 9] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"OPTIONS ",
        b"CONNECT ",
        b"DELETE ",
        b"PATCH ",
        b"TRACE ",
    ];
    // HTTP/2 without TLS: gRPC's health checks (RFC 9113 3.4).
    let preface = any(&[
        begins(b"PRI * HTTP/2.0\r\n", octets),
        begins(b"PRI * HTTP/2.0\n", octets),
    ]);
    if preface != Some(false) {
        return preface;
    }
    match any(&methods.map(|method| begins(method, octets))) {
        Some(true) => {}
        other => return other,
    }
    let head = octets.get(..HELLO_OCTETS_MAX);
    let Some(line) = memchr::memchr2(b'\n', 0, head.unwrap_or(octets)) else {
        return head.map(|_| false);
    };
    let (line, _) = octets.split_at(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_request = matches!(
        line,
        [
            ..,
            b' ',
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0'..=b'9'
        ]
    );
    Some(is_request)
}

/// Whether this is a load balancer's header (haproxy's proxy-protocol.txt, 2.1 and 2.2). A message may begin with
/// `PROXY TCP4` and continue with other words.
fn proxy_protocol(octets: &[u8]) -> Option<bool> {
    any(&[begins(b"\r\n\r\n\0\r\nQUIT\n", octets), proxy_line(octets)])
}

/// Whether this is a whole header line of version 1: a family, two addresses of it, and two ports; or `UNKNOWN` and
/// anything after it.
fn proxy_line(octets: &[u8]) -> Option<bool> {
    let families: [&[u8]; 4] = [
        b"PROXY TCP4 ",
        b"PROXY TCP6 ",
        b"PROXY UNKNOWN\r",
        b"PROXY UNKNOWN ",
    ];
    match any(&families.map(|family| begins(family, octets))) {
        Some(true) => {}
        other => return other,
    }
    let head = octets.get(..PROXY_LINE_OCTETS_MAX);
    let Some(end) = memchr::memchr2(b'\n', 0, head.unwrap_or(octets)) else {
        return head.map(|_| false);
    };
    let (line, _) = octets.split_at(end + 1);
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Some(false);
    };
    if let Some(behind) = line.strip_prefix(b"PROXY UNKNOWN") {
        return Some(matches!(behind, [] | [b' ', ..]));
    }
    let mut fields = line.split(|octet| *octet == b' ').skip(1);
    let family = fields.next();
    let fields = [(); 4].map(|()| fields.next().and_then(|field| str::from_utf8(field).ok()));
    let is_over = line.iter().filter(|octet| **octet == b' ').count() == 5;
    let [
        Some(source),
        Some(destination),
        Some(source_port),
        Some(destination_port),
    ] = fields
    else {
        return Some(false);
    };
    let is_address = |text: &str| match family {
        Some(b"TCP4") => text.parse::<Ipv4Addr>().is_ok(),
        _ => text.parse::<Ipv6Addr>().is_ok(),
    };
    let is_port = |text: &str| {
        text.bytes().all(|octet| octet.is_ascii_digit()) && text.parse::<u16>().is_ok()
    };
    let is_header = is_over
        && is_address(source)
        && is_address(destination)
        && is_port(source_port)
        && is_port(destination_port);
    Some(is_header)
}

/// Whether this is text in UTF-16: a byte order mark, `<` and a digit, or [`PAIRS`] ASCII characters with a NUL before or
/// after each. A few letters that each end with a NUL are messages.
fn utf16(octets: &[u8]) -> Option<bool> {
    let head = octets.get(..2 * PAIRS).unwrap_or(octets);
    let is_so = |is_text_at: usize| {
        head.iter().enumerate().all(|(at, octet)| {
            let is_text = matches!(octet, b'\t' | b'\n' | b'\r' | b' '..=b'~');
            if at % 2 == is_text_at {
                is_text
            } else {
                *octet == 0
            }
        })
    };
    let is_ascii = match is_so(0) || is_so(1) {
        true if matches!(
            head,
            [b'<', 0, b'0'..=b'9', 0, ..] | [0, b'<', 0, b'0'..=b'9', ..]
        ) =>
        {
            Some(true)
        }
        true if head.len() < 2 * PAIRS => None,
        is_it => Some(is_it),
    };
    any(&[
        begins(b"\xff\xfe", octets),
        begins(b"\xfe\xff", octets),
        is_ascii,
    ])
}

/// Whether this is the beginning of syslog frames: `<` and a digit, perhaps after a count.
fn syslog(octets: &[u8]) -> Option<bool> {
    let digits = octets
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    let frame = match octets.split_at(digits).1 {
        _ if digits > 10 => return Some(false),
        [] => return None,
        [b' ', frame @ ..] if digits > 0 => frame,
        _ if digits > 0 => return Some(false),
        frame => frame,
    };
    match frame {
        [] | [b'<'] => None,
        [b'<', b'0'..=b'9', ..] => Some(true),
        _ => Some(false),
    }
}

/// Whether one of `tried` is true; `None` if none is yet and one is undecided.
fn any(tried: &[Option<bool>]) -> Option<bool> {
    if tried.contains(&Some(true)) {
        return Some(true);
    }
    (!tried.contains(&None)).then_some(false)
}

/// Whether `octets` begin with `text`; `None` while more octets are needed.
fn begins(text: &[u8], octets: &[u8]) -> Option<bool> {
    if octets.len() < text.len() {
        return (!text.starts_with(octets)).then_some(false);
    }
    Some(octets.starts_with(text))
}

impl Foreign {
    /// Counts and logs the client, on a syslog listener.
    pub(super) fn turn_away(self, local: &Local, sender: Sender) {
        let reason = match self {
            Self::Tls => RejectReason::TlsOnPlaintext,
            Self::Relp => RejectReason::RelpOnSyslog,
            Self::Http => RejectReason::Http,
            Self::ProxyProtocol => RejectReason::ProxyProtocol,
            Self::Zlib => RejectReason::Zlib,
            Self::Utf16 => RejectReason::Utf16,
            // Only foreign on a RELP listener.
            Self::Syslog => return,
        };
        local.context.metrics.connections_rejected[reason].inc();
        let (log, reason) = (&local.context.peer_log, PeerReason::Reject(reason));
        log.note(reason, Clock::now(), |before| {
            self.warn(local.metrics.name(), sender, before);
        });
    }

    /// Counts and logs a TLS client on a RELP listener: it speaks RELP over TLS.
    pub(super) fn turn_away_tls_from_relp(local: &Local, peer: Sender) {
        let reason = RejectReason::TlsOnPlaintext;
        local.context.metrics.connections_rejected[reason].inc();
        let listener = local.metrics.name();
        let log = &local.context.peer_log;
        log.note(PeerReason::Reject(reason), Clock::now(), |before| {
            tracing::warn!(listener, %peer, before,
                "a TLS client on a RELP listener; turn TLS off at the client");
        });
    }

    fn warn(self, listener: &str, peer: Sender, before: u64) {
        let advice = self.advice();
        match self {
            Self::Tls => tracing::warn!(listener, %peer, before,
                "a TLS client on a syslog listener; turn TLS off at the client"),
            Self::Relp => tracing::warn!(listener, %peer, before,
                "a RELP client on a syslog listener; point it to a relp:// listener"),
            Self::Http => tracing::warn!(listener, %peer, advice, before,
                "an HTTP client on a syslog listener; connection closed"),
            Self::ProxyProtocol => tracing::warn!(listener, %peer, advice, before,
                "a PROXY protocol header on a syslog listener; connection closed"),
            Self::Zlib => tracing::warn!(listener, %peer, advice, before,
                "a compressed stream on a syslog listener; connection closed"),
            Self::Utf16 => tracing::warn!(listener, %peer, advice, before,
                "text in UTF-16 on a syslog listener; connection closed"),
            Self::Syslog => {}
        }
    }

    /// What an operator can do about the client.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Tls => "turn TLS off at the client",
            Self::Relp => "point it to a relp:// listener",
            Self::Http => {
                "if it is a health check, make it only connect (TCP), or request /healthz at the [admin] address"
            }
            Self::ProxyProtocol => {
                "turn off send-proxy or proxy_protocol for this backend at the load balancer"
            }
            Self::Zlib => "turn compression off at the sender (rsyslog: compression.mode)",
            Self::Utf16 => "make the sender send UTF-8",
            Self::Syslog => {
                "point it to a tcp:// listener, or make it send by RELP (rsyslog: omrelp)"
            }
        }
    }

    /// The client's name in log lines.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tls => "a TLS client",
            Self::Relp => "a RELP client",
            Self::Http => "an HTTP client",
            Self::ProxyProtocol => "a PROXY protocol header",
            Self::Zlib => "a compressed stream",
            Self::Utf16 => "text in UTF-16",
            Self::Syslog => "a syslog client",
        }
    }
}

/// Octets of the longest request line, its line end included. A longer one is text.
const HELLO_OCTETS_MAX: usize = 2048;

/// Octets of the longest PROXY header line, its CR LF included (haproxy's proxy-protocol.txt, 2.1).
const PROXY_LINE_OCTETS_MAX: usize = 107;

/// Characters that show that text is in UTF-16.
const PAIRS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// `octets` are `expected`, and undecided before their last one if that is what decides.
    fn check(octets: &[u8], decided_at: usize, expected: Hello) {
        for len in 0..=octets.len() {
            let expected = if len < decided_at {
                Hello::Undecided
            } else {
                expected
            };
            let head = &octets[..len];
            assert_eq!(of(head), expected, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn other_protocols_that_hold_text_are_known_by_it() {
        use Foreign::{Http, ProxyProtocol, Utf16, Zlib};
        for method in [
            "GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE",
        ] {
            for end in ["\n", "\r\n"] {
                let request = format!("{method} /x?y HTTP/1.1{end}");
                check(
                    format!("{request}Host: x").as_bytes(),
                    request.len(),
                    Hello::Foreign(Http),
                );
            }
        }
        check(b"PRI * HTTP/2.0\r\n\r\nSM", 16, Hello::Foreign(Http));
        let longest = format!("GET /{} HTTP/1.1\r\n", "x".repeat(2032));
        assert_eq!(longest.len(), HELLO_OCTETS_MAX);
        check(longest.as_bytes(), 2048, Hello::Foreign(Http));
        for header in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 514\r\n",
            "PROXY TCP6 ::1 2001:db8::2 0 65535\r\n",
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN ::1 what it knows\r\n",
        ] {
            check(
                format!("{header}<13>b").as_bytes(),
                header.len(),
                Hello::Foreign(ProxyProtocol),
            );
        }
        check(
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
            12,
            Hello::Foreign(ProxyProtocol),
        );
        check(b"\x78\x01\x00\x50\x00\xaf\xff<", 7, Hello::Foreign(Zlib));
        check(
            b"\x78\x9c\xb3\x314\x36\xb1\xf3\x4d",
            8,
            Hello::Foreign(Zlib),
        );
        check(
            b"\x78\x5e\xb2\x314\x36\xb1\xf3\x4d",
            8,
            Hello::Foreign(Zlib),
        );
        check(b"\xff\xfe<\0", 2, Hello::Foreign(Utf16));
        check(b"\xfe\xff\0<", 2, Hello::Foreign(Utf16));
        check(b"<\x001\x003\0>\0a\0", 4, Hello::Foreign(Utf16));
        check(b"\0<\x001\x003\0>\0a", 4, Hello::Foreign(Utf16));
        check(b"e\0i\0g\0h\0t\0 \0a\0r\0e", 16, Hello::Foreign(Utf16));
        check(b"\0e\0i\0g\0h\0t\0 \0a\0r\0", 16, Hello::Foreign(Utf16));
    }

    #[test]
    fn text_that_begins_like_another_protocol_is_text() {
        check(b"GET the kettle\n<13>b", 15, Hello::Other);
        check(b"GET / HTTP/1.1 200 512\n", 23, Hello::Other);
        check(b"GET / HTTP/2\n", 13, Hello::Other);
        check(b"GET / HTTP/1.1\0", 15, Hello::Foreign(Foreign::Http));
        check(b"GETTING", 4, Hello::Other);
        check(b"PRI * HTTP/2.0 is HTTP/2's preface", 15, Hello::Other);
        check(b"PATCH 7 of 9 is in\n", 19, Hello::Other);
        let longer = format!("GET /{} HTTP/1.1\r\n", "x".repeat(2033));
        check(longer.as_bytes(), HELLO_OCTETS_MAX, Hello::Other);
        let long = [b"GET ", &[b'x'; HELLO_OCTETS_MAX][..], b" HTTP/1.1\n"].concat();
        check(&long, HELLO_OCTETS_MAX, Hello::Other);
        check(b"PROXY down", 7, Hello::Other);
        check(b"PROXY TCP7 ", 10, Hello::Other);
        check(b"PROXY UNKNOWNS", 14, Hello::Other);
        for line in [
            "PROXY TCP4 listeners are down\n",
            "PROXY TCP4 listeners are down\0",
            "PROXY UNKNOWN to the balancer\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 514\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 +514\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 514 down\r\n",
            "PROXY TCP4 ::1 ::1 1 514\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 514\r\n",
        ] {
            check(format!("{line}<13>b").as_bytes(), line.len(), Hello::Other);
        }
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(unknown.len(), PROXY_LINE_OCTETS_MAX);
        check(
            unknown.as_bytes(),
            107,
            Hello::Foreign(Foreign::ProxyProtocol),
        );
        let long = unknown.replacen('x', "xx", 1);
        check(long.as_bytes(), 107, Hello::Other);
        check(b"\r\n\r\n<13>", 5, Hello::Other);
        check(b"x = 1", 2, Hello::Other);
        check(b"x^2\n", 4, Hello::Other);
        check(b"x^2 + y^2 = z^2 + 1", 7, Hello::Other);
        check(b"a\0b\0<13>c\0", 6, Hello::Other);
        check(b"a\0b\0c\0d\0<13>e\0", 10, Hello::Other);
        check(b"a\0b\0c\0d\0e\0f\0g\0hi\0", 16, Hello::Other);
        check(b"<\0a\0<13>b\0", 6, Hello::Other);
        check(b"\0<13>c\0", 3, Hello::Other);
        check(b"\0\0<13>c\0", 2, Hello::Other);
        check(b"\xff\xff", 2, Hello::Other);
    }

    #[test]
    fn on_a_relp_listener_syslog_is_foreign_and_relp_is_not() {
        for (octets, expected) in [
            (&b"1 open 85 relp_version=0"[..], Hello::Other),
            (b"1 ", Hello::Undecided),
            (b"<", Hello::Undecided),
            (b"<1", Hello::Foreign(Foreign::Syslog)),
            (b"57 <", Hello::Undecided),
            (b"57 <1", Hello::Foreign(Foreign::Syslog)),
            (b"12345678901", Hello::Other),
            (b"x", Hello::Undecided),
            (b"xy", Hello::Other),
            (b"GET / HTTP/1.0\r\n", Hello::Foreign(Foreign::Http)),
        ] {
            assert_eq!(on_relp(octets), expected, "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn other_protocols_are_known_by_their_first_octets() {
        check(b"\x16\x03\x01\x02", 3, Hello::Foreign(Foreign::Tls));
        check(
            b"1 open 85 relp_version=0\n",
            15,
            Hello::Foreign(Foreign::Relp),
        );
        check(
            b"1 open 85 \nrelp_version=0\n",
            16,
            Hello::Foreign(Foreign::Relp),
        );
    }

    #[test]
    fn syslog_is_decided_as_soon_as_it_differs() {
        // `<` and a NUL may be UTF-16.
        check(b"<13>a", 2, Hello::Other);
        check(b"12 <13>a", 2, Hello::Other);
        check(b"1 open 85 files", 11, Hello::Other);
        check(b"1 opened", 7, Hello::Other);
        check(b"1 open files", 8, Hello::Other);
        check(b"1 open 1234567890", 17, Hello::Other);
        check(b"\x16\x03\x07", 3, Hello::Other);
        check(b"\x16\x04", 2, Hello::Other);
    }
}
