//! What can go wrong with the spool: each its own, because each has somebody else to act.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the spool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It would grow beyond its limit.
    #[error(
        "the spool holds {octets} octets, and {more} more would exceed its limit of {max} (spool.max_size); \
         bring the collector back, or raise spool.max_size if the disk has room"
    )]
    Full {
        /// Octets that it takes on the disk.
        octets: u64,
        /// Octets to be added.
        more: u64,
        /// The limit.
        max: u64,
    },
    /// The disk or the quota is full.
    #[error("no space left on the disk of {}: {why}; make room there", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
        /// What the system said: of the disk, or of a quota.
        why: io::Error,
    },
    /// The disk can only be read.
    #[error("{} is on a disk that is mounted read-only (EROFS); look for its error in the kernel's log, and remount it", path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
    },
    /// The directory was removed while the spool was open. What was in it is lost; the next append makes it anew.
    #[error("the spool's directory {} was removed", directory.display())]
    Gone {
        /// Where it was.
        directory: PathBuf,
    },
    /// The path leads elsewhere while the spool is open. What is in the open directory can be read, and nothing is
    /// written to it until it is back: the next process would not find it.
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
        /// Where it was.
        directory: PathBuf,
        /// Nothing is there now.
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
        /// The process that says it has it.
        pid: Option<u32>,
    },
    /// Others could write what we read, or make us write what is theirs.
    #[error("{} is not safe: {why}{}", path.display(), why.mend(path))]
    Unsafe {
        /// What was looked at.
        path: PathBuf,
        /// What is wrong with it.
        why: Unsafe,
    },
    /// The same of a directory that others use as well: to close it to them would do harm.
    #[error(
        "{} is not safe: {why}, and it is not the spool's own; set spool.directory to a directory of its own below it, or to \
         another, such as /var/lib/tersed/spool",
        path.display()
    )]
    NotOwn {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: Unsafe,
    },
    /// A segment was written by a version that writes them otherwise.
    #[error("{} has format {found}, this is the version for format {known}", path.display())]
    Format {
        /// The segment.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What this version reads.
        known: u32,
    },
    /// A segment does not continue the one before it: it comes from another spool.
    #[error("{} does not continue the segment before it: is it from another spool? \
         if so, move it out of the directory", path.display())]
    Foreign {
        /// The segment.
        path: PathBuf,
    },
    /// A frame is longer than a record can tell.
    #[error("a frame of {octets} octets, limit {}", u32::MAX >> 1)]
    TooLong {
        /// Its octets.
        octets: usize,
    },
    /// Anything else that the disk said.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with a file or a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsafe {
    /// Group or others may write to it.
    #[error("its mode {mode:04o} lets group or others write")]
    Mode {
        /// The permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("it belongs to user {owner}, and this is user {us}")]
    Owner {
        /// Its owner.
        owner: u32,
        /// We.
        us: u32,
    },
    /// The directory is none, or a symlink.
    #[error("it is no directory, or a symlink to one")]
    NoDirectory,
    /// The file is none, or a symlink.
    #[error("it is no regular file (symlinks are not followed)")]
    NoFile,
    /// What is written to the file is written to a file of another name, too.
    #[error("it has {names} names")]
    Names {
        /// How many.
        names: u64,
    },
}

impl Unsafe {
    /// What puts it right, to be said behind what is wrong with `path`.
    fn mend(self, path: &Path) -> String {
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
    /// Sorts what the system said.
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

    /// True if it refused for want of room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoSpace { .. })
    }

    /// True if a file has another name, and nothing else is wrong with it.
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

    /// True if the medium did not give what is on it.
    pub(super) fn is_medium(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(libc::EIO))
    }
}
