//! A network of a test's own, whose packets can be lost.

use std::net::SocketAddr;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::process::run;

/// A network namespace with a loopback of its own; all that the thread inside it starts lives there.
pub(crate) struct Network(());

impl Network {
    /// Runs `test` inside a new one, in a thread that ends with it.
    ///
    /// # Panics
    ///
    /// When this is not root, who alone may do that.
    pub(crate) fn inside(test: impl FnOnce(&Self) + Send) {
        let body = || {
            assert!(
                nix::unistd::geteuid().is_root(),
                "this test loses packets: run it as root, as .ci/run does"
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

    /// Loses every packet to and from this TCP port from now on, without a word to anybody.
    pub(crate) fn cut(&self, address: SocketAddr) {
        self.filter("-I", address);
    }

    /// Loses them no longer.
    pub(crate) fn mend(&self, address: SocketAddr) {
        self.filter("-D", address);
    }

    fn filter(&self, action: &str, address: SocketAddr) {
        let port = address.port().to_string();
        for end in ["--sport", "--dport"] {
            // On arrival: what a sender's own kernel refuses to send it may hear of.
            let args = [action, "INPUT", "-p", "tcp", end, &port, "-j", "DROP"];
            run("iptables", &args, "iptables");
        }
    }
}
