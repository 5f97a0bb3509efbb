//! Recognises zlib (RFC 1950) by its first octets where text is expected.
//!
//! ```text
//! 78 FLG block ...          a compressed stream: rsyslog's compression.mode="stream:always"
//! z 78 FLG block ...        one compressed message: rsyslog's ZipLevel, compression.mode="single"
//! ```
//!
//! `78` is `x`, and each of the four FLG may be text as well: `5e` is `^`; `da` begins a letter in UTF-8 and is a letter
//! in Latin-1; `9c` is a letter in Windows' code page; and a line may hold control octets. So the block of deflate
//! behind them decides (`evidence`), within its first 16 octets:
//!
//! - Stored (BTYPE 0): zeros pad its first octet, and NLEN is the complement of LEN.
//! - Fixed codes (BTYPE 1): all codes are valid, and the unpacked octets begin with a PRI, perhaps behind an octet
//!   count, or with twelve characters of ASCII text.
//! - Codes of its own (BTYPE 2): the code of the code lengths is complete and not longer than necessary, and no control
//!   octet below TAB has a code.
//!
//! UTF-8 without control octets is always text. Octets that stay ambiguous are a message.
//!
//! # Guarantees
//!
//! - No octet that follows changes a decision. At most 18 octets are needed.
//! - A line of text in UTF-8 is decided at its LF or NUL, however short it is.
//! - Nothing beyond those octets is unpacked.
//!
//! # Left out
//!
//! Streams with another window size or a dictionary: rsyslog makes none. Streams of something other than text.

/// Whether `octets` begin a compressed stream; `None` if more octets are needed.
#[must_use]
pub fn begins_stream(octets: &[u8]) -> Option<bool> {
    let block = match octets {
        [] | [CMF] => return None,
        // FLG by level: 0 and 1; 2 to 5; 6; 7 to 9.
        [CMF, 0x01 | 0x5e | 0x9c | 0xda, block @ ..] => block,
        _ => return Some(false),
    };
    let evidence = evidence(block);
    if evidence == Some(false) {
        return Some(false);
    }
    // From FLG on.
    let is_all = octets.len() >= 2 + LOOK_OCTETS;
    let (_, look) = octets.split_at(1);
    let (look, _) = look.split_at(look.len().min(1 + LOOK_OCTETS));
    let line_octets = memchr::memchr2(b'\n', 0, look);
    let (line, _) = look.split_at(line_octets.unwrap_or(look.len()));
    let is_text = match std::str::from_utf8(line) {
        // The end of `octets` may cut off a letter. A line end may not.
        Err(error) => error.error_len().is_none() && line_octets.is_none(),
        Ok(_) => !line.iter().any(|octet| is_no_text(*octet)),
    };
    match (is_text, line_octets.is_some() || is_all) {
        (false, _) => evidence,
        (true, true) => Some(false),
        (true, false) => None,
    }
}

/// Whether `block` begins a block of deflate (RFC 1951 3.2.3) that holds text; `None` if more octets are needed. At most
/// [`LOOK_OCTETS`] are looked at.
fn evidence(block: &[u8]) -> Option<bool> {
    let look = block.get(..LOOK_OCTETS);
    let mut bits = Bits::new(look.unwrap_or(block));
    // BFINAL.
    bits.take(1);
    let found = match bits.take(2) {
        Some(0) => stored(&mut bits),
        Some(1) => fixed(&mut bits),
        Some(2) => dynamic(&mut bits),
        Some(_) => Some(false),
        None => None,
    };
    found.or(look.map(|_| false))
}

fn stored(bits: &mut Bits) -> Option<bool> {
    if bits.take(5)? != 0 {
        return Some(false);
    }
    let octets = bits.take(16)?;
    Some(octets != 0 && bits.take(16)? == !octets & 0xffff)
}

