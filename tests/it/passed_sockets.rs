//! Sockets that the service manager passed in and the configuration names differently, or not at all: nothing is open
//! to the network that the operator did not mean, and the log says which URL takes which socket.

use std::net::{SocketAddr, TcpStream};
use std::process::ExitStatus;
use std::thread;

use super::reload::reload;
use super::support::network::Network;
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn an_address_that_was_handed_over_under_another_spelling_is_named() {
    Network::inside(|_| {
        for (listener, socket) in [
            ("tcp://0.0.0.0:514", "tcp://[::]:514"),
            ("relp://127.0.0.1:514", "tcp://[::]:514"),
        ] {
            let setup = activated(&["[::]:514"]).listener(listener, "");
            let (status, said) = start_refused(setup);
            assert!(!status.success(), "{said}");
            let named = format!("the service manager passed in {socket}, which has this address");
            assert!(said.contains(&named), "{listener}: {said}");
        }
    });
}

/// Another process has the port. The sockets that were passed in are still listed.
#[test]
fn what_was_handed_over_is_listed_when_another_address_is_taken() {
    Network::inside(|_| {
        let _theirs = std::net::TcpListener::bind("127.0.0.1:515").unwrap();
        let setup = activated(&["[::]:514"]).listener("tcp://127.0.0.1:515", "");
        let (_, said) = start_refused(setup);
        for text in [
            "another process has this address",
            "the service manager passed in tcp://[::]:514: a listener with exactly that url takes",
        ] {
            assert!(said.contains(text), "{said}");
        }
    });
}

#[test]
fn a_socket_that_no_listener_names_is_not_opened_beside_an_allow() {
    Network::inside(|_| {
        let setup =
            activated(&["0.0.0.0:514"]).listener("udp://0.0.0.0:514", "allow = [\"10.0.0.0/8\"]");
        let (status, said) = start_refused(setup);
        assert!(!status.success(), "{said}");
        for text in [
            "the service manager passed in tcp://0.0.0.0:514, which no listener names",
            "listener \"udp://0.0.0.0:514\" has allow",
        ] {
            assert!(said.contains(text), "{said}");
        }
    });
}

/// A reload that names the socket applies its settings. A reload that no longer names it does not close it for good.
#[test]
fn a_socket_that_no_listener_names_is_a_warning_until_a_reload_names_it() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let other = "[[listener]]\nurl = \"udp://127.0.0.1:515\"\n";
        let named = |allow: &str| {
            format!(
                "{other}[[listener]]\nname = \"named\"\nurl = \"tcp://0.0.0.0:514\"\nallow = [\"{allow}\"]\n"
            )
        };
        let setup = activated(&["0.0.0.0:514"])
            .config(other)
            .forward(&sink.url());
        let tersed = start(setup);
        let log = tersed.log();
        let warned = log
            .iter()
            .find(|line| line.mentions("no listener names this socket"));
        let warned = warned.expect("a warning");
        assert_eq!(warned.level, "WARN");
        assert_eq!(warned.field("url").as_deref(), Some("tcp://0.0.0.0:514"));

        let mut connection = Originator::tcp(TO);
        connection.send("<13>by default");
        sink.wait_messages(1);
        reload(&tersed, &named("127.0.0.0/8"));
        connection.send("<13>named");
        sink.wait_messages(2);
        reload(&tersed, &named("10.0.0.0/8"));
        connection.wait_closed();
        Originator::tcp(TO).wait_closed();
        // The kernel keeps new connections while no listener accepts them.
        reload(&tersed, other);
        let mut waits = Originator::tcp(TO);
        waits.send("<13>before it is named again");
        reload(&tersed, &named("127.0.0.0/8"));
        sink.wait_messages(3);
        waits.send("<13>behind");
        sink.wait_messages(4);
        tersed.finish();
    });
}

/// A start would be refused, and so is a reload.
#[test]
fn a_reload_sets_no_allow_beside_a_socket_that_no_listener_names() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let other = "[[listener]]\nurl = \"udp://127.0.0.1:515\"\n";
        let setup = activated(&["0.0.0.0:514"]).config(other);
        let tersed = start(setup.forward(&sink.url()));
        let choosy = format!("{other}allow = [\"127.0.0.0/8\"]\n");
        std::fs::write(tersed.config_file(), choosy).unwrap();
        tersed.signal(nix::sys::signal::Signal::SIGHUP);
        let refused = tersed.wait_log("reload refused");
        let text = "passed in tcp://0.0.0.0:514, which no listener names";
        assert!(refused.mentions(text), "{refused:?}");
        Originator::tcp(TO).send("<13>as before");
        sink.wait_messages(1);
        tersed.finish();
    });
}

