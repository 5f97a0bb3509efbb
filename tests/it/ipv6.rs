//! IPv6 listeners and senders, and senders over IPv4 to a listener that takes both.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};

#[test]
fn ipv6_senders_are_heard() {
    let sink = Sink::tcp();
    let (tcp, udp) = ("tcp://[::1]:0", "udp://[::1]:0");
    let tersed = Setup::new()
        .listen(tcp)
        .listen(udp)
        .forward(&sink.url())
        .window("1h")
        .start();
    // Neither message names a host, so the sender's address is used, and both have the same.
    Originator::tcp(tersed.address(tcp)).send("<13>one");
    sink.wait_messages(1);
    Originator::udp(tersed.address(udp)).send_all(["<13>one", "<13>two"]);
    assert_eq!(sink.wait_messages(2), [b"<13>one", b"<13>two"]);
    tersed.wait_received(3);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().suppressed, 1);
}

#[test]
fn a_sender_is_the_same_whatever_family_it_is_heard_over() {
    for scheme in ["tcp", "udp"] {
        let sink = Sink::tcp();
        let (both, v4) = (
            format!("{scheme}://[::]:0"),
            format!("{scheme}://127.0.0.1:0"),
        );
        let tersed = Setup::new()
            .listen(&both)
            .listen(&v4)
            .forward(&sink.url())
            .window("1h")
            .start();
        let port = tersed.address(&both).port();
        let connect = |to: SocketAddr| match scheme {
            "tcp" => Originator::tcp(to),
            _ => Originator::udp(to),
        };
        connect((Ipv4Addr::LOCALHOST, port).into()).send("<13>no host named");
        sink.wait_messages(1);
        connect(tersed.address(&v4)).send("<13>no host named");
        tersed.wait_received(2);
        // Another sender.
        connect((Ipv6Addr::LOCALHOST, port).into()).send("<13>no host named");
        sink.wait_messages(2);
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.balance().suppressed, 1, "{scheme}");
    }
}

#[test]
fn a_mapped_address_is_found_on_the_list_of_allowed_sources() {
    let sink = Sink::tcp();
    let (tcp, udp) = ("tcp://[::]:0", "udp://[::]:0");
    let start = |allow: &str| -> Tersed {
        Setup::new()
            .listener(tcp, &format!("allow = [\"{allow}\"]"))
            .listener(udp, &format!("allow = [\"{allow}\"]"))
            .forward(&sink.url())
            .start()
    };
    let tersed = start("127.0.0.0/8");
    let at =
        |listener, ip: std::net::IpAddr| SocketAddr::from((ip, tersed.address(listener).port()));
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    Originator::tcp(at(tcp, v4)).send("<13>heard over TCP");
    Originator::udp(at(udp, v4)).send("<13>heard over UDP");
    sink.wait_messages(2);
    Originator::tcp(at(tcp, v6)).wait_closed();
    Originator::udp(at(udp, v6)).send("<13>unheard");
    tersed.wait_metric("tersed_frames_dropped_total", &[("reason", "acl")], 1);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_connections_rejected_total"), 1);
    assert_eq!(sink.count(), 2);
    let refused = stopped
        .log
        .iter()
        .find(|line| line.message == "connection rejected");
    assert_eq!(refused.unwrap().field("peer").as_deref(), Some("::1"));
}
