//! TCP to TCP: nothing that was written to a running relay is lost, whatever happens to the upstream, as long as the
//! upstream stores what it reads before it reads on.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;

use super::chance::Chance;
use super::collector::Protocol;
use super::messages::{Arrived, Source, message};
use super::report::Round;
use super::schedule::{Act, UPSTREAM, schedule};
use super::upstream::Upstream;
use super::{Counts, Plan};
use crate::support::tersed::{Setup, Tersed};
use crate::support::wait::{LIMIT, wait_while};

/// What one originator has written.
pub(crate) struct Sent {
    pub(crate) source: Source,
    /// Numbers 0 to this (exclusive) were passed to the kernel.
    pub(crate) numbers: u64,
    /// Copies beyond first ones.
    pub(crate) repeats: u64,
    /// The relay closed the connection before everything was written.
    pub(crate) cut: bool,
}

/// The upstream is killed, frozen or slow, refuses, half-closes, resets; the relay reloads.
pub(crate) fn upstream_torn(plan: &Plan) -> Counts {
    plan.rounds("tcp, upstream torn", |seed, scene, number| {
        let mut chance = Chance::new(seed, scene, number);
        let acts = [UPSTREAM.as_slice(), &[Act::Reload]].concat();
        let mut round = Round {
            seed,
            scene,
            number,
            steps: schedule(&mut chance, STEPS, EACH * SOURCES / STEPS as u64, &acts),
            done: 0,
        };
        let mut upstream = Upstream::start(Protocol::Tcp);
        let tersed = Setup::new().config(&config(&upstream, false)).start();
        let progress = Arc::new(AtomicU64::new(0));
        let originators = start(&tersed, &mut chance, number, EACH, &progress);
        let mut other = false;
        round.play(&mut upstream, &progress, |act, upstream| {
            assert_eq!(act, Act::Reload);
            other = !other;
            std::fs::write(tersed.config_file(), config(upstream, other)).unwrap();
            tersed.signal(Signal::SIGHUP);
        });
        let sent = join(originators);
        assert!(
            sent.iter().all(|sent| !sent.cut),
            "the relay closed a connection"
        );

        let distinct: u64 = sent.iter().map(|sent| sent.numbers).sum();
        let repeats: u64 = sent.iter().map(|sent| sent.repeats).sum();
        tersed.wait_received(distinct + repeats);
        let sources: Vec<_> = sent.iter().map(|sent| sent.source).collect();
        upstream.wait_arrived(|arrived| arrived.distinct(&sources) >= distinct);
        let (metrics, stopped) = tersed.finish();
        let arrived = upstream.arrived();
        for sent in &sent {
            arrived.assert_has(sent.source, 0..sent.numbers);
        }
        arrived.assert_whole_and_ordered();
        assert_eq!(
            arrived.torn(),
            0,
            "messages that broke off and never came whole"
        );
        let resent = metrics.total("tersed_frames_resent_total");
        assert!(
            arrived.again() <= resent,
            "{} copies came, {resent} were counted as resent",
            arrived.again()
        );
        let balance = metrics.balance();
        assert_eq!(
            (balance.forwarded, balance.suppressed, balance.dropped),
            (distinct, repeats, 0),
            "{balance:?}"
        );
        assert_eq!(stopped.balance(), balance, "at the stop");
        Counts {
            sent: distinct + repeats,
            arrived: distinct,
            again: arrived.again(),
            ..round.counts()
        }
    })
}

