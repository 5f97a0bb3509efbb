//! TCP to TCP with a broken connection to the upstream: at a stop, when nothing can be sent again any more, and after a
//! long silence, when nothing has to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::chance::Chance;
use super::collector::{Order, Protocol};
use super::report::Round;
use super::schedule::{Act, UPSTREAM, schedule};
use super::tcp::{EACH, LISTENER, SOURCES, config, join, originate, start};
use super::upstream::Upstream;
use super::{Counts, Plan};
use crate::support::tersed::Setup;
use crate::support::wait::{LIMIT, now, wait_while};

/// The relay, which has no spool, is stopped while its upstream is dead, or accepts and closes.
pub(crate) fn stopped(plan: &Plan) -> Counts {
    plan.rounds("tcp, stopped while broken", |seed, scene, number| {
        let mut chance = Chance::new(seed, scene, number);
        let count = usize::try_from(chance.of(0..4)).unwrap();
        let mut steps = schedule(&mut chance, count, EACH, &UPSTREAM);
        let break_it = chance.pick(&[Act::Kill, Act::Tell(Order::Shun)]);
        for act in [break_it, Act::StopRelay] {
            let last = schedule(&mut chance, 1, EACH, &[Act::StopRelay]);
            steps.extend(last.into_iter().map(|mut step| {
                step.act = act;
                step
            }));
        }
        let mut round = Round {
            seed,
            scene,
            number,
            steps,
            done: 0,
        };
        let mut upstream = Upstream::start(Protocol::Tcp);
        let short = config(&upstream, false).replace("grace = \"20s\"", "grace = \"1s\"");
        let mut tersed = Setup::new().config(&short).start();
        tersed.balance_at_exit();
        let progress = Arc::new(AtomicU64::new(0));
        let originators = start(&tersed, &mut chance, number, 100 * EACH, &progress);
        wait_while(LIMIT, || progress.load(Ordering::Relaxed) < EACH);
        round.play(&mut upstream, &progress, |act, _| {
            assert_eq!(act, Act::StopRelay);
            tersed.signal(Signal::SIGTERM);
        });
        let stopped = tersed.wait_stopped();
        let sent = join(originators);
        assert!(stopped.status.success(), "{}", stopped.status);
        let balance = stopped.balance();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(balance.queued, 0, "{balance:?}");
        let told: u64 = stopped
            .log
            .iter()
            .filter(|line| {
                line.level == "ERROR" && line.message.starts_with("dropped messages that were not")
            })
            .map(|line| line.field("frames").unwrap().parse::<u64>().unwrap())
            .sum();
        // Summaries that are given up are in the log line as well. Readers that waited for room in the queue count
        // their own frames.
        assert!(balance.dropped == 0 || told > 0, "{balance:?}, {told} told");

        let sources: Vec<_> = sent.iter().map(|sent| sent.source).collect();
        let arrived = upstream.arrived();
        arrived.assert_whole();
        let all = arrived.distinct(&sources) + arrived.torn();
        assert!(
            balance.forwarded <= all,
            "{all} arrived, but more were counted as forwarded: {balance:?}"
        );
        assert!(arrived.torn() <= 2 * SOURCES, "{} are torn", arrived.torn());
        Counts {
            sent: balance.received,
            arrived: balance.forwarded,
            again: arrived.again(),
            relay_stops: 1,
            ..round.counts()
        }
    })
}

/// Everything was read, time passes, and the connection is reset: nothing is sent twice.
pub(crate) fn idle_reset(plan: &Plan) -> Counts {
    plan.rounds("tcp, idle and reset", |seed, scene, number| {
        let mut chance = Chance::new(seed, scene, number);
        let round = Round {
            seed,
            scene,
            number,
            steps: Vec::new(),
            done: 0,
        };
        let mut upstream = Upstream::start(Protocol::Tcp);
        let age = "[forward]\nresend_age = \"1s\"\n";
        let tersed = Setup::new()
            .config(&config(&upstream, false).replace("[forward]\n", age))
            .start();
        let progress = AtomicU64::new(0);
        let to = tersed.address(LISTENER);
        let (mut distinct, mut received) = (0, 0);
        let mut sources = Vec::new();
        for index in 0..RESETS {
            let numbers = chance.of(1..EACH);
            let of_originator = Chance::new(chance.of(0..u64::MAX), "originator", index);
            let sent = originate(
                to,
                number * RESETS + index,
                numbers,
                of_originator,
                &progress,
            );
            assert!(!sent.cut, "the relay closed a connection");
            sources.push(sent.source);
            distinct += sent.numbers;
            received += sent.numbers + sent.repeats;
            tersed.wait_received(received);
            upstream.wait_arrived(|arrived| arrived.distinct(&sources) >= distinct);
            let quiet = now();
            let long = Duration::from_millis(chance.of(1_500..3_000));
            wait_while(2 * long, || quiet.elapsed() < long);
            let order = chance.pick(&[Order::Reset, Order::Close]);
            upstream.order(order);
            // Wait until the relay has connected again, so that the next messages do not go to the connection that is
            // being reset.
            tersed.wait_metric("tersed_upstream_connects_total", &[], index + 2);
        }
        let (metrics, _) = tersed.finish();
        let arrived = upstream.arrived();
        arrived.assert_whole_and_ordered();
        assert_eq!(arrived.distinct(&sources), distinct, "arrived");
        assert_eq!(arrived.again(), 0, "messages arrived twice");
        assert_eq!(metrics.total("tersed_frames_resent_total"), 0);
        assert_eq!(metrics.balance().forwarded, distinct);
        let mut counts = round.counts();
        counts.steps = RESETS;
        Counts {
            sent: received,
            arrived: distinct,
            ..counts
        }
    })
}

/// Resets in a round.
const RESETS: u64 = 4;
