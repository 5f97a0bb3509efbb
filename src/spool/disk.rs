//! The disk as the spool sees it: one directory of plain files.
//!
//! # Guarantees
//!
//! - Names are looked up in the directory that was checked, never by a path, and symlinks are not followed. A file
//!   that another process puts there later is refused, not written to.
//! - A process that opens a directory has it alone, until the [`RealDisk`] is dropped or the process dies. If the lock
//!   file is removed, [`Disk::keep_lock`] makes and locks another.
//! - Nothing is written to a file that has a second name, or that group or others may write to. Such a lock file is
//!   locked, but the process id is not written to it.
//! - [`Disk::check_place`] says whether the configured path still leads to the open directory. We compare device and inode,
//!   and do not follow a symlink at the path's end. The open directory stays in use.
//!
//! # What is safe
//!
//! | the file | the danger | what we do |
//! |---|---|---|
//! | is a symlink or no regular file | another process put it there | refuse it |
//! | belongs to another user | that user can change it at any time | refuse it |
//! | has a second name | another process uses the file by that name; what we write it reads, what it writes we read | wait until it has one name |
//! | group or others may write to it | its octets may not be those that we wrote | wait until the mode is right |
//! | others may read it | they may have done so; waiting undoes nothing | open it |
//!
//! The operator can repair a file that has a second name or too loose a mode, and only the operator knows what was done
//! to it. So its frames wait, and the error says what repairs it. [`Disk::peek`] opens it nevertheless, for its header and
//! its length, which tell how many frames wait in it.
//!
//! # Left out
//!
//! - Directories above the parent: a user who may exchange those controls everything on the machine.
//! - A mount in another mount namespace: this process does not see it.

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
    sync::{Arc, Mutex},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{FallocateFlags, Flock, FlockArg, OFlag, fallocate, open, openat},
    sys::{
        stat::{FileStat, Mode, fstat, lstat, mkdirat},
        statvfs::fstatvfs,
    },
    unistd::{UnlinkatFlags, fsync, geteuid, unlinkat},
};

use super::{
    error::{SpoolError, Unsafe},
    lock,
};

/// One directory of plain files. Tests use one that fails on demand.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    fn directory(&self) -> &Path;

    /// The names of the files in it.
    fn names(&self) -> Result<Vec<String>, SpoolError>;

    /// Opens a file of the spool. `flags` say how, and whether to make it.
    fn open(&self, name: &str, flags: OFlag) -> Result<File, SpoolError>;

    /// Opens a file of the spool to look at it. Also returns what is not safe about it, if the operator can repair that: a
    /// second name, or a mode that allows others to write.
    fn peek(&self, name: &str) -> Result<(File, Option<SpoolError>), SpoolError>;

    /// Removes a file. Succeeds if it does not exist.
    fn remove(&self, name: &str) -> Result<(), SpoolError>;

    /// Waits until the names of all files are on the disk.
    fn sync_names(&self) -> Result<(), SpoolError>;

    /// Writes all of `octets`. After an error, part of them may be written.
    fn write(&self, file: &File, octets: &[u8], at: u64) -> Result<(), SpoolError>;

    /// Reads at least one octet; none at the end of the file.
    fn read(&self, file: &File, into: &mut [u8], at: u64) -> Result<usize, SpoolError>;

    /// Allocates space on the disk for a file, if the file system can do that without writing.
    fn allocate(&self, file: &File, octets: u64) -> Result<(), SpoolError>;

    /// Free octets on the disk; `None` if the file system does not tell.
    fn room(&self) -> Option<u64>;

    /// Waits until the file's content is on the disk.
    fn sync(&self, file: &File) -> Result<(), SpoolError>;

    /// Cuts a file to `octets`.
    fn cut(&self, file: &File, octets: u64) -> Result<(), SpoolError>;

    /// True if the directory was removed.
    fn is_gone(&self) -> bool;

    /// Checks the directory again: its owner or mode may have changed.
    fn check(&self) -> Result<(), SpoolError>;

    /// Checks that the path leads to the directory; [`SpoolError::Moved`] if not.
    fn check_place(&self) -> Result<(), SpoolError>;

    /// Makes and locks a new lock file if the old one was removed: another process would make one and lock that.
    fn keep_lock(&self) -> Result<(), SpoolError>;

    /// Makes the directory anew after it was removed.
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
    lock: Flock<File>,
    /// What was at the path when the directory was opened. Some file systems report another inode for an open file than for
    /// its name.
    found: Option<Identity>,
}

