//! Compares the list of log lines in `docs/operations.md` with the code.
//!
//! Each line at WARN or ERROR has a row in the table "What the log asks for". Each row is about a line that the code
//! logs, at any level. A message is one literal without arguments, and varying parts are in fields, so that an operator
//! finds the message by searching for it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

#[test]
fn each_warning_and_error_is_documented() {
    let documented = documented();
    let missing: Vec<_> = logged()
        .into_iter()
        .filter(|(message, line)| line.asks && !documented.contains(message))
        .map(|(message, line)| format!("{}: {message:?}", line.file.display()))
        .collect();
    assert!(
        missing.is_empty(),
        "no row in docs/operations.md:\n{}",
        missing.join("\n")
    );
}

#[test]
fn each_documented_line_is_logged() {
    let logged = logged();
    let stale: Vec<_> = documented()
        .into_iter()
        .filter(|message| !logged.contains_key(message))
        .collect();
    assert!(stale.is_empty(), "the code logs none of {stale:#?}");
}

#[test]
fn messages_are_found_behind_their_fields() {
    let code = r#"
        // warn!("not this one");
        tracing::warn!(peer = %peer, what = "a field", "first");
        if let Some(x) = y { error!(%error, "second; \
             goes on") }
        info!("third {}", "argument");
        let text = "warn!(\"nor this\")";
        #[cfg(test)]
        mod tests { fn t() { warn!("nor that"); } }
    "#;
    let mut found = BTreeMap::new();
    collect(code.parse().unwrap(), Path::new("x.rs"), &mut found);
    let found: Vec<_> = found
        .iter()
        .map(|(message, line)| (message.as_str(), line.asks))
        .collect();
    assert_eq!(
        found,
        [
            ("first", true),
            ("second; goes on", true),
            ("third {}", false)
        ]
    );
}

/// A place where a message is logged.
struct Line {
    file: PathBuf,
    /// Logged at WARN or ERROR at least once.
    asks: bool,
}

/// Every message that the code logs.
fn logged() -> BTreeMap<String, Line> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = fs::read_to_string(&path).unwrap();
                let tokens = code.parse().unwrap();
                collect(tokens, path.strip_prefix(root()).unwrap(), &mut found);
            }
        }
    }
    assert!(found.len() > 40, "only {} messages found", found.len());
    found
}

/// Adds the messages that are logged in `tokens` to `found`. Tests are left out.
fn collect(tokens: TokenStream, file: &Path, found: &mut BTreeMap<String, Line>) {
    let mut tokens = tokens.into_iter().peekable();
    let mut is_test = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(name) if tokens.peek().is_some_and(is_bang) => {
                let level = name.to_string();
                if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
                    continue;
                }
                tokens.next();
                let Some(TokenTree::Group(arguments)) = tokens.next() else {
                    continue;
                };
                let asks = ["error", "warn"].contains(&level.as_str());
                let message = message(arguments.stream());
                assert!(
                    !asks || message.as_ref().is_some_and(|text| !text.contains('{')),
                    "{}: {level}!({arguments}) has no message that can be searched for",
                    file.display()
                );
                if let Some(message) = message {
                    let line = found.entry(message).or_insert_with(|| Line {
                        file: file.to_owned(),
                        asks,
                    });
                    line.asks |= asks;
                }
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                is_test |= group.stream().to_string().replace(' ', "") == "cfg(test)";
            }
            TokenTree::Group(_) if std::mem::take(&mut is_test) => {}
            TokenTree::Group(group) => collect(group.stream(), file, found),
            // `mod tests;`, `use ...;`: the item with the attribute ends here.
            TokenTree::Punct(punct) if punct.as_char() == ';' => is_test = false,
            _ => {}
        }
    }
}

fn is_bang(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == '!')
}

/// The first string among the arguments of a macro that is not the value of a field.
fn message(arguments: TokenStream) -> Option<String> {
    let mut at_start = true;
    for token in arguments {
        match token {
            TokenTree::Literal(literal) if at_start => {
                let text: syn::LitStr = syn::parse_str(&literal.to_string()).ok()?;
                return Some(text.value());
            }
            TokenTree::Punct(punct) => at_start = punct.as_char() == ',',
            _ => at_start = false,
        }
    }
    None
}

/// The messages in the first column of the table.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, section) = page.split_once("\n## What the log asks for\n").unwrap();
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut messages = BTreeSet::new();
    for row in rows {
        let (cell, _) = row.split_once(" | ").unwrap();
        // Every second piece is between backticks.
        messages.extend(cell.split('`').step_by(2).map(str::to_owned));
    }
    assert!(messages.len() > 20, "only {} rows found", messages.len());
    messages
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
