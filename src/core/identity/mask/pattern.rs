//! The user's masks: named regular expressions, searched together in one pass.
//!
//! # Guarantees
//!
//! - Searching is linear in the text: the engine is that of `regex`, and at most [`MASK_MATCHES_MAX`] parts
//!   of a message are folded.
//! - The leftmost match wins, and of two that begin together the one configured first. A pattern sees the
//!   whole text, so `^`, `$` and `\b` have their usual meaning.
//! - Texts are octets. `\d`, `\w`, `\s`, `\b` and `(?i)` are ASCII, as the variable parts of log lines are;
//!   a `.` is any octet but LF. (Unicode's tables would triple the compiled size, slow the search down,
//!   and not search texts that are not UTF-8.)
//! - A pattern that matches the empty text is refused: it would fold nothing, everywhere.
//! - An error names the pattern, the place in it and the fault there.
//!
//! # Left out
//!
//! The time that a search takes: `config` measures it.

use std::ops::Range;

use regex_automata::{
    MatchKind,
    meta::{Config, Regex},
    util::syntax,
};
use regex_syntax::{ParserBuilder, hir::Hir};

use super::builtin::Builtin;
use crate::core::limits::{
    MASK_COMPILED_OCTETS_MAX, MASK_MATCH_OCTETS_MAX, MASK_MATCHES_MAX, MASK_PATTERN_OCTETS_MAX,
    MASK_PATTERNS_MAX,
};
use crate::core::nearest::nearest;

/// One of the user's masks, as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    /// `[a-z][a-z0-9_]*`, not the name of a built-in mask, and not [`NO_MASKS`]. It replaces the folded parts in the
    /// readable form.
    pub name: String,
    /// The regular expression.
    pub regex: String,
}

/// Why masks are refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MaskError {
    /// No mask has this name.
    #[error("no mask is called `{name}`{}; the built-in ones are {}", hint(.nearest.as_deref()), Builtin::names())]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The most similar name.
        nearest: Option<String>,
    },
    /// A user's mask must not have this name.
    #[error("mask `{name}`: {why}")]
    Name {
        /// The name.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// The expression is no regular expression.
    #[error("mask `{name}`: at octet {at} of `{regex}`: {what}")]
    Syntax {
        /// The mask's name.
        name: String,
        /// The expression.
        regex: String,
        /// The offset of the fault.
        at: usize,
        /// The fault.
        what: String,
    },
    /// The expression matches the empty text.
    #[error("mask `{name}`: `{regex}` matches the empty text; let it match at least one octet")]
    Empty {
        /// The mask's name.
        name: String,
        /// The expression.
        regex: String,
    },
    /// The expression matches long texts only.
    #[error(
        "mask `{name}`: matches nothing shorter than {octets} octets, limit {MASK_MATCH_OCTETS_MAX}"
    )]
    Far {
        /// The mask's name.
        name: String,
        /// Octets of the shortest text that it matches.
        octets: usize,
    },
    /// The expression is too long.
    #[error("mask `{name}`: an expression of {octets} octets, limit {MASK_PATTERN_OCTETS_MAX}")]
    Long {
        /// The mask's name.
        name: String,
        /// Its length.
        octets: usize,
    },
    /// There are too many masks.
    #[error("{count} user-defined masks, limit {MASK_PATTERNS_MAX}")]
    Many {
        /// How many there are.
        count: usize,
    },
    /// The compiled expressions are too large, as `x{1000}{1000}` is.
    #[error(
        "mask `{name}`: compiled, its expression takes more than {MASK_COMPILED_OCTETS_MAX} octets, alone or with \
         those before it"
    )]
    Large {
        /// The first mask that does not fit.
        name: String,
    },
}

impl MaskError {
    /// The error that neither a built-in mask nor one of `own` is called `name`.
    #[must_use]
    pub fn unknown(name: &str, own: &[Pattern]) -> Self {
        let own = own.iter().map(|pattern| pattern.name.as_str());
        Self::Unknown {
            name: name.to_owned(),
            nearest: nearest(name, Builtin::ALL.map(Builtin::name).into_iter().chain(own))
                .map(str::to_owned),
        }
    }
}

/// All patterns of a set, compiled.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    regex: Regex,
}

