//! Suppressed copies go to a destination of their own if one is configured: whole, in order, and counted separately.

use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;

use super::support::metrics::Metrics;
use super::support::numbered::repeats;
use super::support::ordered::{assert_ordered, ordered};
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};
use super::support::wire::Wire;

/// Every copy is there octet for octet, in the order of its connection, including line breaks and odd octets.
#[test]
fn a_flood_leaves_its_first_copies_at_the_upstream_and_all_others_among_the_copies() {
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let dir = tempfile::tempdir().unwrap();
    let copies = dir.path().join("copies");
    let tersed = Setup::new()
        .forward_counted(&sink, "")
        .append(&format!(
            "[suppressed]\nto = {{ url = \"{}\", framing = \"octet-counting\" }}\n{DEDUP}",
            url("file", &copies)
        ))
        .listen(TCP)
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP)).framed(Wire::OctetCounting);
    let kinds: [&[u8]; 3] = [
        b"<13>Mar  1 12:00:00 host app: two\nlines",
        b"<13>Mar  1 12:00:00 host app: odd \xff\x00 octets \r\n",
        b"<13>Mar  1 12:00:00 host app: plain",
    ];
    let mut expected = Vec::new();
    for round in 0..2000 {
        for (kind, message) in kinds.iter().enumerate() {
            // A repeat with another timestamp is a copy, and keeps its own timestamp.
            let mut message = message.to_vec();
            message[9..10].copy_from_slice(&[b'1' + (round % 9) as u8]);
            originator.send(message.clone());
            if round > 0 {
                expected.push(message);
            } else if kind == 0 {
                originator.send(b"<13>Mar  1 12:00:00 host app: once");
            }
        }
    }
    tersed.wait_received(6001);
    wait_copied(&tersed, 5997);
    let (metrics, _) = tersed.finish();
    assert_eq!(decode_counted(&fs::read(&copies).unwrap()), expected);
    assert_own_law(&metrics);
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 5997);
    // At the stop, a summary for each.
    let survivors = sink.wait_messages(7);
    let (firsts, summaries): (Vec<_>, Vec<_>) = survivors
        .into_iter()
        .partition(|message| !is_summary(message));
    let mut expected: Vec<_> = kinds.map(<[u8]>::to_vec).to_vec();
    expected.insert(1, b"<13>Mar  1 12:00:00 host app: once".to_vec());
    assert_eq!(firsts, expected);
    assert_eq!(summaries.len(), 3);
}

