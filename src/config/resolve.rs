//! From what is written to what runs: defaults filled in, and everything checked that takes more than
//! one key to judge.
//!
//! # Guarantees
//!
//! - A key that was refused already is never the reason for a second error.
//! - Every error names a key that was written; a default alone is never blamed.

use std::net::SocketAddr;

use super::cost::{OwnMasks, refuse_costly_patterns};
use super::error::{At, ConfigError, Fault, quoted};
use super::file::{
    AdminFile, ConfigFile, DedupFile, ForwardFile, ListenerFile, LogFile, MaskFile, RuntimeFile,
    ShutdownFile, SpoolFile, SuppressedFile, UpstreamFile,
};
use super::fit::Fit;
use super::masks::unused;
use super::rules::{PolicyFile, policy, rules};
use super::sockets;
use super::url::{ListenUrl, UpstreamUrl};
use super::value::{Given, Slot, size_text, time_text};
use super::{
    Config, DedupConfig, ForwardConfig, ListenerConfig, LogConfig, Remarks, Rotation, SpoolConfig,
    SuppressedConfig, UpstreamConfig,
};

/// Makes a `Config` of `file`. It is worth running if there was no error, here or before. `running` is how many shards
/// a relay has that runs already.
pub(super) fn resolve(
    file: ConfigFile,
    running: Option<usize>,
    errors: &mut Vec<ConfigError>,
) -> Config {
    let default = Config::default();
    let fit = Fit::of(&file);
    let forward_file = file.forward.or(ForwardFile::default());
    let admin_file = file.admin.or(AdminFile::default());
    let shutdown_file = file.shutdown.or(ShutdownFile::default());
    let runtime_file = file.runtime.or(RuntimeFile::default());

    let listeners = listeners(file.listener, default.listeners, errors);
    refuse_admin_on_listener(&admin_file, &listeners, errors);
    let workers_at = runtime_file.workers.at().cloned();
    let workers = runtime_file.workers.or(None).unwrap_or(default.workers);
    sockets::refuse_one_path(&listeners, errors);
    sockets::refuse_too_many(&listeners, workers, workers_at.as_ref(), errors);
    let (forward, upstreams) = forward(forward_file, default.forward, &listeners, errors);
    sockets::refuse_loops(&upstreams, &listeners, &admin_file.address, errors);
    let suppressed_file = file.suppressed.or(SuppressedFile::default());
    let suppressed = suppressed(
        suppressed_file,
        default.suppressed,
        &upstreams,
        &listeners,
        &admin_file.address,
        errors,
    );
    let masks = file.mask.or(MaskFile::default()).patterns;
    refuse_costly_patterns(&masks, errors);
    let masks = OwnMasks::new(masks.into_iter().map(|given| given.value).collect());
    let dedup_file = file.dedup.or(DedupFile::default());
    let mut dedup = dedup(dedup_file, default.dedup, &masks, errors);
    let rules = rules(file.rule, &dedup.policy, &masks, errors);
    fit.settle(&mut dedup, &rules, running, errors);
    let remarks = Remarks(unused(&masks, &rules));
    Config {
        listeners: listeners
            .into_iter()
            .map(|listener| listener.config)
            .collect(),
        forward: ForwardConfig {
            to: upstreams.into_iter().map(|given| given.value).collect(),
            ..forward
        },
        spool: spool(file.spool.or(SpoolFile::default()), default.spool),
        suppressed,
        rules,
        dedup,
        admin: admin_file.address.or(default.admin),
        shutdown_grace: shutdown_file.grace.or(default.shutdown_grace),
        log: log(file.log.or(LogFile::default()), default.log),
        workers,
        remarks,
    }
}

/// A listener, and where the keys that others may clash with were written.
pub(super) struct Placed {
    pub(super) config: ListenerConfig,
    pub(super) url_at: At,
    /// `None` if the name is a default one.
    name_at: Option<At>,
}

