//! What files, flags and the documented file run, and how they are refused.

use std::path::PathBuf;

use super::dedup::*;
use super::error::FOUND_CHARS_MAX;
use super::forward::*;
use super::listener::*;
use super::rules::ACTION;
use super::upstream::*;
use super::value::Words;
use super::*;
use crate::core::frame::Framing;
use crate::core::identity::mask::{Masks, Pattern};
use crate::core::identity::{Field, Fields, IdentityKind, Spec};
use crate::core::limits::MESSAGE_OCTETS_MAX;
use crate::core::rule::{
    Action, Facilities, Mode, Policy, Profile, Severities, SummaryStyle, WindowPolicy,
};

/// The configuration of `toml`, the contents of `t.toml`, with `args` laid over it.
fn load(toml: impl AsRef<[u8]>, args: &RunArgs) -> Result<Config, String> {
    Config::of_octets("t.toml", toml.as_ref(), args).map_err(|errors| errors.to_string())
}

/// Asserts that `toml` is valid, and runs the default after `change`.
fn check(toml: &str, change: impl FnOnce(&mut Config)) {
    let mut expected = Config::default();
    change(&mut expected);
    if expected.rules.rules().is_empty() {
        expected.rules = Arc::new(Rules::new(expected.dedup.policy.clone()));
    }
    assert_eq!(load(toml, &RunArgs::default()), Ok(expected), "{toml}");
}

/// Asserts that `toml` is refused with exactly these lines.
fn check_refused(toml: impl AsRef<[u8]>, expected: &[&str]) {
    let toml = toml.as_ref();
    let text = load(toml, &RunArgs::default()).unwrap_err();
    assert_eq!(text, expected.join("\n"), "{}", toml.escape_ascii());
}

fn listen(texts: &[&str]) -> RunArgs {
    RunArgs {
        listen: arguments("--listen", texts),
        ..RunArgs::default()
    }
}

fn arguments(name: &'static str, texts: &[&str]) -> Vec<Argument> {
    texts
        .iter()
        .map(|text| Argument {
            name,
            text: (*text).to_owned(),
        })
        .collect()
}

const DOCUMENTED: &str = include_str!("../../config/tersed.toml");

#[test]
fn the_documented_file_is_the_default() {
    check(DOCUMENTED, |_| {});
    check("", |_| {});
}

#[test]
fn the_documented_file_names_every_key_of_every_section() {
    /// The documented lines from the section's header to the next one.
    fn lines_of(header: &str) -> Vec<&'static str> {
        let is_header = |line: &str| line.trim_start_matches('#').starts_with('[');
        let mut inside = false;
        let mut lines = Vec::new();
        for line in DOCUMENTED.lines() {
            if is_header(line) {
                inside = line.trim_start_matches('#') == header;
            } else if inside {
                lines.push(line.trim_start_matches('#'));
            }
        }
        lines
    }
    let check = |header: &str, keys: &[&str]| {
        let lines = lines_of(header);
        for key in keys {
            let is_key = |line: &&str| line.starts_with(&format!("{key} = "));
            assert!(lines.iter().any(is_key), "{header} {key}");
        }
    };
    for (table, keys) in keys::tables() {
        match table.as_str() {
            keys::ROOT => {
                for key in keys {
                    let is_there = |header: String| {
                        DOCUMENTED
                            .lines()
                            .any(|line| line.trim_start_matches('#') == header)
                    };
                    assert!(
                        is_there(format!("[{key}]")) || is_there(format!("[[{key}]]")),
                        "{key}"
                    );
                }
            }
            // Its keys stand in a table that only a comment shows.
            "the table of an upstream" => {
                for key in keys {
                    assert!(DOCUMENTED.contains(&format!("{key} = ")), "{key}");
                }
            }
            header => check(header, &keys),
        }
    }
}

#[test]
fn what_the_documented_file_shows_in_comments_is_fit_to_run() {
    let shown = |line: &str| {
        let rest = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|first: char| first != ' '));
        rest.unwrap_or(line).to_owned() + "\n"
    };
    let toml: String = DOCUMENTED.lines().map(shown).collect();
    let toml = toml.replace("refresh = false", "refresh = true");
    check(&toml, |config| {
        let log = "unix-dgram:///run/tersed/log.sock".parse().unwrap();
        let relp = "relp://127.0.0.1:2514".parse().unwrap();
        config.listeners.push(ListenerConfig::new(relp));
        config.listeners.push(ListenerConfig::new(log));
        config.dedup.policy.window.refresh = Some(Duration::from_secs(100));
        let copies = "file:///var/log/tersed/suppressed.log".parse().unwrap();
        config.suppressed.to = Some(UpstreamConfig {
            rotation: Rotation::OF_COPIES,
            ..UpstreamConfig::new(copies)
        });
        config.rules = load(&toml, &RunArgs::default()).unwrap().rules;
        assert_eq!(config.rules.rules().len(), 3);
    });
}

#[test]
fn the_examples_are_fit_to_run() {
    for (toml, name) in [
        (include_str!("../../config/examples/aggregator.toml"), "udp"),
        (include_str!("../../config/examples/sidecar.toml"), "app"),
    ] {
        let config = load(toml, &RunArgs::default()).unwrap();
        assert_eq!(config.listeners[0].name, name);
    }
}

