//! UDP to TCP: what the relay received arrives, and what its kernel dropped is counted, so `sent = received +
//! kernel_dropped`, even while the relay is frozen or its upstream is away.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use super::chance::Chance;
use super::collector::Protocol;
use super::messages::{Source, message};
use super::report::Round;
use super::schedule::{Act, UPSTREAM, schedule};
use super::upstream::Upstream;
use super::{Counts, Plan};
use crate::support::tersed::Setup;
use crate::support::wait::{LIMIT, wait_until, wait_while};

/// The relay is frozen now and then, with a small receive buffer, and its upstream is torn.
pub(crate) fn all_accounted(plan: &Plan) -> Counts {
    plan.rounds("udp, all accounted for", |seed, scene, number| {
        let mut chance = Chance::new(seed, scene, number);
        let acts = [UPSTREAM.as_slice(), &[Act::FreezeRelay; 5]].concat();
        let mut round = Round {
            seed,
            scene,
            number,
            steps: schedule(&mut chance, STEPS, EACH * SOURCES / STEPS as u64, &acts),
            done: 0,
        };
        let mut upstream = Upstream::start(Protocol::Tcp);
        let tersed = Setup::new().config(&config(&upstream)).start();
        let to = tersed.address(LISTENER);
        let sent = AtomicU64::new(0);
        let playing = AtomicU64::new(1);
        let sources: Vec<Source> = (0..SOURCES).map(|index| number * SOURCES + index).collect();
        thread::scope(|scope| {
            for source in &sources {
                let chance = Chance::new(chance.of(0..u64::MAX), "originator", *source);
                scope.spawn(|| originate(to, *source, chance, &sent, &playing));
            }
            round.play(&mut upstream, &sent, |act, _| {
                tersed.signal(match act {
                    Act::FreezeRelay => Signal::SIGSTOP,
                    Act::ThawRelay => Signal::SIGCONT,
                    _ => unreachable!("not in the schedule"),
                });
            });
            playing.store(0, Ordering::Relaxed);
        });

        let sent = sent.into_inner();
        let accounted = || {
            let metrics = tersed.metrics();
            let dropped = metrics.total("tersed_kernel_dropped_total");
            (metrics.balance().received, dropped)
        };
        wait_until(
            &format!("{sent} datagrams to be accounted for"),
            LIMIT,
            || {
                let (received, dropped) = accounted();
                assert!(
                    received + dropped <= sent,
                    "{received} received and {dropped} dropped of {sent}"
                );
                received + dropped == sent
            },
        );
        let (received, kernel_dropped) = accounted();
        upstream.wait_arrived(|arrived| arrived.distinct(&sources) >= received);
        let (metrics, stopped) = tersed.finish();
        let balance = metrics.balance();
        let arrived = upstream.arrived();
        arrived.assert_whole_and_ordered();
        assert_eq!(arrived.distinct(&sources), received, "{balance:?}");
        assert_eq!((balance.forwarded, balance.dropped), (received, 0));
        assert_eq!(stopped.balance(), balance, "at the stop");
        let resent = metrics.total("tersed_frames_resent_total");
        assert!(
            arrived.again() <= resent,
            "{} copies came, {resent} were counted as resent",
            arrived.again()
        );
        Counts {
            sent,
            arrived: received,
            again: arrived.again(),
            kernel_dropped,
            ..round.counts()
        }
    })
}

/// Sends bursts while the steps of the round run, and at least a minimum number of messages.
fn originate(
    to: SocketAddr,
    source: Source,
    mut chance: Chance,
    sent: &AtomicU64,
    playing: &AtomicU64,
) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    let mut number = 0;
    while number < EACH || playing.load(Ordering::Relaxed) > 0 {
        for _ in 0..chance.of(1..100) {
            socket.send(message(source, number).as_bytes()).unwrap();
            number += 1;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        // A pause after each burst.
        let pause = std::time::Duration::from_millis(chance.of(0..4));
        wait_while(pause, || true);
    }
}

fn config(upstream: &Upstream) -> String {
    format!(
        "[dedup]\nwindow = \"1h\"\n[shutdown]\ngrace = \"20s\"\n\
         [forward]\nto = [\"{}\"]\nqueue = \"256KiB\"\nsend_timeout = \"300ms\"\n\
         connect_timeout = \"1s\"\nretry_min = \"10ms\"\nretry_max = \"50ms\"\n\
         [[listener]]\nurl = \"{LISTENER}\"\nreceive_buffer = \"64KiB\"\n",
        upstream.url()
    )
}

const LISTENER: &str = "udp://127.0.0.1:0";
const SOURCES: u64 = 3;
const EACH: u64 = 1_000;
const STEPS: usize = 8;
