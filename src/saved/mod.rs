//! Saved windows: windows that are open at a stop are open again at the next start, older by the time away.
//!
//! ```text
//! stop     all counts reported ▶ queue empty ▶ PATH.new written, synced ▶ renamed to PATH
//! start    PATH opened, checked ▶ removed ▶ read: windows restored, or all of them forgotten
//! ```
//!
//! # Guarantees
//!
//! - A saved file is used for one start. It is removed before it is read, so that windows from before a later crash
//!   do not come back: a crash forgets windows, never messages.
//! - When in doubt, forward: a file is not used if it is missing, accessible to others, damaged or of another kind, or
//!   if its age is unknown. The reason is logged. Nothing of a damaged file is used.
//! - Windows are saved when no message is on its way any more, so that no window stands for a survivor that was
//!   dropped. If a task panicked while it changed windows, none are saved.
//! - A file at the path that is no file of saved windows is neither read, removed nor replaced.
//! - The memory budget holds. A window that expired, or whose policy changed, is left out and counted.
//! - Saving ends when its time has passed; then the path is as it was before.
//!
//! # Left out
//!
//! Counts: they were reported at the stop. Two relays with one path: the later stop wins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tokio::time::timeout;
use tracing::{info, warn};

use self::away::{Away, Moment};
use self::format::{Header, Item, PolicyKey, Reader, Writer};
use crate::clock::Clock;
use crate::core::dedup::{EndReason, OpenWindow, Shards};
use crate::core::identity::{IdentityKind, Key};
use crate::core::rule::{Action, PolicyId, Rules, WindowPolicy};
use crate::core::tick::Tick;
use crate::thread::Pool;

mod away;
mod format;

pub(crate) use self::away::AwayError;
pub(crate) use self::format::FormatError;

/// Windows, and where they are saved.
#[derive(Clone, Debug)]
pub(crate) struct SavedWindows {
    /// The path of the saved file.
    pub path: PathBuf,
    /// Where the windows are open.
    pub shards: Arc<Shards>,
    /// The rules whose policies they are open under.
    pub rules: Arc<Rules>,
    /// How identities are kept.
    pub kind: IdentityKind,
}

