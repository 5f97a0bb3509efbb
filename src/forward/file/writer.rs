//! The writer: a thread for each file or standard output, because only a thread can wait for a disk.
//!
//! ```text
//! lane ──batch──▶ thread ──write──▶ file, pipe, terminal, device
//!      ◀─how much was taken─┘
//! ```
//!
//! # Guarantees
//!
//! - Nothing waits for the thread where the disk does not answer: not the runtime, a stop, or the end of the process.
//! - There is one thread for a path at a time. The next one is started when the last has let go of the file, so that
//!   a disk that hangs holds one thread, and two never write to one file.
//! - A thread that cannot be made is an error of the upstream, like any other.
//! - What was taken is whole frames. A regular file is cut back to them; elsewhere the next frame begins on a line of
//!   its own.
//! - Something that takes nothing for `send_timeout` is given up where others stand by, and named in the log where
//!   nothing does.
//!
//! # Left out
//!
//! A thread that was given up goes on when its disk does: what it had in hand may be in the file, and is sent again.

use std::{
    fs::{File, Metadata},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    time::Duration,
};

use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    LogFile,
    frames::Frames,
    open_file,
    pipe::{FINISH_MAX, Pipe},
};
use crate::{
    config::{ForwardConfig, OutputFraming, Strategy, UpstreamConfig, UpstreamUrl},
    forward::{error::UpstreamError, stopping::Stopping, upstream::BrokenOff},
    metrics::UpstreamMetrics,
    thread::Waiting,
};

/// A file or standard output, and the thread that writes to it.
#[derive(Debug)]
pub(in super::super) struct Blocking {
    batches: SyncSender<Batch>,
    progress: Arc<Progress>,
    /// Wakes a thread that waits for room.
    waker: Option<UnixStream>,
    url: UpstreamUrl,
    stall: Duration,
    /// Others take over if this one takes nothing.
    is_spared: bool,
}

/// Octets to write, and where to say how much of them was taken.
#[derive(Debug)]
struct Batch {
    wire: Vec<u8>,
    answer: oneshot::Sender<Written>,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Written {
    /// Octets of the whole frames that were taken.
    pub(super) taken: usize,
    /// Whether that is all; if not, the writing was interrupted.
    pub(super) outcome: io::Result<bool>,
}

/// What the thread and its lane tell each other while a batch is written.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Octets of whole frames of this batch that were taken so far.
    taken: AtomicUsize,
    /// Changes when something was taken.
    signs: AtomicU64,
    is_interrupted: AtomicBool,
}

/// What a thread writes to.
#[derive(Debug)]
struct Sink {
    way: Way,
    frames: Frames,
    /// Device and inode.
    place: (u64, u64),
    /// A torn line is to be ended first.
    owes_line_end: bool,
    /// A regular file at a path: whether its last line is torn is seen when it is opened.
    is_found_by_path: bool,
}

#[derive(Debug)]
enum Way {
    Regular(LogFile),
    Pipe(Pipe),
}

