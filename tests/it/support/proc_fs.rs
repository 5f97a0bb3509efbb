//! What the kernel reports about a process: open files, threads, memory, processor time.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// The number of open file descriptors.
pub(crate) fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// The number of threads with this name.
pub(crate) fn threads_named(process: u32, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    // A thread may end while the list is read.
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|found| found.trim_end() == name).count()
}

/// The number of threads, the main thread included.
pub(crate) fn threads(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .count()
}

/// Whether a signal has stopped all threads.
pub(crate) fn is_stopped(process: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks.map(|task| task.unwrap().path()).all(|task| {
        let stat = fs::read_to_string(task.join("stat")).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        after_name.trim_start().starts_with('T')
    })
}

/// Octets of memory that are resident now.
pub(crate) fn resident_octets(process: u32) -> u64 {
    status_octets(process, "VmRSS:")
}

/// The highest number of octets of memory that were ever resident.
pub(crate) fn peak_resident_octets(process: u32) -> u64 {
    status_octets(process, "VmHWM:")
}

fn status_octets(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024
}

/// Processor time used so far, user and system.
pub(crate) fn processor_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The command's name is in parentheses and may contain anything; the fields after it are fixed.
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    // proc(5): utime and stime are fields 14 and 15, and the first field after the name is field 3. They are in
    // USER_HZ, which is 100 on every Linux on which Rust runs.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// The ends (local and remote address) of those TCP connections over IPv4 for which the kernel holds octets that were
/// sent and not acknowledged, or received and not read.
pub(crate) fn busy_tcp_connections() -> HashSet<(SocketAddr, SocketAddr)> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let entries = table.lines().skip(1).map(|line| {
        // proc_net_tcp: `sl local_address rem_address st tx_queue:rx_queue`, all in hex.
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields[1], fields[2], fields[4])
    });
    entries
        .filter(|&(_, _, queues)| queues != "00000000:00000000")
        .map(|(local, remote, _)| (socket_addr(local), socket_addr(remote)))
        .collect()
}

/// Parses the kernel's form: the address as a number in the machine's byte order, and the port.
fn socket_addr(hex: &str) -> SocketAddr {
    let (ip, port) = hex.split_once(':').unwrap();
    let ip = u32::from_str_radix(ip, 16).unwrap().to_ne_bytes();
    SocketAddr::from((ip, u16::from_str_radix(port, 16).unwrap()))
}
