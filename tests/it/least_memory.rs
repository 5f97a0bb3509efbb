//! The least `dedup.memory` that is accepted works, with any number of shards and rules. Less is refused.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{BINARY, Setup};
use super::support::wait::{LIMIT, wait_until};

/// With too little memory for the shards and rules, deduplication was off without any warning.
#[test]
fn with_the_least_memory_that_is_accepted_every_rule_holds_repeats_back() {
    for (shards, rules) in [
        ("4096", 0),
        ("64", 20),
        ("\"auto\"", 100),
        ("1", 256),
        ("2", 7),
    ] {
        let memory = least_memory(shards, rules);
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .config(&config(memory, shards, rules))
            .listen(TCP)
            .forward(&sink.url())
            .start();
        let mut originator = Originator::tcp(tersed.address(TCP));
        // Each message is followed by its repeat; some match no rule.
        let messages = (0..REPEATS).map(|number| {
            let app = number % (rules + 1);
            let text = "x".repeat(number % 7 * 250);
            format!("<13>Mar  1 12:00:00 host a{app}: message {number} {text}")
        });
        originator.send_all(messages.flat_map(|message| [message.clone(), message]));
        tersed.wait_received(2 * REPEATS as u64);
        let (metrics, _) = tersed.finish();
        assert_eq!(
            metrics.total("tersed_frames_suppressed_total"),
            REPEATS as u64,
            "shards = {shards}, {rules} rules, memory = {memory}B"
        );
        assert_eq!(metrics.total("tersed_unremembered_total"), 0);
    }
}

#[test]
fn less_is_refused_by_check_run_and_reload() {
    let little = config(1 << 20, "4096", 0);
    let error = check(&little).unwrap_err();
    for part in [
        "dedup.memory: invalid \"1MiB\"",
        "dedup.shards = 4096",
        "dedup.shards = 32 at most",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let (status, text) = Setup::new().config(&little).listen(TCP).start_refused();
    assert!(!status.success() && text.contains("dedup.memory"), "{text}");

    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&config(64 << 20, "\"auto\"", 3))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    fs::write(tersed.config_file(), config(2 << 20, "\"auto\"", 200)).unwrap();
    tersed.signal(Signal::SIGHUP);
    let line = tersed.wait_log("reload refused");
    assert!(line.mentions("200 rules"), "{line:?}");
    // More rules that fit must not need a restart, although a start would now choose fewer shards.
    fs::write(tersed.config_file(), config(64 << 20, "\"auto\"", 200)).unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    tersed.finish();
}

/// Messages that are too long for the memory.
#[test]
fn what_cannot_be_remembered_is_told_of_once() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&config(1 << 20, "32", 0))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let long = format!("<13>Mar  1 12:00:00 host app: {}", "x".repeat(60_000));
    let mut sent = 0;
    for round in 0..3 {
        originator.send_all([&long, &long]);
        sent += 2;
        tersed.wait_received(sent);
        if round == 0 {
            tersed.wait_log(UNREMEMBERED);
        }
    }
    wait_until("all copies", LIMIT, || sink.count() == 6);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_unremembered_total"), 6);
    let lines: Vec<_> = stopped
        .log
        .iter()
        .filter(|line| line.message == UNREMEMBERED)
        .collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].level, "WARN");
}

/// The smallest value that `tersed check` accepts, to the octet.
fn least_memory(shards: &str, rules: usize) -> usize {
    let (mut refused, mut accepted) = ((1 << 20) - 1, 1 << 30);
    while accepted - refused > 1 {
        let memory = refused + (accepted - refused) / 2;
        match check(&config(memory, shards, rules)) {
            Ok(()) => accepted = memory,
            Err(_) => refused = memory,
        }
    }
    accepted
}

/// The output of `tersed check` if it refuses `config`.
fn check(config: &str) -> Result<(), String> {
    let dir = TempDir::with_prefix("tersed-it-").unwrap();
    let file = dir.path().join("tersed.toml");
    fs::write(&file, config).unwrap();
    let output = Command::new(BINARY)
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn config(memory: usize, shards: &str, rules: usize) -> String {
    let rule = |number| {
        format!(
            "[[rule]]\nname = \"r{number}\"\napp_name = [\"a{number}\"]\nwindow = \"{}m\"\n",
            number + 1
        )
    };
    let rules: String = (1..=rules).map(rule).collect();
    format!("[dedup]\nwindow = \"1h\"\nmemory = \"{memory}B\"\nshards = {shards}\n{rules}")
}

const REPEATS: usize = 2000;
const UNREMEMBERED: &str =
    "no room to remember messages; their repeats are forwarded; raise dedup.memory";
const TCP: &str = "tcp://127.0.0.1:0";
