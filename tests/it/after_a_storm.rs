//! After a storm, the memory that it took is returned to the system, not only to the allocator.

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, wait_until};

#[test]
fn memory_goes_back_to_the_system_when_the_windows_are_over() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config("[forward]\nqueue = \"1MiB\"\nresend_max = \"1MiB\"\n")
        .window("5s")
        .listen(TCP)
        .forward(&sink.url())
        .start();
    let before = tersed.resident_octets();
    let mut originator = Originator::tcp(tersed.address(TCP));
    for lap in (0..MESSAGES).step_by(LAP) {
        originator.send_all((lap..lap + LAP).map(message));
    }
    tersed.wait_received(MESSAGES as u64);
    let held = tersed.metrics().total("tersed_memory_bytes");
    let risen = tersed.resident_octets().saturating_sub(before);
    assert!(
        held > 20 << 20 && risen > held / 2,
        "{held} octets held, {risen} more resident"
    );
    wait_until("the windows to be over", LIMIT, || {
        tersed.metrics().total("tersed_memory_bytes") == 0
    });
    wait_until("the memory to be given back", LIMIT, || {
        tersed.resident_octets() < before + risen / 3
    });
    tersed.finish();
}

fn message(number: usize) -> String {
    let padding = "x".repeat(300);
    format!("<13>Mar  1 12:00:00 host app: number {number} {padding}")
}

const TCP: &str = "tcp://127.0.0.1:0";
const MESSAGES: usize = 150_000;
const LAP: usize = 1_000;
