//! URLs: [`ListenUrl`], where messages are received, and [`UpstreamUrl`], where they are forwarded to.
//!
//! ```text
//! udp://0.0.0.0:5514    tcp://[::1]:5514    unix-dgram:///run/log.sock    unix-stream:///run/log.sock
//! tcp://collector.example:601    relp://collector.example:2514    file:///var/log/once.log    stdout:
//! ```
//!
//! # Guarantees
//!
//! - A URL prints as a text that parses to the same URL.
//! - A listener's address is numeric, so that it does not depend on a name server. With port 0 the system chooses. An
//!   upstream may be a name; it is looked up at each connect.
//! - A Unix path is absolute, has no NUL, and fits into `sockaddr_un`.
//!
//! # Left out
//!
//! Percent-encoding (a path is taken as it is), user names, queries, abstract Unix sockets, zones of
//! IPv6 addresses in upstreams.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::core::nearest::nearest;

/// Where a listener receives.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum ListenUrl {
    /// Datagrams over IP (RFC 5426).
    Udp(SocketAddr),
    /// Byte streams over IP (RFC 6587).
    Tcp(SocketAddr),
    /// RELP: transactions over TCP, each of them answered.
    Relp(SocketAddr),
    /// Datagrams on a Unix socket, such as `/dev/log`.
    UnixDgram(PathBuf),
    /// Byte streams on a Unix socket.
    UnixStream(PathBuf),
}

impl ListenUrl {
    /// The forms of such a URL, for people.
    pub(crate) const FORMS: &str = "udp://ADDRESS:PORT, tcp://ADDRESS:PORT, relp://ADDRESS:PORT, unix-dgram:///PATH, \
         unix-stream:///PATH";

    /// The scheme: `udp`, `tcp`, `relp`, `unix-dgram` or `unix-stream`.
    #[must_use]
    pub(crate) const fn transport(&self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Tcp(_) => "tcp",
            Self::Relp(_) => "relp",
            Self::UnixDgram(_) => "unix-dgram",
            Self::UnixStream(_) => "unix-stream",
        }
    }

    /// Whether octets arrive on connections.
    #[must_use]
    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Relp(_) | Self::UnixStream(_))
    }

    /// Whether senders wait for answers.
    #[must_use]
    pub(crate) const fn is_relp(&self) -> bool {
        matches!(self, Self::Relp(_))
    }

    /// Whether streams arrive whose protocol does not determine the framing.
    #[must_use]
    pub(crate) const fn has_framing(&self) -> bool {
        self.is_stream() && !self.is_relp()
    }

    /// The Unix socket's path, if it is one.
    #[must_use]
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Udp(_) | Self::Tcp(_) | Self::Relp(_) => None,
            Self::UnixDgram(path) | Self::UnixStream(path) => Some(path),
        }
    }

    /// Whether one configuration cannot have both: they need the same address, or one of them takes every address
    /// of the port. Port 0 is a new port each time. `0.0.0.0` and `[::]` fit together: `[::]` then takes IPv6 alone.
    #[must_use]
    pub(crate) fn collides_with(&self, other: &Self) -> bool {
        match (self.inet(), other.inet()) {
            (Some((kind, one)), Some((other_kind, two))) => {
                let fit_together = one.ip().is_unspecified()
                    && two.ip().is_unspecified()
                    && one.is_ipv4() != two.is_ipv4();
                kind == other_kind && overlap(one, two) && !fit_together
            }
            _ => self.path().is_some() && self.path() == other.path(),
        }
    }

    /// Whether the sockets of both have an address in common. `[::]` overlaps with `0.0.0.0`, too, unless it takes IPv6
    /// alone.
    #[must_use]
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self.inet(), other.inet()) {
            (Some((kind, one)), Some((other_kind, two))) => kind == other_kind && overlap(one, two),
            _ => self.path().is_some() && self.path() == other.path(),
        }
    }

    /// Whether a socket of `other` can serve this URL unchanged: only the protocol that is spoken on it may differ.
    #[must_use]
    pub(crate) fn has_socket_of(&self, other: &Self) -> bool {
        match (self.inet(), other.inet()) {
            (Some((kind, one)), Some((other_kind, two))) => {
                kind == other_kind && one.port() != 0 && one == two
            }
            _ => self.path().is_some() && self == other,
        }
    }

    /// The kind of socket and its address, if it is one over IP.
    const fn inet(&self) -> Option<(InetKind, SocketAddr)> {
        match self {
            Self::Udp(address) => Some((InetKind::Datagram, *address)),
            Self::Tcp(address) | Self::Relp(address) => Some((InetKind::Stream, *address)),
            Self::UnixDgram(_) | Self::UnixStream(_) => None,
        }
    }

    /// Its address, if it is one over IP.
    #[must_use]
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.inet().map(|(_, address)| address)
    }

    /// Whether messages for `upstream` visibly arrive at this listener. Names other than `localhost`, and addresses of
    /// this machine that neither URL spells out, are not recognised.
    #[must_use]
    pub(crate) fn receives_from(&self, upstream: &UpstreamUrl) -> bool {
        match (self, upstream) {
            (Self::Udp(ours), UpstreamUrl::Udp { host, port })
            | (Self::Tcp(ours), UpstreamUrl::Tcp { host, port })
            | (Self::Relp(ours), UpstreamUrl::Relp { host, port }) => {
                ours.port() == *port && reaches(host, ours.ip().to_canonical())
            }
            (Self::UnixDgram(ours), UpstreamUrl::UnixDgram(theirs))
            | (Self::UnixStream(ours), UpstreamUrl::UnixStream(theirs)) => {
                normal(ours) == normal(theirs)
            }
            _ => false,
        }
    }
}

