//! Numbered messages for benchmarks of the engine alone: one frame in which only the number changes.

/// A frame of 200 octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    pub(crate) frame: [u8; 200],
}

impl Numbered {
    pub(crate) const fn new() -> Self {
        Self { frame: *FRAME }
    }

    /// Makes it message `number`.
    pub(crate) fn set(&mut self, mut number: u64) {
        for digit in self.frame[DIGITS].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
    }
}

const FRAME: &[u8; 200] = b"<34>Nov 22 10:00:00 host-17.example app[4711]: port 0000000000 changed state, reason link flap, \
neighbour lost 0123456789 abcdefghij 0123456789 abcdefghij 0123456789 abcdefghij 0123456789 abcdefghij k";

/// The position of the number.
const DIGITS: std::ops::Range<usize> = 52..62;
