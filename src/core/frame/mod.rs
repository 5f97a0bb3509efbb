//! Framing: a byte stream in, whole frames out (RFC 6587, RFC 5425 4.3).
//!
//! The caller hands the [`Framer`] all octets that arrived and were not consumed yet. The framer returns
//! one [`Step`]: a frame, a fault, or that it needs more. It owns no buffer and copies nothing. It
//! remembers how far it has looked, so that only a header (30 octets) is looked at twice.
//!
//! ```text
//!            LF, NUL: skipped
//!            ┌─────┐
//!            ▼     │   1..9   digits, SP, look-ahead: a count
//!           START ─┴──────▶ CLASSIFY ──────────────────────▶ BODY ──▶ frame ──▶ START
//!             │  └─ byte order mark: what follows it decides; a count drops it, a line keeps it
//!             │                │ no count                      └ oversize: head, skip by count
//!             └──── other ─────┴───▶ LINE ──▶ frame ──▶ START
//!                                      └ oversize: head, skip to the trailer
//! ```
//!
//! # Guarantees
//!
//! - The frames do not depend on how the stream was cut into reads. Every decision is a function of
//!   the stream's octets (or of its end), and is taken only when no further octet can change it.
//! - A frame is exactly the octets between its framing, unchanged.
//! - The remainder of an oversize frame is never searched for frames.
//! - No length that a peer sent sizes a buffer. The framer can always continue if the caller holds at most
//!   [`Framer::buffer_octets_max`] octets.
//! - Work is linear in the octets received, whatever they are.
//!
//! # Left out
//!
//! The meaning of the octets (see `parse`), empty datagrams and TLS hellos (see `listen`), time-outs.

#![warn(clippy::indexing_slicing)]

mod non_transparent;
mod octet_counting;
pub mod zlib;

use std::mem;

use self::non_transparent::{Line, Trailer};
use self::octet_counting::{Class, Header};
use crate::core::limits::{BAD_FRAMES_MAX, FRAME_OVERHEAD_OCTETS};

/// Cuts one byte stream into frames. See the module page.
///
/// The caller appends what it reads to a buffer, calls [`Framer::next`] on all of it, drops
/// [`Step::consumed`] octets from its front, and calls again until [`Outcome::More`].
#[derive(Clone, Debug)]
pub struct Framer {
    framing: Framing,
    /// Octets of a frame that are kept. A longer frame is oversize.
    message_octets_max: usize,
    state: State,
    /// An earlier frame of this connection was counted. From then on digits and a space are a count.
    locked: bool,
    /// Bad frames since the last good one. Only forced octet counting has bad frames.
    bad_frames: u32,
}

/// What stands at the front of the unconsumed octets. The first `scanned` of them hold no trailer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// A frame may begin.
    Start,
    /// The first octet of a UTF-8 byte order mark.
    Mark,
    /// Digits behind a byte order mark of `mark` octets: a MSG-LEN or the beginning of a line.
    Classify {
        mark: usize,
        scanned: usize,
    },
    /// A MSG-LEN behind a byte order mark of `mark` octets: nothing else is allowed.
    Header {
        mark: usize,
    },
    /// A header of `header_octets`, byte order mark included, that announces `msg_len` octets.
    Body {
        header_octets: usize,
        msg_len: usize,
    },
    Line {
        scanned: usize,
    },
    /// The remainder of an oversize counted frame.
    SkipOctets {
        left: usize,
    },
    /// The remainder of an oversize line or of a bad frame, up to and including its trailer.
    SkipLine,
    /// Framing was violated too often. The next step reports it.
    Hopeless,
    /// [`Outcome::Hopeless`] was reported. All further octets are consumed and mean nothing.
    GivenUp,
}

impl Framer {
    /// A framer at the beginning of a stream. `message_octets_max` is the `max_message_size`
    /// setting, at least one octet. The octets of a frame beyond it are skipped.
    #[must_use]
    pub const fn new(framing: Framing, message_octets_max: usize) -> Self {
        Self {
            framing,
            message_octets_max,
            state: State::Start,
            locked: false,
            bad_frames: 0,
        }
    }