/// Identifies a directory: device and inode.
type Identity = (u64, u64);

impl RealDisk {
    /// Opens and locks the directory `path`. Makes it if its parent exists.
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        Ok(Self {
            path: path.to_owned(),
            home: Mutex::new(Arc::new(Home::open(path)?)),
        })
    }

    fn home(&self) -> Arc<Home> {
        Arc::clone(&lock(&self.home))
    }

    fn move_to(&self, home: Home) {
        *lock(&self.home) = Arc::new(home);
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

    fn peek(&self, name: &str) -> Result<(File, Option<SpoolError>), SpoolError> {
        peek_file(&self.home().directory, &self.path, name, OFlag::O_RDONLY)
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

    fn allocate(&self, file: &File, octets: u64) -> Result<(), SpoolError> {
        let octets = i64::try_from(octets).unwrap_or(i64::MAX);
        match fallocate(file, FallocateFlags::empty(), 0, octets) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(self.error("reserve space in", errno)),
        }
    }

    fn room(&self) -> Option<u64> {
        let stat = fstatvfs(&self.home().directory).ok()?;
        // A file system without a size, such as some in user space, does not tell.
        (stat.blocks() > 0).then(|| stat.blocks_available().saturating_mul(stat.fragment_size()))
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

    fn check(&self) -> Result<(), SpoolError> {
        check_directory(&self.path, &self.home().directory)
    }

    fn check_place(&self) -> Result<(), SpoolError> {
        let home = self.home();
        let moved = |is_missing| SpoolError::Moved {
            directory: self.path.clone(),
            is_missing,
        };
        let there = match identity_at(&self.path) {
            Ok(there) => there,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(moved(true)),
            Err(errno) => return Err(self.error("inspect", errno)),
        };
        if home.found == Some(there) {
            return Ok(());
        }
        let ours = fstat(&home.directory).map_err(|errno| self.error("inspect", errno))?;
        if identity(&ours) == there {
            return Ok(());
        }
        Err(moved(false))
    }

    fn keep_lock(&self) -> Result<(), SpoolError> {
        let home = self.home();
        if !is_removed(&home.lock) {
            return Ok(());
        }
        let error = |error| SpoolError::of("use", &self.path, error);
        let directory = home.directory.try_clone().map_err(error)?;
        let lock = take_lock(&directory, &self.path)?;
        self.move_to(Home {
            directory,
            lock,
            found: home.found,
        });
        Ok(())
    }

    fn restore(&self) -> Result<(), SpoolError> {
        self.move_to(Home::open(&self.path)?);
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
        let lock = take_lock(&directory, path)?;
        Ok(Self {
            directory,
            lock,
            found: identity_at(path).ok(),
        })
    }
}

/// Opens the directory. Makes it if it is not there.
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
                .map_err(|errno| SpoolError::of("create", path, errno.into()))?;
            // The parent may not be readable to this process; then its name is not synced.
            let _synced = openat(above, ".", flags, Mode::empty()).and_then(fsync);
            find()
        }
        found => found,
    }
    .map_err(error)?;
    check_directory(path, &directory)?;
    Ok(directory)
}

/// What is at the path, which may be a symlink. A slash at the end would follow it, so it is left out.
fn identity_at(path: &Path) -> Result<Identity, Errno> {
    let path = path
        .file_name()
        .map_or_else(|| path.to_owned(), |name| path.with_file_name(name));
    lstat(&path).map(|stat| identity(&stat))
}

