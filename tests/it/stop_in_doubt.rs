//! A stop while it is in doubt whether the upstream works: what it took then does not count as forwarded before it has
//! shown that it read it, and what a healthy upstream took does not count as dropped.

use std::io::Read as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::support::ordered::{ordered_all, place_of};
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, Stopped, Tersed};
use super::support::wait::{LIMIT, now, wait_until};

/// The upstream takes each connection, reads nothing, and resets it after a second; or it ends its own direction at
/// once and resets after a second. Its kernel acknowledges everything.
#[test]
fn what_an_upstream_takes_and_never_reads_is_not_forwarded_by_a_stop() {
    for half_closes in [false, true] {
        let unreading = Unreading::start(Duration::from_secs(1), half_closes);
        let tersed = start(&unreading.url(), "");
        wait_lost(&tersed);
        let stopped = stop(tersed);
        let balance = stopped.balance();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(
            (balance.forwarded, balance.dropped),
            (0, COUNT),
            "half-closes: {half_closes}"
        );
        assert!(stopped.log.iter().any(|line| line.level == "ERROR"));
        unreading.end();
    }
}

#[test]
fn with_a_spool_it_is_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let spool = format!(
        "[spool]\ndirectory = \"{}\"\n",
        dir.path().join("spool").display()
    );
    let unreading = Unreading::start(Duration::from_secs(1), false);
    let tersed = start(&unreading.url(), &spool);
    wait_lost(&tersed);
    let balance = stop(tersed).balance();
    assert_eq!(
        (balance.forwarded, balance.queued),
        (0, COUNT),
        "{balance:?}"
    );
    unreading.end();

    let sink = Sink::tcp();
    let setup = Setup::new().config(&format!("[dedup]\nwindow = \"1h\"\n{spool}"));
    let tersed = setup.listen(TCP).forward(&sink.url()).start();
    sink.wait_messages(200);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().recovered, COUNT);
}

/// It reads more slowly than the grace period allows, but it works: what its kernel has acknowledged counts as
/// delivered.
#[test]
fn what_a_slow_collector_has_acknowledged_at_the_deadline_is_not_dropped() {
    let sink = Sink::tcp().mannered(Manner::Slow(20_000));
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[shutdown]\ngrace = \"2s\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let (count, octets) = (2_000, 1_000);
    originator.send_all(ordered_all(count, octets));
    tersed.wait_metric("tersed_frames_forwarded_total", &[], count as u64);
    wait_until("some to be read", LIMIT, || sink.count() >= 50);
    let balance = stop(tersed).balance();
    assert!(balance.holds() && balance.forwarded >= 50, "{balance:?}");
    assert_eq!(balance.forwarded + balance.dropped, count as u64);
    // The kernel also delivers what was on its way.
    sink.behave(Manner::Read);
    let messages = sink.wait_messages(count);
    assert_eq!(place_of(messages.last().unwrap(), octets), (0, count - 1));
}

/// One of two upstreams loses what it takes, again and again. The other one works, and has nothing left to do when the
/// first loses something for the last time.
#[test]
fn at_a_stop_the_lane_that_works_takes_over_what_another_loses() {
    let unreading = Unreading::start(Duration::from_secs(1), false);
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[shutdown]\ngrace = \"20s\"\n\
             [forward]\nto = [\"{}\", \"{}\"]\nstrategy = \"balance\"\n",
            unreading.url(),
            sink.url()
        ))
        .listen(TCP)
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let (count, octets) = (20_000, 200);
    originator.send_all(ordered_all(count, octets));
    tersed.wait_log("upstream lost");
    tersed.wait_received(count as u64);
    let balance = stop(tersed).balance();
    assert_eq!(
        (balance.forwarded, balance.dropped),
        (count as u64, 0),
        "{balance:?}"
    );
    let mut places: Vec<_> = sink
        .messages()
        .iter()
        .map(|message| place_of(message, octets).1)
        .collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), count, "at the one that works");
    unreading.end();
}

/// When a connection is replaced after `rebind`, the old one is ended only as far as the other end has read it.
#[test]
fn a_connection_that_is_made_anew_loses_nothing_that_a_hanging_collector_had_not_read() {
    let unreading = Unreading::start(Duration::from_secs(4), false);
    let (url, address) = (unreading.url(), unreading.address);
    let tersed = start(&url, "[forward]\nrebind = \"1s\"\n");
    wait_until("the second connection", LIMIT, || {
        tersed.metrics().total("tersed_upstream_connects_total") >= 2
    });
    unreading.end();
    let sink = Sink::tcp_at(address);
    wait_until("all of it", LIMIT, || {
        let messages = sink.messages();
        messages.last().map(|last| place_of(last, OCTETS)) == Some((0, 199))
    });
    let mut places: Vec<_> = sink
        .messages()
        .iter()
        .map(|message| place_of(message, OCTETS).1)
        .collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 200);
    tersed.finish();
}

fn start(upstream: &str, more: &str) -> Tersed {
    let tersed = Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[shutdown]\ngrace = \"3s\"\n{more}"
        ))
        .listen(TCP)
        .forward(upstream)
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(200, OCTETS));
    tersed.wait_received(COUNT);
    tersed
}

/// Waits until the upstream has lost everything once.
fn wait_lost(tersed: &Tersed) {
    wait_until("everything to be taken back", LIMIT, || {
        let metrics = tersed.metrics();
        metrics.total("tersed_frames_taken_back_total") >= COUNT && metrics.balance().forwarded == 0
    });
}

fn stop(mut tersed: Tersed) -> Stopped {
    tersed.balance_at_exit();
    tersed.signal(Signal::SIGTERM);
    tersed.wait_stopped()
}

/// An upstream that takes connections and reads nothing.
struct Unreading {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Unreading {
    /// Resets each connection at this age. Before that, if it `half_closes`, it ends its own direction.
    fn start(lives: Duration, half_closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.57:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut connections: Vec<JoinHandle<()>> = Vec::new();
            loop {
                let (stream, _) = listener.accept().unwrap();
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let over = Arc::clone(&over);
                connections.push(thread::spawn(move || {
                    if half_closes {
                        stream.shutdown(Shutdown::Write).unwrap();
                    }
                    let start = now();
                    wait_until("its end", LIMIT, || {
                        start.elapsed() >= lives || over.load(Ordering::SeqCst)
                    });
                    SockRef::from(&stream)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap();
                }));
            }
            for connection in connections {
                connection.join().unwrap();
            }
        });
        Self {
            address,
            is_over,
            thread,
        }
    }

    fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Resets the open connections, and stops listening.
    fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Its thread waits in `accept`; this wakes it.
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            drop(stream.read(&mut [0; 1]));
        }
        self.thread.join().unwrap();
    }
}

const TCP: &str = "tcp://127.0.0.1:0";
const COUNT: u64 = 200;
const OCTETS: usize = 100;
