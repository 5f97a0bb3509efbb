//! The table: every metric's name, type, help, and where its value stands.
//!
//! # Guarantees
//!
//! - A metric that is neither in [`FAMILIES`] nor in [`delivery`] is not exported, and each one that is stands in
//!   `docs/metrics.md` (a test holds the two together).
//! - Rows are read from top to bottom, against the flow of the frames: see [`Metrics::balance`].
//! - How the text looks (suffixes, units, escaping, the end mark) is prometheus-client's.

mod delivery;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::samples::{Samples, Scrape};
use super::{EngineStats, MemoryPart, Metrics, config, process};

/// The whole page, `# EOF` included.
pub(super) fn encode(metrics: &Arc<Metrics>, engine: EngineStats) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        metrics: Arc::clone(metrics),
        engine,
    }));
    let mut page = String::with_capacity(PAGE_OCTETS_EXPECTED);
    text::encode(&mut page, &registry).expect("a String takes whatever is written to it");
    page
}

/// One metric: a row of the table.
pub(super) struct Family {
    /// Without what the type and the unit add: `_total`, `_info`, `_bytes`, `_seconds`.
    name: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    help: &'static str,
    /// Reads the values.
    samples: fn(&Scrape, &mut Samples<'_>),
}

/// All rows, in the order of the page.
fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES
        .iter()
        .chain(delivery::FAMILIES)
        .chain(config::FAMILIES)
}

