//! Dialing: turns a name into an open socket.
//!
//! # Guarantees
//!
//! - Names are resolved anew each time, and all their addresses are tried in order. Each address gets its share of the
//!   time, so that one without an answer does not keep the next from being tried.
//! - A connection to ourselves, which a kernel makes when it picks the dialed port as the local one, counts as
//!   refused.
//! - An attempt that takes too long names its step: the look-up, the address, the session ([`Step`]).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

use super::{
    error::{Step, UpstreamError},
    names,
};

/// How long an attempt to connect may take: `forward.connect_timeout`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    until: Instant,
    limit: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        // No limit in practice, and the clock can still represent it.
        let until = Instant::now() + limit.min(LIMIT_MAX);
        Self { until, limit }
    }

    /// Takes a step; it may take all of the time that is left.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::TooSlow`], or the step's own error.
    pub(super) async fn take<T>(
        self,
        step: Step,
        taken: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        self.take_share(1, step, taken).await
    }

    /// Takes a step that may use one of `shares` equal parts of the time.
    async fn take_share<T>(
        self,
        shares: u32,
        step: Step,
        taken: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let (now, share) = (Instant::now(), self.limit / shares);
        let until = self.until.min(now + share.min(LIMIT_MAX));
        let taken = timeout_at(until, taken).await;
        // Earlier steps may have used some of the time.
        let left =
            Duration::from_millis(u64::try_from((until - now).as_millis()).unwrap_or(u64::MAX));
        let after = if share.saturating_sub(left) > SHARE_SLACK {
            left
        } else {
            share
        };
        taken.unwrap_or(Err(UpstreamError::TooSlow {
            step,
            after,
            limit: self.limit,
        }))
    }
}

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

/// Connects to the first address of `host` that accepts.
pub(super) async fn connect_tcp(
    host: &str,
    port: u16,
    user_timeout: Duration,
    patience: Patience,
) -> Result<TcpStream, UpstreamError> {
    let mut last = None;
    let addresses = look_up(host, port, patience).await?;
    let shares = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let connect = async {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|error| cannot_connect(address, error))?;
            if stream.local_addr().ok() == Some(address) {
                // The kernel picked the port that we connect to: the peer is this socket itself.
                let refused = io::ErrorKind::ConnectionRefused;
                return Err(cannot_connect(address, refused.into()));
            }
            Ok(stream)
        };
        let step = Step::Connect(address);
        match patience.take_share(shares, step, connect).await {
            Ok(stream) => {
                let socket = SockRef::from(&stream);
                // Batches are written whole; waiting to fill a packet would only delay the last one.
                socket.set_tcp_nodelay(true).map_err(UpstreamError::Open)?;
                socket
                    .set_tcp_user_timeout(Some(user_timeout))
                    .map_err(UpstreamError::Open)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("a name has at least one address, and each that fails leaves its error"))
}

/// Opens a socket to the `attempt`-th address of the name, or to the next one for which that works. A UDP socket opens
/// whether the peer exists or not; so each attempt begins with another address.
pub(super) async fn connect_udp(
    host: &str,
    port: u16,
    attempt: u32,
    patience: Patience,
) -> Result<UdpSocket, UpstreamError> {
    let mut last = None;
    let mut addresses = look_up(host, port, patience).await?;
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
                last = Some(cannot_connect(address, error));
                continue;
            }
        };
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = Some(cannot_connect(address, error)),
        }
    }
    Err(last.expect("a name has at least one address, and each that fails leaves its error"))
}

/// [`resolve`], within the time that is left.
async fn look_up(
    host: &str,
    port: u16,
    patience: Patience,
) -> Result<Vec<SocketAddr>, UpstreamError> {
    let step = Step::LookUp(host.to_owned());
    patience.take(step, resolve(host, port)).await
}

fn cannot_connect(to: SocketAddr, source: io::Error) -> UpstreamError {
    UpstreamError::Connect {
        to: to.to_string(),
        source,
    }
}

/// If earlier steps took less than this, the error does not mention it.
const SHARE_SLACK: Duration = Duration::from_millis(100);

/// A year: no limit in practice.
const LIMIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
