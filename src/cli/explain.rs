//! `tersed explain`: how does the relay understand these frames?
//!
//! # Guarantees
//!
//! - Frames are delimited as by a listener, and explained in order.
//! - If a file cannot be read, standard error says so, and the other files are explained anyway.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueHint;

use super::{Environment, STDIN, is_broken_pipe, is_stdin, shown_name_of};
use crate::config::{Config, RunArgs};
use crate::core::frame::{End, Framer, Framing, Outcome};
use crate::core::identity::{Origin, Sender};
use crate::core::limits::MESSAGE_OCTETS_MAX;
use crate::core::nearest::did_you_mean;
use crate::explain::{Depth, Explainer};
use crate::logging::printable;
use crate::replay::{PIECE_OCTETS, Source, SourceError};

/// What to explain, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Args {
    /// The configuration to use.
    pub config: RunArgs,
    /// How frames are delimited.
    pub framing: Framing,
    /// The format of the output, if the operator chose one.
    pub format: Option<Format>,
    /// How much is explained.
    pub depth: Depth,
    /// The address of the sender; `None` means a sender on this host.
    pub source: Option<IpAddr>,
    /// The name of the listener that received the frames; `None` means a listener that no rule names.
    pub listener: Option<String>,
    /// The files; an empty list is standard input.
    pub files: Vec<PathBuf>,
}

impl Args {
    /// The format to use. Without a choice it is text on a terminal, else JSON.
    #[must_use]
    pub(crate) fn format_on(&self, terminal: bool) -> Format {
        let default = if terminal { Format::Text } else { Format::Json };
        self.format.unwrap_or(default)
    }
}

/// The format of an output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Lines for people.
    Text,
    /// Objects for programs.
    Json,
}

#[derive(clap::Args)]
pub(super) struct Flags {
    /// Read this configuration file, in TOML [env: TERSED_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// How frames are delimited: auto, lf, octet-counting or nul
    ///
    /// auto (the default) decides frame by frame, as a listener does.
    #[arg(
        long,
        value_name = "METHOD",
        value_enum,
        default_value_t = FramingWord::Auto,
        hide_default_value = true,
        hide_possible_values = true
    )]
    framing: FramingWord,

    /// The format of the output: text or json
    ///
    /// text is for people, one field per line; json is one object per line. The default is text on a terminal,
    /// else json.
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    format: Option<Format>,

    /// Also say for each field why it is or is not in the identity
    #[arg(long)]
    why: bool,

    /// Treat the frames as sent from this address
    ///
    /// The address takes the place of a missing host name. Without this flag the sender is "local", as
    /// on a Unix socket.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,

    /// Treat the frames as received by this listener of the configuration
    ///
    /// Without this flag, rules that name a listener do not match.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,

    /// Files with frames; without any, or with -, standard input is read
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FramingWord {
    Auto,
    Lf,
    OctetCounting,
    Nul,
}

impl Flags {
    pub(super) fn with(self, environment: &Environment) -> Result<Args, clap::Error> {
        Ok(Args {
            config: environment.config(self.config, None)?,
            framing: match self.framing {
                FramingWord::Auto => Framing::Auto,
                FramingWord::Lf => Framing::Lf,
                FramingWord::OctetCounting => Framing::OctetCounting,
                FramingWord::Nul => Framing::Nul,
            },
            format: self.format,
            depth: if self.why {
                Depth::Reasons
            } else {
                Depth::Facts
            },
            source: self.source,
            listener: self.listener,
            files: self.files,
        })
    }
}

