//! The test bed: starts a relay or a peer, sends a load through it, and measures its process.
//!
//! What runs on this machine besides (the sender, the sink) is not counted: figures are those of the relay's
//! process. All traffic stays on the loopback. Benchmarks that need a relay share this; each uses a part of it.

pub(crate) mod case;
mod figures;
pub(crate) mod floor;
pub(crate) mod load;
pub(crate) mod pace;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod run;
pub(crate) mod sink;

pub(crate) use figures::{median, now};
