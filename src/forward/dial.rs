//! Dialing: a name in, an open socket out.
//!
//! # Guarantees
//!
//! - Names are resolved anew each time, and all their addresses are tried in order. Each gets its share of the
//!   time, so that one that never answers does not keep the next from being tried.
//! - A connection to ourselves, which a kernel makes when the port it picks is the one dialed, counts
//!   as refused.
//!
//! # Left out
//!
//! How long it may take: the caller gives up.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{UpstreamError, names};

/// The addresses of `host`, at least one.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, UpstreamError> {
    let addresses = names::look_up(host, port)
        .await
        .map_err(|source| UpstreamError::Resolve {
            host: host.to_owned(),
            source,
        })?;
    if addresses.is_empty() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(UpstreamError::Resolve {
            host: host.to_owned(),
            source,
        });
    }
    Ok(addresses)
}

pub(super) async fn connect_tcp(
    host: &str,
    port: u16,
    user_timeout: Duration,
    connect_timeout: Duration,
) -> Result<TcpStream, UpstreamError> {
    let mut last = None;
    let addresses = resolve(host, port).await?;
    let share = connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let connected = timeout(share, TcpStream::connect(address));
        match connected.await.unwrap_or_else(|late| Err(late.into())) {
            Ok(stream) if stream.local_addr().ok() == Some(address) => {
                // The kernel picked the port that we connect to: we are talking to ourselves.
                last = Some(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(stream) => {
                let socket = SockRef::from(&stream);
                // Batches are written whole; waiting to fill a segment would only delay the last one.
                socket.set_tcp_nodelay(true).map_err(UpstreamError::Open)?;
                socket
                    .set_tcp_user_timeout(Some(user_timeout))
                    .map_err(UpstreamError::Open)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(UpstreamError::Open(
        last.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
    ))
}

/// A socket to the `attempt`-th of the name's addresses, or the next that can be had: it opens whether the other end
/// is there or not.
pub(super) async fn connect_udp(
    host: &str,
    port: u16,
    attempt: u32,
) -> Result<UdpSocket, UpstreamError> {
    let mut last = None;
    let mut addresses = resolve(host, port).await?;
    let first = attempt as usize % addresses.len();
    addresses.rotate_left(first);
    for address in addresses {
        let any: SocketAddr = if address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = match UdpSocket::bind(any).await {
            Ok(socket) => socket,
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(UpstreamError::Open(
        last.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
    ))
}
