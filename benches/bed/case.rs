//! Cases: which messages are sent, how, and how fast.

use std::fmt;

/// A load and the way in which it is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Case {
    pub(crate) transport: Transport,
    pub(crate) mix: Mix,
    pub(crate) format: Format,
    /// Octets of a frame.
    pub(crate) octets: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    /// At full speed, over so many connections.
    Tcp { connections: usize },
    /// So many datagrams a second; `None` is full speed.
    Udp { rate: Option<usize> },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mix {
    /// 99 % are the same message, the others are new.
    Flood,
    /// 10,000 different messages, drawn at random.
    Mixed,
    /// Every message is new, so all are forwarded.
    Unique,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    Rfc3164,
    Rfc5424,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mix = self.mix.name();
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

impl Case {
    /// Over TCP, 200 octets, RFC 3164.
    pub(crate) const fn tcp(mix: Mix, connections: usize) -> Self {
        Self {
            transport: Transport::Tcp { connections },
            mix,
            format: Format::Rfc3164,
            octets: 200,
        }
    }

    /// Over UDP, 200 octets, RFC 3164.
    pub(crate) const fn udp(mix: Mix, rate: Option<usize>) -> Self {
        Self {
            transport: Transport::Udp { rate },
            mix,
            format: Format::Rfc3164,
            octets: 200,
        }
    }
}

impl Mix {
    pub(crate) const ALL: [Self; 3] = [Self::Flood, Self::Mixed, Self::Unique];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::Mixed => "mixed",
            Self::Unique => "unique",
        }
    }
}
