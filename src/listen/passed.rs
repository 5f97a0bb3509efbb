//! Sockets passed in by the service manager (sd_listen_fds(3)).
//!
//! # Guarantees
//!
//! - A listener takes the socket that has its address, at the start or at a reload. A socket that no listener takes stays
//!   open, because the service manager keeps it open, too.
//! - A receive buffer that the service manager made larger than configured keeps its size.
//!
//! # Left out
//!
//! What happens to a socket that no listener takes: see `daemon`.

use std::{fmt, io, sync::Arc};

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use super::{bound::Bound, path::OwnedPath};
use crate::config::{ListenUrl, ListenerConfig};

/// The passed-in sockets, and which of them listeners have taken.
#[derive(Debug, Default)]
pub(crate) struct PassedSockets {
    sockets: Vec<Passed>,
}

#[derive(Debug)]
struct Passed {
    name: String,
    url: ListenUrl,
    bound: Bound,
    is_taken: bool,
}

impl PassedSockets {
    /// Takes over the sockets that the environment names. To be called once, inside the runtime, before anything else
    /// opens descriptors.
    ///
    /// # Errors
    ///
    /// A socket is not of one of the four kinds.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let mut fds = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Vec::with_capacity(fds.len());
        for index in 0..fds.len() {
            let name = names
                .next()
                .filter(|name| !name.is_empty())
                .unwrap_or(UNNAMED);
            let (url, bound) = take_passed(&mut fds, index)?;
            sockets.push(Passed {
                name: name.to_owned(),
                url,
                bound,
                is_taken: false,
            });
        }
        Ok(Self { sockets })
    }

    /// Takes the socket with the address of `config`, if one was passed in. The URL alone says which protocol is spoken
    /// on it.
    pub(crate) fn take(&mut self, config: &ListenerConfig) -> Option<Bound> {
        let passed = self
            .sockets
            .iter_mut()
            .find(|passed| config.url.has_socket_of(&passed.url))?;
        passed.is_taken = true;
        let bound = passed.bound.clone();
        bound.raise_receive_buffer(config.receive_buffer);
        Some(bound)
    }

    /// The sockets that no listener has taken, as listeners with default settings.
    pub(crate) fn rest(&mut self) -> Vec<(ListenerConfig, Bound)> {
        let rest = self.sockets.iter().filter(|passed| !passed.is_taken);
        let rest = rest.map(|passed| {
            let mut config = ListenerConfig::new(passed.url.clone());
            if passed.name != UNNAMED {
                config.name = format!("{} {}", passed.name, config.url);
            }
            passed.bound.raise_receive_buffer(config.receive_buffer);
            (config, passed.bound.clone())
        });
        rest.collect()
    }

    /// A passed-in socket that shares an address with `url`.
    #[must_use]
    pub(crate) fn overlapping(&self, url: &ListenUrl) -> Option<&ListenUrl> {
        let mut urls = self.sockets.iter().map(|passed| &passed.url);
        urls.find(|passed| passed.overlaps(url))
    }

    /// Whether the socket of a listener at `url` was passed in.
    #[must_use]
    pub(crate) fn has(&self, url: &ListenUrl) -> bool {
        self.sockets
            .iter()
            .any(|passed| url.has_socket_of(&passed.url))
    }

    /// The URLs of all passed-in sockets.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &ListenUrl> {
        self.sockets.iter().map(|passed| &passed.url)
    }

    /// Whether none was passed in.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

impl fmt::Display for PassedSockets {
    /// Lists the URL that takes each socket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, passed) in self.sockets.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            let taken = if passed.is_taken { " (taken)" } else { "" };
            write!(f, "{separator}{}{taken}", passed.url)?;
        }
        Ok(())
    }
}

fn take_passed(fds: &mut ListenFd, index: usize) -> io::Result<(ListenUrl, Bound)> {
    let unfit = || {
        io::Error::other(format!(
            "passed-in descriptor {index} is not a UDP, listening TCP or Unix socket; \
             check the .socket unit (ListenStream=, ListenDatagram=)"
        ))
    };
    if let Ok(Some(socket)) = fds.take_udp_socket(index) {
        socket.set_nonblocking(true)?;
        let url = ListenUrl::Udp(socket.local_addr()?);
        return Ok((url, Bound::Udp(vec![Arc::new(socket)])));
    }
    if let Ok(Some(listener)) = fds.take_tcp_listener(index) {
        listener.set_nonblocking(true)?;
        let url = ListenUrl::Tcp(listener.local_addr()?);
        let listener = TcpListener::from_std(listener)?;
        return Ok((url, Bound::Tcp(Arc::new(listener))));
    }
    if let Ok(Some(socket)) = fds.take_unix_datagram(index) {
        socket.set_nonblocking(true)?;
        let path = socket
            .local_addr()?
            .as_pathname()
            .ok_or_else(unfit)?
            .to_owned();
        let owned = Arc::new(OwnedPath::passed(&path));
        let bound = Bound::UnixDgram(Arc::new(socket), owned);
        return Ok((ListenUrl::UnixDgram(path), bound));
    }
    if let Ok(Some(listener)) = fds.take_unix_listener(index) {
        listener.set_nonblocking(true)?;
        let path = listener
            .local_addr()?
            .as_pathname()
            .ok_or_else(unfit)?
            .to_owned();
        let owned = Arc::new(OwnedPath::passed(&path));
        let listener = Arc::new(UnixListener::from_std(listener)?);
        let bound = Bound::UnixStream(listener, owned);
        return Ok((ListenUrl::UnixStream(path), bound));
    }
    Err(unfit())
}

/// The name of a socket without a `FileDescriptorName=`.
const UNNAMED: &str = "passed";
