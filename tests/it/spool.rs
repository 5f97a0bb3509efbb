//! With a spool, what memory cannot hold waits on disk and comes back in order: while the upstream is away, over a
//! stop, and over a kill.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::support::ordered::{assert_ordered, ordered, places};
use super::support::originator::Originator;
use super::support::relp::{Answers, RelpClient, RelpServer};
use super::support::sink::{Manner, RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn what_memory_cannot_hold_comes_back_in_order_with_newer_ones_behind() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let (tersed, mut originator) = with_many(dir.path(), &port.url());
    let metrics = tersed.metrics();
    assert_eq!(metrics.balance().queued, MANY as u64);
    assert!(metrics.total("tersed_spool_frames") > MANY as u64 * 9 / 10);
    assert!(metrics.total("tersed_spool_bytes") > (MANY * OCTETS) as u64 * 9 / 10);

    let sink = port.open();
    originator.send_all((MANY..2 * MANY).map(|place| ordered(0, place, OCTETS)));
    wait_until("everything at the sink", LIMIT, || sink.count() >= 2 * MANY);
    tersed.wait_metric("tersed_spool_frames", &[], 0);
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), 2 * MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    let left = metrics.total("tersed_spool_bytes");
    // Little more than the most that is kept for reuse.
    assert!(left < 2 << 20, "{left} octets were not given back");
}

/// The spool also helps with an upstream that is slower than the input.
#[test]
fn a_slow_upstream_gets_everything_in_order() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let sink = Sink::tcp_with_little_room().mannered(Manner::Slow(1000));
    let tersed = setup(dir.path(), &sink.url(), "").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    assert!(tersed.metrics().total("tersed_spool_frames") > 0);
    sink.behave(Manner::Read);
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
}

#[test]
fn a_stop_leaves_on_disk_what_nobody_took_and_the_next_start_sends_it() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), "").start();
    // So few that memory alone holds them.
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..FEW).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(FEW as u64);
    let (_, stopped) = tersed.finish();
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!([balance.queued, balance.dropped], [FEW as u64, 0]);

    let tersed = setup(dir.path(), &port.url(), "").start();
    assert_eq!(tersed.metrics().balance().recovered, FEW as u64);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((FEW..2 * FEW).map(|place| ordered(0, place, OCTETS)));
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= 2 * FEW);
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), 2 * FEW, 0);
    let balance = metrics.balance();
    assert_eq!(balance.forwarded, 2 * FEW as u64);
    assert_eq!([balance.recovered, balance.received], [FEW as u64; 2]);
}

/// What was in memory only is lost with the process; what was on disk is not.
#[test]
fn every_frame_that_was_in_the_spool_survives_a_kill() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let mut tersed = setup(dir.path(), &port.url(), "").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    // Once a part of it is on disk and no upstream takes it, all of it goes there.
    let spooled = MANY as u64;
    tersed.wait_metric("tersed_spool_frames", &[], spooled);
    tersed.assert_balance();
    tersed.stop_by(Signal::SIGKILL);

    let tersed = setup(dir.path(), &port.url(), "").start();
    assert_eq!(tersed.metrics().balance().recovered, spooled);
    let sink = port.open();
    wait_until("what was in the spool", LIMIT, || {
        sink.count() as u64 >= spooled
    });
    let mut tersed = tersed;
    tersed.wait_metric("tersed_spool_frames", &[], 0);
    tersed.assert_balance();
    let first: Vec<_> = places(&sink.messages(), OCTETS);
    assert_ordered(&first, usize::try_from(spooled).unwrap(), 0);

    // Killed once more after everything was delivered: nothing comes twice.
    tersed.stop_by(Signal::SIGKILL);
    let tersed = setup(dir.path(), &sink.url(), "").start();
    assert_eq!(tersed.metrics().balance().recovered, 0);
    tersed.finish();
}

#[test]
fn a_kill_while_the_spool_drains_loses_nothing_of_it() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let sink = Sink::tcp();
    let port = RefusingPort::new();
    let (tersed, _originator) = with_many(dir.path(), &port.url());
    tersed.finish();
    sink.behave(Manner::Slow(300_000));
    for share in [8, 6, 4, 2] {
        let mut tersed = setup(dir.path(), &sink.url(), "").start();
        tersed.balance_at_exit();
        wait_until("some of it", LIMIT, || {
            tersed.metrics().total("tersed_spool_frames") < MANY as u64 * share / 10
        });
        tersed.stop_by(Signal::SIGKILL);
    }
    sink.behave(Manner::Read);
    let tersed = setup(dir.path(), &sink.url(), "").start();
    let left = tersed.metrics().balance().recovered;
    assert!((1..MANY as u64 / 5).contains(&left), "{left} were left");
    tersed.wait_metric("tersed_spool_frames", &[], 0);
    tersed.finish();
    let there: BTreeSet<_> = places(&sink.messages(), OCTETS).into_iter().collect();
    assert_eq!(there.len(), MANY);
}

