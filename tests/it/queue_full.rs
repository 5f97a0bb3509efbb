//! A message that has to be dropped because the queue is full reopens its window, so nothing is both suppressed and
//! lost (law 7).

use super::support::ordered::{ordered, ordered_all, places, without_summaries};
use super::support::originator::Originator;
use super::support::sink::{RefusingPort, show};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn drop_newest_keeps_what_waits_and_lets_the_dropped_come_again() {
    let (port, mut tersed, mut originator) = start("drop-newest");
    originator.send_all(ordered_all(PLACES, OCTETS));
    tersed.wait_received(PLACES as u64);
    let dropped = dropped(&mut tersed);
    let kept = PLACES - dropped;

    let sink = port.open();
    // The part of a batch that fits is kept, so the kept messages need not be one run from the start.
    let first = places(&sink.wait_messages(kept), OCTETS);
    assert!(first.is_sorted() && first[0] == 0, "{first:?}");
    wait_until("the queue to be empty", LIMIT, || {
        tersed.metrics().balance().queued == 0
    });

    // Within the window: forwarded messages are suppressed, dropped ones go out.
    for chunk in (0..PLACES).collect::<Vec<_>>().chunks(100) {
        originator.send_all(chunk.iter().map(|&place| ordered(0, place, OCTETS)));
        tersed.wait_received((PLACES + chunk[99] + 1) as u64);
        wait_until("the queue to be empty", LIMIT, || {
            tersed.metrics().balance().queued == 0
        });
    }
    let messages = sink.wait_messages(PLACES);
    let mut all = places(&messages, OCTETS);
    all.sort_unstable();
    assert_eq!(all, (0..PLACES).collect::<Vec<_>>());
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), kept as u64);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), dropped as u64);
}

#[test]
fn drop_oldest_keeps_the_newest_and_lets_the_dropped_come_again() {
    let (port, mut tersed, mut originator) = start("drop-oldest");
    originator.send_all(ordered_all(PLACES, OCTETS));
    tersed.wait_received(PLACES as u64);
    let dropped = dropped(&mut tersed);

    let sink = port.open();
    let kept = places(&sink.wait_messages(PLACES - dropped), OCTETS);
    assert_eq!(kept, (dropped..PLACES).collect::<Vec<_>>());

    originator.send_all([ordered(0, 0, OCTETS), ordered(0, PLACES - 1, OCTETS)]);
    tersed.wait_received(PLACES as u64 + 2);
    let messages = sink.wait_messages(PLACES - dropped + 1);
    assert_eq!(places(&messages[PLACES - dropped..], OCTETS), [0]);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 1);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), dropped as u64);
}

/// Copies were suppressed because their first copy was on its way, and then that one is dropped. They are reported, as
/// far as there is room, and the next copy goes through.
#[test]
fn copies_held_back_under_a_dropped_survivor_are_reported() {
    let (port, mut tersed, mut originator) = start("drop-oldest");
    originator.send_all([FOO; 4]);
    tersed.wait_received(4);
    originator.send_all(ordered_all(PLACES, OCTETS));
    tersed.wait_received(PLACES as u64 + 4);
    dropped(&mut tersed);
    let metrics = tersed.metrics();
    let reason = [("reason", "reopened")];
    assert_eq!(metrics.total_where("tersed_summaries_total", &reason), 1);
    assert_eq!(metrics.total("tersed_summarized_frames_total"), 3);

    originator.send(FOO);
    tersed.wait_received(PLACES as u64 + 5);
    let sink = port.open();
    wait_until("foo", LIMIT, || sink.messages().contains(&FOO.into()));
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 3);
    let messages = sink.messages();
    // The summary was at the head of the queue by then, and may have been dropped itself.
    let reports = messages.len() - without_summaries(messages.clone()).len();
    let reports_dropped = metrics.total("tersed_summaries_dropped_total");
    assert_eq!(reports as u64 + reports_dropped, 1, "{}", show(&messages));
}

fn start(when_full: &str) -> (RefusingPort, Tersed, Originator) {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"64KiB\"\nwhen_full = \"{when_full}\"\n\
             retry_max = \"200ms\"\n"
        ))
        .listen(TCP)
        .forward(&port.url())
        .start();
    let originator = Originator::tcp(tersed.address(TCP));
    (port, tersed, originator)
}

/// How many frames were dropped because the queue was full. Asserts that some were, not all, and for no other reason.
#[track_caller]
fn dropped(tersed: &mut Tersed) -> usize {
    let metrics = tersed.assert_balance();
    let reason = [("reason", "queue_full")];
    let dropped = metrics.total_where("tersed_frames_dropped_total", &reason);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), dropped);
    let dropped = usize::try_from(dropped).unwrap();
    assert!(dropped > 0 && dropped < PLACES, "{dropped} dropped");
    dropped
}

const TCP: &str = "tcp://127.0.0.1:0";
const FOO: &str = "<13>Mar  1 12:00:00 host app: foo";
/// Many times what the queue holds.
const PLACES: usize = 5000;
const OCTETS: usize = 100;
