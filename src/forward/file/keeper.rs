//! The keeper of a file's rotations: renames a full or old file, compresses it, and deletes the oldest.
//!
//! # Guarantees
//!
//! - No existing file is ever overwritten: a name is created before a file is renamed to it.
//! - Whenever the process is killed, the next open of the file finishes the work: it removes a reserved name that is
//!   still empty and a partly compressed file, and compresses a rotated file that is plain. A plain rotated file is
//!   removed only when all of its compressed form is on the disk.
//! - At most `rotate_keep` rotated files exist after each rotation; each deletion is logged. A file that was being
//!   compressed at that moment can reappear briefly.
//! - A thread at the lowest priority compresses one file at a time. Neither the writer nor the end of the process
//!   waits for it.
//! - Each failure is counted, and the first is logged, until it works again. No failure makes the keeper give up the
//!   file in use.
//!
//! # Left out
//!
//! When to rotate (see `log`). Rotated files are left alone once rotation is switched off.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tracing::{debug, info, warn};

use super::{
    compress::compress,
    names::{Kind, RotatedAt},
    open::{create_file, open_file, remove},
};
use crate::{
    clock::Clock,
    config::{Compression, Rotation},
    core::tick::Tick,
    lock::lock,
    metrics::UpstreamMetrics,
    sys,
};

/// The keeper of one file's rotations. There is one for each path, as long as the process lives: its background work
/// continues over a reload.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    directory: PathBuf,
    name: String,
    state: Mutex<State>,
    /// Held while a name is reserved and the file is renamed to it, so that tidying does not remove the reservation;
    /// also held while files are removed.
    naming: Mutex<()>,
}

#[derive(Debug)]
struct State {
    rotation: Rotation,
    metrics: Arc<UpstreamMetrics>,
    work: Work,
    /// Rotation fails; the next attempt is due at this time.
    rotate_again: Option<Tick>,
    /// Background work fails; nothing is compressed before this time.
    tidy_again: Option<Tick>,
}

/// What the background thread does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Work {
    /// There is no thread.
    Idle,
    Busy,
    /// It works, and starts over when it is done.
    Again,
}

/// A rotated file, in one or both of its forms.
#[derive(Clone, Copy, Debug)]
struct Rotated {
    at: RotatedAt,
    is_plain: bool,
    is_compressed: bool,
}

impl Keeper {
    /// The keeper of `path`, which follows `rotation` from now on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if the path names no file.
    pub(super) fn of(
        path: &Path,
        rotation: Rotation,
        metrics: &Arc<UpstreamMetrics>,
    ) -> io::Result<Arc<Self>> {
        let mut keepers = lock(&KEEPERS);
        if let Some(keeper) = keepers.iter().find(|keeper| keeper.path == path) {
            let mut state = lock(&keeper.state);
            state.rotation = rotation;
            state.metrics = Arc::clone(metrics);
            return Ok(Arc::clone(keeper));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(directory), Some(name)) = (path.parent(), name) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let keeper = Arc::new(Self {
            path: path.to_owned(),
            directory: directory.to_owned(),
            name: name.to_owned(),
            state: Mutex::new(State {
                rotation,
                metrics: Arc::clone(metrics),
                work: Work::Idle,
                rotate_again: None,
                tidy_again: None,
            }),
            naming: Mutex::default(),
        });
        keepers.push(Arc::clone(&keeper));
        Ok(keeper)
    }

    pub(super) fn rotation(&self) -> Rotation {
        lock(&self.state).rotation
    }

    /// Renames `file`, which is the file in use, and returns a new file to use from now on; `None` if that failed and
    /// `file` is still in use.
    pub(super) fn rotate(self: &Arc<Self>, file: &File, now: Tick) -> Option<File> {
        if lock(&self.state).rotate_again.is_some_and(|due| now < due) {
            return None;
        }
        let rotated = self.rotate_now(file);
        let mut state = lock(&self.state);
        match rotated {
            Ok(file) => {
                state.metrics.rotations.inc();
                if state.rotate_again.take().is_some() {
                    info!(path = %self.path.display(), "rotation works again");
                }
                drop(state);
                // Not left to the thread alone, which may be busy with a large file.
                if let Err(error) = self.thin_out() {
                    debug!(path = %self.path.display(), %error, "cannot delete the oldest");
                }
                self.tidy();
                Some(file)
            }
            Err(error) => {
                state.metrics.rotation_errors.inc();
                if state.rotate_again.is_none() {
                    warn!(path = %self.path.display(), %error, "cannot rotate; the file grows");
                } else {
                    debug!(path = %self.path.display(), %error, "still cannot rotate");
                }
                state.rotate_again = Some(now.after(ROTATE_PAUSE));
                None
            }
        }
    }

