//! Output framing: octet counting and datagrams leave every octet unchanged. LF framing replaces the line breaks that
//! would cut a frame in two, and counts that.

use super::support::originator::Originator;
use super::support::sink::{Sink, show};
use super::support::tersed::Setup;
use super::support::wire::Wire;

/// With line breaks and NULs inside and at the end.
const SENT: [&[u8]; 5] = [
    b"<13>app: two\nlines",
    b"<13>app: a NUL \0 inside",
    b"<13>app: breaks behind\r\n\0",
    b"<13>app: plain",
    b"12 looks counted",
];

#[test]
fn octet_counting_carries_line_breaks_and_nuls() {
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    check(&sink, "framing = \"octet-counting\"", "", SENT, 0);
}

#[test]
fn datagrams_carry_line_breaks_and_nuls() {
    check(&Sink::udp(), "", "", SENT, 0);
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::unix_dgram(&dir.path().join("dgram.sock"));
    check(&sink, "", "", SENT, 0);
}

#[test]
fn lines_have_blanks_for_line_breaks_and_each_such_frame_is_counted() {
    let lines: [&[u8]; 5] = [
        b"<13>app: two lines",
        b"<13>app: a NUL   inside",
        b"<13>app: breaks behind",
        b"<13>app: plain",
        b"12 looks counted",
    ];
    check(&Sink::tcp(), "", "", lines, 2);
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::unix_stream(&dir.path().join("stream.sock"));
    check(&sink, "", "", lines, 2);
}

#[test]
fn line_breaks_can_be_written_as_rsyslog_writes_them() {
    let lines: [&[u8]; 5] = [
        b"<13>app: two#012lines",
        b"<13>app: a NUL #000 inside",
        b"<13>app: breaks behind",
        b"<13>app: plain",
        b"12 looks counted",
    ];
    check(&Sink::tcp(), "", "line_breaks = \"escape\"", lines, 2);
}

/// A datagram has at most the maximum length.
#[test]
fn a_message_too_long_for_a_datagram_is_cut_and_counted() {
    let sink = Sink::udp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nudp_max = \"1KiB\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let long = [b"<13>app: ".as_slice(), &[b'x'; 2000]].concat();
    Originator::tcp(tersed.address(TCP)).send_all([&long[..], &long[..1024], &long[..1025]]);
    let messages = sink.wait_messages(3);
    assert!(messages.iter().all(|message| message == &long[..1024]));
    let (metrics, _) = tersed.finish();
    let reason = [("reason", "truncated")];
    assert_eq!(metrics.total_where("tersed_frame_errors_total", &reason), 2);
}

/// Sends all of [`SENT`], each as a datagram, and checks what `sink` receives.
#[track_caller]
fn check(sink: &Sink, upstream: &str, forward: &str, expected: [&[u8]; 5], rewritten: u64) {
    let setup = Setup::new();
    let socket = setup.path("in.sock");
    let separator = if upstream.is_empty() { "" } else { ", " };
    let tersed = setup
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\n{forward}\n\
             to = [{{ url = \"{}\"{separator}{upstream} }}]\n",
            sink.url()
        ))
        .listen(&format!("unix-dgram://{}", socket.display()))
        .start();
    Originator::unix_dgram(&socket).send_all(SENT);
    let messages = sink.wait_messages(SENT.len());
    assert_eq!(messages, expected, "{}", show(&messages));
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_rewritten_total"), rewritten);
}

const TCP: &str = "tcp://127.0.0.1:0";
