//! Tests of the harness itself: a tool that cannot fail proves nothing.
//!
//! Sinks misbehave as told, tallies notice missing and excess messages, and the real peers lose nothing when they talk
//! to each other without a relay.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::support::logger::Logger;
use super::support::metrics::Metrics;
use super::support::numbered::{Numbered, Tally, repeats};
use super::support::originator::Originator;
use super::support::proc_fs;
use super::support::process::Process;
use super::support::rsyslogd::{Rsyslogd, Transport};
use super::support::sink::{Manner, RefusingPort, Sink, show};
use super::support::syslog_ng::SyslogNg;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, wait_until};
use super::support::wire::Wire;

#[test]
fn messages_survive_their_framing() {
    for wire in [Wire::Lf, Wire::Nul, Wire::OctetCounting] {
        let sink = Sink::tcp_framed(wire);
        let mut originator = Originator::tcp(tcp_address(&sink)).framed(wire);
        originator.send_all(["one", "", "three with spaces"]);
        originator.send_octets(b"7");
        assert_eq!(
            sink.wait_messages(3),
            [&b"one"[..], b"", b"three with spaces"]
        );
        wait_until("the fragment", LIMIT, || sink.fragments() == [b"7"]);
    }
}

#[test]
fn datagram_sinks_record_each_datagram() {
    let sink = Sink::udp();
    let address = sink.url().strip_prefix("udp://").unwrap().parse().unwrap();
    Originator::udp(address).send_all(["a\nb", "c"]);
    assert_eq!(sink.wait_messages(2), [&b"a\nb"[..], b"c"]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dgram.sock");
    let sink = Sink::unix_dgram(&path);
    Originator::unix_dgram(&path).send_all(["a\nb", "c"]);
    assert_eq!(sink.wait_messages(2), [&b"a\nb"[..], b"c"]);
}

#[test]
fn a_sink_closes_after_so_many_octets() {
    let sink = Sink::tcp().mannered(Manner::CloseAfter(6));
    let mut originator = Originator::tcp(tcp_address(&sink));
    originator.send_octets(b"one\ntwo\nthree\n");
    originator.wait_closed();
    assert_eq!(sink.messages(), [b"one"]);
    assert_eq!(sink.fragments(), [b"tw"]);
    assert_eq!(sink.connection_count(), 1);
}

#[test]
fn a_sink_that_never_reads_reads_when_told_to() {
    let sink = Sink::tcp().mannered(Manner::NeverRead);
    let mut originator = Originator::tcp(tcp_address(&sink));
    originator.send("held up");
    wait_until("the connection", LIMIT, || sink.connection_count() == 1);
    assert_eq!(sink.count(), 0);
    sink.behave(Manner::Read);
    sink.wait_messages(1);
}

#[test]
fn a_slow_sink_gets_there() {
    let sink = Sink::tcp().mannered(Manner::Slow(2));
    Originator::tcp(tcp_address(&sink)).send("slow");
    sink.wait_messages(1);
}

#[test]
#[should_panic(expected = "the relay said echo")]
fn a_sink_that_answers_back_is_noticed() {
    let sink = Sink::tcp().mannered(Manner::AnswerBack);
    let mut originator = Originator::tcp(tcp_address(&sink));
    originator.send_octets(b"echo");
    originator.half_close();
    originator.wait_closed();
}

#[test]
fn a_sink_restarts_on_its_port_and_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream.sock");
    for mut sink in [Sink::tcp(), Sink::unix_stream(&path)] {
        let connect = |sink: &Sink| match sink.url().strip_prefix("tcp://") {
            Some(address) => Originator::tcp(address.parse().unwrap()),
            None => Originator::unix_stream(Path::new(&path)),
        };
        let mut originator = connect(&sink);
        originator.send("before");
        sink.wait_messages(1);
        sink.stop();
        originator.wait_closed();
        sink.restart();
        connect(&sink).send("after");
        assert_eq!(sink.wait_messages(2), [&b"before"[..], b"after"]);
    }
}

