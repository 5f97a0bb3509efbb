//! The slow, obvious twin of the engines, and random streams judged beside it.
//!
//! The [`Model`] is a list of open windows. Each call first ends the windows that have expired, and searches
//! the whole list for what it needs. The model cannot know how many octets the real engines need. So it is told how
//! many messages they evicted, and whether they forwarded a copy without remembering it. From that it works out
//! which messages those must be, and what has to be reported.
//!
//! Each regime must reach the limits that it is there for: see [`Reached`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{
    Claim, DISTINCT_MAX, EndReason, Ended, EngineStats, KeptTimestamp, Several, Shards, Sighting,
    Variety, Verdict,
};
use crate::core::identity::{Identity, Variant};
use crate::core::rule::{PolicyId, WindowPolicy};
use crate::core::tick::Tick;

/// What must be true of one shard.
struct Model {
    policies: Vec<WindowPolicy>,
    open: Vec<Window>,
    now: Tick,
    /// Counts all starts and restarts, to order those at the same time.
    order: u64,
    /// Reports of ended windows that have not come out yet, by their frames, which are unique.
    due: HashMap<Vec<u8>, Ended>,
    suppressed: u64,
    reported: u64,
}

struct Window {
    policy: PolicyId,
    identity: Vec<u8>,
    /// When a fixed window started. With `order`, also the position among the messages that may be evicted.
    start: Tick,
    order: u64,
    delivery: u64,
    forwarded: Tick,
    last: Tick,
    passed: u32,
    report: Option<Ended>,
    /// The texts of suppressed copies, if the policy folds them.
    texts: HashSet<u64>,
}

/// What the model has to be told about a call.
#[derive(Clone, Copy)]
struct Told {
    evicted: u64,
    unremembered: bool,
}

impl Model {
    fn new(policies: &[WindowPolicy]) -> Self {
        Self {
            policies: policies.to_vec(),
            open: Vec::new(),
            now: Tick::ZERO,
            order: 0,
            due: HashMap::new(),
            suppressed: 0,
            reported: 0,
        }
    }

    /// Returns the delivery that the copy starts or belongs to; `None` if it is a duplicate, `Some(None)` if it is
    /// forwarded and not remembered.
    fn offer(
        &mut self,
        policy: PolicyId,
        identity: &[u8],
        sighting: Sighting<'_>,
        now: Tick,
        told: Told,
    ) -> Option<Option<u64>> {
        self.advance(now);
        self.evict(told.evicted, policy);
        let now = self.now;
        let WindowPolicy {
            window,
            allow,
            refresh,
        } = self.policies[usize::from(policy.0)];
        self.order += 1;
        let met = self
            .open
            .iter()
            .position(|open| open.policy == policy && open.identity == identity);
        if let Some(met) = met {
            let quiet = now.since(self.open[met].forwarded);
            if refresh.is_none_or(|max_quiet| quiet < max_quiet) {
                if told.unremembered {
                    return Some(None);
                }
                let open = &mut self.open[met];
                open.last = now;
                // An engine moves a message to the end of its timeline only every sixteenth of a window.
                if refresh.is_some() && now.since(open.start) >= window / 16 {
                    (open.start, open.order) = (now, self.order);
                }
                if open.passed < allow {
                    open.passed += 1;
                    open.forwarded = now;
                    return Some(Some(open.delivery));
                }
                let report = open.report.get_or_insert_with(|| Ended {
                    policy,
                    generation: 0,
                    reason: EndReason::Window,
                    count: 0,
                    first: now,
                    last: now,
                    window,
                    frame: sighting.frame.into(),
                    variety: None,
                    last_timestamp: None,
                });
                if let Some(text) = sighting.variant.and_then(|variant| variant.text) {
                    open.texts.insert(text);
                    report.frame = sighting.frame.into();
                    report.variety = Some(variety(&open.texts));
                }
                report.count += 1;
                report.last = now;
                let mut kept = KeptTimestamp::NONE;
                kept.set(sighting.timestamp);
                report.last_timestamp = Some(kept);
                self.suppressed += 1;
                return None;
            }
            self.end(met, EndReason::Window);
        }
        if told.unremembered {
            return Some(None);
        }
        self.open.push(Window {
            policy,
            identity: identity.to_vec(),
            start: now,
            order: self.order,
            delivery: self.order,
            forwarded: now,
            last: now,
            passed: 1,
            report: None,
            texts: HashSet::new(),
        });
        Some(Some(self.order))
    }

