//! Starts, stops and controls the collector's process.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::collector::{Order, Protocol};
use super::messages::Arrived;
use crate::support::wait::{LIMIT, now, wait_while};

/// A collector that can be killed and started again on the same port. It is killed on drop.
pub(crate) struct Upstream {
    protocol: Protocol,
    dir: TempDir,
    /// Keeps the port while no collector runs: connecting to it is refused.
    _port: Socket,
    address: SocketAddr,
    child: Option<Child>,
    /// How to read, in this life and the next.
    manner: Order,
    lives: usize,
}

impl Upstream {
    /// Starts a collector.
    pub(crate) fn start(protocol: Protocol) -> Self {
        let (port, address) = take_port();
        let mut upstream = Self {
            protocol,
            dir: TempDir::with_prefix("tersed-torture-").unwrap(),
            _port: port,
            address,
            child: None,
            manner: Order::Read,
            lives: 0,
        };
        upstream.revive();
        upstream
    }

    /// Its URL for the relay's configuration.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.protocol.scheme(), self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `SIGKILL`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, and waits until it listens.
    pub(crate) fn revive(&mut self) {
        assert!(self.child.is_none(), "the collector runs already");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["collector", self.protocol.scheme()])
            .arg(self.address.port().to_string())
            .arg(self.dir.path())
            .arg(format!("{:06}", self.lives))
            .arg(self.manner.word())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        self.lives += 1;
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        assert_eq!(ready, "listening\n", "the collector did not start");
        self.child = Some(child);
    }

    /// Freezes the process (`SIGSTOP`): the kernel still accepts and acknowledges for it.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Continues it.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Sets how to read after the next start.
    pub(crate) fn order_for_next_life(&mut self, manner: Order) {
        assert!(self.child.is_none() && manner.is_manner());
        self.manner = manner;
    }

    /// Sends it an order.
    pub(crate) fn order(&mut self, order: Order) {
        if order.is_manner() {
            self.manner = order;
        }
        let child = self.child.as_mut().expect("the collector runs");
        let stdin = child
            .stdin
            .as_mut()
            .expect("orders go to its standard input");
        writeln!(stdin, "{}", order.word()).unwrap();
    }

    /// Everything that it stored in all its lives, connection after connection.
    pub(crate) fn arrived(&self) -> Arrived {
        let mut arrived = Arrived::default();
        for file in self.files() {
            let octets = fs::read(file).unwrap();
            // Octets after the last line feed are an incomplete message.
            let end = octets.iter().rposition(|&octet| octet == b'\n');
            if let Some(end) = end {
                arrived.note(octets[..end].split(|&octet| octet == b'\n'));
            }
        }
        arrived
    }

    /// Waits until enough has arrived, or nothing more comes. The caller then reports what is missing.
    pub(crate) fn wait_arrived(&self, is_enough: impl Fn(&Arrived) -> bool) {
        let mut octets = self.stored_octets();
        let mut moved = now();
        wait_while(LIMIT, || {
            let before = std::mem::replace(&mut octets, self.stored_octets());
            if before != octets {
                moved = now();
                return true;
            }
            // Counting reads all files, so count only when nothing moves.
            moved.elapsed() < QUIET && !is_enough(&self.arrived())
        });
    }

    /// Octets stored so far. The number grows while something arrives.
    fn stored_octets(&self) -> u64 {
        let files = self.files().into_iter();
        files.map(|file| fs::metadata(file).unwrap().len()).sum()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().expect("the collector runs").id();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reserves a port for processes that set `SO_REUSEADDR`. While none of them listens, connecting to it is refused.
pub(crate) fn take_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Longer than a relay pauses before it connects again, plus the time in which an upstream that kept breaking has to
/// prove itself, plus a margin.
const QUIET: Duration = Duration::from_secs(12);
