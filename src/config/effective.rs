//! What runs, as the file would say it: every key that has an effect, with its value spelled out.
//!
//! ```text
//! Config ──▶ Effective ──serde──▶ {"listener": [{"url": "udp://127.0.0.1:5514", ...}], ...}
//! ```
//!
//! # Guarantees
//!
//! - The keys are those of the file, and the values are written as the file has them, with their
//!   units: written as TOML, it is a configuration that runs the same.
//! - A key without effect where it would stand is left out, because the file refuses it there.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rules::patterns;
use super::value::{size_text, time_text};
use super::{
    ACK, ACTION, COMPRESS, Config, DedupConfig, FRAMING, ForwardConfig, IDENTITY, LINE_BREAKS,
    LOG_FORMAT, ListenerConfig, MODE, OUTPUT_FRAMING, OVERSIZE, Rotation, STRATEGY, SUMMARY,
    SuppressedConfig, UpstreamConfig, UpstreamUrl, WHEN_FULL,
};
use crate::identity::mask::Masks;
use crate::identity::{Field, Fields};
use crate::rule::{Action, FACILITIES, Facilities, Glob, Policy, Rule, SEVERITIES, Severities};

/// A configuration for programs to read.
#[derive(Debug, Serialize)]
pub(crate) struct Effective {
    listener: Vec<Listener>,
    forward: Forward,
    spool: Spool,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<Suppressed>,
    dedup: Dedup,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mask: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rule: Vec<RuleText>,
    admin: Admin,
    shutdown: Shutdown,
    log: Log,
    runtime: Runtime,
}

/// `[[listener]]`
#[derive(Debug, Serialize)]
struct Listener {
    url: String,
    name: String,
    max_message_size: String,
    oversize: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receive_buffer: Option<String>,
    #[serde(flatten)]
    stream: Option<Stream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_per_source_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix_mode: Option<String>,
}

/// The keys of `[[listener]]` that only streams have.
#[derive(Debug, Serialize)]
struct Stream {
    #[serde(skip_serializing_if = "Option::is_none")]
    framing: Option<&'static str>,
    connections_max: usize,
    idle_timeout: String,
    partial_frame_timeout: String,
}

/// `[forward]`
#[derive(Debug, Serialize)]
struct Forward {
    to: Vec<Upstream>,
    strategy: &'static str,
    queue: String,
    when_full: &'static str,
    retry_min: String,
    retry_max: String,
    connect_timeout: String,
    send_timeout: String,
    resend_max: String,
    resend_age: String,
    rebind: String,
    udp_max: String,
    line_breaks: &'static str,
}

/// `[suppressed]`
#[derive(Debug, Serialize)]
struct Suppressed {
    to: Upstream,
    queue: String,
    when_full: &'static str,
}

/// An element of `forward.to`.
#[derive(Debug, Serialize)]
struct Upstream {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    framing: Option<&'static str>,
    #[serde(flatten)]
    rotation: Option<RotationText>,
}

/// The keys of an upstream that only files have.
#[derive(Debug, Serialize)]
struct RotationText {
    rotate_size: String,
    rotate_age: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotate_keep: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress: Option<&'static str>,
}

/// `[spool]`
#[derive(Debug, Serialize)]
struct Spool {
    directory: String,
    max_size: String,
}

/// `[dedup]`
#[derive(Debug, Serialize)]
struct Dedup {
    #[serde(flatten)]
    policy: PolicyText,
    mode: &'static str,
    memory: String,
    identity: &'static str,
    shards: usize,
    state: String,
}

/// The keys that `[dedup]` has, and rules that dedup.
#[derive(Debug, Serialize)]
struct PolicyText {
    window: String,
    allow: u32,
    refresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_quiet: Option<String>,
    summary: &'static str,
    fields: Vec<&'static str>,
    mask: Vec<String>,
}

/// `[[rule]]`
#[derive(Debug, Serialize)]
struct RuleText {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    facility: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hostname: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    app_name: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listener: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source: Vec<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(flatten)]
    policy: Option<PolicyText>,
}

