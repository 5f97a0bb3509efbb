//! An upstream that takes a kilobyte a second and is fast again later: nothing is given up or lost, the order holds,
//! and a message goes through at once when the backlog has.
//!
//! `TERSED_TEST_LONG=1` keeps it slow for 30 s instead of 2 s.

use std::thread;
use std::time::Duration;

use super::support::ordered::{assert_ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, is_long, now, wait_until};

#[test]
fn latency_comes_back_when_a_slow_upstream_is_fast_again() {
    let slow = Manner::Slow(A_KILOBYTE_A_SECOND);
    let sink = Sink::tcp_with_little_room().mannered(slow);
    let tersed = Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nto = [\"{}\"]\nqueue = \"1MiB\"\n",
            sink.url()
        ))
        .listen(TCP)
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = thread::spawn(move || {
        originator.send_all(ordered_all(PLACES - PROBES, OCTETS));
        originator
    });
    let start = now();
    let slow_for = Duration::from_secs(if is_long() { 30 } else { 2 });
    wait_until("the slow time to pass", LIMIT, || {
        start.elapsed() > slow_for
    });
    assert!(!sender.is_finished(), "the sender did not have to wait");
    let read = sink.count() * OCTETS;
    assert!(
        (1..100_000).contains(&read),
        "{read} octets in {slow_for:?}"
    );

    sink.behave(Manner::Read);
    let mut originator = sender.join().unwrap();
    wait_until("the backlog to be gone", LIMIT, || {
        sink.count() == PLACES - PROBES
    });
    // Made before the clock starts: that takes longer than the relay.
    let probes: Vec<_> = ordered_all(PLACES, OCTETS).skip(PLACES - PROBES).collect();
    let mut latencies: Vec<_> = probes
        .into_iter()
        .enumerate()
        .map(|(number, probe)| {
            let arrived = PLACES - PROBES + number + 1;
            let sent = now();
            originator.send_all([probe]);
            wait_until("a message sent alone", LIMIT, || sink.count() == arrived);
            sent.elapsed()
        })
        .collect();
    latencies.sort();
    // A few milliseconds, and much more only if the machine is busy.
    let median = latencies[PROBES / 2];
    assert!(median < Duration::from_millis(50), "{latencies:?}");

    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_upstream_errors_total"), 0);
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
    assert_eq!(sink.connection_count(), 1);
    assert_ordered(&places(&sink.messages(), OCTETS), PLACES, 0);
}

const TCP: &str = "tcp://127.0.0.1:0";
/// In octets for each tenth of a second.
const A_KILOBYTE_A_SECOND: usize = 100;
/// 20 MB: more than the queue and all socket buffers on the way hold together.
const PLACES: usize = 40_000;
const PROBES: usize = 50;
const OCTETS: usize = 500;
