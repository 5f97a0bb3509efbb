//! A listener whose protocol, address, family or name is changed by a reload keeps what it had: its connections, and
//! everything that the kernel holds for it.
//!
//! Each test has its own network, in which every port is free.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use super::reload::reload;
use super::support::network::Network;
use super::support::originator::Originator;
use super::support::relp::RelpClient;
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, is_long, wait_until, wait_while};

/// Three senders never pause: one stays connected, one connects for each message, and one uses UDP.
#[test]
fn a_listener_moves_between_addresses_and_families_under_load_and_nothing_is_lost() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let places = ["0.0.0.0", "127.0.0.73", "[::]", "127.0.0.73", "[::]"];
        let config = |place: &str| both(&format!("tcp://{place}:{PORT}"), place);
        let tersed = Setup::new()
            .config(&config(places[0]))
            .forward(&sink.url())
            .start();
        let load = Load::new(&tersed);
        let sent = load.during(|| {
            for round in 1..if is_long() { 100 } else { 15 } {
                let before = load.sent();
                reload(&tersed, &config(places[round % places.len()]));
                // Something must be sent between any two reloads.
                wait_until("more messages", LIMIT, || load.sent() > before + 10);
            }
        });
        assert_all_arrive(&tersed, &sink, sent);
        let connections = tersed.metrics().total("tersed_connections_rejected_total");
        assert_eq!(connections, 0);
        tersed.finish();
    });
}

/// A connection that began as plain TCP stays plain until it ends. New ones use the new protocol.
#[test]
fn a_listener_changes_between_tcp_and_relp_under_load_and_nothing_is_lost() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let config = |scheme: &str| both(&format!("{scheme}://127.0.0.73:{PORT}"), "127.0.0.73");
        let tersed = Setup::new()
            .config(&config("tcp"))
            .forward(&sink.url())
            .start();
        let load = Load::new(&tersed);
        let mut relp = Vec::new();
        let mut plain = Vec::new();
        let sent = load.during_without_short_ones(|| {
            for round in 0..10 {
                reload(&tersed, &config("relp"));
                let mut client = RelpClient::open(TO);
                let last = client.send(message("relp", round));
                client.answers(last..=last, "200 OK");
                relp.push(client);
                reload(&tersed, &config("tcp"));
                let mut connection = Originator::tcp(TO);
                connection.send(message("plain", round));
                plain.push(connection);
                // Connections of the other protocol continue as before.
                for client in &mut relp {
                    let last = client.send(message(&format!("relp {}", fresh()), round));
                    client.answers(last..=last, "200 OK");
                }
            }
        });
        let of_relp = 10 + (1..=10).sum::<u64>();
        assert_all_arrive(&tersed, &sink, sent + of_relp + 10);
        let go_on =
            tersed.wait_log("connections keep the protocol they started with until they end");
        assert_eq!(go_on.field("connections").as_deref(), Some("1"));
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
    });
}

/// The contents of the sockets and the connections continue under the new name, and new messages count there.
#[test]
fn a_listener_gets_another_name_and_keeps_its_sockets() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let config = |name: &str| {
            format!(
                "[[listener]]\nname = \"{name} stream\"\nurl = \"tcp://127.0.0.73:{PORT}\"\n\
                 connections_per_source_max = 1024\n\
                 [[listener]]\nname = \"{name} datagrams\"\nurl = \"udp://127.0.0.73:{PORT}\"\n"
            )
        };
        let tersed = Setup::new()
            .config(&config("old"))
            .forward(&sink.url())
            .start();
        let load = Load::new(&tersed);
        let sent = load.during(|| {
            for name in ["a", "b", "a", "new"] {
                let before = load.sent();
                reload(&tersed, &config(name));
                wait_until("more messages", LIMIT, || load.sent() > before + 10);
            }
        });
        assert_all_arrive(&tersed, &sink, sent);
        let before = received(&tersed, "new datagrams");
        wait_until("a datagram", LIMIT, || {
            Originator::udp(TO).send(message("to the new name", fresh()));
            received(&tersed, "new datagrams") > before
        });
        wait_until("a connection", LIMIT, || {
            Originator::tcp(TO).send(message("to the new name", fresh()));
            received(&tersed, "new stream") > 0
        });
        tersed.finish();
    });
}

