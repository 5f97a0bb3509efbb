//! Rules: which policy a message falls under, and what becomes of it.
//!
//! [`Rules`] is an ordered list. The first [`Rule`] whose [`Matcher`] takes a message decides; if none does, the
//! `[dedup]` section decides. The decision is a [`PolicyId`]. Each rule has its own, and so its own engines, counters and
//! name.
//!
//! ```text
//! message ──▶ PRI, listener ──▶ app_name ──▶ hostname ──▶ source ──▶ msg ──▶ the first rule that is left
//!             (rules that may match, as a set of bits; a step is taken only if a rule that is left needs it)
//! ```
//!
//! # Guarantees
//!
//! - A decision depends on the message, its listener and its sender only. There is always one.
//! - Rules are compiled once. A decision allocates nothing, except once per [`Scratch`] where many expressions are
//!   searched together.
//! - Each part of a message is looked at once at most, however many rules need it; but every expression costs.
//! - The rule from policy and verdict to outcome stands in one place ([`Fate`]).
//!
//! # Left out
//!
//! What the octets of an identity are (`identity`), and acting on a fate (`pipeline`, `replay`).

use std::time::Duration;

use crate::core::identity::{Sender, Spec};
use crate::core::limits::EXPRESSION_CACHE_OCTETS;
use crate::core::parse::Message;

pub use self::fate::{Annotation, Fate, Fates, Seen};
pub use self::glob::{Glob, GlobError};
use self::index::Index;
pub use self::index::{Reach, Scratch};
pub use self::matcher::{Facilities, Matcher, Severities};
pub use self::names::{
    FACILITIES, SEVERITIES, facility_name, facility_named, severity_name, severity_named,
};
pub use self::profile::Profile;
pub use self::text::{Text, TextError};

mod fate;
mod glob;
mod index;
mod matcher;
mod names;
mod profile;
mod text;

/// What a message falls under: an index into [`Rules::falls`], and into the engines of each shard.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyId(pub u16);

impl PolicyId {
    /// The index of this policy in a list that is ordered by id.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// When a message counts as a repeat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowPolicy {
    /// The age from which a copy is forwarded again. More than zero.
    pub window: Duration,
    /// Copies forwarded in one window. At least one.
    pub allow: u32,
    /// `Some(max_quiet)`: a repeat restarts the window, but a copy is forwarded at least every `max_quiet`, which is
    /// at least `window`. `None`: the window is fixed.
    pub refresh: Option<Duration>,
}

/// How the repeats of a message are reported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SummaryStyle {
    /// `message repeated N times: [ text]`.
    #[default]
    Prefix,
    /// `text [message repeated N times]`: a pattern that matched the text from its start still matches.
    Suffix,
    /// No summary is written; only the metrics have the counts.
    None,
}

/// What is done with the messages of a rule.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Action {
    /// Each message is forwarded once per window.
    #[default]
    Dedup,
    /// All are forwarded; nothing is remembered of them.
    Pass,
    /// None is forwarded.
    Drop,
}

/// Whether an action is carried out or only tried.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// A message that is to be suppressed or dropped is not forwarded.
    #[default]
    Enforce,
    /// It is forwarded with an annotation.
    Tag,
    /// It is forwarded as it came, and counted.
    Shadow,
}

/// How the messages of a rule are judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// When a message counts as a repeat.
    pub window: WindowPolicy,
    /// How repeats are reported, if they are suppressed ([`Policy::summary_style`]).
    pub summary: SummaryStyle,
    /// What makes two messages the same.
    pub identity: Spec,
    /// Whether repeats are suppressed.
    pub mode: Mode,
}

/// One rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Unique; stands in metrics and log lines.
    pub name: String,
    /// Which messages it takes.
    pub matcher: Matcher,
    /// What is done with them.
    pub action: Action,
    /// How it is done. For actions other than `Dedup` only the mode counts.
    pub policy: Policy,
}

/// What a message can fall under: a rule, or one of the two policies that no rule has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fall {
    /// The rule's name, or [`DEFAULT_NAME`].
    pub name: String,
    /// What is done with the message.
    pub action: Action,
    /// How it is done.
    pub policy: Policy,
}

/// The rules in force.
#[derive(Clone, Debug)]
pub struct Rules {
    /// By [`PolicyId`]: the `[dedup]` section, messages that are never suppressed, then the rules in order.
    falls: Vec<Fall>,
    rules: Vec<Rule>,
    index: Option<Box<Index>>,
}

impl Rules {
    /// An empty list: every message falls under `dedup`, except messages that are never suppressed.
    #[must_use]
    pub fn new(dedup: Policy) -> Self {
        let literal = Policy {
            window: WindowPolicy {
                window: dedup.window.window,
                allow: LITERAL_COPIES_MAX,
                refresh: None,
            },
            summary: SummaryStyle::None,
            identity: Spec::default(),
            mode: Mode::Enforce,
        };
        let fall = |policy| Fall {
            name: DEFAULT_NAME.to_owned(),
            action: Action::Dedup,
            policy,
        };
        Self {
            falls: vec![fall(dedup), fall(literal)],
            rules: Vec::new(),
            index: None,
        }
    }

