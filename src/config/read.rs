//! Reads tables of the file key by key into the fields that their sections name.
//!
//! The TOML is walked by hand instead of through a derived `Deserialize`, because the latter stops at
//! the first error, and an operator wants to see all of them, each with its line.
//!
//! # Guarantees
//!
//! - A field whose key is not written, or is refused, keeps its value.
//! - A key under its old name is read like one under its new name, with a remark. Both together are an error.

use std::mem;

use toml::de::DeTable;

use super::error::{At, FOUND_CHARS_MAX, Fault, quoted};
use super::print::Printer;
use super::renamed::old_name;
use super::report::{Report, UnknownKey, join};
use super::section::{IdleKeys, Kind, Section, Visitor};
use super::written::{Lines, Printed, Written};

/// A visitor that reads the keys of a table.
pub(super) struct Reader<'t, 'r> {
    here: Here<'t>,
    lines: &'t Lines,
    report: &'r mut Report,
}

/// The table that is being read.
struct Here<'t> {
    /// `None` if the value is not a table: then its keys are only collected.
    table: Option<&'t DeTable<'t>>,
    at: At,
    path: String,
    known: Vec<&'static str>,
}

impl<'t, 'r> Reader<'t, 'r> {
    /// Reads the table that is `written` for `path` into what `visit` shows the reader. Returns whether it is a table.
    pub(super) fn read(
        written: &Written<'t>,
        path: &str,
        report: &'r mut Report,
        visit: impl FnOnce(&mut Self),
    ) -> bool {
        let mut reader = Self {
            here: Here::at(written, path.to_owned()),
            lines: written.lines,
            report,
        };
        visit(&mut reader);
        reader.leave(written)
    }

    /// Ends the reading of the table that is `written`.
    fn leave(&mut self, written: &Written<'t>) -> bool {
        let known = mem::take(&mut self.here.known);
        let Some(table) = self.here.table else {
            let expected = format!("a table with {}", known.join(", "));
            self.report.errors.push(written.unfit(expected));
            return false;
        };
        let is_known = |key: &str| {
            let mut names = known.iter();
            names.any(|name| *name == key || old_name(&self.here.path, name) == Some(key))
        };
        for (key, _) in table.iter().filter(|(key, _)| !is_known(key.get_ref())) {
            let line = self.lines.at(key.span().start);
            self.report.unknown.push(UnknownKey {
                key: key.get_ref().to_string(),
                at: written.at.within(&bare(key.get_ref()), line),
                known: known.clone(),
            });
        }
        true
    }

    /// The value of the key `name`, under this or its old name.
    fn find(&mut self, name: &'static str) -> Option<Written<'t>> {
        self.here.known.push(name);
        let written = self.written(name);
        let old = old_name(&self.here.path, name).and_then(|old| self.written(old));
        let Some(old) = old else { return written };
        let new = join(&self.here.path, name);
        if let Some(written) = written {
            let at = written.at.clone();
            self.report.fault(&old.at, Fault::OldName { new, at });
            return Some(written);
        }
        self.report.remarks.push(format!(
            "{}: renamed to {new}; the old name still works",
            old.at
        ));
        Some(old)
    }

    fn written(&self, name: &str) -> Option<Written<'t>> {
        let (key, value) = self.here.table?.get_key_value(name)?;
        let line = self.lines.at(key.span().start);
        Some(Written {
            value: value.get_ref(),
            at: self.here.at.within(name, line),
            lines: self.lines,
        })
    }
}

impl Visitor for Reader<'_, '_> {
    fn key<T>(&mut self, name: &'static str, kind: impl Kind<T>, field: &mut T) {
        let Some(written) = self.find(name) else {
            return;
        };
        let path = join(&self.here.path, name);
        match kind.read(&written, &path, self.report) {
            Some(value) => {
                *field = value;
                self.report.accept(path, written.at);
            }
            None => self.report.refuse(path),
        }
    }

    fn table(&mut self, name: &'static str, keys: impl FnOnce(&mut Self)) {
        let Some(written) = self.find(name) else {
            return;
        };
        let path = join(&self.here.path, name);
        let outer = mem::replace(&mut self.here, Here::at(&written, path.clone()));
        keys(self);
        let is_table = self.leave(&written);
        self.here = outer;
        if is_table {
            self.report.accept(path, written.at);
        } else {
            self.report.refuse(path);
        }
    }
}

impl<'t> Here<'t> {
    fn at(written: &Written<'t>, path: String) -> Self {
        Self {
            table: written.value.as_table(),
            at: written.at.clone(),
            path,
            known: Vec::new(),
        }
    }
}

/// A section by itself: an element of a list, or one that may be missing.
pub(super) struct Table<S> {
    /// What it is before it is read.
    pub(super) start: S,
}

impl<S: Section> Kind<S> for Table<S> {
    fn read(&self, written: &Written<'_>, path: &str, report: &mut Report) -> Option<S> {
        let mut section = self.start.clone();
        let is_table = Reader::read(written, path, report, |reader| section.visit(reader));
        (is_table && section.complete(path, &written.at, report)).then_some(section)
    }

    fn print(&self, value: &S) -> Option<Printed> {
        let entries = Printer::print(|printer| value.clone().visit(printer));
        Some(Printed::Table(entries))
    }

    fn refuse_idle(&self, value: &S, path: &str, report: &mut Report) {
        value
            .clone()
            .visit(&mut IdleKeys::new(path.to_owned(), report));
    }
}

/// `key` as TOML spells it.
pub(super) fn bare(key: &str) -> String {
    let is_bare = (1..=FOUND_CHARS_MAX).contains(&key.len())
        && key
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
    if is_bare { key.to_owned() } else { quoted(key) }
}