/// The names are swapped: from then on each counts for the other.
#[test]
fn two_listeners_swap_their_names() {
    Network::inside(|_| {
        let config = |one: &str, two: &str| {
            format!(
                "[[listener]]\nname = \"{one}\"\nurl = \"udp://127.0.0.73:{PORT}\"\n\
                 [[listener]]\nname = \"{two}\"\nurl = \"tcp://127.0.0.73:{PORT}\"\n"
            )
        };
        let tersed = Setup::new().config(&config("a", "b")).start();
        Originator::udp(TO).send(message("udp", 0));
        tersed.wait_received(1);
        reload(&tersed, &config("b", "a"));
        // A message that comes at the moment of the change may still be read under the old name.
        wait_until("datagrams under the other name", LIMIT, || {
            Originator::udp(TO).send(message("udp", fresh()));
            received(&tersed, "b") > 0
        });
        let before = received(&tersed, "a");
        wait_until("streams under the other name", LIMIT, || {
            Originator::tcp(TO).send(message("tcp", fresh()));
            received(&tersed, "a") > before
        });
        let page = tersed.get("/metrics").1;
        for listener in ["a", "b"] {
            let of = format!("tersed_listener_info{{listener=\"{listener}\",");
            let count = page.lines().filter(|line| line.starts_with(&of)).count();
            assert_eq!(count, 1, "{listener}: {page}");
        }
        tersed.finish();
    });
}

/// The readers of the first listener wait at the full queue, so its sockets stay open for as long as that lasts.
#[test]
fn what_a_reload_closed_the_next_one_opens_again() {
    Network::inside(|_| {
        let sink = Sink::tcp().mannered(Manner::NeverRead);
        let other = "[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n";
        let queue = "[forward]\nqueue = \"64KiB\"\n";
        let setup = Setup::new();
        let path = setup.path("in.sock");
        let unix = url("unix-dgram", &path);
        let whole = format!(
            "{other}{}[[listener]]\nurl = \"{unix}\"\n{queue}",
            both(&format!("tcp://127.0.0.73:{PORT}"), "127.0.0.73")
        );
        let tersed = setup.config(&whole).forward(&sink.url()).start();
        let mut connection = Originator::tcp(TO);
        connection.send(message("connected", 0));
        tersed.wait_received(1);
        let flood = thread::spawn(|| {
            let mut flood = Originator::tcp(TO);
            flood.send_until_closed(
                (0..200_000)
                    .map(|number| format!("{} {}\n", message("flood", number), "x".repeat(900))),
            );
        });
        // The queue is full once nothing more comes in for a while.
        let (mut received, mut looks) = (0, 0);
        wait_until("reading to pause", LIMIT, || {
            let now = tersed.metrics().balance().received;
            looks = if now == received { looks + 1 } else { 0 };
            received = now;
            looks >= 20 && tersed.metrics().total("tersed_queue_octets") > 0
        });
        let mut datagrams = Originator::udp(TO);
        let mut local = Originator::unix_dgram(&path);
        for number in 0..50 {
            let long = format!("{} {}", message("stuck", number), "x".repeat(8000));
            datagrams.send(&long);
            // The kernel holds at most ten of them.
            if number < 5 {
                local.send(long);
            }
        }
        for _ in 0..5 {
            reload(&tersed, &format!("{other}{queue}"));
            reload(&tersed, &whole);
        }
        sink.behave(Manner::Read);
        flood.join().unwrap();
        Originator::udp(TO).send(message("udp again", 0));
        Originator::unix_dgram(&path).send(message("unix again", 0));
        Originator::tcp(TO).send(message("tcp again", 0));
        for text in ["udp again 0", "unix again 0", "tcp again 0"] {
            wait_until(text, LIMIT, || has(&sink, text));
        }
        tersed.finish();
    });
}

