//! The first copy is forwarded unchanged and the second is not, over each transport.

use std::path::Path;

use super::support::originator::Originator;
use super::support::sink::{Sink, show};
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};
use super::support::wire::Wire;

/// The messages: foo twice and bar once, then messages that no parser accepts, twice each.
const SENT: [&[u8]; 7] = [
    b"<13>Mar  1 12:00:00 host app: foo",
    b"<13>Mar  1 12:00:01 host app: foo",
    b"<13>Mar  1 12:00:02 host app: bar",
    b"no PRI, \xff\xfe no UTF-8, \x1b[31m no manners",
    b"no PRI, \xff\xfe no UTF-8, \x1b[31m no manners",
    b"<999>PRI out of range",
    b"<999>PRI out of range",
];

/// The first copies, octet for octet, in the order of sending.
const SURVIVORS: [&[u8]; 4] = [SENT[0], SENT[2], SENT[3], SENT[5]];

#[test]
fn udp_survivors_reach_stdout_octet_for_octet() {
    let tersed = Setup::new().listen(UDP).window("1h").start();
    let originator = Originator::udp(tersed.address(UDP));
    check_stdout(tersed, originator);
}

#[test]
fn tcp_survivors_reach_stdout_octet_for_octet() {
    for wire in [Wire::Lf, Wire::Nul, Wire::OctetCounting] {
        let tersed = Setup::new().listen(TCP).window("1h").start();
        let originator = Originator::tcp(tersed.address(TCP)).framed(wire);
        check_stdout(tersed, originator);
    }
}

#[test]
fn tcp_over_ipv6_is_the_same() {
    let listener = "tcp://[::1]:0";
    let tersed = Setup::new().listen(listener).window("1h").start();
    let originator = Originator::tcp(tersed.address(listener));
    check_stdout(tersed, originator);
}

#[test]
fn unix_stream_survivors_reach_stdout_octet_for_octet() {
    check_unix("unix-stream", |path| {
        Originator::unix_stream(path).framed(Wire::Nul)
    });
}

#[test]
fn unix_dgram_survivors_reach_stdout_octet_for_octet() {
    check_unix("unix-dgram", Originator::unix_dgram);
}

#[test]
fn every_kind_of_upstream_gets_the_same_octets() {
    let dir = tempfile::tempdir().unwrap();
    check_upstream(&Sink::tcp());
    check_upstream(&Sink::udp());
    check_upstream(&Sink::unix_stream(&dir.path().join("stream.sock")));
    check_upstream(&Sink::unix_dgram(&dir.path().join("dgram.sock")));
}

#[test]
fn the_last_line_of_a_connection_needs_no_line_feed() {
    let tersed = Setup::new().listen(TCP).window("1h").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_octets(b"<13>the end");
    originator.half_close();
    originator.wait_closed();
    tersed.wait_received(1);
    wait_until("the survivor", LIMIT, || {
        tersed.stdout() == b"<13>the end\n"
    });
    tersed.finish();
}

fn check_unix(scheme: &str, connect: impl FnOnce(&Path) -> Originator) {
    let setup = Setup::new();
    let path = setup.path("in.sock");
    let tersed = setup.listen(&url(scheme, &path)).window("1h").start();
    check_stdout(tersed, connect(&path));
}

/// Sends all of [`SENT`]. Standard output has exactly [`SURVIVORS`], and after the stop one summary for each repeated
/// message.
#[track_caller]
fn check_stdout(tersed: Tersed, mut originator: Originator) {
    originator.send_all(SENT);
    tersed.wait_received(SENT.len() as u64);
    let survivors: Vec<u8> = SURVIVORS
        .iter()
        .flat_map(|octets| Wire::Lf.encode(octets))
        .collect();
    wait_until("the survivors", LIMIT, || {
        tersed.stdout().len() >= survivors.len()
    });
    let stdout = tersed.stdout();
    assert_eq!(
        stdout.escape_ascii().to_string(),
        survivors.escape_ascii().to_string()
    );
    drop(originator);

    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_forwarded_total"), 4);
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 3);
    let rest = stopped
        .stdout
        .strip_prefix(survivors.as_slice())
        .expect("the survivors come first");
    let summaries: Vec<_> = rest.split_inclusive(|&octet| octet == b'\n').collect();
    assert_eq!(summaries.len(), 3, "{}", rest.escape_ascii());
}

#[track_caller]
fn check_upstream(sink: &Sink) {
    let tersed = Setup::new()
        .listen(TCP)
        .forward(&sink.url())
        .window("1h")
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(SENT);
    let messages = sink.wait_messages(SURVIVORS.len());
    assert_eq!(messages, SURVIVORS, "{}", show(&messages));
    tersed.finish();
}

const UDP: &str = "udp://127.0.0.1:0";
const TCP: &str = "tcp://127.0.0.1:0";
