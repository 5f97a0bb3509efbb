//! A reload that ends very many windows at once delays no message, and needs no memory for it.

use std::collections::HashSet;
use std::fs;

use nix::sys::signal::Signal;

use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

/// When all summaries came at once, they filled the queue: a new message waited behind them for a quarter of a second,
/// and they took hundreds of megabytes.
#[test]
fn a_new_message_does_not_wait_behind_the_windows_that_a_reload_ends() {
    let sink = Sink::tcp();
    let config = |window: &str| format!("[dedup]\nwindow = \"{window}\"\nmemory = \"1GiB\"\n");
    let tersed = with_windows(&sink, &config("1h"));
    let before = tersed.resident_octets();
    tersed.forget_peak();

    reload(&tersed, &config("2h"));
    let mut originator = Originator::tcp(tersed.address(TCP));
    // Under the new rules it was not forwarded yet.
    originator.send(message(0));
    originator.send(message(WINDOWS));
    let at = wait_for_message(&sink, &message(WINDOWS));
    let ahead = at - WINDOWS;
    assert!(
        ahead < WINDOWS / 3,
        "{ahead} summaries of {WINDOWS} went out before a new message"
    );
    assert_reported_once_each(&tersed, &sink, WINDOWS + 2);
    let grown = tersed.peak_resident_octets().saturating_sub(before);
    assert!(grown <= GROWTH_MAX, "{grown} octets more memory");
    let (metrics, _) = tersed.finish();
    let made = metrics.total_where("tersed_summaries_total", &[("reason", "reload")]);
    assert_eq!(made, WINDOWS as u64);
}

/// The budget shrinks in the same way. Messages that are remembered meanwhile still suppress their copies.
#[test]
fn a_new_message_does_not_wait_behind_the_windows_that_a_smaller_memory_ends() {
    let sink = Sink::tcp();
    let config = |memory: &str| format!("[dedup]\nwindow = \"1h\"\nmemory = \"{memory}\"\n");
    let tersed = with_windows(&sink, &config("1GiB"));
    let before = tersed.resident_octets();
    tersed.forget_peak();

    reload(&tersed, &config("8MiB"));
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all([message(WINDOWS), message(WINDOWS)]);
    let ahead = wait_for_message(&sink, &message(WINDOWS)) - WINDOWS;
    assert!(
        ahead < WINDOWS / 3,
        "{ahead} summaries of {WINDOWS} went out before a new message"
    );
    wait_until("the memory to shrink", LIMIT, || {
        tersed.metrics().total("tersed_memory_bytes") <= 8 << 20
    });
    let grown = tersed.peak_resident_octets().saturating_sub(before);
    assert!(grown <= GROWTH_MAX, "{grown} octets more memory");
    let (metrics, _) = tersed.finish();
    assert_eq!(
        metrics.total("tersed_frames_suppressed_total"),
        WINDOWS as u64 + 1
    );
    assert_eq!(metrics.total("tersed_unremembered_total"), 0);
}

/// A stop before all summaries came out reports the rest.
#[test]
fn a_stop_reports_the_windows_that_a_reload_has_not_ended_yet() {
    let sink = Sink::tcp();
    let config = |mode: &str| format!("[dedup]\nwindow = \"1h\"\nallow = {mode}\n");
    let mut tersed = with_windows(&sink, &config("1"));
    reload(&tersed, &config("2"));
    tersed.balance_at_exit();
    let stopped = tersed.terminate();
    assert!(stopped.balance().holds(), "{:?}", stopped.balance());
    assert_eq!(stopped.balance().dropped, 0);
    sink.wait_messages(2 * WINDOWS);
    let (reports, copies) = reported(&sink);
    assert_eq!((reports, copies), (WINDOWS, WINDOWS as u64));
}

/// A relay with [`WINDOWS`] open windows, each of which has suppressed one copy.
fn with_windows(sink: &Sink, config: &str) -> Tersed {
    let tersed = Setup::new()
        .config(config)
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    for _ in 0..2 {
        originator.send_all((0..WINDOWS).map(message));
    }
    wait_until("all copies to be suppressed", LIMIT, || {
        tersed.metrics().total("tersed_frames_suppressed_total") == WINDOWS as u64
    });
    wait_until("all survivors", LIMIT, || sink.count() == WINDOWS);
    tersed
}

fn reload(tersed: &Tersed, config: &str) {
    fs::write(tersed.config_file(), config).unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
}

/// The position of `message` in what came.
fn wait_for_message(sink: &Sink, message: &str) -> usize {
    let mut at = None;
    wait_until("the new message", LIMIT, || {
        let messages = sink.messages();
        at = messages
            .iter()
            .position(|other| other == message.as_bytes());
        at.is_some()
    });
    at.unwrap()
}

fn assert_reported_once_each(tersed: &Tersed, sink: &Sink, survivors: usize) {
    wait_until("all summaries", LIMIT, || {
        sink.count() >= survivors + WINDOWS
    });
    assert_eq!(reported(sink), (WINDOWS, WINDOWS as u64));
    let metrics = tersed.metrics();
    assert_eq!(
        metrics.total("tersed_summarized_frames_total"),
        WINDOWS as u64
    );
}

/// How many messages were reported (none twice), and how many copies of them.
fn reported(sink: &Sink) -> (usize, u64) {
    let (mut of, mut copies) = (HashSet::new(), 0);
    for message in sink.messages() {
        let text = String::from_utf8_lossy(&message).into_owned();
        if let Some(count) = repeats(&text) {
            copies += count;
            let (_, text) = text.split_once("[ ").unwrap();
            assert!(of.insert(text.to_owned()), "reported twice: {text}");
        }
    }
    (of.len(), copies)
}

fn message(number: usize) -> String {
    format!(
        "<13>Mar  1 12:00:00 host app: one of very many messages, of number {number}, and no two are alike"
    )
}

const WINDOWS: usize = 200_000;
/// Less than the summaries take.
const GROWTH_MAX: u64 = 24 << 20;
const TCP: &str = "tcp://127.0.0.1:0";
