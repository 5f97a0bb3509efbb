//! Without free file descriptors, accepting pauses without spinning, and resumes when some are closed.

use std::time::Duration;

use super::support::originator::Originator;
use super::support::process::run;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, now, wait_until, wait_while};

#[test]
fn without_free_descriptors_connections_wait_and_upstreams_come_back() {
    let mut sink = Sink::tcp();
    let tersed = Setup::new()
        .listen(TCP)
        .forward(&sink.url())
        .window("1h")
        .open_files_max(64)
        .start();
    let address = tersed.address(TCP);
    let mut originators: Vec<_> = (0..100).map(|_| Originator::tcp(address)).collect();
    for (number, originator) in originators.iter_mut().enumerate() {
        originator.send(format!("<13>connection {number}"));
    }
    // As many connections are served as there is room for, in the order in which they came.
    let served = wait_steady(&sink);
    assert!((1..60).contains(&served), "{served} of 100 were served");
    assert_idle(&tersed);
    let waiting = tersed.wait_log(
        "not accepting connections: the limit of open files is reached; raise LimitNOFILE= (ulimit -n), or lower connections_max",
    );
    assert_eq!(waiting.field("open_files_max").as_deref(), Some("64"));
    wait_until("a line on /readyz", LIMIT, || {
        let (_, page) = tersed.get("/readyz");
        page.contains("\nno connection was accepted for ")
            && page.contains("; 64 files may be open: raise LimitNOFILE=")
    });
    assert_eq!(tersed.metrics().total("tersed_accepting_paused"), 1);

    // The descriptors kept in reserve are enough to reach the upstream again.
    sink.stop();
    sink.restart();
    let connects = || tersed.metrics().total("tersed_upstream_connects_total");
    originators[0].send("<13>over the connection that is new upstream");
    wait_until("the upstream to be connected again", LIMIT, || {
        connects() == 2
    });
    sink.wait_messages(served + 1);

    // The waiting connections are served when the others are gone.
    drop(originators.drain(..served));
    let rest = wait_steady(&sink);
    assert!(
        rest > served + 1,
        "no connection was served after {served} left"
    );
    drop(originators);
    sink.wait_messages(101);
    tersed.wait_metric("tersed_connections", &[], 0);
    tersed.finish();
}

#[test]
fn an_accept_that_fails_for_want_of_descriptors_is_tried_again_without_haste() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(TCP).forward(&sink.url()).start();
    let address = tersed.address(TCP);
    Originator::tcp(address).send("<13>before");
    sink.wait_messages(1);

    // From here on no descriptor can be opened, whatever the relay keeps in reserve.
    limit_open_files(&tersed, 3);
    let mut originator = Originator::tcp(address);
    originator.send("<13>in need of a descriptor");
    let refused = tersed.wait_log("cannot accept a connection");
    for text in ["os error 24", "LimitNOFILE=", "at most 3 files may be open"] {
        assert!(refused.mentions(text), "{refused:?} does not name {text}");
    }
    assert_idle(&tersed);
    assert_eq!(sink.count(), 1);

    limit_open_files(&tersed, 1024);
    sink.wait_messages(2);
    let (metrics, stopped) = tersed.finish();
    let errors = metrics.total("tersed_accept_errors_total");
    assert!((1..100).contains(&errors), "{errors} failed accepts");
    let lines = stopped.log.iter();
    let lines = lines.filter(|line| line.message == "cannot accept a connection");
    assert_eq!(lines.count(), 1, "one line for one cause");
}

/// The errors of a listener that cannot be bound and of the admin port both say which limit to raise.
#[test]
fn what_lacks_a_descriptor_says_what_to_raise() {
    let mut setup = Setup::new().open_files_max(40);
    for _ in 0..60 {
        setup = setup.listen(TCP);
    }
    let (_, said) = setup.start_refused();
    let cause = "Too many open files (os error 24); raise LimitNOFILE= (ulimit -n) and restart";
    assert!(
        said.contains("cannot bind tcp://") && said.contains(cause),
        "{said}"
    );

    let tersed = Setup::new().listen(TCP).start();
    limit_open_files(&tersed, 3);
    let _knocks = std::net::TcpStream::connect(tersed.admin()).unwrap();
    let line = tersed.wait_log(
        "admin port cannot accept connections; retrying; if too many files are open, raise LimitNOFILE= (ulimit -n) and restart",
    );
    assert!(line.mentions("os error 24"), "{line:?}");
    limit_open_files(&tersed, 1024);
    tersed.finish();
}

/// Waits until no more messages come to `sink`, and returns their number.
fn wait_steady(sink: &Sink) -> usize {
    let mut last = 0;
    let mut since = now();
    wait_until("no more messages", LIMIT, || {
        if sink.count() != last {
            (last, since) = (sink.count(), now());
        }
        last > 0 && since.elapsed() >= STEADY
    });
    last
}

/// Asserts that the relay uses almost no processor time for a while, although connections are waiting.
#[track_caller]
fn assert_idle(tersed: &Tersed) {
    let before = tersed.processor_time();
    // The time is only the measure: nothing is expected to happen.
    wait_while(WATCHED, || true);
    let used = tersed.processor_time() - before;
    assert!(used <= WATCHED / 10, "{used:?} of {WATCHED:?}: it spins");
}

fn limit_open_files(tersed: &Tersed, soft: u32) {
    let process = tersed.id();
    let args = [format!("--pid={process}"), format!("--nofile={soft}:")];
    run("prlimit", &args, "util-linux");
}

const TCP: &str = "tcp://127.0.0.1:0";
const STEADY: Duration = Duration::from_millis(500);
const WATCHED: Duration = Duration::from_secs(1);
