//! Unknown keys, and what was probably meant.
//!
//! # Guarantees
//!
//! - If another table has the key, the error names that table. For a key of an upstream's table it shows an example.
//! - If the table has a key with a similar name, the error names it.
//! - The same holds for the old name of a key. The error then has the new name, too.

use super::draft::Draft;
use super::error::Fault;
use super::listener::ListenerConfig;
use super::renamed;
use super::report::{Report, UnknownKey};
use super::rules::RuleKeys;
use super::section::Names;
use super::upstream::UpstreamConfig;
use super::url::UpstreamUrl;
use crate::core::nearest::nearest;

/// Refuses each unknown key that was found.
pub(super) fn refuse_unknown(report: &mut Report) {
    for UnknownKey { key, at, known } in std::mem::take(&mut report.unknown) {
        let hint = hint(&key, &known);
        report.fault(
            &at,
            Fault::UnknownKey {
                expected: known,
                hint,
            },
        );
    }
}

/// What was probably meant by `key` in a table whose keys are `known`, under their names and old names.
fn hint(key: &str, known: &[&'static str]) -> String {
    if let Some(hint) = elsewhere(key, known) {
        return hint;
    }
    if let Some((table, new)) = renamed::new_name(key) {
        return format!(" ({key} is the old name of {new}, which belongs to [{table}])");
    }
    let old_names = renamed::old_names().filter(|(_, new)| known.contains(new));
    let words = known.iter().copied().chain(old_names.map(|(old, _)| old));
    match nearest(key, words).map(|word| (word, renamed::new_name(word))) {
        Some((old, Some((_, new)))) => format!(" (did you mean {new}, which was {old}?)"),
        Some((word, None)) => format!(" (did you mean {word}?)"),
        None => String::new(),
    }
}

/// Where a key belongs that was written in a table with the keys `here`.
fn elsewhere(key: &str, here: &[&str]) -> Option<String> {
    let tables = tables();
    let is_here = |table: &str| {
        let mut tables = tables.iter();
        tables.any(|(other, keys)| other == table && keys == here)
    };
    if let Some((url, rest)) = of_upstream(key) {
        let table = format!("{{ url = \"{url}\"{rest} }}");
        // `forward.to` is a list of destinations, `suppressed.to` is one.
        if is_here("[forward]") {
            return Some(format!(
                " ({key} belongs to one destination: to = [{table}])"
            ));
        }
        if is_here("[suppressed]") {
            return Some(format!(" ({key} belongs to the destination: to = {table})"));
        }
    }
    let others: Vec<&str> = tables
        .iter()
        .filter(|(table, keys)| table != ROOT && keys != here && keys.contains(&key))
        .map(|(table, _)| table.as_str())
        .collect();
    let is_table = tables
        .iter()
        .any(|(table, keys)| table == ROOT && keys != here && keys.contains(&key));
    match others.split_last() {
        Some((table, [])) => Some(format!(" ({key} belongs to {table})")),
        Some((last, others)) => Some(format!(
            " ({key} belongs to {} or {last})",
            others.join(", ")
        )),
        None if is_table => Some(format!(
            " ({key} is a table of its own, not a part of another)"
        )),
        None => None,
    }
}

/// The tables with their keys; [`ROOT`] has all other names.
pub(super) fn tables() -> Vec<(String, Vec<&'static str>)> {
    let mut tables = Vec::new();
    let own = |section: Vec<(&str, Vec<&'static str>)>| {
        section.into_iter().flat_map(|(_, keys)| keys).collect()
    };
    tables.push((
        "[[listener]]".to_owned(),
        own(Names::of(ListenerConfig::without_url())),
    ));
    for (table, keys) in Names::of(Draft::default()) {
        tables.push((
            if table.is_empty() {
                ROOT.to_owned()
            } else {
                format!("[{table}]")
            },
            keys,
        ));
        match table {
            "forward" => {
                let upstream = UpstreamConfig::new(UpstreamUrl::Stdout);
                tables.push((
                    "the table of an upstream".to_owned(),
                    own(Names::of(upstream)),
                ));
            }
            "dedup" => tables.push(("[[rule]]".to_owned(), own(Names::of(RuleKeys::default())))),
            _ => {}
        }
    }
    tables
}

pub(super) const ROOT: &str = "the file";

/// If `key` is one of an upstream's table: a URL that can have it, and how it is written after the URL.
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

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn keys(table: &str) -> Vec<&'static str> {
        let tables = tables();
        let found = tables.into_iter().find(|(name, _)| name == table);
        found.unwrap().1
    }

    #[test]
    fn the_error_about_a_key_of_another_table_names_that_table() {
        for (key, table, expected) in [
            ("max_size", "[dedup]", " (max_size belongs to [spool])"),
            ("windw", "[dedup]", " (did you mean window?)"),
            (
                "window",
                ROOT,
                " (window belongs to [[listener]], [dedup] or [[rule]])",
            ),
            ("rules", ROOT, " (did you mean rule?)"),
            (
                "spool",
                "[forward]",
                " (spool is a table of its own, not a part of another)",
            ),
            ("sieve", ROOT, ""),
        ] {
            assert_eq!(hint(key, &keys(table)), expected, "{key}");
        }
    }

    #[test]
    fn the_error_about_a_key_of_an_upstream_has_an_example_that_is_fit_to_run() {
        for key in keys("the table of an upstream") {
            for table in ["forward", "suppressed"] {
                let hint = hint(key, &keys(&format!("[{table}]")));
                let (start, example) = hint.split_once(": ").unwrap();
                assert!(start.starts_with(&format!(" ({key} belongs to ")), "{hint}");
                let example = example.strip_suffix(')').unwrap();
                assert!(example.contains(&format!("{key} = ")), "{hint}");
                Config::of_text("t.toml", &format!("[{table}]\n{example}\n")).unwrap();
            }
        }
    }
}
