//! The admin address answers orchestrators, and tells which port a listener got.

use super::support::originator::Originator;
use super::support::tersed::Setup;

#[test]
fn a_running_relay_is_healthy_and_ready() {
    let mut tersed = Setup::new().listen("udp://127.0.0.1:0").start();
    assert_eq!(tersed.get("/healthz").0, 200);
    assert_eq!(tersed.get("/readyz").0, 200);
    assert_eq!(tersed.get("/no-such-page").0, 404);
    assert_eq!(tersed.get("/../../etc/passwd").0, 404);
    tersed.assert_balance();
    tersed.finish();
}

#[test]
fn metrics_name_the_bound_address_and_count_by_listener() {
    let listeners = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0"];
    let tersed = Setup::new()
        .listen(listeners[0])
        .listen(listeners[1])
        .window("1h")
        .start();
    Originator::udp(tersed.address(listeners[0])).send("one");
    Originator::tcp(tersed.address(listeners[1])).send_all(["two", "three"]);
    tersed.wait_received(3);
    let metrics = tersed.metrics();
    for (listener, count) in listeners.into_iter().zip([1, 2]) {
        let label = [("listener", listener)];
        assert_eq!(
            metrics.total_where("tersed_frames_received_total", &label),
            count
        );
        let address = metrics.label("tersed_listener_info", &label, "address");
        assert_eq!(address, Some(tersed.address(listener).to_string().as_str()));
    }
    tersed.finish();
}

#[test]
fn every_promised_metric_is_there_before_the_first_frame() {
    let tersed = Setup::new().listen("udp://127.0.0.1:0").start();
    let metrics = tersed.metrics();
    for name in PROMISED {
        assert_eq!(metrics.total(name), 0, "{name}");
    }
    assert!(metrics.total("tersed_memory_bytes") < 1_000_000_000);
    tersed.finish();
}

/// Metric names on which dashboards and alert rules may rely.
const PROMISED: [&str; 12] = [
    "tersed_connections",
    "tersed_evicted_total",
    "tersed_frame_errors_total",
    "tersed_frames_dropped_total",
    "tersed_frames_forwarded_total",
    "tersed_frames_queued",
    "tersed_frames_received_total",
    "tersed_frames_suppressed_total",
    "tersed_frames_unparsed_total",
    "tersed_kernel_dropped_total",
    "tersed_live_messages",
    "tersed_summaries_total",
];
