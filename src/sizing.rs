//! Sizing: the most memory that a configuration lets the process take, by part.
//!
//! ```text
//! Config ──▶ Sizing: windows 256 MiB + queue 64 MiB + ... = at most 494 MiB ──▶ check, metrics, docs/operations.md
//! ```
//!
//! # Guarantees
//!
//! - Each part is the most that it takes when its limit is reached, bookkeeping included. All limits are rarely reached
//!   together: an attack on all listeners while the upstreams are down comes near.
//! - The physical memory of the process is at most 1.5 times the sum: the allocator keeps the rest between allocations.
//!   A test fills what can be filled and compares.
//! - A larger limit never makes the sum smaller.
//!
//! # Left out
//!
//! The kernel's memory for sockets and files, of which a container's limit counts some as well. What a reload takes while
//! it exchanges parts, and a start while it reads saved windows: the factor covers that.

use std::fmt;

use crate::{
    config::{Config, ForwardConfig, ListenerConfig},
    forward, listen,
    metrics::MemoryPart,
};

/// The most memory that each part takes, in octets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sizing([u64; MemoryPart::ALL.len()]);

impl Sizing {
    /// What `config` lets the process take.
    #[must_use]
    pub(crate) fn of(config: &Config) -> Self {
        let mut sizing = Self::default();
        sizing.add(MemoryPart::Windows, config.dedup.memory);
        sizing.add(MemoryPart::Queue, config.forward.queue);
        sizing.add_upstreams(&config.forward);
        if let Some(copies) = config.copies() {
            sizing.add(MemoryPart::Copies, copies.queue);
            sizing.add_upstreams(&copies);
        }
        if config.spool.directory.is_some() {
            let held = forward::held_by_spool(config.spool.max_size);
            sizing.add(MemoryPart::Spool, held);
        }
        let mut readers = config.workers;
        for listener in &config.listeners {
            sizing.add_listener(listener, config.workers);
            readers += listen::sockets(listener, config.workers);
        }
        let caches = readers.saturating_mul(config.rules.cache_octets());
        sizing.add(MemoryPart::Expressions, caches);
        let threads = readers.saturating_mul(READER_OCTETS);
        sizing.add(MemoryPart::Program, PROGRAM_OCTETS.saturating_add(threads));
        sizing
    }

    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Each part with its octets, in the order in which they are documented.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (MemoryPart, u64)> {
        MemoryPart::ALL.iter().copied().zip(self.0)
    }

    fn add_listener(&mut self, config: &ListenerConfig, workers: usize) {
        let held = listen::held(config, workers);
        self.add(MemoryPart::Connections, held.connections);
        self.add(MemoryPart::Unfinished, held.unfinished);
        self.add(MemoryPart::Waiting, held.waiting);
        self.add(MemoryPart::Datagrams, held.datagrams);
    }

    fn add_upstreams(&mut self, config: &ForwardConfig) {
        let held = forward::held(config);
        self.add(MemoryPart::Resend, held.resend);
        self.add(MemoryPart::Sending, held.sending);
    }

    fn add(&mut self, part: MemoryPart, octets: usize) {
        let sum = &mut self.0[part as usize];
        *sum = sum.saturating_add(octets as u64);
    }
}

/// In MiB, rounded up; parts that take nothing are left out.
impl fmt::Display for Sizing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} MiB:", mib(self.total()))?;
        let parts = self.parts().filter(|(_, octets)| *octets > 0);
        for (index, (part, octets)) in parts.enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(out, "{comma} {} {}", part.label(), mib(octets))?;
        }
        Ok(())
    }
}

const fn mib(octets: u64) -> u64 {
    octets.div_ceil(1024 * 1024)
}

/// The program, its log, the status page, the threads that do not read, and what the allocator keeps from the start.
const PROGRAM_OCTETS: usize = 12 * 1024 * 1024;

