//! What the kernel says about a process: open files, memory, processor time.

use std::fs;
use std::time::Duration;

/// Open file descriptors.
pub(crate) fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Octets of memory that are resident now.
pub(crate) fn resident_octets(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024
}

/// Processor time used so far, user and system.
pub(crate) fn processor_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The command's name stands in brackets and may hold anything; what follows is fixed.
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    // proc(5): utime and stime are fields 14 and 15, the first after the name is field 3; in
    // USER_HZ, which is 100 on every Linux that runs Rust.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
