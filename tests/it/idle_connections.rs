//! A thousand idle connections cost almost nothing, and delay no other peer.

use std::net::Ipv4Addr;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, wait_until};

#[test]
fn a_thousand_idle_connections_leave_room_for_one_that_talks() {
    let sink = Sink::tcp();
    let listener = "tcp://127.0.0.1:0";
    let tersed = Setup::new()
        .listen(listener)
        .forward(&sink.url())
        .window("1h")
        .start();
    let address = tersed.address(listener);
    Originator::tcp(address).send("before");
    sink.wait_messages(1);
    let connections = || tersed.metrics().total("tersed_connections");
    wait_until("the first connection to be gone", LIMIT, || {
        connections() == 0
    });
    let (files, octets) = (tersed.open_files(), tersed.resident_octets());

    // Ten source addresses, because of the limit for one source.
    let idle: Vec<_> = (1..=10)
        .flat_map(|source| [Ipv4Addr::new(127, 0, 0, source); 100])
        .map(|source| Originator::tcp_from(source, address))
        .collect();
    wait_until("1,000 connections", LIMIT, || connections() == 1_000);
    Originator::tcp_from(Ipv4Addr::new(127, 0, 0, 11), address).send("among them");
    sink.wait_messages(2);
    let each = tersed.resident_octets().saturating_sub(octets) / 1_000;
    // 2.5 KiB were measured.
    assert!(each < 8 * 1024, "{each} octets for each idle connection");

    drop(idle);
    wait_until("no connections", LIMIT, || connections() == 0);
    wait_until("their files to be closed", LIMIT, || {
        tersed.open_files() <= files
    });
    tersed.finish();
}
