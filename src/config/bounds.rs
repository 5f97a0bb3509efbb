//! The limits of what can be configured, each with the reason for its value.

use std::time::Duration;

/// The shortest window: below it, repeats of one event are not recognised as such anyway.
pub(crate) const WINDOW_MIN: Duration = Duration::from_millis(1);
/// The longest window and the longest `max_quiet`: a condition that persists must show up in a week's log.
pub(crate) const WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most copies that a window may allow.
pub(crate) const ALLOW_MAX: u32 = 1_000_000;
/// `max_quiet` in windows, by default.
pub(crate) const MAX_QUIET_WINDOWS: u32 = 10;
/// The smallest `dedup.memory`. Many rules or shards need more (`fit`).
pub(crate) const MEMORY_MIN: usize = MIB;
/// The largest `dedup.memory`: more is a typing error.
pub(crate) const MEMORY_MAX: usize = GIB.saturating_mul(1024);
pub(crate) const SHARDS_MAX: usize = 4096;
/// The most worker threads.
pub(crate) const WORKERS_MAX: usize = 1024;
/// The most connections that may be configured for one listener; the kernel's limit on open files
/// comes first.
pub(crate) const CONNECTIONS_MAX: usize = 1_000_000;
/// `window` of a RELP listener, by default: more than any client is known to use, so that the client's own window
/// decides.
pub(crate) const RELP_WINDOW: usize = 4096;
/// The largest `window` of a RELP listener: each transaction takes a few octets.
pub(crate) const RELP_WINDOW_MAX: usize = 65_536;
/// The shortest time-out or retry pause.
pub(crate) const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// The longest time-out of an operation that is stuck.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
pub(crate) const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
pub(crate) const GRACE_MAX: Duration = TIMEOUT_MAX;
/// The smallest `receive_buffer`: below it the kernel drops at every burst.
pub(crate) const RECEIVE_BUFFER_MIN: usize = 64 * KIB;
/// The largest `receive_buffer`: the kernel counts it double, in an `int` (socket(7)).
pub(crate) const RECEIVE_BUFFER_MAX: usize = GIB - MIB;
pub(crate) const QUEUE_MIN: usize = 64 * KIB;
/// The largest `forward.queue`: its room is counted in 32 bits, and longer queues belong on a disk.
pub(crate) const QUEUE_MAX: usize = 4 * GIB - MIB;
/// The smallest `spool.max_size`: holds one full queue of the smallest size, with its bookkeeping.
pub(crate) const SPOOL_MIN: usize = MIB;
/// The largest `spool.max_size`: more is a typing error.
pub(crate) const SPOOL_MAX: usize = GIB.saturating_mul(1024 * 64);
pub(crate) const RESEND_MAX: usize = GIB;
/// The shortest `forward.resend_age`: any working reader is faster.
pub(crate) const RESEND_AGE_MIN: Duration = Duration::from_secs(1);
pub(crate) const REBIND_MIN: Duration = Duration::from_secs(1);
pub(crate) const REBIND_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The largest payload of a UDP datagram over IPv4: 65,535 less the headers of IP and UDP.
pub(crate) const UDP_PAYLOAD_MAX: usize = 65_507;
/// The smallest `rotate_size`: a file is rotated between two writes, and one of them is a quarter of this.
pub(crate) const ROTATE_SIZE_MIN: usize = MIB;
/// The largest `rotate_size`: larger files are hard to open.
pub(crate) const ROTATE_SIZE_MAX: usize = GIB.saturating_mul(1024);
/// The shortest `rotate_age`: below it a directory fills with names.
pub(crate) const ROTATE_AGE_MIN: Duration = Duration::from_secs(60);
pub(crate) const ROTATE_AGE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The most rotated files: each rotation reads all their names.
pub(crate) const ROTATE_KEEP_MAX: usize = 10_000;
/// The most octets of a configuration file: far more than any has.
pub(crate) const FILE_OCTETS_MAX: usize = MIB;

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;
pub(super) const GIB: usize = 1024 * MIB;
