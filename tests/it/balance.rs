//! With `strategy = "balance"` all working upstreams take their share. Each gets its messages in order, and the others
//! take over what one of them may have lost.

use std::collections::BTreeSet;

use super::reload::reload;
use super::support::ordered::{ordered, places};
use super::support::originator::Originator;
use super::support::sink::{Manner, RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn all_that_work_take_their_share_in_order() {
    let sinks = [Sink::tcp(), Sink::tcp(), Sink::tcp()];
    let tersed = start(sinks.iter().map(Sink::url));
    wait_active(&tersed, 3);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..TOTAL).map(|place| ordered(0, place, OCTETS)));
    wait_until("all messages", LIMIT, || total(&sinks) == TOTAL);
    tersed.finish();
    let mut all = BTreeSet::new();
    for sink in &sinks {
        let places = places(&sink.messages(), OCTETS);
        assert!(places.is_sorted(), "{} out of order", sink.url());
        assert!(
            places.len() > TOTAL / 20,
            "{} got {} of {TOTAL}",
            sink.url(),
            places.len()
        );
        all.extend(places);
    }
    assert_eq!(all.len(), TOTAL);
}

#[test]
fn what_one_may_have_lost_the_others_take_over() {
    let (mut lost, stays) = (Sink::tcp(), Sink::tcp());
    let tersed = start([lost.url(), stays.url()]);
    wait_active(&tersed, 2);
    let mut originator = Originator::tcp(tersed.address(TCP));
    lost.behave(Manner::NeverRead);
    originator.send_all((0..TOTAL).map(|place| ordered(0, place, OCTETS)));
    wait_until("a share at the one that reads", LIMIT, || stays.count() > 0);
    lost.stop();
    wait_until("the rest at the other", LIMIT, || {
        // Copies count as well, so TOTAL messages may not be enough. Looking at them is expensive, so look only when
        // there are as many.
        let sinks = [&lost, &stays];
        let all = || sinks.map(|sink| places(&sink.messages(), OCTETS)).concat();
        lost.count() + stays.count() >= TOTAL
            && all().iter().collect::<BTreeSet<_>>().len() == TOTAL
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    let again = metrics.total("tersed_frames_resent_total");
    assert!((lost.count() + stays.count() - TOTAL) as u64 <= again);
}

#[test]
fn one_that_comes_late_takes_its_share_from_then_on() {
    let (port, works) = (RefusingPort::new(), Sink::tcp());
    let tersed = start([port.url(), works.url()]);
    wait_active(&tersed, 1);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..1000).map(|place| ordered(0, place, OCTETS)));
    works.wait_messages(1000);
    let late = port.open();
    wait_active(&tersed, 2);
    let sent = TOTAL + 1000;
    originator.send_all((1000..sent).map(|place| ordered(0, place, OCTETS)));
    wait_until("all messages", LIMIT, || {
        works.count() + late.count() == sent
    });
    assert!(late.count() > 0);
    tersed.finish();
}

#[test]
fn a_reload_changes_who_takes_a_share() {
    let sinks = [Sink::tcp(), Sink::tcp()];
    let config = |urls: &[String]| {
        format!(
            "[forward]\nstrategy = \"balance\"\nto = {urls:?}\n[dedup]\nwindow = \"1h\"\n[[listener]]\nurl = \"{TCP}\"\n"
        )
    };
    let both: Vec<_> = sinks.iter().map(Sink::url).collect();
    let tersed = Setup::new().config(&config(&both[..1])).start();
    wait_active(&tersed, 1);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..10).map(|place| ordered(0, place, OCTETS)));
    sinks[0].wait_messages(10);
    reload(&tersed, &config(&both));
    wait_active(&tersed, 2);
    reload(&tersed, &config(&both[1..]));
    wait_active(&tersed, 1);
    originator.send_all((10..20).map(|place| ordered(0, place, OCTETS)));
    sinks[1].wait_messages(10);
    assert_eq!(
        sinks[0].connection_count(),
        1,
        "what stays is not reconnected"
    );
    tersed.finish();
}

fn start(urls: impl IntoIterator<Item = String>) -> Tersed {
    let config =
        "[dedup]\nwindow = \"1h\"\n[forward]\nstrategy = \"balance\"\nretry_max = \"200ms\"\n";
    let setup = Setup::new().config(config).listen(TCP);
    urls.into_iter()
        .fold(setup, |setup, url| setup.forward(&url))
        .start()
}

fn wait_active(tersed: &Tersed, count: u64) {
    wait_until("the upstreams that work", LIMIT, || {
        tersed.metrics().total("tersed_upstream_active") == count
    });
}

fn total(sinks: &[Sink]) -> usize {
    sinks.iter().map(Sink::count).sum()
}

const TCP: &str = "tcp://127.0.0.1:0";
const OCTETS: usize = 200;
const TOTAL: usize = 50_000;
