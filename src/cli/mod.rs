//! The command line: `tersed [run]`, `tersed check`, `tersed profiles`, `tersed explain`, `tersed replay`, and two
//! commands for packagers, `completions` and `man`.
//!
//! # Guarantees
//!
//! - A flag overrides its variable. [`crate::config`] reads the values, so a flag accepts exactly what the file accepts.
//! - Only `program` reads arguments and variables from the process; the caller of all else passes them in.

mod check;
mod environment;
mod explain;
mod paths;
mod profiles;
mod program;
mod replay;
mod run;
mod running;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::config::{Argument, Override};
use crate::logging::printable;

use self::environment::Environment;
pub use self::program::main;
use crate::config::RunArgs;

/// A command of the program, with its arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Command {
    /// Relay until a signal stops it.
    Run(RunArgs),
    /// Validate the configuration and print the effective settings.
    Check(RunArgs, CheckFormat),
    /// Ask a running relay for its configuration.
    CheckRunning(RunArgs, CheckFormat),
    /// Print the profile of that name, or all profiles.
    Profiles(Option<String>),
    /// Print how frames are parsed and identified.
    Explain(explain::Args),
    /// Run recorded logs through the engine.
    Replay(replay::Args),
    /// Print a completion script.
    Completions(Shell),
    /// Print the manual page.
    Man,
}

/// How `tersed check` prints the settings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum CheckFormat {
    /// A few lines for people.
    #[default]
    Text,
    /// One object for programs, with every key of the configuration file.
    Json,
}

/// Parses a command line; `arguments` starts with the program's name.
///
/// # Errors
///
/// A usage error, or the text that `--help` or `--version` asks for. The caller prints it and exits with its
/// `exit_code`, which is 2 or 0.
pub(crate) fn parse<A: Into<OsString> + Clone>(
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
pub(crate) fn completions(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    // Into memory first: the generator panics if `out` returns an error.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "tersed", &mut script);
    out.write_all(&script)
}

/// Writes the manual page, in roff.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn man(out: &mut impl Write) -> io::Result<()> {
    clap_mangen::Man::new(CommandLine::command()).render(out)
}

/// A syslog relay that forwards each message once and counts the repeats
///
/// A message is forwarded unless the same message was forwarded within the last window (10 s).
/// Repeats are suppressed and counted. When the window ends, a summary reports how many there were.
///
/// Without a configuration, tersed receives on udp://127.0.0.1:5514 and tcp://127.0.0.1:5514, and
/// writes the forwarded messages to standard output.
#[derive(Parser)]
#[command(
    name = "tersed",
    bin_name = "tersed",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "'tersed --help' explains more, with examples.",
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
    /// Relay until a signal stops it; the default command
    #[command(after_long_help = after_long_help())]
    Run(Flags),
    /// Validate the configuration; print the effective settings, or all errors
    ///
    /// Takes the same flags and variables as `run`. The exit status is 0 if `run` would accept the
    /// configuration, else 1. `check` reads only the configuration file, and creates nothing. It also
    /// checks whether the directories in the configuration exist. It does not check listener addresses:
    /// a start can still fail because an address is in use, does not exist, or needs a privilege.
    /// Without a file, the defaults are validated.
    Check {
        /// The configuration file; the same as --config
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "config")]
        file: Option<PathBuf>,

        #[command(flatten)]
        flags: Flags,

        /// Print the settings as text or json
        ///
        /// text (the default) is a few lines for people. json is one object for programs, with every
        /// key of the configuration file that has an effect, defaults included.
        #[arg(
            long,
            value_name = "FORMAT",
            value_enum,
            default_value_t,
            hide_default_value = true,
            hide_possible_values = true
        )]
        format: CheckFormat,

        /// Ask a running relay for its settings, and compare them with its configuration file
        ///
        /// Asks at --admin, or at the admin.address of the configuration. The exit status is 1 if the file differs
        /// from the running configuration, or if the relay does not answer.
        #[arg(long)]
        running: bool,
    },
    /// Print ready-made rules, as configuration to paste and change
    ///
    /// A rule can also name a profile: profile = "linux-auth". If the rule has masks, they are added
    /// to those of the profile; mask = ["none", ...] replaces them.
    Profiles {
        /// Print only this profile
        name: Option<String>,
    },
    /// Show how frames are parsed: their fields, rule and identity
    ///
    /// Reads frames from the files, or from standard input, and prints for each how it is parsed, which
    /// rule decides for it, and its identity. Two frames are the same message if and only if their
    /// `identity` is equal. Nothing is remembered and nothing is forwarded.
    #[command(after_long_help = explain::AFTER_LONG_HELP)]
    Explain(explain::Flags),
    /// Run recorded logs through the rules: print what would have been forwarded, or a report
    ///
    /// Reads logs as syslog daemons write them: RFC 3164 or RFC 5424, with or without PRI, plain or
    /// compressed by gzip or zstd. Prints what a relay would have forwarded. With --report, prints
    /// instead how much would have been saved, the noisiest messages, and the effect of other windows.
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

