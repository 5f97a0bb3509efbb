//! util-linux's `logger`, the command with which most shell scripts log.

use std::net::SocketAddr;
use std::path::Path;

use super::process::run;

/// A `logger` command under construction.
#[derive(Clone)]
pub(crate) struct Logger {
    args: Vec<String>,
}

impl Logger {
    /// Sends each message as a datagram to this address.
    pub(crate) fn udp(to: SocketAddr) -> Self {
        Self::to_server(to).arg("--udp")
    }

    /// Sends over a connection to this address.
    pub(crate) fn tcp(to: SocketAddr) -> Self {
        Self::to_server(to).arg("--tcp")
    }

    /// Sends to a Unix socket; `logger` tries both stream and datagram.
    pub(crate) fn unix(to: &Path) -> Self {
        let path = to.to_str().unwrap();
        Self {
            args: vec!["--socket".to_owned(), path.to_owned()],
        }
        // Without this, `logger` reports success although the socket cannot be reached.
        .arg("--socket-errors=on")
    }

    /// Adds one option.
    pub(crate) fn arg(mut self, option: &str) -> Self {
        self.args.push(option.to_owned());
        self
    }

    /// Logs `text` with the process id `procid`.
    #[track_caller]
    pub(crate) fn log(&self, procid: u32, text: &str) {
        let mut args = self.args.clone();
        args.extend([format!("--id={procid}"), "--tag=app".to_owned()]);
        args.extend(["--".to_owned(), text.to_owned()]);
        run("logger", &args, "bsdutils");
    }

    fn to_server(to: SocketAddr) -> Self {
        Self {
            args: vec![
                format!("--server={}", to.ip()),
                format!("--port={}", to.port()),
            ],
        }
    }
}
