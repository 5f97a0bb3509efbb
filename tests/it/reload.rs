//! SIGHUP changes what was changed, at once, and nothing else.

use std::fs;
use std::net::TcpStream;

use nix::sys::signal::Signal;

use super::support::numbered::{Numbered, Tally, repeats};
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink, show};
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn a_listener_is_added_another_removed_and_the_third_keeps_port_and_connections() {
    let sink = Sink::tcp();
    let listeners = |names: &[&str]| {
        let listener = |name: &&str| format!("[[listener]]\nname = \"{name}\"\nurl = \"{TCP}\"\n");
        let listeners: String = names.iter().map(listener).collect();
        format!("{listeners}[dedup]\nwindow = \"1h\"\n")
    };
    let tersed = Setup::new()
        .config(&listeners(&["kept", "removed"]))
        .forward(&sink.url())
        .start();
    let mut kept = Originator::tcp(tersed.address("kept"));
    let mut removed = Originator::tcp(tersed.address("removed"));
    let gone = tersed.address("removed");
    kept.send(message(1));
    removed.send(message(2));
    sink.wait_messages(2);

    // What was sent before the reload arrives, although its connection is closed.
    removed.send_all((3..100).map(message));
    reload(&tersed, &listeners(&["kept", "added"]));
    removed.wait_closed();
    sink.wait_messages(99);
    wait_until("the port to be closed", LIMIT, || {
        TcpStream::connect(gone).is_err()
    });
    assert_eq!(tersed.log_count("listening"), 3, "the kept one stays bound");

    // The same connection, and a new one to the same port.
    kept.send(message(100));
    Originator::tcp(tersed.address("kept")).send(message(101));
    Originator::tcp(tersed.address("added")).send_all([message(102), message(1)]);
    sink.wait_messages(102);
    tersed.wait_received(103);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 1);
    let of = |name| metrics.total_where("tersed_frames_received_total", &[("listener", name)]);
    assert_eq!([of("kept"), of("removed"), of("added")], [3, 98, 2]);
}

#[test]
fn a_unix_socket_is_removed_with_its_path_and_can_come_back() {
    let sink = Sink::tcp();
    let setup = Setup::new();
    let path = setup.path("in.sock");
    let socket = format!("[[listener]]\nurl = \"{}\"\n", url("unix-dgram", &path));
    let other = format!("[[listener]]\nurl = \"{TCP}\"\n");
    let tersed = setup
        .config(&format!("{socket}{other}"))
        .forward(&sink.url())
        .start();
    Originator::unix_dgram(&path).send(message(1));
    sink.wait_messages(1);

    reload(&tersed, &other);
    wait_until("the path to be gone", LIMIT, || !path.exists());
    reload(&tersed, &format!("{socket}{other}"));
    Originator::unix_dgram(&path).send(message(2));
    sink.wait_messages(2);
    tersed.finish();
}

/// The window whose policy changed ends, and its summary gives the reason. Nothing is reported twice.
#[test]
fn windows_of_a_changed_policy_end_and_are_reported() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all([message(1), message(1), message(1), message(2)]);
    tersed.wait_received(4);

    reload(&tersed, "[dedup]\nwindow = \"2h\"\n");
    let messages = sink.wait_messages(3);
    let summary = String::from_utf8(messages[2].clone()).unwrap();
    assert_eq!(repeats(&summary), Some(2), "{summary}");
    originator.send_all([message(1), message(2)]);
    sink.wait_messages(5);
    let (metrics, _) = tersed.finish();
    let reason = |reason| metrics.total_where("tersed_summaries_total", &[("reason", reason)]);
    assert_eq!([reason("reload"), reason("stop")], [1, 0]);
    assert_eq!(metrics.total("tersed_live_messages"), 2);
    assert_eq!(sink.count(), 5, "{}", show(&sink.messages()));
}

