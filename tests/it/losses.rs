//! What is being lost, or soon may be, is logged once when it begins, is on `/readyz` with advice, and is in the last
//! balance.

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use super::support::originator::Originator;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::{LogLine, Setup, Stopped, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn datagrams_that_the_kernel_drops_are_told_of() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(UDP, "receive_buffer = \"64KiB\"")
        .forward(&sink.url())
        .start();
    assert_eq!(remark(&tersed, "kernel drops"), None);
    let mut sender = Originator::udp(tersed.address(UDP));
    let mut sent = 0;
    // Twice: the second burst is not logged again.
    for _ in 0..2 {
        tersed.signal(Signal::SIGSTOP);
        sender.send_all((0..1_000).map(|number| format!("<13>burst {}", sent + number)));
        sent += 1_000;
        tersed.signal(Signal::SIGCONT);
        wait_until("each to be accounted for", LIMIT, || {
            let metrics = tersed.metrics();
            metrics.balance().received + metrics.total("tersed_kernel_dropped_total") == sent
        });
        wait_remark(&tersed, "kernel drops");
    }
    let lost = tersed.metrics().total("tersed_kernel_dropped_total");
    let all = format!("{},{:03} datagrams on {UDP}", lost / 1_000, lost % 1_000);
    wait_until("the page to count all of them", LIMIT, || {
        remark(&tersed, "kernel drops").is_some_and(|line| line.contains(&all))
    });
    let line = remark(&tersed, "kernel drops").unwrap();
    let advice = "; raise net.core.rmem_max and receive_buffer";
    assert!(line.ends_with(advice), "{line}");
    let (_, stopped) = tersed.finish();
    let told = told_once(&stopped, "the kernel drops datagrams; ");
    assert_eq!(told.field("listener").as_deref(), Some(UDP));
    assert_eq!(told.field("receive_buffer").as_deref(), Some("64KiB"));
    // What was lost after the first line is logged at the stop.
    let first: u64 = told.field("datagrams").unwrap().parse().unwrap();
    if first < lost {
        let rest = told_once(&stopped, "further losses in the last 10 minutes");
        let grouped = rest.field("what").unwrap().replace(',', "");
        assert!(
            grouped.contains(&format!(" {} datagrams", lost - first)),
            "{rest:?}"
        );
    }
    assert_eq!(last_words(&stopped, "kernel_dropped"), lost);
}

#[test]
fn windows_that_memory_is_too_small_for_are_told_of() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\nmemory = \"1MiB\"\nshards = 1\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..20_000).map(|number| format!("<13>host app: unique {number}")));
    tersed.wait_received(20_000);
    let line = wait_remark(&tersed, "evicted too early");
    assert!(
        line.contains("; dedup.memory = 1MiB was full with "),
        "{line}"
    );
    let (metrics, stopped) = tersed.finish();
    let told = told_once(&stopped, "messages are evicted before their window ends");
    assert_eq!(told.field("memory").as_deref(), Some("1MiB"));
    let evicted = metrics.total("tersed_evicted_total");
    assert!(evicted > 0);
    assert_eq!(last_words(&stopped, "evicted"), evicted);
}

