//! The file: read, parsed as TOML, and laid over a draft.
//!
//! # Guarantees
//!
//! - Reading does not wait for another process. A FIFO is refused, and so is a device that has nothing to read now.
//! - Except that a command, and the start of the relay, wait for a descriptor that they were given (`/dev/stdin`,
//!   `/dev/fd/63`). A relay that runs refuses that, too.
//!
//! # Left out
//!
//! What must fit together: see `resolve`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use toml::de::{DeTable, DeValue};

use super::FILE_OCTETS_MAX;
use super::draft::Draft;
use super::error::{At, Fault, escaped};
use super::keys::refuse_unknown;
use super::read::Reader;
use super::report::Report;
use super::section::Section as _;
use super::written::{Lines, Written};

/// Whether reading may wait for another process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// For what a descriptor leads to that this process was given.
    ForGiven,
    Never,
}

/// Reads the file at `path` into `draft`. Returns whether its last line is whole, as far as a line end tells.
pub(super) fn read(path: &Path, wait: Wait, draft: &mut Draft, report: &mut Report) -> bool {
    let file: Arc<str> = escaped(&path.display().to_string()).into();
    match read_octets(path, wait) {
        Ok(octets) => {
            parse(&file, &octets, draft, report);
            octets.last().is_none_or(|last| *last == b'\n')
        }
        Err(fault) => {
            refuse_all(&At::File(file), fault, report);
            true
        }
    }
}

/// Reads `octets` as the contents of `file` into `draft`.
pub(super) fn parse(file: &Arc<str>, octets: &[u8], draft: &mut Draft, report: &mut Report) {
    let lines = Lines::of(octets);
    let at = |offset| At::Key {
        file: Arc::clone(file),
        line: lines.at(offset),
        key: String::new(),
    };
    let text = match str::from_utf8(octets) {
        Ok(text) => text,
        Err(err) => return refuse_all(&at(err.valid_up_to()), Fault::NotUtf8, report),
    };
    match DeTable::parse(text) {
        Ok(table) => {
            let value = DeValue::Table(table.into_inner());
            let whole = Written {
                value: &value,
                at: at(0),
                lines: &lines,
            };
            Reader::read(&whole, "", report, |reader| draft.visit(reader));
            refuse_unknown(report);
        }
        Err(err) => {
            let at = at(err.span().map_or(0, |span| span.start));
            refuse_all(&at, Fault::Syntax(escaped(err.message())), report);
        }
    }
}

/// Refuses a file that cannot be understood. Its listeners are not known, so no check may blame the default ones.
fn refuse_all(at: &At, fault: Fault, report: &mut Report) {
    report.fault(at, fault);
    report.refuse("listener");
}

/// Opens the file at `path` to read it. Neither this nor reading waits, whatever kind of file it is.
///
/// # Errors
///
/// Those of `open(2)`.
pub(crate) fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

fn read_octets(path: &Path, wait: Wait) -> Result<Vec<u8>, Fault> {
    let mut octets = Vec::new();
    let file = open_at_once(path).map_err(Fault::Unreadable)?;
    let kind = file.metadata().map_err(Fault::Unreadable)?.file_type();
    if wait == Wait::ForGiven && is_given(path) {
        let waiting = fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()));
        waiting.map_err(|errno| Fault::Unreadable(errno.into()))?;
    } else if kind.is_fifo() {
        // Without a writer it would look like an empty file.
        return Err(Fault::NotAFile { what: "a FIFO" });
    }
    // One more than fits, to see whether there is more.
    file.take(FILE_OCTETS_MAX as u64 + 1)
        .read_to_end(&mut octets)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Fault::NotAFile { what: "a device" },
            _ => Fault::Unreadable(error),
        })?;
    if octets.len() > FILE_OCTETS_MAX {
        return Err(Fault::TooLong {
            max: FILE_OCTETS_MAX,
        });
    }
    Ok(octets)
}

/// Whether `path` names a descriptor of this process, which its caller opened.
fn is_given(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"]
            .iter()
            .any(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;
    use std::thread;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn read(path: &Path, wait: Wait) -> Result<Vec<u8>, String> {
        read_octets(path, wait).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_another_process_writes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for wait in [Wait::ForGiven, Wait::Never] {
            let refused = read(&fifo, wait).unwrap_err();
            assert_eq!(refused, "a FIFO, expected a file");
            let refused = read(Path::new("/dev/ptmx"), wait).unwrap_err();
            assert_eq!(refused, "a device, expected a file");
            assert_eq!(read(Path::new("/dev/null"), wait).unwrap(), b"");
        }
    }

    #[test]
    fn a_pipe_that_this_process_was_given_is_read_to_its_end_unless_it_must_not_wait() {
        let (end, mut writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/dev/fd/{}", end.as_raw_fd()));
        let refused = read(&path, Wait::Never).unwrap_err();
        assert_eq!(refused, "a FIFO, expected a file");
        let reader = thread::spawn(move || read(&path, Wait::ForGiven));
        writer.write_all(b"[ded").unwrap();
        writer.write_all(b"up]\n").unwrap();
        drop(writer);
        assert_eq!(reader.join().unwrap().unwrap(), b"[dedup]\n");
        drop(end);
    }
}
