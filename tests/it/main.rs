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
mod after_a_storm;
mod balance;
mod broken_connections;
mod check_and_run;
mod clocks;
mod connection_limits;
mod costly_masks;
mod cuts;
mod datagram_sizes;
mod defaults;
mod deploy;
mod descriptors;
mod different_messages;
mod explain;
mod failover;
mod fairness;
mod file_rotation;
mod file_upstream;
mod first_copy;
mod giant_frames;
mod half_closed;
mod harness;
mod hash_flood;
mod hostile_octets;
mod idle_connections;
mod ipv6;
mod kernel_drops;
mod large_frames;
mod least_memory;
mod listener_moves;
mod local_upstreams;
mod logger;
mod loops;
mod memory;
mod never_suppressed;
mod output_framing;
mod own_log;
mod passed_sockets;
mod path_dead;
mod paused;
mod pipes;
mod queue_full;
mod reload;
mod reload_many_windows;
mod reload_storm;
mod relp_in;
mod relp_out;
mod replay;
mod replay_broken;
mod replay_report;
mod rsyslog_in;
mod rsyslog_out;
mod rsyslog_restarted;
mod rules;
mod service_manager;
mod shutdown;
mod signals;
mod slow_peers;
mod socket_activation;
mod spool;
mod spool_broken;
mod spool_full;
mod spool_moved;
mod spool_unsafe;
mod stderr_closed;
mod stdout_closed;
mod stop_hurries;
mod stop_in_doubt;
mod stream_ends;
mod summaries;
mod suppressed_aside;
mod syslog_ng_in;
mod threads;
mod tls_on_plaintext;
mod udp_refused;
mod unique_flood;
mod unix_paths;
mod upstream_answers;
mod upstream_closes;
mod upstream_moves;
mod upstream_refuses;
mod upstream_slow;
mod upstream_stalls;
mod verdicts;
mod when_full;
mod windows;
mod windows_saved;