#[test]
fn each_key_reaches_its_field() {
    check(
        r#"
        [[listener]]
        url = "tcp://[::]:601"
        name = "in"
        framing = "octet-counting"
        max_message_size = "480B"
        oversize = "drop"
        connections_max = 7
        connections_per_source_max = 0x6
        idle_timeout = "1h 30m"
        partial_frame_timeout = "1.5s"
        allow = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]
        [[listener]]
        url = "relp://[::]:2514"
        window = 65536
        ack = "queued"
        [[listener]]
        url = "unix-dgram:///run/x"
        unix_mode = "0600"
        receive_buffer = "1MiB"
        [forward]
        to = ["udp://a:514", { url = "tcp://b:601", framing = "octet-counting" },
            { url = "file:///var/log/once.log", rotate_size = "10MiB", rotate_age = "1day", rotate_keep = 3, compress = "off" }]
        strategy = "balance"
        queue = "1MB"
        when_full = "drop-oldest"
        retry_min = "1s"
        retry_max = "1s"
        connect_timeout = "2s"
        send_timeout = "3s"
        resend_max = "off"
        resend_age = "1m"
        rebind = "12h"
        udp_max = "1400B"
        line_breaks = "escape"
        [suppressed]
        to = "file:///var/log/suppressed.log"
        queue = "2MiB"
        when_full = "drop-newest"
        [dedup]
        window = "1m"
        allow = 3
        refresh = true
        summary = "none"
        mode = "shadow"
        fields = ["msg", "source"]
        mask = ["job", "ipv4"]
        memory = "1GiB"
        identity = "compact"
        shards = 64
        state = "/var/lib/tersed/windows"
        [mask]
        job = 'job-[0-9]+'
        [admin]
        address = "[::1]:0"
        [shutdown]
        grace = "0s"
        [log]
        level = "warn,tersed::forward=trace"
        format = "json"
        [runtime]
        workers = 3
        "#,
        |config| {
            let tcp = ListenerConfig {
                name: "in".to_owned(),
                framing: Framing::OctetCounting,
                max_message_size: 480,
                oversize: Oversize::Drop,
                connections_max: 7,
                connections_per_source_max: 6,
                idle_timeout: Some(Duration::from_secs(5400)),
                partial_frame_timeout: Duration::from_millis(1500),
                allow: ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]
                    .map(|net| net.parse().unwrap())
                    .to_vec(),
                ..ListenerConfig::new("tcp://[::]:601".parse().unwrap())
            };
            let relp = ListenerConfig {
                window: 65_536,
                ack: Ack::Queued,
                ..ListenerConfig::new("relp://[::]:2514".parse().unwrap())
            };
            let unix = ListenerConfig {
                unix_mode: 0o600,
                receive_buffer: MIB,
                ..ListenerConfig::new("unix-dgram:///run/x".parse().unwrap())
            };
            config.listeners = vec![tcp, relp, unix];
            let counted = UpstreamConfig {
                framing: OutputFraming::OctetCounting,
                ..UpstreamConfig::new("tcp://b:601".parse().unwrap())
            };
            let rotated = UpstreamConfig {
                rotation: Rotation {
                    size: Some(10 * MIB),
                    age: Some(Duration::from_secs(86400)),
                    keep: 3,
                    compression: Compression::Off,
                },
                ..UpstreamConfig::new("file:///var/log/once.log".parse().unwrap())
            };
            config.forward = ForwardConfig {
                to: vec![
                    UpstreamConfig::new("udp://a:514".parse().unwrap()),
                    counted,
                    rotated,
                ],
                strategy: Strategy::Balance,
                queue: 1_000_000,
                when_full: WhenFull::DropOldest,
                retry_min: Duration::from_secs(1),
                retry_max: Duration::from_secs(1),
                connect_timeout: Duration::from_secs(2),
                send_timeout: Duration::from_secs(3),
                resend_max: 0,
                resend_age: Duration::from_secs(60),
                rebind: Some(Duration::from_secs(12 * 3600)),
                udp_max: 1400,
                line_breaks: LineBreaks::Escape,
            };
            let copies = "file:///var/log/suppressed.log".parse().unwrap();
            config.suppressed = SuppressedConfig {
                to: Some(UpstreamConfig {
                    rotation: Rotation::OF_COPIES,
                    ..UpstreamConfig::new(copies)
                }),
                queue: 2 * MIB,
                when_full: WhenFull::DropNewest,
            };
            let pattern = Pattern {
                name: "job".to_owned(),
                regex: "job-[0-9]+".to_owned(),
            };
            let masks = Masks::named(["ipv4", "job"], &[pattern]).unwrap();
            config.dedup = DedupConfig {
                policy: Policy {
                    window: WindowPolicy {
                        window: Duration::from_secs(60),
                        allow: 3,
                        refresh: Some(Duration::from_secs(600)),
                    },
                    summary: SummaryStyle::None,
                    identity: Spec::new(
                        Fields::EMPTY.with(Field::Msg).with(Field::Source),
                        Arc::new(masks),
                    ),
                    mode: Mode::Shadow,
                },
                memory: GIB,
                identity: IdentityKind::Compact,
                shards: 64,
                state: Some("/var/lib/tersed/windows".into()),
            };
            config.admin = Some("[::1]:0".parse().unwrap());
            config.shutdown_grace = Duration::ZERO;
            config.log.level = "warn,tersed::forward=trace".to_owned();
            config.log.format = LogFormat::Json;
            config.workers = 3;
        },
    );
}

#[test]
fn max_quiet_is_ten_windows_but_never_above_the_longest() {
    check("dedup = { window = \"7days\", refresh = true }", |config| {
        let window = &mut config.dedup.policy.window;
        (window.window, window.refresh) = (WINDOW_MAX, Some(WINDOW_MAX));
    });
}

const TIME: &str = "a time with its unit (\"500ms\", \"10s\", \"5m\", \"1h 30m\")";
const SIZE: &str = "a size with its unit (\"2048B\", \"64KiB\", \"256MiB\")";

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    check_refused(
        "[dedup]\nwindow =\n",
        &["t.toml:2: not TOML: string values must be quoted, expected literal string"],
    );
    check_refused(
        b"[dedup]\nwindow = \"\xff\"",
        &["t.toml:2: not UTF-8, expected a configuration in TOML, which is UTF-8"],
    );
    check_refused(
        "[dedup]\nwindow = \"10s",
        &["t.toml:2: not TOML: invalid basic string, expected `\"`"],
    );
    check_refused(
        "[dedup]\nallow = 1\nallow = 2",
        &["t.toml:3: not TOML: duplicate key"],
    );
    check_refused(
        "[dedup]\n[log]\n[dedup]",
        &["t.toml:3: not TOML: duplicate key"],
    );
}

#[test]
fn default_listeners_are_not_blamed_if_a_file_cannot_be_understood() {
    let args = RunArgs {
        forward: arguments("--forward", &["tcp://127.0.0.1:5514"]),
        ..RunArgs::default()
    };
    let text = load("listener", &args).unwrap_err();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(load("", &args).unwrap_err().lines().count(), 1);
}

