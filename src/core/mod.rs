//! The core: octets and a `now` in, facts out.
//!
//! ```text
//! octets ─▶ frame ──Frame──▶ parse ──Message──▶ rule, identity ──▶ dedup ──▶ fresh, or a duplicate
//! ```
//!
//! # Guarantees
//!
//! - The core is pure: it knows no runtime, clock, socket, file, log or metric. So `replay` runs the code that the daemon
//!   runs, on recorded time, and tests need no process.
//! - Nothing in here names anything outside this folder, and a stage names only the stages before it. `tests/tidy`
//!   checks both.
//!
//! # Reading order
//!
//! The vocabulary: [`tick`] (time), [`limits`] (every hard bound) and [`nearest`] (the word that was probably meant).
//! The stages, in the order in which a frame passes them: [`frame`], [`parse`], [`identity`], [`rule`], [`dedup`]. Beside
//! them [`relp`], the protocol and its two ends.
//!
//! # Left out
//!
//! Who calls the stages: `pipeline` for the daemon, `replay` and `explain` for recorded frames.

pub mod dedup;
pub mod frame;
pub mod identity;
pub mod limits;
pub mod nearest;
pub mod parse;
pub mod relp;
pub mod rule;
pub mod tick;
