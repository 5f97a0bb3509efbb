//! Single messages that rsyslog compressed: each is forwarded, octet for octet, where the output can carry it, and
//! dropped with a reason of its own where it cannot.

use std::net::{Ipv4Addr, SocketAddr};

use super::support::originator::Originator;
use super::support::relp::{Answers, RelpClient, RelpServer};
use super::support::rsyslogd::{Rsyslogd, Transport};
use super::support::sink::{Sink, show};
use super::support::tersed::{LogLine, Setup, Stopped, Tersed};
use super::support::wire::Wire;

/// A message with an LF and a NUL in it, as zlib compresses it at level 1, 4, 6 and 9.
const FLGS: [u8; 4] = [0x01, 0x5e, 0x9c, 0xda];

fn compressed(flg: u8) -> Vec<u8> {
    let text = b"\xb3146\xb1\xf3M,RP0T04\xb220\x00\"\x85\x8c\xfc\xe2\x12\x85\xc4\x82\x82h\xf3X+\x85\xdc\xd4\xe2\xe2\xc4\xf4\
        T\x05C\x13K\x85\x92\x8c\xc4\x12\x85\xccb\x85\x9c\xfc\xbct\x85\xd4\xbc\xfc\xd2\xf4\x0c\x85\x92|\x85\xa4T\x85\xe4\xfc\
        \xdc\x82\"\xa0\xca\xd4\x14\x1d\x1cl\x00\xaf\xa2#\n";
    [&[b'z', 0x78, flg][..], text].concat()
}

/// Two plain messages around forty compressed ones, many of which are equal.
fn sent() -> Vec<Vec<u8>> {
    let mut sent = vec![b"<13>app: before".to_vec()];
    for flg in FLGS {
        sent.extend(vec![compressed(flg); 10]);
    }
    sent.push(b"<13>app: behind".to_vec());
    sent
}

const PLAIN: [&[u8]; 2] = [b"<13>app: before", b"<13>app: behind"];

#[test]
fn a_way_out_that_carries_any_octet_gets_each_of_them_as_it_came() {
    let counted = "framing = \"octet-counting\"";
    for listener in [UDP, TCP] {
        let dir = tempfile::tempdir().unwrap();
        for (sink, keys) in [
            (Sink::tcp_framed(Wire::OctetCounting), counted),
            (Sink::udp(), ""),
            (Sink::unix_dgram(&dir.path().join("out.sock")), ""),
        ] {
            let tersed = start(&sink.url(), keys, listener);
            send(listener, tersed.address(listener));
            let messages = sink.wait_messages(42);
            assert_eq!(messages, sent(), "{}", show(&messages));
            let (metrics, stopped) = tersed.finish();
            assert_eq!(metrics.balance().suppressed, 0);
            assert_eq!(metrics.total("tersed_frames_rewritten_total"), 0);
            assert_one_warning(&stopped, listener);
        }
    }
    let sink = RelpServer::new(Answers::All);
    let tersed = start(&sink.url(), "", UDP);
    send(UDP, tersed.address(UDP));
    assert_eq!(sink.wait_messages(42), sent());
    let (_, stopped) = tersed.finish();
    assert_one_warning(&stopped, UDP);
}

#[test]
fn a_way_out_by_lines_drops_them_and_says_so() {
    for listener in [UDP, TCP] {
        let sink = Sink::tcp();
        let tersed = start(&sink.url(), "", listener);
        send(listener, tersed.address(listener));
        assert_eq!(sink.wait_messages(2), PLAIN);
        let (metrics, stopped) = tersed.finish();
        let reason = [("reason", "compressed")];
        let dropped = metrics.total_where("tersed_frames_dropped_total", &reason);
        assert_eq!((dropped, metrics.balance().suppressed), (40, 0));
        assert_eq!(metrics.total("tersed_frames_rewritten_total"), 0);
        assert_one_warning(&stopped, listener);
    }
    let setup = Setup::new();
    let file = setup.path("out.log");
    let url = format!("file://{}", file.display());
    for (keys, expected) in [
        ("", PLAIN.map(|line| [line, b"\n"].concat()).concat()),
        (
            "framing = \"octet-counting\"",
            sent()
                .iter()
                .flat_map(|message| Wire::OctetCounting.encode(message))
                .collect(),
        ),
    ] {
        drop(std::fs::remove_file(&file));
        let tersed = start(&url, keys, UDP);
        send(UDP, tersed.address(UDP));
        tersed.wait_received(42);
        tersed.finish();
        let written = std::fs::read(&file).unwrap();
        assert!(written == expected, "{}", written.escape_ascii());
    }
}

/// The message was dropped, so it is not safe.
#[test]
fn a_relp_sender_hears_that_it_was_dropped() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(RELP).forward(&sink.url()).start();
    let mut client = RelpClient::open(tersed.address(RELP));
    let first = client.send(PLAIN[0]);
    client.answers(first..=first, "200 OK");
    let second = client.send(compressed(0x9c));
    assert!(client.answer().starts_with(&format!("{second} rsp 500 ")));
    let third = client.send(PLAIN[1]);
    client.answers(third..=third, "200 OK");
    assert_eq!(sink.wait_messages(2), PLAIN);
    let (metrics, stopped) = tersed.finish();
    let reason = [("reason", "compressed")];
    assert_eq!(
        metrics.total_where("tersed_frames_dropped_total", &reason),
        1
    );
    assert_one_warning(&stopped, RELP);
}

