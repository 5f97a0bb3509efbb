//! The configuration in force: its source, and whether its file has changed since.
//!
//! ```text
//! daemon ──load, refuse──▶ InForce ──▶ /api/v1/config, /readyz, tersed_config_*
//! the file, each second ─────▲
//! ```
//!
//! # Guarantees
//!
//! - `/api/v1/config` is what `tersed check --format json` prints for the same configuration, plus `source`.
//! - A file counts as changed when its contents differ or cannot be read, not when it was only touched.
//! - The file is read on a thread of its own, once after each change of its time, size or inode.
//!
//! # Left out
//!
//! Reloading. Comparing the file with the configuration in force (`tersed check --running`).

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::config::{Argument, Config, Effective, Override, RunArgs, open_at_once, time_text};
use crate::core::tick::{Tick, WallTime};
use crate::lock::lock;
use crate::logging::printable;
use crate::metrics::Metrics;
use crate::sizing::Sizing;

/// The configuration for programs: by the keys of the file, and beside it what no file contains.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    /// The file that it was read from; `null` stands for the defaults.
    file: Option<String>,
    #[serde(flatten)]
    effective: Effective,
    /// The most octets that the process takes.
    memory_limit: MemoryLimit,
}

#[derive(Debug, Serialize)]
struct MemoryLimit {
    total: u64,
    /// By the label of the metric.
    parts: BTreeMap<&'static str, u64>,
}

impl Checked {
    /// Describes `config`, which was read from `file`.
    pub(crate) fn of(config: &Config, file: Option<&Path>) -> Self {
        let sizing = Sizing::of(config);
        let parts = sizing.parts().map(|(part, octets)| (part.label(), octets));
        Self {
            file: file.map(|path| path.display().to_string()),
            effective: Effective::of(config),
            memory_limit: MemoryLimit {
                total: sizing.total(),
                parts: parts.collect(),
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    #[serde(flatten)]
    checked: Option<&'a Checked>,
    source: Source,
}

/// Where the configuration in force came from. `tersed check --running` reads it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Source {
    pub(crate) loaded_at: String,
    /// Whether the file has changed since.
    pub(crate) changed: bool,
    /// The refusal of the last reload; `null` if it was not refused.
    pub(crate) refused: Option<Refused>,
    /// Flags and variables that override the file.
    pub(crate) over_file: Vec<OverFile>,
    /// Names of listeners that the service manager passed in and the file does not have.
    pub(crate) passed_in: Vec<String>,
}

/// A reload that was refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Refused {
    pub(crate) at: String,
    pub(crate) error: String,
}

/// A flag or a variable that overrides the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct OverFile {
    /// What it sets: `listener` or `forward.to` (one entry for each value), or a key with one value.
    pub(crate) key: String,
    /// The name of the flag or variable.
    pub(crate) by: String,
    pub(crate) value: String,
}

impl OverFile {
    /// All overrides in `args`.
    fn all(args: &RunArgs) -> Vec<Self> {
        let of = |key: &str, argument: &Argument| Self {
            key: key.to_owned(),
            by: argument.name.to_owned(),
            value: argument.text.clone(),
        };
        let listen = args.listen.iter().map(|url| of(LISTENER, url));
        let forward = args.forward.iter().map(|url| of(FORWARD_TO, url));
        let single = args.overrides.iter();
        let single = single.map(|(key, argument)| of(key_of(*key), argument));
        listen.chain(forward).chain(single).collect()
    }

    /// Arguments that read `file` and apply all of `over`; unknown keys are left out.
    pub(crate) fn lay_over(file: Option<PathBuf>, over: &[Self]) -> RunArgs {
        let mut args = RunArgs {
            file,
            ..RunArgs::default()
        };
        for one in over {
            let argument = |name| Argument {
                name,
                text: one.value.clone(),
            };
            match one.key.as_str() {
                LISTENER => args.listen.push(argument("--listen")),
                FORWARD_TO => args.forward.push(argument("--forward")),
                key => {
                    let single = SINGLE.iter().find(|(_, known, _)| *known == key);
                    args.overrides
                        .extend(single.map(|&(key, _, flag)| (key, argument(flag))));
                }
            }
        }
        args
    }
}

