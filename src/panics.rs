//! What a panic costs.
//!
//! A panic is a fault of tersed: an invariant of its own did not hold. What it costs depends on where it happens.
//!
//! | where | cost |
//! |---|---|
//! | task of a connection | the connection, and the frames of its batch in hand |
//! | request to the admin port | the request, or its connection |
//! | thread of a file or of standard output | the upstream's connection |
//! | timer that logs losses, watch of the configuration file, watchdog | nothing: it is started again after a second |
//! | a shard, custody, or handing a batch to the queue, in any task | the process |
//! | listener, datagram thread, timer that ends windows, forwarders, main task | the process |
//!
//! # Guarantees
//!
//! - Each panic of the tasks above is one ERROR line in the log's own format, with the place and the message. With
//!   `RUST_BACKTRACE=1` the line of a task has the backtrace, too.
//! - `tersed_panics_total` counts each panic of a task. That of a file's thread is only logged.
//! - When a panic has poisoned a shard, each task that needs the shard panics as well. These panics end the process, and
//!   are only counted: the panic that poisoned the shard is logged, and named as the cause, even if it is reported last.
//! - **The frames of the batch in hand** are counted: as received, and as dropped with reason `panic` unless they were
//!   counted otherwise. So are the datagrams that were read with the same call, and the summaries and suppressed copies in
//!   the batch. The windows are reopened. If it is not known which windows were opened, all are ended.
//! - **A RELP sender is not answered for what was lost**: a receipt that a panic lets go of counts as lost (`custody`).
//! - **The process** ends with exit status 1, also if the panic comes during a stop. The stop is that of a signal, with the
//!   same grace period: readers end, the queue goes to the upstreams or the spool. Windows are not saved, because their
//!   state is not known. After a panic in a shard, no more is read from connections, because nothing can be judged. If the
//!   forwarder is gone, the queue is closed at once and what is in it is dropped with reason `shutdown`; the spool keeps
//!   what it has.
//!
//! # Left out
//!
//! Octets of a stream that were read and not yet framed are not counted: they were never frames.
//!
//! What the forwarder that panicked had in hand stays counted as queued. A panic that leaves a destructor while another
//! panic unwinds aborts the process.
//!
//! A panic in a call on a pool's thread is an error of the call (`thread`). In a call to the spool it goes on in the
//! forwarder, and in a look at the configuration file in its watch. In a look-up of a name, or while windows are saved, it
//! is logged as the failure of that work, and not counted.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    fmt,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    core::{dedup::POISONED, identity::Sender},
    metrics::{Metrics, PanicTask},
};

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panicked {
    report: Report,
    message: String,
    /// In a mutex because the payload is not `Sync`.
    payload: Mutex<Box<dyn Any + Send>>,
}

/// What the hook knows, and the catcher does not.
#[derive(Clone, Debug, Default)]
struct Report {
    /// File, line and column; empty if no hook is set.
    place: String,
    backtrace: Option<String>,
}

