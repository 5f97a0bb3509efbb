//! The test bed: starts a relay or a peer, sends a load through it, and measures its process.
//!
//! Other processes on this machine (the sender, the sink) are not counted: the figures are those of the relay's
//! process. All traffic stays on the loopback. The benchmarks that need a relay share this module; each uses a part of
//! it.

use std::time::Instant;

pub(crate) mod case;
pub(crate) mod floor;
pub(crate) mod load;
pub(crate) mod pace;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod run;
pub(crate) mod sink;

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The median; of an even number of figures, the upper of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
