//! Configuration: TOML as written, flags and variables in, a [`Config`] that can be run out.
//!
//! ```text
//! file ──▶ ConfigFile ──▶ with flags and variables laid over it ──▶ Config
//!          (file.rs: what   (overrides.rs)                          (resolve.rs: defaults,
//!           is written)                                              and what must fit together)
//! ```
//!
//! # Guarantees
//!
//! - A `Config` from [`Config::load`] is valid: every value is in its documented range, no two
//!   listeners want the same address, no upstream is visibly one of our own listeners.
//! - Nothing is guessed: an unknown key, a number without its unit, and a key that has no effect where
//!   it stands are errors. All errors of a configuration are reported at once, each with its place;
//!   only a file that is no TOML is not looked at any further.
//! - Flags stand above variables, variables above the file, the file above the defaults.
//! - Each key is named once (`file.rs`), defaulted once (here), and documented in
//!   `config/tersed.toml`, which a test reads.
//!
//! # Left out
//!
//! Whether an address can be bound, a name resolved or a path opened: that is found out by doing it.

mod again;
mod bounds;
mod cost;
mod effect;
mod effective;
mod error;
mod file;
mod fit;
mod keys;
mod masks;
mod overrides;
mod resolve;
mod rules;
mod sockets;
mod url;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::frame::Framing;
use crate::identity::IdentityKind;
use crate::identity::Spec;
use crate::limits::{MESSAGE_OCTETS_DEFAULT, MESSAGE_OCTETS_MAX, MESSAGE_OCTETS_MIN};
use crate::logging::LogFormat;
use crate::rule::{Action, Mode, Policy, Rules, SummaryStyle, WindowPolicy};

pub use again::Remarks;
pub use bounds::*;
pub use cost::Cost;
pub(crate) use effective::{Effective, facility_names, field_names, mask_names, severity_range};
pub use error::{At, ConfigError, ConfigErrors, FOUND_CHARS_MAX, Fault};
pub use overrides::{Argument, Override, RunArgs};
pub use sockets::takes_only_v6;
pub use url::{ListenUrl, UNIX_PATH_OCTETS_MAX, UpstreamUrl, UrlError};
pub(crate) use value::{Words, size_text, time_text};

