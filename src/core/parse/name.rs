//! Names: the octets that hostnames, tags and processes consist of, and IPv6 addresses in place of a hostname.
//!
//! # Guarantees
//!
//! - A name is recognised octet by octet, from a table.
//!
//! # Left out
//!
//! The role of a name: the parsers know it.

use std::net::Ipv6Addr;

/// Whether `word` is an IPv6 address, with or without a zone.
pub(super) fn is_ipv6(word: &[u8]) -> bool {
    let address = word
        .split(|octet| *octet == b'%')
        .next()
        .expect("a split yields one part at least");
    // The longest is `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
    address.len() <= 45
        && std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// The role of an octet in a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// Part of a name.
    Name,
    /// SP, `:` or `[`: a name ends here.
    End,
    /// Never in a name: the word belongs to JSON, to `key=value`, or to a text.
    Never,
}

#[inline]
pub(super) fn class(octet: u8) -> Class {
    #[expect(clippy::indexing_slicing, reason = "there are 256 octets")]
    CLASSES[usize::from(octet)]
}

/// [`Class`] by octet. A table, because it is looked up for every octet of every header.
static CLASSES: [Class; 256] = {
    let mut classes = [Class::Name; 256];
    let mut octet = 0;
    while octet < classes.len() {
        #[expect(
            clippy::indexing_slicing,
            clippy::cast_possible_truncation,
            reason = "bounded by the loop, at compile time"
        )]
        {
            classes[octet] = match octet as u8 {
                b' ' | b':' | b'[' => Class::End,
                0..=0x1f | 0x7f | b'"' | b'=' | b'{' | b'}' => Class::Never,
                _ => Class::Name,
            };
        }
        octet += 1;
    }
    classes
};
