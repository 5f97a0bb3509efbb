//! The table of one case.

use std::{fmt, time::Duration};

use crate::{case::Case, peer::Peer, run::Measured};

/// All rounds of one case.
#[derive(Debug)]
pub(crate) struct Results {
    name: String,
    rounds: Vec<(Peer, Measured)>,
}

impl Results {
    pub(crate) fn new(case: &Case) -> Self {
        Self {
            name: case.name(),
            rounds: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, peer: Peer, measured: Measured) {
        self.rounds.push((peer, measured));
    }

    fn peers(&self) -> Vec<Peer> {
        let mut peers = Vec::new();
        for (peer, _) in &self.rounds {
            if !peers.contains(peer) {
                peers.push(*peer);
            }
        }
        peers
    }

    /// The median over the rounds of `peer`.
    fn median(&self, peer: Peer, figure: impl Fn(&Measured) -> f64) -> f64 {
        let mut figures: Vec<f64> = self
            .rounds
            .iter()
            .filter(|(of, _)| *of == peer)
            .map(|(_, measured)| figure(measured))
            .collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_message = |time: Duration, measured: &Measured| {
            time.as_secs_f64() * 1e9 / measured.messages as f64
        };
        let cpu = |measured: &Measured| per_message(measured.user + measured.system, measured);
        let reference = self.median(Peer::Rsyslogd, cpu);
        writeln!(f, "{}", self.name)?;
        writeln!(
            f,
            "  {:<10} {:>12} {:>9} {:>9} {:>9} {:>10} {:>10} {:>8} {:>9}",
            "",
            "messages/s",
            "CPU ns",
            "user ns",
            "sys ns",
            "peak MB",
            "out",
            "kdrops",
            "rsyslog/x"
        )?;
        for peer in self.peers() {
            let total = self.median(peer, cpu);
            writeln!(
                f,
                "  {:<10} {:>12.0} {:>9.0} {:>9.0} {:>9.0} {:>10.1} {:>10.0} {:>8.0} {:>9.2}",
                peer.name(),
                self.median(peer, |m| m.messages as f64 / m.elapsed.as_secs_f64()),
                total,
                self.median(peer, |m| per_message(m.user, m)),
                self.median(peer, |m| per_message(m.system, m)),
                self.median(peer, |m| m.peak_octets as f64 / 1e6),
                self.median(peer, |m| m.out as f64),
                self.median(peer, |m| m.kernel_drops as f64),
                reference / total,
            )?;
        }
        Ok(())
    }
}