/// The timer that logs the warnings about peers once waited for room in the queue itself.
#[test]
fn reading_that_is_paused_is_told_of_and_nothing_else_falls_silent() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .listener(TCP, "")
        .listener(UDP, "receive_buffer = \"64KiB\"")
        .append(&format!(
            "[dedup]\nwindow = \"1s\"\n[forward]\nto = [\"{}\"]\nqueue = \"64KiB\"\nretry_max = \"200ms\"",
            port.url()
        ))
        .start();
    let mut tcp = Originator::tcp(tersed.address(TCP));
    // With repeats, whose summaries have to wait for room as well.
    let padding = "x".repeat(200);
    let messages = (0..1_000).map(|number| format!("<13>host app: {padding} {}", number / 2));
    tcp.send_all(messages);
    let line = wait_remark(&tersed, "reading was paused");
    assert!(
        line.contains("; forward.queue = 64KiB was full: check the upstreams"),
        "{line}"
    );
    let mut udp = Originator::udp(tersed.address(UDP));
    udp.send_all((0..2_000).map(|number| format!("<13>host app: {padding} {number}")));
    let line = wait_remark(&tersed, "kernel drops");
    assert!(line.ends_with("; reading was paused meanwhile"), "{line}");

    let sink = port.open();
    wait_until("reading to continue", LIMIT, || {
        tersed.metrics().total("tersed_reading_paused") == 0
    });
    wait_until("all to be forwarded", LIMIT, || {
        let balance = tersed.metrics().balance();
        balance.received >= 1_000 && balance.queued == 0
    });
    let (_, stopped) = tersed.finish();
    assert!(sink.count() >= 500);
    let told = told_once(
        &stopped,
        "reading is paused: the queue to the upstreams is full",
    );
    assert_eq!(told.field("queue").as_deref(), Some("64KiB"));
    told_once(
        &stopped,
        "the kernel drops datagrams while reading is paused",
    );
    assert!(last_words(&stopped, "reading_pauses") > 0);
}

/// With a spool in use, the advice must not be to use a spool.
#[test]
fn a_full_spool_behind_a_full_queue_is_named() {
    let port = RefusingPort::new();
    let dir = tempfile::tempdir().unwrap();
    let tersed = Setup::new()
        .listener(TCP, "")
        .append(&format!(
            "[forward]\nto = [\"{}\"]\nqueue = \"64KiB\"\nretry_max = \"200ms\"\n[spool]\ndirectory = \"{}\"\n\
             max_size = \"1MiB\"",
            port.url(),
            dir.path().join("spool").display()
        ))
        .start();
    let mut tcp = Originator::tcp(tersed.address(TCP));
    let padding = "x".repeat(1_000);
    // More than queue and spool hold, but less than both and the sockets.
    tcp.send_all((0..1_300).map(|number| format!("<13>host app: {padding} {number}")));
    let line = wait_remark(&tersed, "reading was paused");
    let advice = "was full, and messages arrived faster than the upstreams and the spool took them: check both";
    assert!(line.ends_with(advice), "{line}");
    let sink = port.open();
    sink.wait_messages(1_300);
    let (_, stopped) = tersed.finish();
    told_once(
        &stopped,
        "reading is paused: messages arrive faster than the upstreams and the spool take them",
    );
}

#[test]
fn copies_that_pause_reading_are_named() {
    let (sink, port) = (Sink::tcp(), RefusingPort::new());
    let tersed = Setup::new()
        .listener(TCP, "")
        .append(&format!(
            "[dedup]\nwindow = \"1h\"\n[suppressed]\nto = \"{}\"\nqueue = \"64KiB\"\n\
             [forward]\nto = [\"{}\"]\nretry_max = \"200ms\"",
            port.url(),
            sink.url()
        ))
        .start();
    let padding = "x".repeat(200);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..1_000).map(|_| format!("<13>host app: {padding}")));
    let line = wait_remark(&tersed, "reading was paused");
    let advice = "; suppressed.queue = 64KiB was full: check suppressed.to, ";
    assert!(line.contains(advice), "{line}");
    let line = remark(&tersed, "suppressed: ").unwrap();
    let end = " copies wait for suppressed.to; suppressed.queue = 64 KiB";
    assert!(line.ends_with(end), "{line}");
    let _aside = port.open();
    tersed.wait_received(1_000);
    wait_until("all copies to be kept", LIMIT, || {
        tersed.metrics().total("tersed_suppressed_copies_queued") == 0
    });
    // The cause is still named, although it has ended.
    let line = remark(&tersed, "reading was paused").unwrap();
    assert!(line.contains(advice), "{line}");
    let (_, stopped) = tersed.finish();
    let told = told_once(&stopped, "reading is paused: suppressed.queue is full");
    assert_eq!(told.field("queue").as_deref(), Some("64KiB"));
}

