//! SIGTERM under load: what was received is sent or counted, and the exit status is 0, within the deadline.

use std::collections::BTreeMap;
use std::thread;

use nix::sys::signal::Signal;

use super::support::numbered::repeats;
use super::support::originator::Flood;
use super::support::sink::{Manner, RefusingPort, Sink};
use super::support::tersed::{Setup, Stopped, Tersed};
use super::support::wait::{LIMIT, now, wait_until};

/// Four connections send as fast as they can when the signal comes, each message twice.
#[test]
fn sigterm_under_load_forwards_and_reports_all_that_was_received() {
    let sink = Sink::tcp();
    let mut tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[shutdown]\ngrace = \"30s\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let address = tersed.address(TCP);
    let floods: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            thread::spawn(move || {
                let pairs = (0..).flat_map(|n| [n, n]);
                Flood::new(address).send_until_closed(pairs.map(|n| message(connection, n)))
            })
        })
        .collect();
    wait_until("a load", LIMIT, || {
        tersed.metrics().balance().received > 20_000
    });

    tersed.balance_at_exit();
    let stopped = tersed.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
    for flood in floods {
        flood.join().unwrap();
    }
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.dropped, balance.queued), (0, 0), "{balance:?}");

    // From each connection: the first numbers, each once and in order; the beginning of the line that the stop tore;
    // and the summaries.
    let mut next = BTreeMap::new();
    let mut torn = 0;
    let (mut survivors, mut reported) = (0, 0);
    wait_until("the last message", LIMIT, || {
        sink.count() as u64 >= balance.forwarded
    });
    for text in sink.messages() {
        let text = String::from_utf8(text).unwrap();
        if let Some(count) = repeats(&text) {
            reported += count;
            continue;
        }
        survivors += 1;
        let Some((connection, number)) = parse(&text) else {
            torn += 1;
            continue;
        };
        let expected = next.entry(connection).or_insert(0);
        assert_eq!(number, *expected, "of connection {connection}: {text}");
        *expected += 1;
    }
    assert!(torn <= CONNECTIONS, "{torn} torn lines");
    assert_eq!(survivors, balance.forwarded);
    assert_eq!(reported, balance.suppressed, "copies reported");
}

#[test]
fn a_stop_without_an_upstream_counts_what_it_cuts_off_and_exits_0() {
    let port = RefusingPort::new();
    let grace = "[shutdown]\ngrace = \"300ms\"\n[dedup]\nwindow = \"1h\"\n";
    let tersed = Setup::new()
        .config(grace)
        .listen(TCP)
        .forward(&port.url())
        .start();
    check_cut_off(tersed, 1);
}

#[test]
fn a_stop_with_an_upstream_that_never_reads_counts_what_it_cuts_off_and_exits_0() {
    let sink = Sink::tcp().mannered(Manner::NeverRead);
    let grace = "[shutdown]\ngrace = \"300ms\"\n[dedup]\nwindow = \"1h\"\n";
    let tersed = Setup::new()
        .config(grace)
        .listen(TCP)
        .forward(&sink.url())
        .start();
    check_cut_off(tersed, 1);
}

#[test]
fn a_second_sigterm_cuts_the_stop_short() {
    let port = RefusingPort::new();
    let grace = "[shutdown]\ngrace = \"1h\"\n[dedup]\nwindow = \"1h\"\n";
    let tersed = Setup::new()
        .config(grace)
        .listen(TCP)
        .forward(&port.url())
        .start();
    check_cut_off(tersed, 2);
}

/// A service manager may send SIGHUP to a relay that is stopping. That must not count as a second stop signal.
#[test]
fn a_reload_during_the_stop_does_not_cut_it_short() {
    let port = RefusingPort::new();
    let mut tersed = Setup::new()
        .config("[shutdown]\ngrace = \"1h\"\n[forward]\nretry_max = \"200ms\"\n")
        .listen(TCP)
        .forward(&port.url())
        .start();
    let mut flood = Flood::new(tersed.address(TCP));
    flood.send((0..100).map(|n| message(0, n)));
    tersed.wait_received(100);
    tersed.assert_balance();

    tersed.signal(Signal::SIGTERM);
    tersed.wait_log("stopping");
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("not reloading while stopping");
    let sink = port.open();
    let stopped = tersed.wait_stopped();
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
    sink.wait_messages(100);
    assert_eq!(stopped.balance().forwarded, 100);
}

