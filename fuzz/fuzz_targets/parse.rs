//! Parses any octets as a frame. Every part lies within the frame and apart from the others, MSG is the
//! last of them, and only terminators stand behind it.

#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use tersed::core::parse::{Format, Message};

fuzz_target!(|frame: &[u8]| {
    let message = Message::parse(frame);
    let structured_data = message.structured_data_range();
    let mut header: Vec<Range<usize>> = [
        message.timestamp(),
        message.hostname(),
        message.app_name(),
        message.procid(),
        message.msgid(),
        Some(&frame[structured_data]),
    ]
    .into_iter()
    .flatten()
    .filter(|part| !part.is_empty())
    .map(|part| place(frame, part))
    .collect();
    if message.format == Format::Cisco {
        header.sort_by_key(|part| part.start);
    }
    let mut at = 0;
    for part in header.into_iter().chain([message.msg_range()]) {
        assert!(at <= part.start && part.start <= part.end, "{message:?}");
        at = part.end;
    }
    assert!(
        frame[at..].iter().all(|octet| b"\r\n\0".contains(octet)),
        "{message:?}"
    );
    assert!(
        !matches!(message.msg(), [.., b'\r' | b'\n' | 0]),
        "{message:?}"
    );

    let elements: Vec<u8> = message
        .sd_elements()
        .flat_map(|sd| sd.octets)
        .copied()
        .collect();
    assert_eq!(elements, message.structured_data().unwrap_or_default());

    // Terminators change nothing.
    let ended = [frame, b"\r\n\0"].concat();
    let again = Message::parse(&ended);
    assert_eq!(again.msg(), message.msg());
    assert_eq!(
        (again.hostname(), again.app_name()),
        (message.hostname(), message.app_name())
    );
});

/// Where `part`, which is a slice of `frame`, stands in it.
fn place(frame: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - frame.as_ptr().addr();
    assert!(start + part.len() <= frame.len());
    start..start + part.len()
}
