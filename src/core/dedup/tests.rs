//! The promises of `dedup`, through [`Shards`] alone.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[test]
fn a_message_is_forwarded_once_per_window() {
    // LeetCode 359, with its window of 10.
    check(
        fixed(10),
        &[
            (1, "foo", Fresh),
            (2, "bar", Fresh),
            (3, "foo", Duplicate),
            (8, "bar", Duplicate),
            (10, "foo", Duplicate),
            (11, "foo", Fresh),
        ],
    );
}

#[test]
fn age_of_exactly_the_window_is_fresh_and_one_tick_less_is_not() {
    check(
        fixed(10),
        &[
            (0, "a", Fresh),
            (9, "a", Duplicate),
            (10, "a", Fresh),
            (19, "a", Duplicate),
            (20, "a", Fresh),
        ],
    );
}

#[test]
fn repeats_do_not_extend_a_fixed_window() {
    check(
        fixed(10),
        &[
            (0, "a", Fresh),
            (5, "a", Duplicate),
            (9, "a", Duplicate),
            (10, "a", Fresh),
            (15, "a", Duplicate),
        ],
    );
}

#[test]
fn time_that_runs_backwards_stands_still() {
    check(
        fixed(10),
        &[
            (20, "a", Fresh),
            (5, "a", Duplicate),
            (5, "b", Fresh),
            (29, "b", Duplicate),
            (30, "b", Fresh),
        ],
    );
}

#[test]
fn allow_lets_so_many_copies_through_from_the_first_on() {
    let policy = WindowPolicy {
        allow: 3,
        ..fixed(10)
    };
    check(
        policy,
        &[
            (0, "a", Fresh),
            (1, "a", Fresh),
            (8, "a", Fresh),
            (9, "a", Duplicate),
            (10, "a", Fresh),
            (11, "a", Fresh),
            (12, "a", Fresh),
            (13, "a", Duplicate),
        ],
    );
}

#[test]
fn refresh_restarts_the_window_at_each_repeat() {
    check(
        refreshed(32, 1000),
        &[
            (0, "a", Fresh),
            (1, "a", Duplicate),
            (32, "a", Duplicate),
            (63, "a", Duplicate),
            (94, "a", Duplicate),
            (126, "a", Fresh),
            (157, "a", Duplicate),
            (189, "a", Fresh),
        ],
    );
}

#[test]
fn refresh_never_starves_beyond_max_quiet() {
    check(
        refreshed(32, 70),
        &[
            (0, "a", Fresh),
            (31, "a", Duplicate),
            (62, "a", Duplicate),
            (69, "a", Duplicate),
            (70, "a", Fresh),
            (100, "a", Duplicate),
            (131, "a", Duplicate),
            (139, "a", Duplicate),
            (140, "a", Fresh),
        ],
    );
    // A steady flood, too: one copy every max_quiet, to the tick.
    let flood: Vec<_> = (0..500)
        .map(|at| (at, "a", if at % 70 == 0 { Fresh } else { Duplicate }))
        .collect();
    check(refreshed(32, 70), &flood);
}

#[test]
fn max_quiet_counts_from_the_last_copy_that_allow_let_through() {
    let policy = WindowPolicy {
        allow: 2,
        ..refreshed(32, 40)
    };
    check(
        policy,
        &[
            (0, "a", Fresh),
            (20, "a", Fresh),
            (45, "a", Duplicate),
            (59, "a", Duplicate),
            (60, "a", Fresh),
        ],
    );
}

#[test]
fn equal_hashes_are_told_apart_by_their_octets() {
    let bed = Bed::new(fixed(10));
    for number in 0..100_u8 {
        let octets = [number, 0];
        assert_eq!(
            bed.offer_hashed(u64::from(number / 20), 7, &octets),
            Fresh,
            "{octets:?}"
        );
    }
    assert_eq!(bed.offer_hashed(6, 7, &[99, 0]), Duplicate);
    assert_eq!(
        bed.offer_hashed(6, 7, &[99]),
        Fresh,
        "a prefix is another identity"
    );
    assert_eq!(bed.offer_hashed(6, 7, &[]), Fresh, "so is an empty one");
}