#[test]
fn a_smaller_memory_budget_forgets_the_oldest_at_once_and_reports_them() {
    let sink = Sink::tcp();
    let config = |memory| format!("[dedup]\nwindow = \"1h\"\nshards = 1\nmemory = \"{memory}\"\n");
    let tersed = Setup::new()
        .config(&config("64MiB"))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let sent = Numbered::with_total(40_000);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(sent.rfc3164());
    tersed.wait_received(sent.total());
    assert_eq!(tersed.metrics().total("tersed_evicted_total"), 0);

    reload(&tersed, &config("1MiB"));
    wait_until("memory to shrink", LIMIT, || {
        tersed.metrics().total("tersed_memory_bytes") <= 1 << 20
    });
    let (metrics, _) = tersed.finish();
    let evicted = metrics.total("tersed_evicted_total");
    assert!(evicted > 1000 && evicted < sent.distinct(), "{evicted}");
    let reported = metrics.total_where("tersed_summaries_total", &[("reason", "evicted")]);
    assert!(reported > 1000, "{reported}");
    Tally::of(sink.messages()).assert_once_each(sent);
}

#[test]
fn when_full_changes_at_once_for_those_who_come_later() {
    let sink = Sink::tcp().mannered(Manner::NeverRead);
    let config = |when_full| {
        format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"64KiB\"\nwhen_full = \"{when_full}\"\n"
        )
    };
    let mut tersed = Setup::new()
        .config(&config("drop-newest"))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..20_000).map(long_message));
    tersed.wait_received(20_000);
    let dropped = tersed.assert_balance().balance().dropped;
    assert!(dropped > 0);

    // Now the same relay makes its senders wait, and nothing more is dropped.
    reload(&tersed, &config("wait"));
    let second = std::thread::spawn(move || {
        originator.send_all((20_000..40_000).map(long_message));
        originator
    });
    tersed.assert_balance();
    sink.behave(Manner::Read);
    let _connected = second.join().unwrap();
    tersed.wait_received(40_000);
    let forwarded = usize::try_from(40_000 - dropped).unwrap();
    sink.wait_messages(forwarded);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().dropped, dropped);
}

/// Senders that wait for more room than the new queue has must not wait for ever.
#[test]
fn a_queue_is_made_smaller_and_larger_while_senders_wait_for_it() {
    let sink = Sink::tcp().mannered(Manner::NeverRead);
    let config = |queue| format!("[dedup]\nwindow = \"1h\"\n[forward]\nqueue = \"{queue}\"\n");
    let mut tersed = Setup::new()
        .config(&config("1MiB"))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let address = tersed.address(TCP);
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            std::thread::spawn(move || {
                let mut originator = Originator::tcp(address);
                originator.send_all((0..50_000).map(|n| message(sender * 50_000 + n)));
                originator
            })
        })
        .collect();
    // The queue is full, and all senders wait.
    wait_until("a queue", LIMIT, || tersed.metrics().balance().queued > 0);
    let held = tersed.assert_balance().balance();
    assert!(held.queued > 0 && held.received < 200_000, "{held:?}");

    reload(&tersed, &config("64KiB"));
    reload(&tersed, &config("96KiB"));
    sink.behave(Manner::Read);
    let _connected: Vec<_> = senders.into_iter().map(|sender| sender.join()).collect();
    tersed.wait_received(200_000);
    sink.wait_messages(200_000);

    // The smaller limit is in force.
    sink.behave(Manner::NeverRead);
    let sender = std::thread::spawn(move || {
        let mut originator = Originator::tcp(address);
        originator.send_all((200_000..240_000).map(long_message));
        originator
    });
    // The queue is full once it holds something and nothing more comes in for a while.
    let (mut received, mut looks) = (0, 0);
    wait_until("a full queue", LIMIT, || {
        let metrics = tersed.metrics();
        let is_stuck = metrics.total("tersed_queue_octets") > 0
            && metrics.balance().received
                == std::mem::replace(&mut received, metrics.balance().received);
        looks = if is_stuck { looks + 1 } else { 0 };
        looks >= 20
    });
    let full = tersed.assert_balance();
    assert!(full.balance().received < 240_000);
    let queued = full.total("tersed_queue_octets");
    assert!(
        (1..=96 << 10).contains(&queued),
        "{queued} octets in the queue"
    );
    sink.behave(Manner::Read);
    let _connected = sender.join();
    tersed.wait_received(240_000);
    tersed.finish();
}