#[test]
fn a_refusing_port_refuses_until_it_is_opened() {
    let port = RefusingPort::new();
    let address: std::net::SocketAddr = port.url().strip_prefix("tcp://").unwrap().parse().unwrap();
    let err = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(err.kind(), std::io::ErrorKind::ConnectionRefused);
    let sink = port.open();
    Originator::tcp(address).send("through");
    sink.wait_messages(1);
}

#[test]
fn a_tally_notices_what_is_missing_and_what_is_too_much() {
    let sent = Numbered::with_total(10);
    assert_eq!((sent.total(), sent.distinct()), (10, 4));
    let all: Vec<_> = sent.rfc3164().collect();
    assert_eq!(all.len(), 10);
    let summary = |n: u32| {
        format!("<13>Mar  1 12:00:00 host app[7]: message repeated {n} times: [ number {n:08} of]")
    };
    let good = [&all[..4], &[summary(1), summary(2), summary(3)]].concat();
    let tally = Tally::of(&good);
    tally.assert_once_each(sent);
    assert_eq!(tally.summaries, 3);
    Tally::of(&all).assert_adds_up(sent);

    let fails = |messages: Vec<String>| {
        assert!(catch_unwind(|| Tally::of(messages).assert_once_each(sent)).is_err());
    };
    fails(good[1..].to_vec());
    fails(good[..6].to_vec());
    fails([&good[..], &good[..1]].concat());
    fails([&good[..], &[summary(2)]].concat());
    fails([&good[..], &["number 00000004 of the test".to_owned()]].concat());
    fails(all);
    fails(vec!["no number".to_owned()]);
}

#[test]
fn summaries_are_told_from_messages() {
    let cases = [
        ("<13>app: message repeated 12 times: [ foo]", Some(12)),
        ("<13>app: foo [message repeated 3 times]", Some(3)),
        ("<13>app: foo", None),
        ("<13>app: message repeated often", None),
    ];
    for (message, expected) in cases {
        assert_eq!(repeats(message), expected, "{message}");
    }
}

#[test]
fn metrics_are_taken_apart() {
    let metrics = Metrics::parse(concat!(
        "# HELP tersed_frames_received Frames.\n",
        "# TYPE tersed_frames_received counter\n",
        "tersed_frames_received_total{listener=\"udp://127.0.0.1:0\"} 3\n",
        "tersed_frames_received_total{listener=\"a \\\"b\\\\\"} 4 1700000000.5\n",
        "# TYPE tersed_frames_forwarded counter\ntersed_frames_forwarded_total 4\n",
        "# TYPE tersed_frames_suppressed counter\ntersed_frames_suppressed_total 2\n",
        "# TYPE tersed_frames_dropped counter\n",
        "# TYPE tersed_frames_queued gauge\ntersed_frames_queued 1\n",
        "# TYPE tersed_listener info\n",
        "tersed_listener_info{listener=\"a\",address=\"127.0.0.1:7\"} 1\n",
        "# EOF\n",
    ));
    let listener = [("listener", "a \"b\\")];
    assert_eq!(
        metrics.total_where("tersed_frames_received_total", &listener),
        4
    );
    let address = metrics.label("tersed_listener_info", &[("listener", "a")], "address");
    assert_eq!(address, Some("127.0.0.1:7"));
    assert!(metrics.balance().holds(), "{:?}", metrics.balance());
    assert!(catch_unwind(|| metrics.total("tersed_frames_recieved_total")).is_err());
}

#[test]
fn a_broken_law_is_noticed() {
    let balance = Metrics::parse(concat!(
        "# TYPE tersed_frames_received counter\ntersed_frames_received_total 3\n",
        "# TYPE tersed_frames_forwarded counter\ntersed_frames_forwarded_total 2\n",
        "# TYPE tersed_frames_suppressed counter\n# TYPE tersed_frames_dropped counter\n",
        "# TYPE tersed_frames_queued gauge\n# EOF\n",
    ))
    .balance();
    assert!(!balance.holds(), "{balance:?}");
}

