//! What the kernel reports about this process, read at each scrape from `/proc/self` and `getrusage`.
//!
//! If a sandbox hides `/proc`, the values that need it are left out of the page.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// Physical memory held, in octets.
pub(super) fn resident_octets() -> Option<u64> {
    resident_in(&fs::read_to_string("/proc/self/status").ok()?)
}

pub(super) fn open_fds() -> Option<u64> {
    let listed = u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
    // The listing holds the descriptor that it was read through.
    Some(listed.saturating_sub(1))
}

/// Processor time used in user and kernel mode, in seconds.
pub(super) fn cpu_secs() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(micros as f64 / 1e6)
}

/// VmRSS of a `/proc/<pid>/status`, which is in units of 1,024 octets whatever the page size.
fn resident_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_octets() {
        for (status, expected) in [
            (
                "VmHWM:\t    9000 kB\nVmRSS:\t    1234 kB\nThreads:\t4\n",
                Some(1_263_616),
            ),
            ("VmHWM:\t    9000 kB\n", None),
            ("VmRSS:\t    1234 pages\n", None),
            ("VmRSS:\t    99999999999999999999 kB\n", None),
            ("", None),
        ] {
            assert_eq!(resident_in(status), expected, "{status:?}");
        }
    }

    #[test]
    fn this_process_holds_memory_and_descriptors_and_has_used_time() {
        assert!(resident_octets().unwrap() > 100_000);
        assert!(open_fds().unwrap() >= 3, "standard input, output, error");
        assert!(cpu_secs().unwrap() >= 0.0);
    }
}
