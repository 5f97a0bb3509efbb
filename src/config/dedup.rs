//! `[dedup]`, and the policy that it and each `[[rule]]` describe with the same keys.
//!
//! # Guarantees
//!
//! - A rule takes what it leaves out from its profile, and what the profile leaves out from `[dedup]`. (`masks` says
//!   how masks are added up.)

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cost::OwnMasks;
use super::error::Fault;
use super::masks::{chosen, mask_names};
use super::report::{Report, join};
use super::section::{Scope, Section, Visitor};
use super::units::time_text;
use super::value::{
    Maybe, Scalar, Set, Words, absolute_path, auto, boolean, choice, count, duration, field, list,
    name, power_of_two, size, unless,
};
use super::{
    ALLOW_MAX, MAX_QUIET_WINDOWS, MEMORY_MAX, MEMORY_MIN, MIB, SHARDS_MAX, WINDOW_MAX, WINDOW_MIN,
    cores,
};
use crate::core::identity::{Field, Fields, IdentityKind, Spec};
use crate::core::rule::{Mode, Policy, Profile, SummaryStyle, WindowPolicy};

/// Which messages count as repeats, and what is remembered of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DedupConfig {
    /// The policy of messages that no rule matches.
    pub policy: Policy,
    /// Octets that all engines together may use.
    pub memory: usize,
    /// What is kept of a message to compare with.
    pub identity: IdentityKind,
    /// How many engines share the work; a power of two, at most [`SHARDS_MAX`], for which `memory` is enough.
    pub shards: usize,
    /// Where windows are saved from a stop to the next start; `None` means nowhere.
    pub state: Option<PathBuf>,
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self {
            policy: Policy {
                window: WindowPolicy {
                    window: Duration::from_secs(10),
                    allow: 1,
                    refresh: None,
                },
                summary: SummaryStyle::Prefix,
                identity: Spec::default(),
                mode: Mode::Enforce,
            },
            memory: 256 * MIB,
            identity: IdentityKind::Exact,
            shards: (4 * cores()).next_power_of_two().min(SHARDS_MAX),
            state: None,
        }
    }
}

/// `shards` of a draft that leaves the number open; `fit` chooses one.
pub(super) const AUTO_SHARDS: usize = 0;

/// All but the keys of its policy.
impl Section for DedupConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let shards = auto(AUTO_SHARDS, power_of_two(SHARDS_MAX));
        let state = unless("off", absolute_path("/var/lib/tersed/windows"));
        let v = visitor;
        v.key("memory", size(MEMORY_MIN, MEMORY_MAX), &mut self.memory);
        v.key("identity", choice(&IDENTITY), &mut self.identity);
        v.key("shards", shards, &mut self.shards);
        v.key("state", state, &mut self.state);
    }
}

/// The keys of a policy; `None` means that the key is not written.
#[derive(Clone, Default)]
pub(super) struct PolicyKeys {
    window: Option<Duration>,
    allow: Option<u32>,
    refresh: Option<bool>,
    max_quiet: Option<Duration>,
    summary: Option<SummaryStyle>,
    mode: Option<Mode>,
    fields: Option<Fields>,
    mask: Option<Vec<String>>,
}

impl PolicyKeys {
    /// All keys of `policy`.
    pub(super) fn of(policy: &Policy) -> Self {
        let Policy {
            window,
            summary,
            identity,
            mode,
        } = policy;
        Self {
            window: Some(window.window),
            allow: Some(window.allow),
            refresh: Some(window.refresh.is_some()),
            max_quiet: window.refresh,
            summary: Some(*summary),
            mode: Some(*mode),
            fields: Some(identity.fields()),
            mask: Some(mask_names(identity.masks())),
        }
    }

    /// Shows `v` the keys about windows.
    pub(super) fn visit_windows(&mut self, v: &mut impl Visitor, scope: Scope) {
        let time = || Maybe(duration(WINDOW_MIN, WINDOW_MAX));
        v.key_in(scope, "window", time(), &mut self.window);
        v.key_in(scope, "allow", Maybe(count(1, ALLOW_MAX)), &mut self.allow);
        v.key_in(scope, "refresh", Maybe(boolean()), &mut self.refresh);
        v.key_in(scope, "max_quiet", time(), &mut self.max_quiet);
        v.key_in(scope, "summary", Maybe(choice(&SUMMARY)), &mut self.summary);
    }

