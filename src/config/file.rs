//! The file as written: [`ConfigFile`] mirrors the TOML key by key, and a key that it does not have
//! is an error.
//!
//! The TOML is walked by hand instead of through a derived `Deserialize`, because the latter stops at
//! the first error, and an operator wants to hear of all of them, each with its line.
//!
//! # Left out
//!
//! Defaults, and what must fit together: see `resolve`.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::error::{At, ConfigError, FOUND_CHARS_MAX, Fault, escaped, quoted};
use super::keys::unknown_key;
use super::url::{ListenUrl, UpstreamUrl};
use super::value::{
    Given, Lines, Slot, Written, absolute_path, boolean, choice, count, duration, facility, field,
    glob, list, log_filter, mode, name, network, one, power_of_two, profile, severities, size,
    socket_addr, text, unless, url,
};
use super::{
    ACK, ACTION, ALLOW_MAX, Ack, COMPRESS, CONNECTIONS_MAX, Compression, FILE_OCTETS_MAX, FRAMING,
    GRACE_MAX, IDENTITY, IDLE_TIMEOUT_MAX, IdentityKind, LINE_BREAKS, LOG_FORMAT, LineBreaks,
    LogFormat, MEMORY_MAX, MEMORY_MIN, MESSAGE_OCTETS_MAX, MESSAGE_OCTETS_MIN, MODE,
    OUTPUT_FRAMING, OVERSIZE, OutputFraming, Oversize, QUEUE_MAX, QUEUE_MIN, REBIND_MAX,
    REBIND_MIN, RECEIVE_BUFFER_MAX, RECEIVE_BUFFER_MIN, RELP_WINDOW_MAX, RESEND_AGE_MIN,
    RESEND_MAX, ROTATE_AGE_MAX, ROTATE_AGE_MIN, ROTATE_KEEP_MAX, ROTATE_SIZE_MAX, ROTATE_SIZE_MIN,
    SHARDS_MAX, SPOOL_MAX, SPOOL_MIN, STRATEGY, SUMMARY, Strategy, TIMEOUT_MAX, TIMEOUT_MIN,
    UDP_PAYLOAD_MAX, WHEN_FULL, WINDOW_MAX, WINDOW_MIN, WORKERS_MAX, WhenFull,
};
use crate::frame::Framing;
use crate::identity::Field;
use crate::identity::mask::{BuiltinSet, Masks, Pattern};
use crate::rule::{Action, Glob, Mode, Profile, Severities, SummaryStyle, Text};

/// A table of the file.
pub(super) trait Section: Default {
    /// The keys that it may have, in the order in which they are documented.
    const KEYS: &'static [&'static str];

    /// Reads `written` into the slot of `key`, which is one of [`Self::KEYS`].
    fn set(&mut self, key: &str, written: &Written<'_>, errors: &mut Vec<ConfigError>);

    /// Whether no key was written.
    fn is_empty(&self) -> bool;
}

/// Defines a section: its keys, what they hold, and the readers that take them.
macro_rules! section {
    ($(#[$doc:meta])* $section:ident { $($key:ident: $type:ty = $reader:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $section {
            $(pub(super) $key: Slot<$type>,)*
        }

        impl Section for $section {
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            fn set(&mut self, key: &str, written: &Written<'_>, errors: &mut Vec<ConfigError>) {
                match key {
                    $(stringify!($key) => {
                        self.$key = Slot::new($reader(written, errors), written.at.clone());
                    })*
                    _ => errors.push(unknown_key(key, written.at.clone(), Self::KEYS)),
                }
            }

            fn is_empty(&self) -> bool {
                true $(&& matches!(self.$key, Slot::Absent))*
            }
        }
    };
}

section! {
    /// The file.
    ConfigFile {
        listener: Vec<Given<ListenerFile>> = list("one or more [[listener]], or none for the default ones", 1, section),
        forward: ForwardFile = section,
        spool: SpoolFile = section,
        suppressed: SuppressedFile = section,
        dedup: DedupFile = section,
        mask: MaskFile = section,
        rule: Vec<Given<RuleFile>> = list("one or more [[rule]], or none", 1, section),
        admin: AdminFile = section,
        shutdown: ShutdownFile = section,
        log: LogFile = section,
        runtime: RuntimeFile = section,
    }
}

