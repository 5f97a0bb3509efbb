//! RELP upstreams: a message counts as forwarded when it is answered. Whatever happens before that, it is sent again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::support::ordered::{assert_ordered, ordered, ordered_all, place_of, places};
use super::support::originator::Originator;
use super::support::relp::{Answers, RelpClient, RelpServer};
use super::support::rsyslogd::{Rsyslogd, Transport};
use super::support::sink::{Manner, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, now, wait_until, wait_while};

#[test]
fn a_message_is_forwarded_when_it_is_answered() {
    let server = RelpServer::new(Answers::None);
    let tersed = start(&server, "");
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(100, OCTETS));
    server.wait_messages(100);
    let balance = tersed.metrics().balance();
    assert_eq!((balance.forwarded, balance.queued), (0, 100));
    server.answer(Answers::All);
    // Nothing is answered any more on the open connection: it is given up, and all are sent again, as new transactions
    // in the same order.
    tersed.wait_metric(FORWARDED, &[], 100);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_resent_total"), 100);
    let sessions = server.by_connection();
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        let numbers: Vec<_> = session.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (2..102).collect::<Vec<_>>());
        let messages: Vec<_> = session.into_iter().map(|(_, message)| message).collect();
        assert_eq!(places(&messages, OCTETS), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn octets_arrive_as_they_were_received() {
    let server = RelpServer::new(Answers::All);
    let tersed = Setup::new().listen(RELP).forward(&server.url()).start();
    let messages: Vec<Vec<u8>> = vec![
        b"<13>line\nbreak".to_vec(),
        b"<13>ends in LF\n".to_vec(),
        b"<13>nul\0\xff\xfe".to_vec(),
        vec![b'x'; 65_536],
        b" ".to_vec(),
    ];
    let mut client = RelpClient::open(tersed.address(RELP));
    let last = client.send_all(&messages);
    client.answers(2..=last, "200 OK");
    let (metrics, _) = tersed.finish();
    assert_eq!(server.messages(), messages);
    assert_eq!(metrics.total("tersed_frames_rewritten_total"), 0);
}

/// Each connection is reset when half of what it took was answered. What was answered never comes again.
#[test]
fn what_was_not_answered_goes_out_again_in_order() {
    let server = RelpServer::new(Answers::HalfOf(400));
    let tersed = start(&server, "");
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(COUNT, OCTETS));
    server.wait_messages(COUNT / 2);
    server.answer(Answers::All);
    tersed.wait_metric(FORWARDED, &[], COUNT as u64);
    let (metrics, _) = tersed.finish();
    let arrived = places(&server.messages(), OCTETS);
    let again = metrics.total("tersed_frames_resent_total");
    assert!(arrived.len() > COUNT, "some of it came twice");
    assert_ordered(&arrived, COUNT, again);
    let mut starts = Vec::new();
    for session in server.by_connection() {
        let Some((number, first)) = session.first() else {
            continue;
        };
        assert_eq!(*number, 2, "each session counts anew");
        starts.push(place_of(first, OCTETS).1);
    }
    // A reset may lose the answers of a whole session, but never undoes an answer that was read before.
    assert!(starts.is_sorted(), "{starts:?}");
}

/// The upstream refuses it: it is dropped, logged once, and its window is reopened.
#[test]
fn a_refused_message_is_dropped_and_the_next_copy_passes() {
    let server = RelpServer::new(Answers::AllBut("app-1"));
    let tersed = start(&server, "");
    let mut originator = Originator::tcp(tersed.address(TCP));
    for place in 0..10 {
        originator.send_all([ordered(0, place, OCTETS), ordered(1, place, OCTETS)]);
    }
    tersed.wait_metric("tersed_frames_dropped_total", &[("reason", "refused")], 10);
    tersed.wait_metric(FORWARDED, &[], 10);
    server.answer(Answers::All);
    originator.send_all([ordered(0, 3, OCTETS), ordered(1, 3, OCTETS)]);
    tersed.wait_metric(FORWARDED, &[], 11);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 11);
    assert_eq!(metrics.balance().suppressed, 1);
    let errors: Vec<_> = stopped
        .log
        .iter()
        .filter(|line| line.level == "ERROR")
        .collect();
    assert!(!errors.is_empty() && errors.len() <= 10, "{errors:#?}");
}

/// More octets than a session holds unanswered: what is refused must not count as held.
#[test]
fn a_server_that_refuses_everything_does_not_stall_the_session() {
    const REFUSED: usize = 12_000;
    let server = RelpServer::new(Answers::AllBut("app-1"));
    let tersed = start(&server, "");
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..REFUSED).map(|place| ordered(1, place, 1024)));
    tersed.wait_metric(
        "tersed_frames_dropped_total",
        &[("reason", "refused")],
        REFUSED as u64,
    );
    originator.send(ordered(0, 0, OCTETS));
    tersed.wait_metric(FORWARDED, &[], 1);
    tersed.finish();
}

