//! Findings: what a replay counts beside its output, for the report.
//!
//! # Guarantees
//!
//! - Each window that is tried has an engine and all of `dedup.memory` of its own: what it would have
//!   given is what this configuration gives with that window, forgetting included.
//! - Each window is tried twice: with every rule's own fields and masks, and with [`TRIED_MASKS`] beside them, unless
//!   all rules have these. What rules pass or drop, and what goes out because a rule is only tried, goes the
//!   same way in all trials.
//!
//! # Left out
//!
//! How the report is said (`report`).

use std::time::Duration;

use super::ORIGIN;
use super::fate::Fates;
use super::noisy::{Noise, Noisy};
use super::report::{NoiseReport, RuleReport, WindowReport, share};
use super::trial::TriedWindow;
use crate::config::time_text;
use crate::dedup::Sighting;
use crate::explain::Ruling;
use crate::identity::mask::{Builtin, BuiltinSet, Masks};
use crate::identity::{Identifier, Identity, Spec};
use crate::parse::Message;
use crate::rule::{LITERAL, PolicyId, Rules};
use crate::tick::{Tick, WallTime};

/// Lines and octets in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) lines: Fates,
    pub(super) octets_in: u64,
    /// Of lines that went out, as they came in.
    pub(super) octets_out: u64,
    pub(super) octets_dropped: u64,
    pub(super) summaries: u64,
    pub(super) summary_octets: u64,
    pub(super) unparsed: u64,
    pub(super) empty: u64,
    pub(super) cut: u64,
    pub(super) first: Option<WallTime>,
}

/// Lines that one rule decided about.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleTotals<'a> {
    ruling: Ruling<'a>,
    pub(super) lines: Fates,
}

/// What only a report wants to know.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) noisy: Noisy,
    readings: Vec<Reading>,
}

/// One way to tell messages apart, and the windows that are tried with it.
#[derive(Debug)]
struct Reading {
    identity: &'static str,
    /// By policy; `None` is what the rules say.
    specs: Option<Vec<Spec>>,
    octets: Vec<u8>,
    windows: Vec<TriedWindow>,
}

/// A line, as the engine that decides takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'o, 'f> {
    pub(super) rules: &'o Rules,
    pub(super) policy: PolicyId,
    pub(super) message: &'o Message<'f>,
    pub(super) identity: Identity<'o>,
    pub(super) sighting: Sighting<'o>,
    pub(super) now: Tick,
}

impl Reading {
    fn new(identity: &'static str, specs: Option<Vec<Spec>>, rules: &Rules, memory: usize) -> Self {
        Self {
            identity,
            specs,
            octets: Vec::new(),
            windows: TRIED_WINDOWS
                .map(|window| TriedWindow::new(rules, window, memory))
                .into(),
        }
    }

    fn offer(&mut self, identifier: &Identifier<'_>, offer: Offer<'_, '_>) {
        let Offer {
            rules,
            policy,
            message,
            now,
            ..
        } = offer;
        let (mut identity, mut sighting) = (offer.identity, offer.sighting);
        let variant;
        let specs = self.specs.as_ref();
        if let Some(spec) = specs.and_then(|specs| specs.get(policy.index())) {
            self.octets.clear();
            let hash = identifier.append_by(spec, message, ORIGIN, &mut self.octets);
            identity = Identity {
                hash,
                octets: &self.octets,
            };
            variant = identifier.variant(spec, message, ORIGIN.sender);
            sighting.variant = variant.as_ref();
        }
        for window in &mut self.windows {
            window.offer(rules, policy, identity, sighting, now);
        }
    }
}

impl Findings {
    /// Nothing was found yet.
    pub(super) fn new(rules: &Rules, memory: usize) -> Self {
        let mut readings = vec![Reading::new(AS_CONFIGURED, None, rules, memory)];
        let masked: Vec<_> = rules
            .policies()
            .map(|policy| masked(&policy.identity))
            .collect();
        let configured = rules.policies().map(|policy| &policy.identity);
        // What is never suppressed is not masked.
        let differs = configured
            .zip(&masked)
            .enumerate()
            .any(|(id, (old, new))| id != LITERAL.index() && old != new);
        if differs {
            readings.push(Reading::new(WITH_MASKS, Some(masked), rules, memory));
        }
        Self {
            noisy: Noisy::new(),
            readings,
        }
    }

