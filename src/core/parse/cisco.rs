//! Cisco: a header of optional parts that leads to `%FACILITY[-SUB]-SEV-MNEMONIC: text`.
//!
//! ```text
//! [":"] [seq ": " [seq2 ": "]] [origin ": "] [node ":"] ["*"|"."] TIME [zone] ":" [proc["["pid"]"] ":"] %...
//! ```
//!
//! Senders are IOS, IOS-XE, NX-OS, IOS XR (the node and the process), ASA, FTD and PIX (`asa1 : %ASA-...`,
//! also without a timestamp) and WLC (`*task: `). A relay may have put a timestamp and a host in front.
//!
//! # Guarantees
//!
//! - Only a header that leads to `%` and a mnemonic is Cisco's. For anything else [`parse`] returns
//!   `None`, however it begins.
//! - Sequence numbers, clock marks and zones belong to no part. MSG begins with the `%`.
//! - Linear time: each part is walked once, and a header has at most [`PARTS_MAX`] of them.
//!
//! # Left out
//!
//! The meaning of facility, severity and mnemonic.

use memchr::memchr;

use super::name::{Class, class, is_ipv6};
use super::octets::{behind, behind_blanks, digits};
use super::spans::{Span, Spans};
use super::timestamp;

/// Finds the parts from `at`, behind PRI.
pub(super) fn parse(text: &[u8], mut at: usize) -> Option<Spans> {
    // Most other texts hold no `%`.
    memchr(b'%', behind(text, at))?;
    let mut header = Header {
        text,
        spans: Spans::default(),
        sequence_numbers: 0,
        clock_mark: false,
    };
    for _ in 0..PARTS_MAX {
        at = behind_blanks(text, at);
        let rest = behind(text, at);
        at += match rest.first()? {
            b'%' => return header.finish(at, rest),
            // EMBLEM and NX-OS begin with a colon. It also ends the timestamp and the ASA's device-id.
            b':' => 1,
            b'*' | b'.' if !header.clock_mark => {
                header.clock_mark = true;
                1
            }
            _ => header.part(at, rest)?,
        };
    }
    None
}

/// A header, as far as it was read.
struct Header<'a> {
    text: &'a [u8],
    spans: Spans,
    sequence_numbers: u32,
    clock_mark: bool,
}

impl Header<'_> {
    /// Takes the part at `at`, where `rest` begins. Returns its length in octets.
    fn part(&mut self, at: usize, rest: &[u8]) -> Option<usize> {
        if let Some(octets) = timestamp::legacy(rest).or_else(|| timestamp::uptime(rest)) {
            // Collectors read the first one.
            if self.spans.timestamp.is_empty() {
                self.spans.timestamp = Span::new(at, at + octets);
            }
            return Some(octets + zone(behind(rest, octets)));
        }
        if let Some(octets) = sequence_number(rest) {
            self.sequence_numbers += 1;
            return (self.sequence_numbers <= SEQUENCE_NUMBERS_MAX).then_some(octets);
        }
        let end = rest.iter().position(|&octet| octet == b' ')?;
        let (word, behind) = rest.split_at(end);
        match word {
            [name @ .., b':'] => self.named(at, name)?,
            _ => {
                if let Some(colon) = word.iter().position(|&octet| octet == b':')
                    && !is_ipv6(word)
                {
                    // IOS XR: the node, a colon, and the timestamp without a space.
                    self.node(at, word.split_at(colon).0)?;
                    return Some(colon + 1);
                }
                // A bare word is a host where one is expected.
                let expected = self.sequence_numbers > 0
                    || !self.spans.timestamp.is_empty()
                    || matches!(behind, [b' ', b':', ..]);
                if !expected {
                    return None;
                }
                self.host(at, word)?;
            }
        }
        Some(end)
    }

    /// Takes a name with a colon behind it: a process, a task, a node or the origin.
    fn named(&mut self, at: usize, name: &[u8]) -> Option<()> {
        let has_timestamp = !self.spans.timestamp.is_empty();
        if let [head @ .., b']'] = name {
            let bracket = head.iter().position(|&octet| octet == b'[')?;
            self.process(at, name.split_at(bracket).0)?;
            self.spans.procid = Span::unless_nil(self.text, at + bracket + 1, at + head.len());
            return Some(());
        }
        if self.clock_mark && !has_timestamp {
            return self.process(at, name);
        }
        if is_node(name) {
            return self.node(at, name);
        }
        if has_timestamp && (!self.spans.hostname.is_empty() || !self.spans.msgid.is_empty()) {
            return self.process(at, name);
        }
        self.host(at, name)
    }

    fn host(&mut self, at: usize, name: &[u8]) -> Option<()> {
        let free = self.spans.hostname.is_empty();
        (free && (is_name(name) || is_ipv6(name))).then_some(())?;
        self.spans.hostname = Span::unless_nil(self.text, at, at + name.len());
        Some(())
    }

    fn process(&mut self, at: usize, name: &[u8]) -> Option<()> {
        (self.spans.app_name.is_empty() && is_name(name)).then_some(())?;
        self.spans.app_name = Span::new(at, at + name.len());
        Some(())
    }

    fn node(&mut self, at: usize, name: &[u8]) -> Option<()> {
        (self.spans.msgid.is_empty() && is_node(name)).then_some(())?;
        self.spans.msgid = Span::new(at, at + name.len());
        Some(())
    }

    /// Checks the mnemonic at `at`, where the header led to `%`.
    fn finish(mut self, at: usize, rest: &[u8]) -> Option<Spans> {
        // Any program may write `name: %...`, and a hostname is never guessed.
        let colon_alone = !self.spans.hostname.is_empty()
            && self.spans.timestamp.is_empty()
            && self.sequence_numbers == 0
            && self.text.get(self.spans.hostname.range().end) == Some(&b':');
        if colon_alone || !is_mnemonic(rest) {
            return None;
        }
        self.spans.msg = Span::new(at, self.text.len());
        Some(self.spans)
    }
}