static FAMILIES: &[Family] = &[
    // The law, against the flow: where frames end, then the queue, then where they come in.
    counter(
        "tersed_frames_forwarded",
        "Frames handed to an upstream, as far as its protocol lets us know, and not taken back.",
        |scrape, out| out.count(&[], scrape.metrics.frames.forwarded.get()),
    ),
    counter(
        "tersed_frames_suppressed",
        "Frames held back because the same message was forwarded within the window.",
        |scrape, out| out.count(&[], scrape.metrics.frames.suppressed.get()),
    ),
    counter(
        "tersed_frames_dropped",
        "Frames lost, by why.",
        |scrape, out| {
            out.by("reason", &scrape.metrics.frames.dropped);
        },
    ),
    gauge(
        "tersed_frames_queued",
        "Survivors neither forwarded nor dropped yet.",
        |scrape, out| {
            out.level(&[], scrape.metrics.frames.queued.get());
        },
    ),
    counter(
        "tersed_frames_recovered",
        "Survivors of an earlier run, found in the spool at the start.",
        |scrape, out| out.count(&[], scrape.metrics.frames.recovered.get()),
    ),
    counter(
        "tersed_frames_received",
        "Frames received.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                out.count(labels, listener.received.get())
            });
        },
    ),
    counter(
        "tersed_octets_received",
        "Octets of frames received, without framing.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                out.count(labels, listener.octets.get())
            });
        },
    ),
    // Suppressed copies that are set aside, against the flow as well.
    counter(
        "tersed_suppressed_copies_written",
        "Suppressed frames written to where they are set aside, and not taken back.",
        |scrape, out| out.count(&[], scrape.metrics.copies.written.get()),
    ),
    counter(
        "tersed_suppressed_copies_dropped",
        "Suppressed frames that were to be set aside and got lost, by why.",
        |scrape, out| out.by("reason", &scrape.metrics.copies.dropped),
    ),
    gauge(
        "tersed_suppressed_copies_queued",
        "Suppressed frames that wait to be set aside.",
        |scrape, out| out.level(&[], scrape.metrics.copies.queued.get()),
    ),
    counter(
        "tersed_suppressed_copies",
        "Suppressed frames that are set aside.",
        |scrape, out| out.count(&[], scrape.metrics.copies.taken.get()),
    ),
    // More about frames.
    counter(
        "tersed_frames_empty",
        "Empty frames and datagrams, ignored.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                out.count(labels, listener.empty.get())
            });
        },
    ),
    counter(
        "tersed_frames_unparsed",
        "Frames that fit no format.",
        |scrape, out| {
            out.count(&[], scrape.metrics.frames.unparsed.get());
        },
    ),
    counter(
        "tersed_frames_binary",
        "Frames with control octets that fit no format or have no PRI.",
        |scrape, out| out.count(&[], scrape.metrics.frames.binary.get()),
    ),
    counter(
        "tersed_frames_rewritten",
        "Frames that left with an octet changed for the upstream's framing.",
        |scrape, out| out.count(&[], scrape.metrics.frames.rewritten.get()),
    ),
    counter(
        "tersed_frames_taken_back",
        "Frames that were forwarded and wait again, because they may have been lost with a connection.",
        |scrape, out| out.count(&[], scrape.metrics.frames.forwarded.returned()),
    ),
    counter(
        "tersed_frames_resent",
        "Frames sent again because they may have been lost with a connection.",
        |scrape, out| out.count(&[], scrape.metrics.frames.resent.get()),
    ),
    counter(
        "tersed_frame_errors",
        "Faults of framing, by what was wrong.",
        |scrape, out| {
            out.by("reason", &scrape.metrics.frame_errors);
        },
    ),
    // Summaries and the engine.
    counter(
        "tersed_summaries",
        "Summaries made, by what made them due.",
        |scrape, out| {
            out.by("reason", &scrape.metrics.summaries.made);
        },
    ),
    counter(
        "tersed_summaries_dropped",
        "Summaries lost, by why.",
        |scrape, out| {
            out.by("reason", &scrape.metrics.summaries.dropped);
        },
    ),
    counter(
        "tersed_summarized_frames",
        "Suppressed frames that the summaries speak of.",
        |scrape, out| out.count(&[], scrape.metrics.summaries.frames.get()),
    ),
    gauge(
        "tersed_live_messages",
        "Messages whose windows are open.",
        |scrape, out| {
            out.count(&[], scrape.engine.live);
        },
    ),
    counter(
        "tersed_evicted",
        "Windows ended early to stay within the memory budget.",
        |scrape, out| out.count(&[], scrape.engine.evicted),
    ),
    counter(
        "tersed_unremembered",
        "Frames forwarded although they may be repeats, because the memory budget left no room to remember or count them at once.",
        |scrape, out| out.count(&[], scrape.engine.unremembered),
    ),
    counter("tersed_stale", "Stale table entries met.", |scrape, out| {
        out.count(&[], scrape.engine.stale);
    }),
    in_bytes(
        "tersed_memory",
        "Octets that the engines hold.",
        |scrape, out| {
            out.count(&[], scrape.engine.memory_octets);
        },
    ),
    in_bytes(
        "tersed_memory_budget",
        "Octets that the engines may hold.",
        |scrape, out| {
            out.count(&[], scrape.engine.memory_budget_octets);
        },
    ),
    // Rules.
    counter(
        "tersed_rule_matched",
        "Frames that fell under the rule; those of no rule under default.",
        |scrape, out| {
            out.rules(scrape, |out, labels, rule| {
                out.count(labels, rule.matched.get());
            });
        },
    ),
    counter(
        "tersed_rule_suppressed",
        "Frames held back as repeats, by the rule they fell under.",
        |scrape, out| {
            out.rules(scrape, |out, labels, rule| {
                out.count(labels, rule.suppressed.get());
            });
        },
    ),
    counter(
        "tersed_rule_dropped",
        "Frames dropped because the rule says so.",
        |scrape, out| {
            out.rules(scrape, |out, labels, rule| {
                out.count(labels, rule.dropped.get());
            });
        },
    ),
    counter(
        "tersed_rule_tagged",
        "Frames forwarded with a tag that would have been held back or dropped.",
        |scrape, out| {
            out.rules(scrape, |out, labels, rule| {
                out.count(labels, rule.tagged.get());
            });
        },
    ),
    counter(
        "tersed_rule_shadowed",
        "Frames forwarded as they came that would have been held back or dropped.",
        |scrape, out| {
            out.rules(scrape, |out, labels, rule| {
                out.count(labels, rule.shadowed.get());
            });
        },
    ),
    // Listeners.
    counter(
        "tersed_kernel_dropped",
        "Datagrams that the kernel dropped before we could read them.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                out.count(labels, listener.kernel_dropped.get());
            });
        },
    ),
    in_bytes(
        "tersed_receive_buffer",
        "Kernel receive buffer granted.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                if listener.is_open() {
                    out.level(labels, listener.receive_buffer.get());
                }
            });
        },
    ),
    gauge("tersed_connections", "Connections open.", |scrape, out| {
        out.listeners(scrape, |out, labels, listener| {
            out.level(labels, listener.connections.get())
        });
    }),
    counter(
        "tersed_connections_accepted",
        "Connections accepted.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                out.count(labels, listener.accepted.get())
            });
        },
    ),
    counter(
        "tersed_connections_rejected",
        "Connections closed before a frame was taken, by why.",
        |scrape, out| out.by("reason", &scrape.metrics.connections_rejected),
    ),
    counter("tersed_accept_errors", "Failed accepts.", |scrape, out| {
        out.listeners(scrape, |out, labels, listener| {
            out.count(labels, listener.accept_errors.get());
        });
    }),
    counter(
        "tersed_relp_answers",
        "RELP transactions answered, by what the answer was.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                for (result, count) in listener.answers.iter() {
                    out.count(&[labels[0], ("result", result.label())], count);
                }
            });
        },
    ),
    gauge(
        "tersed_relp_unanswered",
        "RELP transactions received and not answered yet.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                out.level(labels, listener.unanswered.get());
            });
        },
    ),
    info(
        "tersed_listener",
        "Open listeners and where they listen.",
        |scrape, out| {
            out.listeners(scrape, |out, labels, listener| {
                let place = listener.place();
                if let Some(address) = &place.address {
                    out.info(&[labels[0], ("url", &place.url), ("address", address)]);
                }
            });
        },
    ),
    // The process.
    counter(
        "tersed_config_reloads",
        "Requests to reload the configuration, by what became of them.",
        |scrape, out| out.by("result", &scrape.metrics.config_reloads),
    ),
    counter(
        "tersed_panics",
        "Panics, which are faults of tersed, by what panicked.",
        |scrape, out| out.by("task", &scrape.metrics.panics),
    ),
    info("tersed_build", "The version that runs.", |_, out| {
        out.info(&[("version", env!("CARGO_PKG_VERSION"))]);
    }),
    in_seconds(
        "process_start_time",
        MetricType::Gauge,
        "Unix time of the start.",
        |scrape, out| {
            out.real(scrape.metrics.started.micros() as f64 / 1e6);
        },
    ),
    in_bytes(
        "tersed_memory_limit",
        "Octets that each part of the process may take at most.",
        |scrape, out| {
            for (part, limit) in MemoryPart::ALL.iter().zip(&scrape.metrics.memory_limit) {
                out.level(&[("part", part.label())], limit.get());
            }
        },
    ),
    in_bytes(
        "process_resident_memory",
        "Physical memory held.",
        |_, out| {
            if let Some(octets) = process::resident_octets() {
                out.count(&[], octets);
            }
        },
    ),
    gauge("process_open_fds", "Open file descriptors.", |_, out| {
        if let Some(fds) = process::open_fds() {
            out.count(&[], fds);
        }
    }),
    in_seconds(
        "process_cpu",
        MetricType::Counter,
        "Processor time used.",
        |_, out| {
            if let Some(secs) = process::cpu_secs() {
                out.real(secs);
            }
        },
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
            (family.samples)(self, &mut samples);
            samples.outcome()?;
        }
        Ok(())
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        unit: None,
        kind: MetricType::Counter,
        help,
        samples,
    }
}

pub(super) const fn gauge(
    name: &'static str,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        unit: None,
        kind: MetricType::Gauge,
        help,
        samples,
    }
}

const fn in_bytes(
    name: &'static str,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        help,
        samples,
    }
}

pub(super) const fn in_seconds(
    name: &'static str,
    kind: MetricType,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        unit: Some(Unit::Seconds),
        kind,
        help,
        samples,
    }
}

pub(super) const fn info(
    name: &'static str,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        unit: None,
        kind: MetricType::Info,
        help,
        samples,
    }
}

/// A page with a few listeners and upstreams; more make it grow.
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
                live: 7,
                memory_octets: 9,
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
            "# HELP tersed_memory_bytes Octets that the engines hold.",
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
