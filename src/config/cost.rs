//! Measures what expressions cost on texts that are hard for them, and refuses those that cost too much.
//!
//! A search is linear in the text, but expressions differ: with `[\s\S]{1,30000}x` one octet can take as long as ten
//! thousand do otherwise. With one such mask, a single message of 64 KiB blocks a worker for seconds.
//!
//! # Guarantees
//!
//! - Ordinary expressions cost far less than the limit, so that a busy machine refuses none of them. The thread's own
//!   time is measured, and of several measurements the least counts.
//! - A slow machine refuses the same expressions as a fast one: what is too much is compared with a search whose cost
//!   is known. The cost in an error is the cost on the machine for which the limits were chosen.
//! - Measuring takes milliseconds. It takes a fraction of a second for an expression that is refused, or that may look
//!   at all of the remaining text after each match. After [`REFUSED_MAX`] refusals nothing more is measured.
//!
//! # Left out
//!
//! Messages that are harder than any text that is tried.

mod slowness;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::fmt;
use std::hint::black_box;
use std::time::Duration;

use super::error::{At, ConfigError, Fault};
use super::report::Report;
use crate::clock::ThreadTime;
use crate::core::identity::mask::{
    BuiltinSet, HardTexts, Kind, LATE_MATCHES, LateText, Masks, Pattern,
};
use crate::core::limits::{MASK_OCTET_COST_MAX, MESSAGE_OCTETS_DEFAULT};
use crate::core::rule::{Rules, Scratch, Text};
use slowness::slowness;

/// What a search cost.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Cost {
    octets: usize,
    time: Duration,
    /// What an octet may cost.
    octet_max: Duration,
}

/// Refuses each mask of `[mask]` that costs too much by itself.
pub(super) fn refuse_costly_patterns(patterns: &[Pattern], report: &mut Report) {
    for (index, pattern) in patterns.iter().enumerate() {
        let what = format!("mask `{}`", pattern.name);
        let at = report.place(&format!("mask[{index}]"));
        let masks = Masks::new(BuiltinSet::EMPTY, vec![pattern.clone()])
            .expect("a mask that was read compiled by itself");
        refuse_masks(&what, &masks, &at, report);
    }
}

/// The masks of `[mask]`. Many rules may choose the same set of them, which is then measured once.
pub(super) struct OwnMasks {
    pub(super) patterns: Vec<Pattern>,
    judged: RefCell<Vec<Vec<Pattern>>>,
}

impl OwnMasks {
    pub(super) const fn new(patterns: Vec<Pattern>) -> Self {
        Self {
            patterns,
            judged: RefCell::new(Vec::new()),
        }
    }

    /// Refuses `masks`, which are some of these, if they cost too much together.
    pub(super) fn refuse_costly(&self, masks: &Masks, at: &At, report: &mut Report) {
        let mut judged = self.judged.borrow_mut();
        if !judged.iter().any(|other| other == masks.patterns()) {
            judged.push(masks.patterns().to_vec());
            refuse_costly_masks(masks, at, report);
        }
    }
}

/// Refuses masks that cost too much together.
fn refuse_costly_masks(masks: &Masks, at: &At, report: &mut Report) {
    // A mask by itself was judged at its own place, and is not reported twice.
    if masks.patterns().len() < 2 || report.errors.iter().any(is_costly) {
        return;
    }
    let names: Vec<_> = masks
        .patterns()
        .iter()
        .map(|pattern| format!("`{}`", pattern.name))
        .collect();
    let what = format!("masks {} together", names.join(", "));
    refuse_masks(&what, masks, at, report);
}

/// Refuses the expression of a rule if it costs too much.
pub(super) fn refuse_costly_text(text: &Text, at: &At, report: &mut Report) {
    let search = |msg: &[u8]| {
        black_box(text.matches(msg));
    };
    let written = text.written();
    let what = format!("`{written}`");
    let judge = || too_much(&[written], MASK_OCTET_COST_MAX, search);
    refuse(&what, false, judge, at, report);
}