/// Why saved windows are not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The file cannot be opened.
    #[error("cannot open: {0}")]
    Open(#[source] io::Error),
    /// The path is a symbolic link.
    #[error("a symbolic link, which is not followed")]
    Link,
    /// It is a directory, a socket, a device.
    #[error("not a regular file")]
    NotAFile,
    /// Another user owns the file.
    #[error("owned by user {found}, expected {own}")]
    Owner { found: u32, own: u32 },
    /// Other users may have written or read the file.
    #[error("mode {mode:04o} allows access by others; expected 0600")]
    Mode { mode: u32 },
    /// The file would be read again after a crash.
    #[error("cannot be removed, and a file that stays must not be read: {0}")]
    Remove(#[source] io::Error),
    /// Its content is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Its identities cannot be compared with those of this run.
    #[error("the identities in it are `{}`, those of this run are `{}`", word(*.found), word(*.own))]
    Kind {
        /// The kind in the file.
        found: IdentityKind,
        /// The kind of this run.
        own: IdentityKind,
    },
    /// It is unknown how old its windows are.
    #[error(transparent)]
    Away(#[from] AwayError),
}

/// Why windows were not saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    /// Something else is at the path.
    #[error("the path holds something other than saved windows; move it away")]
    Taken,
    /// A task panicked while it changed windows.
    #[error("a task panicked while it changed windows, so they cannot be trusted")]
    Poisoned,
    /// The path cannot be checked.
    #[error("cannot check the path: {0}")]
    Look(#[source] io::Error),
    /// The file cannot be written.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    /// There were too many windows, or the disk is slow.
    #[error("not finished within {0:?}")]
    Late(Duration),
}

/// What happened to the windows of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    read: u64,
    over: u64,
    of_other_policies: u64,
    octets: u64,
}

impl SavedWindows {
    /// Opens saved windows again, if there are any, and logs the result. Returns the key of this run, which continues
    /// that of the last run if identities need it.
    ///
    /// No copy may have been judged yet.
    #[must_use]
    pub(crate) fn restore(&self) -> Key {
        let started = Clock::now();
        let path = self.path.display();
        match self.try_restore() {
            Ok(None) => {
                info!(%path, "no saved windows; starting without any");
                // Better warned now than at the stop.
                if !directory(&self.path).is_dir() {
                    warn!(%path, "the directory does not exist; windows will not be saved");
                }
                Key::random()
            }
            Ok(Some((key, tally, away))) => {
                let open = self.shards.stats().live_messages as u64;
                info!(
                    %path,
                    open,
                    over = tally.over,
                    of_other_policies = tally.of_other_policies,
                    without_room = (tally.read - tally.over - tally.of_other_policies).saturating_sub(open),
                    octets = tally.octets,
                    ?away,
                    took = ?Clock::now().since(started),
                    "windows read back"
                );
                key
            }
            Err(error) => {
                warn!(%path, %error, "saved windows are not used; starting without any");
                Key::random()
            }
        }
    }

    /// Saves the open windows on a thread of `pool`, within `time`, and logs the result. No task may judge any more, and
    /// no message may be on its way.
    pub(crate) async fn save(self, key: Key, time: Duration, pool: &Pool) {
        let path = self.path.clone();
        let started = Clock::now();
        let saving = pool.call(move || self.try_save(&key, started, time));
        // If the disk does not respond, the stop continues without it.
        let result = match timeout(time + SYNC_EXTRA, saving).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(SaveError::Write(io::Error::other(error))),
            Err(_) => Err(SaveError::Late(time)),
        };
        let took = Clock::now().since(started);
        match result {
            Ok((windows, octets)) => {
                info!(path = %path.display(), windows, octets, ?took, "windows saved");
            }
            Err(error) => {
                warn!(path = %path.display(), %error, ?took, "windows are not saved; repeats will be forwarded once after the restart");
            }
        }
    }

    fn try_restore(&self) -> Result<Option<(Key, Tally, Duration)>, RestoreError> {
        let Some(file) = take(&self.path)? else {
            return Ok(None);
        };
        let read = self.read(BufReader::with_capacity(READ_OCTETS, file));
        if read.is_err() {
            // Windows already restored may be right, but a damaged file is not trusted at all.
            let mut none = Vec::new();
            while self
                .shards
                .end_all(EndReason::Stop, FORGOTTEN_PER_LOCK, &mut none)
            {}
        }
        read.map(Some)
    }

    /// Restores the windows of `input`, up to the first error.
    fn read(&self, input: impl Read) -> Result<(Key, Tally, Duration), RestoreError> {
        let mut reader = Reader::new(input)?;
        let Header {
            kind,
            secret,
            saved,
        } = *reader.header();
        if kind != self.kind {
            let (found, own) = (kind, self.kind);
            return Err(RestoreError::Kind { found, own });
        }
        let key = secret.map_or_else(Key::random, Key::continuing);
        let away = Away::between(&saved, &Moment::now())?;
        let mut tally = Tally::default();
        let mut policy = None;
        let mut none = Vec::new();
        let mut now = Clock::now();
        while let Some(item) = reader.next()? {
            let (window, octets) = match item {
                Item::Policy(key) => {
                    policy = self.policy(&key);
                    continue;
                }
                Item::Window(window, octets) => (window, octets),
            };
            tally.read += 1;
            let Some((id, window_policy)) = policy else {
                tally.of_other_policies += 1;
                continue;
            };
            if tally.read.is_multiple_of(u64::from(WINDOWS_PER_LOOK)) {
                now = Clock::now();
            }
            let open = moved(&window, &away).filter(|window| !window.is_over(&window_policy, now));
            match (open, key.identity(kind, octets)) {
                (None, _) => tally.over += 1,
                (Some(window), Some(identity)) => {
                    self.shards.restore(id, identity, &window, now, &mut none);
                }
                // Counted as `without_room`: only a damaged file has such an identity.
                (Some(_), None) => {}
            }
        }
        tally.octets = reader.octets();
        Ok((key, tally, away.span))
    }

    /// The policy of this run that equals the saved one, if there is one.
    fn policy(&self, key: &PolicyKey) -> Option<(PolicyId, WindowPolicy)> {
        self.policies()
            .find(|(_, own)| own == key)
            .map(|(id, _)| (id, self.rules.policy(id).window))
    }

    /// All policies that remember messages.
    fn policies(&self) -> impl Iterator<Item = (PolicyId, PolicyKey)> {
        (0..)
            .map(PolicyId)
            .zip(self.rules.falls())
            .filter(|(_, fall)| fall.action == Action::Dedup)
            .map(|(id, fall)| (id, PolicyKey::of(id, fall)))
    }

    fn try_save(&self, key: &Key, started: Tick, time: Duration) -> Result<(u64, u64), SaveError> {
        if self.shards.is_poisoned() {
            return Err(SaveError::Poisoned);
        }
        look(&self.path)?;
        let mut new = self.path.clone().into_os_string();
        new.push(NEW_SUFFIX);
        let new = PathBuf::from(new);
        let written = self.write(&new, key, started.after(time), time);
        if written.is_err() {
            // The file is of no use. If it cannot be removed, the next stop tries again.
            drop(fs::remove_file(&new));
        }
        written
    }

    fn write(
        &self,
        new: &Path,
        key: &Key,
        deadline: Tick,
        time: Duration,
    ) -> Result<(u64, u64), SaveError> {
        match fs::remove_file(new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SaveError::Write(error));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(new)
            .map_err(SaveError::Write)?;
        let saved = Moment::now();
        let header = Header {
            kind: self.kind,
            secret: (self.kind == IdentityKind::Compact).then(|| key.secret()),
            saved,
        };
        let mut writer = Writer::new(file, &header).map_err(SaveError::Write)?;
        let mut until_look = 0;
        for (id, key) in self.policies() {
            writer.policy(&key).map_err(SaveError::Write)?;
            self.shards.export(id, saved.tick, |window, octets| {
                if until_look == 0 {
                    until_look = WINDOWS_PER_LOOK;
                    if Clock::now() > deadline {
                        return Err(SaveError::Late(time));
                    }
                }
                until_look -= 1;
                writer.window(window, octets).map_err(SaveError::Write)
            })?;
        }
        let (file, windows, octets) = writer.finish().map_err(SaveError::Write)?;
        file.sync_all().map_err(SaveError::Write)?;
        if Clock::now() > deadline {
            return Err(SaveError::Late(time));
        }
        fs::rename(new, &self.path).map_err(SaveError::Write)?;
        sync_directory(&self.path).map_err(SaveError::Write)?;
        Ok((windows, octets))
    }
}

