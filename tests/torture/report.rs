//! What the person who runs the torture sees, while it runs and when it fails.

use std::io::Write as _;
use std::thread;

use super::schedule::Step;

/// A line on standard output, at once.
#[expect(clippy::print_stdout, reason = "the torture is run to be watched")]
pub(crate) fn say(line: &str) {
    println!("{line}");
    // Whoever does not want to read it may close it.
    drop(std::io::stdout().flush());
}

/// One round of one scene. Dropped by a panic, it says how to have the round again.
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) scene: &'static str,
    pub(crate) number: u64,
    /// What is done in it, in order.
    pub(crate) steps: Vec<Step>,
    /// How many of them were done.
    pub(crate) done: usize,
}

impl Drop for Round {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        say(&format!(
            "FAILED: scene {}, round {}; TERSED_TORTURE_SEED={} has the same schedule again",
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
