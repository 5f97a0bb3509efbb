//! What people type: `tersed [run]`, `tersed check`, `tersed profiles`, `tersed explain`, `tersed replay`, and two
//! commands for packagers, `completions` and `man`.
//!
//! # Guarantees
//!
//! - A flag beats its variable. What a value means is decided by [`crate::config`], so that a flag takes exactly what
//!   the file takes.
//! - Nothing here reads the process: arguments and variables are handed in.

pub mod check;
pub mod environment;
pub mod explain;
mod paths;
pub mod profiles;
pub mod replay;
pub mod run;
pub mod running;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::config::{Argument, Override};
use crate::logging::printable;

pub use self::environment::Environment;
pub use crate::config::RunArgs;

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Relay until told to stop.
    Run(RunArgs),
    /// Judge the configuration and say what would run.
    Check(RunArgs, CheckFormat),
    /// Ask the relay that runs what is in force there.
    CheckRunning(RunArgs, CheckFormat),
    /// Print the profile of that name, or all of them.
    Profiles(Option<String>),
    /// Say how frames are understood.
    Explain(explain::Args),
    /// Put recorded logs through the engine.
    Replay(replay::Args),
    /// Print a completion script.
    Completions(Shell),
    /// Print the manual page.
    Man,
}

/// How `tersed check` says what would run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum CheckFormat {
    /// A few lines for people.
    #[default]
    Text,
    /// One object for programs: the configuration file with every key spelled out.
    Json,
}

/// Understands a command line; `arguments` starts with the program's name.
///
/// # Errors
///
/// A usage error, or the text that `--help` or `--version` asks for: print it, and exit with its
/// `exit_code`, which is 2 or 0.
pub fn parse<A: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = A>,
    environment: &Environment,
) -> Result<Command, clap::Error> {
    let line = CommandLine::try_parse_from(arguments).map_err(with_hint)?;
    Ok(match line.command {
        None => Command::Run(line.flags.with(environment)?),
        Some(Task::Run(flags)) => Command::Run(flags.with(environment)?),
        Some(Task::Check {
            mut flags,
            file,
            format,
            running,
        }) => {
            flags.config = flags.config.or(file);
            let args = flags.with(environment)?;
            if running {
                Command::CheckRunning(args, format)
            } else {
                Command::Check(args, format)
            }
        }
        Some(Task::Profiles { name }) => Command::Profiles(name),
        Some(Task::Explain(flags)) => Command::Explain(flags.with(environment)?),
        Some(Task::Replay(flags)) => Command::Replay(flags.with(environment)?),
        Some(Task::Completions { shell }) => Command::Completions(shell),
        Some(Task::Man) => Command::Man,
    })
}

/// Writes the completion script of `shell`.
///
/// # Errors
///
/// Those of `out`.
pub fn completions(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    // Into memory first: the generator panics where `out` would give an error.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "tersed", &mut script);
    out.write_all(&script)
}

/// Writes the manual page, in roff.
///
/// # Errors
///
/// Those of `out`.
pub fn man(out: &mut impl Write) -> io::Result<()> {
    clap_mangen::Man::new(CommandLine::command()).render(out)
}

/// A syslog relay that says everything once
///
/// A message is forwarded unless the same message was forwarded within the last window (10 s).
/// Repeats are suppressed, counted, and reported.
///
/// Without a configuration, tersed receives on udp://127.0.0.1:5514 and tcp://127.0.0.1:5514 and
/// writes new messages to standard output.
#[derive(Parser)]
#[command(
    name = "tersed",
    bin_name = "tersed",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "'tersed --help' says more, with examples.",
    after_long_help = after_long_help(),
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Task {
    /// Relay until told to stop; the same as no command at all
    #[command(after_long_help = after_long_help())]
    Run(Flags),
    /// Validate the configuration; print the effective settings, or all errors
    ///
    /// Takes the flags and variables that `run` takes, and exits with 0 if the configuration is fit to
    /// run, else with 1. It reads the configuration file and nothing else. It looks whether the
    /// directories are there that the configuration names, and makes none. It does not look whether
    /// the addresses of listeners are free, are there, or may be bound: a start can still fail at
    /// these. Without a file it validates the defaults.
    Check {
        /// The configuration file, as --config
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "config")]
        file: Option<PathBuf>,

        #[command(flatten)]
        flags: Flags,

        /// How the settings are printed: text or json
        ///
        /// text (the default) is a few lines for people. json is one object with every key of the
        /// configuration file that has an effect, defaults included, for programs.
        #[arg(
            long,
            value_name = "FORMAT",
            value_enum,
            default_value_t,
            hide_default_value = true,
            hide_possible_values = true
        )]
        format: CheckFormat,

        /// Say what the relay that runs has in force, and whether its file still says the same
        ///
        /// Asks at --admin, or at the admin.address of the configuration. Exits with 1 if the file says something
        /// else, or if the relay does not answer.
        #[arg(long)]
        running: bool,
    },
    /// Print the ready-made rules, as configuration to paste and change
    ///
    /// A rule uses one by its name: profile = "linux-auth". Masks that stand beside it are added to
    /// those of the profile; mask = ["none", ...] replaces them.
    Profiles {
        /// Only the profile of this name
        name: Option<String>,
    },
    /// Say how frames are understood: their fields, rule and identity
    ///
    /// Reads frames from the files, or from standard input, and says of each how it is parsed, which
    /// rule it falls under, and what makes it the same as others: two frames are the same message
    /// if and only if their `identity` is equal. Nothing is remembered and nothing is forwarded.
    #[command(after_long_help = explain::AFTER_LONG_HELP)]
    Explain(explain::Flags),
    /// Show what a relay would have forwarded of recorded logs, or how much it would have saved
    ///
    /// Reads logs as syslog daemons write them, with or without PRI, RFC 3164 or RFC 5424, plain or
    /// packed by gzip or zstd, and prints what a relay would have forwarded; or, with --report, what
    /// was saved, the noisiest messages, and what other windows would have given.
    #[command(after_long_help = replay::AFTER_LONG_HELP)]
    Replay(replay::Flags),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, in roff
    #[command(hide = true)]
    Man,
}

