//! Several listeners share one port: each connection goes to the listener that has its address, whatever their order in
//! the file.
//!
//! Each test has its own network, in which every port is free.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;

use nix::sys::signal::Signal;

use super::reload::reload;
use super::support::network::Network;
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, wait_until};

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
        // Reordered.
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
            // Connections count for the listener that has them now, and move back from there.
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

/// Connections to an address that no listener has any more are closed. The `allow` of the listener that has the address
/// applies.
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
            "their peers are no longer in allow",
            "no listener has their local address any more",
        ] {
            let line = tersed.wait_log(&format!("closing connections: {text}"));
            assert_eq!(line.field("connections").as_deref(), Some("1"), "{line:?}");
        }
        tersed.finish();
    });
}

/// Each reload that moves the datagram listener leaves a reader behind that waits at the full queue.
#[test]
fn closed_listeners_do_not_pile_up_at_a_full_queue() {
    Network::inside(|_| {
        let sink = Sink::tcp().mannered(Manner::NeverRead);
        let config = |round: usize| {
            let place = ["127.0.0.1", "0.0.0.0"][round % 2];
            format!(
                "{}[[listener]]\nurl = \"udp://{place}:{PORT}\"\n[forward]\nqueue = \"64KiB\"\n",
                listeners(&["127.0.0.1"])
            )
        };
        let tersed = Setup::new().config(&config(0)).forward(&sink.url()).start();
        let flood = thread::spawn(|| {
            let message = |number| format!("<13>flood {number} {}\n", "x".repeat(900));
            Originator::tcp(at("127.0.0.1")).send_until_closed((0..50_000).map(message));
        });
        wait_until("reading to pause", LIMIT, || {
            tersed.metrics().total("tersed_reading_paused") > 0
        });
        let mut datagrams = Originator::udp(at("127.0.0.1"));
        let reloads = |result| {
            tersed
                .metrics()
                .total_where("tersed_config_reloads_total", &[("result", result)])
        };
        // Whether the reload was put in force.
        let attempt = |config: &str| {
            let before = (reloads("ok"), reloads("refused"));
            fs::write(tersed.config_file(), config).unwrap();
            tersed.signal(Signal::SIGHUP);
            wait_until("the reload", LIMIT, || {
                (reloads("ok"), reloads("refused")) != before
            });
            reloads("ok") > before.0
        };
        let mut round = 0;
        while reloads("refused") == 0 {
            round += 1;
            assert!(
                round < 60,
                "each of so many reloads leaves sockets and threads behind"
            );
            for number in 0..20 {
                datagrams.send(format!("<13>stuck {round} {number} {}", "x".repeat(4000)));
            }
            attempt(&config(round));
        }
        let refused = tersed.wait_log("reload refused");
        for text in [
            "the queue is full, so 16 listeners",
            "Fix the upstream, or reload with another upstream",
        ] {
            assert!(refused.mentions(text), "{refused:?}");
        }
        // A reload that leaves the listeners unchanged is still put in force.
        let same = format!("{}[dedup]\nwindow = \"7s\"\n", config(round - 1));
        assert!(attempt(&same), "{:?}", tersed.log());
        sink.behave(Manner::Read);
        flood.join().unwrap();
        wait_until("a reload that moves the listener", LIMIT, || {
            attempt(&config(round))
        });
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
