//! Asks how much a peer has read that ended its direction of a stream in order: its kernel may have acknowledged more.
//!
//! A Linux peer that closes with unread octets sends a reset. So an end without a reset says that all was read, if it
//! is the end of both directions. But the peer may have ended only its own direction (`shutdown`) and still be
//! reading. If it is killed then, what it had not read is lost, and the end looked the same. Over TCP the peer is
//! therefore asked:
//!
//! ```text
//! FIN ──▶ wait ──▶ write one LF ──▶ wait ──▶ reset: closed, and all was read
//!          │                         └─────▶ acknowledged, or silence: it may still be reading
//!          └─▶ reset: it ended its direction first, and then closed with unread octets
//! ```
//!
//! A kernel answers octets for a closed socket with a reset, and acknowledges octets for a half-closed one. The LF is
//! an empty line, which receivers skip, and only a half-closed peer ever gets it. With octet counting it is no frame
//! (RFC 6587 3.4.1). rsyslog and tersed skip it there as well; a stricter receiver stops with an error behind the last
//! frame, having read all of them, on a connection that has ended. Not asking would cost more: the whole ring would be
//! sent twice whenever a collector restarts.
//!
//! Over a Unix stream the kernel knows how much the peer has not read.
//!
//! # Guarantees
//!
//! - The answer is zero only if nothing speaks against it. In doubt everything may be unread.
//! - Nothing is written inside a frame, where an LF would turn a part of a message into a whole one.
//! - It takes at most twice [`PATIENCE_MAX`].
//!
//! # Left out
//!
//! - A peer that ended both directions (`SHUT_RDWR`), keeps reading what it has, and is killed: it answers as if it
//!   had closed. If it closes within the first wait, that is noticed.
//! - A connection that we end first: a peer that ends its direction without a reset, in answer or by chance, counts as
//!   having read everything.
//! - A peer whose kernel closes without a reset although octets are unread.

use std::{io::IoSlice, os::fd::AsFd as _, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{socket::Socket, sys};

/// At most how many acknowledged octets the peer, which has just ended its direction, may not have read. Takes some
/// round trips, and may write one octet if what was written ends `between_frames`.
///
/// # Cancel safety
///
/// Can be dropped at any point.
pub(super) async fn unread_octets(socket: &Socket, between_frames: bool) -> usize {
    let is_all_read = match socket {
        Socket::Unix(_) => {
            // Asked before the error: a closing peer sets its error before it frees what it has not read.
            let unread = sys::unacknowledged_octets(socket.as_fd()).unwrap_or(usize::MAX);
            if unread > 0 {
                return unread;
            }
            !was_reset(socket)
        }
        Socket::Tcp(_) => between_frames && is_closed_at_peer(socket).await,
    };
    if is_all_read { 0 } else { usize::MAX }
}

/// Whether the peer ended both directions of a TCP connection, with nothing unread.
async fn is_closed_at_peer(socket: &Socket) -> bool {
    let patience = sys::round_trip(socket.as_fd())
        .unwrap_or(PATIENCE_MAX)
        .saturating_mul(ROUND_TRIPS)
        .clamp(PATIENCE_MIN, PATIENCE_MAX);
    let reset = async {
        while !was_reset(socket) {
            sleep(POLL).await;
        }
    };
    if timeout(patience, reset).await.is_ok() {
        return false;
    }
    if !matches!(socket.try_write_vectored(&[IoSlice::new(b"\n")]), Ok(1)) {
        return false;
    }
    let answer = async {
        loop {
            if was_reset(socket) {
                return true;
            }
            if matches!(sys::unacknowledged_octets(socket.as_fd()), Ok(0)) {
                return false;
            }
            sleep(POLL).await;
        }
    };
    timeout(patience, answer).await.unwrap_or(false)
}

/// Whether the connection was reset. Once the end was read, further reads do not tell. The error is cleared: a second
/// call returns false.
fn was_reset(socket: &Socket) -> bool {
    !matches!(socket.take_error(), Ok(None))
}

/// A process that ends its direction and then closes does both within a short time; its kernel answers in one round
/// trip.
const ROUND_TRIPS: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(50);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(2);