    /// One step over `input`: all octets received and not consumed yet.
    ///
    /// Until [`Outcome::More`], each call consumes octets or changes what the next call returns.
    #[inline]
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        let skipped = self.skip(input);
        let step = self.step(behind(input, skipped));
        Step {
            consumed: skipped + step.consumed,
            ..step
        }
    }

    /// One step when the stream has ended. Call it until [`Outcome::More`], which consumes everything.
    ///
    /// An oversize frame was reported with its head. It is not reported again if the end cuts off its
    /// remainder.
    pub fn finish<'a>(&mut self, input: &'a [u8], end: End) -> Step<'a> {
        let step = self.next(input);
        if step.outcome != Outcome::More {
            return step;
        }
        let pending = behind(input, step.consumed);
        let state = mem::replace(&mut self.state, State::Start);
        let outcome = match state {
            _ if pending.is_empty() => Outcome::More,
            State::Classify { mark, .. } => {
                match octet_counting::exactly_counted(behind(pending, mark)) {
                    Some(octets) => Outcome::Frame(Frame {
                        octets,
                        oversize: false,
                    }),
                    None => self.last_line(pending, end),
                }
            }
            State::Mark if self.framing == Framing::Auto => self.last_line(pending, end),
            State::Line { .. } => self.last_line(pending, end),
            _ => Outcome::Fault(FrameFault::Incomplete),
        };
        Step {
            consumed: input.len(),
            outcome,
        }
    }

    /// The most octets that can be unconsumed when a step returns [`Outcome::More`]. A buffer of this
    /// size is enough for any stream. (A count of ten digits behind a byte order mark, and the beginning of a PRI,
    /// need as much room as a message of two octets.)
    #[must_use]
    pub const fn buffer_octets_max(&self) -> usize {
        let kept = if self.message_octets_max < 2 {
            2
        } else {
            self.message_octets_max
        };
        kept.saturating_add(FRAME_OVERHEAD_OCTETS)
    }

    /// Whether the stream stands between two frames: no part of a frame is buffered or being skipped.
    /// Ask after [`Outcome::More`]. (The partial-frame time-out needs it.)
    #[must_use]
    pub const fn between_frames(&self) -> bool {
        matches!(self.state, State::Start | State::Hopeless | State::GivenUp)
    }

    /// Whether the remainder of an oversize counted frame is being skipped. Ask after an oversize frame: if not, it was
    /// a line.
    #[must_use]
    pub const fn skips_by_count(&self) -> bool {
        matches!(self.state, State::SkipOctets { .. })
    }

    /// Skips octets that belong to no frame. Returns how many of `input` these are.
    #[inline]
    fn skip(&mut self, input: &[u8]) -> usize {
        let skipped = match &mut self.state {
            State::Start => 0,
            State::SkipOctets { left } => {
                let skipped = input.len().min(*left);
                *left -= skipped;
                if *left > 0 {
                    return skipped;
                }
                skipped
            }
            State::SkipLine => match self.framing.trailer().find(input) {
                Some(at) => at + 1,
                None => return input.len(),
            },
            State::GivenUp => return input.len(),
            _ => return 0,
        };
        self.state = State::Start;
        skipped + self.stray_trailers(behind(input, skipped))
    }

    /// How many octets at the front of `input`, where a frame may begin, are an LF or NUL that the sender
    /// added behind a counted frame. Where only lines are allowed, each of them ends a line.
    #[inline]
    fn stray_trailers(&self, input: &[u8]) -> usize {
        match self.framing {
            Framing::Auto | Framing::OctetCounting => input
                .iter()
                .take_while(|octet| matches!(octet, b'\n' | 0))
                .count(),
            Framing::Lf | Framing::Nul => 0,
        }
    }

    /// One step over `input`. Nothing at its front is left to skip.
    #[inline]
    fn step<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        loop {
            self.state = match self.state {
                State::Start => match (self.framing, input.first()) {
                    (_, None) => return Step::MORE,
                    (Framing::Auto, Some(b'1'..=b'9')) => State::Classify {
                        mark: 0,
                        scanned: 0,
                    },
                    (Framing::Auto | Framing::OctetCounting, Some(&BYTE_ORDER_MARK_BEGIN)) => {
                        State::Mark
                    }
                    (Framing::OctetCounting, _) => State::Header { mark: 0 },
                    _ => State::Line { scanned: 0 },
                },
                State::Mark => match self.behind_mark(input) {
                    Some(state) => state,
                    None => return Step::MORE,
                },
                State::Line { scanned } => return self.line(input, scanned),
                State::Body {
                    header_octets,
                    msg_len,
                } => {
                    return self.body(input, header_octets, msg_len);
                }
                State::Classify { mark, scanned } => {
                    let max = self.message_octets_max;
                    debug_assert!(mark <= scanned, "the mark counts as scanned");
                    let unmarked = behind(input, mark);
                    match octet_counting::classify(unmarked, scanned - mark, self.locked, max) {
                        Class::Counted {
                            header_octets,
                            msg_len,
                        } => {
                            self.locked = true;
                            State::Body {
                                header_octets: mark + header_octets,
                                msg_len,
                            }
                        }
                        Class::Line { scanned } => State::Line {
                            scanned: mark + scanned,
                        },
                        Class::CountTooLarge { scanned } => {
                            self.state = State::Line {
                                scanned: mark + scanned,
                            };
                            return Step::fault(0, FrameFault::CountTooLarge);
                        }
                        Class::Undecided { scanned } => {
                            self.state = State::Classify {
                                mark,
                                scanned: mark + scanned,
                            };
                            return Step::MORE;
                        }
                    }
                }
                State::Header { mark } => match octet_counting::header(behind(input, mark)) {
                    Header::MsgLen {
                        header_octets,
                        msg_len,
                    } => State::Body {
                        header_octets: mark + header_octets,
                        msg_len,
                    },
                    Header::TooLarge { digits } | Header::Absent { digits } => {
                        return self.bad_frame(mark + digits);
                    }
                    Header::Undecided => return Step::MORE,
                },
                State::Hopeless => {
                    self.state = State::GivenUp;
                    return Step {
                        consumed: input.len(),
                        outcome: Outcome::Hopeless,
                    };
                }
                // `skip` consumed all of `input`, or these states have ended.
                State::SkipOctets { .. } | State::SkipLine | State::GivenUp => return Step::MORE,
            };
        }
    }

    /// What stands at the front of `input`, which begins like a byte order mark; `None` if more octets are needed.
    fn behind_mark(&self, input: &[u8]) -> Option<State> {
        let mark = BYTE_ORDER_MARK.len();
        let is_marked = match input.get(..mark) {
            Some(head) => head == BYTE_ORDER_MARK,
            None if BYTE_ORDER_MARK.starts_with(input) => return None,
            None => false,
        };
        Some(match (self.framing, is_marked) {
            (Framing::OctetCounting, _) => State::Header {
                mark: if is_marked { mark } else { 0 },
            },
            (_, true) if matches!(input.get(mark)?, b'1'..=b'9') => State::Classify {
                mark,
                scanned: mark,
            },
            _ => State::Line { scanned: 0 },
        })
    }

    #[inline]
    fn line<'a>(&mut self, input: &'a [u8], scanned: usize) -> Step<'a> {
        let max = self.message_octets_max;
        match non_transparent::line(input, scanned, self.framing.trailer(), max) {
            Line::Whole { octets, consumed } => {
                self.state = State::Start;
                if octets.is_empty() {
                    let outcome = Outcome::Empty;
                    return Step { consumed, outcome };
                }
                Step::frame(consumed, octets, false)
            }
            Line::Oversize { head } => {
                self.state = State::SkipLine;
                Step::frame(head.len(), head, true)
            }
            Line::Undecided { scanned } => {
                self.state = State::Line { scanned };
                Step::MORE
            }
        }
    }

    #[inline]
    fn body<'a>(&mut self, input: &'a [u8], header_octets: usize, msg_len: usize) -> Step<'a> {
        let kept = msg_len.min(self.message_octets_max);
        let Some(octets) = input.get(header_octets..header_octets + kept) else {
            return Step::MORE;
        };
        self.bad_frames = 0;
        let oversize = kept < msg_len;
        self.state = if oversize {
            State::SkipOctets {
                left: msg_len - kept,
            }
        } else {
            State::Start
        };
        Step::frame(header_octets + kept, octets, oversize)
    }

    /// Forced octet counting is violated: the octet behind `digits` octets does not fit.
    fn bad_frame<'a>(&mut self, digits: usize) -> Step<'a> {
        self.bad_frames += 1;
        self.state = if self.bad_frames < BAD_FRAMES_MAX {
            State::SkipLine
        } else {
            State::Hopeless
        };
        Step::fault(digits, FrameFault::BadFrame)
    }

    /// The last LF is often missing, so the remaining octets are a frame if the peer closed in order.
    fn last_line<'a>(&self, octets: &'a [u8], end: End) -> Outcome<'a> {
        match end {
            // RFC 5425 4.4.
            End::Truncated => Outcome::Fault(FrameFault::Incomplete),
            End::Closed => {
                let kept = octets.len().min(self.message_octets_max);
                let (octets, remainder) = octets.split_at(kept);
                let oversize = !remainder.is_empty();
                Outcome::Frame(Frame { octets, oversize })
            }
        }
    }
}

