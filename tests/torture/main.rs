//! The torture: numbered messages go through the real relay, while the upstream, the connections and the relay itself
//! are killed, frozen, cut and started again. At the end the messages that arrived are compared with those that were
//! accepted.
//!
//! ```text
//!     cargo test --test torture                                   the short form, about a minute
//!     TERSED_TORTURE_LONG=1 cargo test --test torture             the long form
//!     TERSED_TORTURE_SEED=7 TERSED_TORTURE_ROUNDS=100 cargo test --test torture -- tcp
//! ```
//!
//! `TERSED_TORTURE_SEED` repeats the schedule of an earlier run. Without it each run draws a seed and prints it.
//! `TERSED_TORTURE_ROUNDS` sets the number of rounds of each scene. A word on the command line selects the scenes whose
//! names contain it.
//!
//! The upstream is this same binary, started again as a separate process (`collector`), so that it can be killed with
//! `SIGKILL`. `collector.rs` says what such an upstream guarantees.
//!
//! # What the scenes prove
//!
//! - `tcp_upstream_torn`: over plain TCP, nothing that was written to a running relay is lost, whatever happens to the
//!   upstream, as long as the upstream stores what it takes from its socket. The order is kept, and frames that arrive
//!   twice were counted as resent.
//! - `tcp_stopped_while_broken`: a relay without a spool is stopped while its upstream is dead, or accepts and closes.
//!   The relay counts nothing as forwarded that did not arrive, and logs how many frames it gave up.
//! - `tcp_idle_reset`: when a connection is reset that was idle for long, nothing is sent again.
//! - `tcp_relay_stopped`: the relay's count of forwarded frames at a stop (`SIGTERM`) equals what arrived, to the
//!   frame.
//! - `udp_all_accounted`: sent = received + dropped by the kernel, and all received datagrams arrive.
//! - `relp_to_tcp`: acknowledged messages arrive, as long as the relay is not killed.
//! - `relp_duplicates_wait`: a duplicate is not acknowledged before its first copy is safe.
//! - `relp_either_side_killed`, `.._with_spool`: acknowledged messages arrive, although the upstream and the relay are
//!   killed in any order.
//! - `relp_without_relay`: the originator and the collector of the torture lose nothing themselves.
//!
//! In all of them the counting law holds exactly for every life of the relay that did not end by a kill: in `/metrics`
//! when the relay is quiet, and in its last log line. Frames found in the spool count as recovered.
//!
//! # Left out
//!
//! Power loss: the kernel still has what a killed process wrote.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../it/support/mod.rs"]
#[expect(
    dead_code,
    reason = "the support of tests/it, of which the torture uses a part"
)]
mod support;

mod chance;
mod collector;
mod messages;
mod originator;
mod relay;
mod relp;
mod relp_scenes;
mod report;
mod schedule;
mod tcp;
mod tcp_broken;
mod udp;
mod upstream;

use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use report::say;
use support::wait::now;

/// What is the same for all scenes of this run.
struct Plan {
    seed: u64,
    rounds: u64,
}

/// The totals of a scene.
#[derive(Debug, Default)]
struct Counts {
    /// Messages sent to the relay, copies included.
    sent: u64,
    /// Different messages that had to arrive, and arrived.
    arrived: u64,
    /// Further copies of those that arrived.
    again: u64,
    /// Acts on the upstream and the relay; among them:
    steps: u64,
    upstream_kills: u64,
    relay_kills: u64,
    /// `SIGTERM`, each followed by a start.
    relay_stops: u64,
    /// Frames that the relay found in its spool at its starts, by its own count.
    recovered: u64,
    /// Datagrams that the kernel dropped, by the relay's count.
    kernel_dropped: u64,
}

/// A scene, and its number of rounds in the short and in the long form.
struct Scene {
    name: &'static str,
    run: fn(&Plan) -> Counts,
    rounds: u64,
    rounds_long: u64,
}

