//! `tersed replay` of broken logs: all lines before the fault come out, and the error names the fault.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::thread;

use super::replay::{gzip, zstd};
use super::support::command::{Logs, argument, tersed};
use super::support::tersed::BINARY;

fn log() -> String {
    (0..20_000)
        .map(|n| format!("Mar  1 10:{:02}:{:02} h a: line {n}\n", n / 60 % 60, n % 60))
        .collect()
}

#[test]
fn a_truncated_log_gives_its_whole_lines_and_the_next_file_follows() {
    let logs = Logs::new();
    let next = logs.write("next", "Mar  1 12:00:00 h a: next\n");
    for (name, packed) in [
        ("gzip", gzip(log().as_bytes())),
        ("zstd", zstd(log().as_bytes())),
    ] {
        let path = logs.write("log", &packed[..packed.len() * 2 / 3]);
        let ran = tersed(&["replay", &path, &next], b"");
        assert_eq!(ran.code, Some(1), "{name}");
        let said = format!("tersed: {path}: the {name} stream ends early, after ");
        assert!(ran.stderr.starts_with(&said), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        let out = String::from_utf8(ran.stdout).unwrap();
        let head = out.strip_suffix("Mar  1 12:00:00 h a: next\n").unwrap();
        assert!(!head.is_empty() && log().starts_with(head), "{name}");
        assert!(head.ends_with('\n'), "{name}");
    }
}

#[test]
fn a_damaged_log_is_told() {
    let logs = Logs::new();
    for packed in [gzip(log().as_bytes()), zstd(log().as_bytes())] {
        let mut octets = packed;
        let middle = octets.len() / 2;
        for octet in &mut octets[middle..middle + 16] {
            *octet = !*octet;
        }
        let path = logs.write("log", &octets);
        let ran = tersed(&["replay", "--report", "--format", "json", &path], b"");
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("stream "), "{}", ran.stderr);
        // The report has the error as well.
        let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        let error = report["files"][0]["error"].as_str().unwrap();
        assert!(ran.stderr.contains(error), "{error}");
    }
}

#[test]
fn nothing_is_replayed_if_a_file_is_not_there() {
    let logs = Logs::new();
    let good = logs.write("good", "<34>a: b\n");
    let absent = argument(&logs.path("absent"));
    let directory = argument(&logs.path(""));
    let ran = tersed(&["replay", &good, &absent, &directory], b"");
    assert_eq!((ran.code, ran.stdout), (Some(1), Vec::new()));
    let lines: Vec<_> = ran.stderr.lines().collect();
    let said = format!("tersed: {absent}: cannot be read: No such file");
    assert!(lines[0].starts_with(&said), "{}", ran.stderr);
    let said = format!("tersed: {directory}: a directory, expected the files in it");
    assert_eq!(lines[1..], [said]);
}

#[test]
fn what_is_no_text_is_told_by_its_name_and_offset() {
    let logs = Logs::new();
    let path = logs.write("wtmp", b"abc\n\x07\0\0\0tty1");
    let ran = tersed(&["replay", &path], b"");
    assert_eq!((ran.code, ran.stdout), (Some(1), Vec::new()));
    let said = format!("tersed: {path}: not text: a NUL at octet 5; ");
    assert!(ran.stderr.starts_with(&said), "{}", ran.stderr);

    let path = logs.write("log.xz", b"\xfd7zXZ\0\0\x04");
    let ran = tersed(&["replay", &path], b"");
    assert_eq!(ran.code, Some(1));
    let said =
        format!("tersed: {path}: packed by xz, expected text, gzip or zstd; run `xzcat {path} |`");
    assert!(ran.stderr.starts_with(&said), "{}", ran.stderr);
    let ran = tersed(&["replay", "--report", "--format", "json", &path], b"");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let error = report["files"][0]["error"].as_str().unwrap();
    assert_eq!(ran.stderr, format!("tersed: {error}\n"));
}

/// A crash leaves NULs in a log: the file system had allocated blocks and not written them.
#[test]
fn nuls_in_the_middle_of_a_log_stay_in_their_line() {
    let log = format!("{}\0\0\0\0Apr  1 10:00:00 h a: after\n", log());
    let ran = tersed(&["replay"], log.as_bytes());
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stdout, log.as_bytes());
    let offset = log.find('\0').unwrap();
    assert_eq!(
        ran.stderr,
        format!("tersed: standard input: a NUL at octet {offset}, kept in its line\n")
    );
}

#[test]
fn a_reader_that_closes_the_pipe_ends_it_quietly() {
    let mut child = Command::new(BINARY)
        .arg("replay")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let log = log();
        // Until the reader closes the pipe.
        while stdin.write_all(log.as_bytes()).is_ok() {}
    });
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "Mar  1 10:00:00 h a: line 0\n");
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", output.status);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_full_device_is_told() {
    let ran = Command::new("sh")
        .args(["-c", "exec \"$0\" replay > /dev/full", BINARY])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = ran.stdin.as_ref().unwrap();
    stdin.write_all(b"<34>a: b\n").unwrap();
    let output = ran.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("tersed: standard output: No space left on device"),
        "{stderr}"
    );
}

#[test]
fn no_bar_is_drawn_off_a_terminal() {
    let logs = Logs::new();
    let path = logs.write("log", log());
    // `text` asserts that standard error is empty.
    assert_eq!(tersed(&["replay", &path], b"").text(), log());
}
