//! `check` refuses what `run` refuses: listeners whose sockets the system does not allow together.

use std::process::Command;

use super::support::command::tersed;
use super::support::network::Network;
use super::support::originator::Originator;
use super::support::tersed::{BINARY, Setup};

#[test]
fn listeners_that_do_not_fit_together_are_refused_by_check_and_run_alike() {
    Network::inside(|_| {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let at = |scheme: &str, path: &str| format!("{scheme}://{}/{path}", dir.path().display());
        let all = [
            ["tcp://0.0.0.0:514", "relp://127.0.0.1:514"].map(str::to_owned),
            ["udp://127.0.0.1:514", "udp://0.0.0.0:514"].map(str::to_owned),
            ["udp://[::]:514", "udp://127.0.0.1:514"].map(str::to_owned),
            ["tcp://[::1]:514", "tcp://[::]:514"].map(str::to_owned),
            ["tcp://[::ffff:127.0.0.1]:514", "udp://127.0.0.1:514"].map(str::to_owned),
            [at("unix-dgram", "real/s"), at("unix-stream", "link/s")],
            [
                at("unix-dgram", "real/s"),
                at("unix-dgram", "real/../real/s"),
            ],
        ];
        for [one, two] in &all {
            let listen = ["--listen", one.as_str(), "--listen", two.as_str()];
            let check = tersed(&[&["check"][..], &listen].concat(), b"");
            let run = Command::new(BINARY)
                .arg("run")
                .args(listen)
                .env_clear()
                .output()
                .unwrap();
            assert_ne!(check.code, Some(0), "check takes {one} and {two}");
            assert!(!run.status.success(), "run takes {one} and {two}");
            assert_eq!(
                check.stderr,
                String::from_utf8_lossy(&run.stderr),
                "{one} and {two}"
            );
        }
        for (listen, admin) in [
            ("tcp://0.0.0.0:514", "127.0.0.1:514"),
            ("relp://127.0.0.1:514", "0.0.0.0:514"),
            ("tcp://0.0.0.0:514", "[::]:514"),
        ] {
            let check = tersed(&["check", "--listen", listen, "--admin", admin], b"");
            assert!(
                check.stderr.contains("is already taken"),
                "{listen} {admin}: {}",
                check.stderr
            );
        }
    });
}

#[test]
fn listeners_that_fit_together_are_taken_by_check_and_run_alike() {
    Network::inside(|_| {
        for [one, two] in [
            ["tcp://[::]:514", "tcp://0.0.0.0:514"],
            ["udp://0.0.0.0:514", "udp://[::]:514"],
            ["udp://127.0.0.1:514", "udp://127.0.0.2:514"],
            ["udp://0.0.0.0:514", "udp://[::1]:514"],
            ["tcp://0.0.0.0:514", "udp://127.0.0.1:514"],
        ] {
            let check = tersed(&["check", "--listen", one, "--listen", two], b"");
            assert_eq!(
                (check.code, check.stderr.as_str()),
                (Some(0), ""),
                "{one} {two}"
            );
            let running = Setup::new().listen(one).listen(two).start();
            let listener = if one.starts_with("tcp://[") { two } else { one };
            let to = ([127, 0, 0, 1], 514).into();
            if listener.starts_with("tcp") {
                Originator::tcp(to).send("<13>heard");
            } else {
                Originator::udp(to).send("<13>heard");
            }
            running.wait_metric("tersed_frames_received_total", &[("listener", listener)], 1);
            running.finish();
        }
    });
}

/// The directory may be created at the start, by a service manager for example, so `check` warns and does not refuse.
#[test]
fn a_unix_socket_without_its_directory_is_a_warning_of_check_and_refused_by_run() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("unix-dgram://{}/missing/in.sock", dir.path().display());
    let check = tersed(&["check", "--listen", &url], b"");
    assert_eq!(check.code, Some(0));
    assert!(check.stderr.starts_with("warning: "), "{}", check.stderr);
    assert!(
        check.stderr.contains("/missing does not exist"),
        "{}",
        check.stderr
    );
    let run = Command::new(BINARY)
        .args(["run", "--listen", &url])
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success(), "{said}");
    assert!(said.contains("create the directory"), "{said}");
}

/// Addresses that no system binds, whatever its interfaces.
#[test]
fn addresses_that_cannot_be_bound_are_refused_by_check_and_run_alike() {
    for (flag, given, fits) in [
        (
            "--listen",
            "tcp://[fe80::1]:514",
            "tcp://[fe80::1%ZONE]:514",
        ),
        (
            "--listen",
            "udp://[fe80::1]:514",
            "udp://[fe80::1%ZONE]:514",
        ),
        (
            "--listen",
            "relp://224.0.0.1:514",
            "a multicast address is for udp only",
        ),
        ("--admin", "[fe80::1]:9514", "[fe80::1%ZONE]:9514"),
    ] {
        for command in ["check", "run"] {
            let said = tersed(&[command, flag, given], b"");
            assert_ne!(said.code, Some(0), "{command} takes {given}");
            assert!(
                said.stderr.contains(fits),
                "{command} {given}: {}",
                said.stderr
            );
        }
    }
}
