//! Originators: they send messages to the relay over each transport on which it listens.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use super::proc_fs;
use super::wait::{LIMIT, wait_until};
use super::wire::Wire;

/// A socket that sends messages in order.
pub(crate) struct Originator {
    socket: Socket,
    /// `None` on datagram sockets, where each message is a datagram.
    wire: Option<Wire>,
}

impl Originator {
    /// Sends each message as a datagram.
    pub(crate) fn udp(to: SocketAddr) -> Self {
        let any = if to.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(to).unwrap();
        Self {
            socket: socket.into(),
            wire: None,
        }
    }

    /// Like [`Self::udp`], from this address instead of one that the kernel chooses.
    pub(crate) fn udp_from(from: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect(to).unwrap();
        Self {
            socket: socket.into(),
            wire: None,
        }
    }

    /// A connection on which each message ends with LF, unless [`Self::framed`] sets another framing.
    pub(crate) fn tcp(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, LIMIT).unwrap();
        Self {
            socket: stream.into(),
            wire: Some(Wire::Lf),
        }
    }

    /// Like [`Self::tcp`], from this address instead of one that the kernel chooses.
    pub(crate) fn tcp_from(from: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect_timeout(&to.into(), LIMIT).unwrap();
        Self {
            socket,
            wire: Some(Wire::Lf),
        }
    }

    /// Sends each message as a datagram, to a Unix socket.
    pub(crate) fn unix_dgram(to: &Path) -> Self {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(to).unwrap();
        Self {
            socket: socket.into(),
            wire: None,
        }
    }

    /// Like [`Self::tcp`], to a Unix socket.
    pub(crate) fn unix_stream(to: &Path) -> Self {
        Self {
            socket: UnixStream::connect(to).unwrap().into(),
            wire: Some(Wire::Lf),
        }
    }

    /// Sets another framing for the messages that follow.
    pub(crate) fn framed(mut self, wire: Wire) -> Self {
        assert!(self.wire.is_some(), "a datagram needs no framing");
        self.wire = Some(wire);
        self
    }

    /// Sends one message with its framing. Waits while the relay pushes back.
    pub(crate) fn send(&mut self, message: impl AsRef<[u8]>) {
        self.send_all([message]);
    }

    /// Sends many messages with as few system calls as the transport allows.
    pub(crate) fn send_all(&mut self, messages: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let Some(wire) = self.wire else {
            for message in messages {
                let octets = message.as_ref();
                assert_eq!(
                    self.socket.send(octets).unwrap(),
                    octets.len(),
                    "datagram cut short"
                );
            }
            return;
        };
        let mut out = Vec::with_capacity(2 * BATCH_OCTETS);
        for message in messages {
            out.extend_from_slice(&wire.encode(message.as_ref()));
            if out.len() >= BATCH_OCTETS {
                self.send_octets(&out);
                out.clear();
            }
        }
        self.send_octets(&out);
    }

    /// Sends octets without adding any framing.
    pub(crate) fn send_octets(&mut self, octets: &[u8]) {
        self.socket.write_all(octets).unwrap();
    }

    /// Sends the parts until there are no more, or the relay has closed the connection.
    pub(crate) fn send_until_closed(&mut self, parts: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        for part in parts {
            if self.socket.write_all(part.as_ref()).is_err() {
                return;
            }
        }
    }

    /// As [`send_octets`](Self::send_octets), to a relay that may have closed the connection.
    pub(crate) fn try_send_octets(&mut self, octets: &[u8]) {
        drop(self.socket.write_all(octets));
    }

    /// Waits until the relay has read everything that was sent (TCP over IPv4).
    pub(crate) fn wait_read(&self) {
        Self::wait_all_read([self]);
    }

    /// As [`wait_read`](Self::wait_read), for many connections.
    pub(crate) fn wait_all_read<'a>(originators: impl IntoIterator<Item = &'a Self>) {
        let ends: Vec<_> = originators
            .into_iter()
            .map(|originator| {
                let there = originator.socket.peer_addr().unwrap().as_socket().unwrap();
                (originator.local_address(), there)
            })
            .collect();
        // The kernel's table of connections is no snapshot. Octets that were on their way during the first look are
        // unread in the second, so look twice.
        let mut quiet = 0;
        wait_until("the relay to have read everything", LIMIT, || {
            let busy = proc_fs::busy_tcp_connections();
            let is_busy =
                |(here, there)| busy.contains(&(here, there)) || busy.contains(&(there, here));
            quiet = if ends.iter().copied().any(is_busy) {
                0
            } else {
                quiet + 1
            };
            quiet == 2
        });
    }

    /// Ends the sending direction; the receiving direction stays open.
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends each octet at once, even while others wait to be acknowledged.
    pub(crate) fn without_delay(self) -> Self {
        self.socket.set_tcp_nodelay(true).unwrap();
        self
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// Waits until the relay has closed the connection.
    ///
    /// # Panics
    ///
    /// If the relay does not close, or sends something: a syslog relay sends nothing to an originator.
    pub(crate) fn wait_closed(mut self) {
        self.socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut said = Vec::new();
        match self.socket.read_to_end(&mut said) {
            Ok(_) => {}
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(err) => panic!("the relay did not close the connection: {err}"),
        }
        assert!(said.is_empty(), "the relay said {}", said.escape_ascii());
    }
}

/// A TCP connection that sends all the time and may be closed by the relay.
pub(crate) struct Flood(TcpStream);

impl Flood {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self(TcpStream::connect_timeout(&to, LIMIT).unwrap())
    }

    /// Sends lines. Waits while the relay pushes back.
    pub(crate) fn send(&mut self, messages: impl IntoIterator<Item = String>) {
        let whole = self.try_send(messages);
        whole.expect("the relay keeps the connection open");
    }

    /// Sends lines until the relay closes the connection.
    pub(crate) fn send_until_closed(&mut self, messages: impl IntoIterator<Item = String>) {
        let closed = self.try_send(messages);
        closed.expect_err("the relay closes the connection before the messages end");
    }

    fn try_send(&mut self, messages: impl IntoIterator<Item = String>) -> std::io::Result<()> {
        let mut out = Vec::with_capacity(2 * BATCH_OCTETS);
        for message in messages {
            out.extend_from_slice(message.as_bytes());
            out.push(b'\n');
            if out.len() >= BATCH_OCTETS {
                self.0.write_all(&out)?;
                out.clear();
            }
        }
        self.0.write_all(&out)
    }
}

const BATCH_OCTETS: usize = 64 * 1024;
