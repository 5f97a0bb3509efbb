//! A regular file that frames are appended to, and that is rotated if configured.
//!
//! # Guarantees
//!
//! - A write reports how many octets were taken; the caller can cut a part of a frame off again.
//! - A file is rotated before a write that would take it beyond `rotate_size`, and once it is `rotate_age` old.
//! - A line that a killed run left unfinished is ended when the file is opened.
//!
//! # Left out
//!
//! Renaming, compressing and deleting (the keeper does it).

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path, sync::Arc, time::Duration};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tracing::warn;

use super::{keeper::Keeper, open::open_to_read};
use crate::{
    clock::Clock,
    config::{OutputFraming, Rotation, UpstreamConfig},
    core::tick::Tick,
    metrics::UpstreamMetrics,
};

/// A regular file that is appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// When its first octet was written; `None` while it is empty.
    begun: Option<Begun>,
    /// Present if the file is to be rotated and can be.
    keeper: Option<Arc<Keeper>>,
}

/// The age of a file at a tick. It is not the tick of its creation: the file may be older than the machine's uptime.
#[derive(Clone, Copy, Debug)]
struct Begun {
    age: Duration,
    at: Tick,
}

impl LogFile {
    /// Standard output, if it is a regular file.
    pub(super) const fn of_stdout(file: File) -> Self {
        Self {
            file,
            begun: None,
            keeper: None,
        }
    }

    /// The regular file that was opened at `path`.
    pub(super) fn of(
        file: File,
        path: &Path,
        upstream: &UpstreamConfig,
        metrics: &Arc<UpstreamMetrics>,
    ) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (mut begun, mut keeper) = (None, None);
        if upstream.framing == OutputFraming::Lf {
            end_torn_line(path, &file, metadata.len())?;
        }
        if metadata.len() > 0 {
            // Some file systems do not record when a file was created. Then its age counts from its last change.
            let created = metadata.created().or_else(|_| metadata.modified())?;
            begun = Some(Begun::before_now(created));
        }
        if upstream.rotation.is_on() {
            let kept = Keeper::of(path, upstream.rotation, metrics)?;
            kept.tidy();
            keeper = Some(kept);
        }
        Ok(Self {
            file,
            begun,
            keeper,
        })
    }

    /// Writes all of `wire` to one file. Returns how many octets were written, and the error that ended it early.
    #[expect(
        clippy::disallowed_methods,
        reason = "the short write is what is counted here"
    )]
    pub(super) fn write(&mut self, wire: &[u8]) -> (usize, io::Result<()>) {
        use io::Write as _;
        let now = Clock::now();
        self.rotate_if_due(wire.len() as u64, now);
        let written = write_counting(wire, |rest| self.file.write(rest));
        if self.begun.is_none() && written.0 > 0 {
            self.begun = Some(Begun {
                age: Duration::ZERO,
                at: now,
            });
        }
        written
    }

    fn rotate_if_due(&mut self, more: u64, now: Tick) {
        let Some(keeper) = &self.keeper else { return };
        // Asked each time: other programs may have cut the file or written to it.
        let len = self.file.metadata().map_or(0, |metadata| metadata.len());
        let age = self.begun.map_or(Duration::ZERO, |begun| begun.age_at(now));
        if !is_due(keeper.rotation(), len, more, age) {
            return;
        }
        if let Some(file) = keeper.rotate(&self.file, now) {
            self.file = file;
            self.begun = None;
        }
    }

    /// Removes the last `octets` of the file, which were written last; returns false if that is impossible.
    pub(super) fn cut_back(&mut self, octets: usize) -> bool {
        octets == 0 || self.try_cut_back(octets).is_ok()
    }

    fn try_cut_back(&mut self, octets: usize) -> io::Result<()> {
        use io::Seek as _;
        let octets = u64::try_from(octets).map_err(io::Error::other)?;
        let len = self.file.metadata()?.len();
        let cut = len.checked_sub(octets).ok_or(io::ErrorKind::InvalidData)?;
        let flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
        if flags.contains(OFlag::O_APPEND) {
            return self.file.set_len(cut);
        }
        // Standard output as a shell opened it: the write position moves back as well, if it is at the end.
        if self.file.stream_position()? != len {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.file.set_len(cut)?;
        self.file.seek(io::SeekFrom::Start(cut)).map(drop)
    }
}

