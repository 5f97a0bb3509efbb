//! The record of reading a configuration: where each key was written, and what is wrong or odd.
//!
//! # Guarantees
//!
//! - A key is named by its path in [`Config`](super::Config): `forward.retry_min`, `listener[0].url`. The number in
//!   brackets is the element's index in the list that was read; the [`At`] has the number that it has in the file.
//! - A key that was refused is recorded, so that a check that depends on its value can be left out.

use std::collections::BTreeMap;
use std::mem;

use super::error::{At, ConfigError, ConfigErrors, Fault, quoted};

/// The record of one reading.
#[derive(Default)]
pub(super) struct Report {
    /// The outcome of each key that was written, by its path.
    keys: BTreeMap<String, Outcome>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) unknown: Vec<UnknownKey>,
    /// Tables that lack a key, by path. They are errors unless another value replaces the table.
    incomplete: Vec<(String, ConfigError)>,
    /// What is odd and accepted, a sentence each.
    pub(super) remarks: Vec<String>,
}

enum Outcome {
    Accepted(At),
    Refused,
}

/// A key that its table does not have.
pub(super) struct UnknownKey {
    pub(super) key: String,
    pub(super) at: At,
    /// The keys of the table.
    pub(super) known: Vec<&'static str>,
}

impl Report {
    /// Records that the key at `path` was read from `at`.
    pub(super) fn accept(&mut self, path: impl Into<String>, at: At) {
        self.keys.insert(path.into(), Outcome::Accepted(at));
    }

    /// Records that the value at `path` was refused.
    pub(super) fn refuse(&mut self, path: impl Into<String>) {
        self.keys.insert(path.into(), Outcome::Refused);
    }

    /// Forgets `path` and everything inside it, because the value was left out.
    pub(super) fn forget(&mut self, path: &str) {
        self.keys.retain(|key, _| !is_inside(key, path));
    }

    /// Forgets `path` and everything inside it, because another value replaces it.
    pub(super) fn replace(&mut self, path: &str) {
        self.forget(path);
        self.incomplete.retain(|(table, _)| !is_inside(table, path));
    }

    /// Turns each table that lacks a key into an error. Call when no table will be replaced any more.
    pub(super) fn refuse_incomplete(&mut self) {
        let incomplete = mem::take(&mut self.incomplete);
        self.errors
            .extend(incomplete.into_iter().map(|(_, error)| error));
    }

    /// Where the key at `path` was written; `None` if it was not, or was refused.
    pub(super) fn at(&self, path: &str) -> Option<&At> {
        match self.keys.get(path)? {
            Outcome::Accepted(at) => Some(at),
            Outcome::Refused => None,
        }
    }

    /// Where the key at `path` was written. Call only for a key whose value was read.
    pub(super) fn place(&self, path: &str) -> At {
        self.at(path)
            .expect("the place of each value that was read is recorded")
            .clone()
    }

    pub(super) fn is_refused(&self, path: &str) -> bool {
        matches!(self.keys.get(path), Some(Outcome::Refused))
    }

    /// Whether the key at `path` was written, accepted or not.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.keys.contains_key(path)
    }

    /// Whether no known key was written.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the table at `path` has `key` with an accepted value. If the key is missing, refuses the table, which was
    /// written `at`; the error says what was `expected`.
    pub(super) fn requires(
        &mut self,
        path: &str,
        key: &str,
        at: &At,
        expected: &'static str,
    ) -> bool {
        let key = join(path, key);
        if !self.is_written(&key) {
            let fault = Fault::Missing { expected };
            let at = at.clone();
            self.incomplete
                .push((path.to_owned(), ConfigError { at, fault }));
        }
        self.at(&key).is_some()
    }

    pub(super) fn fault(&mut self, at: &At, fault: Fault) {
        let at = at.clone();
        self.errors.push(ConfigError { at, fault });
    }

    /// Refuses the value `found` at `at`, and says what was `expected`.
    pub(super) fn unfit(&mut self, at: &At, found: &str, expected: impl Into<String>) {
        let (found, expected) = (quoted(found), expected.into());
        self.fault(at, Fault::Unfit { found, expected });
    }

    /// Refuses `found` at `at`, because `other` has it already, and says what was `expected`.
    pub(super) fn taken(&mut self, at: &At, found: &str, other: At, expected: &'static str) {
        let found = quoted(found);
        self.fault(
            at,
            Fault::Taken {
                found,
                other,
                expected,
            },
        );
    }

    /// `value`, unless something is wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        ConfigErrors::if_any(self.errors).map(|()| value)
    }
}

/// Whether `key` is the path `outer`, or leads to something inside it.
fn is_inside(key: &str, outer: &str) -> bool {
    let rest = key.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The path of `key` in the table at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