#[test]
fn a_path_changes_between_datagrams_and_streams_and_one_that_was_removed_is_made_again() {
    let sink = Sink::tcp();
    let setup = Setup::new();
    let path = setup.path("in.sock");
    let config = |scheme| {
        format!(
            "[[listener]]\nname = \"in\"\nurl = \"{}\"\n",
            url(scheme, &path)
        )
    };
    let tersed = setup
        .config(&config("unix-dgram"))
        .forward(&sink.url())
        .start();
    let mut sent = 0;
    for _ in 0..5 {
        let mut datagrams = Originator::unix_dgram(&path);
        datagrams.send_all((0..20).map(|number| message("datagram", sent + number)));
        reload(&tersed, &config("unix-stream"));
        let mut stream = Originator::unix_stream(&path);
        stream.send_all((20..40).map(|number| message("stream", sent + number)));
        // The path is removed; datagrams sent before are still read, now and later.
        fs::remove_file(&path).unwrap();
        reload(&tersed, &config("unix-stream"));
        Originator::unix_stream(&path).send(message("stream", sent + 40));
        stream.send(message("stream", sent + 41));
        tersed.wait_received(sent + 42);
        reload(&tersed, &config("unix-dgram"));
        let mut datagrams = Originator::unix_dgram(&path);
        datagrams.send_all((42..50).map(|number| message("datagram", sent + number)));
        fs::remove_file(&path).unwrap();
        reload(&tersed, &config("unix-dgram"));
        sent += 50;
    }
    sink.wait_messages(usize::try_from(sent).unwrap());
    tersed.wait_received(sent);
    // What another process has put there is not touched, and the reload succeeds.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    reload(&tersed, &config("unix-dgram"));
    let line = tersed.wait_log(
        "another file is at the socket's path; remove it and send SIGHUP to make the socket again",
    );
    assert!(line.mentions("in.sock"), "{line:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    tersed.finish();
}

#[test]
fn peers_that_allow_no_longer_names_are_closed_and_what_they_said_is_judged() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let config = |allow: &str| {
            let listener = |scheme: &str, port: u16| {
                format!(
                    "[[listener]]\nname = \"{scheme}\"\nurl = \"{scheme}://0.0.0.0:{port}\"\nallow = {allow}\n"
                )
            };
            [("tcp", PORT), ("relp", PORT + 1), ("udp", PORT)]
                .map(|(scheme, port)| listener(scheme, port))
                .concat()
        };
        let tersed = Setup::new()
            .config(&config("[\"127.0.0.0/8\"]"))
            .forward(&sink.url())
            .start();
        let relp_to = SocketAddr::from(([127, 0, 0, 1], PORT + 1));
        let gone = Ipv4Addr::new(127, 0, 0, 2);
        let mut going: Vec<_> = (0..3).map(|_| Originator::tcp_from(gone, TO)).collect();
        let mut staying = Originator::tcp_from(Ipv4Addr::new(127, 0, 0, 3), TO);
        let mut relp = RelpClient::open(relp_to);
        staying.send(message("staying", 0));
        let last = relp.send(message("relp", 0));
        relp.answers(last..=last, "200 OK");
        tersed.wait_metric("tersed_connections", &[], 5);
        for (connection, number) in going.iter_mut().zip(0..) {
            connection.send(message("going", number));
        }

        reload(&tersed, &config("[\"127.0.0.3\", \"10.0.0.0/8\"]"));
        for connection in going {
            connection.wait_closed();
        }
        let said = relp.until_closed();
        assert!(
            said.iter().all(|said| said.contains("serverclose")),
            "{said:?}"
        );
        staying.send(message("staying", 1));
        let mut datagrams = Originator::udp_from(gone, TO);
        datagrams.send(message("refused", 0));
        Originator::tcp_from(gone, TO).wait_closed();
        tersed.wait_metric("tersed_frames_dropped_total", &[("reason", "acl")], 1);
        sink.wait_messages(6);
        assert!((0..3).all(|number| has(&sink, &format!("going {number}"))));

        let text = "closing connections: their peers are no longer in allow";
        let closed = |listener: &str| {
            let log = tersed.log();
            let mut lines = log.iter().filter(|line| {
                line.message == text && line.field("listener").as_deref() == Some(listener)
            });
            let closed = lines.next().and_then(|line| line.field("connections"));
            assert!(lines.next().is_none(), "one line for one listener");
            closed
        };
        assert_eq!(closed("tcp").as_deref(), Some("3"));
        assert_eq!(closed("relp").as_deref(), Some("1"));
        let rejected = tersed.wait_log("connection rejected");
        let limit = rejected.field("limit").unwrap();
        assert_eq!(limit, "allow = [\"127.0.0.3/32\", \"10.0.0.0/8\"]");
        tersed.finish();
    });
}

