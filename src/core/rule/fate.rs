//! Fates: the rule from a policy and a verdict to what becomes of a message.
//!
//! ```text
//! action  mode       fresh        repeat       no engine judges it
//! dedup   enforce    forwarded    suppressed   forwarded (only a compressed message)
//! dedup   tag        forwarded    annotated    forwarded (likewise)
//! dedup   shadow     forwarded    shadowed     forwarded (likewise)
//! pass    any                                  forwarded
//! drop    enforce                              dropped
//! drop    tag                                  annotated
//! drop    shadow                               shadowed
//! ```
//!
//! # Guarantees
//!
//! - This is the only place that has the rule. The relay (`pipeline`), `replay` and the ledger ask it.
//! - Each message has exactly one fate: `matched = forwarded + suppressed + dropped` ([`Fates`]). Annotated and shadowed
//!   messages are forwarded.
//!
//! # Left out
//!
//! The verdict. `dedup` comes after `rule` in the flow and names it, so this file cannot name `dedup::Verdict`. It needs
//! only one bit of a verdict: [`Seen`]. What an annotation looks like is left to `dedup::annotation` for the same reason.

use super::{Action, Fall, Mode, Policy, SummaryStyle};

/// Whether the engine has forwarded the message within its window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// No. Also stands for a message that no engine judges.
    Fresh,
    /// Yes.
    Repeat,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is forwarded as it came. If an engine judged it, its window belongs to this delivery.
    Forwarded,
    /// It is forwarded with an annotation, because its rule is in mode `tag`.
    Annotated(Annotation),
    /// It is forwarded as it came, because its rule is in mode `shadow`.
    Shadowed,
    /// It is a repeat and is not forwarded. Only such a message becomes a copy for `[suppressed]`, and only such a message
    /// is counted in a summary.
    Suppressed,
    /// Its rule drops it.
    Dropped,
}

/// What an enforced rule would have done with the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Annotation {
    /// Suppressed it as a repeat.
    Repeated,
    /// Dropped it.
    Dropped,
}

/// Messages by their fate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fates {
    /// All of them.
    pub matched: u64,
    /// Forwarded with an annotation.
    pub annotated: u64,
    /// Forwarded as they came, in mode `shadow`.
    pub shadowed: u64,
    /// Repeats that were not forwarded.
    pub suppressed: u64,
    /// Dropped by rule.
    pub dropped: u64,
}

impl Fate {
    /// The fate of a message that falls under `fall`.
    #[must_use]
    #[inline]
    pub const fn of(fall: &Fall, seen: Seen) -> Self {
        let (annotation, enforced) = match (fall.action, seen) {
            (Action::Pass, _) | (Action::Dedup, Seen::Fresh) => return Self::Forwarded,
            (Action::Dedup, Seen::Repeat) => (Annotation::Repeated, Self::Suppressed),
            (Action::Drop, _) => (Annotation::Dropped, Self::Dropped),
        };
        match fall.policy.mode {
            Mode::Enforce => enforced,
            Mode::Tag => Self::Annotated(annotation),
            Mode::Shadow => Self::Shadowed,
        }
    }

    /// The fate of a message that no engine judges: its rule passes or drops, or it is `compressed`. `None` if an engine
    /// judges it.
    ///
    /// A compressed message is forwarded even where others that are never suppressed are judged, to stop a loop
    /// ([`LITERAL_COPIES_MAX`](super::LITERAL_COPIES_MAX)): its text cannot be read, so equal octets prove nothing.
    #[must_use]
    #[inline]
    pub const fn unjudged(fall: &Fall, compressed: bool) -> Option<Self> {
        match fall.action {
            Action::Dedup if !compressed => None,
            Action::Dedup | Action::Pass | Action::Drop => Some(Self::of(fall, Seen::Fresh)),
        }
    }

    /// Whether the message is forwarded.
    #[must_use]
    #[inline]
    pub const fn is_forwarded(self) -> bool {
        match self {
            Self::Forwarded | Self::Annotated(_) | Self::Shadowed => true,
            Self::Suppressed | Self::Dropped => false,
        }
    }
}

impl Fates {
    /// Counts one message.
    #[inline]
    pub const fn count(&mut self, fate: Fate) {
        self.matched += 1;
        match fate {
            Fate::Forwarded => {}
            Fate::Annotated(_) => self.annotated += 1,
            Fate::Shadowed => self.shadowed += 1,
            Fate::Suppressed => self.suppressed += 1,
            Fate::Dropped => self.dropped += 1,
        }
    }

