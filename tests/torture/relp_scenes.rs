//! RELP to RELP: what was acknowledged to an originator is at the upstream in the end, whichever of the upstream and
//! the relay was killed in between. For an originator, a repeat that was acknowledged counts like a first copy. So a
//! repeat that was answered before its first copy was safe shows as a loss.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::chance::Chance;
use super::collector::{Order, Protocol};
use super::messages::Source;
use super::originator::{Connection, Told, originate};
use super::relay::Relay;
use super::report::Round;
use super::schedule::{Act, UPSTREAM, schedule};
use super::upstream::Upstream;
use super::{Counts, Plan};
use crate::support::wait::{LIMIT, wait_until, wait_while};

/// Both sides are killed, without a spool: the originator still has what was not answered.
pub(crate) fn either_side_killed(plan: &Plan) -> Counts {
    plan.rounds("relp, either side killed", |seed, scene, number| {
        through_relay(seed, scene, number, Protocol::Relp, &EITHER, false)
    })
}

/// The same with a spool: what is in the spool was answered, and must come out of it after a kill.
pub(crate) fn either_side_killed_with_spool(plan: &Plan) -> Counts {
    let mut recovered = 0;
    let counts = plan.rounds("relp, either side killed, spool", |seed, scene, number| {
        let counts = through_relay(seed, scene, number, Protocol::Relp, &EITHER, true);
        recovered += counts.recovered;
        counts
    });
    assert!(
        recovered > 0 || plan.rounds < 5,
        "the spool was never used, so this scene tested nothing"
    );
    counts
}

/// RELP in, plain TCP out; the relay is not killed.
pub(crate) fn to_tcp(plan: &Plan) -> Counts {
    plan.rounds("relp to tcp, upstream torn", |seed, scene, number| {
        let acts = [UPSTREAM.as_slice(), &[Act::FreezeRelay, Act::Reload]].concat();
        through_relay(seed, scene, number, Protocol::Tcp, &acts, false)
    })
}

/// A duplicate is not answered before its first copy is safe, on whichever connections the two came, both while the
/// upstream does not answer and while it is away.
pub(crate) fn duplicates_wait(plan: &Plan) -> Counts {
    plan.rounds("relp, duplicates wait", |seed, scene, number| {
        let mut chance = Chance::new(seed, scene, number);
        let mut upstream = Upstream::start(Protocol::Relp);
        if chance.once_in(2) {
            upstream.kill();
        } else {
            upstream.order(Order::Hold);
        }
        let url = upstream.url();
        let relay = Relay::start(|address, _| config(address, &url, 512, None));
        let count = chance.of(1..200);
        let mut connections: Vec<_> = (0..3)
            .map(|_| Connection::opened(relay.address()))
            .collect();
        for connection in &mut connections {
            connection.send(number, 0..count);
        }
        relay.wait_received(3 * count);
        // A premature answer would come at once, so this is long enough to see it.
        let mut early = Vec::new();
        wait_while(TOO_EARLY, || {
            early.extend(connections.iter_mut().map(Connection::answered));
            early
                .iter()
                .all(|(taken, refused)| taken.is_empty() && refused.is_empty())
        });
        assert!(
            early
                .iter()
                .all(|(taken, refused)| taken.is_empty() && refused.is_empty()),
            "answered before anything was safe: {early:?}"
        );

        upstream.kill();
        upstream.order_for_next_life(Order::Read);
        upstream.revive();
        for connection in &mut connections {
            let (mut taken, mut refused) = (Vec::new(), Vec::new());
            wait_until("all answers", LIMIT, || {
                let (more, less) = connection.answered();
                taken.extend(more);
                refused.extend(less);
                (taken.len() + refused.len()) as u64 == count
            });
            assert!(taken.iter().copied().eq(0..count), "refused: {refused:?}");
        }
        let arrived = upstream.arrived();
        arrived.assert_has(number, 0..count);
        // Which connection had the first copy differs from message to message, so the order cannot be asserted.
        arrived.assert_whole();
        drop(connections);
        relay.finish();
        Counts {
            sent: 3 * count,
            arrived: count,
            again: arrived.again(),
            ..Counts::default()
        }
    })
}

