//! A TLS client on a listener without TLS: one clear error, the connection is closed, and nothing is forwarded.

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;

#[test]
fn a_tls_client_is_turned_away_with_one_clear_error() {
    for framing in ["auto", "octet-counting", "lf", "nul"] {
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .listener(TCP, &format!("framing = \"{framing}\""))
            .forward(&sink.url())
            .start();
        // Whole, and in pieces that the relay reads one by one.
        for pieces in [1, 3] {
            let mut originator = Originator::tcp(tersed.address(TCP)).without_delay();
            let (head, rest) = CLIENT_HELLO.split_at(pieces - 1);
            for octet in head {
                originator.send_octets(&[*octet]);
                originator.wait_read();
            }
            originator.send_octets(rest);
            originator.wait_closed();
        }
        tersed.wait_metric(
            "tersed_connections_rejected_total",
            &[("reason", "tls_on_plaintext")],
            2,
        );
        let (metrics, stopped) = tersed.finish();
        assert_eq!(metrics.balance().received, 0, "{framing}");
        assert_eq!(metrics.total("tersed_frame_errors_total"), 0, "{framing}");
        assert_eq!(sink.count(), 0, "{framing}");
        let complaints: Vec<_> = stopped
            .log
            .iter()
            .filter(|line| line.message.contains("TLS"))
            .collect();
        // The second one is only counted, in the final report of suppressed warnings.
        assert_eq!(complaints.len(), 1, "{framing}: {complaints:#?}");
        assert_eq!(complaints[0].level, "WARN");
        assert_eq!(complaints[0].field("peer").as_deref(), Some("127.0.0.1"));
        assert_eq!(complaints[0].field("listener").as_deref(), Some(TCP));
    }
}

#[test]
fn a_message_that_only_begins_like_tls_is_a_message() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(TCP).forward(&sink.url()).start();
    for message in [
        &b"\x16"[..],
        b"\x16\x03",
        b"\x16\x03\x09 not TLS",
        b"\x16\x04\x01",
    ] {
        let mut originator = Originator::tcp(tersed.address(TCP)).without_delay();
        for octet in message {
            originator.send_octets(&[*octet]);
            originator.wait_read();
        }
        originator.send_octets(b"\n");
        originator.half_close();
        originator.wait_closed();
    }
    assert_eq!(
        sink.wait_messages(4),
        [
            &b"\x16"[..],
            b"\x16\x03",
            b"\x16\x03\x09 not TLS",
            b"\x16\x04\x01"
        ]
    );
    tersed.finish();
}

/// The beginning of a ClientHello: a handshake record of TLS 1.0 (which all versions use first) with 512 octets, some
/// of them line ends.
const CLIENT_HELLO: &[u8] =
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n<13>forged\n\0\n\n8 <13>two";

const TCP: &str = "tcp://127.0.0.1:0";
