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
