//! The upstream: a process of its own, so that it can be killed with `SIGKILL`.
//!
//! It stores what it reads before it reads on. To be exact about that, it looks at the octets in the socket
//! (`MSG_PEEK`), writes them to a file, and only then takes them from the socket. So whenever it is killed, an octet is
//! in a file or still unread. Each connection has its own file; the names sort in the order of the connections. Octets
//! that the kernel has for a file survive the kill of the process (but not a crash of the machine, which is not
//! tested).
//!
//! It takes orders from standard input, one a line, and exits at the end of input. So it never survives the test.
//!
//! # Left out
//!
//! A collector that takes octets from the socket and is killed before it stores them. They are lost, and over plain TCP
//! no relay can know.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::relp::{self, Decoder};
use super::report;
use crate::support::wait::{LIMIT, wait_for};

/// An order to the collector. The last three are carried out once, on each open connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// Read everything.
    Read,
    /// Read little at a time, with pauses.
    Slow,
    /// Read much at a time, but more slowly than the relay sends. The kernel gives such a reader an ever larger buffer,
    /// which is always full.
    Steady,
    /// Read nothing.
    Hold,
    /// Accept, read nothing, and close at once: a load balancer without a backend.
    Shun,
    /// End the sending direction, and read on.
    HalfClose,
    /// Close at once. The kernel sends a reset if octets were unread.
    Close,
    Reset,
}

const ORDERS: [(Order, &str); 8] = [
    (Order::Read, "read"),
    (Order::Slow, "slow"),
    (Order::Steady, "steady"),
    (Order::Hold, "hold"),
    (Order::Shun, "shun"),
    (Order::HalfClose, "half-close"),
    (Order::Close, "close"),
    (Order::Reset, "reset"),
];

impl Order {
    /// The word that is written to the process.
    pub(crate) fn word(self) -> &'static str {
        let named = ORDERS.into_iter().find(|(order, _)| *order == self);
        named.expect("all orders have a word").1
    }

    fn named(word: &str) -> Self {
        let named = ORDERS.into_iter().find(|(_, of)| *of == word);
        named.unwrap_or_else(|| panic!("unknown order: {word}")).0
    }

    /// Whether this order says how to read from now on. The others are carried out once.
    pub(crate) fn is_manner(self) -> bool {
        matches!(
            self,
            Self::Read | Self::Slow | Self::Steady | Self::Hold | Self::Shun
        )
    }
}

/// The protocol of the collector.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    /// Lines.
    Tcp,
    Relp,
}

impl Protocol {
    /// The name in URLs and on the command line.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Relp => "relp",
        }
    }
}

/// The main function of the process; arguments: `scheme port directory life manner`.
pub(crate) fn run(args: &[String]) {
    let [scheme, port, directory, life, manner] = args else {
        panic!("usage: collector SCHEME PORT DIRECTORY LIFE MANNER; found {args:?}");
    };
    let protocol = if scheme == "relp" {
        Protocol::Relp
    } else {
        Protocol::Tcp
    };
    let listener = listen(port.parse().unwrap());
    let shared = Arc::new(Shared {
        orders: Mutex::new(Orders {
            manner: Order::named(manner),
            once: None,
            count: 0,
        }),
        changed: Condvar::new(),
    });
    report::say("listening");
    let prefix = PathBuf::from(directory).join(life);
    let of_thread = Arc::clone(&shared);
    thread::spawn(move || accept_all(protocol, &listener, &prefix, &of_thread));
    for line in io::stdin().lock().lines() {
        shared.take(Order::named(&line.unwrap()));
    }
}

/// The test's process is bound to the port as well, without listening.
fn listen(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("the collector's port", LIMIT, || {
        socket.bind(&address.into()).ok()
    });
    socket.listen(128).unwrap();
    socket.into()
}

struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct Orders {
    /// How to read.
    manner: Order,
    /// The last order to be carried out once.
    once: Option<Order>,
    /// How many such orders were given.
    count: u64,
}

impl Shared {
    fn take(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap();
        if order.is_manner() {
            orders.manner = order;
        } else {
            orders.once = Some(order);
            orders.count += 1;
        }
        self.changed.notify_all();
    }

