//! Upstreams other than TCP that go away and come back: Unix sockets and UDP.

use std::fs;
use std::time::Duration;

use super::support::ordered::{assert_ordered, ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, now, wait_until};

#[test]
fn a_unix_stream_that_comes_back_gets_what_waited() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = Sink::unix_stream(&dir.path().join("stream.sock"));
    let tersed = start(&sink.url());
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(100, OCTETS));
    sink.wait_messages(100);
    sink.stop();
    tersed.wait_log("upstream lost");
    originator.send_all(ordered_all(200, OCTETS).skip(100));
    tersed.wait_received(200);
    assert_eq!(tersed.metrics().balance().queued, 100);
    sink.restart();
    wait_until("the last message", LIMIT, || {
        places(&sink.messages(), OCTETS).contains(&199)
    });
    let (metrics, _) = tersed.finish();
    let again = metrics.total("tersed_frames_resent_total");
    assert_ordered(&places(&sink.messages(), OCTETS), 200, again);
}

#[test]
fn a_unix_datagram_socket_that_comes_back_gets_what_waited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dgram.sock");
    let mut sink = Sink::unix_dgram(&path);
    let tersed = start(&sink.url());
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(100, OCTETS));
    sink.wait_messages(100);
    sink.stop();
    originator.send_all(ordered_all(200, OCTETS).skip(100));
    tersed.wait_received(200);
    tersed.wait_log("upstream lost");
    assert_eq!(tersed.metrics().balance().queued, 100);
    fs::remove_file(&path).unwrap();
    let back = Sink::unix_dgram(&path);
    let messages = back.wait_messages(100);
    assert_eq!(places(&messages, OCTETS), (100..200).collect::<Vec<_>>());
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_forwarded_total"), 200);
}

/// A refusal is an error of the upstream. The refused message waits, and so do those after it.
#[test]
fn what_a_udp_port_without_a_reader_refuses_is_counted_and_waits() {
    let mut sink = Sink::udp();
    let url = sink.url();
    let tersed = start(&url);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, OCTETS));
    sink.wait_messages(1);
    sink.stop();
    let start = now();
    wait_until("the first to be too old to be doubted", LIMIT, || {
        start.elapsed() > Duration::from_secs(1)
    });
    let mut sent = 1;
    wait_until("the refusal to be counted", LIMIT, || {
        originator.send(ordered(0, sent, OCTETS));
        sent += 1;
        tersed.wait_received(sent as u64);
        tersed.metrics().total("tersed_upstream_errors_total") > 0
    });
    tersed.wait_metric("tersed_frames_queued", &[], sent as u64 - 1);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_forwarded_total"), 1);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

fn start(upstream: &str) -> Tersed {
    Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"200ms\"\n")
        .listen(TCP)
        .forward(upstream)
        .start()
}

const TCP: &str = "tcp://127.0.0.1:0";
const OCTETS: usize = 100;
