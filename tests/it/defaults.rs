//! Without any configuration: UDP and TCP on 127.0.0.1:5514, and forwarded messages to standard output.
//!
//! The ports are fixed, so the relay runs in a network namespace of its own, where they are free whatever else runs on
//! the machine. There is no admin address either, so this test checks the output.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use super::support::process::{Process, run};
use super::support::tersed::{BINARY, Setup};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn without_configuration_it_relays_from_5514_to_stdout() {
    // The shell execs the relay, so its process id becomes the relay's.
    let script = "ip link set lo up && exec \"$0\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-c", script, BINARY]);
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let mut tersed = Process::start(&mut command, "util-linux and iproute2");
    wait_until("the relay to be ready", LIMIT, || {
        assert!(tersed.exited().is_none(), "the relay ended at once");
        tersed.stderr().contains("ready")
    });

    // Nothing else listens: there is no admin port unless it is configured.
    assert_eq!(bound(&tersed, "tcp", "0A"), ["0100007F:158A"]);
    let udp = bound(&tersed, "udp", "07");
    assert!(
        !udp.is_empty() && udp.iter().all(|address| address == "0100007F:158A"),
        "{udp:?}"
    );

    log(&tersed, "--udp", "foo");
    wait_until("the first foo", LIMIT, || lines(&tersed) == 1);
    log(&tersed, "--tcp", "foo");
    log(&tersed, "--tcp", "bar");
    wait_until("bar", LIMIT, || lines(&tersed) == 2);

    tersed.signal(Signal::SIGTERM);
    let status = tersed.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(0), "{status}");
    let stdout = String::from_utf8(tersed.stdout()).unwrap();
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    assert!(
        lines[0].ends_with(" foo") && lines[1].ends_with(" bar"),
        "{stdout}"
    );
    assert!(
        lines[2].ends_with(" message repeated 1 times: [ foo]"),
        "{stdout}"
    );
}

#[test]
fn variables_of_the_environment_stand_for_flags() {
    let tersed = Setup::new()
        .environment("TERSED_LISTEN", "tcp://127.0.0.1:0")
        .environment("TERSED_WINDOW", "1h")
        .start();
    assert_ne!(tersed.address("tcp://127.0.0.1:0").port(), 0);
    tersed.finish();
}

#[test]
fn the_default_configuration_is_valid() {
    run(BINARY, &["check"], "tersed itself");
}

/// Runs `logger` in the relay's namespace.
fn log(tersed: &Process, transport: &str, text: &str) {
    let target = format!("--target={}", tersed.id());
    let namespace = [&target, "--user", "--preserve-credentials", "--net"];
    let logger = [
        "logger",
        "--server=127.0.0.1",
        "--port=5514",
        "--rfc3164",
        "--tag=app",
    ];
    let args = [&namespace[..], &logger[..], &[transport, "--", text][..]].concat();
    run("nsenter", &args, "util-linux and bsdutils");
}

/// The local addresses of the sockets in the relay's namespace that are in this state (proc(5)).
fn bound(tersed: &Process, protocol: &str, state: &str) -> Vec<String> {
    let mut addresses = Vec::new();
    for version in ["", "6"] {
        let table = format!("/proc/{}/net/{protocol}{version}", tersed.id());
        for line in fs::read_to_string(table).unwrap().lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields[3] == state {
                addresses.push(fields[1].to_owned());
            }
        }
    }
    addresses
}

fn lines(tersed: &Process) -> usize {
    tersed
        .stdout()
        .iter()
        .filter(|&&octet| octet == b'\n')
        .count()
}