    fn now(&self) -> Orders {
        *self.orders.lock().unwrap()
    }

    fn pause(&self, limit: Duration) {
        let orders = self.orders.lock().unwrap();
        drop(self.changed.wait_timeout(orders, limit).unwrap());
    }
}

fn accept_all(protocol: Protocol, listener: &TcpListener, prefix: &Path, shared: &Arc<Shared>) {
    for index in 0.. {
        let (socket, _) = listener.accept().unwrap();
        let name = format!("{}-{index:06}", prefix.display());
        let file = File::create_new(name).unwrap();
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let mut connection = Connection {
                done: shared.now().count,
                socket,
                file,
            };
            // What was stored stays stored, however the connection ends.
            drop(match protocol {
                Protocol::Tcp => connection.store_octets(&shared),
                Protocol::Relp => connection.store_transactions(&shared),
            });
        });
    }
}

struct Connection {
    socket: TcpStream,
    file: File,
    /// How many orders this connection has carried out, or were given before it began.
    done: u64,
}

impl Connection {
    fn store_octets(&mut self, shared: &Shared) -> io::Result<()> {
        let mut buffer = vec![0; READ_OCTETS];
        while let Some(count) = self.look(shared, &mut buffer)? {
            let octets = &mut buffer[..count];
            self.file.write_all(octets)?;
            self.socket.read_exact(octets)?;
        }
        Ok(())
    }

    /// Stores each message before it is answered. The answers to one read go out together.
    fn store_transactions(&mut self, shared: &Shared) -> io::Result<()> {
        let mut buffer = vec![0; READ_OCTETS];
        let mut decoder = Decoder::default();
        let mut expected = 1;
        while let Some(count) = self.look(shared, &mut buffer)? {
            let octets = &mut buffer[..count];
            self.socket.read_exact(octets)?;
            decoder.push(octets);
            let (mut stored, mut answers) = (Vec::new(), Vec::new());
            let mut closing = false;
            while let Some(frame) = decoder.next()? {
                assert_eq!(frame.txnr, expected, "TXNR out of order: {frame:?}");
                expected = relp::next(expected);
                match frame.command.as_str() {
                    "open" => {
                        let answer = [b"200 OK\n", relp::OFFER].concat();
                        relp::encode(&mut answers, frame.txnr, "rsp", &answer);
                    }
                    "syslog" => {
                        stored.extend_from_slice(&frame.data);
                        stored.push(b'\n');
                        relp::encode(&mut answers, frame.txnr, "rsp", b"200 OK");
                    }
                    "close" => {
                        relp::encode(&mut answers, frame.txnr, "rsp", b"");
                        relp::encode(&mut answers, 0, "serverclose", b"");
                        closing = true;
                    }
                    other => panic!("the relay sent {other}"),
                }
            }
            self.file.write_all(&stored)?;
            self.socket.write_all(&answers)?;
            if closing {
                break;
            }
        }
        Ok(())
    }

    /// Peeks at the octets in the socket, as the orders allow, and leaves them there. Returns how many there are, or
    /// `None` at the end.
    fn look(&mut self, shared: &Shared, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.socket.set_read_timeout(Some(LOOK))?;
        loop {
            let orders = shared.now();
            if orders.count > self.done {
                self.done = orders.count;
                match orders.once {
                    Some(Order::HalfClose) => self.socket.shutdown(Shutdown::Write)?,
                    Some(Order::Reset) => {
                        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
                        return Ok(None);
                    }
                    _ => return Ok(None),
                }
            }
            let most = match orders.manner {
                Order::Hold => {
                    shared.pause(LOOK);
                    continue;
                }
                Order::Shun => return Ok(None),
                Order::Slow => {
                    shared.pause(Duration::from_millis(10));
                    SLOW_OCTETS
                }
                Order::Steady => {
                    shared.pause(Duration::from_millis(2));
                    buffer.len()
                }
                _ => buffer.len(),
            };
            match self.socket.peek(&mut buffer[..most]) {
                Ok(0) => return Ok(None),
                Ok(count) => return Ok(Some(count)),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

const READ_OCTETS: usize = 64 * 1024;
const SLOW_OCTETS: usize = 1000;
/// The longest time until an order is noticed.
const LOOK: Duration = Duration::from_millis(20);
