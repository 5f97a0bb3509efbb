//! Rules: what each action and mode forwards, in order and counted by the rule's name; and what a reload keeps.

use nix::sys::signal::Signal;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};

#[test]
fn each_action_does_its_own_and_survivors_stay_in_order() {
    let (sink, tersed, mut originator) = start(
        r#"
        [[rule]]
        name = "audit"
        app_name = ["audit*"]
        action = "pass"
        [[rule]]
        name = "noise"
        severity = "debug"
        action = "drop"
        [[rule]]
        name = "twice"
        msg = '^two'
        allow = 2
        "#,
    );
    let sent = [
        "<13>Mar  1 12:00:00 h auditd: a",
        "<13>Mar  1 12:00:00 h app: one",
        "<15>Mar  1 12:00:00 h app: noise",
        "<15>Mar  1 12:00:00 h app: noise",
        "<13>Mar  1 12:00:00 h auditd: a",
        "<13>Mar  1 12:00:00 h auditd: a",
        "<13>Mar  1 12:00:00 h app: one",
        "<13>Mar  1 12:00:00 h app: two",
        "<13>Mar  1 12:00:00 h app: two",
        "<13>Mar  1 12:00:00 h app: two",
        "<13>Mar  1 12:00:00 h auditd: b",
    ];
    originator.send_all(sent);
    tersed.wait_received(11);
    let (metrics, _) = tersed.finish();
    let messages = sink.messages();
    let survivors: Vec<_> = messages.iter().take(7).map(|octets| text(octets)).collect();
    assert_eq!(
        survivors,
        [
            sent[0], sent[1], sent[4], sent[5], sent[7], sent[8], sent[10]
        ]
    );
    assert_eq!(messages.len(), 9, "and two summaries");
    let of = |name, rule| metrics.total_where(name, &[("rule", rule)]);
    assert_eq!(of("tersed_rule_matched_total", "audit"), 4);
    assert_eq!(of("tersed_rule_suppressed_total", "audit"), 0);
    assert_eq!(of("tersed_rule_dropped_total", "noise"), 2);
    assert_eq!(of("tersed_rule_matched_total", "twice"), 3);
    assert_eq!(of("tersed_rule_suppressed_total", "twice"), 1);
    assert_eq!(of("tersed_rule_suppressed_total", "default"), 1);
    let dropped = metrics.total_where("tersed_frames_dropped_total", &[("reason", "rule")]);
    assert_eq!(dropped, 2);
}

#[test]
fn shadow_forwards_all_as_they_came_and_counts_what_it_would_have_saved() {
    let (sink, tersed, mut originator) = start(
        "mode = \"shadow\"\n[[rule]]\nname = \"noise\"\nseverity = \"debug\"\naction = \"drop\"\n",
    );
    let sent = [FOO, FOO, NOISE, FOO];
    originator.send_all(sent);
    tersed.wait_received(4);
    let (metrics, _) = tersed.finish();
    let messages = sink.messages();
    assert_eq!(
        messages
            .iter()
            .map(|octets| text(octets))
            .collect::<Vec<_>>(),
        sent
    );
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 0);
    assert_eq!(metrics.total("tersed_summaries_total"), 0);
    let of = |rule| metrics.total_where("tersed_rule_shadowed_total", &[("rule", rule)]);
    assert_eq!((of("default"), of("noise")), (2, 1));
}

#[test]
fn tag_annotates_what_would_not_have_been_forwarded() {
    let (sink, tersed, mut originator) = start(
        "mode = \"tag\"\n[[rule]]\nname = \"noise\"\nseverity = \"debug\"\naction = \"drop\"\n",
    );
    let modern = "<13>1 - h app - - - bar";
    originator.send_all([FOO, FOO, modern, modern, NOISE]);
    tersed.wait_received(5);
    let (metrics, _) = tersed.finish();
    let messages = sink.messages();
    assert_eq!(
        messages
            .iter()
            .map(|octets| text(octets))
            .collect::<Vec<_>>(),
        [
            FOO,
            &format!("{FOO} [repeated]"),
            modern,
            "<13>1 - h app - - [tersed@32473 verdict=\"repeated\"] bar",
            &format!("{NOISE} [dropped]"),
        ]
    );
    let of = |rule| metrics.total_where("tersed_rule_tagged_total", &[("rule", rule)]);
    assert_eq!((of("default"), of("noise")), (2, 1));
}

