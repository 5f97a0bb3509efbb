//! Keys that no table has, or another one: what was probably meant.
//!
//! # Guarantees
//!
//! - A key that another table has is told with the table. One of an upstream's table is told with an example.
//! - A key that is nearly one of its own table's is told with that one.

use super::error::{At, ConfigError, Fault};
use super::file::{
    AdminFile, ConfigFile, DedupFile, ForwardFile, ListenerFile, LogFile, RuleFile, RuntimeFile,
    Section, ShutdownFile, SpoolFile, SuppressedFile, UpstreamFile,
};
use crate::nearest::did_you_mean;

/// The error that a table, whose keys are `fits`, has no `key`.
pub(super) fn unknown_key(key: &str, at: At, fits: &'static [&'static str]) -> ConfigError {
    let hint = elsewhere(key, fits).unwrap_or_else(|| did_you_mean(key, fits.iter().copied()));
    ConfigError {
        at,
        fault: Fault::UnknownKey { fits, hint },
    }
}

/// Where a key belongs that stands in a table with the keys `here`.
fn elsewhere(key: &str, here: &[&str]) -> Option<String> {
    if let Some((url, rest)) = of_upstream(key) {
        let table = format!("{{ url = \"{url}\"{rest} }}");
        // A list of them, or one.
        if here == ForwardFile::KEYS {
            return Some(format!(
                " ({key} belongs to one destination: to = [{table}])"
            ));
        }
        if here == SuppressedFile::KEYS {
            return Some(format!(" ({key} belongs to the destination: to = {table})"));
        }
    }
    let tables: Vec<&str> = TABLES
        .iter()
        .filter(|(_, keys)| *keys != here && keys.contains(&key))
        .map(|(table, _)| *table)
        .collect();
    match tables.split_last() {
        Some((table, [])) => Some(format!(" ({key} belongs to {table})")),
        Some((last, others)) => Some(format!(
            " ({key} belongs to {} or {last})",
            others.join(", ")
        )),
        None if here != ConfigFile::KEYS && ConfigFile::KEYS.contains(&key) => Some(format!(
            " ({key} is a table of its own, not a part of another)"
        )),
        None => None,
    }
}

/// If `key` is one of an upstream's table, a URL that it fits to, and how it is written behind the URL.
fn of_upstream(key: &str) -> Option<(&'static str, &'static str)> {
    let (tcp, file) = (
        "tcp://collector.example:601",
        "file:///var/log/tersed/once.log",
    );
    Some(match key {
        "url" => (tcp, ""),
        "framing" => (tcp, ", framing = \"octet-counting\""),
        "rotate_size" => (file, ", rotate_size = \"100MiB\""),
        "rotate_age" => (file, ", rotate_age = \"1day\""),
        "rotate_keep" => (file, ", rotate_size = \"100MiB\", rotate_keep = 10"),
        "compress" => (file, ", rotate_size = \"100MiB\", compress = \"zstd\""),
        _ => return None,
    })
}

/// The tables, and what they are called.
const TABLES: [(&str, &[&str]); 11] = [
    ("[[listener]]", ListenerFile::KEYS),
    ("[forward]", ForwardFile::KEYS),
    ("the table of an upstream", UpstreamFile::KEYS),
    ("[spool]", SpoolFile::KEYS),
    ("[suppressed]", SuppressedFile::KEYS),
    ("[dedup]", DedupFile::KEYS),
    ("[[rule]]", RuleFile::KEYS),
    ("[admin]", AdminFile::KEYS),
    ("[shutdown]", ShutdownFile::KEYS),
    ("[log]", LogFile::KEYS),
    ("[runtime]", RuntimeFile::KEYS),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(key: &str, fits: &'static [&'static str]) -> String {
        let at = At::Default(String::new());
        let Fault::UnknownKey { hint, .. } = unknown_key(key, at, fits).fault else {
            panic!("{key}")
        };
        hint
    }

    #[test]
    fn a_key_of_another_table_is_told_with_its_table() {
        let root = ConfigFile::KEYS;
        for (key, fits, expected) in [
            (
                "max_size",
                DedupFile::KEYS,
                " (max_size belongs to [spool])",
            ),
            ("windw", DedupFile::KEYS, " (did you mean window?)"),
            (
                "window",
                root,
                " (window belongs to [[listener]], [dedup] or [[rule]])",
            ),
            ("rules", root, " (did you mean rule?)"),
            (
                "spool",
                ForwardFile::KEYS,
                " (spool is a table of its own, not a part of another)",
            ),
            ("sieve", root, ""),
        ] {
            assert_eq!(hint(key, fits), expected, "{key}");
        }
    }

    #[test]
    fn every_key_of_an_upstreams_table_is_told_with_an_example_that_is_fit_to_run() {
        for key in UpstreamFile::KEYS {
            for (fits, table) in [
                (ForwardFile::KEYS, "forward"),
                (SuppressedFile::KEYS, "suppressed"),
            ] {
                let hint = hint(key, fits);
                let (start, example) = hint.split_once(": ").unwrap();
                assert!(start.starts_with(&format!(" ({key} belongs to ")), "{hint}");
                let example = example.strip_suffix(')').unwrap();
                assert!(example.contains(&format!("{key} = ")), "{hint}");
                let toml = format!("[{table}]\n{example}\n");
                let mut errors = Vec::new();
                let file =
                    super::super::file::parse(&"t.toml".into(), toml.as_bytes(), &mut errors);
                super::super::resolve::resolve(file, None, &mut errors);
                assert!(errors.is_empty(), "{toml}{errors:?}");
            }
        }
    }
}