/// What kind of socket receives over IP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum InetKind {
    Datagram,
    Stream,
}

/// Whether both have an address and port in common; `[::]` takes IPv4 as well.
fn overlap(one: SocketAddr, two: SocketAddr) -> bool {
    let takes = |one: SocketAddr, two: SocketAddr| {
        one.ip() == two.ip()
            || one.ip().is_unspecified() && (one.is_ipv6() || one.is_ipv4() == two.is_ipv4())
    };
    one.port() != 0 && one.port() == two.port() && (takes(one, two) || takes(two, one))
}

impl FromStr for ListenUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text.split_once("://") {
            Some(("udp", rest)) => socket_addr("udp", rest).map(Self::Udp),
            Some(("tcp", rest)) => socket_addr("tcp", rest).map(Self::Tcp),
            Some(("relp", rest)) => socket_addr("relp", rest).map(Self::Relp),
            Some(("unix-dgram", rest)) => unix_path("unix-dgram", rest).map(Self::UnixDgram),
            Some(("unix-stream", rest)) => unix_path("unix-stream", rest).map(Self::UnixStream),
            _ => Err(unknown_scheme(
                text,
                Self::FORMS,
                &["udp", "tcp", "relp", "unix-dgram", "unix-stream"],
            )),
        }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(addr) | Self::Tcp(addr) | Self::Relp(addr) => {
                write!(f, "{}://{addr}", self.transport())
            }
            Self::UnixDgram(path) | Self::UnixStream(path) => {
                write!(f, "{}://{}", self.transport(), path.display())
            }
        }
    }
}

/// Where messages are forwarded to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum UpstreamUrl {
    /// A byte stream over IP.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        port: u16,
    },
    /// RELP: transactions over TCP, each of them answered.
    Relp {
        /// A name or an address, without brackets.
        host: String,
        port: u16,
    },
    Udp {
        /// A name or an address, without brackets.
        host: String,
        port: u16,
    },
    /// Datagrams to a Unix socket.
    UnixDgram(PathBuf),
    /// A byte stream to a Unix socket.
    UnixStream(PathBuf),
    /// Appended to a file.
    File(PathBuf),
    Stdout,
}

impl UpstreamUrl {
    /// The forms of such a URL, for people.
    pub(crate) const FORMS: &str = "tcp://HOST:PORT, relp://HOST:PORT, udp://HOST:PORT, unix-stream:///PATH, \
         unix-dgram:///PATH, file:///PATH, stdout:";

