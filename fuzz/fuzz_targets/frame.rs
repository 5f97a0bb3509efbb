//! Frames any octets in any mode. However they are cut, they yield the same frames as whole, within the
//! bounds that the framer guarantees. A byte order mark before a count changes nothing.

#![no_main]

mod cut;

use libfuzzer_sys::fuzz_target;
use tersed::core::frame::{End, Framer, Framing, Outcome, Step};

fuzz_target!(|input: (u8, u8, Vec<u8>, &[u8])| {
    let (mode, message_octets_max, reads, stream) = input;
    let framing = match mode % 4 {
        0 => Framing::Auto,
        1 => Framing::OctetCounting,
        2 => Framing::Lf,
        _ => Framing::Nul,
    };
    let end = if mode & 4 == 0 {
        End::Closed
    } else {
        End::Truncated
    };
    let framer = Framer::new(framing, usize::from(message_octets_max).max(1));

    let whole = run(framer.clone(), std::iter::once(stream), end);
    assert_eq!(run(framer.clone(), stream.chunks(1), end), whole);
    assert_eq!(run(framer.clone(), cut::cut(stream, &reads), end), whole);

    // Where a count must stand, a byte order mark before it changes nothing.
    let may_begin_a_frame = !matches!(stream.first(), None | Some(b'\n' | 0 | 0xef));
    if framing == Framing::OctetCounting && may_begin_a_frame {
        let marked = [b"\xef\xbb\xbf", stream].concat();
        assert_eq!(run(framer, cut::cut(&marked, &reads), end), whole);
    }
});

/// The outcomes, in words.
fn run<'a>(mut framer: Framer, reads: impl Iterator<Item = &'a [u8]>, end: End) -> Vec<String> {
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    for read in reads {
        buffer.extend_from_slice(read);
        drain(&mut buffer, &mut seen, |input| framer.next(input));
        assert!(buffer.len() <= framer.buffer_octets_max());
        assert!(buffer.is_empty() || !framer.between_frames());
    }
    drain(&mut buffer, &mut seen, |input| framer.finish(input, end));
    assert!(buffer.is_empty());
    seen
}

fn drain(
    buffer: &mut Vec<u8>,
    seen: &mut Vec<String>,
    mut step: impl for<'a> FnMut(&'a [u8]) -> Step<'a>,
) {
    let mut standing_still = 0;
    loop {
        let Step { consumed, outcome } = step(buffer);
        standing_still = if consumed > 0 { 0 } else { standing_still + 1 };
        assert!(standing_still < 4, "{outcome:?} for ever");
        let more = outcome == Outcome::More;
        if !more {
            seen.push(format!("{outcome:?}"));
        }
        buffer.drain(..consumed);
        if more {
            return;
        }
    }
}