#[test]
fn a_child_is_watched_and_measured() {
    let mut child = Process::start(
        Command::new("sh").args(["-c", "echo out; echo err >&2; read never"]),
        "dash",
    );
    // Its standard input is empty, so it ends.
    let status = child.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(
        (child.stdout().as_slice(), child.stderr().as_str()),
        (&b"out\n"[..], "err\n")
    );

    let this = std::process::id();
    assert!(proc_fs::open_files(this) > 2);
    assert!(proc_fs::resident_octets(this) > 1_000_000);
    assert!(proc_fs::processor_time(this) < Duration::from_secs(3_600));
}

#[test]
#[should_panic(expected = "waited 5ms in vain for: nothing at all")]
fn waiting_in_vain_says_for_what() {
    wait_until("nothing at all", Duration::from_millis(5), || false);
}

#[test]
fn rsyslogd_loses_nothing_on_its_way_to_a_sink() {
    let cases = [
        (Sink::tcp(), Transport::TcpTraditional),
        (
            Sink::tcp_framed(Wire::OctetCounting),
            Transport::TcpOctetCounted,
        ),
        (Sink::udp(), Transport::Udp),
    ];
    for (sink, transport) in cases {
        let url = sink.url();
        let address = url.rsplit_once('/').unwrap().1.parse().unwrap();
        let rsyslogd = Rsyslogd::sender(address, transport);
        let sent = Numbered::with_total(1_000);
        let messages = sent.texts().map(|text| format!("<13>app[7]: {text}"));
        Originator::unix_dgram(&rsyslogd.socket()).send_all(messages);
        Tally::of(sink.wait_messages(1_000)).assert_adds_up(sent);
    }
}

#[test]
fn rsyslogd_loses_nothing_that_it_receives() {
    for transport in [
        Transport::TcpTraditional,
        Transport::TcpOctetCounted,
        Transport::Udp,
    ] {
        let (rsyslogd, url) = Rsyslogd::receiver(transport);
        let address = url.rsplit_once('/').unwrap().1.parse().unwrap();
        let mut originator = match transport {
            Transport::Udp => Originator::udp(address),
            Transport::TcpTraditional => Originator::tcp(address),
            Transport::TcpOctetCounted => Originator::tcp(address).framed(Wire::OctetCounting),
            Transport::Relp => unreachable!("it is not among these"),
        };
        let sent: Vec<_> = Numbered::with_total(1_000).rfc3164().collect();
        originator.send_all(&sent);
        let received = rsyslogd.wait_received(1_000);
        assert!(
            received.iter().eq(sent.iter().map(String::as_bytes)),
            "as sent, in order"
        );
    }
}

#[test]
fn a_limit_on_open_files_is_in_force() {
    let tersed = Setup::new()
        .listen("udp://127.0.0.1:0")
        .open_files_max(100)
        .start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", tersed.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("100"), "{line}");
    assert!(tersed.open_files() < 100);
    tersed.finish();
}

#[test]
fn logger_and_syslog_ng_reach_a_sink() {
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let syslog_ng = SyslogNg::sender(tcp_address(&sink));
    Logger::unix(&syslog_ng.socket()).log(7, "through syslog-ng");
    Logger::tcp(tcp_address(&sink))
        .arg("--octet-count")
        .log(7, "straight");
    let messages = sink.wait_messages(2);
    // syslog-ng includes the line feed in the octet count.
    for text in ["through syslog-ng\n", "straight"] {
        let found = messages
            .iter()
            .any(|message| message.ends_with(text.as_bytes()));
        assert!(found, "{text} is not among {}", show(&messages));
    }
}

fn tcp_address(sink: &Sink) -> std::net::SocketAddr {
    sink.url().strip_prefix("tcp://").unwrap().parse().unwrap()
}
