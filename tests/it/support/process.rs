//! Child processes: their output is captured, shown if the test fails, and they are killed when it ends.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_for;

/// A running program. It is killed on drop; if the test is failing, its standard error is then printed.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

impl Process {
    /// Starts `command` with empty input, and captures its output.
    ///
    /// # Panics
    ///
    /// If the program does not exist; the text says that `package` contains it.
    pub(crate) fn start(command: &mut Command, package: &str) -> Self {
        Self::start_to(command, Stdio::piped(), package)
    }

    /// As [`start`](Self::start), with another standard output, which is captured only if it is a pipe.
    pub(crate) fn start_to(command: &mut Command, stdout: Stdio, package: &str) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|err| panic!("{name}: {err}; install {package} (tests/run does)"));
        let stdout = match child.stdout.take() {
            Some(pipe) => Capture::of(pipe),
            None => Capture::of(std::io::empty()),
        };
        let stderr = Capture::of(child.stderr.take().unwrap());
        Self {
            name,
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output so far.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.stdout.octets()
    }

    /// Its standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.octets()).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }

    /// Kills it, and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit status if it has ended. Its output is complete then.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        self.stdout.finish();
        self.stderr.finish();
        Some(status)
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} to exit", self.name);
        wait_for(&what, limit, || self.exited())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This fails only if the process has ended already, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            self.show_log();
        }
    }
}

impl Process {
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it with the failed test"
    )]
    fn show_log(&self) {
        eprintln!(
            "--- standard error of {} ---\n{}---",
            self.name,
            self.stderr()
        );
    }
}

/// Runs a program that ends by itself and returns its standard output.
///
/// # Panics
///
/// If the program does not exist (the text says that `package` contains it), or if it fails.
#[track_caller]
pub(crate) fn run(program: &str, args: &[impl AsRef<OsStr>], package: &str) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|err| panic!("{program}: {err}; install {package} (tests/run does)"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program}: {}\n{stdout}{stderr}",
        output.status
    );
    stdout
}

/// The output of a pipe, which a thread reads to its end.
struct Capture {
    octets: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let octets = Arc::new(Mutex::new(Vec::new()));
        let of_thread = Arc::clone(&octets);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                of_thread
                    .lock()
                    .unwrap()
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            octets,
            reader: Some(reader),
        }
    }

    fn octets(&self) -> Vec<u8> {
        self.octets.lock().unwrap().clone()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}
