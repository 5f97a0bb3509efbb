//! RELP listeners: a message is answered when it is safe and not before, a violation of the protocol costs only its own
//! connection, and what was not answered comes again.

use super::support::ordered::{assert_ordered, ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::relp::{Answers, OFFERS, RelpClient, RelpServer, frame};
use super::support::rsyslogd::{Rsyslogd, Transport, free_tcp_port};
use super::support::sink::{Manner, RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

/// Many in one write, answered in order; `close` is answered last.
#[test]
fn transactions_are_answered_in_their_order() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(RELP).forward(&sink.url()).start();
    let mut client = RelpClient::open(tersed.address(RELP));
    let last = client.send_all(ordered_all(COUNT, OCTETS));
    // Repeats are answered, too, and so is an empty message.
    client.send_all(ordered_all(COUNT, OCTETS));
    client.send("");
    client.send_command("close", b"");
    client.answers(2..=2 * last, "200 OK");
    assert_eq!(client.answer(), format!("{} rsp", 2 * last + 1));
    assert_eq!(client.until_closed(), [""; 0]);

    let (metrics, _) = tersed.finish();
    assert_eq!(places(&first_copies(&sink), OCTETS), range(COUNT));
    let answered = |result| metrics.total_where(ANSWERS, &[("result", result)]);
    assert_eq!(answered("ok"), 2 * COUNT as u64 + 1);
    assert_eq!(answered("refused"), 0);
    assert_eq!(metrics.total("tersed_relp_unanswered"), 0);
    assert_eq!(metrics.total("tersed_frames_empty_total"), 1);
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
}

#[test]
fn the_frames_do_not_depend_on_the_reads() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(RELP).forward(&sink.url()).start();
    let mut client = RelpClient::connect(tersed.address(RELP));
    let stream = [
        frame(1, "open", OFFERS.as_bytes()),
        frame(2, "syslog", b"<13>line\nbreak\n"),
        frame(3, "syslog", b"<13>3 syslog 1 x\n"),
        frame(4, "close", b""),
    ];
    for octet in stream.concat() {
        client.send_octets(&[octet]);
    }
    let said = client.until_closed();
    assert!(said[0].starts_with("1 rsp 200 OK\n"), "{said:?}");
    assert_eq!(said[1..], ["2 rsp 200 OK", "3 rsp 200 OK", "4 rsp"]);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_forwarded_total"), 2);
}

/// The upstream is away: nothing is safe, so nothing is answered, and no more is read than the window allows.
#[test]
fn the_window_is_all_that_is_taken_and_none_is_answered_before_it_is_safe() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config("[forward]\nretry_max = \"100ms\"\n")
        .listener(RELP, "window = 7")
        .forward(&port.url())
        .start();
    let mut client = RelpClient::open(tersed.address(RELP));
    let last = client.send_all(ordered_all(COUNT, OCTETS));
    tersed.wait_received(7);
    tersed.wait_metric("tersed_relp_unanswered", &[("listener", RELP)], 7);
    // Another connection has its own window.
    let mut other = RelpClient::open(tersed.address(RELP));
    other.send(ordered(1, 0, OCTETS));
    tersed.wait_received(8);
    assert!(!client.is_answered() && !other.is_answered());

    let sink = port.open();
    client.answers(2..=last, "200 OK");
    other.answers(2..=2, "200 OK");
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, COUNT as u64 + 1);
    assert_eq!(sink.wait_messages(COUNT + 1).len(), COUNT + 1);
}

/// What was written to a plain TCP upstream is safe when the upstream has it, and not before, even if nothing is kept
/// to be sent again.
#[test]
fn none_is_answered_before_a_tcp_upstream_has_it_however_much_is_kept() {
    for resend_max in ["8MiB", "off"] {
        let sink = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
        let tersed = Setup::new()
            .config(&format!("[forward]\nresend_max = \"{resend_max}\"\n"))
            .listener(RELP, "window = 2000")
            .forward(&sink.url())
            .start();
        let mut client = RelpClient::open(tersed.address(RELP));
        let last = client.send_all(ordered_all(COUNT, OCTETS));
        // The upstream's kernel has no room for the last ones; the relay's has.
        tersed.wait_metric("tersed_frames_forwarded_total", &[], COUNT as u64);
        let mut answered = 0;
        while client.is_answered() {
            client.answer();
            answered += 1;
        }
        assert!(answered < COUNT, "{resend_max}: {answered} answered");
        sink.behave(Manner::Read);
        client.answers(2 + u32::try_from(answered).unwrap()..=last, "200 OK");
        tersed.finish();
        assert_eq!(places(&sink.messages(), OCTETS), range(COUNT));
    }
}

