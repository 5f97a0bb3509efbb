//! Pipes, terminals, sockets and devices: descriptors that may have no room.
//!
//! ```text
//! batch ──┬─ whole frames, up to PIPE_BUF octets ────▶ pipe          the pipe takes all of it, or nothing
//!         ├─ whole frames, up to its capacity ───────▶ empty pipe    likewise
//!         └─ a frame that is larger than that ──···──▶               continues where it stopped
//!              no room: poll, until there is, or the caller interrupts
//! ```
//!
//! # Guarantees
//!
//! - A write never blocks on a slow reader, with one exception: the descriptor is shared, cannot be reopened, and
//!   another process fills the pipe between our poll and our write.
//! - The flags of a description that other processes share are never changed. One with O_NONBLOCK works as well.
//! - A frame that fits into an empty pipe is written whole or not at all, also when the process is killed. A longer
//!   frame continues where it stopped.
//! - An interruption takes effect between two frames. A frame that was begun is finished if there is room within
//!   [`FINISH_MAX`]. Otherwise it is not counted, and the next writer of this process ends the torn line first.
//!
//! # Left out
//!
//! A frame longer than the pipe that a stop or a kill broke off stays torn: the next process cannot know about it. Other
//! writers of the same pipe may write between two frames, and between the parts of such a long frame.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
            net::UnixStream,
        },
    },
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, send},
};

use super::{
    frames::Frames,
    progress::{Progress, Written},
};
use crate::{clock::Clock, core::tick::Tick, sys};

/// A descriptor that takes octets when it has room.
#[derive(Debug)]
pub(super) struct Pipe {
    file: File,
    kind: Kind,
    /// The description is shared and blocking: poll tells whether a write would block.
    may_block: bool,
    frames: Frames,
    /// Readable when the caller interrupts.
    woken: UnixStream,
    progress: Arc<Progress>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A pipe or FIFO with a buffer of that many octets.
    Pipe {
        capacity: usize,
    },
    Terminal,
    Socket,
    Device,
}

/// What to do with the octets that are left.
enum Step {
    /// Write them up to this index.
    Offer(usize),
    AwaitEmpty,
}

/// Why a wait ended.
enum Waited {
    /// There is room, or an error that the write will report.
    Ready,
    /// The caller may have interrupted.
    Woken,
    /// The time has passed.
    Late,
}

