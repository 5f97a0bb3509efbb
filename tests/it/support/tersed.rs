//! The relay under test: the real binary, on ephemeral ports, observed from outside.
//!
//! [`Setup`] is how it is started, [`Tersed`] is the running relay, [`Stopped`] is what remains of it. A test that
//! passes must have called [`Tersed::finish`] (or [`Tersed::terminate`] after [`Tersed::assert_balance`]), because the
//! counting law is checked there.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

pub(crate) use super::log_lines::LogLine;
use super::log_lines::log_lines;
use super::metrics::{Balance, Metrics, http_get};
use super::proc_fs;
use super::process::Process;
use super::sink::Sink;
use super::wait::{LIMIT, wait_for, wait_until, wait_while};

/// The binary that cargo built for this test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tersed");

/// The variable that injects a panic: see `src/fault.rs`. A relay that runs with it may panic.
pub(crate) const FAULT: &str = "TERSED_FAULT";

/// How the relay is to run.
pub(crate) struct Setup {
    dir: TempDir,
    args: Vec<String>,
    config: Option<String>,
    environment: Vec<(String, String)>,
    /// A line of shell that mounts file systems before the relay is executed, for a relay with mounts of its own.
    mounts: Option<String>,
    /// A command that execs the relay, so that its process id becomes the relay's; empty without one.
    launcher: Vec<String>,
    /// The relay's standard output; `None` to capture it.
    stdout: Option<OwnedFd>,
}

/// A running relay that is ready. It is killed on drop.
pub(crate) struct Tersed {
    process: Process,
    admin: SocketAddr,
    dir: TempDir,
    balanced: bool,
    may_panic: bool,
}

/// What remains of a relay that has stopped.
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    /// All of its standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its log.
    pub(crate) log: Vec<LogLine>,
    /// Its standard error, unparsed.
    pub(crate) stderr: String,
}

