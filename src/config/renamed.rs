//! Keys that had another name: the old one is still read, and a warning names the new one.

use serde_json::{Map, Value};

/// A table's path, the old name of a key in it, and the new one.
const RENAMED: [(&str, &str, &str); 2] = [
    ("forward", "replay_max", "resend_max"),
    ("forward", "replay_age", "resend_age"),
];

/// The old name of the key `new` in the table at `path`, if it had one.
pub(super) fn old_name(path: &str, new: &str) -> Option<&'static str> {
    let mut renamed = RENAMED.iter();
    renamed
        .find(|(table, _, name)| *table == path && *name == new)
        .map(|(_, old, _)| *old)
}

/// The table and the new name of the key whose old name is `old`.
pub(super) fn new_name(old: &str) -> Option<(&'static str, &'static str)> {
    let mut renamed = RENAMED.iter();
    renamed
        .find(|(_, name, _)| *name == old)
        .map(|(table, _, new)| (*table, *new))
}

/// The old names of keys, each with the new one.
pub(super) fn old_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    RENAMED.iter().map(|(_, old, new)| (*old, *new))
}

/// Gives each key of `tables` that has an old name its new one. An earlier build of the relay printed them.
pub(crate) fn rename(tables: &mut Map<String, Value>) {
    for (table, old, new) in RENAMED {
        if let Some(Value::Object(keys)) = tables.get_mut(table)
            && let Some(value) = keys.remove(old)
        {
            keys.insert(new.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, keys};
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        Config::of_text("t.toml", text).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_old_name_is_read_and_a_warning_names_the_new_one() {
        let to = "[forward]\nto = [\"tcp://a:1\"]\n";
        let old = format!("{to}replay_max = \"1MiB\"\nreplay_age = \"2s\"\n");
        let config = load(&old).unwrap();
        let new = format!("{to}resend_max = \"1MiB\"\nresend_age = \"2s\"\n");
        assert_eq!(Ok(&config), load(&new).as_ref());
        assert_eq!(
            config.warnings(),
            [
                "t.toml:3: forward.replay_max: renamed to forward.resend_max; the old name still works",
                "t.toml:4: forward.replay_age: renamed to forward.resend_age; the old name still works",
            ]
        );
        assert_eq!(load(&new).unwrap().warnings(), [""; 0]);
    }

    #[test]
    fn a_value_under_an_old_name_is_refused_under_that_name() {
        let text = load("[forward]\nreplay_age = \"1ms\"\n").unwrap_err();
        assert!(
            text.starts_with("t.toml:2: forward.replay_age: invalid \"1ms\""),
            "{text}"
        );
    }

    #[test]
    fn both_names_together_are_refused() {
        assert_eq!(
            load("[forward]\nreplay_max = \"1MiB\"\nresend_max = \"2MiB\"\n").unwrap_err(),
            "t.toml:2: forward.replay_max: the old name of forward.resend_max, which is set, too (t.toml:3: \
             forward.resend_max); remove this one"
        );
    }

    #[test]
    fn the_error_about_an_old_name_in_another_table_or_with_a_wrong_letter_has_the_new_one() {
        for (text, start, hint) in [
            (
                "[dedup]\nreplay_max = \"1MiB\"\n",
                "t.toml:2: dedup.replay_max: unknown key, ",
                " (replay_max is the old name of resend_max, which belongs to [forward])",
            ),
            (
                "replay_age = \"2s\"\n",
                "t.toml:1: replay_age: unknown key, ",
                " (replay_age is the old name of resend_age, which belongs to [forward])",
            ),
            (
                "[forward]\nreplay_maxx = \"1MiB\"\n",
                "t.toml:2: forward.replay_maxx: unknown key, ",
                " (did you mean resend_max, which was replay_max?)",
            ),
        ] {
            let said = load(text).unwrap_err();
            assert!(said.starts_with(start) && said.ends_with(hint), "{said}");
        }
    }

    #[test]
    fn settings_that_an_earlier_build_printed_get_the_new_names() {
        let printed = serde_json::json!({"forward": {"replay_max": "8MiB", "to": []}, "spool": {"replay_max": 1}});
        let Value::Object(mut tables) = printed else {
            unreachable!("it is a table");
        };
        rename(&mut tables);
        let expected = serde_json::json!({"forward": {"resend_max": "8MiB", "to": []}, "spool": {"replay_max": 1}});
        assert_eq!(Value::Object(tables), expected);
    }

    #[test]
    fn each_new_name_is_a_key_and_no_old_one_is() {
        for (table, old, new) in RENAMED {
            let tables = keys::tables();
            let (_, keys) = tables
                .iter()
                .find(|(name, _)| *name == format!("[{table}]"))
                .unwrap();
            assert!(keys.contains(&new) && !keys.contains(&old), "{old} {new}");
        }
    }
}
