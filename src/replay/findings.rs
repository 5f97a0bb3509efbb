//! Findings: what a replay counts for the report only.
//!
//! # Guarantees
//!
//! - Each window that is tried has its own engine and all of `dedup.memory`. Its counts are those of a replay of this
//!   configuration with that window, evictions included.
//! - Each window is tried twice: with the fields and masks of every rule, and with [`TRIED_MASKS`] added to them, unless all
//!   rules have these already. Actions and modes are the same in all trials.
//!
//! # Left out
//!
//! Writing the report (`report`).

use std::time::Duration;

use super::noisy::{Noise, Noisy};
use super::offer::{ORIGIN, Offer};
use super::report::{LineReport, NoiseReport, RuleReport, WindowReport, share};
use super::trial::TriedWindow;
use crate::config::time_text;
use crate::core::identity::mask::{Builtin, BuiltinSet, Masks};
use crate::core::identity::{Identifier, Identity, Spec};
use crate::core::parse::Message;
use crate::core::rule::{Fates, LITERAL, Rules};
use crate::core::tick::WallTime;
use crate::explain::Ruling;

/// The sums over all lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) lines: Fates,
    pub(super) octets_in: u64,
    /// Of lines that came out, without annotations.
    pub(super) octets_out: u64,
    pub(super) octets_dropped: u64,
    pub(super) summaries: u64,
    pub(super) summary_octets: u64,
    pub(super) unparsed: u64,
    pub(super) empty: u64,
    pub(super) cut: u64,
    pub(super) first: Option<WallTime>,
}

/// The lines that one rule decided about.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleTotals<'a> {
    ruling: Ruling<'a>,
    pub(super) lines: Fates,
}

/// What only a report needs.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) noisy: Noisy,
    readings: Vec<Reading>,
}

/// One way to identify messages, and the windows that are tried with it.
#[derive(Debug)]
struct Reading {
    /// Its name in the report.
    identity: &'static str,
    /// By policy. `None`: as the rules configure it.
    specs: Option<Vec<Spec>>,
    /// The identity of the line at hand.
    octets: Vec<u8>,
    windows: Vec<TriedWindow>,
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
        let variant;
        let mut offer = offer;
        if let Some(specs) = &self.specs {
            let spec = &specs[offer.policy.index()];
            self.octets.clear();
            let hash = identifier.append_by(spec, offer.message, ORIGIN, &mut self.octets);
            offer.identity = Identity {
                hash,
                octets: &self.octets,
            };
            variant = identifier.variant(spec, offer.message, ORIGIN.sender);
            offer.sighting.variant = variant.as_ref();
        }
        for window in &mut self.windows {
            window.offer(&offer);
        }
    }
}

impl Findings {
    /// Findings about no line yet.
    pub(super) fn new(rules: &Rules, memory: usize) -> Self {
        let mut readings = vec![Reading::new(AS_CONFIGURED, None, rules, memory)];
        let masked: Vec<_> = rules
            .policies()
            .map(|policy| masked(&policy.identity))
            .collect();
        let configured = rules.policies().map(|policy| &policy.identity);
        // Messages that are never suppressed are not masked.
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

    /// Offers a line to the trials of all readings.
    pub(super) fn offer(&mut self, identifier: &Identifier<'_>, offer: Offer<'_, '_>) {
        for reading in &mut self.readings {
            reading.offer(identifier, offer);
        }
    }

    /// The tried windows of all readings.
    pub(super) fn tried_windows(&mut self) -> impl Iterator<Item = &mut TriedWindow> {
        self.readings
            .iter_mut()
            .flat_map(|reading| &mut reading.windows)
    }

    pub(super) fn noisiest(&self) -> Vec<NoiseReport> {
        let noisiest = self.noisy.noisiest(NOISIEST);
        noisiest.iter().map(noise_report).collect()
    }

    /// The counts of the tried windows; `totals` are those of the same lines.
    pub(super) fn windows(&self, totals: &Totals) -> Vec<WindowReport> {
        let tried = self.readings.iter().flat_map(|reading| {
            let identity = reading.identity;
            reading.windows.iter().map(move |tried| (identity, tried))
        });
        tried
            .map(|(identity, tried)| {
                let (lines_in, dropped) = (totals.lines.matched, totals.lines.dropped);
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
        let lines = LineReport::of(&self.lines);
        RuleReport {
            rule: self.ruling.rule.to_owned(),
            action: self.ruling.action_word(),
            lines,
            reduction_percent: lines.reduction_percent(),
        }
    }
}

/// `spec` with [`TRIED_MASKS`] added to its masks.
fn masked(spec: &Spec) -> Spec {
    let own = spec.masks();
    let builtins = TRIED_MASKS
        .into_iter()
        .fold(own.builtins(), BuiltinSet::with);
    let masks = Masks::new(builtins, own.patterns().to_vec());
    let masks = masks.expect("the same patterns were compiled when the configuration was loaded");
    Spec::new(spec.fields(), masks.into())
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

/// Windows that a report tries.
const TRIED_WINDOWS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3600),
];

/// Masks that a report tries. What they fold most often makes a text differ from the one before.
const TRIED_MASKS: [Builtin; 3] = [Builtin::Number, Builtin::Hex, Builtin::Ipv4];

/// The name of the reading with these masks.
const WITH_MASKS: &str = "masks number, hex, ipv4";

/// The name of the reading that identifies messages as the rules do.
const AS_CONFIGURED: &str = "as configured";

/// Messages that a report lists.
const NOISIEST: usize = 20;
