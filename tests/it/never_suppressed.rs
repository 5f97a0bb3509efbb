//! Messages that sign or count other messages are never suppressed.

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;

/// F55. RFC 5848 4.2: the blocks of one reboot session may look alike to a relay that computes no hashes.
#[test]
fn signature_blocks_with_equal_text_all_pass() {
    for (sd_id, frames) in [
        ("ssign", equal("ssign", 10)),
        ("ssign-cert", equal("ssign-cert", 10)),
        // The same text at different times, any number of blocks.
        (
            "ssign",
            (0..60).map(|second| block("ssign", second)).collect(),
        ),
    ] {
        let sink = Sink::tcp();
        let tersed = Setup::new()
            .window("1h")
            .listen("tcp://127.0.0.1:0")
            .forward(&sink.url())
            .start();
        let mut originator = Originator::tcp(tersed.address("tcp://127.0.0.1:0"));
        originator.send_all(&frames);
        let arrived = sink.wait_messages(frames.len());
        assert!(
            arrived
                .iter()
                .eq(frames.iter().map(|frame| frame.as_bytes()))
        );
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.balance().suppressed, 0, "{sd_id}");
        assert_eq!(metrics.total("tersed_summaries_total"), 0, "{sd_id}");
    }
}

/// The same text in an element of another name is an ordinary message.
#[test]
fn only_the_elements_of_rfc_5848_make_a_signature_block() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .window("1h")
        .listen("tcp://127.0.0.1:0")
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address("tcp://127.0.0.1:0"));
    originator.send_all(equal("ssigned@32473", 10));
    tersed.wait_received(10);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().suppressed, 9);
}

fn equal(sd_id: &str, count: usize) -> Vec<String> {
    vec![block(sd_id, 0); count]
}

fn block(sd_id: &str, second: u32) -> String {
    format!(
        "<110>1 2026-03-01T12:00:{second:02}Z host syslogd - - [{sd_id} VER=\"0111\" RSID=\"1\" SG=\"0\" \
         SPRI=\"0\" GBC=\"2\" FMN=\"1\" CNT=\"7\" HB=\"K6wzcombEvKJ+UTMcn9bPryAeaU=\" SIGN=\"AKBbX4J7\"]"
    )
}
