//! The real syslog-ng, sending to the relay.
//!
//! Debian does not install it beside rsyslog. So it runs from the directory where `tests/run` unpacks its packages:
//! `TERSED_TEST_SYSLOG_NG`, or `target/syslog-ng`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::wait::{LIMIT, wait_until};

/// A running syslog-ng. It is killed on drop.
pub(crate) struct SyslogNg {
    _process: Process,
    dir: TempDir,
}

impl SyslogNg {
    /// A syslog-ng that takes messages from the Unix socket [`Self::socket`] and sends all of them to this address, as
    /// RFC 5424 over TCP with octet counting, each with its own `meta sequenceId`.
    pub(crate) fn sender(to: SocketAddr) -> Self {
        let root = unpacked();
        let dir = TempDir::with_prefix("tersed-syslog-ng-").unwrap();
        let path = dir.path().to_str().unwrap();
        let (host, port) = (to.ip(), to.port());
        let configuration = format!(
            r#"@version: 3.38
            options {{ keep-hostname(yes); time-reopen(1); }};
            source local {{ unix-dgram("{path}/log.sock"); }};
            destination relay {{ syslog("{host}" port({port}) transport("tcp")); }};
            log {{ source(local); destination(relay); flags(flow-control); }};
            "#
        );
        fs::write(dir.path().join("syslog-ng.conf"), configuration).unwrap();
        let libraries = [
            "usr/lib/syslog-ng",
            "usr/lib/x86_64-linux-gnu",
            "lib/x86_64-linux-gnu",
        ]
        .map(|library| root.join(library).to_str().unwrap().to_owned());
        let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
        command
            .args(["--foreground", "--no-caps", "--stderr"])
            .arg(format!("--module-path={}", modules(&root).display()))
            .arg(format!("--cfgfile={path}/syslog-ng.conf"))
            .arg(format!("--persist-file={path}/persist"))
            .arg(format!("--control={path}/control"))
            .arg(format!("--pidfile={path}/pid"))
            .env("LD_LIBRARY_PATH", libraries.join(":"));
        let this = Self {
            _process: Process::start(&mut command, "syslog-ng-core"),
            dir,
        };
        let socket = this.socket();
        wait_until("syslog-ng's socket", LIMIT, || socket.exists());
        this
    }

    /// The socket in place of `/dev/log`.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("log.sock")
    }
}

/// The directory of its modules, which is named after the version.
fn modules(root: &Path) -> PathBuf {
    let versions = fs::read_dir(root.join("usr/lib/syslog-ng")).unwrap();
    let mut directories = versions.map(|entry| entry.unwrap().path());
    let found = directories.find(|directory| directory.join("libafsocket.so").exists());
    found.expect("syslog-ng-core has its modules")
}

/// The directory where its packages were unpacked.
fn unpacked() -> PathBuf {
    let root = std::env::var_os("TERSED_TEST_SYSLOG_NG").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/syslog-ng"),
        PathBuf::from,
    );
    assert!(
        root.join("usr/sbin/syslog-ng").exists(),
        "no syslog-ng below {}; tests/run unpacks it there",
        root.display()
    );
    root
}
