//! tersed: a syslog relay that forwards each message once and counts the repeats.
//!
//! A message is forwarded if and only if no message of the same identity was forwarded within the last `window` (10 s
//! unless configured). Repeats are suppressed, counted and reported.
//!
//! ```text
//! listen ──bytes──▶ frame ──Frame──▶ parse ──Message──▶ rule + identity ──▶ dedup ──survivor──▶ forward
//! (udp, tcp,        (RFC 6587,       (RFC 5424, 3164,   (which policy,      (shard:             (tcp, udp,
//!  unix)             datagram)        Cisco, raw)        which bytes)        engine)             unix, file)
//! ```
//!
//! # What holds everywhere
//!
//! 1. Once per window: a message is forwarded iff no message of the same identity was forwarded within its window.
//! 2. The first copy never waits.
//! 3. When in doubt, forward: a duplicate is cheaper than a loss.
//! 4. Survivors are forwarded byte for byte as received, in the order of their connection or sender.
//! 5. Everything is counted once: `received + recovered = forwarded + suppressed + dropped{reason} + queued`.
//! 6. Everything is bounded, and each bound has a name, a reason and a counter.
//! 7. A window belongs to a delivery: if a survivor is dropped, its next copy goes through.
//!
//! # Reading order
//!
//! [`core`] decides: it takes octets and a `now`, and knows no clock, socket, file, log or metric. In the order of a
//! frame's way these are `frame`, `parse`, `identity`, `rule` and `dedup`. Everything else is the shell, which uses
//! tokio: [`listen`] receives, [`pipeline`] leads each batch through the core, [`delivery`] keeps the survivors until
//! they are delivered, [`forward`] sends them, and [`spool`] keeps on disk what memory cannot hold. Around these:
//! [`saved`] (windows over a restart), [`config`], [`sizing`], [`metrics`], [`admin`], [`clock`], [`signal`],
//! [`logging`], [`thread`], [`panics`], [`lock`], [`socket`], [`sys`] (all unsafe code) and,
//! for tests, [`fault`]. [`daemon`] owns every task. [`replay`] runs recorded logs through the same core, and [`explain`]
//! single frames. [`cli`] is the command line.
//!
//! The program `tersed`, the benchmarks and the fuzz targets use this library. It promises them nothing: use the program.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "tersed runs on Linux (kernel 5.4 or newer): it needs recvmmsg, SO_REUSEPORT steering, \
     SO_RXQ_OVFL, SIOCOUTQ and CLOCK_BOOTTIME"
);

pub mod cli;
pub mod core;
pub mod delivery;
pub mod spool;

mod admin;
mod clock;
mod config;
mod daemon;
mod explain;
mod fault;
mod forward;
mod listen;
mod lock;
mod logging;
mod metrics;
mod panics;
mod pipeline;
mod replay;
mod saved;
mod signal;
mod sizing;
mod socket;
mod sys;
mod thread;