    /// The scheme: `tcp`, `relp`, `udp`, `unix-dgram`, `unix-stream`, `file` or `stdout`.
    #[must_use]
    pub(crate) const fn transport(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Relp { .. } => "relp",
            Self::Udp { .. } => "udp",
            Self::UnixDgram(_) => "unix-dgram",
            Self::UnixStream(_) => "unix-stream",
            Self::File(_) => "file",
            Self::Stdout => "stdout",
        }
    }

    /// The path of its file or Unix socket, if it has one.
    #[must_use]
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::UnixDgram(path) | Self::UnixStream(path) | Self::File(path) => Some(path),
            Self::Tcp { .. } | Self::Relp { .. } | Self::Udp { .. } | Self::Stdout => None,
        }
    }

    /// Whether both are one place: paths are compared without `.` and `..`, names of hosts without regard to case.
    /// Symbolic links, and several names of one address, are not recognised.
    #[must_use]
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.normal() == other.normal()
    }

    fn normal(&self) -> Self {
        let name = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match self {
            Self::Tcp { host, port } => Self::Tcp {
                host: name(host),
                port: *port,
            },
            Self::Relp { host, port } => Self::Relp {
                host: name(host),
                port: *port,
            },
            Self::Udp { host, port } => Self::Udp {
                host: name(host),
                port: *port,
            },
            Self::UnixDgram(path) => Self::UnixDgram(normal(path)),
            Self::UnixStream(path) => Self::UnixStream(normal(path)),
            Self::File(path) => Self::File(normal(path)),
            Self::Stdout => Self::Stdout,
        }
    }

    /// Whether messages leave in a stream whose protocol does not determine the framing.
    #[must_use]
    pub(crate) const fn has_framing(&self) -> bool {
        !matches!(
            self,
            Self::Udp { .. } | Self::UnixDgram(_) | Self::Relp { .. }
        )
    }
}

impl FromStr for UpstreamUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text == "stdout:" {
            return Ok(Self::Stdout);
        }
        match text.split_once("://") {
            Some(("tcp", rest)) => {
                host_port("tcp", rest).map(|(host, port)| Self::Tcp { host, port })
            }
            Some(("relp", rest)) => {
                host_port("relp", rest).map(|(host, port)| Self::Relp { host, port })
            }
            Some(("udp", rest)) => {
                host_port("udp", rest).map(|(host, port)| Self::Udp { host, port })
            }
            Some(("unix-dgram", rest)) => unix_path("unix-dgram", rest).map(Self::UnixDgram),
            Some(("unix-stream", rest)) => unix_path("unix-stream", rest).map(Self::UnixStream),
            Some(("file", rest)) => absolute_path("file", rest).map(Self::File),
            _ => Err(unknown_scheme(
                text,
                Self::FORMS,
                &[
                    "tcp",
                    "relp",
                    "udp",
                    "unix-stream",
                    "unix-dgram",
                    "file",
                    "stdout",
                ],
            )),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Relp { host, port } | Self::Udp { host, port }
                if host.contains(':') =>
            {
                write!(f, "{}://[{host}]:{port}", self.transport())
            }
            Self::Tcp { host, port } | Self::Relp { host, port } | Self::Udp { host, port } => {
                write!(f, "{}://{host}:{port}", self.transport())
            }
            Self::UnixDgram(path) | Self::UnixStream(path) | Self::File(path) => {
                write!(f, "{}://{}", self.transport(), path.display())
            }
            Self::Stdout => f.write_str("stdout:"),
        }
    }
}

/// The error for a text that is not such a URL; prints what was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{expected}")]
pub(crate) struct UrlError {
    expected: String,
}

