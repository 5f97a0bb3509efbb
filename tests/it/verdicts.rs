//! One recorded stream is judged by relays with different internals: the forwarded messages are the same.

use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;
use super::support::wire::Wire;

#[test]
fn the_number_of_shards_changes_no_verdict() {
    let one = survivors("shards = 1");
    for shards in [2, 64] {
        assert_same(&one, &survivors(&format!("shards = {shards}")), shards);
    }
}

#[test]
fn compact_identities_give_the_verdicts_of_exact_ones() {
    let exact = survivors("identity = \"exact\"");
    assert_same(&exact, &survivors("identity = \"compact\""), 0);
}

#[test]
fn allow_and_refresh_give_the_same_verdicts_for_any_number_of_shards() {
    let keys = "allow = 3\nrefresh = true\nmax_quiet = \"2h\"";
    let one = survivors(&format!("{keys}\nshards = 1"));
    let many = survivors(&format!("{keys}\nshards = 64"));
    assert_same(&one, &many, 64);
    assert!(
        one.0.len() > survivors("shards = 1").0.len(),
        "allow allows"
    );
}

/// The output: forwarded messages in order, and summaries, sorted.
type Output = (Vec<Vec<u8>>, Vec<String>);

/// The output of a relay with these keys of `[dedup]` for the recorded stream.
fn survivors(keys: &str) -> Output {
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let url = sink.url();
    let tersed = Setup::new()
        .config(&format!(
            "[dedup]\nwindow = \"1h\"\n{keys}\n\
             [forward]\nto = [{{ url = \"{url}\", framing = \"octet-counting\" }}]\n"
        ))
        .listen("tcp://127.0.0.1:0")
        .start();
    let mut originator =
        Originator::tcp(tersed.address("tcp://127.0.0.1:0")).framed(Wire::OctetCounting);
    let stream = recorded();
    originator.send_all(&stream);
    tersed.wait_received(stream.len() as u64);
    let (metrics, _) = tersed.finish();
    let forwarded = usize::try_from(metrics.balance().forwarded).unwrap();
    let suppressed = metrics.balance().suppressed;

    let mut messages = sink.messages();
    let mut summaries: Vec<String> = messages
        .split_off(forwarded)
        .into_iter()
        .map(|summary| without_times(&String::from_utf8(summary).unwrap()))
        .collect();
    summaries.sort();
    let reported = summaries
        .iter()
        .map(|summary| repeats(summary).unwrap_or_else(|| panic!("no summary: {summary}")));
    assert_eq!(reported.sum::<u64>(), suppressed, "copies reported");
    (messages, summaries)
}

/// A summary without the times at which this run received the copies.
fn without_times(summary: &str) -> String {
    match (
        summary.split_once("[tersed@32473 "),
        summary.split_once("] message"),
    ) {
        (Some((head, _)), Some((_, text))) => format!("{head}message{text}"),
        _ => summary.to_owned(),
    }
}

#[track_caller]
fn assert_same(expected: &Output, found: &Output, shards: u32) {
    let differ = expected.0.iter().zip(&found.0).position(|(a, b)| a != b);
    assert_eq!(
        differ, None,
        "the first survivor that differs, {shards} shards"
    );
    assert_eq!(expected.0.len(), found.0.len());
    let differ = expected.1.iter().zip(&found.1).find(|(a, b)| a != b);
    assert_eq!(differ, None, "summaries, {shards} shards");
    assert_eq!(expected.1.len(), found.1.len());
    assert!(
        expected.0.len() > 2000 && expected.1.len() > 500,
        "the stream is worth it"
    );
}

/// Twenty thousand messages, the same in every run: a generator draws formats, hosts, severities and texts, some texts
/// often and most rarely.
fn recorded() -> Vec<Vec<u8>> {
    let mut state = 0x7e45_ed00_u64;
    let mut draw = |bound: u64| {
        // A 64-bit linear congruential generator (Knuth's constants); its upper bits are good.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    (0..20_000_u32)
        .map(|at| {
            let (often, seldom) = (draw(20), draw(20_000));
            let text = if draw(2) == 0 { often } else { seldom };
            let (minute, second) = (at / 60 % 60, at % 60);
            let (pri, host, procid) = (draw(4) + 10, draw(3), draw(5));
            match draw(5) {
                0 => format!(
                    "<{pri}>1 2026-03-01T12:{minute:02}:{second:02}Z host{host} app {procid} ID \
                     [meta sequenceId=\"{at}\"] text {text}"
                ),
                1 => format!("<{pri}>text {text} without a header"),
                2 => format!(
                    "<{pri}>{at}: Mar  1 12:{minute:02}:{second:02}: %LINK-3-UPDOWN: port {text}"
                ),
                _ => format!(
                    "<{pri}>Mar  1 12:{minute:02}:{second:02} host{host} app[{procid}]: text {text}"
                ),
            }
            .into_bytes()
        })
        .collect()
}
