//! House rules that a machine can check.
//!
//! The direction of imports, the shape of files, and words that we avoid. What the compiler or clippy checks (unsafe,
//! unwrap, missing docs) is not repeated here.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "in a test, a panic is the report"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The level of a module of `src/`. A module may use modules of its own level and of those before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Level {
    Vocabulary,
    Core,
    Shell,
    Whole,
    Command,
}

/// Every module, in the order of the flow.
const MODULES: [(&str, Level); 36] = [
    ("tick", Level::Vocabulary),
    ("limits", Level::Vocabulary),
    ("nearest", Level::Vocabulary),
    ("lock", Level::Vocabulary),
    ("frame", Level::Core),
    ("parse", Level::Core),
    ("identity", Level::Core),
    ("rule", Level::Core),
    ("dedup", Level::Core),
    ("backoff", Level::Core),
    ("failover", Level::Core),
    ("relp", Level::Core),
    ("listen", Level::Shell),
    ("pipeline", Level::Shell),
    ("chunk", Level::Shell),
    ("ledger", Level::Shell),
    ("custody", Level::Shell),
    ("forward", Level::Shell),
    ("spool", Level::Shell),
    ("saved", Level::Shell),
    ("config", Level::Shell),
    ("sizing", Level::Shell),
    ("metrics", Level::Shell),
    ("admin", Level::Shell),
    ("clock", Level::Shell),
    ("signal", Level::Shell),
    ("logging", Level::Shell),
    ("socket", Level::Shell),
    ("sys", Level::Shell),
    ("thread", Level::Shell),
    ("panics", Level::Shell),
    ("fault", Level::Shell),
    ("explain", Level::Whole),
    ("replay", Level::Whole),
    ("daemon", Level::Whole),
    ("cli", Level::Command),
];

/// The stages of the core. Each may use those before it, and none after it.
const STAGES: [&str; 5] = ["frame", "parse", "identity", "rule", "dedup"];

/// What delivery needs is beside the flow: it uses no stage, and no stage uses it.
const BESIDE: [&str; 3] = ["backoff", "failover", "relp"];

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
fn every_module_has_its_level() {
    let known: BTreeSet<_> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
    for source in sources("src") {
        if let Some(module) = source.module() {
            assert!(
                known.contains(&module),
                "`{module}` has no level in tests/tidy.rs; add it"
            );
        }
    }
}

#[test]
fn imports_point_down_the_levels() {
    for source in sources("src") {
        let Some(module) = source.module() else {
            continue;
        };
        for other in modules_named(&source.code()) {
            let allowed = level(&other) <= level(&module);
            assert!(
                allowed,
                "{}: `{module}` must not name `{other}`",
                source.name
            );
        }
    }
}

