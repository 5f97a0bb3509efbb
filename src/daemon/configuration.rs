//! Configuration: logs which one is in force, and watches its file for changes.
//!
//! # Guarantees
//!
//! - The log names the file, and the flags and variables that override it, when the relay is ready and after each
//!   reload.
//! - A refused reload logs one line for each of its errors.
//!
//! # Left out
//!
//! The admin pages about it (`admin`).

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info};

use super::Daemon;
use crate::admin::FileState;
use crate::config::{Config, ListenerConfig};
use crate::fault;
use crate::metrics::ReloadResult;
use crate::thread::CallError;

impl Daemon {
    /// Publishes `config`, with the listeners that were passed in beside it, as the configuration in force.
    pub(super) fn tell_in_force(&self, config: &Config, read: Option<FileState>) {
        let passed_in = self.listeners.iter().filter(|running| running.is_extra);
        let names = passed_in.map(|running| running.metrics.name().to_owned());
        self.in_force.load(config, names.collect(), read);
    }

    /// Logs and counts the result of a reload.
    pub(super) fn tell_reload<E: Display>(&self, result: &Result<(), E>, read: FileState) {
        let reloads = &self.context.metrics.config_reloads;
        let configuration = self.in_force.file_text();
        match result {
            Ok(()) => {
                reloads[ReloadResult::Ok].inc();
                self.tell_in_force(&self.whole_config(), Some(read));
                info!(configuration, "reloaded");
            }
            Err(errors) => {
                reloads[ReloadResult::Refused].inc();
                let errors = errors.to_string();
                for error in errors.lines() {
                    error!(configuration, %error, "reload refused");
                }
                self.in_force.refuse(errors);
            }
        }
    }

    /// The configuration in force, with the listeners that were passed in beside it.
    pub(super) fn whole_config(&self) -> Config {
        let mut config = self.config.clone();
        let passed_in = self.listeners.iter().filter(|running| running.is_extra);
        let passed_in = passed_in.map(|running| ListenerConfig::clone(&running.config.borrow()));
        config.listeners.extend(passed_in);
        config
    }

    /// Checks every second whether the file has changed, until everything else has ended.
    pub(super) fn watch_file(&self) {
        let (stop, in_force) = (self.stop_housekeeping.clone(), self.in_force.clone());
        let chores = Arc::clone(&self.chores);
        let watch = move || {
            let (stop, in_force) = (stop.clone(), in_force.clone());
            let chores = Arc::clone(&chores);
            async move {
                let mut due = interval(LOOK_PERIOD);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    select! {
                        () = stop.cancelled() => return,
                        _ = due.tick() => {}
                    }
                    let looked = in_force.clone();
                    let looking = chores.call(move || {
                        fault::trip("configuration");
                        looked.look();
                    });
                    select! {
                        // A disk that does not answer must not delay the stop.
                        () = stop.cancelled() => return,
                        looked = looking => match looked {
                            Ok(()) => {}
                            Err(CallError::Broken(broken)) => broken.resume(),
                            Err(error @ CallError::NoThread(_)) => {
                                debug!(%error, "cannot look at the configuration file; looking again later");
                            }
                        }
                    }
                }
            }
        };
        self.housekeeping
            .spawn(self.context.panics.clone().restarting(watch));
    }
}

/// The time between two looks at the file.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
