//! The schedule of a round: what is done to the upstream and to the relay, and when.
//!
//! A step is due when the originators have sent a certain number of further messages. This ties it to the load, not to
//! a clock. An upstream that is away stops the originators, so each step also has a latest time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Counts;
use super::chance::Chance;
use super::collector::Order;
use super::report::Round;
use super::upstream::Upstream;
use crate::support::wait::wait_while;

/// Something done to the upstream or the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    /// Kill the upstream. Its port refuses connections from then on.
    Kill,
    /// Start the upstream again.
    Revive,
    /// Freeze the upstream's process; its kernel keeps running.
    Freeze,
    /// Continue the upstream.
    Thaw,
    /// Send an order to the upstream.
    Tell(Order),
    /// Make the relay reload its configuration (`SIGHUP`).
    Reload,
    /// Freeze the relay's process (`SIGSTOP`).
    FreezeRelay,
    /// Continue the relay.
    ThawRelay,
    /// Kill the relay and start it again.
    KillRelay,
    /// Stop the relay and start it again.
    StopRelay,
}

/// An act, and when it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Due after this many messages since the step before.
    pub(crate) after: u64,
    /// Due after this time at the latest.
    pub(crate) patience: Duration,
    pub(crate) act: Act,
}

/// Draws `count` steps from `acts`. What was frozen or changed is put back in between and at the end.
pub(crate) fn schedule(chance: &mut Chance, count: usize, after: u64, acts: &[Act]) -> Vec<Step> {
    let mut steps = Vec::new();
    let add = |steps: &mut Vec<Step>, chance: &mut Chance, after: u64, act: Act| {
        let after = chance.of(0..after + 1);
        // Mostly shorter than the time after which the relay gives up an upstream, sometimes longer.
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
        // An upstream may be killed while it is frozen or slow. It is in the same state when it is back.
        let of_upstream = matches!(act, Act::Freeze | Act::Tell(_));
        if of_upstream && acts.contains(&Act::Kill) {
            for _ in 0..chance.of(0..4) {
                add(&mut steps, chance, after / 2, Act::Kill);
                add(&mut steps, chance, after / 4, Act::Revive);
            }
        }
        // This does nothing to a process that was killed while it was frozen.
        add(&mut steps, chance, after / 4, undo);
    }
    steps
}

impl Round {
    /// Carries out every step when it is due. `relay` carries out those on the relay.
    pub(crate) fn play(
        &mut self,
        upstream: &mut Upstream,
        sent: &AtomicU64,
        mut relay: impl FnMut(Act, &mut Upstream),
    ) {
        for step in self.steps.clone() {
            let due = sent.load(Ordering::Relaxed) + step.after;
            // Wait until the step is due or its latest time has come.
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

    /// The counts of the steps so far.
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

/// All acts on an upstream.
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
