//! `tersed replay --report` and `--plot`: the numbers add up.

use serde_json::Value;

use super::support::command::{Logs, tersed};

const LOG: &str = "\
Mar  1 10:00:00 h su[1]: failed
Mar  1 10:00:01 h su[2]: failed

Mar  1 10:00:02 h cron[3]: other
Mar  1 10:00:09 h su[4]: failed
Mar  1 10:00:03 h su[5]: failed
\tand more
Mar  1 10:00:50 h last message repeated 2 times
Mar  1 10:02:00 h su[6]: failed
<999>x
";

fn report(args: &[&str], log: &str) -> Value {
    let args = [&["replay", "--report", "--format", "json"], args].concat();
    tersed(&args, log.as_bytes()).json()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn lines_in_are_lines_out_and_suppressed_and_dropped_in_all_and_by_rule_and_window() {
    let report = report(&[], LOG);
    let adds_up = |value: &Value, lines_in: &Value| {
        let sum = ["lines_out", "suppressed", "dropped"].map(|key| number(&value[key]));
        let sum: u64 = sum.into_iter().sum();
        assert_eq!(sum, number(lines_in), "{value}");
    };
    adds_up(&report, &report["lines_in"]);
    assert_eq!(number(&report["lines_in"]), 9);
    assert_eq!(number(&report["suppressed"]), 3);
    assert_eq!(report["reduction_percent"].as_f64().unwrap().round(), 33.0);
    let rules = report["rules"].as_array().unwrap();
    let mut lines_in = 0;
    for rule in rules {
        adds_up(rule, &rule["lines_in"]);
        lines_in += number(&rule["lines_in"]);
    }
    assert_eq!(lines_in, 9);
    assert_eq!(
        (&rules[0]["rule"], &rules[0]["action"]),
        (&"default".into(), &"dedup".into())
    );
    assert_eq!(rules[1]["action"], "pass");
    for window in report["windows"].as_array().unwrap() {
        adds_up(window, &report["lines_in"]);
    }
}

#[test]
fn octets_and_summaries_are_those_that_come_out() {
    let report = report(&[], LOG);
    let out = tersed(&["replay"], LOG.as_bytes());
    let (summaries, survivors): (Vec<_>, Vec<_>) = out
        .text()
        .lines()
        .partition(|line| line.contains(": message repeated "));
    let octets = |lines: &[&str]| lines.iter().map(|line| line.len() as u64).sum::<u64>();
    assert_eq!(number(&report["lines_out"]), survivors.len() as u64);
    assert_eq!(number(&report["octets_out"]), octets(&survivors));
    assert_eq!(number(&report["summaries"]), summaries.len() as u64);
    assert_eq!(number(&report["summary_octets"]), octets(&summaries));
    let lines: Vec<_> = LOG.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(number(&report["octets_in"]), octets(&lines));
}

#[test]
fn what_is_odd_is_counted() {
    let report = report(&[], LOG);
    for (key, expected) in [
        ("empty_lines", 1),
        ("cut_lines", 0),
        ("unparsed_lines", 1),
        ("lines_without_timestamp", 2),
        ("out_of_order_lines", 1),
        ("times_set_back", 0),
        ("evicted_messages", 0),
    ] {
        assert_eq!(number(&report["oddities"][key]), expected, "{key}");
    }
}

#[test]
fn other_windows_count_as_a_replay_with_them_does() {
    let log = "Mar  1 10:00:00 h su[1]: failed 1\nMar  1 10:00:03 h su[1]: failed 2\n\
               Mar  1 10:00:20 h su[1]: failed 2\nMar  1 10:00:20 h su: last message repeated 2 times\n";
    let log = &[LOG, log].concat();
    let all = report(&[], log);
    let logs = Logs::new();
    let plain = logs.write("plain.toml", "");
    let masked = "[dedup]\nmask = [\"number\", \"hex\", \"ipv4\"]\n";
    let masked = logs.write("masked.toml", masked);
    let windows = all["windows"].as_array().unwrap();
    let words: Vec<_> = windows
        .iter()
        .map(|w| {
            (
                w["identity"].as_str().unwrap(),
                w["window"].as_str().unwrap(),
            )
        })
        .collect();
    let tried = |identity| ["1s", "10s", "1m", "10m", "1h"].map(|window| (identity, window));
    let expected = [tried("as configured"), tried("masks number, hex, ipv4")].concat();
    assert_eq!(words, expected);
    for window in windows {
        let word = window["window"].as_str().unwrap();
        let config = match window["identity"].as_str().unwrap() {
            "as configured" => &plain,
            _ => &masked,
        };
        let alone = report(&["--config", config, "--window", word], log);
        for key in ["lines_out", "suppressed", "summaries", "reduction_percent"] {
            assert_eq!(window[key], alone[key], "{word}: {key}");
        }
        assert!(number(&window["messages_max"]) > 0, "{window}");
    }
}

#[test]
fn the_noisiest_come_with_their_counts_times_and_identities() {
    let report = report(&[], LOG);
    let first = &report["noisiest"][0];
    assert_eq!(number(&first["count"]), 5);
    assert_eq!(number(&first["suppressed"]), 3);
    assert_eq!(
        (&first["hostname"], &first["app_name"], &first["msg"]),
        (&"h".into(), &"su".into(), &"failed".into())
    );
    assert!(
        first["first"]
            .as_str()
            .unwrap()
            .ends_with("-03-01T10:00:00Z")
    );
    assert!(
        first["last"]
            .as_str()
            .unwrap()
            .ends_with("-03-01T10:02:00Z")
    );
    assert_eq!(number(&report["different_messages"]), 5);
    assert_eq!(number(&report["noisiest_too_low_by"]), 0);
    let explained = tersed(&["explain"], b"Mar  1 10:00:00 h su[1]: failed\n").json();
    assert_eq!(first["identity"], explained["identity"]);
}

#[test]
fn no_more_than_twenty_are_listed() {
    let log: String = (0..50)
        .map(|n| format!("<34>a: message {n}\n").repeat(n + 1))
        .collect();
    let report = report(&[], &log);
    let noisiest = report["noisiest"].as_array().unwrap();
    assert_eq!(noisiest.len(), 20);
    let counts: Vec<_> = noisiest
        .iter()
        .map(|noise| number(&noise["count"]))
        .collect();
    let expected: Vec<_> = (31..=50).rev().collect();
    assert_eq!(counts, expected);
}

#[test]
fn people_get_tables() {
    let ran = tersed(&["replay", "--report"], LOG.as_bytes());
    let text = ran.text();
    for part in [
        "standard input: 9 lines, plain\n",
        "Each message once in 10s\n",
        "suppressed",
        "open windows",
        "33.3 %",
        "1 lines out of order, at the time reached before",
        "By rule\n",
        "With other windows and masks\n",
        "as configured            1h",
        "The 5 noisiest of 5 messages\n",
        "h su failed\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn evictions_in_a_small_memory_are_reported() {
    let logs = Logs::new();
    let config = logs.write("t.toml", "[dedup]\nmemory = \"1MiB\"\n");
    let log: String = (0..20_000)
        .map(|n| format!("<34>a: message {n}\n"))
        .collect();
    let report = report(&["--config", &config], &log);
    assert!(
        number(&report["oddities"]["evicted_messages"]) > 0,
        "{report}"
    );
    assert_eq!(number(&report["lines_out"]), 20_000);
    let ran = tersed(&["replay", "--report", "--config", &config], log.as_bytes());
    assert!(ran.text().contains("evicted too early: raise dedup.memory"));
}

#[test]
fn a_plot_is_drawn_beside_survivors_and_beside_a_report() {
    let logs = Logs::new();
    let svg = logs.path("p.svg");
    let plot = svg.to_str().unwrap();
    for args in [&["--plot", plot][..], &["--report", "--plot", plot]] {
        let ran = tersed(&[&["replay"], args].concat(), LOG.as_bytes());
        assert!(!ran.text().is_empty());
        let drawn = std::fs::read_to_string(&svg).unwrap();
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
        assert!(
            drawn.contains("9 lines in; with a window of 10s 6 lines and"),
            "{drawn}"
        );
        std::fs::remove_file(&svg).unwrap();
    }
    let nowhere = logs.path("absent/p.svg");
    let nowhere = nowhere.to_str().unwrap();
    let ran = tersed(&["replay", "--plot", nowhere], b"");
    assert_eq!(ran.code, Some(1));
    let said = format!("tersed: {nowhere}: cannot be written: No such file");
    assert!(ran.stderr.starts_with(&said), "{}", ran.stderr);
}

#[test]
fn masks_that_are_configured_are_not_tried_again() {
    let logs = Logs::new();
    let masked = "[dedup]\nmask = [\"number\", \"hex\", \"ipv4\"]\n";
    let config = logs.write("t.toml", masked);
    let report = report(&["--config", &config], LOG);
    assert_eq!(report["windows"].as_array().unwrap().len(), 5);
}

/// A rule of each action and mode, by program.
const RULES: &str = r#"
[[rule]]
name = "noise"
action = "drop"
app_name = ["noise"]

[[rule]]
name = "audit"
action = "pass"
app_name = ["audit"]

[[rule]]
name = "marked"
mode = "tag"
app_name = ["marked"]

[[rule]]
name = "trial"
mode = "shadow"
app_name = ["trial"]

[[rule]]
name = "doubtful"
action = "drop"
mode = "tag"
app_name = ["doubtful"]

[[rule]]
name = "folding"
mask = ["number"]
app_name = ["folding"]

[[rule]]
name = "elsewhere"
listener = ["tls"]
action = "drop"

[[listener]]
name = "tls"
url = "udp://127.0.0.1:0"
"#;

const RULED_LOG: &str = "\
<13>noise: x
<13>noise: x
<13>audit: x
<13>audit: x
<13>marked: x
<13>marked: x
<13>trial: x
<13>trial: x
<13>doubtful: x
<13>doubtful: x
<13>folding: x 1
<13>folding: x 2
<13>other: x
<13>other: x
";

#[test]
fn every_action_and_mode_is_the_relays() {
    let logs = Logs::new();
    let config = logs.write("t.toml", RULES);
    let out = tersed(&["replay", "--config", &config], RULED_LOG.as_bytes());
    assert_eq!(
        out.text(),
        "<13>audit: x\n<13>audit: x\n<13>marked: x\n<13>marked: x [repeated]\n\
         <13>trial: x\n<13>trial: x\n<13>doubtful: x [dropped]\n<13>doubtful: x [dropped]\n\
         <13>folding: x 1\n<13>other: x\n\
         <13>other: message repeated 1 times: [ x]\n<13>folding: message repeated 1 times: [ x 2]\n",
        "{}",
        out.stderr
    );
}

#[test]
fn each_rule_is_counted_by_its_name_and_the_numbers_add_up() {
    let logs = Logs::new();
    let config = logs.write("t.toml", RULES);
    let report = report(&["--config", &config], RULED_LOG);
    let keys = ["lines_out", "suppressed", "dropped", "tagged", "shadowed"];
    let rules: Vec<_> = report["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            let name = rule["rule"].as_str().unwrap();
            let action = rule["action"].as_str().unwrap();
            (name, action, keys.map(|key| number(&rule[key])))
        })
        .collect();
    assert_eq!(
        rules,
        [
            ("default", "dedup", [1, 1, 0, 0, 0]),
            ("noise", "drop", [0, 0, 2, 0, 0]),
            ("audit", "pass", [2, 0, 0, 0, 0]),
            ("marked", "dedup", [2, 0, 0, 1, 0]),
            ("trial", "dedup", [2, 0, 0, 0, 1]),
            ("doubtful", "drop", [2, 0, 0, 2, 0]),
            ("folding", "dedup", [1, 1, 0, 0, 0]),
            ("elsewhere", "drop", [0, 0, 0, 0, 0]),
        ]
    );
    assert_eq!(keys.map(|key| number(&report[key])), [10, 2, 2, 3, 1]);
    assert_eq!(number(&report["lines_in"]), 14);
    for window in report["windows"].as_array().unwrap() {
        let sum = ["lines_out", "suppressed", "dropped"].map(|key| number(&window[key]));
        assert_eq!(sum, [10, 2, 2], "{window}");
    }
    let octets = ["octets_in", "octets_out", "octets_dropped"].map(|key| number(&report[key]));
    let lines = RULED_LOG.lines();
    assert_eq!(octets[0], lines.map(|line| line.len() as u64).sum::<u64>());
    assert_eq!(octets[2], 2 * "<13>noise: x".len() as u64);

    let ran = tersed(
        &["replay", "--report", "--config", &config],
        RULED_LOG.as_bytes(),
    );
    for part in [
        "dropped",
        "3 came out annotated, by rules in mode tag\n",
        "1 came out by rules in mode shadow\n",
    ] {
        assert!(
            ran.text().contains(part),
            "{part:?} is not in\n{}",
            ran.text()
        );
    }
}