impl Pipe {
    /// `file`, which is no regular file. The caller interrupts by [`Progress::interrupt`] and an octet into the other
    /// end of `woken`.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub(super) fn new(
        file: File,
        metadata: &Metadata,
        frames: Frames,
        woken: UnixStream,
        progress: Arc<Progress>,
    ) -> io::Result<Self> {
        let kind = if metadata.file_type().is_fifo() {
            let capacity = fcntl(&file, FcntlArg::F_GETPIPE_SZ)?;
            let capacity = usize::try_from(capacity).unwrap_or(PIPE_BUF).max(PIPE_BUF);
            Kind::Pipe { capacity }
        } else if metadata.file_type().is_socket() {
            Kind::Socket
        } else if nix::unistd::isatty(&file).unwrap_or(false) {
            Kind::Terminal
        } else {
            Kind::Device
        };
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        let mut pipe = Self {
            file,
            kind,
            may_block: false,
            frames,
            woken,
            progress,
        };
        // `send` gets MSG_DONTWAIT at each call.
        if !flags.contains(OFlag::O_NONBLOCK) && kind != Kind::Socket {
            match pipe.reopened(metadata) {
                Some(own) => pipe.file = own,
                None => pipe.may_block = true,
            }
        }
        Ok(pipe)
    }

    /// The same pipe or terminal by a description of our own, on which a write does not block. `None` where the system
    /// does not allow that: the pipe may belong to another user.
    fn reopened(&self, metadata: &Metadata) -> Option<File> {
        if !matches!(self.kind, Kind::Pipe { .. } | Kind::Terminal) {
            return None;
        }
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let own = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
            .ok()?;
        let same = own.metadata().ok()?;
        let is_same = (same.dev(), same.ino()) == (metadata.dev(), metadata.ino());
        is_same.then_some(own)
    }

    /// Whether a write would take something now.
    pub(super) fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        // The write will report an error.
        poll(&mut fds, PollTimeout::ZERO) != Ok(0)
    }

    /// Writes all of `wire`, or returns how many octets of whole frames were taken before an interruption or an error.
    /// The second value is true if a part of a frame was taken as well.
    pub(super) fn write(&mut self, wire: &[u8]) -> (Written, bool) {
        let (mut at, mut whole) = (0, 0);
        let outcome = self.write_on(wire, &mut at, &mut whole);
        let written = Written {
            taken: whole,
            outcome,
        };
        (written, at > whole)
    }

    /// Writes from `at`, and advances both: `at` past the octets that were taken, `whole` past the whole frames among
    /// them. Returns false if it was interrupted.
    fn write_on(&mut self, wire: &[u8], at: &mut usize, whole: &mut usize) -> io::Result<bool> {
        // The deadline for a frame that was begun; set once the caller interrupts.
        let mut until: Option<Tick> = None;
        let mut is_full = false;
        while *at < wire.len() {
            if self.progress.is_interrupted() {
                if *at == *whole {
                    return Ok(false);
                }
                until.get_or_insert_with(|| Clock::now().after(FINISH_MAX));
            }
            let Step::Offer(end) = self.step(wire, *at, *whole) else {
                self.await_empty()?;
                continue;
            };
            if is_full || self.may_block {
                match self.await_room(until)? {
                    Waited::Ready => is_full = false,
                    Waited::Woken => continue,
                    Waited::Late => return Ok(false),
                }
            }
            match self.offer(&wire[*at..end]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(octets) => {
                    *at += octets;
                    *whole = self.frames.last_end(wire, *whole, *at);
                    self.progress.took(*whole);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => is_full = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// What to do at `at`. The last whole frame taken ended at `whole`.
    fn step(&self, wire: &[u8], at: usize, whole: usize) -> Step {
        let frames = self.frames;
        let upto = |end: usize, octets: usize| Step::Offer(end.min(at.saturating_add(octets)));
        match self.kind {
            Kind::Pipe { .. } if at > whole => {
                let end = frames.next_end(wire, whole);
                let most = if self.may_block { PIPE_BUF } else { end };
                upto(end, most)
            }
            Kind::Pipe { .. } if wire.len() - at <= PIPE_BUF => Step::Offer(wire.len()),
            Kind::Pipe { capacity } => {
                let few = frames.last_end(wire, at, at.saturating_add(PIPE_BUF));
                let is_empty = !matches!(sys::readable_octets(self.file.as_fd()), Ok(1..));
                let most = match is_empty {
                    true if !self.may_block => {
                        frames.last_end(wire, at, at.saturating_add(capacity))
                    }
                    _ => few,
                };
                if most > at {
                    Step::Offer(most)
                } else if is_empty {
                    upto(frames.next_end(wire, at), capacity)
                } else {
                    Step::AwaitEmpty
                }
            }
            Kind::Terminal | Kind::Socket | Kind::Device => {
                let is_ending = self.progress.is_interrupted();
                let end = if is_ending {
                    frames.next_end(wire, whole)
                } else {
                    wire.len()
                };
                let is_slow = self.may_block && self.kind == Kind::Terminal;
                upto(end, if is_slow { TERMINAL_OCTETS } else { end })
            }
        }
    }

    fn offer(&self, octets: &[u8]) -> nix::Result<usize> {
        if self.kind == Kind::Socket {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            return send(self.file.as_raw_fd(), octets, flags);
        }
        nix::unistd::write(&self.file, octets)
    }

    /// Waits until there is room, or the caller interrupts. With `until` the caller has interrupted already: it waits
    /// until then at most.
    fn await_room(&mut self, until: Option<Tick>) -> io::Result<Waited> {
        let timeout = match until {
            Some(until) => match until.since(Clock::now()) {
                Duration::ZERO => return Ok(Waited::Late),
                // Rounded up, so that the deadline has passed when it ends.
                left => PollTimeout::try_from(left + Duration::from_millis(1)),
            }
            .unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        self.poll(PollFlags::POLLOUT, until.is_none(), timeout)
    }

    /// Waits until the reader has emptied the pipe, or the caller interrupts. The system reports no event for an empty
    /// pipe, so this polls its length.
    fn await_empty(&mut self) -> io::Result<()> {
        let mut unread = usize::MAX;
        let mut pause = EMPTY_PAUSE_MIN;
        loop {
            let left = sys::readable_octets(self.file.as_fd())?;
            if left == 0 || self.progress.is_interrupted() {
                return Ok(());
            }
            if left < unread {
                self.progress.sign();
                pause = EMPTY_PAUSE_MIN;
            }
            unread = left;
            let timeout = PollTimeout::try_from(pause).expect("a pause is short");
            match self.poll(PollFlags::empty(), true, timeout)? {
                Waited::Late => pause = (pause * 2).min(EMPTY_PAUSE_MAX),
                // No event was asked for, so this is an error: there is no reader any more.
                Waited::Ready => return Err(Errno::EPIPE.into()),
                Waited::Woken => {}
            }
        }
    }

    /// Polls for `events`, and with `is_woken` for an interruption too.
    fn poll(
        &mut self,
        events: PollFlags,
        is_woken: bool,
        timeout: PollTimeout,
    ) -> io::Result<Waited> {
        let mut fds = [
            PollFd::new(self.file.as_fd(), events),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        let polled = if is_woken {
            &mut fds[..]
        } else {
            &mut fds[..1]
        };
        match poll(polled, timeout) {
            Ok(0) => return Ok(Waited::Late),
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Waited::Woken),
            Err(error) => return Err(error.into()),
        }
        if polled[0].any().unwrap_or(true) {
            return Ok(Waited::Ready);
        }
        // The octet may be left over from an earlier interruption: the caller asks `progress`.
        match self.woken.read(&mut [0; 64]) {
            // The lane is gone.
            Ok(0) => self.progress.interrupt(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(Waited::Woken)
    }
}

/// Octets that a pipe takes at once or not at all (POSIX; `PIPE_BUF` on Linux).
const PIPE_BUF: usize = 4096;

/// Octets that a terminal with room takes without blocking, practically always.
const TERMINAL_OCTETS: usize = 256;

/// How long an interrupted writer may take to finish a frame that was begun.
pub(super) const FINISH_MAX: Duration = Duration::from_millis(250);

/// How often the length of a pipe is asked: the shorter while the reader empties it, the longer while it does not.
const EMPTY_PAUSE_MIN: Duration = Duration::from_millis(1);
const EMPTY_PAUSE_MAX: Duration = Duration::from_millis(64);