impl Blocking {
    /// Opens the file that `upstream` names, or standard output.
    ///
    /// # Errors
    ///
    /// What the system says; a symlink is refused. Where others stand by, a pipe without room is one as well.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: a thread that waits for the disk ends when that answers.
    pub(in super::super) async fn open(
        upstream: &UpstreamConfig,
        forward: &ForwardConfig,
        metrics: &Arc<UpstreamMetrics>,
    ) -> Result<Self, UpstreamError> {
        let permit = match &upstream.url {
            UpstreamUrl::File(path) => Some(sole_writer_of(path).await),
            _ => None,
        };
        let is_spared = forward.to.len() > 1 || forward.strategy == Strategy::Balance;
        let progress = Arc::new(Progress::default());
        // One is written at a time: the lane waits for it.
        let (batches, to_write) = mpsc::sync_channel(1);
        let (opened, outcome) = oneshot::channel();
        let (of_thread, theirs) = (upstream.clone(), Arc::clone(metrics));
        let of_progress = Arc::clone(&progress);
        let work = move || {
            match Sink::open(&of_thread, is_spared, &theirs, &of_progress) {
                Ok((sink, waker)) => {
                    if opened.send(Ok(waker)).is_ok() {
                        sink.write_all(&to_write, &of_progress);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
            // When the file is closed.
            drop(permit);
        };
        let thread = Waiting::new("tersed-output").map_err(UpstreamError::Open)?;
        // It ends with its work, and is not waited for.
        drop(thread.run(work));
        let waker = outcome
            .await
            .unwrap_or_else(|gone| Err(io::Error::other(gone)))
            .map_err(UpstreamError::Open)?;
        Ok(Self {
            batches,
            progress,
            waker,
            url: upstream.url.clone(),
            stall: forward.send_timeout,
            is_spared,
        })
    }

    /// Writes all of `wire`. Ends between two frames when `leave` does, if it has to wait for room then.
    ///
    /// # Errors
    ///
    /// How many octets of whole frames were taken before it broke off. Where the disk does not answer, what was
    /// taken for certain.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the thread writes on.
    pub(in super::super) async fn send(
        &mut self,
        wire: Vec<u8>,
        leave: impl Future<Output = ()>,
        stop: &Stopping,
    ) -> Result<(), BrokenOff> {
        let octets = wire.len();
        self.progress.begin();
        let (answer, mut written) = oneshot::channel();
        if self.batches.try_send(Batch { wire, answer }).is_err() {
            return Err(thread_gone(0));
        }
        let mut is_told = false;
        let why = select! {
            biased;
            answer = &mut written => return self.taken(answer.ok(), octets, is_told, None),
            () = stop.over() => UpstreamError::CutOff,
            () = leave => UpstreamError::CutOff,
            () = self.stalled(&mut is_told) => UpstreamError::Stalled(self.stall),
        };
        self.interrupt();
        let last_word = async {
            if matches!(why, UpstreamError::CutOff) {
                // For a reload, what the disk has in hand is waited for.
                drop(timeout(self.stall, stop.over()).await);
            }
            sleep(LAST_WORD_MAX).await;
        };
        let answer = select! {
            biased;
            answer = &mut written => answer.ok(),
            () = last_word => Some(Written {
                taken: self.progress.taken.load(Ordering::Acquire),
                outcome: Ok(false),
            }),
        };
        self.taken(answer, octets, is_told, Some(why))
    }

    /// What the thread's answer means; `None` if it is gone. `why` it was interrupted, if it was.
    fn taken(
        &self,
        answer: Option<Written>,
        octets: usize,
        is_told: bool,
        why: Option<UpstreamError>,
    ) -> Result<(), BrokenOff> {
        let Some(Written { taken, outcome }) = answer else {
            return Err(thread_gone(self.progress.taken.load(Ordering::Acquire)));
        };
        let error = match outcome {
            Ok(_) if taken == octets => {
                if is_told {
                    info!(upstream = %self.url, "upstream takes frames again");
                }
                return Ok(());
            }
            Ok(_) => why.unwrap_or(UpstreamError::CutOff),
            Err(error)
                if self.url == UpstreamUrl::Stdout && error.kind() == io::ErrorKind::BrokenPipe =>
            {
                UpstreamError::OutputClosed
            }
            Err(error) => UpstreamError::Broken(error),
        };
        Err(BrokenOff { taken, error })
    }

    /// Returns when nothing was taken for too long and others stand by. Where nothing does, giving up would not help:
    /// the log says so once.
    async fn stalled(&self, is_told: &mut bool) {
        let mut seen = self.progress.signs.load(Ordering::Acquire);
        loop {
            sleep(self.stall).await;
            let signs = self.progress.signs.load(Ordering::Acquire);
            if std::mem::replace(&mut seen, signs) != signs {
                continue;
            }
            if self.is_spared {
                return;
            }
            if !std::mem::replace(is_told, true) {
                warn!(upstream = %self.url, seconds = self.stall.as_secs(),
                    "upstream takes nothing; waiting for it");
            }
        }
    }

    fn interrupt(&self) {
        self.progress.interrupt();
        if let Some(mut waker) = self.waker.as_ref() {
            // Without room there it has been woken already.
            drop(waker.write_all(b"!"));
        }
    }
}

impl Progress {
    fn begin(&self) {
        self.taken.store(0, Ordering::Release);
        self.is_interrupted.store(false, Ordering::Release);
    }

    /// Whole frames of so many octets of the batch were taken by now, or a part of the next as well.
    pub(super) fn took(&self, whole: usize) {
        self.taken.store(whole, Ordering::Release);
        self.sign();
    }

    /// The other end is alive.
    pub(super) fn sign(&self) {
        self.signs.fetch_add(1, Ordering::AcqRel);
    }

    /// The writing is to end between two frames.
    pub(super) fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Release);
    }

    /// Whether it is to end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Acquire)
    }
}

