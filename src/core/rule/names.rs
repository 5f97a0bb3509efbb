//! Names of facilities and severities (RFC 5424 6.2.1).
//!
//! # Guarantees
//!
//! - This is the only table of these names. A rule accepts every name that tersed prints: the configuration in force,
//!   errors and `tersed explain` all print the first name in a row.
//!
//! # Left out
//!
//! `panic`, `security` and other names that syslog(3) calls deprecated.

/// The names of the facilities, by number, in the short forms of syslog(3) and RFC 5427.
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// The names of the severities, by number; the lower, the worse. These are printed; [`severity_named`] accepts more.
pub const SEVERITIES: [&str; 8] = {
    let mut names = [""; 8];
    let mut number = 0;
    while number < names.len() {
        names[number] = ACCEPTED[number].0;
        number += 1;
    }
    names
};

/// By number: the name that is printed, and the other one that is accepted, if there is another. `info` is printed, not
/// RFC 5424's `informational`, because it is what people write and what the configuration has printed so far.
const ACCEPTED: [(&str, Option<&str>); 8] = [
    ("emergency", Some("emerg")),
    ("alert", None),
    ("critical", Some("crit")),
    ("error", Some("err")),
    ("warning", Some("warn")),
    ("notice", None),
    ("info", Some("informational")),
    ("debug", None),
];

/// The number of the facility of that name.
#[must_use]
pub fn facility_named(word: &str) -> Option<u8> {
    (0..)
        .zip(FACILITIES)
        .find(|(_, name)| *name == word)
        .map(|(number, _)| number)
}

/// The number of the severity of that name.
#[must_use]
pub fn severity_named(word: &str) -> Option<u8> {
    (0..)
        .zip(ACCEPTED)
        .find(|(_, (name, other))| *name == word || *other == Some(word))
        .map(|(number, _)| number)
}

/// The name of the facility of that number, 0 to 23.
#[must_use]
pub fn facility_name(number: u8) -> &'static str {
    FACILITIES[usize::from(number)]
}

/// The name of the severity of that number, 0 to 7.
#[must_use]
pub fn severity_name(number: u8) -> &'static str {
    SEVERITIES[usize::from(number)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_printed_is_accepted() {
        for number in 0..24 {
            assert_eq!(facility_named(facility_name(number)), Some(number));
        }
        for number in 0..8 {
            assert_eq!(severity_named(severity_name(number)), Some(number));
        }
    }

    #[test]
    fn the_names_of_the_rfc_and_the_short_ones_are_accepted() {
        for (number, names) in [
            (0, &["emergency", "emerg"][..]),
            (1, &["alert"]),
            (2, &["critical", "crit"]),
            (3, &["error", "err"]),
            (4, &["warning", "warn"]),
            (5, &["notice"]),
            (6, &["informational", "info"]),
            (7, &["debug"]),
        ] {
            for name in names {
                assert_eq!(severity_named(name), Some(number), "{name}");
            }
        }
        for unknown in ["", "panic", "Error", "7"] {
            assert_eq!(severity_named(unknown), None, "{unknown}");
        }
        assert_eq!(facility_named("local8"), None);
    }
}