#[test]
fn identities_that_differ_in_the_last_of_many_octets_are_told_apart() {
    let bed = Bed::new(fixed(1000));
    let mut long = vec![b'x'; 100_000];
    assert_eq!(bed.offer_hashed(0, 7, &long), Fresh);
    long[99_999] = 0;
    assert_eq!(bed.offer_hashed(0, 7, &long), Fresh);
    assert_eq!(bed.offer_hashed(0, 7, &long[..99_999]), Fresh);
    assert_eq!(bed.offer_hashed(0, 7, &long), Duplicate);
    long[50_000] = 0xff;
    assert_eq!(bed.offer_hashed(0, 7, &long), Fresh);
}

#[test]
fn a_window_that_suppressed_copies_reports_them_once() {
    let bed = Bed::new(fixed(10));
    for (at, text) in [(0, "a"), (0, "quiet"), (2, "a"), (5, "a"), (9, "a")] {
        bed.offer(at, text);
    }
    assert_eq!(bed.ended(), []);
    assert!(
        !bed.shards
            .advance(tick(9), 100, &mut bed.ended.borrow_mut())
    );
    assert_eq!(bed.ended(), [], "one tick before the end");
    assert_eq!(bed.shards.next_due(), Some(tick(10)));
    bed.shards
        .advance(tick(10), 100, &mut bed.ended.borrow_mut());
    let ended = bed.ended();
    assert_eq!(ended.len(), 1, "a message without repeats is not reported");
    let Ended {
        policy,
        generation: 0,
        reason,
        count,
        first,
        last,
        window,
        frame,
        variety,
        last_timestamp,
    } = &ended[0]
    else {
        panic!("{ended:?}");
    };
    assert_eq!(*variety, None, "nothing is folded");
    assert_eq!(
        (*policy, *reason, *count),
        (PolicyId(0), EndReason::Window, 3)
    );
    assert_eq!(
        (*first, *last, *window),
        (tick(2), tick(9), Duration::from_nanos(10))
    );
    assert_eq!(**frame, *b"2 a", "the first suppressed copy");
    assert_eq!(
        last_timestamp.as_deref(),
        Some(&b"9"[..]),
        "of the last copy"
    );
    assert_eq!(
        (bed.shards.next_due(), bed.shards.stats().live_messages),
        (None, 0)
    );
    bed.shards
        .advance(tick(1000), 100, &mut bed.ended.borrow_mut());
    assert_eq!(bed.ended(), []);
}

#[test]
fn the_copy_that_starts_a_new_window_brings_out_the_old_count() {
    let bed = Bed::new(fixed(10));
    for at in [0, 1, 2] {
        bed.offer(at, "a");
    }
    // More marks are expired than one offer retires: the count must still come out.
    for other in 3..9 {
        bed.offer(2, &other.to_string());
    }
    assert_eq!(bed.offer(30, "a"), Fresh);
    assert_eq!(bed.counts(), [(EndReason::Window, 2)]);
}

#[test]
fn a_timestamp_longer_than_any_is_not_kept() {
    let mut kept_timestamp = KeptTimestamp::NONE;
    for (len, kept) in [
        (64, Some(64)),
        (65, None),
        (0, Some(0)),
        (300, None),
        (15, Some(15)),
    ] {
        kept_timestamp.set(Some(&vec![b'x'; len]));
        assert_eq!(
            kept_timestamp.is_some().then(|| kept_timestamp.len()),
            kept,
            "{len}"
        );
    }
    kept_timestamp.set(None);
    assert!(!kept_timestamp.is_some());
}

#[test]
fn a_reopened_window_lets_the_next_copy_through() {
    let bed = Bed::new(fixed(10));
    let claim = bed.claim(0, "a");
    assert_eq!(
        (bed.offer(1, "a"), bed.offer(2, "a")),
        (Duplicate, Duplicate)
    );
    bed.reopen(claim);
    assert_eq!(bed.counts(), [(EndReason::Reopened, 2)]);
    bed.reopen(claim);
    assert_eq!(bed.counts(), [], "a claim reopens its window once");
    let second = bed.claim(3, "a");
    assert_eq!(
        bed.offer(12, "a"),
        Duplicate,
        "the second delivery has a window of its own"
    );
    bed.reopen(claim);
    assert_eq!(
        bed.offer(12, "a"),
        Duplicate,
        "the first one's claim does not touch it"
    );
    bed.reopen(second);
    assert_eq!(bed.offer(12, "a"), Fresh);
}

