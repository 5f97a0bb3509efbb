//! Threads: named ones of our own, for everything that blocks.
//!
//! ```text
//! Waiting  made first, gets its work later    a datagram socket, a forwarder: a reload makes all threads that it
//!                                             needs before it changes anything
//!                                             a file or standard output: made when it is opened
//! Pool     short calls that block             the spool's disk, names, admin pages
//! prove    makes many at once, keeps none     before tokio makes its workers: tokio panics if it cannot
//! ```
//!
//! tokio's blocking pool is not used. It panics when it cannot make a thread, and it queues work beyond its 512 threads:
//! the 513th socket would never be read.
//!
//! # Guarantees
//!
//! - If a thread cannot be made, the caller gets an [`io::Error`] that names the limits on threads. Nothing panics.
//! - A pool that has a thread keeps one. From then on every call is made, even if no more threads can be made.
//! - A panic on a thread reaches the task that awaits the thread or the call.
//!
//! # Left out
//!
//! Ending a blocked thread: it ends with the process.

use std::{
    collections::VecDeque,
    fmt, fs,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    task::{Context, Poll, ready},
    thread::{self, Builder},
    time::Duration,
};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use tokio::{sync::oneshot, time::sleep};
use tracing::{error, info, warn};

use crate::{
    lock::lock,
    panics::{self, Panicked},
};

/// A thread that has no work yet. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    give: SyncSender<Work>,
}

impl Waiting {
    /// Makes a thread. The kernel shows 15 characters of `name`.
    ///
    /// # Errors
    ///
    /// The system cannot make a thread.
    pub(crate) fn new(name: &'static str) -> io::Result<Self> {
        Self::make(name).map_err(|source| refused(format!("cannot make thread {name}"), source))
    }

    /// Makes `count` threads, or none.
    ///
    /// # Errors
    ///
    /// The system cannot make all of them.
    pub(crate) fn several(name: &'static str, count: usize) -> io::Result<Vec<Self>> {
        let mut made = Vec::with_capacity(count);
        while made.len() < count {
            let thread = Self::make(name);
            made.push(thread.map_err(|source| too_few(made.len(), count, name, source))?);
        }
        Ok(made)
    }

    fn make(name: &'static str) -> io::Result<Self> {
        let (give, given) = sync_channel::<Work>(1);
        spawn(name, move || {
            if let Ok(work) = given.recv() {
                work.0();
            }
        })?;
        Ok(Self { give })
    }

    /// Runs `body` on the thread, which ends with it.
    pub(crate) fn run<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Running<T> {
        let (work, running) = Work::new(body);
        // The thread waits for it. If the thread has ended, the work is dropped here, and `running` reports that.
        self.give.try_send(work).ok();
        running
    }
}

/// Work on a thread. Await it for its result.
///
/// Dropping it does not end the thread.
#[derive(Debug)]
pub(crate) struct Running<T>(oneshot::Receiver<Result<T, Broken>>);

impl<T> Future for Running<T> {
    type Output = Result<T, Broken>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(ended.unwrap_or_else(|_| Err(Broken::never_done())))
    }
}

/// The work panicked, or was never done.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(crate) struct Broken {
    said: String,
    panicked: Option<Panicked>,
}

impl Broken {
    fn never_done() -> Self {
        Self {
            said: "its thread has ended".to_owned(),
            panicked: None,
        }
    }

    fn panicked(with: Panicked) -> Self {
        Self {
            said: with.to_string(),
            panicked: Some(with),
        }
    }

    /// The panic, unless the work was never done.
    pub(crate) const fn panic(&self) -> Option<&Panicked> {
        self.panicked.as_ref()
    }

    /// Continues the panic on this thread.
    pub(crate) fn resume(self) -> ! {
        match self.panicked {
            Some(panicked) => panicked.resume(),
            None => panic!("{}", self.said),
        }
    }
}

/// A closure to be run on another thread. It never panics.
struct Work(Box<dyn FnOnce() + Send>);

impl Work {
    fn new<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> (Self, Running<T>) {
        let (answer, answered) = oneshot::channel();
        let work = Self(Box::new(move || {
            let done = panics::catch(body).map_err(Broken::panicked);
            // The caller may not wait for it any more. Then only the log can report a panic.
            if let Err(Err(broken)) = answer.send(done) {
                error!(%broken, "work on a thread panicked; this is a fault of tersed");
            }
        }));
        (work, Running(answered))
    }
}

