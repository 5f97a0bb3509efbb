//! A row of the table, and how its values are read.
//!
//! # Left out
//!
//! How a value is written (`samples`).

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::super::samples::{Samples, Scrape};
use super::super::{ListenerMetrics, RuleMetrics, UpstreamMetrics};
use crate::clock::{Clock, Reckoning};
use crate::core::tick::WallTime;

/// One metric: a row of the table.
pub(super) struct Family {
    /// Without what the type and the unit add: `_total`, `_info`, `_bytes`, `_seconds`.
    pub(super) name: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) kind: MetricType,
    pub(super) help: &'static str,
    pub(super) values: Values,
}

/// Where the values of a metric come from: one of the relay, or one for each listener, rule or upstream, with its label.
///
/// A count is unsigned, a level is signed. A value that is `None` is left out of the page.
pub(super) enum Values {
    Count(fn(&Scrape) -> u64),
    Level(fn(&Scrape) -> i64),
    Moment(fn(&Scrape) -> Option<WallTime>),
    OptionalCount(fn() -> Option<u64>),
    OptionalSeconds(fn() -> Option<f64>),
    EachListener(fn(&ListenerMetrics) -> u64),
    EachListenerLevel(fn(&ListenerMetrics) -> i64),
    EachRule(fn(&RuleMetrics) -> u64),
    EachUpstream(fn(&UpstreamMetrics) -> u64),
    EachUpstreamLevel(fn(&UpstreamMetrics) -> i64),
    EachUpstreamMoment(fn(&UpstreamMetrics, &Reckoning) -> Option<WallTime>),
    /// Values with labels of their own.
    Others(fn(&Scrape, &mut Samples<'_>)),
}

impl Values {
    /// Reads the values and writes them to `out`.
    pub(super) fn read(&self, scrape: &Scrape, out: &mut Samples<'_>) {
        match *self {
            Self::Count(value) => out.count(&[], value(scrape)),
            Self::Level(value) => out.level(&[], value(scrape)),
            Self::Moment(value) => {
                if let Some(at) = value(scrape) {
                    out.moment(&[], at);
                }
            }
            Self::OptionalCount(value) => {
                if let Some(value) = value() {
                    out.count(&[], value);
                }
            }
            Self::OptionalSeconds(value) => {
                if let Some(value) = value() {
                    out.real(value);
                }
            }
            Self::EachListener(value) => {
                for listener in scrape.metrics.listeners() {
                    out.count(&[("listener", listener.name())], value(&listener));
                }
            }
            Self::EachListenerLevel(value) => {
                for listener in scrape.metrics.listeners() {
                    out.level(&[("listener", listener.name())], value(&listener));
                }
            }
            Self::EachRule(value) => {
                for rule in scrape.metrics.rules() {
                    out.count(&[("rule", rule.name())], value(&rule));
                }
            }
            Self::EachUpstream(value) => {
                for upstream in scrape.metrics.upstreams() {
                    out.count(&[("upstream", upstream.url())], value(&upstream));
                }
            }
            Self::EachUpstreamLevel(value) => {
                for upstream in scrape.metrics.upstreams() {
                    out.level(&[("upstream", upstream.url())], value(&upstream));
                }
            }
            Self::EachUpstreamMoment(value) => {
                let clocks = Clock::reckon();
                for upstream in scrape.metrics.upstreams() {
                    if let Some(at) = value(&upstream, &clocks) {
                        out.moment(&[("upstream", upstream.url())], at);
                    }
                }
            }
            Self::Others(samples) => samples(scrape, out),
        }
    }
}

pub(super) const fn counter(name: &'static str, help: &'static str, values: Values) -> Family {
    family(name, None, MetricType::Counter, help, values)
}

pub(super) const fn gauge(name: &'static str, help: &'static str, values: Values) -> Family {
    family(name, None, MetricType::Gauge, help, values)
}

pub(super) const fn in_bytes(name: &'static str, help: &'static str, values: Values) -> Family {
    family(name, Some(Unit::Bytes), MetricType::Gauge, help, values)
}

pub(super) const fn in_seconds(name: &'static str, help: &'static str, values: Values) -> Family {
    family(name, Some(Unit::Seconds), MetricType::Gauge, help, values)
}

/// A counter of seconds.
pub(super) const fn seconds_used(name: &'static str, help: &'static str, values: Values) -> Family {
    family(name, Some(Unit::Seconds), MetricType::Counter, help, values)
}

pub(super) const fn info(name: &'static str, help: &'static str, values: Values) -> Family {
    family(name, None, MetricType::Info, help, values)
}

const fn family(
    name: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    help: &'static str,
    values: Values,
) -> Family {
    Family {
        name,
        unit,
        kind,
        help,
        values,
    }
}