impl Setup {
    /// A relay with an admin port, without listeners and upstreams.
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::with_prefix("tersed-it-").unwrap(),
            args: Vec::new(),
            config: None,
            environment: Vec::new(),
            mounts: None,
            launcher: Vec::new(),
            stdout: None,
        }
    }

    /// A path in the directory that lives as long as the relay.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `--listen url`.
    pub(crate) fn listen(self, url: &str) -> Self {
        self.args(["--listen", url])
    }

    /// `--forward url`; a further call adds the next upstream of the list.
    pub(crate) fn forward(self, url: &str) -> Self {
        self.args(["--forward", url])
    }

    /// `--window span`.
    pub(crate) fn window(self, span: &str) -> Self {
        self.args(["--window", span])
    }

    /// Any other arguments.
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The text of the configuration file.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// Appends a `[[listener]]` to the configuration file: its URL, and other keys with their values.
    pub(crate) fn listener(self, url: &str, keys: &str) -> Self {
        self.append(&format!("[[listener]]\nurl = \"{url}\"\n{keys}\n"))
    }

    /// Appends a `[forward]` to the configuration file that sends to `sink` with octet counting, which changes no octet
    /// on the way, and other keys with their values.
    pub(crate) fn forward_counted(self, sink: &Sink, keys: &str) -> Self {
        let url = sink.url();
        self.append(&format!(
            "[forward]\nto = [{{ url = \"{url}\", framing = \"octet-counting\" }}]\n{keys}\n"
        ))
    }

    /// Appends text to the configuration file.
    pub(crate) fn append(mut self, text: &str) -> Self {
        let config = self.config.get_or_insert_default();
        config.push_str(text);
        config.push('\n');
        self
    }

    /// Sets an environment variable. The environment is empty otherwise.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits the number of open files.
    pub(crate) fn open_files_max(self, count: u32) -> Self {
        self.launcher(["prlimit".to_owned(), format!("--nofile={count}:{count}")])
    }

    /// Sets the umask (octal).
    pub(crate) fn umask(self, mask: &str) -> Self {
        let script = format!("umask {mask} && exec \"$0\" \"$@\"");
        self.launcher(["sh", "-c", &script])
    }

    /// A command that takes the relay's command line after its own arguments, and execs it.
    pub(crate) fn launcher(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        assert!(self.launcher.is_empty(), "only one launcher is possible");
        self.launcher = words.into_iter().map(Into::into).collect();
        self
    }

    /// Connects the relay's standard output to a file of the test.
    pub(crate) fn stdout_to(mut self, stdout: OwnedFd) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// A line of shell that mounts file systems for the relay alone. It runs in the relay's directory before the start.
    ///
    /// # Panics
    ///
    /// If the test does not run as root, which mounting needs.
    pub(crate) fn with_mounts(mut self, script: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test mounts file systems; run it as root, as .ci/run does"
        );
        self.mounts = Some(script.to_owned());
        self
    }

    /// The command that becomes the relay and keeps its process id.
    fn command(&self) -> Command {
        let mut words: Vec<String> = Vec::new();
        let mut add = |added: &[&str]| words.extend(added.iter().map(|&word| word.to_owned()));
        if let Some(script) = &self.mounts {
            add(&["unshare", "--mount", "--propagation", "private"]);
            add(&["sh", "-ec", &format!("{script}; exec \"$0\" \"$@\"")]);
        }
        words.extend(self.launcher.iter().cloned());
        words.push(BINARY.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// `tersed run` with everything that was set.
    fn run_command(&self) -> Command {
        let mut command = self.command();
        command
            .arg("run")
            .args(["--admin", "127.0.0.1:0", "--log-format", "json"]);
        if let Some(text) = &self.config {
            let file = self.path(CONFIG_NAME);
            fs::write(&file, text).unwrap();
            command.arg("--config").arg(file);
        }
        command.args(&self.args);
        command
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().cloned());
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.current_dir(self.dir.path());
        command
    }

    /// Starts a relay that is expected to refuse. Returns its exit status and standard error.
    ///
    /// # Panics
    ///
    /// If it does not end.
    #[track_caller]
    pub(crate) fn start_refused(self) -> (ExitStatus, String) {
        let mut process = Process::start(&mut self.run_command(), "util-linux and systemd");
        let status = process.wait_exit(LIMIT);
        (status, process.stderr())
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it exits instead, with its log.
    #[track_caller]
    pub(crate) fn start(self) -> Tersed {
        self.start_while(|_| {})
    }

    /// As [`start`](Self::start), and calls `meanwhile` during the start.
    ///
    /// # Panics
    ///
    /// If it exits instead, with its log.
    #[track_caller]
    pub(crate) fn start_while(mut self, meanwhile: impl FnOnce(&Process)) -> Tersed {
        let may_panic = self.environment.iter().any(|(name, _)| name == FAULT);
        let mut command = self.run_command();
        let stdout = self.stdout.take().map_or_else(Stdio::piped, Stdio::from);
        let mut process = Process::start_to(&mut command, stdout, "util-linux and systemd");
        // This closes the test's copy of the relay's standard output.
        drop(command);
        meanwhile(&process);
        wait_until("the relay to be ready", LIMIT, || {
            let exited = process.exited();
            assert!(exited.is_none(), "the relay ended at once: {exited:?}");
            log_lines(&process)
                .iter()
                .any(|line| line.message == "ready")
        });
        let lines = log_lines(&process);
        let line = lines.iter().find(|line| line.message == "admin listening");
        let admin = line
            .expect("an admin address is configured")
            .field("address");
        let admin = admin.unwrap().parse().unwrap();
        Tersed {
            process,
            admin,
            dir: self.dir,
            balanced: false,
            may_panic,
        }
    }
}

impl Tersed {
    /// The bound address of the listener with this name. Without a name of its own, a listener's name is its URL.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let lines = self.log();
        let line = lines.iter().find(|line| {
            line.message == "listening" && line.field("listener").as_deref() == Some(listener)
        });
        let line = line.unwrap_or_else(|| panic!("no listener {listener} in {lines:#?}"));
        line.field("address").unwrap().parse().unwrap()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A path in the directory that lives as long as the relay.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file, to be written before a reload.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.path(CONFIG_NAME)
    }

    /// Where the test finds what the relay, with mounts of its own, sees at `path`.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").expect("an absolute path");
        Path::new("/proc")
            .join(self.id().to_string())
            .join("root")
            .join(path)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its standard output so far.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.process.stdout()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> Vec<LogLine> {
        log_lines(&self.process)
    }

    /// How often its log has `message` so far.
    pub(crate) fn log_count(&self, message: &str) -> usize {
        self.log()
            .iter()
            .filter(|line| line.message == message)
            .count()
    }

    /// Waits until its log has a line with this message, and returns the first.
    #[track_caller]
    pub(crate) fn wait_log(&self, message: &str) -> LogLine {
        wait_for(&format!("{message:?} in the log"), LIMIT, || {
            self.log().into_iter().find(|line| line.message == message)
        })
    }

    /// Its metrics now.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::scrape(self.admin).unwrap()
    }

    /// `GET path` at its admin address: status and body.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http_get(self.admin, path).unwrap()
    }

    /// Waits until it has received `count` frames over all listeners.
    ///
    /// # Panics
    ///
    /// If it receives fewer within the limit, or more.
    #[track_caller]
    pub(crate) fn wait_received(&self, count: u64) {
        let received = wait_for(&format!("{count} frames received"), LIMIT, || {
            let received = self.metrics().balance().received;
            (received >= count).then_some(received)
        });
        assert_eq!(received, count, "frames received");
    }

    /// Waits until the counting law holds and nothing moves. Returns the metrics of that moment.
    ///
    /// # Panics
    ///
    /// If that does not happen within the limit, with the terms of the law.
    #[track_caller]
    pub(crate) fn assert_balance(&mut self) -> Metrics {
        let mut last = None;
        let mut equal = 0;
        let metrics = wait_for("a quiet relay", LIMIT, || {
            let metrics = self.metrics();
            let balance = metrics.balance();
            equal = if last == Some(balance) { equal + 1 } else { 0 };
            last = Some(balance);
            (equal >= QUIET_LOOKS).then_some(metrics)
        });
        let balance = metrics.balance();
        assert!(balance.holds(), "the counting law is broken: {balance:?}");
        self.balanced = true;
        metrics
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends `SIGTERM`, and waits until it has stopped.
    #[track_caller]
    pub(crate) fn terminate(self) -> Stopped {
        self.stop_by(Signal::SIGTERM)
    }

    /// Kills it. Its counters are lost, so nothing can be checked afterwards.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.balanced = true;
        self.process.kill();
        let stderr = self.process.stderr();
        assert!(
            self.may_panic || !stderr.contains("panicked"),
            "the relay panicked"
        );
    }

    /// Sends it `signal` and waits until it has stopped.
    ///
    /// # Panics
    ///
    /// If it does not stop, or if its standard error contains a panic.
    #[track_caller]
    pub(crate) fn stop_by(self, signal: Signal) -> Stopped {
        self.signal(signal);
        self.wait_stopped()
    }

    /// Waits until it has stopped; it was told to stop already.
    #[track_caller]
    pub(crate) fn wait_stopped(mut self) -> Stopped {
        assert!(self.balanced, "a test ends by checking the counting law");
        let status = self.process.wait_exit(LIMIT);
        let stderr = self.process.stderr();
        assert!(
            self.may_panic || !stderr.contains("panicked"),
            "the relay panicked"
        );
        Stopped {
            status,
            stdout: self.process.stdout(),
            log: log_lines(&self.process),
            stderr,
        }
    }

    /// Declares that the test checks the counting law on [`Stopped::balance`], because the relay is not quiet before
    /// its stop.
    pub(crate) fn balance_at_exit(&mut self) {
        self.balanced = true;
    }

    /// Ends a test: asserts the counting law, and stops the relay in order.
    ///
    /// Returns the last metrics, and what remains of the relay.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (Metrics, Stopped) {
        let metrics = self.assert_balance();
        let stopped = self.terminate();
        assert!(
            stopped.status.success(),
            "the relay exited with {}",
            stopped.status
        );
        (metrics, stopped)
    }

    /// The number of its open file descriptors.
    pub(crate) fn open_files(&self) -> usize {
        proc_fs::open_files(self.id())
    }

    /// The highest number of octets of memory that were ever resident.
    pub(crate) fn peak_resident_octets(&self) -> u64 {
        proc_fs::peak_resident_octets(self.id())
    }

    /// Restarts [`Tersed::peak_resident_octets`] from what is resident now.
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").unwrap();
    }

    /// Processor time used so far.
    pub(crate) fn processor_time(&self) -> Duration {
        proc_fs::processor_time(self.id())
    }

    /// Waits until the metric `name` with all of `labels` equals `value`.
    ///
    /// # Panics
    ///
    /// If it does not within the limit, with the value it has.
    #[track_caller]
    pub(crate) fn wait_metric(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let mut last = 0;
        let reached = wait_while(LIMIT, || {
            last = self.metrics().total_where(name, labels);
            last != value
        });
        assert!(reached, "{name}{labels:?} is {last}, not {value}");
    }

    /// Octets of its memory that are resident.
    pub(crate) fn resident_octets(&self) -> u64 {
        proc_fs::resident_octets(self.id())
    }
}

