//! Printable: text from outside, in a form that cannot control a terminal or hide text.
//!
//! # Guarantees
//!
//! - Control characters, and characters that change how others are shown, are always escaped: U+001B, line ends, U+202E
//!   (which reverses the writing direction), U+2028, characters without width. They are written as `\n`, `\r`, `\t` or
//!   `\u{202e}`.
//! - Every other character is unchanged: names and texts in any script stay readable.
//!
//! # Left out
//!
//! Octets that are not text (`Escaped`). Telling a backslash of the text from one of an escape.

use std::fmt::{self, Write};

/// Displays `text` with each [hidden character](is_hidden) escaped.
#[must_use]
pub(crate) const fn printable(text: &str) -> Printable<'_> {
    Printable(text)
}

/// The result of [`printable`], to be displayed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaping(f, Style::Text).write_str(self.0)
    }
}

/// A writer that passes text on, with each [hidden character](is_hidden) escaped.
#[derive(Debug)]
pub(super) struct Escaping<'a, W: Write>(pub(super) &'a mut W, pub(super) Style);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = text;
        while let Some((at, hidden)) = plain.char_indices().find(|&(_, c)| is_hidden(c)) {
            let (before, rest) = plain.split_at(at);
            self.0.write_str(before)?;
            self.1.write(hidden, self.0)?;
            let mut rest = rest.chars();
            rest.next();
            plain = rest.as_str();
        }
        self.0.write_str(plain)
    }
}

/// The form of escapes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Style {
    Text,
    /// As in a JSON string (RFC 8259 7): `\u202e`, two of them for a character beyond U+FFFF.
    Json,
}

impl Style {
    fn write(self, hidden: char, to: &mut impl Write) -> fmt::Result {
        match self {
            Self::Text => write!(to, "{}", hidden.escape_default()),
            Self::Json => {
                let mut units = [0; 2];
                let units = hidden.encode_utf16(&mut units);
                units
                    .iter()
                    .try_for_each(|unit| write!(to, "\\u{unit:04x}"))
            }
        }
    }
}

/// Whether `c` is a control character, a format character (Unicode's general category Cf), or a separator of lines or
/// paragraphs.
#[must_use]
pub(crate) fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || FORMAT
            .iter()
            .any(|&(first, last)| (first..=last).contains(&c))
}

/// General category Cf of Unicode 16, and U+2028 and U+2029.
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out_and_the_rest_stays() {
        for (text, expected) in [
            ("", ""),
            (
                "plain text, 100%n \"quoted\" back\\slash",
                "plain text, 100%n \"quoted\" back\\slash",
            ),
            (
                "caf\u{e9} \u{65e5}\u{672c} \u{1f4a5}",
                "caf\u{e9} \u{65e5}\u{672c} \u{1f4a5}",
            ),
            ("two\r\nlines\t\0", r"two\r\nlines\t\u{0}"),
            ("\x1b]0;title\x07", r"\u{1b}]0;title\u{7}"),
            ("\x7f\u{85}\u{9b}31m", r"\u{7f}\u{85}\u{9b}31m"),
            ("cod\u{202e}txt.exe", r"cod\u{202e}txt.exe"),
            ("a\u{2028}b\u{2029}c", r"a\u{2028}b\u{2029}c"),
            (
                "zero\u{200b}\u{200d}\u{feff}width",
                r"zero\u{200b}\u{200d}\u{feff}width",
            ),
            (
                "\u{2066}\u{2069}\u{61c}\u{ad}",
                r"\u{2066}\u{2069}\u{61c}\u{ad}",
            ),
            ("\u{e0041}", r"\u{e0041}"),
        ] {
            assert_eq!(printable(text).to_string(), expected);
        }
    }

    #[test]
    fn every_control_and_format_character_is_hidden_and_no_letter_is() {
        let hidden = (char::MIN..=char::MAX).filter(|&c| is_hidden(c)).count();
        // Unicode 16: 65 of Cc, 170 of Cf, and the two separators.
        assert_eq!(hidden, 65 + 170 + 2);
        let letter = (char::MIN..=char::MAX).find(|&c| c.is_alphanumeric() && is_hidden(c));
        assert_eq!(letter, None);
        assert!(FORMAT.is_sorted() && FORMAT.iter().all(|(first, last)| first <= last));
    }

    #[test]
    fn in_json_an_escape_is_one_of_json() {
        let mut json = String::new();
        let text = "\"\u{7f}\u{202e}\u{e0041} caf\u{e9}\"";
        Escaping(&mut json, Style::Json).write_str(text).unwrap();
        assert_eq!(json, "\"\\u007f\\u202e\\udb40\\udc41 caf\u{e9}\"");
        let read: String = serde_json::from_str(&json).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", text.trim_matches('"')));
    }
}
