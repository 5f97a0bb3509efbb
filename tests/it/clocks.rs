//! Clocks: steps of the wall clock move no window, and suspended time counts towards it.
//!
//! The relay runs on a C library with manipulated clocks, see `support/clock_shim.c`.

use std::fs;
use std::path::Path;

use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::process::run;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};

/// Two successive reads of the wall clock are years apart.
#[test]
fn a_wall_clock_that_jumps_by_years_neither_closes_nor_prolongs_a_window() {
    let sink = Sink::tcp();
    let tersed = start(Setup::new().window("1h"), &sink);
    let mut originator = Originator::tcp(tersed.address(TCP));
    for round in 0..50 {
        originator.send_all([message("foo"), message("bar")]);
        tersed.wait_received(2 * (round + 1));
    }
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 98);
    let messages = sink.wait_messages(4);
    // Check that the reported clock does jump, else this test proves nothing.
    let summaries = messages[2..].iter().map(|message| text(message));
    let years: Vec<i16> = summaries.flat_map(|text| years_of(&text)).collect();
    let this_year = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .year();
    assert_eq!(years.len(), 4);
    assert!(
        years.iter().all(|year| (year - this_year).abs() >= 1),
        "{years:?} are the years of a clock that tells the truth"
    );

    // A short window ends by itself, too, although the wall clock goes back.
    let sink = Sink::tcp();
    let tersed = start(Setup::new().window("500ms"), &sink);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all([message("foo"), message("foo")]);
    let messages = sink.wait_messages(2);
    assert_eq!(repeats(&text(&messages[1])), Some(1));
    originator.send(message("foo"));
    sink.wait_messages(3);
    tersed.finish();
}

/// The time for which the machine was suspended is part of a message's age.
#[test]
fn a_suspended_machine_closes_the_windows_that_ended_meanwhile() {
    let sink = Sink::tcp();
    let tersed = start(Setup::new().window("1h"), &sink);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all([message("foo"), message("foo"), message("foo")]);
    tersed.wait_received(3);

    suspend(&tersed, 3000);
    originator.send_all([message("foo"), message("bar"), message("bar")]);
    tersed.wait_received(6);
    assert_eq!(tersed.metrics().total("tersed_live_messages"), 2);

    // The window of the first message has ended, without another message; that of the second has not.
    suspend(&tersed, 3601);
    let messages = sink.wait_messages(3);
    assert_eq!(repeats(&text(&messages[2])), Some(3));
    assert!(text(&messages[2]).contains("foo"));
    originator.send_all([message("foo"), message("bar")]);
    sink.wait_messages(4);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_forwarded_total"), 3);
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 5);
}

/// A relay with manipulated clocks.
fn start(setup: Setup, sink: &Sink) -> Tersed {
    let suspended = setup.path(SUSPENDED);
    bend(setup, &suspended)
        .listen(TCP)
        .forward(&sink.url())
        .start()
}

/// Manipulates the relay's clocks: the file `suspended` says for how long its machine was suspended.
pub(crate) fn bend(setup: Setup, suspended: &Path) -> Setup {
    let shim = setup.path("clock_shim.so");
    let shim = shim.to_str().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/clock_shim.c");
    let args = [
        "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", shim, source,
    ];
    run("cc", &args, "gcc");
    setup
        .environment("LD_PRELOAD", shim)
        .environment("TERSED_TEST_SUSPENDED", suspended.to_str().unwrap())
}

/// From now on, the machine was suspended for so many seconds.
fn suspend(tersed: &Tersed, secs: u32) {
    // In one step, because the relay may read it at any time.
    let new = tersed.path("new");
    fs::write(&new, secs.to_string()).unwrap();
    fs::rename(new, tersed.path(SUSPENDED)).unwrap();
}

/// The years of `first` and `last` in a summary.
fn years_of(summary: &str) -> Vec<i16> {
    ["first=\"", "last=\""]
        .iter()
        .map(|start| {
            let (_, rest) = summary.split_once(start).expect(summary);
            rest.split('-').next().unwrap().parse().unwrap()
        })
        .collect()
}

fn message(text: &str) -> String {
    format!("<13>1 2026-03-01T12:00:00Z host app - - - {text}")
}

fn text(message: &[u8]) -> String {
    String::from_utf8(message.to_vec()).unwrap()
}

const TCP: &str = "tcp://127.0.0.1:0";
const SUSPENDED: &str = "suspended";
