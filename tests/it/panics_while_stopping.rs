//! A panic, or another failure, that comes after the signal to stop: it costs what it costs at any other time, and what
//! is left is accounted for.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::panics::{MARKER, check, ended, with_fault};
use super::support::originator::Originator;
use super::support::pipe::Reader;
use super::support::sink::RefusingPort;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, now, wait_until};

/// The queue is full when the signal comes, so a reader waits for room, and the marker is read during the stop.
#[test]
fn a_panic_after_the_signal_ends_the_relay_with_status_1_and_no_windows_are_saved() {
    for (point, task, listener) in [
        ("shard", "connection", TCP),
        ("shard", "datagram", UDP),
        ("connection", "datagram", UDP),
        ("datagram", "datagram", UDP),
        ("forwarder", "forwarder", TCP),
    ] {
        let port = RefusingPort::new();
        let setup = with_fault(point);
        let state = setup.path("windows");
        let config = format!(
            "[dedup]\nstate = \"{}\"\n[forward]\nqueue = \"64KiB\"\nretry_max = \"100ms\"\n[shutdown]\ngrace = \"1h\"\n",
            state.display()
        );
        let tersed = setup
            .config(&config)
            .listen(listener)
            .forward(&port.url())
            .start();
        let address = tersed.address(listener);
        let mut originator = match listener {
            UDP => Originator::udp(address),
            _ => Originator::tcp(address),
        };
        let mut sent = 0;
        wait_until("reading to be paused", LIMIT, || {
            // A reader that waits reads nothing, so the marker waits behind these.
            originator.send(long_message(sent));
            sent += 1;
            tersed.metrics().total("tersed_reading_paused") > 0
        });
        originator.send(format!("<13>app: {MARKER}"));
        originator.send_all((0..FEW).map(|number| format!("<13>app: late {number}")));
        tersed.signal(Signal::SIGTERM);
        tersed.wait_log("stopping");
        assert_eq!(tersed.metrics().total("tersed_panics_total"), 0, "{point}");
        let windows = state.clone();
        let _sink = port.open();
        let stopped = ended(tersed);
        check(&stopped, task);
        assert!(!windows.exists(), "{point}");
        assert_eq!(stopped.log_count(GRACE_OVER), 0, "{point}");
    }
}

/// What is in the queue of a forwarder that is gone is dropped, also that of copies.
#[test]
fn what_a_forwarder_leaves_that_fails_during_the_stop_is_dropped_and_copies_keep_their_time() {
    let (away, (reader, stdout)) = (RefusingPort::new(), Reader::pipe(4096));
    let config = format!(
        "[forward]\nto = [\"stdout:\"]\n[suppressed]\nto = \"{}\"\n[shutdown]\ngrace = \"2s\"\n",
        away.url()
    );
    let setup = Setup::new().window("1h").config(&config).listen(TCP);
    let mut tersed = setup.stdout_to(stdout).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    // More than the pipe holds, so that the forwarder is still writing when the stop begins.
    let messages: Vec<String> = (0..MANY).map(long_message).collect();
    originator.send_all(&messages);
    originator.send_all(&messages);
    tersed.wait_received(2 * MANY);
    tersed.balance_at_exit();
    tersed.signal(Signal::SIGTERM);
    tersed.wait_log("stopping");
    let start = now();
    drop(reader);
    let stopped = tersed.wait_stopped();
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "copies had their time"
    );
    let balance = stopped.balance();
    assert!(balance.holds() && balance.queued == 0, "{balance:?}");
    assert!(balance.dropped > 0, "{balance:?}");
    let log = stopped.log.iter();
    let lines: Vec<_> = log
        .filter(|line| line.message.starts_with("dropped "))
        .collect();
    let field = |number: usize, name: &str| lines[number].field(name).unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        lines[0].message,
        "dropped messages that were not forwarded before the forwarder failed"
    );
    assert_eq!(field(0, "frames"), balance.dropped.to_string());
    let late = "dropped suppressed copies that were not written within the grace period";
    assert_eq!(lines[1].message, late);
    assert_eq!(field(1, "copies"), MANY.to_string());
}

fn long_message(number: u64) -> String {
    format!("<13>app: number {number} {:x<1000}", "")
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const GRACE_OVER: &str = "shutdown grace period expired";
const FEW: u64 = 10;
const MANY: u64 = 100;
