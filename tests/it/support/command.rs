//! Runs commands of the binary that read, write and end: `explain`, `replay`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use super::tersed::BINARY;

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs `tersed` with these arguments, an empty environment, and `input` as standard input.
pub(crate) fn tersed(args: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(BINARY)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // The command may end without having read everything.
        scope.spawn(move || drop(stdin.write_all(input)));
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    })
}

impl Ran {
    /// Asserts success, and returns standard output.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        str::from_utf8(&self.stdout).unwrap()
    }

    /// As [`text`](Self::text), parsed as one JSON value a line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// As [`text`](Self::text), parsed as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }
}

/// A directory with recorded logs.
pub(crate) struct Logs(TempDir);

impl Logs {
    pub(crate) fn new() -> Self {
        Self(TempDir::with_prefix("tersed-logs-").unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and returns its path as an argument.
    pub(crate) fn write(&self, name: &str, octets: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, octets).unwrap();
        argument(&path)
    }
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
