//! What becomes of a line: as the daemon's `pipeline` decides it.
//!
//! # Guarantees
//!
//! - Each line is in exactly one of what goes out, what is held back and what is dropped.

use crate::dedup::Verdict;
use crate::dedup::annotation::Annotation;
use crate::rule::{Action, Fall, Mode, Policy, SummaryStyle};

/// What becomes of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It goes out.
    Out,
    /// It goes out, marked, because its rule is only tried.
    Tagged(Annotation),
    /// It goes out as it came, because its rule is only tried.
    Shadowed,
    /// It is held back as a repeat.
    Suppressed,
    /// Its rule drops it.
    Dropped,
}

impl Fate {
    /// What becomes of a line of `fall`; `verdict` is asked for only if it is judged.
    pub(super) fn of(fall: &Fall, verdict: impl FnOnce() -> Verdict) -> Self {
        let (tag, enforced) = match fall.action {
            Action::Pass => return Self::Out,
            Action::Drop => (Annotation::Dropped, Self::Dropped),
            Action::Dedup => match verdict() {
                Verdict::Fresh(_) => return Self::Out,
                Verdict::Duplicate => (Annotation::Repeated, Self::Suppressed),
            },
        };
        match fall.policy.mode {
            Mode::Enforce => enforced,
            Mode::Tag => Self::Tagged(tag),
            Mode::Shadow => Self::Shadowed,
        }
    }

    /// Whether the line goes out.
    pub(super) const fn goes_out(self) -> bool {
        matches!(self, Self::Out | Self::Tagged(_) | Self::Shadowed)
    }
}

/// Lines by what became of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Fates {
    pub(super) lines_in: u64,
    /// Tagged and shadowed ones are among them.
    pub(super) lines_out: u64,
    pub(super) tagged: u64,
    pub(super) shadowed: u64,
    pub(super) suppressed: u64,
    pub(super) dropped: u64,
}

impl Fates {
    /// Counts one line.
    pub(super) fn count(&mut self, fate: Fate) {
        self.lines_in += 1;
        self.lines_out += u64::from(fate.goes_out());
        match fate {
            Fate::Out => {}
            Fate::Tagged(_) => self.tagged += 1,
            Fate::Shadowed => self.shadowed += 1,
            Fate::Suppressed => self.suppressed += 1,
            Fate::Dropped => self.dropped += 1,
        }
    }
}

/// How repeats are reported: where the rule is only tried, no copy was held back.
pub(super) const fn summary_style(policy: &Policy) -> SummaryStyle {
    match policy.mode {
        Mode::Enforce => policy.summary,
        Mode::Tag | Mode::Shadow => SummaryStyle::None,
    }
}
