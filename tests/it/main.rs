//! The real binary, driven from outside: one file per behavior.
//!
//! Every test starts a relay on ephemeral ports, talks to it as originators and collectors do, and
//! ends by checking from `/metrics` that every frame is accounted for. Nothing sleeps: a test waits
//! for a condition, with a limit. What a test needs and does not find is a failure that names the
//! package to install, never a skip; `tests/run` installs them all.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

mod admin;
mod admin_abuse;
mod clocks;
mod defaults;
mod deploy;
mod first_copy;
mod harness;
mod hash_flood;
mod idle_connections;
mod logger;
mod loops;
mod never_suppressed;
mod paused;
mod reload;
mod reload_storm;
mod rsyslog_in;
mod rsyslog_out;
mod service_manager;
mod shutdown;
mod signals;
mod socket_activation;
mod summaries;
mod syslog_ng_in;
mod unique_flood;
mod verdicts;
mod when_full;
mod windows;
