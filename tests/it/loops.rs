//! Loops: an upstream that leads back to the relay is refused where that can be seen, and the loop dies out where it
//! cannot.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::support::originator::Originator;
use super::support::tersed::{BINARY, Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};

/// The upstream is one of the relay's own listeners.
#[test]
fn an_upstream_that_is_an_own_listener_is_refused_with_its_line() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tersed.toml");
    for (listener, upstream) in [
        ("tcp://127.0.0.1:5514", "tcp://127.0.0.1:5514"),
        ("udp://127.0.0.1:5514", "udp://localhost:5514"),
        ("tcp://0.0.0.0:5514", "tcp://127.0.0.1:5514"),
        ("tcp://[::]:5514", "tcp://[::1]:5514"),
        ("tcp://[::]:5514", "tcp://127.0.0.1:5514"),
        ("unix-dgram:///run/a.sock", "unix-dgram:///run/a.sock"),
        ("unix-stream:///run/a.sock", "unix-stream:///run/a.sock"),
    ] {
        let text = format!(
            "[[listener]]\nurl = \"{listener}\"\n\n[forward]\nto = [\n  \"stdout:\",\n  \"{upstream}\",\n]\n"
        );
        fs::write(&file, text).unwrap();
        for command in ["run", "check"] {
            let output = Command::new(BINARY)
                .args([command, "--config"])
                .arg(&file)
                .env_clear()
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            for part in ["tersed.toml:7: forward.to", upstream, ":2: listener"] {
                assert!(said.contains(part), "{said:?} does not name {part}");
            }
            assert!(output.stdout.is_empty(), "nothing was run");
        }
    }
}

/// Neither a loop nor a usable upstream: a file that is a listener's socket, and the relay's own admin address.
#[test]
fn an_upstream_that_is_the_relay_itself_in_another_way_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tersed.toml");
    fs::create_dir(dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    let at = |scheme, path: &str| url(scheme, &dir.path().join(path));
    for (listener, upstream, other) in [
        (
            "tcp://127.0.0.1:5514".to_owned(),
            "tcp://127.0.0.1:9100".to_owned(),
            ":6: admin.address",
        ),
        (
            "tcp://127.0.0.1:5514".to_owned(),
            "relp://localhost:9100".to_owned(),
            ":6: admin.address",
        ),
        (
            at("unix-dgram", "real/s"),
            at("file", "real/s"),
            ":2: listener[0].url",
        ),
        (
            at("unix-stream", "real/s"),
            at("file", "link/s"),
            ":2: listener[0].url",
        ),
        (
            at("unix-stream", "real/s"),
            at("unix-dgram", "real/s"),
            ":2: listener[0].url",
        ),
        (
            at("unix-stream", "real/s"),
            at("unix-stream", "link/s"),
            ":2: listener[0].url",
        ),
    ] {
        let text = format!(
            "[[listener]]\nurl = \"{listener}\"\n[forward]\nto = [\"{upstream}\"]\n[admin]\naddress = \"127.0.0.1:9100\"\n"
        );
        fs::write(&file, text).unwrap();
        for command in ["run", "check"] {
            let output = Command::new("timeout")
                .args(["5", BINARY, command, "--config"])
                .arg(&file)
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{upstream}: {said}");
            for part in ["tersed.toml:4: forward.to", &upstream, other] {
                assert!(said.contains(part), "{said:?} does not name {part}");
            }
        }
    }
}

/// A loop that no configuration shows: two relays forward to each other.
#[test]
fn a_loop_through_another_relay_dies_out_summaries_included() {
    let dir = TempDir::new().unwrap();
    let [a_path, b_path] = ["a.sock", "b.sock"].map(|name| dir.path().join(name));
    let start = |own, other| {
        Setup::new()
            .config("[dedup]\nwindow = \"2s\"\n")
            .listen(&url("unix-stream", own))
            .forward(&url("unix-stream", other))
            .start()
    };
    let a = start(&a_path, &b_path);
    let b = start(&b_path, &a_path);
    let relays = [&a, &b];
    let mut originator = Originator::unix_stream(&a_path);
    for number in 0..MESSAGES {
        originator.send_all([message(number), message(number), message(number)]);
    }
    // Each message goes round once and is suppressed. When its window ends, a summary is sent, which goes round until
    // that is noticed, too.
    for relay in relays {
        wait_until("all windows to end", LIMIT, || {
            let metrics = relay.metrics();
            metrics.balance().received >= 2 * MESSAGES
                && metrics.total("tersed_live_messages") == 0
                && metrics.balance().queued == 0
        });
    }
    let received: Vec<_> = relays.iter().map(|relay| received(relay)).collect();
    // Each message comes three times and comes back once. In each relay it has one summary, of which as many copies go
    // round as are let through for messages that are never suppressed, plus one.
    let most = 4 * MESSAGES + 2 * 17 * MESSAGES;
    for count in &received {
        assert!(
            *count <= most,
            "{received:?} frames went round, {most} at most"
        );
    }

    // Nothing moves any more, and a new message goes round once, as the first did.
    originator.send(message(MESSAGES));
    wait_until("once round", LIMIT, || {
        self::received(&a) == received[0] + 2 && self::received(&b) == received[1] + 1
    });
    a.finish();
    b.finish();
}

/// tersed's own log goes to standard error only, whatever the level.
#[test]
fn own_log_lines_never_enter_the_stream() {
    let tersed = Setup::new()
        .args(["--log-level", "trace"])
        .listen("tcp://127.0.0.1:0")
        .listen("udp://127.0.0.1:0")
        .start();
    let mut originator = Originator::tcp(tersed.address("tcp://127.0.0.1:0"));
    originator.send_octets(b"\x16\x03\x01 hello, TLS?");
    originator.wait_closed();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    let (metrics, stopped) = tersed.finish();
    assert!(stopped.log.len() > 5);
    assert_eq!(metrics.balance().received, 0);
    let stdout = stopped.stdout.escape_ascii().to_string();
    assert_eq!(stdout, "", "standard output is for survivors");
}

fn received(relay: &Tersed) -> u64 {
    relay.metrics().balance().received
}

fn message(number: u64) -> String {
    format!("<13>Mar  1 12:00:00 host app: number {number}")
}

const MESSAGES: u64 = 20;
