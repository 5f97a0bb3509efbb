//! Framing: a byte stream in, whole frames out (RFC 6587, RFC 5425 4.3).
//!
//! The [`Framer`] is told the octets that have arrived and have not been consumed yet, and answers
//! with one [`Step`]: a frame, a fault, or that it needs more. It owns no buffer and copies nothing;
//! it remembers how far it has looked, so no octet is scanned twice.
//!
//! # Guarantees
//!
//! - The frames do not depend on how the stream was cut into reads.
//! - A frame is exactly the octets between its framing; nothing inside is changed.
//! - What is left over of an oversize frame is never searched for frames.
//! - No length that a peer sent sizes a buffer: the caller never has to hold more than
//!   [`Framer::buffer_octets_max`] octets for the framer to go on.
//!
//! # Left out
//!
//! What the octets mean (see `parse`), empty datagrams and TLS hellos (see `listen`), time-outs.

/// How a byte stream is cut into frames.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// Decided frame by frame (RFC 6587 3.4.3 lets a connection mix the methods).
    #[default]
    Auto,
    /// `MSG-LEN SP MSG` (RFC 6587 3.4.1, RFC 5425 4.3).
    OctetCounting,
    /// Up to LF, one CR before it removed (RFC 6587 3.4.2). A NUL is data.
    Lf,
    /// Up to NUL. An LF is data.
    Nul,
}

/// One message as it stood between its framing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// The octets received, unchanged.
    pub octets: &'a [u8],
    /// The frame was longer than `max_message_size`: `octets` is its head, the rest is skipped.
    pub oversize: bool,
}

/// What one look at the unconsumed octets gave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step<'a> {
    /// Octets at the front of the input that are done with. The next call must start behind them.
    pub consumed: usize,
    /// What those octets were.
    pub outcome: Outcome<'a>,
}

/// What the consumed octets of a [`Step`] were.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// A whole frame (or the head of an oversize one).
    Frame(Frame<'a>),
    /// A line or counted frame with nothing in it (RFC 6587 says nothing; it is ignored and counted).
    Empty,
    /// Something was wrong; framing goes on behind it.
    Fault(FrameFault),
    /// Framing was forced and is violated so steadily that the connection should be closed.
    Hopeless,
    /// Nothing more to find in this input. Octets that are part of a frame are not consumed; octets
    /// that are skipped (trailers, the rest of an oversize frame) are.
    More,
}

/// What can be wrong with a stream of frames. Never fatal by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameFault {
    /// A MSG-LEN that nobody can mean, followed by a PRI; the octets are taken as a line instead.
    #[error("octet count of more than 16 MiB, taken as text")]
    CountTooLarge,
    /// The stream ended inside a counted frame (or, on TLS without close_notify, inside a line).
    /// The octets consumed by the step are the fragment.
    #[error("stream ended inside a frame")]
    Incomplete,
    /// Octet counting was forced and this is not a valid header; skipped to the next LF.
    #[error("not an octet count")]
    BadFrame,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The peer closed in order: what is left of a line is a frame.
    Closed,
    /// The end may be a truncation (RFC 5425 4.4): what is left of a line is a fragment.
    Truncated,
}
// The Framer:
//   pub struct Framer
//   impl Framer {
//       pub fn new(framing: Framing, message_octets_max: usize) -> Self;
//       /// One step over `input`: all octets received and not consumed yet.
//       pub fn next<'a>(&mut self, input: &'a [u8]) -> Step<'a>;
//       /// The same when the stream has ended; call until `Outcome::More`, then everything is consumed.
//       pub fn finish<'a>(&mut self, input: &'a [u8], end: End) -> Step<'a>;
//       /// The octets of input that the framer may ask for before it decides:
//       pub fn buffer_octets_max(&self) -> usize;   // max + FRAME_OVERHEAD_OCTETS
//       /// True when nothing of a frame is pending between `next` calls (used for the partial-frame timeout:
//       /// e.g. inside the skipped remainder of an oversize frame this is false although nothing is buffered).
//       pub fn between_frames(&self) -> bool;
//   }
