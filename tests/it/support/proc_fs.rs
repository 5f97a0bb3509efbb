//! What the kernel says about a process: open files, memory, processor time.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// Open file descriptors.
pub(crate) fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Octets of memory that are resident now.
pub(crate) fn resident_octets(process: u32) -> u64 {
    status_octets(process, "VmRSS:")
}

/// The most octets of memory that have ever been resident.
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

/// Octets that the kernel holds at the end `local` of a TCP connection over IPv4: sent and not
/// acknowledged, received and not read. `None` if there is no such connection.
pub(crate) fn tcp_queues(local: SocketAddr, remote: SocketAddr) -> Option<(u64, u64)> {
    let (local, remote) = (hex(local), hex(remote));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().find_map(|line| {
        // proc_net_tcp: `sl local_address rem_address st tx_queue:rx_queue`, all in hex.
        let mut fields = line.split_whitespace().skip(1);
        if (fields.next()?, fields.next()?) != (&local, &remote) {
            return None;
        }
        let (sent, received) = fields.nth(1)?.split_once(':')?;
        let octets = |hex| u64::from_str_radix(hex, 16).unwrap();
        Some((octets(sent), octets(received)))
    })
}

/// As the kernel writes it: the address as a number in the machine's order.
fn hex(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is not IPv4");
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
