//! Sinks: they take the place of the collector, and record what the relay sends.
//!
//! A sink reads each connection in its own thread. For each connection it keeps the whole messages, and the rest of an
//! unfinished one. It can also misbehave: see [`Manner`].

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::wait::{LIMIT, wait_until};
use super::wire::Wire;

/// How a sink treats its connections. Datagram sockets are always read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Manner {
    /// Reads everything.
    Read,
    /// Accepts and never reads.
    NeverRead,
    /// Closes each connection after so many octets. This resets it if more have come.
    CloseAfter(usize),
    /// Ends its sending direction after so many octets, and reads on until the other end closes.
    FinishAfter(usize),
    /// Sends back what it reads.
    AnswerBack,
    /// Reads so many octets each tenth of a second.
    Slow(usize),
}

#[derive(Clone, Debug)]
enum Place {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    UnixStream(PathBuf),
    UnixDgram(PathBuf),
}

/// A collector that records. It stops on drop.
pub(crate) struct Sink {
    place: Place,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    wire: Wire,
    state: Mutex<State>,
    /// Notified at each change of manner, and at the stop.
    changed: Condvar,
    stopping: AtomicBool,
}

struct State {
    manner: Manner,
    connections: Vec<Connection>,
}

/// What came over one connection (on a datagram socket: everything that came).
#[derive(Default)]
struct Connection {
    messages: Vec<Vec<u8>>,
    /// Octets of a message that is not whole (yet).
    fragment: Vec<u8>,
    /// The sink has ended its sending direction.
    finished: bool,
    /// For ending the connection from another thread; `None` once it has ended.
    socket: Option<Socket>,
}

impl Sink {
    /// A TCP collector that takes lines.
    pub(crate) fn tcp() -> Self {
        Self::tcp_framed(Wire::Lf)
    }

    /// A TCP collector that takes messages with this framing.
    pub(crate) fn tcp_framed(wire: Wire) -> Self {
        Self::from_listener(TcpListener::bind("127.0.0.1:0").unwrap(), wire)
    }

    /// A TCP collector that takes lines, on this address.
    pub(crate) fn tcp_at(address: SocketAddr) -> Self {
        Self::from_listener(TcpListener::bind(address).unwrap(), Wire::Lf)
    }

