//! Reads any octets as a RELP stream. However they are cut, they yield the same frames and the same fault
//! as whole, within the guaranteed bound. A frame that was read and is written again reads the same.
//! Neither end of a session panics, whatever it receives.

#![no_main]

mod cut;

use libfuzzer_sys::fuzz_target;
use tersed::core::relp::{Client, FRAME_OCTETS_EXTRA, Frame, Response, Server, offers};

fuzz_target!(|input: (u8, Vec<u8>, &[u8])| {
    let (data_octets_max, reads, stream) = input;
    let max = usize::from(data_octets_max);
    let whole = run(std::iter::once(stream), max);
    assert_eq!(run(stream.chunks(1), max), whole);
    assert_eq!(run(cut::cut(stream, &reads), max), whole);
    let _ = offers::check(stream);
    let _ = Response::of(stream);
});

/// The frames, the answers of both ends, and the fault, in words.
fn run<'a>(reads: impl Iterator<Item = &'a [u8]>, max: usize) -> Vec<String> {
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    let (mut server, mut client) = (Server::new(), Client::new());
    let mut wire = Vec::new();
    client.open(&mut wire);
    for read in reads {
        buffer.extend_from_slice(read);
        loop {
            match Frame::first(&buffer, max) {
                Ok(None) => break,
                Ok(Some((frame, consumed))) => {
                    seen.push(format!("{frame:?}"));
                    wire.clear();
                    frame.write(&mut wire);
                    assert_eq!(wire.len(), frame.wire_octets());
                    assert_eq!(Frame::first(&wire, max), Ok(Some((frame, wire.len()))));
                    seen.push(format!("{:?} {:?}", server.take(frame), client.take(frame)));
                    buffer.drain(..consumed);
                }
                Err(fault) => {
                    seen.push(format!("{fault:?}"));
                    return seen;
                }
            }
        }
        assert!(buffer.len() < max + FRAME_OCTETS_EXTRA);
    }
    seen
}