/// `[admin]`
#[derive(Debug, Serialize)]
struct Admin {
    address: String,
}

/// `[shutdown]`
#[derive(Debug, Serialize)]
struct Shutdown {
    grace: String,
}

/// `[log]`
#[derive(Debug, Serialize)]
struct Log {
    level: String,
    format: &'static str,
}

/// `[runtime]`
#[derive(Debug, Serialize)]
struct Runtime {
    workers: usize,
}

impl Effective {
    /// What `config` runs.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            listener: config.listeners.iter().map(Listener::of).collect(),
            forward: Forward::of(&config.forward),
            spool: Spool {
                directory: or_off(config.spool.directory.as_ref(), |path| {
                    path.display().to_string()
                }),
                max_size: size_text(config.spool.max_size),
            },
            suppressed: Suppressed::of(&config.suppressed),
            dedup: Dedup::of(&config.dedup),
            mask: patterns(config),
            rule: config.rules.rules().iter().map(RuleText::of).collect(),
            admin: Admin {
                address: or_off(config.admin.as_ref(), ToString::to_string),
            },
            shutdown: Shutdown {
                grace: time_text(config.shutdown_grace),
            },
            log: Log {
                level: config.log.level.clone(),
                format: LOG_FORMAT.word(config.log.format),
            },
            runtime: Runtime {
                workers: config.workers,
            },
        }
    }
}

impl Listener {
    fn of(config: &ListenerConfig) -> Self {
        let is_stream = config.url.is_stream();
        let is_relp = config.url.is_relp();
        let is_unix = config.url.path().is_some();
        Self {
            url: config.url.to_string(),
            name: config.name.clone(),
            max_message_size: size_text(config.max_message_size),
            oversize: OVERSIZE.word(config.oversize),
            allow: (!is_unix).then(|| config.allow.iter().map(ToString::to_string).collect()),
            receive_buffer: (!is_stream).then(|| size_text(config.receive_buffer)),
            stream: is_stream.then(|| Stream {
                framing: config
                    .url
                    .has_framing()
                    .then(|| FRAMING.word(config.framing)),
                connections_max: config.connections_max,
                idle_timeout: or_off(config.idle_timeout, time_text),
                partial_frame_timeout: time_text(config.partial_frame_timeout),
            }),
            connections_per_source_max: (is_stream && !is_unix)
                .then_some(config.connections_per_source_max),
            window: is_relp.then_some(config.window),
            ack: is_relp.then(|| ACK.word(config.ack)),
            unix_mode: is_unix.then(|| format!("{:04o}", config.unix_mode)),
        }
    }
}

impl Forward {
    fn of(config: &ForwardConfig) -> Self {
        Self {
            to: config.to.iter().map(Upstream::of).collect(),
            strategy: STRATEGY.word(config.strategy),
            queue: size_text(config.queue),
            when_full: WHEN_FULL.word(config.when_full),
            retry_min: time_text(config.retry_min),
            retry_max: time_text(config.retry_max),
            connect_timeout: time_text(config.connect_timeout),
            send_timeout: time_text(config.send_timeout),
            resend_max: or_off(Some(config.resend_max).filter(|max| *max > 0), size_text),
            resend_age: time_text(config.resend_age),
            rebind: or_off(config.rebind, time_text),
            udp_max: size_text(config.udp_max),
            line_breaks: LINE_BREAKS.word(config.line_breaks),
        }
    }
}

impl Suppressed {
    fn of(config: &SuppressedConfig) -> Option<Self> {
        Some(Self {
            to: Upstream::of(config.to.as_ref()?),
            queue: size_text(config.queue),
            when_full: WHEN_FULL.word(config.when_full),
        })
    }
}

impl Upstream {
    fn of(config: &UpstreamConfig) -> Self {
        Self {
            url: config.url.to_string(),
            framing: config
                .url
                .has_framing()
                .then(|| OUTPUT_FRAMING.word(config.framing)),
            rotation: matches!(config.url, UpstreamUrl::File(_))
                .then(|| RotationText::of(config.rotation)),
        }
    }
}

