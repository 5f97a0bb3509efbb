//! An upstream that refuses connections is tried more and more rarely while the queue fills, at almost no cost. Then
//! everything drains in order.

use std::time::Duration;

use super::support::ordered::{ordered, place_of};
use super::support::originator::Originator;
use super::support::proc_fs::processor_time;
use super::support::sink::RefusingPort;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, now, wait_until};

/// For 4 s; with `TERSED_TEST_LONG=1` for the full 60 s.
#[test]
fn a_refusing_upstream_is_asked_ever_more_rarely_and_then_gets_everything_in_order() {
    let port = RefusingPort::new();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"3s\"\n")
        .listen(TCP)
        .forward(&port.url())
        .start();
    let mut originators: Vec<_> = (0..SOURCES)
        .map(|_| Originator::tcp(tersed.address(TCP)))
        .collect();
    for round in 0..ROUNDS {
        for (source, originator) in originators.iter_mut().enumerate() {
            let messages = (0..EACH).map(|n| ordered(source, round * EACH + n, OCTETS));
            originator.send_all(messages);
        }
    }
    let total = SOURCES * ROUNDS * EACH;
    tersed.wait_received(total as u64);
    assert_eq!(tersed.metrics().balance().queued, total as u64);
    assert!(tersed.metrics().total("tersed_queue_octets") > (total * OCTETS) as u64);

    // A share of processor time needs a span of time; there is no condition to wait for.
    let span = Duration::from_secs(if std::env::var_os("TERSED_TEST_LONG").is_some() {
        60
    } else {
        4
    });
    let errors = tersed.metrics().total("tersed_upstream_errors_total");
    let (start, used) = (now(), processor_time(tersed.id()));
    wait_until("the span to be over", 2 * span, || start.elapsed() >= span);
    let used = processor_time(tersed.id()).saturating_sub(used);
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share < 0.05, "{share:.3} of a processor while waiting");
    let attempts = tersed.metrics().total("tersed_upstream_errors_total") - errors;
    // 100 ms doubled up to 3 s; jitter at most halves each pause.
    let attempts_max = 6 + span.as_millis() / 1500;
    assert!(
        u128::from(attempts) <= attempts_max,
        "{attempts} attempts in {span:?}"
    );
    assert_eq!(tersed.log_count("cannot connect to upstream"), 1);

    let sink = port.open();
    let messages = sink.wait_messages(total);
    let mut next = [0; SOURCES];
    for message in &messages {
        let (source, place) = place_of(message, OCTETS);
        assert_eq!(place, next[source], "source {source} out of order");
        next[source] += 1;
    }
    wait_until("the queue to be empty", LIMIT, || {
        tersed.metrics().total("tersed_queue_octets") == 0
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_forwarded_total"), total as u64);
}

const TCP: &str = "tcp://127.0.0.1:0";
const SOURCES: usize = 100;
const ROUNDS: usize = 10;
const EACH: usize = 10;
const OCTETS: usize = 100;
