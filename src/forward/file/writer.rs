//! The writer: one thread for each file or standard output, because only a thread can wait for a disk.
//!
//! ```text
//! lane ──batch──▶ thread ──write──▶ file, pipe, terminal, device
//!      ◀─how much was taken─┘
//! ```
//!
//! # Guarantees
//!
//! - Where the disk does not answer, nothing waits for the thread: not the runtime, not a stop, not the end of the
//!   process.
//! - Each path has at most one thread at a time. The next thread starts when the last one has closed the file. So a
//!   disk that hangs holds one thread, and no file has two writers.
//! - If the thread cannot be made, that is an error of the upstream like any other.
//! - Only whole frames count as taken. A regular file is cut back to them; elsewhere the next frame begins on a new
//!   line.
//! - If the sink takes nothing for `send_timeout`, it is given up where another upstream can take over; otherwise the
//!   log names it.
//!
//! # Left out
//!
//! A thread that was given up continues when its disk answers: the batch that it was writing may be in the file, and is
//! sent again.

use std::{
    fs::{File, Metadata},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
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
    frames::Frames,
    log::LogFile,
    open::open_file,
    pipe::{FINISH_MAX, Pipe},
    progress::{Progress, Written},
};
use crate::{
    clock::Clock,
    config::{ForwardConfig, OutputFraming, Strategy, UpstreamConfig, UpstreamUrl},
    delivery::chunk::Chunk,
    forward::{
        account::Account,
        error::{BrokenOff, Lost, UpstreamError},
        evidence::Evidence,
        stopping::Stopping,
    },
    lock::lock,
    metrics::UpstreamMetrics,
    thread::Waiting,
};

/// A file or standard output, and the thread that writes to it.
#[derive(Debug)]
pub(in crate::forward) struct Blocking {
    batches: SyncSender<Batch>,
    progress: Arc<Progress>,
    /// Wakes a thread that waits for room.
    waker: Option<UnixStream>,
    url: UpstreamUrl,
    stall: Duration,
    /// Another upstream can take over if this one takes nothing.
    is_spared: bool,
}

/// Octets to write, and where to report how many were taken.
#[derive(Debug)]
struct Batch {
    wire: Vec<u8>,
    answer: oneshot::Sender<Written>,
}

/// What a thread writes to.
#[derive(Debug)]
struct Sink {
    way: Way,
    frames: Frames,
    place: (u64, u64),
    /// A torn line has to be ended before the next frame.
    owes_line_end: bool,
    /// A regular file at a path: whether its last line is torn is checked at each open.
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
    /// The system's error; a symlink is refused. Where another upstream can take over, a pipe without room is an error
    /// as well.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point: a thread that waits for the disk ends when the disk answers.
    pub(in crate::forward) async fn open(
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
        // One slot: the lane waits for each batch.
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
            // Only when the file is closed.
            drop(permit);
        };
        let thread = Waiting::new("tersed-output").map_err(UpstreamError::Open)?;
        // The thread ends with its work; the handle is not needed.
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

    /// Writes `batch` and counts it. If it has to wait for room and `leave` ends, it stops between two frames.
    ///
    /// # Errors
    ///
    /// The batch, and how much of it was taken.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the thread keeps writing.
    pub(in crate::forward) async fn send(
        &mut self,
        mut batch: Vec<Chunk>,
        leave: impl Future<Output = ()>,
        account: &Account<'_>,
        evidence: &mut Evidence,
    ) -> Result<(), Lost> {
        account.take_out(&mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        let parts = account.encode(&batch);
        let wire = match parts.as_slice() {
            [one] => one.to_vec(),
            parts => parts.concat(),
        };
        drop(parts);
        if let Err(broken) = self.write(wire, leave, &account.shared.stop).await {
            return Err(broken.in_batch(batch));
        }
        let now = Clock::now();
        for mut chunk in batch {
            let (entries, octets) = (chunk.len(), account.encoder.chunk_octets(&chunk));
            account.forwarded(&mut chunk, entries, octets as u64);
            evidence.wrote(now, || octets, account.shared);
        }
        Ok(())
    }

    /// Writes all of `wire`. If it has to wait for room and `leave` ends, it stops between two frames.
    ///
    /// # Errors
    ///
    /// How many octets of whole frames were taken before it broke off; if the disk does not answer, how many were
    /// taken for certain.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the thread keeps writing.
    async fn write(
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
                // A reload waits for the write that the disk is doing.
                drop(timeout(self.stall, stop.over()).await);
            }
            sleep(LAST_WORD_MAX).await;
        };
        let answer = select! {
            biased;
            answer = &mut written => answer.ok(),
            () = last_word => Some(Written {
                taken: self.progress.taken(),
                outcome: Ok(false),
            }),
        };
        self.taken(answer, octets, is_told, Some(why))
    }

    /// Interprets the thread's answer; `None` means that the thread is gone. `why` says why it was interrupted, if it
    /// was.
    fn taken(
        &self,
        answer: Option<Written>,
        octets: usize,
        is_told: bool,
        why: Option<UpstreamError>,
    ) -> Result<(), BrokenOff> {
        let Some(Written { taken, outcome }) = answer else {
            return Err(thread_gone(self.progress.taken()));
        };
        let error = match outcome {
            Ok(_) if taken == octets => {
                if is_told {
                    info!(upstream = %self.url, "upstream takes frames again");
                }
                return Ok(());
            }
            Ok(_) => why.expect("without an error only an interruption ends a write early"),
            Err(error)
                if self.url == UpstreamUrl::Stdout && error.kind() == io::ErrorKind::BrokenPipe =>
            {
                UpstreamError::OutputClosed
            }
            Err(error) => UpstreamError::Broken(error),
        };
        Err(BrokenOff { taken, error })
    }

    /// Returns when nothing was taken for too long and another upstream can take over. Where none can, giving up would
    /// not help: this logs it once and keeps waiting.
    async fn stalled(&self, is_told: &mut bool) {
        let mut seen = self.progress.signs();
        loop {
            sleep(self.stall).await;
            let signs = self.progress.signs();
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
            // Without room in the socket, an octet is there already and wakes the thread.
            drop(waker.write_all(b"!"));
        }
    }
}

impl Sink {
    /// Opens what `upstream` names. Also returns what wakes the thread, if the sink may have to wait for room.
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

    /// Writes batches until the lane is gone.
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

/// Waits until no other thread has the file at `path` open.
async fn sole_writer_of(path: &Path) -> OwnedSemaphorePermit {
    let place = {
        let mut paths = lock(&PATHS);
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
        // The semaphore is never closed.
        Err(_) => std::future::pending().await,
    }
}

fn place(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Remembers that the last octets written at `place` are a part of a frame.
fn remember_torn(place: (u64, u64)) {
    let mut torn = lock(&TORN);
    if !torn.contains(&place) {
        torn.push(place);
    }
}

fn is_torn(place: (u64, u64)) -> bool {
    let torn = lock(&TORN);
    torn.contains(&place)
}

fn forget_torn(place: (u64, u64)) {
    let mut torn = lock(&TORN);
    torn.retain(|known| *known != place);
}

/// A permit for each path that was ever written to. Their number is small.
static PATHS: Mutex<Vec<(PathBuf, Arc<Semaphore>)>> = Mutex::new(Vec::new());

/// Where a frame was broken off and its line not ended: at most one for each pipe or standard output.
static TORN: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// How long the thread has after an interruption to report what was taken. A pipe takes at most [`FINISH_MAX`].
const LAST_WORD_MAX: Duration = FINISH_MAX.saturating_mul(2);
