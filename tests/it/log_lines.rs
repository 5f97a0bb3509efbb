//! Each entry of tersed's own log is one line, has a priority for the journal, and shows all of its characters.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::support::process::Process;
use super::support::tersed::BINARY;
use super::support::wait::{LIMIT, wait_until};

/// `journalctl -p warning` once showed nothing, because all lines had the same priority.
#[test]
fn lines_to_the_journal_begin_with_their_priority() {
    for format in ["text", "json"] {
        let mut service = Service::start(&[
            "--log-level",
            "debug",
            "--log-format",
            format,
            // This address refuses at once.
            "--forward",
            "tcp://127.0.0.75:9",
        ]);
        service.wait_for("ready");
        service.wait_for("cannot connect to upstream");
        // The next attempt, which is logged at DEBUG.
        service.wait_for("upstream still away");
        fs::write(service.config(), "[dedup]\nwindw = 1\nallow = \"x\"\n").unwrap();
        service.signal(Signal::SIGHUP);
        service.wait_for("reload refused");
        service.signal(Signal::SIGTERM);
        let log = service.wait_exit();
        let mut seen = Vec::new();
        for line in log.lines() {
            let levels = [
                ("<3>", "ERROR"),
                ("<4>", "WARN"),
                ("<6>", "INFO"),
                ("<7>", "DEBUG"),
            ];
            let level = levels.iter().find(|(prefix, _)| line.starts_with(prefix));
            let (prefix, level) = level.unwrap_or_else(|| panic!("without a priority: {line}"));
            let rest = line.strip_prefix(prefix).unwrap();
            if format == "json" {
                let json: serde_json::Value = serde_json::from_str(rest).unwrap();
                assert_eq!(json["level"], *level, "{line}");
            } else {
                assert!(rest.trim_start().starts_with(level), "{line}");
            }
            seen.push(*level);
        }
        for level in ["ERROR", "WARN", "INFO", "DEBUG"] {
            assert!(seen.contains(&level), "no {level} in {log}");
        }
        let refused = log.lines().filter(|line| line.contains("reload refused"));
        let refused: Vec<_> = refused.collect();
        assert!(
            refused.iter().any(|line| line.contains("windw")),
            "{refused:?}"
        );
        assert!(
            refused.iter().any(|line| line.contains("dedup.allow")),
            "{refused:?}"
        );
    }
}

#[test]
fn what_keeps_it_from_starting_is_an_error_to_the_journal() {
    let mut service = Service::start(&["--window", "soon", "--memory", "much"]);
    let log = service.wait_exit();
    assert_eq!(log.lines().count(), 2, "{log}");
    for (line, flag) in log.lines().zip(["--window", "--memory"]) {
        assert!(line.starts_with("<3>") && line.contains(flag), "{log}");
    }
    let log = Service::start(&["--no-such-flag"]).wait_exit();
    assert!(
        log.starts_with("<3>error: unexpected argument '--no-such-flag'"),
        "{log}"
    );
    assert!(log.lines().all(|line| line.starts_with("<3>")), "{log}");
}

/// Everything that a service starts inherits the variable.
#[test]
fn a_stream_that_is_not_the_journal_gets_no_priorities() {
    let mut command = Command::new(BINARY);
    command
        .env("JOURNAL_STREAM", "1:2")
        .args(["--window", "soon"]);
    let mut process = Process::start(&mut command, "this package");
    process.wait_exit(LIMIT);
    assert!(
        process.stderr().starts_with("--window"),
        "{}",
        process.stderr()
    );
}

#[test]
fn names_and_errors_hide_nothing_and_turn_nothing_round() {
    for format in ["text", "json"] {
        let dir = TempDir::with_prefix("tersed-it-").unwrap();
        let config = dir.path().join("tersed.toml");
        let text = format!(
            "[[listener]]\nurl = \"udp://127.0.0.1:0\"\nname = \"lan{INVISIBLE}\"\n\
             [forward]\nto = [\"file:///no/such{CONTROLS}{INVISIBLE}/file\"]\n\
             [log]\nlevel = \"debug\"\nformat = \"{format}\"\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--config"]).arg(&config);
        let mut process = Process::start(&mut command, "this package");
        wait_until("the relay to be ready", LIMIT, || {
            process.stderr().contains("ready")
        });
        wait_until("the upstream to be missed", LIMIT, || {
            process.stderr().contains("cannot connect to upstream")
        });
        fs::write(&config, format!("\"key{CONTROLS}{INVISIBLE}\" = 1\n")).unwrap();
        process.signal(Signal::SIGHUP);
        wait_until("the reload to be refused", LIMIT, || {
            process.stderr().contains("reload refused")
        });
        process.signal(Signal::SIGTERM);
        assert!(process.wait_exit(LIMIT).success());
        let log = process.stderr();
        let hidden = log
            .chars()
            .find(|c| HIDDEN.contains(c) || (c.is_control() && *c != '\n'));
        assert_eq!(hidden, None, "{format}: {}", log.escape_debug());
        assert!(log.contains("caf\u{e9}"), "{log}");
        if format == "json" {
            let lines = log
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let name = lines
                .filter_map(|line| Some(line["fields"]["listener"].as_str()?.to_owned()))
                .next();
            let expected = format!("lan{}café", HIDDEN.iter().collect::<String>());
            assert_eq!(name, Some(expected));
        }
    }
}

/// The relay as systemd starts it: its standard error is a socket, and the variable identifies it.
struct Service {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    dir: TempDir,
}

impl Service {
    fn start(args: &[&str]) -> Self {
        let dir = TempDir::with_prefix("tersed-it-").unwrap();
        let config = dir.path().join("tersed.toml");
        fs::write(&config, "[[listener]]\nurl = \"udp://127.0.0.1:0\"\n").unwrap();
        let (mut journal, stderr) = UnixStream::pair().unwrap();
        let named = fstat(stderr.as_fd()).unwrap();
        let mut command = Command::new(BINARY);
        command
            .args(["run", "--config"])
            .arg(&config)
            .args(args)
            .env(
                "JOURNAL_STREAM",
                format!("{}:{}", named.st_dev, named.st_ino),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::from(OwnedFd::from(stderr)));
        let child = command.spawn().unwrap();
        drop(command);
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(octets @ 1..) = journal.read(&mut part) {
                written.lock().unwrap().extend_from_slice(&part[..octets]);
            }
        });
        Self { child, log, dir }
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("tersed.toml")
    }

    fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_until(text, LIMIT, || self.log().contains(text));
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(id, signal).unwrap();
    }

    /// Everything that it wrote until it ended.
    #[track_caller]
    fn wait_exit(&mut self) -> String {
        wait_until("the relay to end", LIMIT, || {
            self.child.try_wait().unwrap().is_some()
        });
        let mut last = String::new();
        // Wait until the other end of the socket was read to its end.
        wait_until("its last words", LIMIT, || {
            let same = Arc::strong_count(&self.log) == 1;
            last = self.log();
            same
        });
        last
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Characters that reverse text, break it or have no width, as TOML spells them; and a letter that is harmless.
const INVISIBLE: &str = "\\u202E\\u2066\\u2028\\u2029\\u200b\\ufeff\\u00ad\\U000e0041caf\u{e9}";
/// Characters that control a terminal, and a line end.
const CONTROLS: &str = "\\u009b\\u001b[31m\\n";
const HIDDEN: [char; 8] = [
    '\u{202e}',
    '\u{2066}',
    '\u{2028}',
    '\u{2029}',
    '\u{200b}',
    '\u{feff}',
    '\u{ad}',
    '\u{e0041}',
];