/// What a thread that reads keeps between two batches: its buffer, the messages that it judges together, those to be
/// forwarded and suppressed copies (each at most 512 KiB), and its stack.
const READER_OCTETS: usize = 1536 * 1024;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Argument, RunArgs};

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;

    /// What `toml` lets the process take, with two workers.
    #[track_caller]
    fn sizing(toml: &str) -> Sizing {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("t.toml");
        std::fs::write(&path, format!("{toml}\n[runtime]\nworkers = 2\n")).unwrap();
        let args = RunArgs {
            file: Some(path),
            ..RunArgs::default()
        };
        match Config::load(&args) {
            Ok(config) => Sizing::of(&config),
            Err(errors) => panic!("{errors}"),
        }
    }

    fn part(sizing: &Sizing, part: MemoryPart) -> u64 {
        sizing.parts().find(|(found, _)| *found == part).unwrap().1
    }

    const UDP: &str = "[[listener]]\nurl = \"udp://127.0.0.1:1\"\n";
    const TCP: &str = "[[listener]]\nurl = \"tcp://127.0.0.1:1\"\n";
    const RELP: &str = "[[listener]]\nurl = \"relp://127.0.0.1:1\"\n";

    /// What one part is with `toml`.
    #[track_caller]
    fn check(toml: &str, of: MemoryPart, expected: u64) {
        assert_eq!(
            part(&sizing(toml), of),
            expected,
            "{} of {toml}",
            of.label()
        );
    }

    #[test]
    fn each_limit_is_in_its_part() {
        use MemoryPart as P;
        check("", P::Windows, 256 * MIB);
        check("[dedup]\nmemory = \"3MiB\"", P::Windows, 3 * MIB);
        check("", P::Queue, 64 * MIB);
        check("[forward]\nqueue = \"1MiB\"", P::Queue, MIB);
        check("", P::Copies, 0);
        let copies = "[suppressed]\nto = \"udp://127.0.0.1:9\"\nqueue = \"5MiB\"";
        check(copies, P::Copies, 5 * MIB);
        // 6 octets and an LF on the wire are 31 in memory.
        let short = |octets: u64| octets.div_ceil(7) * 31;
        check("", P::Resend, 0);
        let tcp = |strategy: &str, more: &str| {
            let to = r#"to = ["tcp://127.0.0.1:8", "tcp://127.0.0.1:9"]"#;
            format!("[forward]\n{to}\nstrategy = \"{strategy}\"\n{more}\n")
        };
        check(&tcp("failover", ""), P::Resend, short(12 * MIB));
        check(&tcp("balance", ""), P::Resend, 2 * short(12 * MIB));
        check(
            &tcp("failover", "resend_max = \"off\""),
            P::Resend,
            short(4 * MIB),
        );
        check("", P::Spool, 0);
        let spool = "[spool]\ndirectory = \"/var/x\"\nmax_size = \"1GiB\"";
        check(spool, P::Spool, 22 * MIB);
        check(UDP, P::Connections, 0);
        check(UDP, P::Datagrams, 2 * 64 * (2 * 64 * KIB + 25));
        let long = format!("{UDP}max_message_size = \"16MiB\"\n[forward]\nqueue = \"64MiB\"");
        check(&long, P::Datagrams, 2 * 64 * (2 * 64 * KIB + 25));
        check(TCP, P::Datagrams, 0);
        check(TCP, P::Connections, 1024 * 5 * KIB);
        check(TCP, P::Unfinished, 1024 * (64 * KIB + 16));
        check(
            TCP,
            P::Waiting,
            2 * short(128 * KIB) + 1024 * short(2 * KIB),
        );
        let few = format!("{TCP}connections_max = 10\nmax_message_size = \"8KiB\"");
        check(&few, P::Unfinished, 10 * (8 * KIB + 16));
        check(&few, P::Waiting, 12 * short(128 * KIB));
        // RELP clients may send 128 KiB at once, and a turn of 16 KiB more may wait.
        check(RELP, P::Unfinished, 1024 * (144 * KIB + 16));
        let long = format!("{TCP}connections_max = 10\nmax_message_size = \"1MiB\"");
        check(&long, P::Unfinished, 10 * (MIB + 16) * 5 / 4);
        assert!(part(&sizing(RELP), P::Connections) > 1024 * (5 + 16) * KIB);
        check(TCP, P::Expressions, 0);
        let rule = |count: u64| {
            let rule = |number| format!("[[rule]]\nname = \"{number}\"\nmsg = 'x{number}'\n");
            (0..count).map(rule).collect::<String>()
        };
        check(
            &format!("{TCP}{}", rule(2)),
            P::Expressions,
            2 * 2 * 4 * MIB,
        );
        check(&format!("{TCP}{}", rule(9)), P::Expressions, 2 * 8 * MIB);
        let mask = "[mask]\njob = 'job[0-9]+'\n[dedup]\nmask = [\"job\"]";
        check(&format!("{TCP}{mask}"), P::Expressions, 2 * 4 * MIB);
        check(TCP, P::Program, 15 * MIB);
        check(UDP, P::Program, 18 * MIB);
    }

    #[test]
    fn the_sum_is_said_in_words() {
        let toml = format!(
            "{TCP}connections_max = 10\nmax_message_size = \"8KiB\"\n[forward]\nqueue = \"16MiB\"\n"
        );
        let sizing = sizing(&toml);
        let sum: u64 = sizing.parts().map(|(_, octets)| octets).sum();
        assert_eq!(sizing.total(), sum);
        assert_eq!(
            sizing.to_string(),
            "295 MiB: windows 256, queue 16, sending 1, connections 1, unfinished 1, waiting 7, program 15"
        );
    }

    #[test]
    fn the_defaults_have_a_sum_and_no_limit_overflows() {
        let huge = format!("{RELP}connections_max = 1000000\nmax_message_size = \"16MiB\"");
        assert!(sizing(&huge).total() > sizing("").total());
        let args = RunArgs {
            listen: vec![Argument {
                name: "--listen",
                text: "unix-dgram:///run/x".to_owned(),
            }],
            ..RunArgs::default()
        };
        let unix = Sizing::of(&Config::load(&args).unwrap());
        assert_eq!(
            part(&unix, MemoryPart::Datagrams),
            64 * (2 * 64 * KIB + 1 - 1 + 26 - 1)
        );
    }
}
