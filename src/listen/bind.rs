//! Binding: turns a listener's URL into sockets that are ready to be read.
//!
//! ```text
//! Prepared::new ──▶ what can fail and disturbs nothing ──▶ finish ──▶ Bound: receives from now on
//! ```
//!
//! # Guarantees
//!
//! - A prepared socket takes nothing away from another one, and a prepared stream socket does not listen yet. So a reload
//!   that fails after preparing has no effect.
//! - An address that another listener of this relay is about to leave can be bound.
//! - A child process never inherits a bound socket.
//!
//! # Left out
//!
//! Reading. Which listeners leave: see `daemon`.

use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixDatagram, UnixListener as StdUnixListener},
        },
    },
    path::Path,
    sync::Arc,
};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{
    bind_error::BindError,
    bound::{Bound, WeakBound},
    passed::PassedSockets,
    path::{self, MovedPath, OwnedPath},
};
use crate::{
    config::{ListenUrl, ListenerConfig},
    thread::Waiting,
};

/// A listener of this relay that will leave an address which another one wants.
#[derive(Clone, Debug)]
pub(crate) struct Rival {
    pub name: String,
    pub url: ListenUrl,
    pub sockets: WeakBound,
}

/// What binding a listener depends on besides its settings.
#[derive(Debug, Default)]
pub(crate) struct Circumstances {
    /// The number of UDP sockets.
    pub workers: usize,
    /// `[::]` takes IPv6 alone.
    pub only_v6: bool,
    /// Listeners that have the address and will leave it.
    pub rivals: Vec<Rival>,
}

/// A listener for which everything that disturbs no other has been done.
#[derive(Debug)]
pub(crate) struct Prepared {
    config: ListenerConfig,
    circumstances: Circumstances,
    /// For errors: lists the passed-in sockets, if there are any.
    hint: String,
    /// A passed-in socket that has the address under another URL.
    holder: Option<ListenUrl>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Bound(Bound),
    /// Bound, but not listening yet.
    Stream(Socket),
    /// Not bound yet: it would take messages away from a rival.
    Later,
}

impl Prepared {
    /// Prepares what `config` asks for, or takes the socket with that address out of `passed`.
    ///
    /// # Errors
    ///
    /// The address is taken, not ours, or not permitted; the path is unfit.
    pub(crate) fn new(
        config: &ListenerConfig,
        passed: &mut PassedSockets,
        circumstances: Circumstances,
    ) -> Result<Self, BindError> {
        let mut prepared = Self {
            config: config.clone(),
            circumstances,
            hint: String::new(),
            holder: None,
            way: Way::Later,
        };
        if let Some(bound) = passed.take(config) {
            prepared.way = Way::Bound(bound);
            return Ok(prepared);
        }
        prepared.holder = passed.overlapping(&config.url).cloned();
        // The passed-in socket is at the path itself, as a socket of the other type.
        if config.url.path().is_some() && prepared.holder.is_some() {
            return Err(prepared.error(io::ErrorKind::AddrInUse.into()));
        }
        if !passed.is_empty() {
            prepared.hint = format!(
                "; the service manager passed in {passed}: a listener with exactly that url takes the socket"
            );
        }
        let has_rivals = !prepared.circumstances.rivals.is_empty();
        prepared.way = match &config.url {
            _ if has_rivals => Way::Later,
            ListenUrl::Tcp(address) | ListenUrl::Relp(address) => {
                let socket = bind_tcp(*address, prepared.circumstances.only_v6, false);
                Way::Stream(socket.map_err(|source| prepared.error(source))?)
            }
            _ => Way::Bound(prepared.bind()?),
        };
        Ok(prepared)
    }

    /// A listener that takes over bound sockets.
    #[must_use]
    pub(crate) fn taking_over(config: &ListenerConfig, bound: Bound) -> Self {
        Self {
            config: config.clone(),
            circumstances: Circumstances::default(),
            hint: String::new(),
            holder: None,
            way: Way::Bound(bound),
        }
    }

    /// Threads to read its datagram sockets, one each. Streams need none.
    ///
    /// # Errors
    ///
    /// The system makes fewer.
    pub(crate) fn readers(&self) -> io::Result<Vec<Waiting>> {
        let sockets = match (&self.way, &self.config.url) {
            (Way::Bound(Bound::Udp(sockets)), _) => sockets.len(),
            (_, ListenUrl::Udp(_)) => self.circumstances.workers.max(1),
            (_, ListenUrl::UnixDgram(_)) => 1,
            (_, ListenUrl::Tcp(_) | ListenUrl::Relp(_) | ListenUrl::UnixStream(_)) => 0,
        };
        Waiting::several("tersed-datagram", sockets)
    }