/// Each has its own family, in either order, and each can be removed and added by a reload.
#[test]
fn both_families_fit_together_on_one_port() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let listener = |name: &str, url: &str| {
            format!("[[listener]]\nname = \"{name}\"\nurl = \"{url}:{PORT}\"\n")
        };
        let all = [
            listener("tcp6", "tcp://[::]"),
            listener("tcp4", "tcp://0.0.0.0"),
            listener("udp4", "udp://0.0.0.0"),
            listener("udp6", "udp://[::]"),
        ]
        .concat();
        let six = [
            listener("tcp6", "tcp://[::]"),
            listener("udp6", "udp://[::]"),
        ]
        .concat();
        let tersed = Setup::new().config(&all).forward(&sink.url()).start();
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, PORT));
        let mut number = 0;
        let mut say = || {
            for to in [TO, v6] {
                Originator::tcp(to).send(message("tcp", number));
                Originator::udp(to).send(message("udp", number));
                number += 1;
            }
            tersed.wait_received(2 * number);
            ["tcp4", "udp4", "tcp6", "udp6"].map(|name| received(&tersed, name))
        };
        assert_eq!(say(), [1, 1, 1, 1]);
        reload(&tersed, &six);
        // A connection made until the old socket is closed counts as received there.
        wait_until("the socket of 0.0.0.0 to close", LIMIT, || {
            let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            let listens = format!(" 00000000:{PORT:04X} 00000000:0000 0A ");
            !sockets.contains(&listens)
        });
        assert_eq!(say(), [1, 1, 3, 3], "[::] alone takes both families");
        reload(&tersed, &all);
        assert_eq!(say(), [2, 2, 4, 4]);
        sink.wait_messages(12);
        tersed.finish();
    });
}

/// Another process has a part of the new address, and the refused reload leaves everything as it was.
#[test]
fn a_refused_reload_moves_nothing_and_names_the_file_and_the_reason() {
    Network::inside(|_| {
        let sink = Sink::tcp();
        let config = |port: u16| {
            format!(
                "[[listener]]\nname = \"moving\"\nurl = \"tcp://127.0.0.73:{PORT}\"\n\
                 [[listener]]\nname = \"other\"\nurl = \"tcp://127.0.0.1:{port}\"\n"
            )
        };
        let tersed = Setup::new()
            .config(&config(PORT + 1))
            .forward(&sink.url())
            .start();
        let theirs = std::net::TcpListener::bind(("127.0.0.1", PORT + 2)).unwrap();
        let mut connection = Originator::tcp(TO);
        let moved = config(PORT + 2).replace("tcp://127.0.0.73", "tcp://0.0.0.0");
        fs::write(tersed.config_file(), moved).unwrap();
        tersed.signal(Signal::SIGHUP);
        let refused = tersed.wait_log("reload refused");
        for text in [
            "another process has this address",
            "ss -lnp",
            "127.0.0.1:516",
        ] {
            assert!(refused.mentions(text), "{refused:?} does not name {text}");
        }
        let file = refused.field("configuration").unwrap();
        assert_eq!(file, tersed.config_file().to_str().unwrap());
        assert_eq!(tersed.log_count("listening"), 2);
        connection.send(message("connected", 0));
        Originator::tcp(TO).send(message("connects", 0));
        sink.wait_messages(2);
        // Another process has one part of what it wants, the relay itself has the rest: the log tells them apart.
        let moved = config(PORT + 1).replace("tcp://127.0.0.73", "tcp://0.0.0.0");
        let part = std::net::TcpListener::bind(("127.0.0.1", PORT)).unwrap();
        fs::write(tersed.config_file(), moved).unwrap();
        tersed.signal(Signal::SIGHUP);
        tersed.wait_metric("tersed_config_reloads_total", &[("result", "refused")], 2);
        let log = tersed.log();
        let refused = log.iter().rfind(|line| line.message == "reload refused");
        let refused = refused.unwrap();
        let own = "listener \"moving\" of this relay, tcp://127.0.0.73:514, is not the cause";
        for text in ["another process has this address, or part of it", own] {
            assert!(refused.mentions(text), "{refused:?} does not name {text}");
        }
        connection.send(message("connected", 1));
        sink.wait_messages(3);
        drop((theirs, part));
        tersed.finish();
    });
}

