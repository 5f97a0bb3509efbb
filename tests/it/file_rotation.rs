//! `file://` with `rotate_*`: by size and by age, compressed or not, no frame is lost or torn, and there are never more
//! files than may be kept.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use ruzstd::decoding::StreamingDecoder;

use super::support::ordered::{ordered, ordered_all, place_of, places};
use super::support::originator::Originator;
use super::support::process::run;
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};

/// All files together, in the order of their names, contain exactly what was sent.
#[test]
fn files_are_rotated_by_size_and_compressed_and_hold_every_frame_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("once.log");
    let tersed = start(Setup::new(), &survivors, "rotate_size = \"1MiB\"");
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(PLACES, OCTETS));
    tersed.wait_received(PLACES as u64);
    wait_forwarded(&tersed, PLACES);
    wait_compressed(dir.path());
    let (metrics, _) = tersed.finish();
    let rotated = rotated(dir.path());
    let count = metrics.total("tersed_upstream_rotations_total");
    assert_eq!(rotated.len() as u64, count);
    let octets = PLACES * (OCTETS + 1);
    assert!(rotated.len() >= octets / MIB, "{rotated:?}");
    let mut all = Vec::new();
    for path in &rotated {
        let (name, text) = (path.to_str().unwrap(), decoded(path));
        assert!(name.ends_with("Z.zst"), "{name}");
        assert!(text.len() <= MIB, "{name}: {} octets", text.len());
        assert!(fs::metadata(path).unwrap().len() < text.len() as u64 / 3);
        all.extend(lines(&text));
    }
    assert!(fs::metadata(&survivors).unwrap().len() <= MIB as u64);
    all.extend(lines(&fs::read(&survivors).unwrap()));
    assert_eq!(places(&all, OCTETS), (0..PLACES).collect::<Vec<_>>());
    assert_eq!(metrics.total("tersed_upstream_rotation_errors_total"), 0);
    assert_eq!(metrics.total("tersed_upstream_rotated_deleted_total"), 0);
}

#[test]
fn the_oldest_are_deleted_when_there_are_more_than_may_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("once.log");
    let keys = "rotate_size = \"1MiB\", rotate_keep = 2, compress = \"off\"";
    let tersed = start(Setup::new(), &survivors, keys);
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(PLACES, OCTETS));
    wait_forwarded(&tersed, PLACES);
    wait_until("the rest to be deleted", LIMIT, || {
        rotated(dir.path()).len() <= 2
    });
    let (metrics, stopped) = tersed.finish();
    let deleted = metrics.total("tersed_upstream_rotated_deleted_total");
    let rotations = metrics.total("tersed_upstream_rotations_total");
    assert_eq!(rotations - deleted, 2);
    let told = stopped.log_count("deleted the oldest rotated file");
    assert_eq!(told as u64, deleted);
    // The remaining files contain the end of it, without a gap.
    let left = rotated(dir.path()).into_iter().chain([survivors]);
    let all: Vec<_> = left
        .flat_map(|path| lines(&fs::read(path).unwrap()))
        .collect();
    let places = places(&all, OCTETS);
    assert_eq!(places, (PLACES - places.len()..PLACES).collect::<Vec<_>>());
    assert!(places.len() * (OCTETS + 1) > 2 * MIB * 9 / 10);
}

/// The clock for ages is ahead by the time for which the machine was suspended.
#[test]
fn a_file_is_rotated_when_its_first_octet_is_so_old() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("once.log");
    let setup = Setup::new();
    let shim = setup.path("clock_shim.so");
    let shim = shim.to_str().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/clock_shim.c");
    let args = [
        "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", shim, source,
    ];
    run("cc", &args, "gcc");
    let suspended = setup.path("suspended");
    let setup = setup
        .environment("LD_PRELOAD", shim)
        .environment("TERSED_TEST_SUSPENDED", suspended.to_str().unwrap());
    let tersed = start(
        setup,
        &survivors,
        "rotate_age = \"1day\", compress = \"off\"",
    );
    let suspend = |secs: u32| {
        fs::write(tersed.path("new"), secs.to_string()).unwrap();
        fs::rename(tersed.path("new"), &suspended).unwrap();
    };
    let mut originator = Originator::tcp(tersed.address(TCP));
    let mut send = |place: usize| {
        originator.send(ordered(0, place, OCTETS));
        wait_forwarded(&tersed, place + 1);
    };
    // An empty file has no age, however long it is open.
    suspend(2 * DAY);
    send(0);
    suspend(3 * DAY - 3600);
    send(1);
    assert!(rotated(dir.path()).is_empty());
    suspend(3 * DAY);
    send(2);
    assert_eq!(rotated(dir.path()).len(), 1);
    suspend(4 * DAY);
    send(3);
    suspend(4 * DAY + 3600);
    send(4);
    tersed.finish();
    // The wall clock jumps by years all the time; the names still sort correctly.
    let files = rotated(dir.path()).into_iter().chain([survivors]);
    let found: Vec<_> = files
        .map(|path| places(&lines(&fs::read(path).unwrap()), OCTETS))
        .collect();
    assert_eq!(found, [vec![0, 1], vec![2], vec![3, 4]]);
}