#[derive(clap::Args)]
struct Flags {
    /// Read this configuration file, in TOML [env: TERSED_CONFIG]
    ///
    /// Flags and environment variables override the file. SIGHUP reads it again. No file is read
    /// unless it is named here.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Receive here: udp, tcp, relp, unix-dgram or unix-stream; may be repeated [env: TERSED_LISTEN]
    ///
    /// One of udp://ADDRESS:PORT, tcp://ADDRESS:PORT, relp://ADDRESS:PORT (its sender waits until a
    /// message is safe), unix-dgram:///PATH (as /dev/log), unix-stream:///PATH. ADDRESS is numeric:
    /// 127.0.0.1 is this machine alone, 0.0.0.0 all of IPv4, [::] everything. Replaces all listeners
    /// of the file. The variable holds a list with commas.
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,

    /// Forward to here: tcp, relp, udp, unix-stream, unix-dgram, file or stdout; may be repeated
    /// [env: TERSED_FORWARD]
    ///
    /// One of tcp://HOST:PORT, relp://HOST:PORT (it confirms each message), udp://HOST:PORT,
    /// unix-stream:///PATH, unix-dgram:///PATH, file:///PATH, stdout: (the default). The first one
    /// that works is used. Replaces all upstreams of the file. The variable holds a list with commas.
    #[arg(long, value_name = "URL")]
    forward: Vec<String>,

    /// Forward the same message again after this time [env: TERSED_WINDOW]
    ///
    /// A number with its unit, such as 500ms, 10s or 5m. The default is 10s.
    #[arg(long, value_name = "TIME")]
    window: Option<String>,

    /// How repeats are reported: prefix, suffix or none [env: TERSED_SUMMARY]
    ///
    /// prefix (the default) writes "message repeated N times: [ text]", suffix leaves the text in
    /// front, none keeps the counts for the metrics alone.
    #[arg(long, value_name = "STYLE")]
    summary: Option<String>,

    /// Remember messages in at most so much memory [env: TERSED_MEMORY]
    ///
    /// A number with its unit, such as 64MiB or 2GiB. The default is 256MiB. When it is used up, the
    /// oldest message is evicted, and forwarded when it comes again.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// When the queue is full: wait, drop-newest or drop-oldest [env: TERSED_WHEN_FULL]
    ///
    /// The queue holds what no upstream takes. wait (the default) stops reading streams, so that their
    /// senders wait, too; drop-newest and drop-oldest drop messages and count them.
    #[arg(long, value_name = "WHAT")]
    when_full: Option<String>,

    /// Serve status, metrics and health here [env: TERSED_ADMIN]
    ///
    /// An address with a port, such as 127.0.0.1:9514, or off, which is the default.
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<String>,