#[test]
fn an_unknown_key_is_refused_with_the_known_ones() {
    let top =
        "listener, forward, spool, suppressed, dedup, mask, rule, admin, shutdown, log, runtime";
    let dedup = "window, allow, refresh, max_quiet, summary, mode, fields, mask, memory, identity, shards, state";
    check_refused(
        "\n[dedup]\n\nwindw = 1",
        &[&format!(
            "t.toml:4: dedup.windw: unknown key, expected one of {dedup} (did you mean window?)"
        )],
    );
    check_refused(
        "dedup.wnidow = 1",
        &[&format!(
            "t.toml:1: dedup.wnidow: unknown key, expected one of {dedup} (did you mean window?)"
        )],
    );
    check_refused(
        "[dedup]\nallowance = 1",
        &[&format!(
            "t.toml:2: dedup.allowance: unknown key, expected one of {dedup}"
        )],
    );
    check_refused(
        "[[sieve]]\n",
        &[&format!(
            "t.toml:1: sieve: unknown key, expected one of {top}"
        )],
    );
    check_refused(
        "[listeners]\n",
        &[&format!(
            "t.toml:1: listeners: unknown key, expected one of {top} (did you mean listener?)"
        )],
    );
    check_refused(
        "\"a\\u0007\\nb\" = 1",
        &[&format!(
            "t.toml:1: \"a\\u{{7}}\\nb\": unknown key, expected one of {top}"
        )],
    );
    check_refused(
        "forward.to = [\n{ url = \"stdout:\",\nframe = 1 }]",
        &[
            "t.toml:3: forward.to[0].frame: unknown key, expected one of url, framing, rotate_size, rotate_age, rotate_keep, compress",
        ],
    );
}

#[test]
fn an_invalid_value_is_refused_with_what_was_expected() {
    // Times.
    let window = format!("{TIME} from 1ms to 7days");
    for found in [
        "10",
        "\"10\"",
        "\"0\"",
        "\"\"",
        "\"-1s\"",
        "\"10 parsecs\"",
        "\"0s\"",
        "\"999us\"",
        "\"8days\"",
        "\"s\"",
        "\"18446744073709551615s 1000ms\"",
        "1.5",
        "true",
    ] {
        check_refused(
            format!("[dedup]\nwindow = {found}"),
            &[&format!(
                "t.toml:2: dedup.window: invalid {found}, expected {window}"
            )],
        );
    }
    check_refused(
        "[dedup]\nwindow = []",
        &[&format!(
            "t.toml:2: dedup.window: invalid empty list, expected {window}"
        )],
    );
    check_refused(
        "[dedup]\nwindow = [1]",
        &[&format!(
            "t.toml:2: dedup.window: invalid list, expected {window}"
        )],
    );
    check_refused(
        "[dedup]\nwindow = {}",
        &[&format!(
            "t.toml:2: dedup.window: invalid table, expected {window}"
        )],
    );
    check_refused(
        "[dedup]\nwindow = 2026-01-01",
        &[&format!(
            "t.toml:2: dedup.window: invalid date, expected {window}"
        )],
    );
    check_refused(
        "[shutdown]\ngrace = \"61m\"",
        &[&format!(
            "t.toml:2: shutdown.grace: invalid \"61m\", expected {TIME} from 0s to 1h"
        )],
    );
    check_refused(
        "[[listener]]\nurl = \"tcp://[::]:1\"\nidle_timeout = \"never\"",
        &[&format!(
            "t.toml:3: listener[0].idle_timeout: invalid \"never\", expected \"off\", or {TIME} from 10ms to 30days"
        )],
    );
    // Sizes.
    for found in [
        "1048576",
        "\"1048576\"",
        "\"1\"",
        "\"MiB\"",
        "\"-1MiB\"",
        "\"1023KiB\"",
        "\"2TiB\"",
        "\"1 MiB.\"",
        "\"1e3MiB\"",
        "\"99999999999EiB\"",
    ] {
        check_refused(
            format!("[dedup]\nmemory = {found}"),
            &[&format!(
                "t.toml:2: dedup.memory: invalid {found}, expected {SIZE} from 1MiB to 1TiB"
            )],
        );
    }
    check_refused(
        "[[listener]]\nurl = \"udp://[::]:1\"\nmax_message_size = \"479B\"",
        &[&format!(
            "t.toml:3: listener[0].max_message_size: invalid \"479B\", expected {SIZE} from 480B to 16MiB"
        )],
    );
    check_refused(
        "[forward]\nudp_max = \"64KiB\"",
        &[&format!(
            "t.toml:2: forward.udp_max: invalid \"64KiB\", expected {SIZE} from 480B to 65507B"
        )],
    );
    check_refused(
        "[forward]\nresend_max = 0",
        &[&format!(
            "t.toml:2: forward.resend_max: invalid 0, expected \"off\", or {SIZE} from 0B to 1GiB"
        )],
    );
    // Numbers.
    for found in ["0", "-1", "1000001", "99999999999999999999", "\"1\"", "1.0"] {
        check_refused(
            format!("[dedup]\nallow = {found}"),
            &[&format!(
                "t.toml:2: dedup.allow: invalid {found}, expected a whole number from 1 to 1000000"
            )],
        );
    }
    check_refused(
        "[dedup]\nshards = 12",
        &[
            "t.toml:2: dedup.shards: invalid 12, expected \"auto\", or a power of two from 1 to 4096",
        ],
    );
    check_refused(
        "[runtime]\nworkers = 0",
        &[
            "t.toml:2: runtime.workers: invalid 0, expected \"auto\", or a whole number from 1 to 1024",
        ],
    );
    // Choices.
    for (found, shown) in [
        ("\"windows\"", "\"windows\""),
        ("\"/var/lib/tersed/\"", "\"/var/lib/tersed/\""),
        ("true", "true"),
    ] {
        check_refused(
            format!("[dedup]\nstate = {found}"),
            &[&format!(
                "t.toml:2: dedup.state: invalid {shown}, expected \"off\", or an absolute path, such as \
                 \"/var/lib/tersed/windows\""
            )],
        );
    }
    check_refused(
        "[dedup]\nsummary = \"Prefix\"",
        &[
            "t.toml:2: dedup.summary: invalid \"Prefix\", expected \"prefix\", \"suffix\", \"none\" (did you mean prefix?)",
        ],
    );
    check_refused(
        "[dedup]\nrefresh = \"yes\"",
        &["t.toml:2: dedup.refresh: invalid \"yes\", expected true or false"],
    );
    check_refused(
        "[forward]\nwhen_full = 1",
        &[
            "t.toml:2: forward.when_full: invalid 1, expected \"wait\", \"drop-newest\", \"drop-oldest\"",
        ],
    );
    // The log's filter: tracing would take a mistyped level for the name of a module.
    let filter =
        "off, error, warn, info, debug or trace, also by module: \"info,tersed::forward=debug\"";
    for (found, hint) in [
        ("\"\"", ""),
        ("\"inof\"", " (did you mean info?)"),
        ("\"info,\"", ""),
        ("\"info,tersed=loud\"", ""),
        ("\"info,tersed=debgu\"", " (did you mean debug?)"),
    ] {
        check_refused(
            format!("[log]\nlevel = {found}"),
            &[&format!(
                "t.toml:2: log.level: invalid {found}, expected {filter}{hint}"
            )],
        );
    }
    // Words of lists.
    for (toml, hint) in [
        (
            "[[listener]]\nurl = \"tcp://[::]:1\"\nframing = \"octet\"",
            "octet-counting",
        ),
        (
            "[[listener]]\nurl = \"tcp://[::]:1\"\noversize = \"truncated\"",
            "truncate",
        ),
        ("[forward]\nstrategy = \"ballance\"", "balance"),
        ("[forward]\nwhen_full = \"drop_newest\"", "drop-newest"),
        ("[forward]\nline_breaks = \"escaped\"", "escape"),
        ("[forward]\nrebind = \"of\"", "off"),
        (
            "[forward]\nto = [{ url = \"file:///x\", rotate_age = \"1h\", compress = \"zst\" }]",
            "zstd",
        ),
        ("[[rule]]\nname = \"a\"\naction = \"dropp\"", "drop"),
        ("[[rule]]\nname = \"a\"\nmode = \"shaddow\"", "shadow"),
        (
            "[[rule]]\nname = \"a\"\nfacility = [\"authprv\"]",
            "authpriv",
        ),
        (
            "[[rule]]\nname = \"a\"\nseverity = \"error..debg\"",
            "debug",
        ),
        (
            "[[rule]]\nname = \"a\"\nprofile = \"linux_auth\"",
            "linux-auth",
        ),
        ("[dedup]\nfields = [\"appname\"]", "app_name"),
        ("[dedup]\nidentity = \"compcat\"", "compact"),
        ("[log]\nformat = \"jsno\"", "json"),
        ("[dedup]\nrefresh = \"True\"", "true"),
    ] {
        let text = load(toml, &RunArgs::default()).unwrap_err();
        assert!(text.ends_with(&format!("(did you mean {hint}?)")), "{text}");
    }
    // Sections.
    check_refused(
        "dedup = 1",
        &[
            "t.toml:1: dedup: invalid 1, expected a table with window, allow, refresh, max_quiet, summary, mode, fields, mask, memory, identity, shards, state",
        ],
    );
    check_refused(
        "[listener]\nurl = \"udp://[::]:1\"",
        &[
            "t.toml:1: listener: invalid table, expected one or more [[listener]], or none for the defaults",
        ],
    );
    check_refused(
        "listener = []",
        &[
            "t.toml:1: listener: invalid empty list, expected one or more [[listener]], or none for the defaults",
        ],
    );
}