fn fixed(bits: &mut Bits) -> Option<bool> {
    let mut text = [0; LOOK_OCTETS];
    let mut literals = 0;
    let (mut unpacked, mut is_ascii, mut is_unbroken) = (0, true, true);
    loop {
        match bits.take_fixed()? {
            literal @ 0..=255 => {
                let literal = u8::try_from(literal).expect("the arm ends at 255");
                let place = text.get_mut(literals);
                *place.expect("a literal takes eight bits at least") = literal;
                literals += 1;
                unpacked += 1;
                is_ascii &= matches!(literal, b'\t' | b'\n' | b'\r' | b' '..=b'~');
                let (text, _) = text.split_at(literals);
                if (is_unbroken && is_frame_start(text)) || (is_ascii && literals == TEXT_LITERALS)
                {
                    return Some(true);
                }
            }
            256 | 286.. => return Some(false),
            length => {
                let length = bits.take_length(length)?;
                if bits.take_distance()? > unpacked {
                    return Some(false);
                }
                unpacked += length;
                is_unbroken = false;
            }
        }
    }
}

/// Whether `text` is exactly a PRI, perhaps behind an octet count.
fn is_frame_start(text: &[u8]) -> bool {
    let digits = |text: &[u8]| {
        text.iter()
            .take_while(|octet| octet.is_ascii_digit())
            .count()
    };
    let count = digits(text);
    let frame = match text.split_at(count).1.strip_prefix(b" ") {
        Some(frame) if count > 0 => frame,
        _ => text,
    };
    match frame
        .strip_prefix(b"<")
        .and_then(|frame| frame.strip_suffix(b">"))
    {
        Some(pri) => matches!(pri.len(), 1..=3) && digits(pri) == pri.len(),
        None => false,
    }
}

fn dynamic(bits: &mut Bits) -> Option<bool> {
    let (literals, distances) = (bits.take(5)?, bits.take(5)?);
    if literals > 29 || distances > 29 {
        return Some(false);
    }
    let sent = bits.take(4)? as usize + 4;
    let mut octets = [0_u8; CODE_LENGTHS];
    let mut space = 0;
    let mut last = 0;
    for symbol in CODE_LENGTHS_ORDER.iter().take(sent) {
        last = bits.take(3)?;
        if last > 0 {
            space += 128 >> last;
        }
        let place = octets.get_mut(usize::from(*symbol));
        *place.expect("the order lists symbols of this code") =
            u8::try_from(last).expect("three bits were taken");
    }
    if space != 128 || (last == 0 && sent > 4) {
        return Some(false);
    }
    let mut unused = 0;
    while unused < usize::from(b'\t') {
        unused += match bits.take_code(&octets)? {
            0 => 1,
            16 if unused > 0 => 3 + bits.take(2)?,
            17 => 3 + bits.take(3)?,
            18 => 11 + bits.take(7)?,
            _ => return Some(false),
        } as usize;
    }
    Some(true)
}

/// The bits of the first octets of a block, least significant first.
struct Bits {
    octets: u128,
    left: u32,
}

impl Bits {
    fn new(octets: &[u8]) -> Self {
        let mut padded = [0; LOOK_OCTETS];
        for (place, octet) in padded.iter_mut().zip(octets) {
            *place = *octet;
        }
        let left = u32::try_from(octets.len().min(LOOK_OCTETS) * 8);
        Self {
            octets: u128::from_le_bytes(padded),
            left: left.expect("a few octets are looked at"),
        }
    }

    /// A number of `count` bits, at most 16; `None` if fewer are left.
    fn take(&mut self, count: u32) -> Option<u32> {
        self.left = self.left.checked_sub(count)?;
        let number = self.octets & ((1 << count) - 1);
        self.octets >>= count;
        Some(u32::try_from(number).expect("16 bits were taken at most"))
    }

    /// A literal or length symbol by the fixed code (RFC 1951 3.2.6).
    fn take_fixed(&mut self) -> Option<u32> {
        let mut code = 0;
        for _ in 0..7 {
            code = code << 1 | self.take(1)?;
        }
        if code < 0b001_1000 {
            return Some(256 + code);
        }
        code = code << 1 | self.take(1)?;
        match code {
            0x30..=0xbf => return Some(code - 0x30),
            0xc0..=0xc7 => return Some(280 + code - 0xc0),
            _ => {}
        }
        code = code << 1 | self.take(1)?;
        Some(144 + (code - 0x190))
    }

    /// The length that a symbol from 257 to 285 stands for.
    fn take_length(&mut self, symbol: u32) -> Option<u32> {
        match symbol {
            285 => Some(258),
            265.. => {
                let extra = (symbol - 261) / 4;
                let base = (4 + (symbol - 261) % 4) << extra;
                Some(3 + base + self.take(extra)?)
            }
            _ => Some(symbol - 254),
        }
    }

