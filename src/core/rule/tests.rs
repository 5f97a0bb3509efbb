//! Claims about rules: which rule decides, and that the index decides as a plain walk through the list does.

use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

pub(super) fn policy(secs: u64) -> Policy {
    Policy {
        window: WindowPolicy {
            window: Duration::from_secs(secs),
            allow: 1,
            refresh: None,
        },
        summary: SummaryStyle::Prefix,
        identity: Spec::default(),
        mode: Mode::Enforce,
    }
}

fn rule(name: &str, matcher: Matcher) -> Rule {
    Rule {
        name: name.to_owned(),
        matcher,
        action: Action::Dedup,
        policy: policy(60),
    }
}

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| Glob::new(text).unwrap()).collect()
}

fn sender(text: &str) -> Sender {
    Sender::at(text.parse().unwrap())
}

/// The name of the rule that `frame` falls under.
fn decided(rules: &Rules, frame: &[u8], from: Sender, listener: &str) -> String {
    let reach = rules.reach(listener);
    let message = Message::parse(frame);
    let id = rules.decide(&message, from, reach, &mut Scratch::default());
    rules.fall(id).name.clone()
}

#[test]
fn every_part_that_is_given_must_match_and_the_first_rule_wins() {
    let rules = vec![
        rule(
            "all",
            Matcher {
                facility: Facilities::NONE.with(4),
                severity: Severities::NONE.with(2).with(3),
                hostname: globs(&["web-*"]),
                app_name: globs(&["sshd", "su"]),
                msg: Some(Text::new("fail").unwrap()),
                listener: vec!["lan".to_owned()],
                source: vec!["10.0.0.0/8".parse().unwrap()],
            },
        ),
        rule(
            "app",
            Matcher {
                app_name: globs(&["s*"]),
                ..Matcher::default()
            },
        ),
    ];
    let rules = Rules::with(policy(10), rules).unwrap();
    let frame: &[u8] = b"<34>Mar  1 10:00:00 web-1 sshd[1]: failed";
    let near = sender("10.1.2.3");
    assert_eq!(decided(&rules, frame, near, "lan"), "all");
    assert_eq!(decided(&rules, frame, near, "wan"), "app");
    assert_eq!(decided(&rules, frame, sender("11.1.2.3"), "lan"), "app");
    assert_eq!(decided(&rules, frame, sender("2001:db8::1"), "lan"), "app");
    assert_eq!(decided(&rules, frame, Sender::Local, "lan"), "app");
    for other in [
        &b"<33>Mar  1 10:00:00 web-1 sshd[1]: failed"[..],
        b"<42>Mar  1 10:00:00 web-1 sshd[1]: failed",
        b"<34>Mar  1 10:00:00 db-1 sshd[1]: failed",
        b"<34>Mar  1 10:00:00 web-1 sudo[1]: failed",
        b"<34>Mar  1 10:00:00 web-1 sshd[1]: accepted",
    ] {
        assert_eq!(decided(&rules, other, near, "lan"), "app");
    }
    assert_eq!(decided(&rules, b"<34>cron: failed", near, "lan"), "default");
    assert_eq!(decided(&rules, b"<34>free text", near, "lan"), "default");
}

#[test]
fn a_message_without_a_name_has_none_that_a_glob_could_match() {
    let any = Matcher {
        app_name: globs(&["*"]),
        ..Matcher::default()
    };
    let rules = Rules::with(policy(10), vec![rule("any", any)]).unwrap();
    let from = Sender::Local;
    assert_eq!(decided(&rules, b"<13>{\"a\":1}", from, "l"), "default");
    assert_eq!(decided(&rules, b"<13>app: text", from, "l"), "any");
}

#[test]
fn what_is_never_suppressed_is_passed_or_dropped_but_not_deduplicated() {
    let frame: &[u8] = b"<13>Mar  1 10:00:00 h app: last message repeated 3 times";
    for (action, expected) in [
        (Action::Dedup, LITERAL),
        (Action::Pass, PolicyId(2)),
        (Action::Drop, PolicyId(2)),
    ] {
        let rule = Rule {
            action,
            ..rule("r", Matcher::default())
        };
        let rules = Rules::with(policy(10), vec![rule]).unwrap();
        let message = Message::parse(frame);
        let scratch = &mut Scratch::default();
        let id = rules.decide(&message, Sender::Local, rules.reach("l"), scratch);
        assert_eq!(id, expected, "{action:?}");
    }
    let rules = Rules::new(policy(10));
    let message = Message::parse(frame);
    let scratch = &mut Scratch::default();
    assert_eq!(
        rules.decide(&message, Sender::Local, rules.reach("l"), scratch),
        LITERAL
    );
}