    /// A TCP collector that takes lines, with a small receive buffer.
    pub(crate) fn tcp_with_little_room() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Accepted connections inherit this.
        socket.set_recv_buffer_size(LITTLE_ROOM_OCTETS).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        socket.listen(128).unwrap();
        Self::from_listener(socket.into(), Wire::Lf)
    }

    /// The address on which it listens.
    ///
    /// # Panics
    ///
    /// If it listens on a path.
    pub(crate) fn address(&self) -> SocketAddr {
        match self.place {
            Place::Tcp(address) | Place::Udp(address) => address,
            Place::UnixStream(_) | Place::UnixDgram(_) => panic!("a path is not an address"),
        }
    }

    /// A UDP collector.
    pub(crate) fn udp() -> Self {
        Self::udp_at(([127, 0, 0, 1], 0).into())
    }

    /// A UDP collector on this address.
    pub(crate) fn udp_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        // The largest buffer that this process may have: a datagram lost here would look like the relay's loss.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_OCTETS).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_OCTETS).unwrap();
        }
        let place = Place::Udp(socket.local_addr().unwrap());
        Self::start_datagram(place, socket.into())
    }

    /// A collector on a Unix stream socket that takes lines.
    pub(crate) fn unix_stream(path: &Path) -> Self {
        let listener: Socket = UnixListener::bind(path).unwrap().into();
        Self::start_stream(Place::UnixStream(path.to_owned()), listener, Wire::Lf)
    }

    /// A collector on a Unix datagram socket.
    pub(crate) fn unix_dgram(path: &Path) -> Self {
        let socket: Socket = UnixDatagram::bind(path).unwrap().into();
        Self::start_datagram(Place::UnixDgram(path.to_owned()), socket)
    }

    /// Sets the manner for all connections from the first on.
    pub(crate) fn mannered(self, manner: Manner) -> Self {
        self.behave(manner);
        self
    }

    /// Changes the manner from now on, also for existing connections.
    pub(crate) fn behave(&self, manner: Manner) {
        self.shared.lock().manner = manner;
        self.shared.changed.notify_all();
    }

    /// The URL for `--forward`.
    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("tcp://{address}"),
            Place::Udp(address) => format!("udp://{address}"),
            Place::UnixStream(path) => format!("unix-stream://{}", path.display()),
            Place::UnixDgram(path) => format!("unix-dgram://{}", path.display()),
        }
    }

    /// Whole messages so far.
    pub(crate) fn count(&self) -> usize {
        self.shared
            .lock()
            .connections
            .iter()
            .map(|connection| connection.messages.len())
            .sum()
    }

    /// Whole messages so far, in the order of their connections.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        let state = self.shared.lock();
        state
            .connections
            .iter()
            .flat_map(|connection| &connection.messages)
            .cloned()
            .collect()
    }

    /// Waits until `count` messages have come, and returns them.
    ///
    /// # Panics
    ///
    /// If there are fewer within the limit, or more.
    #[track_caller]
    pub(crate) fn wait_messages(&self, count: usize) -> Vec<Vec<u8>> {
        wait_until(&format!("{count} messages at the sink"), LIMIT, || {
            self.count() >= count
        });
        let messages = self.messages();
        assert_eq!(
            messages.len(),
            count,
            "messages at the sink: {}",
            show(&messages)
        );
        messages
    }

    /// Whole messages so far, connection by connection.
    pub(crate) fn messages_by_connection(&self) -> Vec<Vec<Vec<u8>>> {
        let state = self.shared.lock();
        let connections = state.connections.iter();
        connections
            .map(|connection| connection.messages.clone())
            .collect()
    }

    /// For each connection, the octets of a message that never became whole.
    pub(crate) fn fragments(&self) -> Vec<Vec<u8>> {
        let state = self.shared.lock();
        state
            .connections
            .iter()
            .map(|connection| connection.fragment.clone())
            .collect()
    }

    /// The number of connections so far, ended ones included.
    pub(crate) fn connection_count(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Stops listening and closes all connections, as if killed. What was recorded is kept.
    pub(crate) fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        // A waiting accept or receive returns when something comes, so send something.
        match &self.place {
            Place::Tcp(address) => drop(TcpStream::connect(address)),
            Place::UnixStream(path) => drop(UnixStream::connect(path)),
            Place::Udp(address) => {
                drop(UdpSocket::bind("127.0.0.1:0").and_then(|from| from.send_to(&[], address)));
            }
            Place::UnixDgram(path) => {
                drop(UnixDatagram::unbound().and_then(|from| from.send_to(&[], path)));
            }
        }
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        for connection in &mut self.shared.lock().connections {
            if let Some(socket) = connection.socket.take() {
                // This fails only if the relay has closed already.
                drop(socket.shutdown(Shutdown::Both));
            }
        }
    }

    /// Listens again on the same address, and keeps what was recorded.
    pub(crate) fn restart(&mut self) {
        assert!(self.listener.is_none(), "stop the sink first");
        self.shared.stopping.store(false, Ordering::SeqCst);
        let socket: Socket = match &self.place {
            Place::Tcp(address) => TcpListener::bind(address).unwrap().into(),
            Place::UnixStream(path) => {
                std::fs::remove_file(path).unwrap();
                UnixListener::bind(path).unwrap().into()
            }
            Place::Udp(_) | Place::UnixDgram(_) => panic!("a datagram sink is not restarted"),
        };
        let shared = Arc::clone(&self.shared);
        self.listener = Some(thread::spawn(move || accept_all(&socket, &shared)));
    }

    fn from_listener(listener: TcpListener, wire: Wire) -> Self {
        let place = Place::Tcp(listener.local_addr().unwrap());
        Self::start_stream(place, listener.into(), wire)
    }

    fn start_stream(place: Place, listener: Socket, wire: Wire) -> Self {
        let shared = Arc::new(Shared::new(wire));
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || accept_all(&listener, &of_thread));
        Self {
            place,
            shared,
            listener: Some(thread),
        }
    }

    fn start_datagram(place: Place, socket: Socket) -> Self {
        let shared = Arc::new(Shared::new(Wire::Lf));
        shared.lock().connections.push(Connection::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || receive_all(socket, &of_thread));
        Self {
            place,
            shared,
            listener: Some(thread),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.listener.is_some() && !thread::panicking() {
            self.stop();
        }
    }
}

/// A TCP port that is bound and refuses connections until it is opened.
pub(crate) struct RefusingPort {
    socket: Socket,
    address: SocketAddr,
}

impl RefusingPort {
    /// Binds a port.
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // So that the sink on this port can be restarted.
        socket.set_reuse_address(true).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket, address }
    }

    /// The URL for `--forward`.
    pub(crate) fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Starts to accept connections.
    pub(crate) fn open(self) -> Sink {
        self.socket.listen(128).unwrap();
        Sink::from_listener(self.socket.into(), Wire::Lf)
    }
}