#[test]
fn a_server_that_says_that_it_leaves_is_left_in_order() {
    let server = RelpServer::new(Answers::LeaveAfter(100));
    let tersed = start(&server, "");
    let mut originator = Originator::tcp(tersed.address(TCP));
    for place in 0..300 {
        originator.send(ordered(0, place, OCTETS));
        tersed.wait_metric(FORWARDED, &[], place as u64 + 1);
    }
    let (metrics, _) = tersed.finish();
    assert_eq!(
        places(&server.messages(), OCTETS),
        (0..300).collect::<Vec<_>>()
    );
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
}

/// It accepts and never answers `open`, or is not a RELP server: the next upstream of the list takes over.
#[test]
fn a_server_that_does_not_open_in_time_is_passed_over() {
    let mute = RelpServer::new(Answers::NotEvenOpen);
    let parrot = Sink::tcp().mannered(Manner::AnswerBack);
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[forward]\nconnect_timeout = \"100ms\"\n")
        .listen(TCP)
        .forward(&mute.url())
        .forward(&parrot.url().replace("tcp:", "relp:"))
        .forward(&sink.url())
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(10, OCTETS));
    sink.wait_messages(10);
    let (_, stopped) = tersed.finish();
    let lost = stopped
        .log
        .iter()
        .filter(|line| line.message == "cannot connect to upstream");
    assert_eq!(lost.count(), 2, "{}", stopped.stderr);
}

/// The next upstream of the list gets what it had not answered.
#[test]
fn a_server_that_answers_nothing_is_given_up() {
    let mute = RelpServer::new(Answers::None);
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[forward]\nsend_timeout = \"200ms\"\nretry_min = \"1h\"\nretry_max = \"1h\"\n")
        .listen(TCP)
        .forward(&mute.url())
        .forward(&sink.url())
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(10, OCTETS));
    let messages = sink.wait_messages(10);
    assert_eq!(places(&messages, OCTETS), (0..10).collect::<Vec<_>>());
    tersed.finish();
}

/// Only whole answers count: hints do not, nor do the octets of an answer that takes too long.
#[test]
fn a_server_that_says_much_and_answers_nothing_is_given_up() {
    let pause = Duration::from_millis(100);
    for answers in [
        Answers::Hints { pause, open: false },
        Answers::Drop { pause, open: false },
    ] {
        let server = RelpServer::new(answers);
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .config("[forward]\nsend_timeout = \"400ms\"\nretry_min = \"1h\"\nretry_max = \"1h\"\n")
            .listen(TCP)
            .forward(&server.url())
            .forward(&sink.url())
            .start();
        Originator::tcp(tersed.address(TCP)).send_all(ordered_all(10, OCTETS));
        let lost = tersed.wait_log("upstream lost");
        assert!(lost.mentions("answered nothing for 400ms"), "{lost:?}");
        let messages = sink.wait_messages(10);
        assert_eq!(places(&messages, OCTETS), (0..10).collect::<Vec<_>>());
        tersed.finish();
    }
}

/// The same before the session is open.
#[test]
fn a_server_that_says_much_and_does_not_open_is_passed_over() {
    let pause = Duration::from_millis(50);
    for answers in [
        Answers::Hints { pause, open: true },
        Answers::Drop { pause, open: true },
    ] {
        let server = RelpServer::new(answers);
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .config("[forward]\nconnect_timeout = \"200ms\"\n")
            .listen(TCP)
            .forward(&server.url())
            .forward(&sink.url())
            .start();
        Originator::tcp(tersed.address(TCP)).send_all(ordered_all(10, OCTETS));
        sink.wait_messages(10);
        let lost = tersed.wait_log("cannot connect to upstream");
        let step = "opening a RELP session with 127.0.0.1:";
        let slow = "took longer than 200ms (forward.connect_timeout)";
        assert!(lost.mentions(step) && lost.mentions(slow), "{lost:?}");
        tersed.finish();
    }
}

/// All answers together take three times as long as the time-out for one.
#[test]
fn a_server_that_answers_slowly_one_by_one_is_not_given_up() {
    let server = RelpServer::new(Answers::EachAfter(Duration::from_millis(500)));
    let tersed = Setup::new()
        .config("[forward]\nsend_timeout = \"2s\"\n")
        .listen(TCP)
        .forward(&server.url())
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(12, OCTETS));
    tersed.wait_metric(FORWARDED, &[], 12);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_upstream_errors_total"), 0);
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
}

