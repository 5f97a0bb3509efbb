//! Masks fold the variable parts of MSG, so that messages which differ only there have the same identity.
//!
//! [`Masks`] is a compiled set of them: some of the built-in ones ([`Builtin`]) and the user's own regular
//! expressions ([`Pattern`]). They affect identity alone. The message that is forwarded is never altered.
//!
//! ```text
//! msg        Failed password for root from 192.0.2.7 port 40022 ssh2
//! readable   Failed password for root from <ipv4> port <number> ssh2
//! identity   Failed password for root from ␚3 port ␚1 ssh2
//! ```
//!
//! # Guarantees
//!
//! - The user's masks come first. They see all of MSG; the leftmost match wins, and of two that begin
//!   together the one configured first. The built-in masks see the parts in between, each as a text of its
//!   own, in one pass.
//! - Equal identities have equal text outside the folded parts, and the same masks at the same places. A
//!   folded part is written as SUB (0x1a) and the code of its mask; a SUB of the message itself as SUB and
//!   0. So a message that says `<number>`, or holds any octets whatever, never equals a masked one. The
//!   readable form has no such guarantee: it is for people.
//! - No allocation per message once the caller's buffer (and a search's cache) has grown to its size.
//! - Linear in MSG, whatever MSG is. NUL, octets that are not UTF-8 and all others are ordinary octets.
//!
//! # Left out
//!
//! The choice of masks for a message: rules choose. Identities are comparable under equal masks only: the
//! code of a user's mask is its place in the set, not its name.

#![warn(clippy::indexing_slicing)]

mod address;
mod builtin;
mod hard;
mod hex;
mod late;
mod number;
mod octet;
mod outer;
mod pattern;
mod scan;
mod written_time;

use std::{fmt, ops::Range};

pub use self::builtin::{Builtin, BuiltinSet};
pub(crate) use self::hard::{HardTexts, Kind};
pub(crate) use self::late::{LATE_MATCHES, LateText};
use self::octet::part;
use self::pattern::Patterns;
pub use self::pattern::{MaskError, NO_MASKS, Pattern};
pub(crate) use self::pattern::{compile as compile_expressions, is_far, syntax_of};

/// A compiled set of masks. Two sets are equal if they were made of the same masks.
#[derive(Clone, Default)]
pub struct Masks {
    builtins: BuiltinSet,
    /// As configured. [`Mask::User`] holds an index into it.
    patterns: Vec<Pattern>,
    compiled: Option<Patterns>,
}

/// One mask of a set.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mask {
    /// A built-in mask.
    Builtin(Builtin),
    /// The user's mask of that index, in the order of the configuration.
    User(u8),
}

impl Masks {
    /// The set of `builtins` and `patterns`.
    ///
    /// # Errors
    ///
    /// If a pattern is no regular expression or too large, or a name is not allowed.
    pub fn new(builtins: BuiltinSet, patterns: Vec<Pattern>) -> Result<Self, MaskError> {
        Ok(Self {
            builtins,
            compiled: Patterns::new(&patterns)?,
            patterns,
        })
    }