/// Explains the files that `args` names, in `format`.
///
/// # Errors
///
/// If `err` cannot be written.
pub(super) fn run(
    args: &Args,
    format: Format,
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
    let rules = Arc::clone(&config.rules);
    if let Some(name) = &args.listener
        && !config
            .listeners
            .iter()
            .any(|listener| listener.name == *name)
    {
        let names = config
            .listeners
            .iter()
            .map(|listener| listener.name.as_str());
        let hint = did_you_mean(name, names);
        let name = printable(name);
        writeln!(
            err,
            "tersed: --listener {name}: no listener has this name{}",
            printable(&hint)
        )?;
        return Ok(ExitCode::FAILURE);
    }
    let origin = Origin {
        sender: args.source.map_or(Sender::Local, Sender::at),
        listener: args.listener.as_deref().unwrap_or_default(),
    };
    let mut explaining = Explaining {
        explainer: Explainer::new(&rules, origin),
        args,
        format,
        count: 0,
    };
    let mut input = Some(input);
    let mut code = ExitCode::SUCCESS;
    let stdin = [PathBuf::from("-")];
    let files = if args.files.is_empty() {
        &stdin[..]
    } else {
        &args.files
    };
    for path in files {
        let source = match input.take_if(|_| is_stdin(path)) {
            Some(input) => Source::stream(STDIN, input),
            None if is_stdin(path) => continue,
            None => Source::open(path),
        };
        match source
            .map_err(Failure::Source)
            .and_then(|source| explaining.read(source, out))
        {
            Ok(faults) if faults.is_empty() => {}
            Ok(faults) => {
                for fault in faults {
                    writeln!(err, "tersed: {}: {fault}", shown_name_of(path))?;
                }
                code = ExitCode::FAILURE;
            }
            Err(Failure::Source(error)) => {
                writeln!(err, "tersed: {error}")?;
                code = ExitCode::FAILURE;
            }
            Err(Failure::Output(error)) if is_broken_pipe(&error) => return Ok(code),
            Err(Failure::Output(error)) => {
                writeln!(err, "tersed: standard output: {error}")?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(code)
}

/// Why a file was not explained to its end.
enum Failure {
    Source(SourceError),
    Output(io::Error),
}

struct Explaining<'a> {
    explainer: Explainer<'a>,
    args: &'a Args,
    format: Format,
    /// How many frames were explained.
    count: u64,
}

impl Explaining<'_> {
    /// Explains all frames of `source`; returns the first few faults of its framing.
    fn read(&mut self, mut source: Source, out: &mut impl Write) -> Result<Vec<String>, Failure> {
        let mut framer = Framer::new(self.args.framing, MESSAGE_OCTETS_MAX);
        let mut buffer = Vec::new();
        let mut lines = Vec::new();
        let mut faults = Vec::new();
        // The offset of the buffer in the text.
        let mut offset = 0_u64;
        let mut hopeless = false;
        while !hopeless {
            let pending = buffer.len();
            buffer.resize(pending + PIECE_OCTETS, 0);
            let octets = source
                .read(&mut buffer[pending..])
                .map_err(Failure::Source)?;
            buffer.truncate(pending + octets);
            let mut at = 0;
            loop {
                let rest = &buffer[at..];
                let step = match octets {
                    0 => framer.finish(rest, End::Closed),
                    _ => framer.next(rest),
                };
                let mut note = |fault: String| {
                    if faults.len() < FAULTS_TOLD_MAX {
                        // The framer may have skipped stray trailers before the fault.
                        let stray = rest.iter().take_while(|octet| matches!(octet, b'\n' | 0));
                        let place = offset + (at + stray.count()) as u64;
                        faults.push(format!("octet {place}: {fault}"));
                    }
                };
                match step.outcome {
                    Outcome::Frame(frame) => {
                        self.write(frame.octets, &mut lines)
                            .map_err(Failure::Output)?;
                    }
                    Outcome::Empty => {}
                    Outcome::Fault(fault) => note(fault.to_string()),
                    Outcome::Hopeless => {
                        note("not octet counting; nothing further is read".to_owned());
                        hopeless = true;
                    }
                    Outcome::More => {
                        at += step.consumed;
                        break;
                    }
                }
                at += step.consumed;
            }
            out.write_all(&lines).map_err(Failure::Output)?;
            out.flush().map_err(Failure::Output)?;
            lines.clear();
            buffer.drain(..at);
            offset += at as u64;
            if octets == 0 {
                break;
            }
        }
        Ok(faults)
    }

    fn write(&mut self, frame: &[u8], lines: &mut Vec<u8>) -> io::Result<()> {
        let explanation = self.explainer.explain(frame, self.args.depth);
        match self.format {
            Format::Json => {
                serde_json::to_writer(&mut *lines, &explanation)?;
                lines.push(b'\n');
            }
            Format::Text => {
                if self.count > 0 {
                    lines.push(b'\n');
                }
                explanation.write_text(lines)?;
            }
        }
        self.count += 1;
        Ok(())
    }
}

/// Faults of framing that are reported for one file.
const FAULTS_TOLD_MAX: usize = 10;

pub(super) const AFTER_LONG_HELP: &str = "\
Keys:
  format           rfc5424, rfc3164, cisco or unparsed
  pri facility severity
                   numbers; null without a valid PRI
  timestamp hostname app_name procid msgid structured_data msg
                   as they were sent; null if absent; octets that are not UTF-8 appear as U+FFFD
  rule             the rule that decides; default is [dedup]
  action           dedup, pass or drop: the action of the rule, whatever its mode
  window           the window of the message; null if it is not deduplicated
  identity         equal for two frames if and only if they are the same message under the same
                   rule, whatever its action; the same in every run (a 128-bit digest)
  masked           the text that is compared, with <name> in place of what a mask covers; empty if
                   msg is not compared
  why              with --why: a sentence for each field; source and listener only if compared

Examples:
  tersed explain --why < frames.log
      show how each line is parsed, and what makes it a repeat of another line
  tersed explain --format json messages.log.gz | jq -r .identity | sort | uniq -c | sort -n
      count the copies of each message
  echo '<34>su: failed' | tersed explain --source 192.0.2.1
      explain one frame as if that address had sent it

Exit status:
  0  all frames were explained
  1  the configuration has errors, a file could not be read, or its framing is invalid
  2  the command line is invalid";
