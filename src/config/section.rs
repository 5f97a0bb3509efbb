//! What a table of the file is made of: its keys, each named once, with its kind and its field.
//!
//! ```text
//!                              ┌─▶ Reader    file ──▶ fields, and the place of each key   (read.rs)
//! Section::visit ──each key──▶─┼─▶ IdleKeys  keys that have no effect in their table         (here)
//!  (name, kind, field)         ├─▶ Printer   fields ──▶ what runs, as the file writes it  (print.rs)
//!                              └─▶ Names     the keys that a table may have               (here)
//! ```
//!
//! # Guarantees
//!
//! - Everything that is done with a key is done by a visitor, so a section describes a key completely in one place.

use std::mem;

use super::error::{At, Fault};
use super::report::{Report, join};
use super::written::{Printed, Written};

/// A table of the file.
pub(super) trait Section: Clone {
    /// Shows `visitor` each key, in the order in which they are documented.
    fn visit(&mut self, visitor: &mut impl Visitor);

    /// Sets what depends on several keys. Called after the table at `path`, which was written `at`, was read. Returns
    /// whether the table can be used; if not, `report` says why.
    fn complete(&mut self, path: &str, at: &At, report: &mut Report) -> bool {
        let _ = (path, at, report);
        true
    }
}

/// What is done with the keys of a table.
pub(super) trait Visitor: Sized {
    /// The key `name`, which holds a value of this `kind` in `field`.
    fn key<T>(&mut self, name: &'static str, kind: impl Kind<T>, field: &mut T);

    /// A key that has an effect only within `scope`.
    fn key_in<T>(&mut self, scope: Scope, name: &'static str, kind: impl Kind<T>, field: &mut T) {
        let _ = scope;
        self.key(name, kind, field);
    }

    /// The table `name` inside this one.
    fn table(&mut self, name: &'static str, keys: impl FnOnce(&mut Self));
}

/// How a value is read, checked and printed.
pub(super) trait Kind<T> {
    /// The value that is `written` for the key at `path`. Without one, `report` says why.
    fn read(&self, written: &Written<'_>, path: &str, report: &mut Report) -> Option<T>;

    /// `value` as the file writes it; `None` if the file leaves the key out.
    fn print(&self, value: &T) -> Option<Printed>;

    /// Refuses keys of tables inside `value` that have no effect there.
    fn refuse_idle(&self, value: &T, path: &str, report: &mut Report) {
        let _ = (value, path, report);
    }
}

/// Where a key has an effect, and whether its table is such a place.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub(super) applies: bool,
    /// What the table is, such as `["udp", "listeners"]`.
    pub(super) on: [&'static str; 2],
    /// Where the key has an effect.
    pub(super) expected: &'static str,
    /// Keys of the table that decide. If one of them was refused, it is not known whether this key has
    /// an effect.
    pub(super) depends_on: &'static [&'static str],
}

impl Scope {
    /// The scope of a key that always has an effect.
    pub(super) const ALWAYS: Self = Self::new(true, [""; 2], "");

    pub(super) const fn new(applies: bool, on: [&'static str; 2], expected: &'static str) -> Self {
        Self {
            applies,
            on,
            expected,
            depends_on: &[],
        }
    }

    pub(super) const fn depending_on(self, depends_on: &'static [&'static str]) -> Self {
        Self { depends_on, ..self }
    }
}

/// A visitor that refuses keys that were written where they have no effect: the operator misunderstood them.
pub(super) struct IdleKeys<'r> {
    path: String,
    report: &'r mut Report,
}

impl<'r> IdleKeys<'r> {
    /// For the table at `path`.
    pub(super) const fn new(path: String, report: &'r mut Report) -> Self {
        Self { path, report }
    }
}

impl Visitor for IdleKeys<'_> {
    fn key<T>(&mut self, name: &'static str, kind: impl Kind<T>, field: &mut T) {
        kind.refuse_idle(field, &join(&self.path, name), self.report);
    }

    fn key_in<T>(&mut self, scope: Scope, name: &'static str, kind: impl Kind<T>, field: &mut T) {
        let mut decisive = scope.depends_on.iter();
        let is_unknown = decisive.any(|key| self.report.is_refused(&join(&self.path, key)));
        if !scope.applies
            && !is_unknown
            && let Some(at) = self.report.at(&join(&self.path, name)).cloned()
        {
            let Scope { on, expected, .. } = scope;
            self.report.fault(&at, Fault::NoEffect { on, expected });
        }
        self.key(name, kind, field);
    }

    fn table(&mut self, name: &'static str, keys: impl FnOnce(&mut Self)) {
        let inner = join(&self.path, name);
        let outer = mem::replace(&mut self.path, inner);
        keys(self);
        self.path = outer;
    }
}

/// A visitor that collects the names of keys, by table.
pub(super) struct Names {
    /// The first is the table that is visited, under no name.
    tables: Vec<(&'static str, Vec<&'static str>)>,
    /// The index of the table whose keys come next.
    here: usize,
}

impl Names {
    /// The names of `section`'s keys, and then of those of each table inside it.
    pub(super) fn of(mut section: impl Section) -> Vec<(&'static str, Vec<&'static str>)> {
        let mut names = Self {
            tables: vec![("", Vec::new())],
            here: 0,
        };
        section.visit(&mut names);
        names.tables
    }

    fn name(&mut self, name: &'static str) {
        let (_, keys) = &mut self.tables[self.here];
        keys.push(name);
    }
}

impl Visitor for Names {
    fn key<T>(&mut self, name: &'static str, _: impl Kind<T>, _: &mut T) {
        self.name(name);
    }

    fn table(&mut self, name: &'static str, keys: impl FnOnce(&mut Self)) {
        self.name(name);
        self.tables.push((name, Vec::new()));
        let outer = mem::replace(&mut self.here, self.tables.len() - 1);
        keys(self);
        self.here = outer;
    }
}
