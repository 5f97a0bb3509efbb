//! A network namespace for one test, in which packets can be dropped.

use std::net::SocketAddr;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::process::run;

/// A network namespace with its own loopback. Everything that the thread inside it starts is in the namespace.
pub(crate) struct Network(());

impl Network {
    /// Runs `test` in a new namespace, in a thread that ends with it.
    ///
    /// # Panics
    ///
    /// If the test does not run as root, which the namespace needs.
    pub(crate) fn inside(test: impl FnOnce(&Self) + Send) {
        let body = || {
            assert!(
                nix::unistd::geteuid().is_root(),
                "this test drops packets; run it as root, as .ci/run does"
            );
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"], "iproute2");
            test(&Self(()));
        };
        let ended = thread::scope(|scope| scope.spawn(body).join());
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    /// Drops every packet to and from this TCP port from now on, silently.
    pub(crate) fn cut(&self, address: SocketAddr) {
        self.filter("-I", address);
    }

    /// Stops dropping them.
    pub(crate) fn mend(&self, address: SocketAddr) {
        self.filter("-D", address);
    }

    fn filter(&self, action: &str, address: SocketAddr) {
        let port = address.port().to_string();
        for end in ["--sport", "--dport"] {
            // Dropped on input: if the output chain dropped them, the sender's kernel might report it.
            let args = [action, "INPUT", "-p", "tcp", end, &port, "-j", "DROP"];
            run("iptables", &args, "iptables");
        }
    }
}
