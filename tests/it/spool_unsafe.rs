//! Files of the spool that were given another name or a looser mode, and a cursor of another history, lose nothing:
//! what waits is delivered, at the latest when this was put right, and the log says how.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::spool::{MANY, OCTETS, TCP, setup, with_many};
use super::support::ordered::{assert_ordered, ordered, places};
use super::support::originator::Originator;
use super::support::process::run;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::Tersed;
use super::support::wait::{LIMIT, wait_until};

/// A backup by hard links, and a mode for a group, while the collector is away. This process wrote the files.
#[test]
fn what_this_process_wrote_is_sent_whatever_names_and_modes_it_was_given() {
    for change in [link_all, open_to_group] {
        let dir = TempDir::with_prefix("tersed-spool-").unwrap();
        let port = RefusingPort::new();
        let (tersed, _originator) = with_many(dir.path(), &port.url());
        tersed.wait_metric("tersed_spool_frames", &[], MANY as u64);
        change(&dir.path().join("spool"));
        let sink = port.open();
        wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
        let (metrics, _) = tersed.finish();
        assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
        assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    }
}

/// Files of an earlier process wait, and so does everything newer, until they are put right as the log says.
#[test]
fn files_with_a_second_name_do_not_keep_the_relay_from_starting_and_wait() {
    let by_deleting = |spool: &Path, _: &str| {
        fs::remove_dir_all(spool.with_file_name("backup")).unwrap();
    };
    // Does exactly what the log says.
    let as_told = |spool: &Path, told: &str| {
        for segment in segments(spool) {
            let name = segment.to_str().unwrap();
            let command = format!("cp -p {name} {name}.new && mv {name}.new {name}");
            assert!(!told.contains(name) || told.contains(&command), "{told}");
            run("sh", &["-c", &command], "dash");
        }
    };
    for mend in [by_deleting as fn(&Path, &str), as_told] {
        check_waits(link_all, " hard links; delete the others, or ", mend);
    }
}

#[test]
fn files_that_a_group_may_write_to_do_not_keep_the_relay_from_starting_and_wait() {
    check_waits(
        |spool| {
            open_to_group(spool);
            chmod(spool, 0o700);
            // The cursor would count as lost, and acknowledged messages would come again.
            chmod(&spool.join("cursor"), 0o600);
        },
        "mode 0620 allows group or others to write; chmod go-w ",
        |spool, _| {
            for segment in segments(spool) {
                chmod(&segment, 0o600);
            }
        },
    );
}

/// In the middle of the spool: what is before it is sent, and what is after it waits until it is put right.
#[test]
fn a_file_in_the_middle_that_is_not_safe_keeps_its_place() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let spool = dir.path().join("spool");
    leave_many(dir.path());
    let middle = segments(&spool).remove(1);
    chmod(&middle, 0o660);
    let sink = Sink::tcp();
    let tersed = setup(dir.path(), &sink.url(), SEGMENTED).start();
    wait_until("a try that failed", LIMIT, || not_safe(&tersed) > 1);
    let page = tersed.get("/readyz").1;
    assert!(page.contains("spool: failing"), "{page}");
    assert_eq!(page.matches(" is not safe").count(), 1, "{page}");
    let before = places(&sink.messages(), OCTETS);
    assert!((1..MANY / 2).contains(&before.len()), "{}", before.len());
    assert_ordered(&before, before.len(), 0);
    chmod(&middle, 0o600);
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    assert_eq!(metrics.total("tersed_spool_failing"), 0);
}

/// While no upstream is up, nothing is read from the spool, so the file's turn does not come.
#[test]
fn a_file_that_is_not_safe_is_named_on_readyz_before_its_turn() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let spool = dir.path().join("spool");
    leave_many(dir.path());
    let middle = segments(&spool).remove(1);
    chmod(&middle, 0o660);
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), SEGMENTED).start();
    let told = format!(
        "\nspool: {} is not safe: mode 0660 allows group or others to write; chmod go-w {0}; ",
        middle.display()
    );
    let page = || tersed.get("/readyz").1;
    assert!(page().contains(&told), "{}", page());
    assert_eq!(not_safe(&tersed), 0);
    assert_eq!(tersed.metrics().total("tersed_spool_failing"), 0);
    chmod(&middle, 0o600);
    wait_until("the page to see the repair", LIMIT, || {
        !page().contains(" is not safe")
    });
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

