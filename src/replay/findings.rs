//! Findings: what a replay counts beside its output, for the report.
//!
//! # Guarantees
//!
//! - Each window that is tried has an engine and all of `dedup.memory` of its own: what it would have
//!   given is what this configuration gives with that window, forgetting included.
//!
//! # Left out
//!
//! How the report is said (`report`).

use std::time::Duration;

use super::lane::Trial;
use super::noisy::{Noise, Noisy};
use super::report::{NoiseReport, RuleReport, WindowReport, share};
use crate::config::time_text;
use crate::explain::Ruling;
use crate::parse::Message;
use crate::rule::Rules;
use crate::tick::WallTime;

/// Lines and octets in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) lines_in: u64,
    pub(super) octets_in: u64,
    pub(super) lines_out: u64,
    pub(super) octets_out: u64,
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
    pub(super) ruling: Ruling<'a>,
    pub(super) lines_in: u64,
    pub(super) lines_out: u64,
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
    trials: Vec<Trial>,
}

impl Findings {
    /// Nothing was found yet.
    pub(super) fn new(rules: &Rules, memory: usize) -> Self {
        Self {
            noisy: Noisy::new(),
            readings: vec![Reading {
                identity: AS_CONFIGURED,
                trials: TRIED_WINDOWS
                    .map(|window| Trial::new(rules, window, memory))
                    .into(),
            }],
        }
    }

    /// All windows that are tried.
    pub(super) fn trials(&mut self) -> impl Iterator<Item = &mut Trial> {
        self.readings
            .iter_mut()
            .flat_map(|reading| &mut reading.trials)
    }

    /// The noisiest messages.
    pub(super) fn noisiest(&self) -> Vec<NoiseReport> {
        let noisiest = self.noisy.noisiest(NOISIEST);
        noisiest.iter().map(noise_report).collect()
    }

    /// What the other windows would have given, of the lines in `totals`.
    pub(super) fn windows(&self, totals: &Totals) -> Vec<WindowReport> {
        let trials = self.readings.iter().flat_map(|reading| {
            let identity = reading.identity;
            reading.trials.iter().map(move |trial| (identity, trial))
        });
        trials
            .map(|(identity, trial)| {
                let suppressed = totals.lines_in - trial.lines;
                let peak = trial.lane.peak;
                WindowReport {
                    identity,
                    window: time_text(trial.window),
                    lines_out: trial.lines,
                    suppressed,
                    reduction_percent: share(suppressed, totals.lines_in),
                    octets_reduction_percent: share(
                        totals.octets_in - trial.octets,
                        totals.octets_in,
                    ),
                    summaries: trial.summaries,
                    messages_max: peak.messages as u64,
                    memory_max: peak.octets as u64,
                    evicted_messages: peak.evicted,
                }
            })
            .collect()
    }
}

impl<'a> RuleTotals<'a> {
    pub(super) const fn new(ruling: Ruling<'a>) -> Self {
        Self {
            ruling,
            lines_in: 0,
            lines_out: 0,
        }
    }

    pub(super) fn report(&self) -> RuleReport {
        let suppressed = self.lines_in - self.lines_out;
        RuleReport {
            rule: self.ruling.rule.to_owned(),
            action: self.ruling.action.word(),
            lines_in: self.lines_in,
            lines_out: self.lines_out,
            suppressed,
            reduction_percent: share(suppressed, self.lines_in),
        }
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

/// The reading that tells messages apart as they are in the engine that decides.
const AS_CONFIGURED: &str = "as configured";

/// Messages that a report lists.
const NOISIEST: usize = 20;