#[test]
fn an_invalid_address_is_refused_with_what_was_expected() {
    let url = |found: &str, expected: &str| {
        check_refused(
            format!("[[listener]]\n\nurl = {found}"),
            &[&format!(
                "t.toml:3: listener[0].url: invalid {found}, expected {expected}"
            )],
        );
    };
    url(
        "\"udp:/0.0.0.0\"",
        "udp://ADDRESS:PORT, tcp://ADDRESS:PORT, relp://ADDRESS:PORT, unix-dgram:///PATH, unix-stream:///PATH \
         (did you mean udp://?)",
    );
    url(
        "514",
        "udp://ADDRESS:PORT, tcp://ADDRESS:PORT, relp://ADDRESS:PORT, unix-dgram:///PATH, unix-stream:///PATH",
    );
    for found in ["\"tcp://localhost:514\"", "\"tcp://0.0.0.0\""] {
        url(
            found,
            "tcp://ADDRESS:PORT with a numeric ADDRESS, such as 127.0.0.1 (this machine only), 0.0.0.0 (all of IPv4) or [::] (everything)",
        );
    }
    url(
        "\"unix-dgram://run/x\"",
        "unix-dgram:///PATH with an absolute PATH that names a file",
    );
    let long = format!("\"unix-dgram:///{}\"", "x".repeat(107));
    url(
        &long,
        "unix-dgram:///PATH with a PATH of at most 107 octets (this one has 108), which is all that a Unix socket's address holds",
    );
    check_refused(
        "[[listener]]\nname = \"x\"",
        &[
            "t.toml:1: listener[0]: missing, expected url = \"udp://ADDRESS:PORT\" or another listener URL",
        ],
    );
    check_refused(
        "[[listener]]\nurl = \"udp://[::]:1\"\nname = \"a\\nb\"",
        &["t.toml:3: listener[0].name: invalid \"a\\nb\", expected 1 to 160 printable characters"],
    );
    check_refused(
        "[[listener]]\nurl = \"unix-dgram:///x\"\nunix_mode = 0o660",
        &[
            "t.toml:3: listener[0].unix_mode: invalid 0o660, expected an octal mode in quotes from \"0000\" to \"0777\", such as \"0660\"",
        ],
    );
    check_refused(
        "[[listener]]\nurl = \"udp://[::]:1\"\nallow = [\n\"10.0.0.1/8\",\n\"10.0.0.0/8\",\n\"x\"]",
        &[
            "t.toml:4: listener[0].allow[0]: invalid \"10.0.0.1/8\", expected a network or an address, such as \"10.0.0.0/8\" (no bits set after the prefix), \"192.0.2.1\" or \"2001:db8::/32\"",
            "t.toml:6: listener[0].allow[2]: invalid \"x\", expected a network or an address, such as \"10.0.0.0/8\" (no bits set after the prefix), \"192.0.2.1\" or \"2001:db8::/32\"",
        ],
    );

    let to = "a list of one or more URLs, such as [\"tcp://collector.example:601\"]";
    check_refused(
        "[forward]\nto = []",
        &[&format!(
            "t.toml:2: forward.to: invalid empty list, expected {to}"
        )],
    );
    check_refused(
        "[forward]\nto = \"stdout:\"",
        &[&format!(
            "t.toml:2: forward.to: invalid \"stdout:\", expected {to}"
        )],
    );
    check_refused(
        "[forward]\nto = [\"stdout\"]",
        &[
            "t.toml:2: forward.to[0]: invalid \"stdout\", expected tcp://HOST:PORT, relp://HOST:PORT, udp://HOST:PORT, unix-stream:///PATH, unix-dgram:///PATH, file:///PATH, stdout: (did you mean stdout:?)",
        ],
    );
    check_refused(
        "[forward]\nto = [1]",
        &[
            "t.toml:2: forward.to[0]: invalid 1, expected a URL, or a table such as { url = \"tcp://b:601\", framing = \"lf\" }",
        ],
    );
    check_refused(
        "[forward]\nto = [{ url = \"tcp://a:0\" }]",
        &[
            "t.toml:2: forward.to[0].url: invalid \"tcp://a:0\", expected tcp://HOST:PORT with PORT from 1 to 65535, such as tcp://collector.example:601, tcp://192.0.2.1:514 or tcp://[2001:db8::1]:514",
        ],
    );
    check_refused(
        "[forward]\nto = [{ framing = \"lf\" }]",
        &[
            "t.toml:2: forward.to[0]: missing, expected url = \"tcp://HOST:PORT\" or another upstream URL",
        ],
    );
    check_refused(
        "[admin]\naddress = \"localhost:80\"",
        &[
            "t.toml:2: admin.address: invalid \"localhost:80\", expected \"off\", or ADDRESS:PORT with a numeric ADDRESS, such as \"127.0.0.1:9514\" or \"[::1]:9514\"",
        ],
    );
}

