//! The real rsyslogd, sending to the relay or receiving from it.
//!
//! It runs in the foreground, on its own configuration in its own directory, and shares nothing with a system's
//! rsyslogd.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::{Process, run};
use super::wait::{LIMIT, wait_until};

/// How it sends or receives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    Udp,
    TcpTraditional,
    TcpOctetCounted,
    Relp,
}

/// A running rsyslogd. It is killed on drop.
pub(crate) struct Rsyslogd {
    process: Process,
    dir: TempDir,
}

impl Rsyslogd {
    /// An rsyslogd that takes messages from the Unix socket [`Self::socket`], as a system's does from `/dev/log`, and
    /// sends all of them to this address.
    pub(crate) fn sender(to: SocketAddr, transport: Transport) -> Self {
        Self::sender_with(to, transport, "")
    }

    /// As [`sender`](Self::sender), with further parameters of its action.
    pub(crate) fn sender_with(to: SocketAddr, transport: Transport, parameters: &str) -> Self {
        let protocol = match transport {
            Transport::Udp => r#"protocol="udp""#,
            Transport::TcpTraditional => r#"protocol="tcp" TCP_Framing="traditional""#,
            Transport::TcpOctetCounted => r#"protocol="tcp" TCP_Framing="octet-counted""#,
            // rsyslogd corks its socket while it sends a batch of its queue (256). With a smaller window, the window is
            // full while the last part of the batch waits in the corked socket, 200 ms each time.
            Transport::Relp => r#"windowSize="1024""#,
        };
        let (module, action) = match transport {
            Transport::Relp => (r#"module(load="omrelp")"#, "omrelp"),
            _ => ("", "omfwd"),
        };
        let (host, port) = (to.ip(), to.port());
        // The queue has room for every message of a test: when it is full, rsyslogd drops messages after 2 s.
        let this = Self::start(|dir| {
            format!(
                r#"
                main_queue(queue.type="LinkedList" queue.size="1000000")
                {module}
                module(load="imuxsock" SysSock.Use="off")
                input(type="imuxsock" Socket="{dir}/log.sock" RateLimit.Interval="0"
                      UseSysTimeStamp="off" ParseTrusted="off")
                action(type="{action}" target="{host}" port="{port}" {protocol} {parameters}
                       template="RSYSLOG_TraditionalForwardFormat"
                       action.resumeRetryCount="-1" action.resumeInterval="1")
                "#
            )
        });
        let socket = this.socket();
        wait_until("rsyslogd's socket", LIMIT, || socket.exists());
        this
    }

    /// An rsyslogd that receives on a free port, and writes the raw messages to a file. Also returns the URL to forward
    /// to.
    pub(crate) fn receiver(transport: Transport) -> (Self, String) {
        if transport == Transport::Relp {
            return Self::relp_receiver();
        }
        let udp_port = free_udp_port();
        let this = Self::start(|dir| {
            let input = match transport {
                Transport::Udp => format!(
                    r#"module(load="imudp")
                    input(type="imudp" address="127.0.0.1" port="{udp_port}" rcvbufSize="64m")"#
                ),
                // It recognises both framings.
                _ => format!(
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

    /// An rsyslogd that receives TCP and writes each message before it reads on. It has no queue of its own, so what it
    /// has read is in the file when it is stopped. Also returns the URL to forward to.
    pub(crate) fn direct_receiver() -> (Self, String) {
        let port = free_tcp_port();
        let input = r#"module(load="imtcp") input(type="imtcp" address="127.0.0.1" port="#;
        (
            Self::direct(port, &format!("{input}\"{port}\")")),
            format!("tcp://127.0.0.1:{port}"),
        )
    }

    /// An rsyslogd that receives RELP, and answers when a message is in its file. With a queue of its own, an answer
    /// would only mean that the message is in memory.
    fn relp_receiver() -> (Self, String) {
        // imrelp does not report which port it took.
        let port = free_tcp_port();
        let input = r#"module(load="imrelp") input(type="imrelp" address="127.0.0.1" maxDataSize="128k" port="#;
        (
            Self::direct(port, &format!("{input}\"{port}\")")),
            format!("relp://127.0.0.1:{port}"),
        )
    }

    fn direct(port: u16, input: &str) -> Self {
        let this = Self::start(|dir| {
            format!(
                r#"
                main_queue(queue.type="Direct")
                {input}
                template(name="raw" type="string" string="%rawmsg%\n")
                action(type="omfile" file="{dir}/received" template="raw")
                "#
            )
        });
        this.wait_port(port);
        this
    }

    fn wait_port(&self, port: u16) {
        wait_until("rsyslogd's TCP port", LIMIT, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// Kills it, and starts it again with the same configuration. What it wrote is kept.
    pub(crate) fn kill_and_restart(&mut self) {
        self.restart(Signal::SIGKILL);
    }

    /// Sends it `signal`, waits until it has ended, and starts it again with the same configuration.
    pub(crate) fn restart(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.wait_exit(LIMIT);
        let file = self.dir.path().join("rsyslog.conf");
        self.process = start(file.to_str().unwrap());
    }

    /// Octets that a receiver has written so far.
    pub(crate) fn received_octets(&self) -> u64 {
        fs::metadata(self.dir.path().join("received")).map_or(0, |file| file.len())
    }

    /// The socket in place of `/dev/log`.
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
        // What follows the last line feed is not a whole message yet.
        lines.pop();
        lines
    }

    /// Waits until `count` messages have been received and returns them.
    ///
    /// # Panics
    ///
    /// If there are fewer within the limit, or more.
    #[track_caller]
    pub(crate) fn wait_received(&self, count: usize) -> Vec<Vec<u8>> {
        let what = format!("{count} messages at rsyslogd");
        wait_until(&what, LIMIT, || self.received().len() >= count);
        let messages = self.received();
        assert_eq!(messages.len(), count, "messages at rsyslogd");
        messages
    }

    fn start(configuration: impl FnOnce(&str) -> String) -> Self {
        let dir = TempDir::with_prefix("tersed-rsyslogd-").unwrap();
        let path = dir.path().to_str().unwrap();
        let file = dir.path().join("rsyslog.conf");
        let text = format!(
            "global(workDirectory=\"{path}\" maxMessageSize=\"64k\")\n{}",
            configuration(path)
        );
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        run("rsyslogd", &["-N1", "-f", file], "rsyslog and rsyslog-relp");
        Self {
            process: start(file),
            dir,
        }
    }
}

fn start(file: &str) -> Process {
    let mut command = Command::new("rsyslogd");
    command.args(["-n", "-iNONE", "-f", file]);
    Process::start(&mut command, "rsyslog")
}

/// A port that was free a moment ago.
pub(crate) fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A port that was free a moment ago: imudp does not report which one it took.
fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
