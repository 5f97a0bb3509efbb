//! What `/readyz`, the metrics and the log report about the spool: how full it is, how old its oldest frame is, why it
//! is used, which error it has, since when, and when it is tried again.

use tempfile::TempDir;

use super::spool::{MANY, OCTETS, TCP, setup, with_many};
use super::spool_broken::Mounted;
use super::support::ordered::ordered;
use super::support::originator::Originator;
use super::support::sink::RefusingPort;
use super::support::tersed::Tersed;
use super::support::wait::{LIMIT, seconds_now, wait_until};

#[test]
fn a_spool_that_is_used_says_why_how_full_and_how_old() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let started = seconds_now();
    let (tersed, _originator) = with_many(dir.path(), &port.url());
    let told = tersed.wait_log("forwarding over the spool");
    assert!(told.mentions("no upstream is up"), "{told:?}");
    for field in ["queued_octets", "spooled_frames", "spooled_octets"] {
        assert!(told.field(field).is_some(), "{told:?}");
    }
    assert_eq!(told.field("queue").as_deref(), Some("262144"), "{told:?}");
    wait_until("most frames to be on the disk", LIMIT, || {
        tersed.metrics().total("tersed_spool_frames") > MANY as u64 * 9 / 10
    });
    let known = line(&tersed);
    for part in [" frames, ", " MiB of 1 GiB (spool.max_size), oldest "] {
        assert!(known.contains(part), "no {part:?} in {known}");
    }
    assert!(!known.contains("failing"), "{known}");
    assert_eq!(tersed.metrics().total("tersed_spool_limit_bytes"), 1 << 30);
    let oldest = tersed.metrics().moment(OLDEST).unwrap();
    assert!(oldest >= started - 1.0 && oldest <= seconds_now());

    // What an earlier run left is as old as its file.
    let (_, _stopped) = tersed.finish();
    let tersed = setup(dir.path(), &port.url(), "").start();
    let recovered = tersed.metrics().moment(OLDEST).unwrap();
    assert!(
        recovered >= started - 1.0 && recovered <= oldest + 2.0,
        "{recovered} {oldest}"
    );

    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    tersed.wait_metric("tersed_spool_frames", &[], 0);
    wait_until("nothing to be old", LIMIT, || {
        tersed.metrics().moment(OLDEST).is_none()
    });
    assert!(line(&tersed).starts_with("0 frames, "), "{}", line(&tersed));
    assert!(!line(&tersed).contains("oldest"), "{}", line(&tersed));
    tersed.finish();
}

#[test]
fn a_spool_that_fills_up_says_so_before_it_is_full_and_what_happens_then() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let port = RefusingPort::new();
    let tersed = setup(dir.path(), &port.url(), "max_size = \"4MiB\"").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = std::thread::spawn(move || {
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
        originator
    });
    let told = tersed.wait_log("spool is filling up");
    assert_eq!(told.level, "WARN");
    let percent: u64 = told.field("percent").unwrap().parse().unwrap();
    assert!((80..=100).contains(&percent), "{told:?}");
    assert!(told.mentions("wait: reading will pause"), "{told:?}");
    let failed = tersed.wait_log("spool error");
    assert!(failed.mentions("(spool.max_size)"), "{failed:?}");
    wait_until("the page to say that it fails", LIMIT, || {
        line(&tersed).starts_with("failing for ")
    });
    let known = line(&tersed);
    for part in [
        "would exceed its limit of 4194304 (spool.max_size); bring the collector back, or raise spool.max_size if",
        "; next try in ",
        " of 4 MiB (spool.max_size), oldest ",
    ] {
        assert!(known.contains(part), "no {part:?} in {known}");
    }
    assert!(tersed.metrics().moment(FAILING).unwrap() <= seconds_now());
    assert_eq!(tersed.log_count("spool is filling up"), 1);

    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    drop(sender.join().unwrap());
    wait_until("the spool to fail no more", LIMIT, || {
        tersed.metrics().moment(FAILING).is_none() && !line(&tersed).contains("failing")
    });
    wait_until("each way over the spool to have its end", LIMIT, || {
        let begun = tersed.log_count("forwarding over the spool");
        begun > 0 && begun == tersed.log_count("forwarding from memory")
    });
    tersed.finish();
}

#[test]
fn a_disk_that_is_full_is_named_with_what_to_do() {
    let dir = TempDir::with_prefix("tersed-spool-").unwrap();
    let disk = Mounted::tmpfs(dir.path(), "2m");
    let port = RefusingPort::new();
    let tersed = setup(&disk.0, &port.url(), "").start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = std::thread::spawn(move || {
        originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    });
    wait_until("the page to say that it fails", LIMIT, || {
        line(&tersed).starts_with("failing for ")
    });
    let known = line(&tersed);
    for part in [
        "No space left on device (os error 28)",
        "; make room",
        "; next try in ",
        " of 1 GiB (spool.max_size)",
    ] {
        assert!(known.contains(part), "no {part:?} in {known}");
    }
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || sink.count() >= MANY);
    sender.join().unwrap();
    tersed.finish();
}

/// The line of `/readyz` about the spool.
#[track_caller]
fn line(tersed: &Tersed) -> String {
    let page = tersed.get("/readyz").1;
    let mut lines = page.lines().filter_map(|line| line.strip_prefix("spool: "));
    lines.next().expect("a spool is configured").to_owned()
}

const OLDEST: &str = "tersed_spool_oldest_timestamp_seconds";
const FAILING: &str = "tersed_spool_failing_since_timestamp_seconds";