#[test]
fn a_claim_whose_window_is_over_does_nothing() {
    let bed = Bed::new(fixed(10));
    let claim = bed.claim(0, "a");
    assert_eq!(bed.offer(10, "a"), Fresh);
    bed.reopen(claim);
    assert_eq!(bed.offer(11, "a"), Duplicate);
    assert_eq!(bed.counts(), []);
}

#[test]
fn reopening_one_copy_that_allow_let_through_starts_all_over() {
    let bed = Bed::new(WindowPolicy {
        allow: 2,
        ..fixed(10)
    });
    let first = bed.claim(0, "a");
    let second = bed.claim(1, "a");
    assert_eq!(bed.offer(2, "a"), Duplicate);
    bed.reopen(second);
    assert_eq!(bed.counts(), [(EndReason::Reopened, 1)]);
    bed.claim(3, "a");
    bed.reopen(first);
    assert_eq!(
        (bed.offer(4, "a"), bed.offer(5, "a")),
        (Fresh, Duplicate),
        "the first claim is void by then"
    );
}

#[test]
fn a_refreshed_message_is_reopened_by_the_claim_of_its_delivery() {
    let bed = Bed::new(refreshed(32, 1000));
    let claim = bed.claim(0, "a");
    for at in (10..100).step_by(10) {
        assert_eq!(bed.offer(at, "a"), Duplicate);
    }
    assert!(bed.shards.stats().remarked_total > 3);
    bed.reopen(claim);
    assert_eq!(bed.counts(), [(EndReason::Reopened, 9)]);
    let later = bed.claim(101, "a");
    assert_eq!(bed.offer(121, "a"), Duplicate);
    bed.reopen(claim);
    assert_eq!(
        bed.offer(122, "a"),
        Duplicate,
        "the successor is another delivery"
    );
    bed.reopen(later);
    assert_eq!(bed.counts(), [(EndReason::Reopened, 2)]);
}

#[test]
fn a_refreshed_message_ends_a_window_after_its_last_copy() {
    let bed = Bed::new(refreshed(32, 1000));
    for at in [0, 1, 20, 21] {
        bed.offer(at, "a");
    }
    bed.shards
        .advance(tick(52), 100, &mut bed.ended.borrow_mut());
    assert_eq!(bed.counts(), []);
    bed.shards
        .advance(tick(53), 100, &mut bed.ended.borrow_mut());
    assert_eq!(bed.counts(), [(EndReason::Window, 3)]);
}

#[test]
fn stopping_brings_everything_out_a_part_at_a_time() {
    let bed = Bed::new(fixed(10));
    for text in 0..100 {
        bed.offer(0, &text.to_string());
        bed.offer(0, &text.to_string());
    }
    let mut calls = 1;
    while bed
        .shards
        .end_all(EndReason::Stop, 10, &mut bed.ended.borrow_mut())
    {
        calls += 1;
    }
    assert_eq!(calls, 10);
    assert_eq!(bed.counts(), [(EndReason::Stop, 1); 100]);
    let stats = bed.shards.stats();
    assert_eq!((stats.live_messages, stats.octets), (0, 0));
    assert_eq!(bed.offer(1, "5"), Fresh);
}

#[test]
fn a_reload_keeps_the_engines_it_is_told_to_and_ends_the_others() {
    let bed = Bed::with(&[fixed(10), fixed(20), fixed(30)], 1 << 20);
    let claims: Vec<_> = (0..3)
        .map(|id| bed.claim_in(PolicyId(id), 0, "a"))
        .collect();
    (0..3).for_each(|id| assert_eq!(bed.offer_in(PolicyId(id), 1, "a"), Duplicate));
    let reload = [
        (fixed(30), Some(PolicyId(2))),
        (fixed(10), Some(PolicyId(0))),
        (fixed(40), Some(PolicyId(1))),
    ];
    bed.shards
        .reconfigure(&reload, 1 << 20, &mut bed.ended.borrow_mut());
    let ended = bed.ended();
    assert_eq!(ended.len(), 1, "a changed window is another engine");
    assert_eq!(
        (ended[0].policy, ended[0].reason),
        (PolicyId(1), EndReason::Reload)
    );
    assert_eq!(
        bed.offer_in(PolicyId(0), 2, "a"),
        Duplicate,
        "kept, under its new id"
    );
    assert_eq!(
        bed.offer_in(PolicyId(1), 2, "a"),
        Duplicate,
        "kept, under its new id"
    );
    assert_eq!(bed.offer_in(PolicyId(2), 2, "a"), Fresh);
    bed.reopen(claims[1]);
    assert_eq!(
        bed.offer_in(PolicyId(2), 3, "a"),
        Duplicate,
        "the claim went with its engine"
    );
    bed.reopen(claims[2]);
    let ended = bed.ended();
    assert_eq!((ended[0].policy, ended[0].count), (PolicyId(0), 2));
    assert_eq!(bed.offer_in(PolicyId(0), 3, "a"), Fresh);
    assert_eq!(
        bed.offer_in(PolicyId(9), 3, "a"),
        Duplicate,
        "an unknown policy is the first one"
    );
}