section! {
    /// `[[listener]]`
    ListenerFile {
        url: ListenUrl = one(url(ListenUrl::FORMS)),
        name: String = one(name),
        max_message_size: usize = one(size(MESSAGE_OCTETS_MIN, MESSAGE_OCTETS_MAX)),
        oversize: Oversize = one(choice(&OVERSIZE)),
        allow: Vec<Given<IpNet>> = list("a list of networks, such as [\"10.0.0.0/8\", \"2001:db8::/32\"]; [] is everyone", 0, one(network)),
        receive_buffer: usize = one(size(RECEIVE_BUFFER_MIN, RECEIVE_BUFFER_MAX)),
        framing: Framing = one(choice(&FRAMING)),
        connections_max: usize = one(count(1, CONNECTIONS_MAX)),
        connections_per_source_max: usize = one(count(1, CONNECTIONS_MAX)),
        idle_timeout: Option<Duration> = one(unless("off", duration(TIMEOUT_MIN, IDLE_TIMEOUT_MAX))),
        partial_frame_timeout: Duration = one(duration(TIMEOUT_MIN, TIMEOUT_MAX)),
        window: usize = one(count(1, RELP_WINDOW_MAX)),
        ack: Ack = one(choice(&ACK)),
        unix_mode: u32 = one(mode),
    }
}

section! {
    /// `[forward]`
    ForwardFile {
        to: Vec<Given<UpstreamFile>> = list("a list of one or more URLs, such as [\"tcp://collector.example:601\"]", 1, upstream),
        strategy: Strategy = one(choice(&STRATEGY)),
        queue: usize = one(size(QUEUE_MIN, QUEUE_MAX)),
        when_full: WhenFull = one(choice(&WHEN_FULL)),
        retry_min: Duration = one(duration(TIMEOUT_MIN, TIMEOUT_MAX)),
        retry_max: Duration = one(duration(TIMEOUT_MIN, TIMEOUT_MAX)),
        connect_timeout: Duration = one(duration(TIMEOUT_MIN, TIMEOUT_MAX)),
        send_timeout: Duration = one(duration(TIMEOUT_MIN, TIMEOUT_MAX)),
        resend_max: Option<usize> = one(unless("off", size(0, RESEND_MAX))),
        resend_age: Duration = one(duration(RESEND_AGE_MIN, TIMEOUT_MAX)),
        rebind: Option<Duration> = one(unless("off", duration(REBIND_MIN, REBIND_MAX))),
        udp_max: usize = one(size(MESSAGE_OCTETS_MIN, UDP_PAYLOAD_MAX)),
        line_breaks: LineBreaks = one(choice(&LINE_BREAKS)),
    }
}

section! {
    /// An element of `forward.to`, or a `suppressed.to`, that is a table.
    UpstreamFile {
        url: UpstreamUrl = one(url(UpstreamUrl::FORMS)),
        framing: OutputFraming = one(choice(&OUTPUT_FRAMING)),
        rotate_size: Option<usize> = one(unless("off", size(ROTATE_SIZE_MIN, ROTATE_SIZE_MAX))),
        rotate_age: Option<Duration> = one(unless("off", duration(ROTATE_AGE_MIN, ROTATE_AGE_MAX))),
        rotate_keep: usize = one(count(1, ROTATE_KEEP_MAX)),
        compress: Compression = one(choice(&COMPRESS)),
    }
}

section! {
    /// `[suppressed]`
    SuppressedFile {
        to: UpstreamFile = upstream,
        queue: usize = one(size(QUEUE_MIN, QUEUE_MAX)),
        when_full: WhenFull = one(choice(&WHEN_FULL)),
    }
}

section! {
    /// `[spool]`
    SpoolFile {
        directory: Option<PathBuf> = one(unless("off", absolute_path("/var/lib/tersed/spool"))),
        max_size: usize = one(size(SPOOL_MIN, SPOOL_MAX)),
    }
}

