//! Frames of exactly `max_message_size` pass unchanged, octet for octet, over every transport.

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed, url};
use super::support::wire::Wire;

#[test]
fn the_longest_tcp_frames_arrive_as_they_were() {
    for wire in [Wire::Lf, Wire::Nul, Wire::OctetCounting] {
        check("tcp", wire);
    }
}

#[test]
fn the_longest_unix_stream_frames_arrive_as_they_were() {
    for wire in [Wire::Lf, Wire::Nul, Wire::OctetCounting] {
        check("unix-stream", wire);
    }
}

#[test]
fn the_longest_unix_datagram_arrives_as_it_was() {
    check("unix-dgram", Wire::OctetCounting);
}

/// Sends a frame of exactly the limit, one that is one octet longer, and the first one again with its last octet
/// changed.
#[track_caller]
fn check(scheme: &str, wire: Wire) {
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let setup = Setup::new();
    let path = setup.path("in.sock");
    let listener = match scheme {
        "tcp" => "tcp://127.0.0.1:0".to_owned(),
        _ => url(scheme, &path),
    };
    let setup = setup.listener(&listener, "").forward_counted(&sink, "");
    let tersed = setup.window("1h").start();
    let mut originator = match scheme {
        "tcp" => Originator::tcp(tersed.address(&listener)).framed(wire),
        "unix-stream" => Originator::unix_stream(&path).framed(wire),
        _ => Originator::unix_dgram(&path),
    };
    let longest = message(wire, LONGEST);
    let mut other = longest.clone();
    *other.last_mut().unwrap() ^= 1;
    // What follows must not depend on the frame before it.
    originator.send_all([&longest, &message(wire, LONGEST + 1)[..], &other, &longest]);
    let messages = sink.wait_messages(3);
    assert!(messages[0] == longest, "{scheme}, {wire:?}: changed");
    assert!(
        messages[1] == message(wire, LONGEST + 1)[..LONGEST],
        "{scheme}, {wire:?}: head"
    );
    assert!(messages[2] == other, "{scheme}, {wire:?}: changed");
    end(tersed, scheme);
}

fn end(tersed: Tersed, scheme: &str) {
    tersed.wait_received(4);
    let (metrics, _) = tersed.finish();
    // The kernel cuts a Unix datagram.
    let reason = if scheme == "unix-dgram" {
        "truncated"
    } else {
        "oversize"
    };
    assert_eq!(metrics.total("tersed_frame_errors_total"), 1);
    let errors = metrics.total_where("tersed_frame_errors_total", &[("reason", reason)]);
    assert_eq!(errors, 1, "{reason}");
    assert_eq!(metrics.balance().suppressed, 1, "the longest one, again");
}

/// All possible octets, as far as the framing allows them as data.
fn message(wire: Wire, length: usize) -> Vec<u8> {
    let head = format!("<13>{length} ");
    let mut message: Vec<u8> = (0..=255)
        .cycle()
        .filter(|octet| match wire {
            Wire::Lf | Wire::Nul => !matches!(octet, b'\n' | 0),
            Wire::OctetCounting => true,
        })
        .take(length - head.len() - 1)
        .collect();
    // The last octet is not a line end, which LF framing would strip.
    message.push(b'.');
    [head.as_bytes(), &message].concat()
}

const LONGEST: usize = 64 * 1024;
