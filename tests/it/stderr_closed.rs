//! The reader of the log has gone: the log is lost, and everything else continues.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::BINARY;
use super::support::wait::{LIMIT, wait_for};

#[test]
fn a_closed_standard_error_changes_nothing_but_the_log() {
    let sink = Sink::tcp();
    let mut command = Command::new(BINARY);
    command
        .args(["run", "--window", "1h", "--forward", &sink.url()])
        .args(["--listen", "tcp://127.0.0.1:0"])
        .args(["--listen", "udp://127.0.0.1:0"]);
    let mut tersed = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(tersed.stderr.take().unwrap()).lines();
    let mut address = None;
    let ready = log.by_ref().map(Result::unwrap).find(|line| {
        if let Some((_, listener)) = line.split_once("listener=\"tcp") {
            let (_, after) = listener.split_once(" address=\"").unwrap();
            address = after.split_once('"').unwrap().0.parse().ok();
        }
        line.contains("ready")
    });
    assert!(ready.is_some());
    drop(log);

    let mut originator = Originator::tcp(address.expect("the address is logged"));
    originator.send_all(["one", "one", "two"]);
    assert_eq!(sink.wait_messages(2), [b"one", b"two"]);
    let id = Pid::from_raw(i32::try_from(tersed.id()).unwrap());
    // Each of these signals makes the relay log something.
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        kill(id, signal).unwrap();
    }
    let status = wait_for("the end", LIMIT, || tersed.try_wait().unwrap());
    assert!(status.success(), "{status}");
}
