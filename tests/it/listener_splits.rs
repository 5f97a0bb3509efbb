//! One port that several listeners divide among them: each connection goes to the one that has its address, in whatever
//! order they are written.
//!
//! Each test has a network of its own, where every port is free.

use std::net::{IpAddr, SocketAddr};

use super::reload::reload;
use super::support::network::Network;
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;

#[test]
fn a_connection_stays_while_some_listener_has_its_address() {
    for (before, after, stay) in [
        // Merged.
        (
            &["[::]", "0.0.0.0"][..],
            &["[::]"][..],
            ["127.0.0.1", "::1"],
        ),
        (&["0.0.0.0", "[::]"], &["[::]"], ["127.0.0.1", "::1"]),
        (
            &["127.0.0.2", "127.0.0.1"],
            &["0.0.0.0"],
            ["127.0.0.1", "127.0.0.2"],
        ),
        (&["[::1]", "127.0.0.1"], &["[::]"], ["127.0.0.1", "::1"]),
        // Split.
        (&["[::]"], &["0.0.0.0", "[::]"], ["127.0.0.1", "::1"]),
        (&["[::]"], &["[::]", "0.0.0.0"], ["127.0.0.1", "::1"]),
        (&["[::]"], &["[::1]", "127.0.0.1"], ["127.0.0.1", "::1"]),
        (
            &["0.0.0.0"],
            &["127.0.0.2", "127.0.0.1"],
            ["127.0.0.1", "127.0.0.2"],
        ),
        // Turned round.
        (
            &["[::]", "0.0.0.0"],
            &["127.0.0.1", "[::1]"],
            ["127.0.0.1", "::1"],
        ),
    ] {
        Network::inside(|_| {
            let sink = Sink::tcp();
            let tersed = Setup::new()
                .config(&listeners(before))
                .forward(&sink.url())
                .start();
            let mut senders = stay.map(|to| Originator::tcp(at(to)));
            for (sender, to) in senders.iter_mut().zip(stay) {
                sender.send(format!("<13>before, to {to}"));
            }
            sink.wait_messages(2);
            reload(&tersed, &listeners(after));
            let closed = tersed
                .log()
                .into_iter()
                .filter(|line| line.mentions("closing connections"));
            assert_eq!(closed.count(), 0, "{before:?} -> {after:?}");
            for (sender, to) in senders.iter_mut().zip(stay) {
                sender.send(format!("<13>after, to {to}"));
            }
            sink.wait_messages(4);
            // They are counted where they are now, and go from there.
            reload(&tersed, &listeners(before));
            for (sender, to) in senders.iter_mut().zip(stay) {
                sender.send(format!("<13>back, to {to}"));
            }
            sink.wait_messages(6);
            drop(senders);
            tersed.wait_metric("tersed_connections", &[], 0);
            tersed.finish();
        });
    }
}

/// What no listener has any more goes, and `allow` is that of the listener that has the address.
#[test]
fn the_allow_of_the_listener_that_has_the_address_decides() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .config(&listeners(&["[::]"]))
            .forward(&sink.url())
            .start();
        let mut six = Originator::tcp(at("::1"));
        let mut four = Originator::tcp(at("127.0.0.1"));
        let mut elsewhere = Originator::tcp(at("127.0.0.2"));
        for sender in [&mut six, &mut four, &mut elsewhere] {
            sender.send("<13>before");
        }
        tersed.wait_received(3);
        let allow = "allow = [\"::1\"]\n";
        reload(
            &tersed,
            &format!(
                "{}{allow}{}",
                listeners(&["127.0.0.1"]),
                listeners(&["[::1]"])
            ),
        );
        four.wait_closed();
        elsewhere.wait_closed();
        six.send("<13>after");
        tersed.wait_received(4);
        for text in [
            "allow does not name their peers any more",
            "the listener left the address that they came to",
        ] {
            let line = tersed.wait_log(&format!("closing connections: {text}"));
            assert_eq!(line.field("connections").as_deref(), Some("1"), "{line:?}");
        }
        tersed.finish();
    });
}

fn listeners(places: &[&str]) -> String {
    let listener = |place| format!("[[listener]]\nurl = \"tcp://{place}:{PORT}\"\n");
    places.iter().map(listener).collect()
}

fn at(to: &str) -> SocketAddr {
    SocketAddr::new(to.parse::<IpAddr>().unwrap(), PORT)
}

const PORT: u16 = 514;
