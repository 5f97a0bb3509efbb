//! `tersed replay`: what would the relay have forwarded of these logs?
//!
//! # Guarantees
//!
//! - Nothing is replayed if one of the files does not exist or must not be read.
//! - If a log turns out to be broken, standard error says so, and the other logs are replayed anyway.
//! - It is no error if the reader closes standard output: it has read enough.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueHint;
use indicatif::{ProgressBar, ProgressStyle};

use super::explain::Format;
use super::{Environment, STDIN, is_broken_pipe, is_stdin, name_of, shown_name_of};
use crate::config::{Config, RunArgs};
use crate::core::identity::Key;
use crate::replay::{self, Replay, ReplayError, Source, Wanted};

/// What to replay, and what to write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Args {
    /// The configuration to use.
    pub config: RunArgs,
    /// The format of the report; `None` writes survivors instead of a report.
    pub report: Option<Format>,
    /// The file for a plot.
    pub plot: Option<PathBuf>,
    /// The files; an empty list is standard input.
    pub files: Vec<PathBuf>,
}

impl Args {
    /// Whether a report is written to standard output.
    #[must_use]
    pub(crate) const fn wants_report(&self) -> bool {
        self.report.is_some()
    }
}

/// How progress is shown on standard error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// By a bar.
    Bar,
    /// Not at all.
    Silent,
}

impl From<bool> for Progress {
    fn from(on_terminal: bool) -> Self {
        if on_terminal { Self::Bar } else { Self::Silent }
    }
}

#[derive(clap::Args)]
pub(super) struct Flags {
    /// Read this configuration file, in TOML [env: TERSED_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Forward the same message again after this time [env: TERSED_WINDOW]
    ///
    /// A number with its unit, such as 500ms, 10s or 5m. The default is 10s.
    #[arg(long, value_name = "TIME")]
    window: Option<String>,

    /// Print a report instead of the messages to be forwarded
    ///
    /// Lines and octets in and out, by rule; the same with other windows, and with the masks number,
    /// hex and ipv4; the noisiest messages. Each window that is tried takes up to dedup.memory.
    #[arg(long)]
    report: bool,

    /// The format of the report: text (the default) or json
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        requires = "report",
        hide_possible_values = true
    )]
    format: Option<Format>,

    /// Plot lines per minute, before and after, to this file, as SVG
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    plot: Option<PathBuf>,

    /// Recorded logs, oldest first; without any, or with -, standard input is read
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
}

impl Flags {
    pub(super) fn with(self, environment: &Environment) -> Result<Args, clap::Error> {
        Ok(Args {
            config: environment.config(self.config, self.window)?,
            report: self.report.then(|| self.format.unwrap_or(Format::Text)),
            plot: self.plot,
            files: self.files,
        })
    }
}

