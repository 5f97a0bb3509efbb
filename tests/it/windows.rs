//! When a message goes through again: `window`, `allow`, `refresh` and `max_quiet`, in real time.
//!
//! The exact limits (age = window included) are tested on the engine (`src/dedup`), where time is a number. These tests
//! show that the relay passes the right numbers to the engine.

use std::time::{Duration, Instant};

use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::sink::{Sink, show};
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, now, wait_until};

/// The window ends without any other message.
#[test]
fn a_message_passes_again_when_its_window_is_over() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .window("700ms")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let start = now();
    originator.send(FOO);
    sink.wait_messages(1);
    // One copy at a time, until one goes through: not earlier than the window allows.
    let mut sent = 1;
    wait_until("the second copy", LIMIT, || {
        originator.send(FOO);
        sent += 1;
        tersed.wait_received(sent);
        sink.count() >= 3
    });
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(700), "{elapsed:?}");
    let messages = sink.messages();
    assert_eq!(messages[0], FOO.as_bytes());
    // The summary and the copy that opens the next window. If the timer ended the window first, they come from two
    // threads, in either order.
    let is_report = |octets: &[u8]| repeats(&String::from_utf8_lossy(octets)).is_some();
    let (reports, copies): (Vec<_>, Vec<_>) =
        messages[1..3].iter().partition(|octets| is_report(octets));
    assert_eq!(reports.len(), 1, "{}", show(&messages));
    assert_eq!(copies, [FOO.as_bytes()]);
    tersed.finish();
}

#[test]
fn allow_lets_so_many_copies_of_each_message_pass() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\nallow = 3\nsummary = \"none\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all([FOO, BAR, FOO, FOO, BAR, FOO, FOO, FOO]);
    tersed.wait_received(8);
    let (metrics, _) = tersed.finish();
    let expected = [FOO, BAR, FOO, FOO, BAR].map(str::as_bytes);
    assert_eq!(sink.wait_messages(5), expected);
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 3);
}

/// Without `max_quiet`, a message that keeps coming would never be forwarded again.
#[test]
fn refresh_keeps_a_drip_quiet_and_lets_a_copy_pass_every_max_quiet() {
    let max_quiet = Duration::from_millis(1200);
    let config =
        "[dedup]\nwindow = \"600ms\"\nrefresh = true\nmax_quiet = \"1200ms\"\nsummary = \"none\"\n";
    let (copies, lasted, longest_gap) = drip(config);
    // Quieter than with a fixed window of 600 ms, and never for longer than max_quiet plus the longest gap between two
    // copies.
    let most = 1 + lasted.as_millis() / max_quiet.as_millis();
    // A gap of a window restarts the count, correctly. Then a busy machine delayed the copies.
    if longest_gap < Duration::from_millis(600) {
        assert!(copies as u128 <= most, "{copies} copies in {lasted:?}");
    }
    let least = 1 + (lasted.as_millis() - 1) / (max_quiet + longest_gap).as_millis();
    assert!(
        copies as u128 >= least.max(2),
        "{copies} copies in {lasted:?}"
    );
}

#[test]
fn repeats_do_not_prolong_a_fixed_window() {
    let config = "[dedup]\nwindow = \"600ms\"\nsummary = \"none\"\n";
    let (copies, lasted, longest_gap) = drip(config);
    let window = Duration::from_millis(600);
    let most = 1 + lasted.as_millis() / window.as_millis();
    let least = 1 + (lasted.as_millis() - 1) / (window + longest_gap).as_millis();
    assert!(
        (least.max(3)..=most).contains(&(copies as u128)),
        "{copies} copies in {lasted:?}, {least} to {most} expected"
    );
}

/// Sends one message again and again for three seconds, each time as soon as the one before was received. Returns how
/// many copies went through, how long it took from the first to the last, and the longest time between two.
#[track_caller]
fn drip(config: &str) -> (usize, Duration, Duration) {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(config)
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let start = now();
    let mut last: Instant = start;
    let mut longest_gap = Duration::ZERO;
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(3) {
        originator.send(FOO);
        sent += 1;
        tersed.wait_received(sent);
        longest_gap = longest_gap.max(last.elapsed());
        last = now();
    }
    let lasted = start.elapsed();
    let (metrics, _) = tersed.finish();
    let passed = metrics.balance().forwarded;
    let copies = sink.wait_messages(usize::try_from(passed).unwrap()).len();
    (copies, lasted, longest_gap)
}

const TCP: &str = "tcp://127.0.0.1:0";
const FOO: &str = "<13>Mar  1 12:00:00 host app: foo";
const BAR: &str = "<13>Mar  1 12:00:00 host app: bar";
