//! A real rsyslogd sends 100,000 messages; every one of them is accounted for at the collector.

use super::support::numbered::{Numbered, Tally};
use super::support::originator::Originator;
use super::support::rsyslogd::{Rsyslogd, Transport};
use super::support::sink::Sink;
use super::support::tersed::Setup;

#[test]
fn omfwd_over_tcp_with_line_feeds_adds_up() {
    check("tcp://127.0.0.1:0", Transport::TcpTraditional);
}

#[test]
fn omfwd_over_tcp_with_octet_counts_adds_up() {
    check("tcp://127.0.0.1:0", Transport::TcpOctetCounted);
}

#[test]
fn omfwd_over_udp_adds_up() {
    check("udp://127.0.0.1:0", Transport::Udp);
}

#[test]
fn omrelp_adds_up() {
    check("relp://127.0.0.1:0", Transport::Relp);
}

#[track_caller]
fn check(listener: &str, transport: Transport) {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listen(listener)
        .forward(&sink.url())
        .window("1h")
        .start();
    let rsyslogd = Rsyslogd::sender(tersed.address(listener), transport);

    let sent = Numbered::with_total(100_000);
    let messages: Vec<_> = sent
        .texts()
        .map(|text| format!("<13>app[7]: {text}"))
        .collect();
    let mut originator = Originator::unix_dgram(&rsyslogd.socket());
    // omfwd sends UDP as fast as it can. The next portion is sent when the last one was received, so that the kernel
    // drops nothing.
    let mut sent_so_far = 0;
    for portion in messages.chunks(PORTION) {
        originator.send_all(portion);
        sent_so_far += portion.len() as u64;
        if transport == Transport::Udp {
            tersed.wait_received(sent_so_far);
        }
    }
    tersed.wait_received(sent.total());

    let (metrics, _) = tersed.finish();
    assert_eq!(
        metrics.total("tersed_frames_forwarded_total"),
        sent.distinct()
    );
    assert_eq!(
        metrics.total("tersed_frames_suppressed_total"),
        sent.total() - sent.distinct()
    );
    assert_eq!(metrics.total("tersed_kernel_dropped_total"), 0);
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);

    // All first copies, and one summary for each number that had more than one copy.
    let repeated = sent.distinct() / 4 * 3;
    let expected = usize::try_from(sent.distinct() + repeated).unwrap();
    let tally = Tally::of(sink.wait_messages(expected));
    tally.assert_once_each(sent);
    assert_eq!(tally.summaries, repeated);
}

const PORTION: usize = 2_000;