/// Sends more than any socket buffer holds, each message twice, stops the relay with so many signals, and checks that
/// everything is accounted for.
#[track_caller]
fn check_cut_off(mut tersed: Tersed, signals: u32) {
    let mut flood = Flood::new(tersed.address(TCP));
    flood.send((0..DISTINCT).map(long_message));
    flood.send((0..DISTINCT).map(long_message));
    tersed.wait_received(2 * DISTINCT);
    tersed.assert_balance();

    let start = now();
    for _ in 1..signals {
        tersed.signal(Signal::SIGTERM);
        tersed.wait_log("stopping");
    }
    let stopped: Stopped = tersed.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
    // Far more than 300 ms, on a busy machine; far less than an hour.
    assert!(start.elapsed() < LIMIT / 2, "{:?}", start.elapsed());
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!(balance.received, 2 * DISTINCT);
    assert_eq!(balance.suppressed, DISTINCT);
    assert_eq!(balance.queued, 0, "{balance:?}");
    assert!(balance.dropped > 0, "{balance:?}");
    let cut_off = stopped.log.iter().find(|line| {
        line.message == "dropped messages that were not forwarded within the grace period"
    });
    let cut_off = cut_off.expect("a line that says what was cut off");
    assert_eq!(cut_off.level, "ERROR");
    let frames = cut_off.field("frames").unwrap();
    assert_eq!(frames, balance.dropped.to_string(), "{cut_off:?}");
}

/// The queue is full, and what waiting readers hold is dropped as well: one line of log reports both.
#[test]
fn what_waiting_readers_held_is_in_the_line_that_tells_what_was_cut_off() {
    let port = RefusingPort::new();
    let mut tersed = Setup::new()
        .config("[shutdown]\ngrace = \"300ms\"\n[forward]\nqueue = \"64KiB\"\n")
        .listen(TCP)
        .forward(&port.url())
        .start();
    let address = tersed.address(TCP);
    let floods: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            thread::spawn(move || {
                Flood::new(address).send_until_closed((0..).map(|n| message(connection, n)));
            })
        })
        .collect();
    wait_until("reading to be paused", LIMIT, || {
        tersed.metrics().total("tersed_reading_paused") > 0
    });
    tersed.balance_at_exit();
    let stopped = tersed.terminate();
    for flood in floods {
        flood.join().unwrap();
    }
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.forwarded, balance.queued), (0, 0), "{balance:?}");
    let text = "dropped messages that were not forwarded within the grace period";
    assert_eq!(stopped.log_count(text), 1);
    let line = stopped.log.iter().find(|line| line.message == text);
    let frames = line.unwrap().field("frames").unwrap();
    assert_eq!(frames, balance.dropped.to_string(), "{line:?}");
}

/// The queue holds the messages, and has no room for all summaries. Those that waited for room when the grace period was
/// over were not counted.
#[test]
fn summaries_that_wait_for_room_at_the_deadline_are_in_the_line_that_tells_what_was_cut_off() {
    const MESSAGES: u64 = 4000;
    let port = RefusingPort::new();
    let mut tersed = Setup::new()
        .config(
            "[shutdown]\ngrace = \"300ms\"\n[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"800KiB\"\n",
        )
        .listen(TCP)
        .forward(&port.url())
        .start();
    let mut flood = Flood::new(tersed.address(TCP));
    for round in 1..=2 {
        flood.send((0..MESSAGES).map(|number| message(0, number)));
        tersed.wait_received(round * MESSAGES);
    }
    assert_eq!(tersed.metrics().total("tersed_reading_paused"), 0);
    tersed.assert_balance();
    let stopped = tersed.terminate();
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.suppressed, balance.dropped), (MESSAGES, MESSAGES));
    let text = "dropped messages that were not forwarded within the grace period";
    let line = stopped.log.iter().find(|line| line.message == text);
    let summaries = line.unwrap().field("summaries").unwrap();
    assert_eq!(summaries, MESSAGES.to_string(), "{line:?}");
}

fn message(connection: u32, number: u64) -> String {
    format!("<13>Mar  1 12:00:00 host app: connection {connection} number {number}.")
}

fn long_message(number: u64) -> String {
    format!("{} {}", message(0, number), "x".repeat(1000))
}

/// Connection and number; `None` if the line was torn.
fn parse(text: &str) -> Option<(u32, u64)> {
    let (rest, number) = text.strip_suffix('.')?.rsplit_once(" number ")?;
    let (_, connection) = rest.rsplit_once(' ')?;
    Some((connection.parse().ok()?, number.parse().ok()?))
}

const TCP: &str = "tcp://127.0.0.1:0";
const CONNECTIONS: u32 = 4;
/// With a kilobyte each, more than the buffers of both ends of a connection hold.
const DISTINCT: u64 = 12_000;
