//! The file: read, parsed as TOML, and laid over a draft.
//!
//! # Left out
//!
//! What must fit together: see `resolve`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::FILE_OCTETS_MAX;
use super::draft::Draft;
use super::error::{At, Fault, escaped};
use super::keys::refuse_unknown;
use super::read::Reader;
use super::report::Report;
use super::section::Section as _;
use super::written::{Lines, Written};

/// Reads the file at `path` into `draft`. Returns whether its last line is whole, as far as a line end tells.
pub(super) fn read(path: &Path, draft: &mut Draft, report: &mut Report) -> bool {
    let file: Arc<str> = escaped(&path.display().to_string()).into();
    match read_octets(path) {
        Ok(octets) => {
            parse(&file, &octets, draft, report);
            octets.last().is_none_or(|last| *last == b'\n')
        }
        Err(fault) => {
            refuse_all(&At::File(file), fault, report);
            true
        }
    }
}

/// Reads `octets` as the contents of `file` into `draft`.
pub(super) fn parse(file: &Arc<str>, octets: &[u8], draft: &mut Draft, report: &mut Report) {
    let lines = Lines::of(octets);
    let at = |offset| At::Key {
        file: Arc::clone(file),
        line: lines.at(offset),
        key: String::new(),
    };
    let text = match str::from_utf8(octets) {
        Ok(text) => text,
        Err(err) => return refuse_all(&at(err.valid_up_to()), Fault::NotUtf8, report),
    };
    match DeTable::parse(text) {
        Ok(table) => {
            let value = DeValue::Table(table.into_inner());
            let whole = Written {
                value: &value,
                at: at(0),
                lines: &lines,
            };
            Reader::read(&whole, "", report, |reader| draft.visit(reader));
            refuse_unknown(report);
        }
        Err(err) => {
            let at = at(err.span().map_or(0, |span| span.start));
            refuse_all(&at, Fault::Syntax(escaped(err.message())), report);
        }
    }
}

/// Refuses a file that cannot be understood. Its listeners are not known, so no check may blame the default ones.
fn refuse_all(at: &At, fault: Fault, report: &mut Report) {
    report.fault(at, fault);
    report.refuse("listener");
}

fn read_octets(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut octets = Vec::new();
    let file = File::open(path).map_err(Fault::Unreadable)?;
    // One more than fits, to see whether there is more.
    file.take(FILE_OCTETS_MAX as u64 + 1)
        .read_to_end(&mut octets)
        .map_err(Fault::Unreadable)?;
    if octets.len() > FILE_OCTETS_MAX {
        return Err(Fault::TooLong {
            max: FILE_OCTETS_MAX,
        });
    }
    Ok(octets)
}
