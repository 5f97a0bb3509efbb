//! Flags and environment variables, laid over the file.
//!
//! # Guarantees
//!
//! - A flag's value is read as the value of its key in the file: it takes what the file takes, and is refused in the
//!   same words, under the flag's name.
//! - `listen` replaces the file's listeners, and `forward` its upstreams: lists are never mixed.
//!
//! # Left out
//!
//! Which flags and variables exist, and which of the two wins: `cli` decides that.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::draft::Draft;
use super::error::At;
use super::listener::ListenerConfig;
use super::read::{Reader, Table};
use super::report::Report;
use super::section::{Kind, Section as _};
use super::upstream::{Rotation, Upstream};
use super::written::{Lines, Written};

/// The file to read, and what overrides it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RunArgs {
    /// The configuration file, if there is one.
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
pub(crate) struct Argument {
    /// The flag (`--window`) or variable (`TERSED_WINDOW`).
    pub name: &'static str,
    pub text: String,
}

/// The keys that a flag or a variable can set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Override {
    Window,
    Summary,
    Memory,
    WhenFull,
    Admin,
    LogLevel,
    LogFormat,
}

impl Override {
    /// The table and the key in it.
    const fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Window => ("dedup", "window"),
            Self::Summary => ("dedup", "summary"),
            Self::Memory => ("dedup", "memory"),
            Self::WhenFull => ("forward", "when_full"),
            Self::Admin => ("admin", "address"),
            Self::LogLevel => ("log", "level"),
            Self::LogFormat => ("log", "format"),
        }
    }
}

/// Lays `args` over `draft`, each as if it were a file of its own.
pub(super) fn lay_over(draft: &mut Draft, args: &RunArgs, report: &mut Report) {
    if !args.listen.is_empty() {
        let kind = Table {
            start: ListenerConfig::without_url(),
        };
        draft.config.listeners = all("listener", &args.listen, Argument::table, &kind, report);
    }
    if !args.forward.is_empty() {
        let kind = Upstream {
            rotation: Rotation::OFF,
        };
        draft.config.forward.to = all("forward.to", &args.forward, Argument::value, &kind, report);
    }
    for (key, argument) in &args.overrides {
        let (section, key) = key.path();
        let value = table(section, table(key, argument.value()));
        argument.written(&value, |written| {
            Reader::read(written, "", report, |reader| draft.visit(reader))
        });
    }
}

impl Argument {
    /// Its value, as the file would have it.
    fn value(&self) -> DeValue<'_> {
        DeValue::String(self.text.as_str().into())
    }

    /// A table with its value as the URL.
    fn table(&self) -> DeValue<'_> {
        table("url", self.value())
    }

    /// Hands `value` to a reader under this argument's name.
    fn written<T>(&self, value: &DeValue<'_>, read: impl FnOnce(&Written<'_>) -> T) -> T {
        read(&Written {
            value,
            at: At::Argument(self.name),
            lines: &Lines::default(),
        })
    }
}

/// A table with one key.
fn table<'a>(key: &'a str, value: DeValue<'a>) -> DeValue<'a> {
    let mut table = DeTable::new();
    table.insert(Spanned::new(0..0, key.into()), Spanned::new(0..0, value));
    DeValue::Table(table)
}

/// The list at `path` that has an element of each of the `arguments`.
fn all<T>(
    path: &str,
    arguments: &[Argument],
    value: impl Fn(&Argument) -> DeValue<'_>,
    kind: &impl Kind<T>,
    report: &mut Report,
) -> Vec<T> {
    report.replace(path);
    let mut items = Vec::new();
    for argument in arguments {
        report.accept(path, At::Argument(argument.name));
        let item = format!("{path}[{}]", items.len());
        let read = |written: &Written<'_>| kind.read(written, &item, report);
        match argument.written(&value(argument), read) {
            Some(value) => items.push(value),
            None => report.forget(&item),
        }
    }
    items
}