#[test]
fn a_key_without_effect_is_refused() {
    let listener = |url: &str, key: &str, text: &str| {
        check_refused(format!("[[listener]]\nurl = \"{url}\"\n{key}"), &[text]);
    };
    let (udp, tcp) = ("udp://[::]:514", "tcp://[::]:514");
    let (dgram, stream) = ("unix-dgram:///run/x", "unix-stream:///run/x");
    let streams = "tcp, relp and unix-stream listeners";
    for (url, transport) in [(udp, "udp"), ("relp://[::]:514", "relp")] {
        listener(
            url,
            "framing = \"lf\"",
            &format!(
                "t.toml:3: listener[0].framing: not supported for {transport} listeners; only for tcp and unix-stream listeners"
            ),
        );
    }
    for key in ["window = 1", "ack = \"safe\""] {
        let name = key.split(' ').next().unwrap();
        let text = format!(
            "t.toml:3: listener[0].{name}: not supported for tcp listeners; only for relp listeners"
        );
        listener(tcp, key, &text);
    }
    listener(
        udp,
        "connections_max = 1",
        &format!(
            "t.toml:3: listener[0].connections_max: not supported for udp listeners; only for {streams}"
        ),
    );
    listener(
        dgram,
        "idle_timeout = \"off\"",
        &format!(
            "t.toml:3: listener[0].idle_timeout: not supported for unix-dgram listeners; only for {streams}"
        ),
    );
    listener(
        dgram,
        "partial_frame_timeout = \"1s\"",
        &format!(
            "t.toml:3: listener[0].partial_frame_timeout: not supported for unix-dgram listeners; only for {streams}"
        ),
    );
    listener(
        stream,
        "connections_per_source_max = 1",
        "t.toml:3: listener[0].connections_per_source_max: not supported for unix-stream listeners; only for tcp and relp listeners",
    );
    listener(
        tcp,
        "receive_buffer = \"1MiB\"",
        "t.toml:3: listener[0].receive_buffer: not supported for tcp listeners; only for udp and unix-dgram listeners",
    );
    listener(
        tcp,
        "unix_mode = \"0660\"",
        "t.toml:3: listener[0].unix_mode: not supported for tcp listeners; only for unix-dgram and unix-stream listeners",
    );
    listener(
        stream,
        "allow = []",
        "t.toml:3: listener[0].allow: not supported for unix-stream listeners; only for udp, tcp and relp listeners",
    );
    check_refused(
        "[forward]\nto = [{ url = \"relp://a:1\", framing = \"lf\" }]",
        &[
            "t.toml:2: forward.to[0].framing: not supported for relp upstreams; only for tcp, unix-stream, file and stdout upstreams",
        ],
    );
    check_refused(
        "[forward]\nto = [{ url = \"stdout:\", rotate_age = \"off\", compress = \"zstd\" }]",
        &[
            "t.toml:2: forward.to[0].rotate_age: not supported for stdout upstreams; only for file upstreams",
            "t.toml:2: forward.to[0].compress: not supported for stdout upstreams; only for file upstreams",
        ],
    );
    check_refused(
        "[forward]\nto = [{ url = \"file:///a\", rotate_size = \"off\", rotate_keep = 3 }]",
        &[
            "t.toml:2: forward.to[0].rotate_keep: not supported for files that are not rotated; only for files with a rotate_size or a rotate_age",
        ],
    );
    check_refused(
        "[suppressed]\nqueue = \"1MiB\"\nwhen_full = \"wait\"",
        &[
            "t.toml:2: suppressed.queue: not supported for suppressed copies that are not kept; only for copies with a destination (suppressed.to)",
            "t.toml:3: suppressed.when_full: not supported for suppressed copies that are not kept; only for copies with a destination (suppressed.to)",
        ],
    );
    check_refused(
        "[suppressed]\nto = { url = \"tcp://a:1\", rotate_keep = 3 }",
        &[
            "t.toml:2: suppressed.to.rotate_keep: not supported for tcp upstreams; only for file upstreams",
        ],
    );
    check_refused(
        "[forward]\nto = [{ url = \"udp://a:1\", framing = \"lf\" }]",
        &[
            "t.toml:2: forward.to[0].framing: not supported for udp upstreams; only for tcp, unix-stream, file and stdout upstreams",
        ],
    );
    check_refused(
        "[dedup]\nmax_quiet = \"1m\"",
        &[
            "t.toml:2: dedup.max_quiet: not supported unless dedup.refresh is true, expected refresh = true beside it, or no max_quiet",
        ],
    );
}

