//! A network path goes dead silently and the connection stays half open: the kernel gives it up after `send_timeout`
//! (TCP_USER_TIMEOUT), the relay connects again, and nothing is missing.
//!
//! `TERSED_TEST_LONG=1` keeps the path dead for 60 s, with the default time-outs.

use std::thread;
use std::time::Duration;

use super::support::network::Network;
use super::support::ordered::{assert_ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, is_long, now, wait_until};

#[test]
fn a_path_that_goes_dead_under_load_costs_nothing() {
    Network::inside(|network| {
        let sink = Sink::tcp();
        let tersed = start(&sink);
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all(ordered_all(PLACES, OCTETS).take(BEFORE));
        wait_until("the path to work", LIMIT, || sink.count() > 0);

        network.cut(sink.address());
        let sender = thread::spawn(move || {
            originator.send_all(ordered_all(PLACES, OCTETS).skip(BEFORE));
            originator
        });
        wait_given_up(&tersed);
        assert!(!sender.is_finished(), "the sender did not have to wait");

        network.mend(sink.address());
        sender.join().unwrap();
        check(tersed, &sink);
    });
}

/// Nothing is left to be sent; only the acknowledgements are missing.
#[test]
fn what_was_on_its_way_when_the_path_went_dead_comes_again() {
    Network::inside(|network| {
        let sink = Sink::tcp();
        let tersed = start(&sink);
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all(ordered_all(PLACES, OCTETS).take(BEFORE));
        sink.wait_messages(BEFORE);

        network.cut(sink.address());
        // Less than the kernel takes at once: everything is written, counted, and lost.
        originator.send_all(ordered_all(PLACES, OCTETS).skip(BEFORE).take(BEFORE));
        tersed.wait_received(2 * BEFORE as u64);
        wait_given_up(&tersed);
        assert_eq!(sink.count(), BEFORE);

        network.mend(sink.address());
        originator.send_all(ordered_all(PLACES, OCTETS).skip(2 * BEFORE));
        check(tersed, &sink);
    });
}

fn start(sink: &Sink) -> Tersed {
    let timeouts = if is_long() {
        ""
    } else {
        "send_timeout = \"1s\"\nconnect_timeout = \"500ms\"\n"
    };
    let config = format!(
        "[dedup]\nwindow = \"1h\"\nmemory = \"16MiB\"\n\
         [forward]\nto = [\"{}\"]\nqueue = \"1MiB\"\n\
         retry_min = \"10ms\"\nretry_max = \"50ms\"\n{timeouts}",
        sink.url()
    );
    Setup::new().config(&config).listen(TCP).start()
}

/// The connection was given up, and connecting again has failed, too.
fn wait_given_up(tersed: &Tersed) {
    let start = now();
    let given_up = tersed.wait_log("upstream lost");
    assert!(
        given_up.mentions("timed out") || given_up.mentions("took nothing"),
        "{given_up:?}"
    );
    assert!(given_up.mentions("(forward.send_timeout)"), "{given_up:?}");
    wait_until("an attempt to connect to fail", LIMIT, || {
        tersed.metrics().total("tersed_upstream_errors_total") >= 2
    });
    if is_long() {
        let dead = Duration::from_secs(60);
        wait_until("the minute to pass", 2 * dead, || start.elapsed() > dead);
    }
}

fn check(tersed: Tersed, sink: &Sink) {
    tersed.wait_received(PLACES as u64);
    wait_until("the last message", LIMIT, || {
        let by_connection = sink.messages_by_connection();
        let last = by_connection.iter().filter_map(|messages| messages.last());
        last.into_iter()
            .any(|last| places(std::slice::from_ref(last), OCTETS) == [PLACES - 1])
    });
    let (metrics, _) = tersed.finish();
    let forwarded = metrics.total("tersed_frames_forwarded_total");
    assert_eq!(forwarded, PLACES as u64);
    let again = metrics.total("tersed_frames_resent_total");
    assert_ordered(&places(&sink.messages(), OCTETS), PLACES, again);
}

const TCP: &str = "tcp://127.0.0.1:0";
/// 20 MB: more than the queue and all socket buffers on the way hold together.
const PLACES: usize = 40_000;
const BEFORE: usize = 200;
const OCTETS: usize = 500;
