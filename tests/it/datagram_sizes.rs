//! The longest and the shortest possible datagrams.

use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, url};
use super::support::wire::Wire;

#[test]
fn the_longest_udp_datagrams_arrive_whole_and_empty_ones_are_ignored() {
    // The maximum of IPv4 and of IPv6 (RFC 768, RFC 8200 without jumbograms).
    for (listener, octets) in [("udp://127.0.0.1:0", 65_507), ("udp://[::1]:0", 65_527)] {
        let sink = Sink::tcp_framed(Wire::OctetCounting);
        let tersed = Setup::new()
            .listener(listener, "")
            .forward_counted(&sink, "")
            .start();
        let mut originator = Originator::udp(tersed.address(listener));
        let message = [b"<13>".as_slice(), &vec![0xfe; octets - 4]].concat();
        originator.send("");
        originator.send(&message);
        originator.send("");
        originator.send("<13>last");
        let messages = sink.wait_messages(2);
        assert!(messages[0] == message, "{} octets", messages[0].len());
        assert_eq!(messages[1], b"<13>last");
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.total("tersed_frames_empty_total"), 2, "{listener}");
        assert_eq!(metrics.balance().received, 2, "{listener}");
        assert_eq!(metrics.total("tersed_frame_errors_total"), 0, "{listener}");
    }
}

#[test]
fn the_longest_udp_datagram_leaves_as_a_datagram() {
    let sink = Sink::udp().mannered(Manner::Read);
    let listener = "udp://127.0.0.1:0";
    let tersed = Setup::new().listen(listener).forward(&sink.url()).start();
    let message = [b"<13>".as_slice(), &[0; 65_507 - 4]].concat();
    let message = [&message[..65_506], b"."].concat();
    Originator::udp(tersed.address(listener)).send(&message);
    let messages = sink.wait_messages(1);
    assert!(messages[0] == message, "{} octets", messages[0].len());
    tersed.finish();
}

/// Messages that do not fit into the upstream's datagrams are reported, with the key and what to do.
#[test]
fn messages_cut_to_udp_max_are_told_once_and_on_the_page() {
    let sink = Sink::udp();
    let listener = "tcp://127.0.0.1:0";
    let tersed = Setup::new()
        .config("[forward]\nudp_max = \"512B\"\n")
        .listen(listener)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(listener));
    originator.send_all(["<13>short".to_owned(), format!("<13>{}", "x".repeat(600))]);
    assert_eq!(sink.wait_messages(2)[1].len(), 512);
    let told = tersed.wait_log(
        "messages are cut: longer than forward.udp_max; raise it, or use a tcp or relp upstream",
    );
    assert_eq!(told.level, "WARN");
    assert_eq!(told.field("udp_max").as_deref(), Some("512B"), "{told:?}");
    assert_eq!(told.field("frames").as_deref(), Some("1"), "{told:?}");
    let page = tersed.get("/readyz").1;
    let line = "\ncut: 1 frames longer than forward.udp_max, ";
    assert!(page.contains(line), "{page}");
    let (metrics, stopped) = tersed.finish();
    assert_eq!(stopped.log_count(&told.message), 1);
    let errors = metrics.total_where("tersed_frame_errors_total", &[("reason", "truncated")]);
    assert_eq!(errors, 1);
}

#[test]
fn a_unix_datagram_longer_than_any_buffer_is_cut_and_counted() {
    for oversize in ["truncate", "drop"] {
        let sink = Sink::tcp_framed(Wire::OctetCounting);
        let setup = Setup::new();
        let path = setup.path("in.sock");
        let tersed = setup
            .listener(
                &url("unix-dgram", &path),
                &format!("oversize = \"{oversize}\""),
            )
            .forward_counted(&sink, "")
            .start();
        let message = [b"<13>".as_slice(), &vec![b'x'; 200 * 1024 - 4]].concat();
        let mut originator = Originator::unix_dgram(&path);
        originator.send_all(["", "<13>before"]);
        originator.send(&message);
        originator.send("<13>behind");
        tersed.wait_received(3);
        let heads = usize::from(oversize == "truncate");
        let messages = sink.wait_messages(2 + heads);
        assert!(
            messages[1..=heads]
                .iter()
                .all(|head| *head == message[..64 * 1024])
        );
        assert_eq!(messages[1 + heads], b"<13>behind");
        let (metrics, _) = tersed.finish();
        let errors = metrics.total_where("tersed_frame_errors_total", &[("reason", "truncated")]);
        assert_eq!(errors, 1);
        assert_eq!(metrics.total("tersed_frames_empty_total"), 1);
        let dropped = metrics.total_where("tersed_frames_dropped_total", &[("reason", "oversize")]);
        assert_eq!(dropped, 1 - heads as u64);
    }
}
