//! What `/readyz`, the metrics and the log report about upstreams: which one is active, which is standby, which is
//! down, since when, why, and when it is tried again.

use std::thread;

use socket2::{Domain, Socket, Type};

use super::reload::reload;
use super::support::ordered::ordered_all;
use super::support::originator::Originator;
use super::support::relp::{Answers, RelpServer};
use super::support::sink::{Manner, RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, seconds_now, wait_for, wait_until};

#[test]
fn an_upstream_that_is_not_needed_stands_by_and_is_down_only_once_it_failed() {
    let (mut first, second) = (Sink::tcp(), RefusingPort::new());
    let tersed = Setup::new()
        .config(QUICK)
        .listen(TCP)
        .forward(&first.url())
        .forward(&second.url())
        .start();
    wait_line(&tersed, &first.url(), "up, active for ");
    assert_eq!(line(&tersed, &second.url()), "standby");
    check_state(&tersed, &first.url(), "active");
    check_state(&tersed, &second.url(), "standby");

    // It is needed, and does not answer.
    first.stop();
    wait_line(&tersed, &second.url(), "down for ");
    wait_line(&tersed, &first.url(), "down for ");
    check_state(&tersed, &second.url(), "down");
    check_state(&tersed, &first.url(), "down");

    first.restart();
    wait_line(&tersed, &first.url(), "up, active for ");
    let known = line(&tersed, &second.url());
    let cause = "not tried while an earlier upstream is active";
    assert!(
        known.contains(cause) && known.contains("Connection refused"),
        "{known}"
    );
    check_state(&tersed, &second.url(), "down");

    // It is needed again, and answers; then it is not needed any more.
    let second_url = second.url();
    let _second = second.open();
    first.stop();
    wait_line(&tersed, &second_url, "up, active for ");
    first.restart();
    wait_line(&tersed, &first.url(), "up, active for ");
    let known = line(&tersed, &second_url);
    assert!(known.starts_with("standby, last error "), "{known}");
    check_state(&tersed, &second_url, "standby");
    tersed.finish();
}

#[test]
fn an_upstream_that_is_away_says_why_since_when_and_when_it_is_tried_again() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config("[forward]\nqueue = \"1MiB\"\nretry_max = \"300ms\"\n")
        .listen(TCP)
        .forward(&port.url())
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(["<13>one", "<13>two"]);
    tersed.wait_received(2);
    let upstream = [("upstream", port.url())];
    let upstream = [(upstream[0].0, upstream[0].1.as_str())];
    wait_until("some attempts", LIMIT, || {
        let metrics = tersed.metrics();
        metrics.total_where("tersed_upstream_attempts", &upstream) >= 3
    });
    let cause = format!(
        "last error: cannot connect to {}: Connection refused (os error 111); nothing listens there",
        port.url().strip_prefix("tcp://").unwrap()
    );
    let known = line(&tersed, &port.url());
    for part in ["down for ", " attempts, ", cause.as_str()] {
        assert!(known.contains(part), "no {part:?} in {known}");
    }
    wait_for("a pause between two attempts", LIMIT, || {
        line(&tersed, &port.url())
            .contains(", next try in 0.")
            .then_some(())
    });
    let (status, page) = tersed.get("/readyz");
    assert_eq!(status, 200);
    let queue = "\nqueued: 2 frames wait for an upstream; in memory ";
    assert!(page.contains(queue), "{page}");
    assert!(
        page.contains(" of 1 MiB (forward.queue), oldest "),
        "{page}"
    );

    let now = seconds_now();
    let down_since = tersed
        .metrics()
        .moment("tersed_upstream_down_since_timestamp_seconds")
        .unwrap();
    assert!(
        down_since <= now && down_since > now - LIMIT.as_secs_f64(),
        "{down_since} {now}"
    );
    let next = tersed
        .metrics()
        .moment("tersed_upstream_next_attempt_timestamp_seconds")
        .unwrap();
    assert!((next - now).abs() < 5.0, "{next} {now}");
    let oldest = tersed
        .metrics()
        .moment("tersed_queue_oldest_timestamp_seconds")
        .unwrap();
    assert!(oldest <= now && oldest >= down_since - 1.0, "{oldest}");

    // It never had a connection, so it was not lost.
    let told = tersed.wait_log("cannot connect to upstream");
    assert!(
        told.mentions("nothing listens there") && told.field("retry_in").is_some(),
        "{told:?}"
    );
    assert_eq!(tersed.log_count("cannot connect to upstream"), 1);
    assert_eq!(tersed.log_count("upstream lost"), 0);

    let url = port.url();
    let mut sink = port.open();
    sink.wait_messages(2);
    wait_line(&tersed, &url, "up, active for ");
    assert!(line(&tersed, &url).contains(", last error "));
    for name in [
        "tersed_upstream_down_since_timestamp_seconds",
        "tersed_upstream_next_attempt_timestamp_seconds",
        "tersed_queue_oldest_timestamp_seconds",
    ] {
        wait_until(name, LIMIT, || tersed.metrics().moment(name).is_none());
    }
    assert!(!tersed.get("/readyz").1.contains("queued"));

    // Now it has one, and has proved that it works.
    tersed.wait_log("upstream connected");
    sink.stop();
    tersed.wait_log("upstream lost");
    assert_eq!(tersed.log_count("cannot connect to upstream"), 1);
    tersed.finish();
}

