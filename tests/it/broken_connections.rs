//! Connections that break: frames that the peer may not have read are queued again and do not count as forwarded, and
//! no storm of attempts, log lines or octets follows.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use super::support::numbered::repeats;
use super::support::ordered::{ordered, ordered_all, place_of};
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, now, wait_until};

/// Like a load balancer without a backend: it accepts, its kernel acknowledges, and then it resets.
#[test]
fn what_an_upstream_took_and_reset_is_queued_and_not_forwarded() {
    let balancer = TcpListener::bind(APART).unwrap();
    let tersed = start(&balancer, "");
    send_and_reset(&tersed, balancer);
    let mut tersed = tersed;
    let metrics = tersed.assert_balance();
    assert_eq!(metrics.total("tersed_frames_taken_back_total"), COUNT);
    assert_eq!(metrics.balance().queued, COUNT);
    let (status, text) = tersed.get("/readyz");
    assert_eq!(status, 200);
    assert!(text.contains("queued: 200 frames"), "{text}");

    let stopped = tersed.terminate();
    let given_up = stopped
        .log
        .iter()
        .find(|line| line.message.starts_with("dropped messages that were not"))
        .expect("a stop says what it gives up");
    assert_eq!(given_up.level, "ERROR");
    assert_eq!(given_up.field("frames").unwrap(), COUNT.to_string());
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.forwarded, balance.queued), (0, 0), "{balance:?}");
    assert_eq!(balance.dropped, COUNT);
}

/// The windows of these messages are open again: a frame given up at a stop must not suppress the next copy. The
/// repeats that were suppressed before are reported at the latest to the upstream of the next run.
#[test]
fn what_a_stop_gives_up_passes_again_though_windows_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let state = format!("state = \"{}\"\n", dir.path().join("windows").display());
    let balancer = TcpListener::bind(APART).unwrap();
    let tersed = start(&balancer, &state);
    send_and_reset(&tersed, balancer);
    let mut tersed = tersed;
    tersed.assert_balance();
    assert_eq!(tersed.terminate().balance().dropped, COUNT);

    let sink = Sink::tcp();
    let setup = Setup::new().config(&format!("[dedup]\nwindow = \"1h\"\n{state}"));
    let tersed = setup.listen(TCP).forward(&sink.url()).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(200, OCTETS));
    sink.wait_messages(200);
    tersed.finish();
}

/// With a spool they are soon on disk, so neither a kill nor a stop loses them.
#[test]
fn what_was_taken_back_is_in_the_spool_and_outlives_a_kill_and_a_stop() {
    for is_killed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let spool = format!(
            "[spool]\ndirectory = \"{}\"\n",
            dir.path().join("spool").display()
        );
        let balancer = TcpListener::bind(APART).unwrap();
        let address = balancer.local_addr().unwrap();
        let mut tersed = start(&balancer, &spool);
        let mut originator = send_and_reset(&tersed, balancer);
        tersed.wait_metric("tersed_spool_frames", &[], COUNT);
        // New messages follow them in order.
        originator.send(ordered(0, 200, OCTETS));
        tersed.wait_metric("tersed_spool_frames", &[], COUNT + 1);
        if is_killed {
            tersed.kill();
        } else {
            tersed.assert_balance();
            let balance = tersed.terminate().balance();
            assert_eq!((balance.forwarded, balance.queued), (0, 201), "{balance:?}");
        }
        let sink = Sink::tcp_at(address);
        let setup = Setup::new().config(&format!("[dedup]\nwindow = \"1h\"\n{spool}"));
        let tersed = setup.listen(TCP).forward(&sink.url()).start();
        let messages = sink.wait_messages(201);
        let places = messages.iter().map(|message| place_of(message, OCTETS).1);
        assert!(places.eq(0..201), "out of order");
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.balance().recovered, 201);
    }
}

/// Once a frame is forwarded for good, copies are suppressed as usual, and frames that were taken back arrive once.
#[test]
fn what_was_taken_back_goes_out_when_the_upstream_is_back() {
    let balancer = TcpListener::bind(APART).unwrap();
    let address = balancer.local_addr().unwrap();
    let tersed = start(&balancer, "");
    let mut originator = send_and_reset(&tersed, balancer);
    let sink = Sink::tcp_at(address);
    sink.wait_messages(200);
    originator.send_all(ordered_all(200, OCTETS));
    tersed.wait_metric("tersed_frames_suppressed_total", &[], COUNT);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, COUNT);
    assert_eq!(metrics.total("tersed_frames_resent_total"), COUNT);
    assert_eq!(stopped.log_count("upstream lost"), 1);
    let summaries = sink.wait_messages(400).split_off(200);
    let counted = summaries
        .iter()
        .map(|line| repeats(&String::from_utf8_lossy(line)));
    assert_eq!(counted.map(Option::unwrap).sum::<u64>(), COUNT);
}

