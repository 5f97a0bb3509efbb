//! Reload: the configuration read again and put in force, or refused with the reason.
//!
//! # Guarantees
//!
//! - All or nothing: everything that can fail comes before the first change.
//! - What did not change is kept: sockets, connections, windows.
//! - No reload waits for an upstream, and no message waits for a reload, however many windows it ends.
//!
//! # Left out
//!
//! What a setting means (`config`).

use std::{io, sync::Arc};

use tracing::{debug, warn};

use super::{
    Daemon,
    aside::{self, AsideForwarder},
    notify,
    plan::{Plan, PlanError},
};
use crate::{
    admin::FileState,
    config::{Config, ConfigErrors, RunArgs},
    listen::BindError,
    thread::Waiting,
};

/// Why a reload was refused.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Listeners(#[from] PlanError),
    #[error("suppressed.to: {0}")]
    Aside(#[source] io::Error),
    #[error("{key}: changed; that takes a restart")]
    Restart { key: &'static str },
}

impl Daemon {
    /// Reads the configuration again and puts it in force, or says why not.
    pub(super) async fn reload(&mut self, args: &RunArgs) {
        notify_reloading();
        let read = FileState::of(args.file.as_deref());
        let result = match self.config.load_again(args) {
            Ok(config) => self.put_in_force(config).await,
            Err(errors) => Err(errors.into()),
        };
        self.tell_reload(&result, read);
        notify(&[sd_notify::NotifyState::Ready]);
    }

    async fn put_in_force(&mut self, config: Config) -> Result<(), ReloadError> {
        self.refuse_what_takes_a_restart(&config)?;
        // Everything that can fail comes first.
        self.let_sockets_close(&config).await;
        let plan = Plan::of(&config, self)?;
        let starts_aside = config.aside().filter(|_| self.aside.is_none());
        let aside =
            starts_aside.map(|aside| Waiting::new(aside::THREAD).map(|thread| (aside, thread)));
        let aside = aside.transpose().map_err(ReloadError::Aside)?;
        // From here on new sockets receive, and if the last step failed would have to close again.
        let plan = plan.finish()?;
        let aside = aside.map(|(aside, thread)| self.set_aside(aside, thread));
        let aside = aside.transpose().map_err(ReloadError::Aside)?;
        // From here on nothing fails.
        self.carry_out(plan);
        for warning in config.warnings() {
            warn!(%warning, "configuration");
        }
        // What ended is reported by the timer, so that a full queue does not hold up this reload, which may be
        // the one that names an upstream that works.
        let ledger = self.context.pipeline.delivery.ledger();
        ledger.set_rules(Arc::clone(&config.rules), config.dedup.memory);
        self.outbox.resize(config.forward.queue);
        self.forward.send_replace(Arc::new(config.forward.clone()));
        self.change_aside(&config, aside);
        self.config = config;
        self.tell_memory_limit();
        Ok(())
    }

    /// Has copies set aside by `fresh`, which has just begun to, or as `config` says.
    fn change_aside(&mut self, config: &Config, fresh: Option<AsideForwarder>) {
        if fresh.is_some() {
            self.aside = fresh;
            return;
        }
        match (config.aside(), self.aside.take()) {
            (Some(aside), Some(running)) => {
                running.change(aside);
                self.aside = Some(running);
            }
            (None, Some(running)) => {
                self.context.pipeline.aside.shut();
                let grace = config.shutdown_grace;
                self.context.tasks.spawn(running.leave(grace));
            }
            (_, None) => {}
        }
    }

    fn refuse_what_takes_a_restart(&self, config: &Config) -> Result<(), ReloadError> {
        let old = &self.config;
        for (changed, key) in [
            (old.workers != config.workers, "runtime.workers"),
            (old.dedup.shards != config.dedup.shards, "dedup.shards"),
            (
                old.dedup.identity != config.dedup.identity,
                "dedup.identity",
            ),
            (old.spool != config.spool, "spool"),
            (old.admin != config.admin, "admin.address"),
            (old.log != config.log, "log"),
        ] {
            if changed {
                return Err(ReloadError::Restart { key });
            }
        }
        Ok(())
    }
}

fn notify_reloading() {
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no monotonic clock"),
    }
}