impl Patterns {
    /// Compiles `patterns`; `None` if the list is empty.
    pub(super) fn new(patterns: &[Pattern]) -> Result<Option<Self>, MaskError> {
        if patterns.len() > MASK_PATTERNS_MAX {
            return Err(MaskError::Many {
                count: patterns.len(),
            });
        }
        let mut parsed = Vec::with_capacity(patterns.len());
        for (index, pattern) in patterns.iter().enumerate() {
            let (before, _) = patterns.split_at(index);
            check_name(&pattern.name, before)?;
            parsed.push(parse(pattern)?);
        }
        if parsed.is_empty() {
            return Ok(None);
        }
        let Some(regex) = compile(&parsed) else {
            return Err(MaskError::Large {
                name: first_too_large(patterns, &parsed),
            });
        };
        for (pattern, hir) in patterns.iter().zip(&parsed) {
            if let Some(octets) = is_far(hir) {
                let name = pattern.name.clone();
                return Err(MaskError::Far { name, octets });
            }
        }
        Ok(Some(Self { regex }))
    }

    /// The matches in `text`, from left to right, each with the index of its pattern.
    pub(super) fn matches<'t>(
        &'t self,
        text: &'t [u8],
    ) -> impl Iterator<Item = (Range<usize>, usize)> + 't {
        self.regex
            .find_iter(text)
            .filter(|found| !found.is_empty())
            .take(MASK_MATCHES_MAX)
            .map(|found| (found.range(), found.pattern().as_usize()))
    }
}

fn check_name(name: &str, before: &[Pattern]) -> Result<(), MaskError> {
    let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
    let why =
        if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(fits) {
            "a name is lower-case letters, digits and `_`, a letter first"
        } else if Builtin::named(name).is_some() {
            "a built-in mask has this name"
        } else if name == NO_MASKS {
            "`none` at the head of a list means no masks at all"
        } else if before.iter().any(|other| other.name == name) {
            "another mask has this name"
        } else {
            return Ok(());
        };
    Err(MaskError::Name {
        name: name.to_owned(),
        why,
    })
}

fn parse(pattern: &Pattern) -> Result<Hir, MaskError> {
    let Pattern { name, regex } = pattern.clone();
    if regex.len() > MASK_PATTERN_OCTETS_MAX {
        let octets = regex.len();
        return Err(MaskError::Long { name, octets });
    }
    match syntax_of(&regex) {
        Ok(hir) if hir.properties().minimum_len() == Some(0) => {
            Err(MaskError::Empty { name, regex })
        }
        Ok(hir) => Ok(hir),
        Err((at, what)) => Err(MaskError::Syntax {
            name,
            regex,
            at,
            what,
        }),
    }
}

/// The length of the shortest text that `hir` matches, if it is above the limit.
pub(crate) fn is_far(hir: &Hir) -> Option<usize> {
    let shortest = hir.properties().minimum_len();
    shortest.filter(|octets| *octets > MASK_MATCH_OCTETS_MAX)
}

/// Parses an expression on octets. An error is the place in it and the fault there.
pub(crate) fn syntax_of(regex: &str) -> Result<Hir, (usize, String)> {
    // Without Unicode's tables, and so that octets that are not UTF-8 may match.
    let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
    parser.parse(regex).map_err(|error| match &error {
        regex_syntax::Error::Parse(error) => (error.span().start.offset, error.kind().to_string()),
        regex_syntax::Error::Translate(error) => {
            (error.span().start.offset, error.kind().to_string())
        }
        other => (0, other.to_string()),
    })
}

/// Compiles `parsed`. `None` if the result is too large: nothing else can fail after parsing.
pub(crate) fn compile(parsed: &[Hir]) -> Option<Regex> {
    let config = Config::new()
        .match_kind(MatchKind::LeftmostFirst)
        .utf8_empty(false)
        .nfa_size_limit(Some(MASK_COMPILED_OCTETS_MAX));
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build_many_from_hir(parsed)
        .ok()
}

fn first_too_large(patterns: &[Pattern], parsed: &[Hir]) -> String {
    let mut counted = patterns.iter().zip(1..);
    let first = counted.find(|(_, count)| compile(parsed.split_at(*count).0).is_none());
    let (pattern, _) = first.expect("all of them together are too large");
    pattern.name.clone()
}

/// A list of masks that begins with this word replaces others and is not added to them.
pub const NO_MASKS: &str = "none";

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| {
        format!(", perhaps `{nearest}` was meant")
    })
}