impl Framing {
    /// The trailer that ends a line. A bad counted frame is skipped up to it, too.
    #[inline]
    const fn trailer(self) -> Trailer {
        match self {
            Self::Auto => Trailer::LfOrNul,
            Self::Lf | Self::OctetCounting => Trailer::Lf,
            Self::Nul => Trailer::Nul,
        }
    }
}

impl<'a> Step<'a> {
    const MORE: Self = Self {
        consumed: 0,
        outcome: Outcome::More,
    };

    #[inline]
    const fn frame(consumed: usize, octets: &'a [u8], oversize: bool) -> Self {
        Self {
            consumed,
            outcome: Outcome::Frame(Frame { octets, oversize }),
        }
    }

    const fn fault(consumed: usize, fault: FrameFault) -> Self {
        Self {
            consumed,
            outcome: Outcome::Fault(fault),
        }
    }
}

/// The octets of `input` behind the first `octets`, which the framer has seen there.
#[inline]
#[track_caller]
fn behind(input: &[u8], octets: usize) -> &[u8] {
    input
        .get(octets..)
        .expect("the caller passes all octets that were not consumed")
}

/// How a byte stream is cut into frames.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// Decided frame by frame: RFC 6587 3.4.3 lets a connection mix the methods.
    #[default]
    Auto,
    /// `MSG-LEN SP MSG` (RFC 6587 3.4.1, RFC 5425 4.3). LF and NUL between frames are skipped,
    /// because many senders add them behind the counted octets.
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
    /// The frame was longer than `max_message_size`: `octets` is its head, the remainder is skipped.
    pub oversize: bool,
}

