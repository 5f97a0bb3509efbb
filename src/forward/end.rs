//! The end of a stream that its peer ended in order: what the peer's kernel acknowledged and its process may not
//! have read.
//!
//! A Linux peer that closes with unread octets sends a reset. So an end without one says that all was read, if
//! it is the end of both directions. But a peer may have ended its own alone (`shutdown`) and read on; if it is
//! killed then, what it had not read is gone, and the end that came before looked the same. Over TCP it is
//! therefore asked:
//!
//! ```text
//! FIN ──▶ wait ──▶ write one LF ──▶ wait ──▶ reset: closed, and all was read
//!          │                         └─────▶ acknowledged, or silence: it may still be reading
//!          └─▶ reset: it ended its direction first, and then closed with unread octets
//! ```
//!
//! A kernel answers octets for a closed socket with a reset, and acknowledges those for a half-closed one. The LF
//! is an empty line, which receivers skip, and only a half-closed one ever gets it. With octet counting it is no
//! frame (RFC 6587 3.4.1); rsyslog and we skip it there as well, and a stricter receiver stumbles behind the last
//! frame, having read all of them, on a connection that is over. Not to ask would cost more: the whole ring twice
//! whenever a collector restarts.
//!
//! Over a Unix stream the kernel knows what the peer has not read.
//!
//! # Guarantees
//!
//! - Zero is answered only where nothing speaks against it; in doubt everything may be unread.
//! - Nothing is written inside a frame, where an LF would make a whole message of a part of one.
//! - It takes no longer than twice [`PATIENCE_MAX`].
//!
//! # Left out
//!
//! - A peer that ended both directions (`SHUT_RDWR`), reads on what came before, and is killed: it answers as if it
//!   had closed. One that closes within the first wait is noticed.
//! - A connection that we end first: a peer that ends its direction in answer, or by chance, without a reset,
//!   counts as having read everything.
//! - A peer whose kernel closes without a reset, whatever is unread.

use std::{io::IoSlice, os::fd::AsFd as _, time::Duration};

use tokio::time::{sleep, timeout};

use super::upstream::Stream;
use crate::{socket::Socket, sys};

impl Stream {
    /// How many octets of those that were acknowledged the peer, which has just ended its direction, may not have
    /// read, at most. Takes some round trips, and may write an octet where what was written ends `between_frames`.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(super) async fn unread_octets(&self, between_frames: bool) -> usize {
        let is_all_read = match &self.socket {
            Socket::Unix(_) => {
                // Asked first: a peer that closes leaves its error before it lets go of what it has not read.
                let unread = sys::unacknowledged_octets(self.socket.as_fd()).unwrap_or(usize::MAX);
                if unread > 0 {
                    return unread;
                }
                !self.was_reset()
            }
            Socket::Tcp(_) => between_frames && self.is_closed_at_peer().await,
        };
        if is_all_read { 0 } else { usize::MAX }
    }

    /// Whether the peer's end was that of both directions, with nothing unread.
    async fn is_closed_at_peer(&self) -> bool {
        let patience = sys::round_trip(self.socket.as_fd())
            .unwrap_or(PATIENCE_MAX)
            .saturating_mul(ROUND_TRIPS)
            .clamp(PATIENCE_MIN, PATIENCE_MAX);
        let reset = async {
            while !self.was_reset() {
                sleep(POLL).await;
            }
        };
        if timeout(patience, reset).await.is_ok() {
            return false;
        }
        if !matches!(
            self.socket.try_write_vectored(&[IoSlice::new(b"\n")]),
            Ok(1)
        ) {
            return false;
        }
        let answer = async {
            loop {
                if self.was_reset() {
                    return true;
                }
                if self.unacknowledged_octets() == 0 {
                    return false;
                }
                sleep(POLL).await;
            }
        };
        timeout(patience, answer).await.unwrap_or(false)
    }

    /// Whether the connection was broken. Reading does not tell once the end was read. Asked again, it answers no.
    fn was_reset(&self) -> bool {
        !matches!(self.socket.take_error(), Ok(None))
    }
}

/// A process that ends its direction and then closes does both in short order; its kernel answers in one round trip.
const ROUND_TRIPS: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(50);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(2);