/// Octets of a sequence number: digits and a colon, before SP or the end.
fn sequence_number(rest: &[u8]) -> Option<usize> {
    let digits = digits(rest);
    let ends = matches!(behind(rest, digits), [b':'] | [b':', b' ', ..]);
    (digits > 0 && ends).then_some(digits + 1)
}

/// Octets of a zone (` UTC`) before a colon; 0 without a zone. If it were taken for a hostname, the sender
/// would not stand in.
fn zone(behind_time: &[u8]) -> usize {
    let Some(word) = behind_time.strip_prefix(b" ") else {
        return 0;
    };
    let letters = word
        .iter()
        .take_while(|octet| octet.is_ascii_uppercase())
        .count();
    if (ZONE_LETTERS_MIN..=ZONE_LETTERS_MAX).contains(&letters) && word.get(letters) == Some(&b':')
    {
        letters + 1
    } else {
        0
    }
}

/// Whether `octets` begin with `%FACILITY[-SUB]-SEV-MNEMONIC:`. IOS XR puts a space before the colon.
fn is_mnemonic(octets: &[u8]) -> bool {
    let Some(code) = octets.strip_prefix(b"%") else {
        return false;
    };
    let end = code
        .iter()
        .position(|&o| !(o.is_ascii_alphanumeric() || matches!(o, b'_' | b'-')));
    let Some((code, behind)) = end.and_then(|end| code.split_at_checked(end)) else {
        return false;
    };
    let mut parts = code.split(|octet| *octet == b'-');
    parts.next().is_some_and(|facility| !facility.is_empty())
        && parts.any(|severity| matches!(severity, [b'0'..=b'7']))
        && parts.next().is_some_and(|mnemonic| !mnemonic.is_empty())
        && behind.get(behind_blanks(behind, 0)) == Some(&b':')
}

fn is_name(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|&octet| class(octet) == Class::Name)
}

/// Whether `word` names a place in a chassis: `RP/0/RSP0/CPU0`, `0/RP0/ADMIN0`.
fn is_node(word: &[u8]) -> bool {
    is_name(word) && word.contains(&b'/')
}

/// Parts of the longest header, including colons that stand alone.
const PARTS_MAX: usize = 16;

/// `service sequence-numbers` adds a second number to that of the logging process.
const SEQUENCE_NUMBERS_MAX: u32 = 2;

/// `UTC`, `CET`, `AEST`, `ACWST`. Shorter words are more likely names.
const ZONE_LETTERS_MIN: usize = 3;
const ZONE_LETTERS_MAX: usize = 5;