/// A file that an earlier run began keeps its age.
#[test]
fn a_file_of_an_earlier_run_goes_on_ageing_and_growing() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("once.log");
    let keys = "rotate_size = \"1MiB\", compress = \"off\"";
    for run in 0..3 {
        let tersed = start(Setup::new(), &survivors, keys);
        let half = (0..600).map(|place| ordered(run, place, OCTETS));
        Originator::tcp(tersed.address(TCP)).send_all(half);
        wait_forwarded(&tersed, 600);
        tersed.finish();
    }
    let rotated = rotated(dir.path());
    assert_eq!(rotated.len(), 1, "{rotated:?}");
    let files = rotated.into_iter().chain([survivors]);
    let all: Vec<_> = files
        .flat_map(|path| lines(&fs::read(path).unwrap()))
        .map(|line| place_of(&line, OCTETS))
        .collect();
    let expected = (0..3).flat_map(|run| (0..600).map(move |place| (run, place)));
    assert_eq!(all, expected.collect::<Vec<_>>());
}

/// The relay is killed again and again at arbitrary moments: no rotated frame is lost or torn, and nothing unfinished
/// remains.
#[test]
fn a_run_that_was_killed_leaves_nothing_that_the_next_does_not_finish() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("once.log");
    let keys = "rotate_size = \"1MiB\", rotate_keep = 1000";
    let mut forwarded = Vec::new();
    for run in 0..KILLS {
        let mut tersed = start(Setup::new(), &survivors, keys);
        let address = tersed.address(TCP);
        let sender = std::thread::spawn(move || {
            let messages = (0..50_000).map(|place| ordered(run, place, OCTETS) + "\n");
            Originator::tcp(address).send_until_closed(messages);
        });
        // A little later each time, so that the kill meets different work.
        let wanted = 1500 + 431 * run as u64;
        wait_until("it to be in the middle of it", LIMIT, || {
            let metrics = tersed.metrics();
            let done = metrics.total("tersed_frames_forwarded_total");
            if done >= wanted {
                forwarded.push(done);
            }
            done >= wanted
        });
        tersed.balance_at_exit();
        tersed.stop_by(Signal::SIGKILL);
        sender.join().unwrap();
    }
    let tersed = start(Setup::new(), &survivors, keys);
    wait_compressed(dir.path());
    tersed.finish();
    let files = rotated(dir.path()).into_iter().chain([survivors]);
    let all: Vec<Vec<u8>> = files.flat_map(|path| lines(&decoded(&path))).collect();
    let mut next = [0; KILLS];
    let mut torn = 0;
    for line in &all {
        // A frame that a kill cut off is a line of its own: at most one for each kill.
        if line.len() < OCTETS {
            torn += 1;
            continue;
        }
        let (run, place) = place_of(line, OCTETS);
        assert_eq!(place, next[run], "of run {run}");
        next[run] += 1;
    }
    assert!(torn <= KILLS, "{torn} torn lines");
    for (run, (there, counted)) in next.iter().zip(&forwarded).enumerate() {
        assert!(
            *there as u64 >= *counted,
            "run {run}: {there} of {counted} that were counted"
        );
    }
}

