//! When the daemon saves windows, and when it reads them back after a restart.
//!
//! # Guarantees
//!
//! - Windows are read back after every socket was bound: a start that fails leaves the file in place.
//! - They are saved when no task is left that could judge or drop a message, within what is left of the grace period.
//!
//! # Left out
//!
//! What is saved and how (`saved`).

use std::{path::Path, sync::Arc, time::Duration};

use super::Daemon;
use crate::{
    clock::Clock,
    config::DedupConfig,
    core::{dedup::Shards, identity::Key, rule::Rules, tick::Tick},
    saved::SavedWindows,
};

/// Restores the windows that were open at the last stop. Returns the key of this run.
pub(super) fn restore(config: &DedupConfig, shards: &Arc<Shards>, rules: &Arc<Rules>) -> Key {
    config.state.as_deref().map_or_else(Key::random, |path| {
        windows(config, path, shards, rules).restore()
    })
}

impl Daemon {
    /// Saves the open windows if `dedup.state` is set. May take until `deadline`, and two seconds in any case.
    pub(super) async fn save_windows(&self, deadline: Tick) {
        let config = &self.config.dedup;
        let Some(path) = config.state.as_deref() else {
            return;
        };
        let pipeline = &self.context.pipeline;
        let rules = &pipeline.delivery.ledger().rules().rules;
        let time = deadline.since(Clock::now()).max(SAVE_MIN);
        windows(config, path, &pipeline.shards, rules)
            .save(pipeline.key.clone(), time, &self.chores)
            .await;
    }
}

fn windows(
    config: &DedupConfig,
    path: &Path,
    shards: &Arc<Shards>,
    rules: &Arc<Rules>,
) -> SavedWindows {
    SavedWindows {
        path: path.to_owned(),
        shards: Arc::clone(shards),
        rules: Arc::clone(rules),
        kind: config.identity,
    }
}

/// How long saving may take if draining used up the grace period.
const SAVE_MIN: Duration = Duration::from_secs(2);