    /// Offers a line to all trials.
    pub(super) fn offer(&mut self, identifier: &Identifier<'_>, offer: Offer<'_, '_>) {
        for reading in &mut self.readings {
            reading.offer(identifier, offer);
        }
    }

    /// All windows that are tried.
    pub(super) fn tried_windows(&mut self) -> impl Iterator<Item = &mut TriedWindow> {
        self.readings
            .iter_mut()
            .flat_map(|reading| &mut reading.windows)
    }

    /// The noisiest messages.
    pub(super) fn noisiest(&self) -> Vec<NoiseReport> {
        let noisiest = self.noisy.noisiest(NOISIEST);
        noisiest.iter().map(noise_report).collect()
    }

    /// What the other windows would have given, of the lines in `totals`.
    pub(super) fn windows(&self, totals: &Totals) -> Vec<WindowReport> {
        let tried = self.readings.iter().flat_map(|reading| {
            let identity = reading.identity;
            reading.windows.iter().map(move |tried| (identity, tried))
        });
        tried
            .map(|(identity, tried)| {
                let Fates {
                    lines_in, dropped, ..
                } = totals.lines;
                let peak = tried.trial.peak;
                WindowReport {
                    identity,
                    window: time_text(tried.window),
                    lines_out: tried.lines,
                    suppressed: lines_in - dropped - tried.lines,
                    dropped,
                    reduction_percent: share(lines_in - tried.lines, lines_in),
                    octets_reduction_percent: share(
                        totals.octets_in - tried.octets,
                        totals.octets_in,
                    ),
                    summaries: tried.summaries,
                    messages_max: peak.messages as u64,
                    memory_max: peak.octets as u64,
                    evicted_messages: peak.evicted,
                }
            })
            .collect()
    }
}

impl<'a> RuleTotals<'a> {
    pub(super) fn new(ruling: Ruling<'a>) -> Self {
        Self {
            ruling,
            lines: Fates::default(),
        }
    }

    pub(super) fn report(&self) -> RuleReport {
        let lines = &self.lines;
        RuleReport {
            rule: self.ruling.rule.to_owned(),
            action: self.ruling.action_word(),
            lines_in: lines.lines_in,
            lines_out: lines.lines_out,
            suppressed: lines.suppressed,
            dropped: lines.dropped,
            tagged: lines.tagged,
            shadowed: lines.shadowed,
            reduction_percent: share(lines.suppressed + lines.dropped, lines.lines_in),
        }
    }
}

/// `spec` with [`TRIED_MASKS`] beside its own.
fn masked(spec: &Spec) -> Spec {
    let own = spec.masks();
    let builtins = TRIED_MASKS
        .into_iter()
        .fold(own.builtins(), BuiltinSet::with);
    match Masks::new(builtins, own.patterns().to_vec()) {
        Ok(masks) => Spec::new(spec.fields(), masks.into()),
        // They were compiled before.
        Err(_) => spec.clone(),
    }
}

fn noise_report(noise: &Noise) -> NoiseReport {
    let message = Message::parse(&noise.frame);
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    NoiseReport {
        count: noise.count,
        suppressed: noise.suppressed,
        first: noise.first.map(time_word),
        last: noise.last.map(time_word),
        identity: noise.identity.clone(),
        hostname: message.hostname().map(text),
        app_name: message.app_name().map(text),
        msg: text(message.msg()),
    }
}

/// `2026-03-01T18:46:11Z`: seconds are enough to find a line again.
pub(super) fn time_word(time: WallTime) -> String {
    let whole = WallTime::from_micros(time.micros().div_euclid(1_000_000) * 1_000_000);
    whole.to_string().replace(".000000Z", "Z")
}

/// Windows that a report tries beside the configured one.
const TRIED_WINDOWS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3600),
];

/// Masks that a report tries: what most often makes a text differ from the one before.
const TRIED_MASKS: [Builtin; 3] = [Builtin::Number, Builtin::Hex, Builtin::Ipv4];

/// The reading with these masks.
const WITH_MASKS: &str = "masks number, hex, ipv4";

/// The reading that tells messages apart as they are in the engine that decides.
const AS_CONFIGURED: &str = "as configured";

/// Messages that a report lists.
const NOISIEST: usize = 20;
