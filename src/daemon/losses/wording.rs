//! What operators read about each kind of loss: its first log line, its amount in words, and the advice.
//!
//! # Guarantees
//!
//! - Each kind stands in one place, with all that is written about it.
//!
//! # Left out
//!
//! When it is written (`losses`).

use std::time::Duration;

use tracing::warn;

use super::{Kind, Losses};
use crate::{
    config::{UDP_PAYLOAD_MAX, count_text, size_text, time_text},
    core::dedup::EngineStats,
    listen,
    logging::printable,
    metrics::SummaryReason,
};

impl Losses {
    /// What is written about `kind`, with the values in force.
    pub(super) fn wording(&self, kind: &Kind, stats: &EngineStats) -> Wording {
        match kind {
            Kind::Paused if self.has_spool() => self.paused_with_spool(),
            Kind::Paused => self.paused(),
            Kind::PausedByCopies => self.paused_by_copies(),
            Kind::Unaccepted => Self::unaccepted(),
            Kind::QueueFull if self.has_spool() => self.queue_full_with_spool(),
            Kind::QueueFull => self.queue_full(),
            Kind::Panic => Self::panic(),
            Kind::Copies => Self::copies(),
            Kind::Kernel(listener) => self.kernel_wording(listener),
            Kind::Evicted => self.evicted(stats),
            Kind::Unremembered => self.unremembered(stats),
            Kind::Oversize => Self::oversize(),
            Kind::TooLarge => Self::too_large(),
            Kind::Cut => self.cut(),
            Kind::Compressed => Self::compressed(),
            Kind::RefusedDatagrams => Self::refused_datagrams(),
            Kind::RefusedConnections => Self::refused_connections(),
            Kind::Connections => Self::connections(),
            Kind::SourceConnections => Self::source_connections(),
        }
    }

    fn paused_with_spool(&self) -> Wording {
        let queue = size_text(self.forward.borrow().queue);
        Wording {
            amount: ("reading was paused for ", Unit::Millis, ""),
            advice: overtaxed(&queue),
            value: queue,
            log: |of, _| {
                warn!(
                    queue = of.value,
                    "reading is paused: messages arrive faster than the upstreams and the spool take them; check both, or raise forward.queue"
                );
            },
        }
    }

    fn paused(&self) -> Wording {
        let queue = size_text(self.forward.borrow().queue);
        Wording {
            amount: ("reading was paused for ", Unit::Millis, ""),
            advice: format!(
                "forward.queue = {queue} was full: check the upstreams, raise it, or use [spool]"
            ),
            value: queue,
            log: |of, _| {
                warn!(
                    queue = of.value,
                    "reading is paused: the queue to the upstreams is full; check the upstreams, raise forward.queue, or use a spool"
                );
            },
        }
    }

    fn paused_by_copies(&self) -> Wording {
        Wording {
            amount: ("reading was paused for ", Unit::Millis, ""),
            advice: format!(
                "suppressed.queue = {} was full: check suppressed.to, raise it, or set suppressed.when_full = \"drop-oldest\"",
                self.copies_queue()
            ),
            value: self.copies_queue(),
            log: |of, _| {
                warn!(
                    queue = of.value,
                    "reading is paused: suppressed.queue is full; check suppressed.to, raise it, or set suppressed.when_full"
                );
            },
        }
    }

    fn unaccepted() -> Wording {
        Wording {
            amount: ("no connection was accepted for ", Unit::Millis, ""),
            advice: format!(
                "{} files may be open: raise LimitNOFILE= (ulimit -n), or lower connections_max",
                listen::open_files_max()
            ),
            value: listen::open_files_max().to_string(),
            log: |of, _| {
                warn!(
                    open_files_max = of.value,
                    "not accepting connections: the limit of open files is reached; raise LimitNOFILE= (ulimit -n), or lower connections_max"
                );
            },
        }
    }

    fn queue_full_with_spool(&self) -> Wording {
        let queue = size_text(self.forward.borrow().queue);
        Wording {
            amount: ("dropped: ", Unit::Count, " frames, the queue was full"),
            advice: overtaxed(&queue),
            value: queue,
            log: |of, frames| {
                warn!(
                    frames,
                    queue = of.value,
                    "messages are dropped: they arrive faster than the upstreams and the spool take them; check both, or raise forward.queue"
                );
            },
        }
    }

