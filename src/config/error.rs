//! Config errors: where a setting was written, what stood there, and what fits.
//!
//! # Guarantees
//!
//! - Each error is one line of printable text: what was found in a file, a flag or a variable is
//!   escaped, format characters of Unicode too, and cut to [`FOUND_CHARS_MAX`] characters.
//! - Each error names its place: file and line and key, or the flag or variable.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::units::size_text;
use crate::identity::mask::MaskError;
use crate::limits::DATAGRAM_SOCKETS_MAX;
use crate::logging::printable;

/// Everything that is wrong with a configuration, in the order of its lines; at least one error.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, if there are any, in the order of their lines; flags and variables come last.
    pub(super) fn if_any(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.at.line().unwrap_or(usize::MAX));
        Err(Self(errors))
    }

    /// The errors.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
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
    /// One error a line, without a line end behind the last.
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
pub struct ConfigError {
    /// Where.
    pub at: At,
    /// What.
    #[source]
    pub fault: Fault,
}

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file is missing, not ours to read, or a directory.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The file is longer than any configuration; it is probably something else.
    #[error("longer than {}, expected a configuration in TOML", size_text(*.max))]
    TooLong {
        /// The octets that are read at most.
        max: usize,
    },
    /// The file holds octets that are no text.
    #[error("not UTF-8, expected a configuration in TOML, which is UTF-8")]
    NotUtf8,
    /// The file is no TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// A key that no section of this name has.
    #[error("unknown key, expected one of {}{}", .fits.join(", "), .hint)]
    UnknownKey {
        /// The keys of the section.
        fits: Vec<&'static str>,
        /// The key that was probably meant, or where this one belongs.
        hint: String,
    },
    /// A key under its old name, beside the new one.
    #[error("the old name of {new}, which is written too ({at}); remove this one")]
    OldName {
        /// The path of the key.
        new: String,
        /// Where it is written under its new name.
        at: At,
    },
    /// A value outside of what its key takes.
    #[error("invalid {found}, expected {fits}")]
    Unfit {
        /// The value as written, escaped.
        found: String,
        /// What would have been right.
        fits: String,
    },
    /// A key that must be there is not.
    #[error("missing, expected {fits}")]
    Missing {
        /// What should have been there.
        fits: &'static str,
    },
    /// A key that has no effect where it stands.
    #[error("not supported for {} {}; only for {fits}", .on[0], .on[1])]
    NoEffect {
        /// The kind of thing it was written for, in two parts.
        on: [&'static str; 2],
        /// Where the key has an effect.
        fits: &'static str,
    },
    /// What a running relay has, and the file that is to replace its configuration has no more.
    #[error("{0}")]
    Gone(String),
    /// A mask that is none.
    #[error("{0}")]
    Mask(#[source] MaskError),
    /// Expressions that take too long to search for.
    #[error(
        "{what}: costs {cost}, on text that is hard for it, expected at most {} us an octet; {}",
        .octet_max.as_micros(),
        cheaper(*.of_rules)
    )]
    Costly {
        /// What it is.
        what: String,
        /// What it costs.
        cost: String,
        /// What an octet may cost.
        octet_max: Duration,
        /// Whether it is all rules together.
        of_rules: bool,
    },
    /// `max_quiet` without `refresh`: the window is fixed, so nothing can stay quiet for longer.
    #[error(
        "not supported unless {section}.refresh is true, expected refresh = true beside it, or no max_quiet"
    )]
    MaxQuietWithoutRefresh {
        /// Where both stand.
        section: &'static str,
    },
    /// An address, path, name or upstream that another one has already.
    #[error("{found} is already taken ({other}), expected {fits}")]
    Taken {
        /// The value as written, escaped.
        found: String,
        /// Who has it.
        other: At,
        /// What would have been right.
        fits: &'static str,
    },
    /// More sockets than are believable, each of which has a thread.
    #[error(
        "{listeners} udp and unix-dgram listeners with {workers} workers take {sockets} sockets, each with a thread of \
         its own (a udp listener takes one per worker), expected at most {DATAGRAM_SOCKETS_MAX} sockets, by fewer workers \
         or fewer listeners"
    )]
    TooManySockets {
        /// Listeners that receive datagrams.
        listeners: usize,
        /// `runtime.workers`.
        workers: usize,
        /// What they take together.
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
        /// The listener.
        listener: At,
    },
}

/// Where a setting was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum At {
    /// A file as a whole.
    File(Arc<str>),
    /// A key of a file; an empty key means the line as such.
    Key {
        /// The file's path as it was given, escaped.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
        /// The path to the key, such as `listener[0].url`.
        key: String,
    },
    /// A flag or an environment variable, by its name.
    Argument(&'static str),
    /// Written nowhere: a default.
    Default(String),
}

impl At {
    /// The place of `segment` within the section that stands here. Elements of lists bring their
    /// own brackets. What has no keys (a flag) stays as it is.
    pub(super) fn within(&self, segment: &str, line: usize) -> Self {
        let Self::Key { file, key, .. } = self else {
            return self.clone();
        };
        let dot = if key.is_empty() || segment.starts_with('[') {
            ""
        } else {
            "."
        };
        Self::Key {
            file: Arc::clone(file),
            line,
            key: format!("{key}{dot}{segment}"),
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

/// `text` in quotes, with everything unprintable escaped, and cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    let head: String = text.chars().take(FOUND_CHARS_MAX).collect();
    let more = if head.len() < text.len() { "..." } else { "" };
    format!("{head:?}{more}")
}

/// `text` without quotes around it, with everything unprintable escaped. For what is bounded
/// otherwise, such as a path, of which the end matters most.
pub(super) fn escaped(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        match character {
            // Harmless, and only noise in a sentence or a path.
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

/// Characters of a found value that an error repeats: a long path fits, a pasted file does not.
pub const FOUND_CHARS_MAX: usize = 160;
