//! A flood of messages that are all different: memory stays within its budget, the oldest messages are evicted and
//! reported, and the speed stays the same.
//!
//! 300,000 messages, which fill a small budget several times; with `TERSED_TEST_LONG=1` 10 million.

use std::time::Duration;

use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::proc_fs::processor_time;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, is_long, wait_until};

#[test]
fn a_flood_of_new_messages_stays_within_the_budget_and_is_reported() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[forward]\nqueue = \"1MiB\"\nresend_max = \"1MiB\"\n")
        .args(["--memory", "16MiB"])
        .window("1h")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let metrics = tersed.metrics();
    assert_eq!(metrics.total("tersed_memory_budget_bytes"), BUDGET);
    let rss_before = tersed.resident_octets();
    let distinct: u64 = if is_long() { 10_000_000 } else { 300_000 };
    let mut originator = Originator::tcp(tersed.address(TCP));

    // Until the budget is reached, and after that. Processor time is measured, which other processes do not disturb.
    let mut flood = Flood::default();
    let mut steady = None;
    let mut rss_max = 0;
    while flood.numbers < distinct {
        let lap = flood.numbers..flood.numbers + LAP;
        originator.send_all(lap.flat_map(copies));
        flood.numbers += LAP;
        flood.sent += LAP + LAP / TWICE_EVERY;
        tersed.wait_received(flood.sent);
        let metrics = tersed.metrics();
        let memory = metrics.total("tersed_memory_bytes");
        assert!(memory <= BUDGET, "{memory} octets held");
        rss_max = rss_max.max(tersed.resident_octets());
        if metrics.total("tersed_evicted_total") == 0 {
            steady = Some((flood.sent, spent(&tersed)));
        }
    }
    let (sent, before) = steady.expect("the budget holds more than one lap");
    let after = spent(&tersed).saturating_sub(before);
    let (slow, fast) = (
        per_message(after, flood.sent - sent),
        per_message(before, sent),
    );
    assert!(
        slow <= 2 * fast,
        "{slow:?} a message with evictions, {fast:?} without"
    );
    // Besides the budget: what the queue, the resend ring and the current batches may hold, and what the allocator does
    // not return.
    let most = rss_before + BUDGET + (16 << 20);
    assert!(rss_max <= most, "{rss_max} octets resident, {most} at most");

    let metrics = tersed.metrics();
    let [live, evicted, unremembered] = [
        "tersed_live_messages",
        "tersed_evicted_total",
        "tersed_unremembered_total",
    ]
    .map(|name| metrics.total(name));
    // Each message is remembered, or counted as evicted or as not remembered. Some count more than once: the first copy
    // as evicted and the second as new, or a second copy for whose count there was no room.
    let passed_again = (live + evicted + unremembered).checked_sub(distinct);
    let passed_again = passed_again.expect("none is missing");
    assert!(
        unremembered <= distinct / 100,
        "{unremembered} not remembered"
    );
    assert!(live > 10_000, "{live} live messages");
    let forgotten = metrics.total_where("tersed_summaries_total", &[("reason", "evicted")]);
    assert!(
        forgotten + passed_again + 64 >= evicted / TWICE_EVERY,
        "{forgotten} of {evicted} reported"
    );

    // An evicted message is not lost: when it comes again it is forwarded, and a remembered one is not.
    originator.send_all([message(0), message(distinct - 1)]);
    tersed.wait_received(flood.sent + 2);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, distinct + passed_again + 1);
    let suppressed = metrics.balance().suppressed;
    assert_eq!(suppressed, distinct / TWICE_EVERY - passed_again + 1);
    let reported = || {
        let messages = sink.messages();
        let texts = messages.iter().map(|text| String::from_utf8_lossy(text));
        texts.filter_map(|text| repeats(&text)).sum::<u64>()
    };
    wait_until("all reports", LIMIT, || reported() == suppressed);
}

#[derive(Default)]
struct Flood {
    /// Different messages sent.
    numbers: u64,
    /// Frames sent.
    sent: u64,
}

/// One copy; for every so many messages, two.
fn copies(number: u64) -> impl Iterator<Item = String> {
    let copies = if number.is_multiple_of(TWICE_EVERY) {
        2
    } else {
        1
    };
    (0..copies).map(move |_| message(number))
}

fn message(number: u64) -> String {
    let padding = "x".repeat(150);
    format!("<13>Mar  1 12:00:00 host app: number {number:010} {padding}")
}

fn spent(tersed: &Tersed) -> Duration {
    processor_time(tersed.id())
}

fn per_message(time: Duration, count: u64) -> Duration {
    time / u32::try_from(count).unwrap()
}

const TCP: &str = "tcp://127.0.0.1:0";
const BUDGET: u64 = 16 << 20;
const LAP: u64 = 10_000;
const TWICE_EVERY: u64 = 10;