    fn advance(&mut self, now: Tick) {
        self.now = self.now.max(now);
        while let Some(over) = self.open.iter().position(|open| {
            let policy = self.policies[usize::from(open.policy.0)];
            let start = if policy.refresh.is_some() {
                open.last
            } else {
                open.start
            };
            self.now.since(start) >= policy.window
        }) {
            self.end(over, EndReason::Window);
        }
    }

    /// Among equally old messages, those of the policy that needs the room are evicted last.
    fn evict(&mut self, messages: u64, wanting: PolicyId) {
        for _ in 0..messages {
            let oldest = (0..self.open.len())
                .min_by_key(|&at| {
                    (
                        self.open[at].start,
                        self.open[at].policy == wanting,
                        self.open[at].policy,
                        self.open[at].order,
                    )
                })
                .expect("only what is remembered can be evicted");
            self.end(oldest, EndReason::Evicted);
        }
    }

    fn reopen(&mut self, delivery: u64) {
        if let Some(at) = self.open.iter().position(|open| open.delivery == delivery) {
            self.end(at, EndReason::Reopened);
        }
    }

    fn end_policy(&mut self, policy: PolicyId, reason: EndReason) {
        while let Some(at) = self.open.iter().position(|open| open.policy == policy) {
            self.end(at, reason);
        }
    }

    fn end(&mut self, at: usize, reason: EndReason) {
        if let Some(report) = self.open.swap_remove(at).report {
            self.due
                .insert(report.frame.to_vec(), Ended { reason, ..report });
        }
    }

    /// Checks that each report was due. An expired window may come out late, and then for any reason.
    fn take(&mut self, ended: &mut Vec<Ended>) {
        for ended in ended.drain(..) {
            let due = self
                .due
                .remove(&*ended.frame)
                .unwrap_or_else(|| panic!("not due: {ended:?}"));
            let reason = if due.reason == EndReason::Window && ended.reason != EndReason::Evicted {
                ended.reason
            } else {
                due.reason
            };
            let expected = Ended {
                reason,
                generation: ended.generation,
                ..due
            };
            assert_eq!(ended, expected);
            self.reported += ended.count;
        }
    }
}

/// A kind of stream.
struct Regime {
    policies: Vec<WindowPolicy>,
    budget_octets: usize,
    /// Different messages in one stretch of the stream, and in the next, by turns.
    messages: [u64; 2],
    /// Octets of an identity at most.
    octets_max: u64,
    /// Bits of an identity's hash that are used.
    hash_bits: u64,
    /// Ticks from one call to the next at most.
    step_max: u64,
}

/// What happened during a stream.
#[derive(Debug)]
struct Reached {
    stats: EngineStats,
    fresh: u64,
    duplicates: u64,
    reopened_with_copies: u64,
    reloaded_with_copies: u64,
    windows_ended_by_an_offer: u64,
    /// Windows whose copies had several texts, and more texts than are counted.
    varied: [u64; 2],
}

