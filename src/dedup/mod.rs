//! Dedup: has this been said within its window?
//!
//! [`Shards`] is a fixed set of shards; an identity's hash picks one. A shard holds one engine per
//! policy behind one short lock. An engine pairs a timeline (marks in the order of their windows'
//! start, with what they remember of their messages in first-in, first-out storage) with a table
//! (identity -> generation, a mark's absolute position in the timeline).
//!
//! # Guarantees
//!
//! - A message is [`Verdict::Fresh`] iff no copy was fresh within its policy's window (age >= window is
//!   fresh; `allow = K` lets K copies through; `refresh` restarts the window at each repeat, but a copy
//!   goes out at least every `max_quiet`).
//! - Identities are compared by all their octets, never by hash alone.
//! - An arrival retires at most a small constant number of marks; no growth moves more than one
//!   small segment of the table.
//! - All engines together stay within the byte budget; the oldest mark is evicted and counted.
//! - Each suppressed copy is reported by exactly one [`Ended`].
//!
//! # Left out
//!
//! What the octets of an identity are (`identity`), what time it is, who sends the summary.
