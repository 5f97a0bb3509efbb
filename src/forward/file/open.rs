//! Opens, creates and removes files by name.
//!
//! # Guarantees
//!
//! - No symlink is followed, and opening never blocks or acquires a controlling terminal.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Opens a file to append to. A symlink is refused: a user who may write to the directory could point it at a file
/// that only tersed may write to.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    appending().create(true).open(path)
}

/// Creates a file to append to; an error if the name exists.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    appending().create_new(true).open(path)
}

fn appending() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK);
    options
}

/// Opens a file that this or an earlier run wrote, for reading.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
}

/// Removes a file; it may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