/// Judges a random stream beside the model. Returns what happened.
fn run(regime: &Regime, seed: u64) -> Reached {
    let mut random = Random(seed);
    let shards = Shards::new(1, &regime.policies, regime.budget_octets);
    let mut model = Model::new(&regime.policies);
    let mut claims: Vec<(Claim, Option<u64>)> = Vec::new();
    let mut ended = Vec::new();
    let mut reached = Reached {
        stats: EngineStats::default(),
        fresh: 0,
        duplicates: 0,
        reopened_with_copies: 0,
        reloaded_with_copies: 0,
        windows_ended_by_an_offer: 0,
        varied: [0; 2],
    };
    let mut now = 0;
    for call in 0..CALLS {
        now += random.below::<u64>(regime.step_max + 1);
        // Sometimes a long time passes, or the caller's clock is a little behind.
        now += if random.below::<u64>(4096) == 0 {
            40 * regime.step_max * random.below::<u64>(100)
        } else {
            0
        };
        let at = Tick::from_nanos(now.saturating_sub(if random.below::<u64>(64) == 0 {
            random.below(50)
        } else {
            0
        }));
        let before = shards.stats();
        match random.below::<u64>(1000) {
            0..20 if !claims.is_empty() => {
                let index = claims.len() - 1 - random.below::<usize>(claims.len().min(50) as u64);
                let (claim, delivery) = claims[index];
                shards.reopen(claim, &mut ended);
                model.advance(Tick::ZERO);
                delivery
                    .into_iter()
                    .for_each(|delivery| model.reopen(delivery));
                reached.reopened_with_copies += ended.len() as u64;
            }
            20..40 => {
                let more = shards.advance(at, random.below(100), &mut ended);
                model.advance(at);
                assert!(
                    more || model.due.len() - ended.len() <= late(regime, &model),
                    "expired windows come out"
                );
            }
            40 => {
                let changed = PolicyId(random.below(regime.policies.len() as u64));
                let policies: Vec<_> = regime
                    .policies
                    .iter()
                    .zip(0..)
                    .map(|(&policy, id)| (policy, (id != changed.0).then_some(PolicyId(id))))
                    .collect();
                shards.reconfigure(&policies, regime.budget_octets, &mut ended);
                model.advance(Tick::ZERO);
                model.end_policy(changed, EndReason::Reload);
                reached.reloaded_with_copies += ended.len() as u64;
            }
            _ => {
                let policy = PolicyId(random.below(regime.policies.len() as u64));
                let stretch = regime.messages[usize::from(call / 5000 % 2 == 1)];
                // Some messages are much more frequent than others.
                let at_most = random.below::<u64>(stretch) + 1;
                let message = random.below(at_most);
                let identity = identity(message, regime.octets_max);
                let hash = Random(message).next() & (u64::MAX >> (64 - regime.hash_bits));
                let (frame, timestamp) = (format!("{call} {message}"), now.to_string());
                // Frames grow and shrink, so that the kept last frame does, too.
                let frame = format!("{frame}{}", "x".repeat(random.below(100)));
                let text = (policy.0 % 2 == 1).then(|| random.below(30));
                let variant = text.map(|text| Variant {
                    text: Some(text),
                    host: None,
                });
                let sighting = Sighting {
                    frame: frame.as_bytes(),
                    timestamp: Some(timestamp.as_bytes()),
                    variant: variant.as_ref(),
                };
                let verdict = shards.offer(
                    policy,
                    Identity {
                        hash,
                        octets: &identity,
                    },
                    sighting,
                    at,
                    &mut ended,
                );
                let stats = shards.stats();
                let told = Told {
                    evicted: stats.evicted_total - before.evicted_total,
                    unremembered: stats.unremembered_total > before.unremembered_total,
                };
                let expected = model.offer(policy, &identity, sighting, at, told);
                match (verdict, expected) {
                    (Verdict::Fresh(claim), Some(delivery)) => claims.push((claim, delivery)),
                    (Verdict::Duplicate, None) => reached.duplicates += 1,
                    _ => panic!(
                        "call {call} of seed {seed}: {verdict:?}, the model says {expected:?}"
                    ),
                }
                reached.fresh += u64::from(expected.is_some());
                reached.windows_ended_by_an_offer += ended
                    .iter()
                    .filter(|ended| ended.reason == EndReason::Window)
                    .count() as u64;
                let octets = before.octets + identity.len();
                assert!(
                    told.evicted == 0 || octets > regime.budget_octets / 2,
                    "evicted for nothing: {before:?}"
                );
            }
        }
        for texts in ended.iter().filter_map(|ended| ended.variety?.texts) {
            reached.varied[0] += u64::from(texts.is_plural());
            reached.varied[1] += u64::from(matches!(texts, Several::AtLeast(_)));
        }
        model.take(&mut ended);
        let stats = shards.stats();
        assert!(stats.octets <= regime.budget_octets, "{stats:?}");
        assert!(
            stats.live_messages >= model.open.len(),
            "{stats:?}, {} open",
            model.open.len()
        );
    }
    reached.stats = shards.stats();
    while shards.end_all(EndReason::Stop, 100, &mut ended) {}
    (0..)
        .take(regime.policies.len())
        .for_each(|id| model.end_policy(PolicyId(id), EndReason::Stop));
    model.take(&mut ended);
    assert!(model.due.is_empty(), "never came out: {:?}", model.due);
    assert_eq!(
        (model.reported, model.suppressed),
        (reached.duplicates, reached.duplicates)
    );
    assert_eq!(
        (shards.stats().live_messages, shards.stats().octets),
        (0, 0)
    );
    reached
}

/// How many expired windows may not have come out yet: those behind a mark that refresh restarted in place.
fn late(regime: &Regime, model: &Model) -> usize {
    if regime
        .policies
        .iter()
        .any(|policy| policy.refresh.is_some())
    {
        model.due.len()
    } else {
        0
    }
}

fn variety(texts: &HashSet<u64>) -> Variety {
    let max = usize::from(DISTINCT_MAX);
    let known = u8::try_from(texts.len().min(max + 1)).expect("it is small");
    let texts = if texts.len() > max {
        Several::AtLeast(known)
    } else {
        Several::Exactly(known)
    };
    Variety {
        texts: Some(texts),
        hosts: None,
    }
}

