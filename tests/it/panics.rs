//! What a panic costs (see `src/panics.rs`): injected at one point by a message with a marker, which builds with debug
//! assertions alone know.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::support::originator::Originator;
use super::support::proc_fs;
use super::support::relp::RelpClient;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::{FAULT, Setup, Stopped, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn a_panic_of_a_connection_costs_that_connection_and_its_frames_are_counted() {
    let sink = Sink::tcp();
    let tersed = with_fault("connection")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut other = Originator::tcp(tersed.address(TCP));
    other.send("<13>app: before");
    sink.wait_messages(1);

    let mut victim = Originator::tcp(tersed.address(TCP));
    let from = victim.local_address().ip().to_string();
    victim.send_octets(format!("<13>app: first\n<13>app: {MARKER}\n<13>app: behind\n").as_bytes());
    victim.wait_closed();
    let line = tersed.wait_log(COSTS_CONNECTION);
    assert_eq!(line.level, "ERROR");
    for (name, text) in [
        ("listener", TCP),
        ("peer", from.as_str()),
        ("place", "src/pipeline.rs:"),
        ("panic", "injected\nat connection"),
    ] {
        let field = line.field(name);
        assert!(
            field.is_some_and(|field| field.contains(text)),
            "{name}: {line:?}"
        );
    }

    // The first copy was lost with the connection, so the next one goes out; its repeat does not.
    other.send_all(["<13>app: first", "<13>app: first", "<13>app: after"]);
    sink.wait_messages(3);
    let texts = ["before", "first", "after"].map(|text| format!("<13>app: {text}").into_bytes());
    assert_eq!(sink.messages(), texts);
    let (metrics, _) = tersed.finish();
    assert_eq!(panics_of(&metrics, "connection"), 1);
    let reason = [("reason", "panic")];
    let lost = metrics.total_where("tersed_frames_dropped_total", &reason);
    let balance = metrics.balance();
    assert_eq!([balance.received, lost, balance.suppressed], [6, 2, 1]);
    assert_eq!(metrics.total("tersed_connections"), 1);
}

#[test]
fn a_relp_client_gets_no_answer_for_what_a_panic_lost() {
    let sink = Sink::tcp();
    let tersed = with_fault("connection")
        .listen(RELP)
        .forward(&sink.url())
        .start();
    let mut victim = RelpClient::open(tersed.address(RELP));
    victim.send("<13>app: before");
    victim.answers(2..=2, "200 OK");
    victim.send_all(["<13>app: first".to_owned(), format!("<13>app: {MARKER}")]);
    assert_eq!(victim.until_closed(), [""; 0]);
    tersed.wait_log(COSTS_CONNECTION);

    let mut other = RelpClient::open(tersed.address(RELP));
    other.send_all(["<13>app: first", "<13>app: after"]);
    other.answers(2..=3, "200 OK");
    sink.wait_messages(3);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_relp_unanswered"), 0);
    assert_eq!(panics_of(&metrics, "connection"), 1);
}

/// A shard in an unknown state can judge nothing more, and the forwarder is the only one who sends: both end the
/// process, and what was answered over RELP is on the disk.
#[test]
fn a_panic_of_a_shard_or_the_forwarder_ends_the_relay_and_the_next_start_has_what_was_answered() {
    for point in ["shard", "forwarder"] {
        let dir = TempDir::with_prefix("tersed-panic-").unwrap();
        let port = RefusingPort::new();
        let spool = |setup: Setup| {
            let config = format!(
                "[spool]\ndirectory = \"{}\"\n[forward]\nretry_max = \"100ms\"\n[shutdown]\ngrace = \"1s\"\n",
                dir.path().display()
            );
            setup.config(&config).listen(RELP).forward(&port.url())
        };
        let tersed = spool(with_fault(point)).start();
        let mut client = RelpClient::open(tersed.address(RELP));
        let last = client.send_all((0..FEW).map(|number| format!("<13>app: number {number}")));
        client.answers(2..=last, "200 OK");
        let mut victim = RelpClient::open(tersed.address(RELP));
        victim.send(format!("<13>app: {MARKER}"));
        let said = victim.until_closed();
        assert!(
            said.iter().all(|answer| !answer.contains(" 200 ")),
            "{said:?}"
        );
        let stopped = ended(tersed);
        let task = if point == "shard" {
            "connection"
        } else {
            point
        };
        check(&stopped, task);
        let balance = stopped.balance();
        assert_eq!(balance.received, FEW as u64 + 1);
        // The last one may be on the disk, too, although it was not answered.
        assert!(balance.queued >= FEW as u64, "{point}: {balance:?}");

        let sink = port.open();
        let config = format!("[spool]\ndirectory = \"{}\"\n", dir.path().display());
        let tersed = Setup::new().config(&config).forward(&sink.url()).start();
        wait_until("what was answered", LIMIT, || sink.count() >= FEW);
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.balance().recovered, balance.queued, "{point}");
    }
}

