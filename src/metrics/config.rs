//! The configuration in force: its file, and when it was loaded.
//!
//! # Left out
//!
//! Its content (`admin`, `/api/v1/config`).

use std::sync::RwLock;

use super::Gauge;
use crate::core::tick::WallTime;
use crate::lock::{read, write};

/// Where the configuration in force came from, and whether its file still says the same.
#[derive(Debug, Default)]
pub(crate) struct ConfigMetrics {
    /// `None` before the first load.
    loaded: RwLock<Option<Loaded>>,
    /// 1 while the file differs from what was loaded; else 0.
    pub changed: Gauge,
    /// 1 unless the last reload was refused.
    pub reload_successful: Gauge,
}

#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) file: String,
    pub(super) at: WallTime,
}

impl ConfigMetrics {
    /// Notes that the configuration in `file` (empty for no file) is in force since `at`.
    pub(crate) fn load(&self, file: &str, at: WallTime) {
        let file = file.to_owned();
        let mut loaded = write(&self.loaded);
        *loaded = Some(Loaded { file, at });
        self.changed.set(0);
        self.reload_successful.set(1);
    }

    /// The file in force, and when it was loaded; `None` before the first load.
    pub(super) fn loaded(&self) -> Option<Loaded> {
        read(&self.loaded).clone()
    }
}
