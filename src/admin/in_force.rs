//! In force: which configuration runs, where it came from, and whether its file still says the same.
//!
//! ```text
//! daemon ──load, refuse──▶ InForce ──▶ /api/v1/config, /readyz, tersed_config_*
//! the file, each second ─────▲
//! ```
//!
//! # Guarantees
//!
//! - `/api/v1/config` is what `tersed check --format json` prints of the same configuration, and `source` beside it.
//! - A file counts as changed when its contents are other ones, or cannot be read; not when it was only touched.
//! - The file is read on a thread of its own, once after each change of its time, size or place.
//!
//! # Left out
//!
//! Reloading. Comparing what the file says with what runs (`tersed check --running`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::config::{Argument, Config, Effective, Override, RunArgs, time_text};
use crate::logging::printable;
use crate::metrics::Metrics;
use crate::sizing::Sizing;
use crate::tick::{Tick, WallTime};

/// For programs: what runs, by the keys of the file, and what no file has.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    /// The file that it was read from; `null` is the defaults.
    file: Option<String>,
    #[serde(flatten)]
    effective: Effective,
    /// Octets that the process takes at most.
    memory_limit: MemoryLimit,
}

#[derive(Debug, Serialize)]
struct MemoryLimit {
    total: u64,
    /// By the label that the metric has.
    parts: BTreeMap<&'static str, u64>,
}

impl Checked {
    /// What `config`, which was read from `file`, runs.
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

/// What `/api/v1/config` shows.
#[derive(Debug, Serialize)]
struct Page<'a> {
    #[serde(flatten)]
    checked: Option<&'a Checked>,
    source: Source,
}

/// Beside what runs: where it came from. Read by `tersed check --running`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Source {
    /// RFC 3339.
    pub(crate) loaded_at: String,
    /// Whether the file is another one by now.
    pub(crate) changed: bool,
    /// When the last reload was refused, and why; `null` unless it was.
    pub(crate) refused: Option<Refused>,
    /// Flags and variables that stand above the file.
    pub(crate) over_file: Vec<OverFile>,
    /// Names of listeners that the service manager passed in, and that no file has.
    pub(crate) passed_in: Vec<String>,
}

/// A reload that was refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Refused {
    /// RFC 3339.
    pub(crate) at: String,
    /// What was wrong.
    pub(crate) error: String,
}

/// A flag or a variable that stands above the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct OverFile {
    /// What it sets: `listener`, `forward.to` (once for each), or a key of one value.
    pub(crate) key: String,
    /// The flag or variable.
    pub(crate) by: String,
    /// Its value.
    pub(crate) value: String,
}

impl OverFile {
    /// All of `args`.
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

    /// What reads `file` under all of `over`; a key that is not known here is left out.
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

/// What runs and where it came from: shared between the daemon, which says so, and the pages.
#[derive(Clone, Debug)]
pub struct InForce(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Arc<Metrics>,
    args: RunArgs,
    /// Held for as long as it takes to look or to note something; never while a file is read.
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
    /// What was loaded.
    loaded: Contents,
    /// The file as it was looked at last.
    looked: Place,
}

impl InForce {
    /// Before anything is loaded. `read` is the file as it was just before it was.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, args: &RunArgs, read: FileState) -> Self {
        let state = State {
            checked: None,
            passed_in: Vec::new(),
            loaded_at: Clock::wall(),
            window: Duration::ZERO,
            refused: None,
            loaded: read.contents,
            looked: read.place,
        };
        Self(Arc::new(Inner {
            metrics,
            args: args.clone(),
            state: Mutex::new(state),
        }))
    }

    /// Notes what runs from now on, with the listeners `passed_in` that no file has. `read` is its file as it was just
    /// before it was read; `None` if that was told before.
    pub fn load(&self, config: &Config, passed_in: Vec<String>, read: Option<FileState>) {
        let file = self.0.args.file.as_deref();
        let checked = Arc::new(Checked::of(config, file));
        let mut state = self.state();
        state.checked = Some(checked);
        state.passed_in = passed_in;
        state.refused = None;
        state.loaded_at = Clock::wall();
        state.window = config.dedup.policy.window.window;
        if let Some(read) = read {
            (state.loaded, state.looked) = (read.contents, read.place);
        }
        let file = file.map(|path| path.display().to_string());
        let metrics = &self.0.metrics.config;
        metrics.load(&file.unwrap_or_default(), state.loaded_at);
    }

    /// Notes that a reload was refused, and why.
    pub fn refuse(&self, error: String) {
        self.state().refused = Some((Clock::wall(), Clock::now(), error));
        self.0.metrics.config.reload_successful.set(0);
    }

