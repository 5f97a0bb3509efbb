//! `tersed check`: validate the configuration; print the effective settings, or all errors.
//!
//! # Guarantees
//!
//! - Only the configuration file is read, and nothing is created. Paths are looked up (`paths`).
//! - The settings of a valid configuration go to standard output. All errors go to standard error, one per line. So do
//!   warnings, which leave the configuration valid.
//! - The output names the file that was checked. Without a file it says that the defaults were checked, and names the
//!   usual file if that exists.
//! - Control characters in the configuration are escaped in the output.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::paths::Findings;
use super::{CheckFormat, USUAL_FILE};
use crate::admin::Checked;
use crate::config::{
    ACK, Compression, Config, FRAMING, IDENTITY, ListenerConfig, MODE, OUTPUT_FRAMING, Rotation,
    RunArgs, SUMMARY, Strategy, UpstreamConfig, WHEN_FULL, facility_names, field_names, mask_names,
    severity_range, size_text, time_text,
};
use crate::core::identity::Fields;
use crate::core::rule::{Action, Facilities, Glob, Mode, Policy, Rule};
use crate::logging::printable;
use crate::sizing::Sizing;

/// Validates the configuration that `args` names, and prints its settings in `format`.
///
/// # Errors
///
/// Those of `out` and `err`.
pub(super) fn run(
    args: &RunArgs,
    format: CheckFormat,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    match Config::load(args) {
        Ok(config) => {
            let findings = Findings::of(&config);
            if !findings.errors.is_empty() {
                for error in findings.errors {
                    writeln!(err, "{error}")?;
                }
                return Ok(ExitCode::FAILURE);
            }
            let file = args.file.as_deref();
            match format {
                CheckFormat::Text => {
                    let file = file.map_or_else(
                        || "none: the defaults, with flags and variables".to_owned(),
                        |path| path.display().to_string(),
                    );
                    writeln!(out, "file     {}", printable(&file))?;
                    describe(&config, out)?;
                }
                CheckFormat::Json => {
                    serde_json::to_writer_pretty(&mut *out, &Checked::of(&config, file))?;
                    writeln!(out)?;
                }
            }
            if file.is_none() && Path::new(USUAL_FILE).exists() {
                writeln!(
                    err,
                    "note: {USUAL_FILE} exists but was not checked; to check it: tersed check {USUAL_FILE}"
                )?;
            }
            for warning in config.warnings().into_iter().chain(findings.warnings) {
                writeln!(err, "warning: {}", printable(&warning))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            writeln!(err, "{errors}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints the settings of `config` in a few lines.
pub(super) fn describe(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let mut line = |key: &str, text: String| writeln!(out, "{key:<8} {}", printable(&text));
    for listener in &config.listeners {
        line("listen", listener_text(listener))?;
    }
    for (index, upstream) in config.forward.to.iter().enumerate() {
        let part = match config.forward.strategy {
            Strategy::Failover if index > 0 => "; standby",
            Strategy::Balance if config.forward.to.len() > 1 => "; shares the load",
            Strategy::Failover | Strategy::Balance => "",
        };
        line("forward", format!("{}{part}", upstream_text(upstream)))?;
    }
    let when_full = format!("when full {}", WHEN_FULL.word(config.forward.when_full));
    let queue = size_text(config.forward.queue);
    match &config.spool.directory {
        Some(directory) => {
            let max_size = size_text(config.spool.max_size);
            let directory = directory.display();
            line("queue", queue)?;
            line("spool", format!("{directory}, {max_size}, {when_full}"))?;
        }
        None => line("queue", format!("{queue}, {when_full}"))?,
    }
    let suppressed = &config.suppressed;
    if let Some(to) = &suppressed.to {
        let text = format!(
            "{}; queue {}, when full {}",
            upstream_text(to),
            size_text(suppressed.queue),
            WHEN_FULL.word(suppressed.when_full)
        );
        line("copies", text)?;
    }
    for rule in config.rules.rules() {
        line("rule", rule_text(rule))?;
    }
    line("dedup", policy_text(&config.dedup.policy))?;
    let text = format!(
        "{}, identity {}, shards {}, workers {}",
        size_text(config.dedup.memory),
        IDENTITY.word(config.dedup.identity),
        config.dedup.shards,
        config.workers
    );
    line("memory", text)?;
    if let Some(path) = &config.dedup.state {
        line("state", path.display().to_string())?;
    }
    let admin = match config.admin {
        Some(address) => format!("http://{address}"),
        None => "off".to_owned(),
    };
    line("admin", admin)?;
    line("at most", Sizing::of(config).to_string())
}

fn listener_text(listener: &ListenerConfig) -> String {
    let mut text = listener.url.to_string();
    if listener.name != text {
        text = format!("{text} ({})", listener.name);
    }
    if listener.url.has_framing() {
        text = format!("{text}, framing {}", FRAMING.word(listener.framing));
    }
    if listener.url.is_relp() {
        text = format!("{text}, answers when {}", ACK.word(listener.ack));
    }
    if !listener.allow.is_empty() {
        let networks: Vec<String> = listener.allow.iter().map(ToString::to_string).collect();
        text = format!("{text}, from {}", networks.join(", "));
    }
    text
}

fn upstream_text(upstream: &UpstreamConfig) -> String {
    if !upstream.url.has_framing() {
        return upstream.url.to_string();
    }
    format!(
        "{}, framing {}{}",
        upstream.url,
        OUTPUT_FRAMING.word(upstream.framing),
        rotation_text(upstream.rotation)
    )
}

fn rotation_text(rotation: Rotation) -> String {
    if !rotation.is_on() {
        return String::new();
    }
    let size = rotation.size.map(size_text);
    let age = rotation.age.map(time_text);
    let bounds: Vec<String> = size.into_iter().chain(age).collect();
    let compression = match rotation.compression {
        Compression::Off => "",
        Compression::Zstd => ", zstd",
    };
    format!(
        ", rotated at {}, {} kept{compression}",
        bounds.join(" or "),
        rotation.keep
    )
}

fn policy_text(policy: &Policy) -> String {
    let copies = match policy.window.allow {
        1 => "once".to_owned(),
        allow => format!("{allow} times"),
    };
    let window = time_text(policy.window.window);
    let refresh = policy.window.refresh.map_or_else(String::new, |max_quiet| {
        format!(
            ", longer while it repeats, but at least once in {}",
            time_text(max_quiet)
        )
    });
    let spec = &policy.identity;
    let fields = if spec.fields() == Fields::DEFAULT {
        String::new()
    } else {
        format!("; same {}", field_names(spec.fields()).join(", "))
    };
    let masks = if spec.masks().is_empty() {
        String::new()
    } else {
        format!("; mask {}", mask_names(spec.masks()).join(", "))
    };
    let mode = match policy.mode {
        Mode::Enforce => String::new(),
        mode => format!("; only {}", MODE.word(mode)),
    };
    format!(
        "each message {copies} in {window}{refresh}; summary {}{fields}{masks}{mode}",
        SUMMARY.word(policy.summary)
    )
}

/// A rule in one line: what it matches, and what is done with that.
fn rule_text(rule: &Rule) -> String {
    let matcher = &rule.matcher;
    let mut parts = Vec::new();
    if matcher.facility != Facilities::ALL {
        parts.push(format!(
            "facility {}",
            facility_names(matcher.facility).join("|")
        ));
    }
    parts.extend(severity_range(matcher.severity).map(|range| format!("severity {range}")));
    let globs = |globs: &[Glob]| globs.iter().map(Glob::text).collect::<Vec<_>>().join("|");
    for (key, text) in [
        ("hostname", globs(&matcher.hostname)),
        ("app_name", globs(&matcher.app_name)),
        ("listener", matcher.listener.join("|")),
    ] {
        if !text.is_empty() {
            parts.push(format!("{key} {text}"));
        }
    }
    if !matcher.source.is_empty() {
        let nets: Vec<_> = matcher.source.iter().map(ToString::to_string).collect();
        parts.push(format!("source {}", nets.join("|")));
    }
    parts.extend(
        matcher
            .msg
            .as_ref()
            .map(|text| format!("msg {:?}", text.written())),
    );
    if parts.is_empty() {
        parts.push("everything".to_owned());
    }
    let done = match (rule.action, rule.policy.mode) {
        (Action::Dedup, _) => policy_text(&rule.policy),
        (Action::Pass, _) => "pass".to_owned(),
        (Action::Drop, Mode::Enforce) => "drop".to_owned(),
        (Action::Drop, mode) => format!("drop; only {}", MODE.word(mode)),
    };
    format!("{}: {}: {done}", rule.name, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Argument, Override};

    /// Checks `args`: whether they are valid, and all output.
    fn check(args: &RunArgs) -> (bool, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(args, CheckFormat::Text, &mut out, &mut err).unwrap();
        assert!(out.is_empty() != err.is_empty());
        out.extend(err);
        (code == ExitCode::SUCCESS, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_valid_configuration_is_described() {
        let argument = |name, text: &str| Argument {
            name,
            text: text.to_owned(),
        };
        let args = RunArgs {
            listen: vec![
                argument("--listen", "udp://0.0.0.0:514"),
                argument("--listen", "tcp://0.0.0.0:514"),
            ],
            forward: vec![argument("--forward", "tcp://collector:601")],
            overrides: vec![
                (Override::Window, argument("--window", "5m")),
                (Override::Admin, argument("--admin", "127.0.0.1:9514")),
            ],
            ..RunArgs::default()
        };
        let (fit, text) = check(&args);
        let Config { workers, dedup, .. } = Config::default();
        assert!(fit);
        assert_eq!(
            text,
            format!(
                "file     none: the defaults, with flags and variables\n\
                 listen   udp://0.0.0.0:514\n\
                 listen   tcp://0.0.0.0:514, framing auto\n\
                 forward  tcp://collector:601, framing lf\n\
                 queue    64MiB, when full wait\n\
                 dedup    each message once in 5m; summary prefix\n\
                 memory   256MiB, identity exact, shards {}, workers {workers}\n\
                 admin    http://127.0.0.1:9514\n\
                 at most  {}\n",
                dedup.shards,
                Sizing::of(&Config::load(&args).unwrap())
            )
        );
    }

    #[test]
    fn where_copies_go_and_when_files_are_rotated_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("t.toml");
        let toml = r#"
            [forward]
            to = ["file:///a", { url = "file:///b", rotate_age = "1h", rotate_keep = 3, compress = "off" }]
            [suppressed]
            to = "file:///c"
        "#;
        std::fs::write(&path, toml).unwrap();
        let (fit, text) = check(&RunArgs {
            file: Some(path),
            ..RunArgs::default()
        });
        assert!(fit);
        for line in [
            "forward  file:///a, framing lf\n",
            "forward  file:///b, framing lf, rotated at 1h, 3 kept; standby\n",
            "copies   file:///c, framing lf, rotated at 100MiB or 1day, 10 kept, zstd; queue 16MiB, when full wait\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn upstreams_queue_and_spool_are_described() {
        let describe = |toml: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path: PathBuf = dir.path().join("t.toml");
            std::fs::write(&path, toml).unwrap();
            let (fit, text) = check(&RunArgs {
                file: Some(path),
                ..RunArgs::default()
            });
            assert!(fit, "{text}");
            text
        };
        let two = "[forward]\nto = [\"relp://a:1\", \"udp://b:2\"]\n";
        let text = describe(&format!("{two}[spool]\ndirectory = \"/var/x\"\n"));
        assert!(
            text.contains(
                "forward  relp://a:1\n\
                 forward  udp://b:2; standby\n\
                 queue    64MiB\n\
                 spool    /var/x, 1GiB, when full wait\n"
            ),
            "{text}"
        );
        let text = describe(&format!("{two}strategy = \"balance\"\n"));
        assert!(
            text.contains("relp://a:1; shares the load\nforward  udp://b:2; shares the load\n"),
            "{text}"
        );
    }

    #[test]
    fn the_json_format_has_every_key() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = RunArgs::default();
        let code = run(&args, CheckFormat::Json, &mut out, &mut err).unwrap();
        assert_eq!((code, err), (ExitCode::SUCCESS, Vec::new()));
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["listener"][0]["url"], "udp://127.0.0.1:5514");
        assert_eq!(json["listener"][1]["idle_timeout"], "off");
        assert_eq!(json["forward"]["to"][0]["url"], "stdout:");
        assert_eq!(json["dedup"]["window"], "10s");
        assert_eq!(json["dedup"]["allow"], 1);
        assert_eq!(json["admin"]["address"], "off");
        let limit = &json["memory_limit"];
        assert_eq!(limit["parts"]["windows"], 256 << 20);
        let parts = limit["parts"].as_object().unwrap().values();
        let sum: u64 = parts.map(|part| part.as_u64().unwrap()).sum();
        assert_eq!(limit["total"], sum);
    }

    #[test]
    fn rules_are_described_and_an_unreachable_rule_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("t.toml");
        let toml = r#"
            [forward]
            to = ["stdout:"]
            [[rule]]
            name = "auth"
            facility = ["auth", "authpriv"]
            severity = "warning..debug"
            app_name = ["ssh*"]
            mask = ["number"]
            fields = ["app_name", "msg"]
            mode = "shadow"
            [[rule]]
            name = "rest"
            action = "pass"
            [[rule]]
            name = "late"
            msg = 'x'
            action = "drop"
        "#;
        std::fs::write(&path, toml).unwrap();
        let args = RunArgs {
            file: Some(path),
            ..RunArgs::default()
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&args, CheckFormat::Text, &mut out, &mut err).unwrap();
        assert_eq!(code, ExitCode::SUCCESS);
        let out = String::from_utf8(out).unwrap();
        let rules: Vec<_> = out
            .lines()
            .filter_map(|line| line.strip_prefix("rule     "))
            .collect();
        assert_eq!(
            rules,
            [
                "auth: facility auth|authpriv, severity warning..debug, app_name ssh*: each message once in 10s; \
                 summary prefix; same app_name, msg; mask number; only shadow",
                "rest: everything: pass",
                "late: msg \"x\": drop",
            ]
        );
        assert_eq!(
            String::from_utf8(err).unwrap(),
            "warning: rule \"late\" is never reached: \"rest\", an earlier rule, matches all of its messages\n"
        );
    }

    #[test]
    fn all_errors_are_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("t.toml");
        std::fs::write(&path, "[dedup]\nwindw = \"1s\"\nallow = 0\n").unwrap();
        let (fit, text) = check(&RunArgs {
            file: Some(path.clone()),
            ..RunArgs::default()
        });
        assert!(!fit);
        let path = path.display();
        assert_eq!(
            text,
            format!(
                "{path}:2: dedup.windw: unknown key, expected one of window, allow, refresh, max_quiet, summary, mode, \
                 fields, mask, memory, identity, shards, state (did you mean window?)\n\
                 {path}:3: dedup.allow: invalid 0, expected a whole number from 1 to 1000000\n"
            )
        );
    }
}
