//! Peers that send an octet now and then, or stop half-way: no other peer waits for them, and in the end they are
//! disconnected.

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;
use super::support::wire::Wire;

#[test]
fn a_frame_that_arrives_octet_by_octet_is_delivered_and_hinders_nobody() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listen(TCP)
        .forward(&sink.url())
        .window("1h")
        .start();
    let address = tersed.address(TCP);
    let slow = [
        Wire::Lf.encode(b"<13>a slow line"),
        Wire::Nul.encode(b"<13>a slow NUL"),
        Wire::OctetCounting.encode(b"<13>a slow count"),
    ];
    let connect = || Originator::tcp(address).without_delay();
    let mut peers: Vec<_> = slow.iter().map(|octets| (connect(), octets)).collect();
    let mut fast = connect();
    // Between two octets of the slow peers, a message of the fast one goes through each time. That sets the pace.
    let rounds = slow.iter().map(Vec::len).max().unwrap();
    let mut passed = 0;
    for round in 0..rounds {
        for (peer, octets) in &mut peers {
            if let Some(octet) = octets.get(round) {
                peer.send_octets(&[*octet]);
                passed += usize::from(round + 1 == octets.len());
            }
        }
        fast.send(format!("<13>passing {round}"));
        passed += 1;
        sink.wait_messages(passed);
    }
    for message in ["<13>a slow line", "<13>a slow NUL", "<13>a slow count"] {
        let of_it = |found: &&Vec<u8>| found.as_slice() == message.as_bytes();
        assert_eq!(sink.messages().iter().filter(of_it).count(), 1, "{message}");
    }
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
    assert_eq!(metrics.balance().forwarded, passed as u64);
}

#[test]
fn an_unfinished_frame_is_given_up_after_its_time() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(TCP, "partial_frame_timeout = \"300ms\"")
        .forward(&sink.url())
        .start();
    let address = tersed.address(TCP);
    let mut patient = Originator::tcp(address);
    patient.send("<13>whole frames only");
    // Of an unfinished line there is something to forward; of a counted frame there is not; and the rest of an oversize
    // line was handled before.
    let oversize = [b"<13>".as_slice(), &[b'x'; 70_000]].concat();
    let unfinished: [&[u8]; 4] = [b"<13>half a line", b"20 <13>half a frame", b"20", &oversize];
    let peers: Vec<_> = unfinished
        .into_iter()
        .map(|octets| {
            let mut peer = Originator::tcp(address);
            peer.send_octets(octets);
            peer
        })
        .collect();
    peers.into_iter().for_each(Originator::wait_closed);
    // Silence between frames is allowed.
    patient.send("<13>still connected");
    let mut messages = sink.wait_messages(5);
    messages.sort();
    messages.sort_by_key(Vec::len);
    assert_eq!(messages[0], b"20", "digits alone are a line");
    assert_eq!(messages[1], b"<13>half a line");
    assert_eq!(messages[4].len(), 65_536);

    let (metrics, stopped) = tersed.finish();
    let errors = |reason| metrics.total_where("tersed_frame_errors_total", &[("reason", reason)]);
    assert_eq!(errors("timeout"), 4);
    assert_eq!(
        (errors("incomplete"), errors("oversize")),
        (0, 1),
        "one fault, one reason"
    );
    assert_eq!(metrics.balance().received, 5);
    let line = stopped
        .log
        .iter()
        .find(|line| line.message == "unfinished frame");
    assert_eq!(line.unwrap().field("peer").as_deref(), Some("127.0.0.1"));
}

#[test]
fn the_time_of_an_unfinished_frame_begins_anew_with_each_octet() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(TCP, "partial_frame_timeout = \"1s\"")
        .forward(&sink.url())
        .window("1h")
        .start();
    let address = tersed.address(TCP);
    let mut slow = Originator::tcp(address).without_delay();
    let mut fast = Originator::tcp(address);
    let start = super::support::wait::now();
    // Longer than the time-out in all, but much shorter from octet to octet.
    slow.send_octets(b"<13>");
    let mut octets = 4;
    while start.elapsed().as_millis() < 1_800 {
        slow.send_octets(b"x");
        octets += 1;
        slow.wait_read();
        fast.send("<13>the pace");
        tersed.wait_metric("tersed_connections", &[], 2);
    }
    slow.send_octets(b"\n");
    let messages = sink.wait_messages(2);
    let slow = messages.iter().find(|message| message.ends_with(b"x"));
    assert_eq!(slow.unwrap().len(), octets);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
}

#[test]
fn a_connection_that_is_silent_for_too_long_is_closed() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(TCP, "idle_timeout = \"200ms\"")
        .forward(&sink.url())
        .start();
    let mut talker = Originator::tcp(tersed.address(TCP));
    talker.send("<13>and then silence");
    let mute = Originator::tcp(tersed.address(TCP));
    mute.wait_closed();
    talker.wait_closed();
    sink.wait_messages(1);
    let (metrics, _) = tersed.finish();
    assert_eq!(
        metrics.total("tersed_frame_errors_total"),
        0,
        "no frame was begun"
    );
    assert_eq!(metrics.total("tersed_connections"), 0);
}

const TCP: &str = "tcp://127.0.0.1:0";
