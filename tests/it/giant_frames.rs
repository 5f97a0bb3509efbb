//! Frames longer than `max_message_size`: their beginning is one message (or none, as configured). The rest is neither
//! kept nor taken for messages, and the next frame is intact.
//!
//! A line without end has 64 MiB here; with `TERSED_TEST_LONG=1` it has 1 GiB.

use super::support::originator::Originator;
use super::support::sink::{Sink, show};
use super::support::tersed::{Setup, Tersed};
use super::support::wire::Wire;

#[test]
fn a_count_of_ten_mebibytes_costs_no_memory() {
    let body = [b"<13>".as_slice(), &vec![b'x'; 10 * MEBIBYTE]].concat();
    let head = body[..LONGEST].to_vec();
    let header = format!("{} ", body.len());
    check(&[header.as_bytes(), &body, b"8 <13>next\n"], 1, &head);
}

#[test]
fn a_line_without_end_costs_no_memory() {
    let mebibytes = if std::env::var_os("TERSED_TEST_LONG").is_some() {
        1024
    } else {
        64
    };
    let mebibyte = vec![b'x'; MEBIBYTE];
    let mut octets = vec![b"<13>".as_slice()];
    octets.extend(vec![mebibyte.as_slice(); mebibytes]);
    octets.push(b"\n<13>next\n");
    let head = [b"<13>".as_slice(), &mebibyte[..LONGEST - 4]].concat();
    check(&octets, 1, &head);
}

#[test]
fn a_line_that_begins_with_an_absurd_count_is_a_line() {
    let body = vec![b'x'; 2 * MEBIBYTE];
    let head = [b"999999999 <13>".as_slice(), &body[..LONGEST - 14]].concat();
    check(&[b"999999999 <13>", &body, b"\n<13>next\n"], 1, &head);
}

/// One line of log says what the reason may be.
#[test]
fn a_line_without_end_is_complained_of_by_name() {
    for (stream, message, advice) in [
        (
            [b"x8 <13>next".as_slice(), &[b'x'; 480]].concat(),
            "a line has no end within max_message_size octets",
            "if the sender counts octets, something precedes its first count",
        ),
        (
            [b"504 <13>".as_slice(), &[b'x'; 500]].concat(),
            "a message is longer than max_message_size",
            "raise max_message_size",
        ),
    ] {
        let sink = Sink::tcp_framed(Wire::OctetCounting);
        let tersed = start("max_message_size = \"480B\"", &sink);
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_octets(&stream);
        originator.half_close();
        originator.wait_closed();
        sink.wait_messages(1);
        let (_, stopped) = tersed.finish();
        let warnings: Vec<_> = stopped
            .log
            .iter()
            .filter(|line| line.level == "WARN")
            .collect();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert_eq!(warnings[0].message, message);
        let field = |name| warnings[0].field(name);
        assert!(
            field("advice").unwrap().starts_with(advice),
            "{warnings:#?}"
        );
        assert_eq!(field("peer").as_deref(), Some("127.0.0.1"));
        assert_eq!(field("listener").as_deref(), Some(TCP));
        assert_eq!(field("max_message_size").as_deref(), Some("480B"));
    }
}

