//! Files and standard output as upstreams: a thread of their own writes to each, and rotates it if configured.
//!
//! ```text
//! once.log ──full or old──▶ once.log.20261122T100000.123456Z ──▶ once.log.20261122T100000.123456Z.zst
//!    ▲ appended to           between two batches of frames          by a thread in the background
//! ```
//!
//! # Guarantees
//!
//! - A symlink in place of any of these files is refused or ignored, never followed.
//! - No frame is torn. If a full disk breaks off a write, the file is cut back to the last whole frame. A rotation
//!   falls between two writes. A line that a killed run left unfinished is ended before the next frame. `pipe` says
//!   what holds for pipes.
//! - A file is rotated before a write that would take it beyond `rotate_size`, so it is longer only if one write alone
//!   is.
//! - A file's age counts from its first octet, suspended time included. For a file of an earlier run it counts from
//!   its creation, by the wall clock.
//! - A rotation that fails is counted, logged once, and tried again later; meanwhile the file grows.
//!
//! # Left out
//!
//! A file that gets no writes is not rotated, whatever its age. Devices, pipes and standard output are not rotated.
//! Two writers of one file: the configuration rules them out.

mod compress;
mod frames;
mod keeper;
mod log;
mod names;
mod open;
mod pipe;
mod progress;
mod writer;

pub(super) use self::writer::Blocking;
