//! Offers: what each end of a session says that it can do, in `open` and in the answer to it.
//!
//! ```text
//! relp_version=0
//! relp_software=librelp,1.11.0,http://librelp.adiscon.com
//! commands=syslog
//! ```
//!
//! One a line, each `NAME=VALUE[,VALUE]…`. Lines may begin or end with the LF that separates them.
//!
//! # Guarantees
//!
//! - Names that we do not know are ignored, and so is a line that is no offer.
//! - The version of the session is the smaller of the two: ours is 0, so it is 0.
//!
//! # Left out
//!
//! Everything that is not needed to decide: the other end's software is its own business.

/// Why two ends cannot talk.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OfferError {
    /// There is no `relp_version`, or it is not a number.
    #[error("no relp_version is offered; version 0 would be right")]
    Version,
    /// There is no `commands` with `syslog` in it.
    #[error("the command syslog is not offered")]
    Syslog,
}

impl OfferError {
    /// For the peer's eyes, behind `500 `.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Version => "relp_version is missing or no number",
            Self::Syslog => "the command syslog is needed",
        }
    }
}

/// Whether the session that `offers` opens can carry messages.
///
/// # Errors
///
/// What is missing.
pub fn check(offers: &[u8]) -> Result<(), OfferError> {
    let (mut version, mut syslog) = (false, false);
    for line in offers.split(|octet| matches!(octet, b'\n' | b'\r')) {
        let Some(at) = memchr::memchr(b'=', line) else {
            continue;
        };
        let Some((name, value)) = line.split_at_checked(at) else {
            continue;
        };
        let value = value.get(1..).unwrap_or_default();
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

/// What we offer.
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
    fn what_is_unknown_or_no_offer_is_ignored() {
        check_of(
            "relp_software=librelp,1.11.0,http://librelp.adiscon.com\nfoo\n=\nx=y=z\n\u{0}\n\
             relp_version=0\ncommands=syslog\nsome_feature=required",
            Ok(()),
        );
    }
}
