//! How slow this machine is now, told by a search whose cost is known.
//!
//! # Left out
//!
//! How fast memory is: the search fits into the nearest cache.

use std::hint::black_box;

use regex_automata::nfa::thompson::pikevm::PikeVM;

use crate::clock::ThreadTime;
use crate::core::identity::mask::{HardTexts, Kind};

/// How many times as long as where the limits were chosen the reference search takes now, on this machine: at least 1.
pub(super) fn slowness() -> f64 {
    thread_local! {
        static REFERENCE: Reference = Reference::new();
    }
    let nanos = REFERENCE.with(Reference::nanos_per_octet);
    (nanos / REFERENCE_NANOS).max(1.0)
}

/// A search whose cost is known.
struct Reference {
    search: PikeVM,
    text: Vec<u8>,
}

impl Reference {
    fn new() -> Self {
        let search = PikeVM::new(REFERENCE_EXPRESSION);
        Self {
            search: search.expect("the expression is valid"),
            text: HardTexts::of([REFERENCE_EXPRESSION]).next(Kind::Octets, REFERENCE_OCTETS),
        }
    }

    /// The least of some measurements.
    fn nanos_per_octet(&self) -> f64 {
        let mut cache = self.search.create_cache();
        let measure = |_| {
            let start = ThreadTime::now();
            black_box(self.search.is_match(&mut cache, self.text.as_slice()));
            start.elapsed()
        };
        let least = (0..TRIES).map(measure).min().expect("there are tries");
        least.as_secs_f64() * 1e9 / self.text.len() as f64
    }
}

/// The search, and what an octet of it costs where the limits were chosen. It keeps many places in play, as what is
/// refused does.
const REFERENCE_EXPRESSION: &str = "[ab]*a[ab]{20}c";
const REFERENCE_OCTETS: usize = 2048;
const REFERENCE_NANOS: f64 = 100.0;

/// The number of measurements of which the least counts.
const TRIES: usize = 4;
