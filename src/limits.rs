//! Every hard bound, its unit, and the reason for its value.
//!
//! Settings that people may change have their defaults in `config`; what stands here either bounds
//! those settings or cannot be set at all.

use std::time::Duration;

/// Octets of one message unless configured. RFC 5424 6.1 asks for 480 at least and 2048 if
/// possible; this covers every UDP datagram.
pub const MESSAGE_OCTETS_DEFAULT: usize = 65_536;

/// The smallest `max_message_size` that may be configured: every receiver MUST take 480 octets
/// (RFC 5424 6.1).
pub const MESSAGE_OCTETS_MIN: usize = 480;

/// Octets of a message that every engine must be able to remember: what a receiver should take (RFC 5424 6.1).
/// Those that are longer are rare, and may need more memory than the least there may be.
pub const MESSAGE_OCTETS_EXPECTED: usize = 2048;

/// The largest `max_message_size` that may be configured.
pub const MESSAGE_OCTETS_MAX: usize = 16 * 1024 * 1024;

/// A MSG-LEN above this is not believed: the digits are text (RFC 6587 3.4.1 sets no bound; the
/// bound keeps a connection from being asked to skip gigabytes).
pub const MSG_LEN_BELIEVABLE: u64 = 16 * 1024 * 1024;

/// More digits than this are not a MSG-LEN.
pub const MSG_LEN_DIGITS_MAX: usize = 10;

/// What a stream buffer may hold beyond `max_message_size`: a byte order mark, the longest believable MSG-LEN, its
/// space, and a CR LF, rounded up.
pub const FRAME_OVERHEAD_OCTETS: usize = 16;

/// Octets of data in a RELP frame that are taken even if `max_message_size` is smaller: offers, and what
/// librelp sends by default. What of it is beyond `max_message_size` is oversize.
pub const RELP_DATA_OCTETS: usize = 128 * 1024;

/// Consecutive frames without a valid octet count after which a connection with forced octet
/// counting is hopeless.
pub const BAD_FRAMES_MAX: u32 = 8;

/// The largest payload of a UDP datagram over IPv4; also the buffer for one datagram, rounded up,
/// so that nothing is cut.
pub const DATAGRAM_OCTETS_MAX: usize = 65_535;

/// Sockets that receive datagrams, over all listeners: one per worker for each UDP listener. Each has a thread,
/// and takes 0.4 MB once it has been busy (measured with 600 of them): beyond this a configuration multiplies by
/// mistake.
pub const DATAGRAM_SOCKETS_MAX: usize = 4096;

/// Masks of the user's own in one set. More than anybody has shown to need, and each fits into one
/// octet of the masked form of an identity.
pub const MASK_PATTERNS_MAX: usize = 64;

/// Octets of one such regular expression.
pub const MASK_PATTERN_OCTETS_MAX: usize = 4096;

/// Octets that all regular expressions of a set may take once compiled; `x{1000}{1000}` shall be
/// refused when it is configured, not fill the memory.
pub const MASK_COMPILED_OCTETS_MAX: usize = 4 * 1024 * 1024;

/// What a compiled expression may take on each thread that searches with it: two automata that are built as they are
/// needed, each with the room that `regex_automata` gives it.
pub const EXPRESSION_CACHE_OCTETS: usize = 2 * 2 * 1024 * 1024;

/// The same for the one automaton of many expressions that are searched in one pass; with less room it is built over and
/// over.
pub const EXPRESSIONS_CACHE_OCTETS: usize = 8 * 1024 * 1024;

/// Octets of the shortest text that an expression matches, at most. What needs more is no mask of a variable part, and could
/// not be measured in reasonable time.
pub const MASK_MATCH_OCTETS_MAX: usize = 4096;

/// What searching an octet may cost, on texts that are hard for the expressions: 65 ms for a message of 64 KiB. Ordinary
/// expressions take 1 to 100 ns.
pub const MASK_OCTET_COST_MAX: Duration = Duration::from_micros(1);

/// Parts of one message that masks of the user's own fold; the rest stays as it is. Each search is
/// linear, but a pattern may look at all of the rest before it says where it matched: this keeps the
/// sum of the searches linear, too.
pub const MASK_MATCHES_MAX: usize = 256;
