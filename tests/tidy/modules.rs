//! The modules of `src/`, and which of them use which.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::sources;

/// The modules of `src/`, and which of them name which.
///
/// A module's name is its path below the crate: `config::resolve`. Modules that exist for tests alone are left out, and
/// what a test module inside a file names does not count.
pub(crate) struct Modules {
    /// By name: what the module's own file imports, as absolute paths, without what its tests import.
    paths: BTreeMap<Vec<String>, Vec<Vec<String>>>,
}

impl Modules {
    pub(crate) fn read() -> Self {
        let mut paths = BTreeMap::new();
        let mut for_tests = BTreeSet::new();
        for source in sources("src") {
            let Some(name) = source.module_path() else {
                continue;
            };
            for child in source.test_modules() {
                let mut path = name.clone();
                path.push(child);
                for_tests.insert(path);
            }
            paths.insert(name.clone(), paths_named(&source.code(), &name));
        }
        paths.retain(|name, _| !for_tests.iter().any(|test| name.starts_with(test)));
        Self { paths }
    }

    /// The module in which the item at the end of `path` is defined, if it is a module of this crate: a name that a
    /// module only imports is followed to where it comes from.
    pub(crate) fn defining(&self, path: &[String]) -> Option<Vec<String>> {
        let mut path = path.to_vec();
        // A chain of imports is short; one that leads in a circle does not compile.
        for _ in 0..8 {
            let module = (1..=path.len())
                .rev()
                .map(|len| &path[..len])
                .find(|prefix| self.paths.contains_key(*prefix))?
                .to_vec();
            let Some(item) = path.get(module.len()) else {
                return Some(module);
            };
            let import = self.paths[&module].iter().find(|import| {
                import.last() == Some(item) && **import != path && !import.starts_with(&path)
            });
            let Some(import) = import else {
                return Some(module);
            };
            let behind = &path[module.len() + 1..];
            path = import.iter().chain(behind).cloned().collect();
        }
        None
    }

    /// For each folder: which of its children name which, with one file that does.
    pub(crate) fn arrows(
        &self,
    ) -> BTreeMap<Vec<String>, BTreeMap<String, BTreeMap<String, String>>> {
        let mut folders: BTreeMap<_, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
        for (name, paths) in &self.paths {
            for target in paths.iter().filter_map(|path| self.defining(path)) {
                let common = name.iter().zip(&target).take_while(|(a, b)| a == b).count();
                let (Some(from), Some(to)) = (name.get(common), target.get(common)) else {
                    // A parent and its child, or the module itself.
                    continue;
                };
                folders
                    .entry(name[..common].to_vec())
                    .or_default()
                    .entry(from.clone())
                    .or_default()
                    .insert(to.clone(), name.join("::"));
            }
        }
        folders
    }
}

/// The absolute paths that `code`, which stands in the module `own`, names: in imports, and where it uses
/// `crate::`, `super::` or `self::` otherwise.
pub(crate) fn paths_named(code: &str, own: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = ["crate", "super", "self", "use"]
        .into_iter()
        .filter_map(|word| position_of_word(rest, word))
        .min()
    {
        rest = &rest[at..];
        let import = rest.strip_prefix("use ");
        let tree = import.unwrap_or(rest);
        let end = if import.is_some() {
            tree.find(';').unwrap_or(tree.len())
        } else {
            path_len(tree)
        };
        for path in expanded(tree[..end].trim()) {
            paths.extend(absolute(&path, own));
        }
        rest = &tree[end.max(1)..];
    }
    paths
}

/// Where `word` stands by itself in `text`.
pub(crate) fn position_of_word(text: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// The length of the path without braces at the start of `text`.
pub(crate) fn path_len(text: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

/// Each single path of the import tree `tree`: `a::{b, c::{self, d}}` is `a::b`, `a::c` and `a::c::d`.
pub(crate) fn expanded(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((front, group)) = tree.split_once('{') else {
        // What an item is renamed to does not matter here.
        let path = tree.split(" as ").next().unwrap();
        return vec![
            path.split("::")
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect(),
        ];
    };
    let front: Vec<_> = front
        .split("::")
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let mut paths = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                for behind in expanded(&group[start..at]) {
                    let behind = behind.into_iter().filter(|part| part != "self");
                    paths.push(front.iter().cloned().chain(behind).collect());
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// `path` from the root of the crate; `None` if it leads out of the crate.
pub(crate) fn absolute(path: &[String], own: &[String]) -> Option<Vec<String>> {
    let mut base = own.to_vec();
    let mut parts = path.iter().peekable();
    match parts.next()?.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop()?;
            while parts.next_if(|part| *part == "super").is_some() {
                base.pop()?;
            }
        }
        // A child of the module, or another crate, which then is no module of this crate.
        child => base.push(child.to_owned()),
    }
    base.extend(parts.cloned());
    (!base.is_empty()).then_some(base)
}

#[test]
fn imports_are_found_in_groups_and_in_code() {
    let code = "use crate::{frame::{Frame, parse::{self, Pri}}, tick::Tick};\n\
                pub use self::child::Item as Other;\nlet x = super::sibling::X;\nuse std::fmt;";
    let own = ["a".to_owned(), "b".to_owned()];
    let found: Vec<_> = paths_named(code, &own)
        .iter()
        .map(|path| path.join("::"))
        .collect();
    assert_eq!(
        found,
        [
            "frame::Frame",
            "frame::parse",
            "frame::parse::Pri",
            "tick::Tick",
            "a::b::child::Item",
            "a::sibling::X",
            "a::b::std::fmt",
        ]
    );
}
