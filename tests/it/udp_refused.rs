//! A UDP upstream that refuses, and one whose name moves: it does not count as up, what it refused is sent again, and
//! it is found at its new address.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::support::ordered::{ordered, places};
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

/// No process has the port. The network reports that once for each attempt.
#[test]
fn a_refusing_upstream_is_down_and_gets_what_it_refused_when_it_is_there() {
    let address = unused_address();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"1s\"\n")
        .listen(TCP)
        .forward(&format!("udp://{address}"))
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, OCTETS));
    let lost = tersed.wait_log("upstream lost");
    assert_eq!(lost.level, "WARN");
    assert!(lost.mentions("refused"), "{lost:?}");
    originator.send_all((1..COUNT).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(COUNT as u64);
    // Once, however often it is tried.
    let errors = || tersed.metrics().total("tersed_upstream_errors_total");
    let so_far = errors();
    wait_until("some more attempts", LIMIT, || {
        let metrics = tersed.metrics();
        assert_eq!(metrics.total("tersed_upstream_up"), 0, "it refuses");
        assert_eq!(metrics.total("tersed_upstream_active"), 0, "it refuses");
        errors() >= so_far + 3
    });
    tersed.wait_metric("tersed_frames_forwarded_total", &[], 0);
    tersed.wait_metric("tersed_frames_queued", &[], COUNT as u64);
    assert!(tersed.get("/readyz").1.contains("down"));

    let socket = UdpSocket::bind(address).unwrap();
    assert_eq!(receive(&socket, COUNT), (0..COUNT).collect::<Vec<_>>());
    tersed.wait_metric("tersed_upstream_up", &[], 1);
    assert_eq!(tersed.log_count("upstream lost"), 1);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, COUNT as u64);
}

/// A collector is restarted: messages that come meanwhile are not sent to a closed port.
#[test]
fn what_comes_while_the_collector_restarts_arrives() {
    let socket = UdpSocket::bind(APART).unwrap();
    let address = socket.local_addr().unwrap();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(TCP)
        .forward(&format!("udp://{address}"))
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, OCTETS));
    assert_eq!(receive(&socket, 1), [0]);
    drop(socket);
    for place in 1..COUNT {
        originator.send(ordered(0, place, OCTETS));
        tersed.wait_received(place as u64 + 1);
    }
    let socket = UdpSocket::bind(address).unwrap();
    let mut came = Vec::new();
    while came.last() != Some(&(COUNT - 1)) {
        came.extend(receive(&socket, 1));
    }
    // The message before the refusal may have been taken, and may come again.
    came.retain(|place| *place != 0);
    assert_eq!(came, (1..COUNT).collect::<Vec<_>>());
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, COUNT as u64);
}

/// The old address still takes datagrams, so only a new look-up finds the change.
#[test]
fn a_name_that_moves_is_followed_at_sighup_and_within_half_a_minute() {
    let (tersed, hosts, here, there) = named();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, OCTETS));
    here.wait_messages(1);
    point(&hosts, "127.0.0.3");
    tersed.signal(Signal::SIGHUP);
    wait_moves(&tersed, 1);
    originator.send(ordered(0, 1, OCTETS));
    there.wait_messages(1);

    point(&hosts, "127.0.0.2");
    // Within half a minute; the limit is twice as long.
    wait_moves(&tersed, 2);
    originator.send(ordered(0, 2, OCTETS));
    here.wait_messages(2);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 3);
    assert_eq!(stopped.log_count("upstream lost"), 0);
}

#[test]
fn a_name_that_moves_is_followed_when_the_old_address_refuses() {
    let (tersed, hosts, mut here, there) = named();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, OCTETS));
    here.wait_messages(1);
    here.stop();
    drop(here);
    point(&hosts, "127.0.0.3");
    originator.send(ordered(0, 1, OCTETS));
    wait_until("it to arrive there", LIMIT, || {
        places(&there.messages(), OCTETS).contains(&1)
    });
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 2);
    assert_eq!(stopped.log_count("upstream lost"), 1);
}

/// A name has several addresses, and only one of them takes datagrams.
#[test]
fn each_address_of_a_name_is_tried_until_one_does_not_refuse() {
    let there = Sink::udp();
    let port = there.address().port();
    let setup = Setup::new();
    let hosts = setup.path("hosts");
    let names =
        "127.0.0.4 collector.example\n127.0.0.5 collector.example\n127.0.0.1 collector.example\n";
    fs::write(&hosts, names).unwrap();
    let tersed = with_hosts(setup, port);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, OCTETS));
    there.wait_messages(1);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 1);
}

/// A relay that forwards to a name, and two collectors at different addresses; the name has the address of the first.
fn named() -> (Tersed, PathBuf, Sink, Sink) {
    let here = Sink::udp_at(([127, 0, 0, 2], 0).into());
    let port = here.address().port();
    let there = Sink::udp_at(([127, 0, 0, 3], port).into());
    let setup = Setup::new();
    let hosts = setup.path("hosts");
    point(&hosts, "127.0.0.2");
    (with_hosts(setup, port), hosts, here, there)
}

/// The relay has the file `hosts` of its directory as `/etc/hosts`, and no name server.
fn with_hosts(setup: Setup, port: u16) -> Tersed {
    fs::write(setup.path("nsswitch.conf"), "hosts: files\n").unwrap();
    setup
        .with_mounts("mount --bind hosts /etc/hosts; mount --bind nsswitch.conf /etc/nsswitch.conf")
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(TCP)
        .forward(&format!("udp://collector.example:{port}"))
        .start()
}

/// Written in place, because the mount is of the file, not of its name.
fn point(hosts: &PathBuf, address: &str) {
    fs::write(hosts, format!("{address} collector.example\n")).unwrap();
}

fn wait_moves(tersed: &Tersed, count: usize) {
    wait_until("the move to be noticed", LIMIT, || {
        tersed.log_count("the upstream's name has moved") == count
    });
}

/// The places of the next datagrams.
fn receive(socket: &UdpSocket, count: usize) -> Vec<usize> {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 1024];
    let mut next = || {
        let octets = socket.recv(&mut buffer).unwrap();
        places(&[buffer[..octets].to_vec()], OCTETS)[0]
    };
    (0..count).map(|_| next()).collect()
}

/// An address that was free a moment ago.
fn unused_address() -> SocketAddr {
    let socket = UdpSocket::bind(APART).unwrap();
    socket.local_addr().unwrap()
}

const TCP: &str = "tcp://127.0.0.1:0";
/// An address on which no other test listens, so that no other test opens a port that is closed here.
const APART: &str = "127.0.0.60:0";
const COUNT: usize = 50;
const OCTETS: usize = 100;
