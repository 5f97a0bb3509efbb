//! The rows about delivery: the queue, the spool, and the upstreams. They are behind all of the law.

use super::super::UpstreamState;
use super::{Family, MetricType, counter, gauge, in_bytes, in_seconds};
use crate::clock::Clock;
use crate::tick::WallTime;

pub(super) static FAMILIES: &[Family] = &[
    // What waits.
    gauge(
        "tersed_queue_octets",
        "Octets that wait for an upstream in memory.",
        |scrape, out| {
            out.level(&[], scrape.metrics.queue_octets.get());
        },
    ),
    in_seconds(
        "tersed_queue_oldest_timestamp",
        MetricType::Gauge,
        "Unix time at which the oldest message in the queue came.",
        |scrape, out| {
            if let Some(since) = scrape.metrics.queue_oldest() {
                out.moment(&[], Clock::reckon().wall_of(since));
            }
        },
    ),
    gauge(
        "tersed_reading_paused",
        "1 while a reader waits for room in the queue.",
        |scrape, out| {
            let [one, other] = scrape.metrics.all_pauses();
            out.level(&[], one.now.get().max(other.now.get()).min(1));
        },
    ),
    gauge(
        "tersed_accepting_paused",
        "1 while no connection is accepted because the limit of open files is reached.",
        |scrape, out| {
            out.level(&[], scrape.metrics.accept_pauses.now.get().min(1));
        },
    ),
    counter(
        "tersed_reading_pauses",
        "Times that reading was paused because the queue was full.",
        |scrape, out| {
            let [one, other] = scrape.metrics.all_pauses();
            out.count(&[], one.total.get() + other.total.get());
        },
    ),
    in_bytes(
        "tersed_spool",
        "Octets that the spool takes on disk.",
        |scrape, out| {
            out.level(&[], scrape.metrics.spool.octets.get());
        },
    ),
    in_bytes(
        "tersed_spool_limit",
        "Octets that the spool may take on disk.",
        |scrape, out| {
            out.level(&[], scrape.metrics.spool.limit.get());
        },
    ),
    gauge(
        "tersed_spool_frames",
        "Frames that wait in the spool, summaries included.",
        |scrape, out| {
            out.level(&[], scrape.metrics.spool.frames.get());
        },
    ),
    gauge(
        "tersed_spool_failing",
        "1 while the spool's disk refuses, or does not give back for now.",
        |scrape, out| {
            out.level(&[], scrape.metrics.spool.failing.get());
        },
    ),
    in_seconds(
        "tersed_spool_oldest_timestamp",
        MetricType::Gauge,
        "Unix time at which the oldest frame in the spool was written, at the earliest.",
        |scrape, out| {
            let oldest = scrape.metrics.spool.oldest.get();
            if oldest > 0 {
                out.moment(&[], WallTime::from_micros(oldest));
            }
        },
    ),
    in_seconds(
        "tersed_spool_failing_since_timestamp",
        MetricType::Gauge,
        "Unix time since which the spool's disk refuses.",
        |scrape, out| {
            if let Some(trouble) = scrape.metrics.spool.trouble() {
                out.moment(&[], Clock::reckon().wall_of(trouble.since));
            }
        },
    ),
    counter(
        "tersed_spool_errors",
        "Refusals of the spool's disk, by what it said.",
        |scrape, out| out.by("errno", &scrape.metrics.spool.errors),
    ),
    // Upstreams.
    gauge(
        "tersed_upstream_up",
        "1 while the upstream is not known to be down.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                let is_down = upstream.condition().state == UpstreamState::Down;
                out.level(labels, i64::from(!is_down));
            });
        },
    ),
    gauge(
        "tersed_upstream_active",
        "1 while the upstream is in charge and not known to be down.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                let is_active = upstream.condition().state == UpstreamState::Active;
                out.level(labels, i64::from(is_active));
            });
        },
    ),
    gauge(
        "tersed_upstream_state",
        "1 for the state that the upstream is in, 0 for the others.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                let now = upstream.condition().state;
                for state in UpstreamState::ALL {
                    let labels = [labels[0], ("state", state.label())];
                    out.level(&labels, i64::from(state == now));
                }
            });
        },
    ),
    in_seconds(
        "tersed_upstream_down_since_timestamp",
        MetricType::Gauge,
        "Unix time since which the upstream is down.",
        |scrape, out| {
            let clocks = Clock::reckon();
            out.upstreams(scrape, |out, labels, upstream| {
                let condition = upstream.condition();
                if condition.state == UpstreamState::Down {
                    out.moment(labels, clocks.wall_of(condition.since));
                }
            });
        },
    ),
    in_seconds(
        "tersed_upstream_next_attempt_timestamp",
        MetricType::Gauge,
        "Unix time of the next attempt to reach an upstream that is down.",
        |scrape, out| {
            let clocks = Clock::reckon();
            out.upstreams(scrape, |out, labels, upstream| {
                if let Some(at) = upstream.condition().retry_at {
                    out.moment(labels, clocks.wall_at(at));
                }
            });
        },
    ),
    gauge(
        "tersed_upstream_attempts",
        "Failed attempts since the upstream was lost.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, u64::from(upstream.condition().attempts));
            });
        },
    ),
    gauge(
        "tersed_upstream_unacknowledged_octets",
        "Octets that the upstream was sent and has not acknowledged.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.level(labels, upstream.unacknowledged.get());
            });
        },
    ),
    counter(
        "tersed_upstream_connects",
        "Connections established.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, upstream.connects.get())
            });
        },
    ),
    counter(
        "tersed_upstream_errors",
        "Failed attempts to connect, and connections lost.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, upstream.errors.get())
            });
        },
    ),
    counter(
        "tersed_upstream_frames",
        "Frames written, summaries and frames sent again included.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, upstream.frames.get())
            });
        },
    ),
    counter(
        "tersed_upstream_octets",
        "Octets written, framing included.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, upstream.octets.get())
            });
        },
    ),
    counter(
        "tersed_upstream_rotations",
        "Times that the file was rotated.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, upstream.rotations.get())
            });
        },
    ),
    counter(
        "tersed_upstream_rotation_errors",
        "Failed attempts to rotate the file, or to compress or delete what was rotated.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, upstream.rotation_errors.get())
            });
        },
    ),
    counter(
        "tersed_upstream_rotated_deleted",
        "Rotated files deleted, as more than may be kept.",
        |scrape, out| {
            out.upstreams(scrape, |out, labels, upstream| {
                out.count(labels, upstream.rotated_deleted.get())
            });
        },
    ),
];
