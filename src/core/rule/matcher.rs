//! Matchers: which messages a rule takes.
//!
//! # Guarantees
//!
//! - Every part that is configured must match; of a list, one member. A part that is not configured matches everything.
//! - If a message lacks a part (a frame that names no host, a peer on a Unix socket), nothing matches that part, not even
//!   `*`: a rule for hosts must not take messages that name none. `source` matches the address of the sender.
//! - A message without PRI counts as user.notice, as everywhere.
//!
//! # Left out
//!
//! Matching many rules at once (`index`).

use ipnet::IpNet;

use super::{FACILITIES, Glob, Text};

/// A set of facilities.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facilities(pub(super) u32);

/// A set of severities.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Severities(pub(super) u8);

/// Which messages a rule takes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Matcher {
    /// Facilities of PRI.
    pub facility: Facilities,
    /// Severities of PRI.
    pub severity: Severities,
    /// HOSTNAME; empty matches everything.
    pub hostname: Vec<Glob>,
    /// APP-NAME or TAG; empty matches everything.
    pub app_name: Vec<Glob>,
    /// Must match somewhere in MSG.
    pub msg: Option<Text>,
    /// Names of listeners; empty matches everything.
    pub listener: Vec<String>,
    /// Networks of the sender; empty matches everything.
    pub source: Vec<IpNet>,
}

impl Matcher {
    /// Whether this certainly takes every message that `other` takes.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let globs =
            |all: &[Glob], some: &[Glob]| covers(all, some, |all: &Glob, some| all.covers(some));
        self.facility.0 & other.facility.0 == other.facility.0
            && self.severity.0 & other.severity.0 == other.severity.0
            && globs(&self.hostname, &other.hostname)
            && globs(&self.app_name, &other.app_name)
            && (self.msg.is_none() || self.msg == other.msg)
            && covers(&self.listener, &other.listener, |all, some| all == some)
            && covers(&self.source, &other.source, |all: &IpNet, some| {
                all.contains(some)
            })
    }
}

/// Whether everything that matches one of `some` matches one of `all`; an empty list matches everything.
fn covers<T>(all: &[T], some: &[T], one: impl Fn(&T, &T) -> bool) -> bool {
    all.is_empty()
        || (!some.is_empty() && some.iter().all(|some| all.iter().any(|all| one(all, some))))
}

impl Facilities {
    /// All facilities.
    pub const ALL: Self = Self((1 << FACILITIES.len()) - 1);
    /// No facility.
    pub const NONE: Self = Self(0);

    /// This set with the facility of that number, 0 to 23.
    #[must_use]
    pub const fn with(self, facility: u8) -> Self {
        Self((self.0 | 1 << (facility & 31)) & Self::ALL.0)
    }

    /// Whether that facility is in this set.
    #[must_use]
    pub const fn has(self, facility: u8) -> bool {
        self.0 >> (facility & 31) & 1 != 0
    }
}

impl Severities {
    /// All severities.
    pub const ALL: Self = Self(u8::MAX);
    /// No severity.
    pub const NONE: Self = Self(0);

    /// This set with the severity of that number, 0 to 7.
    #[must_use]
    pub const fn with(self, severity: u8) -> Self {
        Self(self.0 | 1 << (severity & 7))
    }

    /// Whether that severity is in this set.
    #[must_use]
    pub const fn has(self, severity: u8) -> bool {
        self.0 >> (severity & 7) & 1 != 0
    }
}

impl Default for Facilities {
    fn default() -> Self {
        Self::ALL
    }
}

impl Default for Severities {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matcher_covers_another_if_it_takes_all_of_its_messages() {
        let any = Matcher::default();
        let globs = |texts: &[&str]| -> Vec<Glob> {
            texts.iter().map(|text| Glob::new(text).unwrap()).collect()
        };
        let app = |texts: &[&str]| Matcher {
            app_name: globs(texts),
            ..Matcher::default()
        };
        let net = |texts: &[&str]| Matcher {
            source: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..Matcher::default()
        };
        let text = |regex: &str| Matcher {
            msg: Some(Text::new(regex).unwrap()),
            ..Matcher::default()
        };
        let pri = |facility: u8, severity: u8| Matcher {
            facility: Facilities::NONE.with(facility),
            severity: Severities::NONE.with(severity),
            ..Matcher::default()
        };
        for (one, other, expected) in [
            (&any, &any, true),
            (&any, &app(&["a*"]), true),
            (&app(&["a*"]), &any, false),
            (&app(&["a*", "b"]), &app(&["abc", "b"]), true),
            (&app(&["a*", "b"]), &app(&["abc", "c"]), false),
            (
                &net(&["10.0.0.0/8"]),
                &net(&["10.1.0.0/16", "10.9.9.9/32"]),
                true,
            ),
            (&net(&["10.0.0.0/8"]), &net(&["11.0.0.0/16"]), false),
            (&text("x"), &text("x"), true),
            (&text("x"), &text("xy"), false),
            (&any, &pri(4, 3), true),
            (&pri(4, 3), &pri(4, 2), false),
        ] {
            assert_eq!(one.covers(other), expected, "{one:?} {other:?}");
        }
    }
}
