//! The sockets of a configuration: which fit together, and how many there are.
//!
//! # Guarantees
//!
//! - Two listeners whose sockets the system does not allow together are refused, however they are spelled.
//! - `0.0.0.0` and `[::]` fit together on one port: then `[::]` takes IPv6 alone ([`takes_only_v6`]).
//! - An upstream that visibly leads to the relay itself is refused: to a listener, to the admin address, or to a file at
//!   the path of a listener's socket.
//! - A configuration that would need more than [`DATAGRAM_SOCKETS_MAX`] sockets is refused with the numbers.
//!
//! # Left out
//!
//! How many threads the system allows: only making them can tell. Whether another process has an address.
//! A directory that does not exist yet causes a warning only: service managers make `/run/tersed` at the start.

use std::path::{Path, PathBuf};

use super::error::{At, Fault, escaped, quoted};
use super::report::Report;
use super::url::{ListenUrl, UpstreamUrl};
use super::{Config, ListenerConfig, UpstreamConfig};
use crate::core::limits::DATAGRAM_SOCKETS_MAX;

/// Whether `url` is `[::]`, and one of `listeners` takes IPv4 on the same port: then `[::]` takes IPv6 alone.
#[must_use]
pub(crate) fn takes_only_v6(url: &ListenUrl, listeners: &[ListenerConfig]) -> bool {
    let is_any = |url: &ListenUrl, is_v6: bool| {
        url.address()
            .is_some_and(|address| address.ip().is_unspecified() && address.is_ipv6() == is_v6)
    };
    is_any(url, true)
        && listeners
            .iter()
            .any(|other| is_any(&other.url, false) && other.url.overlaps(url))
}

/// What was expected instead of `new`, which collides with `other`.
pub(super) fn expected_beside(new: &ListenUrl, other: &ListenUrl) -> &'static str {
    if new.address() == other.address() {
        "an address or path that no other listener has"
    } else {
        "an address that no other listener takes (0.0.0.0 takes each IPv4 address of its port, and [::] each address)"
    }
}

/// Where the URL of the listener with this `index` was written.
pub(super) fn place_of_listener(index: usize, listeners: &[ListenerConfig], report: &Report) -> At {
    let at = report.at(&format!("listener[{index}].url"));
    let default = || At::Default(format!("listener {}", listeners[index].url));
    at.cloned().unwrap_or_else(default)
}

/// Where the URL of the upstream with this `index` was written.
pub(super) fn place_of_upstream(index: usize, upstreams: &[UpstreamConfig], report: &Report) -> At {
    let at = report.at(&format!("forward.to[{index}].url"));
    let default = || At::Default(format!("upstream {}", upstreams[index].url));
    at.cloned().unwrap_or_else(default)
}

/// Refuses Unix sockets whose paths lead to one place (`..`, symbolic links).
pub(super) fn refuse_one_path(listeners: &[ListenerConfig], report: &mut Report) {
    let mut places: Vec<(PathBuf, usize)> = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let Some(path) = listener.url.path() else {
            continue;
        };
        let Some(place) = place(path) else { continue };
        if let Some((_, other)) = places.iter().find(|(other, _)| *other == place)
            // The same spelling is refused already.
            && listeners[*other].url.path() != Some(path)
        {
            let expected = "a path that no other listener has; both lead to the same place";
            let at = place_of_listener(index, listeners, report);
            let other = place_of_listener(*other, listeners, report);
            report.taken(&at, &listener.url.to_string(), other, expected);
        }
        places.push((place, index));
    }
}

/// The real path of a socket at `path`, if its directory exists.
fn place(path: &Path) -> Option<PathBuf> {
    let directory = path.parent()?.canonicalize().ok()?;
    Some(directory.join(path.file_name()?))
}

/// Refuses the upstream `url`, which was written `at`, if it leads to a listener or to the admin address.
pub(super) fn refuse_loop(url: &UpstreamUrl, at: &At, config: &Config, report: &mut Report) {
    let listeners = 0..config.listeners.len();
    let to_listener = listeners
        .into_iter()
        .find_map(|index| leads_to(url, index, &config.listeners, report));
    if let Some(fault) = to_listener.or_else(|| leads_to_admin(url, config, report)) {
        report.fault(at, fault);
    }
}

fn leads_to(
    upstream: &UpstreamUrl,
    index: usize,
    listeners: &[ListenerConfig],
    report: &Report,
) -> Option<Fault> {
    let found = quoted(&upstream.to_string());
    let url = &listeners[index].url;
    let at = || place_of_listener(index, listeners, report);
    let has_path = upstream.path().zip(url.path()).is_some_and(|(one, two)| {
        one == two || place(one).is_some_and(|one| Some(one) == place(two))
    });
    if url.receives_from(upstream) || has_path && url.transport() == upstream.transport() {
        return Some(Fault::Loop {
            found,
            listener: at(),
        });
    }
    has_path.then(|| Fault::Taken {
        found,
        other: at(),
        expected: "a path that no listener of this relay has",
    })
}

fn leads_to_admin(upstream: &UpstreamUrl, config: &Config, report: &Report) -> Option<Fault> {
    let address = config.admin?;
    let at = report.at("admin.address")?;
    let as_listeners = [ListenUrl::Tcp(address), ListenUrl::Relp(address)];
    let leads_there = as_listeners.iter().any(|url| url.receives_from(upstream));
    leads_there.then(|| Fault::Taken {
        found: quoted(&upstream.to_string()),
        other: at.clone(),
        expected: "an upstream elsewhere: the admin address of this relay takes no messages",
    })
}

