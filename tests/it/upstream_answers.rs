//! What an upstream sends back is ignored, and does no harm.

use super::support::ordered::{assert_ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::sink::{Manner, Sink};
use super::support::tersed::Setup;

#[test]
fn what_an_upstream_sends_back_is_thrown_away() {
    let sink = Sink::tcp().mannered(Manner::AnswerBack);
    let tersed = Setup::new()
        // Little memory for the resend ring, so that kept answers would show.
        .config("[dedup]\nwindow = \"1h\"\nmemory = \"4MiB\"\n[forward]\nresend_max = \"256KiB\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let half = PLACES / 2;
    originator.send_all(ordered_all(half, OCTETS));
    sink.wait_messages(half);
    let resident = tersed.resident_octets();
    originator.send_all(ordered_all(PLACES, OCTETS).skip(half));
    let messages = sink.wait_messages(PLACES);
    assert_ordered(&places(&messages, OCTETS), PLACES, 0);
    // Half of everything that was sent has come back since. Nowhere near as much may be kept.
    let grown = tersed.resident_octets().saturating_sub(resident);
    assert!(grown < (half * OCTETS / 2) as u64, "grew by {grown} octets");
    assert_eq!(sink.connection_count(), 1);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
    assert_eq!(metrics.total("tersed_frames_received_total"), PLACES as u64);
}

const TCP: &str = "tcp://127.0.0.1:0";
const PLACES: usize = 80_000;
const OCTETS: usize = 500;
