//! Binding: an address in, sockets ready to be read out.
//!
//! # Guarantees
//!
//! - Nothing that exists is destroyed, except a Unix socket that nobody listens on.
//! - A symlink, a regular file, or somebody else's live socket at a Unix path is refused.
//! - No bound socket is ever inherited by a child.
//!
//! # Left out
//!
//! Reading.

use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, OwnedFd},
        linux::fs::MetadataExt as _,
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::{UnixDatagram, UnixListener as StdUnixListener},
        },
    },
    path::{Path, PathBuf},
};

use listenfd::ListenFd;
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    config::{ListenUrl, ListenerConfig},
    thread::Waiting,
};

/// Why a listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system said no.
    #[error("listener \"{name}\": cannot bind {url}: {source}{hint}")]
    Bind {
        /// The listener.
        name: String,
        /// What it was to be bound to.
        url: String,
        /// What the system said.
        source: io::Error,
        /// What would help.
        hint: &'static str,
    },
    /// Something that is not a socket is where the socket should be.
    #[error("listener \"{name}\": {} is {found}, not a socket; remove it or choose another path", path.display())]
    Occupied {
        /// The listener.
        name: String,
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A live process listens on the path.
    #[error("listener \"{name}\": another process is listening on {}", path.display())]
    InUse {
        /// The listener.
        name: String,
        /// The path.
        path: PathBuf,
    },
}

/// Sockets of one listener, bound.
#[derive(Debug)]
pub enum Bound {
    /// One socket per worker, or the one that was passed in.
    Udp(Vec<UdpSocket>),
    /// A listening socket.
    Tcp(TcpListener),
    /// A socket and its path.
    UnixDgram(UnixDatagram, OwnedPath),
    /// A listening socket and its path.
    UnixStream(UnixListener, OwnedPath),
}

impl Bound {
    /// Binds what `config` asks for, or takes the socket with that address out of `passed`. `workers`
    /// is the number of UDP sockets.
    ///
    /// # Errors
    ///
    /// The address is taken, not ours, or not permitted; the path is unfit.
    pub fn bind(
        config: &ListenerConfig,
        passed: &mut PassedSockets,
        workers: usize,
    ) -> Result<Self, BindError> {
        if let Some(bound) = passed.take(&config.url) {
            bound.set_receive_buffer(config.receive_buffer);
            return Ok(bound);
        }
        let bind_error = |source: io::Error| {
            let hint = match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; ports below 1024 need CAP_NET_BIND_SERVICE or a socket passed in by systemd"
                }
                io::ErrorKind::AddrInUse => "; another process has this address",
                io::ErrorKind::AddrNotAvailable => {
                    "; no interface of this machine has this address"
                }
                _ => "",
            };
            BindError::Bind {
                name: config.name.clone(),
                url: config.url.to_string(),
                source,
                hint,
            }
        };
        let bound = match &config.url {
            ListenUrl::Udp(address) => Self::Udp(bind_udp(*address, workers).map_err(bind_error)?),
            ListenUrl::Tcp(address) | ListenUrl::Relp(address) => {
                Self::Tcp(bind_tcp(*address).map_err(bind_error)?)
            }
            ListenUrl::UnixDgram(path) => {
                clear_path(&config.name, path, Type::DGRAM)?;
                let socket = bind_unix(path, Type::DGRAM, config.unix_mode).map_err(bind_error)?;
                let owned = OwnedPath::new(path).map_err(bind_error)?;
                Self::UnixDgram(UnixDatagram::from(OwnedFd::from(socket)), owned)
            }
            ListenUrl::UnixStream(path) => {
                clear_path(&config.name, path, Type::STREAM)?;
                let socket = bind_unix(path, Type::STREAM, config.unix_mode).map_err(bind_error)?;
                socket.listen(BACKLOG).map_err(bind_error)?;
                let listener = StdUnixListener::from(OwnedFd::from(socket));
                let owned = OwnedPath::new(path).map_err(bind_error)?;
                Self::UnixStream(UnixListener::from_std(listener).map_err(bind_error)?, owned)
            }
        };
        bound.set_receive_buffer(config.receive_buffer);
        Ok(bound)
    }

    /// Threads to read its datagram sockets, one each. Streams need none.
    ///
    /// # Errors
    ///
    /// The system makes fewer.
    pub fn readers(&self) -> io::Result<Vec<Waiting>> {
        let sockets = match self {
            Self::Udp(sockets) => sockets.len(),
            Self::UnixDgram(..) => 1,
            Self::Tcp(_) | Self::UnixStream(..) => 0,
        };
        Waiting::several("tersed-datagram", sockets)
    }

    /// The address that it is bound to, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> String {
        let inet = |address: io::Result<SocketAddr>| {
            address.map_or_else(|_| String::from("unknown"), |address| address.to_string())
        };
        match self {
            Self::Udp(sockets) => sockets
                .first()
                .map_or_else(String::new, |socket| inet(socket.local_addr())),
            Self::Tcp(listener) => inet(listener.local_addr()),
            Self::UnixDgram(_, path) | Self::UnixStream(_, path) => path.path.display().to_string(),
        }
    }

    /// The receive buffer that the kernel really gives each socket, in octets; zero for streams.
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        let size = |socket: socket2::SockRef<'_>| socket.recv_buffer_size().unwrap_or(0);
        match self {
            Self::Udp(sockets) => sockets.first().map_or(0, |socket| size(socket.into())),
            Self::UnixDgram(socket, _) => size(socket.into()),
            Self::Tcp(_) | Self::UnixStream(..) => 0,
        }
    }

    /// Asks for a receive buffer; beyond `net.core.rmem_max` only with `CAP_NET_ADMIN`. What was given
    /// is read back and reported, so that a refusal is no error.
    fn set_receive_buffer(&self, octets: usize) {
        let set = |socket: socket2::SockRef<'_>| {
            let forced = nix::sys::socket::setsockopt(
                &socket.as_fd(),
                nix::sys::socket::sockopt::RcvBufForce,
                &octets,
            );
            forced.is_ok() || socket.set_recv_buffer_size(octets).is_ok()
        };
        let granted = match self {
            Self::Udp(sockets) => sockets.iter().all(|socket| set(socket.into())),
            Self::UnixDgram(socket, _) => set(socket.into()),
            Self::Tcp(_) | Self::UnixStream(..) => true,
        };
        if !granted {
            tracing::warn!(
                octets,
                "the kernel refused the receive buffer; its default stays"
            );
        }
    }
}