/// Threads that make short, blocking calls. They are made when needed, up to a limit.
#[derive(Debug)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    name: &'static str,
    threads_max: usize,
    state: Mutex<State>,
    /// Notified when there is a call, or when the pool is dropped.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Calls that no thread has taken yet. A caller awaits each of them, so the number of callers is the bound.
    calls: VecDeque<Work>,
    threads: usize,
    /// Threads that wait for a call.
    idle: usize,
    /// Threads that stay when there is nothing to do.
    kept: usize,
    /// The pool was dropped: threads end when all calls are made.
    gone: bool,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The pool has no thread, and the system cannot make one. The call was not made.
    #[error(transparent)]
    NoThread(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl Pool {
    /// A pool without threads. The kernel shows 15 characters of `name`.
    #[must_use]
    pub(crate) fn new(name: &'static str, threads_max: usize) -> Self {
        Self(Arc::new(Shared {
            name,
            threads_max: threads_max.max(1),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Makes threads until there are `count`, and keeps that many from now on.
    ///
    /// # Errors
    ///
    /// The system cannot make more threads. Those that were made stay.
    pub(crate) fn keep(&self, count: usize) -> io::Result<()> {
        let mut state = self.0.lock();
        state.kept = state.kept.max(count.min(self.0.threads_max));
        while state.threads < state.kept {
            self.0.add_thread(&mut state)?;
        }
        Ok(())
    }

    /// Makes `call` on one of the threads.
    ///
    /// # Errors
    ///
    /// There is no thread, or the call panicked.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped after its first poll, the call is still made.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let (work, running) = Work::new(call);
        if let Err((_, error)) = self.0.push(work) {
            return Err(error.into());
        }
        Ok(running.await?)
    }

    /// Makes `call` on one of the threads. If there is no thread, waits until the system makes one.
    ///
    /// # Errors
    ///
    /// The call panicked.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped while it waits for a thread, the call is not made. If it is dropped later, the call is still
    /// made.
    pub(crate) async fn call_when_possible<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Broken> {
        let (mut work, running) = Work::new(call);
        let mut was_refused = false;
        while let Err((refused, error)) = self.0.push(work) {
            if !std::mem::replace(&mut was_refused, true) {
                warn!(thread = self.0.name, %error, "cannot make a thread; retrying every second");
            }
            work = refused;
            sleep(RETRY_PERIOD).await;
        }
        if was_refused {
            info!(thread = self.0.name, "thread made");
        }
        running.await
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.lock().gone = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    /// Queues `work`. Returns it if there is no thread and none can be made.
    fn push(self: &Arc<Self>, work: Work) -> Result<(), (Work, io::Error)> {
        let mut state = self.lock();
        if state.calls.len() >= state.idle
            && state.threads < self.threads_max
            && let Err(error) = self.add_thread(&mut state)
            // With threads left, one of the busy ones makes the call later.
            && state.threads == 0
        {
            return Err((work, error));
        }
        state.calls.push_back(work);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    fn add_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(self);
        let name = self.name;
        spawn(name, move || shared.work())
            .map_err(|source| refused(format!("cannot make thread {name}"), source))?;
        state.threads += 1;
        Ok(())
    }

    /// Makes calls until no call is left and the thread is not needed.
    fn work(&self) {
        let mut state = self.lock();
        let mut is_late = false;
        loop {
            if let Some(work) = state.calls.pop_front() {
                drop(state);
                work.0();
                state = self.lock();
                is_late = false;
                continue;
            }
            let is_surplus = state.threads > state.kept.max(1);
            if state.gone || (is_surplus && is_late) {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            if is_surplus {
                let waited = self.changed.wait_timeout(state, IDLE_MAX);
                let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = back;
                is_late = timeout.timed_out();
            } else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                is_late = false;
            }
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish()
    }
}

/// Makes `count` threads named `name` at once, and ends them again.
///
/// When it returns, the kernel no longer counts them: that many can be made afterwards, unless another process of the same
/// user or cgroup takes them first.
///
/// # Errors
///
/// The system cannot make all of them.
pub(crate) fn prove(name: &'static str, count: usize) -> io::Result<()> {
    let before = threads_of_process();
    let gate = Mutex::new(());
    let proven = thread::scope(|scope| {
        let _closed = lock(&gate);
        for made in 0..count {
            Builder::new()
                .name(name.to_owned())
                .spawn_scoped(scope, || drop(gate.lock()))
                .map_err(|source| too_few(made, count, name, source))?;
        }
        Ok(())
    });
    // The kernel counts a thread that has ended until it has been cleaned up.
    for _ in 0..LOOKS_MAX {
        if threads_of_process() <= before {
            break;
        }
        thread::sleep(LOOK_PERIOD);
    }
    proven
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

fn too_few(made: usize, count: usize, name: &str, source: io::Error) -> io::Error {
    refused(
        format!("only {made} of {count} threads {name} can be made"),
        source,
    )
}

/// An error that `what` failed because of `source`, which names the limits that may be the reason.
fn refused(what: String, source: io::Error) -> io::Error {
    let own = getrlimit(Resource::RLIMIT_NPROC).ok();
    let own = own.filter(|(soft, _)| *soft != RLIM_INFINITY);
    let own = own.map_or(String::new(), |(soft, _)| format!(", now {soft}"));
    let kind = source.kind();
    let text = format!(
        "{what}: {source}; raise the limits on threads: RLIMIT_NPROC (ulimit -u{own}), pids.max of the cgroup (TasksMax \
         in a systemd unit), or memory"
    );
    io::Error::new(kind, text)
}

/// How many threads the kernel counts for this process; zero if it cannot be read.
fn threads_of_process() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// The pause between two attempts to make a thread.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// How long a pool keeps a thread that is not needed.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// How often, and at what interval, the kernel is asked whether it has cleaned up: about a second in all.
const LOOKS_MAX: u32 = 1000;
const LOOK_PERIOD: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_thread_made_first_does_its_work_later() {
        let waiting = Waiting::new("tersed-test").unwrap();
        let running = waiting.run(|| thread::current().name().map(str::to_owned));
        assert_eq!(running.await.unwrap().as_deref(), Some("tersed-test"));
    }

    #[tokio::test]
    async fn a_thread_without_work_ends_when_it_is_not_needed() {
        let (sender, ended) = sync_channel::<()>(1);
        let waiting = Waiting::new("tersed-test").unwrap();
        waiting
            .give
            .send(Work(Box::new(move || drop(sender))))
            .unwrap();
        drop(waiting);
        assert_eq!(ended.recv(), Err(mpsc::RecvError));
    }

    #[tokio::test]
    async fn a_panic_reaches_the_task_that_waits() {
        let waiting = Waiting::new("tersed-test").unwrap();
        let broken = waiting.run(|| panic!("for the test")).await;
        let broken: Result<(), Broken> = broken;
        assert_eq!(broken.unwrap_err().to_string(), "panicked: for the test");
        let pool = Pool::new("tersed-test", 1);
        let broken = pool.call(|| panic!("number {}", 2)).await;
        let broken: Result<(), CallError> = broken;
        assert_eq!(broken.unwrap_err().to_string(), "panicked: number 2");
        // The thread continues.
        assert_eq!(pool.call(|| 3).await.unwrap(), 3);
        assert_eq!(pool.0.lock().threads, 1);
    }

    /// A call that never returns occupies one thread; the next call gets another.
    #[tokio::test]
    async fn a_call_that_blocks_holds_up_no_other_while_there_are_threads() {
        let pool = Pool::new("tersed-test", 2);
        let (go, told) = sync_channel::<()>(1);
        let mut stuck = std::pin::pin!(pool.call(move || told.recv().is_err()));
        assert!(futures_pending(stuck.as_mut()).await);
        for number in 0..10 {
            assert_eq!(pool.call(move || number).await.unwrap(), number);
        }
        assert_eq!(pool.0.lock().threads, 2);
        drop(go);
        assert!(stuck.await.unwrap());
    }

    /// With one thread, calls wait for their turn.
    #[tokio::test]
    async fn calls_beyond_the_last_thread_are_made_in_their_order() {
        let pool = Pool::new("tersed-test", 1);
        pool.keep(5).unwrap();
        assert_eq!(pool.0.lock().threads, 1);
        let (go, told) = sync_channel::<()>(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |number: u32| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(number)
        };
        let mut first = std::pin::pin!(pool.call(move || told.recv().is_err()));
        assert!(futures_pending(first.as_mut()).await);
        let mut second = std::pin::pin!(pool.call(note(1)));
        assert!(futures_pending(second.as_mut()).await);
        let mut third = std::pin::pin!(pool.call_when_possible(note(2)));
        assert!(futures_pending(third.as_mut()).await);
        assert!(order.lock().unwrap().is_empty());
        drop(go);
        third.await.unwrap();
        assert_eq!(*order.lock().unwrap(), [1, 2]);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn threads_of_a_pool_end_with_it_and_calls_are_made_before() {
        let pool = Pool::new("tersed-test", 1);
        let (go, told) = sync_channel::<()>(1);
        let (sender, ended) = sync_channel::<()>(1);
        {
            let mut first = std::pin::pin!(pool.call(move || told.recv().is_err()));
            assert!(futures_pending(first.as_mut()).await);
            let mut second = std::pin::pin!(pool.call(move || sender.send(())));
            assert!(futures_pending(second.as_mut()).await);
        }
        let shared = Arc::downgrade(&pool.0);
        drop(pool);
        drop(go);
        ended.recv().unwrap();
        while shared.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn threads_that_are_proven_are_gone_again() {
        prove("tersed-proof", 20).unwrap();
        let of_proof = |task: io::Result<fs::DirEntry>| {
            let name = fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default();
            name.trim() == "tersed-proof"
        };
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        assert_eq!(tasks.map(of_proof).filter(|&is_one| is_one).count(), 0);
    }

    #[test]
    fn a_refusal_names_the_limits() {
        let source = io::Error::from_raw_os_error(libc::EAGAIN);
        let error = refused("cannot make thread tersed-test".to_owned(), source);
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let text = error.to_string();
        for part in [
            "cannot make thread tersed-test: ",
            "RLIMIT_NPROC",
            "pids.max",
            "TasksMax",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    /// Polls once: true if it is not ready.
    async fn futures_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }
}
