//! The first working upstream of the list is used. When it is lost, the next one is used, and when it returns, tersed
//! switches back. Each upstream gets its messages in order.

use super::support::ordered::{ordered, places};
use super::support::originator::Originator;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn charge_goes_down_the_list_and_returns() {
    let port = RefusingPort::new();
    let (first_url, second) = (port.url(), Sink::tcp());
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"200ms\"\n")
        .listen(TCP)
        .forward(&first_url)
        .forward(&second.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let mut sent = 0;
    let mut send = |count: usize| {
        originator.send_all((sent..sent + count).map(|place| ordered(0, place, OCTETS)));
        sent += count;
        sent
    };
    send(100);
    second.wait_messages(100);
    wait_active(&tersed, &second.url());

    let mut first = port.open();
    wait_active(&tersed, &first_url);
    assert_eq!(tersed.metrics().total("tersed_upstream_active"), 1);
    send(100);
    first.wait_messages(100);
    assert_eq!(second.count(), 100);

    // Sent during the switch: they go to one or the other, and none is lost.
    first.stop();
    send(1000);
    wait_active(&tersed, &second.url());
    let total = send(100);
    let there = |sink: &Sink, place| places(&sink.messages(), OCTETS).contains(&place);
    wait_until("the last message", LIMIT, || there(&second, total - 1));

    first.restart();
    wait_active(&tersed, &first_url);
    let total = send(100);
    wait_until("the last message", LIMIT, || there(&first, total - 1));
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    let again = metrics.total("tersed_frames_resent_total");

    let mut all = Vec::new();
    for sink in [&first, &second] {
        let places = places(&sink.messages(), OCTETS);
        assert!(places.is_sorted(), "{} out of order", sink.url());
        all.extend(places);
    }
    let arrived = all.len() as u64;
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..total).collect::<Vec<_>>());
    assert!(
        arrived - total as u64 <= again,
        "{arrived} of {total}, {again} resent"
    );
}

/// The first upstream of the list is preferred, in whatever order they come up.
#[test]
fn an_upstream_that_stands_by_gets_nothing() {
    let sinks = [Sink::tcp(), Sink::tcp(), Sink::tcp()];
    let mut setup = Setup::new().listen(TCP).window("1h");
    for sink in &sinks {
        setup = setup.forward(&sink.url());
    }
    let tersed = setup.start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..10).map(|place| ordered(0, place, OCTETS)));
    sinks[0].wait_messages(10);
    tersed.finish();
    assert_eq!(
        [sinks[1].connection_count(), sinks[2].connection_count()],
        [0, 0]
    );
}

#[track_caller]
fn wait_active(tersed: &Tersed, url: &str) {
    wait_until(&format!("{url} to be in charge"), LIMIT, || {
        let label = [("upstream", url)];
        tersed
            .metrics()
            .total_where("tersed_upstream_active", &label)
            == 1
    });
}

const TCP: &str = "tcp://127.0.0.1:0";
const OCTETS: usize = 100;
