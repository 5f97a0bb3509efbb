//! util-linux's `logger` sends; a repeated message is forwarded once.

use super::support::logger::Logger;
use super::support::numbered::repeats;
use super::support::sink::{Sink, show};
use super::support::tersed::{Setup, Tersed, url};

#[test]
fn over_udp() {
    check("udp://127.0.0.1:0", |tersed, url| {
        Logger::udp(tersed.address(url)).arg("--rfc3164")
    });
}

#[test]
fn over_tcp() {
    check("tcp://127.0.0.1:0", |tersed, url| {
        Logger::tcp(tersed.address(url)).arg("--rfc3164")
    });
}

#[test]
fn over_tcp_with_octet_counts() {
    check("tcp://127.0.0.1:0", |tersed, url| {
        Logger::tcp(tersed.address(url))
            .arg("--rfc3164")
            .arg("--octet-count")
    });
}

/// `timeQuality` and the timestamp's fraction differ from call to call, but the messages are the same.
#[test]
fn as_rfc5424_over_udp() {
    check("udp://127.0.0.1:0", |tersed, url| {
        Logger::udp(tersed.address(url)).arg("--rfc5424")
    });
}

#[test]
fn as_rfc5424_over_tcp_with_octet_counts() {
    check("tcp://127.0.0.1:0", |tersed, url| {
        Logger::tcp(tersed.address(url))
            .arg("--rfc5424")
            .arg("--octet-count")
    });
}

/// In place of `/dev/log`: the message has no host name.
#[test]
fn over_a_unix_datagram_socket() {
    check_unix("unix-dgram");
}

#[test]
fn over_a_unix_stream_socket() {
    check_unix("unix-stream");
}

#[track_caller]
fn check_unix(scheme: &str) {
    let setup = Setup::new();
    let path = setup.path("log.sock");
    let listener = url(scheme, &path);
    check_with(setup, &listener, |_, _| Logger::unix(&path));
}

#[track_caller]
fn check(listener: &str, logger: impl FnOnce(&Tersed, &str) -> Logger) {
    check_with(Setup::new(), listener, logger);
}

/// foo, foo, bar by three processes: foo and bar are forwarded, and a summary reports one more foo.
#[track_caller]
fn check_with(setup: Setup, listener: &str, logger: impl FnOnce(&Tersed, &str) -> Logger) {
    let sink = Sink::tcp();
    let tersed = setup
        .listen(listener)
        .forward(&sink.url())
        .window("1h")
        .start();
    let logger = logger(&tersed, listener);
    // Wait for each: they come over different connections, which have no order among each other.
    for (count, (procid, text)) in (1..).zip([(100, "foo"), (200, "foo"), (300, "bar")]) {
        logger.log(procid, text);
        tersed.wait_received(count);
    }
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 1);

    let messages = sink.wait_messages(3);
    let texts: Vec<_> = messages
        .iter()
        .map(|m| String::from_utf8_lossy(m))
        .collect();
    assert!(
        texts[0].ends_with(" foo") && texts[0].contains("100"),
        "{}",
        show(&messages)
    );
    assert!(
        texts[1].ends_with(" bar") && texts[1].contains("300"),
        "{}",
        show(&messages)
    );
    assert!(texts[2].contains("foo"), "{}", show(&messages));
    assert_eq!(repeats(&texts[2]), Some(1), "{}", show(&messages));
}
