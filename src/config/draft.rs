//! A configuration while it is read: a [`Config`] whose policies are still as they are written.
//!
//! Policies are resolved later, because a policy takes the keys that it leaves out from another one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::dedup::PolicyKeys;
use super::masks::MaskTable;
use super::print::Printer;
use super::read::Table;
use super::rules::RuleKeys;
use super::section::{Scope, Section, Visitor};
use super::value::{auto, choice, count, duration, list, log_filter, socket_addr, unless};
use super::written::Entries;
use super::{Config, GRACE_MAX, LOG_FORMAT, ListenerConfig, LogConfig, WORKERS_MAX, cores};
use crate::core::identity::mask::Pattern;

/// A configuration that is being read, or is to be printed. It starts at the defaults.
#[derive(Clone, Default)]
pub(super) struct Draft {
    /// Everything but policies and rules.
    pub(super) config: Config,
    pub(super) policy: PolicyKeys,
    pub(super) masks: Vec<Pattern>,
    pub(super) rules: Vec<RuleKeys>,
}

impl Draft {
    /// A draft that resolves to `config`, with all keys spelled out.
    fn of(config: &Config) -> Self {
        let patterns = config.rules.policies();
        let patterns = patterns.flat_map(|policy| policy.identity.masks().patterns());
        let patterns: BTreeMap<_, _> = patterns
            .map(|pattern| (&pattern.name, pattern.clone()))
            .collect();
        Self {
            policy: PolicyKeys::of(&config.dedup.policy),
            masks: patterns.into_values().collect(),
            rules: config.rules.rules().iter().map(RuleKeys::of).collect(),
            config: config.clone(),
        }
    }
}

impl Section for Draft {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let Self {
            config,
            policy,
            masks,
            rules,
        } = self;
        let listeners = list(
            "one or more [[listener]], or none for the defaults",
            1,
            Table {
                start: ListenerConfig::without_url(),
            },
        );
        let start = RuleKeys::default();
        let rule_tables = list("one or more [[rule]], or none", 1, Table { start });

        let v = visitor;
        v.key("listener", listeners, &mut config.listeners);
        v.table("forward", |v| config.forward.visit(v));
        v.table("spool", |v| config.spool.visit(v));
        v.table("suppressed", |v| config.suppressed.visit(v));
        v.table("dedup", |v| {
            policy.visit_windows(v, Scope::ALWAYS);
            policy.visit_mode(v, Scope::ALWAYS);
            policy.visit_identity(v, Scope::ALWAYS);
            config.dedup.visit(v);
        });
        v.key("mask", MaskTable, masks);
        v.key("rule", rule_tables, rules);
        v.table("admin", |v| {
            v.key("address", unless("off", socket_addr()), &mut config.admin);
        });
        v.table("shutdown", |v| {
            let grace = duration(Duration::ZERO, GRACE_MAX);
            v.key("grace", grace, &mut config.shutdown_grace);
        });
        v.table("log", |v| config.log.visit(v));
        v.table("runtime", |v| {
            let workers = auto(cores(), count(1, WORKERS_MAX));
            v.key("workers", workers, &mut config.workers);
        });
    }
}

impl Section for LogConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.key("level", log_filter(), &mut self.level);
        visitor.key("format", choice(&LOG_FORMAT), &mut self.format);
    }
}

/// The effective settings of a configuration, for programs to read.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Effective(Entries);

impl Effective {
    pub(crate) fn of(config: &Config) -> Self {
        Self(Printer::print(|printer| Draft::of(config).visit(printer)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::config::RunArgs;

    /// Asserts that what `text` runs, printed and read again, runs the same.
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

    /// `value` as TOML: its strings, numbers and lists are written as in JSON; its tables are not.
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
