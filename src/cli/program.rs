//! The program: parses the command line, runs the command, and returns its exit code.
//!
//! Only this file reads arguments and variables from the process, and opens its standard streams.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use super::{
    Command, Environment, check, completions, explain, man, parse, profiles, replay, run, running,
};
use crate::logging::tell_end;

/// Runs the program on the arguments and variables of the process, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let environment = Environment::new(std::env::vars_os());
    let command = match parse(std::env::args_os(), &environment) {
        Ok(command) => command,
        Err(err) => {
            // If even this cannot be printed, only the exit code tells.
            if err.use_stderr() && !io::stderr().is_terminal() {
                tell_end(&mut io::stderr(), &err).ok();
            } else {
                err.print().ok();
            }
            return ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(2));
        }
    };
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let done = match command {
        Command::Run(args) => run::run(&args, &mut err),
        Command::Check(args, format) => check::run(&args, format, &mut out, &mut err),
        Command::CheckRunning(args, format) => running::run(&args, format, &mut out, &mut err),
        Command::Profiles(name) => profiles::run(name.as_deref(), &mut out, &mut err),
        Command::Explain(args) => {
            let format = args.format_on(out.is_terminal());
            explain::run(&args, format, io::stdin(), &mut out, &mut err)
        }
        Command::Replay(args) => {
            let bar = err.is_terminal() && (args.wants_report() || !out.is_terminal());
            replay::run(&args, bar.into(), io::stdin(), &mut out, &mut err)
        }
        Command::Completions(shell) => completions(shell, &mut out).map(|()| ExitCode::SUCCESS),
        Command::Man => man(&mut out).map(|()| ExitCode::SUCCESS),
    };
    // Standard output or standard error could not be written: its reader closed the pipe, for example.
    done.unwrap_or(ExitCode::FAILURE)
}
