//! Two different messages are never taken for the same, however small or far into the text the difference is.

use super::support::originator::Originator;
use super::support::sink::{Sink, show};
use super::support::tersed::Setup;
use super::support::wire::Wire;

#[test]
fn whatever_differs_is_forwarded() {
    let long = |last: &str| {
        format!(
            "<13>Mar  1 12:00:00 host app: {}{last}",
            "x".repeat(200_000)
        )
    };
    let cases: &[(&str, Vec<u8>, Vec<u8>)] = &[
        ("beyond 64 KiB", long("a").into(), long("b").into()),
        (
            "by a length beyond 64 KiB",
            long("c").into(),
            long("cc").into(),
        ),
        ("behind a NUL", b"<13>text\0a".into(), b"<13>text\0b".into()),
        (
            "by a NUL inside",
            b"<13>text\0.".into(),
            b"<13>text.".into(),
        ),
        (
            "by how many NULs are inside",
            b"<13>many\0.".into(),
            b"<13>many\0\0.".into(),
        ),
        (
            "in octets that are no UTF-8",
            b"<13>text \xff\xfe.".into(),
            b"<13>text \xff\xfd.".into(),
        ),
        (
            "by no UTF-8 and its replacement",
            b"<13>text \xff.".into(),
            "<13>text \u{fffd}.".into(),
        ),
        (
            "in an overlong form of the same character",
            b"<13>\xc0\xaf.".into(),
            b"<13>/.".into(),
        ),
        (
            "in the border of HOSTNAME and APP-NAME",
            b"<13>1 2026-03-01T12:00:00Z hosta pp - - - text".into(),
            b"<13>1 2026-03-01T12:00:00Z host app - - - text".into(),
        ),
        (
            "in the border of APP-NAME and MSGID",
            b"<13>1 2026-03-01T12:00:00Z host ab - c - text".into(),
            b"<13>1 2026-03-01T12:00:00Z host a - bc - text".into(),
        ),
        (
            "in the border of MSGID and MSG",
            b"<13>1 2026-03-01T12:00:00Z host app - - - a".into(),
            b"<13>1 2026-03-01T12:00:00Z host app - a - ".into(),
        ),
        (
            "in the border of STRUCTURED-DATA and MSG",
            b"<13>1 2026-03-01T12:00:00Z host app - - [a b=\"c\"]".into(),
            b"<13>1 2026-03-01T12:00:00Z host app - - - [a b=\"c\"]".into(),
        ),
        (
            "in the border of tag and text",
            b"<13>Mar  1 12:00:00 host app: x: y".into(),
            b"<13>Mar  1 12:00:00 host appx: y".into(),
        ),
        (
            "in upper and lower case",
            b"<13>Case".into(),
            b"<13>case".into(),
        ),
        ("in severity alone", b"<12>same".into(), b"<13>same".into()),
        (
            "in facility alone",
            b"<21>equal".into(),
            b"<13>equal".into(),
        ),
        ("in blanks", b"<13>a  b".into(), b"<13>a b".into()),
    ];
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let tersed = Setup::new()
        .listener(TCP, "max_message_size = \"1MiB\"")
        .forward_counted(&sink, "")
        .window("1h")
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP)).framed(Wire::OctetCounting);
    for (index, (what, one, other)) in cases.iter().enumerate() {
        originator.send(one);
        originator.send(other);
        // Send both again: the relay remembers both.
        originator.send(one);
        originator.send(other);
        let arrived = sink.wait_messages(2 * index + 2);
        let arrived = &arrived[2 * index..];
        assert!(
            arrived[0] == *one && arrived[1] == *other,
            "{what}: {}",
            show(arrived)
        );
    }
    tersed.wait_received(4 * cases.len() as u64);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().suppressed, 2 * cases.len() as u64);
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
}

#[test]
fn line_ends_are_not_content() {
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let tersed = Setup::new()
        .listener(TCP, "")
        .forward_counted(&sink, "")
        .window("1h")
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP)).framed(Wire::OctetCounting);
    originator.send("<13>text");
    for tail in ["\n", "\0", "\r\n", "\n\0", "\0\0\0\0"] {
        originator.send(format!("<13>text{tail}"));
    }
    tersed.wait_received(6);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().suppressed, 5);
    assert_eq!(sink.messages()[0], b"<13>text");
}

const TCP: &str = "tcp://127.0.0.1:0";