    /// What goes to our own log: error, warn, info, debug or trace [env: TERSED_LOG]
    ///
    /// Also by module, such as info,tersed::forward=debug. The default is info.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// How our own log is written: text or json [env: TERSED_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Flags {
    /// The flags, and the variables of those that were not used.
    fn with(self, environment: &Environment) -> Result<RunArgs, clap::Error> {
        let single = [
            (Override::Window, "--window", self.window, "TERSED_WINDOW"),
            (
                Override::Summary,
                "--summary",
                self.summary,
                "TERSED_SUMMARY",
            ),
            (Override::Memory, "--memory", self.memory, "TERSED_MEMORY"),
            (
                Override::WhenFull,
                "--when-full",
                self.when_full,
                "TERSED_WHEN_FULL",
            ),
            (Override::Admin, "--admin", self.admin, "TERSED_ADMIN"),
            (
                Override::LogLevel,
                "--log-level",
                self.log_level,
                "TERSED_LOG",
            ),
            (
                Override::LogFormat,
                "--log-format",
                self.log_format,
                "TERSED_LOG_FORMAT",
            ),
        ];
        let mut overrides = Vec::new();
        for (key, name, flag, variable) in single {
            let argument = match flag {
                Some(text) => Some(Argument { name, text }),
                None => environment.text(variable)?,
            };
            overrides.extend(argument.map(|argument| (key, argument)));
        }
        Ok(RunArgs {
            file: self
                .config
                .or_else(|| environment.value("TERSED_CONFIG").map(PathBuf::from)),
            listen: several("--listen", self.listen, environment.text("TERSED_LISTEN")?)?,
            forward: several(
                "--forward",
                self.forward,
                environment.text("TERSED_FORWARD")?,
            )?,
            overrides,
            remarks: environment.unknown(),
        })
    }
}

/// `-` is standard input, where files are named.
fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What the file at `path` is called.
fn name_of(path: &Path) -> String {
    if is_stdin(path) {
        return STDIN.to_owned();
    }
    path.display().to_string()
}

/// The same, to be shown to people.
fn shown_name_of(path: &Path) -> String {
    printable(&name_of(path)).to_string()
}

/// Whoever read standard output has read enough.
fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The values of a flag that may be repeated; without any, those of its variable, between commas.
fn several(
    name: &'static str,
    flags: Vec<String>,
    variable: Option<Argument>,
) -> Result<Vec<Argument>, clap::Error> {
    for text in &flags {
        // A path may hold a comma.
        let urls: Vec<_> = text.split(',').map(str::trim).collect();
        if urls.len() > 1
            && urls
                .iter()
                .all(|url| url.contains("://") || *url == "stdout:")
        {
            let repeated: Vec<_> = urls.iter().map(|url| format!("{name} {url}")).collect();
            let text = format!(
                "{name} takes one URL, and \"{text}\" is a list; repeat the flag: {}",
                repeated.join(" ")
            );
            let text = printable(&text).to_string();
            return Err(CommandLine::command().error(ErrorKind::ValueValidation, text));
        }
    }
    if !flags.is_empty() {
        let argument = |text| Argument { name, text };
        return Ok(flags.into_iter().map(argument).collect());
    }
    let Some(Argument { name, text }) = variable else {
        return Ok(Vec::new());
    };
    let argument = |text: &str| Argument {
        name,
        text: text.trim().to_owned(),
    };
    Ok(text.split(',').map(argument).collect())
}

/// `error`, with the flag that was meant by the name of a file.
fn with_hint(mut error: clap::Error) -> clap::Error {
    let found = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
        .into_iter()
        .find_map(|kind| error.get(kind));
    let Some(ContextValue::String(found)) = found else {
        return error;
    };
    let is_unknown = matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
    );
    let is_file = !found.starts_with('-') && (found.contains('/') || found.ends_with(".toml"));
    if is_unknown && is_file {
        let tip = format!(
            "to read a configuration file, use '--config {}'",
            printable(found)
        );
        let tip = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

fn after_long_help() -> StyledStr {
    StyledStr::from(AFTER_LONG_HELP)
}

/// Where packages put the configuration file. It is read if it is named, and only then.
const USUAL_FILE: &str = "/etc/tersed/tersed.toml";

/// What standard input is called.
const STDIN: &str = "standard input";

const AFTER_LONG_HELP: &str = "\
Examples:
  tersed
      receive on 127.0.0.1:5514, UDP and TCP, and print what is new
  tersed --listen udp://0.0.0.0:514 --forward tcp://collector.example:601
      stand between the senders of a network and their collector
  tersed --listen unix-dgram:///run/app.sock --forward udp://127.0.0.1:514 --window 5m
      stand beside one program, and let each message through once in five minutes
  tersed --listen relp://0.0.0.0:2514 --forward relp://collector.example:2514
      the same, and each message is confirmed from end to end
  tersed check /etc/tersed/tersed.toml
      print the settings of this file, or everything that is wrong with it
  tersed check --format json
      say it to a program: every key of the file, defaults included
  tersed explain --why < frames.log
      say how each frame is understood, and what makes it a repeat of another
  tersed replay --report /var/log/syslog.1 /var/log/syslog
      say what would have been saved, and what other windows would have given

Order:
  A flag overrides its variable, a variable overrides the file, the file overrides the defaults.
  An empty variable counts as unset. tersed warns of any other TERSED_ variable.

Signals:
  SIGHUP          read the configuration again; if anything is wrong with it, keep the old one
  SIGTERM SIGINT  stop receiving, send what is queued, report the suppressed repeats, exit

Exit status:
  0  stopped as told, or the configuration is fit to run
  1  the configuration is wrong, or something broke
  2  the command line is wrong";

#[cfg(test)]
mod tests;
