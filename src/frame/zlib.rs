//! zlib's first octets (RFC 1950), which stand where text is expected.
//!
//! ```text
//! 78 FLG block ...          a compressed stream: rsyslog's compression.mode="stream:always"
//! z 78 FLG block ...        one compressed message: rsyslog's ZipLevel, compression.mode="single"
//! ```
//!
//! `78` is `x`, and two of the four FLG may be text as well: `5e` is `^`, `da` begins a letter in UTF-8. A line may begin
//! with `x^2`. So behind these two, octets that are no text decide: a control octet other than TAB and CR, or octets that
//! are not UTF-8. The first 16 octets hold one in all but a few of a billion compressed streams, and in no line of text.
//!
//! # Guarantees
//!
//! - Nothing is decompressed.
//! - What is decided from a prefix of a stream stays, whatever follows; at most 18 octets are needed.
//! - A line of text is decided when its LF or NUL is there, however short it is.
//!
//! # Left out
//!
//! Streams with another window size or a dictionary: rsyslog makes none.

/// Whether a compressed stream begins like that; `None` while it takes more octets.
#[must_use]
pub fn begins_stream(octets: &[u8]) -> Option<bool> {
    let (flg, block) = match octets {
        [] | [CMF] => return None,
        [CMF, flg @ (FLG_FASTEST | FLG_FAST | FLG_DEFAULT | FLG_BEST)] => (*flg, None),
        [
            CMF,
            flg @ (FLG_FASTEST | FLG_FAST | FLG_DEFAULT | FLG_BEST),
            block,
            ..,
        ] => (*flg, Some(*block)),
        _ => return Some(false),
    };
    let block = block?;
    if !is_block(block) {
        return Some(false);
    }
    if !may_be_text(flg) {
        return Some(true);
    }
    let look = octets.get(1..2 + LOOK_OCTETS);
    let is_all = look.is_some();
    let look = look.or_else(|| octets.get(1..)).unwrap_or_default();
    let line_octets = memchr::memchr2(b'\n', 0, look);
    let line = look.get(..line_octets.unwrap_or(look.len()));
    let line = line.unwrap_or_default();
    let is_cut_off = match std::str::from_utf8(line) {
        Ok(_) => false,
        Err(error) if error.error_len().is_none() => true,
        Err(_) => return Some(true),
    };
    if line.iter().any(|octet| is_no_text(*octet)) {
        return Some(true);
    }
    match (line_octets, is_all) {
        // No letter ends in a line end.
        (Some(_), _) => Some(is_cut_off),
        (None, true) => Some(false),
        (None, false) => None,
    }
}

/// Whether `frame`, all of it, is one message in rsyslog's compressed form.
#[must_use]
#[inline]
pub fn is_compressed(frame: &[u8]) -> bool {
    may_be_compressed(frame) && is_compressed_indeed(frame)
}

/// Whether `frame` begins like that. Text may, too: [`is_compressed`] tells.
#[must_use]
#[inline]
pub const fn may_be_compressed(frame: &[u8]) -> bool {
    matches!(frame, [MARK, CMF, ..])
}

#[cold]
fn is_compressed_indeed(frame: &[u8]) -> bool {
    match frame {
        [
            _,
            _,
            flg @ (FLG_FASTEST | FLG_FAST | FLG_DEFAULT | FLG_BEST),
            block,
            ..,
        ] if is_block(*block) => {
            let is_line_end = |octet: &u8| matches!(octet, b'\n' | 0);
            let is_text = || {
                std::str::from_utf8(frame).is_ok()
                    && frame
                        .iter()
                        .all(|octet| !is_no_text(*octet) || is_line_end(octet))
            };
            !may_be_text(*flg) || !is_text()
        }
        _ => false,
    }
}

/// Whether a compressed message of `octets_max` octets at most begins like `input`; `None` while it takes more octets.
pub(super) fn message_follows(input: &[u8], octets_max: usize) -> Option<bool> {
    let whole = input.get(..octets_max);
    match whole.unwrap_or(input) {
        [] if whole.is_some() => Some(false),
        [] => None,
        [MARK, stream @ ..] => begins_stream(stream).or(whole.map(|_| false)),
        _ => Some(false),
    }
}

/// Whether a block of deflate can begin with that octet (RFC 1951 3.2.3): BTYPE 3 is no type.
const fn is_block(octet: u8) -> bool {
    octet & 0b110 != 0b110
}

const fn may_be_text(flg: u8) -> bool {
    matches!(flg, FLG_FAST | FLG_BEST)
}

/// An octet that stands in no line of text.
const fn is_no_text(octet: u8) -> bool {
    matches!(octet, 0..=8 | b'\n' | 0x0b | 0x0c | 0x0e..=0x1f | 0x7f)
}

/// What rsyslog puts before a compressed message.
const MARK: u8 = b'z';

/// Deflate with a window of 32 KiB.
const CMF: u8 = 0x78;

/// FLG by level: 0 and 1; 2 to 5; 6; 7 to 9.
const FLG_FASTEST: u8 = 0x01;
const FLG_FAST: u8 = 0x5e;
const FLG_DEFAULT: u8 = 0x9c;
const FLG_BEST: u8 = 0xda;

/// Octets behind FLG that are looked at where it may be text.
const LOOK_OCTETS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// What zlib 1.3 makes of `<134>Mar  1 12:00:00 host app[7]: a message that is long enough to be worth it` and more of
    /// its kind, by level, finished and flushed.
    const STREAMS: [&[u8]; 6] = [
        b"\x78\x01\x00\x50\x00\xaf\xff<134>Mar  1 12:00:00",
        b"\x78\x01\x04\xc0\xb1\x09\x80",
        b"\x78\x5e\xb2\x31\x34\x36\xb1\xf3",
        b"\x78\x5e\xb3\x31\x34\x36\xb1\xf3",
        b"\x78\x9c\xb2\x31\x34\x36\xb1\xf3",
        b"\x78\xda\xb3\x31\x34\x36\xb1\xf3",
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
    fn a_compressed_stream_is_told_from_text_and_no_octet_changes_that() {
        for stream in STREAMS {
            assert_eq!(
                begins_stream(stream),
                Some(true),
                "{}",
                stream.escape_ascii()
            );
            settles(stream);
        }
        for text in TEXTS {
            assert_ne!(begins_stream(text.as_bytes()), Some(true), "{text:?}");
            settles(text.as_bytes());
        }
        assert_eq!(begins_stream(TEXTS[0].as_bytes()), Some(false));
        assert_eq!(begins_stream(b"x^2\n"), Some(false));
        assert_eq!(begins_stream(b"x\x9c\xff"), Some(false), "no block");
    }

    #[track_caller]
    fn settles(octets: &[u8]) {
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
        assert!(!is_compressed(b"zx^2\n\0"));
        assert!(!is_compressed(b"z"));
        assert!(!is_compressed(b""));
    }

    #[test]
    fn a_message_that_is_over_is_no_compressed_one() {
        assert_eq!(message_follows(b"", 0), Some(false));
        assert_eq!(message_follows(b"", 1), None);
        assert_eq!(message_follows(b"zx", 2), Some(false));
        assert_eq!(message_follows(b"zx", 3), None);
        assert_eq!(message_follows(b"zx^2", 4), Some(false));
        assert_eq!(message_follows(b"zx^2", 5), None);
        assert_eq!(message_follows(b"zx\x9c\xb3", 40), Some(true));
        assert_eq!(message_follows(b"<13>", 40), Some(false));
    }
}
