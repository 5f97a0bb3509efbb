//! A relay that is stopped and continued (SIGSTOP, SIGCONT) loses nothing on TCP.
//!
//! Meanwhile senders fill every buffer, and a window ends, which takes a second here. `TERSED_TEST_LONG=1` stops the
//! relay for 30 s.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, is_long, now, wait_until};

#[test]
fn nothing_is_lost_and_windows_go_on_while_the_process_is_stopped() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[dedup]\nwindow = \"1s\"\n")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let address = tersed.address(TCP);
    let mut originator = Originator::tcp(address);
    originator.send_all([FOO, FOO, FOO]);
    tersed.wait_received(3);

    tersed.signal(Signal::SIGSTOP);
    let stopped = now();
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            thread::spawn(move || {
                let mut originator = Originator::tcp(address);
                originator.send_all((0..EACH).map(|number| message(sender, number)));
                originator
            })
        })
        .collect();
    let pause = Duration::from_millis(if is_long() { 30_000 } else { 1_500 });
    wait_until("the window to end", LIMIT, || stopped.elapsed() > pause);
    // Sent while the relay was stopped, judged after it, and forwarded: its window has ended by then.
    originator.send(FOO);
    tersed.signal(Signal::SIGCONT);

    let _connected: Vec<_> = senders.into_iter().map(|sender| sender.join()).collect();
    tersed.wait_received(2 * EACH + 4);
    let messages = sink.wait_messages(usize::try_from(2 * EACH).unwrap() + 3);
    for sender in 0..2 {
        let start = format!("sender {sender} number ");
        let numbers = messages.iter().filter_map(|message| {
            let text = std::str::from_utf8(message).unwrap();
            let number = text.split_once(&start)?.1;
            number.split(' ').next().unwrap().parse::<u64>().ok()
        });
        assert!(numbers.eq(0..EACH), "all of sender {sender}, in order");
    }
    // The summary of the ended window comes before or after the copy that opened the next one, depending on whether the
    // timer or the sender was first.
    let foos: Vec<_> = messages
        .iter()
        .filter_map(|message| std::str::from_utf8(message).ok())
        .filter(|text| text.contains("foo"))
        .collect();
    let (copies, summaries): (Vec<_>, Vec<_>) = foos.iter().partition(|text| ***text == *FOO);
    assert_eq!((copies.len(), summaries.len()), (2, 1), "{foos:?}");
    assert_eq!(repeats(summaries[0]), Some(2), "{summaries:?}");
    tersed.finish();
}

fn message(sender: u32, number: u64) -> String {
    let padding = "x".repeat(200);
    format!("<13>Mar  1 12:00:00 host app: sender {sender} number {number} {padding}")
}

const TCP: &str = "tcp://127.0.0.1:0";
const FOO: &str = "<13>Mar  1 12:00:00 host app: foo";
/// Ten megabytes for each sender: more than the buffers of a connection.
const EACH: u64 = 40_000;
