//! Saved windows: what is open at a stop is open again at the next start, and as much older as the relay was away.
//!
//! ```text
//! stop     all counts reported ▶ queue empty ▶ PATH.new written, synced ▶ renamed to PATH
//! start    PATH opened, looked at ▶ removed ▶ read: windows restored, or all of them forgotten
//! ```
//!
//! # Guarantees
//!
//! - What was saved holds for one start. Before it is read it is removed, so that a crash later does not bring back windows
//!   from before it: a crash forgets windows, never messages.
//! - When in doubt, forward: a file that is missing, not ours alone, damaged or of another kind, or of which
//!   nobody knows how long ago it was, is not used, and the reason is logged. Of a damaged one nothing is used.
//! - Windows are saved when nothing is under way any more, so that none claims a survivor that was dropped.
//! - What stands at the path and is no file of saved windows is neither read, removed nor replaced.
//! - The memory budget holds; a window that is over, or whose policy is not there as it was, is left out and counted.
//! - Saving ends when its time is over, with what stood at the path before.
//!
//! # Left out
//!
//! Counts: those were reported at the stop. Two relays with one path: the later stop wins.

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
use crate::dedup::{EndReason, OpenWindow, Shards};
use crate::identity::{IdentityKind, Key};
use crate::rule::{Action, PolicyId, Rules, WindowPolicy};
use crate::thread::Pool;
use crate::tick::Tick;

mod away;
mod format;

pub use self::away::AwayError;
pub use self::format::FormatError;

/// Windows, and where they are saved.
#[derive(Clone, Debug)]
pub struct SavedWindows {
    /// The file.
    pub path: PathBuf,
    /// Where windows are open.
    pub shards: Arc<Shards>,
    /// What they are open under.
    pub rules: Arc<Rules>,
    /// How identities are kept.
    pub kind: IdentityKind,
}

