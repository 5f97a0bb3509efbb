//! A full spool has room again when it has drained, drops its oldest messages if configured so, and keeps no space that
//! it does not use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::spool::{MANY, OCTETS, TCP, setup, with_many};
use super::spool_broken::{Mounted, wait_errors};
use super::support::numbered::repeats;
use super::support::ordered::{assert_ordered, ordered, places, without_summaries};
use super::support::originator::Originator;
use super::support::sink::{Manner, RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, now, wait_until};

#[test]
fn a_spool_that_was_full_and_drained_does_not_fail_any_more() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), "max_size = \"2MiB\"").start();
    assert_eq!(tersed.log_count("the disk has less room than"), 0);
    check_recovers(tersed, port, "max_size");
}

#[test]
fn a_disk_that_was_full_and_drained_does_not_fail_any_more() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let disk = Mounted::tmpfs(dir.path(), "4m");
    let port = RefusingPort::new();
    let tersed = setup(&disk.0, &port.url(), "").start();
    let told = tersed.wait_log(
        "the disk has less free space than spool.max_size; free some space there, or lower spool.max_size",
    );
    assert_eq!(told.field("max_size").as_deref(), Some("1GiB"));
    let lacking = told
        .field("lacking_octets")
        .unwrap()
        .parse::<u64>()
        .unwrap();
    assert!((1020 << 20..1024 << 20).contains(&lacking), "{lacking}");
    check_recovers(tersed, port, "ENOSPC");
}

/// Fills the spool until it fails with `errno` and lets it drain. Nothing more is sent: within two seconds the failure
/// has ended.
#[track_caller]
fn check_recovers(tersed: Tersed, port: RefusingPort, errno: &str) {
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = std::thread::spawn(move || {
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    });
    wait_errors(&tersed, errno);
    wait_until("the spool to fail", LIMIT, || {
        tersed.metrics().total("tersed_spool_failing") == 1
    });
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    sender.join().unwrap();
    tersed.wait_metric("tersed_spool_frames", &[], 0);
    wait_until("the spool to fail no more", Duration::from_secs(2), || {
        tersed.metrics().total("tersed_spool_failing") == 0
    });
    let (status, text) = tersed.get("/readyz");
    assert!(status == 200 && !text.contains("failing"), "{text}");
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

#[test]
fn with_drop_oldest_a_full_spool_keeps_the_newest() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    check_newest(dir.path(), "max_size = \"2MiB\"");
}

#[test]
fn with_drop_oldest_a_full_disk_keeps_the_newest() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let disk = Mounted::tmpfs(dir.path(), "3m");
    check_newest(&disk.0, "");
}

/// The spool holds only a part of what is sent. The last part arrives without a gap. What was dropped is counted, and
/// goes through when it comes again. Suppressed copies are reported.
#[track_caller]
fn check_newest(dir: &Path, keys: &str) {
    let port = RefusingPort::new();
    let mut tersed = dropping_oldest(dir, &port.url(), keys).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let pairs = (0..MANY).flat_map(|place| [ordered(0, place, OCTETS), ordered(0, place, OCTETS)]);
    originator.send_all(pairs);
    tersed.wait_received(2 * MANY as u64);
    let full = tersed.assert_balance();
    let dropped = full.total_where("tersed_frames_dropped_total", &[("reason", "queue_full")]);
    assert_eq!(dropped, full.balance().dropped);
    assert!(dropped > MANY as u64 / 4, "{dropped} were dropped");
    assert!(full.balance().queued > 1000, "{:?}", full.balance());
    assert_eq!(full.total("tersed_spool_failing"), 0);
    let told = tersed.log_count("dropped the oldest frames because the spool is full");
    assert!((1..20).contains(&told), "told {told} times");

    let sink = port.open();
    tersed.wait_metric("tersed_frames_queued", &[], 0);
    originator.send(ordered(0, 0, OCTETS));
    wait_until("what was dropped, once more", LIMIT, || {
        let messages = without_summaries(sink.messages());
        places(&messages, OCTETS).last() == Some(&0)
    });
    // A summary reports each copy that was suppressed under a dropped message. The summary is at the sink, or was
    // dropped.
    wait_until("all copies to be spoken of", LIMIT, || {
        let messages = sink.messages();
        let texts = messages
            .iter()
            .map(|message| String::from_utf8_lossy(message));
        let spoken_of = texts.filter_map(|text| repeats(&text)).sum::<u64>();
        let metrics = tersed.metrics();
        let lost = metrics.total("tersed_summaries_dropped_total");
        spoken_of + lost == metrics.total("tersed_summarized_frames_total")
            && spoken_of + lost == metrics.balance().dropped
    });
    let dropped = tersed.metrics().balance().dropped;
    let mut arrived = places(&without_summaries(sink.messages()), OCTETS);
    arrived.pop();
    let first = arrived[0];
    assert_eq!(arrived, (first..MANY).collect::<Vec<_>>());
    assert_eq!(dropped, first as u64);
    let (_, stopped) = tersed.finish();
    assert_eq!(stopped.balance().suppressed, MANY as u64);
}

