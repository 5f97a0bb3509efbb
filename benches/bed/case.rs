//! Cases: what is sent, how, and how fast.

use std::fmt;

/// What is sent, how, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) transport: Transport,
    pub(crate) mix: Mix,
    pub(crate) format: Format,
    /// Octets of a frame.
    pub(crate) octets: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    /// As fast as it goes, over so many connections.
    Tcp { connections: usize },
    /// So many datagrams a second; `None` is as fast as it goes.
    Udp { rate: Option<usize> },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mix {
    /// 99 % one message, the rest new.
    Flood,
    /// 10,000 messages at random.
    Mixed,
    /// Every message new, all forwarded.
    Unique,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    Rfc3164,
    Rfc5424,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mix = match self.mix {
            Mix::Flood => "flood",
            Mix::Mixed => "mixed",
            Mix::Unique => "unique",
        };
        match self.transport {
            Transport::Tcp { connections } => write!(f, "tcp-{mix}-{connections}c")?,
            Transport::Udp { rate: Some(rate) } => write!(f, "udp-{mix}-{}k", rate / 1000)?,
            Transport::Udp { rate: None } => write!(f, "udp-{mix}-max")?,
        }
        let format = match self.format {
            Format::Rfc3164 => "3164",
            Format::Rfc5424 => "5424",
        };
        write!(f, "-{}B-{format}", self.octets)
    }
}

/// The common cases, or all of them; only those whose name contains one of `words`, if there are any.
pub(crate) fn cases(all: bool, words: &[String]) -> Vec<Case> {
    let tcp = |mix, connections, octets, format| Case {
        transport: Transport::Tcp { connections },
        mix,
        format,
        octets,
    };
    let udp = |rate, mix| Case {
        transport: Transport::Udp { rate },
        mix,
        format: Format::Rfc3164,
        octets: 200,
    };
    let mixes = [Mix::Flood, Mix::Mixed, Mix::Unique];
    let mut cases: Vec<Case> = mixes
        .into_iter()
        .map(|mix| tcp(mix, 1, 200, Format::Rfc3164))
        .collect();
    cases.push(udp(Some(200_000), Mix::Flood));
    if all {
        cases.extend(
            mixes
                .into_iter()
                .map(|mix| tcp(mix, 50, 200, Format::Rfc3164)),
        );
        cases.extend(
            mixes
                .into_iter()
                .map(|mix| tcp(mix, 1, 1000, Format::Rfc3164)),
        );
        cases.extend(
            mixes
                .into_iter()
                .map(|mix| tcp(mix, 1, 200, Format::Rfc5424)),
        );
        for rate in [Some(50_000), Some(100_000), None] {
            cases.push(udp(rate, Mix::Flood));
        }
        for rate in [Some(100_000), Some(200_000)] {
            cases.extend([udp(rate, Mix::Mixed), udp(rate, Mix::Unique)]);
        }
    }
    cases.retain(|case| {
        let name = case.name();
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    });
    cases
}