#[test]
fn windows_go_on_under_a_rule_of_the_same_name_that_means_the_same() {
    let named = |names: &[&str]| {
        let rules = names.iter().map(|name| rule(name, Matcher::default()));
        Rules::with(policy(10), rules.collect()).unwrap()
    };
    let (old, new) = (named(&["a", "b"]), named(&["b", "c", "a"]));
    let continued: Vec<_> = (0..5).map(|id| new.continued(PolicyId(id), &old)).collect();
    let id = |id| Some(PolicyId(id));
    assert_eq!(continued, [id(0), id(1), id(3), None, id(2)]);
    let mut other = rule("a", Matcher::default());
    other.policy.mode = Mode::Shadow;
    let other = Rules::with(policy(11), vec![other]).unwrap();
    assert_eq!(other.continued(PolicyId(2), &old), None);
    assert_eq!(other.continued(PolicyId(0), &old), None);
}

#[test]
fn a_rule_behind_one_that_takes_all_of_its_messages_is_shadowed() {
    let app = |texts: &[&str]| Matcher {
        app_name: globs(texts),
        ..Matcher::default()
    };
    let rules = vec![
        rule("a", app(&["s*"])),
        rule("b", app(&["sshd"])),
        rule("c", app(&["cron"])),
    ];
    let rules = Rules::with(policy(10), rules).unwrap();
    let shadowed: Vec<_> = rules
        .shadowed()
        .map(|(rule, by)| (rule.name.as_str(), by.name.as_str()))
        .collect();
    assert_eq!(shadowed, [("b", "a")]);
}

/// Whether `matcher` takes the message: part by part, without the index.
fn takes(matcher: &Matcher, message: &Message<'_>, from: Sender, listener: &str) -> bool {
    let pri = message.pri_or_default();
    let names = |globs: &[Glob], name: Option<&[u8]>| {
        globs.is_empty() || name.is_some_and(|name| globs.iter().any(|glob| glob.matches(name)))
    };
    matcher.facility.has(pri.facility())
        && matcher.severity.has(pri.severity())
        && names(&matcher.hostname, message.hostname())
        && names(&matcher.app_name, message.app_name())
        && (matcher.listener.is_empty() || matcher.listener.iter().any(|name| name == listener))
        && (matcher.source.is_empty()
            || matches!(from, Sender::Address(address)
                if matcher.source.iter().any(|net| net.contains(&address))))
        && matcher
            .msg
            .as_ref()
            .is_none_or(|text| text.matches(message.msg()))
}

fn some_of(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        2 => Just(Vec::new()),
        3 => vec(prop::sample::select(texts), 1..3),
    ]
}

fn matchers() -> impl Strategy<Value = Matcher> {
    const NAMES: &[&str] = &["a", "b", "a*", "*b", "?", "[ab]b"];
    const NETS: &[&str] = &[
        "10.0.0.0/8",
        "10.1.0.0/16",
        "::/0",
        "2001:db8::/32",
        "0.0.0.0/0",
    ];
    (
        any::<(u32, u8)>(),
        some_of(NAMES),
        some_of(NAMES),
        prop::option::of(prop::sample::select(&["x", "y", "xy", "^x", "z"])),
        some_of(&["l", "m"]),
        some_of(NETS),
    )
        .prop_map(
            |((facility, severity), hostname, app_name, msg, listener, source)| Matcher {
                facility: Facilities((facility | 0x00ff_00ff) & Facilities::ALL.0),
                severity: Severities(severity | 0x3c),
                hostname: globs(&hostname),
                app_name: globs(&app_name),
                msg: msg.map(|text| Text::new(text).unwrap()),
                listener: listener.into_iter().map(str::to_owned).collect(),
                source: source.iter().map(|net| net.parse().unwrap()).collect(),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_decides_as_a_walk_through_the_rules_does(
        matchers in vec(matchers(), 1..80),
        messages in vec(
            (0..192_u8, "[ab]{1,2}", "[ab]{0,2}", "[xyz]{0,3}", 0..4_usize, prop::sample::select(&["l", "m", "n"])),
            1..30,
        ),
    ) {
        let rules = matchers.into_iter().enumerate();
        let rules: Vec<_> = rules.map(|(number, matcher)| rule(&number.to_string(), matcher)).collect();
        let compiled = Rules::with(policy(10), rules.clone()).unwrap();
        let mut scratch = Scratch::default();
        for (pri, hostname, app_name, msg, from, listener) in messages {
            let app_name = if app_name.is_empty() { "-" } else { &app_name };
            let frame = format!("<{pri}>1 - {hostname} {app_name} - - - {msg}");
            let message = Message::parse(frame.as_bytes());
            let at = |text: &str| Sender::at(text.parse::<IpAddr>().unwrap());
            let from = [Sender::Local, at("10.1.0.1"), at("192.0.2.1"), at("2001:db8::7")][from];
            let id = compiled.decide(&message, from, compiled.reach(listener), &mut scratch);
            let walked = rules.iter().find(|rule| takes(&rule.matcher, &message, from, listener));
            let expected = walked.map_or(DEFAULT_NAME, |rule| rule.name.as_str());
            prop_assert_eq!(&compiled.fall(id).name, expected);
        }
    }
}
