//! What can go wrong with an upstream: what was tried, the system's answer, and what to do about it.
//!
//! # Guarantees
//!
//! - [`UpstreamError::story`] names the step or the address, the system's answer with its number, the key that sets a
//!   limit, and what an operator can do, if there is something.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{core::relp::RelpFault, delivery::chunk::Chunk};

/// Why forwarding, or one lane of it, ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardEnded {
    /// The only upstream is gone for good.
    #[error("no upstream is left")]
    NoUpstream(#[source] UpstreamError),
}

/// Why an upstream was lost, or could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The name did not resolve.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name asked for.
        host: String,
        source: io::Error,
    },
    /// No address of the name, or not the socket, accepted a connection.
    #[error("cannot connect to {to}")]
    Connect {
        /// The last address tried, or the path.
        to: String,
        source: io::Error,
    },
    /// The file did not open, or the socket could not be set up.
    #[error("cannot open")]
    Open(#[source] io::Error),
    /// A step of an attempt to connect took too long.
    #[error(
        "{step} took longer than {after:?} ({}forward.connect_timeout{})",
        if after < limit { "its share of " } else { "" },
        if after < limit { format!(" = {limit:?}") } else { String::new() }
    )]
    TooSlow {
        /// What the attempt was doing.
        step: Step,
        /// The time that this step had.
        after: Duration,
        /// The time that all steps together have.
        limit: Duration,
    },
    /// The peer closed the connection in order.
    #[error("closed by the peer")]
    Closed,
    /// The peer took nothing for that long.
    #[error("the upstream took nothing for {0:?} (forward.send_timeout)")]
    Stalled(Duration),
    /// The kernel broke the connection because the peer acknowledged nothing for that long (TCP_USER_TIMEOUT).
    #[error("the upstream acknowledged nothing for {after:?} (forward.send_timeout)")]
    Unacknowledged {
        /// `send_timeout` when the connection was opened.
        after: Duration,
        source: io::Error,
    },
    /// The peer answered nothing for that long.
    #[error("the upstream answered nothing for {0:?} (forward.send_timeout)")]
    Unanswered(Duration),
    /// The peer did not answer the end of the connection in time.
    #[error("the upstream did not answer the end of the connection for {0:?}")]
    NotEnded(Duration),
    /// The peer announced that it is closing.
    #[error("the peer announced that it is closing")]
    Leaving,
    /// The peer does not speak RELP, or violated it.
    #[error("invalid RELP")]
    Relp(#[from] RelpFault),
    #[error("broken")]
    Broken(#[source] io::Error),
    /// The network reported (ICMP) that datagrams do not arrive.
    #[error("datagrams are refused")]
    Refused(#[source] io::Error),
    /// The grace period of the shutdown expired, or a reload interrupted the writing.
    #[error("cut off by the shutdown")]
    CutOff,
    /// The reader of standard output closed it; it cannot be opened again.
    #[error("standard output is closed")]
    OutputClosed,
}

impl UpstreamError {
    /// The socket at `path` accepted no connection.
    pub(super) fn at(path: &Path, source: io::Error) -> Self {
        Self::Connect {
            to: path.display().to_string(),
            source,
        }
    }

    /// A call on a connection failed whose peer has to acknowledge something within `send_timeout`.
    pub(super) fn broken(source: io::Error, send_timeout: Duration) -> Self {
        match source.raw_os_error() {
            Some(libc::ETIMEDOUT) => Self::Unacknowledged {
                after: send_timeout,
                source,
            },
            _ => Self::Broken(source),
        }
    }

    /// True if the peer ended its direction in order. That does not say whether it has read everything: see
    /// `stream::end`.
    #[must_use]
    pub(crate) const fn is_orderly(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// The error, its causes and what to do, on one line.
    #[must_use]
    pub(super) fn story(&self) -> String {
        let mut story = error_chain(self);
        if let Some(advice) = self.advice() {
            story.push_str("; ");
            story.push_str(advice);
        }
        story
    }

    /// What an operator can do.
    fn advice(&self) -> Option<&'static str> {
        use io::ErrorKind as Kind;
        Some(match self {
            Self::Resolve { .. }
            | Self::TooSlow {
                step: Step::LookUp(_),
                ..
            } => "check the name, /etc/resolv.conf and the name server",
            Self::TooSlow {
                step: Step::Connect(_),
                ..
            } => "the host is down, or a firewall drops the connection",
            Self::TooSlow {
                step: Step::Session(_),
                ..
            } => "check that a RELP server listens there",
            Self::Connect { source, .. } | Self::Refused(source) => match source.kind() {
                Kind::ConnectionRefused => {
                    "nothing listens there: start the collector, or correct the address"
                }
                Kind::HostUnreachable | Kind::NetworkUnreachable => {
                    "check the route and the firewall"
                }
                Kind::NotFound => {
                    "there is no such socket: start the collector, or correct the path"
                }
                Kind::PermissionDenied => "let the user that tersed runs as connect to it",
                _ => return None,
            },
            Self::Open(source) => match (source.kind(), source.raw_os_error()) {
                (Kind::NotFound, _) => "create the directory, or correct the path",
                (Kind::PermissionDenied, _) => "let the user that tersed runs as write to it",
                (_, Some(libc::ELOOP)) => "a symlink is not followed: name the file itself",
                _ => return None,
            },
            Self::Broken(source) => match source.kind() {
                Kind::StorageFull | Kind::QuotaExceeded => "free space on the disk",
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// What an attempt to connect is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Asks the resolver for this name.
    LookUp(String),
    /// Connects to this address.
    Connect(SocketAddr),
    /// Connects to the socket at this path.
    ConnectTo(PathBuf),
    /// Opens a RELP session with this host and port.
    Session(String),
    /// Opens this file, or standard output.
    Open(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LookUp(host) => write!(f, "looking up {host}"),
            Self::Connect(address) => write!(f, "connecting to {address}"),
            Self::ConnectTo(path) => write!(f, "connecting to {}", path.display()),
            Self::Session(peer) => write!(f, "opening a RELP session with {peer}"),
            Self::Open(file) => write!(f, "opening {file}"),
        }
    }
}

/// A connection is lost: why, and the batch that it was sending.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) batch: Vec<Chunk>,
    /// How many octets of the batch on the wire were taken.
    pub(super) taken: usize,
    pub(super) error: UpstreamError,
}

impl From<UpstreamError> for Lost {
    /// Lost between two batches.
    fn from(error: UpstreamError) -> Self {
        Self {
            batch: Vec::new(),
            taken: 0,
            error,
        }
    }
}

/// A write broke off.
#[derive(Debug)]
pub(super) struct BrokenOff {
    /// How many octets were taken before.
    pub(super) taken: usize,
    pub(super) error: UpstreamError,
}

impl BrokenOff {
    /// The loss of the connection, on which `batch` was being written.
    pub(super) fn in_batch(self, batch: Vec<Chunk>) -> Lost {
        Lost {
            batch,
            taken: self.taken,
            error: self.error,
        }
    }
}

/// An error and its causes on one line.
pub(super) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_step_the_key_and_what_to_do() {
        let seconds = Duration::from_secs;
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let cases = [
            (
                UpstreamError::TooSlow {
                    step: Step::LookUp("collector".to_owned()),
                    after: seconds(10),
                    limit: seconds(10),
                },
                "looking up collector took longer than 10s (forward.connect_timeout); check the name, \
                 /etc/resolv.conf and the name server",
            ),
            (
                UpstreamError::TooSlow {
                    step: Step::Connect(([192, 0, 2, 1], 601).into()),
                    after: seconds(5),
                    limit: seconds(10),
                },
                "connecting to 192.0.2.1:601 took longer than 5s (its share of forward.connect_timeout = 10s); \
                 the host is down, or a firewall drops the connection",
            ),
            (
                UpstreamError::Connect {
                    to: "127.0.0.1:601".to_owned(),
                    source: refused,
                },
                "cannot connect to 127.0.0.1:601: Connection refused (os error 111); nothing listens there: start \
                 the collector, or correct the address",
            ),
            (
                UpstreamError::Stalled(seconds(30)),
                "the upstream took nothing for 30s (forward.send_timeout)",
            ),
            (
                UpstreamError::broken(io::Error::from_raw_os_error(libc::ETIMEDOUT), seconds(30)),
                "the upstream acknowledged nothing for 30s (forward.send_timeout): Connection timed out (os error 110)",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.story(), expected);
        }
    }
}