#[test]
fn a_rule_takes_what_it_leaves_out_from_its_profile_and_then_from_dedup() {
    let toml = r#"
        [dedup]
        window = "20s"
        allow = 2
        summary = "suffix"
        mask = ["ipv4"]
        mode = "shadow"
        [mask]
        job = 'job-[0-9]+'
        [[rule]]
        name = "plain"
        facility = ["auth", "local7"]
        severity = "error..warning"
        [[rule]]
        name = "profile"
        app_name = ["sshd"]
        profile = "linux-auth"
        mode = "tag"
        [[rule]]
        name = "own"
        app_name = ["su*"]
        profile = "linux-auth"
        window = "1h"
        refresh = true
        fields = ["msg", "app_name"]
        mask = ["none", "job", "number"]
        [[rule]]
        name = "drop"
        severity = "debug"
        action = "drop"
    "#;
    let config = load(toml, &RunArgs::default()).unwrap();
    let [plain, profile, own, drop] = config.rules.rules() else {
        panic!("{:?}", config.rules);
    };
    assert_eq!(plain.policy, config.dedup.policy);
    assert_eq!(plain.matcher.facility, Facilities::NONE.with(4).with(23));
    assert_eq!(plain.matcher.severity, Severities::NONE.with(3).with(4));
    let linux = Profile::named("linux-auth").unwrap();
    assert_eq!(profile.policy.window.window, linux.window);
    assert_eq!(profile.policy.window.allow, 2);
    assert_eq!(profile.policy.identity, linux.spec());
    assert_eq!(profile.policy.mode, Mode::Tag);
    let window = own.policy.window;
    assert_eq!(window.window, Duration::from_secs(3600));
    assert_eq!(window.refresh, Some(Duration::from_secs(36_000)));
    let spec = &own.policy.identity;
    assert_eq!(spec.fields().iter().count(), 2);
    assert_eq!(spec.masks().patterns().len(), 1);
    assert_eq!(drop.action, Action::Drop);
    assert_eq!(drop.policy.mode, Mode::Shadow, "the overall mode");
    assert_eq!(config.warnings(), [""; 0]);
}

#[test]
fn a_rule_that_does_not_fit_is_refused_with_its_place() {
    check_refused(
        "[[rule]]\naction = \"pass\"\n[[rule]]\nname = \"default\"",
        &[
            "t.toml:1: rule[0]: missing, expected name = \"...\", the name of the rule in metrics and log lines",
            "t.toml:4: rule[1].name: invalid \"default\", expected another name: this one stands for messages that no rule matches",
        ],
    );
    check_refused(
        "[[rule]]\nname = \"a\"\n[[rule]]\nname = \"a\"",
        &[
            "t.toml:4: rule[1].name: \"a\" is already taken (t.toml:2: rule[0].name), expected a name that no other rule has",
        ],
    );
    check_refused(
        "[[rule]]\nname = \"a\"\naction = \"pass\"\nwindow = \"1s\"\nmode = \"tag\"",
        &[
            "t.toml:4: rule[0].window: not supported for rules with action = \"pass\"; only for rules with action = \"dedup\"",
            "t.toml:5: rule[0].mode: not supported for rules with action = \"pass\"; only for rules with action = \"dedup\" or \"drop\"",
        ],
    );
    let names = "emergency, alert, critical, error, warning, notice, info, debug";
    check_refused(
        "[[rule]]\nname = \"a\"\nseverity = \"warnin\"\nmsg = 'a(b'\napp_name = [\"a b\"]\nhostname = []",
        &[
            &format!(
                "t.toml:3: rule[0].severity: invalid \"warnin\", expected a severity or a range of them, such as \"error\" or \
                 \"warning..debug\", of {names} (did you mean warning?)"
            ),
            "t.toml:4: rule[0].msg: invalid \"a(b\", expected a regular expression: at octet 1 of `a(b`: unclosed group",
            "t.toml:5: rule[0].app_name[0]: invalid \"a b\", expected a name, with * for anything, ? for one character, [a-z] \
             for one of those: at octet 1 of `a b`: matches nothing: no name has spaces or control characters",
            "t.toml:6: rule[0].hostname: invalid empty list, expected a list of one or more names, such as [\"web-*\"]",
        ],
    );
    check_refused(
        "[mask]\nx = 'a*'\nnumber = 'b'\n[dedup]\nmask = [\"numbr\"]\nfields = [\"host\"]",
        &[
            "t.toml:2: mask.x: mask `x`: `a*` matches the empty text; let it match at least one octet",
            "t.toml:3: mask.number: mask `number`: a built-in mask has this name",
            "t.toml:5: dedup.mask[0]: no mask is called `numbr`, perhaps `number` was meant; the built-in ones are \
             number, hex, ipv4, ipv6, mac, uuid, timestamp, quoted, path",
            "t.toml:6: dedup.fields[0]: invalid \"host\", expected one of facility, severity, hostname, app_name, procid, msgid, \
             structured_data, msg, source, listener (did you mean hostname?)",
        ],
    );
    check_refused(
        "[[rule]]\nname = \"a\"\nmax_quiet = \"1s\"\nprofile = \"cisco\"",
        &[
            "t.toml:3: rule[0].max_quiet: not supported unless rule.refresh is true, expected refresh = true beside it, or no \
             max_quiet",
            "t.toml:3: rule[0].max_quiet: invalid \"1s\", expected at least rule.window, 10s",
            "t.toml:4: rule[0].profile: invalid \"cisco\", expected one of cisco-ios, cisco-asa, linux-auth, iptables-ufw, \
             haproxy-nginx, kubernetes, windows-snare-nxlog",
        ],
    );
}

#[test]
fn a_rule_that_is_never_reached_is_a_warning() {
    let toml = "[[rule]]\nname = \"a\"\napp_name = [\"s*\"]\n[[rule]]\nname = \"b\"\napp_name = [\"sshd\"]\nlistener = [\"x\"]";
    let config = load(toml, &RunArgs::default()).unwrap();
    let warnings = config.warnings();
    assert_eq!(
        warnings[0],
        "rule \"b\" is never reached: \"a\", an earlier rule, matches all of its messages"
    );
    assert!(warnings[1].starts_with("rule \"b\": no listener is named \"x\""));
}

