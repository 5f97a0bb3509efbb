//! The relay under test: the real binary, on ephemeral ports, watched from outside.
//!
//! [`Setup`] says how it runs, [`Tersed`] is it running, [`Stopped`] is what it left behind. A
//! test that passes must have called [`Tersed::finish`] (or [`Tersed::terminate`] after
//! [`Tersed::assert_balance`]), because that is where the counting law is checked.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

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
    /// What a shell mounts before it becomes the relay, if that has mounts of its own.
    mounts: Option<String>,
    /// A command that execs the relay, so that the process id is the relay's; empty for none.
    launcher: Vec<String>,
    /// Its standard output; `None` to capture it.
    stdout: Option<OwnedFd>,
}

/// The relay, running and ready. Killed when dropped.
pub(crate) struct Tersed {
    process: Process,
    admin: SocketAddr,
    dir: TempDir,
    balanced: bool,
    may_panic: bool,
}

/// What the relay left behind.
pub(crate) struct Stopped {
    /// How it exited.
    pub(crate) status: ExitStatus,
    /// All it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its own log.
    pub(crate) log: Vec<LogLine>,
    /// The same as it was written.
    pub(crate) stderr: String,
}

/// A line of the relay's own log.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    /// `INFO` and so on.
    pub(crate) level: String,
    /// The static message.
    pub(crate) message: String,
    fields: Value,
}

impl Setup {
    /// Nothing but an admin port: no listener, no upstream.
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

    /// A path inside the directory that lives as long as the relay.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `--listen url`.
    pub(crate) fn listen(self, url: &str) -> Self {
        self.args(["--listen", url])
    }

    /// `--forward url`; once more for the next one down the list.
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

    /// The text of its configuration file.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// A `[[listener]]` of its configuration file: its URL, and other keys with their values.
    pub(crate) fn listener(self, url: &str, keys: &str) -> Self {
        self.append(&format!("[[listener]]\nurl = \"{url}\"\n{keys}\n"))
    }

    /// A `[forward]` of its configuration file that sends octet-counted to `sink`, so that no octet
    /// changes on the way; and other keys with their values.
    pub(crate) fn forward_counted(self, sink: &Sink, keys: &str) -> Self {
        let url = sink.url();
        self.append(&format!(
            "[forward]\nto = [{{ url = \"{url}\", framing = \"octet-counting\" }}]\n{keys}\n"
        ))
    }

    /// More text at the end of its configuration file.
    pub(crate) fn append(mut self, text: &str) -> Self {
        let config = self.config.get_or_insert_default();
        config.push_str(text);
        config.push('\n');
        self
    }

    /// A variable of its environment, which is empty otherwise.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The most files it may have open.
    pub(crate) fn open_files_max(self, count: u32) -> Self {
        self.launcher(["prlimit".to_owned(), format!("--nofile={count}:{count}")])
    }

    /// What is taken away from the permissions of what it creates, in octal.
    pub(crate) fn umask(self, mask: &str) -> Self {
        let script = format!("umask {mask} && exec \"$0\" \"$@\"");
        self.launcher(["sh", "-c", &script])
    }

    /// A command that takes the relay's command line behind its own arguments and execs it.
    pub(crate) fn launcher(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        assert!(self.launcher.is_empty(), "one launcher");
        self.launcher = words.into_iter().map(Into::into).collect();
        self
    }

