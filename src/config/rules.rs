//! From rules as written to rules that run, and what is odd about them.
//!
//! # Guarantees
//!
//! - What a rule does not say it takes from its profile, and what that does not say from `[dedup]`. (`masks` says how
//!   masks are added up.)
//! - A key that does nothing under the action it stands with is an error.
//! - A rule that can never be reached, or names a listener that is not there, is told as a warning: it does no harm, and
//!   a flag or a passed socket may bring the listener.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cost::{OwnMasks, refuse_costly_rules, refuse_costly_text};
use super::error::{At, ConfigError, Fault, quoted};
use super::file::RuleFile;
use super::masks::chosen;
use super::resolve::unfit;
use super::value::{Given, Slot, time_text};
use super::{Config, MAX_QUIET_WINDOWS, WINDOW_MAX};
use crate::identity::{Field, Fields, Spec};
use crate::rule::{
    Action, DEFAULT_NAME, Facilities, Matcher, Mode, Policy, Profile, RULES_MAX, Rule, Rules,
    SummaryStyle, WindowPolicy,
};

/// The keys that `[dedup]` and `[[rule]]` have in common.
pub(super) struct PolicyFile {
    pub(super) section: &'static str,
    pub(super) profile: Option<&'static Profile>,
    pub(super) window: Slot<Duration>,
    pub(super) allow: Slot<u32>,
    pub(super) refresh: Slot<bool>,
    pub(super) max_quiet: Slot<Duration>,
    pub(super) summary: Slot<SummaryStyle>,
    pub(super) mode: Slot<Mode>,
    pub(super) fields: Slot<Vec<Given<Field>>>,
    pub(super) mask: Slot<Vec<Given<String>>>,
}

/// The rules, over the policy of messages that none of them takes.
pub(super) fn rules(
    slot: Slot<Vec<Given<RuleFile>>>,
    dedup: &Policy,
    masks: &OwnMasks,
    errors: &mut Vec<ConfigError>,
) -> Arc<Rules> {
    let given = match slot {
        Slot::Given(given) => given,
        Slot::Absent | Slot::Refused => return Arc::new(Rules::new(dedup.clone())),
    };
    let count = given.value.len();
    if count > RULES_MAX {
        let fits = format!("at most {RULES_MAX} rules");
        errors.push(unfit(&given.at, &format!("{count} rules"), fits));
    }
    let mut rules: Vec<(Rule, At)> = Vec::new();
    for file in given.value {
        let at = file.value.name.at().unwrap_or(&file.at).clone();
        let Some(rule) = rule(file, dedup, masks, errors) else {
            continue;
        };
        if let Some((_, other)) = rules.iter().find(|(other, _)| other.name == rule.name) {
            let fault = Fault::Taken {
                found: quoted(&rule.name),
                other: other.clone(),
                fits: "a name that no other rule has",
            };
            errors.push(ConfigError {
                at: at.clone(),
                fault,
            });
        }
        rules.push((rule, at));
    }
    let rules = rules.into_iter().map(|(rule, _)| rule);
    let rules = rules.take(RULES_MAX).collect();
    let compiled = Rules::with(dedup.clone(), rules).unwrap_or_else(|error| {
        errors.push(unfit(
            &given.at,
            "the expressions of all rules",
            error.to_string(),
        ));
        Rules::new(dedup.clone())
    });
    refuse_costly_rules(&compiled, &given.at, errors);
    Arc::new(compiled)
}

fn rule(
    file: Given<RuleFile>,
    dedup: &Policy,
    masks: &OwnMasks,
    errors: &mut Vec<ConfigError>,
) -> Option<Rule> {
    let Given { value: file, at } = file;
    let name = match &file.name {
        Slot::Given(name) if name.value == DEFAULT_NAME => {
            let fits = "another name: this one is for what no rule takes".to_owned();
            errors.push(unfit(&name.at, &name.value, fits));
            return None;
        }
        Slot::Given(name) => name.value.clone(),
        Slot::Refused => return None,
        Slot::Absent => {
            let fits = "name = \"...\", which metrics and messages call the rule by";
            errors.push(ConfigError {
                at,
                fault: Fault::Missing { fits },
            });
            return None;
        }
    };
    refuse_without_effect(&file, errors);
    let profile = match file.profile {
        Slot::Given(ref given) => Some(given.value),
        Slot::Absent | Slot::Refused => None,
    };
    let facilities = match file.facility {
        Slot::Given(given) => values(given.value)
            .into_iter()
            .fold(Facilities::NONE, Facilities::with),
        Slot::Absent | Slot::Refused => Facilities::ALL,
    };
    let matcher = Matcher {
        facility: facilities,
        severity: file.severity.or_default(),
        hostname: values(file.hostname.or_default()),
        app_name: values(file.app_name.or_default()),
        msg: match file.msg {
            Slot::Given(given) => {
                refuse_costly_text(&given.value, &given.at, errors);
                Some(given.value)
            }
            Slot::Absent | Slot::Refused => None,
        },
        listener: values(file.listener.or_default()),
        source: values(file.source.or_default()),
    };
    let keys = PolicyFile {
        section: "rule",
        profile,
        window: file.window,
        allow: file.allow,
        refresh: file.refresh,
        max_quiet: file.max_quiet,
        summary: file.summary,
        mode: file.mode,
        fields: file.fields,
        mask: file.mask,
    };
    Some(Rule {
        name,
        matcher,
        action: file.action.or(Action::Dedup),
        policy: policy(keys, dedup, masks, errors),
    })
}