#[test]
fn a_full_spool_holds_senders_back_and_drops_nothing() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), "max_size = \"2MiB\"").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = std::thread::spawn(move || {
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
        originator
    });
    wait_until("the spool to be full", LIMIT, || {
        let metrics = tersed.metrics();
        metrics.total_where("tersed_spool_errors_total", &[("errno", "max_size")]) > 0
            && metrics.total("tersed_spool_bytes") > 1 << 20
    });
    assert!(tersed.metrics().total("tersed_spool_bytes") <= 2 << 20);
    assert!(tersed.get("/readyz").1.contains("spool: failing"));
    assert!(!sender.is_finished());
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    sender.join().unwrap();
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

#[test]
fn a_second_process_on_the_same_spool_is_refused_and_the_first_unharmed() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let (tersed, _originator) = with_many(dir.path(), &port.url());
    let (status, stderr) = setup(dir.path(), &port.url(), "").start_refused();
    assert!(!status.success());
    let named = [
        dir.path().display().to_string(),
        format!("process {}", tersed.id()),
    ];
    for name in named {
        assert!(stderr.contains(&name), "{name}: {stderr}");
    }
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    tersed.finish();
}

/// A message that waits on disk keeps its window open. Windows and spool do not affect each other.
#[test]
fn repeats_of_what_waits_on_the_disk_are_held_back() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), "").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    for _ in 0..2 {
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    }
    tersed.wait_received(2 * MANY as u64);
    let sink = port.open();
    wait_until("all first copies", LIMIT, || sink.count() >= MANY);
    let (metrics, _) = tersed.finish();
    let balance = metrics.balance();
    assert_eq!([balance.forwarded, balance.suppressed], [MANY as u64; 2]);
}

/// If no upstream can take its message for a while, a RELP sender is answered once the message is on disk, and not
/// before.
#[test]
fn a_relp_sender_is_answered_when_the_disk_has_its_message() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let mut tersed = setup(dir.path(), &port.url(), "").listen(RELP).start();
    let mut client = RelpClient::open(tersed.address(RELP));
    let last = client.send_all((0..FEW).map(|place| ordered(0, place, OCTETS)));
    // The first answer was the one to `open`.
    client.answers(2..=last, "200");
    let answered = tersed.metrics();
    assert_eq!(answered.total("tersed_spool_frames"), FEW as u64);
    tersed.balance_at_exit();
    tersed.stop_by(Signal::SIGKILL);

    let tersed = setup(dir.path(), &port.url(), "").start();
    assert_eq!(tersed.metrics().balance().recovered, FEW as u64);
    let sink = port.open();
    wait_until("what was answered", LIMIT, || sink.count() >= FEW);
    tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), FEW, 0);
}

/// Law 7 over a restart: the window was restored with the saved ones, and it is not known any more which of them belongs
/// to the refused message. The next copy still goes through.
#[test]
fn a_message_of_an_earlier_run_that_is_refused_may_come_again() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let server = RelpServer::new(Answers::AllBut("place"));
    let state = dir.path().join("windows");
    let with_state = |url: &str| {
        let state =
            format!("[[listener]]\nurl = \"{TCP}\"\n[dedup]\nwindow = \"1h\"\nstate = {state:?}\n");
        let spool = dir.path().join("spool");
        Setup::new()
            .config(&format!("{state}[spool]\ndirectory = {spool:?}\n"))
            .forward(url)
    };
    let port = RefusingPort::new();
    let tersed = with_state(&port.url()).start();
    Originator::tcp(tersed.address(TCP)).send(ordered(0, 0, OCTETS));
    tersed.wait_received(1);
    tersed.finish();

    let tersed = with_state(&server.url()).start();
    assert!(tersed.log_count("windows read back") > 0);
    let refused = |count| {
        tersed.wait_metric(
            "tersed_frames_dropped_total",
            &[("reason", "refused")],
            count,
        );
    };
    refused(1);
    Originator::tcp(tersed.address(TCP)).send(ordered(0, 0, OCTETS));
    refused(2);
    tersed.finish();
}

/// A relay that has received more than its memory holds, and the originator.
pub(super) fn with_many(dir: &Path, upstream: &str) -> (Tersed, Originator) {
    let tersed = setup(dir, upstream, "").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    (tersed, originator)
}

/// A relay with little memory and a spool in `dir`.
pub(super) fn setup(dir: &Path, upstream: &str, keys: &str) -> Setup {
    let directory = dir.join("spool");
    let config = format!(
        "[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"256KiB\"\nretry_max = \"200ms\"\n\
         [spool]\ndirectory = {directory:?}\n{keys}\n"
    );
    Setup::new().config(&config).listen(TCP).forward(upstream)
}

pub(super) const TCP: &str = "tcp://127.0.0.1:0";
const RELP: &str = "relp://127.0.0.1:0";
pub(super) const OCTETS: usize = 200;
/// More than memory holds.
pub(super) const MANY: usize = 50_000;
const FEW: usize = 200;