/// Refuses the expressions of all rules if they cost too much together.
pub(super) fn refuse_costly_rules(rules: &Rules, at: &At, report: &mut Report) {
    let texts = rules
        .rules()
        .iter()
        .filter_map(|rule| rule.matcher.msg.as_ref());
    let written: Vec<_> = texts.map(Text::written).collect();
    if written.len() < 2 || report.errors.iter().any(is_costly) {
        return;
    }
    let mut scratch = Scratch::default();
    let search = |msg: &[u8]| rules.search_all(msg, &mut scratch);
    let what = format!("`msg` of all {} rules that have one", written.len());
    let octet_max = MASK_OCTET_COST_MAX * RULES_FACTOR;
    let judge = || too_much(&written, octet_max, search);
    refuse(&what, true, judge, at, report);
}

fn refuse_masks(what: &str, masks: &Masks, at: &At, report: &mut Report) {
    let patterns = masks.patterns().iter();
    let written: Vec<_> = patterns.map(|pattern| pattern.regex.as_str()).collect();
    let judge = || too_much_of_masks(&written, MASK_OCTET_COST_MAX, masks);
    refuse(what, false, judge, at, report);
}

fn refuse(
    what: &str,
    of_rules: bool,
    judge: impl FnOnce() -> Option<Cost>,
    at: &At,
    report: &mut Report,
) {
    if report
        .errors
        .iter()
        .filter(|error| is_costly(error))
        .count()
        >= REFUSED_MAX
    {
        return;
    }
    if let Some(cost) = judge() {
        let fault = Fault::Costly {
            what: what.to_owned(),
            cost: cost.to_string(),
            octet_max: cost.octet_max,
            of_rules,
        };
        report.fault(at, fault);
    }
}

const fn is_costly(error: &ConfigError) -> bool {
    matches!(error.fault, Fault::Costly { .. })
}

/// What the masks of `expressions` cost, if that is too much.
fn too_much_of_masks(expressions: &[&str], octet_max: Duration, masks: &Masks) -> Option<Cost> {
    let search = |msg: &[u8]| masks.each(msg, |_, _| ());
    // Only masks are searched again after a match.
    too_much(expressions, octet_max, search)
        .or_else(|| too_much_after_matches(expressions, octet_max, search))
}

/// What `search` for `expressions` costs, if that is too much because each match makes it look at all of the remaining
/// text.
///
/// Only the texts that are the hardest while they are short are measured at full length.
fn too_much_after_matches(
    expressions: &[&str],
    octet_max: Duration,
    mut search: impl FnMut(&[u8]),
) -> Option<Cost> {
    let mut measure = |text: &[u8]| {
        let start = ThreadTime::now();
        search(text);
        Cost {
            octets: text.len(),
            time: start.elapsed(),
            octet_max,
        }
    };
    let mut texts: Vec<_> = LateText::all(expressions.iter().copied())
        .into_iter()
        .map(|late| (measure(&late.text(OCTETS_LATE, MATCHES_LATE)).time, late))
        .collect();
    texts.sort_by_key(|(time, _)| Reverse(*time));
    texts.truncate(LATE_TEXTS);
    // What is too much on a short text is far too much on a long one.
    [OCTETS_MAX / 4, OCTETS_MAX / 2, OCTETS_MAX]
        .into_iter()
        .flat_map(|octets| texts.iter().map(move |(_, late)| (octets, late)))
        .find_map(|(octets, late)| {
            let text = late.text(octets, LATE_MATCHES);
            least_beyond(1, || measure(&text), slowness)
        })
}

