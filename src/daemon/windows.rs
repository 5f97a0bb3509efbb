//! Windows, as far as the daemon has a part in them: when they are read back after a restart, and when saved.
//!
//! # Guarantees
//!
//! - They are read back after everything was bound: a start that fails leaves them where they are.
//! - They are saved when no task is left that could judge or drop, in what is left of the time to stop.
//!
//! # Left out
//!
//! What is saved and how (`saved`).

use std::{path::Path, sync::Arc, time::Duration};

use super::Daemon;
use crate::{
    clock::Clock, config::DedupConfig, dedup::Shards, identity::Key, rule::Rules,
    saved::SavedWindows, tick::Tick,
};

/// Opens the windows again that were open at the last stop. Gives the key of this run.
pub(super) fn restore(config: &DedupConfig, shards: &Arc<Shards>, rules: &Arc<Rules>) -> Key {
    config.state.as_deref().map_or_else(Key::random, |path| {
        windows(config, path, shards, rules).restore()
    })
}

impl Daemon {
    /// Saves the windows that are open, if they are to be, until `deadline` or for two seconds at least.
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

/// How long saving may take where draining has used up the time.
const SAVE_MIN: Duration = Duration::from_secs(2);
