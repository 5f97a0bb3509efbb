//! Any sequence of calls, with hashes that the input chooses: nothing panics, the budget holds, and every
//! duplicate is reported once.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;

use tersed::core::dedup::{EndReason, Shards, Sighting, Verdict};
use tersed::core::identity::Identity;
use tersed::core::rule::{PolicyId, WindowPolicy};
use tersed::core::tick::Tick;

fuzz_target!(|input: &[u8]| {
    let [budget, allow, input @ ..] = input else {
        return;
    };
    let window = Duration::from_nanos(100);
    let fixed = WindowPolicy {
        window,
        allow: 1 + u32::from(*allow % 4),
        refresh: None,
    };
    let refreshed = WindowPolicy {
        refresh: Some(3 * window),
        ..fixed
    };
    let budget_octets = 1024 * usize::from(*budget);
    let shards = Shards::new(2, &[fixed, refreshed], budget_octets);
    let (mut now, mut claims, mut ended, mut duplicates) = (0, Vec::new(), Vec::new(), 0);
    for call in input.chunks_exact(4) {
        let &[kind, step, hash, octets] = call else {
            continue;
        };
        now += u64::from(step);
        let at = Tick::from_nanos(now);
        match kind % 16 {
            0 => {
                shards.advance(at, usize::from(hash), &mut ended);
            }
            1 => {
                if let Some(&claim) = claims.get(usize::from(hash)) {
                    shards.reopen(claim, &mut ended);
                }
            }
            2 => {
                let kept = (hash % 2 == 0).then_some(PolicyId(0));
                let policies = [(fixed, kept), (refreshed, Some(PolicyId(1)))];
                shards.switch(&policies, budget_octets);
            }
            _ => {
                // Both shards, and few different bits in the part that the tables use.
                let identity = Identity {
                    hash: u64::from(hash >> 7) << 63 | u64::from(hash & 0x7f),
                    octets: &input[..usize::from(octets).min(input.len())],
                };
                let sighting = Sighting {
                    frame: identity.octets,
                    timestamp: Some(call),
                    variant: None,
                };
                let policy = PolicyId(u16::from(kind % 2));
                match shards.offer(policy, identity, sighting, at, &mut ended) {
                    Verdict::Fresh(claim) => claims.push(claim),
                    Verdict::Duplicate => duplicates += 1,
                }
            }
        }
        assert!(shards.stats().octets <= budget_octets);
    }
    while shards.end_all(EndReason::Stop, 100, &mut ended) {}
    assert_eq!(
        ended.iter().map(|ended| ended.count).sum::<u64>(),
        duplicates
    );
});