/// A suppressed copy is no safer than the copy for which it was suppressed, whichever peer sent that.
#[test]
fn a_repeat_is_not_answered_before_its_first_copy_is_safe() {
    let upstream = RelpServer::new(Answers::None);
    let tersed = Setup::new()
        .config("[forward]\nsend_timeout = \"1s\"\n")
        .listen(RELP)
        .listen(TCP)
        .forward(&upstream.url())
        .start();
    let mut first = RelpClient::open(tersed.address(RELP));
    first.send(ordered(0, 0, OCTETS));
    upstream.wait_messages(1);
    let mut second = RelpClient::open(tersed.address(RELP));
    second.send_all([ordered(0, 0, OCTETS), ordered(0, 0, OCTETS)]);
    // Another one, whose first copy came over plain TCP.
    Originator::tcp(tersed.address(TCP)).send(ordered(1, 0, OCTETS));
    upstream.wait_messages(2);
    let mut third = RelpClient::open(tersed.address(RELP));
    third.send(ordered(1, 0, OCTETS));
    tersed.wait_received(5);
    assert!(!first.is_answered() && !second.is_answered() && !third.is_answered());

    // The upstream answers those that come again.
    upstream.answer(Answers::All);
    first.answers(2..=2, "200 OK");
    second.answers(2..=3, "200 OK");
    third.answers(2..=2, "200 OK");
    let (metrics, _) = tersed.finish();
    assert_eq!(first.until_closed(), ["0 serverclose"]);
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 3);
}

#[test]
fn with_ack_queued_the_memory_queue_is_safe_enough() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config("[forward]\nretry_max = \"100ms\"\n")
        .listener(RELP, "ack = \"queued\"")
        .forward(&port.url())
        .start();
    let mut client = RelpClient::open(tersed.address(RELP));
    let last = client.send_all(ordered_all(COUNT, OCTETS));
    client.answers(2..=last, "200 OK");
    let sink = port.open();
    tersed.finish();
    assert_eq!(sink.wait_messages(COUNT).len(), COUNT);
}

/// What is dropped is not acknowledged, and what is acknowledged has arrived.
#[test]
fn a_message_that_the_full_queue_drops_is_answered_with_500() {
    for ack in ["safe", "queued"] {
        let port = RefusingPort::new();
        let tersed = Setup::new()
            .config(
                "[forward]\nqueue = \"64KiB\"\nwhen_full = \"drop-newest\"\nretry_max = \"100ms\"\n",
            )
            .listener(RELP, &format!("ack = \"{ack}\""))
            .forward(&port.url())
            .start();
        let mut client = RelpClient::open(tersed.address(RELP));
        let last = client.send_all(ordered_all(COUNT, OCTETS));
        tersed.wait_received(COUNT as u64);
        let sink = port.open();
        let answers: Vec<_> = (2..=last).map(|_| client.answer()).collect();
        let (metrics, _) = tersed.finish();
        let dropped = metrics.total_where("tersed_frames_dropped_total", QUEUE_FULL);
        assert!(dropped > 0, "{ack}");
        let arrived = places(&sink.messages(), OCTETS);
        let mut refused = 0;
        for (place, answer) in answers.iter().enumerate() {
            let number = place + 2;
            if *answer == format!("{number} rsp 200 OK") {
                assert!(arrived.contains(&place), "{ack}: {place} was acknowledged");
            } else {
                assert_eq!(*answer, format!("{number} rsp 500 dropped"), "{ack}");
                refused += 1;
            }
        }
        // All messages of one read get the same answer, so at least as many are refused as are dropped.
        assert!(refused >= dropped, "{ack}: {refused} refused, {dropped}");
    }
}

#[test]
fn answers_that_are_due_leave_while_delivery_waits_for_room() {
    let sink = Sink::tcp_with_little_room().mannered(Manner::Slow(4096));
    let tersed = Setup::new()
        .config("[forward]\nqueue = \"64KiB\"\n")
        .listen(RELP)
        .forward(&sink.url())
        .start();
    let mut client = RelpClient::open(tersed.address(RELP));
    // The upstream takes 40 KiB a second, and the queue is full all the time.
    let last = client.send_all(ordered_all(200, 2000));
    client.answers(2..=last, "200 OK");
    sink.behave(Manner::Read);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 200);
}

