//! A relay that can be killed, or asked to stop, and started again: on the same port, and with the same
//! spool.

use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use socket2::Socket;
use tempfile::TempDir;

use super::upstream::take_port;
use crate::support::metrics::{Balance, Metrics};
use crate::support::tersed::{Setup, Tersed};

/// The relay over all its lives. Killed when dropped.
pub(crate) struct Relay {
    /// Holds the port while no relay lives.
    _port: Socket,
    address: SocketAddr,
    config: String,
    /// Its spool, if it has one, is in here.
    _dir: TempDir,
    tersed: Option<Tersed>,
    /// What became of the frames in those lives that did not end by a kill.
    pub(crate) lives: Vec<Balance>,
    /// Frames found in the spool at the starts.
    pub(crate) recovered: u64,
}

impl Relay {
    /// One that lives. `config` is told the address to listen on, and a directory that outlives each
    /// life.
    pub(crate) fn start(config: impl FnOnce(SocketAddr, &Path) -> String) -> Self {
        let (port, address) = take_port();
        let dir = TempDir::with_prefix("tersed-torture-").unwrap();
        let mut relay = Self {
            _port: port,
            address,
            config: config(address, dir.path()),
            _dir: dir,
            tersed: None,
            lives: Vec::new(),
            recovered: 0,
        };
        relay.begin();
        relay
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `SIGKILL` in the middle of whatever it does, and another start. Up to then nothing was counted twice.
    pub(crate) fn kill(&mut self) {
        let tersed = self.tersed.take().expect("it lives");
        self.note_recovered(&tersed);
        tersed.kill();
        self.begin();
    }

    /// `SIGTERM`, and another start. The counting law holds for the life that ends so.
    pub(crate) fn stop(&mut self) {
        let mut tersed = self.tersed.take().expect("it lives");
        self.note_recovered(&tersed);
        tersed.balance_at_exit();
        let stopped = tersed.terminate();
        assert!(stopped.status.success(), "{}", stopped.status);
        let balance = stopped.balance();
        assert!(balance.holds(), "at a stop: {balance:?}");
        self.lives.push(balance);
        self.begin();
    }

    /// Waits until it has received so many frames in this life.
    pub(crate) fn wait_received(&self, count: u64) {
        self.alive().wait_received(count);
    }

    /// `SIGHUP`.
    pub(crate) fn reload(&self) {
        self.alive().signal(Signal::SIGHUP);
    }

    /// Stands still.
    pub(crate) fn freeze(&self) {
        self.alive().signal(Signal::SIGSTOP);
    }

    /// Goes on.
    pub(crate) fn thaw(&self) {
        self.alive().signal(Signal::SIGCONT);
    }

    /// The end of a round: everything has left, the counting law holds, and it stops in order.
    pub(crate) fn finish(mut self) -> (Metrics, Self) {
        let tersed = self.tersed.take().expect("it lives");
        self.note_recovered(&tersed);
        tersed.wait_metric("tersed_frames_queued", &[], 0);
        let (metrics, stopped) = tersed.finish();
        let balance = stopped.balance();
        assert!(balance.holds(), "at the stop: {balance:?}");
        self.lives.push(balance);
        (metrics, self)
    }

    fn begin(&mut self) {
        self.tersed = Some(Setup::new().config(&self.config).start());
    }

    fn note_recovered(&mut self, tersed: &Tersed) {
        let balance = tersed.metrics().balance();
        // Under load what moves on during the scrape is missed, and nothing is counted twice.
        let counted = balance.forwarded + balance.suppressed + balance.dropped + balance.queued;
        assert!(
            counted <= balance.received + balance.recovered,
            "under load: {balance:?}"
        );
        self.recovered += balance.recovered;
    }

    fn alive(&self) -> &Tersed {
        self.tersed.as_ref().expect("it lives")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(tersed) = self.tersed.take()
            && !std::thread::panicking()
        {
            tersed.kill();
        }
    }
}
