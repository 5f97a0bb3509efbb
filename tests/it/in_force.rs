//! Which configuration is in force, from which file, since when, and whether the file still agrees: in the log, in the
//! metrics, on `/readyz` and `/api/v1/config`, and in `tersed check --running`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{BINARY, Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn the_file_and_what_stands_above_it_are_named_everywhere() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"7s\"\n")
        .listen(UDP)
        .forward(&sink.url())
        .environment("TERSED_MEMORY", "64MiB")
        .start();
    let file = tersed.config_file().display().to_string();
    let ready = tersed.wait_log("ready");
    assert_eq!(ready.field("configuration"), Some(file.clone()));
    let above = ready.field("overridden_by").unwrap();
    for part in ["--listen", "--forward", "TERSED_MEMORY=64MiB"] {
        assert!(above.contains(part), "{above}");
    }
    let metrics = tersed.metrics();
    let label = |name| {
        metrics
            .label("tersed_config_info", &[], name)
            .unwrap()
            .to_owned()
    };
    assert_eq!(label("file"), file);
    let loaded_at = label("loaded_at");
    assert!(
        loaded_at.starts_with("20") && loaded_at.ends_with('Z'),
        "{loaded_at}"
    );
    let expected = format!("configuration: {file}, loaded at {loaded_at}, overridden by {above}");
    assert_eq!(configuration(&tersed), expected);
    assert_eq!(metrics.total("tersed_config_changed"), 0);
    assert_eq!(metrics.total("tersed_config_last_reload_successful"), 1);
    assert!(metrics.total("tersed_config_last_reload_success_timestamp_seconds") > 1_700_000_000);

    let page = page(&tersed);
    assert_eq!(page["file"], file);
    assert_eq!(page["dedup"]["window"], "7s");
    assert_eq!(page["dedup"]["memory"], "64MiB");
    assert_eq!(page["listener"][0]["url"], UDP);
    assert_eq!(page["source"]["loaded_at"], loaded_at);
    tersed.finish();
}

/// A variable was forgotten in a unit file, so the relay's window is not the one in the file.
#[test]
fn what_overrides_the_file_is_named_beside_what_the_file_says() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&config("7s"))
        .forward(&sink.url())
        .environment("TERSED_WINDOW", "10ms")
        .start();
    let frames = line_of(&tersed, "frames: ").unwrap();
    assert!(frames.ends_with("; dedup.window = 10ms"), "{frames}");
    let line = configuration(&tersed);
    assert!(line.contains("TERSED_WINDOW=10ms"), "{line}");
    let (fit, text) = check_running(&tersed, None);
    let override_line = "override dedup.window = 10ms, by TERSED_WINDOW; the file alone has 7s";
    assert!(
        fit && text.lines().any(|found| found == override_line),
        "{text}"
    );
    assert!(text.contains(", except for overrides"), "{text}");
    tersed.finish();
}

#[test]
fn without_a_file_it_says_that_the_defaults_run() {
    let tersed = Setup::new().listen(UDP).start();
    let ready = tersed.wait_log("ready");
    assert_eq!(
        ready.field("configuration").as_deref(),
        Some("defaults (no file)")
    );
    let metrics = tersed.metrics();
    assert_eq!(metrics.label("tersed_config_info", &[], "file"), Some(""));
    assert!(configuration(&tersed).starts_with("configuration: defaults (no file), loaded at 2"));
    assert_eq!(page(&tersed)["file"], Value::Null);
    let (fit, text) = check_running(&tersed, None);
    assert!(
        fit && text.contains("loaded   defaults (no file), at "),
        "{text}"
    );
    tersed.finish();
}

#[test]
fn a_file_that_changed_or_was_refused_is_told_of_until_it_is_in_force() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&config("10s"))
        .forward(&sink.url())
        .start();
    let (fit, text) = check_running(&tersed, None);
    assert!(fit, "{text}");
    for line in ["dedup    each message once in 10s; ", "same     as "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{text}");
    }

    // The operator writes another window and forgets to reload.
    fs::write(tersed.config_file(), config("5m")).unwrap();
    wait_changed(&tersed, 1);
    let line = configuration(&tersed);
    let advice = format!(
        "; the file has changed since it was loaded; kill -HUP {} to load it",
        tersed.id()
    );
    assert!(line.ends_with(&advice), "{line}");
    let (fit, text) = check_running(&tersed, None);
    assert!(
        !fit && text.contains("dedup.window: running \"10s\", file \"5m\""),
        "{text}"
    );
    assert!(
        text.contains("once in 10s"),
        "what runs is described: {text}"
    );

    // Then the file gets an error.
    fs::write(
        tersed.config_file(),
        config("5m") + "windw = \"5m\"\nallow = \"x\"\n",
    )
    .unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reload refused");
    wait_until("both errors", LIMIT, || {
        tersed.log_count("reload refused") == 2
    });
    let metrics = tersed.metrics();
    assert_eq!(metrics.total("tersed_config_last_reload_successful"), 0);
    let line = line_of(&tersed, "reload refused ").unwrap();
    assert!(
        line.contains("s ago: ") && line.contains("dedup.windw: unknown key"),
        "{line}"
    );
    assert!(
        line.contains(" (and 1 more in the log); the configuration of 2")
            && line.contains(" stays in force; fix the file and kill -HUP "),
        "{line}"
    );
    let refused = page(&tersed)["source"]["refused"]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(refused.contains("dedup.windw"), "{refused}");
    // The admin address is taken from this file, although the file has an error elsewhere.
    let mut asking = Command::new(BINARY);
    asking.args(["check", "--running", "--config"]);
    let admin = format!(
        "[admin]\naddress = \"{}\"\n[dedup]\nwindow = 20\n",
        tersed.admin()
    );
    let elsewhere = tersed.path("elsewhere.toml");
    fs::write(&elsewhere, admin).unwrap();
    let asked = asking.arg(&elsewhere).output().unwrap();
    let text = String::from_utf8_lossy(&asked.stdout);
    assert!(text.contains("dedup    each message once in 10s"), "{text}");
    let (fit, text) = check_running(&tersed, None);
    assert!(
        !fit && text.contains("was refused:") && text.contains("would be refused by a reload:"),
        "{text}"
    );

    fs::write(tersed.config_file(), config("5m")).unwrap();
    tersed.signal(Signal::SIGHUP);
    let reloaded = tersed.wait_log("reloaded");
    let file = tersed.config_file().display().to_string();
    assert_eq!(reloaded.field("configuration"), Some(file));
    wait_changed(&tersed, 0);
    assert_eq!(line_of(&tersed, "reload refused "), None);
    // Nothing follows the list of overrides.
    let line = configuration(&tersed);
    let (_, end) = line.split_once(", overridden by ").unwrap();
    assert!(!end.contains(';'), "{line}");
    assert_eq!(page(&tersed)["dedup"]["window"], "5m");
    let (fit, text) = check_running(&tersed, None);
    assert!(fit && text.contains("once in 5m"), "{text}");
    // Now with a copy of the file elsewhere, which differs.
    let copy = tersed.path("copy.toml");
    fs::write(&copy, config("1h")).unwrap();
    let (fit, text) = check_running(&tersed, Some(&copy));
    assert!(
        !fit && text.contains("copy.toml differs from the running configuration:"),
        "{text}"
    );
    Originator::udp(tersed.address(UDP)).send("<13>one");
    tersed.wait_received(1);
    tersed.finish();
}

