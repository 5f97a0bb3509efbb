//! Expressions on MSG: one for each rule that has one, and all of them together.
//!
//! # Guarantees
//!
//! - A search is linear in the text; the engine is that of `regex`. Texts are octets: `\d`, `\w`, `\b` and `(?i)` are
//!   ASCII, and `.` matches any octet but LF.
//! - An expression may match anywhere in the text; `^` and `$` are the ends of the text.
//! - A few expressions are searched one after the other, which is fast because of their literals. Many are searched in one
//!   pass, whose cost does not depend on their number.

use regex_automata::{
    Input, MatchKind, PatternSet,
    meta::{Config, Regex},
};
use regex_syntax::hir::Hir;

use crate::core::identity::mask::{compile_expressions, is_far, syntax_of};
use crate::core::limits::{
    EXPRESSION_CACHE_OCTETS, EXPRESSIONS_CACHE_OCTETS, MASK_COMPILED_OCTETS_MAX,
    MASK_MATCH_OCTETS_MAX, MASK_PATTERN_OCTETS_MAX,
};

/// An expression that MSG must match.
#[derive(Clone, Debug)]
pub struct Text {
    written: String,
    hir: Hir,
    regex: Regex,
}

/// Why an expression is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TextError {
    /// It is not a regular expression.
    #[error("at octet {at} of `{regex}`: {what}")]
    Syntax {
        /// The expression, as it was written.
        regex: String,
        /// The offset of the fault in it.
        at: usize,
        /// What is wrong there.
        what: String,
    },
    /// It is too long.
    #[error("an expression of {octets} octets, limit {MASK_PATTERN_OCTETS_MAX}")]
    Long {
        /// Its length.
        octets: usize,
    },
    /// It matches only texts that are too long.
    #[error("it matches nothing shorter than {octets} octets, limit {MASK_MATCH_OCTETS_MAX}")]
    Far {
        /// Octets of the shortest text that it matches.
        octets: usize,
    },
    /// It matches every text.
    #[error("`{regex}` matches every text; leave it out, or let it match at least one octet")]
    Empty {
        /// The expression, as it was written.
        regex: String,
    },
    /// It is too large when compiled, as `x{1000}{1000}` is.
    #[error(
        "compiled, the expressions take more than {MASK_COMPILED_OCTETS_MAX} octets, alone or together"
    )]
    Large,
}

impl Text {
    /// Compiles `regex`.
    ///
    /// # Errors
    ///
    /// If it is not a regular expression, is too large, or matches every text.
    pub fn new(regex: &str) -> Result<Self, TextError> {
        if regex.len() > MASK_PATTERN_OCTETS_MAX {
            let octets = regex.len();
            return Err(TextError::Long { octets });
        }
        let written = regex.to_owned();
        let hir = syntax_of(regex).map_err(|(at, what)| TextError::Syntax {
            regex: written.clone(),
            at,
            what,
        })?;
        let properties = hir.properties();
        if properties.minimum_len() == Some(0) && properties.look_set().is_empty() {
            return Err(TextError::Empty { regex: written });
        }
        let regex = compile_expressions(std::slice::from_ref(&hir)).ok_or(TextError::Large)?;
        if let Some(octets) = is_far(&hir) {
            return Err(TextError::Far { octets });
        }
        Ok(Self {
            written,
            hir,
            regex,
        })
    }

    /// The expression, as it was written.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Whether it matches anywhere in `text`.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Text {}

/// The expressions of a list of rules.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    each: Vec<Regex>,
    all: Option<Regex>,
}

impl Texts {
    /// The most memory that one thread needs to search for so many.
    pub(super) const fn cache_octets(texts: usize) -> usize {
        if texts > ONE_BY_ONE_MAX {
            EXPRESSIONS_CACHE_OCTETS
        } else {
            texts * EXPRESSION_CACHE_OCTETS
        }
    }

    pub(super) fn new(texts: &[&Text]) -> Result<Self, TextError> {
        let hirs: Vec<_> = texts.iter().map(|text| &text.hir).collect();
        let all = if texts.len() <= ONE_BY_ONE_MAX {
            None
        } else {
            let config = Config::new()
                .match_kind(MatchKind::All)
                .utf8_empty(false)
                .nfa_size_limit(Some(MASK_COMPILED_OCTETS_MAX))
                .hybrid_cache_capacity(EXPRESSIONS_CACHE_OCTETS);
            let regex = Regex::builder()
                .configure(config)
                .build_many_from_hir(&hirs)
                .map_err(|_| TextError::Large)?;
            Some(regex)
        };
        Ok(Self {
            each: texts.iter().map(|text| text.regex.clone()).collect(),
            all,
        })
    }

    /// Whether they are searched in one pass.
    pub(super) const fn are_many(&self) -> bool {
        self.all.is_some()
    }

    /// Whether the one at `index` matches.
    pub(super) fn one(&self, index: usize, text: &[u8]) -> bool {
        self.each[index].is_match(text)
    }

    /// Sets `found` to the indices of those that match.
    pub(super) fn all(&self, text: &[u8], found: &mut Option<PatternSet>) {
        let found = found.get_or_insert_with(|| PatternSet::new(self.each.len()));
        found.clear();
        if let Some(all) = &self.all {
            all.which_overlapping_matches(&Input::new(text), found);
        }
    }
}

/// The most that are searched one after the other. Measured on a text of 100 octets, one pass takes about as long as two or
/// three searches.
const ONE_BY_ONE_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_anywhere_unless_anchored() {
        let check = |regex: &str, text: &[u8], expected| {
            assert_eq!(Text::new(regex).unwrap().matches(text), expected, "{regex}");
        };
        check("fail(ed|ure)", b"auth failure", true);
        check("^fail", b"auth failure", false);
        check("(?i)FAIL", b"auth failure", true);
        check(r"\bx.y\b", b"a x\xffy b", true);
        check("^$", b"", true);
    }

    #[test]
    fn errors_say_where_and_what() {
        let error = |regex: &str| Text::new(regex).unwrap_err().to_string();
        assert_eq!(error("a(b"), "at octet 1 of `a(b`: unclosed group");
        assert!(error("a*").contains("matches every text"));
        assert!(error("x{1000}{1000}").contains("compiled"));
        assert!(error(&"x".repeat(5000)).contains("5000 octets"));
    }

    #[test]
    fn many_find_what_each_finds() {
        let texts: Vec<_> = (0..40)
            .map(|number| Text::new(&format!("(user|host){number}\\b")).unwrap())
            .collect();
        let all = Texts::new(&texts.iter().collect::<Vec<_>>()).unwrap();
        assert!(all.are_many());
        let mut found = None;
        for text in [&b"user3 host17 user39"[..], b"user40", b"", b"user3x user3"] {
            all.all(text, &mut found);
            let found: Vec<_> = found.iter().flat_map(PatternSet::iter).collect();
            let each: Vec<_> = (0..40).filter(|index| all.one(*index, text)).collect();
            let found: Vec<_> = found.iter().map(|pattern| pattern.as_usize()).collect();
            assert_eq!(found, each, "{}", text.escape_ascii());
        }
    }
}
