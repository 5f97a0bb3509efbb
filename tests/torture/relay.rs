//! A relay that can be killed or stopped, and started again on the same port with the same spool.

use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use socket2::Socket;
use tempfile::TempDir;

use super::upstream::take_port;
use crate::support::metrics::{Balance, Metrics};
use crate::support::tersed::{Setup, Tersed};

/// A relay over several lives. It is killed on drop.
pub(crate) struct Relay {
    /// Keeps the port while no relay runs.
    _port: Socket,
    address: SocketAddr,
    config: String,
    /// Contains the spool, if there is one.
    _dir: TempDir,
    tersed: Option<Tersed>,
    /// The frame counts of those lives that did not end by a kill.
    pub(crate) lives: Vec<Balance>,
    /// Frames found in the spool at the starts.
    pub(crate) recovered: u64,
}

impl Relay {
    /// Starts a relay. `config` receives the address to listen on, and a directory that outlives each life.
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

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends `SIGKILL` at an arbitrary moment, and starts the relay again. Asserts that nothing was counted twice until
    /// then.
    pub(crate) fn kill(&mut self) {
        let tersed = self.tersed.take().expect("the relay runs");
        self.note_recovered(&tersed);
        tersed.kill();
        self.begin();
    }

    /// Sends `SIGTERM`, and starts the relay again. Asserts the counting law for the life that ended.
    pub(crate) fn stop(&mut self) {
        let mut tersed = self.tersed.take().expect("the relay runs");
        self.note_recovered(&tersed);
        tersed.balance_at_exit();
        let stopped = tersed.terminate();
        assert!(stopped.status.success(), "{}", stopped.status);
        let balance = stopped.balance();
        assert!(balance.holds(), "at a stop: {balance:?}");
        self.lives.push(balance);
        self.begin();
    }

    /// Waits until the relay has received `count` frames in this life.
    pub(crate) fn wait_received(&self, count: u64) {
        self.alive().wait_received(count);
    }

    /// `SIGHUP`.
    pub(crate) fn reload(&self) {
        self.alive().signal(Signal::SIGHUP);
    }

    pub(crate) fn freeze(&self) {
        self.alive().signal(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&self) {
        self.alive().signal(Signal::SIGCONT);
    }

    /// Ends a round: waits until the queue is empty, stops the relay, and asserts the counting law.
    pub(crate) fn finish(mut self) -> (Metrics, Self) {
        let tersed = self.tersed.take().expect("the relay runs");
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
        // Under load, a scrape may miss a frame that moves on meanwhile, but counts none twice.
        let counted = balance.forwarded + balance.suppressed + balance.dropped + balance.queued;
        assert!(
            counted <= balance.received + balance.recovered,
            "under load: {balance:?}"
        );
        self.recovered += balance.recovered;
    }

    fn alive(&self) -> &Tersed {
        self.tersed.as_ref().expect("the relay runs")
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
