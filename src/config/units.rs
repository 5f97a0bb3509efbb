//! Times and sizes as the file writes them, and counts as people read them.

use std::time::Duration;

/// A time as people write it.
pub(crate) fn time_text(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// A number of octets as people write it: exact, in the unit that needs the smallest number.
pub(crate) fn size_text(octets: usize) -> String {
    // Of two units that need the same number, the first is taken.
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let thousands = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    units
        .into_iter()
        .chain(thousands)
        .filter(|(_, unit)| octets > 0 && octets.is_multiple_of(*unit))
        .map(|(name, unit)| (octets / unit, name))
        .min_by_key(|(count, _)| *count)
        .map_or_else(
            || format!("{octets}B"),
            |(count, name)| format!("{count}{name}"),
        )
}

/// A count with its digits in groups of three: `19,803`.
pub(crate) fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (19_803, "19,803"),
            (999_999, "999,999"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count_text(count), text);
        }
    }
}
