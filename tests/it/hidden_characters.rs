//! Text from outside never reverses, hides or colours what a person reads: U+202E, characters without width, controls.

use super::support::command::{self, Logs};

/// The right-to-left override, a zero-width space, and an escape sequence.
const HIDDEN: &str = "a\u{202e}b\u{200b}c\u{1b}[31m";

#[track_caller]
fn assert_shown(text: &str) {
    let hidden = |c: &char| matches!(c, '\u{202e}' | '\u{200b}' | '\u{1b}');
    assert_eq!(text.chars().find(hidden), None, "{text:?}");
    assert!(text.contains("\\u{202e}"), "{text}");
}

#[test]
fn explain_writes_them_out_for_people_and_leaves_data_exact_for_programs() {
    let frame = format!("<13>Oct 11 22:14:15 host app: {HIDDEN}\n");
    let ran = command::tersed(&["explain", "--why", "--format", "text"], frame.as_bytes());
    assert_shown(ran.text());
    let json = command::tersed(&["explain", "--format", "json"], frame.as_bytes()).json();
    assert_eq!(json["msg"], HIDDEN);
}

#[test]
fn a_report_writes_them_out_in_messages_and_names_of_files() {
    let files = Logs::new();
    let line = format!("<13>Oct 11 22:14:15 host app: {HIDDEN}\n");
    let log = files.write("log\u{202e}.txt", line.repeat(3));
    let ran = command::tersed(&["replay", "--report", &log], b"");
    let text = ran.text();
    assert_shown(text);
    assert!(text.contains("log\\u{202e}.txt: 3 lines"), "{text}");
    assert!(text.contains("a\\u{202e}b\\u{200b}c"), "{text}");
}

#[test]
fn errors_of_every_command_write_them_out_in_names_of_files() {
    let files = Logs::new();
    let missing = files.path("no\u{202e}\n\u{1b}[31mfile");
    let missing = command::argument(&missing);
    let binary = files.write("nul\u{202e}.log", "<13>a\0b\n".repeat(2000));
    let packed = files.write("packed\u{202e}.xz", b"\xfd7zXZ\0\0\0");
    let svg = files.path("missing/\u{202e}.svg");
    let svg = command::argument(&svg);
    for args in [
        &["replay", &missing][..],
        &["replay", &packed],
        &["replay", &binary],
        &["replay", "--plot", &svg, &binary],
        &["explain", &missing],
        &["explain", &packed],
        &["check", "--config", &missing],
        &["run", "--config", &missing],
        &["explain", "--listener", "x\u{202e}"],
    ] {
        let ran = command::tersed(args, b"");
        assert_shown(&ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn check_writes_them_out_in_what_it_found_and_what_would_run() {
    let files = Logs::new();
    for (config, code) in [
        ("[dedup]\nwindow = \"1\\u202es\"\n", 1),
        ("[[rule]]\nname = \"a\"\nmsg = \"a\\u202e(\"\n", 1),
        ("[mask]\nx = \"a\\u202e(\"\n", 1),
        ("[forward]\n\"to\\u202e\" = 1\n", 1),
        (
            "[[listener]]\nurl = \"tcp://127.0.0.1:0\"\nname = \"a\\u202e\"\n[forward]\nto = [\"stdout:\"]\n",
            0,
        ),
        (
            "[[rule]]\nname = \"a\\u202e\"\nlistener = [\"b\\u202e\"]\n",
            0,
        ),
    ] {
        let file = files.write("t.toml", config);
        let ran = command::tersed(&["check", "--config", &file], b"");
        assert_eq!(ran.code, Some(code), "{config}{}", ran.stderr);
        assert_shown(&format!(
            "{}{}",
            ran.stderr,
            String::from_utf8(ran.stdout).unwrap()
        ));
    }
}