/// Why saved windows are not used.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(#[source] io::Error),
    /// It leads somewhere else.
    #[error("a symbolic link, which is not followed")]
    Link,
    /// It is a directory, a socket, a device.
    #[error("not a regular file")]
    NotAFile,
    /// Somebody else wrote it.
    #[error("owned by user {found}, and not by {own}")]
    Owner {
        /// Whose it is.
        found: u32,
        /// Who we are.
        own: u32,
    },
    /// Somebody else may have written it, or read it.
    #[error("its mode {mode:04o} lets others at it; 0600 is right")]
    Mode {
        /// Its permissions.
        mode: u32,
    },
    /// It would be read again after a crash.
    #[error("cannot be removed, and must not be read twice: {0}")]
    Remove(#[source] io::Error),
    /// What it holds is not right.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It holds what cannot be compared.
    #[error("with `{}` identities, and now they are `{}`", word(*.found), word(*.own))]
    Kind {
        /// What was kept then.
        found: IdentityKind,
        /// What is kept now.
        own: IdentityKind,
    },
    /// Nobody knows how old its windows are.
    #[error(transparent)]
    Away(#[from] AwayError),
}

/// Why windows were not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The path is somebody else's.
    #[error("what stands there is no file of saved windows; move it away")]
    Taken,
    /// The path cannot be looked at.
    #[error("cannot be looked at: {0}")]
    Look(#[source] io::Error),
    /// A file cannot be written.
    #[error("cannot be written: {0}")]
    Write(#[source] io::Error),
    /// There were too many, or the disk is slow.
    #[error("not done within {0:?}")]
    Late(Duration),
}

/// What became of saved windows.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    read: u64,
    over: u64,
    of_other_policies: u64,
    octets: u64,
}

impl SavedWindows {
    /// Opens saved windows again, if there are any, and says in the log how it went. Gives the key of this run, which goes on
    /// where that of the run before ended if it has to.
    ///
    /// No copy has been judged yet.
    #[must_use]
    pub fn restore(&self) -> Key {
        let started = Clock::now();
        let path = self.path.display();
        match self.try_restore() {
            Ok(None) => {
                info!(%path, "no saved windows; starting without any");
                // Better now than at the stop.
                if !directory(&self.path).is_dir() {
                    warn!(%path, "there is no such directory; windows will not be saved");
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

    /// Saves what is open by a thread of `pool`, within `time`, and says in the log how it went. Nothing is judged any more, and nothing is
    /// under way.
    pub async fn save(self, key: Key, time: Duration, pool: &Pool) {
        let path = self.path.clone();
        let started = Clock::now();
        let saving = pool.call(move || self.try_save(&key, started, time));
        // A disk that does not answer is not waited for.
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
                warn!(path = %path.display(), %error, ?took, "windows are not saved; what is open will pass again");
            }
        }
    }

    fn try_restore(&self) -> Result<Option<(Key, Tally, Duration)>, RestoreError> {
        let Some(file) = take(&self.path)? else {
            return Ok(None);
        };
        let read = self.read(BufReader::with_capacity(READ_OCTETS, file));
        if read.is_err() {
            // Half of them would be as right as all; but what is damaged is not to be trusted.
            let mut none = Vec::new();
            while self
                .shards
                .end_all(EndReason::Stop, FORGOTTEN_PER_LOCK, &mut none)
            {}
        }
        read.map(Some)
    }

    /// Restores what `input` holds, up to the first thing that is wrong.
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
                // Counted as one for which there was no room: there is none such.
                (Some(_), None) => {}
            }
        }
        tally.octets = reader.octets();
        Ok((key, tally, away.span))
    }

    /// What is as the policy of that key was, if it is there.
    fn policy(&self, key: &PolicyKey) -> Option<(PolicyId, WindowPolicy)> {
        self.policies()
            .find(|(_, own)| own == key)
            .map(|(id, _)| (id, self.rules.policy(id).window))
    }

    /// All that remember.
    fn policies(&self) -> impl Iterator<Item = (PolicyId, PolicyKey)> {
        (0..)
            .map(PolicyId)
            .zip(self.rules.falls())
            .filter(|(_, fall)| fall.action == Action::Dedup)
            .map(|(id, fall)| (id, PolicyKey::of(id, fall)))
    }

    fn try_save(&self, key: &Key, started: Tick, time: Duration) -> Result<(u64, u64), SaveError> {
        look(&self.path)?;
        let mut new = self.path.clone().into_os_string();
        new.push(NEW_SUFFIX);
        let new = PathBuf::from(new);
        let written = self.write(&new, key, started.after(time), time);
        if written.is_err() {
            // It is of no use to anybody; if it cannot be removed, the next stop tries again.
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

/// Opens the file at `path` and removes it, so that nobody reads it again; `None` if there is none.
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
    // What somebody else keeps here stays.
    if !begins_as_ours(&mut file).map_err(FormatError::Unreadable)? {
        return Err(FormatError::Foreign.into());
    }
    file.rewind().map_err(FormatError::Unreadable)?;
    fs::remove_file(path)
        .and_then(|()| sync_directory(path))
        .map_err(RestoreError::Remove)?;
    Ok(Some(file))
}

/// Whether the file at `path`, if there is one, may be replaced.
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

/// Opens what stands at `path` and waits for nobody, whatever it is.
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

/// The window in ticks of this run; `None` if it is over whatever its policy.
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

/// What the name of a file ends in that is not whole yet.
const NEW_SUFFIX: &str = ".new";

/// Octets read at a time.
const READ_OCTETS: usize = 256 * 1024;

/// Windows written or read between two looks at the clock: about a millisecond.
const WINDOWS_PER_LOOK: u32 = 1024;

/// How much longer than it may a disk takes before nobody waits for it.
const SYNC_EXTRA: Duration = Duration::from_millis(200);

/// Windows forgotten under one hold of a lock.
const FORGOTTEN_PER_LOCK: usize = 4096;

#[cfg(test)]
mod tests;
