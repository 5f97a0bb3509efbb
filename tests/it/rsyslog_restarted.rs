//! A real rsyslogd is restarted under load: nothing is missing, and what came again was counted.
//!
//! What this proves: rsyslogd runs without a queue of its own (`queue.type="direct"`), so it has written what it has
//! read when it ends on `SIGTERM`. What was unread in its kernel comes again; that is more, the slower it is, because
//! the kernel gives a slow reader an ever larger buffer. With rsyslogd's usual queue in memory, what it read ahead
//! survives a stop only with `queue.saveOnShutdown`, and a kill not at all: over plain TCP no relay can know.

use std::thread;

use nix::sys::signal::Signal;

use super::support::ordered::{assert_ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::rsyslogd::Rsyslogd;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, is_long, wait_until};

#[test]
fn imtcp_restarted_under_load_misses_nothing() {
    let (mut rsyslogd, url) = Rsyslogd::direct_receiver();
    let tersed = Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nto = [\"{url}\"]\nqueue = \"1MiB\"\n\
             retry_min = \"10ms\"\nretry_max = \"50ms\"\n"
        ))
        .listen(TCP)
        .start();
    let restarts = if is_long() { 30 } else { 8 };
    let count = restarts * EACH;
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = thread::spawn(move || {
        originator.send_all(ordered_all(count, OCTETS));
        originator
    });
    let part = (EACH / 2 * OCTETS) as u64;
    for _ in 0..restarts {
        let before = rsyslogd.received_octets();
        wait_until("some more of it to arrive", LIMIT, || {
            rsyslogd.received_octets() > before + part
        });
        rsyslogd.restart(Signal::SIGTERM);
    }
    sender.join().unwrap();
    tersed.wait_received(count as u64);
    let (metrics, _) = tersed.finish();
    assert!(metrics.total("tersed_upstream_errors_total") >= restarts as u64);
    let again = metrics.total("tersed_frames_resent_total");
    wait_until("the last message", LIMIT, || {
        // Looking is expensive, so look only when there is as much.
        if rsyslogd.received_octets() < (count * (OCTETS + 1)) as u64 {
            return false;
        }
        let last = rsyslogd.received().pop();
        last.is_some_and(|last| places(&[last], OCTETS) == [count - 1])
    });
    assert_ordered(&places(&rsyslogd.received(), OCTETS), count, again);
}

const TCP: &str = "tcp://127.0.0.1:0";
const EACH: usize = 10_000;
const OCTETS: usize = 200;
