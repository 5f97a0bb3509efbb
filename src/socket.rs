//! A connected byte stream, TCP or Unix, accepted or outgoing.
//!
//! # Guarantees
//!
//! - Reading and writing never wait. Waiting is a separate call, which can be dropped at any point.
//!
//! # Left out
//!
//! Framing, time-outs, and the peer's address.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use bytes::BufMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
    time::sleep,
};

/// A connected byte stream.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Waits until there is room to write.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Waits until the peer has closed its end, or the connection broke. While there are octets to read, it checks only
    /// every [`CLOSED_POLL`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(crate) async fn closed_by_peer(&self) {
        loop {
            let ready = match self {
                Self::Tcp(stream) => stream.ready(Interest::READABLE).await,
                Self::Unix(stream) => stream.ready(Interest::READABLE).await,
            };
            if ready.map_or(true, |ready| ready.is_read_closed()) {
                return;
            }
            sleep(CLOSED_POLL).await;
        }
    }

    /// Appends received octets to `buffer`, up to its room. Returns zero at the end of the stream.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing was received, or the error that broke the connection.
    pub(crate) fn try_read(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes as much of `slices` as the kernel takes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the kernel takes nothing now, or the error that broke the connection.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    /// The error that broke the connection, unless it was reported before.
    ///
    /// # Errors
    ///
    /// The error of `getsockopt`.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    /// Sends each write at once. Unix sockets always do.
    ///
    /// # Errors
    ///
    /// The error of `setsockopt`.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Makes the kernel detect a peer that disappeared without closing. Has no effect on Unix sockets.
    ///
    /// # Errors
    ///
    /// The error of `setsockopt`.
    pub(crate) fn set_keepalive(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(KEEPALIVE_IDLE)
                    .with_interval(KEEPALIVE_INTERVAL)
                    .with_retries(KEEPALIVE_PROBES),
            ),
            Self::Unix(_) => Ok(()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// How often a connection that is not being read is checked.
const CLOSED_POLL: Duration = Duration::from_secs(1);

/// The idle time before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// The time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The number of unanswered probes after which the connection is dead.
const KEEPALIVE_PROBES: u32 = 6;
