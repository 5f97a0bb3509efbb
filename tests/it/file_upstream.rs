//! `file://` as an upstream: a full disk tears no frame, a reload opens the file again after a rotation, and a symbolic
//! link is not followed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;

use super::support::ordered::{assert_ordered, ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::proc_fs;
use super::support::process::run;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};

/// A file system of 256 KiB, visible to the relay only, fills up and gets room again.
#[test]
fn a_full_disk_tears_no_frame_and_everything_comes_once_when_there_is_room() {
    let setup = Setup::new();
    let (disk, survivors) = (setup.path("disk"), setup.path("disk/survivors.log"));
    fs::create_dir(&disk).unwrap();
    let tersed = setup
        .with_mounts(
            "mount -t tmpfs -o size=256k none disk; head -c 100000 /dev/zero >disk/ballast",
        )
        .config(QUICK)
        .listen(TCP)
        .forward(&url("file", &survivors))
        .start();
    let seen = tersed.seen(&survivors);
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(PLACES, OCTETS));
    tersed.wait_received(PLACES as u64);
    let lost = tersed.wait_log("upstream lost");
    assert!(lost.mentions("No space left on device"), "{lost:?}");
    wait_errors(&tersed, 5);
    assert_eq!(tersed.log_count("upstream lost"), 1, "{:#?}", tersed.log());

    let metrics = tersed.metrics();
    let balance = metrics.balance();
    assert!(balance.holds() && balance.dropped == 0, "{balance:?}");
    assert!(balance.queued > 0 && balance.forwarded > 0, "{balance:?}");
    let written = lines(&seen);
    assert_eq!(written.len() as u64, balance.forwarded);
    assert_eq!(
        places(&written, OCTETS),
        (0..written.len()).collect::<Vec<_>>()
    );

    fs::remove_file(tersed.seen(&disk.join("ballast"))).unwrap();
    wait_until("everything to be written", LIMIT, || {
        tersed.metrics().balance().queued == 0
    });
    let written = lines(&seen);
    assert_eq!(places(&written, OCTETS), (0..PLACES).collect::<Vec<_>>());
    let (metrics, _) = tersed.finish();
    assert_eq!(
        metrics.total("tersed_frames_forwarded_total"),
        PLACES as u64
    );
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
    assert_eq!(metrics.total("tersed_upstream_frames_total"), PLACES as u64);
}

/// The file can be opened each time but never written. That is one line of log in all, and what is left at the stop is
/// counted.
#[test]
fn a_device_that_is_always_full_is_named_once_and_what_is_left_is_counted() {
    let mut tersed = Setup::new()
        .config(&format!("{QUICK}[shutdown]\ngrace = \"100ms\"\n"))
        .listen(TCP)
        .forward("file:///dev/full")
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(["<13>one", "<13>two", "<13>one"]);
    tersed.wait_received(3);
    wait_errors(&tersed, 10);
    let told: Vec<_> = tersed
        .log()
        .into_iter()
        .filter(|line| line.mentions("file:///dev/full"))
        .map(|line| line.message)
        .collect();
    assert!(told.len() <= 2, "{told:?}");
    assert_eq!(told.iter().filter(|m| *m == "upstream lost").count(), 1);
    assert_eq!(tersed.assert_balance().balance().queued, 2);
    let stopped = tersed.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
    let last = stopped.log.last().unwrap();
    assert_eq!(last.message, "stopped");
    let counts = ["received", "forwarded", "suppressed", "dropped", "queued"];
    let counts = counts.map(|name| last.field(name).unwrap());
    assert_eq!(counts, ["3", "0", "1", "2", "0"]);
}

#[test]
fn a_rotated_file_is_let_go_at_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("survivors.log");
    let rotated = dir.path().join("survivors.log.1");
    let tersed = Setup::new()
        .config(QUICK)
        .listen(TCP)
        .forward(&url("file", &survivors))
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(10, OCTETS));
    wait_lines(&survivors, 10);
    fs::rename(&survivors, &rotated).unwrap();
    // Until the reload, it keeps writing to the open file.
    originator.send(ordered(0, 10, OCTETS));
    wait_lines(&rotated, 11);
    assert!(!survivors.exists());

    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    originator.send(ordered(0, 11, OCTETS));
    wait_lines(&survivors, 1);
    tersed.finish();
    assert_eq!(places(&lines(&survivors), OCTETS), [11]);
    assert_eq!(
        places(&lines(&rotated), OCTETS),
        (0..11).collect::<Vec<_>>()
    );
}

/// A user who may write to the directory must not choose which file the relay writes to.
#[test]
fn a_symlink_in_place_of_the_file_is_refused_and_its_target_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (survivors, target) = (dir.path().join("survivors.log"), dir.path().join("target"));
    fs::write(&target, "precious\n").unwrap();
    std::os::unix::fs::symlink(&target, &survivors).unwrap();
    let tersed = Setup::new()
        .config(QUICK)
        .listen(TCP)
        .forward(&url("file", &survivors))
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(3, OCTETS));
    tersed.wait_received(3);
    let lost = tersed.wait_log("cannot connect to upstream");
    assert!(lost.mentions("survivors.log"), "{lost:?}");
    assert!(lost.mentions("symbolic link"), "{lost:?}");
    wait_errors(&tersed, 3);
    assert_eq!(fs::read(&target).unwrap(), b"precious\n");

    fs::remove_file(&survivors).unwrap();
    wait_lines(&survivors, 3);
    tersed.finish();
    assert_eq!(fs::read(&target).unwrap(), b"precious\n");
}