impl Stopped {
    /// How often the log has `message`.
    pub(crate) fn log_count(&self, message: &str) -> usize {
        self.log
            .iter()
            .filter(|line| line.message == message)
            .count()
    }

    /// The terms of the counting law at the stop.
    #[track_caller]
    pub(crate) fn balance(&self) -> Balance {
        let line = self.log.iter().rfind(|line| line.message == "stopped");
        let line = line.expect("a relay that stops logs its balance");
        let term = |name: &str| line.field(name).unwrap().parse().unwrap();
        Balance {
            received: term("received"),
            recovered: term("recovered"),
            forwarded: term("forwarded"),
            suppressed: term("suppressed"),
            dropped: term("dropped"),
            queued: term("queued"),
        }
    }
}

impl Drop for Tersed {
    fn drop(&mut self) {
        assert!(
            self.balanced || thread::panicking(),
            "a test ends by checking the counting law: call finish()"
        );
    }
}

/// The URL of `path` for a configuration, which needs a path in UTF-8.
#[track_caller]
pub(crate) fn url(scheme: &str, path: &Path) -> String {
    format!(
        "{scheme}://{}",
        path.to_str().expect("temporary paths are UTF-8")
    )
}

const CONFIG_NAME: &str = "tersed.toml";
const QUIET_LOOKS: u32 = 3;
