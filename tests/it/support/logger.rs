//! util-linux's `logger`, the command that most shell scripts log with.

use std::net::SocketAddr;
use std::path::Path;

use super::process::run;

/// A `logger` command under construction.
#[derive(Clone)]
pub(crate) struct Logger {
    args: Vec<String>,
}

impl Logger {
    /// One datagram a message to this address.
    pub(crate) fn udp(to: SocketAddr) -> Self {
        Self::to_server(to).arg("--udp")
    }

    /// A connection to this address.
    pub(crate) fn tcp(to: SocketAddr) -> Self {
        Self::to_server(to).arg("--tcp")
    }

    /// A socket in the file system; stream or datagram, it tries both.
    pub(crate) fn unix(to: &Path) -> Self {
        let path = to.to_str().unwrap();
        Self {
            args: vec!["--socket".to_owned(), path.to_owned()],
        }
        // Without it a socket that cannot be reached is a success.
        .arg("--socket-errors=on")
    }

    /// The same with one more option.
    pub(crate) fn arg(mut self, option: &str) -> Self {
        self.args.push(option.to_owned());
        self
    }

    /// Logs `text`, as process `procid`.
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