#[test]
fn stages_name_only_stages_before_them() {
    let before = |other: &str, own: &str, order: &[&str]| {
        let place = |module: &str| order.iter().position(|stage| *stage == module);
        place(other)
            .zip(place(own))
            .is_some_and(|(other, own)| other < own)
    };
    for source in sources("src") {
        let Some(module) = source.module() else {
            continue;
        };
        if level(&module) != Level::Core {
            continue;
        }
        for other in modules_named(&source.code()) {
            if level(&other) == Level::Vocabulary || other == module {
                continue;
            }
            assert!(
                before(&other, &module, &STAGES) || before(&other, &module, &BESIDE),
                "{}: stage `{module}` must not name `{other}`",
                source.name
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    for source in sources("src") {
        let core = source
            .module()
            .is_some_and(|module| level(&module) <= Level::Core);
        if !core {
            continue;
        }
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
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources("src") {
        let Some(module) = source.module() else {
            continue;
        };
        let named = modules_named(&source.code())
            .into_iter()
            .filter(|other| *other != module);
        arrows.entry(module.clone()).or_default().extend(named);
    }
    // Remove each module that uses none of the remaining ones, until only cycles remain.
    loop {
        let (free, bound): (Vec<_>, Vec<_>) = arrows.keys().cloned().partition(|module| {
            arrows[module]
                .iter()
                .all(|other| !arrows.contains_key(other))
        });
        if free.is_empty() {
            assert!(
                bound.is_empty(),
                "a cycle runs through some of {bound:?}: {arrows:?}"
            );
            return;
        }
        for module in free {
            arrows.remove(&module);
        }
    }
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
    for line in lib.lines() {
        let Some(module) = line
            .strip_prefix("pub mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        else {
            continue;
        };
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

/// One file.
struct Source {
    /// Its path in the package.
    name: String,
    text: String,
}

impl Source {
    /// The module of `src/` to which it belongs; `None` for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<String> {
        let path = self.name.strip_prefix("src/")?;
        let first = path.split('/').next().unwrap();
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!["lib", "main"].contains(&name)).then(|| name.to_owned())
    }

    /// The part before its tests.
    fn before_tests(&self) -> &str {
        self.text
            .split_once("\n#[cfg(test)]")
            .map_or(&self.text, |(code, _)| code)
    }

    /// The same without comments and the contents of strings.
    fn code(&self) -> String {
        blank(self.before_tests())
    }
}

/// The modules of the crate that `code` names by a path: `crate::frame::..` or `crate::{frame::.., ..}`.
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (_, path) in code
        .match_indices("crate::")
        .map(|(at, found)| code.split_at(at + found.len()))
    {
        if let Some(group) = path.strip_prefix('{') {
            let mut depth = 0;
            let mut at_start = true;
            for (at, c) in group.char_indices() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => at_start = true,
                    c if at_start && !c.is_whitespace() => {
                        modules.extend(first_word(&group[at..]));
                        at_start = false;
                    }
                    _ => {}
                }
            }
        } else {
            modules.extend(first_word(path));
        }
    }
    // A path may also name a macro or an item at the top of the crate.
    modules.retain(|name| MODULES.iter().any(|(module, _)| module == name));
    modules
}

fn first_word(text: &str) -> Option<String> {
    words(text)
        .next()
        .filter(|word| text.starts_with(word))
        .map(str::to_owned)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

fn level(module: &str) -> Level {
    let found = MODULES.iter().find(|(name, _)| *name == module);
    found
        .unwrap_or_else(|| panic!("`{module}` has no level in tests/tidy.rs; add it"))
        .1
}

/// `source` with comments, strings and characters blanked out; the lines stay the same.
fn blank(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if c == '"' {
            string_len(rest)
        } else if let Some(len) = raw_string_len(rest) {
            len
        } else if c == '\'' {
            char_len(rest)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let (blanked, after) = rest.split_at(skipped);
        code.push(' ');
        code.extend(blanked.chars().filter(|&c| c == '\n'));
        rest = after;
    }
    code
}

/// The length of the string literal at the start of `text`.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string literal at the start of `text`, if there is one.
fn raw_string_len(text: &str) -> Option<usize> {
    let hashes = text
        .strip_prefix('r')?
        .chars()
        .take_while(|&c| c == '#')
        .count();
    text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    Some(
        text[start..]
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len()),
    )
}

/// The length of the character literal at the start of `text`, or of the quote of a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            // `'\u{1b}'` and `'\x1b'` end at the next quote; `'\''` ends at the quote after that.
            let from = at + escaped.len_utf8();
            text[from..]
                .find('\'')
                .map_or(text.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// All sources of the package: the crate, its tests, benches and fuzz targets.
fn all_sources() -> Vec<Source> {
    let found: Vec<_> = ["src", "tests", "benches", "fuzz"]
        .into_iter()
        .flat_map(sources)
        .collect();
    assert!(found.len() > 20, "only {} files found", found.len());
    found
}

/// The Rust files under a directory of the package, without `target`.
fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push(Source {
                    name,
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn blanking_leaves_code_alone() {
    let source = "let a = \"// no\\\" {\"; // comment\nlet b = 'x'; fn f<'a>() { r#\"\"raw\"\"# }";
    assert_eq!(blank(source), "let a =  ;  \nlet b =  ; fn f< a>() {   }");
}

#[test]
fn imports_are_found_in_groups_too() {
    let code = "use crate::{frame::{Frame, parse}, tick::Tick};\nlet x = crate::rule::X;";
    let found = modules_named(code);
    assert_eq!(
        found.iter().map(String::as_str).collect::<Vec<_>>(),
        ["frame", "rule", "tick"]
    );
}
