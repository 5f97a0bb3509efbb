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
//! First the vocabulary: [`tick`], [`limits`], [`nearest`]. Then the core, which is pure (it knows no clock, socket, file,
//! log or metric), in the order of a frame's way: [`frame`], [`parse`], [`identity`], [`rule`], [`dedup`]; and the pure
//! parts of delivery: [`backoff`], [`failover`], [`relp`]. Then the shell, which uses tokio: [`listen`], [`pipeline`],
//! [`chunk`], [`ledger`], [`custody`], [`forward`], [`spool`]; around it [`saved`], [`config`], [`sizing`], [`metrics`],
//! [`admin`], [`clock`], [`signal`], [`logging`], [`thread`], [`panics`]; and [`daemon`], which owns every task.
//! [`replay`] runs recorded logs through the same core, and [`explain`] single frames. [`cli`] is the command line.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "tersed runs on Linux (kernel 5.4 or newer): it needs recvmmsg, SO_REUSEPORT steering, \
     SO_RXQ_OVFL, SIOCOUTQ and CLOCK_BOOTTIME"
);

// Vocabulary.
pub mod limits;
mod lock;
pub mod nearest;
pub mod tick;

// Core: pure.
pub mod backoff;
pub mod dedup;
pub mod failover;
pub mod frame;
pub mod identity;
pub mod parse;
pub mod relp;
pub mod rule;

// Shell.
pub mod admin;
pub mod chunk;
pub mod cli;
pub mod clock;
pub mod config;
pub mod custody;
pub mod daemon;
pub mod explain;
mod fault;
pub mod forward;
pub mod ledger;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod panics;
pub mod pipeline;
pub mod replay;
pub mod saved;
pub mod signal;
pub mod sizing;
mod socket;
pub mod spool;
mod sys;
pub mod thread;
