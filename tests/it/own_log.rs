//! Input from peers can neither forge lines in tersed's own log nor control the terminal that shows it.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::signal::Signal;

use super::support::originator::Originator;
use super::support::process::Process;
use super::support::sink::Sink;
use super::support::tersed::{BINARY, Setup, url};
use super::support::wait::{LIMIT, wait_until};

/// Sent in place of an octet count, and as half of a counted frame.
const EVIL: &[&[u8]] = &[
    b"\x1b]0;title\x07\x1b[2J\x1b[31mred %s%n%x {} {0} ${jndi:x}\n",
    b"forged\r2026-11-22T12:00:00Z ERROR tersed: forged\n",
    b"\xff\xfd\x80\x9b31m \xe2\x80\xae \xc2\x85 not UTF-8\n",
    b"\"} {\"level\":\"ERROR\",\"fields\":{\"message\":\"forged\"}}\n",
];

#[test]
fn every_line_of_the_json_log_is_one_object_without_control_octets() {
    for evil in EVIL {
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .listener(TCP, "framing = \"octet-counting\"")
            .listener(UDP, "max_message_size = \"480B\"")
            .forward(&sink.url())
            .args(["--log-level", "trace"])
            .start();
        let mut originator = Originator::tcp(tersed.address(TCP));
        // A tag is input, too.
        let tag = evil.strip_suffix(b"\n").unwrap();
        let tagged = [b"<13>Mar  1 12:00:00 ", tag, b"[", tag, b"]: %s\n"].concat();
        originator.send_octets(evil);
        let counted = [format!("{} ", tagged.len()).as_bytes(), &tagged].concat();
        originator.send_octets(&counted);
        originator.send_octets(b"400 ");
        originator.send_octets(evil);
        originator.half_close();
        originator.wait_closed();
        Originator::udp(tersed.address(UDP)).send(&tagged);
        sink.wait_messages(2);
        tersed.wait_metric("tersed_frame_errors_total", &[], 2);
        // Reading the log checks that each line is one JSON object.
        let (_, stopped) = tersed.finish();
        let bad = stopped
            .log
            .iter()
            .filter(|line| line.message == "bad framing");
        assert_eq!(bad.count(), 2, "{}", evil.escape_ascii());
        let forged = stopped.log.iter().filter(|line| line.level == "ERROR");
        assert_eq!(forged.count(), 0, "{}", evil.escape_ascii());
        assert_clean(&stopped.stderr);
    }
}

#[test]
fn the_text_log_has_one_line_for_each_event_without_control_octets() {
    for evil in EVIL {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.sock");
        let config = dir.path().join("tersed.toml");
        let text = format!(
            "[[listener]]\nurl = \"{}\"\nframing = \"octet-counting\"\n[log]\nlevel = \"trace\"",
            url("unix-stream", &path)
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--config"]).arg(&config);
        let mut process = Process::start(&mut command, "this package");
        wait_until("the relay to be ready", LIMIT, || {
            process.stderr().contains("ready")
        });
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(evil).unwrap();
        stream.write_all(b"400 ").unwrap();
        stream.write_all(evil).unwrap();
        drop(stream);
        wait_until("both complaints", LIMIT, || {
            process.stderr().matches("bad framing").count() == 2
        });
        process.signal(Signal::SIGTERM);
        let status = process.wait_exit(LIMIT);
        assert!(status.success());
        let stderr = process.stderr();
        assert_clean(&stderr);
        for line in stderr.lines() {
            let level = line.split_whitespace().nth(1).unwrap_or_default();
            let known = ["INFO", "WARN", "DEBUG", "TRACE"].contains(&level);
            assert!(known && line.contains("tersed"), "a forged line: {line}");
        }
        // The final line with the counting law: nothing was received.
        assert!(stderr.contains("stopped"), "{stderr}");
        assert!(stderr.contains("received=0"), "{stderr}");
    }
}

#[track_caller]
fn assert_clean(log: &str) {
    let control = log.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{}", log.escape_debug());
    assert!(log.is_ascii(), "{}", log.escape_debug());
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
