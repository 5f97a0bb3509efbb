//! A disk that is full, read-only, removed or damaged costs only what it affects, and is named.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::spool::{MANY, OCTETS, TCP, setup, with_many};
use super::support::ordered::{assert_ordered, ordered, places};
use super::support::originator::Originator;
use super::support::process::run;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::Tersed;
use super::support::wait::{LIMIT, wait_until};

/// The disk is full, then there is space again.
#[test]
fn a_full_disk_holds_senders_back_and_is_used_again_when_there_is_space() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let disk = Mounted::tmpfs(dir.path(), "4m");
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let port = RefusingPort::new();
    let tersed = setup(&disk.0, &port.url(), "").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = std::thread::spawn(move || {
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    });
    wait_errors(&tersed, "ENOSPC");
    assert!(tersed.get("/readyz").1.contains("spool: failing"));
    let there = tersed.metrics().total("tersed_spool_frames");
    assert!(there > 0);
    fs::remove_file(&ballast).unwrap();
    wait_until("the space to be used", LIMIT, || {
        tersed.metrics().total("tersed_spool_frames") > there
    });
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    sender.join().unwrap();
    let (metrics, stopped) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    assert!(stopped.stderr.contains("no space left on the disk"));
}

/// Forwarding continues as long as the upstream works, and the disk is tried again. The relay runs on a C library that
/// returns the errors of such a disk, see `support/disk_shim.c`.
#[test]
fn a_disk_that_fails_or_is_read_only_is_named_and_forwarding_goes_on() {
    for (errno, label) in [(libc::EIO, "EIO"), (libc::EROFS, "EROFS")] {
        let dir = TempDir::with_prefix("tersed-spool-").unwrap();
        let mut sink = Sink::tcp();
        let setup = setup(dir.path(), &sink.url(), "");
        let (shim, says) = (setup.path("disk_shim.so"), dir.path().join("errno"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/disk_shim.c");
        let shim = shim.to_str().unwrap();
        run("cc", &["-shared", "-fPIC", "-o", shim, source], "gcc");
        let tersed = setup
            .environment("LD_PRELOAD", shim)
            .environment("TERSED_TEST_DISK_ERRNO", says.to_str().unwrap())
            .start();
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all((0..100).map(|place| ordered(0, place, OCTETS)));
        sink.wait_messages(100);
        sink.stop();
        tersed.wait_log("upstream lost");
        fs::write(&says, errno.to_string()).unwrap();
        let sender = std::thread::spawn(move || {
            originator.send_all((100..MANY).map(|place| ordered(0, place, OCTETS)));
            originator
        });
        wait_errors(&tersed, label);
        assert!(tersed.get("/readyz").1.contains("spool: failing"));
        sink.restart();
        wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
        let mut originator = sender.join().unwrap();

        fs::remove_file(&says).unwrap();
        sink.stop();
        originator.send_all((MANY..2 * MANY).map(|place| ordered(0, place, OCTETS)));
        tersed.wait_log("spool accepts writes again");
        assert!(!tersed.get("/readyz").1.contains("spool: failing"));
        sink.restart();
        wait_until("everything at the sink", LIMIT, || {
            places(&sink.messages(), OCTETS).contains(&(2 * MANY - 1))
        });
        let (metrics, _) = tersed.finish();
        let again = metrics.total("tersed_frames_resent_total");
        assert_ordered(&places(&sink.messages(), OCTETS), 2 * MANY, again);
        assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    }
}

/// What was in the directory is lost and counted. The rest goes to a new directory.
#[test]
fn a_removed_directory_is_named_and_made_anew() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let (tersed, mut originator) = with_many(dir.path(), &port.url());
    assert!(tersed.metrics().total("tersed_spool_frames") > 0);
    fs::remove_dir_all(dir.path().join("spool")).unwrap();
    originator.send_all((MANY..2 * MANY).map(|place| ordered(0, place, OCTETS)));
    wait_errors(&tersed, "ENOENT");
    wait_until("a new directory", LIMIT, || {
        dir.path().join("spool").is_dir()
    });
    tersed.wait_received(2 * MANY as u64);
    let sink = port.open();
    wait_until("the last message at the sink", LIMIT, || {
        places(&sink.messages(), OCTETS).contains(&(2 * MANY - 1))
    });
    let (metrics, _) = tersed.finish();
    let lost = metrics.total_where(
        "tersed_frames_dropped_total",
        &[("reason", "spool_damaged")],
    );
    assert_eq!(lost + sink.count() as u64, 2 * MANY as u64);
    assert!(places(&sink.messages(), OCTETS).is_sorted());
    assert_eq!(
        metrics.total_where("tersed_spool_errors_total", &[("errno", "ENOENT")]),
        1
    );
}

/// Law 7: it is not known which message it was, so the next copy of each message goes out.
#[test]
fn a_flipped_bit_costs_one_message_that_is_counted_and_may_come_again() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let (tersed, mut originator) = with_many(dir.path(), &port.url());
    let segment = last_segment(dir.path());
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&segment)
        .unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut octet = [0];
    file.read_exact_at(&mut octet, middle).unwrap();
    octet[0] ^= 0x10;
    file.write_all_at(&octet, middle).unwrap();

    let sink = port.open();
    wait_until("all but one at the sink", LIMIT, || {
        sink.count() >= MANY - 1
    });
    tersed.wait_metric(
        "tersed_frames_dropped_total",
        &[("reason", "spool_damaged")],
        1,
    );
    let found = places(&sink.messages(), OCTETS);
    assert_eq!(found.len(), MANY - 1);
    assert!(found.is_sorted());
    let missing = (0..MANY).find(|place| !found.contains(place)).unwrap();
    originator.send(ordered(0, missing, OCTETS));
    wait_until("its next copy", LIMIT, || sink.count() >= MANY);
    tersed.finish();
    assert_eq!(places(&sink.messages(), OCTETS).last(), Some(&missing));
}

