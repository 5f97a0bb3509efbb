//! Rules: what is done with a message, and when it counts as said already.
//!
//! [`Rules`] is an ordered list. The first [`Rule`] whose [`Matcher`] takes a message decides; where none does, the
//! `[dedup]` section. What was decided is a [`PolicyId`]: each rule has one of its own, and so engines, counts
//! and a name of its own.
//!
//! ```text
//! message ──▶ PRI, listener ──▶ app_name ──▶ hostname ──▶ source ──▶ msg ──▶ the first rule that is left
//!             (rules that may match, as a set of bits; each step is taken only if a rule still in question asks)
//! ```
//!
//! # Guarantees
//!
//! - Deciding looks at the message, its listener and its sender only, and always gives a policy.
//! - Rules are compiled once. Deciding allocates nothing, except once per [`Scratch`] where many expressions are
//!   searched together.
//! - Each part of a message is looked at once at most, however many rules ask for it; but every expression costs.
//!
//! # Left out
//!
//! What the octets of an identity are (`identity`), and what is done by the verdict (`pipeline`).

use std::time::Duration;

use crate::identity::{Sender, Spec};
use crate::limits::EXPRESSION_CACHE_OCTETS;
use crate::parse::Message;

pub use self::glob::{Glob, GlobError};
use self::index::Index;
pub use self::index::{Reach, Scratch};
pub use self::matcher::{FACILITIES, Facilities, Matcher, SEVERITIES, Severities};
pub use self::profile::Profile;
pub use self::text::{Text, TextError};

mod glob;
mod index;
mod matcher;
mod profile;
mod text;

/// What a message falls under: the position in [`Rules::falls`], and of its engine in each shard.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyId(pub u16);

impl PolicyId {
    /// Where this policy's own things stand in a list by id.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// When a message counts as said already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowPolicy {
    /// Age from which on a copy is forwarded again. More than zero.
    pub window: Duration,
    /// Copies forwarded in one window. At least one.
    pub allow: u32,
    /// `Some(max_quiet)`: a repeat restarts the window, but a copy goes out at least every `max_quiet`
    /// (at least `window`). `None`: the window is fixed.
    pub refresh: Option<Duration>,
}

/// How the repeats of a message are reported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SummaryStyle {
    /// `message repeated N times: [ text]`.
    #[default]
    Prefix,
    /// `text [repeated N times]`: what matched the text from its start still does.
    Suffix,
    /// No summary goes out; the counts stand in the metrics alone.
    None,
}

/// What is done with the messages of a rule.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Action {
    /// Each goes out once per window.
    #[default]
    Dedup,
    /// All go out; nothing is remembered of them.
    Pass,
    /// None goes out.
    Drop,
}

/// How serious an action is meant, so that people can try before they drop.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// What is to be held back or dropped does not go out.
    #[default]
    Enforce,
    /// It goes out, marked.
    Tag,
    /// It goes out as it came, and is counted.
    Shadow,
}

/// How the messages of a rule are judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// When a message counts as said already.
    pub window: WindowPolicy,
    /// How its repeats are reported. Nothing is held back, and so nothing reported, unless `mode` is to enforce.
    pub summary: SummaryStyle,
    /// What makes two messages the same.
    pub identity: Spec,
    /// What becomes of repeats.
    pub mode: Mode,
}

/// One rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Unique; in metrics and messages.
    pub name: String,
    /// Which messages are its own.
    pub matcher: Matcher,
    /// What is done with them.
    pub action: Action,
    /// How, if that is to dedup. Of other actions the mode alone counts.
    pub policy: Policy,
}

/// What a message can fall under: a rule, or what there is beside them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fall {
    /// The rule's name, or [`DEFAULT_NAME`].
    pub name: String,
    /// What is done.
    pub action: Action,
    /// How.
    pub policy: Policy,
}

/// The rules in force.
#[derive(Clone, Debug)]
pub struct Rules {
    /// By [`PolicyId`]: the `[dedup]` section, messages that are never suppressed, then the rules in their order.
    falls: Vec<Fall>,
    rules: Vec<Rule>,
    index: Option<Box<Index>>,
}

