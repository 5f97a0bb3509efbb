//! The output of the torture, while it runs and when it fails.

use std::io::Write as _;
use std::thread;

use super::schedule::Step;

/// Prints a line to standard output and flushes it.
#[expect(clippy::print_stdout, reason = "the torture is run to be watched")]
pub(crate) fn say(line: &str) {
    println!("{line}");
    // The reader may have closed standard output.
    drop(std::io::stdout().flush());
}

/// One round of one scene. If it is dropped by a panic, it prints how to repeat the round.
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) scene: &'static str,
    pub(crate) number: u64,
    /// The steps of the round, in order.
    pub(crate) steps: Vec<Step>,
    /// How many steps were carried out.
    pub(crate) done: usize,
}

impl Drop for Round {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        say(&format!(
            "FAILED: scene {}, round {}; TERSED_TORTURE_SEED={} repeats the schedule",
            self.scene, self.number, self.seed
        ));
        for (index, step) in self.steps.iter().enumerate() {
            let mark = if index < self.done {
                "done"
            } else {
                "not done"
            };
            say(&format!("    {mark:>8}  {step:?}"));
        }
    }
}