/// With masks, the copies differ from what was forwarded: each variant is kept.
#[test]
fn each_variant_that_a_mask_folds_is_there() {
    let sink = Sink::tcp();
    let dir = tempfile::tempdir().unwrap();
    let copies = dir.path().join("copies.log");
    let tersed = keeping_copies(&copies, "mask = [\"number\"]")
        .listen(UDP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::udp(tersed.address(UDP));
    let message = |number: usize| format!("<13>Mar  1 12:00:00 host app: failed {number} times");
    originator.send_all((0..500).map(message));
    tersed.wait_received(500);
    wait_copied(&tersed, 499);
    let (metrics, _) = tersed.finish();
    assert_own_law(&metrics);
    let expected: Vec<_> = (1..500).map(|n| message(n).into_bytes()).collect();
    assert_eq!(lines(&copies), expected);
    assert_eq!(sink.wait_messages(2)[0], message(0).into_bytes());
}

/// A message that is forwarded anyway, or dropped by a rule, is not a suppressed copy.
#[test]
fn what_is_tagged_or_dropped_by_a_rule_is_not_copied() {
    let sink = Sink::tcp();
    let dir = tempfile::tempdir().unwrap();
    let copies = dir.path().join("copies.log");
    let rules = "[[rule]]\nname = \"tag\"\napp_name = [\"tagged\"]\nmode = \"tag\"\n\
                 [[rule]]\nname = \"drop\"\napp_name = [\"dropped\"]\naction = \"drop\"\n";
    let tersed = keeping_copies(&copies, rules)
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    for app in ["tagged", "dropped", "held"] {
        let message = format!("<13>Mar  1 12:00:00 host {app}: text");
        originator.send_all([message.clone(), message.clone(), message]);
    }
    tersed.wait_received(9);
    wait_copied(&tersed, 2);
    let (metrics, _) = tersed.finish();
    assert_own_law(&metrics);
    assert_eq!(metrics.total("tersed_suppressed_copies_total"), 2);
    let held = b"<13>Mar  1 12:00:00 host held: text".to_vec();
    assert_eq!(lines(&copies), [held.clone(), held]);
}

/// The destination takes nothing, and `when_full = "wait"`: new messages of other senders still go through, senders of
/// repeats wait, and nothing is missing in the end.
#[test]
fn senders_wait_for_a_destination_that_is_away_and_nothing_is_missing() {
    let (sink, store) = (
        Sink::tcp(),
        Sink::tcp_with_little_room().mannered(Manner::NeverRead),
    );
    let tersed = Setup::new()
        .config(&format!(
            "[suppressed]\nto = \"{}\"\nqueue = \"1MiB\"\n{QUICK}{DEDUP}",
            store.url()
        ))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    // The same message again and again, with a difference outside its identity.
    let sender = thread::spawn(move || {
        originator.send_all((0..COPIES).map(copy));
        originator
    });
    wait_until("the queue of copies to be full", LIMIT, || {
        tersed.metrics().total("tersed_upstream_errors_total") > 0
    });
    wait_stopped_reading(&tersed);
    assert!(!sender.is_finished(), "the sender did not have to wait");
    // Senders without repeats do not have to wait.
    let mut other = Originator::tcp(tersed.address(TCP));
    other.send_all((0..100).map(|place| ordered(1, place, 80)));
    let survivors = sink.wait_messages(101);
    assert_eq!(survivors.len(), 101);

    store.behave(Manner::Read);
    sender.join().unwrap();
    tersed.wait_received(COPIES as u64 + 100);
    wait_copied(&tersed, COPIES as u64 - 1);
    let (metrics, _) = tersed.finish();
    assert_own_law(&metrics);
    assert_eq!(metrics.total("tersed_suppressed_copies_dropped_total"), 0);
    let again = metrics.total("tersed_frames_resent_total");
    let stored: Vec<_> = store.messages();
    let numbers: Vec<usize> = stored.iter().map(|message| number(message) - 1).collect();
    assert_ordered(&numbers, COPIES - 1, again);
}

/// With a dropping `when_full`, no sender waits, the drops are counted, and the counting law of frames is not affected.
#[test]
fn copies_are_dropped_and_counted_where_nobody_is_to_wait() {
    for when_full in ["drop-newest", "drop-oldest"] {
        let sink = Sink::tcp();
        let setup = Setup::new();
        let nobody = url("unix-stream", &setup.path("nobody"));
        let tersed = setup
            .config(&format!(
                "[suppressed]\nto = \"{nobody}\"\nqueue = \"1MiB\"\nwhen_full = \"{when_full}\"\n\
                 [shutdown]\ngrace = \"100ms\"\n{QUICK}{DEDUP}"
            ))
            .listen(TCP)
            .forward(&sink.url())
            .start();
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all((0..COPIES).map(copy));
        tersed.wait_received(COPIES as u64);
        let mut tersed = tersed;
        let metrics = tersed.assert_balance();
        assert_own_law(&metrics);
        let queued = metrics.total("tersed_suppressed_copies_queued");
        let dropped = metrics.total_where(
            "tersed_suppressed_copies_dropped_total",
            &[("reason", "queue_full")],
        );
        assert_eq!(queued + dropped, COPIES as u64 - 1, "{when_full}");
        assert!(queued > 0 && dropped > 0, "{queued} {dropped}");
        let balance = metrics.balance();
        assert_eq!((balance.dropped, balance.queued), (0, 0));
        // What is left at the deadline is logged.
        let stopped = tersed.terminate();
        assert!(stopped.status.success(), "{}", stopped.status);
        let cut = "dropped suppressed copies that were not written within the grace period";
        let line = stopped.log.iter().find(|line| line.message == cut);
        assert_eq!(line.unwrap().field("copies").unwrap(), queued.to_string());
    }
}

#[test]
fn a_reload_switches_it_on_elsewhere_and_off() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(DEDUP)
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let mut sent = 0;
    let mut send = |count: usize| {
        originator.send_all((sent..sent + count).map(copy));
        sent += count;
        tersed.wait_received(sent as u64);
    };
    let mut reloads = 0;
    let mut reload = |text: &str| {
        fs::write(tersed.config_file(), format!("{text}\n{DEDUP}")).unwrap();
        tersed.signal(Signal::SIGHUP);
        reloads += 1;
        wait_until("the reload", LIMIT, || {
            tersed.log_count("reloaded") == reloads
        });
    };
    let to = |path: &Path| format!("[suppressed]\nto = \"{}\"\n", url("file", path));
    send(10);
    reload(&to(&one));
    send(10);
    wait_copied(&tersed, 10);
    reload(&to(&two));
    send(10);
    wait_copied(&tersed, 20);
    reload("");
    send(10);
    tersed.wait_log("suppressed copies are no longer kept");
    reload(&to(&one));
    send(10);
    wait_copied(&tersed, 30);
    let (metrics, _) = tersed.finish();
    assert_own_law(&metrics);
    assert_eq!(metrics.total("tersed_suppressed_copies_total"), 30);
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 49);
    let numbers =
        |path: &Path| -> Vec<usize> { lines(path).iter().map(|line| number(line)).collect() };
    let expected: Vec<_> = (10..20).chain(40..50).collect();
    assert_eq!(numbers(&one), expected);
    assert_eq!(numbers(&two), (20..30).collect::<Vec<_>>());
}