/// What runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// At least one; no two with the same address or name.
    pub listeners: Vec<ListenerConfig>,
    /// Where survivors go.
    pub forward: ForwardConfig,
    /// Where survivors wait when memory cannot hold them.
    pub spool: SpoolConfig,
    /// Where copies that are held back go.
    pub suppressed: SuppressedConfig,
    /// What counts as said already.
    pub dedup: DedupConfig,
    /// The rules, and the policy of messages that none of them takes.
    pub rules: Arc<Rules>,
    /// Where the status page, the metrics and the health check are served; `None` is nowhere.
    pub admin: Option<SocketAddr>,
    /// How long a stop waits for what is queued. At most [`GRACE_MAX`].
    pub shutdown_grace: Duration,
    /// Our own log.
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
    pub fn load(args: &RunArgs) -> Result<Self, ConfigErrors> {
        Self::read(args, None)
    }

    /// As [`Config::load`], for a relay that runs: without a number of shards in the file, it keeps its own. A file
    /// that has lost its upstreams or listeners is refused.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn load_again(&self, args: &RunArgs) -> Result<Self, ConfigErrors> {
        Self::read(args, Some(self))
    }

    /// Reads `text` as the contents of a file of that `name`.
    ///
    /// # Errors
    ///
    /// As for [`Config::load`].
    pub(crate) fn of_text(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let file = file::parse(&name.into(), text.as_bytes(), &mut errors);
        let config = resolve::resolve(file, None, &mut errors);
        ConfigErrors::if_any(errors)?;
        Ok(config)
    }

    fn read(args: &RunArgs, running: Option<&Self>) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let (mut file, is_whole) = match &args.file {
            Some(path) => file::read(path, &mut errors),
            None => (file::ConfigFile::default(), true),
        };
        let said = again::Said::of(&file, args.file.as_deref(), is_whole).with(args);
        overrides::lay_over(&mut file, args, &mut errors);
        let shards = running.map(|running| running.dedup.shards);
        let mut config = resolve::resolve(file, shards, &mut errors);
        config.remarks.0.extend(args.remarks.iter().cloned());
        said.judge(&mut config, running, &mut errors);
        ConfigErrors::if_any(errors)?;
        Ok(config)
    }

    /// The admin address that `args` and the file ask for, whatever else is wrong with them.
    #[must_use]
    pub(crate) fn admin_address(args: &RunArgs) -> Option<SocketAddr> {
        let mut unused = Vec::new();
        let mut file = match &args.file {
            Some(path) => file::read(path, &mut unused).0,
            None => file::ConfigFile::default(),
        };
        overrides::lay_over(&mut file, args, &mut unused);
        file.admin.open().address.clone().or(None)
    }

    /// How copies that are held back are forwarded, if they are. What [`SuppressedConfig`] does not say is as for
    /// survivors.
    #[must_use]
    pub fn copies(&self) -> Option<ForwardConfig> {
        Some(ForwardConfig {
            to: vec![self.suppressed.to.clone()?],
            strategy: Strategy::Failover,
            queue: self.suppressed.queue,
            when_full: self.suppressed.when_full,
            ..self.forward.clone()
        })
    }

    /// What is odd and runs all the same, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
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

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Unique among the listeners; in metrics and logs. The URL's text unless configured.
    pub name: String,
    /// Where it receives.
    pub url: ListenUrl,
    /// How a stream is cut into frames. Without effect on datagrams and `relp`.
    pub framing: Framing,
    /// Octets of a message; [`MESSAGE_OCTETS_MIN`] to [`MESSAGE_OCTETS_MAX`].
    pub max_message_size: usize,
    /// What becomes of a longer message.
    pub oversize: Oversize,
    /// Connections at a time; 1 to [`CONNECTIONS_MAX`]. Streams only.
    pub connections_max: usize,
    /// Connections at a time from one address; 1 to [`CONNECTIONS_MAX`]. `tcp` and `relp` only.
    pub connections_per_source_max: usize,
    /// A connection that sends nothing for so long is closed; `None` is never. Streams only.
    pub idle_timeout: Option<Duration>,
    /// A frame that goes without another octet for so long is given up (PROTOCOLS 2). Streams only.
    pub partial_frame_timeout: Duration,
    /// Transactions of a connection that may be unanswered; 1 to [`RELP_WINDOW_MAX`]. `relp` only.
    pub window: usize,
    /// When a transaction is answered. `relp` only.
    pub ack: Ack,
    /// Octets that the kernel is asked to hold for us (`SO_RCVBUF`). Datagrams only.
    pub receive_buffer: usize,
    /// Permissions of a Unix socket's path; at most 0777.
    pub unix_mode: u32,
    /// Who may send, by address; empty is everyone. Not on Unix sockets, whose path has permissions.
    pub allow: Vec<IpNet>,
}

impl ListenerConfig {
    /// A listener at `url` with everything else at its default.
    #[must_use]
    pub fn new(url: ListenUrl) -> Self {
        Self {
            name: url.to_string(),
            url,
            framing: Framing::Auto,
            max_message_size: MESSAGE_OCTETS_DEFAULT,
            oversize: Oversize::Truncate,
            connections_max: 1024,
            connections_per_source_max: 128,
            idle_timeout: None,
            partial_frame_timeout: Duration::from_secs(60),
            window: RELP_WINDOW,
            ack: Ack::Safe,
            receive_buffer: 8 * MIB,
            unix_mode: 0o660,
            allow: Vec::new(),
        }
    }
}

/// What becomes of a message longer than `max_message_size`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Oversize {
    /// Its head is judged and forwarded, the rest skipped.
    #[default]
    Truncate,
    /// All of it is skipped.
    Drop,
}

/// When a message that came by RELP is answered, and so its sender forgets it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ack {
    /// When it is safe: with its upstream, as far as that one's protocol tells, or on disk.
    #[default]
    Safe,
    /// When it is in the memory queue.
    Queued,
}

