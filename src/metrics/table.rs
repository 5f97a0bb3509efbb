//! The table: every metric's name, type and help, and where its value is read.
//!
//! # Guarantees
//!
//! - Only the rows of [`families`] are exported, and `docs/metrics.md` lists each of them (a test compares the two).
//! - The rows are read from top to bottom, against the flow of the frames: see [`Metrics::balance`].
//! - The library prometheus-client writes the text: suffixes, units, escapes, the end mark.

mod configuration;
mod delivery;
mod family;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use self::family::Values::{
    Count, EachListener, EachListenerLevel, EachRule, Level, Moment, OptionalCount,
    OptionalSeconds, Others,
};
use self::family::{Family, counter, gauge, in_bytes, in_seconds, info, seconds_used};
use super::samples::{Samples, Scrape};
use super::{MemoryPart, Metrics, process};
use crate::core::dedup::EngineStats;

/// The whole page, `# EOF` included.
pub(super) fn encode(metrics: &Arc<Metrics>, engine: EngineStats) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        metrics: Arc::clone(metrics),
        engine,
    }));
    let mut page = String::with_capacity(PAGE_OCTETS_EXPECTED);
    text::encode(&mut page, &registry).expect("writing to a String never fails");
    page
}

/// All rows, in the order of the page.
fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES
        .iter()
        .chain(delivery::FAMILIES)
        .chain(configuration::FAMILIES)
}