impl Panicked {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let report = REPORT.with(RefCell::take).unwrap_or_default();
        Self {
            report,
            message: text_of(&*payload).to_owned(),
            payload: Mutex::new(payload),
        }
    }

    /// Whether the task only met a shard that another panic has poisoned. This panic does not say why, and can be
    /// reported before the other: a task that waits for the shard's lock gets it while the other panic still unwinds.
    fn is_echo(&self) -> bool {
        self.message == POISONED
    }

    /// Continues the panic on this thread.
    pub(crate) fn resume(self) -> ! {
        REPORT.set(Some(self.report));
        let payload = self.payload.into_inner();
        panic::resume_unwind(payload.expect("this mutex is never locked"))
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked")?;
        if !self.report.place.is_empty() {
            write!(f, " at {}", self.report.place)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Runs `body`, and returns its panic instead of unwinding further. The caller logs it.
///
/// # Errors
///
/// The panic.
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Panicked> {
    let _scope = Scope::enter();
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(Panicked::new)
}

/// Awaits `future`, and returns its panic instead of unwinding further. The caller logs it.
///
/// # Errors
///
/// The panic.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch(|| future.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

/// Has panics written to the log instead of standard error. To be called once logging is set up.
pub(crate) fn set_hook() {
    panic::set_hook(Box::new(|info| {
        let report = Report::of(info);
        if SCOPES.get() > 0 {
            REPORT.set(Some(report));
            return;
        }
        let current = thread::current();
        let message = text_of(info.payload());
        let Report { place, backtrace } = report;
        error!(
            thread = current.name(),
            place,
            panic = message,
            backtrace,
            "panicked; this is a fault of tersed"
        );
    }));
}

impl Report {
    fn of(info: &PanicHookInfo<'_>) -> Self {
        let backtrace = Backtrace::capture();
        let has_backtrace = backtrace.status() == BacktraceStatus::Captured;
        Self {
            place: info.location().map(ToString::to_string).unwrap_or_default(),
            backtrace: has_backtrace.then(|| backtrace.to_string()),
        }
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let literal = payload.downcast_ref::<&str>().copied();
    let text = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message")
}

/// While one exists, panics on this thread are left to a catcher.
struct Scope {
    /// The report of a panic that unwinds the caller, a destructor. A panic in the scope would overwrite it.
    unwinding: Option<Report>,
}

impl Scope {
    fn enter() -> Self {
        SCOPES.set(SCOPES.get() + 1);
        let unwinding = thread::panicking().then(|| REPORT.take()).flatten();
        Self { unwinding }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        SCOPES.set(SCOPES.get() - 1);
        if self.unwinding.is_some() {
            REPORT.set(self.unwinding.take());
        }
    }
}

thread_local! {
    /// How many catchers are on the stack.
    static SCOPES: Cell<u32> = const { Cell::new(0) };

    /// The last panic that the hook left to a catcher.
    static REPORT: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Counts and logs panics, and tells the daemon when one must end the process. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Panics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Arc<Metrics>,
    fatal: CancellationToken,
    /// What ended the relay. This or `echo` is set before `fatal` is cancelled.
    cause: OnceLock<String>,
    /// The same, where a poisoned shard was met and the panic that poisoned it is not reported yet.
    echo: OnceLock<String>,
    is_core_broken: AtomicBool,
}

impl Panics {
    /// No panic yet; counts in `metrics`.
    #[must_use]
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            metrics,
            fatal: CancellationToken::new(),
            cause: OnceLock::new(),
            echo: OnceLock::new(),
            is_core_broken: AtomicBool::new(false),
        }))
    }

    /// The task of a connection from `peer` panicked: it costs the connection, or the process if the core is broken.
    pub(crate) fn connection(&self, listener: &str, peer: Sender, panicked: &Panicked) {
        if self.is_core_broken() || panicked.is_echo() {
            self.fatal(PanicTask::Connection, panicked);
            return;
        }
        self.count(PanicTask::Connection);
        let (panic, Report { place, backtrace }) = (&panicked.message, &panicked.report);
        error!(
            listener, %peer, place, panic, backtrace,
            "the task of a connection panicked; the connection is closed; this is a fault of tersed"
        );
    }

    /// A request to the admin port panicked: it costs the request.
    pub(crate) fn admin(&self, panicked: &Panicked) {
        self.count(PanicTask::Admin);
        if panicked.is_echo() {
            return;
        }
        let (panic, Report { place, backtrace }) = (&panicked.message, &panicked.report);
        error!(
            place,
            panic, backtrace, "a request to the admin port panicked; this is a fault of tersed"
        );
    }

    /// A task that the relay cannot do without panicked: it costs the process.
    pub(crate) fn fatal(&self, task: PanicTask, panicked: &Panicked) {
        self.count(task);
        let cause = format!("task {} {panicked}", task.label());
        if panicked.is_echo() {
            self.0.echo.set(cause).ok();
            self.0.fatal.cancel();
            return;
        }
        let (panic, Report { place, backtrace }) = (&panicked.message, &panicked.report);
        error!(
            task = task.label(),
            place, panic, backtrace, "a task panicked; the relay stops; this is a fault of tersed"
        );
        self.end(cause);
    }

    /// Ends the process because of `cause`. The first cause counts.
    pub(crate) fn end(&self, cause: String) {
        self.0.cause.set(cause).ok();
        self.0.fatal.cancel();
    }

    /// Waits until something must end the process; returns what.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point.
    pub(crate) async fn ended(&self) -> String {
        self.0.fatal.cancelled().await;
        let cause = self.cause();
        cause
            .expect("the cause is set before the token is cancelled")
            .to_owned()
    }

    /// What must end the process, if anything.
    #[must_use]
    pub(crate) fn cause(&self) -> Option<&str> {
        let Inner { cause, echo, .. } = &*self.0;
        cause.get().or(echo.get()).map(String::as_str)
    }

    /// The core broke an invariant in the middle of an update: nothing can be judged any more.
    pub(crate) fn break_core(&self) {
        self.0.is_core_broken.store(true, Ordering::Release);
    }

    /// Whether [`Panics::break_core`] was called.
    #[must_use]
    pub(crate) fn is_core_broken(&self) -> bool {
        self.0.is_core_broken.load(Ordering::Acquire)
    }

    /// Runs a task that only informs, and starts it again a second after each panic.
    pub(crate) async fn restarting<F: Future>(self, task: impl Fn() -> F) -> F::Output {
        loop {
            match caught(task()).await {
                Ok(output) => return output,
                Err(panicked) => {
                    self.count(PanicTask::Housekeeping);
                    let (panic, Report { place, backtrace }) =
                        (&panicked.message, &panicked.report);
                    error!(
                        place,
                        panic,
                        backtrace,
                        "a housekeeping task panicked and is started again; this is a fault of tersed"
                    );
                }
            }
            sleep(RESTART_PERIOD).await;
        }
    }

    fn count(&self, task: PanicTask) {
        self.0.metrics.panics[task].inc();
    }
}

