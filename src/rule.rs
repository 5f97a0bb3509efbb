//! Which policy a message falls under.
//!
//! A [`Policy`] says what happens to a message: how long its window is, how many copies pass, how
//! its repeats are reported. [`Rules::policy_for`] picks one. In this version there is one policy, the
//! `[dedup]` section; the first matching rule of an ordered list will be picked here.
//!
//! # Guarantees
//!
//! - Deciding looks at the message, its listener and its sender only, allocates nothing, and always
//!   gives a policy.

use std::time::Duration;

use crate::parse::Message;

/// Which policy: the position in [`Rules::policies`], and of its engine in each shard.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyId(pub u16);

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

/// What is done with the messages of one rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// When a message counts as said already.
    pub window: WindowPolicy,
    /// How its repeats are reported.
    pub summary: SummaryStyle,
}

/// The policies in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// By [`PolicyId`]; never empty. The last one is that of messages that are never suppressed.
    policies: Vec<Policy>,
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
        };
        Self {
            policies: vec![dedup, literal],
        }
    }

    /// All policies, by [`PolicyId`].
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The policy that `message` falls under.
    #[must_use]
    pub const fn policy_for(&self, message: &Message<'_>) -> PolicyId {
        PolicyId(if message.never_suppress { 1 } else { 0 })
    }

    /// The policy of that id; the default one if the id is from an older set of rules.
    #[must_use]
    pub fn policy(&self, id: PolicyId) -> &Policy {
        self.policies
            .get(usize::from(id.0))
            .unwrap_or(&self.policies[0])
    }
}

/// Copies of a message that is never suppressed, equal to the last octet of their timestamp, that
/// pass in one window.
///
/// Two equal counts are two facts, but more than these are one that goes round: a relay whose
/// upstream leads back to it gets its own summaries, and nothing else would ever stop them.
pub const LITERAL_COPIES_MAX: u32 = 16;