static FAMILIES: &[Family] = &[
    // The law, against the flow: where frames end, then the queue, then where they come in.
    counter(
        "tersed_frames_forwarded",
        "Frames handed to an upstream, as far as its protocol tells, and not taken back.",
        Count(|s| s.metrics.frames.forwarded.get()),
    ),
    counter(
        "tersed_frames_suppressed",
        "Frames not forwarded because the same message was forwarded within the window.",
        Count(|s| s.metrics.frames.suppressed.get()),
    ),
    counter(
        "tersed_frames_dropped",
        "Frames lost, by reason.",
        Others(|s, out| out.by("reason", &s.metrics.frames.dropped)),
    ),
    gauge(
        "tersed_frames_queued",
        "Frames that wait to be forwarded, in memory or in the spool.",
        Level(|s| s.metrics.frames.queued.get()),
    ),
    counter(
        "tersed_frames_recovered",
        "Frames of an earlier run, found in the spool at the start.",
        Count(|s| s.metrics.frames.recovered.get()),
    ),
    counter(
        "tersed_frames_received",
        "Frames received.",
        EachListener(|l| l.received.get()),
    ),
    counter(
        "tersed_octets_received",
        "Octets of the frames received, framing not included.",
        EachListener(|l| l.octets.get()),
    ),
    // Kept copies of suppressed frames, against the flow as well.
    counter(
        "tersed_suppressed_copies_written",
        "Copies written to their destination, and not taken back.",
        Count(|s| s.metrics.copies.written.get()),
    ),
    counter(
        "tersed_suppressed_copies_dropped",
        "Copies lost on the way to their destination, by reason.",
        Others(|s, out| out.by("reason", &s.metrics.copies.dropped)),
    ),
    gauge(
        "tersed_suppressed_copies_queued",
        "Copies that wait for their destination.",
        Level(|s| s.metrics.copies.queued.get()),
    ),
    counter(
        "tersed_suppressed_copies",
        "Suppressed frames of which a copy is kept.",
        Count(|s| s.metrics.copies.taken.get()),
    ),
    // More about frames.
    counter(
        "tersed_frames_empty",
        "Empty frames and datagrams, ignored.",
        EachListener(|l| l.empty.get()),
    ),
    counter(
        "tersed_frames_unparsed",
        "Frames in no known syslog format; they are forwarded like all others.",
        Count(|s| s.metrics.frames.unparsed.get()),
    ),
    counter(
        "tersed_frames_binary",
        "Frames with control octets that are in no known format or have no PRI.",
        Count(|s| s.metrics.frames.binary.get()),
    ),
    counter(
        "tersed_frames_rewritten",
        "Frames that left with an octet changed because the upstream's framing cannot carry it.",
        Count(|s| s.metrics.frames.rewritten.get()),
    ),
    counter(
        "tersed_frames_taken_back",
        "Frames counted as forwarded that wait again, because they may have been lost with a connection.",
        Count(|s| s.metrics.frames.forwarded.returned()),
    ),
    counter(
        "tersed_frames_resent",
        "Frames sent again because they may have been lost with a connection.",
        Count(|s| s.metrics.frames.resent.get()),
    ),
    counter(
        "tersed_frame_errors",
        "Framing errors, by reason.",
        Others(|s, out| out.by("reason", &s.metrics.frame_errors)),
    ),
    // Summaries and the engine.
    counter(
        "tersed_summaries",
        "Summaries made, by what caused them.",
        Others(|s, out| out.by("reason", &s.metrics.summaries.made)),
    ),
    counter(
        "tersed_summaries_dropped",
        "Summaries lost, by reason.",
        Others(|s, out| out.by("reason", &s.metrics.summaries.dropped)),
    ),
    counter(
        "tersed_summarized_frames",
        "Suppressed frames that the summaries count.",
        Count(|s| s.metrics.summaries.frames.get()),
    ),
    gauge(
        "tersed_live_messages",
        "Windows open now.",
        Count(|s| s.engine.live_messages as u64),
    ),
    counter(
        "tersed_evicted",
        "Windows ended early because the memory limit was reached.",
        Count(|s| s.engine.evicted_total),
    ),
    counter(
        "tersed_unremembered",
        "Frames forwarded although they may be repeats, because the memory limit left no room to remember or count them.",
        Count(|s| s.engine.unremembered_total),
    ),
    counter(
        "tersed_stale",
        "Stale entries found in the hash tables.",
        Count(|s| s.engine.stale_total),
    ),
    in_bytes(
        "tersed_memory",
        "Octets that the windows take.",
        Count(|s| s.engine.octets as u64),
    ),
    in_bytes(
        "tersed_memory_budget",
        "Octets that the windows may take.",
        Count(|s| s.engine.budget_octets as u64),
    ),
    // Rules.
    counter(
        "tersed_rule_matched",
        "Frames that matched the rule; rule default counts those that matched none.",
        EachRule(|r| r.matched.get()),
    ),
    counter(
        "tersed_rule_suppressed",
        "Frames suppressed as repeats, by the rule that they matched.",
        EachRule(|r| r.suppressed.get()),
    ),
    counter(
        "tersed_rule_dropped",
        "Frames that the rule dropped.",
        EachRule(|r| r.dropped.get()),
    ),
    counter(
        "tersed_rule_tagged",
        "Frames forwarded with an annotation that would have been suppressed or dropped without mode tag.",
        EachRule(|r| r.tagged.get()),
    ),
    counter(
        "tersed_rule_shadowed",
        "Frames forwarded unchanged that would have been suppressed or dropped without mode shadow.",
        EachRule(|r| r.shadowed.get()),
    ),
    // Listeners.
    counter(
        "tersed_kernel_dropped",
        "Datagrams that the kernel dropped because the receive buffer was full.",
        EachListener(|l| l.kernel_dropped.get()),
    ),
    in_bytes(
        "tersed_receive_buffer",
        "Octets of receive buffer that the kernel granted.",
        Others(|s, out| {
            for l in s.metrics.listeners().iter().filter(|l| l.is_open()) {
                out.level(&[("listener", l.name())], l.receive_buffer.get());
            }
        }),
    ),
    gauge(
        "tersed_connections",
        "Connections that are open.",
        EachListenerLevel(|l| l.connections.get()),
    ),
    counter(
        "tersed_connections_accepted",
        "Connections accepted.",
        EachListener(|l| l.accepted.get()),
    ),
    counter(
        "tersed_connections_rejected",
        "Connections closed before a frame was read, by reason.",
        Others(|s, out| out.by("reason", &s.metrics.connections_rejected)),
    ),
    counter(
        "tersed_accept_errors",
        "Calls of accept that failed.",
        EachListener(|l| l.accept_errors.get()),
    ),
    counter(
        "tersed_relp_answers",
        "RELP transactions answered, by answer.",
        Others(|s, out| {
            for l in s.metrics.listeners() {
                for (result, count) in l.answers.iter() {
                    out.count(&[("listener", l.name()), ("result", result.label())], count);
                }
            }
        }),
    ),
    gauge(
        "tersed_relp_unanswered",
        "RELP transactions received and not answered yet.",
        EachListenerLevel(|l| l.unanswered.get()),
    ),
    info(
        "tersed_listener",
        "Open listeners and where they listen.",
        Others(|s, out| {
            for l in s.metrics.listeners() {
                let place = l.place();
                if let Some(address) = &place.address {
                    out.info(&[
                        ("listener", l.name()),
                        ("url", &place.url),
                        ("address", address),
                    ]);
                }
            }
        }),
    ),
    // The process.
    counter(
        "tersed_config_reloads",
        "Requests to reload the configuration, by result.",
        Others(|s, out| out.by("result", &s.metrics.config_reloads)),
    ),
    info(
        "tersed_build",
        "Version of the program.",
        Others(|_, out| out.info(&[("version", env!("CARGO_PKG_VERSION"))])),
    ),
    counter(
        "tersed_panics",
        "Panics, which are faults of tersed, by what panicked.",
        Others(|s, out| out.by("task", &s.metrics.panics)),
    ),
    in_seconds(
        "process_start_time",
        "Unix time at which the process started.",
        Moment(|s| Some(s.metrics.started)),
    ),
    in_bytes(
        "tersed_memory_limit",
        "Octets that each part of the process may take at most.",
        Others(|s, out| {
            for (part, limit) in MemoryPart::ALL.iter().zip(&s.metrics.memory_limit) {
                out.level(&[("part", part.label())], limit.get());
            }
        }),
    ),
    in_bytes(
        "process_resident_memory",
        "Resident memory.",
        OptionalCount(process::resident_octets),
    ),
    gauge(
        "process_open_fds",
        "File descriptors that are open.",
        OptionalCount(process::open_fds),
    ),
    seconds_used(
        "process_cpu",
        "Processor time used, in user and in kernel mode.",
        OptionalSeconds(process::cpu_secs),
    ),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in families() {
            let encoder = encoder.encode_descriptor(
                family.name,
                family.help,
                family.unit.as_ref(),
                family.kind,
            )?;
            let mut samples = Samples::new(encoder, family.kind);
            family.values.read(self, &mut samples);
            samples.outcome()?;
        }
        Ok(())
    }
}

