//! The configuration in force, as far as metrics tell of it.
//!
//! # Left out
//!
//! What is in it (`admin`, `/api/v1/config`).

use std::sync::{PoisonError, RwLock};

use prometheus_client::metrics::MetricType;

use super::Gauge;
use super::table::{Family, gauge, in_seconds, info};
use crate::tick::WallTime;

/// Where the configuration in force came from, and whether it still is what its file says.
#[derive(Debug, Default)]
pub struct ConfigMetrics {
    /// Its file, and when it was loaded; `None` before it was.
    loaded: RwLock<Option<Loaded>>,
    /// 1 while the file is not what was loaded; else 0.
    pub changed: Gauge,
    /// 1 unless the last reload was refused.
    pub reload_successful: Gauge,
}

#[derive(Clone, Debug)]
struct Loaded {
    file: String,
    at: WallTime,
}

impl ConfigMetrics {
    /// Notes that what `file` says (empty for no file) is in force since `at`.
    pub fn load(&self, file: &str, at: WallTime) {
        let file = file.to_owned();
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        *loaded = Some(Loaded { file, at });
        self.changed.set(0);
        self.reload_successful.set(1);
    }

    fn loaded(&self) -> Option<Loaded> {
        let loaded = self.loaded.read();
        loaded.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) static FAMILIES: &[Family] = &[
    info(
        "tersed_config",
        "The configuration in force: its file, if it has one, and when it was loaded.",
        |scrape, out| {
            if let Some(Loaded { file, at }) = scrape.metrics.config.loaded() {
                out.info(&[("file", &file), ("loaded_at", &at.to_string())]);
            }
        },
    ),
    gauge(
        "tersed_config_changed",
        "1 while the configuration file is not what was loaded.",
        |scrape, out| out.level(&[], scrape.metrics.config.changed.get()),
    ),
    gauge(
        "tersed_config_last_reload_successful",
        "1 unless the last reload was refused.",
        |scrape, out| out.level(&[], scrape.metrics.config.reload_successful.get()),
    ),
    in_seconds(
        "tersed_config_last_reload_success_timestamp",
        MetricType::Gauge,
        "When the configuration in force was loaded, since the epoch.",
        |scrape, out| {
            if let Some(Loaded { at, .. }) = scrape.metrics.config.loaded() {
                // Whole seconds are exact in a float for longer than there are four-digit years.
                #[expect(clippy::cast_precision_loss, reason = "whole seconds are small enough")]
                out.real(at.micros().div_euclid(1_000_000) as f64);
            }
        },
    ),
];