    /// The set of the masks called `names`, each a built-in one or one of `patterns`. Those of `patterns` keep
    /// their order. Patterns that are not named are checked and left out.
    ///
    /// # Errors
    ///
    /// As [`Masks::new`], and if no mask has one of `names`.
    pub fn named<'n>(
        names: impl IntoIterator<Item = &'n str>,
        patterns: &[Pattern],
    ) -> Result<Self, MaskError> {
        Patterns::new(patterns)?;
        let mut builtins = BuiltinSet::EMPTY;
        let mut wanted = vec![false; patterns.len()];
        for name in names {
            let mut known = patterns.iter().zip(&mut wanted);
            if let Some((_, wanted)) = known.find(|(pattern, _)| pattern.name == name) {
                *wanted = true;
            } else if let Some(builtin) = Builtin::named(name) {
                builtins = builtins.with(builtin);
            } else {
                return Err(MaskError::unknown(name, patterns));
            }
        }
        let chosen = patterns.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        Self::new(
            builtins,
            chosen.map(|(pattern, _)| pattern.clone()).collect(),
        )
    }

    /// Whether the set holds no mask.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.builtins.is_empty() && self.patterns.is_empty()
    }

    /// The built-in masks of the set.
    #[must_use]
    pub const fn builtins(&self) -> BuiltinSet {
        self.builtins
    }

    /// The user's masks, as configured.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The name of `mask`, which is of this set.
    #[must_use]
    pub fn name(&self, mask: Mask) -> &str {
        match mask {
            Mask::Builtin(builtin) => builtin.name(),
            Mask::User(index) => {
                let pattern = self.patterns.get(usize::from(index));
                &pattern.expect("the mask is of this set").name
            }
        }
    }

    /// Calls `folded` with each folded part of `msg` and its mask, from left to right. Parts do not overlap
    /// and are not empty.
    pub fn each(&self, msg: &[u8], mut folded: impl FnMut(Range<usize>, Mask)) {
        let mut from = 0;
        if let Some(compiled) = &self.compiled {
            for (range, index) in compiled.matches(msg) {
                self.between(msg, from..range.start, &mut folded);
                from = range.end;
                let index = u8::try_from(index).expect("MASK_PATTERNS_MAX fits into an octet");
                folded(range, Mask::User(index));
            }
        }
        self.between(msg, from..msg.len(), &mut folded);
    }

    /// Appends the identity's form of `msg` to `out`.
    pub fn write_identity(&self, msg: &[u8], out: &mut Vec<u8>) {
        // Hardly any message holds a SUB, so it is searched for once and not in every part.
        let plain = memchr::memchr(SUB, msg).is_none();
        let literal = |out: &mut Vec<u8>, part: &[u8]| {
            if plain {
                out.extend_from_slice(part);
            } else {
                escape(part, out);
            }
        };
        let mut from = 0;
        self.each(msg, |range, mask| {
            literal(out, part(msg, from..range.start));
            out.extend_from_slice(&[SUB, code(mask)]);
            from = range.end;
        });
        literal(out, part(msg, from..msg.len()));
    }

    /// Appends `msg` to `out`, with `<name>` in place of each folded part.
    pub fn write_readable(&self, msg: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        self.each(msg, |range, mask| {
            out.extend_from_slice(part(msg, from..range.start));
            out.push(b'<');
            out.extend_from_slice(self.name(mask).as_bytes());
            out.push(b'>');
            from = range.end;
        });
        out.extend_from_slice(part(msg, from..msg.len()));
    }

    /// Applies the built-in masks to one part of `msg`.
    #[inline]
    fn between(
        &self,
        msg: &[u8],
        range: Range<usize>,
        folded: &mut impl FnMut(Range<usize>, Mask),
    ) {
        if self.builtins.is_empty() {
            return;
        }
        let start = range.start;
        scan::scan(part(msg, range), self.builtins, &mut |range, builtin| {
            folded(
                start + range.start..start + range.end,
                Mask::Builtin(builtin),
            );
        });
    }
}

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        (self.builtins, &self.patterns) == (other.builtins, &other.patterns)
    }
}

impl Eq for Masks {}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks")
            .field("builtins", &self.builtins)
            .field("patterns", &self.patterns)
            .finish_non_exhaustive()
    }
}

/// The octet behind [`SUB`] that stands for `mask`. No mask has zero.
const fn code(mask: Mask) -> u8 {
    match mask {
        Mask::Builtin(builtin) => builtin as u8,
        Mask::User(index) => CODE_USER + index,
    }
}

fn escape(part: &[u8], out: &mut Vec<u8>) {
    let mut parts = part.split(|octet| *octet == SUB);
    out.extend_from_slice(parts.next().expect("a split yields one part at least"));
    for part in parts {
        out.extend_from_slice(&[SUB, CODE_ITSELF]);
        out.extend_from_slice(part);
    }
}

const SUB: u8 = 0x1a;

/// Behind SUB: the SUB stood in the message.
const CODE_ITSELF: u8 = 0;

/// Behind SUB: the first of the user's masks. There are `MASK_PATTERNS_MAX` of them at most.
const CODE_USER: u8 = 0x40;

#[cfg(test)]
mod tests;