#[test]
fn a_smaller_budget_holds_when_the_call_returns() {
    let bed = Bed::with(&[fixed(10_000)], 4 << 20);
    for text in 0..5000 {
        bed.offer(text, &text.to_string());
        bed.offer(text, &text.to_string());
    }
    let before = bed.shards.stats();
    assert_eq!((before.live_messages, before.evicted_total), (5000, 0));
    for budget in [before.octets / 2, 65_536, 8192, 4 << 20] {
        bed.shards.reconfigure(
            &[(fixed(10_000), Some(PolicyId(0)))],
            budget,
            &mut bed.ended.borrow_mut(),
        );
        let stats = bed.shards.stats();
        assert!(
            stats.octets <= budget,
            "{} octets in {budget}",
            stats.octets
        );
        assert_eq!(stats.live_messages as u64 + stats.evicted_total, 5000);
        assert!(
            stats.live_messages == 0 || budget > 8192,
            "{} in {budget}",
            stats.live_messages
        );
    }
    let evicted = bed.shards.stats().evicted_total;
    assert_eq!(
        bed.counts(),
        vec![(EndReason::Evicted, 1); usize::try_from(evicted).unwrap()]
    );
    for text in 0..2000 {
        bed.offer(6000, &text.to_string());
    }
    assert_eq!(
        bed.shards.stats().evicted_total,
        evicted,
        "the larger budget is in force"
    );
}

#[test]
fn what_does_not_fit_the_budget_is_forwarded_and_evicts_nothing() {
    let bed = Bed::with(&[fixed(10)], 100_000);
    assert_eq!(bed.offer(0, "small"), Fresh);
    let large = vec![b'x'; 100_000];
    for at in 1..4 {
        assert_eq!(bed.offer_hashed(at, 7, &large), Fresh);
    }
    let stats = bed.shards.stats();
    assert_eq!(
        (
            stats.unremembered_total,
            stats.evicted_total,
            stats.live_messages
        ),
        (3, 0, 1)
    );
    assert_eq!(bed.offer(5, "small"), Duplicate);
}

#[test]
fn without_a_budget_or_policy_everything_is_forwarded() {
    for bed in [Bed::with(&[fixed(10)], 0), Bed::with(&[], 1 << 20)] {
        let claim = bed.claim(0, "a");
        bed.reopen(claim);
        assert_eq!((bed.offer(0, "a"), bed.offer(0, "a")), (Fresh, Fresh));
        let stats = bed.shards.stats();
        assert_eq!(
            (stats.octets, stats.live_messages, stats.unremembered_total),
            (0, 0, 3)
        );
    }
}

#[test]
fn an_idle_shard_allocates_nothing() {
    let bed = Bed::new(fixed(10));
    assert_eq!(bed.shards.stats().octets, 0);
    bed.offer(0, "a");
    bed.shards
        .advance(tick(10), 100, &mut bed.ended.borrow_mut());
    assert_eq!(
        bed.shards.stats().octets,
        0,
        "nor does one that has become idle"
    );
}

#[test]
fn a_million_live_messages_take_no_more_than_promised() {
    // Exact identities of 200 octets, and compact ones of 16. The worst case for the tables is
    // that all shards are full at once; the best is halfway between.
    for (octets, shard_count, octets_max) in [
        (200, 1, 300_000_000),
        (200, 16, 300_000_000),
        (16, 1, 64_000_000),
        (16, 16, 64_000_000),
    ] {
        let shards = Shards::new(shard_count, &[fixed(10)], 1 << 30);
        let mut identity = [b'x'; 200];
        for number in 0..1_000_000_u64 {
            identity[..8].copy_from_slice(&number.to_le_bytes());
            let octets = &identity[..octets];
            let sighting = Sighting {
                frame: octets,
                timestamp: None,
                variant: None,
            };
            let identity = Identity {
                hash: hash(&octets[..8]),
                octets,
            };
            shards.offer(PolicyId(0), identity, sighting, tick(0), &mut Vec::new());
        }
        let stats = shards.stats();
        assert_eq!(
            (stats.live_messages, stats.unremembered_total),
            (1_000_000, 0)
        );
        assert!(
            stats.octets <= octets_max,
            "{octets} each in {shard_count} shards: {stats:?}"
        );
    }
}

