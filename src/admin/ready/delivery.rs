//! The lines of `/readyz` about delivery: each upstream, the queue, the spool, and suppressed copies.
//!
//! # Guarantees
//!
//! - Each line shows the current state, since when it lasts, the last error, and the time of the next attempt.
//! - Text from outside (URLs, errors) is escaped.

use std::time::Duration;

use crate::clock::Clock;
use crate::core::tick::{Tick, WallTime};
use crate::logging::printable;
use crate::metrics::{MemoryPart, Metrics, UpstreamMetrics, UpstreamState};

/// A line for each upstream.
pub(super) fn upstreams(metrics: &Metrics) -> Vec<String> {
    let now = Clock::now();
    let upstreams = metrics.upstreams();
    upstreams
        .iter()
        .map(|upstream| upstream_line(upstream, now))
        .collect()
}

fn upstream_line(upstream: &UpstreamMetrics, now: Tick) -> String {
    let url = printable(upstream.url());
    let condition = upstream.condition();
    let lasts = span(now.since(condition.since));
    let mut line = match condition.state {
        UpstreamState::Active => format!("upstream {url}: up, active for {lasts}"),
        UpstreamState::Standby => format!("upstream {url}: standby"),
        UpstreamState::Connecting => {
            let since = condition.trying_since.unwrap_or(condition.since);
            format!("upstream {url}: connecting for {}", span(now.since(since)))
        }
        UpstreamState::Down => {
            let is_udp = upstream.url().starts_with("udp:");
            let next = match (condition.trying_since, condition.retry_at) {
                _ if condition.is_in_charge && is_udp => "sending to test it".to_owned(),
                _ if condition.is_in_charge => "trying a connection".to_owned(),
                (Some(since), _) => format!("trying for {}", span(now.since(since))),
                (None, Some(at)) => format!("next try in {}", span(at.since(now))),
                (None, None) => "not tried while an earlier upstream is active".to_owned(),
            };
            let attempts = condition.attempts;
            let plural = if attempts == 1 { "" } else { "s" };
            format!("upstream {url}: down for {lasts}, {next}, {attempts} attempt{plural}")
        }
    };
    let unacknowledged = upstream.unacknowledged.get();
    if unacknowledged > 0 {
        line += &format!(", {} not acknowledged", octets(unacknowledged));
    }
    if let Some((error, at)) = &condition.last_error {
        let error = printable(error);
        if condition.state == UpstreamState::Down {
            line += &format!(", last error: {error}");
        } else {
            line += &format!(", last error {} ago: {error}", span(now.since(*at)));
        }
    }
    line
}

/// The line about the queue, if something waits.
pub(super) fn queue(metrics: &Metrics) -> Option<String> {
    let queued = metrics.balance().queued;
    let held = metrics.queue_octets.get();
    if queued <= 0 && held <= 0 {
        return None;
    }
    let limit = metrics.memory_limit[MemoryPart::Queue as usize].get();
    let mut line = format!(
        "queued: {queued} frames wait for an upstream; in memory {} of {} (forward.queue)",
        octets(held),
        octets(limit)
    );
    if let Some(since) = metrics.queue_oldest() {
        line += &format!(", oldest {}", span(Clock::now().since(since)));
    }
    Some(line)
}

/// The line about suppressed copies, if some wait.
pub(super) fn copies(metrics: &Metrics) -> Option<String> {
    let queued = metrics.copies.queued.get();
    let limit = octets(metrics.copies.queue_limit.get());
    (queued > 0).then(|| {
        format!("suppressed: {queued} copies wait for suppressed.to; suppressed.queue = {limit}")
    })
}

/// The line about the spool, if there is one.
pub(super) fn spool(metrics: &Metrics) -> Option<String> {
    let spool = &metrics.spool;
    let limit = spool.limit.get();
    if limit <= 0 {
        return None;
    }
    let now = Clock::now();
    let mut line = String::from("spool: ");
    let trouble = spool.trouble();
    if let Some(trouble) = &trouble {
        line += &format!(
            "failing for {}: {}; next try in {}; ",
            span(now.since(trouble.since)),
            printable(&trouble.error),
            span(trouble.retry_at.since(now))
        );
    }
    let is_told = |error: &String| {
        trouble
            .as_ref()
            .is_some_and(|trouble| trouble.error == *error)
    };
    if let Some(error) = spool.not_safe().filter(|error| !is_told(error)) {
        line += &format!("{}; ", printable(&error));
    }
    line += &format!(
        "{} frames, {} of {} (spool.max_size)",
        spool.frames.get(),
        octets(spool.octets.get()),
        octets(limit)
    );
    let oldest = spool.oldest.get();
    if oldest > 0 {
        line += &format!(", oldest {}", span(age(WallTime::from_micros(oldest))));
    }
    Some(line)
}

fn age(then: WallTime) -> Duration {
    let micros = Clock::wall().micros().saturating_sub(then.micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A span in its two largest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, unit, small: u64, part| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{part}"),
    };
    match seconds {
        0..10 => format!("{}.{}s", seconds, span.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// Octets in the largest unit that is not zero.
fn octets(octets: i64) -> String {
    let octets = u64::try_from(octets).unwrap_or(0);
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.iter().find(|(shift, _)| octets >> shift > 0) else {
        return format!("{octets} octets");
    };
    let tenths = (u128::from(octets) * 10) >> shift;
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_and_octets_one() {
        for (millis, expected) in [
            (0, "0.0s"),
            (450, "0.4s"),
            (12_000, "12s"),
            (130_000, "2m 10s"),
            (7_200_000, "2h"),
            (90_060_000, "1d 1h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), expected);
        }
        for (count, expected) in [
            (-1, "0 octets"),
            (1023, "1023 octets"),
            (1024, "1 KiB"),
            (3_200, "3.1 KiB"),
            (64 << 20, "64 MiB"),
            (1 << 30, "1 GiB"),
        ] {
            assert_eq!(octets(count), expected);
        }
    }

    #[test]
    fn a_line_says_since_when_what_is_wrong_and_when_it_is_tried_again() {
        let metrics = Metrics::new();
        let upstream = metrics.upstream("tcp://a:601\n");
        let now = Clock::now();
        let ago = |seconds: u64| Tick::from_nanos(now.nanos() - seconds * 1_000_000_000);
        let line = || upstream_line(&upstream, now);
        assert_eq!(line(), "upstream tcp://a:601\\n: standby");

        upstream.failed("refused\x1b", ago(3));
        let later = now.after(Duration::from_secs(12));
        upstream.tell(UpstreamState::Down, false, Some(ago(130)), 14, Some(later));
        assert_eq!(
            line(),
            "upstream tcp://a:601\\n: down for 2m 10s, next try in 12s, 14 attempts, last error: refused\\u{1b}"
        );
        upstream.tell(UpstreamState::Down, false, Some(ago(130)), 1, None);
        assert_eq!(
            line(),
            "upstream tcp://a:601\\n: down for 2m 10s, not tried while an earlier upstream is active, 1 attempt, \
             last error: refused\\u{1b}"
        );
        upstream.tell(UpstreamState::Down, true, Some(ago(25)), 5, None);
        assert_eq!(
            line(),
            "upstream tcp://a:601\\n: down for 25s, trying a connection, 5 attempts, last error: refused\\u{1b}"
        );
        upstream.tell(UpstreamState::Active, true, Some(ago(60)), 0, None);
        upstream.unacknowledged.set(2048);
        assert_eq!(
            line(),
            "upstream tcp://a:601\\n: up, active for 1m, 2 KiB not acknowledged, last error 3.0s ago: refused\\u{1b}"
        );
    }
}