#[test]
fn a_panic_of_a_listener_a_datagram_thread_or_the_windows_timer_ends_the_relay() {
    for (point, listener) in [("listener", TCP), ("datagram", UDP), ("windows", TCP)] {
        let sink = Sink::tcp();
        let tersed = with_fault(point)
            .listen(listener)
            .forward(&sink.url())
            .start();
        let address = tersed.address(listener);
        let connect = || match listener {
            UDP => Originator::udp(address),
            _ => Originator::tcp(address),
        };
        let mut originator = connect();
        originator.send(format!("<13>app: {MARKER}"));
        sink.wait_messages(1);
        // The point is passed at the next datagram, or connection.
        if point != "windows" {
            connect().try_send_octets(b"<13>app: next\n");
        }
        check(&ended(tersed), point);
        assert_eq!(sink.count(), 1, "{point}");
    }
}

#[test]
fn a_panic_of_a_look_at_the_configuration_file_costs_nothing() {
    let sink = Sink::tcp();
    let tersed = with_fault("configuration")
        .config("[dedup]\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(format!("<13>app: {MARKER}"));
    let line = tersed.wait_log(COSTS_NOTHING);
    assert_eq!(line.level, "ERROR");
    let panic = line.field("panic");
    assert_eq!(panic.as_deref(), Some("injected\nat configuration"));
    let place = line.field("place").unwrap();
    assert!(place.contains("src/daemon/configuration.rs:"), "{place}");
    // It is started again, and sees a change.
    fs::write(tersed.config_file(), "[dedup]\nwindow = \"7s\"\n").unwrap();
    tersed.wait_metric("tersed_config_changed", &[], 1);
    let (metrics, _) = tersed.finish();
    assert_eq!(panics_of(&metrics, "housekeeping"), 1);
}

/// Windows are not saved after a panic: it is not known what became of their survivors.
#[test]
fn windows_are_not_saved_after_a_panic() {
    let dir = TempDir::with_prefix("tersed-panic-").unwrap();
    let state = dir.path().join("windows");
    let sink = Sink::tcp();
    let tersed = with_fault("windows")
        .config(&format!("[dedup]\nstate = \"{}\"\n", state.display()))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(format!("<13>app: {MARKER}"));
    check(&ended(tersed), "windows");
    assert!(!Path::new(&state).exists());
}

/// The frames behind the marker were read with one call, and would be lost without a trace.
#[test]
fn datagrams_that_were_read_with_the_one_that_panics_are_counted() {
    let sink = Sink::tcp();
    let tersed = with_fault("connection")
        .listen(UDP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::udp(tersed.address(UDP));
    tersed.signal(Signal::SIGSTOP);
    wait_until("all threads to stop", LIMIT, || {
        proc_fs::is_stopped(tersed.id())
    });
    originator.send_all((0..FEW).map(|number| format!("<13>app: before {number}")));
    originator.send(format!("<13>app: {MARKER}"));
    originator.send_all((0..FEW).map(|number| format!("<13>app: behind {number}")));
    tersed.signal(Signal::SIGCONT);
    let stopped = ended(tersed);
    check(&stopped, "datagram");
    let balance = stopped.balance();
    assert_eq!(balance.received, 2 * FEW as u64 + 1);
    assert_eq!(balance.dropped + balance.forwarded, balance.received);
}

/// The batch held a window that is reopened, and copies that were to be kept.
#[test]
fn copies_and_summaries_that_a_panic_costs_are_counted() {
    let sink = Sink::tcp();
    let setup = with_fault("connection");
    let kept = setup.path("copies.log");
    let tersed = setup
        .config(&format!(
            "[suppressed]\nto = \"file://{}\"\n",
            kept.display()
        ))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut victim = Originator::tcp(tersed.address(TCP));
    let batch = "<13>app: same\n".repeat(MANY);
    victim.send_octets(format!("{batch}<13>app: {MARKER}\n").as_bytes());
    victim.wait_closed();
    tersed.wait_log(COSTS_CONNECTION);
    wait_until("the loss on /readyz", LIMIT, || {
        tersed
            .get("/readyz")
            .1
            .contains(" frames, a task panicked, ")
    });
    let (metrics, stopped) = tersed.finish();
    let by_panic = [("reason", "panic")];
    let balance = metrics.balance();
    assert_eq!(balance.received, MANY as u64 + 1);
    assert!(balance.suppressed > 0, "the batch was judged in part");
    for (total, dropped, count) in [
        (
            "tersed_suppressed_copies_total",
            "tersed_suppressed_copies_dropped_total",
            balance.suppressed,
        ),
        (
            "tersed_summaries_total",
            "tersed_summaries_dropped_total",
            1,
        ),
        ("tersed_summarized_frames_total", "", balance.suppressed),
    ] {
        assert_eq!(metrics.total(total), count, "{total}");
        if !dropped.is_empty() {
            assert_eq!(metrics.total_where(dropped, &by_panic), count, "{dropped}");
        }
    }
    assert_eq!(stopped.log_count(MESSAGES_LOST), 1);
    assert_eq!(stopped.log_count(COPIES_LOST), 0, "nothing is wrong there");
}

/// Summaries of windows that were evicted stand in the batch before the survivors that evicted them.
#[test]
fn summaries_in_a_batch_that_panics_are_counted_as_dropped() {
    let sink = Sink::tcp();
    let mut tersed = with_fault("connection")
        .config("[dedup]\nmemory = \"1MiB\"\nshards = 1\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let mut number = 0;
    let mut next = || {
        number += 1;
        format!("<13>app: number {number} {:x<100}", "")
    };
    let mut sent = 0;
    wait_until("windows to be evicted", LIMIT, || {
        for _ in 0..1000 {
            let message = next();
            originator.send_all([&message, &message]);
            sent += 2;
        }
        // Nothing is left that this connection could panic at instead of the other.
        tersed.wait_received(sent);
        tersed
            .metrics()
            .total_where("tersed_summaries_total", &[("reason", "evicted")])
            > 0
    });
    let mut victim = Originator::tcp(tersed.address(TCP));
    let mut batch: String = (0..MANY).map(|_| next() + "\n").collect();
    batch += &format!("<13>app: {MARKER}\n");
    victim.send_octets(batch.as_bytes());
    victim.wait_closed();
    let metrics = tersed.assert_balance();
    let lost = metrics.total_where("tersed_summaries_dropped_total", &[("reason", "panic")]);
    assert!(lost > 0, "the batch held summaries");
    let made = metrics.total("tersed_summaries_total");
    wait_until("the other summaries", LIMIT, || {
        let messages = sink.messages();
        let sent = messages.iter().filter(|message| is_summary(message));
        sent.count() as u64 + lost == made
    });
    tersed.finish();
}

/// An operator is to look at `tersed_panics_total` there, so a poisoned shard must not break the page.
#[test]
fn the_metrics_can_be_read_after_a_panic_of_a_shard() {
    let port = RefusingPort::new();
    let tersed = with_fault("shard")
        .config("[shutdown]\ngrace = \"1h\"\n")
        .listen(TCP)
        .forward(&port.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send("<13>app: first");
    tersed.wait_received(1);
    originator.send(format!("<13>app: {MARKER}"));
    tersed.wait_log(COSTS_PROCESS);
    tersed.wait_log("stopping");
    let metrics = tersed.metrics();
    assert_eq!(panics_of(&metrics, "connection"), 1);
    assert_eq!(panics_of(&metrics, "admin"), 0);
    let balance = metrics.balance();
    assert!(balance.holds() && balance.received == 2, "{balance:?}");
    for page in ["/", "/readyz", "/healthz", "/api/v1/config"] {
        let (status, text) = tersed.get(page);
        assert_ne!(status, 500, "{page}: {text}");
    }
    // The second signal: the first made it stop no sooner than the panic did.
    tersed.signal(Signal::SIGTERM);
    check(&ended(tersed), "connection");
}

/// A reload removes `[suppressed]` while copies wait, and a reader for room for its own.
#[test]
fn a_panic_of_the_forwarder_of_copies_ends_the_relay_also_after_a_reload_removed_it() {
    for is_removed in [false, true] {
        let (sink, away) = (Sink::tcp(), RefusingPort::new());
        let config = "[forward]\nretry_max = \"100ms\"\n[shutdown]\ngrace = \"1h\"\n";
        let suppressed = format!(
            "[suppressed]\nto = \"{}\"\nqueue = \"64KiB\"\nwhen_full = \"wait\"\n",
            away.url()
        );
        let tersed = with_fault("copies")
            .config(&format!("{config}{suppressed}"))
            .listen(TCP)
            .forward(&sink.url())
            .start();
        let mut waiting = Originator::tcp(tersed.address(TCP));
        let repeated = format!("<13>app: {:x<1000}", "");
        wait_until("reading to be paused", LIMIT, || {
            waiting.send(&repeated);
            tersed.metrics().total("tersed_reading_paused") > 0
        });
        if is_removed {
            fs::write(tersed.config_file(), config).unwrap();
            tersed.signal(Signal::SIGHUP);
            tersed.wait_log("reloaded");
        }
        Originator::tcp(tersed.address(TCP)).send(format!("<13>app: {MARKER}"));
        let stopped = ended(tersed);
        check(&stopped, "copies");
        let lost = "dropped suppressed copies that were not written before their forwarder failed";
        assert_eq!(stopped.log_count(lost), 1, "{}", stopped.stderr);
    }
}

fn is_summary(message: &[u8]) -> bool {
    memchr::memmem::find(message, b"message repeated").is_some()
}

pub(super) fn with_fault(point: &str) -> Setup {
    Setup::new()
        .window("1h")
        .environment(FAULT, &format!("{point}:{MARKER}"))
}

/// Waits until the relay has ended by itself.
#[track_caller]
pub(super) fn ended(mut tersed: Tersed) -> Stopped {
    tersed.balance_at_exit();
    tersed.wait_stopped()
}

/// It exited with status 1, logged once why, and every frame is accounted for.
#[track_caller]
pub(super) fn check(stopped: &Stopped, task: &str) {
    assert_eq!(stopped.status.code(), Some(1), "{task}: {}", stopped.stderr);
    assert_eq!(
        stopped.log_count(COSTS_PROCESS),
        1,
        "{task}: {}",
        stopped.stderr
    );
    let line = stopped
        .log
        .iter()
        .find(|line| line.message == COSTS_PROCESS);
    assert_eq!(line.unwrap().field("task").as_deref(), Some(task));
    let balance = stopped.balance();
    assert!(balance.holds(), "{task}: {balance:?}");
}

fn panics_of(metrics: &super::support::metrics::Metrics, task: &str) -> u64 {
    metrics.total_where("tersed_panics_total", &[("task", task)])
}

const COSTS_CONNECTION: &str =
    "the task of a connection panicked; the connection is closed; this is a fault of tersed";
const COSTS_NOTHING: &str =
    "a housekeeping task panicked and is started again; this is a fault of tersed";
const COSTS_PROCESS: &str = "a task panicked; the relay stops; this is a fault of tersed";
const COPIES_LOST: &str =
    "suppressed copies are dropped; check suppressed.to, or raise suppressed.queue";
const MESSAGES_LOST: &str = "messages are dropped: a task panicked; report it as a fault of tersed, with the line that names the panic";
pub(super) const MARKER: &str = "MARKER-OF-THE-FAULT";
const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const RELP: &str = "relp://127.0.0.1:0";
const FEW: usize = 5;
/// More than are judged together, so that a part of them is judged before the one that panics.
const MANY: usize = 300;
