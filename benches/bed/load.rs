//! The load: frames that are built before the measurement, the same for every relay.
//!
//! The timestamps advance by a second every 10,000 messages, so that a relay which compares timestamps is found out.
//! The process id stays the same: each application has its own, and one that changed with every message would keep
//! rsyslogd and syslog-ng from recognising even those repeats that they can recognise.

use std::{collections::HashSet, fmt::Write as _};

use super::{
    case::{Case, Format, Mix, Transport},
    random::Random,
};

/// Frames of one length (including their LF), side by side.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) octets: Vec<u8>,
    /// Octets of each frame, its LF included.
    pub(crate) frame_octets: usize,
    pub(crate) messages: usize,
    /// How many different messages are among them, apart from timestamps.
    pub(crate) distinct: usize,
}

impl Load {
    pub(crate) fn build(case: &Case, messages: usize) -> Self {
        let messages = match case.transport {
            Transport::Udp { rate: Some(rate) } => (rate * UDP_SECONDS).min(messages),
            _ => messages,
        };
        let mut octets = Vec::with_capacity(messages * case.octets);
        let mut seen = HashSet::new();
        let mut random = Random::new(0x2545_F491_4F6C_DD17);
        let mut line = String::new();
        for number in 0..messages {
            let what = match case.mix {
                Mix::Flood if number % 100 != 50 => 0,
                Mix::Mixed => random.next() % 10_000,
                Mix::Flood | Mix::Unique => 1 + number as u64,
            };
            seen.insert(what);
            line.clear();
            let second = number / 10_000;
            let (minute, second) = (second / 60 % 60, second % 60);
            match case.format {
                Format::Rfc3164 => write!(
                    line,
                    "<34>Nov 22 10:{minute:02}:{second:02} host-17.example app[4711]: "
                ),
                Format::Rfc5424 => write!(
                    line,
                    "<34>1 2026-11-22T10:{minute:02}:{second:02}.123456Z host-17.example app 4711 ID47 - "
                ),
            }
            .expect("writing to a String does not fail");
            write!(
                line,
                "port {what:08} changed state, reason link flap, neighbour lost "
            )
            .expect("writing to a String does not fail");
            assert!(
                line.find(" changed") < Some(case.octets),
                "{} octets are too few for the part in which messages differ",
                case.octets
            );
            while line.len() < case.octets - 1 {
                line.push_str("0123456789 abcdefghij ");
            }
            line.truncate(case.octets - 1);
            octets.extend_from_slice(line.as_bytes());
            octets.push(b'\n');
        }
        Self {
            octets,
            frame_octets: case.octets,
            messages,
            distinct: seen.len(),
        }
    }
}

/// How many seconds a load at a fixed rate is sent.
const UDP_SECONDS: usize = 5;

/// The last message of connection `number`. When it has arrived, the sink knows that everything before it has.
pub(crate) fn last(number: usize) -> Vec<u8> {
    let mut line = LAST.to_vec();
    line.extend_from_slice(format!(" {number}").as_bytes());
    line
}

/// The beginning of each last message.
pub(crate) const LAST: &[u8] = b"<34>Nov 22 23:59:59 host-17.example bench: the last message";

/// The part of them that no relay changes.
pub(crate) const TAG: &[u8] = b"the last message";