fn listeners(
    slot: Slot<Vec<Given<ListenerFile>>>,
    default: Vec<ListenerConfig>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Placed> {
    let given = match slot {
        Slot::Given(given) => given.value,
        // Nothing can be said about what was meant.
        Slot::Refused => return Vec::new(),
        Slot::Absent => {
            let placed = |config: ListenerConfig| Placed {
                url_at: At::Default(format!("listener {}", config.url)),
                name_at: None,
                config,
            };
            return default.into_iter().map(placed).collect();
        }
    };
    let mut listeners: Vec<Placed> = Vec::with_capacity(given.len());
    for file in given {
        let Some(mut new) = listener(file, errors) else {
            continue;
        };
        refuse_taken(&mut new, &listeners, errors);
        listeners.push(new);
    }
    listeners
}

fn listener(file: Given<ListenerFile>, errors: &mut Vec<ConfigError>) -> Option<Placed> {
    let Given { value: file, at } = file;
    let url = match file.url {
        Slot::Given(ref given) => given.clone(),
        Slot::Refused => return None,
        Slot::Absent => {
            errors.push(ConfigError {
                at,
                fault: Fault::Missing { fits: URL_MISSING },
            });
            return None;
        }
    };
    refuse_without_effect(&file, &url.value, errors);
    let name_at = file.name.at().cloned();
    let default = ListenerConfig::new(url.value);
    let allow = file.allow.or(Vec::new());
    let config = ListenerConfig {
        name: file.name.or(default.name),
        url: default.url,
        framing: file.framing.or(default.framing),
        max_message_size: file.max_message_size.or(default.max_message_size),
        oversize: file.oversize.or(default.oversize),
        connections_max: file.connections_max.or(default.connections_max),
        connections_per_source_max: file
            .connections_per_source_max
            .or(default.connections_per_source_max),
        idle_timeout: file.idle_timeout.or(default.idle_timeout),
        partial_frame_timeout: file.partial_frame_timeout.or(default.partial_frame_timeout),
        window: file.window.or(default.window),
        ack: file.ack.or(default.ack),
        receive_buffer: file.receive_buffer.or(default.receive_buffer),
        unix_mode: file.unix_mode.or(default.unix_mode),
        allow: allow.into_iter().map(|network| network.value).collect(),
    };
    Some(Placed {
        config,
        url_at: url.at,
        name_at,
    })
}

/// A key that would silently do nothing is a misunderstanding, and worth an error.
fn refuse_without_effect(file: &ListenerFile, url: &ListenUrl, errors: &mut Vec<ConfigError>) {
    let stream = url.is_stream();
    let unix = url.path().is_some();
    let relp = url.is_relp();
    let streams = "tcp, relp and unix-stream listeners";
    let keys = [
        (
            file.framing.at(),
            url.has_framing(),
            "tcp and unix-stream listeners",
        ),
        (file.window.at(), relp, "relp listeners"),
        (file.ack.at(), relp, "relp listeners"),
        (file.connections_max.at(), stream, streams),
        (file.idle_timeout.at(), stream, streams),
        (file.partial_frame_timeout.at(), stream, streams),
        (
            file.connections_per_source_max.at(),
            stream && !unix,
            "tcp and relp listeners",
        ),
        (
            file.receive_buffer.at(),
            !stream,
            "udp and unix-dgram listeners",
        ),
        (file.allow.at(), !unix, "udp, tcp and relp listeners"),
        (
            file.unix_mode.at(),
            unix,
            "unix-dgram and unix-stream listeners",
        ),
    ];
    for (at, has_effect, fits) in keys {
        if let (Some(at), false) = (at, has_effect) {
            let fault = Fault::NoEffect {
                on: url.transport(),
                fits,
            };
            errors.push(ConfigError {
                at: at.clone(),
                fault,
            });
        }
    }
}

/// Refuses what one of the `others` has; a default name that is taken gets a number instead.
fn refuse_taken(new: &mut Placed, others: &[Placed], errors: &mut Vec<ConfigError>) {
    if let Some(other) = others
        .iter()
        .find(|other| other.config.url.collides_with(&new.config.url))
    {
        let fault = Fault::Taken {
            found: quoted(&new.config.url.to_string()),
            other: other.url_at.clone(),
            fits: sockets::fits_beside(&new.config.url, &other.config.url),
        };
        errors.push(ConfigError {
            at: new.url_at.clone(),
            fault,
        });
        return;
    }
    let holder = |name: &str| others.iter().find(|other| other.config.name == name);
    match (&new.name_at, holder(&new.config.name)) {
        (_, None) => {}
        (Some(at), Some(other)) => {
            let fault = Fault::Taken {
                found: quoted(&new.config.name),
                other: other.name_at.as_ref().unwrap_or(&other.url_at).clone(),
                fits: "a name that no other listener has",
            };
            errors.push(ConfigError {
                at: at.clone(),
                fault,
            });
        }
        (None, Some(_)) => {
            let numbered = |number| format!("{}#{number}", new.config.url);
            // One more number than there are names.
            let free = (2..).map(numbered).find(|name| holder(name).is_none());
            new.config.name = free.unwrap_or_default();
        }
    }
}

fn refuse_admin_on_listener(
    admin: &AdminFile,
    listeners: &[Placed],
    errors: &mut Vec<ConfigError>,
) {
    let Slot::Given(Given {
        value: Some(address),
        at,
    }) = &admin.address
    else {
        return;
    };
    let as_listener = ListenUrl::Tcp(*address);
    if let Some(other) = listeners
        .iter()
        .find(|other| other.config.url.overlaps(&as_listener))
    {
        let fault = Fault::Taken {
            found: quoted(&address.to_string()),
            other: other.url_at.clone(),
            fits: "an address and port of its own",
        };
        errors.push(ConfigError {
            at: at.clone(),
            fault,
        });
    }
}

/// Everything of `[forward]`; the upstreams apart, with their places.
fn forward(
    file: ForwardFile,
    default: ForwardConfig,
    listeners: &[Placed],
    errors: &mut Vec<ConfigError>,
) -> (ForwardConfig, Vec<Given<UpstreamConfig>>) {
    refuse_short_queue(&file.queue, listeners, errors);
    refuse_crossed_retries(&file, &default, errors);
    let upstreams = upstreams(file.to, default.to, errors);
    let forward = ForwardConfig {
        to: Vec::new(),
        strategy: file.strategy.or(default.strategy),
        queue: file.queue.or(default.queue),
        when_full: file.when_full.or(default.when_full),
        retry_min: file.retry_min.or(default.retry_min),
        retry_max: file.retry_max.or(default.retry_max),
        connect_timeout: file.connect_timeout.or(default.connect_timeout),
        send_timeout: file.send_timeout.or(default.send_timeout),
        resend_max: file.resend_max.or(Some(default.resend_max)).unwrap_or(0),
        resend_age: file.resend_age.or(default.resend_age),
        rebind: file.rebind.or(default.rebind),
        udp_max: file.udp_max.or(default.udp_max),
        line_breaks: file.line_breaks.or(default.line_breaks),
    };
    (forward, upstreams)
}

fn spool(file: SpoolFile, default: SpoolConfig) -> SpoolConfig {
    SpoolConfig {
        directory: file.directory.or(default.directory),
        max_size: file.max_size.or(default.max_size),
    }
}

fn upstreams(
    slot: Slot<Vec<Given<UpstreamFile>>>,
    default: Vec<UpstreamConfig>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Given<UpstreamConfig>> {
    let given = match slot {
        Slot::Given(given) => given.value,
        Slot::Refused => return Vec::new(),
        Slot::Absent => {
            let placed = |value: UpstreamConfig| {
                let at = At::Default(format!("upstream {}", value.url));
                Given { value, at }
            };
            return default.into_iter().map(placed).collect();
        }
    };
    let mut upstreams: Vec<Given<UpstreamConfig>> = Vec::with_capacity(given.len());
    for file in given {
        let Some(new) = upstream(file, Rotation::OFF, errors) else {
            continue;
        };
        if let Some(other) = upstreams
            .iter()
            .find(|other| other.value.url.is_same_place(&new.value.url))
        {
            let fault = Fault::Taken {
                found: quoted(&new.value.url.to_string()),
                other: other.at.clone(),
                fits: "each upstream once",
            };
            errors.push(ConfigError {
                at: new.at.clone(),
                fault,
            });
        }
        upstreams.push(new);
    }
    upstreams
}

fn upstream(
    file: Given<UpstreamFile>,
    rotation: Rotation,
    errors: &mut Vec<ConfigError>,
) -> Option<Given<UpstreamConfig>> {
    let Given { value: file, at } = file;
    match file.url.clone() {
        Slot::Given(Given { value: url, at }) => {
            if let (Some(at), true) = (file.framing.at(), !url.has_framing()) {
                let fits = "tcp, unix-stream, file and stdout upstreams";
                let fault = Fault::NoEffect {
                    on: url.transport(),
                    fits,
                };
                errors.push(ConfigError {
                    at: at.clone(),
                    fault,
                });
            }
            let is_file = matches!(url, UpstreamUrl::File(_));
            let rotation = if is_file { rotation } else { Rotation::OFF };
            refuse_rotation_without_effect(&file, &url, rotation, errors);
            let default = UpstreamConfig::new(url);
            let framing = file.framing.or(default.framing);
            let rotation = Rotation {
                size: file.rotate_size.or(rotation.size),
                age: file.rotate_age.or(rotation.age),
                keep: file.rotate_keep.or(rotation.keep),
                compression: file.compress.or(rotation.compression),
            };
            Some(Given {
                value: UpstreamConfig {
                    framing,
                    rotation,
                    ..default
                },
                at,
            })
        }
        Slot::Refused => None,
        Slot::Absent => {
            let fault = Fault::Missing {
                fits: UPSTREAM_URL_MISSING,
            };
            errors.push(ConfigError { at, fault });
            None
        }
    }
}

/// Refuses what would rotate something that is no file, and what is said of rotated files where nothing
/// rotates one.
fn refuse_rotation_without_effect(
    file: &UpstreamFile,
    url: &UpstreamUrl,
    default: Rotation,
    errors: &mut Vec<ConfigError>,
) {
    let when = [file.rotate_size.at(), file.rotate_age.at()];
    let what = [file.rotate_keep.at(), file.compress.at()];
    if !matches!(url, UpstreamUrl::File(_)) {
        for at in when.into_iter().chain(what).flatten() {
            errors.push(no_effect(at, url.transport(), "file upstreams"));
        }
        return;
    }
    let is_refused = file.rotate_size.is_refused() || file.rotate_age.is_refused();
    let size = file.rotate_size.clone().or(default.size);
    let age = file.rotate_age.clone().or(default.age);
    if size.is_none() && age.is_none() && !is_refused {
        for at in what.into_iter().flatten() {
            let fits = "a rotate_size or a rotate_age beside it";
            errors.push(no_effect(at, "a file that is not rotated", fits));
        }
    }
}

fn no_effect(at: &At, on: &'static str, fits: &'static str) -> ConfigError {
    ConfigError {
        at: at.clone(),
        fault: Fault::NoEffect { on, fits },
    }
}

/// A queue that cannot hold a message would keep it, and all behind it, for ever. The default queue
/// holds the longest that can be configured.
fn refuse_short_queue(queue: &Slot<usize>, listeners: &[Placed], errors: &mut Vec<ConfigError>) {
    let Slot::Given(queue) = queue else { return };
    let sizes = listeners
        .iter()
        .map(|listener| listener.config.max_message_size);
    let longest = sizes.max().unwrap_or(0);
    if queue.value < longest {
        let fits = format!("at least the longest message, {}", size_text(longest));
        errors.push(unfit(&queue.at, &size_text(queue.value), fits));
    }
}

fn refuse_crossed_retries(
    file: &ForwardFile,
    default: &ForwardConfig,
    errors: &mut Vec<ConfigError>,
) {
    if file.retry_min.is_refused() || file.retry_max.is_refused() {
        return;
    }
    let min = file.retry_min.clone().or(default.retry_min);
    let max = file.retry_max.clone().or(default.retry_max);
    if min <= max {
        return;
    }
    if let Some(at) = file.retry_max.at() {
        let fits = format!("at least forward.retry_min, {}", time_text(min));
        errors.push(unfit(at, &time_text(max), fits));
    } else if let Some(at) = file.retry_min.at() {
        let fits = format!("at most forward.retry_max, {}", time_text(max));
        errors.push(unfit(at, &time_text(min), fits));
    }
}

/// Everything of `[suppressed]`.
fn suppressed(
    file: SuppressedFile,
    default: SuppressedConfig,
    upstreams: &[Given<UpstreamConfig>],
    listeners: &[Placed],
    admin: &Slot<Option<SocketAddr>>,
    errors: &mut Vec<ConfigError>,
) -> SuppressedConfig {
    refuse_short_queue(&file.queue, listeners, errors);
    let to = match file.to {
        Slot::Given(to) => upstream(to, Rotation::OF_COPIES, errors),
        Slot::Refused => None,
        Slot::Absent => {
            for at in [file.queue.at(), file.when_full.at()].into_iter().flatten() {
                let fits = "a suppressed.to beside it";
                errors.push(no_effect(at, "copies that go nowhere", fits));
            }
            None
        }
    };
    if let Some(to) = &to {
        sockets::refuse_loops(std::slice::from_ref(to), listeners, admin, errors);
        // Two would write to one file, and an upstream would get what it is to be spared.
        let other = upstreams
            .iter()
            .find(|other| other.value.url.is_same_place(&to.value.url));
        if let Some(other) = other {
            let fault = Fault::Taken {
                found: quoted(&to.value.url.to_string()),
                other: other.at.clone(),
                fits: "a destination that is no upstream of survivors",
            };
            errors.push(ConfigError {
                at: to.at.clone(),
                fault,
            });
        }
    }
    SuppressedConfig {
        to: to.map(|given| given.value),
        queue: file.queue.or(default.queue),
        when_full: file.when_full.or(default.when_full),
    }
}

fn dedup(
    file: DedupFile,
    default: DedupConfig,
    masks: &OwnMasks,
    errors: &mut Vec<ConfigError>,
) -> DedupConfig {
    let keys = PolicyFile {
        section: "dedup",
        profile: None,
        window: file.window,
        allow: file.allow,
        refresh: file.refresh,
        max_quiet: file.max_quiet,
        summary: file.summary,
        mode: file.mode,
        fields: file.fields,
        mask: file.mask,
    };
    DedupConfig {
        policy: policy(keys, &default.policy, masks, errors),
        memory: file.memory.or(default.memory),
        identity: file.identity.or(default.identity),
        shards: default.shards,
        state: file.state.or(default.state),
    }
}

fn log(file: LogFile, default: LogConfig) -> LogConfig {
    LogConfig {
        level: file.level.or(default.level),
        format: file.format.or(default.format),
    }
}

pub(super) fn unfit(at: &At, found: &str, fits: String) -> ConfigError {
    ConfigError {
        at: at.clone(),
        fault: Fault::Unfit {
            found: quoted(found),
            fits,
        },
    }
}

const URL_MISSING: &str = "url = \"udp://ADDRESS:PORT\" or another of our listeners";
const UPSTREAM_URL_MISSING: &str = "url = \"tcp://HOST:PORT\" or another of our upstreams";