    /// A distance by the fixed code.
    fn take_distance(&mut self) -> Option<u32> {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | self.take(1)?;
        }
        match code {
            0..=3 => Some(code + 1),
            4..=29 => {
                let extra = code / 2 - 1;
                Some(1 + ((2 + code % 2) << extra) + self.take(extra)?)
            }
            _ => Some(u32::MAX),
        }
    }

    /// A symbol of the code of the code lengths. The codes are complete and `octets` says how long each is.
    fn take_code(&mut self, octets: &[u8; CODE_LENGTHS]) -> Option<u32> {
        let (mut code, mut first) = (0, 0);
        for length in 1..=7 {
            code = code << 1 | self.take(1)?;
            let of_length = || {
                octets
                    .iter()
                    .zip(0..)
                    .filter(|(octets, _)| **octets == length)
            };
            if let Some((_, symbol)) = of_length().nth((code - first) as usize) {
                return Some(symbol);
            }
            let count = u32::try_from(of_length().count()).expect("the code has 19 symbols");
            first = (first + count) << 1;
        }
        Some(u32::MAX)
    }
}

/// Whether `frame` as a whole is one message in rsyslog's compressed form.
#[must_use]
#[inline]
pub fn is_compressed(frame: &[u8]) -> bool {
    may_be_compressed(frame) && is_compressed_indeed(frame)
}

/// Whether `frame` begins like a compressed message. Text may begin so, too: [`is_compressed`] decides.
#[must_use]
#[inline]
pub const fn may_be_compressed(frame: &[u8]) -> bool {
    matches!(frame, [PREFIX, CMF, ..])
}

#[cold]
fn is_compressed_indeed(frame: &[u8]) -> bool {
    let is_line_end = |octet: &u8| matches!(octet, b'\n' | 0);
    let is_text = || {
        std::str::from_utf8(frame).is_ok()
            && frame
                .iter()
                .all(|octet| !is_no_text(*octet) || is_line_end(octet))
    };
    match frame {
        [_, _, 0x01 | 0x5e | 0x9c | 0xda, block @ ..] => {
            evidence(block) == Some(true) && !is_text()
        }
        _ => false,
    }
}

/// Whether `input` begins with a compressed message of at most `octets_max` octets; `None` if more octets are needed.
pub(super) fn message_follows(input: &[u8], octets_max: usize) -> Option<bool> {
    let whole = input.get(..octets_max);
    match whole.unwrap_or(input) {
        [] if whole.is_some() => Some(false),
        [] => None,
        [PREFIX, stream @ ..] => begins_stream(stream).or(whole.map(|_| false)),
        _ => Some(false),
    }
}

/// Whether no line of text holds `octet`.
const fn is_no_text(octet: u8) -> bool {
    matches!(octet, 0..=8 | b'\n' | 0x0b | 0x0c | 0x0e..=0x1f | 0x7f)
}

/// rsyslog puts it before a compressed message.
const PREFIX: u8 = b'z';

/// Deflate with a window of 32 KiB.
const CMF: u8 = 0x78;

/// Octets behind CMF and FLG that are looked at.
const LOOK_OCTETS: usize = 16;

/// A block without a PRI holds text if it begins with this many characters of ASCII.
const TEXT_LITERALS: usize = 12;

/// Symbols in the code of the code lengths.
const CODE_LENGTHS: usize = 19;

