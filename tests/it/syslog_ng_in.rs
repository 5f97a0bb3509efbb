//! A real syslog-ng sends RFC 5424. Repeats are recognised although it increments `meta sequenceId`.

use super::support::logger::Logger;
use super::support::numbered::repeats;
use super::support::sink::{Sink, show};
use super::support::syslog_ng::SyslogNg;
use super::support::tersed::Setup;

#[test]
fn repeats_from_syslog_ng_are_recognised() {
    let sink = Sink::tcp();
    let listener = "tcp://127.0.0.1:0";
    let tersed = Setup::new()
        .listen(listener)
        .forward(&sink.url())
        .window("1h")
        .start();
    let syslog_ng = SyslogNg::sender(tersed.address(listener));
    let logger = Logger::unix(&syslog_ng.socket());
    for text in ["foo", "foo", "bar"] {
        logger.log(7, text);
    }
    // syslog-ng does not send the message about its own start, so these three are everything.
    tersed.wait_received(3);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 1);
    assert_eq!(metrics.total("tersed_frames_unparsed_total"), 0);

    let messages = sink.wait_messages(3);
    let texts: Vec<_> = messages
        .iter()
        .map(|m| String::from_utf8_lossy(m))
        .collect();
    assert!(
        texts[0].contains("sequenceId") && texts[0].ends_with("foo"),
        "{}",
        show(&messages)
    );
    assert!(texts[1].ends_with("bar"), "{}", show(&messages));
    assert_eq!(repeats(&texts[2]), Some(1), "{}", show(&messages));
}
