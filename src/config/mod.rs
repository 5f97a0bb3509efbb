//! Configuration: turns TOML, flags and variables into a [`Config`] that can be run.
//!
//! ```text
//!            file.rs          overrides.rs                 resolve.rs
//! defaults ──file read over──▶ flags and variables over──▶ what takes several keys ──▶ Config
//!                 │                 │                          ▲
//!                 └─ report.rs: the place of each key, errors ─┘
//! ```
//!
//! A table of the file is a struct here. It starts at its defaults, and its [`Section`](section::Section) names each key
//! once, with the kind of its value and its field:
//!
//! ```text
//! v.key("retry_min", duration(TIMEOUT_MIN, TIMEOUT_MAX), &mut self.retry_min);
//! ```
//!
//! Visitors do everything with a key: read it, refuse it where it has no effect, print its value, list its name. A
//! check that takes several keys looks at the values in the `Config`, and asks the report where a key was written, or
//! whether it was refused. So a new key is a field, its default, and a line in its section; and a line in
//! `config/tersed.toml` and in the documentation.
//!
//! # Guarantees
//!
//! - A `Config` from [`Config::load`] is valid: every value is in its documented range, no two
//!   listeners want the same address, no upstream is visibly one of our own listeners.
//! - Nothing is guessed: an unknown key, a number without its unit, and a key that has no effect in its
//!   table are errors. All errors of a configuration are reported at once, each with its place;
//!   only a file that is not TOML is not checked any further.
//! - Flags override variables, variables the file, the file the defaults.
//! - A key that was renamed is still read under its old name, with a warning (`renamed`).
//! - Each key is documented in `config/tersed.toml`; a test compares.
//!
//! # Left out
//!
//! Whether an address can be bound, a name resolved or a path opened: only doing it can tell.

mod again;
mod bounds;
mod cost;
mod dedup;
mod draft;
mod effect;
mod error;
mod file;
mod fit;
mod forward;
mod keys;
mod listener;
mod masks;
mod overrides;
mod print;
mod read;
mod renamed;
mod report;
mod resolve;
mod rules;
mod section;
mod sockets;
mod units;
mod upstream;
mod url;
mod value;
mod written;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::core::rule::Rules;
use crate::logging::LogFormat;

pub(crate) use again::Remarks;
pub(crate) use bounds::*;
pub(crate) use dedup::DedupConfig;
pub(crate) use dedup::{IDENTITY, MODE, SUMMARY, field_names};
pub(crate) use draft::Effective;
pub(crate) use error::ConfigErrors;
pub(crate) use file::open_at_once;
pub(crate) use forward::WHEN_FULL;
pub(crate) use forward::{
    ForwardConfig, LineBreaks, SpoolConfig, Strategy, SuppressedConfig, WhenFull,
};
pub(crate) use listener::{ACK, FRAMING, OVERSIZE};
pub(crate) use listener::{Ack, ListenerConfig, Oversize};
pub(crate) use masks::mask_names;
pub(crate) use overrides::{Argument, Override, RunArgs};
pub(crate) use renamed::rename;
pub(crate) use rules::{ACTION, facility_names};
pub(crate) use sockets::takes_only_v6;
pub(crate) use units::{count_text, size_text, time_text};
pub(crate) use upstream::OUTPUT_FRAMING;
pub(crate) use upstream::{Compression, OutputFraming, Rotation, UpstreamConfig};
pub(crate) use url::{ListenUrl, UpstreamUrl};
pub(crate) use value::severity_range;

use draft::Draft;
use file::Wait;
use report::Report;
use value::Words;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// At least one; no two with the same address or name.
    pub listeners: Vec<ListenerConfig>,
    /// Where messages are forwarded to.
    pub forward: ForwardConfig,
    /// Where messages wait when memory cannot hold them.
    pub spool: SpoolConfig,
    /// Where suppressed copies go.
    pub suppressed: SuppressedConfig,
    /// Which messages count as repeats, and what is remembered of them.
    pub dedup: DedupConfig,
    /// The rules, and the policy of messages that none of them takes.
    pub rules: Arc<Rules>,
    /// Where the status page, the metrics and the health check are served; `None` means nowhere.
    pub admin: Option<SocketAddr>,
    /// How long a stop waits for what is queued. At most [`GRACE_MAX`].
    pub shutdown_grace: Duration,
    pub log: LogConfig,
    /// Threads that receive, judge and send. 1 to [`WORKERS_MAX`]; one per core by default.
    pub workers: usize,
    /// What was odd about the file, the flags and the variables.
    pub remarks: Remarks,
}

