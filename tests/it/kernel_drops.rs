//! Datagrams that the kernel drops for lack of room are counted exactly: sent = received + dropped by the kernel.

use nix::sys::signal::Signal;

use std::time::Duration;

use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until, wait_while};

#[test]
fn a_burst_beyond_the_receive_buffer_is_accounted_for() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(UDP, "receive_buffer = \"64KiB\"")
        .forward(&sink.url())
        .window("1h")
        .start();
    // Several senders, so that the sockets of all workers overflow.
    let mut senders: Vec<_> = (0..8)
        .map(|_| Originator::udp(tersed.address(UDP)))
        .collect();
    let mut sent = 0;
    for _ in 0..3 {
        tersed.signal(Signal::SIGSTOP);
        for sender in &mut senders {
            sender.send_all((0..1_000).map(|number| format!("<13>burst {}", sent + number)));
            sent += 1_000;
        }
        tersed.signal(Signal::SIGCONT);
        wait_accounted(&tersed, sent);
    }
    let (metrics, _) = tersed.finish();
    let lost = metrics.total_where("tersed_kernel_dropped_total", &[("listener", UDP)]);
    assert!(lost > 0, "the buffer held everything; this tests nothing");
    assert_eq!(metrics.balance().received + lost, sent);
    assert_eq!(metrics.balance().forwarded, sink.count() as u64);
}

#[test]
fn what_is_lost_while_the_upstream_takes_nothing_is_counted_meanwhile() {
    let sink = Sink::tcp().mannered(Manner::NeverRead);
    let mut tersed = Setup::new()
        .listener(UDP, "receive_buffer = \"64KiB\"")
        .append(&format!(
            "[forward]\nto = [\"{}\"]\nqueue = \"64KiB\"\nwhen_full = \"wait\"",
            sink.url()
        ))
        .window("1h")
        .start();
    let mut sender = Originator::udp(tersed.address(UDP));
    let padding = "x".repeat(1_400);
    let mut sent = 0;
    let lost = || tersed.metrics().total("tersed_kernel_dropped_total");
    // First the reader falls behind while the upstream's buffers fill. Then it waits for room, and everything that is
    // sent is lost. A burst is counted at most a quarter of a second later.
    wait_until("500 to be counted as lost", LIMIT, || {
        let before = lost();
        sender.send_all((0..500).map(|number| format!("<13>{padding} {}", sent + number)));
        sent += 500;
        wait_while(COUNTED, || lost() < before + 500)
    });
    let balance = tersed.assert_balance().balance();
    assert!(balance.queued > 0, "{balance:?}");

    sink.behave(Manner::Read);
    wait_accounted(&tersed, sent);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, sink.count() as u64);
}

#[track_caller]
fn wait_accounted(tersed: &Tersed, sent: u64) {
    wait_until(&format!("{sent} datagrams accounted for"), LIMIT, || {
        let metrics = tersed.metrics();
        let lost = metrics.total("tersed_kernel_dropped_total");
        let received = metrics.balance().received;
        assert!(received + lost <= sent, "{received} and {lost} of {sent}");
        received + lost == sent
    });
}

const UDP: &str = "udp://127.0.0.1:0";
/// Twice the interval at which a listener looks for losses.
const COUNTED: Duration = Duration::from_millis(500);
