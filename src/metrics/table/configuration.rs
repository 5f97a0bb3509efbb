//! The rows about the configuration in force.

use super::family::Values::{Level, Moment, Others};
use super::family::{Family, gauge, in_seconds, info};
use crate::core::tick::WallTime;

pub(super) static FAMILIES: &[Family] = &[
    info(
        "tersed_config",
        "The configuration in force: its file, if it has one, and when it was loaded.",
        Others(|s, out| {
            if let Some(loaded) = s.metrics.config.loaded() {
                let at = loaded.at.to_string();
                out.info(&[("file", &loaded.file), ("loaded_at", &at)]);
            }
        }),
    ),
    gauge(
        "tersed_config_changed",
        "1 while the configuration file differs from what was loaded.",
        Level(|s| s.metrics.config.changed.get()),
    ),
    gauge(
        "tersed_config_last_reload_successful",
        "1 unless the last reload was refused.",
        Level(|s| s.metrics.config.reload_successful.get()),
    ),
    in_seconds(
        "tersed_config_last_reload_success_timestamp",
        "Unix time at which the configuration in force was loaded, in whole seconds.",
        Moment(|s| {
            let at = s.metrics.config.loaded()?.at;
            Some(WallTime::from_micros(
                at.micros().div_euclid(1_000_000) * 1_000_000,
            ))
        }),
    ),
];
