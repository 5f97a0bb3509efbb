//! The effective configuration, as a file would have it: every key that has an effect, with its value spelled out.
//!
//! ```text
//! Config ──▶ Effective ──serde──▶ {"listener": [{"url": "udp://127.0.0.1:5514", ...}], ...}
//! ```
//!
//! # Guarantees
//!
//! - The keys are those of the file, and the values are written as the file has them, with their
//!   units: written as TOML, it is a configuration that runs the same.
//! - A key that has no effect in its table is left out, because the file refuses it there.

use std::mem;

use super::section::{Kind, Scope, Visitor};
use super::written::{Entries, Printed};

/// A visitor that prints the keys of a table.
#[derive(Default)]
pub(super) struct Printer(Entries);

impl Printer {
    /// The keys that `visit` shows a printer.
    pub(super) fn print(visit: impl FnOnce(&mut Self)) -> Entries {
        let mut printer = Self::default();
        visit(&mut printer);
        printer.0
    }
}

impl Visitor for Printer {
    fn key<T>(&mut self, name: &'static str, kind: impl Kind<T>, field: &mut T) {
        if let Some(printed) = kind.print(field) {
            self.0.0.push((name.to_owned(), printed));
        }
    }

    fn key_in<T>(&mut self, scope: Scope, name: &'static str, kind: impl Kind<T>, field: &mut T) {
        if scope.applies {
            self.key(name, kind, field);
        }
    }

    fn table(&mut self, name: &'static str, keys: impl FnOnce(&mut Self)) {
        let outer = mem::take(&mut self.0);
        keys(self);
        let inner = mem::replace(&mut self.0, outer);
        if !inner.0.is_empty() {
            self.0.0.push((name.to_owned(), Printed::Table(inner)));
        }
    }
}