/// Each attempt finds a listener, which proves nothing.
#[test]
fn an_upstream_that_accepts_and_closes_is_tried_ever_more_rarely_and_logged_once() {
    let flapping = Flapping::start(Duration::ZERO);
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"3s\"\n")
        .listen(TCP)
        .forward(&flapping.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let start = now();
    let span = Duration::from_secs(10);
    let mut sent = 0;
    wait_until("the span to be over", 2 * span, || {
        let due = start.elapsed().as_millis() / 100;
        while sent < due {
            originator.send(ordered(0, usize::try_from(sent).unwrap(), OCTETS));
            sent += 1;
        }
        start.elapsed() >= span
    });
    // 100 ms doubled up to 3 s; jitter at most halves each pause.
    let connections = flapping.connections();
    assert!(connections <= 14, "{connections} connections in {span:?}");
    // Logged once, under the name of what happened first: the peer may close before the connection is set up.
    let told = ["upstream lost", "cannot connect to upstream"].map(|line| tersed.log_count(line));
    assert_eq!(told.iter().sum::<usize>(), 1, "{told:?}");
    // Perhaps once, at the very first connection, if that lasted long enough to be set up.
    let told = tersed.log_count("upstream connected");
    assert!(told <= 1, "{told} times connected");

    let sink = flapping.mend();
    wait_until("all of it", LIMIT, || {
        sink.count() >= usize::try_from(sent).unwrap()
    });
    wait_until("the end of the outage to be told", LIMIT, || {
        tersed.log_count("upstream connected") == told + 1
    });
    let log = tersed.log();
    let back = log
        .iter()
        .rfind(|line| line.message == "upstream connected");
    let attempts: usize = back.unwrap().field("attempts").unwrap().parse().unwrap();
    assert!(
        (2..=connections + 1).contains(&attempts),
        "{attempts} attempts, {connections} connections"
    );
    let (metrics, _) = tersed.finish();
    assert_eq!(u128::from(metrics.balance().forwarded), sent);
}

/// The upstream reads for a moment and resets, so what it has stored is unknown. Everything may have to be sent again,
/// but not again and again.
#[test]
fn an_upstream_that_reads_and_resets_does_not_get_everything_again_each_time() {
    let flapping = Flapping::start(Duration::from_millis(300));
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"1s\"\n")
        .listen(TCP)
        .forward(&flapping.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let (count, octets) = (10_000, 1_000);
    let start = now();
    originator.send_all(ordered_all(count, octets));
    let span = Duration::from_secs(8);
    wait_until("the span to be over", 2 * span, || start.elapsed() >= span);
    let (read, connections) = (flapping.octets(), flapping.connections());
    assert!(connections > 3, "{connections} connections");
    let sent = count * (octets + 1);
    assert!(read <= 3 * sent, "{read} octets read, {sent} sent");

    let sink = flapping.mend();
    wait_until("the last message", LIMIT, || {
        let messages = sink.messages();
        messages.last().map(|last| place_of(last, octets)) == Some((0, count - 1))
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, count as u64);
}

/// What was acknowledged long ago counts as read: whether it was can no longer be found out.
#[test]
fn an_idle_connection_that_is_reset_repeats_nothing() {
    for is_old in [true, false] {
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let age = if is_old { "1s" } else { "1h" };
        let tersed = Setup::new()
            .config(&format!(
                "[dedup]\nwindow = \"1h\"\n[forward]\nresend_age = \"{age}\"\n"
            ))
            .listen(TCP)
            .forward(&format!("tcp://{}", collector.local_addr().unwrap()))
            .start();
        let (mut first, _) = collector.accept().unwrap();
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all(ordered_all(200, OCTETS));
        read_lines(&mut first, 200);
        let start = now();
        let span = Duration::from_millis(2_500);
        wait_until("it to be long ago", LIMIT, || start.elapsed() >= span);
        reset(first);
        let (mut second, _) = collector.accept().unwrap();
        originator.send(ordered(0, 200, OCTETS));
        let expected = if is_old { 200 } else { 0 };
        let line = read_lines(&mut second, 1);
        assert_eq!(place_of(&line[0], OCTETS), (0, expected), "after {age}");
        read_lines(&mut second, 200 - expected);
        let (metrics, _) = tersed.finish();
        let again = metrics.total("tersed_frames_resent_total");
        assert_eq!(again, 200 - expected as u64);
        assert_eq!(metrics.balance().forwarded, 201);
    }
}

/// A peer that stops reading cannot get rid of what it has not read by waiting.
#[test]
fn nothing_grows_old_while_the_upstream_takes_nothing() {
    let sink = Sink::tcp_with_little_room().mannered(super::support::sink::Manner::NeverRead);
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nresend_age = \"1s\"\nsend_timeout = \"3s\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    // More than fits into the peer's kernel without a reader, and into the relay's.
    let (count, octets) = (20_000, 1_000);
    originator.send_all(ordered_all(count, octets));
    tersed.wait_log("upstream lost");
    sink.behave(super::support::sink::Manner::Read);
    wait_until("the last message", LIMIT, || {
        let messages = sink.messages_by_connection();
        let last = messages.last().and_then(|messages| messages.last());
        last.map(|last| place_of(last, octets)) == Some((0, count - 1))
    });
    // The second connection alone has everything: the first had read nothing when the relay gave it up.
    let by_connection = sink.messages_by_connection();
    let first = by_connection.iter().skip(1).flatten().next().unwrap();
    assert_eq!(place_of(first, octets), (0, 0));
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, count as u64);
}

