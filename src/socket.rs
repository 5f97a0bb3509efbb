//! A connected byte stream, TCP or Unix: what accepted and outgoing connections have in common.
//!
//! # Guarantees
//!
//! - Reading and writing never wait; waiting is a call of its own that can be dropped at any point.
//!
//! # Left out
//!
//! Framing, time-outs, who the peer is.

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
    /// Over IP.
    Tcp(TcpStream),
    /// On this machine.
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

    /// Waits until the peer has closed its end, or the connection broke. While there are octets to read it looks
    /// only every [`CLOSED_POLL`].
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

    /// Appends what there is to `buffer`, as far as it has room; zero octets are the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing now, or what broke the connection.
    pub(crate) fn try_read(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes as much of `slices` as there is room for.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room now, or what broke the connection.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    /// What broke the connection, if it was not told yet; it is told once.
    ///
    /// # Errors
    ///
    /// What `getsockopt` gives.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    /// Lets each write leave at once. Without effect on Unix sockets, where it does anyway.
    ///
    /// # Errors
    ///
    /// What `setsockopt` gives.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Makes the kernel notice a peer that vanished without a word. Without effect on Unix sockets.
    ///
    /// # Errors
    ///
    /// What `setsockopt` gives.
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

/// How often a connection that is not read is looked at.
const CLOSED_POLL: Duration = Duration::from_secs(1);

/// Silence after which the peer is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Questions without an answer after which the connection is given up.
const KEEPALIVE_PROBES: u32 = 6;