#[test]
fn frames_inside_the_rest_of_a_giant_frame_are_never_seen() {
    let forged: &[u8] = b"<13>forged\n10 <13>forged10 <13>forged\r\n\0<13>forged\0 10 <13>forged\n";
    let line: &[u8] = b"<13>forged 10 <13>forged\r<13>forged 1 <13>forged";
    let counted = [&[b'x'; 600][..], forged].concat();
    let counted = [format!("{} <13>", counted.len() + 4).as_bytes(), &counted].concat();
    let streams: &[(&str, Vec<u8>)] = &[
        ("auto", [&counted[..], b"8 <13>next"].concat()),
        ("octet-counting", [&counted[..], b"8 <13>next"].concat()),
        (
            "auto",
            [b"<13>", &[b'x'; 600][..], line, b"\n<13>next\n"].concat(),
        ),
        (
            "auto",
            [b"<13>", &[b'x'; 600][..], line, b"\0<13>next\0"].concat(),
        ),
        (
            "lf",
            [b"<13>", &[b'x'; 600][..], line, b"\0<13>forged\n<13>next\n"].concat(),
        ),
        (
            "nul",
            [
                b"<13>",
                &[b'x'; 600][..],
                forged.split(|&octet| octet == 0).next().unwrap(),
                b"\0<13>next\0",
            ]
            .concat(),
        ),
    ];
    for (framing, stream) in streams {
        for oversize in ["truncate", "drop"] {
            let keys = format!(
                "framing = \"{framing}\"\nmax_message_size = \"480B\"\noversize = \"{oversize}\""
            );
            let sink = Sink::tcp_framed(Wire::OctetCounting);
            let tersed = start(&keys, &sink);
            let mut originator = Originator::tcp(tersed.address(TCP)).without_delay();
            originator.send_octets(stream);
            originator.half_close();
            originator.wait_closed();
            check_oversize(tersed, &sink, oversize, "<13>next", framing);
        }
    }
}

#[test]
fn lines_inside_a_giant_datagram_are_never_seen() {
    for oversize in ["truncate", "drop"] {
        let sink = Sink::tcp_framed(Wire::OctetCounting);
        let keys = format!("max_message_size = \"480B\"\noversize = \"{oversize}\"");
        let tersed = Setup::new()
            .listener(UDP, &keys)
            .forward_counted(&sink, "")
            .window("1h")
            .start();
        let mut originator = Originator::udp(tersed.address(UDP));
        originator.send([&[b'x'; 600][..], b"\n<13>forged\n10 <13>forged\n"].concat());
        originator.send("<13>next");
        tersed.wait_received(2);
        check_oversize(tersed, &sink, oversize, "<13>next", "datagram");
    }
}

/// Sends `octets`, which are `oversize` frames with this `head`, and one `next`.
#[track_caller]
fn check(octets: &[&[u8]], oversize: u64, head: &[u8]) {
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let tersed = start("", &sink);
    let mut originator = Originator::tcp(tersed.address(TCP));
    // Let the connection use the most that it needs once, before memory is measured.
    originator.send_octets(&[b"<13>warm ".as_slice(), &[b'y'; LONGEST - 9], b"\n"].concat());
    sink.wait_messages(1);
    let peak = tersed.peak_resident_octets();
    for octets in octets {
        originator.send_octets(octets);
    }
    let messages = sink.wait_messages(3);
    assert!(messages[1] == head, "{}", show(&messages[1..]));
    assert_eq!(messages[2], b"<13>next");
    let growth = tersed.peak_resident_octets() - peak;
    assert!(growth < 4 * MEBIBYTE as u64, "grew by {growth} octets");
    let (metrics, _) = tersed.finish();
    let errors = metrics.total_where("tersed_frame_errors_total", &[("reason", "oversize")]);
    assert_eq!(errors, oversize);
}

/// Asserts that one frame was oversize, and that `next` arrived and, before it, the frame's beginning or nothing.
#[track_caller]
fn check_oversize(tersed: Tersed, sink: &Sink, oversize: &str, next: &str, what: &str) {
    let heads = usize::from(oversize == "truncate");
    let messages = sink.wait_messages(heads + 1);
    let what = format!("{what}, {oversize}: {}", show(&messages));
    assert_eq!(messages[heads], next.as_bytes(), "{what}");
    assert!(
        messages[..heads].iter().all(|head| head.len() == 480),
        "{what}"
    );
    let (metrics, _) = tersed.finish();
    assert_eq!(
        metrics.total_where("tersed_frame_errors_total", &[("reason", "oversize")]),
        1,
        "{what}"
    );
    let dropped = metrics.total_where("tersed_frames_dropped_total", &[("reason", "oversize")]);
    assert_eq!(dropped, 1 - heads as u64, "{what}");
}

fn start(keys: &str, sink: &Sink) -> Tersed {
    Setup::new()
        .listener(TCP, keys)
        .forward_counted(sink, "")
        .window("1h")
        .start()
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const MEBIBYTE: usize = 1024 * 1024;
/// The default `max_message_size`.
const LONGEST: usize = 64 * 1024;
