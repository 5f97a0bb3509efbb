//! The real binary, driven from outside: one file per behavior.
//!
//! Every test starts a relay on ephemeral ports, talks to it as originators and collectors do, and
//! ends by checking from `/metrics` that every frame is accounted for. Nothing sleeps: a test waits
//! for a condition, with a limit. What a test needs and does not find is a failure that names the
//! package to install, never a skip; `tests/run` installs them all.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

mod admin;
mod connection_limits;
mod datagram_sizes;
mod defaults;
mod deploy;
<<<<<<< HEAD
mod failover;
mod file_upstream;
=======
mod descriptors;
>>>>>>> wt-config
mod first_copy;
mod giant_frames;
mod harness;
mod idle_connections;
<<<<<<< HEAD
mod local_upstreams;
=======
mod kernel_drops;
mod large_frames;
>>>>>>> wt-config
mod logger;
mod output_framing;
mod queue_full;
mod rsyslog_in;
mod rsyslog_out;
mod signals;
<<<<<<< HEAD
mod stdout_closed;
mod summaries;
mod syslog_ng_in;
mod upstream_answers;
mod upstream_closes;
mod upstream_moves;
mod upstream_refuses;
mod upstream_stalls;
=======
mod slow_peers;
mod summaries;
mod syslog_ng_in;
mod tls_on_plaintext;
>>>>>>> wt-config
