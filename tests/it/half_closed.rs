//! An upstream may end only its sending direction. It then reads on, or dies before it has read everything. What it may
//! not have read is sent again; an upstream that has read everything gets nothing twice.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use super::support::ordered::{ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::rsyslogd::Rsyslogd;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};
use super::support::wire::Wire;

#[test]
fn what_a_half_closed_upstream_had_not_read_when_it_died_goes_out_again() {
    for (wire, framing) in [(Wire::Lf, "lf"), (Wire::OctetCounting, "octet-counting")] {
        let collector = Collector::new(wire);
        let tersed = start(&collector.upstream(framing));
        let mut originator = Originator::tcp(tersed.address(TCP));
        let mut first = collector.accept();
        originator.send_all(ordered_all(COUNT, OCTETS));
        let sent = collector.wire(0..COUNT);
        wait_unread(&first, sent.len());
        first.shutdown(Shutdown::Write).unwrap();
        let mut second = collector.accept();
        assert!(
            read(&mut second, sent.len()) == sent,
            "{framing}: not all of it came again"
        );
        // After the messages, the relay sent the first connection an empty line to find out whether it still reads.
        assert_eq!(
            read(&mut first, sent.len() + 1),
            [&sent[..], b"\n"].concat()
        );
        drop(first);
        check_resent(tersed, COUNT);
    }
}

/// The upstream ends its direction, and then closes with everything unread. The reset comes too late: the relay has
/// read the end of the stream before it.
#[test]
fn what_an_upstream_that_ends_and_then_closes_had_not_read_goes_out_again() {
    for how in [Shutdown::Write, Shutdown::Both] {
        let collector = Collector::new(Wire::Lf);
        let tersed = start(&collector.upstream("lf"));
        let mut originator = Originator::tcp(tersed.address(TCP));
        let first = collector.accept();
        originator.send_all(ordered_all(COUNT, OCTETS));
        let sent = collector.wire(0..COUNT);
        wait_unread(&first, sent.len());
        first.shutdown(how).unwrap();
        drop(first);
        let mut second = collector.accept();
        assert!(read(&mut second, sent.len()) == sent, "{how:?}");
        check_resent(tersed, COUNT);
    }
}

#[test]
fn an_upstream_that_closes_having_read_everything_gets_nothing_twice() {
    for (wire, framing) in [(Wire::Lf, "lf"), (Wire::OctetCounting, "octet-counting")] {
        let collector = Collector::new(wire);
        let tersed = start(&collector.upstream(framing));
        let mut originator = Originator::tcp(tersed.address(TCP));
        let mut first = collector.accept();
        originator.send_all(ordered_all(COUNT, OCTETS));
        let sent = collector.wire(0..COUNT);
        assert!(read(&mut first, sent.len()) == sent);
        drop(first);
        let mut second = collector.accept();
        originator.send(ordered(0, COUNT, OCTETS));
        let next = collector.wire(COUNT..COUNT + 1);
        assert_eq!(read(&mut second, next.len()), next);
        check_resent(tersed, 0);
    }
}

#[test]
fn rsyslogd_stopped_when_idle_gets_nothing_twice_and_stores_no_empty_message() {
    let (mut rsyslogd, url) = Rsyslogd::direct_receiver();
    let tersed = start(&format!("\"{url}\""));
    let mut originator = Originator::tcp(tersed.address(TCP));
    for restarts in 0..3 {
        let sent = restarts * COUNT..(restarts + 1) * COUNT;
        originator.send_all(sent.clone().map(|place| ordered(0, place, OCTETS)));
        let stored = rsyslogd.wait_received(sent.end);
        assert_eq!(places(&stored, OCTETS), (0..sent.end).collect::<Vec<_>>());
        rsyslogd.restart(Signal::SIGTERM);
    }
    check_resent(tersed, 0);
}

