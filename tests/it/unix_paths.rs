//! The path of a Unix socket: only a dead process's socket is replaced, the mode is as configured, and nothing is left
//! behind.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{BINARY, Setup, url};

#[test]
fn the_socket_of_a_dead_process_is_replaced_and_ours_is_removed() {
    for scheme in ["unix-stream", "unix-dgram"] {
        let sink = Sink::tcp();
        let setup = Setup::new();
        let path = setup.path("in.sock");
        leave_dead(scheme, &path);
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        // The directory is removed with the relay; a second name shows how many there are.
        let dir = tempfile::tempdir().unwrap();
        let second = dir.path().join("in.sock");
        let tersed = setup
            .listen(&url(scheme, &path))
            .forward(&sink.url())
            .start();
        send(scheme, &path, "<13>over the new socket");
        sink.wait_messages(1);
        fs::hard_link(&path, &second).unwrap();
        tersed.finish();
        let names = fs::symlink_metadata(&second).unwrap().nlink();
        assert_eq!(names, 1, "{scheme}: left behind");
    }
}

#[test]
fn a_path_that_is_somebody_elses_by_then_is_left_alone() {
    let setup = Setup::new();
    let path = setup.path("in.sock");
    let dir = tempfile::tempdir().unwrap();
    let moved = dir.path().join("in.sock");
    let tersed = setup.listen(&url("unix-stream", &path)).start();
    fs::rename(&path, &moved).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    // The directory is removed with the relay, so another name shows whether the path was removed.
    let kept = dir.path().join("theirs");
    fs::hard_link(&path, &kept).unwrap();
    tersed.finish();
    let theirs_now = fs::symlink_metadata(&kept).unwrap();
    assert_eq!(
        (theirs_now.ino(), theirs_now.nlink()),
        (inode, 1 + u64::from(path.exists()))
    );
    drop(theirs);
}

#[test]
fn a_live_socket_is_refused_and_goes_on() {
    for scheme in ["unix-stream", "unix-dgram"] {
        let sink = Sink::tcp();
        let setup = Setup::new();
        let path = setup.path("in.sock");
        let tersed = setup
            .listen(&url(scheme, &path))
            .forward(&sink.url())
            .start();
        check_refused(scheme, &path, "another process is listening on");
        send(scheme, &path, "<13>still heard");
        sink.wait_messages(1);
        tersed.finish();
    }
}

#[test]
fn what_is_no_socket_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = dir.path().join("link");
    symlink(&file, &link).unwrap();
    let dangling = dir.path().join("dangling");
    symlink(dir.path().join("nowhere"), &dangling).unwrap();
    // Even if it leads to a dead socket.
    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let to_dead = dir.path().join("to-dead");
    symlink(&dead, &to_dead).unwrap();
    let directory = dir.path().join("directory");
    fs::create_dir(&directory).unwrap();
    for (path, found) in [
        (&file, "is a file, not a socket"),
        (&link, "is a symbolic link, not a socket"),
        (&dangling, "is a symbolic link, not a socket"),
        (&to_dead, "is a symbolic link, not a socket"),
        (&directory, "is a directory, not a socket"),
    ] {
        for scheme in ["unix-stream", "unix-dgram"] {
            let before = fs::symlink_metadata(path).unwrap();
            check_refused(scheme, path, found);
            let after = fs::symlink_metadata(path).unwrap();
            assert_eq!(before.ino(), after.ino(), "{found}");
            assert_eq!(before.mode(), after.mode(), "{found}");
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(!dir.path().join("nowhere").exists());
    assert!(dead.exists());
}

#[test]
fn the_mode_is_as_configured_whatever_the_umask() {
    // `sh` execs the relay, under a umask that would remove almost all permissions.
    for (scheme, mode) in [("unix-stream", "0666"), ("unix-dgram", "0620")] {
        let setup = Setup::new();
        let path = setup.path("in.sock");
        let listener = url(scheme, &path);
        let tersed = setup
            .listener(&listener, &format!("unix_mode = \"{mode}\""))
            .umask("0177")
            .start();
        let found = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(format!("{:04o}", found & 0o7777), mode, "{scheme}");
        tersed.finish();
    }
    let setup = Setup::new();
    let path = setup.path("in.sock");
    let tersed = setup
        .listen(&url("unix-stream", &path))
        .umask("0000")
        .start();
    let found = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(found & 0o7777, 0o660, "unless configured");
    tersed.finish();
}

/// Asserts that a relay with this path refuses to start because of `why`.
#[track_caller]
fn check_refused(scheme: &str, path: &Path, why: &str) {
    let output = Command::new(BINARY)
        .args(["run", "--listen", &url(scheme, path)])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{scheme}: {stderr}");
    assert!(stderr.contains(why), "{scheme}: {stderr}");
    assert!(
        stderr.contains(path.to_str().unwrap()),
        "{scheme}: {stderr}"
    );
}

fn send(scheme: &str, path: &Path, message: &str) {
    match scheme {
        "unix-stream" => Originator::unix_stream(path).send(message),
        _ => Originator::unix_dgram(path).send(message),
    }
}

/// Listens at `path` and dies, like a process that was killed.
fn leave_dead(scheme: &str, path: &Path) {
    match scheme {
        "unix-stream" => drop(UnixListener::bind(path).unwrap()),
        _ => drop(UnixDatagram::bind(path).unwrap()),
    }
}