section! {
    /// `[dedup]`
    DedupFile {
        window: Duration = one(duration(WINDOW_MIN, WINDOW_MAX)),
        allow: u32 = one(count(1, ALLOW_MAX)),
        refresh: bool = one(boolean),
        max_quiet: Duration = one(duration(WINDOW_MIN, WINDOW_MAX)),
        summary: SummaryStyle = one(choice(&SUMMARY)),
        mode: Mode = one(choice(&MODE)),
        fields: Vec<Given<Field>> = list(FIELDS_FIT, 1, one(field)),
        mask: Vec<Given<String>> = list(MASK_FIT, 0, one(name)),
        memory: usize = one(size(MEMORY_MIN, MEMORY_MAX)),
        identity: IdentityKind = one(choice(&IDENTITY)),
        shards: Option<usize> = one(unless("auto", power_of_two(SHARDS_MAX))),
        state: Option<PathBuf> = one(unless("off", absolute_path("/var/lib/tersed/windows"))),
    }
}

section! {
    /// `[[rule]]`
    RuleFile {
        name: String = one(name),
        facility: Vec<Given<u8>> = list("a list of one or more facilities, such as [\"auth\", \"local7\"]", 1, one(facility)),
        severity: Severities = one(severities),
        hostname: Vec<Given<Glob>> = list("a list of one or more names, such as [\"web-*\"]", 1, one(glob)),
        app_name: Vec<Given<Glob>> = list("a list of one or more names, such as [\"sshd\", \"postfix/*\"]", 1, one(glob)),
        msg: Text = one(text),
        listener: Vec<Given<String>> = list("a list of one or more listeners' names", 1, one(name)),
        source: Vec<Given<IpNet>> = list("a list of one or more networks, such as [\"10.0.0.0/8\", \"2001:db8::/32\"]", 1, one(network)),
        action: Action = one(choice(&ACTION)),
        mode: Mode = one(choice(&MODE)),
        profile: &'static Profile = one(profile),
        window: Duration = one(duration(WINDOW_MIN, WINDOW_MAX)),
        allow: u32 = one(count(1, ALLOW_MAX)),
        refresh: bool = one(boolean),
        max_quiet: Duration = one(duration(WINDOW_MIN, WINDOW_MAX)),
        summary: SummaryStyle = one(choice(&SUMMARY)),
        fields: Vec<Given<Field>> = list(FIELDS_FIT, 1, one(field)),
        mask: Vec<Given<String>> = list(MASK_FIT, 0, one(name)),
    }
}

/// `[mask]`: a name and an expression in each line.
#[derive(Clone, Debug, Default)]
pub(super) struct MaskFile {
    pub(super) patterns: Vec<Given<Pattern>>,
}

impl Section for MaskFile {
    const KEYS: &'static [&'static str] = &["name = 'regular expression'"];

    fn set(&mut self, key: &str, written: &Written<'_>, errors: &mut Vec<ConfigError>) {
        let Some(regex) = written.value.as_str() else {
            errors.push(written.unfit("a regular expression in single quotes"));
            return;
        };
        let pattern = Pattern {
            name: key.to_owned(),
            regex: regex.to_owned(),
        };
        let at = written.at.clone();
        match Masks::new(BuiltinSet::EMPTY, vec![pattern.clone()]) {
            Ok(_) => self.patterns.push(Given { value: pattern, at }),
            Err(error) => errors.push(ConfigError {
                at,
                fault: Fault::Mask(error),
            }),
        }
    }

    fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

section! {
    /// `[admin]`
    AdminFile {
        address: Option<SocketAddr> = one(unless("off", socket_addr)),
    }
}

section! {
    /// `[shutdown]`
    ShutdownFile {
        grace: Duration = one(duration(Duration::ZERO, GRACE_MAX)),
    }
}

section! {
    /// `[log]`
    LogFile {
        level: String = one(log_filter),
        format: LogFormat = one(choice(&LOG_FORMAT)),
    }
}

section! {
    /// `[runtime]`
    RuntimeFile {
        workers: Option<usize> = one(unless("auto", count(1, WORKERS_MAX))),
    }
}

impl ConfigFile {
    /// A file that cannot be understood. Nobody knows its listeners, so nothing is held against the
    /// default ones.
    fn unknown() -> Self {
        Self {
            listener: Slot::Refused,
            ..Self::default()
        }
    }
}

impl<S: Section> Slot<S> {
    /// The section for writing into; an empty one if there was none.
    pub(super) fn open(&mut self) -> &mut S {
        if let Self::Given(given) = self {
            return &mut given.value;
        }
        *self = Self::Given(Given {
            value: S::default(),
            at: At::Default(String::new()),
        });
        // Now there is one.
        self.open()
    }
}

