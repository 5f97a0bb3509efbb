//! The spool: what waits on disk while the upstream is away.
//!
//! A directory of segments, written at one end and read at the other:
//!
//! ```text
//!           acknowledged      read                     written
//!                │              │                         │
//!     ┌──────────┼────┐  ┌──────┼────────┐  ┌─────────────┤
//!     │ ........ │    │  │      │        │  │             │◀── append (write, fdatasync)
//!     └──────────┴────┘  └──────┴────────┘  └─────────────┘
//!       segment 7          segment 8          segment 9: the active one
//!
//!     segment    header, its copy one page on, then records
//!     header     run, salt, and what was written before this segment: records, survivors
//!     record     length, place in the segment, claim or count, two CRCs (40 octets), then the frame
//!     cursor     two slots, written in turn: records and survivors acknowledged, written
//!     lock       held while a process has the spool; says which
//! ```
//!
//! A place in the spool is a number of records and of survivors since the spool was made. A header says what was
//! written before its segment, so the next segment's header is the total of the one before; a record says what
//! stands before it in its segment. Whatever is missing between two things that can be read is therefore known
//! **exactly**: it is a difference of two numbers, whether a bit flipped in a record, a sector went bad, or a file
//! was deleted.
//!
//! # Guarantees
//!
//! - **Written whole or not at all.** When [`Spool::append`] returns `Ok`, all of it is on the disk (`fdatasync`,
//!   and the directory if a segment was made). When it does not, the segment is cut back to where it ended, and
//!   nothing of it will be read by this process. (If even the cut fails, that segment is not written to again; a
//!   later process may then find the records and send them: a duplicate, not a loss.)
//! - **Read in order, each once**, until acknowledged; again after a restart, if not acknowledged.
//! - **Damage costs what it hits.** A record whose frame is damaged is passed over by its length, which has a CRC
//!   of its own. Behind a damaged header the next record is looked for octet by octet. Both headers of a segment
//!   must be damaged to lose the segment. What was lost is told with the next [`Batch`].
//! - **No message can pass for a record.** Both CRCs start from numbers drawn at random for each segment, and a
//!   record must fit in by its place.
//! - **Opens after a kill at any point.** A torn tail is cut off. The cursor of a process that was killed is good
//!   (the kernel has it); after a power cut it may be old, and what it does not know of is sent again.
//! - **Space comes back as it drains**: a segment that is acknowledged is deleted. The files together never take
//!   more than `max_octets`.
//! - **Opens fast**: headers only, and one segment read through.
//! - Appending waits for the disk without a lock that a reader needs.
//! - A claim of an earlier process comes back as [`Claim::VOID`]: its windows are gone.
//! - **Nobody else's files**: the directory is 0700, files are 0600, opened relative to the directory without
//!   following symlinks; a directory that others may write to or own, or whose parent they may write to, is
//!   refused. One process at a time.
//!
//! # When the disk fails
//!
//! Each is a [`SpoolError`] of its own, and the next call tries again. A directory that was removed is told once,
//! as [`SpoolError::Gone`], and made anew by the next append; what was in it is counted as lost by the reader.
//! An error while reading is told [`READ_TRIES`] times at one place (the disk may come back); after that
//! the page is taken for damaged.
//!
//! # Left out
//!
//! - Going back: what was read is the caller's to keep until it acknowledges. A restart reads it again.
//! - Appending in parts: one call goes into one segment, which may grow beyond its size by that much.
//! - Compression, and encryption: whoever may read the directory may read the messages.
//! - A digest against an attacker who writes to the disk: CRCs find accidents.

mod record;