/// What `search` for `expressions` costs, if that is too much.
///
/// The texts get longer until the automaton has seen four times as many octets as it has places. What it builds once
/// does not count any more by then; what it builds all the time does.
fn too_much(
    expressions: &[&str],
    octet_max: Duration,
    mut search: impl FnMut(&[u8]),
) -> Option<Cost> {
    let mut texts = HardTexts::of(expressions.iter().copied());
    let octets_max = (4 * texts.places().min(OCTETS_MAX)).clamp(OCTETS_LAST_MIN, OCTETS_MAX);
    // The first search allocates memory.
    search(&texts.next(Kind::Log, OCTETS_WARM));
    let mut octets = OCTETS_FIRST;
    loop {
        let is_last = octets >= octets_max;
        let limit = if is_last { 1 } else { hopeless(octets) };
        // Each kind is tried before any text gets longer: an expression that is slow is so on a short text, mostly.
        for kind in Kind::ALL {
            let measure = || {
                let text = texts.next(kind, octets);
                let start = ThreadTime::now();
                search(&text);
                Cost {
                    octets,
                    time: start.elapsed(),
                    octet_max,
                }
            };
            if let Some(cost) = least_beyond(limit, measure, slowness) {
                return Some(cost);
            }
        }
        if is_last {
            return None;
        }
        octets = (octets * 2).min(octets_max);
    }
}

/// The least of [`TRIES`] measurements, if each of them is beyond `limit` times what is allowed.
///
/// Each that is beyond is divided by `slowness`, which is measured right after it. So a slow or busy machine refuses
/// the same expressions as a fast one.
fn least_beyond(
    limit: u32,
    mut measure: impl FnMut() -> Cost,
    slowness: impl Fn() -> f64,
) -> Option<Cost> {
    let mut least: Option<Cost> = None;
    for _ in 0..TRIES {
        let cost = measure();
        if cost.times(limit) <= 1.0 {
            return None;
        }
        let cost = cost.divided_by(slowness());
        if cost.times(limit) <= 1.0 {
            return None;
        }
        least = Some(match least {
            Some(other) if other.time < cost.time => other,
            _ => cost,
        });
        // A measurement far above the limit is not repeated.
        if cost.times(limit * FAR_BEYOND) > 1.0 {
            break;
        }
    }
    least
}

impl Cost {
    fn nanos_per_octet(&self) -> f64 {
        self.time.as_secs_f64() * 1e9 / self.octets as f64
    }

    /// What it would have cost on a machine that is `slowness` times as fast.
    fn divided_by(self, slowness: f64) -> Self {
        Self {
            time: self.time.div_f64(slowness),
            ..self
        }
    }

    /// The cost as a multiple of `limit` times the limit.
    fn times(&self, limit: u32) -> f64 {
        self.nanos_per_octet() / (self.octet_max.as_secs_f64() * 1e9 * f64::from(limit))
    }
}

impl fmt::Display for Cost {
    /// `16.3 us an octet, 1068 ms for a message of 64 KiB`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.nanos_per_octet();
        let whole = nanos * MESSAGE_OCTETS_DEFAULT as f64 / 1e6;
        write!(
            f,
            "{:.1} us an octet, {whole:.0} ms a message of 64 KiB",
            nanos / 1e3
        )
    }
}

/// Octets of the text whose search allocates memory before anything is measured.
const OCTETS_WARM: usize = 16;

/// Octets of the first text.
const OCTETS_FIRST: usize = 64;

/// Octets of the last text, at least and at most.
const OCTETS_LAST_MIN: usize = 2048;
const OCTETS_MAX: usize = 65_536;

/// Octets and matches of a short text with a late end, and how many of these texts are tried at full length.
const OCTETS_LATE: usize = 8192;
const MATCHES_LATE: usize = 16;
const LATE_TEXTS: usize = 3;

/// The number of measurements of which the least counts, if the first is too much.
const TRIES: usize = 4;

/// Beyond this multiple of the limit, a busy machine is not the reason.
const FAR_BEYOND: u32 = 4;

/// The multiple of the limit on a text of `octets` that is too much on any text: what is built once costs less.
const fn hopeless(octets: usize) -> u32 {
    match octets {
        0..1024 => 16,
        1024..4096 => 8,
        _ => 3,
    }
}

/// The expressions of all rules may cost this many times as much as one: they are searched in one pass, and few texts
/// keep many of them active at once. 200 rules, of which 50 look for one of two words up to the end of the text, cost
/// 6 us an octet on the text that is hardest for them, and 8 us while a compiler uses the same memory.
const RULES_FACTOR: u32 = 16;