/// What is in memory at the stop is newer than what is on disk.
#[test]
fn with_drop_oldest_a_stop_keeps_the_newest() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let keys = "max_size = \"2MiB\"";
    let tersed = dropping_oldest(dir.path(), &port.url(), keys).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    let (_, stopped) = tersed.finish();
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    let left = balance.queued;
    assert!(left > 1000, "{balance:?}");
    let sink = port.open();
    let tersed = dropping_oldest(dir.path(), &sink.url(), keys).start();
    assert_eq!(tersed.metrics().balance().recovered, left);
    tersed.wait_metric("tersed_frames_queued", &[], 0);
    tersed.finish();
    let first = MANY - usize::try_from(left).unwrap();
    assert_eq!(
        places(&sink.messages(), OCTETS),
        (first..MANY).collect::<Vec<_>>()
    );
}

/// An outage fills a small disk, and it drains. The next outage has all of the room again, and so has a stop.
#[test]
fn the_room_of_a_small_disk_is_there_again_for_the_next_outage() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let disk = Mounted::tmpfs(dir.path(), "4m");
    let port = RefusingPort::new();
    let tersed = setup(&disk.0, &port.url(), "").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = std::thread::spawn(move || {
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
        originator
    });
    wait_errors(&tersed, "ENOSPC");
    let mut sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    let mut originator = sender.join().unwrap();
    tersed.wait_metric("tersed_spool_frames", &[], 0);
    wait_until(
        "nothing removed to be held open",
        Duration::from_secs(2),
        || removed_files(&tersed).is_empty(),
    );
    wait_until("the spool to fail no more", Duration::from_secs(2), || {
        tersed.metrics().total("tersed_spool_failing") == 0
    });
    let used = used_octets(&disk.0);
    assert!(used < 1 << 20, "{used} octets of the disk are in use");

    sink.stop();
    tersed.wait_metric("tersed_upstream_up", &[], 0);
    originator.send_all((MANY..MANY + SOME).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received((MANY + SOME) as u64);
    let (_, stopped) = tersed.finish();
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!(balance.dropped, 0, "{balance:?}");
    sink.restart();
    let tersed = setup(&disk.0, &sink.url(), "").start();
    wait_until("the last message at the sink", LIMIT, || {
        places(&sink.messages(), OCTETS).contains(&(MANY + SOME - 1))
    });
    tersed.finish();
}

