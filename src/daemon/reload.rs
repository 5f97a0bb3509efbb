//! Reload: reads the configuration again and puts it in force, or refuses it with the reason.
//!
//! # Guarantees
//!
//! - A reload is all or nothing: everything that can fail comes before the first change.
//! - Sockets, connections and windows whose settings did not change are kept.
//! - A reload does not wait for an upstream, and messages do not wait for a reload, however many windows it ends.
//!
//! # Left out
//!
//! What a setting means (`config`).

use std::{io, sync::Arc};

use tracing::{debug, warn};

use super::{
    Daemon,
    copies::{self, CopiesForwarder},
    needs_restart::NeedsRestart,
    notify,
    plan::{Plan, PlanError},
};
use crate::{
    admin::FileState,
    config::{Config, ConfigErrors, IDENTITY, LOG_FORMAT, RunArgs, size_text},
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
    Copies(#[source] io::Error),
    #[error(transparent)]
    Restart(#[from] NeedsRestart),
}

impl Daemon {
    /// Reads the configuration again and puts it in force, or logs why it is refused.
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
        self.refuse_what_needs_a_restart(&config)?;
        self.let_sockets_close(&config).await;
        let plan = Plan::of(&config, self)?;
        let starts_copies = config.copies().filter(|_| self.copies.is_none());
        let copies =
            starts_copies.map(|copies| Waiting::new(copies::THREAD).map(|thread| (copies, thread)));
        let copies = copies.transpose().map_err(ReloadError::Copies)?;
        // From here on new sockets receive. If the last step failed, they would have to close again.
        let plan = plan.finish()?;
        let copies = copies.map(|(copies, thread)| self.start_copies(copies, thread));
        let copies = copies.transpose().map_err(ReloadError::Copies)?;
        // From here on nothing fails.
        self.carry_out(plan);
        for warning in config.warnings() {
            warn!(%warning, "configuration");
        }
        // The timer reports the windows that ended, so that a full queue does not delay this reload: this may be
        // the reload that names a working upstream.
        let ledger = self.context.pipeline.delivery.ledger();
        ledger.set_rules(Arc::clone(&config.rules), config.dedup.memory);
        self.queue.resize(config.forward.queue);
        self.forward.send_replace(Arc::new(config.forward.clone()));
        self.change_copies(&config, copies);
        self.config = config;
        self.update_memory_limits();
        Ok(())
    }

    /// Adopts `fresh`, a forwarder of copies that has just started, or changes or ends the running one.
    fn change_copies(&mut self, config: &Config, fresh: Option<CopiesForwarder>) {
        if fresh.is_some() {
            self.copies = fresh;
            return;
        }
        match (config.copies(), self.copies.take()) {
            (Some(copies), Some(running)) => {
                running.change(copies);
                self.copies = Some(running);
            }
            (None, Some(running)) => {
                self.context.pipeline.copies_door.shut();
                let grace = config.shutdown_grace;
                self.context.tasks.spawn(running.leave(grace));
            }
            (_, None) => {}
        }
    }

    fn refuse_what_needs_a_restart(&self, config: &Config) -> Result<(), ReloadError> {
        let old = &self.config;
        let number = |one: usize, other: usize| (one.to_string(), other.to_string());
        let spool = |config: &Config| {
            let directory = config.spool.directory.as_ref();
            directory.map_or_else(
                || "off".to_owned(),
                |path| format!("\"{}\"", path.display()),
            )
        };
        let admin = |config: &Config| {
            let address = config.admin;
            address.map_or_else(|| "off".to_owned(), |address| format!("\"{address}\""))
        };
        let (workers, shards) = (
            number(old.workers, config.workers),
            number(old.dedup.shards, config.dedup.shards),
        );
        let both = |text: &dyn Fn(&Config) -> String| (text(old), text(config));
        let identity = both(&|config| IDENTITY.word(config.dedup.identity).to_owned());
        let directory = both(&spool);
        let max_size = both(&|config| size_text(config.spool.max_size));
        let admin = both(&admin);
        let level = both(&|config| format!("\"{}\"", config.log.level));
        let format = both(&|config| LOG_FORMAT.word(config.log.format).to_owned());
        Ok(NeedsRestart::refuse([
            ("runtime.workers", workers.0, workers.1),
            ("dedup.shards", shards.0, shards.1),
            ("dedup.identity", identity.0, identity.1),
            ("spool.directory", directory.0, directory.1),
            ("spool.max_size", max_size.0, max_size.1),
            ("admin.address", admin.0, admin.1),
            ("log.level", level.0, level.1),
            ("log.format", format.0, format.1),
        ])?)
    }
}

fn notify_reloading() {
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no monotonic clock"),
    }
}