    /// A standard output of the test's own.
    pub(crate) fn stdout_to(mut self, stdout: OwnedFd) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// A line of shell, run in its directory before it starts, that mounts what the relay alone sees.
    ///
    /// # Panics
    ///
    /// When this is not root, who alone may mount.
    pub(crate) fn with_mounts(mut self, script: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test mounts file systems: run it as root, as .ci/run does"
        );
        self.mounts = Some(script.to_owned());
        self
    }

    /// The program that becomes the relay, whose process id is the relay's.
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

    /// `tersed run` with all that was asked for.
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

    /// Starts it where it cannot run: its exit status and what it said.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub(crate) fn start_refused(self) -> (ExitStatus, String) {
        let mut process = Process::start(&mut self.run_command(), "util-linux and systemd");
        let status = process.wait_exit(LIMIT);
        (status, process.stderr())
    }

    /// Starts it and waits until it says that it is ready.
    ///
    /// # Panics
    ///
    /// When it exits instead, with its log.
    #[track_caller]
    pub(crate) fn start(self) -> Tersed {
        self.start_while(|_| {})
    }

    /// The same, and does something while it starts.
    ///
    /// # Panics
    ///
    /// When it exits instead, with its log.
    #[track_caller]
    pub(crate) fn start_while(mut self, meanwhile: impl FnOnce(&Process)) -> Tersed {
        let may_panic = self.environment.iter().any(|(name, _)| name == FAULT);
        let mut command = self.run_command();
        let stdout = self.stdout.take().map_or_else(Stdio::piped, Stdio::from);
        let mut process = Process::start_to(&mut command, stdout, "util-linux and systemd");
        // The test's end of a standard output is closed with it.
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
            .expect("an admin address was asked for")
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
    /// The bound address of the listener with this name, which is its URL unless it was given one.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let lines = self.log();
        let line = lines.iter().find(|line| {
            line.message == "listening" && line.field("listener").as_deref() == Some(listener)
        });
        let line = line.unwrap_or_else(|| panic!("no listener {listener} in {lines:#?}"));
        line.field("address").unwrap().parse().unwrap()
    }

    /// Where its admin address is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A path inside the directory that lives as long as the relay.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its configuration file, to be written before a reload.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.path(CONFIG_NAME)
    }

    /// A path as the relay sees it, where it has mounts of its own.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").expect("an absolute path");
        Path::new("/proc")
            .join(self.id().to_string())
            .join("root")
            .join(path)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.process.stdout()
    }

    /// Its own log so far.
    pub(crate) fn log(&self) -> Vec<LogLine> {
        log_lines(&self.process)
    }

    /// How often it has said `message` so far.
    pub(crate) fn log_count(&self, message: &str) -> usize {
        self.log()
            .iter()
            .filter(|line| line.message == message)
            .count()
    }

    /// Waits until its log has a line with this message, and returns the first.
    #[track_caller]
    pub(crate) fn wait_log(&self, message: &str) -> LogLine {
        wait_for(&format!("the log to say {message:?}"), LIMIT, || {
            self.log().into_iter().find(|line| line.message == message)
        })
    }

    /// Its metrics now.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::scrape(self.admin).unwrap()
    }

    /// `GET path` of its admin address: status and body.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http_get(self.admin, path).unwrap()
    }

    /// Waits until it has received `count` frames in all, over all listeners.
    ///
    /// # Panics
    ///
    /// When it has fewer within the limit, or more.
    #[track_caller]
    pub(crate) fn wait_received(&self, count: u64) {
        let received = wait_for(&format!("{count} frames received"), LIMIT, || {
            let received = self.metrics().balance().received;
            (received >= count).then_some(received)
        });
        assert_eq!(received, count, "frames received");
    }

    /// Waits until the counting law holds and nothing moves, and returns the metrics of then.
    ///
    /// # Panics
    ///
    /// When it does not within the limit, with the terms.
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

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks it to stop and waits until it has.
    #[track_caller]
    pub(crate) fn terminate(self) -> Stopped {
        self.stop_by(Signal::SIGTERM)
    }

    /// Kills it: what it counted is gone with it, and there is nothing that could be checked any more.
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
    /// When it does not stop, or a panic is in what it wrote.
    #[track_caller]
    pub(crate) fn stop_by(self, signal: Signal) -> Stopped {
        self.signal(signal);
        self.wait_stopped()
    }

    /// Waits until it has stopped, which it was told to do already.
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

    /// The test checks the counting law on [`Stopped::balance`], because the relay is not quiet
    /// before.
    pub(crate) fn balance_at_exit(&mut self) {
        self.balanced = true;
    }

    /// The end of a test: the counting law holds, and the relay stops in order.
    ///
    /// Returns the last metrics and what it left behind.
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

    /// Its open file descriptors.
    pub(crate) fn open_files(&self) -> usize {
        proc_fs::open_files(self.id())
    }

    /// The most octets of its memory that have ever been resident.
    pub(crate) fn peak_resident_octets(&self) -> u64 {
        proc_fs::peak_resident_octets(self.id())
    }

    /// From now on [`Tersed::peak_resident_octets`] counts from what is resident now.
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").unwrap();
    }

    /// Processor time that it has used so far.
    pub(crate) fn processor_time(&self) -> Duration {
        proc_fs::processor_time(self.id())
    }

    /// Waits until the metric `name` with all of `labels` is `value`.
    ///
    /// # Panics
    ///
    /// When it is something else after the limit, saying what.
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
    /// How often it said `message`.
    pub(crate) fn log_count(&self, message: &str) -> usize {
        self.log
            .iter()
            .filter(|line| line.message == message)
            .count()
    }

    /// The counting law's terms as it left them.
    #[track_caller]
    pub(crate) fn balance(&self) -> Balance {
        let line = self.log.iter().rfind(|line| line.message == "stopped");
        let line = line.expect("it says so when it has stopped");
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

impl LogLine {
    /// A field of the line, as text.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// The whole line contains `text`, in its message or in a field.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.message.contains(text)
            || self.fields.as_object().is_some_and(|fields| {
                fields
                    .keys()
                    .any(|name| self.field(name).is_some_and(|field| field.contains(text)))
            })
    }
}

/// The complete lines of its log so far.
///
/// # Panics
///
/// When a line is not JSON: only a panic's text is not, and it is then shown.
fn log_lines(process: &Process) -> Vec<LogLine> {
    let stderr = process.stderr();
    let Some((complete, _)) = stderr.rsplit_once('\n') else {
        return Vec::new();
    };
    complete
        .lines()
        .filter(|line| {
            let of_launcher = |words: &&str| line.starts_with(*words);
            // The last line of an exit with status 1 is for people.
            !OF_SOCKET_ACTIVATE.iter().any(of_launcher) && !line.starts_with("tersed: ")
        })
        .map(parse_log_line)
        .collect()
}

fn parse_log_line(line: &str) -> LogLine {
    let json: Value =
        serde_json::from_str(line).unwrap_or_else(|err| panic!("no JSON ({err}): {line}"));
    // Fields stand under "fields", or beside the level if flattened.
    let fields = json.get("fields").cloned().unwrap_or_else(|| json.clone());
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
    LogLine {
        level: text(json.get("level")),
        message: text(fields.get("message")),
        fields,
    }
}

/// A configuration that a path in the file system goes into must be able to hold it.
#[track_caller]
pub(crate) fn url(scheme: &str, path: &Path) -> String {
    format!(
        "{scheme}://{}",
        path.to_str().expect("temporary paths are text")
    )
}

/// What `systemd-socket-activate` says before it execs the relay.
const OF_SOCKET_ACTIVATE: [&str; 3] = ["Listening on ", "Communication attempt ", "Execing "];
const CONFIG_NAME: &str = "tersed.toml";
const QUIET_LOOKS: u32 = 3;