/// The relay is stopped under load: everything that it took until then arrives, and it reports the right number.
pub(crate) fn relay_stopped(plan: &Plan) -> Counts {
    plan.rounds("tcp, relay stopped", |seed, scene, number| {
        let mut chance = Chance::new(seed, scene, number);
        let steps = usize::try_from(chance.of(0..4)).unwrap();
        let mut round = Round {
            seed,
            scene,
            number,
            steps: schedule(&mut chance, steps, EACH, &UPSTREAM),
            done: 0,
        };
        let mut upstream = Upstream::start(Protocol::Tcp);
        let mut tersed = Setup::new().config(&config(&upstream, false)).start();
        let progress = Arc::new(AtomicU64::new(0));
        // More than there will be time for.
        let originators = start(&tersed, &mut chance, number, 100 * EACH, &progress);
        let stop_at = chance.of(0..round.steps.len() as u64 + 1);
        tersed.balance_at_exit();
        wait_while(LIMIT, || progress.load(Ordering::Relaxed) < EACH);
        if stop_at == 0 {
            tersed.signal(Signal::SIGTERM);
        } else {
            let steps = std::mem::take(&mut round.steps);
            let (before, after) = steps.split_at(usize::try_from(stop_at).unwrap());
            let mut stop = *after.first().or(before.last()).unwrap();
            stop.act = Act::StopRelay;
            round.steps = [before, &[stop], after].concat();
        }
        round.play(&mut upstream, &progress, |act, _| {
            assert_eq!(act, Act::StopRelay);
            tersed.signal(Signal::SIGTERM);
        });
        let stopped = tersed.wait_stopped();
        let sent = join(originators);
        assert!(stopped.status.success(), "{}", stopped.status);
        let balance = stopped.balance();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!((balance.dropped, balance.queued), (0, 0), "{balance:?}");

        let sources: Vec<_> = sent.iter().map(|sent| sent.source).collect();
        // The relay may forward the beginning of a line that it did not read to its end: one for each connection.
        let all = |arrived: &Arrived| arrived.distinct(&sources) + arrived.torn();
        upstream.wait_arrived(|arrived| all(arrived) >= balance.forwarded);
        let arrived = upstream.arrived();
        arrived.assert_whole_and_ordered();
        for source in &sources {
            arrived.assert_without_gaps(*source);
        }
        assert!(arrived.torn() <= SOURCES, "{} are torn", arrived.torn());
        assert_eq!(
            all(&arrived),
            balance.forwarded,
            "arrived; the relay's counts are {balance:?}"
        );
        Counts {
            sent: balance.received,
            arrived: balance.forwarded,
            again: arrived.again(),
            relay_stops: 1,
            ..round.counts()
        }
    })
}

pub(crate) fn config(upstream: &Upstream, other: bool) -> String {
    // A harmless difference, so that a reload has something to change.
    let retry_max = if other { "60ms" } else { "50ms" };
    format!(
        "[dedup]\nwindow = \"1h\"\n[shutdown]\ngrace = \"20s\"\n\
         [forward]\nto = [\"{}\"]\nqueue = \"256KiB\"\nsend_timeout = \"300ms\"\n\
         connect_timeout = \"1s\"\nretry_min = \"10ms\"\nretry_max = \"{retry_max}\"\n\
         [[listener]]\nurl = \"{LISTENER}\"\n",
        upstream.url()
    )
}

pub(crate) fn start(
    tersed: &Tersed,
    chance: &mut Chance,
    round: u64,
    numbers: u64,
    progress: &Arc<AtomicU64>,
) -> Vec<JoinHandle<Sent>> {
    let to = tersed.address(LISTENER);
    (0..SOURCES)
        .map(|index| {
            let source = round * SOURCES + index;
            let progress = Arc::clone(progress);
            let chance = Chance::new(chance.of(0..u64::MAX), "originator", index);
            thread::spawn(move || originate(to, source, numbers, chance, &progress))
        })
        .collect()
}

pub(crate) fn join(originators: Vec<JoinHandle<Sent>>) -> Vec<Sent> {
    let joined = originators.into_iter().map(JoinHandle::join);
    joined.map(Result::unwrap).collect()
}

/// Sends `numbers` messages in batches of various sizes, some of them twice.
pub(crate) fn originate(
    to: SocketAddr,
    source: Source,
    numbers: u64,
    mut chance: Chance,
    progress: &AtomicU64,
) -> Sent {
    let mut stream = TcpStream::connect(to).unwrap();
    let mut sent = Sent {
        source,
        numbers: 0,
        repeats: 0,
        cut: false,
    };
    while sent.numbers < numbers {
        let batch = chance.of(1..200).min(numbers - sent.numbers);
        let mut out = Vec::new();
        for number in sent.numbers..sent.numbers + batch {
            out.extend_from_slice(message(source, number).as_bytes());
            out.push(b'\n');
            if chance.once_in(10) {
                let again = chance.of(0..number + 1);
                out.extend_from_slice(message(source, again).as_bytes());
                out.push(b'\n');
                sent.repeats += 1;
            }
        }
        if stream.write_all(&out).is_err() {
            sent.cut = true;
            break;
        }
        sent.numbers += batch;
        progress.fetch_add(batch, Ordering::Relaxed);
    }
    sent
}

pub(crate) const LISTENER: &str = "tcp://127.0.0.1:0";
pub(crate) const SOURCES: u64 = 4;
pub(crate) const EACH: u64 = 8_000;
const STEPS: usize = 8;
