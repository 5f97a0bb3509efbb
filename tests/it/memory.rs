//! The process takes at most one and a half times the limit that `check` and `/metrics` state: with a queue full of the
//! shortest messages, with a thousand connections and 900 RELP clients while the upstream is away, and with an
//! unfinished long message on each connection.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use super::support::command::tersed;
use super::support::relp::{OFFERS, frame};
use super::support::sink::RefusingPort;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn a_queue_of_the_shortest_messages_takes_what_it_is_said_to() {
    raise_open_files();
    let upstream = RefusingPort::new();
    let relay = Setup::new()
        .config(&rest(&upstream, "8MiB"))
        .listener(TCP, &many(1000))
        .start();
    let limit = limit(&relay, &["unfinished", "sending", "waiting"]);
    let address = relay.address(TCP);
    let mut connections: Vec<_> = (0..1000).map(|_| connect(address)).collect();
    // Each message is read before the next one is sent on its connection, which makes the smallest possible batches.
    let mut words = Words::default();
    let (mut sent, mut queued) = (0, 0);
    while queued < 15 << 19 {
        for connection in &mut connections {
            write(connection, &words.lines(1));
        }
        sent += 1000;
        wait_until("all of them to be read", LIMIT, || {
            let metrics = relay.metrics();
            queued = metrics.total("tersed_queue_octets");
            metrics.balance().received == sent
        });
    }
    finish(relay, limit);
}

#[test]
fn two_thousand_connections_hold_little_while_the_upstream_is_away() {
    raise_open_files();
    let upstream = RefusingPort::new();
    let relay = Setup::new()
        .config(&rest(&upstream, "1MiB"))
        .listener(TCP, &many(1000))
        .listener(RELP, &many(900))
        .start();
    // No message is unfinished, except for a few octets at the end of a read.
    let limit = limit(&relay, &["unfinished"]);
    let mut words = Words::default();
    let lines: Vec<_> = (0..16).map(|_| words.lines(19_000)).collect();
    let address = relay.address(TCP);
    let mut connections: Vec<_> = (0..1000).map(|_| connect(address)).collect();
    for (connection, lines) in connections.iter_mut().zip(lines.iter().cycle()) {
        write(connection, lines);
    }
    let address = relay.address(RELP);
    let frames: Vec<_> = (0..16).map(|_| words.frames(6000)).collect();
    let mut clients: Vec<_> = (0..900).map(|_| connect(address)).collect();
    for (client, frames) in clients.iter_mut().zip(frames.iter().cycle()) {
        write(client, frames);
    }
    wait_until("all of them to be open", LIMIT, || {
        relay.metrics().total("tersed_connections") == 1900
    });
    finish(relay, limit);
}

#[test]
fn messages_that_were_begun_take_what_they_have() {
    raise_open_files();
    let upstream = RefusingPort::new();
    let relay = Setup::new()
        .config(&rest(&upstream, "1MiB"))
        .listener(
            TCP,
            "connections_max = 400\nconnections_per_source_max = 400",
        )
        .listener(
            RELP,
            "connections_max = 400\nconnections_per_source_max = 400",
        )
        .start();
    let limit = limit(&relay, &[]);
    let begun = vec![b'x'; 65_000];
    let address = relay.address(TCP);
    let mut connections: Vec<_> = (0..400).map(|_| connect(address)).collect();
    for connection in &mut connections {
        connection.set_nonblocking(false).unwrap();
        connection.write_all(&begun).unwrap();
    }
    let mut begun = frame(1, "open", OFFERS.as_bytes());
    begun.extend_from_slice(b"2 syslog 131000 ");
    begun.resize(begun.len() + 130_000, b'x');
    let address = relay.address(RELP);
    let mut clients: Vec<_> = (0..400).map(|_| connect(address)).collect();
    for client in &mut clients {
        client.set_nonblocking(false).unwrap();
        client.write_all(&begun).unwrap();
    }
    let held = 400 * (65_000 + 130_000);
    wait_until("what was begun to be held", LIMIT, || {
        relay.resident_octets() >= held
    });
    finish(relay, limit);
}

/// Asserts the counting law, and that at most one and a half times `limit` was ever resident.
#[track_caller]
fn finish(mut relay: Tersed, limit: u64) {
    relay.assert_balance();
    let resident = relay.peak_resident_octets();
    let shown = |octets: u64| octets / 1024;
    assert!(
        resident * 2 <= limit * 3,
        "{} KiB resident, which is more than 1.5 times {} KiB",
        shown(resident),
        shown(limit)
    );
    let stopped = relay.terminate();
    assert!(stopped.balance().holds(), "{:?}", stopped.balance());
}

/// The limit in the metrics, without the parts that this test does not fill. Asserts that `check` states the same.
#[track_caller]
fn limit(relay: &Tersed, unfilled: &[&str]) -> u64 {
    let path = relay.config_file();
    let path = path.to_str().unwrap();
    let checked = tersed(&["check", "--format", "json", "--config", path], b"");
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let checked = &checked["memory_limit"];
    let metrics = relay.metrics();
    let of = |part: &str| metrics.total_where(LIMIT_METRIC, &[("part", part)]);
    for (part, octets) in checked["parts"].as_object().unwrap() {
        assert_eq!(octets, of(part), "{part}");
    }
    let total = metrics.total(LIMIT_METRIC);
    assert_eq!(checked["total"], total);
    total - unfilled.iter().copied().map(of).sum::<u64>()
}

/// Everything except listeners: the queue, and as little as possible for windows.
fn rest(upstream: &RefusingPort, queue: &str) -> String {
    // A datagram upstream would count as present. Of the upstreams that can be away, this one keeps least.
    let url = upstream.url().replace("tcp:", "relp:");
    format!(
        "[forward]\nto = [\"{url}\"]\nqueue = \"{queue}\"\n\
         [dedup]\nwindow = \"1ms\"\nmemory = \"1MiB\"\nshards = 1\n\
         [runtime]\nworkers = 2\n[shutdown]\ngrace = \"0s\"\n"
    )
}

fn many(count: usize) -> String {
    format!(
        "connections_max = {count}\nconnections_per_source_max = {count}\nmax_message_size = \"4KiB\"\n"
    )
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Writes as much of `octets` as the kernel takes.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "what the relay does not read need not be written"
)]
fn write(stream: &mut TcpStream, mut octets: &[u8]) {
    while !octets.is_empty() {
        match stream.write(octets) {
            Ok(count) => octets = &octets[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Messages of six octets, all different.
#[derive(Default)]
struct Words(u32);

impl Words {
    fn next(&mut self) -> [u8; 6] {
        self.0 += 1;
        let mut left = self.0;
        std::array::from_fn(|_| {
            let letter = b'a' + u8::try_from(left % 26).unwrap();
            left /= 26;
            letter
        })
    }

    fn lines(&mut self, count: usize) -> Vec<u8> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.extend_from_slice(&self.next());
            lines.push(b'\n');
        }
        lines
    }

    /// A RELP session: its opening, and `count` messages.
    fn frames(&mut self, count: u32) -> Vec<u8> {
        let mut frames = frame(1, "open", OFFERS.as_bytes());
        for number in 2..2 + count {
            frames.extend(frame(number, "syslog", &self.next()));
        }
        frames
    }
}

/// Two thousand connections with both ends here need more open files than a shell allows.
fn raise_open_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(
        hard >= 4096,
        "this test opens 2,000 connections: raise the limit of open files"
    );
}

const TCP: &str = "tcp://127.0.0.1:0";
const RELP: &str = "relp://127.0.0.1:0";
const LIMIT_METRIC: &str = "tersed_memory_limit_bytes";