/// Each violation costs its connection and is logged once. What the client then sends again all arrives.
#[test]
fn whatever_breaks_the_protocol_ends_the_connection_and_loses_nothing() {
    let open = frame(1, "open", OFFERS.as_bytes());
    let opened = |rest: &[u8]| [&open[..], rest].concat();
    let message = frame(2, "syslog", b"<13>in front");
    let cases: [(&str, Vec<u8>); 16] = [
        ("gap", opened(&frame(3, "syslog", b"<13>gap"))),
        ("repeat", opened(&[&message[..], &message].concat())),
        ("no LF", opened(b"2 syslog 4 <13>x3 syslog 4 <13>y\n")),
        ("absurd length", opened(b"2 syslog 999999999 <13>x")),
        ("ten digits", opened(b"2 syslog 1000000000 <13>x")),
        ("too long", opened(b"2 syslog 131073 <13>x")),
        ("unknown command", opened(&frame(2, "eventlog", b"x"))),
        ("answer", opened(&frame(2, "rsp", b"200 OK"))),
        ("open twice", opened(&frame(2, "open", OFFERS.as_bytes()))),
        ("syslog before open", frame(1, "syslog", b"<13>x")),
        ("close before open", frame(1, "close", b"")),
        ("begins at two", frame(2, "open", OFFERS.as_bytes())),
        ("octet counting", b"17 <13>octet counted".to_vec()),
        ("lines", b"<13>a line\n<13>another\n".to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("NUL", opened(b"\0")),
    ];
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(RELP).forward(&sink.url()).start();
    let resident = tersed.resident_octets();
    let mut errors = 0;
    for (name, stream) in &cases {
        let mut client = RelpClient::connect(tersed.address(RELP));
        client.send_octets(stream);
        let said = client.until_closed();
        errors += 1;
        tersed.wait_metric("tersed_frame_errors_total", &[("reason", "relp")], errors);
        let beyond = said
            .iter()
            .filter(|answer| !answer.starts_with("1 rsp") && !answer.starts_with("2 rsp 200"));
        assert_eq!(beyond.count(), 0, "{name}: {said:?}");
    }
    let grown = tersed.resident_octets().saturating_sub(resident);
    assert!(grown < 8 << 20, "{grown} octets more");

    let mut client = RelpClient::open(tersed.address(RELP));
    let last = client.send_all(ordered_all(COUNT, OCTETS));
    client.answers(2..=last, "200 OK");
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_connections"), 1);
    let complaints = stopped
        .log
        .iter()
        .filter(|line| line.message == "not RELP; connection closed");
    // The first in ten seconds; the others are in the summary of warnings.
    assert!(complaints.count() >= 1, "{}", stopped.stderr);
    let ours: Vec<_> = first_copies(&sink)
        .into_iter()
        .filter(|message| String::from_utf8_lossy(message).contains("place "))
        .collect();
    assert_eq!(places(&ours, OCTETS), range(COUNT));
}

#[test]
fn offers_that_do_not_do_are_answered_with_500_and_the_end() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(RELP).forward(&sink.url()).start();
    for offers in [
        "",
        "relp_version=0",
        "commands=syslog",
        "relp_version=x\ncommands=syslog",
    ] {
        let mut client = RelpClient::connect(tersed.address(RELP));
        client.send_command("open", offers.as_bytes());
        let said = client.until_closed();
        assert_eq!(said.len(), 1, "{offers:?}: {said:?}");
        assert!(said[0].starts_with("1 rsp 500 "), "{offers:?}: {said:?}");
    }
    // Unknown offers do no harm.
    let mut client = RelpClient::connect(tersed.address(RELP));
    client.send_command(
        "open",
        b"\nrelp_version=1\ntls=maybe\ncommands=eventlog,syslog\nx",
    );
    assert!(client.answer().starts_with("1 rsp 200 OK\n"));
    tersed.finish();
}

/// A RELP client on a plain TCP listener, and a TLS client on a RELP listener.
#[test]
fn clients_at_the_wrong_door_get_one_clear_error_and_no_hang() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listen(RELP)
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut client = RelpClient::connect(tersed.address(TCP));
    client.send_command("open", OFFERS.as_bytes());
    assert_eq!(client.until_closed(), [""; 0]);
    let mut tls = RelpClient::connect(tersed.address(RELP));
    tls.send_octets(b"\x16\x03\x01\x02\x00\x01\x00");
    assert_eq!(tls.until_closed(), [""; 0]);
    let rejected = "tersed_connections_rejected_total";
    tersed.wait_metric(rejected, &[("reason", "relp_on_syslog")], 1);
    tersed.wait_metric(rejected, &[("reason", "tls_on_plaintext")], 1);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.balance().received, 0);
    let said = stopped.log.iter().filter(|line| line.level == "WARN");
    assert_eq!(said.count(), 2, "{}", stopped.stderr);
}

#[test]
fn a_client_that_never_finishes_is_not_waited_for() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(RELP, "partial_frame_timeout = \"100ms\"")
        .forward(&sink.url())
        .start();
    let silent = RelpClient::connect(tersed.address(RELP));
    assert_eq!(silent.until_closed(), [""; 0]);
    let mut half = RelpClient::open(tersed.address(RELP));
    half.send_octets(b"2 syslog 100 <13>half");
    assert_eq!(half.until_closed(), [""; 0]);
    tersed.wait_metric("tersed_frame_errors_total", &[("reason", "timeout")], 1);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().received, 0);
}