impl Sink {
    /// Opens what `upstream` names, and what wakes its thread, if that may have to wait for room.
    fn open(
        upstream: &UpstreamConfig,
        is_spared: bool,
        metrics: &Arc<UpstreamMetrics>,
        progress: &Arc<Progress>,
    ) -> io::Result<(Self, Option<UnixStream>)> {
        let (file, path) = match &upstream.url {
            UpstreamUrl::File(path) => (open_file(path)?, Some(path)),
            _ => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
        };
        let metadata = file.metadata()?;
        let frames = Frames(upstream.framing);
        let place = place(&metadata);
        let (way, waker) = match path {
            Some(path) if metadata.is_file() => {
                let file = LogFile::of(file, path, upstream, metrics)?;
                (Way::Regular(file), None)
            }
            None if metadata.is_file() => (Way::Regular(LogFile::of_stdout(file)), None),
            _ => {
                let (waker, woken) = UnixStream::pair()?;
                waker.set_nonblocking(true)?;
                woken.set_nonblocking(true)?;
                let pipe = Pipe::new(file, &metadata, frames, woken, Arc::clone(progress))?;
                if is_spared && !pipe.has_room() {
                    let full = "it is full, and its reader takes nothing";
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, full));
                }
                (Way::Pipe(pipe), Some(waker))
            }
        };
        let sink = Self {
            way,
            frames,
            place,
            is_found_by_path: path.is_some() && metadata.is_file(),
            owes_line_end: is_torn(place) && upstream.framing == OutputFraming::Lf,
        };
        Ok((sink, waker))
    }

    /// Writes what comes until no more can.
    fn write_all(mut self, batches: &Receiver<Batch>, progress: &Progress) {
        while let Ok(Batch { wire, answer }) = batches.recv() {
            drop(answer.send(self.write(&wire, progress)));
        }
    }

    fn write(&mut self, wire: &[u8], progress: &Progress) -> Written {
        if self.owes_line_end {
            let ended = self.write_now(b"\n", progress);
            if ended.taken == 0 {
                return ended;
            }
            self.owes_line_end = false;
            forget_torn(self.place);
            progress.took(0);
        }
        self.write_now(wire, progress)
    }

    fn write_now(&mut self, wire: &[u8], progress: &Progress) -> Written {
        let (written, is_torn) = match &mut self.way {
            Way::Pipe(pipe) => pipe.write(wire),
            Way::Regular(file) => {
                let (taken, result) = file.write(wire);
                let whole = self.frames.last_end(wire, 0, taken);
                progress.took(whole);
                let written = Written {
                    taken: whole,
                    outcome: result.map(|()| true),
                };
                (written, !file.cut_back(taken - whole))
            }
        };
        if is_torn && !self.is_found_by_path {
            remember_torn(self.place);
        }
        written
    }
}

fn thread_gone(taken: usize) -> BrokenOff {
    let error = io::Error::other("the thread that writes is gone");
    BrokenOff {
        taken,
        error: UpstreamError::Broken(error),
    }
}

/// Waits until no other thread has the file at `path`.
async fn sole_writer_of(path: &Path) -> OwnedSemaphorePermit {
    let place = {
        let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
        match paths.iter().find(|(known, _)| known == path) {
            Some((_, place)) => Arc::clone(place),
            None => {
                let place = Arc::new(Semaphore::new(1));
                paths.push((path.to_owned(), Arc::clone(&place)));
                place
            }
        }
    };
    match place.acquire_owned().await {
        Ok(permit) => permit,
        // It is never closed.
        Err(_) => std::future::pending().await,
    }
}

fn place(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A part of a frame is the last that stands at `place`.
fn remember_torn(place: (u64, u64)) {
    let mut torn = TORN.lock().unwrap_or_else(PoisonError::into_inner);
    if !torn.contains(&place) {
        torn.push(place);
    }
}

/// Whether that is so.
fn is_torn(place: (u64, u64)) -> bool {
    let torn = TORN.lock().unwrap_or_else(PoisonError::into_inner);
    torn.contains(&place)
}

/// It is not any more.
fn forget_torn(place: (u64, u64)) {
    let mut torn = TORN.lock().unwrap_or_else(PoisonError::into_inner);
    torn.retain(|known| *known != place);
}

/// A permit for each path that was ever written to: a few.
static PATHS: Mutex<Vec<(PathBuf, Arc<Semaphore>)>> = Mutex::new(Vec::new());

/// Where a frame was broken off and not ended: one for each pipe or standard output at most.
static TORN: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// How long after an interruption the thread may take to say what was taken. A pipe takes [`FINISH_MAX`] at most.
const LAST_WORD_MAX: Duration = FINISH_MAX.saturating_mul(2);
