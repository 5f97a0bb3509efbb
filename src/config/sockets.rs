//! Datagram sockets: how many a configuration takes, and whether so many are believable.
//!
//! # Guarantees
//!
//! - A configuration that would take more than [`DATAGRAM_SOCKETS_MAX`] is refused with the numbers.
//!
//! # Left out
//!
//! How many threads the system allows: that is found out by making them.

use super::error::{At, ConfigError, Fault};
use super::resolve::Placed;
use super::url::ListenUrl;
use crate::limits::DATAGRAM_SOCKETS_MAX;

/// Sockets that receive datagrams at `url`, each of which has a thread: one per worker for UDP.
const fn datagram_sockets(url: &ListenUrl, workers: usize) -> usize {
    match url {
        ListenUrl::Udp(_) => workers,
        ListenUrl::UnixDgram(_) => 1,
        ListenUrl::Tcp(_) | ListenUrl::Relp(_) | ListenUrl::UnixStream(_) => 0,
    }
}

/// Refuses more sockets than are believable. Blames `workers_at`, or the listener that is one too many.
pub(super) fn refuse_too_many(
    listeners: &[Placed],
    workers: usize,
    workers_at: Option<&At>,
    errors: &mut Vec<ConfigError>,
) {
    let (mut count, mut sockets) = (0_usize, 0_usize);
    let mut first_beyond = None;
    for listener in listeners {
        let more = datagram_sockets(&listener.config.url, workers);
        count += usize::from(more > 0);
        sockets = sockets.saturating_add(more);
        if sockets > DATAGRAM_SOCKETS_MAX && first_beyond.is_none() {
            first_beyond = Some(&listener.url_at);
        }
    }
    if let Some(beyond) = first_beyond {
        errors.push(ConfigError {
            at: workers_at.unwrap_or(beyond).clone(),
            fault: Fault::TooManySockets {
                listeners: count,
                workers,
                sockets,
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;

    use super::super::{ConfigErrors, file, resolve};

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
        let mut errors = Vec::new();
        let file = file::parse(&Arc::from("t.toml"), toml.as_bytes(), &mut errors);
        resolve::resolve(file, None, &mut errors);
        ConfigErrors::if_any(errors).map_or_else(|errors| errors.to_string(), |()| String::new())
    }

    #[test]
    fn believable_numbers_are_taken() {
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
             thread of its own (a udp listener takes one per worker); fits: at most 4096 sockets, by fewer workers or \
             fewer listeners"
        );
    }

    /// The workers are not written: the listener that is one too many is.
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
