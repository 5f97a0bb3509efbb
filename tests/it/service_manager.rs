//! The notifications to the service manager (`sd_notify(3)`): ready, reloading, stopping, watchdog.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use super::support::tersed::{Setup, Tersed};
use super::support::wait::LIMIT;

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let (manager, tersed) = start(Setup::new());
    assert_eq!(manager.next(), "READY=1");

    let before = monotonic_usec();
    tersed.signal(Signal::SIGHUP);
    let reloading = manager.next();
    // systemd regards a reload as begun only if it is told the time (sd_notify(3), Type=notify-reload).
    let stamp = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let stamp: u64 = stamp.expect(&reloading).parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&stamp), "{reloading}");
    assert_eq!(manager.next(), "READY=1");

    // A refused reload ends, too.
    std::fs::write(tersed.config_file(), "broken").unwrap();
    tersed.signal(Signal::SIGHUP);
    assert!(manager.next().starts_with("RELOADING=1\n"));
    assert_eq!(manager.next(), "READY=1");
    tersed.wait_log("reload refused");

    let (_, stopped) = tersed.finish();
    assert_eq!(manager.next(), "STOPPING=1");
    assert_eq!(stopped.log_count("stopped"), 1);
}

#[test]
fn the_watchdog_hears_that_we_live_and_notices_when_we_do_not() {
    let setup = Setup::new().environment("WATCHDOG_USEC", "200000");
    let (manager, tersed) = start(setup);
    assert_eq!(manager.next(), "READY=1");
    for _ in 0..5 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    // While it is stopped, it sends nothing: after it is continued, at most late notifications come.
    tersed.signal(Signal::SIGSTOP);
    manager.socket.set_nonblocking(true).unwrap();
    while manager.socket.recv(&mut [0; 64]).is_ok() {}
    manager.socket.set_nonblocking(false).unwrap();
    let quiet = std::time::Duration::from_millis(600);
    manager.socket.set_read_timeout(Some(quiet)).unwrap();
    assert!(manager.socket.recv(&mut [0; 64]).is_err(), "it is stopped");
    manager.socket.set_read_timeout(Some(LIMIT)).unwrap();
    tersed.signal(Signal::SIGCONT);
    assert_eq!(manager.next(), "WATCHDOG=1");
    tersed.finish();
}

#[test]
fn without_a_watchdog_nothing_is_said_in_between() {
    let (manager, tersed) = start(Setup::new());
    tersed.finish();
    assert_eq!([manager.next(), manager.next()], ["READY=1", "STOPPING=1"]);
}

/// The socket on which a service manager listens.
struct Listener {
    socket: UnixDatagram,
}

impl Listener {
    /// The next notification.
    #[track_caller]
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self
            .socket
            .recv(&mut buffer)
            .expect("a word from the relay");
        let said = std::str::from_utf8(&buffer[..count]).unwrap();
        said.trim_end_matches('\n').to_owned()
    }
}

fn start(setup: Setup) -> (Listener, Tersed) {
    let path = setup.path("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let tersed = setup
        .environment("NOTIFY_SOCKET", path.to_str().unwrap())
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen("udp://127.0.0.1:0")
        .start();
    (Listener { socket }, tersed)
}

fn monotonic_usec() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    let usec = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000;
    usec.try_into().unwrap()
}