impl RotationText {
    fn of(rotation: Rotation) -> Self {
        let is_on = rotation.is_on();
        Self {
            rotate_size: or_off(rotation.size, size_text),
            rotate_age: or_off(rotation.age, time_text),
            rotate_keep: is_on.then_some(rotation.keep),
            compress: is_on.then(|| COMPRESS.word(rotation.compression)),
        }
    }
}

impl Dedup {
    fn of(config: &DedupConfig) -> Self {
        Self {
            policy: PolicyText::of(&config.policy),
            mode: MODE.word(config.policy.mode),
            memory: size_text(config.memory),
            identity: IDENTITY.word(config.identity),
            shards: config.shards,
            state: or_off(config.state.as_ref(), |path| path.display().to_string()),
        }
    }
}

impl PolicyText {
    fn of(policy: &Policy) -> Self {
        Self {
            window: time_text(policy.window.window),
            allow: policy.window.allow,
            refresh: policy.window.refresh.is_some(),
            max_quiet: policy.window.refresh.map(time_text),
            summary: SUMMARY.word(policy.summary),
            fields: field_names(policy.identity.fields()),
            mask: mask_names(policy.identity.masks()),
        }
    }
}

impl RuleText {
    fn of(rule: &Rule) -> Self {
        let matcher = &rule.matcher;
        let globs = |globs: &[Glob]| globs.iter().map(|glob| glob.text().to_owned()).collect();
        Self {
            name: rule.name.clone(),
            facility: (matcher.facility != Facilities::ALL)
                .then(|| facility_names(matcher.facility)),
            severity: severity_range(matcher.severity),
            hostname: globs(&matcher.hostname),
            app_name: globs(&matcher.app_name),
            msg: matcher.msg.as_ref().map(|text| text.written().to_owned()),
            listener: matcher.listener.clone(),
            source: matcher.source.iter().map(ToString::to_string).collect(),
            action: ACTION.word(rule.action),
            mode: (rule.action != Action::Pass).then(|| MODE.word(rule.policy.mode)),
            policy: (rule.action == Action::Dedup).then(|| PolicyText::of(&rule.policy)),
        }
    }
}

pub(crate) fn field_names(fields: Fields) -> Vec<&'static str> {
    fields.iter().map(Field::name).collect()
}

pub(crate) fn mask_names(masks: &Masks) -> Vec<String> {
    let builtins = masks
        .builtins()
        .iter()
        .map(|builtin| builtin.name().to_owned());
    let patterns = masks.patterns().iter().map(|pattern| pattern.name.clone());
    builtins.chain(patterns).collect()
}

pub(crate) fn facility_names(facilities: Facilities) -> Vec<&'static str> {
    let names = FACILITIES.iter().zip(0..);
    names
        .filter(|(_, number)| facilities.has(*number))
        .map(|(name, _)| *name)
        .collect()
}

/// The severities from the worst to the least, as a rule has them; `None` is all.
pub(crate) fn severity_range(severities: Severities) -> Option<String> {
    let mut names = SEVERITIES
        .iter()
        .zip(0..)
        .filter(|(_, number)| severities.has(*number))
        .map(|(name, _)| *name);
    let first = names.next()?;
    let last = names.last().unwrap_or(first);
    match (severities == Severities::ALL, first == last) {
        (true, _) => None,
        (_, true) => Some(first.to_owned()),
        (_, false) => Some(format!("{first}..{last}")),
    }
}