/// Opens the file at `path` and removes it, so that it is not read again. Returns `None` if it does not exist.
fn take(path: &Path) -> Result<Option<File>, RestoreError> {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(RestoreError::Link),
        Err(error) => return Err(RestoreError::Open(error)),
    };
    let metadata = file.metadata().map_err(RestoreError::Open)?;
    if !metadata.is_file() {
        return Err(RestoreError::NotAFile);
    }
    let (found, own) = (metadata.uid(), geteuid().as_raw());
    if found != own {
        return Err(RestoreError::Owner { found, own });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(RestoreError::Mode { mode });
    }
    // A foreign file stays.
    if !begins_as_ours(&mut file).map_err(FormatError::Unreadable)? {
        return Err(FormatError::Foreign.into());
    }
    file.rewind().map_err(FormatError::Unreadable)?;
    fs::remove_file(path)
        .and_then(|()| sync_directory(path))
        .map_err(RestoreError::Remove)?;
    Ok(Some(file))
}

/// Checks that the file at `path`, if there is one, may be replaced.
fn look(path: &Path) -> Result<(), SaveError> {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(SaveError::Taken),
        Err(error) => return Err(SaveError::Look(error)),
    };
    let metadata = file.metadata().map_err(SaveError::Look)?;
    let may = metadata.is_file() && begins_as_ours(&mut file).map_err(SaveError::Look)?;
    if may { Ok(()) } else { Err(SaveError::Taken) }
}

/// Opens `path` without waiting, whatever kind of file it is.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)
}

fn begins_as_ours(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.take(format::MAGIC.len() as u64)
        .read_to_end(&mut start)?;
    Ok(format::is_ours(&start))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The window in ticks of this run; `None` if it has expired under any policy.
fn moved(window: &OpenWindow, away: &Away) -> Option<OpenWindow> {
    Some(OpenWindow {
        start: away.moved(window.start)?,
        passed: window.passed,
        last: away.moved(window.last)?,
        forwarded: away.moved(window.forwarded)?,
    })
}

const fn word(kind: IdentityKind) -> &'static str {
    match kind {
        IdentityKind::Exact => "exact",
        IdentityKind::Compact => "compact",
    }
}

/// Suffix of a file that is not complete yet.
const NEW_SUFFIX: &str = ".new";

/// Octets read at a time.
const READ_OCTETS: usize = 256 * 1024;

/// Windows written or read between two looks at the clock: about a millisecond.
const WINDOWS_PER_LOOK: u32 = 1024;

/// How much longer than allowed the disk may take before the stop continues without it.
const SYNC_EXTRA: Duration = Duration::from_millis(200);

/// Windows forgotten under one hold of a lock.
const FORGOTTEN_PER_LOCK: usize = 4096;

#[cfg(test)]
mod tests;
