//! Checks the paths of a configuration for `tersed check`.
//!
//! # Guarantees
//!
//! - Nothing is created, opened for reading or writing, or locked.
//! - A path that `run` would refuse at its start is an error. A path that `run` would try again, or do without, is a
//!   warning. So is a path that this user may not look at, or that belongs to another user: `run` may run as that user.
//!
//! # Left out
//!
//! Whether an address is free and a name can be resolved: only binding and resolving can tell. The directories of Unix
//! sockets: `config` checks them.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use crate::config::{Config, UpstreamConfig, UpstreamUrl};
use crate::listen::occupied;
use crate::logging::printable;
use crate::spool::{self, SpoolError, Unsafe};

/// What is wrong with the paths of a configuration, one sentence each.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// `run` would not start.
    pub(super) errors: Vec<String>,
    /// `run` would start.
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// Checks the paths of `config`.
    pub(super) fn of(config: &Config) -> Self {
        let mut findings = Self::default();
        findings.spool(config);
        findings.sockets(config);
        findings.state(config);
        let copies = config.suppressed.to.iter().map(|to| ("suppressed.to", to));
        let survivors = config.forward.to.iter().map(|to| ("forward.to", to));
        for (key, upstream) in survivors.chain(copies) {
            findings.file(key, upstream);
        }
        findings
    }

    fn spool(&mut self, config: &Config) {
        let Some(directory) = &config.spool.directory else {
            return;
        };
        let Err(error) = spool::look(directory) else {
            return;
        };
        let shown = shown(directory);
        let text = with_reasons(&error);
        match &error {
            SpoolError::Unsafe {
                why: Unsafe::Owner { .. },
                ..
            }
            | SpoolError::NotOwn {
                why: Unsafe::Owner { .. },
                ..
            } => self.warnings.push(format!(
                "spool.directory: {text}; ignore this only if tersed runs as another user"
            )),
            SpoolError::Io { source, .. } if is_denied(source) => self.warnings.push(format!(
                "spool.directory: {text}; ignore this only if tersed runs as another user"
            )),
            SpoolError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                let parent = directory.parent();
                let parent = parent.expect("the root exists, so a missing directory has a parent");
                let parent = self::shown(parent);
                self.errors.push(format!(
                    "spool.directory: cannot create {shown}: {parent} does not exist; create it, or name a directory \
                     in an existing one (under systemd, StateDirectory= creates it)"
                ));
            }
            _ => self.errors.push(format!("spool.directory: {text}")),
        }
    }

    fn sockets(&mut self, config: &Config) {
        for listener in &config.listeners {
            let Some(path) = listener.url.path() else {
                continue;
            };
            if let Some(text) = occupied(&listener.name, path) {
                self.errors.push(printable(&text).to_string());
            }
        }
    }

    fn state(&mut self, config: &Config) {
        if let Some(path) = &config.dedup.state
            && let Some(text) = missing_parent(path)
        {
            self.warnings.push(format!(
                "dedup.state: {text}; windows are saved only if it exists when tersed stops"
            ));
        }
    }

    fn file(&mut self, key: &str, upstream: &UpstreamConfig) {
        let UpstreamUrl::File(path) = &upstream.url else {
            return;
        };
        if let Some(text) = missing_parent(path) {
            self.warnings.push(format!(
                "{key}: {text}; until you correct this, {} cannot be written, and messages wait",
                shown(path)
            ));
        } else if path.is_dir() {
            self.warnings.push(format!(
                "{key}: {} is a directory; name a file in it",
                shown(path)
            ));
        }
    }
}

/// What is wrong with the directory in which `path` would be created.
fn missing_parent(path: &Path) -> Option<String> {
    let parent = path.parent().unwrap_or(path);
    let name = shown(parent);
    match fs::metadata(parent) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some(format!("{name} is not a directory")),
        Err(error) if is_denied(&error) => {
            Some(format!("no permission to check whether {name} exists"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("the directory {name} does not exist"))
        }
        Err(error) => Some(format!("{name}: {error}")),
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).to_string()
}

/// The text of `error`, and of those of its sources that it does not contain already.
pub(super) fn with_reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        let more = reason.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = reason.source();
    }
    printable(&text).to_string()
}