/// The pause before a housekeeping task is started again.
const RESTART_PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_returned_with_its_message() {
        assert_eq!(catch(|| 1).unwrap(), 1);
        let panicked: Result<(), _> = catch(|| panic!("number {}", 2));
        let panicked = panicked.unwrap_err();
        assert_eq!(panicked.to_string(), "panicked: number 2");
        let again: Result<(), _> = catch(|| panicked.resume());
        let again = again.unwrap_err();
        assert_eq!(again.to_string(), "panicked: number 2");
    }

    #[tokio::test]
    async fn a_panic_of_a_future_is_returned_and_drops_what_it_held() {
        struct Guard<'a>(&'a Cell<bool>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.set(thread::panicking());
            }
        }
        let was_panicking = Cell::new(false);
        let future = async {
            let _guard = Guard(&was_panicking);
            tokio::task::yield_now().await;
            panic!("late");
        };
        let panicked: Result<(), _> = caught(future).await;
        let panicked = panicked.unwrap_err();
        assert_eq!(panicked.to_string(), "panicked: late");
        assert!(was_panicking.get(), "the guard was dropped by unwinding");
    }

    #[test]
    fn a_panic_that_a_destructor_catches_leaves_the_report_of_the_one_that_unwinds() {
        struct Catching;
        impl Drop for Catching {
            fn drop(&mut self) {
                let caught: Result<(), _> = catch(|| panic!("inner"));
                assert!(caught.is_err());
            }
        }
        let caught: Result<(), _> = catch(|| {
            let _catching = Catching;
            // As the hook does.
            REPORT.set(Some(Report {
                place: "outer.rs:1".to_owned(),
                backtrace: None,
            }));
            panic!("outer");
        });
        let panicked = caught.unwrap_err();
        assert_eq!(panicked.to_string(), "panicked at outer.rs:1: outer");
    }

    /// Otherwise the log may never have the panic that poisoned the shard.
    #[cfg(debug_assertions)]
    #[test]
    fn only_a_panic_that_meets_a_poisoned_shard_is_an_echo() {
        let shards = crate::core::dedup::Shards::new(1, &[], 1 << 20);
        let first = catch(|| shards.break_one()).unwrap_err();
        assert!(!first.is_echo());
        let later = catch(|| shards.stats()).unwrap_err();
        assert!(later.is_echo());
    }

    #[cfg(debug_assertions)]
    #[tokio::test]
    async fn the_panic_that_poisoned_a_shard_is_the_cause_even_if_it_is_reported_last() {
        let panics = Panics::new(Metrics::new());
        let shards = crate::core::dedup::Shards::new(1, &[], 1 << 20);
        let first = catch(|| shards.break_one()).unwrap_err();
        let later = catch(|| shards.stats()).unwrap_err();
        panics.fatal(PanicTask::Windows, &later);
        assert!(panics.ended().await.starts_with("task windows panicked"));
        panics.break_core();
        panics.connection("tcp", Sender::Local, &first);
        assert_eq!(
            panics.ended().await,
            "task connection panicked: injected at shard"
        );
    }

    #[tokio::test]
    async fn the_first_cause_ends_the_process() {
        let panics = Panics::new(Metrics::new());
        panics.end("one".to_owned());
        panics.end("two".to_owned());
        assert_eq!(panics.ended().await, "one");
    }
}