    /// A list in which the first of `rules` that matches decides, and `dedup` if none does.
    ///
    /// # Errors
    ///
    /// If the expressions of all rules together are too large.
    ///
    /// # Panics
    ///
    /// If there are more than [`RULES_MAX`] rules. The configuration refuses so many.
    pub fn with(dedup: Policy, rules: Vec<Rule>) -> Result<Self, TextError> {
        assert!(
            rules.len() <= RULES_MAX,
            "the configuration refuses more than {RULES_MAX} rules"
        );
        let mut made = Self::new(dedup);
        if rules.is_empty() {
            return Ok(made);
        }
        made.index = Some(Box::new(Index::new(&rules)?));
        made.falls.extend(rules.iter().map(|rule| Fall {
            name: rule.name.clone(),
            action: rule.action,
            policy: rule.policy.clone(),
        }));
        made.rules = rules;
        Ok(made)
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Everything that a message can fall under, by [`PolicyId`].
    #[must_use]
    pub fn falls(&self) -> &[Fall] {
        &self.falls
    }

    /// All policies, by [`PolicyId`].
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.falls.iter().map(|fall| &fall.policy)
    }

    /// The most memory that one thread needs to search with the expressions of all rules and masks.
    #[must_use]
    pub fn cache_octets(&self) -> usize {
        let texts = self.rules.iter().filter(|rule| rule.matcher.msg.is_some());
        let mut sets: Vec<_> = self
            .policies()
            .map(|policy| policy.identity.masks())
            .filter(|masks| !masks.patterns().is_empty())
            .map(std::ptr::from_ref)
            .collect();
        sets.sort_unstable();
        sets.dedup();
        text::Texts::cache_octets(texts.count()) + sets.len() * EXPRESSION_CACHE_OCTETS
    }

    /// The rules that messages of the listener called `name` can fall under.
    #[must_use]
    pub fn reach(&self, name: &str) -> Reach {
        self.index
            .as_ref()
            .map_or_else(Reach::default, |index| index.reach(name))
    }

    /// What `message` falls under; `sender` sent it to a listener with that `reach`.
    #[must_use]
    #[inline]
    pub fn decide(
        &self,
        message: &Message<'_>,
        sender: Sender,
        reach: Reach,
        scratch: &mut Scratch,
    ) -> PolicyId {
        let Some(index) = &self.index else {
            return if message.never_suppress {
                LITERAL
            } else {
                DEFAULT
            };
        };
        let rule = index.first(message, sender, reach, scratch);
        let id = rule.map_or(DEFAULT, |rule| PolicyId(rule + FIRST_RULE));
        if message.never_suppress && self.fall(id).action == Action::Dedup {
            return LITERAL;
        }
        id
    }

    /// Searches `msg` for the expressions of all rules: the most work that a decision can take.
    pub(crate) fn search_all(&self, msg: &[u8], scratch: &mut Scratch) {
        if let Some(index) = &self.index {
            index.search_all(msg, scratch);
        }
    }

    /// What `id` stands for. An id may come from an older, longer list, whose windows are still being reported; if this
    /// list has no such id, the `[dedup]` section stands in.
    #[must_use]
    #[inline]
    pub fn fall(&self, id: PolicyId) -> &Fall {
        self.falls.get(id.index()).unwrap_or(&self.falls[0])
    }

    /// The policy of that id, as [`Rules::fall`] finds it.
    #[must_use]
    #[inline]
    pub fn policy(&self, id: PolicyId) -> &Policy {
        &self.fall(id).policy
    }

    /// The policy of `old` whose windows can continue under `id` of this list. It has the same name, and everything is
    /// equal that makes two messages the same or says what was done with repeats.
    #[must_use]
    pub fn continued(&self, id: PolicyId, old: &Self) -> Option<PolicyId> {
        let new = self.fall(id);
        let is_same = |old: &Fall| {
            (&old.name, old.action, old.policy.window, old.policy.mode)
                == (&new.name, new.action, new.policy.window, new.policy.mode)
                && old.policy.identity == new.policy.identity
        };
        // The two policies before the first rule share a name, and never change their ids.
        let candidates = if id < PolicyId(FIRST_RULE) {
            id.0..id.0 + 1
        } else {
            FIRST_RULE..u16::try_from(old.falls.len()).expect("a list has at most RULES_MAX rules")
        };
        candidates
            .map(PolicyId)
            .find(|id| old.falls.get(id.index()).is_some_and(is_same))
    }

    /// Rules that no message reaches, each with an earlier rule that takes all of its messages. A rule whose messages are
    /// taken by several earlier rules together is not found.
    pub fn shadowed(&self) -> impl Iterator<Item = (&Rule, &Rule)> {
        self.rules.iter().enumerate().filter_map(|(at, rule)| {
            let other = self.rules[..at]
                .iter()
                .find(|other| other.matcher.covers(&rule.matcher))?;
            Some((rule, other))
        })
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        (&self.falls, &self.rules) == (&other.falls, &other.rules)
    }
}

impl Eq for Rules {}

/// Messages that no rule takes fall under this.
pub const DEFAULT: PolicyId = PolicyId(0);

/// Messages that are never suppressed fall under this, unless a rule passes or drops them.
pub const LITERAL: PolicyId = PolicyId(1);

/// The name of both policies that no rule has.
pub const DEFAULT_NAME: &str = "default";

/// Rules at most. Each costs engines and a bit in a set; a longer list is a program.
pub const RULES_MAX: usize = 256;

/// Copies forwarded in one window of a message that is never suppressed. They are equal to the last octet of their
/// timestamp.
///
/// Two equal counts are two facts. More copies than these are one message in a loop: a relay whose upstream leads back to
/// it receives its own summaries, and nothing else would ever stop them.
pub const LITERAL_COPIES_MAX: u32 = 16;

/// The id of the first rule.
const FIRST_RULE: u16 = 2;

#[cfg(test)]
mod tests;
