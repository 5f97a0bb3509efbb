//! `tersed explain`: what it says about a frame is what the relay does with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::support::command::{Logs, Ran, argument, tersed};

/// The explanations of the frames in `input`.
#[track_caller]
fn explain(args: &[&str], input: &[u8]) -> Vec<Value> {
    tersed(&[&["explain"], args].concat(), input).json_lines()
}

#[track_caller]
fn identities(args: &[&str], input: &[u8]) -> Vec<String> {
    let explained = explain(args, input);
    let identity = |value: &Value| value["identity"].as_str().unwrap().to_owned();
    explained.iter().map(identity).collect()
}

#[test]
fn one_object_a_frame_with_all_keys_in_their_order() {
    let ran = tersed(
        &["explain"],
        b"<165>1 2026-03-01T10:00:00Z host app 7 id [x@1 a=\"1\"] text\n<34>su: failed\n",
    );
    let first = ran.text().lines().next().unwrap();
    let keys = [
        "format",
        "pri",
        "facility",
        "severity",
        "timestamp",
        "hostname",
        "app_name",
        "procid",
        "msgid",
        "structured_data",
        "msg",
        "rule",
        "action",
        "mode",
        "window",
        "identity",
        "masked",
    ];
    let places: Vec<_> = keys
        .iter()
        .map(|key| first.find(&format!("\"{key}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{first}");

    let explained = ran.json_lines();
    assert_eq!(explained[0].as_object().unwrap().len(), keys.len());
    for (key, expected) in [
        ("format", json!("rfc5424")),
        ("pri", json!(165)),
        ("facility", json!(20)),
        ("severity", json!(5)),
        ("timestamp", json!("2026-03-01T10:00:00Z")),
        ("hostname", json!("host")),
        ("app_name", json!("app")),
        ("procid", json!("7")),
        ("msgid", json!("id")),
        ("structured_data", json!("[x@1 a=\"1\"]")),
        ("msg", json!("text")),
        ("rule", json!("default")),
        ("action", json!("dedup")),
        ("mode", json!("enforce")),
        ("window", json!("10s")),
        ("masked", json!("text")),
    ] {
        assert_eq!(explained[0][key], expected, "{key}");
    }
    for key in [
        "timestamp",
        "hostname",
        "procid",
        "msgid",
        "structured_data",
    ] {
        assert_eq!(explained[1][key], Value::Null, "{key}");
    }
}

#[test]
fn formats_are_told_apart() {
    let input = b"<165>1 - h a - - - t\n<34>Mar  1 10:00:00 h su: t\n\
                  <189>7: *Mar  1 18:46:11: %SYS-5-CONFIG_I: t\n<999>t\n";
    let formats: Vec<_> = explain(&[], input)
        .iter()
        .map(|value| value["format"].clone())
        .collect();
    assert_eq!(formats, ["rfc5424", "rfc3164", "cisco", "unparsed"]);
}

#[test]
fn identities_are_equal_iff_the_messages_are_the_same() {
    let input = b"<34>Mar  1 10:00:00 h su[1]: text\n<34>Mar  2 11:11:11 h su[2]: text\r\n\
                  <35>Mar  1 10:00:00 h su[1]: text\n<34>Mar  1 10:00:00 i su[1]: text\n\
                  <34>Mar  1 10:00:00 h su[1]: texT\n";
    let found = identities(&[], input);
    assert_eq!(found[0], found[1]);
    for other in &found[2..] {
        assert_ne!(*other, found[0]);
    }
    assert_eq!(found, identities(&[], input), "in another run");
}

#[test]
fn the_sender_stands_in_where_no_host_is_named() {
    let input = b"<34>su: text\n<34>Mar  1 10:00:00 h su: text\n";
    let local = identities(&[], input);
    let one = identities(&["--source", "192.0.2.1"], input);
    let mapped = identities(&["--source", "::ffff:192.0.2.1"], input);
    assert_ne!(local[0], one[0]);
    assert_eq!(one, mapped);
    assert_eq!(local[1], one[1], "a host was named");
}

#[test]
fn octets_that_are_no_utf8_are_shown_and_told_apart() {
    let input = b"<34>su: \xff\xfe\n<34>su: \xfe\xff\n";
    let explained = explain(&[], input);
    assert_eq!(explained[0]["msg"], "\u{fffd}\u{fffd}");
    assert_ne!(explained[0]["identity"], explained[1]["identity"]);
}

#[test]
fn frames_are_cut_as_by_a_listener() {
    let counted = b"11 <34>su: a\nb\n<34>su: c\n";
    let texts = |args: &[&str], input: &[u8]| {
        let explained = explain(args, input);
        explained
            .iter()
            .map(|value| value["msg"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&[], counted), ["a\nb", "c"]);
    assert_eq!(
        texts(&["--framing", "lf"], counted),
        ["11 <34>su: a", "b", "c"]
    );
    assert_eq!(
        texts(
            &["--framing", "octet-counting"],
            b"11 <34>su: a\nb9 <34>su: c"
        ),
        ["a\nb", "c"]
    );
    assert_eq!(
        texts(&["--framing", "nul"], b"<34>su: a\nb\0<34>su: c\0"),
        ["a\nb", "c"]
    );
}

#[test]
fn broken_framing_is_told_with_its_place() {
    let input = b"9 <34>su: a\nnonsense\n9 <34>su: b\n99 <34>su: c";
    let ran = tersed(&["explain", "--framing", "octet-counting"], input);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.stdout.iter().filter(|octet| **octet == b'\n').count(),
        2
    );
    assert_eq!(
        ran.stderr,
        "tersed: standard input: octet 12: not an octet count\ntersed: standard input: octet 33: stream ended inside a frame\n"
    );
}

#[test]
fn reasons_are_given_for_each_field() {
    let explained = explain(&["--why"], b"<34>su: text\n");
    let why = explained[0]["why"].as_object().unwrap();
    assert_eq!(why.len(), 10);
    let says = |key: &str, what: &str| {
        let sentence = why[key].as_str().unwrap();
        assert!(sentence.contains(what), "{key}: {sentence}");
    };
    says("timestamp", "does not count");
    says("procid", "does not count");
    says("hostname", "its sender, local, stands in");
    says("severity", "counts");
    assert_eq!(explain(&[], b"<34>su: text\n")[0].get("why"), None);
}

#[test]
fn people_get_a_field_a_line_and_names() {
    let input = b"<34>Mar  1 10:00:00 h su[1]: text\n<35>su: other\n";
    let ran = tersed(&["explain", "--format", "text", "--why"], input);
    let text = ran.text();
    for part in [
        "format           rfc3164\n",
        "facility         4 (auth)\n",
        "severity         2 (critical)\n",
        "procid           1\n",
        "does not count: every copy has its own\n",
        "\n\nformat ",
        "severity         3 (error)\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_rule_accepts_every_name_of_a_facility_and_a_severity_that_is_shown() {
    let frames: String = (0..192).map(|pri| format!("<{pri}>app: text\n")).collect();
    let ran = tersed(&["explain", "--format", "text"], frames.as_bytes());
    let shown = |field: &str| -> BTreeSet<String> {
        let lines = ran.text().lines().filter(|line| line.starts_with(field));
        let names = lines.map(|line| line.split(['(', ')']).nth(1).unwrap().to_owned());
        names.collect()
    };
    let (facilities, severities) = (shown("facility"), shown("severity"));
    assert_eq!((facilities.len(), severities.len()), (24, 8));
    let facilities = Vec::from_iter(&facilities);
    let rules = severities.iter().map(|severity| {
        format!("[[rule]]\nname = \"{severity}\"\nfacility = {facilities:?}\nseverity = \"{severity}\"\n")
    });
    let logs = Logs::new();
    let config = logs.write("t.toml", rules.collect::<String>());
    let explained = explain(&["--config", &config], frames.as_bytes());
    assert_eq!(explained.len(), 192);
    let mut names = BTreeMap::new();
    for value in explained {
        let (number, name) = (value["severity"].as_u64(), value["rule"].as_str());
        let before = names.insert(number.unwrap(), name.unwrap().to_owned());
        assert!(
            before.is_none_or(|before| Some(before.as_str()) == name),
            "{value}"
        );
    }
    assert_eq!(names.into_values().collect::<BTreeSet<_>>(), severities);
}

#[test]
fn the_configuration_decides_about_the_window() {
    let logs = Logs::new();
    let config = logs.write("t.toml", "[dedup]\nwindow = \"5m\"\n");
    let explained = explain(&["--config", &config], b"<34>su: text\n");
    assert_eq!(explained[0]["window"], "5m");
    let bad = logs.write("bad.toml", "[dedup]\nwindw = \"5m\"\n");
    let ran = tersed(&["explain", "--config", &bad], b"");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("dedup.windw: unknown key"),
        "{}",
        ran.stderr
    );
}

#[test]
fn counts_of_repeats_and_signatures_pass() {
    let input = b"<34>su: last message repeated 3 times\n\
                  <110>1 - h a - - [ssign VER=\"0111\"] x\n";
    for value in explain(&[], input) {
        assert_eq!(value["action"], "pass", "{value}");
        assert_eq!(value["window"], Value::Null, "{value}");
    }
}

#[test]
fn files_are_read_in_order_and_packed_ones_too() {
    let logs = Logs::new();
    let one = logs.write("one", "<34>su: one\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"<34>su: two").unwrap();
    let two = logs.write("two", gzip.finish().unwrap());
    let explained = explain(&[&one, &two, "-"], b"<34>su: three");
    let texts: Vec<_> = explained.iter().map(|value| value["msg"].clone()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_explained() {
    let logs = Logs::new();
    let good = logs.write("good", "<34>su: one\n");
    let absent = argument(&logs.path("absent"));
    let directory = argument(&logs.path(""));
    let Ran {
        code,
        stdout,
        stderr,
    } = tersed(&["explain", &absent, &directory, &good], b"");
    assert_eq!(code, Some(1));
    assert_eq!(stdout.iter().filter(|octet| **octet == b'\n').count(), 1);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(
        lines[0].starts_with(&format!("tersed: {absent}: cannot be read: No such file")),
        "{stderr}"
    );
    assert_eq!(
        lines[1],
        format!("tersed: {directory}: a directory, expected the files in it")
    );
    assert_eq!(lines.len(), 2);
}

/// A masked rule, one that passes, one that drops, and one of a listener.
const RULES: &str = r#"
[[rule]]
name = "of-tls"
listener = ["tls"]
window = "1m"

[[rule]]
name = "logins"
app_name = ["sshd"]
fields = ["app_name", "msg", "source"]
mask = ["ipv4", "number"]

[[rule]]
name = "audit"
app_name = ["audit"]
action = "pass"

[[rule]]
name = "noise"
app_name = ["noise"]
action = "drop"

[[rule]]
name = "hosts"
app_name = ["hosts"]
fields = ["hostname"]

[[listener]]
name = "tls"
url = "udp://127.0.0.1:0"
"#;

#[test]
fn a_rule_says_what_counts_and_what_is_folded() {
    let logs = Logs::new();
    let config = logs.write("t.toml", RULES);
    let input = b"<34>Mar  1 10:00:00 h sshd[1]: from 192.0.2.7 port 1\n\
                  <35>Mar  1 10:00:00 i sshd[1]: from 192.0.2.8 port 2\n\
                  <35>Mar  1 10:00:00 i sshd[1]: from nowhere\n\
                  <34>Mar  1 10:00:00 h hosts: a\n<34>Mar  1 10:00:00 h hosts: b\n";
    let explained = explain(&["--config", &config, "--why"], input);
    assert_eq!(explained[0]["rule"], "logins");
    assert_eq!(explained[0]["action"], "dedup");
    assert_eq!(explained[0]["masked"], "from <ipv4> port <number>");
    assert_eq!(explained[0]["msg"], "from 192.0.2.7 port 1");
    assert_eq!(explained[0]["identity"], explained[1]["identity"]);
    assert_ne!(explained[0]["identity"], explained[2]["identity"]);
    for (key, sentence) in [
        ("pri", "does not count: it is not in fields"),
        ("hostname", "does not count: it is not in fields"),
        (
            "msg",
            "counts: it is the event, except what is folded by ipv4, number",
        ),
        (
            "source",
            "counts: it was sent by local, whatever host the frame names",
        ),
    ] {
        assert_eq!(explained[0]["why"][key], sentence);
    }
    assert_eq!(
        explained[2]["why"]["msg"],
        "counts: it is the event, in which no mask finds anything to fold"
    );
    assert_eq!(explained[3]["identity"], explained[4]["identity"]);
    assert_eq!(explained[3]["masked"], "");
    assert_eq!(
        explained[3]["why"]["msg"],
        "does not count: it is not in fields"
    );
}

#[test]
fn what_a_rule_passes_or_drops_has_no_window_but_an_identity() {
    let logs = Logs::new();
    let config = logs.write("t.toml", RULES);
    let input =
        b"<34>audit: x\n<34>noise: x\n<34>noise: x\n<34>audit: last message repeated 3 times\n";
    let explained = explain(&["--config", &config], input);
    for (value, rule, action) in [
        (&explained[0], "audit", "pass"),
        (&explained[1], "noise", "drop"),
        (&explained[3], "audit", "pass"),
    ] {
        assert_eq!(
            (&value["rule"], &value["action"]),
            (&rule.into(), &action.into())
        );
        assert_eq!(value["window"], Value::Null);
    }
    assert_eq!(explained[1]["identity"], explained[2]["identity"]);
    assert_ne!(explained[0]["identity"], explained[1]["identity"]);
}

#[test]
fn a_rule_that_is_only_tried_says_its_mode() {
    let logs = Logs::new();
    let rules = "[dedup]\nmode = \"shadow\"\n\
                 [[rule]]\nname = \"tagged\"\napp_name = [\"a\"]\naction = \"drop\"\nmode = \"tag\"\n\
                 [[rule]]\nname = \"audit\"\napp_name = [\"b\"]\naction = \"pass\"\n\
                 [[rule]]\nname = \"loud\"\napp_name = [\"c\"]\nmode = \"enforce\"\n";
    let config = logs.write("t.toml", rules);
    let input = b"<34>a: x\n<34>b: x\n<34>c: x\n<34>d: x\n<34>c: last message repeated 3 times\n";
    let explained = explain(&["--config", &config], input);
    let modes: Vec<_> = explained
        .iter()
        .map(|value| value["mode"].clone())
        .collect();
    let expected = [
        json!("tag"),
        Value::Null,
        json!("enforce"),
        json!("shadow"),
        Value::Null,
    ];
    assert_eq!(modes, expected);
    let ran = tersed(
        &["explain", "--format", "text", "--config", &config],
        b"<34>a: x\n<34>b: x\n",
    );
    let shown: Vec<_> = ran
        .text()
        .lines()
        .filter(|line| line.starts_with("mode"))
        .collect();
    assert_eq!(shown, ["mode             tag"]);
}

#[test]
fn a_listener_may_decide() {
    let logs = Logs::new();
    let config = logs.write("t.toml", RULES);
    let input = b"<34>audit: x\n";
    let explained = explain(&["--config", &config, "--listener", "tls"], input);
    assert_eq!(explained[0]["rule"], "of-tls");
    assert_eq!(explained[0]["window"], "1m");
    let ran = tersed(
        &["explain", "--config", &config, "--listener", "tsl"],
        input,
    );
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.stderr,
        "tersed: --listener tsl: no listener has this name (did you mean tls?)\n"
    );
}