/// Replays the files that `args` names.
///
/// # Errors
///
/// If `err` cannot be written.
pub(super) fn run(
    args: &Args,
    progress: Progress,
    input: impl Read + 'static,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            writeln!(err, "{errors}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let stdin = [PathBuf::from("-")];
    let files = if args.files.is_empty() {
        &stdin[..]
    } else {
        &args.files
    };
    let mut octets = Some(0);
    let mut refused = false;
    for path in files {
        match (octets, probe(path)) {
            (Some(sum), Ok(Some(more))) => octets = Some(sum + more),
            (_, Ok(_)) => octets = None,
            (_, Err(error)) => {
                writeln!(err, "tersed: {error}")?;
                refused = true;
            }
        }
    }
    if refused {
        return Ok(ExitCode::FAILURE);
    }

    let rules = Arc::clone(&config.rules);
    let key = Key::random();
    let wanted = Wanted {
        lines: args.report.is_none(),
        report: args.report.is_some(),
        plot: args.plot.is_some(),
    };
    let mut replay = Replay::new(&config, &rules, &key, wanted);
    let bar = bar(progress, octets);
    let done = replay_all(&mut replay, files, input, &bar, out, err);
    bar.finish_and_clear();
    let whole = match done? {
        Ok(whole) => whole,
        Err(error) => return output_failed(&error, err),
    };
    if let Err(error) = finish(args, &mut replay, out) {
        return output_failed(&error, err);
    }
    if let (Some(path), Some(svg)) = (&args.plot, replay.plot())
        && let Err(error) = fs::write(path, svg)
    {
        writeln!(
            err,
            "tersed: {}: cannot be written: {error}",
            shown_name_of(path)
        )?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Replays one file after the other. Returns whether all were replayed to their ends; the inner error is that of `out`, the
/// outer one that of `err`.
fn replay_all(
    replay: &mut Replay<'_>,
    files: &[PathBuf],
    input: impl Read + 'static,
    bar: &ProgressBar,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Result<bool, io::Error>> {
    let mut input = Some(input);
    let mut whole = true;
    let mut before = 0;
    for path in files {
        let source = match input.take_if(|_| is_stdin(path)) {
            Some(input) => Source::stream(STDIN, input),
            // Standard input was read to its end already.
            None if is_stdin(path) => Source::stream(STDIN, io::empty()),
            None => Source::open(path),
        };
        let mut source = match source {
            Ok(source) => source,
            Err(error) => {
                whole = false;
                replay.skip(name_of(path), &error);
                bar.suspend(|| writeln!(err, "tersed: {error}"))?;
                continue;
            }
        };
        let done = replay.run(&mut source, out, &mut |octets| {
            bar.set_position(before + octets);
        });
        before += source.taken();
        match done {
            Ok(None) => {}
            Ok(Some(offset)) => bar.suspend(|| {
                writeln!(
                    err,
                    "tersed: {}: a NUL at octet {offset}, kept in its line",
                    shown_name_of(path)
                )
            })?,
            Err(ReplayError::Source(error)) => {
                whole = false;
                bar.suspend(|| writeln!(err, "tersed: {error}"))?;
            }
            Err(ReplayError::Output(error)) => return Ok(Err(error)),
        }
    }
    Ok(Ok(whole))
}

fn finish(args: &Args, replay: &mut Replay<'_>, out: &mut impl Write) -> io::Result<()> {
    replay.finish(out)?;
    match args.report {
        Some(Format::Text) => replay.report().write_text(out)?,
        Some(Format::Json) => replay.report().write_json(out)?,
        None => {}
    }
    out.flush()
}

fn output_failed(error: &io::Error, err: &mut impl Write) -> io::Result<ExitCode> {
    if is_broken_pipe(error) {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(err, "tersed: standard output: {error}")?;
    Ok(ExitCode::FAILURE)
}

/// Checks that `path` can be read; returns its size, if it has one.
fn probe(path: &Path) -> Result<Option<u64>, replay::SourceError> {
    if is_stdin(path) {
        return Ok(None);
    }
    replay::probe(path)
}

fn bar(progress: Progress, octets: Option<u64>) -> ProgressBar {
    if progress == Progress::Silent {
        return ProgressBar::hidden();
    }
    let (bar, template) = match octets {
        Some(octets) => (
            ProgressBar::new(octets),
            "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{bytes}, {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

pub(super) const AFTER_LONG_HELP: &str = "\
Time:
  The engine runs on the timestamps of the lines. A timestamp without an offset counts as UTC. A
  timestamp without a year gets the latest year in which it is not later than its file, and January
  follows December. A line without a timestamp takes the time of the line before. Time does not run
  backwards: a line with an earlier timestamp takes the time reached. If all timestamps stay behind
  for a minute, the clock was set back, and time continues from there. If a file begins before the
  last one ended, time continues from there at once.

What comes out:
  The messages that the relay would forward, byte for byte and in order, each followed by LF, and a
  summary where a window ends. Windows that are open when the logs end are reported at the end. The
  sender of all lines is \"local\", which takes the place of a missing host name. Rules that name a
  listener or a source match no line. Actions and modes of rules have the same effect as in the relay.

Examples:
  tersed replay --report /var/log/syslog.1 /var/log/syslog
      show what each window would save, and which messages are the noisiest
  tersed replay --window 10m auth.log.gz > auth.terse.log
      print the log without its repeats
  journalctl -o short-iso | tersed replay --report --format json
      print the report for a program
  tersed replay --report --plot lines.svg --config /etc/tersed/tersed.toml app.log.zst
      print the report of this configuration, and plot lines per minute

Exit status:
  0  all logs were replayed, or the reader closed the pipe
  1  the configuration has errors, a log could not be read to its end, or the output failed
  2  the command line is invalid";