/// The error that `text` begins with none of `schemes`. It names the one that was probably meant.
fn unknown_scheme(text: &str, forms: &str, schemes: &[&'static str]) -> UrlError {
    let written = text.split(':').next();
    let written = written.expect("a split text has a first part");
    let slashes = |scheme| if scheme == "stdout" { ":" } else { "://" };
    let hint = nearest(written, schemes.iter().copied()).map_or_else(String::new, |scheme| {
        format!(" (did you mean {scheme}{}?)", slashes(scheme))
    });
    UrlError {
        expected: format!("{forms}{hint}"),
    }
}

fn socket_addr(scheme: &str, rest: &str) -> Result<SocketAddr, UrlError> {
    let address: Option<SocketAddr> = rest.parse().ok();
    // The system binds no IPv4 address to a socket that takes IPv6 alone.
    if let Some(SocketAddr::V6(v6)) = address
        && let Some(v4) = v6.ip().to_ipv4_mapped()
    {
        return Err(UrlError {
            expected: format!("{scheme}://{v4}:{}, the same address as IPv4", v6.port()),
        });
    }
    if let Some(expected) = address.and_then(|address| bindable(&format!("{scheme}://"), address)) {
        return Err(UrlError { expected });
    }
    address.ok_or_else(|| UrlError {
        expected: format!(
            "{scheme}://ADDRESS:PORT with a numeric ADDRESS, such as 127.0.0.1 (this machine only), \
             0.0.0.0 (all of IPv4) or [::] (everything)"
        ),
    })
}

/// What is expected instead of `address`, if no system binds that. `scheme` is the prefix of the address; UDP's is
/// `udp://`.
pub(super) fn bindable(scheme: &str, address: SocketAddr) -> Option<String> {
    if scheme != "udp://" && address.ip().is_multicast() {
        return Some(format!(
            "{scheme}ADDRESS:PORT with an address of this machine (a multicast address is for udp only)"
        ));
    }
    let SocketAddr::V6(v6) = address else {
        return None;
    };
    // 0xff02: multicast addresses of one link (RFC 4291 2.7).
    let is_of_link = v6.ip().is_unicast_link_local() || v6.ip().segments()[0] & 0xff0f == 0xff02;
    (is_of_link && v6.scope_id() == 0).then(|| {
        format!(
            "{scheme}[{}%ZONE]:{}, where ZONE is the number of the interface (`ip link` lists them: it is 2 on \
             `2: eth0`), because each interface has this link-local address",
            v6.ip(),
            v6.port()
        )
    })
}

fn host_port(scheme: &str, rest: &str) -> Result<(String, u16), UrlError> {
    let parsed = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once("]:").and_then(|(address, port)| {
            let address: Ipv6Addr = address.parse().ok()?;
            Some((address.to_string(), port))
        }),
        None => rest
            .split_once(':')
            .filter(|(host, _)| is_host(host))
            .map(|(host, port)| (host.to_owned(), port)),
    };
    parsed.and_then(|(host, port)| Some((host, port_number(port)?))).ok_or_else(|| UrlError {
        expected: format!(
            "{scheme}://HOST:PORT with PORT from 1 to 65535, such as {scheme}://collector.example:601, \
             {scheme}://192.0.2.1:514 or {scheme}://[2001:db8::1]:514"
        ),
    })
}

fn port_number(text: &str) -> Option<u16> {
    // `parse` alone would accept a sign.
    if !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// Whether `text` is an IPv4 address or can be a host's name (RFC 1123 2.1; underscores are in use).
fn is_host(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    // A name never ends in a number (RFC 1123 2.1), so `10.0.1` is an address with a part missing. Resolvers differ in
    // how they fill it in.
    let numeric = labels
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()));
    if numeric {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    labels.len() <= HOST_OCTETS_MAX && labels.split('.').all(is_label)
}

fn absolute_path(scheme: &str, rest: &str) -> Result<PathBuf, UrlError> {
    let names_file = rest.starts_with('/') && !rest.ends_with('/') && !rest.contains('\0');
    if names_file {
        return Ok(PathBuf::from(rest));
    }
    Err(UrlError {
        expected: format!("{scheme}:///PATH with an absolute PATH that names a file"),
    })
}

/// An absolute `path` without `.` and `..`, as far as its text tells.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

fn unix_path(scheme: &str, rest: &str) -> Result<PathBuf, UrlError> {
    if rest.len() > UNIX_PATH_OCTETS_MAX {
        return Err(UrlError {
            expected: format!(
                "{scheme}:///PATH with a PATH of at most {UNIX_PATH_OCTETS_MAX} octets (this one has {}), \
                 which is all that a Unix socket's address holds",
                rest.len()
            ),
        });
    }
    absolute_path(scheme, rest)
}

/// Whether a connection to `host` can end at a listener bound to `ours` (of the same port).
fn reaches(host: &str, ours: IpAddr) -> bool {
    let localhost = host
        .strip_suffix('.')
        .unwrap_or(host)
        .eq_ignore_ascii_case("localhost");
    let Ok(theirs) = host.parse::<IpAddr>().map(|ip| ip.to_canonical()) else {
        return localhost && (ours.is_unspecified() || is_localhost(ours));
    };
    if ours == theirs {
        return true;
    }
    // A connection to the unspecified address leads to this machine.
    let this_machine = theirs.is_loopback() || theirs.is_unspecified();
    // An IPv4 socket receives nothing from IPv6; an IPv6 socket may receive from IPv4 (RFC 3493 5.3).
    let family_fits = ours.is_ipv6() || theirs.is_ipv4();
    (ours.is_unspecified() && this_machine && family_fits)
        || (is_localhost(ours) && theirs.is_unspecified() && ours.is_ipv4() == theirs.is_ipv4())
}