#[test]
fn a_poisoned_shard_is_not_used_on() {
    let bed = Bed::new(fixed(10));
    bed.claim(0, "a");
    assert!(!bed.shards.is_poisoned());
    poison(&bed.shards, 0);
    assert!(bed.shards.is_poisoned());
    assert_eq!(bed.shards.sound_stats(), None);
    let uses: [&dyn Fn(); 3] = [
        &|| {
            bed.offer(1, "a");
        },
        &|| {
            bed.shards.advance(tick(1), 1, &mut Vec::new());
        },
        &|| assert_eq!(bed.shards.stats(), EngineStats::default()),
    ];
    for use_on in uses {
        let panic = catch_unwind(AssertUnwindSafe(use_on)).unwrap_err();
        let said = panic.downcast_ref::<&str>().unwrap();
        assert!(said.contains("cannot be trusted"), "{said}");
    }
}

/// They clean up after losses, also while another panic unwinds.
#[test]
fn reopening_and_forgetting_pass_over_a_poisoned_shard() {
    let shards = Shards::new(2, &[fixed(10)], 1 << 20);
    let offer = |text: &[u8], upper: u64| {
        let identity = Identity {
            hash: (upper << 63) | (hash(text) >> 1),
            octets: text,
        };
        let sighting = Sighting {
            frame: text,
            timestamp: None,
            variant: None,
        };
        shards.offer(PolicyId(0), identity, sighting, tick(0), &mut Vec::new())
    };
    let claim = |text: &[u8], upper| match offer(text, upper) {
        Verdict::Fresh(claim) => claim,
        Verdict::Duplicate => panic!("it was not seen before"),
    };
    let (broken, sound) = (claim(b"a", 0), claim(b"b", 1));
    poison(&shards, 0);
    for lost in [broken, sound] {
        shards.reopen(lost, &mut Vec::new());
    }
    claim(b"b", 1);
    assert_eq!(offer(b"b", 1), Verdict::Duplicate);
    shards.forget_all();
    claim(b"b", 1);
}

/// Panics while a shard is locked.
fn poison(shards: &Shards, index: usize) {
    let panics = catch_unwind(AssertUnwindSafe(|| {
        let _guard = shards.shards[index].lock();
        resume_unwind(Box::new("poison"));
    }));
    assert!(panics.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_number_of_shards_changes_no_verdict(calls in vec((0..6_u64, 0..2_u16, 0..30_u8, 0..40_usize), 1..300)) {
        let policies = [WindowPolicy { allow: 2, ..fixed(40) }, refreshed(30, 100)];
        let runs = [1, 2, 8, 64].map(|shard_count| {
            let shards = Shards::new(shard_count, &policies, 64 << 20);
            let (mut at, mut verdicts, mut claims, mut ended) = (0, Vec::new(), Vec::new(), Vec::new());
            for (call, &(step, policy, message, reopened)) in calls.iter().enumerate() {
                at += step;
                let identity = Identity { hash: hash(&[message]), octets: &[message] };
                let frame = call.to_be_bytes();
                let sighting = Sighting { frame: &frame, timestamp: None, variant: None };
                let verdict = shards.offer(PolicyId(policy), identity, sighting, tick(at), &mut ended);
                verdicts.push(seen(verdict));
                if let Verdict::Fresh(claim) = verdict {
                    claims.push(claim);
                }
                if let Some(index) = claims.len().checked_sub(reopened + 1) {
                    shards.reopen(claims[index], &mut ended);
                }
            }
            while shards.end_all(EndReason::Stop, 100, &mut ended) {}
            let duplicates = verdicts.iter().filter(|&&seen| seen == Duplicate).count() as u64;
            assert_eq!(ended.iter().map(|ended| ended.count).sum::<u64>(), duplicates);
            // The reason and the time of a late report may differ, its content may not.
            let mut ended: Vec<_> =
                ended.into_iter().map(|ended| Ended { reason: EndReason::Window, ..ended }).collect();
            ended.sort_by(|a, b| a.frame.cmp(&b.frame));
            (verdicts, ended)
        });
        for run in &runs {
            prop_assert_eq!(run, &runs[0]);
        }
    }
}

/// A verdict without its claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    Fresh,
    Duplicate,
}
use Seen::{Duplicate, Fresh};

