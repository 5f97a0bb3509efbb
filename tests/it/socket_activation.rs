//! Sockets that the service manager opened and passed in (`LISTEN_FDS`), all four kinds.
//!
//! `systemd-socket-activate` opens them, as systemd does for a `.socket` unit, and starts the relay when the first
//! octet comes. That octet is not lost.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn passed_stream_sockets_become_listeners_under_their_names() {
    let sink = Sink::tcp();
    let setup = Setup::new();
    // This directory outlives the relay's own.
    let dir = TempDir::new().unwrap();
    let (tcp, unix) = (address(1), dir.path().join("in.sock"));
    let setup = setup
        .launcher(activate(
            &["--fdname=net:local"],
            &[&tcp.to_string(), text(&unix)],
        ))
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(EXTRA)
        .forward(&sink.url());
    let tersed = start(setup, || {
        wait_until("the socket", LIMIT, || TcpStream::connect(tcp).is_ok());
        Originator::tcp(tcp).send(message(1));
    });
    sink.wait_messages(1);
    Originator::unix_stream(&unix).send_all([message(2), message(1)]);
    sink.wait_messages(2);
    Originator::tcp(tersed.address(EXTRA)).send(message(3));
    sink.wait_messages(3);

    let of = |tersed: &Tersed, name: &str| {
        let metrics = tersed.metrics();
        metrics.total_where("tersed_frames_received_total", &[("listener", name)])
    };
    tersed.wait_received(4);
    let names = [
        format!("net tcp://{tcp}"),
        format!("local {}", url("unix-stream", &unix)),
    ];
    assert_eq!(names.each_ref().map(|name| of(&tersed, name)), [1, 2]);
    // The path belongs to the service manager: it stays when the relay ends.
    tersed.finish();
    assert!(unix.exists());
    assert!(
        UnixStream::connect(unix).is_err(),
        "no process listens any more"
    );
}

#[test]
fn passed_datagram_sockets_become_listeners() {
    let sink = Sink::tcp();
    let setup = Setup::new();
    let (udp, unix) = (address(2), setup.path("in.sock"));
    let setup = setup
        .launcher(activate(&["--datagram"], &[&udp.to_string(), text(&unix)]))
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(EXTRA)
        .forward(&sink.url());
    let path = unix.clone();
    let tersed = start(setup, move || {
        wait_until("the socket", LIMIT, || path.exists());
        Originator::unix_dgram(&path).send(message(1));
    });
    sink.wait_messages(1);
    Originator::udp(udp).send_all([message(1), message(2), message(3)]);
    sink.wait_messages(3);
    Originator::unix_dgram(&unix).send(message(4));
    sink.wait_messages(4);
    let (metrics, _) = tersed.finish();
    let listener = format!("udp://{udp}");
    let labels = [("listener", listener.as_str())];
    assert_eq!(
        metrics.total_where("tersed_frames_received_total", &labels),
        3
    );
}

/// The settings are those of the configured listener, and the socket is the one passed in, also after a reload.
#[test]
fn a_configured_listener_takes_the_passed_socket_with_its_address() {
    let sink = Sink::tcp();
    let setup = Setup::new();
    let dir = TempDir::new().unwrap();
    let unix = dir.path().join("in.sock");
    let listener = format!(
        "[[listener]]\nname = \"mine\"\nurl = \"{}\"\nframing = \"nul\"\n",
        url("unix-stream", &unix)
    );
    let setup = setup
        .launcher(activate(&["--fdname=theirs"], &[text(&unix)]))
        .config(&listener)
        .forward(&sink.url());
    let path = unix.clone();
    let tersed = start(setup, move || {
        wait_until("the socket", LIMIT, || path.exists());
        Originator::unix_stream(&path).send_octets(b"<13>one\0<13>two\0");
    });
    sink.wait_messages(2);
    let log = tersed.log();
    let names: Vec<_> = log
        .iter()
        .filter(|line| line.message == "listening")
        .map(|line| line.field("listener").unwrap())
        .collect();
    assert_eq!(names, ["mine"], "no second listener on the same socket");

    tersed.signal(nix::sys::signal::Signal::SIGHUP);
    tersed.wait_log("reloaded");
    Originator::unix_stream(&unix).send_octets(b"<13>three\0");
    sink.wait_messages(3);
    tersed.finish();
    assert!(unix.exists());
}

/// A socket that no listener names survives reloads as well.
#[test]
fn a_passed_socket_without_a_configured_listener_outlives_a_reload() {
    let sink = Sink::tcp();
    let setup = Setup::new();
    let unix = setup.path("in.sock");
    let setup = setup
        .launcher(activate(&["--datagram"], &[text(&unix)]))
        .config("[dedup]\nwindow = \"1h\"\n")
        .listen(EXTRA)
        .forward(&sink.url());
    let path = unix.clone();
    let tersed = start(setup, move || {
        wait_until("the socket", LIMIT, || path.exists());
        Originator::unix_dgram(&path).send(message(1));
    });
    sink.wait_messages(1);
    tersed.signal(nix::sys::signal::Signal::SIGHUP);
    tersed.wait_log("reloaded");
    Originator::unix_dgram(&unix).send(message(2));
    sink.wait_messages(2);
    tersed.finish();
}

/// Starts the relay while a sender connects, because it does not start before that.
fn start(setup: Setup, knock: impl FnOnce() + Send) -> Tersed {
    thread::scope(|scope| {
        let knocking = scope.spawn(knock);
        let tersed = setup.start();
        knocking.join().unwrap();
        tersed
    })
}

fn activate(options: &[&str], addresses: &[&str]) -> Vec<String> {
    let listen = addresses
        .iter()
        .map(|address| format!("--listen={address}"));
    let options = options.iter().map(ToString::to_string);
    let program = "systemd-socket-activate".to_owned();
    [program].into_iter().chain(options).chain(listen).collect()
}

/// A loopback address used by this process only, so any port of it is free.
fn address(host: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 10 + host, high, low), 5514).into()
}

fn message(number: u64) -> String {
    format!("<13>Mar  1 12:00:00 host app: number {number}")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// So that the default listeners are not used.
const EXTRA: &str = "tcp://127.0.0.1:0";
