//! Standard output cannot be opened again: when its reader goes away, the relay logs that and fails.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use nix::sys::stat::Mode;

use super::support::originator::Originator;
use super::support::process::Process;
use super::support::tersed::BINARY;
use super::support::wait::{LIMIT, wait_for, wait_until};

/// After its end there is no `/metrics`; the last line of its log has the final balance.
#[test]
fn a_closed_standard_output_ends_the_relay_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("stdout");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    // Opened without waiting for the other end, because that is opened later.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let reader = options.open(&fifo).unwrap();

    let mut command = Command::new("sh");
    let script = "exec \"$0\" \"$@\" >\"$FIFO\"";
    command.args(["-c", script, BINARY]);
    command.args(["run", "--listen", "tcp://127.0.0.1:0", "--window", "1h"]);
    command.env_clear().env("FIFO", &fifo);
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let mut tersed = Process::start(&mut command, "a shell");
    let address = wait_for("the address", LIMIT, || {
        let log = tersed.stderr();
        let after = log.split_once("address=")?.1;
        let address = after.split_once(char::is_whitespace)?.0;
        log.contains("ready")
            .then(|| address.trim_matches('"').parse())
    });
    let mut originator = Originator::tcp(address.unwrap());
    originator.send("<13>app: one");
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    wait_until("the first survivor", LIMIT, || {
        // This call does not wait, so it returns an error while there are no octets.
        reader.read_line(&mut line).is_ok() && line.ends_with('\n')
    });
    assert_eq!(line, "<13>app: one\n");

    drop(reader);
    originator.send("<13>app: two");
    let status = tersed.wait_exit(LIMIT);
    let log = tersed.stderr();
    assert_eq!(status.code(), Some(1), "{status}\n{log}");
    assert!(log.contains("standard output is closed"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let last = log.lines().find(|line| line.contains("stopped")).unwrap();
    for count in ["received=2", "forwarded=1", "dropped=1", "queued=0"] {
        assert!(last.contains(count), "{count} is not in {last}");
    }
}