/// Symbolic links beside the file are neither followed nor compressed nor counted.
#[test]
fn symlinks_are_neither_followed_nor_compressed_nor_counted() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    fs::write(&target, "precious\n").unwrap();
    let survivors = dir.path().join("once.log");
    let planted = [
        "once.log.20200101T000000.000000Z",
        "once.log.20200101T000001.000000Z.zst",
        "once.log.20200101T000002.000000Z.zst.part",
    ];
    for name in planted {
        std::os::unix::fs::symlink(&target, dir.path().join(name)).unwrap();
    }
    let keys = "rotate_size = \"1MiB\", rotate_keep = 1";
    let tersed = start(Setup::new(), &survivors, keys);
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(3000, OCTETS));
    wait_forwarded(&tersed, 3000);
    wait_until("one to be left", LIMIT, || {
        let names = names(dir.path());
        let ours = names
            .iter()
            .filter(|name| !planted.contains(&name.as_str()));
        ours.count() == 2 && names.iter().any(|name| name.ends_with(".zst"))
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_upstream_rotation_errors_total"), 0);
    assert_eq!(fs::read(&target).unwrap(), b"precious\n");
    for name in planted {
        assert!(dir.path().join(name).is_symlink(), "{name}");
    }
}

/// The file's name has the maximum length, so the longer name of a rotated file is impossible.
#[test]
fn a_rotation_that_fails_is_told_once_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("x".repeat(250));
    let tersed = start(Setup::new(), &survivors, "rotate_size = \"1MiB\"");
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(PLACES, OCTETS));
    wait_forwarded(&tersed, PLACES);
    let told = tersed.wait_log("cannot rotate; the file grows");
    assert!(told.mentions("File name too long"), "{told:?}");
    let (metrics, stopped) = tersed.finish();
    assert_eq!(stopped.log_count("cannot rotate; the file grows"), 1);
    assert!(metrics.total("tersed_upstream_rotation_errors_total") > 0);
    assert_eq!(metrics.total("tersed_upstream_errors_total"), 0);
    let all = lines(&fs::read(&survivors).unwrap());
    assert_eq!(places(&all, OCTETS), (0..PLACES).collect::<Vec<_>>());
}

/// There is room for the file but not for its compressed form: it stays uncompressed until there is.
#[test]
fn a_disk_too_full_to_compress_on_keeps_the_file_and_forwarding_goes_on() {
    let setup = Setup::new();
    let (disk, survivors) = (setup.path("disk"), setup.path("disk/once.log"));
    fs::create_dir(&disk).unwrap();
    // It does not compress, so its compressed form is as large, and both do not fit.
    let old = "once.log.20200101T000000.000000Z";
    let script =
        format!("mount -t tmpfs -o size=3m none disk; head -c 2000000 /dev/urandom >disk/{old}");
    let setup = setup.with_mounts(&script);
    let tersed = start(setup, &survivors, "rotate_size = \"100MiB\"");
    let told = tersed.wait_log("cannot manage rotated files");
    assert!(told.mentions("No space left on device"), "{told:?}");
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(100, OCTETS));
    wait_forwarded(&tersed, 100);
    let seen = tersed.seen(&disk);
    assert_eq!(names(&seen), ["once.log", old]);
    assert_eq!(fs::metadata(seen.join(old)).unwrap().len(), 2_000_000);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_upstream_rotation_errors_total"), 1);
    assert_eq!(metrics.total("tersed_upstream_errors_total"), 0);
}

fn start(setup: Setup, survivors: &Path, keys: &str) -> Tersed {
    let to = url("file", survivors);
    setup
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nto = [{{ url = \"{to}\", {keys} }}]\n"
        ))
        .listen(TCP)
        .start()
}

#[track_caller]
fn wait_forwarded(tersed: &Tersed, count: usize) {
    tersed.wait_metric("tersed_frames_forwarded_total", &[], count as u64);
}

/// Waits until no file is left to be compressed.
#[track_caller]
fn wait_compressed(dir: &Path) {
    wait_until("everything to be compressed", LIMIT, || {
        rotated(dir)
            .iter()
            .all(|path| path.extension().is_some_and(|ending| ending == "zst"))
    });
}

/// All names in `dir`, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

/// The rotated files in `dir`, oldest first.
fn rotated(dir: &Path) -> Vec<PathBuf> {
    let names = names(dir).into_iter();
    let rotated = names.filter(|name| name.starts_with("once.log."));
    rotated.map(|name| dir.join(name)).collect()
}

/// The contents of a file, decompressed if necessary.
#[track_caller]
fn decoded(path: &Path) -> Vec<u8> {
    let octets = fs::read(path).unwrap();
    if path.extension().is_none_or(|ending| ending != "zst") {
        return octets;
    }
    let mut text = Vec::new();
    let mut decoder = StreamingDecoder::new(octets.as_slice()).unwrap();
    decoder.read_to_end(&mut text).unwrap();
    text
}

/// The lines of a text, which must end with a line feed.
#[track_caller]
fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    let whole = text.is_empty() || text.ends_with(b"\n");
    assert!(whole, "a torn line at the end");
    let lines = text.split_inclusive(|&octet| octet == b'\n');
    lines.map(|line| line[..line.len() - 1].to_vec()).collect()
}

const TCP: &str = "tcp://127.0.0.1:0";
const MIB: usize = 1 << 20;
const DAY: u32 = 24 * 3600;
/// Enough for more than five files.
const PLACES: usize = 6000;
const OCTETS: usize = 1000;
const KILLS: usize = 6;
