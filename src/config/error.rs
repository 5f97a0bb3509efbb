//! Configuration errors: where a setting was written, what was written, and what was expected.
//!
//! # Guarantees
//!
//! - Each error is one line of printable text: a value of a file, a flag or a variable is escaped, including format
//!   characters of Unicode, and cut to [`FOUND_CHARS_MAX`] characters.
//! - Each error names its place: file and line and key, or the flag or variable.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::units::size_text;
use crate::core::identity::mask::MaskError;
use crate::core::limits::DATAGRAM_SOCKETS_MAX;
use crate::logging::printable;

/// Everything that is wrong with a configuration, in the order of its lines; at least one error.
#[derive(Debug)]
pub(crate) struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, if there are any, in the order of their lines; flags and variables come last.
    pub(super) fn if_any(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.at.line().unwrap_or(usize::MAX));
        Err(Self(errors))
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    /// One error a line, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing that is wrong, and where it was written.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {}", printable(&.fault.to_string()))]
pub(crate) struct ConfigError {
    pub at: At,
    #[source]
    pub fault: Fault,
}

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The file is missing, a directory, or must not be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// Reading it might wait for another process, so it is not read.
    #[error("{what}, expected a file")]
    NotAFile {
        /// What it is.
        what: &'static str,
    },
    /// The file is longer than any configuration, so it is probably something else.
    #[error("longer than {}, expected a configuration in TOML", size_text(*.max))]
    TooLong {
        /// The most octets that are read.
        max: usize,
    },
    /// The file has octets that are not text.
    #[error("not UTF-8, expected a configuration in TOML, which is UTF-8")]
    NotUtf8,
    /// The file is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// A key that its table does not have.
    #[error("unknown key, expected one of {}{}", .expected.join(", "), .hint)]
    UnknownKey {
        /// The keys of the table.
        expected: Vec<&'static str>,
        /// The key that was probably meant, or where this one belongs.
        hint: String,
    },
    /// A key under its old name, beside the new one.
    #[error("the old name of {new}, which is set, too ({at}); remove this one")]
    OldName {
        /// The path of the key.
        new: String,
        /// Where it is written under its new name.
        at: At,
    },
    /// A value that its key does not take.
    #[error("invalid {found}, expected {expected}")]
    Unfit {
        /// The value as written, escaped.
        found: String,
        expected: String,
    },
    /// A required key is missing.
    #[error("missing, expected {expected}")]
    Missing { expected: &'static str },
    /// A key that has no effect in its table.
    #[error("not supported for {} {}; only for {expected}", .on[0], .on[1])]
    NoEffect {
        /// The kind of thing it was written for, in two parts.
        on: [&'static str; 2],
        /// Where the key has an effect.
        expected: &'static str,
    },
    /// What a running relay has, and the file that is to replace its configuration no longer has.
    #[error("{0}")]
    Removed(String),
    #[error("{0}")]
    Mask(#[source] MaskError),
    /// Expressions that take too long to search for.
    #[error(
        "{what}: takes {cost}, on text that is hard for it, expected at most {} us an octet; {}",
        .octet_max.as_micros(),
        cheaper(*.of_rules)
    )]
    Costly {
        /// What it is: a mask, or an expression of a rule.
        what: String,
        cost: String,
        /// What an octet may cost.
        octet_max: Duration,
        /// Whether it is the expressions of all rules together.
        of_rules: bool,
    },
    /// `max_quiet` without `refresh`: the window is fixed, so no message stays quiet for longer.
    #[error(
        "not supported unless {section}.refresh is true, expected refresh = true beside it, or no max_quiet"
    )]
    MaxQuietWithoutRefresh {
        /// The table of both keys.
        section: &'static str,
    },
    /// An address, path, name or upstream that another table has already.
    #[error("{found} is already taken ({other}), expected {expected}")]
    Taken {
        /// The value as written, escaped.
        found: String,
        other: At,
        expected: &'static str,
    },
    /// Too many sockets, each of which has a thread.
    #[error(
        "{listeners} udp and unix-dgram listeners with {workers} workers take {sockets} sockets, each with a thread of \
         its own (a udp listener takes one per worker), expected at most {DATAGRAM_SOCKETS_MAX} sockets; configure fewer \
         workers or fewer listeners"
    )]
    TooManySockets {
        /// Listeners that receive datagrams.
        listeners: usize,
        workers: usize,
        /// What the listeners take together.
        sockets: usize,
    },
    /// An upstream that is one of our own listeners.
    #[error(
        "{found} leads back to our own listener ({listener}), so every message would loop forever; \
         expected an upstream elsewhere"
    )]
    Loop {
        /// The upstream's URL, escaped.
        found: String,
        listener: At,
    },
}

/// Where a setting was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum At {
    /// A file as a whole.
    File(Arc<str>),
    /// A key of a file; an empty key is the line as such.
    Key {
        /// The file's path as it was given, escaped.
        file: Arc<str>,
        line: usize,
        /// The path to the key, such as `listener[0].url`.
        key: String,
    },
    /// A flag or an environment variable, by its name.
    Argument(&'static str),
    /// A default, which is written nowhere.
    Default(String),
}

impl At {
    /// The place of `part` inside the table or list at this place. Elements of lists bring their own brackets. A place
    /// without keys (a flag) stays as it is.
    pub(super) fn within(&self, part: &str, line: usize) -> Self {
        let Self::Key { file, key, .. } = self else {
            return self.clone();
        };
        let dot = if key.is_empty() || part.starts_with('[') {
            ""
        } else {
            "."
        };
        Self::Key {
            file: Arc::clone(file),
            line,
            key: format!("{key}{dot}{part}"),
        }
    }

    const fn line(&self) -> Option<usize> {
        match self {
            Self::Key { line, .. } => Some(*line),
            Self::File(_) => Some(0),
            Self::Argument(_) | Self::Default(_) => None,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Key { file, line, key } if key.is_empty() => write!(f, "{file}:{line}"),
            Self::Key { file, line, key } => write!(f, "{file}:{line}: {key}"),
            Self::Argument(name) => f.write_str(name),
            Self::Default(what) => write!(f, "{what} by default"),
        }
    }
}

/// `text` in quotes, with all unprintable characters escaped, and cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    let head: String = text.chars().take(FOUND_CHARS_MAX).collect();
    let more = if head.len() < text.len() { "..." } else { "" };
    format!("{head:?}{more}")
}

/// `text` without quotes around it, with all unprintable characters escaped. It is not cut, because the end of a path
/// matters most; the caller bounds its length.
pub(super) fn escaped(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        match character {
            // Harmless; escaped, they would be hard to read in a sentence or a path.
            '"' | '\'' => line.push(character),
            _ => line.extend(character.escape_debug()),
        }
    }
    line
}

/// How an expression, or those of all rules, can cost less.
const fn cheaper(of_rules: bool) -> &'static str {
    if of_rules {
        "use fewer `.*` in them, or make their repetitions shorter"
    } else {
        "make its repetitions shorter, anchor it, or split it"
    }
}

/// The most characters of a value that an error repeats: enough for a long path, not for a pasted file.
pub(crate) const FOUND_CHARS_MAX: usize = 160;
