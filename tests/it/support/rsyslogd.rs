//! The real rsyslogd, sending to the relay or receiving from it.
//!
//! Runs in the foreground on a configuration of its own in a directory of its own; it shares
//! nothing with a system's rsyslogd.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::{Process, run};
use super::wait::{LIMIT, wait_until};

/// How it is asked to send or to receive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    Udp,
    TcpTraditional,
    TcpOctetCounted,
}

/// What a receiver that is restarted reads with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DirectInput {
    Imtcp,
    Imrelp,
}

/// A running rsyslogd. Killed when dropped.
pub(crate) struct Rsyslogd {
    process: Process,
    dir: TempDir,
}

impl Rsyslogd {
    /// One that takes messages from the Unix socket [`Self::socket`], as a system's does from
    /// `/dev/log`, and sends all of them to this address.
    pub(crate) fn sender(to: SocketAddr, transport: Transport) -> Self {
        let protocol = match transport {
            Transport::Udp => r#"protocol="udp""#,
            Transport::TcpTraditional => r#"protocol="tcp" TCP_Framing="traditional""#,
            Transport::TcpOctetCounted => r#"protocol="tcp" TCP_Framing="octet-counted""#,
        };
        let (host, port) = (to.ip(), to.port());
        // The queue holds every message of a test: when it is full, rsyslogd drops after 2 s.
        let this = Self::start(|dir| {
            format!(
                r#"
                main_queue(queue.type="LinkedList" queue.size="1000000")
                module(load="imuxsock" SysSock.Use="off")
                input(type="imuxsock" Socket="{dir}/log.sock" RateLimit.Interval="0"
                      UseSysTimeStamp="off" ParseTrusted="off")
                action(type="omfwd" target="{host}" port="{port}" {protocol}
                       template="RSYSLOG_TraditionalForwardFormat"
                       action.resumeRetryCount="-1" action.resumeInterval="1")
                "#
            )
        });
        let socket = this.socket();
        wait_until("rsyslogd's socket", LIMIT, || socket.exists());
        this
    }

    /// One that receives on a port of its own and writes what came, raw, to a file. Returns the
    /// URL to forward to as well.
    pub(crate) fn receiver(transport: Transport) -> (Self, String) {
        let udp_port = free_udp_port();
        let this = Self::start(|dir| {
            let input = match transport {
                Transport::Udp => format!(
                    r#"module(load="imudp")
                    input(type="imudp" address="127.0.0.1" port="{udp_port}" rcvbufSize="64m")"#
                ),
                // It tells the framings apart by itself.
                Transport::TcpTraditional | Transport::TcpOctetCounted => format!(
                    r#"module(load="imtcp")
                    input(type="imtcp" address="127.0.0.1" port="0"
                          listenPortFileName="{dir}/port")"#
                ),
            };
            format!(
                r#"
                main_queue(queue.type="LinkedList" queue.size="1000000")
                {input}
                template(name="raw" type="string" string="%rawmsg%\n")
                action(type="omfile" file="{dir}/received" template="raw")
                "#
            )
        });
        let url = if transport == Transport::Udp {
            let line = format!(":{udp_port:04X} ");
            wait_until("rsyslogd's UDP port", LIMIT, || {
                fs::read_to_string("/proc/net/udp").unwrap().contains(&line)
            });
            format!("udp://127.0.0.1:{udp_port}")
        } else {
            let file = this.dir.path().join("port");
            wait_until("rsyslogd's TCP port", LIMIT, || {
                fs::read_to_string(&file).is_ok_and(|port| !port.trim().is_empty())
            });
            format!(
                "tcp://127.0.0.1:{}",
                fs::read_to_string(&file).unwrap().trim()
            )
        };
        (this, url)
    }