/// A Unix socket's path, removed when dropped if it is still the one that was bound.
#[derive(Debug)]
pub struct OwnedPath {
    path: PathBuf,
    /// Device and inode of what we bound; `None` if it is the service manager's.
    identity: Option<(u64, u64)>,
}

impl OwnedPath {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let identity = Some((metadata.st_dev(), metadata.st_ino()));
        Ok(Self {
            path: path.to_owned(),
            identity,
        })
    }

    fn passed(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: None,
        }
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        let Some(identity) = self.identity else {
            return;
        };
        let Ok(metadata) = fs::symlink_metadata(&self.path) else {
            return;
        };
        if (metadata.st_dev(), metadata.st_ino()) == identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "socket left behind");
        }
    }
}

/// Sockets passed in by the service manager (sd_listen_fds(3)).
#[derive(Debug, Default)]
pub struct PassedSockets {
    sockets: Vec<(String, ListenUrl, Bound)>,
}

impl PassedSockets {
    /// Takes over the sockets that the environment names. Called once, in the runtime, before
    /// anything else opens descriptors.
    ///
    /// # Errors
    ///
    /// A socket that is none of the four kinds.
    pub fn from_environment() -> io::Result<Self> {
        let mut fds = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Vec::with_capacity(fds.len());
        for index in 0..fds.len() {
            let name = names
                .next()
                .filter(|name| !name.is_empty())
                .unwrap_or("passed");
            let (url, bound) = take_passed(&mut fds, index)?;
            sockets.push((name.to_owned(), url, bound));
        }
        Ok(Self { sockets })
    }

    /// The socket with the address of `url`, if one was passed. What is spoken on it, only the URL says.
    fn take(&mut self, url: &ListenUrl) -> Option<Bound> {
        let as_tcp;
        let url = match url {
            ListenUrl::Relp(address) => {
                as_tcp = ListenUrl::Tcp(*address);
                &as_tcp
            }
            url => url,
        };
        let index = self
            .sockets
            .iter()
            .position(|(_, passed, _)| passed == url)?;
        Some(self.sockets.swap_remove(index).2)
    }