#[test]
fn what_the_page_shows_is_what_check_prints() {
    let sink = Sink::tcp();
    let text = format!(
        "{}[[rule]]\nname = \"cron\"\napp_name = [\"cron*\"]\nwindow = \"1m\"\n\
         [forward]\nto = [\"{}\"]\n[admin]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        config("10s"),
        sink.url()
    );
    let tersed = Setup::new().config(&text).start();
    let output = Command::new(BINARY)
        .args(["check", "--format", "json", "--config"])
        .arg(tersed.config_file())
        .output()
        .unwrap();
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut page = page(&tersed);
    assert!(page.as_object_mut().unwrap().remove("source").is_some());
    assert_eq!(page, checked);
    tersed.finish();
}

#[test]
fn a_relay_that_cannot_be_asked_is_named_with_what_to_do() {
    let check = |args: &[&str]| {
        let output = Command::new(BINARY)
            .args(["check", "--running"])
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = check(&[]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("admin.address is off") && text.contains("--admin ADDRESS"),
        "{text}"
    );
    let (code, text) = check(&["--admin", "127.0.0.76:9"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("http://127.0.0.76:9/api/v1/config: ")
            && text.contains("is the relay running"),
        "{text}"
    );
}

#[test]
fn what_answers_and_is_no_tersed_is_told_so_and_silence_too() {
    for (answer, expected) in [
        (
            Some("HTTP/1.0 404 Not Found\r\n\r\nno"),
            "answered \"HTTP/1.0 404 Not Found\", so the server at this address is not tersed",
        ),
        (
            Some("HTTP/1.0 200 OK\r\n\r\n<html>"),
            "the server at this address is not tersed",
        ),
        (
            Some("HTTP/1.0 200 OK\r\n\r\n{\"a\": 1}"),
            "the server at this address is not tersed",
        ),
        (
            Some("220 mail ready\r\n\r\n"),
            "the server at this address is not tersed",
        ),
        (None, "no answer within 5s"),
    ] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut asked = [0; 1024];
            let octets = client.read(&mut asked).unwrap();
            assert!(asked[..octets].starts_with(b"GET "));
            match answer {
                Some(answer) => client.write_all(answer.as_bytes()).unwrap(),
                // The client gives up waiting and closes.
                None => assert_eq!(client.read(&mut asked).unwrap(), 0),
            }
        });
        let output = Command::new(BINARY)
            .args(["check", "--running", "--admin", &address.to_string()])
            .output()
            .unwrap();
        serving.join().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        let expected = format!("http://{address}/api/v1/config: {expected}; is the relay running");
        assert!(text.contains(&expected), "{text}");
    }
}

fn config(window: &str) -> String {
    format!("[[listener]]\nurl = \"{UDP}\"\n[dedup]\nwindow = \"{window}\"\n")
}

/// The line of `/readyz` about the configuration.
#[track_caller]
fn configuration(tersed: &Tersed) -> String {
    line_of(tersed, "configuration: ").expect("a line on /readyz")
}

/// The line of `/readyz` that starts with `start`.
fn line_of(tersed: &Tersed, start: &str) -> Option<String> {
    let (_, page) = tersed.get("/readyz");
    let line = page.lines().find(|line| line.starts_with(start));
    line.map(str::to_owned)
}

#[track_caller]
fn page(tersed: &Tersed) -> Value {
    let (status, page) = tersed.get("/api/v1/config");
    assert_eq!(status, 200, "{page}");
    serde_json::from_str(&page).unwrap()
}

#[track_caller]
fn wait_changed(tersed: &Tersed, changed: u64) {
    tersed.wait_metric("tersed_config_changed", &[], changed);
}

/// Whether the file agrees with the relay, and all output.
fn check_running(tersed: &Tersed, file: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(BINARY);
    command.args(["check", "--running", "--admin", &tersed.admin().to_string()]);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

const UDP: &str = "udp://127.0.0.1:0";