/// One shard, and the reports that came out of it.
struct Bed {
    shards: Shards,
    ended: RefCell<Vec<Ended>>,
}

impl Bed {
    fn new(policy: WindowPolicy) -> Self {
        Self::with(&[policy], 1 << 20)
    }

    fn with(policies: &[WindowPolicy], budget_octets: usize) -> Self {
        Self {
            shards: Shards::new(1, policies, budget_octets),
            ended: RefCell::default(),
        }
    }

    fn offer(&self, at: u64, text: &str) -> Seen {
        self.offer_in(PolicyId(0), at, text)
    }

    fn offer_in(&self, policy: PolicyId, at: u64, text: &str) -> Seen {
        seen(self.judge(policy, at, text))
    }

    fn claim(&self, at: u64, text: &str) -> Claim {
        self.claim_in(PolicyId(0), at, text)
    }

    fn claim_in(&self, policy: PolicyId, at: u64, text: &str) -> Claim {
        match self.judge(policy, at, text) {
            Verdict::Fresh(claim) => claim,
            Verdict::Duplicate => panic!("{text} at {at} is a duplicate"),
        }
    }

    fn judge(&self, policy: PolicyId, at: u64, text: &str) -> Verdict {
        let identity = Identity {
            hash: hash(text.as_bytes()),
            octets: text.as_bytes(),
        };
        let (frame, timestamp) = (format!("{at} {text}"), at.to_string());
        let sighting = Sighting {
            frame: frame.as_bytes(),
            timestamp: Some(timestamp.as_bytes()),
            variant: None,
        };
        self.shards.offer(
            policy,
            identity,
            sighting,
            tick(at),
            &mut self.ended.borrow_mut(),
        )
    }

    fn offer_hashed(&self, at: u64, hash: u64, octets: &[u8]) -> Seen {
        let sighting = Sighting {
            frame: octets,
            timestamp: None,
            variant: None,
        };
        let identity = Identity { hash, octets };
        seen(self.shards.offer(
            PolicyId(0),
            identity,
            sighting,
            tick(at),
            &mut self.ended.borrow_mut(),
        ))
    }

    fn reopen(&self, claim: Claim) {
        self.shards.reopen(claim, &mut self.ended.borrow_mut());
    }

    /// Takes the reports since the last call.
    fn ended(&self) -> Vec<Ended> {
        self.ended.take()
    }

    fn counts(&self) -> Vec<(EndReason, u64)> {
        self.ended()
            .iter()
            .map(|ended| (ended.reason, ended.count))
            .collect()
    }
}

/// Offers copies in order: on their own, and among a crowd of others.
fn check(policy: WindowPolicy, copies: &[(u64, &str, Seen)]) {
    let alone = Bed::new(policy);
    let crowded = Bed::new(policy);
    for (step, &(at, text, expected)) in copies.iter().enumerate() {
        assert_eq!(alone.offer(at, text), expected, "{text} at {at}");
        for other in 0..7 {
            crowded.offer(at, &format!("{other} in step {step}"));
        }
        assert_eq!(crowded.offer(at, text), expected, "{text} at {at}, crowded");
    }
}

fn seen(verdict: Verdict) -> Seen {
    match verdict {
        Verdict::Fresh(_) => Fresh,
        Verdict::Duplicate => Duplicate,
    }
}

fn hash(octets: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(octets);
    hasher.finish()
}

/// A hash of `octets` that is another one in each run with another `salt`.
pub(super) fn salted_hash(salt: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(salt, |hash, octet| {
        let hash = (hash ^ u64::from(*octet)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ (hash >> 29)
    })
}

fn tick(nanos: u64) -> Tick {
    Tick::from_nanos(nanos)
}

const fn fixed(window: u64) -> WindowPolicy {
    WindowPolicy {
        window: Duration::from_nanos(window),
        allow: 1,
        refresh: None,
    }
}

const fn refreshed(window: u64, max_quiet: u64) -> WindowPolicy {
    WindowPolicy {
        refresh: Some(Duration::from_nanos(max_quiet)),
        ..fixed(window)
    }
}