/// A value that may be switched off, as the file has it.
fn or_off<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "off".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::config::RunArgs;

    /// `text`, what runs with it, and that again from what it says of itself.
    #[track_caller]
    fn check(text: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        let args = RunArgs {
            file: Some(path.clone()),
            ..RunArgs::default()
        };
        fs::write(&path, text).unwrap();
        let config = Config::load(&args).unwrap();
        let json = serde_json::to_value(Effective::of(&config)).unwrap();
        let again: String = json
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| format!("{key} = {}\n", inline_toml(value)))
            .collect();
        fs::write(&path, &again).unwrap();
        match Config::load(&args) {
            Ok(same) => assert_eq!(same, config, "{again}"),
            Err(errors) => panic!("{errors}\n{again}"),
        }
    }

    /// Strings, numbers and lists of JSON are TOML as they stand; tables have another sign.
    fn inline_toml(value: &Value) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(inline_toml).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Object(keys) => {
                let keys: Vec<_> = keys
                    .iter()
                    .map(|(key, value)| format!("{key} = {}", inline_toml(value)))
                    .collect();
                format!("{{ {} }}", keys.join(", "))
            }
            scalar => scalar.to_string(),
        }
    }

    #[test]
    fn what_it_says_runs_the_same() {
        check("");
        check(include_str!("../../config/tersed.toml"));
        check(include_str!("../../config/examples/sidecar.toml"));
        check(include_str!("../../config/examples/aggregator.toml"));
    }

    #[test]
    fn what_it_says_runs_the_same_when_no_key_is_at_its_default() {
        check(
            r#"
            [[listener]]
            url = "udp://127.0.0.1:514"
            name = "the \"first\" one"
            max_message_size = "1000B"
            oversize = "drop"
            allow = ["10.0.0.0/8", "2001:db8::1"]
            receive_buffer = "65KiB"
            [[listener]]
            url = "tcp://[::1]:0"
            framing = "octet-counting"
            connections_max = 7
            connections_per_source_max = 3
            idle_timeout = "1h 30m"
            partial_frame_timeout = "12345ms"
            [[listener]]
            url = "relp://127.0.0.1:2514"
            max_message_size = "1000B"
            connections_max = 8
            connections_per_source_max = 2
            idle_timeout = "1h"
            partial_frame_timeout = "1s"
            window = 1
            ack = "queued"
            [[listener]]
            url = "unix-stream:///run/a b.sock"
            framing = "nul"
            unix_mode = "0600"
            [[listener]]
            url = "unix-dgram:///run/c.sock"
            unix_mode = "0007"
            [forward]
            to = ["udp://a:1", { url = "tcp://[::1]:2", framing = "octet-counting" }, "relp://b:2514", "file:///var/x", { url = "file:///var/y", rotate_size = "65MiB", rotate_age = "1day", rotate_keep = 3, compress = "off" }, "stdout:"]
            strategy = "balance"
            queue = "17MiB"
            when_full = "drop-oldest"
            retry_min = "11ms"
            retry_max = "61s"
            connect_timeout = "59m 59s"
            send_timeout = "1s"
            resend_max = "off"
            resend_age = "1m"
            rebind = "1h"
            udp_max = "1472B"
            line_breaks = "escape"
            [spool]
            directory = "/var/spool/ter sed"
            max_size = "3GiB"
            [suppressed]
            to = { url = "file:///var/z", rotate_age = "off", compress = "off" }
            queue = "18MiB"
            when_full = "drop-newest"
            [dedup]
            window = "6days 23h 59m 59s 999ms"
            allow = 3
            refresh = true
            max_quiet = "7days"
            summary = "none"
            mode = "tag"
            fields = ["source", "msg"]
            mask = ["job", "hex", "run"]
            memory = "1234567890B"
            identity = "compact"
            shards = 4096
            [mask]
            run = 'run-[0-9]+'
            job = 'job-[0-9]+'
            [[rule]]
            name = "first"
            facility = ["kern", "local7"]
            severity = "error..warning"
            hostname = ["web-*"]
            app_name = ["sshd", "a[b]"]
            msg = 'a\\b"c'
            listener = ["the \"first\" one"]
            source = ["10.0.0.0/8"]
            mode = "shadow"
            profile = "haproxy-nginx"
            allow = 2
            [[rule]]
            name = "second"
            severity = "debug"
            action = "pass"
            [[rule]]
            name = "third"
            action = "drop"
            mode = "enforce"
            [admin]
            address = "[::1]:9514"
            [shutdown]
            grace = "0s"
            [log]
            level = "info,tersed::forward=debug"
            format = "json"
            [runtime]
            workers = 3
            "#,
        );
    }
}
