//! Offers: the abilities that each end of a session announces, in `open` and in its answer.
//!
//! ```text
//! relp_version=0
//! relp_software=librelp,1.11.0,http://librelp.adiscon.com
//! commands=syslog
//! ```
//!
//! Each line is `NAME=VALUE[,VALUE]…`. An LF may stand before the first line or behind the last.
//!
//! # Guarantees
//!
//! - Unknown names, and lines that are no offers, are ignored.
//! - The version of the session is the smaller of the two. Ours is 0, so it is 0.
//!
//! # Left out
//!
//! Offers that are not needed to decide, such as the name of the other end's software.

/// Why the two ends cannot open a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OfferError {
    /// `relp_version` is missing or no number.
    #[error("no relp_version is offered, expected version 0")]
    Version,
    /// `commands` is missing or does not name `syslog`.
    #[error("the command syslog is not offered")]
    Syslog,
}

impl OfferError {
    /// The text that the peer gets behind `500 `.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Version => "relp_version is missing or no number",
            Self::Syslog => "the command syslog is needed",
        }
    }
}

/// Checks that a session with these offers can carry messages.
///
/// # Errors
///
/// The offer that is missing.
pub fn check(offers: &[u8]) -> Result<(), OfferError> {
    let (mut version, mut syslog) = (false, false);
    for line in offers.split(|octet| matches!(octet, b'\n' | b'\r')) {
        let Some(at) = memchr::memchr(b'=', line) else {
            continue;
        };
        let (name, value) = (line.split_at(at).0, line.split_at(at + 1).1);
        match name {
            b"relp_version" => {
                version = (1..=9).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
            }
            b"commands" => {
                syslog = value
                    .split(|octet| *octet == b',')
                    .any(|word| word == b"syslog");
            }
            _ => {}
        }
    }
    match (version, syslog) {
        (false, _) => Err(OfferError::Version),
        (_, false) => Err(OfferError::Syslog),
        (true, true) => Ok(()),
    }
}

/// Our own offers.
pub const OURS: &str = concat!(
    "relp_version=0\nrelp_software=tersed,",
    env!("CARGO_PKG_VERSION"),
    "\ncommands=syslog"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn check_of(offers: &str, expected: Result<(), OfferError>) {
        assert_eq!(check(offers.as_bytes()), expected, "{offers:?}");
    }

    #[test]
    fn a_session_needs_a_version_and_syslog_and_nothing_else() {
        check_of(OURS, Ok(()));
        check_of("relp_version=0\ncommands=syslog", Ok(()));
        check_of("\nrelp_version=0\ncommands=syslog\n", Ok(()));
        check_of("commands=eventlog,syslog\nrelp_version=1", Ok(()));
        check_of("relp_version=0\r\ncommands=syslog\r\n", Ok(()));
        check_of("", Err(OfferError::Version));
        check_of("commands=syslog", Err(OfferError::Version));
        check_of("relp_version\ncommands=syslog", Err(OfferError::Version));
        check_of("relp_version=\ncommands=syslog", Err(OfferError::Version));
        check_of("relp_version=x\ncommands=syslog", Err(OfferError::Version));
        check_of("relp_version=0", Err(OfferError::Syslog));
        check_of("relp_version=0\ncommands=", Err(OfferError::Syslog));
        check_of("relp_version=0\ncommands=syslog2", Err(OfferError::Syslog));
    }

    #[test]
    fn unknown_offers_and_lines_that_are_none_are_ignored() {
        check_of(
            "relp_software=librelp,1.11.0,http://librelp.adiscon.com\nfoo\n=\nx=y=z\n\u{0}\n\
             relp_version=0\ncommands=syslog\nsome_feature=required",
            Ok(()),
        );
    }
}