/// Hints without end cost some time and no memory, and the answers between them are read.
#[test]
fn a_flood_of_hints_is_read_at_a_pace() {
    let server = RelpServer::new(Answers::Flood);
    let tersed = Setup::new().listen(TCP).forward(&server.url()).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(100, OCTETS));
    tersed.wait_metric(FORWARDED, &[], 100);
    let (before, from, resident) = (server.hint_octets(), now(), tersed.resident_octets());
    wait_while(Duration::from_secs(2), || true);
    let octets = server.hint_octets() - before;
    let millis = u64::try_from(from.elapsed().as_millis()).unwrap();
    let most = IN_FLIGHT + millis * OCTETS_PER_MILLI;
    assert!(
        octets > 0 && octets < most,
        "{octets} octets in {millis} ms"
    );
    let grown = tersed.resident_octets().saturating_sub(resident);
    assert!(grown < 4 << 20, "grew by {grown} octets");
    originator.send_all((100..200).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_metric(FORWARDED, &[], 200);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_upstream_errors_total"), 0);
}

/// A real rsyslogd is killed under load: no message is missing, and none was acknowledged to the originator that it has
/// not stored.
#[test]
fn a_killed_imrelp_has_everything_that_was_acknowledged() {
    let (mut rsyslogd, url) = Rsyslogd::receiver(Transport::Relp);
    let tersed = Setup::new()
        .config("[forward]\nretry_max = \"200ms\"\n")
        .listen(RELP)
        .forward(&url)
        .window("1h")
        .start();
    let mut client = RelpClient::open(tersed.address(RELP));
    for round in 0..KILLS {
        let first = round * COUNT;
        let last = client.send_all((first..first + COUNT).map(|place| ordered(0, place, OCTETS)));
        // In the middle of it.
        wait_until("some of it to arrive", LIMIT, || {
            rsyslogd.received().len() > first + COUNT / 10
        });
        rsyslogd.kill_and_restart();
        let first_number = last + 1 - u32::try_from(COUNT).unwrap();
        for number in first_number..=last {
            assert_eq!(client.answer(), format!("{number} rsp 200 OK"));
        }
        // Everything was acknowledged, so everything is stored.
        let there: BTreeSet<_> = stored(&rsyslogd).into_iter().collect();
        let missing = (0..first + COUNT).filter(|place| !there.contains(place));
        assert_eq!(missing.count(), 0, "acknowledged and not stored");
    }
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, (KILLS * COUNT) as u64);
    let again = metrics.total("tersed_frames_resent_total");
    assert_ordered(&stored(&rsyslogd), KILLS * COUNT, again);
}

/// Two relays, and a plain collector behind the second relay, which is stopped and started again.
#[test]
fn relay_to_relay_loses_nothing_when_the_second_is_killed() {
    let sink = Sink::tcp();
    let listener = format!(
        "relp://127.0.0.1:{}",
        super::support::rsyslogd::free_tcp_port()
    );
    let start_second = || -> Tersed {
        Setup::new()
            .listen(&listener)
            .forward(&sink.url())
            .window("1h")
            .start()
    };
    let mut second = start_second();
    let first = Setup::new()
        .config("[forward]\nretry_max = \"200ms\"\n")
        .listen(RELP)
        .forward(&listener)
        .window("1h")
        .start();
    let mut client = RelpClient::open(first.address(RELP));
    for round in 0..KILLS {
        let from = round * COUNT;
        let last = client.send_all((from..from + COUNT).map(|place| ordered(0, place, OCTETS)));
        wait_until("some of it to arrive", LIMIT, || sink.count() > from);
        // In order the first time, killed after that.
        if round == 0 {
            second.finish();
        } else {
            second.kill();
        }
        second = start_second();
        client.answers(last + 1 - u32::try_from(COUNT).unwrap()..=last, "200 OK");
    }
    let (metrics, _) = first.finish();
    assert_eq!(metrics.balance().forwarded, (KILLS * COUNT) as u64);
    second.finish();
    assert_ordered(&places(&sink.messages(), OCTETS), KILLS * COUNT, u64::MAX);
}

fn start(server: &RelpServer, keys: &str) -> Tersed {
    Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"100ms\"\nsend_timeout = \"1s\"\n{keys}\n"
        ))
        .listen(TCP)
        .forward(&server.url())
        .start()
}

/// The places in rsyslogd's file.
fn stored(rsyslogd: &Rsyslogd) -> Vec<usize> {
    places(&rsyslogd.received(), OCTETS)
}

const FORWARDED: &str = "tersed_frames_forwarded_total";
const RELP: &str = "relp://127.0.0.1:0";
const TCP: &str = "tcp://127.0.0.1:0";
const OCTETS: usize = 100;
const COUNT: usize = 2000;
const KILLS: usize = 3;
/// What the sockets between a server and the relay hold at most.
const IN_FLIGHT: u64 = 16 << 20;
/// Octets of hints that the relay reads in a millisecond: 256 KiB in 20 ms, and what it reads besides.
const OCTETS_PER_MILLI: u64 = 16 << 10;