#[test]
fn what_does_not_fit_together_is_refused_where_it_was_written() {
    let two = |one: &str, two: &str| format!("[[listener]]\n{one}\n[[listener]]\n{two}");
    check_refused(
        two("url = \"tcp://[::]:1\"", "url = \"tcp://[::]:1\""),
        &[
            "t.toml:4: listener[1].url: \"tcp://[::]:1\" is already taken (t.toml:2: listener[0].url), expected an address or path that no other listener has",
        ],
    );
    check_refused(
        two(
            "url = \"unix-stream:///run/x\"",
            "url = \"unix-dgram:///run//x\"",
        ),
        &[
            "t.toml:4: listener[1].url: \"unix-dgram:///run//x\" is already taken (t.toml:2: listener[0].url), expected an address or path that no other listener has",
        ],
    );
    check_refused(
        two(
            "url = \"tcp://[::]:1\"\nname = \"a\"",
            "url = \"tcp://[::]:2\"\nname = \"a\"",
        ),
        &[
            "t.toml:6: listener[1].name: \"a\" is already taken (t.toml:3: listener[0].name), expected a name that no other listener has",
        ],
    );
    check_refused(
        "[forward]\nto = [\n\"tcp://a:1\",\n{ url = \"tcp://a:1\" }]",
        &[
            "t.toml:4: forward.to[1].url: \"tcp://a:1\" is already taken (t.toml:3: forward.to[0]), expected each upstream once",
        ],
    );
    check_refused(
        "[suppressed]\nto = \"file:///a//b\"\n[forward]\nto = [\"file:///a/b\"]",
        &[
            "t.toml:2: suppressed.to: \"file:///a//b\" is already taken (t.toml:4: forward.to[0]), expected a destination that is not in forward.to",
        ],
    );
    check_refused(
        "[suppressed]\nto = { url = \"stdout:\" }",
        &[
            "t.toml:2: suppressed.to.url: \"stdout:\" is already taken (upstream stdout: by default), expected a destination that is not in forward.to",
        ],
    );
    check_refused(
        "[suppressed]\nto = \"file:///a\"\nqueue = \"64KiB\"\n[[listener]]\nurl = \"udp://[::]:1\"\nmax_message_size = \"1MiB\"",
        &[
            "t.toml:3: suppressed.queue: invalid \"64KiB\", expected at least the longest message, 1MiB",
        ],
    );
    check_refused(
        "[admin]\naddress = \"127.0.0.1:5514\"",
        &[
            "t.toml:2: admin.address: \"127.0.0.1:5514\" is already taken (listener tcp://127.0.0.1:5514 by default), expected an address and port of its own",
        ],
    );
    check_refused(
        "[dedup]\nrefresh = true\nmax_quiet = \"9s\"",
        &["t.toml:3: dedup.max_quiet: invalid \"9s\", expected at least dedup.window, 10s"],
    );
    check_refused(
        "[forward]\nretry_max = \"50ms\"",
        &[
            "t.toml:2: forward.retry_max: invalid \"50ms\", expected at least forward.retry_min, 100ms",
        ],
    );
    check_refused(
        "[forward]\nretry_min = \"1m\"",
        &["t.toml:2: forward.retry_min: invalid \"1m\", expected at most forward.retry_max, 30s"],
    );
    check_refused(
        "[forward]\nqueue = \"64KiB\"\n[[listener]]\nurl = \"udp://[::]:1\"\nmax_message_size = \"1MiB\"",
        &[
            "t.toml:2: forward.queue: invalid \"64KiB\", expected at least the longest message, 1MiB",
        ],
    );
}

#[test]
fn an_upstream_that_is_our_own_listener_is_refused() {
    let lines = "leads back to our own listener";
    let end = "so every message would loop forever; expected an upstream elsewhere";
    check_refused(
        "[[listener]]\nurl = \"tcp://0.0.0.0:514\"\n[forward]\nto = [\"stdout:\",\n{ url = \"tcp://localhost:514\" }]",
        &[&format!(
            "t.toml:5: forward.to[1].url: \"tcp://localhost:514\" {lines} (t.toml:2: listener[0].url), {end}"
        )],
    );
    check_refused(
        "[suppressed]\nto = \"udp://127.0.0.1:5514\"",
        &[&format!(
            "t.toml:2: suppressed.to: \"udp://127.0.0.1:5514\" {lines} (listener udp://127.0.0.1:5514 by default), {end}"
        )],
    );
    check_refused(
        "[forward]\nto = [\"udp://127.0.0.1:5514\"]",
        &[&format!(
            "t.toml:2: forward.to[0]: \"udp://127.0.0.1:5514\" {lines} (listener udp://127.0.0.1:5514 by default), {end}"
        )],
    );
}

#[test]
fn all_errors_come_at_once_in_the_order_of_their_lines() {
    check_refused(
        "[runtime]\nworkers = 0\n[dedup]\nwindow = \"10\"\nmax_quiet = \"1ms\"\nrefresh = true\n[forward]\nto = [\"x:\", \"tcp://127.0.0.1:5514\"]\n[[listener]]\nurl = \"no\"\n",
        &[
            "t.toml:2: runtime.workers: invalid 0, expected \"auto\", or a whole number from 1 to 1024",
            // max_quiet cannot be compared with a window that was refused.
            &format!("t.toml:4: dedup.window: invalid \"10\", expected {TIME} from 1ms to 7days"),
            // Nor is the second upstream a loop: it is not known which listeners were meant.
            "t.toml:8: forward.to[0]: invalid \"x:\", expected tcp://HOST:PORT, relp://HOST:PORT, udp://HOST:PORT, unix-stream:///PATH, unix-dgram:///PATH, file:///PATH, stdout:",
            "t.toml:10: listener[0].url: invalid \"no\", expected udp://ADDRESS:PORT, tcp://ADDRESS:PORT, relp://ADDRESS:PORT, unix-dgram:///PATH, unix-stream:///PATH",
        ],
    );
}

#[test]
fn what_was_found_is_printed_in_one_short_line() {
    check_refused(
        "[log]\nformat = \"\\u001b[2J\\r\\n\\u202e\"",
        &[
            "t.toml:2: log.format: invalid \"\\u{1b}[2J\\r\\n\\u{202e}\", expected \"text\", \"json\"",
        ],
    );
    let long = "x".repeat(FOUND_CHARS_MAX + 1);
    check_refused(
        format!("[log]\nformat = \"{long}\""),
        &[&format!(
            "t.toml:2: log.format: invalid \"{}\"..., expected \"text\", \"json\"",
            "x".repeat(FOUND_CHARS_MAX)
        )],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let check = |path: PathBuf, expected: &str| {
        let args = RunArgs {
            file: Some(path.clone()),
            ..RunArgs::default()
        };
        let text = Config::load(&args).unwrap_err().to_string();
        assert_eq!(text, format!("{}: {expected}", path.display()));
    };
    check(
        dir.path().join("none"),
        "cannot be read: No such file or directory (os error 2)",
    );
    check(
        dir.path().to_owned(),
        "cannot be read: Is a directory (os error 21)",
    );
    check(
        "/dev/zero".into(),
        "longer than 1MiB, expected a configuration in TOML",
    );
}

#[test]
fn the_same_arguments_read_a_changed_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    let window = Argument {
        name: "--window",
        text: "1m".to_owned(),
    };
    let args = RunArgs {
        file: Some(path.clone()),
        overrides: vec![(Override::Window, window)],
        ..RunArgs::default()
    };
    let allow = |toml: &str| {
        std::fs::write(&path, toml).unwrap();
        let window = Config::load(&args).unwrap().dedup.policy.window;
        assert_eq!(window.window, Duration::from_secs(60));
        window.allow
    };
    assert_eq!(allow("dedup = { window = \"5s\", allow = 2 }"), 2);
    assert_eq!(allow("dedup = { window = \"5s\", allow = 3 }"), 3);
}