/// librelp gives up a connection on which nothing is answered, and makes another: the places of the old ones are free
/// again.
#[test]
fn a_client_that_gives_up_at_a_full_window_frees_its_place() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .listener(RELP, "window = 2\nconnections_max = 1")
        .forward(&port.url())
        .start();
    for _ in 0..3 {
        let mut client = RelpClient::open(tersed.address(RELP));
        client.send_all(ordered_all(3, OCTETS));
        tersed.wait_metric("tersed_relp_unanswered", &[("listener", RELP)], 2);
        client.abandon();
        tersed.wait_metric("tersed_connections", &[("listener", RELP)], 0);
    }
    let sink = port.open();
    tersed.finish();
    assert_eq!(places(&first_copies(&sink), OCTETS), range(3));
}

#[test]
fn messages_beyond_max_message_size_are_cut_or_dropped_as_configured() {
    for (oversize, forwarded) in [("truncate", 2), ("drop", 1)] {
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .listener(
                RELP,
                &format!("max_message_size = \"480B\"\noversize = \"{oversize}\""),
            )
            .forward(&sink.url())
            .start();
        let mut client = RelpClient::open(tersed.address(RELP));
        client.send_all([ordered(0, 0, 100_000), ordered(0, 1, 480)]);
        client.answers(2..=3, "200 OK");
        let (metrics, _) = tersed.finish();
        let messages = sink.wait_messages(forwarded);
        assert!(messages.iter().all(|message| message.len() == 480));
        let reason = [("reason", "oversize")];
        assert_eq!(metrics.total_where("tersed_frame_errors_total", &reason), 1);
    }
}

/// What is given up for lack of time is not acknowledged, so the relay that starts next gets it again.
#[test]
fn what_a_stop_cuts_off_is_not_answered() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config("[shutdown]\ngrace = \"100ms\"\n")
        .listen(RELP)
        .forward(&port.url())
        .start();
    let mut client = RelpClient::open(tersed.address(RELP));
    client.send_all(ordered_all(10, OCTETS));
    tersed.wait_received(10);
    let mut tersed = tersed;
    tersed.assert_balance();
    let stopped = tersed.terminate();
    assert!(stopped.status.success(), "{}", stopped.stderr);
    assert_eq!(client.until_closed(), ["0 serverclose"]);
}

/// A real rsyslogd sends while the relay is killed and started again, several times: everything arrives.
#[test]
fn omrelp_sends_again_what_a_killed_relay_had_not_answered() {
    let sink = Sink::tcp();
    let listener = format!("relp://127.0.0.1:{}", free_tcp_port());
    let start = || -> Tersed {
        Setup::new()
            .listen(&listener)
            .forward(&sink.url())
            .window("1h")
            .start()
    };
    let mut tersed = start();
    let rsyslogd = Rsyslogd::sender(tersed.address(&listener), Transport::Relp);
    let mut originator = Originator::unix_dgram(&rsyslogd.socket());
    for round in 1..=KILLS {
        let first = (round - 1) * PORTION;
        originator.send_all((first..first + PORTION).map(|place| ordered(0, place, OCTETS)));
        // In the middle of it.
        wait_until("some of it to arrive", LIMIT, || sink.count() > first);
        tersed.kill();
        tersed = start();
    }
    let arrived = || -> Vec<usize> { places_without_time(&sink.messages()) };
    wait_until("everything to arrive", LIMIT, || {
        let mut places = arrived();
        places.sort_unstable();
        places.dedup();
        places.len() == KILLS * PORTION
    });
    tersed.finish();
    // A killed relay has forgotten what it forwarded, so copies may come again. Order and completeness hold.
    assert_ordered(&arrived(), KILLS * PORTION, u64::MAX);
}

/// The places of messages whose header rsyslogd rewrote.
fn places_without_time(messages: &[Vec<u8>]) -> Vec<usize> {
    let place = |message: &Vec<u8>| {
        let text = String::from_utf8_lossy(message);
        let (_, rest) = text.split_once("place ").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    messages.iter().map(place).collect()
}

/// What came to `sink`, without summaries.
fn first_copies(sink: &Sink) -> Vec<Vec<u8>> {
    super::support::ordered::without_summaries(sink.messages())
}

fn range(count: usize) -> Vec<usize> {
    (0..count).collect()
}

const RELP: &str = "relp://127.0.0.1:0";
const TCP: &str = "tcp://127.0.0.1:0";
const ANSWERS: &str = "tersed_relp_answers_total";
const QUEUE_FULL: &[(&str, &str)] = &[("reason", "queue_full")];
const OCTETS: usize = 100;
const COUNT: usize = 2000;
const KILLS: usize = 3;
const PORTION: usize = 5000;
