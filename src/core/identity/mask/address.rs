//! Recognises addresses inside a text: IPv4, IPv6, hardware, and PCI addresses, which begin like hardware
//! addresses.
//!
//! # Guarantees
//!
//! - An address is folded whole or not at all. Five groups of digits, a group above 255, or seven pairs
//!   are no address.
//! - A prefix length, port or zone behind an address is not part of it. A network is not an address, and
//!   a zone names an interface.
//! - `a::b` and `std::vec` are names, not IPv6 addresses: an address needs a decimal digit, or is `::`.
//!
//! # Left out
//!
//! IPv4 in fewer than four decimal groups. Hardware addresses without leading zeros.

use std::net::Ipv6Addr;

use super::octet::{COLON, DIGIT, HEX, WORD, before, has, is, part};

/// Whether `dotted`, which is digits with points between, is an IPv4 address.
pub(super) fn is_ipv4(dotted: &[u8]) -> bool {
    let mut groups = 0;
    for group in dotted.split(|octet| *octet == b'.') {
        let value = group.iter().fold(0_u32, |value, digit| {
            value
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        });
        groups += 1;
        if groups > 4 || group.len() > 3 || value > 255 {
            return false;
        }
    }
    groups == 4
}

/// Whether digits with three points at `start..end` are an address, judged by their neighbours: `1.2.3.4-5`
/// is a version, `1.2.3.4.example.net` a host, and `.1.2.3.4` an object identifier.
pub(super) fn ipv4_fits(text: &[u8], start: usize, end: usize) -> bool {
    if before(text, start) == Some(b'.') || is(text, end, WORD) {
        return false;
    }
    match text.get(end) {
        Some(b'.') => !is(text, end + 1, WORD),
        Some(b'-') if is(text, end + 1, WORD) => {
            let other = dotted_end(text, end + 1);
            is_ipv4(part(text, end + 1..other))
        }
        _ => true,
    }
}

/// The offset behind the digits and points at `at`. Looks at [`IPV4_OCTETS_MAX`] octets at most.
fn dotted_end(text: &[u8], at: usize) -> usize {
    let octets = part(text, at..text.len());
    let count = octets
        .iter()
        .take(IPV4_OCTETS_MAX)
        .take_while(|octet| octet.is_ascii_digit() || **octet == b'.')
        .count();
    let (dotted, _) = octets.split_at(count);
    at + dotted.strip_suffix(b".").unwrap_or(dotted).len()
}

/// The offset behind the IPv6 address in `start..run_end`, which is a run of digits, colons and points.
pub(super) fn ipv6(text: &[u8], start: usize, run_end: usize) -> Option<usize> {
    if run_end - start > IPV6_OCTETS_MAX || is(text, run_end, WORD) {
        return None;
    }
    let mut written = part(text, start..run_end);
    while let Some(head) = written.strip_suffix(b".") {
        written = head;
    }
    memchr::memchr_iter(b':', written).nth(1)?;
    if written == b"::" {
        let end = start + 2;
        let apart = before(text, start).is_none_or(|octet| UNSPECIFIED_BEHIND.contains(&octet))
            && text
                .get(end)
                .is_none_or(|octet| UNSPECIFIED_BEFORE.contains(octet));
        return apart.then_some(end);
    }
    if !written.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let parses = |written: &[u8]| {
        std::str::from_utf8(written).is_ok_and(|written| written.parse::<Ipv6Addr>().is_ok())
    };
    if parses(written) {
        return Some(start + written.len());
    }
    // A colon may end the clause.
    let written = written.strip_suffix(b":")?;
    parses(written).then_some(start + written.len())
}

/// The offset behind the run of octets of which IPv6 addresses consist.
pub(super) fn ipv6_run(text: &[u8], mut at: usize) -> usize {
    while is(text, at, HEX | COLON) || has(text, at, b'.') {
        at += 1;
    }
    at
}

/// The offset behind the hardware address at `start`, whose first run of hexadecimal digits ends at `hex_end`:
/// pairs with colons or hyphens between, or three groups of four with points between.
pub(super) fn mac(text: &[u8], start: usize, hex_end: usize) -> Option<usize> {
    let size = hex_end - start;
    let separator = *text.get(hex_end)?;
    let (counts, count_max): (&[usize], usize) = match (size, separator) {
        (2, b':' | b'-') => (&PAIRS, 20),
        (4, b'.') => (&[3], 3),
        _ => return None,
    };
    let (mut end, mut count) = (hex_end, 1);
    while count < count_max
        && has(text, end, separator)
        && run_of(text, end + 1, size)
        && !is(text, end + 1 + size, WORD)
    {
        end += 1 + size;
        count += 1;
    }
    let goes_on = has(text, end, separator) && is(text, end + 1, WORD);
    (counts.contains(&count) && !goes_on).then_some(end)
}

/// The offset behind the PCI address at `start` (`0000:00:1f.2`, `00:1f.2`), which names a device.
pub(super) fn pci(text: &[u8], start: usize, hex_end: usize) -> Option<usize> {
    let bus = match hex_end - start {
        4 if has(text, hex_end, b':') && run_of(text, hex_end + 1, 2) => hex_end + 1,
        2 => start,
        _ => return None,
    };
    let fits = has(text, bus + 2, b':')
        && run_of(text, bus + 3, 2)
        && has(text, bus + 5, b'.')
        && is(text, bus + 6, DIGIT);
    let end = bus + 7;
    let goes_on = is(text, end, WORD) || (has(text, end, b'.') && is(text, end + 1, WORD));
    (fits && !goes_on).then_some(end)
}

/// Whether `count` hexadecimal digits begin at `at`.
#[inline]
fn run_of(text: &[u8], at: usize, count: usize) -> bool {
    (at..at + count).all(|at| is(text, at, HEX))
}

/// The longest is `255.255.255.255`.
const IPV4_OCTETS_MAX: usize = 15;

/// The longest is `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`, and a colon or points may follow.
const IPV6_OCTETS_MAX: usize = 48;

/// Pairs of an address: Ethernet, EUI-64, netfilter's `MAC=` (both addresses and the type), InfiniBand.
const PAIRS: [usize; 4] = [6, 8, 14, 20];

/// `::` alone is an address, and not an operator, only behind one of these octets or at the beginning of the text.
const UNSPECIFIED_BEHIND: &[u8] = b" \t\r\n[({\"',;/=";

/// `::` alone is an address only before one of these octets or at the end of the text.
const UNSPECIFIED_BEFORE: &[u8] = b" \t\r\n])}\"',;/%.";