/// The directory itself: nothing is lost while the relay runs, and the next start is refused until it is put right.
#[test]
fn a_directory_that_is_opened_to_a_group_loses_nothing() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let spool = dir.path().join("spool");
    let port = RefusingPort::new();
    let (tersed, mut originator) = with_many(dir.path(), &port.url());
    chmod(&spool, 0o770);
    let line = tersed.wait_log("spool error");
    let told = format!(
        "{} is not safe: mode 0770 allows group or others to write; chmod go-w {0}",
        spool.display()
    );
    assert_eq!(line.field("error").unwrap(), told);
    tersed.wait_metric("tersed_spool_failing", &[], 1);
    let page = tersed.get("/readyz").1;
    assert!(
        page.contains("spool: failing for ") && page.contains(&told),
        "{page}"
    );
    chmod(&spool, 0o700);
    tersed.wait_metric("tersed_spool_failing", &[], 0);
    assert!(!tersed.get("/readyz").1.contains("spool: failing"));
    assert_eq!(tersed.log_count("spool works again"), 1);
    assert_eq!(tersed.log_count("spool error"), 1);
    chmod(&spool, 0o770);
    tersed.wait_metric("tersed_spool_failing", &[], 1);
    originator.send_all((MANY..2 * MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(2 * MANY as u64);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    let sink = port.open();
    let (status, stderr) = setup(dir.path(), &sink.url(), "").start_refused();
    assert!(!status.success());
    assert!(stderr.contains(&told), "{stderr}");
    chmod(&spool, 0o700);
    let tersed = setup(dir.path(), &sink.url(), "").start();
    wait_until("everything at the sink", LIMIT, || sink.count() >= 2 * MANY);
    tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), 2 * MANY, 0);
}

/// A cursor restored from a backup says that everything was delivered, about messages that it does not know.
#[test]
fn a_cursor_of_another_history_is_named_and_not_believed() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let spool = dir.path().join("spool");
    let sink = {
        leave_many(dir.path());
        let sink = Sink::tcp();
        let tersed = setup(dir.path(), &sink.url(), "").start();
        wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
        tersed.wait_metric("tersed_spool_frames", &[], 0);
        tersed.finish();
        fs::copy(spool.join("cursor"), dir.path().join("backup")).unwrap();
        fs::remove_dir_all(&spool).unwrap();
        leave_many(dir.path());
        fs::copy(dir.path().join("backup"), spool.join("cursor")).unwrap();
        Sink::tcp()
    };
    let tersed = setup(dir.path(), &sink.url(), "").start();
    assert_eq!(tersed.metrics().balance().recovered, MANY as u64);
    let named = tersed.log().iter().any(|line| {
        let is_it = line
            .message
            .starts_with("the spool's cursor does not belong to these segments");
        is_it && line.field("cursor").as_deref() == spool.join("cursor").to_str()
    });
    assert!(named);
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

/// Makes `change` on a spool with many messages in several segments, and starts the relay. Asserts that it logs `words`
/// with the path of a file, and that nothing is sent, neither old nor new messages, until `mend` was called with the
/// logged text.
#[track_caller]
fn check_waits(change: impl Fn(&Path), words: &str, mend: impl Fn(&Path, &str)) {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let spool = dir.path().join("spool");
    leave_many(dir.path());
    change(&spool);
    let sink = Sink::tcp();
    let tersed = setup(dir.path(), &sink.url(), SEGMENTED).start();
    assert_eq!(tersed.metrics().balance().recovered, MANY as u64);
    let line = tersed.wait_log(
        "spool files are not safe to open; their messages wait until the files are fixed",
    );
    let told = line.field("first").unwrap();
    let is_named = segments(&spool)
        .iter()
        .any(|path| told.starts_with(path.to_str().unwrap()));
    assert!(is_named && told.contains(words), "{told}");
    assert_eq!(line.level, "ERROR");

    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((MANY..2 * MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    wait_until("it to be tried again", LIMIT, || not_safe(&tersed) > 2);
    assert!(tersed.get("/readyz").1.contains("spool: failing"));
    // However often it is tried.
    assert_eq!(tersed.log_count("spool error"), 1);
    assert_eq!(sink.count(), 0);
    mend(&spool, &told);
    wait_until("everything at the sink", LIMIT, || sink.count() >= 2 * MANY);
    assert!(!tersed.get("/readyz").1.contains("spool: failing"));
    let (metrics, _) = tersed.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), 2 * MANY, 0);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

/// Leaves many messages in the spool.
fn leave_many(dir: &Path) {
    let tersed = setup(dir, &RefusingPort::new().url(), SEGMENTED).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    tersed.finish();
}

/// How often a file was found not to be safe.
fn not_safe(tersed: &Tersed) -> u64 {
    let metrics = tersed.metrics();
    metrics.total_where("tersed_spool_errors_total", &[("errno", "unsafe")])
}

fn link_all(spool: &Path) {
    let backup = spool.with_file_name("backup");
    let words = ["-al", spool.to_str().unwrap(), backup.to_str().unwrap()];
    run("cp", &words, "coreutils");
}

fn open_to_group(spool: &Path) {
    run(
        "chmod",
        &["-R", "g+w", spool.to_str().unwrap()],
        "coreutils",
    );
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The files that hold messages, oldest first.
fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(spool).unwrap();
    let mut paths: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "segment"))
        .collect();
    paths.sort();
    paths
}

/// Segments of 4 MiB.
const SEGMENTED: &str = "max_size = \"32MiB\"";
