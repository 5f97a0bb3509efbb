//! A disk that fails on demand.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use nix::fcntl::OFlag;

use super::{
    disk::{Disk, RealDisk},
    error::SpoolError,
    lock,
};

/// What fails, and with which error of the system.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Writing fails once this many more octets were written.
    pub(super) write: Option<(u64, i32)>,
    pub(super) sync: Option<i32>,
    pub(super) cut: Option<i32>,
    pub(super) remove: Option<i32>,
    /// Opening a file to write to it, or to make it.
    pub(super) open: Option<i32>,
    /// Reading octets in this range of any file.
    pub(super) read: Option<(u64, u64, i32)>,
}

impl Faults {
    /// Every change fails, as after a crash.
    pub(super) fn dead(write_octets: u64) -> Self {
        Self {
            write: Some((write_octets, libc::EIO)),
            sync: Some(libc::EIO),
            cut: Some(libc::EIO),
            remove: Some(libc::EIO),
            open: Some(libc::EIO),
            read: None,
        }
    }
}

/// The real disk, with faults.
#[derive(Debug)]
pub(super) struct FaultyDisk {
    pub(super) real: RealDisk,
    pub(super) faults: Arc<Mutex<Faults>>,
}

impl FaultyDisk {
    fn fail(&self, errno: Option<i32>) -> Result<(), SpoolError> {
        errno.map_or(Ok(()), |errno| Err(self.error(errno)))
    }

    fn error(&self, errno: i32) -> SpoolError {
        let source = io::Error::from_raw_os_error(errno);
        SpoolError::of("use", self.real.directory(), source)
    }
}

impl Disk for FaultyDisk {
    fn directory(&self) -> &Path {
        self.real.directory()
    }

    fn names(&self) -> Result<Vec<String>, SpoolError> {
        self.real.names()
    }

    fn open(&self, name: &str, flags: OFlag) -> Result<File, SpoolError> {
        if flags != OFlag::O_RDONLY {
            self.fail(lock(&self.faults).open)?;
        }
        self.real.open(name, flags)
    }

    fn peek(&self, name: &str) -> Result<(File, Option<SpoolError>), SpoolError> {
        self.real.peek(name)
    }

    fn remove(&self, name: &str) -> Result<(), SpoolError> {
        self.fail(lock(&self.faults).remove)?;
        self.real.remove(name)
    }

    fn sync_names(&self) -> Result<(), SpoolError> {
        self.fail(lock(&self.faults).sync)?;
        self.real.sync_names()
    }

    fn write(&self, file: &File, octets: &[u8], at: u64) -> Result<(), SpoolError> {
        let mut faults = lock(&self.faults);
        let Some((room, errno)) = &mut faults.write else {
            return self.real.write(file, octets, at);
        };
        let fits = octets.len().min(usize::try_from(*room).unwrap());
        *room -= fits as u64;
        self.real.write(file, &octets[..fits], at)?;
        if fits < octets.len() {
            return Err(self.error(*errno));
        }
        Ok(())
    }

    fn read(&self, file: &File, into: &mut [u8], at: u64) -> Result<usize, SpoolError> {
        if let Some((from, to, errno)) = lock(&self.faults).read
            && at < to
            && at + into.len() as u64 > from
        {
            return Err(self.error(errno));
        }
        self.real.read(file, into, at)
    }

    fn allocate(&self, file: &File, octets: u64) -> Result<(), SpoolError> {
        if let Some((room, errno)) = lock(&self.faults).write
            && room < octets
        {
            return Err(self.error(errno));
        }
        self.real.allocate(file, octets)
    }

    fn room(&self) -> Option<u64> {
        self.real.room()
    }

    fn sync(&self, file: &File) -> Result<(), SpoolError> {
        self.fail(lock(&self.faults).sync)?;
        self.real.sync(file)
    }

    fn cut(&self, file: &File, octets: u64) -> Result<(), SpoolError> {
        self.fail(lock(&self.faults).cut)?;
        self.real.cut(file, octets)
    }

    fn is_gone(&self) -> bool {
        self.real.is_gone()
    }

    fn check(&self) -> Result<(), SpoolError> {
        self.real.check()
    }

    fn check_place(&self) -> Result<(), SpoolError> {
        self.real.check_place()
    }

    fn keep_lock(&self) -> Result<(), SpoolError> {
        self.real.keep_lock()
    }

    fn restore(&self) -> Result<(), SpoolError> {
        self.real.restore()
    }
}