#[test]
fn what_allow_and_the_limits_refuse_is_told_of() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(UDP, "name = \"closed\"\nallow = [\"192.0.2.0/24\"]")
        .listener(
            TCP,
            "allow = [\"127.0.0.74/32\"]\nconnections_per_source_max = 1",
        )
        .forward(&sink.url())
        .start();
    Originator::udp(tersed.address("closed")).send_all(["<13>one", "<13>two"]);
    Originator::tcp(tersed.address(TCP)).wait_closed();
    let allowed = Ipv4Addr::new(127, 0, 0, 74);
    let first = Originator::tcp_from(allowed, tersed.address(TCP));
    tersed.wait_metric("tersed_connections", &[], 1);
    Originator::tcp_from(allowed, tersed.address(TCP)).wait_closed();
    for (what, advice) in [
        (
            "refused: 2 datagrams not in allow",
            "add the senders to allow, or stop them",
        ),
        (
            "refused: 1 connections not in allow",
            "add the senders to allow, or stop them",
        ),
        (
            "refused: 1 connections over connections_per_source_max",
            "raise connections_per_source_max",
        ),
    ] {
        let line = wait_remark(&tersed, what);
        assert!(line.ends_with(advice), "{line}");
    }
    drop(first);
    let (_, stopped) = tersed.finish();
    told_once(
        &stopped,
        "datagrams are refused: their senders are not in allow",
    );
    told_once(
        &stopped,
        "connections are refused: their senders are not in allow",
    );
    told_once(
        &stopped,
        "connections are refused: their address has connections_per_source_max",
    );
}

#[test]
fn frames_that_a_full_queue_drops_are_told_of() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"64KiB\"\nwhen_full = \"drop-newest\"\nretry_max = \"200ms\"\n")
        .listen(TCP)
        .forward(&port.url())
        .start();
    let padding = "x".repeat(200);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..1_000).map(|number| format!("<13>host app: {padding} {number}")));
    tersed.wait_received(1_000);
    let line = wait_remark(&tersed, "dropped:");
    assert!(line.contains("frames, the queue was full, "), "{line}");
    assert!(line.contains("forward.queue = 64KiB was full"), "{line}");
    let _sink = port.open();
    wait_until("the queue to be empty", LIMIT, || {
        tersed.metrics().balance().queued == 0
    });
    let (_, stopped) = tersed.finish();
    told_once(
        &stopped,
        "messages are dropped: the queue to the upstreams is full",
    );
}

/// The line of `/readyz` that begins with `beginning`.
#[track_caller]
fn remark(tersed: &Tersed, beginning: &str) -> Option<String> {
    let (status, page) = tersed.get("/readyz");
    assert_eq!(status, 200, "{page}");
    let line = page.lines().find(|line| line.starts_with(beginning));
    line.map(str::to_owned)
}

#[track_caller]
fn wait_remark(tersed: &Tersed, beginning: &str) -> String {
    wait_until(&format!("`{beginning}` on /readyz"), LIMIT, || {
        remark(tersed, beginning).is_some()
    });
    remark(tersed, beginning).unwrap()
}

/// Asserts that the log has one line that begins with `beginning`, a warning.
#[track_caller]
fn told_once<'a>(stopped: &'a Stopped, beginning: &str) -> &'a LogLine {
    let told = stopped
        .log
        .iter()
        .filter(|line| line.message.starts_with(beginning));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{beginning}: {told:?}");
    assert_eq!(told[0].level, "WARN", "{told:?}");
    told[0]
}

/// A number in the last balance.
#[track_caller]
fn last_words(stopped: &Stopped, name: &str) -> u64 {
    let line = stopped.log.iter().rfind(|line| line.message == "stopped");
    let number = line.unwrap().field(name);
    number.expect(name).parse().unwrap()
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
