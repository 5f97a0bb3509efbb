//! The rows about delivery: the queue, the spool, and the upstreams. They come after all rows of the counting law.

use super::super::UpstreamState;
use super::family::Values::{
    Count, EachUpstream, EachUpstreamLevel, EachUpstreamMoment, Level, Moment, Others,
};
use super::family::{Family, counter, gauge, in_bytes, in_seconds};
use crate::clock::Clock;
use crate::core::tick::WallTime;

pub(super) static FAMILIES: &[Family] = &[
    // What waits.
    gauge(
        "tersed_queue_octets",
        "Octets that wait for an upstream in memory.",
        Level(|s| s.metrics.queue_octets.get()),
    ),
    in_seconds(
        "tersed_queue_oldest_timestamp",
        "Unix time at which the oldest message in the queue was received.",
        Moment(|s| Some(Clock::reckon().wall_of(s.metrics.queue_oldest()?))),
    ),
    gauge(
        "tersed_reading_paused",
        "1 while a reader waits for room in the queue.",
        Level(|s| {
            s.metrics
                .all_pauses()
                .map(|p| p.now.get())
                .into_iter()
                .max()
                .unwrap_or(0)
                .min(1)
        }),
    ),
    gauge(
        "tersed_accepting_paused",
        "1 while no connection is accepted because the limit of open files is reached.",
        Level(|s| s.metrics.accept_pauses.now.get().min(1)),
    ),
    counter(
        "tersed_reading_pauses",
        "Times that reading was paused because the queue was full.",
        Count(|s| s.metrics.all_pauses().map(|p| p.total.get()).iter().sum()),
    ),
    in_bytes(
        "tersed_spool",
        "Octets that the spool takes on disk.",
        Level(|s| s.metrics.spool.octets.get()),
    ),
    in_bytes(
        "tersed_spool_limit",
        "Octets that the spool may take on disk.",
        Level(|s| s.metrics.spool.limit.get()),
    ),
    gauge(
        "tersed_spool_frames",
        "Frames that wait in the spool, summaries included.",
        Level(|s| s.metrics.spool.frames.get()),
    ),
    gauge(
        "tersed_spool_failing",
        "1 while the spool's disk fails to write or to read.",
        Level(|s| s.metrics.spool.failing.get()),
    ),
    in_seconds(
        "tersed_spool_oldest_timestamp",
        "Unix time at which the oldest frame in the spool was written, or earlier.",
        Moment(|s| {
            let oldest = s.metrics.spool.oldest.get();
            (oldest > 0).then(|| WallTime::from_micros(oldest))
        }),
    ),
    in_seconds(
        "tersed_spool_failing_since_timestamp",
        "Unix time since which the spool's disk fails.",
        Moment(|s| Some(Clock::reckon().wall_of(s.metrics.spool.trouble()?.since))),
    ),
    counter(
        "tersed_spool_errors",
        "Errors of the spool's disk, by errno.",
        Others(|s, out| out.by("errno", &s.metrics.spool.errors)),
    ),
    // Upstreams.
    gauge(
        "tersed_upstream_up",
        "1 while the upstream is not known to be down.",
        EachUpstreamLevel(|u| i64::from(u.condition().state != UpstreamState::Down)),
    ),
    gauge(
        "tersed_upstream_active",
        "1 while the upstream is the one that messages are sent to, and is not known to be down.",
        EachUpstreamLevel(|u| i64::from(u.condition().state == UpstreamState::Active)),
    ),
    gauge(
        "tersed_upstream_state",
        "1 for the state that the upstream is in, 0 for all other states.",
        Others(|s, out| {
            for u in s.metrics.upstreams() {
                let now = u.condition().state;
                for state in UpstreamState::ALL {
                    let labels = [("upstream", u.url()), ("state", state.label())];
                    out.level(&labels, i64::from(state == now));
                }
            }
        }),
    ),
    in_seconds(
        "tersed_upstream_down_since_timestamp",
        "Unix time since which the upstream is down.",
        EachUpstreamMoment(|u, clocks| {
            let condition = u.condition();
            (condition.state == UpstreamState::Down).then(|| clocks.wall_of(condition.since))
        }),
    ),
    in_seconds(
        "tersed_upstream_next_attempt_timestamp",
        "Unix time of the next attempt to reach an upstream that is down.",
        EachUpstreamMoment(|u, clocks| Some(clocks.wall_at(u.condition().retry_at?))),
    ),
    gauge(
        "tersed_upstream_attempts",
        "Failed attempts since the upstream was lost.",
        EachUpstream(|u| u64::from(u.condition().attempts)),
    ),
    gauge(
        "tersed_upstream_unacknowledged_octets",
        "Octets sent to the upstream that it has not acknowledged.",
        EachUpstreamLevel(|u| u.unacknowledged.get()),
    ),
    counter(
        "tersed_upstream_connects",
        "Connections established to the upstream.",
        EachUpstream(|u| u.connects.get()),
    ),
    counter(
        "tersed_upstream_errors",
        "Attempts to connect that failed, and connections lost.",
        EachUpstream(|u| u.errors.get()),
    ),
    counter(
        "tersed_upstream_frames",
        "Frames written, including summaries and frames sent again.",
        EachUpstream(|u| u.frames.get()),
    ),
    counter(
        "tersed_upstream_octets",
        "Octets written, including framing.",
        EachUpstream(|u| u.octets.get()),
    ),
    counter(
        "tersed_upstream_rotations",
        "Times that the file was rotated.",
        EachUpstream(|u| u.rotations.get()),
    ),
    counter(
        "tersed_upstream_rotation_errors",
        "Failed attempts to rotate the file, or to compress or delete what was rotated.",
        EachUpstream(|u| u.rotation_errors.get()),
    ),
    counter(
        "tersed_upstream_rotated_deleted",
        "Rotated files deleted because more than rotate_keep were there.",
        EachUpstream(|u| u.rotated_deleted.get()),
    ),
];
