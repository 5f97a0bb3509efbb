//! Bound sockets: of one listener, shared by those who know them.
//!
//! # Guarantees
//!
//! - A socket is closed when nothing reads it any more; [`WeakBound`] finds it until then.
//!
//! # Left out
//!
//! How they are bound: see `bind`, and `passed`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::{fd::AsFd as _, unix::net::UnixDatagram},
    sync::{Arc, Weak},
};

use socket2::SockRef;
use tokio::net::{TcpListener, UnixListener};

use super::path::OwnedPath;
use crate::thread::Waiting;

/// Sockets of one listener, bound. Those who have it share the sockets.
#[derive(Clone, Debug)]
pub enum Bound {
    /// One socket per worker, or the one that was passed in.
    Udp(Vec<Arc<UdpSocket>>),
    /// A listening socket.
    Tcp(Arc<TcpListener>),
    /// A socket and its path.
    UnixDgram(Arc<UnixDatagram>, Arc<OwnedPath>),
    /// A listening socket and its path.
    UnixStream(Arc<UnixListener>, Arc<OwnedPath>),
}

/// Sockets of one listener, known as long as something reads them.
#[derive(Clone, Debug)]
pub enum WeakBound {
    /// See [`Bound`].
    Udp(Vec<Weak<UdpSocket>>),
    /// See [`Bound`].
    Tcp(Weak<TcpListener>),
    /// See [`Bound`].
    UnixDgram(Weak<UnixDatagram>, Weak<OwnedPath>),
    /// See [`Bound`].
    UnixStream(Weak<UnixListener>, Weak<OwnedPath>),
}

impl Bound {
    /// The same sockets, which this does not keep open.
    #[must_use]
    pub fn downgrade(&self) -> WeakBound {
        match self {
            Self::Udp(sockets) => WeakBound::Udp(sockets.iter().map(Arc::downgrade).collect()),
            Self::Tcp(listener) => WeakBound::Tcp(Arc::downgrade(listener)),
            Self::UnixDgram(socket, path) => {
                WeakBound::UnixDgram(Arc::downgrade(socket), Arc::downgrade(path))
            }
            Self::UnixStream(listener, path) => {
                WeakBound::UnixStream(Arc::downgrade(listener), Arc::downgrade(path))
            }
        }
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
            Self::UnixDgram(_, path) | Self::UnixStream(_, path) => {
                path.path().display().to_string()
            }
        }
    }

    /// The receive buffer that the kernel really gives each socket, in octets; zero for streams.
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        let sizes = self
            .datagram_sockets()
            .map(|socket| socket.recv_buffer_size());
        sizes.filter_map(Result::ok).min().unwrap_or(0)
    }

    fn datagram_sockets(&self) -> impl Iterator<Item = SockRef<'_>> {
        let (udp, unix) = match self {
            Self::Udp(sockets) => (sockets.as_slice(), None),
            Self::UnixDgram(socket, _) => (&[][..], Some(socket)),
            Self::Tcp(_) | Self::UnixStream(..) => (&[][..], None),
        };
        let udp = udp.iter().map(|socket| SockRef::from(socket.as_ref()));
        udp.chain(unix.map(|socket| SockRef::from(socket.as_ref())))
    }

    /// As [`Self::set_receive_buffer`], where the buffer is smaller: the service manager may have given more, and more
    /// than we are allowed to.
    pub(super) fn raise_receive_buffer(&self, octets: usize) {
        // The kernel counts its own bookkeeping in, and reports twice what was asked for.
        if self.receive_buffer() / 2 < octets {
            self.set_receive_buffer(octets);
        }
    }

    /// Asks for a receive buffer; beyond `net.core.rmem_max` only with `CAP_NET_ADMIN`. What was given
    /// is read back and reported, so that a refusal is no error.
    pub(super) fn set_receive_buffer(&self, octets: usize) {
        let granted = self.datagram_sockets().all(|socket| {
            let forced = nix::sys::socket::setsockopt(
                &socket.as_fd(),
                nix::sys::socket::sockopt::RcvBufForce,
                &octets,
            );
            forced.is_ok() || socket.set_recv_buffer_size(octets).is_ok()
        });
        if !granted {
            tracing::warn!(
                address = self.address(),
                octets,
                "the kernel refused the receive buffer; its default stays"
            );
        }
    }
}

impl WeakBound {
    /// The sockets, if all of them are read still.
    #[must_use]
    pub fn upgrade(&self) -> Option<Bound> {
        Some(match self {
            Self::Udp(sockets) => {
                let sockets = sockets.iter().map(Weak::upgrade);
                Bound::Udp(sockets.collect::<Option<_>>()?)
            }
            Self::Tcp(listener) => Bound::Tcp(listener.upgrade()?),
            Self::UnixDgram(socket, path) => Bound::UnixDgram(socket.upgrade()?, path.upgrade()?),
            Self::UnixStream(listener, path) => {
                Bound::UnixStream(listener.upgrade()?, path.upgrade()?)
            }
        })
    }

    /// Whether any of the sockets is still open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Udp(sockets) => sockets.iter().any(|socket| socket.strong_count() > 0),
            Self::Tcp(listener) => listener.strong_count() > 0,
            Self::UnixDgram(_, path) | Self::UnixStream(_, path) => path.strong_count() > 0,
        }
    }

    /// The path, if it has one that is not given up.
    #[must_use]
    pub fn path(&self) -> Option<Arc<OwnedPath>> {
        match self {
            Self::Udp(_) | Self::Tcp(_) => None,
            Self::UnixDgram(_, path) | Self::UnixStream(_, path) => path.upgrade(),
        }
    }

    /// Lets UDP sockets receive nothing more: another socket has their address, and gets what is sent from now on.
    /// What they have received already can be read. (A connected socket hears its peer alone, which is itself.)
    pub fn leave_address(&self) {
        let Self::Udp(sockets) = self else { return };
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            let left = socket.local_addr().and_then(|mut address| {
                if address.ip().is_unspecified() {
                    address.set_ip(match address.ip() {
                        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                    });
                }
                socket.connect(address)
            });
            if let Err(error) = left {
                tracing::debug!(%error, "datagrams may still reach the old socket");
            }
        }
    }
}
