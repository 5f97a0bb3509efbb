//! One sender at line rate does not delay the messages of fifty slow ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, now, wait_until};

#[test]
fn slow_senders_are_heard_at_once_beside_a_fast_connection() {
    let (tersed, sink) = start();
    check(&tersed, &sink, || Originator::tcp(tersed.address(TCP)));
    tersed.finish();
}

#[test]
fn slow_senders_are_heard_at_once_beside_a_flood_of_datagrams() {
    let (tersed, sink) = start();
    check(&tersed, &sink, || Originator::udp(tersed.address(UDP)));
    tersed.finish();
}

/// A relay with one worker, so that the fast sender and the slow ones share it.
fn start() -> (Tersed, Sink) {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(TCP, "")
        .listener(UDP, "receive_buffer = \"1MiB\"")
        .forward(&sink.url())
        .window("1h")
        .append("[runtime]\nworkers = 1")
        .start();
    (tersed, sink)
}

/// With fifty slow senders and one flood, the messages of the slow ones arrive in time.
#[track_caller]
fn check(tersed: &Tersed, sink: &Sink, fast: impl FnOnce() -> Originator + Send) {
    let address = tersed.address(TCP);
    let mut slow: Vec<_> = (0..50).map(|_| Originator::tcp(address)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // If an assertion fails, the flood must end, else the test would not.
        let stop = StopsFlood(&done);
        // The flood's message is forwarded once, so the slow senders wait for their turn only, not for the upstream.
        let flood = scope.spawn(|| {
            let mut fast = fast();
            let mut sent = 0;
            while !done.load(Ordering::SeqCst) {
                fast.send_all([FLOOD; 500]);
                sent += 500;
            }
            sent
        });
        sink.wait_messages(1);
        let mut latencies: Vec<Duration> = (0..MESSAGES)
            .map(|number| {
                let sent = now();
                slow[number % 50].send(format!("<13>slow {number}"));
                wait_until("a slow sender's message", LIMIT, || {
                    sink.count() > number + 1
                });
                sent.elapsed()
            })
            .collect();
        drop(stop);
        let sent: u64 = flood.join().unwrap();
        assert!(sent > 10_000, "{sent} messages are no flood");
        wait_until("everything to be accounted for", LIMIT, || {
            let metrics = tersed.metrics();
            let lost = metrics.total("tersed_kernel_dropped_total");
            metrics.balance().received + lost == sent + MESSAGES as u64
        });
        latencies.sort();
        let p99 = latencies[MESSAGES * 99 / 100];
        assert!(p99 < Duration::from_millis(100), "p99 {p99:?}");
    });
}

/// Ends the flood on drop.
struct StopsFlood<'a>(&'a AtomicBool);

impl Drop for StopsFlood<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const MESSAGES: usize = 200;
const FLOOD: &str = "<13>Mar  1 12:00:00 host app[7]: the same thing again and again, two hundred \
    octets of it as is usual, and nothing that would tell one of these messages from another one";
