//! The table of one case, ready for a page of documentation, and as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::bed::{
    case::{Case, Transport},
    median,
    peer::Peer,
    run::Measured,
};

/// All rounds of one case.
#[derive(Debug)]
pub(crate) struct Results {
    case: Case,
    rounds: Vec<(Peer, Measured)>,
}

impl Results {
    pub(crate) const fn new(case: Case) -> Self {
        Self {
            case,
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

    fn of(&self, peer: Peer) -> impl Iterator<Item = &Measured> {
        self.rounds
            .iter()
            .filter(move |(of, _)| *of == peer)
            .map(|(_, measured)| measured)
    }

    /// The median over the rounds of `peer`.
    fn median(&self, peer: Peer, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.of(peer).map(figure).collect())
    }

    /// The figures of each peer: the median of its rounds, and each round's processor time.
    pub(crate) fn json(&self) -> Value {
        let reference = self.median(Peer::Rsyslogd, Measured::cpu_nanos);
        let relays: Vec<_> = self
            .peers()
            .into_iter()
            .map(|peer| {
                let mut figures: serde_json::Map<String, Value> = COLUMNS
                    .iter()
                    .map(|(name, figure)| ((*name).to_owned(), self.median(peer, figure).into()))
                    .collect();
                let cpu: Vec<_> = self.of(peer).map(Measured::cpu_nanos).collect();
                figures.insert("relay".into(), peer.name().into());
                figures.insert("CPU ns of each round".into(), cpu.into());
                let ratio = reference / self.median(peer, Measured::cpu_nanos);
                figures.insert("to rsyslogd".into(), ratio.into());
                Value::Object(figures)
            })
            .collect();
        json!({"case": self.case.to_string(), "messages": self.rounds.first().map(|(_, m)| m.messages),
            "relays": relays})
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = self.median(Peer::Rsyslogd, Measured::cpu_nanos);
        writeln!(f, "### {}\n", self.case)?;
        write!(f, "| {:<11} |", "relay")?;
        for (name, _) in COLUMNS {
            write!(f, " {name:>10} |")?;
        }
        writeln!(f, " {:>13} | {:>11} |", "CPU ns, range", "to rsyslogd")?;
        write!(f, "|{:-<13}|", "")?;
        for _ in COLUMNS {
            write!(f, "{:->11}:|", "")?;
        }
        writeln!(f, "{:->14}:|{:->12}:|", "", "")?;
        for peer in self.peers() {
            write!(f, "| {:<11} |", peer.name())?;
            for (_, figure) in COLUMNS {
                write!(f, " {:>10.0} |", self.median(peer, figure))?;
            }
            let cpu: Vec<_> = self.of(peer).map(Measured::cpu_nanos).collect();
            let least = cpu.iter().copied().fold(f64::MAX, f64::min);
            let most = cpu.iter().copied().fold(0.0, f64::max);
            let range = format!("{least:.0}-{most:.0}");
            let ratio = reference / self.median(peer, Measured::cpu_nanos);
            let ratio = if ratio.is_nan() {
                String::new()
            } else {
                format!("{ratio:.2} x")
            };
            writeln!(f, " {range:>13} | {ratio:>11} |")?;
        }
        let verified = self.of(Peer::Tersed).filter(|m| m.verified).count();
        let rounds = self.of(Peer::Tersed).count();
        writeln!(
            f,
            "\ntersed forwarded exactly the different messages in {verified} of {rounds} rounds{}.",
            match self.case.transport {
                _ if verified == rounds => "",
                Transport::Udp { .. } =>
                    "; in the others the kernel dropped some, or a window ended",
                Transport::Tcp { .. } => "; in the others a window ended",
            }
        )
    }
}

type Column = (&'static str, fn(&Measured) -> f64);

const COLUMNS: [Column; 8] = [
    ("sent/s", |m| m.messages as f64 / m.sending.as_secs_f64()),
    ("messages/s", |m| {
        m.messages as f64 / m.elapsed.as_secs_f64()
    }),
    ("CPU ns", Measured::cpu_nanos),
    ("user ns", |m| m.per_message(m.cpu.user)),
    ("system ns", |m| m.per_message(m.cpu.system)),
    ("peak MB", |m| m.peak_octets as f64 / 1e6),
    ("out", |m| m.out as f64),
    ("kern drops", |m| m.kernel_drops as f64),
];