    /// One that receives with `input` and writes each message before it reads on (or, over RELP, answers):
    /// it has no queue of its own (`queue.type="direct"`), so that what it has read is in the file when it
    /// is asked to stop. Returns the URL to forward to as well.
    pub(crate) fn direct_receiver(input: DirectInput) -> (Self, String) {
        let port = free_tcp_port();
        let this = Self::start(|dir| {
            let input = match input {
                DirectInput::Imtcp => format!(
                    r#"module(load="imtcp") input(type="imtcp" address="127.0.0.1" port="{port}")"#
                ),
                DirectInput::Imrelp => format!(
                    r#"module(load="imrelp") input(type="imrelp" address="127.0.0.1" port="{port}")"#
                ),
            };
            format!(
                r#"
                main_queue(queue.type="Direct")
                {input}
                template(name="raw" type="string" string="%rawmsg%\n")
                action(type="omfile" file="{dir}/received" template="raw")
                "#
            )
        });
        wait_until("rsyslogd's port", LIMIT, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let scheme = match input {
            DirectInput::Imtcp => "tcp",
            DirectInput::Imrelp => "relp",
        };
        (this, format!("{scheme}://127.0.0.1:{port}"))
    }

    /// One that takes messages from the Unix socket [`Self::socket`] and sends all of them, as they came, by
    /// RELP to this address.
    pub(crate) fn relp_sender(to: SocketAddr) -> Self {
        let (host, port) = (to.ip(), to.port());
        let this = Self::start(|dir| {
            format!(
                r#"
                main_queue(queue.type="LinkedList" queue.size="1000000")
                module(load="imuxsock" SysSock.Use="off")
                module(load="omrelp")
                input(type="imuxsock" Socket="{dir}/log.sock" RateLimit.Interval="0"
                      UseSysTimeStamp="off" ParseTrusted="off")
                template(name="raw" type="string" string="%rawmsg%")
                action(type="omrelp" target="{host}" port="{port}" template="raw"
                       action.resumeRetryCount="-1" action.resumeInterval="1")
                "#
            )
        });
        let socket = this.socket();
        wait_until("rsyslogd's socket", LIMIT, || socket.exists());
        this
    }

    /// Sends it `signal`, waits until it has ended, and starts it again.
    pub(crate) fn restart(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.wait_exit(LIMIT);
        self.process = run_in(self.dir.path());
    }

    /// Octets that a receiver has written so far.
    pub(crate) fn received_octets(&self) -> u64 {
        fs::metadata(self.dir.path().join("received")).map_or(0, |file| file.len())
    }

    /// The socket that stands for `/dev/log`.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("log.sock")
    }

    /// The messages that a receiver has written so far.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        let file = fs::read(self.dir.path().join("received")).unwrap_or_default();
        let mut lines: Vec<_> = file
            .split(|&octet| octet == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        // What follows the last line feed is not whole yet.
        lines.pop();
        lines
    }

    /// Waits until `count` messages have been received and returns them.
    ///
    /// # Panics
    ///
    /// When there are fewer within the limit, or more.
    #[track_caller]
    pub(crate) fn wait_received(&self, count: usize) -> Vec<Vec<u8>> {
        let what = format!("{count} messages at rsyslogd");
        wait_until(&what, LIMIT, || self.received().len() >= count);
        let messages = self.received();
        assert_eq!(messages.len(), count, "messages at rsyslogd");
        messages
    }

    fn start(body: impl FnOnce(&str) -> String) -> Self {
        let dir = TempDir::with_prefix("tersed-rsyslogd-").unwrap();
        let file = dir.path().join(FILE);
        fs::write(&file, configuration(dir.path(), body)).unwrap();
        run(
            "rsyslogd",
            &["-N1", "-f", file.to_str().unwrap()],
            "rsyslog",
        );
        Self {
            process: run_in(dir.path()),
            dir,
        }
    }
}

fn configuration(dir: &Path, body: impl FnOnce(&str) -> String) -> String {
    let path = dir.to_str().unwrap();
    format!(
        "global(workDirectory=\"{path}\" maxMessageSize=\"64k\")\n{}",
        body(path)
    )
}

fn run_in(dir: &Path) -> Process {
    let mut command = Command::new("rsyslogd");
    command.args(["-n", "-iNONE", "-f"]).arg(dir.join(FILE));
    Process::start(&mut command, "rsyslog")
}

/// A port that was free a moment ago: rsyslogd has to have the same one in each of its lives.
fn free_tcp_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A port that was free a moment ago: imudp cannot be asked which one it took.
fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

const FILE: &str = "rsyslog.conf";
