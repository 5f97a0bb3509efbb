//! The bound sockets of one listener, shared by their readers.
//!
//! # Guarantees
//!
//! - A socket is closed when its last reader ends; [`WeakBound`] finds it until then.
//!
//! # Left out
//!
//! Binding: see `bind` and `passed`.

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

/// The bound sockets of one listener. Clones share them.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    /// One socket per worker, or the passed-in one.
    Udp(Vec<Arc<UdpSocket>>),
    Tcp(Arc<TcpListener>),
    /// A socket and its path.
    UnixDgram(Arc<UnixDatagram>, Arc<OwnedPath>),
    /// A listening socket and its path.
    UnixStream(Arc<UnixListener>, Arc<OwnedPath>),
}

/// Weak references to the sockets of one listener.
#[derive(Clone, Debug)]
pub(crate) enum WeakBound {
    Udp(Vec<Weak<UdpSocket>>),
    Tcp(Weak<TcpListener>),
    UnixDgram(Weak<UnixDatagram>, Weak<OwnedPath>),
    UnixStream(Weak<UnixListener>, Weak<OwnedPath>),
}

impl Bound {
    /// Weak references to these sockets, which do not keep them open.
    #[must_use]
    pub(crate) fn downgrade(&self) -> WeakBound {
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

    /// Makes the threads that read its datagram sockets, one each. Streams need none.
    ///
    /// # Errors
    ///
    /// The system makes fewer.
    pub(crate) fn readers(&self) -> io::Result<Vec<Waiting>> {
        let sockets = match self {
            Self::Udp(sockets) => sockets.len(),
            Self::UnixDgram(..) => 1,
            Self::Tcp(_) | Self::UnixStream(..) => 0,
        };
        Waiting::several("tersed-datagram", sockets)
    }

    /// The bound address, with the port that the system chose.
    #[must_use]
    pub(crate) fn address(&self) -> String {
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

    /// The receive buffer that the kernel reports for each socket, in octets; zero for streams.
    #[must_use]
    pub(crate) fn receive_buffer(&self) -> usize {
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

    /// Calls [`Self::set_receive_buffer`] if the buffer is smaller. The service manager may have set a larger one, larger
    /// than this process could.
    pub(super) fn raise_receive_buffer(&self, octets: usize) {
        // The kernel includes its own bookkeeping: it reports twice the size that was asked for.
        if self.receive_buffer() / 2 < octets {
            self.set_receive_buffer(octets);
        }
    }

    /// Requests a receive buffer. The kernel exceeds `net.core.rmem_max` only with `CAP_NET_ADMIN`. The caller reads the
    /// actual size back and logs it, so a smaller one is not an error here.
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
                "cannot set the receive buffer; the kernel's default stays"
            );
        }
    }
}

impl WeakBound {
    /// The sockets, if all of them are still open.
    #[must_use]
    pub(crate) fn upgrade(&self) -> Option<Bound> {
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

    /// The path of a Unix socket, while something keeps it.
    #[must_use]
    pub(crate) fn path(&self) -> Option<Arc<OwnedPath>> {
        match self {
            Self::Udp(_) | Self::Tcp(_) => None,
            Self::UnixDgram(_, path) | Self::UnixStream(_, path) => path.upgrade(),
        }
    }

    /// Stops UDP sockets from receiving: another socket with their address receives instead. What they have received can
    /// still be read. (A connected socket receives from its peer only, and each is connected to itself.)
    pub(crate) fn leave_address(&self) {
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
                tracing::debug!(%error, "cannot connect the old socket to itself; it may still receive datagrams");
            }
        }
    }
}