/// Senders that never pause; they send to [`TO`].
struct Load<'t> {
    tersed: &'t Tersed,
    stop: AtomicBool,
    sent: AtomicU64,
    steady: std::sync::Mutex<Option<Originator>>,
}

impl<'t> Load<'t> {
    fn new(tersed: &'t Tersed) -> Self {
        let steady = Originator::tcp(TO);
        tersed.wait_metric("tersed_connections", &[], 1);
        Self {
            tersed,
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            steady: std::sync::Mutex::new(Some(steady)),
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// How many messages were sent while `body` ran.
    fn during(&self, body: impl FnOnce()) -> u64 {
        self.run(true, body)
    }

    /// As [`during`](Self::during), without the sender that connects for each message.
    fn during_without_short_ones(&self, body: impl FnOnce()) -> u64 {
        self.run(false, body)
    }

    fn run(&self, with_short_ones: bool, body: impl FnOnce()) -> u64 {
        let mut steady = self.steady.lock().unwrap().take().unwrap();
        let goes_on = || !self.stop.load(Ordering::SeqCst);
        let count = || self.sent.fetch_add(1, Ordering::SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while goes_on() {
                    steady.send(message("steady", number));
                    (number, _) = (number + 1, count());
                    if number % 100 == 0 {
                        let _metrics = self.tersed.metrics();
                    }
                }
            });
            scope.spawn(|| {
                let mut number = 0;
                while with_short_ones && goes_on() {
                    Originator::tcp(TO).send(message("short", number));
                    (number, _) = (number + 1, count());
                    // The scrape sets the pace, so that open connections do not pile up.
                    let _metrics = self.tersed.metrics();
                }
            });
            scope.spawn(|| {
                let mut datagrams = Originator::udp(TO);
                let mut number = 0;
                while goes_on() {
                    datagrams.send(message("datagram", number));
                    (number, _) = (number + 1, count());
                    if number % 10 == 0 {
                        // UDP has no flow control, so the scrape sets the pace.
                        let _metrics = self.tersed.metrics();
                    }
                }
            });
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            self.stop.store(true, Ordering::SeqCst);
            if let Err(panic) = ran {
                std::panic::resume_unwind(panic);
            }
        });
        self.sent()
    }
}

/// Asserts that each message arrives once, and that those of one sender arrive in order.
#[track_caller]
fn assert_all_arrive(tersed: &Tersed, sink: &Sink, sent: u64) {
    let all_came = wait_while(LIMIT, || (sink.count() as u64) < sent);
    let messages = sink.messages();
    for sender in ["steady", "datagram", "short"] {
        let start = format!("app: {sender} ");
        let mut numbers: Vec<u64> = messages
            .iter()
            .filter_map(|message| {
                let text = String::from_utf8_lossy(message);
                Some(text.split_once(&start)?.1.parse().unwrap())
            })
            .collect();
        if sender == "short" {
            // Each came over a connection of its own.
            numbers.sort_unstable();
        }
        let gap = numbers
            .iter()
            .copied()
            .zip(0..)
            .find(|(number, place)| number != place);
        assert_eq!(gap, None, "of {}: all of {sender}, in order", numbers.len());
    }
    assert!(all_came, "{} of {sent} came", messages.len());
    tersed.wait_received(sent);
    assert_eq!(tersed.metrics().total("tersed_kernel_dropped_total"), 0);
}

fn has(sink: &Sink, text: &str) -> bool {
    let messages = sink.messages();
    let mut texts = messages
        .iter()
        .map(|message| String::from_utf8_lossy(message));
    texts.any(|message| message.ends_with(text))
}

fn received(tersed: &Tersed, listener: &str) -> u64 {
    let metrics = tersed.metrics();
    metrics.total_where("tersed_frames_received_total", &[("listener", listener)])
}

/// A stream listener at `stream`, and a datagram listener at `place` on the same port.
fn both(stream: &str, place: &str) -> String {
    format!(
        "[[listener]]\nname = \"stream\"\nurl = \"{stream}\"\nconnections_per_source_max = 1024\n\
         [[listener]]\nname = \"datagrams\"\nurl = \"udp://{place}:{PORT}\"\n"
    )
}

/// A number that no other message has.
fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::SeqCst)
}

fn message(from: &str, number: u64) -> String {
    format!("<13>Mar  1 12:00:00 host app: {from} {number}")
}

const PORT: u16 = 514;
const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 73)), PORT);