    fn queue_full(&self) -> Wording {
        let queue = size_text(self.forward.borrow().queue);
        Wording {
            amount: ("dropped: ", Unit::Count, " frames, the queue was full"),
            advice: format!(
                "forward.queue = {queue} was full: check the upstreams, raise it, use [spool], or when_full = \"wait\""
            ),
            value: queue,
            log: |of, frames| {
                warn!(
                    frames,
                    queue = of.value,
                    "messages are dropped: the queue to the upstreams is full; check the upstreams, raise forward.queue, or use a spool"
                );
            },
        }
    }

    fn panic() -> Wording {
        Wording {
            amount: ("dropped: ", Unit::Count, " frames, a task panicked"),
            advice: "report it as a fault of tersed, with the line of the log that names the panic"
                .to_owned(),
            value: String::new(),
            log: |_, frames| {
                warn!(
                    frames,
                    "messages are dropped: a task panicked; report it as a fault of tersed, with the line that names the panic"
                );
            },
        }
    }

    fn copies() -> Wording {
        Wording {
            amount: ("dropped: ", Unit::Count, " suppressed copies"),
            advice: "check suppressed.to, or raise suppressed.queue".to_owned(),
            value: String::new(),
            log: |_, copies| {
                warn!(
                    copies,
                    "suppressed copies are dropped; check suppressed.to, or raise suppressed.queue"
                );
            },
        }
    }

    fn evicted(&self, stats: &EngineStats) -> Wording {
        let memory = size_text(stats.budget_octets);
        Wording {
            amount: ("evicted too early: ", Unit::Count, " messages"),
            advice: self.memory_advice(stats),
            value: memory,
            log: |of, windows| {
                warn!(
                    windows,
                    memory = of.value,
                    "messages are evicted before their window ends, and their repeats are forwarded; raise dedup.memory"
                );
            },
        }
    }

    fn unremembered(&self, stats: &EngineStats) -> Wording {
        let memory = size_text(stats.budget_octets);
        Wording {
            amount: ("not remembered: ", Unit::Count, " messages"),
            advice: self.memory_advice(stats),
            value: memory,
            log: |of, frames| {
                warn!(
                    frames,
                    memory = of.value,
                    "no room to remember messages; their repeats are forwarded; raise dedup.memory"
                );
            },
        }
    }

    fn oversize() -> Wording {
        Wording {
            amount: (
                "dropped: ",
                Unit::Count,
                " frames longer than max_message_size",
            ),
            advice: "raise max_message_size, or set oversize = \"truncate\"".to_owned(),
            value: String::new(),
            log: |_, frames| {
                warn!(
                    frames,
                    "messages are dropped: longer than max_message_size; raise it, or set oversize = \"truncate\""
                );
            },
        }
    }

    fn too_large() -> Wording {
        Wording {
            amount: (
                "dropped: ",
                Unit::Count,
                " frames too large for the upstream",
            ),
            advice: "use a tcp:// or relp:// upstream".to_owned(),
            value: String::new(),
            log: |_, frames| {
                warn!(
                    frames,
                    "messages are dropped: too large for a datagram to the upstream; use a tcp or relp upstream"
                );
            },
        }
    }

    fn cut(&self) -> Wording {
        let forward = self.forward.borrow();
        Wording {
            amount: ("cut: ", Unit::Count, " frames longer than forward.udp_max"),
            advice: format!(
                "forward.udp_max = {}: raise it ({} at most), or use a tcp:// or relp:// upstream",
                size_text(forward.udp_max),
                size_text(UDP_PAYLOAD_MAX)
            ),
            value: size_text(forward.udp_max),
            log: |of, frames| {
                warn!(
                    frames,
                    udp_max = of.value,
                    "messages are cut: longer than forward.udp_max; raise it, or use a tcp or relp upstream"
                );
            },
        }
    }

    fn compressed() -> Wording {
        Wording {
            amount: ("dropped: ", Unit::Count, " compressed messages"),
            advice: "turn ZipLevel off at the senders, or use framing = \"octet-counting\""
                .to_owned(),
            value: String::new(),
            log: |_, frames| {
                warn!(
                    frames,
                    "messages are dropped: compressed, and the upstream's framing is lf; turn ZipLevel off at the senders, or use framing = \"octet-counting\""
                );
            },
        }
    }

    fn refused_datagrams() -> Wording {
        Wording {
            amount: ("refused: ", Unit::Count, " datagrams not in allow"),
            advice: ALLOW_ADVICE.to_owned(),
            value: String::new(),
            log: |_, datagrams| {
                warn!(
                    datagrams,
                    "datagrams are refused: their senders are not in allow; add them, or stop them"
                );
            },
        }
    }