/// One cut is tried through the relay; the spool's own tests cut at every offset.
#[test]
fn a_torn_tail_is_cut_off_and_what_is_before_it_is_sent() {
    for torn in [1, 39, 100, 1000, 100_000] {
        let dir = TempDir::with_prefix("tersed-spool-").unwrap();
        let port = RefusingPort::new();
        let mut tersed = setup(dir.path(), &port.url(), "").start();
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
        tersed.wait_received(MANY as u64);
        // After the last append, the cursor has the number of frames.
        tersed.wait_metric("tersed_spool_frames", &[], MANY as u64);
        tersed.assert_balance();
        tersed.stop_by(Signal::SIGKILL);
        let segment = last_segment(dir.path());
        let file = fs::File::options().write(true).open(&segment).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len - torn).unwrap();

        let tersed = setup(dir.path(), &port.url(), "").start();
        let recovered = tersed.metrics().balance().recovered;
        let sink = port.open();
        tersed.wait_metric("tersed_frames_queued", &[], 0);
        let (metrics, _) = tersed.finish();
        // The cursor has the number of frames, so those that were cut off are counted.
        let lost = metrics.total_where(
            "tersed_frames_dropped_total",
            &[("reason", "spool_damaged")],
        );
        assert_eq!(lost, torn.div_ceil(RECORD_OCTETS));
        let count = usize::try_from(recovered - lost).unwrap();
        sink.wait_messages(count);
        assert_ordered(&places(&sink.messages(), OCTETS), count, 0);
    }
}

/// Each is refused at the start, with the path and the reason.
#[test]
fn what_others_could_write_to_is_refused() {
    check_refused("symlink", |spool| {
        let elsewhere = spool.with_file_name("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, spool).unwrap();
    });
    check_refused("allows group or others to write", |spool| {
        fs::create_dir(spool).unwrap();
        fs::set_permissions(spool, fs::Permissions::from_mode(0o770)).unwrap();
    });
    check_refused("allows group or others to write", |spool| {
        let parent = spool.parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o777)).unwrap();
    });
    check_refused("user 1 owns it", |spool| {
        fs::create_dir(spool).unwrap();
        std::os::unix::fs::chown(spool, Some(1), None).unwrap();
    });
}

/// The file that the link points at is not touched, and the relay does not start with it.
#[test]
fn a_symlink_planted_at_a_file_of_the_spool_is_not_followed() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let (tersed, _originator) = with_many(dir.path(), &port.url());
    tersed.finish();
    let target = dir.path().join("target");
    for entry in fs::read_dir(dir.path().join("spool")).unwrap() {
        let file = entry.unwrap().path();
        let kept = fs::read(&file).unwrap();
        fs::write(&target, "precious").unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&target, &file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        // A cursor that cannot be read counts as lost, which is no reason to refuse.
        if name == "cursor" {
            let mut tersed = setup(dir.path(), &port.url(), "").start();
            let warned = tersed
                .log()
                .iter()
                .any(|line| line.message.starts_with("the spool is damaged"));
            assert!(warned);
            tersed.balance_at_exit();
            tersed.stop_by(Signal::SIGKILL);
        } else {
            let (status, stderr) = setup(dir.path(), &port.url(), "").start_refused();
            assert!(!status.success(), "{name}");
            assert!(stderr.contains(name), "{name}: {stderr}");
        }
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        fs::remove_file(&file).unwrap();
        fs::write(&file, kept).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let sink = port.open();
    let tersed = setup(dir.path(), &sink.url(), "").start();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    tersed.finish();
}

#[test]
fn the_spool_is_for_its_owner_alone() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), "").umask("000").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    let spool = dir.path().join("spool");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&spool), 0o700);
    for entry in fs::read_dir(&spool).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    tersed.finish();
}

/// Prepares the directory for the spool, and asserts that a start is refused with these words and the path.
#[track_caller]
fn check_refused(words: &str, prepare: impl FnOnce(&Path)) {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    prepare(&dir.path().join("spool"));
    let port = RefusingPort::new();
    let (status, stderr) = setup(dir.path(), &port.url(), "").start_refused();
    assert!(!status.success(), "{words}");
    assert!(stderr.contains(words), "{words}: {stderr}");
    assert!(stderr.contains(dir.path().to_str().unwrap()), "{stderr}");
}

/// A mounted file system that all processes see; unmounted on drop.
pub(super) struct Mounted(pub(super) PathBuf);

impl Mounted {
    /// A tmpfs of this size, mounted in `dir`.
    ///
    /// # Panics
    ///
    /// If the test does not run as root, which mounting needs.
    pub(super) fn tmpfs(dir: &Path, size: &str) -> Self {
        let at = dir.join("disk");
        fs::create_dir(&at).unwrap();
        let options = format!("size={size},mode=0700");
        let words = ["-t", "tmpfs", "-o", &options, "none", at.to_str().unwrap()];
        run("mount", &words, "mount");
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: if the test fails, the relay may still use it.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

pub(super) fn wait_errors(tersed: &Tersed, errno: &str) {
    wait_until(errno, LIMIT, || {
        tersed
            .metrics()
            .total_where("tersed_spool_errors_total", &[("errno", errno)])
            > 0
    });
}

/// The file of the spool that was written last.
fn last_segment(dir: &Path) -> PathBuf {
    let mut largest: Vec<_> = fs::read_dir(dir.join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    largest.sort_by_key(|path| fs::metadata(path).unwrap().len());
    largest.pop().unwrap()
}

/// The octets of one message in the spool.
const RECORD_OCTETS: u64 = OCTETS as u64 + 40;
