//! A storm of reloads, valid and invalid ones in turn, costs no connection and no message.
//!
//! 100 reloads a second for 2 s, or for 10 s with `TERSED_TEST_LONG=1`.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, is_long, now, wait_until};

#[test]
fn a_storm_of_reloads_loses_no_connection_and_no_message() {
    let sink = Sink::tcp();
    let config = |queue: &str, summary: &str| {
        format!(
            "[forward]\nto = [\"{}\"]\nqueue = \"{queue}\"\n[dedup]\nwindow = \"1h\"\nsummary = \"{summary}\"\n",
            sink.url()
        )
    };
    // In turn: two valid ones that differ, and two with an error on the third line.
    let configs = [
        config("1MiB", "prefix"),
        format!(
            "[dedup]\nwindow = \"1h\"\nsummary = \"loud\"\n[forward]\nto = [\"{}\"]\n",
            sink.url()
        ),
        config("2MiB", "none"),
        "[forward]\n\nto = tcp\n".to_owned(),
    ];
    let tersed = Setup::new()
        .config(&configs[0])
        .listen(TCP)
        .listen(UDP)
        .start();
    let stop = AtomicBool::new(false);
    let period = Duration::from_millis(10);
    let reloads: u32 = if is_long() { 1000 } else { 200 };

    let sent = thread::scope(|scope| {
        let senders: Vec<_> = [0_u64, 1, 2]
            .map(|sender| {
                let originator = if sender < 2 {
                    Originator::tcp(tersed.address(TCP))
                } else {
                    Originator::udp(tersed.address(UDP))
                };
                let (stop, tersed) = (&stop, &tersed);
                scope.spawn(move || send_steadily(originator, sender, stop, tersed))
            })
            .into();
        let start = now();
        for reload in 0..reloads {
            wait_until("the next reload", LIMIT, || {
                start.elapsed() >= period * reload
            });
            // In one step, as a configuration manager does it, so that the relay never reads half a file.
            let new = tersed.path("new.toml");
            fs::write(&new, &configs[reload as usize % configs.len()]).unwrap();
            fs::rename(new, tersed.config_file()).unwrap();
            tersed.signal(Signal::SIGHUP);
        }
        stop.store(true, Ordering::SeqCst);
        let sent = senders.into_iter().map(|sender| sender.join().unwrap());
        sent.collect::<Vec<_>>()
    });

    let total: u64 = sent.iter().sum();
    tersed.wait_received(total);
    let messages = sink.wait_messages(usize::try_from(total).unwrap());
    for (sender, count) in (0..).zip(&sent) {
        let start = format!("sender {sender} ");
        let numbers = messages.iter().filter_map(|message| {
            let text = String::from_utf8_lossy(message);
            let number = text.split_once(&start)?.1;
            Some(number.parse::<u64>().unwrap())
        });
        assert!(numbers.eq(0..*count), "all of sender {sender}, in order");
    }
    check_log(&tersed, reloads);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_connections_accepted_total"), 2);
    assert_eq!(metrics.total("tersed_upstream_connects_total"), 1);
    assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
}

/// Sends numbers, each once, as far ahead of the relay as a small socket buffer allows.
fn send_steadily(
    mut originator: Originator,
    sender: u64,
    stop: &AtomicBool,
    tersed: &Tersed,
) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
        let next = sent..sent + 50;
        originator.send_all(next.map(|number| message(sender, number)));
        sent += 50;
        // UDP has no flow control, so the scrape sets the pace.
        let _metrics = tersed.metrics();
    }
    sent
}

/// Signals that come while one is being served may be merged. Each that was served was either put in force, or refused
/// with the place of the error.
#[track_caller]
fn check_log(tersed: &Tersed, reloads: u32) {
    let log = tersed.log();
    let refused: Vec<_> = log
        .iter()
        .filter(|line| line.message == "reload refused")
        .collect();
    for line in &refused {
        assert!(line.mentions("tersed.toml:3: "), "{line:?}");
    }
    let reloaded = tersed.log_count("reloaded");
    let least = reloads as usize / 10;
    assert!(
        reloaded > least && refused.len() > least,
        "{reloaded} in force and {} refused of {reloads}",
        refused.len()
    );
}

fn message(sender: u64, number: u64) -> String {
    format!("<13>Mar  1 12:00:00 host app: sender {sender} {number}")
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
