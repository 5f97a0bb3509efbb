//! Recognises a sender's own count of repeats.
//!
//! # Guarantees
//!
//! - Most messages are decided by their first octet and their last seven.
//!
//! # Left out
//!
//! The number: two equal counts report different repeats, so such a message is never suppressed.

use super::octets::{behind, behind_blanks, digits};

/// Whether `msg` is a sender's own count of repeats.
#[inline]
pub(super) fn is_repeat_count(msg: &[u8]) -> bool {
    (matches!(msg.first(), Some(b' ' | b'l' | b'm')) && counts_repeats(msg))
        || msg.strip_suffix(b" times]").is_some_and(ends_in_count)
}

/// Whether `counted` is a text and the beginning of ` [message repeated N times]`: another tersed reports so.
fn ends_in_count(counted: &[u8]) -> bool {
    let digits = counted
        .iter()
        .rev()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    let (text, _) = counted.split_at(counted.len() - digits);
    digits > 0 && text.ends_with(b" [message repeated ")
}

fn counts_repeats(msg: &[u8]) -> bool {
    let msg = behind(msg, behind_blanks(msg, 0));
    let wordings: [(&[u8], &[u8]); 3] = [
        (b"last message repeated ", b" times"),
        (b"message repeated ", b" times: ["),
        // Another tersed reports copies with different texts so.
        (b"message repeated ", b" times, "),
    ];
    wordings.into_iter().any(|(before, rest)| {
        msg.strip_prefix(before).is_some_and(|count_on| {
            let digits = digits(count_on);
            digits > 0 && behind(count_on, digits).starts_with(rest)
        })
    })
}