/// The relay stores them in the spool unchanged: the upstream that will take them is not known yet.
#[test]
fn the_spool_keeps_them() {
    let mut sink = Sink::tcp_framed(Wire::OctetCounting);
    sink.stop();
    let setup = Setup::new();
    let spool = setup.path("spool");
    let tersed = setup
        .append(&format!(
            "[spool]\ndirectory = \"{}\"\n[forward]\nto = [{{ url = \"{}\", framing = \"octet-counting\" }}]\n",
            spool.display(),
            sink.url()
        ))
        .args(["--listen", RELP])
        .window("1h")
        .start();
    let mut client = RelpClient::open(tersed.address(RELP));
    let last = client.send_all(sent());
    // With the upstream away, only the spool can be the reason for the answers.
    client.answers(2..=last, "200 OK");
    sink.restart();
    assert_eq!(sink.wait_messages(42), sent());
    tersed.finish();
}

/// Each peer is warned about once, whatever other peers do.
#[test]
fn each_peer_is_warned_of_once() {
    let sink = Sink::udp();
    let tersed = start(&sink.url(), "", UDP);
    let address = tersed.address(UDP);
    for _ in 0..3 {
        for peer in 1..=5 {
            let from = Ipv4Addr::new(127, 0, 79, peer);
            Originator::udp_from(from, address).send(compressed(0x9c));
        }
    }
    tersed.wait_received(15);
    let (_, stopped) = tersed.finish();
    let mut peers: Vec<_> = warnings(&stopped)
        .iter()
        .map(|line| line.field("peer").unwrap())
        .collect();
    peers.sort();
    let expected: Vec<_> = (1..=5).map(|peer| format!("127.0.79.{peer}")).collect();
    assert_eq!(peers, expected);
}

/// From a real rsyslog, through the relay, to a real rsyslog, which decompresses them.
#[test]
fn what_rsyslog_compressed_another_rsyslog_reads() {
    for (transport, level) in [
        (Transport::Udp, 9),
        (Transport::TcpTraditional, 1),
        (Transport::TcpTraditional, 4),
        (Transport::TcpOctetCounted, 6),
        (Transport::TcpOctetCounted, 9),
    ] {
        let listener = if transport == Transport::Udp {
            UDP
        } else {
            TCP
        };
        let (receiver, url) = Rsyslogd::receiver(Transport::TcpOctetCounted);
        let tersed = start(&url, "framing = \"octet-counting\"", listener);
        let sender = compressing(tersed.address(listener), transport, level);
        let texts = send_compressible(&sender);
        let mut read = receiver.wait_received(texts.len());
        read.sort();
        for (read, text) in read.iter().zip(&texts) {
            let read = String::from_utf8_lossy(read);
            assert!(read.ends_with(text), "{transport:?}: {read} is not {text}");
        }
        drop(sender);
        let (metrics, stopped) = tersed.finish();
        assert_eq!(metrics.balance().received, texts.len() as u64);
        assert_one_warning(&stopped, listener);

        let sink = Sink::tcp();
        let tersed = start(&sink.url(), "", listener);
        let sender = compressing(tersed.address(listener), transport, level);
        let texts = send_compressible(&sender);
        tersed.wait_metric(
            "tersed_frames_dropped_total",
            &[("reason", "compressed")],
            texts.len() as u64,
        );
        drop(sender);
        let (_, stopped) = tersed.finish();
        assert_eq!(sink.count(), 0);
        assert_one_warning(&stopped, listener);
    }
}

fn compressing(to: SocketAddr, transport: Transport, level: u8) -> Rsyslogd {
    let parameters = format!(r#"compression.mode="single" ZipLevel="{level}""#);
    Rsyslogd::sender_with(to, transport, &parameters)
}

/// Sends messages that are worth compressing. Returns, in the order of their texts, what they end with.
fn send_compressible(rsyslogd: &Rsyslogd) -> Vec<String> {
    let texts: Vec<_> = (100..200)
        .map(|number| format!("{number} {}", "again and ".repeat(20).trim_end()))
        .collect();
    let messages = texts.iter().map(|text| format!("<13>app: {text}"));
    Originator::unix_dgram(&rsyslogd.socket()).send_all(messages);
    texts
}

fn start(url: &str, keys: &str, listener: &str) -> Tersed {
    let separator = if keys.is_empty() { "" } else { ", " };
    Setup::new()
        .config(&format!(
            "[forward]\nline_breaks = \"escape\"\nto = [{{ url = \"{url}\"{separator}{keys} }}]\n"
        ))
        .listen(listener)
        .window("1h")
        .start()
}

fn send(listener: &str, to: SocketAddr) {
    if listener == UDP {
        Originator::udp(to).send_all(sent());
        return;
    }
    // As omfwd does with TCP_Framing="traditional": a compressed message has an octet count, a plain one is a line.
    let mut originator = Originator::tcp(to);
    for message in sent() {
        let wire = if message.starts_with(b"z") {
            Wire::OctetCounting
        } else {
            Wire::Lf
        };
        originator.send_octets(&wire.encode(&message));
    }
}

#[track_caller]
fn assert_one_warning(stopped: &Stopped, listener: &str) {
    let warnings = warnings(stopped);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(
        warnings[0]
            .field("advice")
            .unwrap()
            .contains("rsyslog: ZipLevel")
    );
    assert_eq!(warnings[0].field("peer").as_deref(), Some("127.0.0.1"));
    assert_eq!(warnings[0].field("listener").as_deref(), Some(listener));
}

/// The warnings and errors, except those about dropped compressed messages and the summary of losses.
fn warnings(stopped: &Stopped) -> Vec<LogLine> {
    let is_warning = |line: &&LogLine| {
        matches!(line.level.as_str(), "WARN" | "ERROR")
            && !line.message.starts_with("messages are dropped: compressed")
            && line.message != "further losses in the last 10 minutes"
    };
    stopped.log.iter().filter(is_warning).cloned().collect()
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const RELP: &str = "relp://127.0.0.1:0";