/// The file is on a disk that does not answer for a while. Neither a stop nor the next upstream waits for it.
#[test]
fn a_disk_that_hangs_is_given_up_and_holds_one_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (survivors, hangs) = (dir.path().join("survivors.log"), dir.path().join("hangs"));
    let sink = Sink::tcp();
    let tersed = with_shim(Setup::new(), &hangs)
        .config(&format!(
            "{QUICK}send_timeout = \"200ms\"\nconnect_timeout = \"50ms\"\n"
        ))
        .listen(TCP)
        .forward(&url("file", &survivors))
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(10, OCTETS));
    wait_lines(&survivors, 10);
    fs::write(&hangs, "").unwrap();
    originator.send_all((10..20).map(|place| ordered(0, place, OCTETS)));
    sink.wait_messages(10);
    let lost = tersed.wait_log("upstream lost");
    assert!(lost.mentions("took nothing for 200ms"), "{lost:?}");
    wait_errors(&tersed, 10);
    assert_eq!(proc_fs::threads_named(tersed.id(), "tersed-output"), 1);
    fs::remove_file(&hangs).unwrap();
    // What the disk was writing is in the file as well: it came late, but whole.
    wait_lines(&survivors, 20);
    originator.send_all((20..30).map(|place| ordered(0, place, OCTETS)));
    wait_until("all of it", LIMIT, || {
        tersed.metrics().balance().queued == 0
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 30);
    let mut all = places(&lines(&survivors), OCTETS);
    assert_eq!(all[..20], (0..20).collect::<Vec<_>>());
    all.extend(places(&sink.messages(), OCTETS));
    assert_ordered(&all, 30, 10);
}

#[test]
fn a_stop_does_not_wait_for_a_disk_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (survivors, hangs) = (dir.path().join("survivors.log"), dir.path().join("hangs"));
    let mut tersed = with_shim(Setup::new(), &hangs)
        .config(&format!(
            "{QUICK}send_timeout = \"200ms\"\n[shutdown]\ngrace = \"100ms\"\n"
        ))
        .listen(TCP)
        .forward(&url("file", &survivors))
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(10, OCTETS));
    wait_lines(&survivors, 10);
    fs::write(&hangs, "").unwrap();
    originator.send_all((10..30).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(30);
    tersed.wait_log("upstream takes nothing; waiting for it");
    tersed.balance_at_exit();
    let stopped = tersed.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.forwarded, balance.dropped), (10, 20));
    assert_eq!(
        places(&lines(&survivors), OCTETS),
        (0..10).collect::<Vec<_>>()
    );
}

/// If the thread for a file cannot be made, that is an error of the upstream, and tried again.
#[test]
fn a_file_that_no_thread_can_be_made_for_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let survivors = dir.path().join("survivors.log");
    let everyone = || fs::Permissions::from_mode(0o777);
    fs::set_permissions(dir.path(), everyone()).unwrap();
    let setup = Setup::new();
    fs::set_permissions(setup.path("."), everyone()).unwrap();
    // The thread limit does not apply to root.
    let tersed = setup
        .launcher(AS_ANOTHER)
        .config(QUICK)
        .listen(TCP)
        .forward(&url("file", &survivors))
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, OCTETS));
    wait_lines(&survivors, 1);
    let threads_max = |count: &str| {
        let (limit, process) = (format!("--nproc={count}:"), tersed.id().to_string());
        let args = ["prlimit", &limit, "--pid", &process];
        run("setpriv", &[&AS_ANOTHER[1..], &args].concat(), "util-linux");
    };
    threads_max("1");
    fs::rename(&survivors, dir.path().join("rotated")).unwrap();
    tersed.signal(Signal::SIGHUP);
    let lost = tersed.wait_log("upstream lost");
    assert!(
        lost.mentions("Resource temporarily unavailable"),
        "{lost:?}"
    );
    originator.send(ordered(0, 1, OCTETS));
    threads_max("1000");
    wait_lines(&survivors, 1);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 2);
    assert_eq!(places(&lines(&survivors), OCTETS), [1]);
}

/// Runs the relay on a C library in which writes to regular files hang while the file `hangs` exists.
fn with_shim(setup: Setup, hangs: &Path) -> Setup {
    let shim = setup.path("disk_shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/disk_shim.c");
    let shim = shim.to_str().unwrap();
    run("cc", &["-shared", "-fPIC", "-o", shim, source], "gcc");
    setup
        .environment("LD_PRELOAD", shim)
        .environment("TERSED_TEST_DISK_HANGS", hangs.to_str().unwrap())
}

#[track_caller]
fn wait_errors(tersed: &Tersed, count: u64) {
    wait_until(&format!("{count} attempts"), LIMIT, || {
        tersed.metrics().total("tersed_upstream_errors_total") >= count
    });
}

#[track_caller]
fn wait_lines(path: &Path, count: usize) {
    wait_until(
        &format!("{count} lines in {}", path.display()),
        LIMIT,
        || path.exists() && lines(path).len() >= count,
    );
}

/// The lines of a file, which must end with a line feed.
#[track_caller]
fn lines(path: &Path) -> Vec<Vec<u8>> {
    let octets = fs::read(path).unwrap();
    let whole = octets.is_empty() || octets.ends_with(b"\n");
    assert!(whole, "a torn line at the end of {}", path.display());
    let lines = octets.split_inclusive(|&octet| octet == b'\n');
    lines.map(|line| line[..line.len() - 1].to_vec()).collect()
}

const AS_ANOTHER: [&str; 4] = [
    "setpriv",
    "--reuid=65533",
    "--regid=65533",
    "--clear-groups",
];
const TCP: &str = "tcp://127.0.0.1:0";
const QUICK: &str =
    "[dedup]\nwindow = \"1h\"\n[forward]\nretry_min = \"10ms\"\nretry_max = \"50ms\"\n";
/// With the ballast, more than the disk holds; without it, less.
const PLACES: usize = 2000;
const OCTETS: usize = 97;
