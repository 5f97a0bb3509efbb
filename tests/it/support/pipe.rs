//! The reading end of a pipe, which reads only when the test says so.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use super::wait::{LIMIT, wait_until};

/// The reader of a pipe, and what it has read.
pub(crate) struct Reader {
    pipe: File,
    octets: Vec<u8>,
}

impl Reader {
    /// Creates a pipe with a capacity of so many octets; returns its reader and its other end.
    pub(crate) fn pipe(capacity: usize) -> (Self, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = File::from(OwnedFd::from(reader));
        set_flags(&reader, OFlag::O_NONBLOCK);
        (Self::of(reader, capacity), writer.into())
    }

    /// The reader of a FIFO with a capacity of so many octets; creates the FIFO if it does not exist.
    pub(crate) fn fifo(path: &Path, capacity: usize) -> Self {
        if !path.exists() {
            make_fifo(path);
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        Self::of(options.open(path).unwrap(), capacity)
    }

    fn of(pipe: File, capacity: usize) -> Self {
        let capacity = capacity.try_into().unwrap();
        fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(capacity)).unwrap();
        Self {
            pipe,
            octets: Vec::new(),
        }
    }

    /// Reads at most `octets` of what is in the pipe now. Returns whether there was anything.
    pub(crate) fn read(&mut self, octets: usize) -> bool {
        let mut buffer = vec![0; octets];
        match self.pipe.read(&mut buffer) {
            Ok(count) => {
                self.octets.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(err) => {
                assert_eq!(err.kind(), ErrorKind::WouldBlock, "{err}");
                false
            }
        }
    }

    /// Reads everything that is in the pipe now.
    pub(crate) fn read_all(&mut self) {
        while self.read(64 * 1024) {}
    }

    /// How many octets in the pipe are not read.
    pub(crate) fn unread(&self) -> usize {
        // `tee` copies the contents without taking them out.
        let (_reader, copy) = std::io::pipe().unwrap();
        fcntl(&copy, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
        let flags = nix::fcntl::SpliceFFlags::SPLICE_F_NONBLOCK;
        nix::fcntl::tee(&self.pipe, &copy, 1 << 20, flags).unwrap_or_default()
    }

    /// Reads `octets` at a time until there are `count` lines.
    #[track_caller]
    pub(crate) fn wait_lines(&mut self, count: usize, octets: usize) -> Vec<Vec<u8>> {
        let what = format!("{count} lines in the pipe");
        wait_until(&what, LIMIT, || {
            self.read(octets);
            self.lines().0.len() >= count
        });
        self.lines().0
    }

    /// The octets that were read.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The lines that were read, and what came after the last.
    pub(crate) fn lines(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut lines: Vec<_> = self.octets.split(|&octet| octet == b'\n').collect();
        let rest = lines.pop().unwrap_or_default();
        let lines = lines.into_iter().map(<[u8]>::to_vec).collect();
        (lines, rest.to_vec())
    }
}

pub(crate) fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, Mode::S_IRWXU | Mode::S_IRWXO).unwrap();
}

/// The file status flags of an open file.
pub(crate) fn flags(file: impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).unwrap())
}

/// Sets further flags.
pub(crate) fn set_flags(file: impl AsFd, more: OFlag) {
    let flags = flags(&file) | more;
    fcntl(file, FcntlArg::F_SETFL(flags)).unwrap();
}
