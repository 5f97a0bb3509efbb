//! Why a listener cannot listen, in words for the operator.
//!
//! # Guarantees
//!
//! - Each error names the listener, or the passed-in socket that has none, and its address or path.
//! - If we know what the operator can do, the error says it.
//!
//! # Left out
//!
//! Finding out what is wrong: see `bind` for addresses, `path` for paths, and `daemon` for passed-in sockets that no
//! listener names.

use std::{io, path::PathBuf};

use crate::config::ListenUrl;

/// Why a listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("listener \"{name}\": cannot bind {url}: {source}{hint}")]
    Bind {
        name: String,
        /// The URL or path.
        url: String,
        source: io::Error,
        /// What the operator can do.
        hint: String,
    },
    /// The service manager passed in a socket that has the address under another URL.
    #[error(
        "listener \"{name}\": cannot bind {url}: {source}; the service manager passed in {holder}, which has this address; \
         write that URL, or change ListenStream=, ListenDatagram= of the .socket unit and restart it"
    )]
    Passed {
        name: String,
        url: String,
        source: io::Error,
        /// The URL of the passed-in socket.
        holder: ListenUrl,
    },
    /// No listener names a passed-in socket, and a configured listener restricts its senders.
    #[error(
        "the service manager passed in {url}, which no listener names: it would accept every sender, because no allow \
         applies, while listener \"{listener}\" has allow; add [[listener]] url = \"{url}\" with the allow that it needs, \
         or remove the socket from the .socket unit"
    )]
    Unnamed {
        url: ListenUrl,
        /// A listener with `allow`.
        listener: String,
    },
    /// Something that is not a socket is where the socket should be.
    #[error("listener \"{name}\": {} is {found}, not a socket; remove it or choose another path", path.display())]
    Occupied {
        name: String,
        path: PathBuf,
        found: &'static str,
    },
    /// A running process listens on the path.
    #[error(
        "listener \"{name}\": another process is listening on {path}; `ss -xlp src {path}` names it; stop it or choose \
         another path", path = path.display()
    )]
    InUse { name: String, path: PathBuf },
}
