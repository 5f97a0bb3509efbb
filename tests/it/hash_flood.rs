//! Keys that collide under an unseeded hash do no harm: an attacker cannot make the table slow.
//!
//! 131,072 keys; with `TERSED_TEST_LONG=1` 1,048,576.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tersed::core::dedup::{Shards, Sighting, Verdict};
use tersed::core::identity::{Identifier, Identity, IdentityKind, Key, Sender};
use tersed::core::parse::Message;
use tersed::core::rule::{PolicyId, WindowPolicy};
use tersed::core::tick::Tick;

use super::support::originator::Originator;
use super::support::tersed::Setup;
use super::support::wait::is_long;

/// All of these have the same hash under h = 31 h + octet (used by Java and by many hand-made tables).
#[test]
fn keys_that_collide_without_a_seed_are_spread_with_one() {
    let colliding = colliding();
    let unseeded: HashSet<u64> = colliding.iter().map(|key| unseeded_hash(key)).collect();
    assert_eq!(unseeded.len(), 1, "they do collide");
    for kind in [IdentityKind::Exact, IdentityKind::Compact] {
        let key = Key::random();
        let mut identifier = Identifier::new(&key, kind);
        let mut low_bits: HashMap<u64, usize> = HashMap::new();
        let mut high_bits: HashMap<u64, usize> = HashMap::new();
        for text in &colliding {
            let hash = hash_of(&mut identifier, text);
            *low_bits.entry(hash & 0x3ff).or_default() += 1;
            *high_bits.entry(hash >> 54).or_default() += 1;
        }
        // The table picks a slot by the low bits, and the hash picks a shard by the high ones. Each of 1,024 values
        // gets its share, within eight standard deviations.
        let share = colliding.len() / 1024;
        let tolerance = 8 * share.isqrt();
        for counts in [low_bits, high_bits] {
            assert_eq!(counts.len(), 1024);
            let worst = counts.values().map(|count| count.abs_diff(share)).max();
            assert!(worst.unwrap() <= tolerance, "{worst:?} off {share}");
        }
    }
}

#[test]
fn two_runs_hash_differently() {
    let keys = [Key::random(), Key::random()];
    for kind in [IdentityKind::Exact, IdentityKind::Compact] {
        let [one, two] = keys.each_ref().map(|key| {
            let mut identifier = Identifier::new(key, kind);
            let texts = (0..100).map(|number| format!("<13>text {number}"));
            texts
                .map(|text| hash_of(&mut identifier, &text))
                .collect::<Vec<_>>()
        });
        let equal = one.iter().zip(&two).filter(|(a, b)| a == b).count();
        assert_eq!(equal, 0, "of a hundred hashes");
    }
}

/// Even for an attacker who knows the key: a verdict costs a search through one full bucket, however many messages
/// collide, and no different message is suppressed because of it.
#[test]
fn equal_hashes_are_never_taken_for_equal_messages_nor_searched_at_length() {
    let mut colliding = colliding();
    colliding.truncate(16_384);
    let spread_out = judge(&colliding, spread);
    for (what, hash) in [
        (
            "in their low half",
            (|number| (spread(number) << 32) | 0x89ab_cdef) as Hash,
        ),
        ("in their high half", |number| spread(number) >> 32),
        ("all over", |_| 0x0123_4567_89ab_cdef),
    ] {
        let [first, second] = judge(&colliding, hash);
        let growth = Duration::from_millis(50);
        assert!(
            second <= 3 * first + growth,
            "equal {what}: {first:?} for the first half, {second:?} for the second, \
             {spread_out:?} if they differ"
        );
    }
}

type Hash = fn(u64) -> u64;

/// The same through a relay.
#[test]
fn a_relay_takes_colliding_messages_as_it_takes_others() {
    let colliding = colliding();
    let count = colliding.len() as u64;
    let tersed = Setup::new().window("1h").listen(TCP).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(&colliding);
    originator.send_all(colliding.iter().take(1000));
    tersed.wait_received(count + 1000);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, count);
    assert_eq!(metrics.balance().suppressed, 1000);
    assert_eq!(metrics.total("tersed_live_messages"), count);
}

/// The processor time for judging the first and the second half of `texts`, each text once, with these hashes.
fn judge(texts: &[String], hash: Hash) -> [Duration; 2] {
    let policy = WindowPolicy {
        window: Duration::from_secs(3600),
        allow: 1,
        refresh: None,
    };
    let shards = Shards::new(8, &[policy], 256 << 20);
    let mut ended = Vec::new();
    let mut times = [Duration::ZERO; 2];
    let start = processor_time();
    for (number, text) in (0_u64..).zip(texts) {
        if number == texts.len() as u64 / 2 {
            times[0] = processor_time().saturating_sub(start);
        }
        let identity = Identity {
            hash: hash(number),
            octets: text.as_bytes(),
        };
        let sighting = Sighting {
            frame: text.as_bytes(),
            timestamp: None,
            variant: None,
        };
        let now = Tick::from_nanos(number);
        let verdict = shards.offer(PolicyId(0), identity, sighting, now, &mut ended);
        assert!(matches!(verdict, Verdict::Fresh(_)), "{text} is new");
    }
    times[1] = processor_time().saturating_sub(start + times[0]);
    times
}

/// Different texts that collide: "Aa" and "BB" collide, so all their combinations do.
fn colliding() -> Vec<String> {
    let bits = if is_long() { 20 } else { 17 };
    (0..1_u32 << bits)
        .map(|number| {
            let blocks = (0..bits).map(|bit| if number >> bit & 1 == 0 { "Aa" } else { "BB" });
            format!("<13>{}", blocks.collect::<String>())
        })
        .collect()
}

fn unseeded_hash(text: &str) -> u64 {
    text.bytes().fold(0, |hash: u64, octet| {
        hash.wrapping_mul(31).wrapping_add(octet.into())
    })
}

fn hash_of(identifier: &mut Identifier<'_>, text: &str) -> u64 {
    let message = Message::parse(text.as_bytes());
    identifier.identify(&message, Sender::Local).hash
}

/// Spreads the bits of a number over 64 bits (the finaliser of SplitMix64).
fn spread(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

const TCP: &str = "tcp://127.0.0.1:0";
