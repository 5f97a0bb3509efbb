//! Samples: the values of one metric, written with their labels.
//!
//! # Guarantees
//!
//! - After the first error nothing more is written; [`Samples::outcome`] returns that error.
//!
//! # Left out
//!
//! Which values (`table`).

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Metrics;
use super::counter::ByReason;
use super::reason::Reason;
use crate::core::dedup::EngineStats;
use crate::core::tick::WallTime;

/// What one page is made of.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) metrics: Arc<Metrics>,
    pub(super) engine: EngineStats,
}

/// Label names and values of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Writes the values of one family.
pub(super) struct Samples<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
    /// The first error; nothing is written after it.
    outcome: fmt::Result,
}

impl<'a> Samples<'a> {
    /// Writes values of a family of this type.
    pub(super) const fn new(encoder: MetricEncoder<'a>, kind: MetricType) -> Self {
        Self {
            encoder,
            kind,
            outcome: Ok(()),
        }
    }

    /// Whether everything was written.
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