#[expect(
    rustdoc::broken_intra_doc_links,
    reason = "help texts have brackets that are no links"
)]
#[derive(clap::Args)]
struct Flags {
    /// Read this configuration file, in TOML [env: TERSED_CONFIG]
    ///
    /// Flags and environment variables override the file. SIGHUP reloads it. No file is read unless
    /// it is named here.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Receive here: udp, tcp, relp, unix-dgram or unix-stream; may be repeated [env: TERSED_LISTEN]
    ///
    /// One of udp://ADDRESS:PORT, tcp://ADDRESS:PORT, relp://ADDRESS:PORT (senders keep a message until
    /// it is confirmed), unix-dgram:///PATH (like /dev/log), unix-stream:///PATH. ADDRESS is numeric:
    /// 127.0.0.1 is this machine only, 0.0.0.0 all IPv4 addresses, [::] all addresses. Replaces all
    /// listeners of the file. The variable holds a list separated by commas.
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,

    /// Forward to here: tcp, relp, udp, unix-stream, unix-dgram, file or stdout; may be repeated
    /// [env: TERSED_FORWARD]
    ///
    /// One of tcp://HOST:PORT, relp://HOST:PORT (the collector confirms each message), udp://HOST:PORT,
    /// unix-stream:///PATH, unix-dgram:///PATH, file:///PATH, stdout: (the default). Of several, the
    /// first one that works is used; list the preferred one first. Replaces all upstreams of the file.
    /// The variable holds a list separated by commas.
    #[arg(long, value_name = "URL")]
    forward: Vec<String>,

    /// Forward the same message again after this time [env: TERSED_WINDOW]
    ///
    /// A number with its unit, such as 500ms, 10s or 5m. The default is 10s.
    #[arg(long, value_name = "TIME")]
    window: Option<String>,

    /// Report repeats in the style prefix, suffix or none [env: TERSED_SUMMARY]
    ///
    /// prefix (the default) writes "message repeated N times: [ text]". suffix puts the text first and
    /// the count after it. none sends no summaries; the metrics still have the counts.
    #[arg(long, value_name = "STYLE")]
    summary: Option<String>,

    /// Remember messages in at most this much memory [env: TERSED_MEMORY]
    ///
    /// A number with its unit, such as 64MiB or 2GiB. The default is 256MiB. When the limit is reached,
    /// the oldest message is evicted, so its next copy is forwarded.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// When the queue is full: wait, drop-newest or drop-oldest [env: TERSED_WHEN_FULL]
    ///
    /// The queue holds messages while no upstream takes them. wait (the default) stops reading
    /// streams, so their senders wait, too. drop-newest and drop-oldest drop messages and count them.
    #[arg(long, value_name = "WHAT")]
    when_full: Option<String>,

    /// Serve status, metrics and health here [env: TERSED_ADMIN]
    ///
    /// An address with a port, such as 127.0.0.1:9514, or off (the default).
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<String>,

    /// Log at this level: error, warn, info, debug or trace [env: TERSED_LOG]
    ///
    /// This is tersed's own log, on standard error. Modules can have their own level, such as
    /// info,tersed::forward=debug. The default is info.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Write tersed's own log as text or json [env: TERSED_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Flags {
    /// The flags; a flag that was not given takes the value of its variable.
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

/// Whether `path` is `-`, which stands for standard input.
fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name of the file at `path`.
fn name_of(path: &Path) -> String {
    if is_stdin(path) {
        return STDIN.to_owned();
    }
    path.display().to_string()
}

/// [`name_of`] with control characters escaped.
fn shown_name_of(path: &Path) -> String {
    printable(&name_of(path)).to_string()
}

/// Whether the reader of standard output closed the pipe.
fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The values of a flag that may be repeated; if it was not given, those of its variable, separated by commas.
fn several(
    name: &'static str,
    flags: Vec<String>,
    variable: Option<Argument>,
) -> Result<Vec<Argument>, clap::Error> {
    for text in &flags {
        // A path may contain a comma, so only a list of URLs is refused.
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

/// Adds a hint to `error` if the user gave a file without `--config`.
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

/// Where packages put the configuration file. It is read only if `--config` names it.
const USUAL_FILE: &str = "/etc/tersed/tersed.toml";

/// The name of standard input in messages.
const STDIN: &str = "standard input";

const AFTER_LONG_HELP: &str = "\
Examples:
  tersed
      receive on 127.0.0.1:5514, UDP and TCP, and print each message once
  tersed --listen udp://0.0.0.0:514 --forward tcp://collector.example:601
      relay from the hosts of a network to their collector
  tersed --listen unix-dgram:///run/app.sock --forward udp://127.0.0.1:514 --window 5m
      relay for one program, and forward each message once in five minutes
  tersed --listen relp://0.0.0.0:2514 --forward relp://collector.example:2514
      relay over RELP, which confirms each message from end to end
  tersed check /etc/tersed/tersed.toml
      print the settings of this file, or all errors in it
  tersed check --format json
      print the settings for a program: every key of the file, defaults included
  tersed explain --why < frames.log
      print how each frame is parsed, and which of its fields make it a repeat of another
  tersed replay --report /var/log/syslog.1 /var/log/syslog
      print what would have been saved, and the effect of other windows

Precedence:
  A flag overrides its variable, a variable overrides the file, the file overrides the defaults.
  An empty variable counts as unset. tersed warns of any other TERSED_ variable.

Signals:
  SIGHUP          reload the configuration; if it has an error, the old one stays in force
  SIGTERM SIGINT  stop receiving, send what is queued and the summaries of open windows, exit

Exit status:
  0  success: the relay was stopped by a signal, or the configuration is valid
  1  failure: the configuration has errors, or the relay stopped because of an error
  2  the command line is invalid";

#[cfg(test)]
mod tests;