/// A connection is replaced in order after `rebind`: nothing is lost, repeated or complained about.
#[test]
fn a_connection_is_made_anew_when_it_is_as_old_as_asked() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nrebind = \"1s\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let mut sent = 0;
    wait_until("the third connection", LIMIT, || {
        originator.send(ordered(0, sent, OCTETS));
        sent += 1;
        sink.connection_count() >= 3
    });
    let messages = sink.wait_messages(sent);
    let places = messages.iter().map(|message| place_of(message, OCTETS).1);
    assert!(places.eq(0..sent));
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
    assert_eq!(stopped.log_count("upstream lost"), 0);
    assert_eq!(stopped.log_count("upstream connected"), 1);
}

fn start(upstream: &TcpListener, dedup: &str) -> Tersed {
    Setup::new()
        .config(&format!("[dedup]\nwindow = \"1h\"\n{dedup}"))
        .listen(TCP)
        .forward(&format!("tcp://{}", upstream.local_addr().unwrap()))
        .start()
}

/// Sends messages. When the upstream's kernel has them all, resets its connection and closes its listener.
fn send_and_reset(tersed: &Tersed, upstream: TcpListener) -> Originator {
    let (connection, _) = upstream.accept().unwrap();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(200, OCTETS));
    tersed.wait_metric("tersed_frames_forwarded_total", &[], COUNT);
    drop(upstream);
    reset(connection);
    tersed.wait_metric("tersed_frames_forwarded_total", &[], 0);
    originator
}

/// Closes at once with a reset.
fn reset(connection: TcpStream) {
    SockRef::from(&connection)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(connection);
}

fn read_lines(stream: &mut TcpStream, count: usize) -> Vec<Vec<u8>> {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = vec![0; count * (OCTETS + 1)];
    stream.read_exact(&mut buffer).unwrap();
    let lines = buffer.chunks(OCTETS + 1);
    lines.map(|line| line[..OCTETS].to_vec()).collect()
}

/// An upstream that takes each connection, reads for a moment, and resets it.
struct Flapping {
    address: SocketAddr,
    shared: Arc<Counts>,
    thread: JoinHandle<TcpListener>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    octets: AtomicUsize,
    is_over: AtomicBool,
}

impl Flapping {
    fn start(reads_for: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Counts::default());
        let counts = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                if counts.is_over.load(Ordering::SeqCst) {
                    reset(stream);
                    return listener;
                }
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let start = now();
                let mut buffer = vec![0; 256 * 1024];
                while let Some(left) = reads_for.checked_sub(start.elapsed()) {
                    stream
                        .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                        .unwrap();
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(octets) => counts.octets.fetch_add(octets, Ordering::SeqCst),
                    };
                }
                reset(stream);
            }
        });
        Self {
            address,
            shared,
            thread,
        }
    }

    fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    fn octets(&self) -> usize {
        self.shared.octets.load(Ordering::SeqCst)
    }

    /// Reads from now on.
    fn mend(self) -> Sink {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Its thread waits in `accept`; this connection, or one from the relay, wakes it.
        drop(TcpStream::connect(self.address));
        drop(self.thread.join().unwrap());
        Sink::tcp_at(self.address)
    }
}

const TCP: &str = "tcp://127.0.0.1:0";
/// An address on which no other test listens, so that no other test opens a port that is closed here.
const APART: &str = "127.0.0.56:0";
const COUNT: u64 = 200;
const OCTETS: usize = 100;
