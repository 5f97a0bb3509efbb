//! Samples: the values of one metric, written with their labels.
//!
//! # Guarantees
//!
//! - After the first failure nothing more is written, and the failure is told.
//!
//! # Left out
//!
//! Which values (`table`).

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::counter::ByReason;
use super::reason::Reason;
use super::{ListenerMetrics, Metrics, RuleMetrics, UpstreamMetrics};
use crate::dedup::EngineStats;
use crate::tick::WallTime;

/// What one page is made from.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) metrics: Arc<Metrics>,
    pub(super) engine: EngineStats,
}

/// Label names and values of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Takes the values of one family.
pub(super) struct Samples<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
    /// The first failure; nothing is written after it.
    outcome: fmt::Result,
}

impl<'a> Samples<'a> {
    /// Takes values of a family of that kind.
    pub(super) const fn new(encoder: MetricEncoder<'a>, kind: MetricType) -> Self {
        Self {
            encoder,
            kind,
            outcome: Ok(()),
        }
    }

    /// How writing them went.
    pub(super) const fn outcome(&self) -> fmt::Result {
        self.outcome
    }

    pub(super) fn count(&mut self, labels: Labels<'_>, value: u64) {
        self.write(labels, |kind, encoder| match kind {
            MetricType::Counter => encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            _ => encoder.encode_gauge(&value),
        });
    }

    pub(super) fn level(&mut self, labels: Labels<'_>, value: i64) {
        self.write(labels, |_, encoder| encoder.encode_gauge(&value));
    }

    pub(super) fn real(&mut self, value: f64) {
        self.write(&[], |kind, encoder| match kind {
            MetricType::Counter => encoder.encode_counter::<NoLabelSet, f64, u64>(&value, None),
            _ => encoder.encode_gauge(&value),
        });
    }

    /// A moment, as seconds since the Unix epoch.
    pub(super) fn moment(&mut self, labels: Labels<'_>, at: WallTime) {
        let seconds = at.micros() as f64 / 1e6;
        self.write(labels, |_, encoder| encoder.encode_gauge(&seconds));
    }

    pub(super) fn info(&mut self, labels: Labels<'_>) {
        self.write(&[], |_, encoder| encoder.encode_info(&labels));
    }

    pub(super) fn by<R: Reason>(&mut self, label: &str, counters: &ByReason<R>) {
        for (reason, value) in counters.iter() {
            self.count(&[(label, reason.label())], value);
        }
    }

    pub(super) fn listeners(
        &mut self,
        scrape: &Scrape,
        sample: impl Fn(&mut Self, Labels<'_>, &ListenerMetrics),
    ) {
        for listener in scrape.metrics.listeners() {
            sample(self, &[("listener", listener.name())], &listener);
        }
    }

    pub(super) fn rules(
        &mut self,
        scrape: &Scrape,
        sample: impl Fn(&mut Self, Labels<'_>, &RuleMetrics),
    ) {
        for rule in scrape.metrics.rules() {
            sample(self, &[("rule", rule.name())], &rule);
        }
    }

    pub(super) fn upstreams(
        &mut self,
        scrape: &Scrape,
        sample: impl Fn(&mut Self, Labels<'_>, &UpstreamMetrics),
    ) {
        for upstream in scrape.metrics.upstreams() {
            sample(self, &[("upstream", upstream.url())], &upstream);
        }
    }

    fn write(
        &mut self,
        labels: Labels<'_>,
        sample: impl FnOnce(MetricType, &mut MetricEncoder<'_>) -> fmt::Result,
    ) {
        if self.outcome.is_err() {
            return;
        }
        self.outcome = if labels.is_empty() {
            sample(self.kind, &mut self.encoder)
        } else {
            match self.encoder.encode_family(&labels) {
                Ok(mut encoder) => sample(self.kind, &mut encoder),
                Err(err) => Err(err),
            }
        };
    }
}
