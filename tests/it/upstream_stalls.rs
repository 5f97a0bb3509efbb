//! An upstream that accepts and never reads: memory stays bounded, TCP senders wait, the UDP datagrams that the kernel
//! has to drop are counted, and the upstream is given up after `send_timeout`.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::support::ordered::{assert_ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn tcp_senders_wait_and_lose_nothing_when_the_upstream_stops_reading() {
    let sink = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
    let tersed = stalled(&sink, TCP);
    let resident = tersed.resident_octets();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = thread::spawn(move || {
        originator.send_all(ordered_all(PLACES, OCTETS));
        originator
    });
    let given_up = tersed.wait_log("upstream lost");
    // The kernel gives up at the same time (TCP_USER_TIMEOUT), so either error may be logged.
    assert!(
        given_up.mentions("took nothing for 500ms") || given_up.mentions("timed out"),
        "{given_up:?}"
    );
    assert!(
        given_up.mentions("for 500ms (forward.send_timeout)"),
        "{given_up:?}"
    );
    wait_stopped_reading(&tersed);
    assert!(!sender.is_finished(), "the sender did not have to wait");
    let balance = tersed.metrics().balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!(balance.dropped, 0);
    let grown = tersed.resident_octets().saturating_sub(resident);
    assert!(grown < MEMORY_MAX, "grew by {grown} octets");

    sink.behave(Manner::Read);
    sender.join().unwrap();
    check_all_arrive(tersed, &sink);
}

/// It reads nothing, and sends something all the time.
#[test]
fn an_upstream_that_talks_and_takes_nothing_is_given_up() {
    let setup = Setup::new();
    let path = setup.path("talks");
    let listener = UnixListener::bind(&path).unwrap();
    let talker = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(b"x").is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    let sink = Sink::tcp();
    let tersed = setup
        .config("[forward]\nsend_timeout = \"500ms\"\nretry_min = \"1h\"\nretry_max = \"1h\"\n")
        .listen(TCP)
        .forward(&url("unix-stream", &path))
        .forward(&sink.url())
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(5000, 1000));
    let given_up = tersed.wait_log("upstream lost");
    assert!(given_up.mentions("took nothing for 500ms"), "{given_up:?}");
    wait_until("all of it at the sink", LIMIT, || sink.count() >= 5000);
    tersed.finish();
    talker.join().unwrap();
}

#[test]
fn what_udp_brings_meanwhile_is_dropped_by_the_kernel_and_counted() {
    let sink = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
    let tersed = stalled(&sink, UDP);
    let resident = tersed.resident_octets();
    let mut originator = Originator::udp(tersed.address(UDP));
    originator.send_all(ordered_all(PLACES, OCTETS));
    let counted = || {
        let metrics = tersed.metrics();
        let dropped = metrics.total("tersed_kernel_dropped_total");
        (metrics.balance().received, dropped)
    };
    wait_until("kernel drops to be counted", LIMIT, || counted().1 > 0);
    let grown = tersed.resident_octets().saturating_sub(resident);
    assert!(grown < MEMORY_MAX, "grew by {grown} octets");

    sink.behave(Manner::Read);
    wait_until("every datagram to be accounted for", LIMIT, || {
        let (received, dropped) = counted();
        received + dropped == PLACES as u64
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

/// The reload may be the one that names a working upstream.
#[test]
fn a_full_queue_holds_up_no_reload() {
    let stuck = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
    // Room for all of them, so that the message with suppressed copies is not evicted before the reload.
    let with_memory = |config: String| config.replace("4MiB", "256MiB");
    let before = with_memory(config("1h", &stuck.url(), TCP));
    let tersed = Setup::new().config(&before).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    // Suppressed copies, so that the reload has summaries to send.
    originator.send_all(["<13>app: foo"; 2]);
    tersed.wait_received(2);
    let sender = thread::spawn(move || {
        originator.send_all(ordered_all(PLACES, OCTETS));
        originator
    });
    wait_stopped_reading(&tersed);
    assert!(!sender.is_finished(), "the sender did not have to wait");

    let instead = Sink::tcp();
    let changed = with_memory(config("30m", &instead.url(), TCP));
    std::fs::write(tersed.config_file(), changed).unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    sender.join().unwrap();
    tersed.wait_received(PLACES as u64 + 2);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

#[test]
fn a_full_queue_holds_up_no_stop_and_what_is_left_is_counted() {
    let sink = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
    let config = format!(
        "{}[shutdown]\ngrace = \"200ms\"\n",
        config("1h", &sink.url(), TCP)
    );
    let mut tersed = Setup::new().config(&config).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(["<13>app: foo"; 2]);
    tersed.wait_received(2);
    let sender = thread::spawn(move || {
        // Ends when the relay does.
        let messages = ordered_all(PLACES, OCTETS).map(|message| message + "\n");
        originator.send_until_closed(messages);
    });
    wait_stopped_reading(&tersed);
    tersed.assert_balance();
    let stopped = tersed.terminate();
    sender.join().unwrap();
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
    let last = stopped.log.last().unwrap();
    assert_eq!(last.message, "stopped");
    let count = |name: &str| last.field(name).unwrap().parse::<u64>().unwrap();
    assert_eq!(count("queued"), 0);
    assert!(count("dropped") > 0, "{last:?}");
    assert_eq!(
        count("received"),
        count("forwarded") + count("suppressed") + count("dropped"),
        "{last:?}"
    );
}

#[track_caller]
fn wait_stopped_reading(tersed: &Tersed) {
    wait_until("the relay to stop reading", LIMIT, || {
        let look = || tersed.metrics().balance().received;
        let received = look();
        tersed.metrics().total("tersed_upstream_errors_total") >= 3 && look() == received
    });
}

fn config(window: &str, upstream: &str, listener: &str) -> String {
    let receive_buffer = if listener == UDP {
        "receive_buffer = \"64KiB\""
    } else {
        ""
    };
    format!(
        "[dedup]\nwindow = \"{window}\"\nmemory = \"4MiB\"\n\
         [forward]\nto = [\"{upstream}\"]\nqueue = \"1MiB\"\nsend_timeout = \"500ms\"\n\
         retry_min = \"10ms\"\nretry_max = \"20ms\"\n\
         [[listener]]\nurl = \"{listener}\"\n{receive_buffer}\n"
    )
}

fn stalled(sink: &Sink, listener: &str) -> Tersed {
    let config = config("1h", &sink.url(), listener);
    Setup::new().config(&config).start()
}

#[track_caller]
fn check_all_arrive(tersed: Tersed, sink: &Sink) {
    tersed.wait_received(PLACES as u64);
    wait_until("the last message", LIMIT, || {
        let by_connection = sink.messages_by_connection();
        let last = by_connection.iter().filter_map(|messages| messages.last());
        last.into_iter()
            .any(|last| places(std::slice::from_ref(last), OCTETS) == [PLACES - 1])
    });
    let (metrics, _) = tersed.finish();
    let forwarded = metrics.total("tersed_frames_forwarded_total");
    assert_eq!(forwarded, PLACES as u64);
    let again = metrics.total("tersed_frames_resent_total");
    assert_ordered(&places(&sink.messages(), OCTETS), PLACES, again);
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
/// 40 MB: far more than the queue and all socket buffers on the way hold together.
const PLACES: usize = 40_000;
const OCTETS: usize = 1000;
/// The queue, the table, a batch and the resend ring, and the same amount for the allocator.
const MEMORY_MAX: u64 = 24 * 1024 * 1024;