    /// Shows `v` the key that says what is done with repeats.
    pub(super) fn visit_mode(&mut self, v: &mut impl Visitor, scope: Scope) {
        v.key_in(scope, "mode", Maybe(choice(&MODE)), &mut self.mode);
    }

    /// Shows `v` the keys that say what makes two messages the same.
    pub(super) fn visit_identity(&mut self, v: &mut impl Visitor, scope: Scope) {
        let masks = list(
            "a list of masks, such as [\"number\", \"ipv4\"]; [] for none",
            0,
            name(),
        );
        v.key_in(scope, "fields", Maybe(fields()), &mut self.fields);
        v.key_in(scope, "mask", Maybe(masks), &mut self.mask);
    }

    /// The policy of the table at `path`, which errors call `section`. A key that is not written has the value
    /// of `profile`, or else that of `default`.
    pub(super) fn resolve(
        &self,
        (section, path): (&'static str, &str),
        profile: Option<&Profile>,
        default: &Policy,
        masks: &OwnMasks,
        report: &mut Report,
    ) -> Policy {
        let has_own_window = profile.is_some() || self.window.is_some();
        let of_profile = profile.map(|profile| profile.window);
        let window = self.window.or(of_profile).unwrap_or(default.window.window);
        let refreshes = self.refresh.unwrap_or(default.window.refresh.is_some());
        self.refuse_idle_max_quiet(section, path, window, refreshes, report);
        let max_quiet = match default.window.refresh {
            Some(max_quiet) if !has_own_window => max_quiet,
            _ => window.saturating_mul(MAX_QUIET_WINDOWS).min(WINDOW_MAX),
        };
        let max_quiet = self.max_quiet.unwrap_or(max_quiet);
        let spec = profile.map_or_else(|| default.identity.clone(), Profile::spec);
        let masks = match &self.mask {
            Some(names) => {
                let of_profile = profile.map(|_| spec.masks());
                let path = join(path, "mask");
                Arc::new(chosen(names, &path, of_profile, masks, report))
            }
            None => spec.masks_shared(),
        };
        Policy {
            window: WindowPolicy {
                window,
                allow: self.allow.unwrap_or(default.window.allow),
                refresh: refreshes.then_some(max_quiet),
            },
            summary: self.summary.unwrap_or(default.summary),
            identity: Spec::new(self.fields.unwrap_or(spec.fields()), masks),
            mode: self.mode.unwrap_or(default.mode),
        }
    }

    fn refuse_idle_max_quiet(
        &self,
        section: &'static str,
        path: &str,
        window: Duration,
        refreshes: bool,
        report: &mut Report,
    ) {
        let Some(max_quiet) = self.max_quiet else {
            return;
        };
        let at = report.place(&join(path, "max_quiet"));
        if !refreshes && !report.is_refused(&join(path, "refresh")) {
            report.fault(&at, Fault::MaxQuietWithoutRefresh { section });
        }
        if max_quiet < window && !report.is_refused(&join(path, "window")) {
            let expected = format!("at least {section}.window, {}", time_text(window));
            report.unfit(&at, &time_text(max_quiet), expected);
        }
    }
}

fn fields() -> Set<Scalar<Field>, Field, Fields> {
    let expected = "a list of one or more fields, such as [\"hostname\", \"app_name\", \"msg\"]";
    Set {
        list: list(expected, 1, field()),
        of: |fields| fields.into_iter().collect(),
        elements: |fields| fields.iter().collect(),
    }
}

pub(crate) fn field_names(fields: Fields) -> Vec<&'static str> {
    fields.iter().map(Field::name).collect()
}

pub(crate) const SUMMARY: Words<SummaryStyle> = Words(&[
    ("prefix", SummaryStyle::Prefix),
    ("suffix", SummaryStyle::Suffix),
    ("none", SummaryStyle::None),
]);
pub(crate) const MODE: Words<Mode> = Words(&[
    ("enforce", Mode::Enforce),
    ("tag", Mode::Tag),
    ("shadow", Mode::Shadow),
]);
pub(crate) const IDENTITY: Words<IdentityKind> = Words(&[
    ("exact", IdentityKind::Exact),
    ("compact", IdentityKind::Compact),
]);
