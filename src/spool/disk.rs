//! The disk as the spool sees it: one directory of plain files.
//!
//! # Guarantees
//!
//! - Names are looked up in the directory that was checked, never by a path, and symlinks are not followed: what
//!   is put in the way later is refused, not written to.
//! - Who opens a directory has it alone, until the [`RealDisk`] is dropped or the process dies.
//!
//! # Left out
//!
//! Directories above the parent: who may exchange those may do so for everything on the machine.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag, open, openat},
    sys::stat::{FileStat, Mode, fstat, mkdirat},
    unistd::{UnlinkatFlags, fsync, geteuid, unlinkat},
};

use super::error::{SpoolError, Unsafe};

/// One directory of plain files. Tests have one that fails on demand.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// Where it is.
    fn directory(&self) -> &Path;

    /// What is in it.
    fn names(&self) -> Result<Vec<String>, SpoolError>;

    /// Opens a file of ours. `flags` say for what, and whether to make it.
    fn open(&self, name: &str, flags: OFlag) -> Result<File, SpoolError>;

    /// Removes a file; one that is not there is removed.
    fn remove(&self, name: &str) -> Result<(), SpoolError>;

    /// Waits until the names of all files are on the disk.
    fn sync_names(&self) -> Result<(), SpoolError>;

    /// Writes all of `octets`, or some of them and says why not all.
    fn write(&self, file: &File, octets: &[u8], at: u64) -> Result<(), SpoolError>;

    /// Reads some octets; none at the end of the file.
    fn read(&self, file: &File, into: &mut [u8], at: u64) -> Result<usize, SpoolError>;

    /// Waits until what was written is on the disk.
    fn sync(&self, file: &File) -> Result<(), SpoolError>;

    /// Cuts a file off behind `octets`.
    fn cut(&self, file: &File, octets: u64) -> Result<(), SpoolError>;

    /// True if the directory was removed.
    fn is_gone(&self) -> bool;

    /// Makes a removed directory anew.
    fn restore(&self) -> Result<(), SpoolError>;
}

/// A directory of the file system.
#[derive(Debug)]
pub(super) struct RealDisk {
    path: PathBuf,
    home: Mutex<Arc<Home>>,
}

/// A directory that was checked, and the lock in it.
#[derive(Debug)]
struct Home {
    directory: OwnedFd,
    _lock: Flock<File>,
}

