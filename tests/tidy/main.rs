//! House rules that a machine can check.
//!
//! The direction of imports, the shape of files, and words that we avoid. What the compiler or clippy checks (unsafe,
//! unwrap, missing docs) is not repeated here.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "in a test, a panic is the report"
)]

mod modules;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use self::modules::{Modules, paths_named};
use self::source::{Source, all_sources, blank, core_sources, root, words};

/// The level of a module of `src/`. A module may use modules of its own level and of those before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Level {
    Core,
    Shell,
    Whole,
    Command,
}

/// The modules that are not of the shell.
const LEVELS: [(&str, Level); 5] = [
    ("core", Level::Core),
    ("explain", Level::Whole),
    ("replay", Level::Whole),
    ("daemon", Level::Whole),
    ("cli", Level::Command),
];

/// The stages of the core. Each may use those before it, and none after it.
const STAGES: [&str; 5] = ["frame", "parse", "identity", "rule", "dedup"];

/// What every stage may use.
const VOCABULARY: [&str; 3] = ["tick", "limits", "nearest"];

/// The core takes bytes and a `now`, and returns facts. A file that contains one of these words does more.
const IMPURE: [&str; 17] = [
    "tokio",
    "tokio_util",
    "tracing",
    "prometheus_client",
    "axum",
    "socket2",
    "nix",
    "libc",
    "Instant",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "File",
];

/// Names that say nothing about their contents.
const EMPTY_NAMES: [&str; 9] = [
    "common", "helper", "helpers", "manager", "misc", "types", "util", "utils", "handler",
];

/// How many lines a file may have before its tests, and the exceptions, each with its reason.
const LINES_MAX: usize = 600;
const LONG_FILES: [(&str, &str); 0] = [];

#[test]
fn imports_point_down_the_levels() {
    for (module, others) in Modules::read().arrows().remove(&Vec::new()).unwrap() {
        for (other, file) in others {
            let allowed = level(&other) <= level(&module);
            assert!(allowed, "{file}: `{module}` must not name `{other}`");
        }
    }
}

#[test]
fn the_core_names_nothing_outside() {
    for source in core_sources() {
        for path in paths_named(&source.code(), &source.module_path().unwrap()) {
            let leads_out = source.code().contains(&format!("crate::{}", path[0]));
            assert!(
                path[0] == "core" || !leads_out,
                "{}: the core must not name `{}`",
                source.name,
                path[0]
            );
        }
    }
}