impl Shared {
    fn new(wire: Wire) -> Self {
        let state = State {
            manner: Manner::Read,
            connections: Vec::new(),
        };
        Self {
            wire,
            state: Mutex::new(state),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether the manner ends the sending direction after so many octets.
    fn finishes_at(&self, read_so_far: usize) -> bool {
        matches!(self.lock().manner, Manner::FinishAfter(octets) if read_so_far >= octets)
    }

    /// Records that the sending direction of a connection was ended; true the first time.
    fn finish(&self, index: usize) -> bool {
        !std::mem::replace(&mut self.lock().connections[index].finished, true)
    }

    /// Waits until the manner may have changed, at most for `limit`.
    fn pause(&self, limit: Duration) {
        let state = self.lock();
        if !self.stopping() {
            drop(self.changed.wait_timeout(state, limit).unwrap());
        }
    }

    /// How many octets to read next and whether to send them back; `None` if the connection is to be closed. Waits if
    /// the manner says so.
    fn next_read(&self, read_so_far: usize) -> Option<(usize, bool)> {
        loop {
            let manner = self.lock().manner;
            if self.stopping() {
                return None;
            }
            match manner {
                Manner::Read => return Some((READ_OCTETS, false)),
                Manner::AnswerBack => return Some((READ_OCTETS, true)),
                Manner::CloseAfter(octets) if read_so_far >= octets => return None,
                Manner::CloseAfter(octets) => {
                    return Some(((octets - read_so_far).min(READ_OCTETS), false));
                }
                // The caller ends the sending direction; reading continues.
                Manner::FinishAfter(octets) => {
                    let left = octets.saturating_sub(read_so_far);
                    let limit = if left > 0 { left } else { READ_OCTETS };
                    return Some((limit.min(READ_OCTETS), false));
                }
                Manner::NeverRead => self.pause(LIMIT),
                Manner::Slow(octets) => {
                    self.pause(Duration::from_millis(100));
                    return Some((octets.min(READ_OCTETS), false));
                }
            }
        }
    }

    /// Records what came over a connection, and the messages that became whole.
    fn record(&self, index: usize, octets: &[u8]) {
        let mut state = self.lock();
        let connection = &mut state.connections[index];
        connection.fragment.extend_from_slice(octets);
        let fragment = std::mem::take(&mut connection.fragment);
        let mut rest = fragment.as_slice();
        while let Some((message, octets)) = self.wire.decode(rest) {
            // After the sending direction was ended, the relay may send an empty line to find out whether the sink
            // still reads.
            if !(connection.finished && message.is_empty()) {
                connection.messages.push(message.to_vec());
            }
            rest = &rest[octets..];
        }
        connection.fragment = rest.to_vec();
    }
}

/// Each connection gets a thread, which ends with it.
fn accept_all(listener: &Socket, shared: &Arc<Shared>) {
    loop {
        let (socket, _) = listener.accept().unwrap();
        if shared.stopping() {
            return;
        }
        let index = {
            let mut state = shared.lock();
            let handle = socket.try_clone().unwrap();
            state.connections.push(Connection {
                socket: Some(handle),
                ..Connection::default()
            });
            state.connections.len() - 1
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || read_all(socket, index, &shared));
    }
}

fn read_all(mut socket: Socket, index: usize, shared: &Shared) {
    let mut buffer = vec![0; READ_OCTETS];
    let mut read_so_far = 0;
    while let Some((limit, answer)) = shared.next_read(read_so_far) {
        // A reset ends the connection; what was recorded is kept.
        let count = socket.read(&mut buffer[..limit]).unwrap_or(0);
        if count == 0 {
            break;
        }
        read_so_far += count;
        shared.record(index, &buffer[..count]);
        if shared.finishes_at(read_so_far) && shared.finish(index) {
            // This fails only if the relay has closed already.
            drop(socket.shutdown(Shutdown::Write));
        }
        if answer && socket.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Both handles are closed here, so that unread octets reset the connection, as when a peer is killed.
    shared.lock().connections[index].socket = None;
}

fn receive_all(mut socket: Socket, shared: &Shared) {
    let mut buffer = vec![0; READ_OCTETS];
    loop {
        let count = socket.read(&mut buffer).unwrap();
        if shared.stopping() {
            return;
        }
        shared.lock().connections[0]
            .messages
            .push(buffer[..count].to_vec());
    }
}

/// Messages for a human reader.
pub(crate) fn show(messages: &[Vec<u8>]) -> String {
    let lines: Vec<_> = messages
        .iter()
        .take(20)
        .map(|message| message.escape_ascii().to_string())
        .collect();
    format!(
        "{} in all, the first of them:\n{}",
        messages.len(),
        lines.join("\n")
    )
}

const LITTLE_ROOM_OCTETS: usize = 16 * 1024;
const READ_OCTETS: usize = 256 * 1024;
const RECEIVE_BUFFER_OCTETS: usize = 64 * 1024 * 1024;
