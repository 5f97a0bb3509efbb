//! Real rsyslogd at both ends of RELP, killed (`SIGKILL`) under load, and the relay between them: nothing that
//! was answered is missing.
//!
//! The receiver answers when it has written (`queue.type="direct"`). The sender keeps its queue in memory, so it
//! is not killed itself: what it had not sent would be gone with it.

use std::net::SocketAddr;
use std::thread;

use nix::sys::signal::Signal;

use super::support::ordered::{assert_ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::rsyslogd::{DirectInput, Rsyslogd};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, is_long, wait_until};

#[test]
fn imrelp_killed_under_load_misses_nothing() {
    let (mut rsyslogd, url) = Rsyslogd::direct_receiver(DirectInput::Imrelp);
    let tersed = relay("tcp://127.0.0.1:0", &url);
    let kills = if is_long() { 30 } else { 5 };
    let count = kills * EACH;
    let mut originator = Originator::tcp(tersed.address("tcp://127.0.0.1:0"));
    let sender = thread::spawn(move || {
        originator.send_all(ordered_all(count, OCTETS));
        originator
    });
    for _ in 0..kills {
        wait_more(&rsyslogd);
        rsyslogd.restart(Signal::SIGKILL);
    }
    sender.join().unwrap();
    tersed.wait_received(count as u64);
    wait_all(&rsyslogd, count);
    let (metrics, _) = tersed.finish();
    let again = metrics.total("tersed_frames_replayed_total");
    assert_ordered(&places(&rsyslogd.received(), OCTETS), count, again);
}

/// From omrelp through the relay to imrelp; the relay and the receiver are killed in turn.
#[test]
fn omrelp_sends_again_what_a_killed_relay_had_not_answered() {
    let (mut receiver, url) = Rsyslogd::direct_receiver(DirectInput::Imrelp);
    let mut tersed = relay("relp://127.0.0.1:0", &url);
    let address = tersed.address("relp://127.0.0.1:0");
    let sender = Rsyslogd::relp_sender(address);
    let kills = if is_long() { 30 } else { 4 };
    let count = kills * EACH;
    let mut originator = Originator::unix_dgram(&sender.socket());
    let logger = thread::spawn(move || originator.send_all(ordered_all(count, OCTETS)));
    for kill in 0..kills {
        wait_more(&receiver);
        if kill % 2 == 0 {
            tersed.kill();
            tersed = relay(&listener(address), &url);
        } else {
            receiver.restart(Signal::SIGKILL);
        }
    }
    logger.join().unwrap();
    wait_all(&receiver, count);
    tersed.finish();
    // A kill of the relay loses its windows, so that what comes again is not known to be the same.
    assert_ordered(&places(&receiver.received(), OCTETS), count, u64::MAX);
}

fn relay(listener: &str, upstream: &str) -> Tersed {
    let config = format!(
        "[dedup]\nwindow = \"1h\"\n[forward]\nto = [\"{upstream}\"]\nqueue = \"1MiB\"\n\
         retry_min = \"10ms\"\nretry_max = \"50ms\"\n[[listener]]\nurl = \"{listener}\"\n"
    );
    Setup::new().config(&config).start()
}

fn listener(address: SocketAddr) -> String {
    format!("relp://{address}")
}

fn wait_more(rsyslogd: &Rsyslogd) {
    let before = rsyslogd.received_octets();
    wait_until("some more of it to arrive", LIMIT, || {
        rsyslogd.received_octets() > before + (EACH / 2 * OCTETS) as u64
    });
}

/// Waits until all places are there.
fn wait_all(rsyslogd: &Rsyslogd, count: usize) {
    wait_until("every message", LIMIT, || {
        // Looking is dear, so only when as much is there.
        if rsyslogd.received_octets() < (count * (OCTETS + 1)) as u64 {
            return false;
        }
        let places = places(&rsyslogd.received(), OCTETS);
        places
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len()
            == count
    });
}

const EACH: usize = 5_000;
const OCTETS: usize = 200;
