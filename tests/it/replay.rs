//! `tersed replay`: recorded logs through the engine, on their own time.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::support::command::{Logs, tersed};
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, url};

/// What comes out if `log` is replayed from standard input.
#[track_caller]
fn replay(args: &[&str], log: &str) -> String {
    tersed(&[&["replay"], args].concat(), log.as_bytes())
        .text()
        .to_owned()
}

/// The same without summaries.
#[track_caller]
fn survivors(args: &[&str], log: &str) -> Vec<String> {
    let out = replay(args, log);
    let is_survivor = |line: &&str| !line.contains("message repeated");
    out.lines().filter(is_survivor).map(str::to_owned).collect()
}

pub(super) fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(octets: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(octets, ruzstd::encoding::CompressionLevel::Fastest)
}

const LOG: &str = "\
Mar  1 10:00:00 h su[1]: failed
Mar  1 10:00:01 h su[2]: failed
Mar  1 10:00:02 h cron[3]: other
Mar  1 10:00:09 h su[4]: failed
Mar  1 10:00:10 h su[5]: failed
Mar  1 10:00:30 h cron[6]: other
";

/// The last `su` opens a window of its own; the summary stands where the first window ends.
const TERSE: &str = "\
Mar  1 10:00:00 h su[1]: failed
Mar  1 10:00:02 h cron[3]: other
Mar  1 10:00:09 h su[2]: message repeated 2 times: [ failed]
Mar  1 10:00:10 h su[5]: failed
Mar  1 10:00:30 h cron[6]: other
";

#[test]
fn a_message_comes_out_once_per_window_of_its_own_time() {
    assert_eq!(replay(&[], LOG), TERSE);
}

#[test]
fn survivors_leave_byte_for_byte() {
    let mut log = Vec::new();
    for line in [
        &b"<34>Mar  1 10:00:00 h su: \xff\xfe caf\xc3\xa9 \x1b[2J\t."[..],
        b"  indented without a header",
        b"<999>no PRI",
        b"\xef\xbb\xbf<34>1 2026-03-01T10:00:01Z h a - - [x] \xef\xbb\xbftext  ",
        b"{\"json\": true}",
    ] {
        log.extend_from_slice(line);
        log.push(b'\n');
    }
    let ran = tersed(&["replay"], &log);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, log);
    // The CR of a CR LF belongs to the framing, and the last LF may be missing.
    let ran = tersed(&["replay"], b"<34>a: b\r\n<34>a: c");
    assert_eq!(ran.stdout, b"<34>a: b\n<34>a: c\n");
}

#[test]
fn nothing_comes_out_of_nothing() {
    assert_eq!(replay(&[], ""), "");
    assert_eq!(replay(&[], "\n\n\r\n"), "");
}

#[test]
fn windows_that_are_open_at_the_end_are_reported() {
    assert_eq!(
        replay(&["--window", "1h"], "<34>a: b\n<34>a: b\n<34>a: b\n"),
        "<34>a: b\n<34>a: message repeated 2 times: [ b]\n"
    );
}

#[test]
fn the_configuration_decides() {
    let logs = Logs::new();
    let config = logs.write(
        "t.toml",
        "[dedup]\nwindow = \"1h\"\nallow = 2\nsummary = \"none\"\n",
    );
    assert_eq!(
        replay(&["--config", &config], "<34>a: b\n<34>a: b\n<34>a: b\n"),
        "<34>a: b\n<34>a: b\n"
    );
}

