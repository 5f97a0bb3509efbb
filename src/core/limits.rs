//! Every hard bound, its unit, and the reason for its value.
//!
//! Settings that can be configured have their defaults in `config`. The bounds here either limit those settings or
//! cannot be configured at all.

use std::time::Duration;

/// Octets of one message unless configured. RFC 5424 6.1 asks for 480 at least and 2048 if
/// possible; this covers every UDP datagram.
pub const MESSAGE_OCTETS_DEFAULT: usize = 65_536;

/// The smallest `max_message_size` that may be configured: every receiver MUST accept 480 octets
/// (RFC 5424 6.1).
pub const MESSAGE_OCTETS_MIN: usize = 480;

/// Octets of a message that every engine must be able to remember: what a receiver SHOULD accept (RFC 5424 6.1).
/// Longer messages are rare, and may need more memory than the least that can be configured.
pub const MESSAGE_OCTETS_EXPECTED: usize = 2048;

/// The largest `max_message_size` that may be configured.
pub const MESSAGE_OCTETS_MAX: usize = 16 * 1024 * 1024;

/// A MSG-LEN above this is not believed: the digits are text. (RFC 6587 3.4.1 sets no bound. Without one, a
/// sender could make a connection skip gigabytes.)
pub const MSG_LEN_BELIEVABLE: u64 = 16 * 1024 * 1024;

/// More digits than this are not a MSG-LEN.
pub const MSG_LEN_DIGITS_MAX: usize = 10;

/// What a stream buffer may hold beyond `max_message_size`: a byte order mark, the longest believable MSG-LEN, its
/// space, and a CR LF, rounded up.
pub const FRAME_OVERHEAD_OCTETS: usize = 16;

/// Octets of data in a RELP frame that are accepted even if `max_message_size` is smaller: offers, and what
/// librelp sends by default. Octets beyond `max_message_size` are oversize.
pub const RELP_DATA_OCTETS: usize = 128 * 1024;

/// After this many consecutive frames without a valid octet count, a connection with forced octet counting is
/// given up.
pub const BAD_FRAMES_MAX: u32 = 8;

/// The largest payload of a UDP datagram over IPv4; also the buffer for one datagram, rounded up,
/// so that no datagram is cut.
pub const DATAGRAM_OCTETS_MAX: usize = 65_535;

/// Sockets that receive datagrams, over all listeners: one per worker for each UDP listener. Each has a thread,
/// and takes 0.4 MB once it has been busy (measured with 600 of them). A configuration with more than this many
/// multiplies by mistake.
pub const DATAGRAM_SOCKETS_MAX: usize = 4096;

/// User-defined masks in one set. Known sets are smaller, and the number of a mask fits into one octet of the
/// masked form of an identity.
pub const MASK_PATTERNS_MAX: usize = 64;

/// Octets of one such regular expression.
pub const MASK_PATTERN_OCTETS_MAX: usize = 4096;

/// Octets that all regular expressions of a set may take once compiled. `x{1000}{1000}` must be refused in the
/// configuration and not fill the memory.
pub const MASK_COMPILED_OCTETS_MAX: usize = 4 * 1024 * 1024;

/// What a compiled expression may take on each thread that searches with it: two automata that are built on
/// demand, each within the memory that `regex_automata` allows it.
pub const EXPRESSION_CACHE_OCTETS: usize = 2 * 2 * 1024 * 1024;

/// The same for the one automaton of many expressions that are searched in one pass. With less memory it would
/// be rebuilt again and again.
pub const EXPRESSIONS_CACHE_OCTETS: usize = 8 * 1024 * 1024;

/// Octets of the shortest text that an expression matches, at most. An expression that needs more does not mask a
/// variable part, and its cost could not be measured in reasonable time.
pub const MASK_MATCH_OCTETS_MAX: usize = 4096;

/// What searching an octet may cost, on texts that are hard for the expressions: 65 ms for a message of 64 KiB.
/// Ordinary expressions take 1 to 100 ns.
pub const MASK_OCTET_COST_MAX: Duration = Duration::from_micros(1);

/// Parts of one message that user-defined masks fold; the rest stays as it is. Each search is
/// linear, but a pattern may read all of the rest before it knows where it matched: this bound keeps the
/// sum of the searches linear, too.
pub const MASK_MATCHES_MAX: usize = 256;
