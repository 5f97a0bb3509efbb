//! Floods of meaningless octets: no panic, everything is counted, and the work is proportional to the octets.
//!
//! Where a frame has one or two octets, an octet may cost several times as much as in an ordinary flood. Quadratic work
//! would cost a thousand times as much.
//!
//! 4 MiB each over TCP and 2 MiB over UDP; with `TERSED_TEST_LONG=1` 64 MiB and 16 MiB.

use std::time::Duration;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn the_cost_of_hostile_streams_is_linear() {
    let mebibytes = if is_long() { 64 } else { 4 };
    let plain = stream_cost("plain", &plain(), mebibytes);
    for (what, octets) in hostile() {
        let cost = stream_cost(what, &octets, mebibytes);
        assert!(
            cost <= plain * TIMES,
            "{what}: {cost:?}, a plain flood {plain:?}"
        );
    }
}

#[test]
fn the_cost_of_hostile_datagrams_is_linear() {
    let mebibytes = if is_long() { 16 } else { 2 };
    let plain = datagram_cost("plain", &plain(), mebibytes);
    for (what, octets) in hostile() {
        let cost = datagram_cost(what, &octets, mebibytes);
        assert!(
            cost <= plain * TIMES,
            "{what}: {cost:?}, a plain flood {plain:?}"
        );
    }
}

/// The processor time that the relay uses for `mebibytes` times `mebibyte` over one connection.
#[track_caller]
fn stream_cost(what: &str, mebibyte: &[u8], mebibytes: usize) -> Duration {
    let (tersed, sink) = start(TCP);
    let mut originator = Originator::tcp(tersed.address(TCP));
    let before = tersed.processor_time();
    for _ in 0..mebibytes {
        originator.send_octets(mebibyte);
    }
    originator.half_close();
    originator.wait_closed();
    end(what, tersed, &sink, TCP, before)
}

/// As [`stream_cost`], in datagrams of 1,400 octets.
#[track_caller]
fn datagram_cost(what: &str, mebibyte: &[u8], mebibytes: usize) -> Duration {
    let (tersed, sink) = start(UDP);
    let mut originator = Originator::udp(tersed.address(UDP));
    let before = tersed.processor_time();
    let mut sent = 0;
    for _ in 0..mebibytes {
        for datagrams in mebibyte.chunks(1_400 * 64) {
            originator.send_all(datagrams.chunks(1_400));
            sent += datagrams.chunks(1_400).len() as u64;
            // Wait, so that none is lost: the cost of received datagrams is measured.
            tersed.wait_received(sent);
        }
    }
    end(what, tersed, &sink, UDP, before)
}

fn start(listener: &str) -> (Tersed, Sink) {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listen(listener)
        .forward(&sink.url())
        .window("1h")
        .start();
    (tersed, sink)
}

/// Asserts that an ordinary message is still delivered. Returns the processor time that the relay used.
#[track_caller]
fn end(what: &str, tersed: Tersed, sink: &Sink, listener: &str, before: Duration) -> Duration {
    let mut other = match listener {
        TCP => Originator::tcp(tersed.address(listener)),
        _ => Originator::udp(tersed.address(listener)),
    };
    other.send("<13>behind the flood");
    wait_until(
        &format!("{what}: a message behind the flood"),
        LIMIT,
        || {
            sink.messages()
                .iter()
                .any(|message| message == b"<13>behind the flood")
        },
    );
    let used = tersed.processor_time() - before;
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_kernel_dropped_total"), 0, "{what}");
    used
}

/// A mebibyte of ordinary messages of 200 octets, all different.
fn plain() -> Vec<u8> {
    let mut random = Random(1);
    let mut octets = Vec::new();
    while octets.len() < MEBIBYTE {
        let text = format!("{:016x}", random.next());
        octets.extend(format!("<13>Mar  1 12:00:00 host app[7]: {text:0<166}\n").bytes());
    }
    octets.truncate(MEBIBYTE);
    octets
}

/// Mebibytes of input that no sensible sender produces.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let all = |pattern: &[u8]| pattern.iter().copied().cycle().take(MEBIBYTE).collect();
    let mut random = Random(2);
    let noise = (0..MEBIBYTE / 8)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    vec![
        ("random octets", noise),
        ("NUL", all(b"\0")),
        ("LF", all(b"\n")),
        ("CR", all(b"\r")),
        ("CR LF", all(b"\r\n")),
        ("digits", all(b"9")),
        ("zeros", all(b"0")),
        ("counts without an end", all(b"65535 ")),
        ("absurd counts", all(b"9999999999 <13>")),
        ("<", all(b"<")),
        ("[", all(b"<13>1 - - - - - [")),
        (
            "quotes",
            all(b"<13>1 2026-03-01T12:00:00Z - - - - [a b=\"\\\""),
        ),
        ("blanks", all(b" ")),
        ("colons", all(b":")),
        ("0xFF", all(b"\xff")),
    ]
}

/// Pseudo-random numbers, the same in each run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn is_long() -> bool {
    std::env::var_os("TERSED_TEST_LONG").is_some()
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const MEBIBYTE: usize = 1024 * 1024;
/// An octet of any input may cost as much as so many of an ordinary flood.
const TIMES: u32 = 12;