/// The configuration in force and its source. The daemon updates it; the pages read it.
#[derive(Clone, Debug)]
pub(crate) struct InForce(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Arc<Metrics>,
    args: RunArgs,
    /// Held for short reads and updates, never while a file is read.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` before the first one is loaded.
    checked: Option<Arc<Checked>>,
    passed_in: Vec<String>,
    loaded_at: WallTime,
    window: Duration,
    refused: Option<(WallTime, Tick, String)>,
    /// The file's contents when it was loaded.
    loaded: Contents,
    /// The file's status at the last look.
    looked: FileStatus,
}

impl InForce {
    /// Nothing is loaded yet. `read` is the state of the file just before it was read.
    #[must_use]
    pub(crate) fn new(metrics: Arc<Metrics>, args: &RunArgs, read: FileState) -> Self {
        let state = State {
            checked: None,
            passed_in: Vec::new(),
            loaded_at: Clock::wall(),
            window: Duration::ZERO,
            refused: None,
            loaded: read.contents,
            looked: read.status,
        };
        Self(Arc::new(Inner {
            metrics,
            args: args.clone(),
            state: Mutex::new(state),
        }))
    }

    /// Records that `config` is in force from now on, with the listeners `passed_in` beside it. `read` is the state of the
    /// file just before it was read; `None` if it was passed before.
    pub(crate) fn load(&self, config: &Config, passed_in: Vec<String>, read: Option<FileState>) {
        let file = self.0.args.file.as_deref();
        let checked = Arc::new(Checked::of(config, file));
        let mut state = self.state();
        state.checked = Some(checked);
        state.passed_in = passed_in;
        state.refused = None;
        state.loaded_at = Clock::wall();
        state.window = config.dedup.policy.window.window;
        if let Some(read) = read {
            (state.loaded, state.looked) = (read.contents, read.status);
        }
        let file = file.map(|path| path.display().to_string());
        let metrics = &self.0.metrics.config;
        metrics.load(&file.unwrap_or_default(), state.loaded_at);
    }

    /// Records that a reload was refused, and why.
    pub(crate) fn refuse(&self, error: String) {
        self.state().refused = Some((Clock::wall(), Clock::now(), error));
        self.0.metrics.config.reload_successful.set(0);
    }

    /// Checks whether the file still has the contents that were loaded. Waits for the disk: call it on a thread that may
    /// block.
    pub(crate) fn look(&self) {
        let Some(file) = &self.0.args.file else {
            return;
        };
        let status = FileStatus::of(file);
        if status == self.state().looked {
            return;
        }
        let read = FileState::of(Some(file));
        let mut state = self.state();
        state.looked = read.status;
        let changed = read.contents != state.loaded;
        self.0.metrics.config.changed.set(u64::from(changed));
    }

    /// The path of the file, or a text that says that there is no file.
    #[must_use]
    pub(crate) fn file_text(&self) -> String {
        match &self.0.args.file {
            Some(path) => printable(&path.display().to_string()).to_string(),
            None => String::from("defaults (no file)"),
        }
    }