#[test]
fn stages_name_only_stages_before_them() {
    let place = |module: &str| STAGES.iter().position(|stage| *stage == module);
    let core = vec!["core".to_owned()];
    for (module, others) in Modules::read().arrows().remove(&core).unwrap() {
        for (other, file) in others {
            let is_before = place(&other)
                .zip(place(&module))
                .is_some_and(|(other, own)| other < own);
            assert!(
                is_before || VOCABULARY.contains(&other.as_str()),
                "{file}: stage `{module}` must not name `{other}`"
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    for source in core_sources() {
        // Formatting into a `Vec` needs this trait, and does no input or output.
        let code = source.code().replace("std::io::Write as _", "");
        let words: BTreeSet<_> = words(&code).collect();
        for word in IMPURE {
            assert!(
                !words.contains(word),
                "{}: `{word}` has no place in the core",
                source.name
            );
        }
        for path in [
            "std::fs",
            "std::env",
            "std::process",
            "std::thread",
            "std::io",
        ] {
            assert!(
                !code.contains(path),
                "{}: `{path}` has no place in the core",
                source.name
            );
        }
    }
}

#[test]
fn modules_have_no_cycles() {
    let mut cycles = Vec::new();
    for (folder, mut arrows) in Modules::read().arrows() {
        // Take away what names nothing that is left, and what nothing that is left names, until only cycles are left.
        loop {
            let named: BTreeSet<_> = arrows.values().flat_map(BTreeMap::keys).cloned().collect();
            let bound: BTreeSet<_> = arrows
                .keys()
                .filter(|module| named.contains(*module))
                .cloned()
                .collect();
            let before = arrows.len();
            arrows.retain(|module, _| bound.contains(module));
            for others in arrows.values_mut() {
                others.retain(|other, _| bound.contains(other));
            }
            arrows.retain(|_, others| !others.is_empty());
            if arrows.len() == before {
                break;
            }
        }
        let folder = folder.join("/");
        for (module, others) in arrows {
            let others = others
                .into_iter()
                .map(|(other, file)| format!("{other} (in {file})"));
            let others: Vec<_> = others.collect();
            cycles.push(format!(
                "src/{folder}: {module} names {}",
                others.join(", ")
            ));
        }
    }
    assert!(cycles.is_empty(), "cycles:\n{}", cycles.join("\n"));
}

#[test]
fn every_file_opens_with_its_page() {
    for source in all_sources() {
        assert!(
            source.text.starts_with("//! "),
            "{}: begins without `//!`",
            source.name
        );
    }
}

#[test]
fn lib_lists_every_module_in_its_page() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let page: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    let declared = lib.lines().filter_map(|line| {
        let (_, module) = line.strip_suffix(';')?.split_once("mod ")?;
        Some(module)
    });
    for module in declared {
        assert!(
            page.contains(&format!("[`{module}`]")),
            "lib.rs does not introduce `{module}`"
        );
    }
}

#[test]
fn files_are_of_one_idea() {
    // Tests may be long and flat. A file that consists of tests has nothing before them.
    let is_tests = |source: &Source| source.name.ends_with("/tests.rs");
    for source in all_sources().into_iter().filter(|s| !is_tests(s)) {
        let lines = source.before_tests().lines().count();
        let reason = LONG_FILES.iter().find(|(name, _)| *name == source.name);
        assert!(
            lines <= LINES_MAX || reason.is_some(),
            "{}: {lines} lines; are there two ideas inside?",
            source.name
        );
    }
    for (name, _) in LONG_FILES {
        let lines = fs::read_to_string(root().join(name))
            .unwrap()
            .lines()
            .count();
        assert!(
            lines > LINES_MAX,
            "{name} is no longer long; take it off the list"
        );
    }
}

#[test]
fn lints_are_expected_not_allowed() {
    for source in all_sources() {
        for attribute in ["#[allow(", "#![allow("] {
            let found = source.code().contains(attribute);
            assert!(
                !found,
                "{}: `{attribute}`: use #[expect(.., reason = ..)]",
                source.name
            );
        }
    }
}

#[test]
fn tests_wait_for_conditions() {
    for source in all_sources() {
        let code = blank(&source.text);
        let tests = if source.name.starts_with("tests/") {
            code.as_str()
        } else {
            code.split_once("#[cfg(test)]")
                .map_or("", |(_, tests)| tests)
        };
        let sleeps = words(tests).any(|word| word == "sleep");
        assert!(
            !sleeps,
            "{}: a test sleeps; wait for a condition",
            source.name
        );
    }
}

#[test]
fn names_say_what_they_name() {
    for source in all_sources() {
        let stem = Path::new(&source.name)
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            !EMPTY_NAMES.contains(&stem.as_str()),
            "{}: a name that says nothing",
            source.name
        );
        let code = source.code();
        let mut previous = "";
        for word in words(&code) {
            if previous == "fn" {
                let accessor = word.strip_prefix("get_").is_some();
                assert!(
                    !accessor,
                    "{}: `{word}`: an accessor is named for its field",
                    source.name
                );
            }
            if ["struct", "enum", "trait"].contains(&previous) {
                let vague = ["Manager", "Handler", "Helper", "Info", "Data"];
                let vague = vague.into_iter().any(|ending| word.ends_with(ending));
                assert!(
                    !vague,
                    "{}: `{word}`: a name that says nothing",
                    source.name
                );
            }
            previous = word;
        }
    }
}

#[test]
fn comments_hold_no_promises() {
    for source in all_sources() {
        for (index, line) in source.text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            let promise = ["TODO", "FIXME", "XXX", "HACK"]
                .into_iter()
                .find(|word| words(comment).any(|found| found == *word));
            assert!(
                promise.is_none(),
                "{}:{}: {promise:?}",
                source.name,
                index + 1
            );
            assert!(
                !comment.ends_with("...?"),
                "{}:{}: unsure",
                source.name,
                index + 1
            );
        }
    }
}

fn level(module: &str) -> Level {
    let found = LEVELS.iter().find(|(name, _)| *name == module);
    found.map_or(Level::Shell, |(_, level)| *level)
}
