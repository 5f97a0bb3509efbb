//! Keys that had another name: the old one is still read, and a warning names the new one.

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
    fn an_old_name_in_another_table_is_unknown() {
        let text = load("[spool]\nreplay_max = \"1MiB\"\n").unwrap_err();
        assert!(
            text.starts_with("t.toml:2: spool.replay_max: unknown key"),
            "{text}"
        );
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
