//! SIGTERM and SIGINT drain and exit 0; SIGHUP reloads all or nothing.

use std::fs;

use nix::sys::signal::Signal;

use super::support::numbered::{Numbered, Tally};
use super::support::originator::Originator;
use super::support::pipe::make_fifo;
use super::support::sink::Sink;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, wait_until};

#[test]
fn sigterm_drains_and_exits_0() {
    check_drains(Signal::SIGTERM);
}

#[test]
fn sigint_drains_and_exits_0() {
    check_drains(Signal::SIGINT);
}

#[test]
fn sighup_reads_the_configuration_again_and_keeps_connections() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(FOO);
    tersed.wait_received(1);

    fs::write(
        tersed.config_file(),
        "[dedup]\nwindow = \"1h\"\nsummary = \"suffix\"\n",
    )
    .unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");

    // The same connection. A message that is first forwarded now is reported in the new style.
    originator.send_all([BAR, BAR]);
    tersed.wait_received(3);
    tersed.finish();
    let messages = sink.wait_messages(3);
    assert!(
        messages[2].ends_with(b"bar [message repeated 1 times]"),
        "{}",
        messages[2].escape_ascii()
    );
}

#[test]
fn a_reload_that_changes_nothing_forgets_nothing() {
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(TCP)
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(FOO);
    tersed.wait_received(1);
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    originator.send(FOO);
    tersed.wait_received(2);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 1);
    assert_eq!(metrics.total("tersed_summaries_total"), 0);
}

#[test]
fn sighup_refuses_a_broken_configuration_and_goes_on_as_before() {
    let sink = Sink::tcp();
    let good = "[dedup]\nwindow = \"1h\"\n";
    let tersed = Setup::new()
        .config(good)
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(FOO);
    sink.wait_messages(1);

    fs::write(tersed.config_file(), "[dedup]\n\nwindow = \"soon\"\n").unwrap();
    tersed.signal(Signal::SIGHUP);
    let refusal = tersed.wait_log("reload refused");
    assert_eq!(refusal.level, "ERROR");
    for named in ["tersed.toml", "3", "window", "soon"] {
        assert!(refusal.mentions(named), "{refusal:?} does not name {named}");
    }
    assert_eq!(tersed.log_count("reloaded"), 0);

    originator.send_all([FOO, BAR]);
    sink.wait_messages(2);

    fs::write(tersed.config_file(), good).unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    originator.send(BAR);
    tersed.wait_received(4);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 2);
}

/// No process writes to the FIFO, so opening it, or reading it, would wait.
#[test]
fn sighup_refuses_a_fifo_in_place_of_the_configuration_and_sigterm_still_stops() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    fs::remove_file(tersed.config_file()).unwrap();
    make_fifo(&tersed.config_file());
    tersed.signal(Signal::SIGHUP);
    let refusal = tersed.wait_log("reload refused");
    let error = refusal.field("error").unwrap();
    assert!(
        error.ends_with("tersed.toml: a FIFO, expected a file"),
        "{error}"
    );
    Originator::tcp(tersed.address(TCP)).send(FOO);
    sink.wait_messages(1);
    tersed.finish();
}

/// Everything received before the signal is at the sink after the exit, and so are the summaries.
#[track_caller]
fn check_drains(signal: Signal) {
    let sink = Sink::tcp();
    let mut tersed = Setup::new()
        .listen(TCP)
        .forward(&sink.url())
        .window("1h")
        .start();
    let sent = Numbered::with_total(10_000);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(sent.rfc3164());
    tersed.wait_received(sent.total());
    tersed.assert_balance();

    // The originator is still connected, which must not delay the stop.
    let stopped = tersed.stop_by(signal);
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
    originator.wait_closed();
    let expected = usize::try_from(sent.distinct() / 4 * 7).unwrap();
    wait_until("all messages", LIMIT, || sink.count() >= expected);
    Tally::of(sink.messages()).assert_once_each(sent);
    let errors: Vec<_> = stopped
        .log
        .iter()
        .filter(|line| line.level == "ERROR")
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

const TCP: &str = "tcp://127.0.0.1:0";
const FOO: &str = "<13>Mar  1 12:00:00 host app: foo";
const BAR: &str = "<13>Mar  1 12:00:00 host app: bar";
