//! Nearest: which known word an unknown word was probably meant to be.
//!
//! # Guarantees
//!
//! - A word is suggested if one letter is wrong, or two letters in a word of at least five, or if it is the only word that
//!   begins with what was written. Letter case is ignored.
//! - The best word is suggested; of two equally good words, the first.
//!
//! # Left out
//!
//! Synonyms.

/// The word of `words` that is most like `written`, if one is near enough.
#[must_use]
pub(crate) fn nearest<'w>(
    written: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    // The comparison takes the product of both lengths, so a text that is longer than any word is not compared.
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

/// The same as a remark at the end of an error, ` (did you mean window?)`; empty if no word is near.
#[must_use]
pub(crate) fn did_you_mean<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> String {
    nearest(written, words).map_or_else(String::new, |word| format!(" (did you mean {word}?)"))
}

/// The letters that a word must have at least, by how many of them are wrong.
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
            // Two words begin with it.
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