    /// Messages that were forwarded.
    #[must_use]
    pub const fn forwarded(&self) -> u64 {
        self.matched - self.suppressed - self.dropped
    }
}

impl Policy {
    /// How its repeats are reported. Unless the policy is enforced, no repeat was suppressed and there is nothing to
    /// report.
    #[must_use]
    pub const fn summary_style(&self) -> SummaryStyle {
        match self.mode {
            Mode::Enforce => self.summary,
            Mode::Tag | Mode::Shadow => SummaryStyle::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::core::rule::tests::policy;

    fn fall(action: Action, mode: Mode) -> Fall {
        let mut fall = Rules::new(policy(10)).falls()[0].clone();
        fall.action = action;
        fall.policy.mode = mode;
        fall
    }

    #[test]
    fn every_action_mode_and_verdict_has_its_fate() {
        use Annotation::{Dropped, Repeated};
        use Fate::{Annotated, Forwarded, Shadowed, Suppressed};
        let dropped = Fate::Dropped;
        for (action, mode, fresh, repeat, unjudged, compressed) in [
            (
                Action::Dedup,
                Mode::Enforce,
                Forwarded,
                Suppressed,
                None,
                Forwarded,
            ),
            (
                Action::Dedup,
                Mode::Tag,
                Forwarded,
                Annotated(Repeated),
                None,
                Forwarded,
            ),
            (
                Action::Dedup,
                Mode::Shadow,
                Forwarded,
                Shadowed,
                None,
                Forwarded,
            ),
            (
                Action::Pass,
                Mode::Enforce,
                Forwarded,
                Forwarded,
                Some(Forwarded),
                Forwarded,
            ),
            (
                Action::Pass,
                Mode::Tag,
                Forwarded,
                Forwarded,
                Some(Forwarded),
                Forwarded,
            ),
            (
                Action::Pass,
                Mode::Shadow,
                Forwarded,
                Forwarded,
                Some(Forwarded),
                Forwarded,
            ),
            (
                Action::Drop,
                Mode::Enforce,
                dropped,
                dropped,
                Some(dropped),
                dropped,
            ),
            (
                Action::Drop,
                Mode::Tag,
                Annotated(Dropped),
                Annotated(Dropped),
                Some(Annotated(Dropped)),
                Annotated(Dropped),
            ),
            (
                Action::Drop,
                Mode::Shadow,
                Shadowed,
                Shadowed,
                Some(Shadowed),
                Shadowed,
            ),
        ] {
            let fall = fall(action, mode);
            let case = format!("{action:?} {mode:?}");
            assert_eq!(Fate::of(&fall, Seen::Fresh), fresh, "{case}");
            assert_eq!(Fate::of(&fall, Seen::Repeat), repeat, "{case}");
            assert_eq!(Fate::unjudged(&fall, false), unjudged, "{case}");
            assert_eq!(Fate::unjudged(&fall, true), Some(compressed), "{case}");
        }
    }

    #[test]
    fn each_fate_is_counted_once_and_the_counts_add_up() {
        let mut fates = Fates::default();
        for fate in [
            Fate::Forwarded,
            Fate::Annotated(Annotation::Repeated),
            Fate::Annotated(Annotation::Dropped),
            Fate::Shadowed,
            Fate::Suppressed,
            Fate::Dropped,
        ] {
            let before = fates.forwarded();
            fates.count(fate);
            let forwarded = u64::from(fate.is_forwarded());
            assert_eq!(fates.forwarded() - before, forwarded, "{fate:?}");
        }
        let expected = Fates {
            matched: 6,
            annotated: 2,
            shadowed: 1,
            suppressed: 1,
            dropped: 1,
        };
        assert_eq!(fates, expected);
    }

    #[test]
    fn a_summary_is_written_only_where_repeats_are_suppressed() {
        for style in [
            SummaryStyle::Prefix,
            SummaryStyle::Suffix,
            SummaryStyle::None,
        ] {
            for (mode, expected) in [
                (Mode::Enforce, style),
                (Mode::Tag, SummaryStyle::None),
                (Mode::Shadow, SummaryStyle::None),
            ] {
                let mut policy = policy(10);
                (policy.summary, policy.mode) = (style, mode);
                assert_eq!(policy.summary_style(), expected, "{style:?} {mode:?}");
            }
        }
    }
}
