//! Suppressed copies are reported exactly once, and no summary needs another message to be sent.

use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::sink::{Sink, show};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn a_window_that_ends_reports_its_repeats_by_itself() {
    let (sink, tersed, mut originator) = start(Setup::new().window("1s"));
    originator.send_all([FOO; 3]);
    let messages = sink.wait_messages(2);
    assert_eq!(text(&messages[0]), FOO);
    check_is_summary(&messages[1], 2, "message repeated 2 times: [ foo]");
    let metrics = tersed.metrics();
    assert_eq!(metrics.total("tersed_summaries_total"), 1);
    assert_eq!(metrics.total("tersed_live_messages"), 0);

    // The window has ended: the next copy is a first copy again, and there is nothing to report.
    originator.send(FOO);
    let messages = sink.wait_messages(3);
    assert_eq!(text(&messages[2]), FOO);
    tersed.finish();
    assert_eq!(sink.count(), 3);
}

#[test]
fn a_stop_reports_the_repeats_of_open_windows() {
    let (sink, tersed, mut originator) = start(Setup::new().window("1h"));
    originator.send_all([FOO, BAR, FOO, FOO]);
    tersed.wait_received(4);
    tersed.finish();
    let messages = sink.wait_messages(3);
    check_is_summary(&messages[2], 2, "message repeated 2 times: [ foo]");
}

#[test]
fn suffix_style_leaves_the_text_first() {
    let (sink, tersed, mut originator) = start(dedup("window = \"1h\"\nsummary = \"suffix\""));
    originator.send_all([FOO; 3]);
    tersed.wait_received(3);
    tersed.finish();
    let messages = sink.wait_messages(2);
    check_is_summary(&messages[1], 2, "foo [message repeated 2 times]");
}

#[test]
fn style_none_reports_in_the_metrics_alone() {
    let (sink, tersed, mut originator) = start(dedup("window = \"1s\"\nsummary = \"none\""));
    originator.send_all([FOO; 3]);
    tersed.wait_received(3);
    wait_until("the window to end", LIMIT, || {
        tersed.metrics().total("tersed_live_messages") == 0
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_suppressed_total"), 2);
    assert_eq!(metrics.total("tersed_summaries_total"), 0);
    assert_eq!(sink.count(), 1, "{}", show(&sink.messages()));
}

#[test]
fn a_message_said_once_has_no_summary() {
    let (sink, tersed, mut originator) = start(Setup::new().window("1h"));
    originator.send_all([FOO, BAR]);
    tersed.wait_received(2);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_summaries_total"), 0);
    assert_eq!(sink.count(), 2);
}

/// A summary from the sender is information of its own: two equal counts are two facts.
#[test]
fn a_senders_own_summary_is_never_held_back() {
    let (sink, tersed, mut originator) = start(Setup::new().window("1h"));
    let counts = [
        "<13>Mar  1 12:00:00 host app: message repeated 4 times: [ foo]",
        "<13>Mar  1 12:00:00 last message repeated 4 times",
    ];
    originator.send_all([counts[0], counts[0], counts[1], counts[1]]);
    sink.wait_messages(4);
    tersed.finish();
    assert_eq!(sink.count(), 4);
}

#[test]
fn a_summary_of_rfc5424_carries_its_figures_as_structured_data() {
    let message = |second: u32, procid: u32| {
        let stamp = format!("2026-03-01T12:00:{second:02}.5Z");
        format!("<34>1 {stamp} host app {procid} ID47 [x@1 a=\"b\"] foo")
    };
    let (sink, tersed, mut originator) = start(Setup::new().window("1h"));
    originator.send_all([message(0, 111), message(1, 222), message(2, 333)]);
    tersed.wait_received(3);
    tersed.finish();

    let messages = sink.wait_messages(2);
    assert_eq!(text(&messages[0]), message(0, 111));
    let summary = text(&messages[1]);
    let fields: Vec<_> = summary.splitn(7, ' ').collect();
    let [version, stamp, hostname, app_name, _procid, msgid, rest] = fields[..] else {
        panic!("no RFC 5424: {summary}");
    };
    assert_eq!(
        [version, hostname, app_name, msgid],
        ["<34>1", "host", "app", "ID47"]
    );
    assert!(stamp.parse::<jiff::Timestamp>().is_ok(), "{summary}");
    assert!(
        rest.contains("[x@1 a=\"b\"]"),
        "the message's own elements stay: {summary}"
    );
    assert!(
        rest.ends_with("] message repeated 2 times: [ foo]"),
        "{summary}"
    );

    let (_, element) = rest.split_once("[tersed@32473 ").expect("our SD-ELEMENT");
    let param = |name: &str| {
        let start = format!("{name}=\"");
        let value = element
            .split_once(&start)
            .unwrap_or_else(|| panic!("no {name} in {summary}"));
        value.1.split('"').next().unwrap().to_owned()
    };
    assert_eq!(param("count"), "2");
    let [first, last]: [jiff::Timestamp; 2] =
        [param("first"), param("last")].map(|stamp| stamp.parse().expect("RFC 3339"));
    assert!(first <= last, "{summary}");
    assert!(!param("window").is_empty(), "{summary}");
}

/// A relay that forwards to one sink, and a connection to it.
fn start(setup: Setup) -> (Sink, Tersed, Originator) {
    let sink = Sink::tcp();
    let tersed = setup.listen(TCP).forward(&sink.url()).start();
    let originator = Originator::tcp(tersed.address(TCP));
    (sink, tersed, originator)
}

fn dedup(keys: &str) -> Setup {
    Setup::new().config(&format!("[dedup]\n{keys}\n"))
}

/// Asserts that this summary is the message itself (PRI, host and app as they were) with another text.
#[track_caller]
fn check_is_summary(message: &[u8], count: u64, ending: &str) {
    let summary = text(message);
    assert!(
        summary.starts_with("<13>") && summary.contains(" host app: "),
        "{summary}"
    );
    assert!(summary.ends_with(&format!(" {ending}")), "{summary}");
    assert_eq!(repeats(&summary), Some(count), "{summary}");
}

fn text(message: &[u8]) -> String {
    String::from_utf8(message.to_vec()).unwrap()
}

const TCP: &str = "tcp://127.0.0.1:0";
const FOO: &str = "<13>Mar  1 12:00:00 host app: foo";
const BAR: &str = "<13>Mar  1 12:00:00 host app: bar";