    /// Lets the sockets receive. Also returns the path that was moved away for them: dropping that restores it.
    ///
    /// # Errors
    ///
    /// The address is taken, not ours, or not permitted; the path is unfit.
    pub(crate) fn finish(mut self) -> Result<(Bound, Option<MovedPath>), BindError> {
        match std::mem::replace(&mut self.way, Way::Later) {
            Way::Bound(bound) => Ok((bound, None)),
            Way::Stream(socket) => {
                let listening = listen(socket).map_err(|source| self.error(source))?;
                Ok((Bound::Tcp(Arc::new(listening)), None))
            }
            Way::Later => {
                let moved = self.move_path_away()?;
                let _shared = self.share();
                Ok((self.bind()?, moved))
            }
        }
    }

    /// Moves our own socket at the path out of the way.
    fn move_path_away(&self) -> Result<Option<MovedPath>, BindError> {
        let rivals = self.circumstances.rivals.iter();
        // Sockets that earlier reloads moved away have no path any more.
        let mut moved = rivals
            .filter_map(|rival| rival.sockets.path())
            .filter_map(|owned| MovedPath::move_away(&owned).transpose());
        moved
            .next()
            .transpose()
            .map_err(|source| self.error(source))
    }

    fn bind(&self) -> Result<Bound, BindError> {
        let Self {
            config,
            circumstances,
            ..
        } = self;
        let &Circumstances {
            workers, only_v6, ..
        } = circumstances;
        let error = |source| self.error(source);
        let has_rivals = !circumstances.rivals.is_empty();
        let bound = match &config.url {
            ListenUrl::Udp(address) => {
                let sockets = bind_udp(*address, workers, only_v6, has_rivals).map_err(error)?;
                Bound::Udp(sockets.into_iter().map(Arc::new).collect())
            }
            ListenUrl::Tcp(address) | ListenUrl::Relp(address) => {
                let socket = bind_tcp(*address, only_v6, has_rivals).map_err(error)?;
                let bound = listen(socket).map_err(error)?;
                // Otherwise another process of this user could share the port.
                if let Err(error) = SockRef::from(&bound).set_reuse_port(false) {
                    tracing::debug!(%error, "cannot clear SO_REUSEPORT; another process could share the port");
                }
                Bound::Tcp(Arc::new(bound))
            }
            ListenUrl::UnixDgram(path) => {
                path::clear(&config.name, path, Type::DGRAM)?;
                let socket = bind_unix(path, Type::DGRAM, config.unix_mode).map_err(error)?;
                let owned = Arc::new(OwnedPath::new(path).map_err(error)?);
                let socket = UnixDatagram::from(OwnedFd::from(socket));
                Bound::UnixDgram(Arc::new(socket), owned)
            }
            ListenUrl::UnixStream(path) => {
                path::clear(&config.name, path, Type::STREAM)?;
                let socket = bind_unix(path, Type::STREAM, config.unix_mode).map_err(error)?;
                socket.listen(BACKLOG).map_err(error)?;
                let listener = StdUnixListener::from(OwnedFd::from(socket));
                let owned = Arc::new(OwnedPath::new(path).map_err(error)?);
                let listener = UnixListener::from_std(listener).map_err(error)?;
                Bound::UnixStream(Arc::new(listener), owned)
            }
        };
        bound.set_receive_buffer(config.receive_buffer);
        Ok(bound)
    }