#[test]
fn flags_replace_the_lists_of_the_file_and_keep_the_rest() {
    let toml =
        "[[listener]]\nurl = \"tcp://[::]:1\"\n[forward]\nto = [\"tcp://a:1\"]\nqueue = \"1MiB\"";
    let mut args = listen(&["udp://[::]:2", "udp://[::]:3"]);
    args.forward = arguments("--forward", &["tcp://b:1"]);
    let config = load(toml, &args).unwrap();
    let urls: Vec<String> = config
        .listeners
        .iter()
        .map(|listener| listener.url.to_string())
        .collect();
    assert_eq!(urls, ["udp://[::]:2", "udp://[::]:3"]);
    assert_eq!(
        config.forward.to,
        [UpstreamConfig::new("tcp://b:1".parse().unwrap())]
    );
    assert_eq!(config.forward.queue, MIB);
}

#[test]
fn a_table_that_a_flag_replaces_may_lack_its_url() {
    let toml = "[[listener]]\nname = \"x\"\n[forward]\nto = [{ framing = \"lf\" }]\n";
    let mut args = listen(&["udp://[::]:2"]);
    args.forward = arguments("--forward", &["tcp://b:1"]);
    assert_eq!(load(toml, &args).unwrap().listeners.len(), 1);
    assert_eq!(
        load(toml, &RunArgs::default())
            .unwrap_err()
            .matches("missing, expected url")
            .count(),
        2
    );
}

#[test]
fn a_flag_is_refused_under_its_own_name() {
    let args = RunArgs {
        listen: arguments("--listen", &["tcp://0.0.0.0:1", "localhost:1"]),
        forward: arguments("TERSED_FORWARD", &["tcp://127.0.0.1:1", "tcp://"]),
        overrides: vec![(Override::Window, arguments("--window", &["10"]).remove(0))],
        ..RunArgs::default()
    };
    let expected = [
        "t.toml:1: log: invalid 1, expected a table with level, format",
        "--listen: invalid \"localhost:1\", expected udp://ADDRESS:PORT, tcp://ADDRESS:PORT, relp://ADDRESS:PORT, unix-dgram:///PATH, unix-stream:///PATH",
        "TERSED_FORWARD: invalid \"tcp://\", expected tcp://HOST:PORT with PORT from 1 to 65535, such as tcp://collector.example:601, tcp://192.0.2.1:514 or tcp://[2001:db8::1]:514",
        &format!("--window: invalid \"10\", expected {TIME} from 1ms to 7days"),
        "TERSED_FORWARD: \"tcp://127.0.0.1:1\" leads back to our own listener (--listen), so every message would loop forever; expected an upstream elsewhere",
    ];
    assert_eq!(load("log = 1", &args), Err(expected.join("\n")));
}

#[test]
fn listeners_on_chosen_ports_get_names_of_their_own() {
    let config = load(
        "",
        &listen(&["tcp://[::]:0", "tcp://[::]:0", "tcp://[::]:0"]),
    )
    .unwrap();
    let names: Vec<&str> = config
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(names, ["tcp://[::]:0", "tcp://[::]:0#2", "tcp://[::]:0#3"]);
}

#[test]
fn every_value_of_a_choice_has_its_word() {
    fn check<T: Copy + PartialEq>(words: &Words<T>, values: &[T]) {
        for value in values {
            words.word(*value);
        }
        assert_eq!(words.0.len(), values.len());
    }
    check(
        &FRAMING,
        &[
            Framing::Auto,
            Framing::OctetCounting,
            Framing::Lf,
            Framing::Nul,
        ],
    );
    check(&OVERSIZE, &[Oversize::Truncate, Oversize::Drop]);
    check(
        &OUTPUT_FRAMING,
        &[OutputFraming::Lf, OutputFraming::OctetCounting],
    );
    check(
        &WHEN_FULL,
        &[WhenFull::Wait, WhenFull::DropNewest, WhenFull::DropOldest],
    );
    check(&LINE_BREAKS, &[LineBreaks::Space, LineBreaks::Escape]);
    check(
        &SUMMARY,
        &[
            SummaryStyle::Prefix,
            SummaryStyle::Suffix,
            SummaryStyle::None,
        ],
    );
    check(&ACTION, &[Action::Dedup, Action::Pass, Action::Drop]);
    check(&MODE, &[Mode::Enforce, Mode::Tag, Mode::Shadow]);
    check(&IDENTITY, &[IdentityKind::Exact, IdentityKind::Compact]);
    check(&LOG_FORMAT, &[LogFormat::Text, LogFormat::Json]);
}

#[test]
fn a_size_prints_in_the_largest_unit_that_leaves_it_whole() {
    for (octets, text) in [
        (0, "0B"),
        (480, "480B"),
        (65_507, "65507B"),
        (KIB, "1KiB"),
        (1536 * KIB, "1536KiB"),
        (64 * MIB, "64MiB"),
        (MEMORY_MAX, "1TiB"),
    ] {
        assert_eq!(size_text(octets), text);
    }
}

#[test]
fn the_default_queue_holds_the_longest_message_that_can_be_configured() {
    assert!(ForwardConfig::default().queue >= MESSAGE_OCTETS_MAX);
}

proptest::proptest! {
    #[test]
    fn each_error_is_a_printable_line_with_its_place(
        toml in "(\\[\\[?(listener|forward|dedup)\\]?\\]\n)?((to|url|window|memory|allow|name) = (\"[\\PC]{0,12}\"|[0-9.]{1,3}|\\[.{0,9}\\])\n){0,4}",
    ) {
        if let Err(text) = load(&toml, &RunArgs::default()) {
            for line in text.lines() {
                proptest::prop_assert!(line.starts_with("t.toml:") && !line.contains(char::is_control), "{line}");
            }
        }
    }
}