    fn refused_connections() -> Wording {
        Wording {
            amount: ("refused: ", Unit::Count, " connections not in allow"),
            advice: ALLOW_ADVICE.to_owned(),
            value: String::new(),
            log: |_, connections| {
                warn!(
                    connections,
                    "connections are refused: their senders are not in allow; add them, or stop them"
                );
            },
        }
    }

    fn connections() -> Wording {
        Wording {
            amount: (
                "refused: ",
                Unit::Count,
                " connections over connections_max",
            ),
            advice: "raise connections_max".to_owned(),
            value: String::new(),
            log: |_, connections| {
                warn!(
                    connections,
                    "connections are refused: the listener has connections_max; raise it"
                );
            },
        }
    }

    fn source_connections() -> Wording {
        Wording {
            amount: (
                "refused: ",
                Unit::Count,
                " connections over connections_per_source_max",
            ),
            advice: "raise connections_per_source_max".to_owned(),
            value: String::new(),
            log: |_, connections| {
                warn!(
                    connections,
                    "connections are refused: their address has connections_per_source_max; raise it"
                );
            },
        }
    }

    fn kernel_wording(&self, listener: &str) -> Wording {
        let amount = ("kernel drops: ", Unit::DatagramsOf(listener.to_owned()), "");
        if self.is_paused() {
            return Wording {
                amount,
                advice: "reading was paused meanwhile".to_owned(),
                value: String::new(),
                log: |of, datagrams| {
                    warn!(
                        listener = of.listener(),
                        datagrams,
                        "the kernel drops datagrams while reading is paused; check the upstreams"
                    );
                },
            };
        }
        Wording {
            amount,
            advice: "raise net.core.rmem_max and receive_buffer".to_owned(),
            value: size_text(self.receive_buffer(listener)),
            log: |of, datagrams| {
                warn!(
                    listener = of.listener(),
                    datagrams,
                    receive_buffer = of.value,
                    "the kernel drops datagrams; raise net.core.rmem_max and receive_buffer"
                );
            },
        }
    }

    fn memory_advice(&self, stats: &EngineStats) -> String {
        let memory = size_text(stats.budget_octets);
        let messages = count_text(stats.live_messages as u64);
        let repeated = count_text(self.metrics.summaries.made[SummaryReason::Evicted].get());
        format!(
            "dedup.memory = {memory} was full with {messages} messages, and {repeated} of all evicted ones had repeats: \
             raise it, or find out why so many messages differ"
        )
    }
}

/// What operators read about one kind of loss.
#[derive(Clone, Debug)]
pub(super) struct Wording {
    /// `dropped: 5 frames, the queue was full`: the words around the amount, and its unit.
    amount: (&'static str, Unit, &'static str),
    /// What to do, with the values in force when it was lost.
    pub(super) advice: String,
    /// The value that the first line names: the queue's size, say.
    value: String,
    /// Logs the first loss of an episode. Each message is a literal, so that it can be found by searching for it.
    pub(super) log: fn(&Self, u64),
}

#[derive(Clone, Debug)]
enum Unit {
    Count,
    Millis,
    /// Datagrams, on the listener of that name.
    DatagramsOf(String),
}

impl Wording {
    pub(super) fn amount(&self, count: u64) -> String {
        let (before, unit, after) = &self.amount;
        match unit {
            Unit::Count => format!("{before}{}{after}", count_text(count)),
            Unit::Millis => format!("{before}{}{after}", seconds(count)),
            Unit::DatagramsOf(listener) => {
                let (count, listener) = (count_text(count), printable(listener));
                format!("{before}{count} datagrams on {listener}{after}")
            }
        }
    }

    fn listener(&self) -> &str {
        match &self.amount.1 {
            Unit::DatagramsOf(listener) => listener,
            Unit::Count | Unit::Millis => "",
        }
    }
}

/// The advice where a spool stands behind the queue.
fn overtaxed(queue: &str) -> String {
    format!(
        "forward.queue = {queue} was full, and messages arrived faster than the upstreams and the spool took them: check both"
    )
}

/// Milliseconds in whole seconds, rounded up.
fn seconds(millis: u64) -> String {
    time_text(Duration::from_secs(millis.div_ceil(1000)))
}

const ALLOW_ADVICE: &str = "add the senders to allow, or stop them";
