//! RELP to RELP: what was acknowledged to an originator is at the upstream in the end, whoever was killed in
//! between: the upstream, the relay, or both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::chance::Chance;
use super::collector::Protocol;
use super::messages::Source;
use super::originator::{Told, originate};
use super::report::Round;
use super::schedule::{UPSTREAM, schedule};
use super::upstream::Upstream;
use super::{Counts, Plan};

/// The originator and the upstream without a relay between them: what would be lost here would be the
/// torture's own loss.
pub(crate) fn without_relay(plan: &Plan) -> Counts {
    plan.rounds("relp, without relay", |seed, scene, number| {
        let mut chance = Chance::new(seed, scene, number);
        let mut round = Round {
            seed,
            scene,
            number,
            steps: schedule(&mut chance, STEPS, EACH * SOURCES / STEPS as u64, &UPSTREAM),
            done: 0,
        };
        let mut upstream = Upstream::start(Protocol::Relp);
        let to = upstream.address();
        let progress = AtomicU64::new(0);
        let told: Vec<Told> = thread::scope(|scope| {
            let originators: Vec<_> = sources(number)
                .map(|source| {
                    let chance = Chance::new(chance.of(0..u64::MAX), "originator", source);
                    let progress = &progress;
                    scope.spawn(move || originate(to, source, EACH, chance, progress))
                })
                .collect();
            round.play(&mut upstream, &progress, |_, _| {
                unreachable!("there is no relay")
            });
            let told = originators.into_iter().map(|originator| originator.join());
            told.map(Result::unwrap).collect()
        });
        let arrived = upstream.arrived();
        for told in &told {
            arrived.assert_has(told.source, told.acknowledged.iter().copied());
        }
        arrived.assert_whole_and_ordered();
        Counts {
            sent: told.iter().map(|told| EACH + told.again).sum(),
            arrived: progress.load(Ordering::Relaxed),
            again: arrived.again(),
            hurts: round.done as u64,
            kernel_dropped: 0,
        }
    })
}

fn sources(round: u64) -> impl Iterator<Item = Source> {
    (0..SOURCES).map(move |index| round * SOURCES + index)
}

const SOURCES: u64 = 4;
const EACH: u64 = 2_000;
const STEPS: usize = 8;