#[test]
fn every_form_of_timestamp_moves_time() {
    // Each message comes once more within its window, and once after it.
    for (first, within, after) in [
        (
            "Mar  1 10:00:00 h",
            "Mar  1 10:00:09 h",
            "Mar  1 10:00:11 h",
        ),
        (
            "<34>Mar  1 10:00:00 h",
            "<34>Mar  1 10:00:09.9 h",
            "<34>Mar  1 10:00:10.0 h",
        ),
        (
            "2026-03-01T10:00:00+01:00 h",
            "2026-03-01T09:00:09.999Z h",
            "2026-03-01T09:00:10Z h",
        ),
        (
            "<34>2026-03-01 10:00:00,5 h",
            "<34>2026-03-01 10:00:10,4 h",
            "<34>2026-03-01 10:00:10,5 h",
        ),
        (
            "Mar  1 2026 10:00:00 h",
            "Mar  1 2026 10:00:09 h",
            "Mar  1 2026 10:00:10 h",
        ),
    ] {
        let log = format!("{first} a: b\n{within} a: b\n{after} a: b\n");
        let expected = vec![format!("{first} a: b"), format!("{after} a: b")];
        assert_eq!(survivors(&[], &log), expected);
    }
    let log = "<34>1 2026-03-01T10:00:00Z h a - - - b\n<34>1 2026-03-01T10:00:09.9Z h a - - - b\n\
               <34>1 2026-03-01T10:00:10Z h a - - - b\n";
    let out = replay(&[], log);
    assert_eq!(
        out.lines().nth(1).unwrap(),
        "<34>1 2026-03-01T10:00:09.9Z h a - - [tersed@32473 count=\"1\" first=\"2026-03-01T10:00:09.900000Z\" \
         last=\"2026-03-01T10:00:09.900000Z\" window=\"10s\"] message repeated 1 times: [ b]"
    );
}

#[test]
fn january_comes_after_december() {
    let log = "Dec 31 23:59:55 h a: b\nJan  1 00:00:04 h a: b\nJan  1 00:00:05 h a: b\n";
    assert_eq!(
        replay(&[], log),
        "Dec 31 23:59:55 h a: b\nJan  1 00:00:04 h a: message repeated 1 times: [ b]\n\
         Jan  1 00:00:05 h a: b\n"
    );
    // A straggler of the old year does not begin another year.
    let log = "Dec 31 23:59:59 h a: b\nJan  1 00:00:01 h a: c\nDec 31 23:59:58 h a: b\n\
               Jan  1 00:00:02 h a: c\n";
    assert_eq!(survivors(&[], log).len(), 2);
}

#[test]
fn the_year_is_the_latest_that_is_not_later_than_the_file() {
    let logs = Logs::new();
    let path = logs.write("log", "Dec 31 23:59:55 h a: b\nJan  1 00:00:05 h a: b\n");
    // 2020-01-02.
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_923_200);
    let file = File::options().append(true).open(&path).unwrap();
    file.set_modified(written).unwrap();
    let report = tersed(&["replay", "--report", "--format", "json", &path], b"").json();
    assert_eq!(report["first"], "2019-12-31T23:59:55Z");
    assert_eq!(report["last"], "2020-01-01T00:00:05Z");
}