/// Octets that no other message has, some short, some long.
fn identity(message: u64, octets_max: u64) -> Vec<u8> {
    let mut octets = message.to_string().into_bytes();
    let len = Random(message ^ 0x5eed).below(octets_max);
    octets.resize(octets.len().max(len), b'x');
    octets
}

/// SplitMix64: any seed will do, and one seed always yields one stream.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must fit into `T`; zero if `bound` is zero.
    fn below<T: TryFrom<u64, Error: std::fmt::Debug>>(&mut self, bound: u64) -> T {
        T::try_from(self.next() % bound.max(1)).expect("the bound is in range")
    }
}

/// Calls in one stream.
const CALLS: u64 = 20_000;

const fn policy(window: u64, allow: u32, max_quiet: Option<u64>) -> WindowPolicy {
    let refresh = match max_quiet {
        Some(max_quiet) => Some(Duration::from_nanos(max_quiet)),
        None => None,
    };
    WindowPolicy {
        window: Duration::from_nanos(window),
        allow,
        refresh,
    }
}

/// Policies of every kind, with windows that hold a few thousand messages.
fn mixed() -> Vec<WindowPolicy> {
    vec![
        policy(4000, 1, None),
        policy(20_000, 3, None),
        policy(6000, 1, Some(9000)),
        policy(9000, 2, Some(30_000)),
    ]
}

#[test]
fn judges_as_the_model_does_where_memory_is_ample() {
    for seed in 0..3 {
        let regime = Regime {
            policies: mixed(),
            budget_octets: 16 << 20,
            messages: [3000, 60],
            octets_max: 300,
            hash_bits: 64,
            step_max: 8,
        };
        let Reached {
            stats,
            fresh,
            duplicates,
            reopened_with_copies,
            reloaded_with_copies,
            windows_ended_by_an_offer,
            varied,
        } = run(&regime, seed);
        assert_eq!((stats.evicted_total, stats.unremembered_total), (0, 0));
        assert!(
            stats.splits_total > 0 && stats.sweeps_total > 0 && stats.merges_total > 0,
            "{stats:?}"
        );
        assert!(
            stats.stale_total > 1000 && stats.remarked_total > 100,
            "{stats:?}"
        );
        assert!(fresh > 1000 && duplicates > 1000);
        assert!(varied.iter().all(|windows| *windows > 10), "{varied:?}");
        assert!(
            reopened_with_copies > 10
                && reloaded_with_copies > 10
                && windows_ended_by_an_offer > 100
        );
    }
}

#[test]
fn judges_as_the_model_does_at_the_budget() {
    for (seed, budget_octets) in (10..).zip([80_000, 120_000, 200_000, 300_000]) {
        let regime = Regime {
            policies: mixed(),
            budget_octets,
            messages: [3000, 300],
            octets_max: 300,
            hash_bits: 64,
            step_max: 8,
        };
        let Reached {
            stats,
            duplicates,
            reopened_with_copies,
            ..
        } = run(&regime, seed);
        assert!(stats.evicted_total > 500, "{stats:?}");
        assert!(
            stats.remarked_total > 100 && stats.sweeps_total > 0 && stats.stale_total > 0,
            "{stats:?}"
        );
        assert!(duplicates > 1000 && reopened_with_copies > 0);
    }
}

#[test]
fn judges_as_the_model_does_where_an_identity_is_as_large_as_the_budget() {
    let regime = Regime {
        policies: vec![policy(20_000, 1, None), policy(20_000, 1, Some(30_000))],
        budget_octets: 64_000,
        messages: [300, 20],
        octets_max: 70_000,
        hash_bits: 64,
        step_max: 8,
    };
    let Reached {
        stats, duplicates, ..
    } = run(&regime, 20);
    assert!(
        stats.unremembered_total > 1000 && stats.evicted_total > 1000 && duplicates > 500,
        "{stats:?}, {duplicates}"
    );
}

#[test]
fn judges_as_the_model_does_where_hashes_are_few() {
    let regime = Regime {
        policies: vec![policy(9000, 1, None), policy(9000, 2, Some(30_000))],
        budget_octets: 16 << 20,
        messages: [3000, 60],
        octets_max: 30,
        hash_bits: 1,
        step_max: 4,
    };
    let Reached {
        stats, duplicates, ..
    } = run(&regime, 30);
    assert!(
        stats.unremembered_total > 1000,
        "buckets were full: {stats:?}"
    );
    assert!(
        stats.octets < 2 << 20,
        "and splitting them in vain stopped: {stats:?}"
    );
    assert!(duplicates > 1000 && stats.evicted_total == 0);
}
