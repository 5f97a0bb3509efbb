//! The relays that are compared, each with the settings that make it do the same work: receive, suppress repeats,
//! forward over TCP.

use std::{
    fs,
    io::Error,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{
    case::{Case, Mix, Transport},
    floor,
};

/// A relay to be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    Tersed,
    Rsyslogd,
    SyslogNg,
    Floor,
    /// The floor over UDP that lets a batch fill.
    FloorPause,
}

/// How tersed runs, where that is not the default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings<'a> {
    /// `None` is one per core.
    pub(crate) workers: Option<usize>,
    /// Further arguments of `tersed run`.
    pub(crate) arguments: &'a [&'a str],
}

impl Peer {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tersed => "tersed",
            Self::Rsyslogd => "rsyslogd",
            Self::SyslogNg => "syslog-ng",
            Self::Floor => "floor",
            Self::FloorPause => "floor+pause",
        }
    }

    /// Whether this relay can run this case.
    pub(crate) fn fits(self, case: &Case) -> bool {
        self != Self::FloorPause || matches!(case.transport, Transport::Udp { .. })
    }

    /// Starts it; it receives at `listen` and forwards to `sink`. `dir` is its own directory.
    pub(crate) fn start(
        self,
        case: &Case,
        listen: SocketAddr,
        sink: SocketAddr,
        dir: &Path,
        settings: &Settings<'_>,
    ) -> std::io::Result<Child> {
        let is_udp = matches!(case.transport, Transport::Udp { .. });
        let transport = if is_udp { "udp" } else { "tcp" };
        let mut command = match self {
            Self::Tersed => {
                let configuration = dir.join("tersed.toml");
                fs::write(
                    &configuration,
                    tersed_toml(transport, listen, sink, settings.workers),
                )?;
                let mut command = Command::new(env!("CARGO_BIN_EXE_tersed"));
                command.args(["run", "--config"]).arg(configuration);
                command.args(settings.arguments);
                command
            }
            Self::Rsyslogd => {
                let configuration = dir.join("rsyslog.conf");
                fs::write(&configuration, rsyslog_conf(is_udp, listen, sink, dir))?;
                let mut command = Command::new("rsyslogd");
                command.args(["-n", "-iNONE", "-f"]).arg(configuration);
                command
            }
            Self::SyslogNg => {
                let root = syslog_ng_root().ok_or(std::io::ErrorKind::NotFound)?;
                let configuration = dir.join("syslog-ng.conf");
                fs::write(&configuration, syslog_ng_conf(transport, listen, sink))?;
                let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
                let libraries = [
                    "usr/lib/syslog-ng",
                    "usr/lib/x86_64-linux-gnu",
                    "lib/x86_64-linux-gnu",
                ]
                .map(|library| root.join(library).display().to_string());
                command
                    .args(["--foreground", "--no-caps", "--stderr"])
                    .arg(format!("--cfgfile={}", configuration.display()))
                    .arg(format!("--persist-file={}/persist", dir.display()))
                    .arg(format!("--control={}/control", dir.display()))
                    .arg(format!("--pidfile={}/pid", dir.display()));
                if root != Path::new("/") {
                    command.env("LD_LIBRARY_PATH", libraries.join(":"));
                    if let Some(modules) = modules(&root) {
                        command.arg(format!("--module-path={}", modules.display()));
                    }
                }
                command
            }
            Self::Floor | Self::FloorPause => {
                let pause = if self == Self::FloorPause {
                    "+pause"
                } else {
                    ""
                };
                let mut command = Command::new(std::env::current_exe()?);
                let mode = if case.mix == Mix::Unique {
                    "forward"
                } else {
                    "drop"
                };
                command.args([
                    floor::WORD,
                    &format!("{transport}{pause}"),
                    &listen.to_string(),
                    &sink.to_string(),
                    mode,
                ]);
                command
            }
        };
        let log = fs::File::create(dir.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }
}

/// Prints the error. If another relay failed, the benchmark continues without it; if tersed failed, it does not.
pub(crate) fn failed(peer: Peer, case: &Case, error: Error) -> Result<(), Error> {
    let told = format!("{} in {case}: {error}", peer.name());
    if peer == Peer::Tersed {
        return Err(Error::other(told));
    }
    eprintln!("\r\x1b[K{told}");
    Ok(())
}