/// Where survivors go, and what happens while they cannot.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardConfig {
    /// At least one, no two the same.
    pub to: Vec<UpstreamConfig>,
    /// Which of them take survivors.
    pub strategy: Strategy,
    /// Octets that wait in memory while no upstream takes them. Holds the longest message.
    pub queue: usize,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
    /// The pause before the first attempt to connect again; it doubles from attempt to attempt.
    pub retry_min: Duration,
    /// The longest pause; at least `retry_min`.
    pub retry_max: Duration,
    /// An attempt to connect is given up after so long.
    pub connect_timeout: Duration,
    /// An upstream that accepts nothing for so long is given up; also `TCP_USER_TIMEOUT`.
    pub send_timeout: Duration,
    /// Octets written that are kept to be sent again after a connection broke; 0 is none.
    pub resend_max: usize,
    /// Octets that the other end's kernel acknowledged so long ago are not sent again.
    pub resend_age: Duration,
    /// A TCP or RELP connection that is so old is ended in order and made anew; `None` is never.
    pub rebind: Option<Duration>,
    /// Octets of a datagram; a longer message is cut. At most [`UDP_PAYLOAD_MAX`].
    pub udp_max: usize,
    /// What an LF or NUL inside a message becomes when the framing is LF.
    pub line_breaks: LineBreaks,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            to: vec![UpstreamConfig::new(UpstreamUrl::Stdout)],
            strategy: Strategy::Failover,
            queue: 64 * MIB,
            when_full: WhenFull::Wait,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            resend_max: 8 * MIB,
            resend_age: Duration::from_secs(10),
            rebind: None,
            udp_max: UDP_PAYLOAD_MAX,
            line_breaks: LineBreaks::Space,
        }
    }
}

/// Which upstreams take survivors.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Strategy {
    /// The first of the list that works; the others stand by.
    #[default]
    Failover,
    /// All that work, each the next batch when it has taken the last.
    Balance,
}

/// Where copies that are held back go.
#[derive(Clone, Debug, PartialEq)]
pub struct SuppressedConfig {
    /// `None` is nowhere. None of the upstreams of survivors, and none of our listeners.
    pub to: Option<UpstreamConfig>,
    /// Octets that wait in memory for it. Holds the longest message.
    pub queue: usize,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
}

impl Default for SuppressedConfig {
    fn default() -> Self {
        Self {
            to: None,
            queue: 16 * MIB,
            when_full: WhenFull::Wait,
        }
    }
}

/// One upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpstreamConfig {
    /// Where it is.
    pub url: UpstreamUrl,
    /// How messages are set apart on a stream. Without effect on datagrams.
    pub framing: OutputFraming,
    /// When a file is rotated. Off on what is no file.
    pub rotation: Rotation,
}

impl UpstreamConfig {
    /// An upstream at `url` with LF framing, which every collector takes.
    #[must_use]
    pub const fn new(url: UpstreamUrl) -> Self {
        Self {
            url,
            framing: OutputFraming::Lf,
            rotation: Rotation::OFF,
        }
    }
}

/// When a file is rotated, and what becomes of what was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rotation {
    /// Octets of a file before it is rotated; at least [`ROTATE_SIZE_MIN`].
    pub size: Option<usize>,
    /// How old a file gets, from its first octet.
    pub age: Option<Duration>,
    /// Rotated files that are kept; at least 1, at most [`ROTATE_KEEP_MAX`].
    pub keep: usize,
    /// What rotated files are made smaller by.
    pub compression: Compression,
}

impl Rotation {
    /// Never.
    pub const OFF: Self = Self {
        size: None,
        age: None,
        keep: 10,
        compression: Compression::Zstd,
    };

    /// That of a file of suppressed copies, unless configured: nobody watches how fast it grows, and in a storm,
    /// which is what tersed is for, it grows by what would otherwise be nothing.
    pub const OF_COPIES: Self = Self {
        size: Some(100 * MIB),
        age: Some(Duration::from_secs(24 * 3600)),
        ..Self::OFF
    };

    /// Whether there is any.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.size.is_some() || self.age.is_some()
    }
}

/// What rotated files are made smaller by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Compression {
    /// Nothing.
    Off,
    /// Zstandard (RFC 8878).
    #[default]
    Zstd,
}

/// How messages are set apart on a stream to an upstream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OutputFraming {
    /// An LF behind each (RFC 6587 3.4.2).
    #[default]
    Lf,
    /// `MSG-LEN SP` before each (RFC 6587 3.4.1).
    OctetCounting,
}