    /// Lets rivals share their address until the returned guard is dropped.
    fn share(&self) -> Shared<'_> {
        let shared = Shared(&self.circumstances.rivals);
        shared.set(true);
        shared
    }

    fn error(&self, source: io::Error) -> BindError {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
        let (name, url) = (self.config.name.clone(), self.config.url.to_string());
        let kind = source.kind();
        if let (AddrInUse | PermissionDenied, Some(holder)) = (kind, &self.holder) {
            return BindError::Passed {
                name,
                url,
                source,
                holder: holder.clone(),
            };
        }
        let is_unix = self.config.url.path().is_some();
        let hint = match kind {
            PermissionDenied if is_unix => {
                "; give this user write access to the directory, or choose another path"
            }
            PermissionDenied => {
                "; ports below 1024 need CAP_NET_BIND_SERVICE or a socket passed in by systemd"
            }
            AddrInUse => {
                "; another process has this address, or part of it: `ss -lnp` names it; stop it, or use another address"
            }
            AddrNotAvailable => {
                "; no interface of this machine has this address: `ip address` lists the addresses"
            }
            _ if source.raw_os_error() == Some(libc::EMFILE) => {
                "; raise LimitNOFILE= (ulimit -n) and restart, or configure fewer listeners and workers"
            }
            _ if source.raw_os_error() == Some(libc::ENFILE) => {
                "; the machine has too many open files: raise fs.file-max"
            }
            NotFound if is_unix => {
                "; create the directory (RuntimeDirectory= of a unit creates one below /run)"
            }
            _ => "",
        };
        // Rivals share their address, so another process must have it.
        let of_rival = match (kind, self.circumstances.rivals.first()) {
            (AddrInUse, Some(rival)) => format!(
                " (listener \"{}\" of this relay, {}, is not the cause: it would have handed over its address)",
                rival.name, rival.url
            ),
            _ => String::new(),
        };
        let of_passed = match kind {
            AddrInUse | PermissionDenied => self.hint.as_str(),
            _ => "",
        };
        BindError::Bind {
            name,
            url,
            source,
            hint: format!("{hint}{of_rival}{of_passed}"),
        }
    }
}

/// Rivals that share their address while this exists.
struct Shared<'r>(&'r [Rival]);

impl Shared<'_> {
    fn set(&self, is_shared: bool) {
        for rival in self.0 {
            let set = match rival.sockets.upgrade() {
                // UDP sockets always share their address.
                Some(Bound::Tcp(listener)) => {
                    SockRef::from(listener.as_ref()).set_reuse_port(is_shared)
                }
                _ => Ok(()),
            };
            if let Err(error) = set {
                tracing::debug!(%error, "cannot change SO_REUSEPORT");
            }
        }
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Bound {
    /// Binds the sockets of `config`, or takes the one with that address out of `passed`. `workers` is the number of UDP
    /// sockets.
    ///
    /// # Errors
    ///
    /// The address is taken, not ours, or not permitted; the path is unfit.
    pub(crate) fn bind(
        config: &ListenerConfig,
        passed: &mut PassedSockets,
        workers: usize,
        only_v6: bool,
    ) -> Result<Self, BindError> {
        let circumstances = Circumstances {
            workers,
            only_v6,
            rivals: Vec::new(),
        };
        let (bound, _) = Prepared::new(config, passed, circumstances)?.finish()?;
        Ok(bound)
    }
}

/// Binds one socket per worker to one address. With port 0, all use the first socket's port.
fn bind_udp(
    mut address: SocketAddr,
    workers: usize,
    only_v6: bool,
    has_rivals: bool,
) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        only_its_family(&socket, address, only_v6)?;
        if sockets.is_empty() && address.port() != 0 && !has_rivals {
            // SO_REUSEPORT alone would let a second relay of the same user share the address unnoticed and receive half
            // of the messages.
            refuse_shared(address, only_v6)?;
        }
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn refuse_shared(address: SocketAddr, only_v6: bool) -> io::Result<()> {
    let alone = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    only_its_family(&alone, address, only_v6)?;
    alone.bind(&address.into())
}

/// Binds a socket that does not listen yet.
fn bind_tcp(address: SocketAddr, only_v6: bool, has_rivals: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    only_its_family(&socket, address, only_v6)?;
    // Connections of an earlier run in TIME-WAIT must not prevent a start.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(has_rivals)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens, and only then registers the socket with the runtime, which would report one that does not listen as closed.
fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes `[::]` accept IPv4 as well, whatever `net.ipv6.bindv6only` is, unless `only_v6` is set. Any other address
/// accepts its own family only.
fn only_its_family(socket: &Socket, address: SocketAddr, only_v6: bool) -> io::Result<()> {
    match address {
        SocketAddr::V6(v6) => socket.set_only_v6(only_v6 || !v6.ip().is_unspecified()),
        SocketAddr::V4(_) => Ok(()),
    }
}

fn bind_unix(path: &Path, kind: Type, mode: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    // Linux gives the path the socket's mode minus the umask: never more access than configured.
    fchmod(&socket, Mode::from_bits_truncate(mode)).map_err(io::Error::from)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Now exactly the configured mode. A stream socket does not listen yet.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(socket)
}

/// How many connections may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
