//! A stop does not wait for a pause between two attempts: every upstream is tried at once, and again and again until
//! the grace period has passed. The same holds for a reload.

use nix::sys::signal::Signal;

use super::support::network::Network;
use super::support::ordered::ordered_all;
use super::support::originator::Originator;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn a_stop_delivers_to_a_collector_that_is_back_although_the_next_attempt_is_far() {
    let port = RefusingPort::new();
    let tersed = start(Setup::new().forward(&port.url()));
    let sink = port.open();
    let stopped = tersed.terminate();
    sink.wait_messages(COUNT);
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.forwarded, balance.dropped), (COUNT as u64, 0));
}

#[test]
fn a_stop_delivers_to_a_collector_that_comes_back_within_the_grace() {
    let port = RefusingPort::new();
    let tersed = start(Setup::new().forward(&port.url()));
    tersed.signal(Signal::SIGTERM);
    tersed.wait_log("stopping");
    let sink = port.open();
    let stopped = tersed.wait_stopped();
    sink.wait_messages(COUNT);
    assert_eq!(stopped.balance().forwarded, COUNT as u64);
}

/// The first upstream of the list never answers a connection attempt, which takes longer than the grace period.
#[test]
fn a_stop_tries_all_upstreams_at_the_same_time() {
    Network::inside(|network| {
        let silent = Sink::tcp();
        network.cut(silent.address());
        let port = RefusingPort::new();
        let setup = Setup::new().forward(&silent.url()).forward(&port.url());
        let tersed = start(setup.args(["--listen", "udp://127.0.0.1:0"]));
        let sink = port.open();
        let stopped = tersed.terminate();
        sink.wait_messages(COUNT);
        assert_eq!(stopped.balance().forwarded, COUNT as u64);
        network.mend(silent.address());
    });
}

/// Readers that wait for room in the queue continue when the upstream returns, too.
#[test]
fn a_stop_delivers_although_the_queue_is_full() {
    let port = RefusingPort::new();
    let setup = Setup::new().forward(&port.url());
    let tersed = start_with(setup, "queue = \"64KiB\"\n");
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(20 * COUNT, 1000).skip(COUNT));
    // What does not fit waits outside the queue.
    wait_until("more than the queue holds", LIMIT, || {
        tersed.metrics().balance().queued > 70
    });
    let sink = port.open();
    let stopped = tersed.terminate();
    let balance = stopped.balance();
    assert!(balance.received > COUNT as u64, "{balance:?}");
    assert_eq!((balance.forwarded, balance.dropped), (balance.received, 0));
    sink.wait_messages(usize::try_from(balance.received).unwrap());
}

#[test]
fn a_reload_tries_at_once() {
    let port = RefusingPort::new();
    let tersed = start(Setup::new().forward(&port.url()));
    let sink = port.open();
    tersed.signal(Signal::SIGHUP);
    sink.wait_messages(COUNT);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, COUNT as u64);
}

/// A relay whose upstream is away, with messages for it, and with the next attempt in an hour.
fn start(setup: Setup) -> Tersed {
    start_with(setup, "")
}

fn start_with(setup: Setup, forward: &str) -> Tersed {
    let mut tersed = setup
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nretry_min = \"1h\"\nretry_max = \"1h\"\n{forward}"
        ))
        .listen(TCP)
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(COUNT, 1000));
    tersed.wait_received(COUNT as u64);
    tersed.balance_at_exit();
    tersed
}

const TCP: &str = "tcp://127.0.0.1:0";
const COUNT: usize = 10;