    /// Looks whether the file is what was loaded. Waits for the disk: call it where that holds nothing up.
    pub fn look(&self) {
        let Some(file) = &self.0.args.file else {
            return;
        };
        let place = Place::of(file);
        if place == self.state().looked {
            return;
        }
        let read = FileState::of(Some(file));
        let mut state = self.state();
        state.looked = read.place;
        let changed = read.contents != state.loaded;
        self.0.metrics.config.changed.set(u64::from(changed));
    }

    /// The file in words.
    #[must_use]
    pub fn file_text(&self) -> String {
        match &self.0.args.file {
            Some(path) => printable(&path.display().to_string()).to_string(),
            None => String::from("defaults (no file)"),
        }
    }

    /// The flags and variables that override it, in words, if there are some. URLs have lines of their own.
    #[must_use]
    pub fn over_file_text(&self) -> Option<String> {
        let over = OverFile::all(&self.0.args);
        let word = |one: &OverFile| match one.key.as_str() {
            LISTENER | FORWARD_TO => one.by.clone(),
            _ => format!("{}={}", one.by, one.value),
        };
        let mut words: Vec<String> = over.iter().map(word).collect();
        words.dedup();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The window that runs where no rule says another one.
    pub(super) fn window_text(&self) -> String {
        time_text(self.state().window)
    }

    /// The line for `/readyz` about what runs.
    pub(super) fn line(&self) -> String {
        let (file, at, is_refused) = {
            let state = self.state();
            (self.file_text(), state.loaded_at, state.refused.is_some())
        };
        let mut line = format!("configuration: {file}, loaded at {at}");
        if let Some(over) = self.over_file_text() {
            line = format!("{line}, overridden by {}", printable(&over));
        }
        // A file that was refused has a line that says more.
        if self.0.metrics.config.changed.get() > 0 && !is_refused {
            let id = std::process::id();
            line = format!(
                "{line}; the file has changed since it was loaded; kill -HUP {id} to load it"
            );
        }
        line
    }

    /// The line for `/readyz` about a reload that was refused, if the last one was.
    pub(super) fn refused_line(&self, now: Tick) -> Option<String> {
        let state = self.state();
        let (_, since, error) = state.refused.as_ref()?;
        let ago = time_text(Duration::from_secs(now.since(*since).as_secs()));
        let mut errors = error.lines();
        let first = errors.next().unwrap_or_default();
        let error = match errors.count() {
            0 => printable(first).to_string(),
            more => format!("{} (and {more} more in the log)", printable(first)),
        };
        let (at, id) = (state.loaded_at, std::process::id());
        Some(format!(
            "reload refused {ago} ago: {error}; what was loaded at {at} stays in force; mend the file and kill -HUP {id}"
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
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file at one moment.
#[derive(Debug)]
pub struct FileState {
    place: Place,
    contents: Contents,
}

impl FileState {
    /// That of `file` now.
    #[must_use]
    pub fn of(file: Option<&Path>) -> Self {
        // The place first: what changes in between is looked at once more.
        let place = file.map_or(Place(None), Place::of);
        let contents = file.map_or(Contents(None), Contents::of);
        Self { place, contents }
    }
}

/// Time, size and place of a file; `None` if it cannot be looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place(Option<(u64, u64, i64, i64, u64)>);

impl Place {
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

/// A hash of what is in a file; `None` if it cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Contents(Option<u64>);

impl Contents {
    fn of(file: &Path) -> Self {
        let read = || -> io::Result<u64> {
            // A FIFO would be waited for.
            if !fs::metadata(file)?.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut octets = Vec::new();
            File::open(file)?
                .take(FILE_OCTETS_MAX)
                .read_to_end(&mut octets)?;
            let mut hasher = DefaultHasher::new();
            octets.hash(&mut hasher);
            Ok(hasher.finish())
        };
        Self(read().ok())
    }
}

fn key_of(key: Override) -> &'static str {
    let single = SINGLE.iter().find(|(known, _, _)| *known == key);
    single.map_or("", |(_, text, _)| text)
}

/// The keys that a flag can set: as the file has them, and the flag.
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

/// Where the page has what no `tersed check` prints.
pub(crate) const SOURCE: &str = "source";

/// More than a configuration may have; what is behind is not compared.
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
        let refused = "reload refused 3m ago: t.toml:1: a\\u{202e} (and 2 more in the log); what was loaded at 2";
        assert!(line.starts_with(refused), "{line}");
        assert!(
            line.contains(" stays in force; mend the file and kill -HUP "),
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