impl Config {
    /// Reads the file that `args` names, if it names one, and lays `args` over it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, the flags and the variables.
    pub(crate) fn load(args: &RunArgs) -> Result<Self, ConfigErrors> {
        Self::read(args, None)
    }

    /// As [`Config::load`], for a relay that runs: it keeps its number of shards unless the file has one. A file that
    /// has lost its upstreams or listeners is refused.
    ///
    /// # Errors
    ///
    /// Those of [`Config::load`].
    pub(crate) fn load_again(&self, args: &RunArgs) -> Result<Self, ConfigErrors> {
        Self::read(args, Some(self))
    }

    /// Reads `text` as the contents of a file of that `name`.
    ///
    /// # Errors
    ///
    /// Those of [`Config::load`].
    pub(crate) fn of_text(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        Self::of_octets(name, text.as_bytes(), &RunArgs::default())
    }

    /// Reads `octets` as the contents of a file of that `name`, and lays `args` over it.
    fn of_octets(name: &str, octets: &[u8], args: &RunArgs) -> Result<Self, ConfigErrors> {
        let mut report = Report::default();
        let mut draft = Draft::default();
        file::parse(&name.into(), octets, &mut draft, &mut report);
        overrides::lay_over(&mut draft, args, &mut report);
        let config = resolve::resolve(draft, None, &mut report);
        report.finish(config)
    }

    fn read(args: &RunArgs, running: Option<&Self>) -> Result<Self, ConfigErrors> {
        let mut report = Report::default();
        let mut draft = Draft::default();
        let file = args.file.as_deref();
        // A relay that runs must hear its signals meanwhile.
        let wait = match running {
            Some(_) => Wait::Never,
            None => Wait::ForGiven,
        };
        let is_whole = file.is_none_or(|path| file::read(path, wait, &mut draft, &mut report));
        let present = again::Present::of(&report, file, is_whole).with(args);
        overrides::lay_over(&mut draft, args, &mut report);
        let shards = running.map(|running| running.dedup.shards);
        let mut config = resolve::resolve(draft, shards, &mut report);
        config.remarks.0.extend(args.remarks.iter().cloned());
        present.check(&mut config, running, &mut report);
        report.finish(config)
    }

    /// The admin address that `args` and the file ask for, whatever else is wrong with them.
    #[must_use]
    pub(crate) fn admin_address(args: &RunArgs) -> Option<SocketAddr> {
        let mut report = Report::default();
        let mut draft = Draft::default();
        if let Some(path) = &args.file {
            file::read(path, Wait::ForGiven, &mut draft, &mut report);
        }
        overrides::lay_over(&mut draft, args, &mut report);
        let is_refused = report.is_refused("admin.address");
        draft.config.admin.filter(|_| !is_refused)
    }

    /// How suppressed copies are forwarded, if they are. What [`SuppressedConfig`] leaves out is as in `forward`.
    #[must_use]
    pub(crate) fn copies(&self) -> Option<ForwardConfig> {
        Some(ForwardConfig {
            to: vec![self.suppressed.to.clone()?],
            strategy: Strategy::Failover,
            queue: self.suppressed.queue,
            when_full: self.suppressed.when_full,
            ..self.forward.clone()
        })
    }

    /// Warnings about a configuration that can run, one sentence each.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.remarks.0.clone();
        warnings.extend(rules::warnings(self));
        warnings.extend(effect::warnings(self));
        warnings.extend(sockets::warnings(&self.listeners));
        warnings
    }
}

impl Default for Config {
    fn default() -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 5514));
        Self {
            listeners: vec![
                ListenerConfig::new(ListenUrl::Udp(local)),
                ListenerConfig::new(ListenUrl::Tcp(local)),
            ],
            forward: ForwardConfig::default(),
            spool: SpoolConfig::default(),
            suppressed: SuppressedConfig::default(),
            rules: Arc::new(Rules::new(DedupConfig::default().policy)),
            dedup: DedupConfig::default(),
            admin: None,
            shutdown_grace: Duration::from_secs(5),
            log: LogConfig::default(),
            workers: cores(),
            remarks: Remarks::default(),
        }
    }
}

/// Our own log, on standard error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogConfig {
    /// A level, or directives by module, in the syntax of tracing's filters.
    pub level: String,
    /// How a line is written.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

pub(crate) const LOG_FORMAT: Words<LogFormat> =
    Words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(WORKERS_MAX)
}

#[cfg(test)]
mod tests;