    fn rotate_now(&self, file: &File) -> io::Result<File> {
        let _naming = lock(&self.naming);
        if !self.is_in_place(file)? {
            // Another program has moved it away.
            return open_file(&self.path);
        }
        let newest = self.rotated()?.last().map(|rotated| rotated.at);
        let mut at = RotatedAt::after(newest, Clock::wall());
        let rotated = loop {
            let rotated = self.beside(at, Kind::Plain);
            match create_file(&rotated) {
                Ok(_) => break rotated,
                // A symlink, or another file that is not ours.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => at = at.next(),
                Err(error) => return Err(error),
            }
        };
        fs::rename(&self.path, &rotated).inspect_err(|_| give_up(&rotated))?;
        create_file(&self.path).inspect_err(|_| {
            // A file that grows is better than none.
            if let Err(error) = fs::rename(&rotated, &self.path) {
                warn!(path = %self.path.display(), %error, "cannot undo a rotation");
            }
        })
    }

    /// Whether the path still leads to `file`.
    fn is_in_place(&self, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts compressing and deleting rotated files in the background.
    pub(super) fn tidy(self: &Arc<Self>) {
        {
            let mut state = lock(&self.state);
            if state.work != Work::Idle {
                state.work = Work::Again;
                return;
            }
            state.work = Work::Busy;
        }
        let keeper = Arc::clone(self);
        let thread = thread::Builder::new().name("tersed-rotated".to_owned());
        if let Err(error) = thread.spawn(move || keeper.work()) {
            lock(&self.state).work = Work::Idle;
            self.tidied(Err(error), Clock::now());
        }
    }

    fn work(&self) {
        sys::lower_priority();
        loop {
            self.tidy_at(Clock::now());
            let mut state = lock(&self.state);
            if state.work != Work::Again {
                state.work = Work::Idle;
                return;
            }
            state.work = Work::Busy;
        }
    }

    /// Removes leftovers, deletes the oldest files and compresses the others. After a failure nothing is compressed
    /// for a while: each try takes what little room is left on a full disk.
    fn tidy_at(&self, now: Tick) {
        let mut outcome = self.remove_leftovers().and_then(|()| self.thin_out());
        let is_paused = lock(&self.state).tidy_again.is_some_and(|due| now < due);
        if is_paused && outcome.is_ok() {
            return;
        }
        if self.rotation().compression == Compression::Zstd {
            outcome = outcome.and(self.compress_all());
        }
        self.tidied(outcome, now);
    }

    /// Counts and logs the outcome.
    fn tidied(&self, result: io::Result<()>, now: Tick) {
        let mut state = lock(&self.state);
        let failed_before = state.tidy_again.is_some();
        state.tidy_again = result.is_err().then(|| now.after(TIDY_PAUSE));
        let path = self.path.display();
        match result {
            Ok(()) if failed_before => info!(%path, "rotated files are managed again"),
            Ok(()) => {}
            Err(error) => {
                state.metrics.rotation_errors.inc();
                if failed_before {
                    debug!(%path, %error, "still cannot manage rotated files");
                } else {
                    warn!(%path, %error, "cannot manage rotated files");
                }
            }
        }
    }

    /// Compresses all plain rotated files, as far as possible.
    fn compress_all(&self) -> io::Result<()> {
        let mut outcome = Ok(());
        for rotated in self.rotated()? {
            let compressed = self.compress(rotated);
            let is_disk_full = compressed
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
            outcome = outcome.and(compressed);
            if is_disk_full {
                break;
            }
            // More files may have been rotated meanwhile.
            outcome = outcome.and(self.thin_out());
        }
        outcome
    }

    fn compress(&self, rotated: Rotated) -> io::Result<()> {
        if !rotated.is_plain {
            return Ok(());
        }
        let plain = self.beside(rotated.at, Kind::Plain);
        if !rotated.is_compressed {
            let part = self.beside(rotated.at, Kind::Part);
            let compressed = self.beside(rotated.at, Kind::Compressed);
            match compress(&plain, &part, &compressed) {
                // It was deleted meanwhile, as the oldest.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                outcome => outcome?,
            }
        }
        remove(&plain)
    }

    /// Removes what a killed run left unfinished.
    fn remove_leftovers(&self) -> io::Result<()> {
        let _naming = lock(&self.naming);
        for (at, kind, octets) in self.found()? {
            if kind == Kind::Part || (kind == Kind::Plain && octets == 0) {
                remove(&self.beside(at, kind))?;
            }
        }
        Ok(())
    }

    /// Deletes the oldest files in excess of `rotate_keep`.
    fn thin_out(&self) -> io::Result<()> {
        // Locked, so that each deletion is counted once.
        let _naming = lock(&self.naming);
        let rotated = self.rotated()?;
        let keep = self.rotation().keep;
        let surplus = rotated.len().saturating_sub(keep);
        for oldest in rotated.iter().take(surplus) {
            for (kind, is_there) in [
                (Kind::Plain, oldest.is_plain),
                (Kind::Compressed, oldest.is_compressed),
            ] {
                if is_there {
                    let path = self.beside(oldest.at, kind);
                    remove(&path)?;
                    info!(path = %path.display(), keep, "deleted the oldest rotated file");
                }
            }
            lock(&self.state).metrics.rotated_deleted.inc();
        }
        Ok(())
    }

    /// The rotated files, the oldest first.
    fn rotated(&self) -> io::Result<Vec<Rotated>> {
        let mut all: Vec<Rotated> = Vec::new();
        for (at, kind, octets) in self.found()? {
            let (is_plain, is_compressed) = (kind == Kind::Plain, kind == Kind::Compressed);
            // A reserved name, or a partly compressed file.
            if kind == Kind::Part || (is_plain && octets == 0) {
                continue;
            }
            match all.last_mut() {
                Some(last) if last.at == at => {
                    last.is_plain |= is_plain;
                    last.is_compressed |= is_compressed;
                }
                _ => all.push(Rotated {
                    at,
                    is_plain,
                    is_compressed,
                }),
            }
        }
        Ok(all)
    }

    /// The regular files with names of our form, the oldest first, with their length in octets.
    fn found(&self) -> io::Result<Vec<(RotatedAt, Kind, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((at, kind)) = name
                .to_str()
                .and_then(|name| RotatedAt::parse(&self.name, name))
            else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => found.push((at, kind, metadata.len())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable_by_key(|(at, _, _)| *at);
        Ok(found)
    }

    fn beside(&self, at: RotatedAt, kind: Kind) -> PathBuf {
        self.directory.join(at.name(&self.name, kind))
    }
}

/// Removes a name that was reserved in vain. If that fails, the next background run removes it.
fn give_up(path: &Path) {
    if let Err(error) = remove(path) {
        debug!(path = %path.display(), %error, "a reserved name stays");
    }
}

/// One for each path that was rotated in this run. Bounded by what the operator configured.
static KEEPERS: Mutex<Vec<Arc<Keeper>>> = Mutex::new(Vec::new());

/// How long nothing is compressed after a failure.
const TIDY_PAUSE: Duration = Duration::from_secs(60);

/// How long the next rotation waits after a failure: each try reads the whole directory.
const ROTATE_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::metrics::Metrics;

    fn keeper(dir: &Path, rotation: Rotation) -> (File, Arc<Keeper>) {
        let path = dir.join("a.log");
        let metrics = Metrics::new().upstream("file");
        let file = open_file(&path).unwrap();
        (file, Keeper::of(&path, rotation, &metrics).unwrap())
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    const PLAIN: Rotation = Rotation {
        size: Some(1),
        compression: Compression::Off,
        ..Rotation::OFF
    };
    const ROTATED: &str = "a.log.20200101T000000.000000Z";

    #[test]
    fn what_a_killed_run_left_is_finished_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let zstd = Rotation {
            compression: Compression::Zstd,
            ..PLAIN
        };
        let (_file, keeper) = keeper(dir.path(), zstd);
        let path = |name: &str| dir.path().join(name);
        // A run was killed: while compressing, after it reserved a name, before it removed the plain form.
        fs::write(path(ROTATED), "one\n").unwrap();
        fs::write(path(&format!("{ROTATED}.zst.part")), "half").unwrap();
        fs::write(path("a.log.20200101T000001.000000Z"), "").unwrap();
        fs::write(path("a.log.20200101T000002.000000Z"), "two\n").unwrap();
        fs::write(path("a.log.20200101T000002.000000Z.zst"), "all of it").unwrap();
        fs::write(path("a.log.1"), "").unwrap();
        keeper.tidy_at(Tick::ZERO);
        assert_eq!(
            names(dir.path()),
            [
                "a.log",
                "a.log.1",
                "a.log.20200101T000000.000000Z.zst",
                "a.log.20200101T000002.000000Z.zst"
            ]
        );
        let whole = fs::read(path("a.log.20200101T000002.000000Z.zst")).unwrap();
        assert_eq!(whole, b"all of it");
    }

    #[test]
    fn the_oldest_are_deleted_and_only_ours() {
        let dir = tempfile::tempdir().unwrap();
        let (_file, keeper) = keeper(dir.path(), Rotation { keep: 2, ..PLAIN });
        let target = dir.path().join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, dir.path().join("a.log.19990101T000000.000000Z")).unwrap();
        fs::write(dir.path().join("a.log.0"), "theirs").unwrap();
        for second in 0..4 {
            let name = format!("a.log.20200101T00000{second}.000000Z");
            fs::write(dir.path().join(name), "text").unwrap();
        }
        keeper.tidy_at(Tick::ZERO);
        assert_eq!(
            names(dir.path()),
            [
                "a.log",
                "a.log.0",
                "a.log.19990101T000000.000000Z",
                "a.log.20200101T000002.000000Z",
                "a.log.20200101T000003.000000Z",
                "target"
            ]
        );
        assert_eq!(lock(&keeper.state).metrics.rotated_deleted.get(), 2);
    }