const fn identity(stat: &FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

pub(super) fn check_directory(path: &Path, directory: &OwnedFd) -> Result<(), SpoolError> {
    let stat = fstat(directory).map_err(|errno| SpoolError::of("inspect", path, errno.into()))?;
    let checked = check_owner(path, &stat).and_then(|()| check_mode(path, &stat));
    checked.map_err(|error| match error {
        SpoolError::Unsafe { path, why } if is_common(&path, &stat) => {
            SpoolError::NotOwn { path, why }
        }
        error => error,
    })
}

/// Whether other programs use the directory too: it is sticky, or it has files that no spool makes.
fn is_common(path: &Path, stat: &FileStat) -> bool {
    let is_foreign = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        let is_segment = name.windows(8).any(|part| part == b".segment");
        !is_segment && !OWN_NAMES.iter().any(|own| name.starts_with(own.as_bytes()))
    };
    let holds_foreign = || {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries
            .flatten()
            .any(|entry| is_foreign(&entry.file_name()))
    };
    stat.st_mode & Mode::S_ISVTX.bits() != 0 || holds_foreign()
}

/// Checks that no other user can exchange the directory. In a parent that all may write to, the sticky bit prevents it.
pub(super) fn check_parent(path: &Path, above: &OwnedFd) -> Result<(), SpoolError> {
    let stat = fstat(above).map_err(|errno| SpoolError::of("inspect", path, errno.into()))?;
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

/// Opens a file of the spool in a directory that was checked.
fn open_file(
    directory: impl AsFd,
    path: &Path,
    name: &str,
    flags: OFlag,
) -> Result<File, SpoolError> {
    match peek_file(directory, path, name, flags)? {
        (file, None) => Ok(file),
        (_, Some(error)) => Err(error),
    }
}

/// The same, but returns apart what the operator can repair.
fn peek_file(
    directory: impl AsFd,
    path: &Path,
    name: &str,
    flags: OFlag,
) -> Result<(File, Option<SpoolError>), SpoolError> {
    let path = path.join(name);
    // O_NONBLOCK: if it is a pipe, do not wait for its other end.
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let error = |errno: Errno| SpoolError::of("open", &path, errno.into());
    let file = openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(error)?;
    let file = File::from(file);
    let stat = fstat(&file).map_err(error)?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(SpoolError::Unsafe {
            path,
            why: Unsafe::NoFile,
        });
    }
    check_owner(&path, &stat)?;
    let names = stat.st_nlink;
    // The mode comes first. A file that only has a second name holds what its owner wrote.
    let reparable = check_mode(&path, &stat).err().or_else(|| {
        let why = Unsafe::Names { names };
        (names > 1).then_some(SpoolError::Unsafe { path, why })
    });
    Ok((file, reparable))
}

/// Locks the lock file, and writes the process id to it.
fn take_lock(directory: &OwnedFd, path: &Path) -> Result<Flock<File>, SpoolError> {
    let (file, is_safe) = match open_file(directory, path, LOCK, OFlag::O_RDWR | OFlag::O_CREAT) {
        // A lock file on a read-only disk can still be read and locked.
        Err(SpoolError::ReadOnly { .. }) => {
            (open_file(directory, path, LOCK, OFlag::O_RDONLY)?, true)
        }
        Err(SpoolError::Unsafe {
            why: Unsafe::Names { .. } | Unsafe::Mode { .. },
            ..
        }) => {
            let (file, _) = peek_file(directory, path, LOCK, OFlag::O_RDONLY)?;
            (file, false)
        }
        opened => (opened?, true),
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
    if is_safe {
        // For operators to read. On a full disk it is not written.
        let _told = lock
            .set_len(0)
            .and_then(|()| writeln!(&mut *lock, "{}", std::process::id()));
    }
    Ok(lock)
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_OCTETS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// True if the file was removed.
pub(super) fn is_removed(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.nlink() == 0)
}

/// The file that is locked.
const LOCK: &str = "lock";

/// What the names of the spool's own files begin with, except for segments.
const OWN_NAMES: [&str; 3] = [LOCK, "cursor", "trial"];

/// More octets than a process id takes.
const PID_OCTETS_MAX: u64 = 32;