/// Reads the file at `path`, and says whether its last line is whole, as far as a line end tells.
pub(super) fn read(path: &Path, errors: &mut Vec<ConfigError>) -> (ConfigFile, bool) {
    let file: Arc<str> = escaped(&path.display().to_string()).into();
    let octets = match read_octets(path) {
        Ok(octets) => octets,
        Err(fault) => {
            errors.push(ConfigError {
                at: At::File(file),
                fault,
            });
            return (ConfigFile::unknown(), true);
        }
    };
    let is_whole = octets.last().is_none_or(|last| *last == b'\n');
    (parse(&file, &octets, errors), is_whole)
}

/// Reads `octets` as the contents of `file`.
pub(super) fn parse(file: &Arc<str>, octets: &[u8], errors: &mut Vec<ConfigError>) -> ConfigFile {
    let lines = Lines::of(octets);
    let at = |offset| At::Key {
        file: Arc::clone(file),
        line: lines.at(offset),
        key: String::new(),
    };
    let text = match str::from_utf8(octets) {
        Ok(text) => text,
        Err(err) => {
            errors.push(ConfigError {
                at: at(err.valid_up_to()),
                fault: Fault::NotUtf8,
            });
            return ConfigFile::unknown();
        }
    };
    match DeTable::parse(text) {
        Ok(table) => {
            let value = DeValue::Table(table.into_inner());
            let whole = Written {
                value: &value,
                at: at(0),
                lines: &lines,
            };
            section(&whole, errors).unwrap_or_default()
        }
        Err(err) => {
            let at = at(err.span().map_or(0, |span| span.start));
            errors.push(ConfigError {
                at,
                fault: Fault::Syntax(escaped(err.message())),
            });
            ConfigFile::unknown()
        }
    }
}

/// Reads a table, key by key.
fn section<S: Section>(written: &Written<'_>, errors: &mut Vec<ConfigError>) -> Option<S> {
    let Some(table) = written.value.as_table() else {
        errors.push(written.unfit(format!("a table with {}", S::KEYS.join(", "))));
        return None;
    };
    let mut section = S::default();
    for (key, value) in table {
        let at = written
            .at
            .within(&bare(key.get_ref()), written.lines.at(key.span().start));
        section.set(
            key.get_ref(),
            &Written {
                value: value.get_ref(),
                at,
                lines: written.lines,
            },
            errors,
        );
    }
    Some(section)
}

/// Reads an upstream: a URL, or a table with one.
fn upstream(written: &Written<'_>, errors: &mut Vec<ConfigError>) -> Option<UpstreamFile> {
    match written.value {
        DeValue::Table(_) => section(written, errors),
        DeValue::String(_) => Some(with_url(written, errors)),
        _ => {
            errors
                .push(written.unfit(
                    "a URL, or a table such as { url = \"tcp://b:601\", framing = \"lf\" }",
                ));
            None
        }
    }
}

/// A section of which only the URL is written.
pub(super) fn with_url<S: Section>(written: &Written<'_>, errors: &mut Vec<ConfigError>) -> S {
    let mut section = S::default();
    section.set("url", written, errors);
    section
}

fn read_octets(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut octets = Vec::new();
    let file = File::open(path).map_err(Fault::Unreadable)?;
    // One more than fits, to see whether there is more.
    let max = u64::try_from(FILE_OCTETS_MAX).unwrap_or(u64::MAX);
    file.take(max.saturating_add(1))
        .read_to_end(&mut octets)
        .map_err(Fault::Unreadable)?;
    if octets.len() > FILE_OCTETS_MAX {
        return Err(Fault::TooLong {
            max: FILE_OCTETS_MAX,
        });
    }
    Ok(octets)
}

/// `key` as TOML spells it.
fn bare(key: &str) -> String {
    let is_bare = (1..=FOUND_CHARS_MAX).contains(&key.len())
        && key
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
    if is_bare { key.to_owned() } else { quoted(key) }
}

const FIELDS_FIT: &str =
    "a list of one or more fields, such as [\"hostname\", \"app_name\", \"msg\"]";
const MASK_FIT: &str = "a list of masks, such as [\"number\", \"ipv4\"]; [] is none";