/// The installed relays, and the names of those that are not installed.
pub(crate) fn installed() -> (Vec<Peer>, Vec<&'static str>) {
    let has_rsyslogd = Command::new("rsyslogd").arg("-v").output().is_ok();
    let mut peers = vec![Peer::Tersed];
    let mut missing = Vec::new();
    for (peer, there) in [
        (Peer::Rsyslogd, has_rsyslogd),
        (Peer::SyslogNg, syslog_ng_root().is_some()),
    ] {
        if there {
            peers.push(peer)
        } else {
            missing.push(peer.name())
        }
    }
    peers.extend([Peer::Floor, Peer::FloorPause]);
    (peers, missing)
}

/// The default configuration, but with room for every load's messages and connections.
fn tersed_toml(
    transport: &str,
    listen: SocketAddr,
    sink: SocketAddr,
    workers: Option<usize>,
) -> String {
    let connections = if transport == "tcp" {
        "connections_max = 4096\nconnections_per_source_max = 4096\n"
    } else {
        ""
    };
    let workers = workers.map_or("\"auto\"".to_owned(), |workers| workers.to_string());
    format!(
        "[[listener]]\nurl = \"{transport}://{listen}\"\n{connections}\
         [forward]\nto = [\"tcp://{sink}\"]\n\
         [dedup]\nmemory = \"2GiB\"\n\
         [runtime]\nworkers = {workers}\n"
    )
}

/// rsyslog with what its documentation recommends for speed, and with its own suppression of repeats.
fn rsyslog_conf(is_udp: bool, listen: SocketAddr, sink: SocketAddr, dir: &Path) -> String {
    let module = if is_udp { "imudp" } else { "imptcp" };
    let (address, port) = (listen.ip(), listen.port());
    let room = if is_udp {
        r#"rcvbufSize="8m""#
    } else {
        r#"socketBacklog="1024""#
    };
    format!(
        "$MaxMessageSize 64k\n\
         $WorkDirectory {dir}\n\
         $RepeatedMsgReduction on\n\
         module(load=\"{module}\")\n\
         input(type=\"{module}\" address=\"{address}\" port=\"{port}\" {room})\n\
         action(type=\"omfwd\" target=\"{}\" port=\"{}\" protocol=\"tcp\" \
         template=\"RSYSLOG_TraditionalForwardFormat\" action.resumeRetryCount=\"-1\")\n",
        sink.ip(),
        sink.port(),
        dir = dir.display(),
    )
}

fn syslog_ng_conf(transport: &str, listen: SocketAddr, sink: SocketAddr) -> String {
    let receive_buffer = if transport == "udp" {
        " so-rcvbuf(8388608)"
    } else {
        ""
    };
    format!(
        "@version: 3.38\n\
         options {{ keep-hostname(yes); use-dns(no); log-fifo-size(100000); stats-freq(0); }};\n\
         source s {{ network(ip(\"{}\") port({}) transport(\"{transport}\") max-connections(4096) \
         log-iw-size(100000){receive_buffer}); }};\n\
         destination d {{ network(\"{}\" port({}) transport(\"tcp\") suppress(10)); }};\n\
         log {{ source(s); destination(d); flags(flow-control); }};\n",
        listen.ip(),
        listen.port(),
        sink.ip(),
        sink.port(),
    )
}

/// `/` if it is installed, or the directory where `tests/run` unpacked it.
fn syslog_ng_root() -> Option<PathBuf> {
    let unpacked = std::env::var_os("TERSED_TEST_SYSLOG_NG").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/syslog-ng"),
        PathBuf::from,
    );
    [PathBuf::from("/"), unpacked]
        .into_iter()
        .find(|root| root.join("usr/sbin/syslog-ng").exists())
}

fn modules(root: &Path) -> Option<PathBuf> {
    fs::read_dir(root.join("usr/lib/syslog-ng"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|directory| directory.join("libafsocket.so").exists())
}