/// The order in which the lengths of their codes are sent (RFC 1951 3.2.7).
const CODE_LENGTHS_ORDER: [u8; CODE_LENGTHS] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `<134>Mar  1 12:00:00 host app[7]: a message that is long enough to be worth it` and similar messages, compressed
    /// by zlib 1.3 at each level, finished and flushed.
    const STREAMS: [&[u8]; 10] = [
        b"\x78\x01\x00\x50\x00\xaf\xff<134>Mar  1 12:00:00",
        b"\x78\x01\x94\x9d\x4d\xae\x18\xb7\x11\x84\xf7\x39\xc5\x3b\x81\x31\x6c\xfe",
        b"\x78\x5e\xb2\x31\x34\x36\xb1\xf3",
        b"\x78\x5e\xb3\x31\x34\x36\xb1\xf3",
        b"\x78\x5e\x0c\xc2\xd1\x09\x80\x30\x0c\x05\xc0\x55\xde\x08\xad\x0a\x42\x11",
        b"\x78\x9c\xb2\x31\x34\x36\xb1\xf3",
        b"\x78\x9c\x0c\xc2\x61\x0a\x80\x20\x0c\x06\xd0\xab\x7c\x47\xd0\x0a\x0c\x89",
        b"\x78\x9c\x9c\x9c\x5d\xca\x66\xc7\x0d\x84\xef\xb3\x8a\x6f\x05\xa1\x25\xb5",
        b"\x78\xda\xb3\x31\x34\x36\xb1\xf3",
        b"\x78\xda\xa5\x9c\x5d\xaa\xae\xb7\x0d\x85\xef\x3b\x8a\x3d\x82\x62\xfd\x59",
    ];

    /// Neither text in UTF-8 nor compressed streams.
    const OTHERS: [&[u8]; 9] = [
        b"x^\xe4 latin text of some length",
        b"x^\x1b[31mred\x1b[0m and some more",
        b"x\x01abc and some more",
        b"x\x01\0abcd",
        b"x\x01\0\0\0\xff\xff",
        b"x\x9cuvre of a painter in some code page",
        b"x\xda\xe9\xe8 \xe9\xe8 \xe9\xe8 \xe9\xe8",
        b"x^\xb214\xb2 is a power of x, too",
        b"x\x9c\xff",
    ];

    const TEXTS: [&str; 9] = [
        "x^2 + y^2 = z^2 is a line of text",
        "x^",
        "x^2\n<13>next\n",
        "x^\0<13>next\0",
        "x^\t2\r\n<13>next\n",
        "xڳsome text in Urdu",
        "xڀ\n<13>next\n",
        "x = 1",
        "x",
    ];

    #[test]
    fn a_compressed_stream_is_told_from_text_and_no_later_octet_changes_that() {
        for stream in STREAMS {
            assert_eq!(
                begins_stream(stream),
                Some(true),
                "{}",
                stream.escape_ascii()
            );
            check_decision_stays(stream);
        }
        for text in TEXTS {
            assert_ne!(begins_stream(text.as_bytes()), Some(true), "{text:?}");
            check_decision_stays(text.as_bytes());
        }
        assert_eq!(begins_stream(TEXTS[0].as_bytes()), Some(false));
        assert_eq!(begins_stream(b"x^2\n"), Some(false));
        for other in OTHERS {
            assert_eq!(
                begins_stream(other),
                Some(false),
                "{}",
                other.escape_ascii()
            );
            check_decision_stays(other);
        }
    }

    #[track_caller]
    fn check_decision_stays(octets: &[u8]) {
        let mut decided = None;
        for len in 0..=octets.len() {
            let now = octets.get(..len).and_then(begins_stream);
            assert!(decided.is_none() || decided == now, "{len}");
            assert!(now.is_some() || len < 2 + LOOK_OCTETS, "{len}");
            decided = now;
        }
    }

    #[test]
    fn a_compressed_message_is_told_from_text() {
        for stream in STREAMS {
            assert!(is_compressed(&[b"z", stream].concat()));
            assert!(!is_compressed(stream));
        }
        for text in TEXTS {
            assert!(!is_compressed(format!("z{text}").as_bytes()), "{text:?}");
        }
        for other in OTHERS {
            assert!(!is_compressed(&[b"z", other].concat()));
        }
        assert!(!is_compressed(b"zx^2\n\0"));
        assert!(!is_compressed(b"z"));
        assert!(!is_compressed(b""));
    }

    #[test]
    fn a_message_that_ended_is_not_compressed() {
        assert_eq!(message_follows(b"", 0), Some(false));
        assert_eq!(message_follows(b"", 1), None);
        assert_eq!(message_follows(b"zx", 2), Some(false));
        assert_eq!(message_follows(b"zx", 3), None);
        assert_eq!(message_follows(b"zx^2", 4), Some(false));
        assert_eq!(message_follows(b"zx^2", 5), None);
        assert_eq!(
            message_follows(b"zx\x9c\xb2\x314\x36\xb1\xf3", 40),
            Some(true)
        );
        assert_eq!(message_follows(b"<13>", 40), Some(false));
    }
}