fn is_localhost(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// `sun_path` holds 108 octets, the last one is NUL (unix(7)).
pub(crate) const UNIX_PATH_OCTETS_MAX: usize = 107;

/// A name, written as text, has at most 253 octets (RFC 1035 3.1).
const HOST_OCTETS_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_listen(text: &str, expected: Option<ListenUrl>) {
        assert_eq!(text.parse::<ListenUrl>().ok(), expected, "{text}");
    }

    fn check_upstream(text: &str, expected: Option<UpstreamUrl>) {
        assert_eq!(text.parse::<UpstreamUrl>().ok(), expected, "{text}");
    }

    #[test]
    fn an_address_that_no_system_binds_is_refused_with_one_that_fits() {
        for (refused, expected) in [
            ("tcp://[fe80::1]:514", "tcp://[fe80::1%ZONE]:514"),
            ("udp://[fe80::1]:514", "udp://[fe80::1%ZONE]:514"),
            ("udp://[ff02::1]:514", "udp://[ff02::1%ZONE]:514"),
            ("tcp://224.0.0.1:514", "an address of this machine"),
            ("relp://[ff05::1]:514", "an address of this machine"),
        ] {
            let error = refused.parse::<ListenUrl>().unwrap_err().to_string();
            assert!(error.contains(expected), "{refused}: {error}");
        }
        for taken in [
            "tcp://[fe80::1%2]:514",
            "udp://224.0.0.1:514",
            "udp://[ff05::1]:514",
        ] {
            let url: ListenUrl = taken.parse().unwrap();
            assert_eq!(url.to_string(), taken);
        }
    }

    #[test]
    fn listeners_take_numeric_addresses_and_absolute_paths_only() {
        check_listen(
            "udp://0.0.0.0:514",
            Some(ListenUrl::Udp("0.0.0.0:514".parse().unwrap())),
        );
        check_listen(
            "tcp://[::]:0",
            Some(ListenUrl::Tcp("[::]:0".parse().unwrap())),
        );
        check_listen(
            "relp://127.0.0.1:2514",
            Some(ListenUrl::Relp("127.0.0.1:2514".parse().unwrap())),
        );
        check_listen(
            "unix-dgram:///dev/log",
            Some(ListenUrl::UnixDgram("/dev/log".into())),
        );
        check_listen(
            "unix-stream:///run/a b",
            Some(ListenUrl::UnixStream("/run/a b".into())),
        );
        for refused in [
            "",
            "udp",
            "udp:",
            "udp:/0.0.0.0:514",
            "UDP://0.0.0.0:514",
            "udp://",
            "udp://0.0.0.0",
            "udp://0.0.0.0:",
            "udp://0.0.0.0:65536",
            "udp://0.0.0.0:+5",
            "udp://:514",
            "udp://::1:514",
            "udp://localhost:514",
            "relp://127.0.0.1",
            "relp://localhost:2514",
            "udp://0.0.0.0:514/",
            " udp://0.0.0.0:514",
            "udp://0.0.0.0:514 ",
            "tls://0.0.0.0:6514",
            "unix-dgram://run/x",
            "unix-dgram:///",
            "unix-dgram:///run/",
            "unix-dgram://",
            "unix-dgram:///run/\0x",
            "file:///x",
            "stdout:",
        ] {
            check_listen(refused, None);
        }
    }

    #[test]
    fn upstreams_take_names_and_never_port_0() {
        let tcp = |host: &str, port| {
            Some(UpstreamUrl::Tcp {
                host: host.to_owned(),
                port,
            })
        };
        check_upstream("tcp://a:514", tcp("a", 514));
        check_upstream("tcp://log_1.example.:1", tcp("log_1.example.", 1));
        check_upstream("tcp://192.0.2.1:65535", tcp("192.0.2.1", 65535));
        check_upstream("tcp://[2001:DB8::1]:514", tcp("2001:db8::1", 514));
        check_upstream(
            "udp://h:5",
            Some(UpstreamUrl::Udp {
                host: "h".to_owned(),
                port: 5,
            }),
        );
        check_upstream(
            "relp://[::1]:2514",
            Some(UpstreamUrl::Relp {
                host: "::1".to_owned(),
                port: 2514,
            }),
        );
        check_upstream(
            "file:///var/log/x",
            Some(UpstreamUrl::File("/var/log/x".into())),
        );
        check_upstream("stdout:", Some(UpstreamUrl::Stdout));
        for refused in [
            "tcp://",
            "tcp://a",
            "tcp://a:",
            "tcp://a:0",
            "relp://a",
            "relp://a:0",
            "tcp://a:65536",
            "tcp://a:+5",
            "tcp://:514",
            "tcp://a b:5",
            "tcp://a..b:5",
            "tcp://u@a:5",
            "tcp://a:5/",
            "tcp://::1:5",
            "tcp://[::1]",
            "tcp://[::1]5",
            "tcp://[a]:5",
            "tcp://10.0.1:5",
            "tcp://10:5",
            "tcp://1.2.3.256:5",
            "tcp://[fe80::1%eth0]:5",
            "stdout",
            "stdout://",
            "-",
            "file://x",
            "file:///",
        ] {
            check_upstream(refused, None);
        }
    }

    #[test]
    fn a_unix_path_may_be_as_long_as_an_address_holds() {
        let longest = format!("/{}", "x".repeat(UNIX_PATH_OCTETS_MAX - 1));
        let url = format!("unix-stream://{longest}");
        check_listen(&url, Some(ListenUrl::UnixStream(longest.into())));
        check_listen(&format!("{url}x"), None);
    }

    #[test]
    fn one_place_is_one_however_it_is_spelled() {
        let is_same = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<UpstreamUrl>().unwrap());
            one.is_same_place(&other)
        };
        for (one, other) in [
            ("file:///d/../d/z", "file:///d/z"),
            ("file:///d/./z", "file:///d//z"),
            ("file:///../z", "file:///z"),
            ("unix-dgram:///d/x/../z", "unix-dgram:///d/z"),
            ("unix-stream:///d/x/../z", "unix-stream:///d/z"),
            ("tcp://Collector:514", "tcp://collector:514"),
            (
                "relp://collector.Example.:514",
                "relp://collector.example:514",
            ),
            ("udp://A:514", "udp://a:514"),
        ] {
            assert!(is_same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("file:///d/z", "file:///d/Z"),
            ("file:///d/x/../z", "file:///d/x/z"),
            ("tcp://a:514", "tcp://a:515"),
            ("tcp://a:514", "udp://a:514"),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
        let ours: ListenUrl = "unix-dgram:///run/log".parse().unwrap();
        assert!(ours.receives_from(&"unix-dgram:///run/x/../log".parse().unwrap()));
    }

    #[test]
    fn a_loop_is_seen_when_the_upstream_is_this_listener() {
        let check = |listener: &str, upstream: &str, expected: bool| {
            let (ours, theirs) = (
                listener.parse::<ListenUrl>().unwrap(),
                upstream.parse().unwrap(),
            );
            assert_eq!(
                ours.receives_from(&theirs),
                expected,
                "{upstream} -> {listener}"
            );
        };
        check("tcp://127.0.0.1:514", "tcp://127.0.0.1:514", true);
        check("tcp://127.0.0.1:514", "tcp://127.0.0.1:515", false);
        check("tcp://127.0.0.1:514", "udp://127.0.0.1:514", false);
        check("tcp://127.0.0.1:514", "tcp://LocalHost:514", true);
        check("tcp://127.0.0.1:514", "tcp://localhost.:514", true);
        check("tcp://127.0.0.1:514", "tcp://0.0.0.0:514", true);
        check("tcp://127.0.0.2:514", "tcp://localhost:514", false);
        check("tcp://192.0.2.1:514", "tcp://localhost:514", false);
        check("tcp://192.0.2.1:514", "tcp://192.0.2.1:514", true);
        check("tcp://192.0.2.1:514", "tcp://[::ffff:192.0.2.1]:514", true);
        check("tcp://0.0.0.0:514", "tcp://127.9.9.9:514", true);
        check("tcp://0.0.0.0:514", "tcp://0.0.0.0:514", true);
        check("tcp://0.0.0.0:514", "tcp://localhost:514", true);
        check("tcp://0.0.0.0:514", "tcp://192.0.2.1:514", false);
        check("tcp://0.0.0.0:514", "tcp://[::1]:514", false);
        check("tcp://[::]:514", "tcp://127.0.0.1:514", true);
        check("tcp://[::]:514", "tcp://[::1]:514", true);
        check("tcp://[::1]:514", "tcp://[::]:514", true);
        check("tcp://[::1]:514", "tcp://0.0.0.0:514", false);
        check("unix-dgram:///run/x", "unix-dgram:///run//x", true);
        check("unix-dgram:///run/x", "unix-stream:///run/x", false);
        check("tcp://127.0.0.1:514", "stdout:", false);
        check("relp://0.0.0.0:2514", "relp://localhost:2514", true);
        check("relp://0.0.0.0:2514", "relp://localhost:2515", false);
        check("relp://0.0.0.0:2514", "udp://localhost:2514", false);
    }

    #[test]
    fn port_0_collides_with_nothing() {
        let check = |one: &str, two: &str, expected: bool| {
            let (one, two) = (one.parse::<ListenUrl>().unwrap(), two.parse().unwrap());
            assert_eq!(one.collides_with(&two), expected, "{one} {two}");
        };
        check("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", false);
        check("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", true);
        check("tcp://127.0.0.1:1", "udp://127.0.0.1:1", false);
        check("tcp://127.0.0.1:1", "relp://127.0.0.1:1", true);
        check("tcp://127.0.0.1:1", "relp://127.0.0.2:1", false);
        check("tcp://0.0.0.0:1", "relp://127.0.0.1:1", true);
        check("udp://127.0.0.1:1", "udp://0.0.0.0:1", true);
        check("udp://127.0.0.1:1", "udp://0.0.0.0:2", false);
        check("udp://0.0.0.0:0", "udp://127.0.0.1:0", false);
        check("udp://[::]:1", "udp://127.0.0.1:1", true);
        check("udp://[::]:1", "udp://[::1]:1", true);
        check("udp://0.0.0.0:1", "udp://[::1]:1", false);
        check("udp://0.0.0.0:1", "udp://[::]:1", false);
        check("relp://127.0.0.1:1", "relp://127.0.0.1:1", true);
        check("unix-dgram:///x", "unix-stream:///x", true);
        check("unix-dgram:///x", "tcp://127.0.0.1:1", false);
    }

    #[test]
    fn a_scheme_that_is_nearly_right_is_suggested() {
        let check = |text: &str, listen: &str, forward: &str| {
            let listen_error = text.parse::<ListenUrl>().unwrap_err().to_string();
            let forward_error = text.parse::<UpstreamUrl>().unwrap_err().to_string();
            for (error, forms, hint) in [
                (listen_error, ListenUrl::FORMS, listen),
                (forward_error, UpstreamUrl::FORMS, forward),
            ] {
                assert_eq!(error, format!("{forms}{hint}"), "{text}");
            }
        };
        check(
            "UDP://a:1",
            " (did you mean udp://?)",
            " (did you mean udp://?)",
        );
        check(
            "tcp:a:1",
            " (did you mean tcp://?)",
            " (did you mean tcp://?)",
        );
        check(
            "unix-dgarm:///x",
            " (did you mean unix-dgram://?)",
            " (did you mean unix-dgram://?)",
        );
        check("stdout", "", " (did you mean stdout:?)");
        check("tls://a:1", "", "");
        check("0.0.0.0:514", "", "");
    }

    proptest! {
        #[test]
        fn a_listen_url_survives_its_own_text(
            text in "(udp|tcp|relp)://([0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9a-f]{0,4}::[0-9a-f]{1,4}\\]):[0-9]{1,5}|unix-(dgram|stream):///[a-z/. ]{1,40}",
        ) {
            if let Ok(url) = text.parse::<ListenUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }

        #[test]
        fn an_upstream_url_survives_its_own_text(
            text in "(udp|tcp|relp)://([0-9]{1,3}(\\.[0-9]{1,3}){3}|[a-z.]{1,20}|\\[[0-9A-Fa-f]{0,4}::[0-9a-f]{1,4}\\]):[0-9]{1,5}|(file|unix-dgram|unix-stream):///[a-z/. ]{1,40}|stdout:",
        ) {
            if let Ok(url) = text.parse::<UpstreamUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            for scheme in ["", "udp://", "tcp://", "tcp://[", "unix-dgram:///", "file://"] {
                let text = format!("{scheme}{text}");
                prop_assert!(text.parse::<ListenUrl>().is_err() || text.contains("://"));
                prop_assert!(text.parse::<UpstreamUrl>().is_err() || text.contains(':'));
            }
        }
    }
}