    /// Those that no listener asked for, as listeners with default settings.
    pub fn rest(&mut self) -> impl Iterator<Item = (ListenerConfig, Bound)> {
        self.sockets.drain(..).map(|(name, url, bound)| {
            let mut config = ListenerConfig::new(url);
            if name != "passed" {
                config.name = format!("{name} {}", config.url);
            }
            bound.set_receive_buffer(config.receive_buffer);
            (config, bound)
        })
    }

    /// How many sockets are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// True if none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

fn take_passed(fds: &mut ListenFd, index: usize) -> io::Result<(ListenUrl, Bound)> {
    let unfit = || {
        io::Error::other(format!(
            "passed-in descriptor {index} is no UDP, TCP listening or Unix socket; \
             check the .socket unit (ListenStream=, ListenDatagram=)"
        ))
    };
    if let Ok(Some(socket)) = fds.take_udp_socket(index) {
        socket.set_nonblocking(true)?;
        let url = ListenUrl::Udp(socket.local_addr()?);
        return Ok((url, Bound::Udp(vec![socket])));
    }
    if let Ok(Some(listener)) = fds.take_tcp_listener(index) {
        listener.set_nonblocking(true)?;
        let url = ListenUrl::Tcp(listener.local_addr()?);
        return Ok((url, Bound::Tcp(TcpListener::from_std(listener)?)));
    }
    if let Ok(Some(socket)) = fds.take_unix_datagram(index) {
        socket.set_nonblocking(true)?;
        let path = socket
            .local_addr()?
            .as_pathname()
            .ok_or_else(unfit)?
            .to_owned();
        let owned = OwnedPath::passed(&path);
        return Ok((ListenUrl::UnixDgram(path), Bound::UnixDgram(socket, owned)));
    }
    if let Ok(Some(listener)) = fds.take_unix_listener(index) {
        listener.set_nonblocking(true)?;
        let path = listener
            .local_addr()?
            .as_pathname()
            .ok_or_else(unfit)?
            .to_owned();
        let owned = OwnedPath::passed(&path);
        let bound = Bound::UnixStream(UnixListener::from_std(listener)?, owned);
        return Ok((ListenUrl::UnixStream(path), bound));
    }
    Err(unfit())
}

/// One socket per worker on one address. With port 0 the first socket's port is everybody's.
fn bind_udp(mut address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        only_its_family(&socket, address)?;
        if sockets.is_empty() && address.port() != 0 {
            // SO_REUSEPORT alone would let a second relay of the same user share the address
            // unnoticed and take half of the messages.
            refuse_shared(address)?;
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

fn refuse_shared(address: SocketAddr) -> io::Result<()> {
    let alone = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    only_its_family(&alone, address)?;
    alone.bind(&address.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    only_its_family(&socket, address)?;
    // Connections of an earlier run in TIME-WAIT do not keep us from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// `[::]` takes IPv4 as well, whatever `net.ipv6.bindv6only` says; any other address only its own
/// family.
fn only_its_family(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V6(v6) => socket.set_only_v6(!v6.ip().is_unspecified()),
        SocketAddr::V4(_) => Ok(()),
    }
}

fn bind_unix(path: &Path, kind: Type, mode: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    // Linux gives the path the mode of the socket, less the umask: it is never wider than asked.
    fchmod(&socket, Mode::from_bits_truncate(mode)).map_err(io::Error::from)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // And now exactly as asked. A stream socket does not listen yet.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(socket)
}

/// Makes way at `path`: removes a socket that nobody listens on, refuses anything else.
fn clear_path(name: &str, path: &Path, kind: Type) -> Result<(), BindError> {
    let occupied = |found| {
        Err(BindError::Occupied {
            name: name.to_owned(),
            path: path.to_owned(),
            found,
        })
    };
    let file_type = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        // What else is wrong with the path, binding will tell.
        Err(_) => return Ok(()),
    };
    if file_type.is_symlink() {
        return occupied("a symbolic link");
    }
    if file_type.is_dir() {
        return occupied("a directory");
    }
    if !file_type.is_socket() {
        return occupied("a file");
    }
    let dead = Socket::new(Domain::UNIX, kind, None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?))
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if !dead {
        return Err(BindError::InUse {
            name: name.to_owned(),
            path: path.to_owned(),
        });
    }
    fs::remove_file(path).map_err(|source| BindError::Bind {
        name: name.to_owned(),
        url: path.display().to_string(),
        source,
        hint: "; a dead process left its socket there, and it cannot be removed",
    })
}

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