/// The empty line with which the relay asks must not become a message.
#[test]
fn rsyslogd_skips_an_empty_line_whatever_the_framing() {
    let (rsyslogd, url) = Rsyslogd::direct_receiver();
    let address: SocketAddr = url.strip_prefix("tcp://").unwrap().parse().unwrap();
    let mut places_sent = 0;
    for wire in [Wire::Lf, Wire::OctetCounting] {
        let mut stream = TcpStream::connect(address).unwrap();
        for _ in 0..2 {
            let message = ordered(0, places_sent, OCTETS);
            let octets = [&wire.encode(message.as_bytes())[..], b"\n"].concat();
            stream.write_all(&octets).unwrap();
            places_sent += 1;
        }
        drop(stream);
        let stored = rsyslogd.wait_received(places_sent);
        assert_eq!(
            places(&stored, OCTETS),
            (0..places_sent).collect::<Vec<_>>()
        );
    }
}

/// On a Unix stream the kernel tells how much was not read, in whole writes. No more than that is sent again.
#[test]
fn a_half_closed_unix_stream_is_sent_again_what_it_has_not_read() {
    for unread in [0, 1, COUNT] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stream.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let tersed = start(&format!("\"unix-stream://{}\"", path.display()));
        let mut originator = Originator::tcp(tersed.address(TCP));
        let (mut first, _) = listener.accept().unwrap();
        first.set_read_timeout(Some(LIMIT)).unwrap();
        for place in 0..COUNT {
            originator.send(ordered(0, place, OCTETS));
            // One write for each message, because the kernel counts writes.
            tersed.wait_metric("tersed_frames_forwarded_total", &[], place as u64 + 1);
            if place < COUNT - unread {
                let mut line = [0; OCTETS + 1];
                first.read_exact(&mut line).unwrap();
            }
        }
        first.shutdown(Shutdown::Write).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        second.set_read_timeout(Some(LIMIT)).unwrap();
        originator.send(ordered(0, COUNT, OCTETS));
        let mut came = Vec::new();
        while came.last() != Some(&COUNT) {
            let mut line = [0; OCTETS + 1];
            second.read_exact(&mut line).unwrap();
            came.extend(places(&[line[..OCTETS].to_vec()], OCTETS));
        }
        let again = came.len() - 1;
        // The kernel includes its own overhead in the count.
        assert!(
            (unread..=(unread * 12).min(COUNT)).contains(&again),
            "{unread} unread: {again}"
        );
        assert_eq!(came, (COUNT - again..=COUNT).collect::<Vec<_>>());
        check_resent(tersed, again);
    }
}

/// An upstream that the test controls.
struct Collector {
    listener: TcpListener,
    wire: Wire,
}

impl Collector {
    fn new(wire: Wire) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { listener, wire }
    }

    /// Its entry in a configuration.
    fn upstream(&self, framing: &str) -> String {
        let address = self.listener.local_addr().unwrap();
        format!("{{ url = \"tcp://{address}\", framing = \"{framing}\" }}")
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// The octets of these messages as the upstream receives them.
    fn wire(&self, places: std::ops::Range<usize>) -> Vec<u8> {
        let message = |place| self.wire.encode(ordered(0, place, OCTETS).as_bytes());
        places.flat_map(message).collect()
    }
}

fn start(upstream: &str) -> Tersed {
    Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nto = [{upstream}]\nretry_min = \"10ms\"\nretry_max = \"50ms\"\n"
        ))
        .listen(TCP)
        .start()
}

/// Waits until so many octets are unread.
fn wait_unread(stream: &TcpStream, octets: usize) {
    let mut buffer = vec![0; octets];
    wait_until("octets to wait unread", LIMIT, || {
        stream.peek(&mut buffer).unwrap() == octets
    });
}

fn read(stream: &mut TcpStream, octets: usize) -> Vec<u8> {
    let mut buffer = vec![0; octets];
    stream.read_exact(&mut buffer).unwrap();
    buffer
}

/// Asserts that so many frames were sent again.
#[track_caller]
fn check_resent(tersed: Tersed, again: usize) {
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_resent_total"), again as u64);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
}

const TCP: &str = "tcp://127.0.0.1:0";
const COUNT: usize = 100;
const OCTETS: usize = 200;