impl Begun {
    /// Created at `created` by the wall clock; now if that is in the future.
    fn before_now(created: std::time::SystemTime) -> Self {
        let created = created
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let now =
            u64::try_from(Clock::wall().micros()).map_or(Duration::ZERO, Duration::from_micros);
        Self {
            age: now.saturating_sub(created),
            at: Clock::now(),
        }
    }

    fn age_at(self, now: Tick) -> Duration {
        self.age.saturating_add(now.since(self.at))
    }
}

/// Whether a file of `len` octets and this age has to be rotated before `more` octets are written.
fn is_due(rotation: Rotation, len: u64, more: u64, age: Duration) -> bool {
    let is_full = rotation
        .size
        .is_some_and(|size| len.saturating_add(more) > size as u64);
    let is_old = rotation.age.is_some_and(|limit| age >= limit);
    len > 0 && (is_full || is_old)
}

/// Ends the last line of `file`, which a killed run may have left unfinished, so that it and the next frame are two
/// lines. If the file cannot be read, it is left as it is.
fn end_torn_line(path: &Path, mut file: &File, len: u64) -> io::Result<()> {
    use io::Write as _;
    let Some(last) = len.checked_sub(1) else {
        return Ok(());
    };
    let mut octet = [0];
    let read = open_to_read(path).and_then(|file| file.read_exact_at(&mut octet, last));
    if read.is_ok() && octet != *b"\n" {
        warn!(path = %path.display(), "ended a line that was left unfinished");
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes all of `wire` by `write`. Returns how many octets were written, and the error that ended it early.
fn write_counting(
    wire: &[u8],
    mut write: impl FnMut(&[u8]) -> io::Result<usize>,
) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while taken < wire.len() {
        match write(&wire[taken..]) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(octets) => taken += octets,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::open::open_file, *};
    use crate::{config::UpstreamUrl, metrics::Metrics};

    #[test]
    fn a_file_is_due_before_it_is_too_long_and_as_soon_as_it_is_old() {
        let rotation = Rotation {
            size: Some(100),
            age: Some(Duration::from_secs(60)),
            ..Rotation::OFF
        };
        let (young, old) = (Duration::from_secs(59), Duration::from_secs(60));
        for (len, more, age, expected) in [
            (0, 1000, old, false),
            (1, 99, young, false),
            (1, 100, young, true),
            (100, 1, young, true),
            (1, 1, old, true),
            (u64::MAX, u64::MAX, young, true),
        ] {
            let due = is_due(rotation, len, more, age);
            assert_eq!(due, expected, "{len} + {more}, {age:?}");
        }
        assert!(!is_due(Rotation::OFF, 1000, 1000, Duration::MAX));
    }

    #[test]
    fn a_file_may_be_older_than_the_machine_is_up() {
        let begun = Begun {
            age: Duration::from_secs(3600),
            at: Tick::from_nanos(5),
        };
        let later = Tick::from_nanos(5).after(Duration::from_secs(1));
        assert_eq!(begun.age_at(later), Duration::from_secs(3601));
    }

    #[test]
    fn an_unfinished_line_is_ended_and_a_finished_one_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let upstream = |framing| UpstreamConfig {
            framing,
            ..UpstreamConfig::new(UpstreamUrl::File(path.clone()))
        };
        let metrics = Metrics::new().upstream("file");
        for (before, framing, after) in [
            ("", OutputFraming::Lf, ""),
            ("one\ntw", OutputFraming::Lf, "one\ntw\n"),
            ("one\n", OutputFraming::Lf, "one\n"),
            ("3 one", OutputFraming::OctetCounting, "3 one"),
        ] {
            fs::write(&path, before).unwrap();
            let file = open_file(&path).unwrap();
            LogFile::of(file, &path, &upstream(framing), &metrics).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
    }
}