#[test]
fn a_straggler_takes_the_time_reached() {
    let log = "Mar  1 10:00:00 h a: b\nMar  1 10:00:20 h a: c\nMar  1 10:00:05 h a: c\n\
               Mar  1 10:00:05 h a: b\nMar  1 10:00:21 h a: b\n";
    // The second b is judged at 10:00:20, after its window ended; the third falls into the new window.
    assert_eq!(
        survivors(&[], log),
        [
            "Mar  1 10:00:00 h a: b",
            "Mar  1 10:00:20 h a: c",
            "Mar  1 10:00:05 h a: b"
        ]
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_time() {
    let mut log = "Mar  1 03:00:00 h a: tick\n".to_owned();
    for second in 0..300 {
        let (minute, second) = (second / 60, second % 60);
        log.push_str(&format!("Mar  1 02:{minute:02}:{second:02} h a: tick\n"));
    }
    let count = survivors(&[], &log).len();
    // One in ten seconds, except in the first minute.
    assert!((24..=26).contains(&count), "{count}");
}

#[test]
fn a_line_without_a_timestamp_takes_the_time_of_the_line_before() {
    let log = "Mar  1 10:00:00 h a: b\n\tat line 1\nMar  1 10:00:05 h a: c\n\tat line 1\n\
               Mar  1 10:00:10 h a: d\n\tat line 1\n";
    let found = survivors(&[], log);
    assert_eq!(
        found.iter().filter(|line| line.contains("at line")).count(),
        2
    );
}

#[test]
fn packing_is_recognised_by_what_is_in_the_file() {
    let logs = Logs::new();
    let twice = [gzip(&LOG.as_bytes()[..40]), gzip(&LOG.as_bytes()[40..])].concat();
    for (name, octets) in [
        ("plain.gz", LOG.as_bytes().to_vec()),
        ("gzip.log", gzip(LOG.as_bytes())),
        ("gzip-twice", twice),
        ("zstd.log", zstd(LOG.as_bytes())),
    ] {
        let path = logs.write(name, &octets);
        assert_eq!(tersed(&["replay", &path], b"").text(), TERSE, "{name}");
        assert_eq!(tersed(&["replay"], &octets).text(), TERSE, "{name}");
        assert_eq!(tersed(&["replay", "-"], &octets).text(), TERSE, "{name}");
    }
}

#[test]
fn files_are_one_log_in_the_order_given() {
    let logs = Logs::new();
    let (head, tail) = LOG.split_at(LOG.find("Mar  1 10:00:09").unwrap());
    let head = logs.write("head", gzip(head.as_bytes()));
    let ran = tersed(&["replay", &head, "-"], tail.as_bytes());
    assert_eq!(ran.text(), TERSE);
}

#[test]
fn files_of_two_hosts_over_the_same_time_may_follow_each_other() {
    let logs = Logs::new();
    let one = logs.write("one", LOG);
    let two = logs.write("two", LOG.replace(" h ", " i "));
    let ran = tersed(&["replay", &one, &two], b"");
    let expected = format!("{TERSE}{}", TERSE.replace(" h ", " i "));
    assert_eq!(ran.text(), expected);
}

#[test]
fn what_is_never_a_repeat_comes_out_each_time() {
    let log = "Mar  1 10:00:00 h a: b\nMar  1 10:00:01 h last message repeated 2 times\n\
               Mar  1 10:00:02 h last message repeated 2 times\n";
    assert_eq!(replay(&[], log), log);
}

/// As in the relay: its text cannot be read, so equal octets do not make it a copy in a loop.
#[test]
fn a_compressed_message_comes_out_each_time() {
    let compress = |number: u32| {
        let text = format!(
            "<13>Mar  1 10:00:00 h app: a text that is long enough to be compressed, {number}"
        );
        let level = flate2::Compression::default();
        let mut encoder = flate2::write::ZlibEncoder::new(b"z".to_vec(), level);
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    // In a log, a line ends at its first LF, and a NUL says that it is no text.
    let is_line = |octets: &Vec<u8>| {
        !octets.iter().any(|octet| matches!(octet, b'\n' | 0)) && octets.last() != Some(&b'\r')
    };
    let mut line = (0..).map(compress).find(is_line).unwrap();
    line.push(b'\n');
    let log = line.repeat(40);
    let ran = tersed(&["replay"], &log);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout.len(), log.len());
    assert!(ran.stdout == log);
}

#[test]
fn long_lines_are_cut_as_by_a_listener() {
    let logs = Logs::new();
    let config = logs.write(
        "t.toml",
        "[[listener]]\nurl = \"udp://127.0.0.1:0\"\nmax_message_size = \"480B\"\n",
    );
    let log = format!("<34>a: {}\n<34>b: c\n", "x".repeat(300_000));
    let out = replay(&["--config", &config], &log);
    assert_eq!(out, format!("<34>a: {}\n<34>b: c\n", "x".repeat(473)));
}

/// Within one window, a relay and a replay of its input forward the same messages: only the clocks differ. The sender on a
/// Unix socket is *local*, as that of a log.
#[test]
fn a_relay_forwards_what_a_replay_of_its_input_prints() {
    let mut frames = Vec::new();
    for number in 0..600_u32 {
        let (pid, second, what) = (number % 17, number % 50, number * number % 23);
        frames.push(match number % 5 {
            0 => format!("<34>Mar  1 10:00:{second:02} h su[{pid}]: text {what}"),
            1 => format!(
                "<165>1 2026-03-01T10:00:{second:02}.5Z h app {pid} id [meta sequenceId=\"{number}\"] text {what}"
            ),
            2 => format!("<189>{number}: *Mar  1 10:00:{second:02}: %SYS-5-CONFIG_I: text {what}"),
            3 => format!("app[{pid}]: text {what}"),
            _ => format!("<999>text {what}"),
        });
    }
    let setup = Setup::new();
    let path = setup.path("log.sock");
    let listener = url("unix-stream", &path);
    let sink = Sink::tcp();
    let relay = setup
        .listen(&listener)
        .forward(&sink.url())
        .window("1h")
        .start();
    let mut originator = Originator::unix_stream(&path);
    originator.send_all(&frames);
    relay.wait_received(frames.len().try_into().unwrap());
    relay.finish();

    let log = frames.join("\n");
    let replayed = replay(&["--window", "1h"], &log);
    let replayed: Vec<_> = replayed.lines().map(str::to_owned).collect();
    let relayed: Vec<_> = sink
        .wait_messages(replayed.len())
        .into_iter()
        .map(|message| String::from_utf8(message).unwrap())
        .collect();
    let is_summary = |line: &String| line.contains("message repeated");
    let (mut one, survivors): (Vec<_>, Vec<_>) = replayed.into_iter().partition(is_summary);
    let (mut other, relayed): (Vec<_>, Vec<_>) = relayed.into_iter().partition(is_summary);
    assert_eq!(survivors, relayed);
    // A relay has many shards and reports one after the other; its SD-ELEMENT has the times of its own clock.
    let without_times = |line: &mut String| {
        if let Some((before, times_on)) = line.split_once(" first=")
            && let Some((_, behind)) = times_on.split_once(" window=")
        {
            *line = format!("{before} window={behind}");
        }
    };
    for summaries in [&mut one, &mut other] {
        summaries.iter_mut().for_each(without_times);
        summaries.sort();
    }
    assert!(!one.is_empty());
    assert_eq!(one, other);
}

/// A line of a log for the reference.
#[derive(Clone, Debug)]
struct Line {
    /// Seconds after the line before; negative for a straggler.
    step: i64,
    host: u8,
    text: u8,
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let step = prop_oneof![4 => Just(0_i64), 4 => 1..4_i64, 1 => 5..40_i64, 1 => -5..0_i64];
    let line = (step, 0..3_u8, 0..6_u8).prop_map(|(step, host, text)| Line { step, host, text });
    proptest::collection::vec(line, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The reference: a map from message to the time at which it was last forwarded, and a clock that never runs backwards.
    /// Stragglers are only a few seconds late, so that no clock counts as set back.
    #[test]
    fn survivors_are_those_of_the_obvious_program(lines in lines(), window in 1..30_i64) {
        let (mut log, mut expected) = (String::new(), String::new());
        let (mut second_of_day, mut now) = (0_i64, i64::MIN);
        let mut passed = HashMap::new();
        for (index, line) in lines.iter().enumerate() {
            second_of_day = (second_of_day + line.step).max(0);
            let (hour, minute, second) = (
                second_of_day / 3600,
                second_of_day / 60 % 60,
                second_of_day % 60,
            );
            let text = format!(
                "Mar  1 {hour:02}:{minute:02}:{second:02} h{} app[{index}]: text {}\n",
                line.host, line.text
            );
            now = now.max(second_of_day);
            let message = (line.host, line.text);
            if passed.get(&message).is_none_or(|at| now - at >= window) {
                passed.insert(message, now);
                expected.push_str(&text);
            }
            log.push_str(&text);
        }
        let logs = Logs::new();
        let config = logs.write("t.toml", "[dedup]\nsummary = \"none\"\n");
        let window = format!("{window}s");
        let args = ["replay", "--config", &config, "--window", &window];
        let ran = tersed(&args, log.as_bytes());
        prop_assert_eq!(ran.text(), expected);
    }
}