/// Enough for a few listeners and upstreams; with more the page grows.
const PAGE_OCTETS_EXPECTED: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::clock::Clock;
    use crate::metrics::{
        DropReason, FrameErrorReason, MemoryPart, PanicTask, Reason, RejectReason, ReloadResult,
        SpoolTrouble, SummaryReason, UpstreamState,
    };

    /// A page on which every family has a sample.
    fn full_page() -> String {
        let metrics = Metrics::new();
        metrics
            .listener("lan", "udp://127.0.0.1:0")
            .set_address("127.0.0.1:5514");
        let _up = metrics.upstream("tcp://127.0.0.1:601");
        let down = metrics.upstream("tcp://127.0.0.1:602");
        let (now, state) = (Some(Clock::now()), UpstreamState::Down);
        down.tell(state, false, now, 3, now);
        metrics.queue_oldest.set(Clock::now().nanos());
        metrics.spool.oldest.set(1);
        metrics.spool.set_trouble(Some(SpoolTrouble {
            since: Clock::now(),
            error: "full".to_owned(),
            retry_at: Clock::now(),
        }));
        metrics.rule("default").matched.add(1);
        metrics.config.load("/etc/t.toml", metrics.started);
        encode(
            &metrics,
            EngineStats {
                live_messages: 7,
                octets: 9,
                ..EngineStats::default()
            },
        )
    }

    /// `name{label,label}` of each sample on a page, with the type of its family.
    fn shapes(page: &str) -> BTreeMap<String, String> {
        let mut shapes = BTreeMap::new();
        let mut kind = "";
        for line in page.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                kind = typed.split(' ').nth(1).unwrap();
            } else if !line.starts_with('#') {
                let (sample, _) = line.rsplit_once(' ').unwrap();
                let shape = match sample.split_once('{') {
                    None => sample.to_owned(),
                    Some((name, labels)) => {
                        let labels = labels.strip_suffix('}').unwrap().split(',');
                        let names: Vec<_> = labels
                            .map(|label| label.split_once('=').unwrap().0)
                            .collect();
                        format!("{name}{{{}}}", names.join(","))
                    }
                };
                shapes.insert(shape, kind.to_owned());
            }
        }
        shapes
    }

    #[test]
    fn the_documentation_lists_exactly_what_is_exported() {
        let documented: BTreeMap<String, String> = include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter(|row| row.starts_with("tersed_") || row.starts_with("process_"))
            .map(|row| {
                let (shape, rest) = row.split_once("` | ").unwrap();
                (shape.to_owned(), rest.split(' ').next().unwrap().to_owned())
            })
            .collect();
        assert_eq!(documented, shapes(&full_page()));
    }

    #[test]
    fn the_documentation_lists_exactly_the_reasons_there_are() {
        fn check<R: Reason>(set: &str) {
            check_labels(set, R::ALL.iter().map(|reason| reason.label()).collect());
        }
        fn check_labels(set: &str, labels: BTreeSet<&str>) {
            let row = format!("| {set} | ");
            let docs = include_str!("../../docs/metrics.md");
            let documented: BTreeSet<_> = docs
                .lines()
                .filter_map(|line| {
                    line.strip_prefix(&row)?
                        .strip_prefix('`')?
                        .split('`')
                        .next()
                })
                .collect();
            assert_eq!(documented, labels, "{set}");
        }
        check::<DropReason>("dropped");
        check::<FrameErrorReason>("frame error");
        check::<RejectReason>("rejected");
        check::<SummaryReason>("summary");
        check::<ReloadResult>("reload");
        check::<PanicTask>("panic");
        check::<MemoryPart>("memory");
        let states = UpstreamState::ALL.iter();
        check_labels("upstream", states.map(|state| state.label()).collect());
    }

    #[test]
    fn the_page_is_open_metrics() {
        let page = full_page();
        assert!(page.ends_with("\n# EOF\n"));
        for line in [
            "# HELP tersed_memory_bytes Octets that the windows take.",
            "# TYPE tersed_memory_bytes gauge",
            "# UNIT tersed_memory_bytes bytes",
            "tersed_memory_bytes 9",
            "tersed_live_messages 7",
            "# TYPE tersed_frames_received counter",
            "tersed_frames_received_total{listener=\"lan\"} 0",
            "tersed_frames_dropped_total{reason=\"queue_full\"} 0",
            "tersed_upstream_up{upstream=\"tcp://127.0.0.1:601\"} 1",
            "tersed_upstream_up{upstream=\"tcp://127.0.0.1:602\"} 0",
            "tersed_upstream_state{upstream=\"tcp://127.0.0.1:601\",state=\"standby\"} 1",
            "tersed_upstream_state{upstream=\"tcp://127.0.0.1:601\",state=\"down\"} 0",
            "tersed_upstream_state{upstream=\"tcp://127.0.0.1:602\",state=\"down\"} 1",
            "# UNIT tersed_upstream_down_since_timestamp_seconds seconds",
            "# UNIT process_cpu_seconds seconds",
            "# TYPE tersed_build info",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "no {line:?} in\n{page}"
            );
        }
    }

    #[test]
    fn no_family_stands_twice_and_each_help_is_one_sentence() {
        let mut names = BTreeSet::new();
        for family in families() {
            assert!(names.insert(family.name), "{} twice", family.name);
            // The library writes help as it is.
            assert!(!family.help.contains(['\n', '\\']), "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
    }

    #[test]
    fn the_law_is_read_against_the_flow() {
        let page = full_page();
        let places: Vec<_> = ["forwarded", "suppressed", "dropped", "queued", "received"]
            .map(|name| page.find(&format!("# TYPE tersed_frames_{name}")).unwrap())
            .to_vec();
        assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn names_from_outside_cannot_break_out_of_their_label() {
        let metrics = Metrics::new();
        let _listener = metrics.listener("a\"} 1\ntersed_forged 1\n\\", "udp:");
        let page = encode(&metrics, EngineStats::default());
        let line = "tersed_frames_received_total{listener=\"a\\\"} 1\\ntersed_forged 1\\n\\\\\"} 0";
        assert!(page.lines().any(|found| found == line), "{page}");
    }
}