impl Rules {
    /// Rules where every message falls under `dedup`, except those that are never suppressed.
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

    /// Rules where the first of `rules` that matches decides, and `dedup` where none does.
    ///
    /// # Errors
    ///
    /// If there are more than [`RULES_MAX`], or their expressions are too large together.
    pub fn with(dedup: Policy, rules: Vec<Rule>) -> Result<Self, TextError> {
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

    /// The rules, in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// All that a message can fall under, by [`PolicyId`].
    #[must_use]
    pub fn falls(&self) -> &[Fall] {
        &self.falls
    }

    /// All policies, by [`PolicyId`].
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.falls.iter().map(|fall| &fall.policy)
    }

    /// The most memory that expressions of rules and masks take on one thread that searches with them.
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

    /// Which rules messages of the listener called `name` can fall under.
    #[must_use]
    pub fn reach(&self, name: &str) -> Reach {
        self.index
            .as_ref()
            .map_or_else(Reach::default, |index| index.reach(name))
    }

    /// What `message` falls under, which `sender` sent to a listener of that reach.
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

    /// Searches `msg` for the expressions of all rules: the most that deciding can take.
    pub(crate) fn search_all(&self, msg: &[u8], scratch: &mut Scratch) {
        if let Some(index) = &self.index {
            index.search_all(msg, scratch);
        }
    }

    /// What that id stands for; the default one if the id is from an older set of rules.
    #[must_use]
    #[inline]
    pub fn fall(&self, id: PolicyId) -> &Fall {
        self.falls.get(id.index()).unwrap_or(&self.falls[0])
    }

    /// The policy of that id; the default one if the id is from an older set of rules.
    #[must_use]
    #[inline]
    pub fn policy(&self, id: PolicyId) -> &Policy {
        &self.fall(id).policy
    }

    /// The policy of `old` whose windows can go on as the one of that id: of the same name, and equal in everything
    /// that makes two messages the same or says what was done with repeats.
    #[must_use]
    pub fn continued(&self, id: PolicyId, old: &Self) -> Option<PolicyId> {
        let new = self.fall(id);
        let is_same = |old: &Fall| {
            (&old.name, old.action, old.policy.window, old.policy.mode)
                == (&new.name, new.action, new.policy.window, new.policy.mode)
                && old.policy.identity == new.policy.identity
        };
        // The first two have the same name, and stay where they are.
        let candidates = if id < PolicyId(FIRST_RULE) {
            id.0..id.0 + 1
        } else {
            FIRST_RULE..u16::try_from(old.falls.len()).unwrap_or(u16::MAX)
        };
        candidates
            .map(PolicyId)
            .find(|id| old.falls.get(id.index()).is_some_and(is_same))
    }

    /// Rules that no message reaches, each with the rule before it that takes all of its messages. Only what is
    /// easily told: a rule that several others take apart between them is not found.
    pub fn shadowed(&self) -> impl Iterator<Item = (&Rule, &Rule)> {
        self.rules.iter().enumerate().filter_map(|(at, rule)| {
            let before = self.rules.get(..at).unwrap_or_default();
            let other = before
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

/// What messages fall under that no rule matches.
pub const DEFAULT: PolicyId = PolicyId(0);

/// What messages fall under that are never suppressed, unless a rule passes or drops them.
pub const LITERAL: PolicyId = PolicyId(1);

/// The name of what is no rule.
pub const DEFAULT_NAME: &str = "default";

/// Rules at most. Each costs engines and a bit in a set; a list beyond this is a program.
pub const RULES_MAX: usize = 256;

/// Copies of a message that is never suppressed, equal to the last octet of their timestamp, that
/// pass in one window.
///
/// Two equal counts are two facts, but more than these are one that goes round: a relay whose
/// upstream leads back to it gets its own summaries, and nothing else would ever stop them.
pub const LITERAL_COPIES_MAX: u32 = 16;

/// The id of the first rule.
const FIRST_RULE: u16 = 2;

#[cfg(test)]
mod tests;
