//! The first octets of a connection: whether somebody came to the wrong door.
//!
//! # Guarantees
//!
//! - What is taken for another protocol can be no syslog frame that anybody sends.
//!
//! # Left out
//!
//! What else is no syslog: it is text, and forwarded as it is.

use super::Local;
use crate::{clock::Clock, identity::Sender, logging::PeerReason, metrics::RejectReason};

/// What the first octets say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hello {
    /// It takes more octets to know.
    Undecided,
    /// A client of another protocol.
    Foreign(Foreign),
    /// Whatever they are, they are for us.
    Other,
}

/// A protocol that is not spoken here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Foreign {
    /// A TLS handshake record (RFC 8446 5.1): type 22, version 3.x. No syslog message starts like that.
    Tls,
    /// `1 open`, and an offer. Taken for text it would be forwarded, and its client wait for an answer that never
    /// comes.
    Relp,
}

/// What the first octets of a stream of syslog frames say.
pub(super) fn of(octets: &[u8]) -> Hello {
    match (tls(octets), relp(octets)) {
        (Some(true), _) => Hello::Foreign(Foreign::Tls),
        (_, Some(true)) => Hello::Foreign(Foreign::Relp),
        (Some(false), Some(false)) => Hello::Other,
        _ => Hello::Undecided,
    }
}

/// Whether a TLS client begins like that; `None` while it takes more octets.
pub(super) fn tls(octets: &[u8]) -> Option<bool> {
    match octets {
        [] | [0x16] | [0x16, 0x03] => None,
        [0x16, 0x03, 0..=4, ..] => Some(true),
        _ => Some(false),
    }
}

/// Whether a RELP client begins like that; `None` while it takes more octets.
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
    let offers = behind.get(digits..).unwrap_or_default();
    // librelp's drafts begin the offers with an LF.
    match (begins(b" relp_", offers), begins(b" \nrelp_", offers)) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// Whether `octets` begin with `text`; `None` while that takes more octets.
fn begins(text: &[u8], octets: &[u8]) -> Option<bool> {
    if octets.len() < text.len() {
        return (!text.starts_with(octets)).then_some(false);
    }
    Some(octets.starts_with(text))
}

impl Foreign {
    /// Counts the client and says so.
    pub(super) fn turn_away(self, local: &Local, sender: Sender) {
        let (reason, what) = match self {
            Self::Tls => (
                RejectReason::TlsOnPlaintext,
                "a TLS client on a listener without TLS; let it send plain text",
            ),
            Self::Relp => (
                RejectReason::RelpOnSyslog,
                "a RELP client on a syslog listener; let it send to a relp:// one",
            ),
        };
        local.context.metrics.connections_rejected[reason].inc();
        local
            .context
            .peer_log
            .note(PeerReason::Reject(reason), Clock::now(), |before| {
                tracing::warn!(listener = local.metrics.name(), peer = %sender, before, "{what}");
            });
    }
}

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
        check(b"<13>a", 1, Hello::Other);
        check(b"12 <13>a", 2, Hello::Other);
        check(b"1 open 85 files", 11, Hello::Other);
        check(b"1 opened", 7, Hello::Other);
        check(b"1 open files", 8, Hello::Other);
        check(b"1 open 1234567890", 17, Hello::Other);
        check(b"\x16\x03\x07", 3, Hello::Other);
        check(b"\x16\x04", 2, Hello::Other);
    }
}