/// The number of refusals after which nothing more is measured.
const REFUSED_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, RunArgs};
    use crate::core::rule::Profile;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        fs::write(&path, text).unwrap();
        let args = RunArgs {
            file: Some(path),
            ..RunArgs::default()
        };
        Config::load(&args).map_err(|errors| errors.to_string())
    }

    /// The cost of `expressions` as masks of one set, if it is too much, and how long measuring took.
    fn judge(expressions: &[&str], octet_max: Duration) -> (Option<Cost>, Duration) {
        let patterns = expressions.iter().zip(b'a'..).map(|(regex, name)| Pattern {
            name: char::from(name).to_string(),
            regex: (*regex).to_owned(),
        });
        let masks = Masks::new(BuiltinSet::EMPTY, patterns.collect()).unwrap();
        let start = ThreadTime::now();
        let cost = too_much_of_masks(expressions, octet_max, &masks);
        (cost, start.elapsed())
    }

    const ORDINARY: [&[&str]; 26] = [
        &[r"user[= ]\w+", r"session[= ][0-9a-z]+"],
        &["[0-9]+"],
        &[
            "[0-9]+",
            "[a-f0-9]{32}",
            r"\bid=\S+",
            r"0x[0-9a-f]+",
            r"\[\d+\]",
        ],
        &[r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"],
        &["job-[0-9]+"],
        &[r"\d{1,3}(\.\d{1,3}){3}"],
        &["[A-Za-z0-9+/]{20,200}={0,2}"],
        &[r#""[^"]*""#],
        &[r"(?i)(foo|bar|baz)=\S+"],
        &[r"[\w.+-]+@[\w-]+\.[\w.]+"],
        &[r"https?://[^\s?#]+(\?[^\s#]*)?"],
        &[r"\[[^\]]{1,100}\]"],
        &[r"\{.*\}"],
        &[".+"],
        &["^.{10,50}"],
        &[r"\w+ \w+ \w+ error"],
        &[r"(\w+\s){3}end"],
        &["[0-9a-f]{32,64}"],
        &[r"\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b"],
        &[r"took [0-9.]+ ?(ms|us|s)\b"],
        &["[^ ]{64,1024}"],
        &[r"\S{100,}"],
        &[r"[a-z]+\d+[a-z]*"],
        &["a.*b.*c.*d"],
        &["(x+x+)+y"],
        &[
            r"(?i)\b(mon|tue|wed|thu|fri|sat|sun)\b,? \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d( [+-]\d{4})?",
        ],
    ];

    #[test]
    fn ordinary_masks_are_far_below_the_limit() {
        for expressions in ORDINARY {
            let (cost, took) = judge(expressions, MASK_OCTET_COST_MAX / 3);
            assert_eq!(cost, None, "{expressions:?}");
            assert!(
                took < Duration::from_millis(500),
                "{expressions:?}: {took:?}"
            );
        }
    }

    #[test]
    fn masks_that_block_a_worker_are_refused_in_reasonable_time() {
        for expression in [
            r"[\s\S]{1,30000}x",
            "(a|b)*a(a|b){1000}x",
            "[ab]*a[ab]{1000}c",
            "(?:.{0,900}a){20}z",
            ".{1,20000}x",
            "((a?){100}){100}b",
            ".*.{2000}",
            ".{4000}x",
            "(?:.{0,300} ){30}!",
            // Each match makes the search look at all of the remaining text.
            "qj(?:[abqj]*a[abqj]{40}z)?",
            "qj(?:.*a.{40}z)?",
            "qj(?:.*a.{40}z|)",
            "qj(?:x|.*a.{40}z)?",
            "(?:qj)+(?:.*a.{40}z)?",
            "q(?:foo(?:.*a.{40}z)?)?",
            r"req=\S+( .* took .{0,60}ms!)?",
        ] {
            let (cost, took) = judge(&[expression], MASK_OCTET_COST_MAX);
            assert!(cost.is_some(), "{expression}");
            assert!(took < Duration::from_secs(3), "{expression}: {took:?}");
        }
    }

    #[test]
    fn masks_with_an_end_that_may_be_missing_are_accepted_if_they_are_plain() {
        for expression in [
            "x.*y|x",
            r"req=\S+( .*x)?",
            r"\[\w+\]( .*\])?",
            r"https?://[^\s?#]+(\?[^\s#]*#)?",
            r"(?i)user \w+( .* from \S+ port \d+)?",
        ] {
            let (cost, took) = judge(&[expression], MASK_OCTET_COST_MAX);
            assert_eq!(cost, None, "{expression}");
            assert!(took < Duration::from_secs(1), "{expression}: {took:?}");
        }
    }

    #[test]
    fn masks_that_rules_choose_again_are_measured_once() {
        let masks = "[mask]\nuser = 'user \\w+( .* from \\S+ port \\d+)?'\nid = 'id=\\d+(, .*code \\d+)?'\n";
        let rules: String = (0..200)
            .map(|number| format!("[[rule]]\nname = \"r{number}\"\nmask = [\"user\", \"id\"]\n"))
            .collect();
        let start = ThreadTime::now();
        load(&format!("{masks}{rules}")).unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
    }

    #[test]
    fn what_is_refused_is_named_with_its_cost() {
        let costly = "(?:.{0,900}a){20}z";
        let text = load(&format!(
            "[mask]\nfine = '[0-9]+'\nslow = '{costly}'\n[[rule]]\nname = \"r\"\nmsg = '{costly}'\n"
        ))
        .unwrap_err();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains("t.toml:3: mask.slow: mask `slow`: takes "),
            "{text}"
        );
        assert!(
            lines[1].contains(&format!("t.toml:6: rule[0].msg: `{costly}`: takes ")),
            "{text}"
        );
        for line in lines {
            assert!(
                line.contains(" ms a message of 64 KiB, on text that is hard for it"),
                "{text}"
            );
            assert!(
                line.contains("expected at most 1 us an octet; make its repetitions shorter"),
                "{text}"
            );
        }
        let text = load("[mask]\nlong = '.{5000}x'\n").unwrap_err();
        assert!(
            text.contains("matches nothing shorter than 5001 octets, limit 4096"),
            "{text}"
        );
    }

    #[test]
    fn a_slow_machine_refuses_what_a_fast_one_refuses() {
        let costs = |micros: u64| {
            move || Cost {
                octets: 1000,
                time: Duration::from_micros(1000 * micros),
                octet_max: Duration::from_micros(1),
            }
        };
        let judged = |micros, slowness| {
            least_beyond(1, costs(micros), || slowness).map(|cost| cost.nanos_per_octet())
        };
        assert_eq!(judged(1, 1.0), None);
        assert_eq!(judged(2, 1.0), Some(2000.0));
        assert_eq!(judged(4, 5.0), None);
        assert_eq!(judged(20, 5.0), Some(4000.0));
    }

    /// The `msg` of 200 rules.
    fn ordinary_rules() -> Vec<String> {
        let expressions = [
            |number| format!("timeout of disk{number} after"),
            |number| format!("(login|logout) of user{number}\\b"),
            |number| format!("(?i)session {number} .*(closed|refused)"),
            |number| format!("link \\S{{1,20}} eth{number}: [0-9]{{1,5}} errors"),
        ] as [fn(usize) -> String; 4];
        let rules = 0..200;
        rules
            .map(|number| expressions[number % 4](number))
            .collect()
    }

    #[test]
    fn profiles_and_long_lists_of_ordinary_rules_are_accepted_in_a_second() {
        let profiles: String = Profile::ALL
            .iter()
            .map(|profile| {
                format!(
                    "[[rule]]\nname = \"p-{0}\"\nprofile = \"{0}\"\n",
                    profile.name
                )
            })
            .collect();
        load(&profiles).unwrap();
        let rules: String = ordinary_rules()
            .iter()
            .enumerate()
            .map(|(number, msg)| {
                format!("[[rule]]\nname = \"r{number}\"\nmsg = '{msg}'\nmask = [\"number\", \"user\", \"id\"]\n")
            })
            .collect();
        let masks = "[mask]\nuser = 'user[= ]\\w+'\nid = 'id=[0-9a-f]+'\n";
        let start = ThreadTime::now();
        load(&format!("{masks}{rules}")).unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}
