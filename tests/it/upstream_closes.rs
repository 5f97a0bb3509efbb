//! An upstream that closes at any point gets only whole frames, in order, none missing. What it may not have read is
//! sent again from the frame's first octet on, and is counted.

use super::support::ordered::{assert_ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

/// The end of the upstream's own direction does not tell what it has read. Each of these connections ends after a few
/// octets, and still every message arrives.
#[test]
fn an_end_after_any_number_of_octets_loses_nothing_and_repeats_no_more_than_counted() {
    let sink = Sink::tcp().mannered(Manner::FinishAfter(1));
    let (tersed, mut originator) = start(&sink);
    for octets in 1..=ENDS {
        sink.behave(Manner::FinishAfter(octets));
        originator.send_all(ordered_all(PLACES, OCTETS).skip(EACH * octets).take(EACH));
        wait_until("the end of a connection", LIMIT, || {
            sink.connection_count() >= octets
        });
    }
    sink.behave(Manner::Read);
    originator.send_all(ordered_all(PLACES, OCTETS).skip(EACH * (ENDS + 1)));
    check(tersed, &sink, EACH..PLACES);
}

/// Closing with unread octets resets the connection, and it is unknown which acknowledged octets had been read. They
/// are sent again, in whole frames.
#[test]
fn a_reset_after_any_number_of_octets_brings_whole_frames_again() {
    let sink = Sink::tcp().mannered(Manner::CloseAfter(1));
    let (tersed, mut originator) = start(&sink);
    originator.send_all(ordered_all(PLACES, OCTETS));
    for octets in (1..=RESETS).step_by(if long() { 1 } else { 3 }) {
        sink.behave(Manner::CloseAfter(octets));
        let so_far = sink.connection_count();
        wait_until("another connection", LIMIT, || {
            sink.connection_count() > so_far
        });
    }
    sink.behave(Manner::Read);
    check(tersed, &sink, 0..PLACES);
}

/// The kernel took a part of a large frame before the end came: the next connection begins with that frame's first
/// octet.
#[test]
fn a_frame_broken_off_in_the_middle_comes_again_whole() {
    let mut broken = 0;
    for manner in [Manner::FinishAfter, Manner::CloseAfter] {
        let sink = Sink::tcp_with_little_room().mannered(manner(1));
        let setup = Setup::new().config(QUICK).listen(TCP).forward(&sink.url());
        let tersed = setup.start();
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all(ordered_all(LARGE_PLACES, LARGE_OCTETS));
        for octets in (1..=20).map(|step| step * 9_973) {
            sink.behave(manner(octets));
            let so_far = sink.connection_count();
            wait_until("another connection", LIMIT, || {
                sink.connection_count() > so_far || sink.count() >= LARGE_PLACES
            });
        }
        sink.behave(Manner::Read);
        wait_until("the last message", LIMIT, || {
            let messages = sink.messages();
            let last = messages
                .last()
                .map(|last| places(std::slice::from_ref(last), LARGE_OCTETS));
            last == Some(vec![LARGE_PLACES - 1])
        });
        broken += sink.fragments().iter().filter(|f| !f.is_empty()).count();
        let (metrics, _) = tersed.finish();
        let again = metrics.total("tersed_frames_resent_total");
        let places = places(&sink.messages(), LARGE_OCTETS);
        assert_ordered(&places, LARGE_PLACES, again);
        assert_eq!(
            metrics.total("tersed_frames_forwarded_total"),
            LARGE_PLACES as u64
        );
    }
    // This is certain with a reset. Before an orderly end, the relay may just have finished a frame.
    assert!(broken > 0, "no frame was broken off");
}

fn start(sink: &Sink) -> (Tersed, Originator) {
    let setup = Setup::new().config(QUICK).listen(TCP).forward(&sink.url());
    let tersed = setup.start();
    let originator = Originator::tcp(tersed.address(TCP));
    (tersed, originator)
}

/// Asserts that all of `sent` is there in order, and that what is there twice was counted.
#[track_caller]
fn check(tersed: Tersed, sink: &Sink, sent: std::ops::Range<usize>) {
    let count = sent.len();
    tersed.wait_received(count as u64);
    wait_until("the last message", LIMIT, || {
        let messages = sink.messages();
        let last = messages
            .last()
            .map(|last| places(std::slice::from_ref(last), OCTETS));
        last == Some(vec![sent.end - 1])
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_forwarded_total"), count as u64);
    let again = metrics.total("tersed_frames_resent_total");
    let places: Vec<_> = places(&sink.messages(), OCTETS)
        .iter()
        .map(|place| place - sent.start)
        .collect();
    assert_ordered(&places, count, again);
}

/// `TERSED_TEST_LONG=1` tries every number of octets up to 200; otherwise each third one is tried.
fn long() -> bool {
    std::env::var_os("TERSED_TEST_LONG").is_some()
}

const TCP: &str = "tcp://127.0.0.1:0";
const QUICK: &str =
    "[dedup]\nwindow = \"1h\"\n[forward]\nretry_min = \"10ms\"\nretry_max = \"50ms\"\n";
const PLACES: usize = 1000;
const OCTETS: usize = 60;
const ENDS: usize = 200;
/// More octets in one write than any of the connections lasts for.
const EACH: usize = 4;
const RESETS: usize = 200;
const LARGE_PLACES: usize = 100;
const LARGE_OCTETS: usize = 60_000;