#[test]
fn an_upstream_that_a_reload_removed_is_gone_from_the_page_and_the_metrics() {
    let (port, sink) = (RefusingPort::new(), Sink::tcp());
    let config = |to: &[&str]| format!("{QUICK}to = {to:?}\n[[listener]]\nurl = \"{TCP}\"\n");
    let tersed = Setup::new()
        .config(&config(&[&port.url(), &sink.url()]))
        .start();
    wait_line(&tersed, &port.url(), "down for ");
    wait_line(&tersed, &sink.url(), "up, active for ");
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send("<13>one");
    sink.wait_messages(1);
    let frames = || {
        let label = [("upstream", sink.url())];
        let label = [(label[0].0, label[0].1.as_str())];
        let metrics = tersed.metrics();
        metrics.total_where("tersed_upstream_frames_total", &label)
    };
    assert_eq!(frames(), 1);

    reload(&tersed, &config(&[&sink.url()]));
    wait_until("it to be gone from the page", LIMIT, || {
        !tersed.get("/readyz").1.contains(&port.url())
    });
    let page = tersed.get("/metrics").1;
    assert!(!page.contains(&port.url()), "{page}");
    // An upstream that stays keeps its connection and its counts.
    assert_eq!(frames(), 1);
    wait_line(&tersed, &sink.url(), "up, active for ");
    originator.send("<13>two");
    sink.wait_messages(2);
    assert_eq!(sink.connection_count(), 1);

    // An upstream that is added again starts with zero counts.
    reload(&tersed, &config(&[&sink.url(), &port.url()]));
    wait_line(&tersed, &port.url(), "standby");
    tersed.finish();
}

/// With `balance`, each connected upstream is active, and one that is away is down.
#[test]
fn all_upstreams_of_a_balance_are_active_but_for_one_that_is_down() {
    let (port, sinks) = (RefusingPort::new(), [Sink::tcp(), Sink::tcp()]);
    let tersed = Setup::new()
        .config(&format!("{QUICK}strategy = \"balance\"\n"))
        .listen(TCP)
        .forward(&sinks[0].url())
        .forward(&port.url())
        .forward(&sinks[1].url())
        .start();
    for sink in &sinks {
        wait_line(&tersed, &sink.url(), "up, active for ");
        check_state(&tersed, &sink.url(), "active");
    }
    wait_line(&tersed, &port.url(), "down for ");
    check_state(&tersed, &port.url(), "down");
    tersed.finish();
}

/// It accepts and takes nothing, or answers nothing: each connection lasts for `send_timeout`.
#[test]
fn an_upstream_that_takes_connections_and_nothing_else_is_down() {
    let sink = Sink::tcp_with_little_room().mannered(Manner::NeverRead);
    check_hangs(&sink.url(), || sink.behave(Manner::Read));
    let server = RelpServer::new(Answers::None);
    check_hangs(&server.url(), || server.answer(Answers::All));
}