/// What happens to a survivor when the queue is full.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WhenFull {
    /// Streams are not read until there is room; what datagrams bring meanwhile the kernel drops.
    #[default]
    Wait,
    /// It is dropped.
    DropNewest,
    /// Those at the head of the queue are dropped until there is room; those on the disk, if there is a spool.
    DropOldest,
}

/// What an LF or NUL inside a message becomes when LF sets messages apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LineBreaks {
    /// A space.
    #[default]
    Space,
    /// `#012` for LF and `#000` for NUL, as rsyslog writes them.
    Escape,
}

/// Where survivors wait when memory cannot hold them.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoolConfig {
    /// Absolute; `None` is no spool.
    pub directory: Option<PathBuf>,
    /// Octets that it may take on the disk.
    pub max_size: usize,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            directory: None,
            max_size: GIB,
        }
    }
}

/// What counts as said already.
#[derive(Clone, Debug, PartialEq)]
pub struct DedupConfig {
    /// The policy of messages that no rule matches.
    pub policy: Policy,
    /// Octets that all engines together may hold.
    pub memory: usize,
    /// What is kept of a message to compare with.
    pub identity: IdentityKind,
    /// How many engines share the work; a power of two, at most [`SHARDS_MAX`], for which `memory` is enough.
    pub shards: usize,
    /// Where windows are kept from a stop to the next start; `None` is nowhere.
    pub state: Option<PathBuf>,
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self {
            policy: Policy {
                window: WindowPolicy {
                    window: Duration::from_secs(10),
                    allow: 1,
                    refresh: None,
                },
                summary: SummaryStyle::Prefix,
                identity: Spec::default(),
                mode: Mode::Enforce,
            },
            memory: 256 * MIB,
            identity: IdentityKind::Exact,
            shards: (4 * cores()).next_power_of_two().min(SHARDS_MAX),
            state: None,
        }
    }
}

/// Our own log, on standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// A level, or directives by module, as tracing's filters have them.
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

fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(WORKERS_MAX)
}

pub(crate) const FRAMING: Words<Framing> = Words(&[
    ("auto", Framing::Auto),
    ("octet-counting", Framing::OctetCounting),
    ("lf", Framing::Lf),
    ("nul", Framing::Nul),
]);
pub(crate) const OVERSIZE: Words<Oversize> =
    Words(&[("truncate", Oversize::Truncate), ("drop", Oversize::Drop)]);
pub(crate) const ACK: Words<Ack> = Words(&[("safe", Ack::Safe), ("queued", Ack::Queued)]);
pub(crate) const OUTPUT_FRAMING: Words<OutputFraming> = Words(&[
    ("lf", OutputFraming::Lf),
    ("octet-counting", OutputFraming::OctetCounting),
]);
pub(crate) const COMPRESS: Words<Compression> =
    Words(&[("off", Compression::Off), ("zstd", Compression::Zstd)]);
pub(crate) const STRATEGY: Words<Strategy> = Words(&[
    ("failover", Strategy::Failover),
    ("balance", Strategy::Balance),
]);
pub(crate) const WHEN_FULL: Words<WhenFull> = Words(&[
    ("wait", WhenFull::Wait),
    ("drop-newest", WhenFull::DropNewest),
    ("drop-oldest", WhenFull::DropOldest),
]);
pub(crate) const LINE_BREAKS: Words<LineBreaks> =
    Words(&[("space", LineBreaks::Space), ("escape", LineBreaks::Escape)]);
pub(crate) const SUMMARY: Words<SummaryStyle> = Words(&[
    ("prefix", SummaryStyle::Prefix),
    ("suffix", SummaryStyle::Suffix),
    ("none", SummaryStyle::None),
]);
pub(crate) const ACTION: Words<Action> = Words(&[
    ("dedup", Action::Dedup),
    ("pass", Action::Pass),
    ("drop", Action::Drop),
]);
pub(crate) const MODE: Words<Mode> = Words(&[
    ("enforce", Mode::Enforce),
    ("tag", Mode::Tag),
    ("shadow", Mode::Shadow),
]);
pub(crate) const IDENTITY: Words<IdentityKind> = Words(&[
    ("exact", IdentityKind::Exact),
    ("compact", IdentityKind::Compact),
]);
pub(crate) const LOG_FORMAT: Words<LogFormat> =
    Words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

#[cfg(test)]
mod tests;