/// An operator deletes the files to make room. The disk gets the space back, although nothing is sent or received
/// meanwhile.
#[test]
fn no_file_is_held_open_that_others_removed() {
    let remove_directory = |spool: &Path| fs::remove_dir_all(spool).unwrap();
    let remove_files = |spool: &Path| {
        for entry in fs::read_dir(spool).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    };
    for remove in [remove_directory as fn(&Path), remove_files] {
        let dir = TempDir::with_prefix("tersed-spool-").unwrap();
        let spool = dir.path().join("spool");
        // The sink takes a little, so that a file is open for reading, too.
        let sink = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
        let (tersed, mut originator) = with_many(dir.path(), &sink.url());
        wait_until("most to be on the disk", LIMIT, || {
            tersed.metrics().total("tersed_spool_frames") > MANY as u64 / 2
        });
        remove(&spool);
        let start = now();
        wait_until("nothing removed to be held open", LIMIT, || {
            removed_files(&tersed).is_empty()
        });
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        // The path is used again, by this process only.
        originator.send_all((MANY..2 * MANY).map(|place| ordered(0, place, OCTETS)));
        tersed.wait_received(2 * MANY as u64);
        wait_until("the new ones on the disk", LIMIT, || {
            spool.join("lock").exists() && used_octets(&spool) > (MANY * OCTETS / 2) as u64
        });
        let (status, stderr) = setup(dir.path(), &sink.url(), "").start_refused();
        assert!(
            !status.success() && stderr.contains("is in use by"),
            "{stderr}"
        );
        sink.behave(Manner::Read);
        wait_until("the last message at the sink", LIMIT, || {
            places(&sink.messages(), OCTETS).contains(&(2 * MANY - 1))
        });
        let (metrics, _) = tersed.finish();
        let lost = metrics.total_where(
            "tersed_frames_dropped_total",
            &[("reason", "spool_damaged")],
        );
        assert_eq!(lost + sink.count() as u64, 2 * MANY as u64);
    }
}

/// What was read from disk by then is in memory, and is written to the new directory at the stop.
#[test]
fn what_is_in_hand_when_the_directory_is_removed_outlives_a_stop() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let spool = dir.path().join("spool");
    let stuck = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
    let (mut tersed, _originator) = with_many(dir.path(), &stuck.url());
    tersed.assert_balance();
    fs::remove_dir_all(&spool).unwrap();
    wait_until("a new directory", LIMIT, || spool.join("lock").exists());
    let stopped = tersed.terminate();
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");

    let sink = Sink::tcp();
    let tersed = setup(dir.path(), &sink.url(), "").start();
    tersed.wait_metric("tersed_frames_queued", &[], 0);
    let (metrics, _) = tersed.finish();
    let recovered = metrics.balance().recovered;
    // What was written and not acknowledged may come again.
    assert!(recovered >= balance.queued, "{recovered}, {balance:?}");
    let lost = metrics.total_where(
        "tersed_frames_dropped_total",
        &[("reason", "spool_damaged")],
    );
    // Everything arrives except what had not been read from disk, and that is counted.
    assert!(lost > 0 && lost < recovered, "{lost} of {recovered}");
    stuck.behave(Manner::Read);
    wait_until("all that is not counted as lost", LIMIT, || {
        let arrived = [
            places(&stuck.messages(), OCTETS),
            places(&sink.messages(), OCTETS),
        ];
        let arrived: BTreeSet<_> = arrived.into_iter().flatten().collect();
        arrived.len() as u64 + lost == MANY as u64
    });
}

/// A relay with little memory and a spool in `dir` that drops the oldest.
fn dropping_oldest(dir: &Path, upstream: &str, keys: &str) -> Setup {
    let directory = dir.join("spool");
    let config = format!(
        "[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"256KiB\"\nretry_max = \"200ms\"\n\
         when_full = \"drop-oldest\"\n[spool]\ndirectory = {directory:?}\n{keys}\n"
    );
    Setup::new().config(&config).listen(TCP).forward(upstream)
}

/// The files that the relay has open and that have no name any more.
fn removed_files(tersed: &Tersed) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", tersed.id())).unwrap();
    let files = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    files
        .filter(|path| {
            let name = path.to_string_lossy();
            name.contains("/spool") && name.ends_with(" (deleted)")
        })
        .collect()
}

/// The octets that the files in `dir` occupy.
fn used_octets(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => used_octets(&path),
            false => fs::metadata(&path).map_or(0, |meta| meta.len()),
        })
        .sum()
}

/// More than memory holds, and less than a small disk.
const SOME: usize = 6000;