/// After five seconds of silence it counted as connected, because the session had not written anything that it knew of.
#[test]
fn a_relp_server_that_opens_a_session_and_answers_nothing_stays_down() {
    let server = RelpServer::new(Answers::NotEvenOpen);
    let url = server.url();
    let tersed = Setup::new()
        .config(&format!(
            "{QUICK}connect_timeout = \"100ms\"\nsend_timeout = \"7s\"\n"
        ))
        .listen(TCP)
        .forward(&url)
        .start();
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(10, 100));
    tersed.wait_log("cannot connect to upstream");
    server.answer(Answers::None);
    server.wait_messages(10);
    wait_until("the session to be given up", LIMIT, || {
        check_state(&tersed, &url, "down");
        server.messages().len() >= 20
    });
    assert_eq!(tersed.log_count("upstream connected"), 0);
    server.answer(Answers::All);
    tersed.wait_metric("tersed_frames_forwarded_total", &[], 10);
    tersed.finish();
}

#[track_caller]
fn check_hangs(url: &str, mend: impl FnOnce()) {
    let tersed = Setup::new()
        .config(&format!(
            "{QUICK}send_timeout = \"500ms\"\nqueue = \"1MiB\"\n"
        ))
        .listen(TCP)
        .forward(url)
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let sender = thread::spawn(move || {
        originator.send_all(ordered_all(5000, 1000));
        originator
    });
    tersed.wait_log("upstream lost");
    let label = [("upstream", url)];
    let connects = || {
        let metrics = tersed.metrics();
        metrics.total_where("tersed_upstream_connects_total", &label)
    };
    let (begun, mut has_tried) = (connects(), false);
    wait_until("some more connections", LIMIT, || {
        check_state(&tersed, url, "down");
        let known = line(&tersed, url);
        assert!(known.starts_with("down for "), "{known}");
        has_tried |= known.contains(", trying a connection, ");
        has_tried && connects() >= begun + 3
    });
    mend();
    wait_line(&tersed, url, "up, active for ");
    check_state(&tersed, url, "active");
    drop(sender.join().unwrap());
    tersed.finish();
}

/// Its backlog of connections is full, so its kernel answers no further ones.
#[test]
fn a_connection_that_is_not_answered_is_named_as_the_step_that_hung() {
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 75], 0)).into())
        .unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let _fill: Vec<_> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&address.into()).unwrap_err();
            socket
        })
        .collect();
    let tersed = Setup::new()
        .config(&format!("{QUICK}connect_timeout = \"300ms\"\n"))
        .listen(TCP)
        .forward(&format!("tcp://{address}"))
        .start();
    wait_line(&tersed, &format!("tcp://{address}"), "connecting for 0.");
    check_state(&tersed, &format!("tcp://{address}"), "connecting");
    let told = tersed.wait_log("cannot connect to upstream");
    let step = format!(
        "connecting to {address} took longer than 300ms (forward.connect_timeout); the host is down, or a firewall"
    );
    assert!(told.mentions(&step), "{told:?}");
    tersed.finish();
}

/// The line of `/readyz` about an upstream.
#[track_caller]
fn line(tersed: &Tersed, url: &str) -> String {
    let (status, page) = tersed.get("/readyz");
    assert_eq!(status, 200, "{page}");
    let start = format!("upstream {url}: ");
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(&start));
    lines.next().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_line(tersed: &Tersed, url: &str, start: &str) {
    wait_until(&format!("{url} to be {start:?}"), LIMIT, || {
        line(tersed, url).starts_with(start)
    });
}

/// Asserts that the metrics show this state and no other, and that they alert only if it is down.
#[track_caller]
fn check_state(tersed: &Tersed, url: &str, expected: &str) {
    let metrics = tersed.metrics();
    for state in ["active", "standby", "connecting", "down"] {
        let labels = [("upstream", url), ("state", state)];
        let is_in = metrics.total_where("tersed_upstream_state", &labels);
        assert_eq!(
            is_in,
            u64::from(state == expected),
            "{url} {state}, not {expected}"
        );
    }
    let active = metrics.total_where("tersed_upstream_active", &[("upstream", url)]);
    assert_eq!(active, u64::from(expected == "active"), "{url} {expected}");
    let up = metrics.total_where("tersed_upstream_up", &[("upstream", url)]);
    assert_eq!(up, u64::from(expected != "down"), "{url} {expected}");
}

const TCP: &str = "tcp://127.0.0.1:0";
const QUICK: &str = "[forward]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n";
