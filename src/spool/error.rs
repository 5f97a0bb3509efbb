//! What can go wrong with the spool. Each error has a variant of its own, because each asks for another action.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the spool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The spool would grow beyond its limit.
    #[error(
        "the spool holds {octets} octets, and {more} more would exceed its limit of {max} (spool.max_size); \
         bring the collector back, or raise spool.max_size if the disk has room"
    )]
    Full {
        /// Octets that the spool takes on the disk.
        octets: u64,
        /// Octets that were to be added.
        more: u64,
        /// The limit.
        max: u64,
    },
    /// The disk or the quota is full.
    #[error("no space left on the disk of {}: {why}; make room there", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// The system's error, about the disk or a quota.
        why: io::Error,
    },
    /// The disk can only be read.
    #[error("{} is on a disk that is mounted read-only (EROFS); look for its error in the kernel's log, and remount it", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The directory was removed while the spool was open. What was in it is lost. The next append makes it anew.
    #[error("the spool's directory {} was removed", directory.display())]
    Gone {
        /// The configured path.
        directory: PathBuf,
    },
    /// The path does not lead to the open directory any more. What the open directory holds can be read. Nothing is
    /// written to it until it is back at its path, because the next process would not find it.
    #[error(
        "{} {}; what was spooled is in the old one: move it back, or restart after copying its segments",
        directory.display(),
        if *is_missing {
            "is not there any more (moved)"
        } else {
            "is another directory now (moved, or something is mounted over it)"
        }
    )]
    Moved {
        /// The configured path.
        directory: PathBuf,
        /// Whether nothing is at the path now.
        is_missing: bool,
    },
    /// Another process has the spool.
    #[error(
        "the spool {} is in use by {}",
        directory.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Busy {
        /// The spool's directory.
        directory: PathBuf,
        /// The process id in the lock file.
        pid: Option<u32>,
    },
    /// Another user could write to files that we read, or redirect what we write.
    #[error("{} is not safe: {why}{}", path.display(), why.repair(path))]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: Unsafe,
    },
    /// The same for a directory that other programs use too, so the advice is not to change its mode.
    #[error(
        "{} is not safe: {why}, and other programs use it too; set spool.directory to a subdirectory for tersed alone, or to \
         another directory, such as /var/lib/tersed/spool",
        path.display()
    )]
    NotOwn {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: Unsafe,
    },
    /// A version with another format wrote the segment.
    #[error("{} has format {found}; this version reads format {known}", path.display())]
    Format {
        /// The segment.
        path: PathBuf,
        /// The format in its header.
        found: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// A segment does not continue the one before it: it comes from another spool.
    #[error("{} does not continue the segment before it: is it from another spool? \
         if so, move it out of the directory", path.display())]
    Foreign {
        /// The segment.
        path: PathBuf,
    },
    /// A frame is longer than a record can hold.
    #[error("a frame of {octets} octets, limit {}", u32::MAX >> 1)]
    TooLong {
        /// Its octets.
        octets: usize,
    },
    /// Any other error of the disk.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// What is wrong with a file or a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsafe {
    /// Group or others may write to it.
    #[error("mode {mode:04o} allows group or others to write")]
    Mode {
        /// The permission bits.
        mode: u32,
    },
    /// Another user owns it.
    #[error("user {owner} owns it, but tersed runs as user {us}")]
    Owner {
        /// Its owner.
        owner: u32,
        /// The user that tersed runs as.
        us: u32,
    },
    /// It is not a directory, or it is a symlink.
    #[error("it is not a directory, or a symlink to one")]
    NoDirectory,
    /// It is not a regular file, or it is a symlink.
    #[error("it is not a regular file (symlinks are not followed)")]
    NoFile,
    /// The file has hard links: a program that writes to one of its names writes to all.
    #[error("it has {names} hard links")]
    Names {
        /// How many.
        names: u64,
    },
}

impl Unsafe {
    /// What repairs it, as text to follow what is wrong with `path`.
    fn repair(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Mode { .. } => format!("; chmod go-w {path}"),
            Self::Owner { us, .. } => format!("; chown {us} {path}"),
            Self::NoDirectory | Self::NoFile => String::new(),
            Self::Names { .. } => format!(
                "; delete the others, or make it a file of its own: cp -p {path} {path}.new && mv {path}.new {path}"
            ),
        }
    }
}

impl SpoolError {
    /// The variant for an error of the system.
    pub(super) fn of(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace { path, why: source },
            Some(libc::EROFS) => Self::ReadOnly { path },
            Some(libc::ELOOP) => Self::Unsafe {
                path,
                why: Unsafe::NoFile,
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// True if there was not enough room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoSpace { .. })
    }

    /// True if a file has a second name, and nothing else is wrong with it.
    pub(super) const fn is_second_name(&self) -> bool {
        matches!(
            self,
            Self::Unsafe {
                why: Unsafe::Names { .. },
                ..
            }
        )
    }

    /// True if there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// True if the medium could not be read or written.
    pub(super) fn is_medium(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(libc::EIO))
    }
}
