//! Whether a spool could be opened, as far as can be found out without opening it.
//!
//! # Guarantees
//!
//! - Nothing is made, written, read or locked. The directories are opened by `O_PATH` alone.
//! - [`Spool::open`](super::Spool::open) refuses, for the same user, every directory that this refuses.
//!
//! # Left out
//!
//! The files in the directory, whether another process has it, and whether the disk has room.

use std::path::Path;

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::Mode,
    unistd::{AccessFlags, faccessat},
};

use super::disk::{check_directory, check_parent};
use super::error::{SpoolError, Unsafe};

/// Checks the directory `path` and its parent.
///
/// # Errors
///
/// The error that [`Spool::open`](super::Spool::open) would return for them.
pub fn look(path: &Path) -> Result<(), SpoolError> {
    let no_directory = || SpoolError::Unsafe {
        path: path.to_owned(),
        why: Unsafe::NoDirectory,
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(no_directory());
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let above = open(parent, flags, Mode::empty())
        .map_err(|errno| SpoolError::of("open", parent, errno.into()))?;
    check_parent(parent, &above)?;
    match openat(&above, name, flags | OFlag::O_NOFOLLOW, Mode::empty()) {
        Ok(directory) => {
            check_directory(path, &directory)?;
            access(
                path,
                AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK,
            )
            .map_err(|errno| SpoolError::of("write in", path, errno.into()))
        }
        Err(Errno::ENOENT) => access(parent, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|errno| SpoolError::of("create", path, errno.into())),
        Err(Errno::ENOTDIR | Errno::ELOOP) => Err(no_directory()),
        Err(errno) => Err(SpoolError::of("open", path, errno.into())),
    }
}

/// Asks for the effective user, not the real one.
fn access(path: &Path, flags: AccessFlags) -> Result<(), Errno> {
    faccessat(nix::fcntl::AT_FDCWD, path, flags, AtFlags::AT_EACCESS)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::spool::Spool;

    /// Both agree about a path, and `look` leaves nothing behind.
    #[track_caller]
    fn check(path: &Path, expected: Result<(), &str>) {
        let exists = path.exists();
        let looked = look(path).map_err(|error| error.to_string());
        assert_eq!(path.exists(), exists, "nothing is made");
        let opened = Spool::open(path, 1 << 20).map(drop);
        let opened = opened.map_err(|error| error.to_string());
        assert_eq!(looked, opened, "{}", path.display());
        match (looked, expected) {
            (Ok(()), Ok(())) => {}
            (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
            (looked, _) => panic!("{looked:?} {expected:?}"),
        }
    }

    #[test]
    fn it_agrees_with_opening() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        check(&at("new"), Ok(()));
        check(&at("new"), Ok(()));
        check(&at("missing/spool"), Err("cannot open"));
        fs::write(at("file"), "").unwrap();
        check(
            &at("file"),
            Err("it is not a directory, or a symlink to one"),
        );
        symlink(at("new"), at("link")).unwrap();
        check(
            &at("link"),
            Err("it is not a directory, or a symlink to one"),
        );
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o777)).unwrap();
        check(&at("open"), Err("allows group or others to write"));
        check(&at("open/spool"), Err("allows group or others to write"));
        fs::set_permissions(at("open"), Permissions::from_mode(0o1777)).unwrap();
        check(&at("open/spool"), Ok(()));
        // The error does not advise to change the mode of these.
        let own =
            "other programs use it too; set spool.directory to a subdirectory for tersed alone";
        check(&at("open"), Err(own));
        fs::create_dir(at("common")).unwrap();
        fs::write(at("common/mail"), "").unwrap();
        fs::set_permissions(at("common"), Permissions::from_mode(0o775)).unwrap();
        check(&at("common"), Err(own));
        fs::remove_file(at("common/mail")).unwrap();
        let chmod = format!("; chmod go-w {}", at("common").display());
        check(&at("common"), Err(&chmod));
    }
}
