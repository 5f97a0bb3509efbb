//! What rules cost: nanoseconds to decide about one message. Only the last rule of the list matches it.
//!
//!     cargo bench --bench core -- rule
//!
//! `mixed` rules match on facility, severity, app_name and hostname in turn. `text` rules match on MSG alone, which is
//! the worst case. Parsing is not included. The best of all rounds, on one thread.

#![expect(clippy::unwrap_used, reason = "in a benchmark, a panic is the report")]

use std::hint::black_box;
use std::io;
use std::time::Duration;

use tersed::core::identity::{Sender, Spec};
use tersed::core::parse::Message;
use tersed::core::rule::{
    Action, Facilities, Glob, Matcher, Mode, Policy, Rule, Rules, Scratch, Severities,
    SummaryStyle, Text, WindowPolicy,
};

use crate::figures::now;

pub(crate) fn run(smoke: bool) -> io::Result<()> {
    let (messages, rounds) = if smoke { (100, 1) } else { (100_000, 20) };
    let frame: &[u8] = b"<34>Nov 22 10:00:01 host-17.example sshd[12345]: Failed password for root from 192.0.2.7 port 40022 \
                         ssh2, which is a text of a length that is common";
    let row = |kind: &str, count: usize, rules: Vec<Rule>| {
        let nanos = measure(frame, rules, messages, rounds);
        println!("{kind:12} {count:4} rules {nanos:8.1} ns");
    };
    for count in [0, 1, 10, 50, 250] {
        row("mixed", count, mixed(count));
    }
    for count in [1, 8, 10, 50] {
        row("text", count, text(count, true));
        row("text, none", count, text(count, false));
    }
    Ok(())
}

/// Returns the nanoseconds that one decision takes.
fn measure(frame: &[u8], rules: Vec<Rule>, messages: u32, rounds: u32) -> f64 {
    let rules = Rules::with(policy(), rules).unwrap();
    let sender = Sender::at("192.0.2.1".parse().unwrap());
    let message = Message::parse(frame);
    let reach = rules.reach("udp");
    let mut scratch = Scratch::default();
    let best = (0..rounds)
        .map(|_| {
            let started = now();
            for _ in 0..messages {
                black_box(rules.decide(black_box(&message), sender, reach, &mut scratch));
            }
            started.elapsed()
        })
        .min()
        .unwrap();
    best.as_secs_f64() * 1e9 / f64::from(messages)
}

/// Rules of which only the last one matches.
fn mixed(count: usize) -> Vec<Rule> {
    let globs = |text: String| vec![Glob::new(&text).unwrap()];
    let matcher = |number: usize| match number % 5 {
        _ if number + 1 == count => Matcher {
            facility: Facilities::NONE.with(4),
            app_name: globs("ssh*".to_owned()),
            ..Matcher::default()
        },
        0 => Matcher {
            facility: Facilities::NONE.with(16),
            ..Matcher::default()
        },
        1 => Matcher {
            severity: Severities::NONE.with(7),
            app_name: globs(format!("app{number}")),
            ..Matcher::default()
        },
        2 => Matcher {
            app_name: globs(format!("app{number}")),
            ..Matcher::default()
        },
        3 => Matcher {
            app_name: globs(format!("other{number}-*")),
            ..Matcher::default()
        },
        _ => Matcher {
            hostname: globs(format!("web{number}-*")),
            source: vec![format!("10.{}.0.0/16", number % 250).parse().unwrap()],
            ..Matcher::default()
        },
    };
    (0..count).map(|number| rule(matcher(number))).collect()
}

/// Rules with an expression each; the last or none of them matches.
fn text(count: usize, last: bool) -> Vec<Rule> {
    let matcher = |number: usize| {
        let regex = if last && number + 1 == count {
            "Failed (password|publickey) for".to_owned()
        } else {
            format!("session{number} (opened|closed) for user")
        };
        Matcher {
            msg: Some(Text::new(&regex).unwrap()),
            ..Matcher::default()
        }
    };
    (0..count).map(|number| rule(matcher(number))).collect()
}

fn rule(matcher: Matcher) -> Rule {
    Rule {
        name: "rule".to_owned(),
        matcher,
        action: Action::Dedup,
        policy: policy(),
    }
}

fn policy() -> Policy {
    Policy {
        window: WindowPolicy {
            window: Duration::from_secs(10),
            allow: 1,
            refresh: None,
        },
        summary: SummaryStyle::Prefix,
        identity: Spec::default(),
        mode: Mode::Enforce,
    }
}
