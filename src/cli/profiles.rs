//! `tersed profiles`: the ready-made rules, as TOML to paste and change.
//!
//! # Guarantees
//!
//! - The output is a configuration that does what the profile does (a test loads it).

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{field_names, time_text};
use crate::core::nearest::did_you_mean;
use crate::core::rule::Profile;

/// Writes the profile called `name`, or all of them.
///
/// # Errors
///
/// Those of `out` and `err`.
pub(super) fn run(
    name: Option<&str>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let chosen: Vec<&Profile> = match name {
        None => Profile::ALL.iter().collect(),
        Some(name) => match Profile::named(name) {
            Some(profile) => vec![profile],
            None => {
                let names = Profile::names();
                let hint = did_you_mean(name, names.iter().copied());
                writeln!(
                    err,
                    "unknown profile {name:?}{hint}; the profiles are {}",
                    names.join(", ")
                )?;
                return Ok(ExitCode::FAILURE);
            }
        },
    };
    // A file has one [mask] table, before the rules.
    writeln!(out, "[mask]")?;
    for (regex_name, regex, what) in chosen.iter().flat_map(|profile| profile.patterns) {
        writeln!(out, "# {what}\n{regex_name} = '{regex}'")?;
    }
    for profile in chosen {
        write_rule(profile, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_rule(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    for line in wrapped(profile.why) {
        writeln!(out, "# {line}")?;
    }
    writeln!(
        out,
        "# Short form: profile = {:?} in a rule. mask = [...] beside it adds to these masks; mask = [\"none\", ...] replaces them.",
        profile.name
    )?;
    let quoted = |names: Vec<&str>| format!("{names:?}");
    let builtins = profile.builtins.iter().map(|builtin| builtin.name());
    let patterns = profile.patterns.iter().map(|(name, _, _)| *name);
    writeln!(
        out,
        "[[rule]]\nname = {:?}\n{}\nwindow = {:?}\nfields = {}\nmask = {}",
        profile.name,
        profile.matches,
        time_text(profile.window),
        quoted(field_names(profile.fields)),
        quoted(builtins.chain(patterns).collect()),
    )
}

/// Breaks `text` into lines of at most [`COLUMNS`] characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

const COLUMNS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RunArgs};

    #[test]
    fn the_output_is_a_configuration_that_does_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        let names = Profile::ALL.iter().map(|profile| Some(profile.name));
        for name in names.chain([None]) {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = run(name, &mut out, &mut err).unwrap();
            assert_eq!((code, err), (ExitCode::SUCCESS, Vec::new()));
            std::fs::write(&path, &out).unwrap();
            let args = RunArgs {
                file: Some(path.clone()),
                ..RunArgs::default()
            };
            let config = Config::load(&args).unwrap();
            let expected: Vec<_> = match name {
                None => Profile::ALL.iter().collect(),
                Some(name) => Profile::named(name).into_iter().collect(),
            };
            assert_eq!(config.rules.rules().len(), expected.len());
            for (rule, profile) in config.rules.rules().iter().zip(expected) {
                assert_eq!(rule.policy.identity, profile.spec());
                assert_eq!(rule.policy.window.window, profile.window);
            }
        }
    }

    #[test]
    fn the_error_for_an_unknown_profile_lists_the_profiles() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(Some("cisco"), &mut out, &mut err).unwrap();
        assert_eq!((code, out), (ExitCode::FAILURE, Vec::new()));
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("cisco-ios, cisco-asa"), "{err}");
    }
}
