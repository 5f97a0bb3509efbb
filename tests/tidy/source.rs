//! Source files: their text without comments and strings, and the module that each is.

use std::fs;
use std::path::PathBuf;

/// One file.
pub(crate) struct Source {
    /// Its path in the package.
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    /// The module that this file is, from the root of the crate; `None` for `lib.rs` and `main.rs`.
    pub(crate) fn module_path(&self) -> Option<Vec<String>> {
        let path = self.name.strip_prefix("src/")?.strip_suffix(".rs")?;
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let parts = path.split('/').map(str::to_owned);
        (!["lib", "main"].contains(&path)).then(|| parts.collect())
    }

    /// Its child modules that are compiled for tests alone.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let declared = self.text.split("#[cfg(test)]\n").skip(1);
        let names = declared.filter_map(|rest| {
            let line = rest.lines().next()?.trim();
            let line = line.strip_suffix(';')?;
            let (_, name) = line.split_once("mod ")?;
            Some(name.to_owned())
        });
        names.collect()
    }

    /// The part before its tests.
    pub(crate) fn before_tests(&self) -> &str {
        self.text
            .split_once("\n#[cfg(test)]")
            .map_or(&self.text, |(code, _)| code)
    }

    /// The same without comments and the contents of strings.
    pub(crate) fn code(&self) -> String {
        blank(self.before_tests())
    }
}

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// `source` with comments, strings and characters blanked out; the lines stay the same.
pub(crate) fn blank(source: &str) -> String {
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
pub(crate) fn string_len(text: &str) -> usize {
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
pub(crate) fn raw_string_len(text: &str) -> Option<usize> {
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
pub(crate) fn char_len(text: &str) -> usize {
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
pub(crate) fn all_sources() -> Vec<Source> {
    let found: Vec<_> = ["src", "tests", "benches", "fuzz"]
        .into_iter()
        .flat_map(sources)
        .collect();
    assert!(found.len() > 20, "only {} files found", found.len());
    found
}

/// The Rust files under a directory of the package, without `target`.
pub(crate) fn sources(directory: &str) -> Vec<Source> {
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

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the core.
pub(crate) fn core_sources() -> Vec<Source> {
    let found = sources("src/core");
    assert!(found.len() > 20, "only {} files found", found.len());
    found
}

#[test]
fn blanking_leaves_code_alone() {
    let source = "let a = \"// no\\\" {\"; // comment\nlet b = 'x'; fn f<'a>() { r#\"\"raw\"\"# }";
    assert_eq!(blank(source), "let a =  ;  \nlet b =  ; fn f< a>() {   }");
}
