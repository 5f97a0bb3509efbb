//! A value of the file: as it was written, and as it is printed.

use serde::{Serialize, Serializer};
use serde_json::Value;
use toml::de::DeValue;

use super::error::{At, ConfigError, FOUND_CHARS_MAX, Fault, quoted};

/// A value where it was written.
pub(super) struct Written<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) at: At,
    /// Lines of the file, for the places of what is inside the value.
    pub(super) lines: &'a Lines,
}

impl Written<'_> {
    /// The error for this value, which says what was `expected` instead.
    pub(super) fn unfit(&self, expected: impl Into<String>) -> ConfigError {
        ConfigError {
            at: self.at.clone(),
            fault: Fault::Unfit {
                found: found(self.value),
                expected: expected.into(),
            },
        }
    }
}

/// Where the lines of a file start.
#[derive(Default)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &[u8]) -> Self {
        Self(memchr::memchr_iter(b'\n', text).collect())
    }

    /// The line, counted from 1, of the octet at `offset`.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number_text(&number.to_string()),
        DeValue::Float(number) => number_text(number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "date".to_owned(),
        DeValue::Array(array) if array.is_empty() => "empty list".to_owned(),
        DeValue::Array(_) => "list".to_owned(),
        DeValue::Table(_) => "table".to_owned(),
    }
}

/// A number of TOML: ASCII, but of any length.
fn number_text(text: &str) -> String {
    text.chars().take(FOUND_CHARS_MAX).collect()
}

/// A value as the file would have it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Printed {
    Scalar(Value),
    List(Vec<Self>),
    Table(Entries),
}

/// The keys of a table, in the order in which they are documented.
#[derive(Debug, Default)]
pub(super) struct Entries(pub(super) Vec<(String, Printed)>);

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