#[test]
fn another_upstream_takes_over_what_the_first_did_not_get() {
    let first = Sink::tcp();
    let second = Sink::tcp();
    let config = |sink: &Sink| {
        let url = sink.url();
        format!("[dedup]\nwindow = \"1h\"\n[forward]\nto = [\"{url}\"]\n")
    };
    let tersed = Setup::new().config(&config(&first)).listen(TCP).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..1000).map(message));
    first.wait_messages(1000);
    reload(&tersed, &config(&second));
    originator.send_all((500..2000).map(message));
    second.wait_messages(1000);
    // A reload that names the same upstream keeps the connection.
    reload(&tersed, &config(&second));
    originator.send_all((2000..2100).map(message));
    second.wait_messages(1100);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
    assert_eq!((first.count(), first.connection_count()), (1000, 1));
    // Five hundred were repeated after the reload, so the second upstream gets their summaries.
    second.wait_messages(1600);
    assert_eq!(second.connection_count(), 1);
}

#[test]
fn what_needs_a_restart_is_refused_by_name_and_nothing_moves() {
    let sink = Sink::tcp();
    let setup = Setup::new();
    let path = setup.path("in.sock");
    let socket = url("unix-dgram", &path);
    let good = format!("[[listener]]\nname = \"a\"\nurl = \"{socket}\"\n");
    let tersed = setup.config(&good).forward(&sink.url()).start();
    let cases = [
        (
            format!("{good}unix_mode = \"0600\"\n"),
            "unix_mode: changing \"0660\" to \"0600\" needs a restart; write \"0660\" until then",
        ),
        (
            format!("{good}receive_buffer = \"1MiB\"\n"),
            "receive_buffer: changing 8MiB to 1MiB needs a restart",
        ),
        (format!("{good}[dedup]\nshards = 512\n"), "dedup.shards"),
        (
            format!("{good}[dedup]\nidentity = \"compact\"\n"),
            "dedup.identity",
        ),
        (
            format!("{good}[runtime]\nworkers = 17\n"),
            " to 17 needs a restart",
        ),
        (
            format!("{good}[log]\nlevel = \"debug\"\n"),
            "log.level: changing \"",
        ),
        (
            format!("{good}[spool]\ndirectory = \"/no/such/spool\"\n"),
            "spool.directory: changing off to \"/no/such/spool\" needs a restart",
        ),
        // The other settings of a refused file are not taken over, either.
        (
            format!("{good}[dedup]\nallow = 7\nidentity = \"compact\"\n"),
            "dedup.identity",
        ),
        (
            format!("{good}[[listener]]\nurl = \"tcp://192.0.2.1:9\"\n"),
            "no interface of this machine has this address",
        ),
    ];
    for (refused, (text, reason)) in cases.iter().enumerate() {
        fs::write(tersed.config_file(), text).unwrap();
        tersed.signal(Signal::SIGHUP);
        wait_until("the refusal", LIMIT, || {
            tersed.log_count("reload refused") == refused + 1
        });
        let log = tersed.log();
        let line = log.iter().rfind(|line| line.message == "reload refused");
        let line = line.unwrap();
        assert!(line.mentions(reason), "{line:?} does not name {reason}");
    }
    assert_eq!(tersed.log_count("reloaded"), 0);
    let mut originator = Originator::unix_dgram(&path);
    originator.send_all([message(1), message(1), message(2)]);
    sink.wait_messages(2);
    tersed.wait_received(3);
    let (metrics, _) = tersed.finish();
    let reloads =
        |result| metrics.total_where("tersed_config_reloads_total", &[("result", result)]);
    assert_eq!([reloads("ok"), reloads("refused")], [0, cases.len() as u64]);
}

/// Puts another configuration in force.
#[track_caller]
pub(super) fn reload(tersed: &Tersed, config: &str) {
    let before = tersed.log_count("reloaded");
    fs::write(tersed.config_file(), config).unwrap();
    tersed.signal(Signal::SIGHUP);
    wait_until("the reload", LIMIT, || {
        assert_eq!(tersed.log_count("reload refused"), 0);
        tersed.log_count("reloaded") == before + 1
    });
}

fn message(number: u64) -> String {
    format!("<13>Mar  1 12:00:00 host app: number {number}")
}

fn long_message(number: u64) -> String {
    format!("{} {}", message(number), "x".repeat(1000))
}

const TCP: &str = "tcp://127.0.0.1:0";
