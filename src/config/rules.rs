//! `[[rule]]`: the rules as written, those that run, and what is odd about them.
//!
//! # Guarantees
//!
//! - A key that has no effect with the rule's action is an error.
//! - A rule that is never reached, or that names a listener which does not exist, causes a warning: it does no harm, and
//!   a flag or a socket that the service manager passes may add the listener.

use std::sync::Arc;

use super::Config;
use super::cost::{OwnMasks, refuse_costly_rules, refuse_costly_text};
use super::dedup::PolicyKeys;
use super::error::At;
use super::report::{Report, join};
use super::section::{Scope, Section, Visitor};
use super::value::{
    Maybe, Scalar, Set, Words, choice, facility, glob, list, name, network, profile, severities,
    text,
};
use crate::core::rule::{
    Action, DEFAULT_NAME, FACILITIES, Facilities, Matcher, Policy, Profile, RULES_MAX, Rule, Rules,
};

/// The keys of `[[rule]]`.
#[derive(Clone)]
pub(super) struct RuleKeys {
    name: String,
    matcher: Matcher,
    action: Action,
    profile: Option<&'static Profile>,
    policy: PolicyKeys,
}

impl Default for RuleKeys {
    fn default() -> Self {
        Self {
            name: String::new(),
            matcher: Matcher::default(),
            action: Action::Dedup,
            profile: None,
            policy: PolicyKeys::default(),
        }
    }
}

impl RuleKeys {
    /// Those of `rule`. What it took from a profile is spelled out.
    pub(super) fn of(rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            matcher: rule.matcher.clone(),
            action: rule.action,
            profile: None,
            policy: PolicyKeys::of(&rule.policy),
        }
    }
}

impl Section for RuleKeys {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let on = match self.action {
            Action::Dedup | Action::Pass => ["rules", "with action = \"pass\""],
            Action::Drop => ["rules", "with action = \"drop\""],
        };
        let expected = "rules with action = \"dedup\"";
        let remembers = Scope::new(self.action == Action::Dedup, on, expected);
        let remembers = remembers.depending_on(&["action"]);
        let has_mode = Scope {
            applies: self.action != Action::Pass,
            expected: "rules with action = \"dedup\" or \"drop\"",
            ..remembers
        };
        let hosts = "a list of one or more names, such as [\"web-*\"]";
        let apps = "a list of one or more names, such as [\"sshd\", \"postfix/*\"]";
        let listeners = "a list of one or more listeners' names";
        let networks =
            "a list of one or more networks, such as [\"10.0.0.0/8\", \"2001:db8::/32\"]";

        let v = visitor;
        let matcher = &mut self.matcher;
        v.key("name", name(), &mut self.name);
        v.key("facility", facilities(), &mut matcher.facility);
        v.key("severity", severities(), &mut matcher.severity);
        v.key("hostname", list(hosts, 1, glob()), &mut matcher.hostname);
        v.key("app_name", list(apps, 1, glob()), &mut matcher.app_name);
        v.key("msg", Maybe(text()), &mut matcher.msg);
        v.key(
            "listener",
            list(listeners, 1, name()),
            &mut matcher.listener,
        );
        v.key("source", list(networks, 1, network()), &mut matcher.source);
        v.key("action", choice(&ACTION), &mut self.action);
        self.policy.visit_mode(v, has_mode);
        v.key_in(remembers, "profile", Maybe(profile()), &mut self.profile);
        self.policy.visit_windows(v, remembers);
        self.policy.visit_identity(v, remembers);
    }

    fn complete(&mut self, path: &str, at: &At, report: &mut Report) -> bool {
        let expected = "name = \"...\", the name of the rule in metrics and log lines";
        if !report.requires(path, "name", at, expected) {
            return false;
        }
        if self.name == DEFAULT_NAME {
            let at = report.place(&join(path, "name"));
            let expected = "another name: this one stands for messages that no rule matches";
            report.unfit(&at, DEFAULT_NAME, expected);
            return false;
        }
        true
    }
}

fn facilities() -> Set<Scalar<u8>, u8, Facilities> {
    let expected = "a list of one or more facilities, such as [\"auth\", \"local7\"]";
    Set {
        list: list(expected, 1, facility()),
        of: |numbers| numbers.into_iter().fold(Facilities::NONE, Facilities::with),
        elements: |facilities| {
            if *facilities == Facilities::ALL {
                // A rule without the key.
                return Vec::new();
            }
            (0..)
                .take(FACILITIES.len())
                .filter(|number| facilities.has(*number))
                .collect()
        },
    }
}

pub(crate) fn facility_names(facilities: Facilities) -> Vec<&'static str> {
    let names = FACILITIES.iter().zip(0..);
    names
        .filter(|(_, number)| facilities.has(*number))
        .map(|(name, _)| *name)
        .collect()
}

/// The rules of `keys`, over the policy of messages that none of them takes.
pub(super) fn rules(
    keys: Vec<RuleKeys>,
    dedup: &Policy,
    masks: &OwnMasks,
    report: &mut Report,
) -> Arc<Rules> {
    let Some(at) = report.at("rule").cloned() else {
        return Arc::new(Rules::new(dedup.clone()));
    };
    if keys.len() > RULES_MAX {
        let expected = format!("at most {RULES_MAX} rules");
        report.unfit(&at, &format!("{} rules", keys.len()), expected);
    }
    let mut rules: Vec<Rule> = Vec::new();
    for (index, keys) in keys.into_iter().enumerate() {
        let place = |index: usize| format!("rule[{index}].name");
        if let Some(other) = rules.iter().position(|other| other.name == keys.name) {
            let (at, other) = (report.place(&place(index)), report.place(&place(other)));
            report.taken(&at, &keys.name, other, "a name that no other rule has");
        }
        rules.push(rule(keys, &format!("rule[{index}]"), dedup, masks, report));
    }
    rules.truncate(RULES_MAX);
    let compiled = Rules::with(dedup.clone(), rules).unwrap_or_else(|error| {
        report.unfit(&at, "the expressions of all rules", error.to_string());
        Rules::new(dedup.clone())
    });
    refuse_costly_rules(&compiled, &at, report);
    Arc::new(compiled)
}

fn rule(keys: RuleKeys, path: &str, dedup: &Policy, masks: &OwnMasks, report: &mut Report) -> Rule {
    if let Some(text) = &keys.matcher.msg {
        let at = report.place(&join(path, "msg"));
        refuse_costly_text(text, &at, report);
    }
    let policy = keys
        .policy
        .resolve(("rule", path), keys.profile, dedup, masks, report);
    Rule {
        name: keys.name,
        matcher: keys.matcher,
        action: keys.action,
        policy,
    }
}

/// What is odd about the rules of `config`.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (rule, other) in config.rules.shadowed() {
        warnings.push(format!(
            "rule {:?} is never reached: {:?}, an earlier rule, matches all of its messages",
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
                    "rule {:?}: no listener is named {name:?}; their names are {names:?}",
                    rule.name
                ));
            }
        }
    }
    warnings
}

pub(crate) const ACTION: Words<Action> = Words(&[
    ("dedup", Action::Dedup),
    ("pass", Action::Pass),
    ("drop", Action::Drop),
]);
