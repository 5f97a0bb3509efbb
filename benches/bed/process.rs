//! A relay's process: how much processor time and memory it took.
//!
//! The total processor time is the kernel's own sum, exact to the nanosecond (`CPUTIME` clock of the process, ended
//! threads included). The division into user and system time may come from the kernel's tick (4 ms on most machines):
//! it is a sample, and means little for runs shorter than half a second.

use std::{fs, io, process::Child, time::Duration};

use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// A started process; it is killed on drop.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

/// Processor time so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) total: Duration,
    /// Sampled; it exceeds `total` by at most a hundredth of a second.
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Process {
    /// What all of its threads took so far.
    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        let total = clock_gettime(clock_getcpuclockid(pid)?)?.into();
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = |index: usize| {
            let field = behind_name.split_whitespace().nth(index);
            let ticks: u64 = field.and_then(|field| field.parse().ok()).unwrap_or(0);
            // In hundredths of a second, whatever the kernel's tick is (USER_HZ).
            Duration::from_millis(ticks * 10)
        };
        Ok(Cpu {
            total,
            user: ticks(11),
            system: ticks(12),
        })
    }

    /// The most physical memory that it ever held.
    pub(crate) fn peak_octets(&self) -> io::Result<u64> {
        self.status("VmHWM:")
    }

    /// The physical memory that it holds.
    pub(crate) fn resident_octets(&self) -> io::Result<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::other(format!("no {name} of the relay; it may have ended")))
    }
}

impl Cpu {
    /// The difference to `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let total = self.total.saturating_sub(earlier.total);
        let user = self.user.saturating_sub(earlier.user).as_secs_f64();
        let system = self.system.saturating_sub(earlier.system).as_secs_f64();
        // The exact total, divided in the proportion of the samples.
        let share = if user + system > 0.0 {
            user / (user + system)
        } else {
            1.0
        };
        let user = total.mul_f64(share);
        Self {
            total,
            user,
            system: total.saturating_sub(user),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
