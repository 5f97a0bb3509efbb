//! `tersed replay`: what would a relay have made of these logs?
//!
//! # Guarantees
//!
//! - Nothing is replayed if one of the files is not there or not ours to read.
//! - A log that turns out to be broken is told on standard error; the others are replayed all the same.
//! - Who closes standard output has read enough: that is no error.

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
use crate::identity::Key;
use crate::replay::{self, Replay, ReplayError, Source, Wanted};

/// What to replay, and what to give.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Args {
    /// The configuration.
    pub config: RunArgs,
    /// How a report is said; `None` is survivors instead of a report.
    pub report: Option<Format>,
    /// Where a picture is drawn.
    pub plot: Option<PathBuf>,
    /// The files; none is standard input.
    pub files: Vec<PathBuf>,
}

impl Args {
    /// Whether standard output gets a report.
    #[must_use]
    pub const fn wants_report(&self) -> bool {
        self.report.is_some()
    }
}

/// Whether somebody looks at standard error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// They see a bar.
    Bar,
    /// Nobody sees anything.
    Silent,
}

impl From<bool> for Progress {
    fn from(watched: bool) -> Self {
        if watched { Self::Bar } else { Self::Silent }
    }
}

#[derive(clap::Args)]
pub(super) struct Flags {
    /// Read this configuration file, in TOML [env: TERSED_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Let the same message through again after this time [env: TERSED_WINDOW]
    ///
    /// A number with its unit, such as 500ms, 10s or 5m. The default is 10s.
    #[arg(long, value_name = "TIME")]
    window: Option<String>,

    /// Print a report instead of what would have come out
    ///
    /// Lines and octets in and out, by rule; what other windows, and the masks number, hex and ipv4,
    /// would have given; the noisiest messages. Each window that is tried takes up to dedup.memory of
    /// its own.
    #[arg(long)]
    report: bool,

    /// How the report is said: text (the default) or json
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        requires = "report",
        hide_possible_values = true
    )]
    format: Option<Format>,

    /// Draw lines per minute, before and after, into this file, as SVG
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    plot: Option<PathBuf>,

    /// Recorded logs, in the order of their time; none, or -, is standard input
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

/// Replays what `args` names.
///
/// # Errors
///
/// Those of `err`.
pub fn run(
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

/// Replays one file after the other. The inner result is that of `out`: whether all files were
/// replayed to their ends.
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
            // It was read to its end already.
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

/// The size of what is to be read, if it has one.
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
  The engine runs on the timestamps of the lines. One without an offset counts as UTC; one without
  a year gets the latest that is not after its file was written, and January follows December.
  A line without a timestamp takes the time of the line before. Time does not run backwards: a line
  with an earlier timestamp takes the time reached. If all timestamps stay behind for a minute, the
  clock was set back, and time goes on from there; so it does at once where a file begins before
  the last one ended.

What comes out:
  Survivors byte for byte in their order, each followed by LF, and summaries where a window ends.
  Windows that are open when the logs end are reported at the end. Lines are those of a sender
  called \"local\", which stands in where no host is named; rules that name a
  listener or a source take none of them. What a rule passes or drops, or only tags or counts, is
  treated as by the relay.

Examples:
  tersed replay --report /var/log/syslog.1 /var/log/syslog
      what would be saved, by which window, and who is the noisiest
  tersed replay --window 10m auth.log.gz > auth.terse.log
      the log without its repeats
  journalctl -o short-iso | tersed replay --report --format json
      the report for a program
  tersed replay --report --plot lines.svg --config /etc/tersed/tersed.toml app.log.zst
      the report of this configuration, and a picture of lines per minute

Exit status:
  0  all was replayed, or whoever read standard output had enough
  1  the configuration is wrong, a log could not be read to its end, or nothing could be written
  2  the command line is wrong";
