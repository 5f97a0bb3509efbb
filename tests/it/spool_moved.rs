//! A spool whose path leads elsewhere (its directory was moved, or something is mounted over it) accepts nothing until
//! it is back, reports that, and still delivers its contents.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::spool::{MANY, OCTETS, TCP, setup, with_many};
use super::spool_broken::Mounted;
use super::support::ordered::{assert_ordered, ordered, places};
use super::support::originator::Originator;
use super::support::process::run;
use super::support::relp::RelpClient;
use super::support::sink::RefusingPort;
use super::support::tersed::Tersed;
use super::support::wait::{LIMIT, wait_until};

#[test]
fn nothing_is_written_or_answered_while_another_directory_is_there() {
    let put = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    check_waits(
        put,
        " is another directory now (moved, or something is mounted over it); ",
    );
}

/// Even if the link leads to the directory itself, because the next start would refuse it.
#[test]
fn nothing_is_written_or_answered_while_a_symlink_is_there() {
    let put = |path: &Path| symlink(path.with_file_name("away"), path).unwrap();
    check_waits(
        put,
        " is another directory now (moved, or something is mounted over it); ",
    );
}

#[test]
fn nothing_is_written_or_answered_while_the_directory_is_away() {
    check_waits(|_| {}, " is not there any more (moved); ");
}

/// The relay notices it without writing anything, and notices the end of it. The contents of the hidden directory are
/// delivered.
#[test]
fn what_a_directory_holds_that_something_is_mounted_over_is_sent() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let spool = dir.path().join("spool");
    let port = RefusingPort::new();
    let (tersed, mut originator) = with_many(dir.path(), &port.url());
    tersed.wait_metric("tersed_spool_frames", &[], MANY as u64);
    let words = [
        "-t",
        "tmpfs",
        "-o",
        "mode=0700",
        "none",
        spool.to_str().unwrap(),
    ];
    run("mount", &words, "mount");
    let mounted = Mounted(spool.clone());
    tersed.wait_metric("tersed_spool_failing", &[], 1);
    let sink = port.open();
    originator.send_all((MANY..2 * MANY).map(|place| ordered(0, place, OCTETS)));
    wait_until("everything at the sink", LIMIT, || sink.count() >= 2 * MANY);
    let told = moved(&tersed);
    wait_until("it to be looked at again", LIMIT, || {
        moved(&tersed) > told + 1
    });
    assert!(tersed.get("/readyz").1.contains("spool: failing"));
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
    assert_eq!(tersed.log_count("spool error"), 1);
    drop(mounted);
    tersed.wait_metric("tersed_spool_failing", &[], 0);
    assert_eq!(tersed.log_count("spool accepts writes again"), 1);
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), 2 * MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

/// Moves the spool's directory away with messages in it, and `put` puts something at its path. Asserts that the relay
/// logs `words` and answers no RELP sender until the directory is back, and that everything arrives then, in order.
#[track_caller]
fn check_waits(put: impl Fn(&Path), words: &str) {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let (spool, away) = (dir.path().join("spool"), dir.path().join("away"));
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), "").listen(RELP).start();
    let mut client = RelpClient::open(tersed.address(RELP));
    let some = client.send_all((0..FEW).map(|place| ordered(0, place, OCTETS)));
    client.answers(2..=some, "200");
    fs::rename(&spool, &away).unwrap();
    put(&spool);
    let line = tersed.wait_log("spool error");
    let told = format!(
        "{}{words}what was spooled is in the old one: move it back, or restart after copying its segments",
        spool.display()
    );
    assert_eq!(line.field("error").unwrap(), told);
    tersed.wait_metric("tersed_spool_failing", &[], 1);

    let all = client.send_all((FEW..2 * FEW).map(|place| ordered(0, place, OCTETS)));
    let mut originator = Originator::tcp(tersed.address(TCP));
    tersed.wait_received(2 * FEW as u64);
    let told = moved(&tersed);
    // Noticed by the check each second, and by attempts to write.
    wait_until("it to be tried again", LIMIT, || moved(&tersed) > told + 4);
    assert!(!client.is_answered());
    assert!(tersed.get("/readyz").1.contains("spool: failing"));
    assert_eq!(tersed.log_count("spool error"), 1);
    assert_eq!(tersed.metrics().total("tersed_spool_frames"), FEW as u64);

    // An empty directory, a symbolic link, or nothing: nothing was written to what was put there.
    let _absent = fs::remove_file(&spool);
    let _absent = fs::remove_dir(&spool);
    fs::rename(&away, &spool).unwrap();
    client.answers(some + 1..=all, "200");
    tersed.wait_log("spool accepts writes again");
    tersed.wait_metric("tersed_spool_failing", &[], 0);
    assert_eq!(
        tersed.metrics().total("tersed_spool_frames"),
        2 * FEW as u64
    );
    originator.send_all((2 * FEW..3 * FEW).map(|place| ordered(0, place, OCTETS)));
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= 3 * FEW);
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), 3 * FEW, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

/// How often the directory was found not to be at its path.
fn moved(tersed: &Tersed) -> u64 {
    let metrics = tersed.metrics();
    metrics.total_where("tersed_spool_errors_total", &[("errno", "moved")])
}

const RELP: &str = "relp://127.0.0.1:0";
const FEW: usize = 200;
