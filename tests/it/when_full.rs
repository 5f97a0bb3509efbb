//! The queue is full: whatever `when_full` says, every frame is accounted for, and what is dropped goes through when it
//! comes again.

use std::collections::BTreeSet;
use std::thread;

use super::support::originator::Originator;
use super::support::sink::{Manner, RefusingPort, Sink};
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, wait_until};

#[test]
fn wait_holds_senders_back_and_drops_nothing() {
    check("wait", |arrived, dropped| {
        assert_eq!(dropped, 0);
        assert!(arrived.iter().copied().eq(0..DISTINCT));
    });
}

#[test]
fn drop_newest_keeps_what_came_first() {
    check("drop-newest", |arrived, dropped| {
        assert!(dropped > 0);
        // The queue alone holds as many, however late the forwarder gets to run.
        let head = (0..300).all(|number| arrived.contains(&number));
        assert!(head, "the first ones were there before the queue was full");
    });
}

#[test]
fn drop_oldest_keeps_what_came_last() {
    check("drop-oldest", |arrived, dropped| {
        assert!(dropped > 0);
        let tail = (DISTINCT - 10..DISTINCT).all(|number| arrived.contains(&number));
        assert!(tail, "the last ten had the room of older ones");
    });
}

#[test]
fn a_reader_that_waits_for_room_shows_in_the_metrics_until_there_is_room() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"64KiB\"\nretry_max = \"200ms\"\n")
        .listen(TCP)
        .forward(&port.url())
        .start();
    let paused = || {
        let metrics = tersed.metrics();
        ["tersed_reading_paused", "tersed_reading_pauses_total"].map(|name| metrics.total(name))
    };
    assert_eq!(paused(), [0, 0]);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..DISTINCT / 100).map(message));
    wait_until("reading to be paused", LIMIT, || paused() == [1, 1]);

    let sink = port.open();
    sink.wait_messages(usize::try_from(DISTINCT / 100).unwrap());
    wait_until("reading to continue", LIMIT, || paused()[0] == 0);
    assert!(paused()[1] >= 1);
    tersed.finish();
}

/// Floods a relay whose upstream does not read, with each message twice, lets the upstream read, and sends everything
/// once more: by then each number has arrived. `judge` receives what had arrived before that, and how many were
/// dropped.
#[track_caller]
fn check(when_full: &str, judge: impl FnOnce(&BTreeSet<u64>, u64)) {
    let sink = Sink::tcp().mannered(Manner::NeverRead);
    let tersed = Setup::new().config(&format!(
        "[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"512KiB\"\nwhen_full = \"{when_full}\"\n"
    ));
    let mut tersed = tersed.listen(TCP).forward(&sink.url()).start();
    let address = tersed.address(TCP);
    let sender = thread::spawn(move || {
        let mut originator = Originator::tcp(address);
        originator.send_all((0..DISTINCT).flat_map(|number| [message(number), message(number)]));
        originator
    });
    let waits = when_full == "wait";
    if !waits {
        tersed.wait_received(2 * DISTINCT);
    }
    wait_until("a queue", LIMIT, || tersed.metrics().balance().queued > 0);
    let full = tersed.assert_balance().balance();
    if waits {
        assert!(full.received < 2 * DISTINCT, "{full:?}");
    } else {
        assert_eq!(full.received, 2 * DISTINCT);
    }

    sink.behave(Manner::Read);
    let mut originator = sender.join().unwrap();
    tersed.wait_received(2 * DISTINCT);
    wait_until("an empty queue", LIMIT, || {
        tersed.metrics().balance().queued == 0
    });
    let drained = tersed.assert_balance();
    let balance = drained.balance();
    assert_eq!(
        balance.dropped,
        drained.total_where("tersed_frames_dropped_total", &[("reason", "queue_full")])
    );
    wait_until("what was forwarded", LIMIT, || {
        arrived(&sink).len() as u64 == balance.forwarded
    });
    let before = arrived(&sink);
    judge(&before, balance.dropped);

    // A dropped message was not forwarded, so its next copy is. Slowly, because the queue is still small.
    let missing: Vec<u64> = (0..DISTINCT).filter(|n| !before.contains(n)).collect();
    let mut sent = 2 * DISTINCT;
    for numbers in missing.chunks(20) {
        originator.send_all(numbers.iter().map(|&number| message(number)));
        sent += numbers.len() as u64;
        tersed.wait_received(sent);
        wait_until("room", LIMIT, || tersed.metrics().balance().queued == 0);
    }
    let (metrics, _) = tersed.finish();
    let last = metrics.balance();
    assert_eq!(last.dropped, balance.dropped, "{last:?}");
    wait_until("every number", LIMIT, || {
        arrived(&sink).iter().copied().eq(0..DISTINCT)
    });
}

/// The numbers that arrived, without summaries.
fn arrived(sink: &Sink) -> BTreeSet<u64> {
    let messages = sink.messages();
    let numbers = messages.iter().filter_map(|message| {
        let text = std::str::from_utf8(message).unwrap();
        let (_, rest) = text.split_once(" app: number ")?;
        rest.split(' ').next().unwrap().parse().ok()
    });
    numbers.collect()
}

fn message(number: u64) -> String {
    let padding = "x".repeat(1000);
    format!("<13>Mar  1 12:00:00 host app: number {number} {padding}")
}

const TCP: &str = "tcp://127.0.0.1:0";
const DISTINCT: u64 = 12_000;