    /// The flags and variables that override the file, if there are any. URLs are left out: they have log lines of their
    /// own.
    #[must_use]
    pub(crate) fn over_file_text(&self) -> Option<String> {
        let over = OverFile::all(&self.0.args);
        let word = |one: &OverFile| match one.key.as_str() {
            LISTENER | FORWARD_TO => one.by.clone(),
            _ => format!("{}={}", one.by, one.value),
        };
        let mut words: Vec<String> = over.iter().map(word).collect();
        words.dedup();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The window in force where no rule sets another one.
    pub(super) fn window_text(&self) -> String {
        time_text(self.state().window)
    }

    /// The line of `/readyz` about the configuration in force.
    pub(super) fn line(&self) -> String {
        let (file, at, is_refused) = {
            let state = self.state();
            (self.file_text(), state.loaded_at, state.refused.is_some())
        };
        let mut line = format!("configuration: {file}, loaded at {at}");
        if let Some(over) = self.over_file_text() {
            line = format!("{line}, overridden by {}", printable(&over));
        }
        // A refused file has a line of its own.
        if self.0.metrics.config.changed.get() > 0 && !is_refused {
            let id = std::process::id();
            line = format!(
                "{line}; the file has changed since it was loaded; kill -HUP {id} to load it"
            );
        }
        line
    }

    /// The line of `/readyz` about the last reload, if it was refused.
    pub(super) fn refused_line(&self, now: Tick) -> Option<String> {
        let state = self.state();
        let (_, since, error) = state.refused.as_ref()?;
        let ago = time_text(Duration::from_secs(now.since(*since).as_secs()));
        let mut errors = error.lines();
        let first = errors.next().expect("a refusal has at least one error");
        let error = match errors.count() {
            0 => printable(first).to_string(),
            more => format!("{} (and {more} more in the log)", printable(first)),
        };
        let (at, id) = (state.loaded_at, std::process::id());
        Some(format!(
            "reload refused {ago} ago: {error}; the configuration of {at} stays in force; fix the file and kill -HUP {id}"
        ))
    }

    /// The page of `/api/v1/config`.
    pub(super) fn page(&self) -> String {
        let (checked, source) = {
            let state = self.state();
            let refused = state.refused.as_ref();
            let source = Source {
                loaded_at: state.loaded_at.to_string(),
                changed: self.0.metrics.config.changed.get() > 0,
                refused: refused.map(|(at, _, error)| Refused {
                    at: at.to_string(),
                    error: error.clone(),
                }),
                over_file: OverFile::all(&self.0.args),
                passed_in: state.passed_in.clone(),
            };
            (state.checked.clone(), source)
        };
        let page = Page {
            checked: checked.as_deref(),
            source,
        };
        let page = serde_json::to_string_pretty(&page);
        page.expect("text and numbers can be written as JSON") + "\n"
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

/// The state of a file at one moment.
#[derive(Debug)]
pub(crate) struct FileState {
    status: FileStatus,
    contents: Contents,
}

impl FileState {
    /// The state of `file` now.
    #[must_use]
    pub(crate) fn of(file: Option<&Path>) -> Self {
        // The status first: a change in between is then noticed at the next look.
        let status = file.map_or(FileStatus(None), FileStatus::of);
        let contents = file.map_or(Contents(None), Contents::of);
        Self { status, contents }
    }
}

/// Time, size and inode of a file; `None` if it cannot be examined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FileStatus(Option<(u64, u64, i64, i64, u64)>);

impl FileStatus {
    fn of(file: &Path) -> Self {
        let status = fs::metadata(file).ok();
        Self(status.map(|status| {
            (
                status.dev(),
                status.ino(),
                status.mtime(),
                status.mtime_nsec(),
                status.size(),
            )
        }))
    }
}

/// A hash of a file's contents; `None` if it cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Contents(Option<u64>);

impl Contents {
    fn of(file: &Path) -> Self {
        let read = || -> io::Result<u64> {
            let file = open_at_once(file)?;
            if !file.metadata()?.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut octets = Vec::new();
            file.take(FILE_OCTETS_MAX).read_to_end(&mut octets)?;
            let mut hasher = DefaultHasher::new();
            octets.hash(&mut hasher);
            Ok(hasher.finish())
        };
        Self(read().ok())
    }
}

fn key_of(key: Override) -> &'static str {
    let single = SINGLE.iter().find(|(known, _, _)| *known == key);
    single.expect("each override has a row in the table").1
}

/// The keys that a flag can set: their name in the file, and the flag.
const SINGLE: [(Override, &str, &str); 7] = [
    (Override::Window, "dedup.window", "--window"),
    (Override::Summary, "dedup.summary", "--summary"),
    (Override::Memory, "dedup.memory", "--memory"),
    (Override::WhenFull, "forward.when_full", "--when-full"),
    (Override::Admin, "admin.address", "--admin"),
    (Override::LogLevel, "log.level", "--log-level"),
    (Override::LogFormat, "log.format", "--log-format"),
];
const LISTENER: &str = "listener";
const FORWARD_TO: &str = "forward.to";

/// The key of [`Source`] on the page.
pub(crate) const SOURCE: &str = "source";

/// More octets than a configuration has; what follows is not compared.
const FILE_OCTETS_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_changed_when_it_says_something_else_or_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        fs::write(&path, "[dedup]\n").unwrap();
        let args = RunArgs {
            file: Some(path.clone()),
            ..RunArgs::default()
        };
        let metrics = Metrics::new();
        let read = FileState::of(Some(&path));
        let in_force = InForce::new(Arc::clone(&metrics), &args, read);
        in_force.load(&Config::default(), Vec::new(), None);
        let changed = || {
            in_force.look();
            metrics.config.changed.get()
        };
        assert_eq!(changed(), 0);
        fs::write(&path, "[dedup]\nallow = 2\n").unwrap();
        assert_eq!(changed(), 1);
        assert_eq!(changed(), 1, "also when it was looked at before");
        fs::write(&path, "[dedup]\n").unwrap();
        assert_eq!(changed(), 0, "written again as it was");
        fs::remove_file(&path).unwrap();
        assert_eq!(changed(), 1);
        fs::create_dir(&path).unwrap();
        assert_eq!(changed(), 1);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "[dedup]\nallow = 3\n").unwrap();
        in_force.load(
            &Config::default(),
            Vec::new(),
            Some(FileState::of(Some(&path))),
        );
        assert_eq!(changed(), 0);
    }

    #[test]
    fn flags_and_variables_can_be_laid_over_a_file_again() {
        let argument = |name, text: &str| Argument {
            name,
            text: text.to_owned(),
        };
        let args = RunArgs {
            listen: vec![
                argument("--listen", "udp://[::1]:1"),
                argument("--listen", "tcp://[::1]:1"),
            ],
            forward: vec![argument("--forward", "stdout:")],
            overrides: SINGLE
                .map(|(key, _, flag)| (key, argument(flag, "x")))
                .to_vec(),
            ..RunArgs::default()
        };
        assert_eq!(OverFile::lay_over(None, &OverFile::all(&args)), args);
    }

    #[test]
    fn the_line_says_from_where_since_when_and_what_is_wrong() {
        let metrics = Metrics::new();
        let args = RunArgs::default();
        let in_force = InForce::new(Arc::clone(&metrics), &args, FileState::of(None));
        in_force.load(&Config::default(), Vec::new(), None);
        let now = || Clock::now();
        let line = in_force.line();
        assert!(
            line.starts_with("configuration: defaults (no file), loaded at 2"),
            "{line}"
        );
        assert!(line.ends_with('Z'), "{line}");
        in_force.refuse("t.toml:1: a\u{202e}\nt.toml:2: b\nt.toml:3: c".to_owned());
        let later = now().after(Duration::from_secs(180));
        let line = in_force.refused_line(later).unwrap();
        let refused = "reload refused 3m ago: t.toml:1: a\\u{202e} (and 2 more in the log); the configuration of 2";
        assert!(line.starts_with(refused), "{line}");
        assert!(
            line.contains(" stays in force; fix the file and kill -HUP "),
            "{line}"
        );
        in_force.load(&Config::default(), Vec::new(), None);
        assert_eq!(in_force.refused_line(later), None);
        metrics.config.changed.set(1);
        assert!(
            in_force
                .line()
                .contains("; the file has changed since it was loaded; kill -HUP ")
        );
        in_force.load(&Config::default(), Vec::new(), None);
        assert!(in_force.line().ends_with('Z'));
    }
}