impl RealDisk {
    /// Takes the directory `path`, and makes it if its parent is there.
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        Ok(Self {
            path: path.to_owned(),
            home: Mutex::new(Arc::new(Home::open(path)?)),
        })
    }

    fn home(&self) -> Arc<Home> {
        Arc::clone(&self.home.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn error(&self, action: &'static str, source: impl Into<std::io::Error>) -> SpoolError {
        SpoolError::of(action, &self.path, source.into())
    }
}

impl Disk for RealDisk {
    fn directory(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Result<Vec<String>, SpoolError> {
        let error = |errno: Errno| self.error("list", errno);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let home = self.home();
        let mut directory =
            Dir::openat(&home.directory, ".", flags, Mode::empty()).map_err(error)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(error)?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    fn open(&self, name: &str, flags: OFlag) -> Result<File, SpoolError> {
        open_file(&self.home().directory, &self.path, name, flags)
    }

    fn remove(&self, name: &str) -> Result<(), SpoolError> {
        match unlinkat(&self.home().directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(SpoolError::of(
                "remove",
                &self.path.join(name),
                errno.into(),
            )),
        }
    }

    fn sync_names(&self) -> Result<(), SpoolError> {
        fsync(&self.home().directory).map_err(|errno| self.error("sync", errno))
    }

    fn write(&self, file: &File, octets: &[u8], at: u64) -> Result<(), SpoolError> {
        file.write_all_at(octets, at)
            .map_err(|error| self.error("write to", error))
    }

    fn read(&self, file: &File, into: &mut [u8], at: u64) -> Result<usize, SpoolError> {
        loop {
            match file.read_at(into, at) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                answer => return answer.map_err(|error| self.error("read", error)),
            }
        }
    }

    fn sync(&self, file: &File) -> Result<(), SpoolError> {
        file.sync_data().map_err(|error| self.error("sync", error))
    }

    fn cut(&self, file: &File, octets: u64) -> Result<(), SpoolError> {
        file.set_len(octets)
            .map_err(|error| self.error("cut", error))
    }

    fn is_gone(&self) -> bool {
        fstat(&self.home().directory).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn restore(&self) -> Result<(), SpoolError> {
        let home = Arc::new(Home::open(&self.path)?);
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = home;
        Ok(())
    }
}

impl Home {
    fn open(path: &Path) -> Result<Self, SpoolError> {
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if parent.as_os_str().is_empty() => (Path::new("."), name),
            (Some(parent), Some(name)) => (parent, name),
            _ => {
                return Err(SpoolError::Unsafe {
                    path: path.to_owned(),
                    why: Unsafe::NoDirectory,
                });
            }
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let above = open(parent, flags | OFlag::O_PATH, Mode::empty())
            .map_err(|errno| SpoolError::of("open", parent, errno.into()))?;
        check_parent(parent, &above)?;
        let directory = open_directory(&above, name, path)?;
        let lock = lock(&directory, path)?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }
}

/// Opens the directory, and makes it if it is not there.
fn open_directory(above: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, SpoolError> {
    let error = |errno: Errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP => SpoolError::Unsafe {
            path: path.to_owned(),
            why: Unsafe::NoDirectory,
        },
        errno => SpoolError::of("open", path, errno.into()),
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let find = || openat(above, name, flags | OFlag::O_NOFOLLOW, Mode::empty());
    let directory = match find() {
        Err(Errno::ENOENT) => {
            mkdirat(above, name, Mode::S_IRWXU)
                .map_err(|errno| SpoolError::of("make", path, errno.into()))?;
            // As far as the parent can be opened: it may be closed to us.
            let _synced = openat(above, ".", flags, Mode::empty()).and_then(fsync);
            find()
        }
        found => found,
    }
    .map_err(error)?;
    let stat = fstat(&directory).map_err(error)?;
    check_owner(path, &stat)?;
    check_mode(path, &stat)?;
    Ok(directory)
}

/// Nobody else may exchange the directory: where everybody may write, the sticky bit keeps them from it.
fn check_parent(path: &Path, above: &OwnedFd) -> Result<(), SpoolError> {
    let stat = fstat(above).map_err(|errno| SpoolError::of("look at", path, errno.into()))?;
    if stat.st_uid != 0 {
        check_owner(path, &stat)?;
    }
    if stat.st_mode & Mode::S_ISVTX.bits() == 0 {
        check_mode(path, &stat)?;
    }
    Ok(())
}

fn check_owner(path: &Path, stat: &FileStat) -> Result<(), SpoolError> {
    let (owner, us) = (stat.st_uid, geteuid().as_raw());
    if owner == us {
        return Ok(());
    }
    Err(SpoolError::Unsafe {
        path: path.to_owned(),
        why: Unsafe::Owner { owner, us },
    })
}

fn check_mode(path: &Path, stat: &FileStat) -> Result<(), SpoolError> {
    if stat.st_mode & (Mode::S_IWGRP | Mode::S_IWOTH).bits() == 0 {
        return Ok(());
    }
    Err(SpoolError::Unsafe {
        path: path.to_owned(),
        why: Unsafe::Mode {
            mode: stat.st_mode & 0o7777,
        },
    })
}

/// Opens a file of ours in a directory that was checked.
fn open_file(
    directory: impl AsFd,
    path: &Path,
    name: &str,
    flags: OFlag,
) -> Result<File, SpoolError> {
    let path = path.join(name);
    // Not to wait for somebody at the other end, if it turns out to be a pipe.
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let error = |errno: Errno| SpoolError::of("open", &path, errno.into());
    let file = openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(error)?;
    let file = File::from(file);
    let stat = fstat(&file).map_err(error)?;
    let regular = file.metadata().is_ok_and(|meta| meta.is_file());
    if !regular || stat.st_nlink > 1 {
        return Err(SpoolError::Unsafe {
            path,
            why: Unsafe::NoFile,
        });
    }
    check_owner(&path, &stat)?;
    check_mode(&path, &stat)?;
    Ok(file)
}

/// Takes the lock, and says in it who has it.
fn lock(directory: &OwnedFd, path: &Path) -> Result<Flock<File>, SpoolError> {
    let file = match open_file(directory, path, LOCK, OFlag::O_RDWR | OFlag::O_CREAT) {
        // What is there can be read, and locked.
        Err(SpoolError::ReadOnly { .. }) => open_file(directory, path, LOCK, OFlag::O_RDONLY)?,
        opened => opened?,
    };
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
        |(file, errno)| match errno {
            Errno::EWOULDBLOCK => SpoolError::Busy {
                directory: path.to_owned(),
                pid: read_pid(&file),
            },
            errno => SpoolError::of("lock", path, errno.into()),
        },
    )?;
    // For people to read; on a full disk it stays untold.
    let _told = lock
        .set_len(0)
        .and_then(|()| writeln!(&mut *lock, "{}", std::process::id()));
    Ok(lock)
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_OCTETS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// True if the file has no name any more.
pub(super) fn is_removed(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.nlink() == 0)
}

/// The file that is locked.
const LOCK: &str = "lock";

/// A process id takes less.
const PID_OCTETS_MAX: u64 = 32;