/// The policy that `file` asks for; what it does not say is that of its profile, or else `default`'s.
pub(super) fn policy(
    file: PolicyFile,
    default: &Policy,
    masks: &OwnMasks,
    errors: &mut Vec<ConfigError>,
) -> Policy {
    let of_profile = file.profile.map(|profile| profile.window);
    let has_own_window = of_profile.is_some() || file.window.at().is_some();
    let default_window = of_profile.unwrap_or(default.window.window);
    refuse_idle_max_quiet(&file, default, default_window, errors);
    let window = file.window.or(default_window);
    let refreshes = file.refresh.or(default.window.refresh.is_some());
    let max_quiet = match default.window.refresh {
        Some(max_quiet) if !has_own_window => max_quiet,
        _ => window.saturating_mul(MAX_QUIET_WINDOWS).min(WINDOW_MAX),
    };
    let max_quiet = file.max_quiet.or(max_quiet);
    let of_profile = file.profile.map(Profile::spec);
    let spec = of_profile.unwrap_or_else(|| default.identity.clone());
    let fields: Fields = match file.fields {
        Slot::Given(given) => values(given.value).into_iter().collect(),
        Slot::Absent | Slot::Refused => spec.fields(),
    };
    let masks = match file.mask {
        Slot::Given(given) => {
            let of_profile = file.profile.map(|_| spec.masks());
            Arc::new(chosen(given, of_profile, masks, errors))
        }
        Slot::Absent | Slot::Refused => spec.masks_shared(),
    };
    Policy {
        window: WindowPolicy {
            window,
            allow: file.allow.or(default.window.allow),
            refresh: refreshes.then_some(max_quiet),
        },
        summary: file.summary.or(default.summary),
        identity: Spec::new(fields, masks),
        mode: file.mode.or(default.mode),
    }
}

fn refuse_without_effect(file: &RuleFile, errors: &mut Vec<ConfigError>) {
    let action = match &file.action {
        Slot::Given(given) => given.value,
        Slot::Absent => Action::Dedup,
        Slot::Refused => return,
    };
    let on = match action {
        Action::Dedup => return,
        Action::Pass => "a rule that passes",
        Action::Drop => "a rule that drops",
    };
    let keys = [
        file.profile.at(),
        file.window.at(),
        file.allow.at(),
        file.refresh.at(),
        file.max_quiet.at(),
        file.summary.at(),
        file.fields.at(),
        file.mask.at(),
        file.mode.at().filter(|_| action == Action::Pass),
    ];
    for at in keys.into_iter().flatten() {
        let fits = "rules with action = \"dedup\"";
        errors.push(ConfigError {
            at: at.clone(),
            fault: Fault::NoEffect { on, fits },
        });
    }
}

fn refuse_idle_max_quiet(
    file: &PolicyFile,
    default: &Policy,
    default_window: Duration,
    errors: &mut Vec<ConfigError>,
) {
    let Slot::Given(max_quiet) = &file.max_quiet else {
        return;
    };
    let section = file.section;
    let refreshes = file.refresh.clone().or(default.window.refresh.is_some());
    if !file.refresh.is_refused() && !refreshes {
        errors.push(ConfigError {
            at: max_quiet.at.clone(),
            fault: Fault::MaxQuietWithoutRefresh { section },
        });
    }
    let window = file.window.clone().or(default_window);
    if !file.window.is_refused() && max_quiet.value < window {
        let fits = format!("at least {section}.window, {}", time_text(window));
        errors.push(unfit(&max_quiet.at, &time_text(max_quiet.value), fits));
    }
}

/// What is odd about the rules of `config`.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (rule, other) in config.rules.shadowed() {
        warnings.push(format!(
            "rule {:?} is never reached: {:?}, which stands before it, takes all of its messages",
            rule.name, other.name
        ));
    }
    for rule in config.rules.rules() {
        for name in &rule.matcher.listener {
            let is_there = config
                .listeners
                .iter()
                .any(|listener| listener.name == *name);
            if !is_there {
                let names: Vec<_> = config
                    .listeners
                    .iter()
                    .map(|listener| &listener.name)
                    .collect();
                warnings.push(format!(
                    "rule {:?}: no listener is called {name:?}, only {names:?}",
                    rule.name
                ));
            }
        }
    }
    warnings
}

/// All masks of their own that policies use, by name.
pub(super) fn patterns(config: &Config) -> BTreeMap<String, String> {
    let policies = config.rules.policies();
    policies
        .flat_map(|policy| policy.identity.masks().patterns())
        .map(|pattern| (pattern.name.clone(), pattern.regex.clone()))
        .collect()
}

fn values<T>(given: Vec<Given<T>>) -> Vec<T> {
    given.into_iter().map(|given| given.value).collect()
}
