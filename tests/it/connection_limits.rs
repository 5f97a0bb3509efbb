//! More connections than the limits allow: the excess ones are closed at once and counted, and the others are not
//! affected.

use std::net::Ipv4Addr;
use std::thread;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;

#[test]
fn a_flood_of_connections_leaves_the_existing_ones_alone() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(
            TCP,
            "connections_max = 50\nconnections_per_source_max = 1000",
        )
        .forward(&sink.url())
        .window("1h")
        .start();
    let address = tersed.address(TCP);
    let mut existing: Vec<_> = (0..50).map(|_| Originator::tcp(address)).collect();
    tersed.wait_metric("tersed_connections", &[], 50);

    // 10,000 in all, from threads with a few at a time each.
    thread::scope(|scope| {
        let floods: Vec<_> = (0..FLOODERS)
            .map(|_| scope.spawn(|| flood(address)))
            .collect();
        let mut number = 0;
        while number < 50 || floods.iter().any(|flood| !flood.is_finished()) {
            existing[number % 50].send(format!("<13>during the flood {number}"));
            number += 1;
            sink.wait_messages(number);
        }
    });
    let sent = sink.count();
    tersed.wait_metric("tersed_connections_rejected_total", LIMIT_REACHED, 10_000);
    // Refused connections were accepted first.
    tersed.wait_metric("tersed_connections_accepted_total", &[], 10_050);

    // A place that was given up can be used again.
    drop(existing.pop());
    tersed.wait_metric("tersed_connections", &[], 49);
    Originator::tcp(address).send("<13>behind the flood");
    sink.wait_messages(sent + 1);
    let rejections = tersed.log_count("connection rejected");
    assert!(rejections <= 3, "{rejections} log lines for one flood");
    let rejected = tersed.wait_log("connection rejected");
    let limit = rejected.field("limit");
    assert_eq!(limit.as_deref(), Some("connections_max = 50"));
    assert!(rejected.mentions("raise connections_max"), "{rejected:?}");
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, sent as u64 + 1);
}

#[test]
fn one_source_cannot_take_all_connections() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(TCP, "connections_max = 10\nconnections_per_source_max = 3")
        .forward(&sink.url())
        .start();
    let address = tersed.address(TCP);
    let greedy = Ipv4Addr::new(127, 0, 0, 2);
    let mut held: Vec<_> = (0..3)
        .map(|_| Originator::tcp_from(greedy, address))
        .collect();
    tersed.wait_metric("tersed_connections", &[], 3);
    Originator::tcp_from(greedy, address).wait_closed();
    let mut modest = Originator::tcp_from(Ipv4Addr::new(127, 0, 0, 3), address);
    modest.send("<13>another source");
    held[0].send("<13>the same source, over a connection that it had");
    sink.wait_messages(2);
    drop(held.pop());
    tersed.wait_metric("tersed_connections", &[], 3);
    held.push(Originator::tcp_from(greedy, address));
    held[2].send("<13>the same source, in the place that it gave up");
    sink.wait_messages(3);

    let (metrics, stopped) = tersed.finish();
    let rejected =
        |reason| metrics.total_where("tersed_connections_rejected_total", &[("reason", reason)]);
    assert_eq!((rejected("source_limit"), rejected("limit")), (1, 0));
    let lines = stopped.log.iter();
    let mut lines = lines.filter(|line| line.message == "connection rejected");
    let line = lines.next().unwrap();
    assert_eq!(
        line.field("limit").as_deref(),
        Some("connections_per_source_max = 3")
    );
    assert_eq!(line.field("listener").as_deref(), Some(TCP));
}

#[test]
fn only_sources_on_the_list_are_heard() {
    let sink = Sink::tcp();
    let allow = "allow = [\"127.0.0.2\", \"127.1.0.0/16\"]";
    let tersed = Setup::new()
        .listener(TCP, allow)
        .listener(UDP, allow)
        .forward(&sink.url())
        .window("1h")
        .start();
    let (tcp, udp) = (tersed.address(TCP), tersed.address(UDP));
    let refused = Ipv4Addr::new(127, 0, 0, 1);
    for number in 0..20 {
        let mut originator = Originator::tcp_from(refused, tcp);
        // The relay may have closed already.
        originator.try_send_octets(format!("<13>unheard {number}\n").as_bytes());
        originator.wait_closed();
        Originator::udp_from(refused, udp).send(format!("<13>unheard datagram {number}"));
    }
    for (source, number) in [([127, 0, 0, 2], 1), ([127, 1, 2, 3], 2)] {
        Originator::tcp_from(source.into(), tcp).send(format!("<13>heard {number}"));
        Originator::udp_from(source.into(), udp).send(format!("<13>heard datagram {number}"));
    }
    sink.wait_messages(4);
    tersed.wait_metric("tersed_frames_dropped_total", &[("reason", "acl")], 20);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(
        metrics.total_where("tersed_connections_rejected_total", &[("reason", "acl")]),
        20
    );
    assert_eq!(metrics.balance().received, 24, "20 datagrams were refused");
    let messages = sink.messages();
    assert!(
        messages
            .iter()
            .all(|message| message.starts_with(b"<13>heard")),
        "{messages:?}"
    );
    // Refusals are logged, but not each one: a peer that may not even send must not be able to fill the log.
    for (said, most) in [
        ("connection rejected", 3),
        ("datagram refused: not in allow", 3),
    ] {
        let lines = stopped.log.iter().filter(|line| line.message == said);
        let count = lines.count();
        assert!((1..=most).contains(&count), "{said:?}: {count} lines");
    }
}

/// Connects 10,000 / [`FLOODERS`] times. The relay closes each connection without sending anything.
fn flood(to: std::net::SocketAddr) {
    for _ in 0..10_000 / FLOODERS / 25 {
        let connections: Vec<_> = (0..25).map(|_| Originator::tcp(to)).collect();
        connections.into_iter().for_each(Originator::wait_closed);
    }
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const LIMIT_REACHED: &[(&str, &str)] = &[("reason", "limit")];
const FLOODERS: usize = 8;