fn through_relay(
    seed: u64,
    scene: &'static str,
    number: u64,
    protocol: Protocol,
    acts: &[Act],
    has_spool: bool,
) -> Counts {
    let mut chance = Chance::new(seed, scene, number);
    let mut round = Round {
        seed,
        scene,
        number,
        steps: schedule(&mut chance, STEPS, EACH * SOURCES / STEPS as u64, acts),
        done: 0,
    };
    let mut upstream = Upstream::start(protocol);
    let window = chance.of(16..512);
    let url = upstream.url();
    let mut relay =
        Relay::start(|address, dir| config(address, &url, window, has_spool.then_some(dir)));
    let to = relay.address();
    let progress = AtomicU64::new(0);
    let told = originate_all(&mut chance, number, to, &progress, || {
        round.play(&mut upstream, &progress, |act, _| match act {
            Act::KillRelay => relay.kill(),
            Act::StopRelay => relay.stop(),
            Act::FreezeRelay => relay.freeze(),
            Act::ThawRelay => relay.thaw(),
            Act::Reload => relay.reload(),
            act => unreachable!("{act:?} is not an act on a relay"),
        });
    });
    let (metrics, relay) = relay.finish();
    let sources: Vec<_> = told.iter().map(|told| told.source).collect();
    upstream.wait_arrived(|arrived| arrived.distinct(&sources) >= EACH * SOURCES);
    let arrived = upstream.arrived();
    for told in &told {
        arrived.assert_has(told.source, told.acknowledged.iter().copied());
    }
    arrived.assert_whole();
    let balance = metrics.balance();
    assert_eq!(balance.queued, 0, "{balance:?}");
    Counts {
        sent: told.iter().map(|told| EACH + told.again).sum(),
        arrived: progress.load(Ordering::Relaxed),
        again: arrived.again(),
        recovered: relay.recovered,
        ..round.counts()
    }
}

/// The relay's configuration.
fn config(address: SocketAddr, upstream: &str, window: u64, spool: Option<&Path>) -> String {
    let spool = spool.map_or(String::new(), |dir| {
        let directory = dir.join("spool");
        format!(
            "[spool]\ndirectory = \"{}\"\nmax_size = \"256MiB\"\n",
            directory.display()
        )
    });
    format!(
        "[dedup]\nwindow = \"1h\"\n[shutdown]\ngrace = \"300ms\"\n\
         {spool}\
         [forward]\nto = [\"{upstream}\"]\nqueue = \"256KiB\"\nsend_timeout = \"300ms\"\n\
         connect_timeout = \"1s\"\nretry_min = \"10ms\"\nretry_max = \"50ms\"\n\
         [[listener]]\nurl = \"relp://{address}\"\nwindow = {window}\n"
    )
}

/// The originator and the upstream without a relay between them. A loss here would be a fault of the torture itself.
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
        let told = originate_all(&mut chance, number, to, &progress, || {
            round.play(&mut upstream, &progress, |act, _| {
                unreachable!("there is no relay for {act:?}")
            });
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
            ..round.counts()
        }
    })
}

/// Runs the originators of a round until all of their messages were acknowledged; meanwhile runs `is_done`.
fn originate_all(
    chance: &mut Chance,
    round: u64,
    to: SocketAddr,
    progress: &AtomicU64,
    is_done: impl FnOnce(),
) -> Vec<Told> {
    thread::scope(|scope| {
        let originators: Vec<_> = (0..SOURCES)
            .map(|index| {
                let source: Source = round * SOURCES + index;
                let chance = Chance::new(chance.of(0..u64::MAX), "originator", source);
                scope.spawn(move || originate(to, source, EACH, chance, progress))
            })
            .collect();
        is_done();
        let told = originators.into_iter().map(|originator| originator.join());
        told.map(Result::unwrap).collect()
    })
}

/// The acts on either side.
const EITHER: [Act; 14] = [
    Act::Kill,
    Act::Kill,
    Act::Kill,
    Act::Kill,
    Act::KillRelay,
    Act::KillRelay,
    Act::KillRelay,
    Act::KillRelay,
    Act::StopRelay,
    Act::Reload,
    Act::Freeze,
    Act::Tell(Order::Hold),
    Act::Tell(Order::Close),
    Act::Tell(Order::Reset),
];
const TOO_EARLY: Duration = Duration::from_millis(300);
const SOURCES: u64 = 4;
const EACH: u64 = 2_000;
const STEPS: usize = 8;