/// What is odd about the sockets of `listeners`.
pub(super) fn warnings(listeners: &[ListenerConfig]) -> Vec<String> {
    let lost = listeners.iter().filter_map(|listener| {
        let directory = listener.url.path()?.parent()?;
        let name = escaped(&listener.name);
        let what = match directory.metadata() {
            Ok(metadata) if metadata.is_dir() => return None,
            Ok(_) => "is not a directory",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist",
            Err(_) => return None,
        };
        let directory = escaped(&directory.to_string_lossy());
        Some(format!(
            "listener \"{name}\": the directory {directory} {what}; tersed does not start without it: create it \
             (RuntimeDirectory= of a unit creates one below /run)"
        ))
    });
    lost.collect()
}

/// The number of sockets, each with a thread, that receive datagrams at `url`: one per worker for UDP.
const fn datagram_sockets(url: &ListenUrl, workers: usize) -> usize {
    match url {
        ListenUrl::Udp(_) => workers,
        ListenUrl::UnixDgram(_) => 1,
        ListenUrl::Tcp(_) | ListenUrl::Relp(_) | ListenUrl::UnixStream(_) => 0,
    }
}

/// Refuses too many sockets. The error is that of the number of workers, if it is written, or else of the first listener
/// beyond the limit.
pub(super) fn refuse_too_many(config: &Config, report: &mut Report) {
    let (mut count, mut sockets) = (0_usize, 0_usize);
    let mut first_beyond = None;
    for (index, listener) in config.listeners.iter().enumerate() {
        let more = datagram_sockets(&listener.url, config.workers);
        count += usize::from(more > 0);
        sockets = sockets.saturating_add(more);
        if sockets > DATAGRAM_SOCKETS_MAX && first_beyond.is_none() {
            first_beyond = Some(index);
        }
    }
    if let Some(beyond) = first_beyond {
        let workers_at = report.at("runtime.workers").cloned();
        let at = workers_at.unwrap_or_else(|| place_of_listener(beyond, &config.listeners, report));
        let fault = Fault::TooManySockets {
            listeners: count,
            workers: config.workers,
            sockets,
        };
        report.fault(&at, fault);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use std::fmt::Write as _;

    fn errors(runtime: &str, udp: usize, unix: usize) -> String {
        let mut toml = format!("[runtime]\n{runtime}\n");
        for number in 0..udp {
            writeln!(
                toml,
                "[[listener]]\nurl = \"udp://127.0.0.1:{}\"",
                10_000 + number
            )
            .unwrap();
        }
        for number in 0..unix {
            writeln!(toml, "[[listener]]\nurl = \"unix-dgram:///run/{number}\"").unwrap();
        }
        Config::of_text("t.toml", &toml).map_or_else(|errors| errors.to_string(), |_| String::new())
    }

    #[test]
    fn numbers_within_the_limit_are_accepted() {
        for (workers, udp, unix) in [(600, 1, 0), (2, 260, 0), (1024, 4, 0), (1, 4000, 96)] {
            assert_eq!(
                errors(&format!("workers = {workers}"), udp, unix),
                "",
                "{workers} {udp} {unix}"
            );
        }
    }

    #[test]
    fn too_many_are_refused_with_the_numbers() {
        assert_eq!(
            errors("workers = 600", 6, 497),
            "t.toml:2: runtime.workers: 503 udp and unix-dgram listeners with 600 workers take 4097 sockets, each with a \
             thread of its own (a udp listener takes one per worker), expected at most 4096 sockets; configure fewer workers or \
             fewer listeners"
        );
    }

    fn of_two(one: &str, two: &str) -> String {
        let toml = format!("[[listener]]\nurl = \"{one}\"\n[[listener]]\nurl = \"{two}\"\n");
        Config::of_text("t.toml", &toml).map_or_else(|errors| errors.to_string(), |_| String::new())
    }

    #[test]
    fn a_listener_that_takes_each_address_of_a_port_leaves_none_to_others() {
        assert_eq!(
            of_two("udp://0.0.0.0:514", "udp://127.0.0.1:514"),
            "t.toml:4: listener[1].url: \"udp://127.0.0.1:514\" is already taken (t.toml:2: listener[0].url), expected an \
             address that no other listener takes (0.0.0.0 takes each IPv4 address of its port, and [::] each address)"
        );
        for (one, two) in [
            ("tcp://127.0.0.1:514", "relp://0.0.0.0:514"),
            ("tcp://[::]:514", "tcp://127.0.0.1:514"),
            ("udp://[::1]:514", "udp://[::]:514"),
        ] {
            assert!(of_two(one, two).contains("is already taken"), "{one} {two}");
        }
        for (one, two) in [
            ("tcp://127.0.0.1:514", "tcp://127.0.0.2:514"),
            ("tcp://0.0.0.0:514", "udp://127.0.0.1:514"),
            ("tcp://[::]:514", "tcp://0.0.0.0:514"),
            ("udp://[::1]:514", "udp://0.0.0.0:514"),
        ] {
            assert_eq!(of_two(one, two), "", "{one} {two}");
        }
    }

    #[test]
    fn one_path_under_two_spellings_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let url = |path: &str| format!("unix-dgram://{}/{path}", dir.path().display());
        for other in ["link/s", "real/../real/s"] {
            let text = of_two(&url("real/s"), &url(other));
            assert!(text.contains("both lead to the same place"), "{text}");
        }
        assert_eq!(of_two(&url("real/s"), &url("link/t")), "");
    }

    /// The number of workers is not written, so the listener beyond the limit is blamed.
    #[test]
    fn a_default_is_not_blamed() {
        let text = errors("", 4097, 0);
        let (place, _) = text.split_once(": ").unwrap();
        assert!(
            place.starts_with("t.toml:") && !text.contains("runtime"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
