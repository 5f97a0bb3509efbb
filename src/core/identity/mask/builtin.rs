//! The built-in masks: their names, descriptions and examples, and sets of them.
//!
//! One table, [`Builtin::ALL`], serves configuration, help and documentation.
//!
//! # Guarantees
//!
//! - Names are spelled the same everywhere and do not change: configurations use them.
//!
//! # Left out
//!
//! The search for each: see the files named for what they find.

use std::fmt;

/// A built-in mask.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Builtin {
    /// Decimal numbers that are not part of a name.
    Number = 1,
    /// Hexadecimal numbers and hashes.
    Hex = 2,
    /// IPv4 addresses.
    Ipv4 = 3,
    /// IPv6 addresses.
    Ipv6 = 4,
    /// Hardware addresses.
    Mac = 5,
    /// UUIDs.
    Uuid = 6,
    /// Dates and times of day.
    Timestamp = 7,
    /// Quoted text.
    Quoted = 8,
    /// File paths.
    Path = 9,
}

impl Builtin {
    /// All masks, in documented order.
    pub const ALL: [Self; 9] = [
        Self::Number,
        Self::Hex,
        Self::Ipv4,
        Self::Ipv6,
        Self::Mac,
        Self::Uuid,
        Self::Timestamp,
        Self::Quoted,
        Self::Path,
    ];

    /// Its name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Hex => "hex",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Mac => "mac",
            Self::Uuid => "uuid",
            Self::Timestamp => "timestamp",
            Self::Quoted => "quoted",
            Self::Path => "path",
        }
    }

    /// The parts that it folds, in one line.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Number => {
                "decimal numbers, with sign, point and exponent, also before a unit; not the digits of \
                 a name (eth0, Gi1/0/24), of a version or of an address"
            }
            Self::Hex => {
                "0x and hexadecimal digits; bare ones from 8 on if digits and letters are mixed"
            }
            Self::Ipv4 => "IPv4 addresses; not a prefix length or a port behind them",
            Self::Ipv6 => "IPv6 addresses; not a zone, a prefix length or a port behind them",
            Self::Mac => {
                "hardware addresses with colons, hyphens or Cisco's dots, also the chain of netfilter"
            }
            Self::Uuid => "UUIDs, in either case",
            Self::Timestamp => {
                "dates, times of day, and both together, as ISO 8601, RFC 3164, RFC 5322, Apache and \
                 date(1) write them; not seconds since the epoch, which are a number"
            }
            Self::Quoted => "text between two quotes, \"so\" or 'so', with the quotes",
            Self::Path => {
                "absolute paths, those from ./ ../ and ~/ on, Windows' paths with a drive or a server, \
                 and the path of a URL"
            }
        }
    }

    /// A text in which it folds something.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Number => "took 3.5 ms, 12 of 1,024 left",
            Self::Hex => "fault at 0x7ffc1a2b, build 5f3a9c0e",
            Self::Ipv4 => "from 192.0.2.7 port 22",
            Self::Ipv6 => "from [2001:db8::7]:443",
            Self::Mac => "lease for 00:00:5e:00:53:01",
            Self::Uuid => "request 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            Self::Timestamp => "next run at 2026-03-01T10:00:00Z",
            Self::Quoted => "user \"alice\" unknown",
            Self::Path => "cannot open /var/log/app.log",
        }
    }

    /// The mask called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// All names, as an error or a help text lists them.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of built-in masks.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct BuiltinSet(u16);

impl BuiltinSet {
    /// No mask.
    pub const EMPTY: Self = Self(0);

    /// This set plus `builtin`.
    #[must_use]
    pub const fn with(self, builtin: Builtin) -> Self {
        Self(self.0 | builtin.bit())
    }

    /// Whether the set holds `builtin`.
    #[must_use]
    pub const fn contains(self, builtin: Builtin) -> bool {
        self.0 & builtin.bit() != 0
    }

    /// Whether the set holds no mask.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The masks of the set, in documented order.
    pub fn iter(self) -> impl Iterator<Item = Builtin> {
        Builtin::ALL
            .into_iter()
            .filter(move |builtin| self.contains(*builtin))
    }
}

impl FromIterator<Builtin> for BuiltinSet {
    fn from_iter<I: IntoIterator<Item = Builtin>>(builtins: I) -> Self {
        builtins.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for BuiltinSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Builtin::name))
            .finish()
    }
}