const SCENES: [Scene; 10] = [
    Scene {
        name: "tcp_upstream_torn",
        run: tcp::upstream_torn,
        rounds: 4,
        rounds_long: 150,
    },
    Scene {
        name: "tcp_relay_stopped",
        run: tcp::relay_stopped,
        rounds: 6,
        rounds_long: 200,
    },
    Scene {
        name: "tcp_stopped_while_broken",
        run: tcp_broken::stopped,
        rounds: 6,
        rounds_long: 150,
    },
    Scene {
        name: "tcp_idle_reset",
        run: tcp_broken::idle_reset,
        rounds: 2,
        rounds_long: 40,
    },
    Scene {
        name: "udp_all_accounted",
        run: udp::all_accounted,
        rounds: 4,
        rounds_long: 100,
    },
    Scene {
        name: "relp_without_relay",
        run: relp_scenes::without_relay,
        rounds: 1,
        rounds_long: 20,
    },
    Scene {
        name: "relp_to_tcp",
        run: relp_scenes::to_tcp,
        rounds: 2,
        rounds_long: 50,
    },
    Scene {
        name: "relp_duplicates_wait",
        run: relp_scenes::duplicates_wait,
        rounds: 3,
        rounds_long: 50,
    },
    Scene {
        name: "relp_either_side_killed",
        run: relp_scenes::either_side_killed,
        rounds: 4,
        rounds_long: 120,
    },
    Scene {
        name: "relp_either_side_killed_with_spool",
        run: relp_scenes::either_side_killed_with_spool,
        rounds: 4,
        rounds_long: 120,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((word, args)) = args.split_first()
        && word == "collector"
    {
        collector::run(args);
        return ExitCode::SUCCESS;
    }
    // The flags are those of the standard test runner: cargo passes them to every test binary.
    let (flags, words): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with('-'));
    let chosen = |scene: &&Scene| {
        words.is_empty() || words.iter().any(|word| scene.name.contains(word.as_str()))
    };
    let scenes: Vec<_> = SCENES.iter().filter(chosen).collect();
    if flags.iter().any(|flag| *flag == "--list") {
        for scene in scenes {
            say(&format!("{}: test", scene.name));
        }
        return ExitCode::SUCCESS;
    }
    torture(&scenes)
}

fn torture(scenes: &[&Scene]) -> ExitCode {
    let seed = number("TERSED_TORTURE_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let long = std::env::var_os("TERSED_TORTURE_LONG").is_some_and(|value| value == "1");
    let mut failed = Vec::new();
    for scene in scenes {
        let rounds = if long {
            scene.rounds_long
        } else {
            scene.rounds
        };
        let rounds = number("TERSED_TORTURE_ROUNDS").unwrap_or(rounds);
        say(&format!(
            "torture {}: {rounds} rounds, TERSED_TORTURE_SEED={seed}",
            scene.name
        ));
        let start = now();
        let plan = Plan { seed, rounds };
        let seconds = || start.elapsed().as_secs_f32();
        match catch_unwind(AssertUnwindSafe(|| (scene.run)(&plan))) {
            Ok(counts) => say(&format!(
                "torture {}: ok in {:.1} s: {counts:?}",
                scene.name,
                seconds()
            )),
            Err(_) => failed.push(scene.name),
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!(
        "torture FAILED: {failed:?}, TERSED_TORTURE_SEED={seed}"
    ));
    ExitCode::FAILURE
}

impl Plan {
    /// Runs all rounds of a scene and adds up their counts. Prints its progress now and then.
    fn rounds(
        &self,
        scene: &'static str,
        mut round: impl FnMut(u64, &'static str, u64) -> Counts,
    ) -> Counts {
        let mut counts = Counts::default();
        let mut said = now();
        for number in 0..self.rounds {
            counts += round(self.seed, scene, number);
            if said.elapsed().as_secs() >= 10 {
                said = now();
                say(&format!(
                    "  {scene}: round {} of {}: {counts:?}",
                    number + 1,
                    self.rounds
                ));
            }
        }
        counts
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.sent += more.sent;
        self.arrived += more.arrived;
        self.again += more.again;
        self.steps += more.steps;
        self.upstream_kills += more.upstream_kills;
        self.relay_kills += more.relay_kills;
        self.relay_stops += more.relay_stops;
        self.recovered += more.recovered;
        self.kernel_dropped += more.kernel_dropped;
    }
}

/// The number in an environment variable.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}, expected a number")))
}
