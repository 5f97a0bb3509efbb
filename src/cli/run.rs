//! `tersed run`: relay until a signal stops it.
//!
//! # Guarantees
//!
//! - If the configuration has errors, all of them are printed to standard error, before anything is opened.
//! - The exit code is 0 after an orderly stop, 1 otherwise.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use tracing::info;

use super::{USUAL_FILE, paths::with_reasons};

use crate::{
    admin::FileState,
    config::{Config, RunArgs},
    daemon, logging,
};

/// Runs the relay with the configuration that `args` names.
///
/// # Errors
///
/// Those of `err`.
pub(super) fn run(args: &RunArgs, err: &mut impl Write) -> io::Result<ExitCode> {
    let read = FileState::of(args.file.as_deref());
    let config = match Config::load(args) {
        Ok(config) => config,
        Err(errors) => {
            logging::tell_end(err, errors)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Err(error) = logging::init(&config.log.level, config.log.format) {
        logging::tell_end(err, error)?;
        return Ok(ExitCode::FAILURE);
    }
    if args.file.is_none() && Path::new(USUAL_FILE).exists() {
        info!(
            file = USUAL_FILE,
            "a configuration file exists but is not read; name it with --config"
        );
    }
    match daemon::run(args, config, read) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            logging::tell_end(err, format_args!("tersed: {}", with_reasons(&error)))?;
            Ok(ExitCode::FAILURE)
        }
    }
}
