//! Turns a draft into a configuration that can run: resolves policies, and checks everything that depends on more than
//! one key.
//!
//! # Guarantees
//!
//! - A key that was refused already is never the reason for a second error.
//! - Every error names a key that was written; a default alone is never blamed.

use super::Config;
use super::again::Remarks;
use super::cost::{OwnMasks, refuse_costly_patterns};
use super::draft::Draft;
use super::fit::fit_shards;
use super::forward::ForwardConfig;
use super::masks::unused;
use super::report::Report;
use super::rules::rules;
use super::section::{IdleKeys, Section as _};
use super::sockets::{
    expected_beside, place_of_listener, place_of_upstream, refuse_loop, refuse_one_path,
    refuse_too_many,
};
use super::units::{size_text, time_text};
use super::url::ListenUrl;

/// Makes a `Config` of `draft`. It is valid if `report` has no error. `running` is the number of shards of the relay
/// that is to be reloaded.
pub(super) fn resolve(mut draft: Draft, running: Option<usize>, report: &mut Report) -> Config {
    report.refuse_incomplete();
    if report.is_refused("listener") {
        // It is not known which listeners were meant.
        draft.config.listeners.clear();
    }
    if report.is_refused("forward.to") {
        draft.config.forward.to.clear();
    }
    draft.visit(&mut IdleKeys::new(String::new(), report));
    let Draft {
        mut config,
        policy,
        masks,
        rules: rule_keys,
    } = draft;
    for index in 0..config.listeners.len() {
        refuse_taken(index, &mut config, report);
    }
    refuse_admin_on_listener(&config, report);
    refuse_one_path(&config.listeners, report);
    refuse_too_many(&config, report);
    refuse_short_queue("forward.queue", config.forward.queue, &config, report);
    refuse_crossed_retries(&config.forward, report);
    refuse_upstreams(&config, report);
    refuse_destination_of_copies(&config, report);
    refuse_costly_patterns(&masks, report);
    let masks = OwnMasks::new(masks);
    let default = &config.dedup.policy;
    config.dedup.policy = policy.resolve(("dedup", "dedup"), None, default, &masks, report);
    config.rules = rules(rule_keys, &config.dedup.policy, &masks, report);
    fit_shards(&mut config.dedup, &config.rules, running, report);
    let mut remarks = std::mem::take(&mut report.remarks);
    remarks.extend(unused(&masks, &config.rules));
    config.remarks = Remarks(remarks);
    config
}

/// Refuses an address or a name that a listener before this one has. A default name gets a number instead.
fn refuse_taken(index: usize, config: &mut Config, report: &mut Report) {
    let (others, [new, ..]) = config.listeners.split_at_mut(index) else {
        panic!("the index is that of a listener");
    };
    let mut urls = others.iter().map(|other| &other.url);
    if let Some(other) = urls.position(|other| other.collides_with(&new.url)) {
        let expected = expected_beside(&new.url, &others[other].url);
        let at = place_of_listener(index, &config.listeners, report);
        let of_other = place_of_listener(other, &config.listeners, report);
        let found = config.listeners[index].url.to_string();
        report.taken(&at, &found, of_other, expected);
        return;
    }
    let holder = |name: &str| others.iter().position(|other| other.name == name);
    let Some(other) = holder(&new.name) else {
        return;
    };
    let name_at = |index: usize| report.at(&format!("listener[{index}].name")).cloned();
    if let Some(at) = name_at(index) {
        let found = new.name.clone();
        let other =
            name_at(other).unwrap_or_else(|| place_of_listener(other, &config.listeners, report));
        report.taken(&at, &found, other, "a name that no other listener has");
    } else {
        let numbered = |number: usize| format!("{}#{number}", new.url);
        let free = (2..).map(numbered).find(|name| holder(name).is_none());
        new.name = free.expect("there are more numbers than listeners");
    }
}

fn refuse_admin_on_listener(config: &Config, report: &mut Report) {
    let (Some(address), Some(at)) = (config.admin, report.at("admin.address").cloned()) else {
        return;
    };
    let as_listener = ListenUrl::Tcp(address);
    let mut listeners = config.listeners.iter();
    if let Some(other) = listeners.position(|other| other.url.overlaps(&as_listener)) {
        let other = place_of_listener(other, &config.listeners, report);
        let expected = "an address and port of its own";
        report.taken(&at, &address.to_string(), other, expected);
    }
}

/// Refuses an upstream that is listed twice, or leads back to us.
fn refuse_upstreams(config: &Config, report: &mut Report) {
    let upstreams = &config.forward.to;
    for (index, upstream) in upstreams.iter().enumerate() {
        let at = place_of_upstream(index, upstreams, report);
        let mut others = upstreams[..index].iter();
        if let Some(other) = others.position(|other| other.url.is_same_place(&upstream.url)) {
            let other = place_of_upstream(other, upstreams, report);
            report.taken(&at, &upstream.url.to_string(), other, "each upstream once");
        }
        refuse_loop(&upstream.url, &at, config, report);
    }
}

/// Refuses a `suppressed.to` that leads back to us or is an upstream, and a queue that is too short for it.
fn refuse_destination_of_copies(config: &Config, report: &mut Report) {
    refuse_short_queue("suppressed.queue", config.suppressed.queue, config, report);
    let Some(to) = &config.suppressed.to else {
        return;
    };
    let at = report.place("suppressed.to.url");
    refuse_loop(&to.url, &at, config, report);
    // Otherwise two forwarders would write to one file, or an upstream would get the copies after all.
    let upstreams = &config.forward.to;
    let other = upstreams
        .iter()
        .position(|other| other.url.is_same_place(&to.url));
    if let Some(other) = other {
        let other = place_of_upstream(other, upstreams, report);
        let expected = "a destination that is not in forward.to";
        report.taken(&at, &to.url.to_string(), other, expected);
    }
}

/// Refuses a queue that cannot hold the longest message: that message would never leave it, nor would any after it. The
/// default queue holds the longest message that can be configured.
fn refuse_short_queue(path: &str, queue: usize, config: &Config, report: &mut Report) {
    let Some(at) = report.at(path).cloned() else {
        return;
    };
    let sizes = config
        .listeners
        .iter()
        .map(|listener| listener.max_message_size);
    let longest = sizes.max().unwrap_or(0);
    if queue < longest {
        let expected = format!("at least the longest message, {}", size_text(longest));
        report.unfit(&at, &size_text(queue), expected);
    }
}

fn refuse_crossed_retries(forward: &ForwardConfig, report: &mut Report) {
    let (min_key, max_key) = ("forward.retry_min", "forward.retry_max");
    let (min, max) = (forward.retry_min, forward.retry_max);
    if min <= max || report.is_refused(min_key) || report.is_refused(max_key) {
        return;
    }
    let (min, max) = (time_text(min), time_text(max));
    if let Some(at) = report.at(max_key).cloned() {
        report.unfit(&at, &max, format!("at least forward.retry_min, {min}"));
    } else if let Some(at) = report.at(min_key).cloned() {
        report.unfit(&at, &min, format!("at most forward.retry_max, {max}"));
    }
}