    #[test]
    fn a_rotated_name_is_later_than_all_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (file, keeper) = keeper(dir.path(), PLAIN);
        fs::write(dir.path().join("a.log"), "one").unwrap();
        // Written by a run whose wall clock was ahead. The next name is taken by a symlink.
        let ahead = "a.log.29990101T000000.000000Z";
        fs::write(dir.path().join(ahead), "zero").unwrap();
        let planted = dir.path().join("a.log.29990101T000000.000001Z");
        symlink(dir.path().join("target"), planted).unwrap();
        keeper.rotate_now(&file).unwrap();
        let rotated = dir.path().join("a.log.29990101T000000.000002Z");
        assert_eq!(fs::read(rotated).unwrap(), b"one");
        assert_eq!(fs::read(dir.path().join(ahead)).unwrap(), b"zero");
        assert_eq!(fs::read(dir.path().join("a.log")).unwrap(), b"");
        assert!(!dir.path().join("target").exists());
    }

    #[test]
    fn a_file_that_another_program_moved_away_keeps_the_name_that_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let (file, keeper) = keeper(dir.path(), PLAIN);
        fs::write(dir.path().join("a.log"), "one").unwrap();
        fs::rename(dir.path().join("a.log"), dir.path().join("a.log.1")).unwrap();
        keeper.rotate_now(&file).unwrap();
        assert_eq!(names(dir.path()), ["a.log", "a.log.1"]);
        assert_eq!(fs::read(dir.path().join("a.log.1")).unwrap(), b"one");
    }

    #[test]
    fn after_a_failure_nothing_is_compressed_for_a_while_but_the_oldest_go_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let zstd = Rotation {
            keep: 2,
            compression: Compression::Zstd,
            ..PLAIN
        };
        let (_file, keeper) = keeper(dir.path(), zstd);
        let path = |name: &str| dir.path().join(name);
        fs::write(path(ROTATED), "one\n").unwrap();
        // A directory takes the name that compressing needs; it is not removed either.
        fs::create_dir(path(&format!("{ROTATED}.zst.part"))).unwrap();
        keeper.tidy_at(Tick::ZERO);
        let errors = || lock(&keeper.state).metrics.rotation_errors.get();
        assert_eq!(errors(), 1);
        for second in 1..4 {
            fs::write(
                path(&format!("a.log.20200101T00000{second}.000000Z")),
                "text",
            )
            .unwrap();
        }
        keeper.tidy_at(Tick::from_nanos(1));
        let left = [
            "a.log",
            "a.log.20200101T000000.000000Z.zst.part",
            "a.log.20200101T000002.000000Z",
            "a.log.20200101T000003.000000Z",
        ];
        assert_eq!(names(dir.path()), left);
        assert_eq!(errors(), 1);
        keeper.tidy_at(Tick::ZERO.after(TIDY_PAUSE));
        let compressed = |name: &String| name.ends_with(".zst");
        assert_eq!(
            names(dir.path())
                .iter()
                .filter(|name| compressed(name))
                .count(),
            2
        );
        assert_eq!(errors(), 1);
    }

    #[test]
    fn a_rotation_that_fails_is_not_tried_again_at_once_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (file, keeper) = keeper(dir.path(), PLAIN);
        // Reading a directory that does not exist fails.
        let away = dir.path().join("away");
        let gone = Arc::new(Keeper {
            path: dir.path().join("a.log"),
            directory: away.clone(),
            name: keeper.name.clone(),
            state: Mutex::new(State {
                rotation: PLAIN,
                metrics: Metrics::new().upstream("file"),
                work: Work::Busy,
                rotate_again: None,
                tidy_again: None,
            }),
            naming: Mutex::default(),
        });
        let errors = || lock(&gone.state).metrics.rotation_errors.get();
        assert!(gone.rotate(&file, Tick::ZERO).is_none());
        assert!(gone.rotate(&file, Tick::from_nanos(1)).is_none());
        assert_eq!(errors(), 1);
        let later = Tick::ZERO.after(ROTATE_PAUSE);
        assert!(gone.rotate(&file, later).is_none());
        assert_eq!(errors(), 2);
        fs::create_dir(&away).unwrap();
        assert!(gone.rotate(&file, later.after(ROTATE_PAUSE)).is_some());
        assert_eq!(lock(&gone.state).metrics.rotations.get(), 1);
    }
}
