//! What the command line and the environment say, laid over the file.
//!
//! # Guarantees
//!
//! - A value from a flag is read by the very reader of the key it stands for, so it takes what the
//!   file takes and is refused in the same words, under the flag's name.
//! - `listen` replaces the file's listeners and `forward` its upstreams: lists are never mixed.
//!
//! # Left out
//!
//! Which flags and variables there are, and which of the two wins: `cli` decides that.

use std::path::PathBuf;

use toml::de::DeValue;

use super::error::{At, ConfigError};
use super::file::{ConfigFile, Section, with_url};
use super::value::{Given, Lines, Slot, Written};

/// The file to read, and what stands above it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RunArgs {
    /// The configuration file; `None` is none.
    pub file: Option<PathBuf>,
    /// Listeners' URLs in place of the file's `[[listener]]`, unless empty.
    pub listen: Vec<Argument>,
    /// Upstreams' URLs in place of the file's `forward.to`, unless empty.
    pub forward: Vec<Argument>,
    /// Values of single keys.
    pub overrides: Vec<(Override, Argument)>,
    /// What is odd about the flags and variables, a sentence each.
    pub remarks: Vec<String>,
}

/// A value from outside the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Argument {
    /// The flag (`--window`) or variable (`TERSED_WINDOW`) that it came by.
    pub name: &'static str,
    /// What it said.
    pub text: String,
}

/// The keys that a flag or a variable can set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Override {
    /// `dedup.window`
    Window,
    /// `dedup.summary`
    Summary,
    /// `dedup.memory`
    Memory,
    /// `forward.when_full`
    WhenFull,
    /// `admin.address`
    Admin,
    /// `log.level`
    LogLevel,
    /// `log.format`
    LogFormat,
}

/// Lays `args` over `file`.
pub(super) fn lay_over(file: &mut ConfigFile, args: &RunArgs, errors: &mut Vec<ConfigError>) {
    if let Some(first) = args.listen.first() {
        file.listener = Slot::new(Some(urls(&args.listen, errors)), first.at());
    }
    if let Some(first) = args.forward.first() {
        file.forward.open().to = Slot::new(Some(urls(&args.forward, errors)), first.at());
    }
    for (key, argument) in &args.overrides {
        argument.read(|written| match key {
            Override::Window => file.dedup.open().set("window", written, errors),
            Override::Summary => file.dedup.open().set("summary", written, errors),
            Override::Memory => file.dedup.open().set("memory", written, errors),
            Override::WhenFull => file.forward.open().set("when_full", written, errors),
            Override::Admin => file.admin.open().set("address", written, errors),
            Override::LogLevel => file.log.open().set("level", written, errors),
            Override::LogFormat => file.log.open().set("format", written, errors),
        });
    }
}

impl Argument {
    fn at(&self) -> At {
        At::Argument(self.name)
    }

    /// Hands the text to a reader of keys, as if it stood in a file.
    fn read<T>(&self, read: impl FnOnce(&Written<'_>) -> T) -> T {
        let value = DeValue::String(self.text.as_str().into());
        read(&Written {
            value: &value,
            at: self.at(),
            lines: &Lines::default(),
        })
    }
}

/// A list of sections of which only the URLs are given.
fn urls<S: Section>(arguments: &[Argument], errors: &mut Vec<ConfigError>) -> Vec<Given<S>> {
    let section = |argument: &Argument| Given {
        value: argument.read(|written| with_url(written, errors)),
        at: argument.at(),
    };
    arguments.iter().map(section).collect()
}
