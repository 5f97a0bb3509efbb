//! The path of a Unix socket: creates it, moves it away for another socket, and removes it.
//!
//! # Guarantees
//!
//! - Only our own sockets, and sockets that no process listens on, are ever removed.
//! - A symlink, a regular file, or a socket that another process listens on is refused.
//!
//! # Left out
//!
//! Binding (`bind`).

use std::{
    ffi::OsString,
    fs, io,
    os::{linux::fs::MetadataExt as _, unix::fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::bind_error::BindError;

/// A Unix socket's path. Dropping it removes the path if it is still the socket that was bound.
#[derive(Debug)]
pub(crate) struct OwnedPath {
    path: PathBuf,
    /// Device and inode of the bound socket; `None` if the service manager made it.
    identity: Option<(u64, u64)>,
}

impl OwnedPath {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: Some(identity(path)?),
        })
    }

    pub(super) fn passed(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: None,
        }
    }

    /// Where the socket is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is at the path now.
    #[must_use]
    pub(crate) fn state(&self) -> PathState {
        match (identity(&self.path), self.identity) {
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => PathState::Gone,
            (Ok(found), Some(own)) if found != own => PathState::Foreign,
            // If the path cannot be examined, it is left alone.
            _ => PathState::Ours,
        }
    }

    /// Whether the service manager made the socket.
    #[must_use]
    pub(crate) fn is_passed(&self) -> bool {
        self.identity.is_none()
    }
}

/// What is at a path that a socket was bound to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PathState {
    Ours,
    Gone,
    Foreign,
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.st_dev(), metadata.st_ino()))
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        if self.identity.is_some()
            && self.state() == PathState::Ours
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove the socket's path");
        }
    }
}

/// The path of one of our sockets, moved out of the way of another one. Dropping it moves the path back.
#[derive(Debug)]
pub(crate) struct MovedPath {
    path: PathBuf,
    /// `None` once it must not be moved back.
    moved_to: Option<PathBuf>,
}

impl MovedPath {
    /// Moves `owned` away; returns `None` if it is not at its path any more.
    pub(super) fn move_away(owned: &OwnedPath) -> io::Result<Option<Self>> {
        if owned.state() != PathState::Ours {
            return Ok(None);
        }
        let path = owned.path().to_owned();
        let mut moved_to = OsString::from(&path);
        moved_to.push(format!(".replaced-{}", std::process::id()));
        let moved_to = PathBuf::from(moved_to);
        fs::rename(&path, &moved_to)?;
        Ok(Some(Self {
            path,
            moved_to: Some(moved_to),
        }))
    }

    /// Removes the path: the other socket is in force.
    pub(crate) fn discard(mut self) {
        if let Some(moved_to) = self.moved_to.take()
            && let Err(error) = fs::remove_file(&moved_to)
        {
            tracing::debug!(path = %moved_to.display(), %error, "cannot remove the old socket's path");
        }
    }
}

impl Drop for MovedPath {
    fn drop(&mut self) {
        if let Some(moved_to) = &self.moved_to
            && let Err(error) = fs::rename(moved_to, &self.path)
        {
            tracing::error!(path = %self.path.display(), %error,
                "cannot move the socket's path back; send SIGHUP to make it again");
        }
    }
}

/// Names `file_type`, unless it is a socket's.
fn no_socket(file_type: fs::FileType) -> Option<&'static str> {
    if file_type.is_symlink() {
        Some("a symbolic link")
    } else if file_type.is_dir() {
        Some("a directory")
    } else if file_type.is_socket() {
        None
    } else {
        Some("a file")
    }
}

/// If something other than a socket is at `path`: the error that a start would report.
#[must_use]
pub(crate) fn occupied(name: &str, path: &Path) -> Option<String> {
    let file_type = fs::symlink_metadata(path).ok()?.file_type();
    let error = BindError::Occupied {
        name: name.to_owned(),
        path: path.to_owned(),
        found: no_socket(file_type)?,
    };
    Some(error.to_string())
}

/// Clears `path`: removes a socket that no process listens on, and refuses anything else.
pub(super) fn clear(name: &str, path: &Path, kind: Type) -> Result<(), BindError> {
    let occupied = |found| {
        Err(BindError::Occupied {
            name: name.to_owned(),
            path: path.to_owned(),
            found,
        })
    };
    let file_type = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        // Binding reports any other problem with the path.
        Err(_) => return Ok(()),
    };
    if let Some(found) = no_socket(file_type) {
        return occupied(found);
    }
    let connected = Socket::new(Domain::UNIX, kind, None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match connected.map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => {}
        // Another process has just removed it.
        Err(io::ErrorKind::NotFound) => return Ok(()),
        _ => {
            return Err(BindError::InUse {
                name: name.to_owned(),
                path: path.to_owned(),
            });
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .map_err(|source| BindError::Bind {
        name: name.to_owned(),
        url: path.display().to_string(),
        source,
        hint: "; a process that has ended left its socket there, and it cannot be removed: remove it, or give this user \
               write access to the directory"
            .to_owned(),
    })
}
