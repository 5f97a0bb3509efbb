//! Nearest: which known word was probably meant by one that is not known.
//!
//! # Guarantees
//!
//! - A word is suggested if one letter is wrong, or two of five and more, or if what was written is the beginning of that
//!   word alone. Upper and lower case do not differ.
//! - The best one is suggested; of two that are equally good, the first.
//!
//! # Left out
//!
//! Words that mean the same and are spelled otherwise.

/// The one of `words` that is most like `written`, if any is.
#[must_use]
pub fn nearest<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // What is longer than any word is not compared: the comparison takes the product of both lengths.
    if written.len() > WORD_OCTETS_MAX {
        return None;
    }
    let written = written.to_lowercase();
    let lower: Vec<(&str, String)> = words
        .into_iter()
        .map(|word| (word, word.to_lowercase()))
        .collect();
    let alike = lower
        .iter()
        .map(|(word, lower)| {
            (
                strsim::damerau_levenshtein(&written, lower),
                lower.len(),
                word,
            )
        })
        .filter(|(wrong, length, _)| LENGTHS_MIN.get(*wrong).is_some_and(|min| length >= min))
        .min_by_key(|(wrong, ..)| *wrong)
        .map(|(_, _, word)| *word);
    alike.or_else(|| {
        let mut longer = lower.iter().filter(|(_, lower)| {
            written.len() >= BEGINNING_OCTETS_MIN && lower.starts_with(&written)
        });
        match (longer.next(), longer.next()) {
            (Some((word, _)), None) => Some(*word),
            _ => None,
        }
    })
}

/// The same as a remark behind an error: ` (did you mean window?)`, or nothing.
#[must_use]
pub fn did_you_mean<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> String {
    nearest(written, words).map_or_else(String::new, |word| format!(" (did you mean {word}?)"))
}

/// The letters that a word must have, by how many are wrong.
const LENGTHS_MIN: [usize; 3] = [0, 2, 5];
const BEGINNING_OCTETS_MIN: usize = 3;
const WORD_OCTETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_a_word_or_its_beginning_is_that_word() {
        let words = [
            "lf",
            "nul",
            "off",
            "octet-counting",
            "warning",
            "number",
            "drop-newest",
            "drop-oldest",
            "local1",
            "local7",
        ];
        for (written, meant) in [
            ("warnin", Some("warning")),
            ("WARNING", Some("warning")),
            ("numbres", Some("number")),
            ("octet_counting", Some("octet-counting")),
            ("octet", Some("octet-counting")),
            ("lcoal7", Some("local7")),
            ("lff", Some("lf")),
            ("null", Some("nul")),
            // Neither of the two that begin so.
            ("drop", None),
            ("on", None),
            ("x", None),
            ("", None),
            ("address", None),
        ] {
            let expected = meant;
            assert_eq!(nearest(written, words), expected, "{written}");
        }
        let long = "warning".repeat(1000);
        assert_eq!(nearest(&long, words), None);
        assert_eq!(did_you_mean("warnin", words), " (did you mean warning?)");
        assert_eq!(did_you_mean("x", words), "");
    }
}