/// The result of one look at the unconsumed octets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step<'a> {
    /// Octets at the front of the input that the framer needs no more. The next input begins behind them.
    pub consumed: usize,
    /// What the consumed octets were.
    pub outcome: Outcome<'a>,
}

/// What the consumed octets of a [`Step`] were.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// A whole frame (or the head of an oversize one).
    Frame(Frame<'a>),
    /// A line with nothing in it. RFC 6587 is silent about it; the caller counts and ignores it.
    Empty,
    /// The stream is at fault here. Framing continues behind it.
    Fault(FrameFault),
    /// Framing is forced and was violated so often that the caller should close the connection.
    /// Reported once; all later octets are consumed and not reported.
    Hopeless,
    /// More octets are needed. Octets that are part of a frame are not consumed; octets that are skipped
    /// (trailers, the remainder of an oversize frame) are.
    More,
}

/// What can be wrong with a stream of frames. Never fatal by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameFault {
    /// An implausibly large MSG-LEN, followed by a PRI. The octets are taken as a line instead, which the
    /// next steps return.
    #[error("octet count of more than 16 MiB, taken as text")]
    CountTooLarge,
    /// The stream ended inside a counted frame, or, on TLS without close_notify, inside a line.
    /// The fragment is the octets that the step consumed, less stray trailers before it.
    #[error("stream ended inside a frame")]
    Incomplete,
    /// Octet counting is forced and this is no valid header. Skipped up to the next LF.
    #[error("not an octet count")]
    BadFrame,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The peer closed in order: a last line without trailer is a frame.
    Closed,
    /// The end may be a truncation (RFC 5425 4.4): a last line without trailer is a fragment.
    Truncated,
}

/// U+FEFF in UTF-8. Some senders put it before the first count.
const BYTE_ORDER_MARK: [u8; 3] = [BYTE_ORDER_MARK_BEGIN, 0xbb, 0xbf];
const BYTE_ORDER_MARK_BEGIN: u8 = 0xef;

#[cfg(test)]
mod tests;
