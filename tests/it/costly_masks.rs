//! A mask that could occupy a worker for a second is refused wherever a configuration is read.

use std::fs;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::support::command;
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;

#[test]
fn a_costly_mask_is_refused_with_its_cost_by_check_run_and_reload() {
    for (key, config) in [
        ("mask.slow: mask `slow`: takes ", with_mask(SLOW)),
        ("mask.slow: mask `slow`: takes ", with_mask(LATE)),
        ("rule[0].msg: `", with_rule(SLOW)),
    ] {
        let dir = TempDir::with_prefix("tersed-it-").unwrap();
        let file = dir.path().join("tersed.toml");
        fs::write(&file, &config).unwrap();
        let ran = command::tersed(&["check", "--config", file.to_str().unwrap()], b"");
        assert_ne!(ran.code, Some(0), "accepted: {config}");
        for part in [
            key,
            " us an octet, ",
            " ms a message of 64 KiB",
            "at most 1 us an octet",
        ] {
            assert!(ran.stderr.contains(part), "{part:?} in {}", ran.stderr);
        }
        let (status, text) = Setup::new().config(&config).listen(TCP).start_refused();
        assert!(!status.success() && text.contains(key), "{text}");
    }

    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&with_mask("[0-9]+"))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    fs::write(tersed.config_file(), with_mask(SLOW)).unwrap();
    tersed.signal(Signal::SIGHUP);
    let line = tersed.wait_log("reload refused");
    assert!(line.mentions("mask `slow`: takes "), "{line:?}");
    // The old configuration stays in force.
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all([
        "<13>Mar  1 12:00:00 host app: job 1",
        "<13>Mar  1 12:00:00 host app: job 2",
    ]);
    tersed.wait_received(2);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 1);
}

fn with_mask(regex: &str) -> String {
    format!("[dedup]\nmask = [\"slow\"]\n[mask]\nslow = '{regex}'\n")
}

fn with_rule(regex: &str) -> String {
    format!("[[rule]]\nname = \"r\"\nmsg = '{regex}'\n")
}

/// It takes seconds for a message of 64 KiB.
const SLOW: &str = "(?:.{0,900}a){20}z";
/// At each `qj`, the search looks for a `z` up to the end of the message.
const LATE: &str = "qj(?:.*a.{40}z)?";
const TCP: &str = "tcp://127.0.0.1:0";
