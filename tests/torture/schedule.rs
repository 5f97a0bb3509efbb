//! What is done to the upstream and to the relay in a round, and when.
//!
//! A step falls due when the originators have got so many messages further, which ties it to the load and
//! not to a clock; and, because an upstream that is away stops them, after so long at the latest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Counts;
use super::chance::Chance;
use super::collector::Order;
use super::report::Round;
use super::upstream::Upstream;
use crate::support::wait::wait_while;

/// What can be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    /// The upstream is killed, and refuses from then on.
    Kill,
    /// It is back.
    Revive,
    /// The upstream's process stands still, its kernel does not.
    Freeze,
    /// It goes on.
    Thaw,
    /// The upstream is told to do this.
    Tell(Order),
    /// The relay reads its configuration again (`SIGHUP`).
    Reload,
    /// The relay's process stands still (`SIGSTOP`).
    FreezeRelay,
    /// It goes on.
    ThawRelay,
    /// The relay is killed and started again.
    KillRelay,
    /// The relay is asked to stop, and started again.
    StopRelay,
}

/// An act and when it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Messages sent since the step before.
    pub(crate) after: u64,
    /// How long to wait for that at most.
    pub(crate) patience: Duration,
    pub(crate) act: Act,
}

/// `count` steps out of `acts`; what was taken away is given back in between and at the end.
pub(crate) fn schedule(chance: &mut Chance, count: usize, after: u64, acts: &[Act]) -> Vec<Step> {
    let mut steps = Vec::new();
    let add = |steps: &mut Vec<Step>, chance: &mut Chance, after: u64, act: Act| {
        let after = chance.of(0..after + 1);
        // Mostly shorter than the time after which the relay gives an upstream up, sometimes longer.
        let patience = if chance.once_in(6) {
            chance.of(300..600)
        } else {
            chance.of(1..120)
        };
        let patience = Duration::from_millis(patience);
        steps.push(Step {
            after,
            patience,
            act,
        });
    };
    for _ in 0..count {
        let act = chance.pick(acts);
        add(&mut steps, chance, after, act);
        let undo = match act {
            Act::Kill => Act::Revive,
            Act::Freeze => Act::Thaw,
            Act::FreezeRelay => Act::ThawRelay,
            Act::Tell(Order::Slow | Order::Steady | Order::Hold | Order::Shun) => {
                Act::Tell(Order::Read)
            }
            _ => continue,
        };
        // An upstream may be killed as it is, frozen or slow, and is the same again when it is back.
        let of_upstream = matches!(act, Act::Freeze | Act::Tell(_));
        if of_upstream && acts.contains(&Act::Kill) {
            for _ in 0..chance.of(0..4) {
                add(&mut steps, chance, after / 2, Act::Kill);
                add(&mut steps, chance, after / 4, Act::Revive);
            }
        }
        // Nothing to a process that was killed while it was frozen.
        add(&mut steps, chance, after / 4, undo);
    }
    steps
}

impl Round {
    /// Does every step when it is due; those to the relay are done by `relay`.
    pub(crate) fn play(
        &mut self,
        upstream: &mut Upstream,
        sent: &AtomicU64,
        mut relay: impl FnMut(Act, &mut Upstream),
    ) {
        for step in self.steps.clone() {
            let due = sent.load(Ordering::Relaxed) + step.after;
            // Due or out of patience, it is done.
            wait_while(step.patience, || sent.load(Ordering::Relaxed) < due);
            match step.act {
                Act::Kill => upstream.kill(),
                Act::Revive => upstream.revive(),
                Act::Freeze => upstream.freeze(),
                Act::Thaw => upstream.thaw(),
                Act::Tell(order) => upstream.order(order),
                act => relay(act, upstream),
            }
            self.done += 1;
        }
    }

    /// What was done so far.
    pub(crate) fn counts(&self) -> Counts {
        let done = &self.steps[..self.done];
        let of = |act: Act| done.iter().filter(|step| step.act == act).count() as u64;
        Counts {
            steps: done.len() as u64,
            upstream_kills: of(Act::Kill),
            relay_kills: of(Act::KillRelay),
            relay_stops: of(Act::StopRelay),
            ..Counts::default()
        }
    }
}

/// All that can be done to an upstream.
pub(crate) const UPSTREAM: [Act; 12] = [
    Act::Kill,
    Act::Kill,
    Act::Kill,
    Act::Freeze,
    Act::Tell(Order::Hold),
    Act::Tell(Order::Shun),
    Act::Tell(Order::Slow),
    Act::Tell(Order::Steady),
    Act::Tell(Order::Steady),
    Act::Tell(Order::HalfClose),
    Act::Tell(Order::Close),
    Act::Tell(Order::Reset),
];