#[test]
fn without_any_listener_configured_what_was_handed_over_is_served_without_a_warning() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let tersed = start(activated(&["0.0.0.0:514"]).forward(&sink.url()));
        Originator::tcp(TO).send("<13>simply served");
        sink.wait_messages(1);
        let log = tersed.log();
        let warnings: Vec<_> = log.iter().filter(|line| line.level == "WARN").collect();
        assert!(warnings.is_empty(), "{warnings:?}");
        tersed.finish();
    });
}

/// The path is held by the socket that was passed in, not by another process.
#[test]
fn a_unix_socket_that_was_handed_over_as_the_other_kind_is_named() {
    for (kind, given, wanted) in [
        ("SOCK_STREAM", "unix-stream", "unix-dgram"),
        ("SOCK_DGRAM", "unix-dgram", "unix-stream"),
    ] {
        let handed_over = |listener: &str| {
            let setup = Setup::new();
            let path = setup.path("in.sock");
            let hand_over = format!(
                "import os, socket, sys
unix = socket.socket(socket.AF_UNIX, socket.{kind})
unix.bind('{path}')
if unix.type == socket.SOCK_STREAM: unix.listen()
os.dup2(unix.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])",
                path = path.display()
            );
            let setup = setup.launcher(["python3", "-c", &hand_over]);
            let url = |scheme| format!("[[listener]]\nurl = \"{}\"\n", url(scheme, &path));
            (setup.config(&url(listener)), url(wanted), url(given))
        };
        let named = |said: &str| {
            assert!(
                said.contains(&format!("the service manager passed in {given}://")),
                "{said}"
            );
            assert!(said.contains("write that URL"), "{said}");
            assert!(!said.contains("another process"), "{said}");
        };
        let (setup, ..) = handed_over(wanted);
        named(&setup.start_refused().1);

        let (setup, wanted, given) = handed_over(given);
        let tersed = setup.start();
        std::fs::write(tersed.config_file(), wanted).unwrap();
        tersed.signal(nix::sys::signal::Signal::SIGHUP);
        named(&format!("{:?}", tersed.wait_log("reload refused")));
        // A start would read the socket with a warning. A reload does not read it, and warns, too.
        let other = "[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n";
        std::fs::write(tersed.config_file(), other).unwrap();
        tersed.signal(nix::sys::signal::Signal::SIGHUP);
        let line = tersed.wait_log(
            "no listener names this socket from the service manager any more; it stays open and is not read; add a \
             [[listener]] with this url, or remove the socket from the .socket unit",
        );
        assert_eq!(line.level, "WARN");
        let named = format!("url = \"{}\"", line.field("url").unwrap());
        assert!(given.contains(&named), "{line:?}");
        tersed.finish();
    }
}

/// `ReceiveBuffer=` of a unit. The launcher passes the socket in as systemd does, because systemd's own tool cannot
/// set this.
#[test]
fn a_larger_receive_buffer_that_was_handed_over_is_kept() {
    Network::inside(|_| {
        let hand_over = "import os, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, 33, 16 << 20) # SO_RCVBUFFORCE
udp.bind(('127.0.0.73', 514))
os.dup2(udp.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])";
        for (configured, kept) in [("1MiB", 32 << 20), ("20MiB", 40 << 20)] {
            let sink = Sink::tcp();
            let tersed = Setup::new()
                .launcher(["python3", "-c", hand_over])
                .listener(
                    "udp://127.0.0.73:514",
                    &format!("receive_buffer = \"{configured}\""),
                )
                .forward(&sink.url())
                .start();
            Originator::udp(TO).send("<13>over the socket that was handed over");
            sink.wait_messages(1);
            let octets = tersed.metrics().total("tersed_receive_buffer_bytes");
            assert_eq!(octets, kept, "{configured}");
            assert_eq!(
                tersed.log_count(
                    "receive buffer is smaller than configured; raise net.core.rmem_max"
                ),
                0
            );
            tersed.finish();
        }
    });
}

/// A relay that gets these sockets when a sender connects.
fn activated(addresses: &[&str]) -> Setup {
    let listen = addresses
        .iter()
        .map(|address| format!("--listen={address}"));
    let program = "systemd-socket-activate".to_owned();
    Setup::new().launcher([program].into_iter().chain(listen))
}

fn start(setup: Setup) -> Tersed {
    knocking(|| setup.start())
}

fn start_refused(setup: Setup) -> (ExitStatus, String) {
    knocking(|| setup.start_refused())
}

/// Runs `body` while a sender connects again and again, because the relay does not start before that.
fn knocking<T>(body: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        scope.spawn(|| wait_until("the socket", LIMIT, || TcpStream::connect(TO).is_ok()));
        body()
    })
}

const TO: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 73)),
    514,
);