#[test]
fn a_masked_fleet_reports_its_texts_and_hosts_and_the_last_of_them() {
    let (sink, tersed, mut originator) = start(
        "[[rule]]\nname = \"fleet\"\nfields = [\"app_name\", \"msg\"]\nmask = [\"number\"]\n",
    );
    let line = |host: u32, number: u32| {
        format!("<13>Mar  1 12:00:{number:02} h{host} app: took {number} ms")
    };
    let sent: Vec<_> = (0..30).map(|number| line(number % 3, number)).collect();
    originator.send_all(&sent);
    originator.send("<13>Mar  1 12:00:00 h1 app: lost 3 ms");
    tersed.wait_received(31);
    tersed.finish();
    let messages = sink.messages();
    assert_eq!(
        messages
            .iter()
            .map(|octets| text(octets))
            .collect::<Vec<_>>(),
        [
            sent[0].as_str(),
            "<13>Mar  1 12:00:00 h1 app: lost 3 ms",
            "<13>Mar  1 12:00:29 h2 app: message repeated 29 times, >= 17 different texts from 3 hosts: \
             [ took 29 ms]",
        ]
    );
}

#[test]
fn rules_with_windows_of_their_own_work_side_by_side() {
    let (sink, tersed, mut originator) = start(
        "[[rule]]\nname = \"short\"\napp_name = [\"short\"]\nwindow = \"1ms\"\nsummary = \"none\"\n",
    );
    let short = "<13>Mar  1 12:00:00 h short: foo";
    originator.send_all([FOO, short]);
    for count in 3..6 {
        tersed.wait_metric("tersed_live_messages", &[], 1);
        originator.send_all([short, FOO]);
        sink.wait_messages(count);
    }
    let (metrics, _) = tersed.finish();
    let of = |rule| metrics.total_where("tersed_rule_suppressed_total", &[("rule", rule)]);
    assert_eq!((of("default"), of("short")), (3, 0));
}

#[test]
fn a_reload_keeps_the_windows_of_rules_that_mean_the_same() {
    let rule = |name: &str, more: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\napp_name = [\"{name}\"]\nmask = [\"number\"]\n{more}\n"
        )
    };
    let (sink, tersed, mut originator) = start(&(rule("a", "") + &rule("b", "")));
    let line = |app: &str, number: u32| format!("<13>Mar  1 12:00:00 h {app}: took {number} ms");
    originator.send_all([line("a", 1), line("b", 1)]);
    sink.wait_messages(2);
    let path = tersed.config_file();
    let before = std::fs::read_to_string(&path).unwrap();
    // Rule `a` allows more now, and its windows end. Rule `b` has only another id and another summary.
    let after = rule("c", "") + &rule("b", "summary = \"suffix\"") + &rule("a", "allow = 2");
    let old = rule("a", "") + &rule("b", "");
    assert!(before.contains(&old), "{before}");
    std::fs::write(&path, before.replace(&old, &after)).unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    originator.send_all([line("b", 2), line("a", 2)]);
    let messages = sink.wait_messages(3);
    assert_eq!(text(&messages[2]), line("a", 2), "its windows ended");
    tersed.finish();
    let messages = sink.messages();
    assert_eq!(messages.len(), 4);
    let summary = text(&messages[3]);
    assert!(
        summary.ends_with("took 2 ms [message repeated 1 times]"),
        "{summary}"
    );
}

fn start(rules: &str) -> (Sink, Tersed, Originator) {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&format!("[dedup]\nwindow = \"1h\"\n{rules}"))
        .listen("tcp://127.0.0.1:0")
        .forward(&sink.url())
        .start();
    let originator = Originator::tcp(tersed.address("tcp://127.0.0.1:0"));
    (sink, tersed, originator)
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}

const FOO: &str = "<13>Mar  1 12:00:00 h app: foo";
const NOISE: &str = "<15>Mar  1 12:00:00 h app: noise";