/// Senders that wait for room continue when the destination is removed, although it never came back.
#[test]
fn switching_it_off_frees_those_who_wait() {
    let sink = Sink::tcp();
    let off = format!("[shutdown]\ngrace = \"100ms\"\n{QUICK}{DEDUP}");
    let setup = Setup::new();
    let nobody = url("unix-stream", &setup.path("nobody"));
    let tersed = setup
        .config(&format!(
            "[suppressed]\nto = \"{nobody}\"\nqueue = \"1MiB\"\n{off}"
        ))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = thread::spawn(move || originator.send_all((0..COPIES).map(copy)));
    wait_stopped_reading(&tersed);
    assert!(!sender.is_finished(), "the sender did not have to wait");
    fs::write(tersed.config_file(), off).unwrap();
    tersed.signal(Signal::SIGHUP);
    sender.join().unwrap();
    tersed.wait_received(COPIES as u64);
    let (metrics, _) = tersed.finish();
    assert_own_law(&metrics);
    let dropped = metrics.total_where(
        "tersed_suppressed_copies_dropped_total",
        &[("reason", "shutdown")],
    );
    assert_eq!(dropped, metrics.total("tersed_suppressed_copies_total"));
    assert!(dropped > 0);
}

/// A configuration with which copies go to a file, line by line.
fn keeping_copies(copies: &Path, more: &str) -> Setup {
    let to = url("file", copies);
    Setup::new().config(&format!("[suppressed]\nto = \"{to}\"\n{DEDUP}{more}\n"))
}

/// suppressed copies = written + dropped + queued.
#[track_caller]
fn assert_own_law(metrics: &Metrics) {
    let total = |name: &str| metrics.total(&format!("tersed_suppressed_copies{name}"));
    let (written, dropped, queued) = (
        total("_written_total"),
        total("_dropped_total"),
        total("_queued"),
    );
    assert_eq!(total("_total"), written + dropped + queued);
}

#[track_caller]
fn wait_copied(tersed: &Tersed, count: u64) {
    tersed.wait_metric("tersed_suppressed_copies_written_total", &[], count);
}

/// Waits until the relay reads nothing more.
#[track_caller]
fn wait_stopped_reading(tersed: &Tersed) {
    let mut last = None;
    let mut equal = 0;
    wait_until("the relay to stop reading", LIMIT, || {
        let received = tersed.metrics().balance().received;
        equal = if last == Some(received) { equal + 1 } else { 0 };
        last = Some(received);
        received > 0 && equal >= 20
    });
}

/// The same message again and again, with a different PROCID.
fn copy(number: usize) -> String {
    let text = "the same as ever ".repeat(OCTETS / 17);
    format!("<13>Mar  1 12:00:00 host app[{number}]: {text}")
}

#[track_caller]
fn number(message: &[u8]) -> usize {
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once('[').expect(&text);
    rest.split_once(']').unwrap().0.parse().unwrap()
}

#[track_caller]
fn decode_counted(mut octets: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !octets.is_empty() {
        let (message, taken) = Wire::OctetCounting.decode(octets).expect("a torn frame");
        messages.push(message.to_vec());
        octets = &octets[taken..];
    }
    messages
}

fn is_summary(message: &[u8]) -> bool {
    repeats(&String::from_utf8_lossy(message)).is_some()
}

#[track_caller]
fn lines(path: &Path) -> Vec<Vec<u8>> {
    let octets = fs::read(path).unwrap();
    assert!(octets.ends_with(b"\n"), "a torn line");
    let lines = octets.split_inclusive(|&octet| octet == b'\n');
    lines.map(|line| line[..line.len() - 1].to_vec()).collect()
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const DEDUP: &str = "[dedup]\nwindow = \"1h\"\n";
const QUICK: &str =
    "[forward]\nsend_timeout = \"500ms\"\nretry_min = \"10ms\"\nretry_max = \"20ms\"\n";
/// 20 MB: far more than the queue and all socket buffers on the way hold together.
const COPIES: usize = 20_000;
const OCTETS: usize = 1000;
