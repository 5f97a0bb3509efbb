//! The daemon: start, reload, drain, stop. It owns every task.
//!
//! ```text
//! start    bind everything ▶ make all threads ▶ forwarder ▶ listeners ▶ ready
//! reload   read, validate, bind what is new and make threads for it ▶ switch   (or nothing moved)
//! stop     listeners and readers end ▶ pending summaries ▶ queue closes ▶ forwarder ends ▶ windows saved
//!          └────────────────── one deadline over all of it ──────────────────┘
//! ```
//!
//! # Guarantees
//!
//! - Everything is bound before anything is served; a start that fails leaves nothing behind.
//! - A reload is all or nothing. Sockets, connections and windows whose settings did not change are
//!   kept.
//! - At a stop each stage ends because its input closed; what the deadline cuts off is counted as dropped.
//! - A listener or the forwarder that ends by itself is fatal, and so are most panics (`panics`), also during a stop: the
//!   rest is drained and the exit status is 1, so that a supervisor restarts the process.
//!
//! # Left out
//!
//! Exit codes (`main`). What a setting means (`config`).

mod configuration;
mod copies;
mod cut_off;
mod forwarding;
mod listeners;
mod losses;
mod needs_restart;
mod plan;
mod reload;
mod serving;
mod start;
mod stop;
mod storm;
mod threads;
mod windows;

use std::{future::ready, io, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    runtime, select,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

use self::{
    copies::CopiesForwarder,
    cut_off::CutOff,
    forwarding::Forwarding,
    losses::Losses,
    serving::{Closing, Serving},
    storm::Storm,
    threads::Patience,
};
use crate::{
    admin::{self, AdminState, FileState, InForce, Readiness},
    clock::Clock,
    config::{Config, ForwardConfig, RunArgs},
    core::dedup::{EngineStats, Shards},
    delivery::Queue,
    fault,
    forward::{ForwardEnded, Stopping},
    listen::{BindError, Context, PassedSockets},
    logging::PeerReason,
    metrics::PanicTask,
    panics::{self, caught},
    signal::{Event, Signals},
    sizing::Sizing,
    spool::SpoolError,
    sys,
    thread::{Pool, Waiting},
};

/// Why the relay did not start, or stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// A thread, the runtime or a signal handler could not be made.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// The service manager passed in a socket that no listener can use.
    #[error("{0}")]
    Passed(#[source] io::Error),
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin address could not be bound.
    #[error("admin.address: cannot bind {address}: {source}")]
    Admin {
        address: std::net::SocketAddr,
        source: io::Error,
    },
    /// The spool could not be opened.
    #[error("spool.directory: {0}")]
    Spool(#[source] SpoolError),
    /// The forwarder ended with an error.
    #[error(transparent)]
    Forward(#[from] ForwardEnded),
    /// A task panicked or ended that only a stop should end.
    #[error("{0}; this is a fault of tersed")]
    Task(String),
}

/// Runs the relay with `config` until a signal ends it. SIGHUP reads `args` again. `read` is the state of its file just
/// before `config` was read from it.
///
/// # Errors
///
/// The relay did not start, or stopped without being told to.
pub(crate) fn run(args: &RunArgs, config: Config, read: FileState) -> Result<(), DaemonError> {
    panics::set_hook();
    raise_descriptor_limit();
    let mut patience = Patience::new();
    let runtime = threads::runtime(config.workers, &mut patience).map_err(DaemonError::Runtime)?;
    let runtime = Bounded(Some(runtime));
    let daemon = async {
        let daemon = Daemon::start(args, config, read, patience).await?;
        daemon.serve(args).await
    };
    let runtime = runtime.0.as_ref();
    let runtime = runtime.expect("only dropping it takes the runtime");
    let ended = runtime.block_on(caught(daemon));
    ended.unwrap_or_else(|panicked| Err(DaemonError::Task(format!("the main task {panicked}"))))
}

/// A runtime whose drop takes bounded time, also during a panic: a blocking write to standard output never ends if its
/// reader stopped reading.
struct Bounded(Option<runtime::Runtime>);

impl Drop for Bounded {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(RUNTIME_END_MAX);
        }
    }
}

struct Daemon {
    config: Config,
    context: Context,
    listeners: Vec<Serving>,
    /// Listeners that a reload closed and that may still be read.
    closing: Vec<Closing>,
    /// Sockets from the service manager, which keeps them open, too.
    passed: PassedSockets,
    forward: watch::Sender<Arc<ForwardConfig>>,
    queue: Arc<Queue>,
    forwarder: Forwarding,
    /// The forwarder of suppressed copies, if they are kept.
    copies: Option<CopiesForwarder>,
    readiness: Readiness,
    signals: Signals,
    /// Tasks that run until everything else has ended: admin port, timers.
    housekeeping: TaskTracker,
    stop_housekeeping: CancellationToken,
    /// Threads for calls that block: making pages, giving memory back, saving windows.
    chores: Arc<Pool>,
    /// How far a stop has come, for the forwarders.
    stopping: Stopping,
    cut_off: Arc<CutOff>,
    losses: Arc<Losses>,
    in_force: InForce,
}

impl Daemon {
    /// Serves until a signal or a failure ends it, then drains.
    ///
    /// # Errors
    ///
    /// A failure ended it, or a panic came during the stop that costs the process.
    async fn serve(mut self, args: &RunArgs) -> Result<(), DaemonError> {
        let ended = caught(self.serve_until_ended(args)).await;
        let result = ended.unwrap_or_else(|panicked| {
            self.context.panics.fatal(PanicTask::Main, &panicked);
            Err(DaemonError::Task(format!("the main task {panicked}")))
        });
        if let Err(error) = &result {
            error!(%error, "stopping");
        }
        let stopped = self.stop(result.is_ok()).await;
        result.and(stopped)
    }

    async fn serve_until_ended(&mut self, args: &RunArgs) -> Result<(), DaemonError> {
        loop {
            select! {
                event = self.signals.next() => match event {
                    Event::Stop => return Ok(()),
                    Event::Reload => self.reload(args).await,
                },
                error = self.forwarder.ended_early() => return Err(error),
                error = copies::ended_early(&mut self.copies) => return Err(error),
                cause = self.context.panics.ended() => return Err(DaemonError::Task(cause)),
            }
        }
    }

    /// Starts the forwarder of suppressed copies.
    fn start_copies(&self, config: ForwardConfig, thread: Waiting) -> io::Result<CopiesForwarder> {
        let pipeline = Arc::clone(&self.context.pipeline);
        let tasks = &self.housekeeping;
        let cut_off = Arc::clone(&self.cut_off);
        CopiesForwarder::start(config, thread, pipeline, tasks, &self.stopping, cut_off)
    }

    /// Sets the metrics of how much memory the configuration in force allows.
    fn update_memory_limits(&self) {
        let config = self.whole_config();
        for (part, octets) in Sizing::of(&config).parts() {
            self.context.metrics.memory_limit[part as usize].set(octets);
        }
    }

    fn open_admin(&self, listener: TcpListener) {
        if let Ok(address) = listener.local_addr() {
            info!(%address, "admin listening");
        }
        let shards = Arc::clone(&self.context.pipeline.shards);
        let losses = Arc::clone(&self.losses);
        let state = AdminState {
            metrics: Arc::clone(&self.context.metrics),
            readiness: self.readiness.clone(),
            engine_stats: Arc::new(move || stats_of(&shards)),
            pool: Arc::clone(&self.chores),
            losses: Arc::new(move || losses.lines(Clock::now())),
            in_force: self.in_force.clone(),
            panics: self.context.panics.clone(),
        };
        let panics = self.context.panics.clone();
        let serving = admin::serve(listener, state, self.stop_housekeeping.clone());
        self.housekeeping.spawn(async move {
            if let Err(panicked) = caught(serving).await {
                panics.admin(&panicked);
            }
        });
    }

    fn spawn_timers(&self) {
        self.spawn_window_timer();
        let (losses, stop) = (Arc::clone(&self.losses), self.stop_housekeeping.clone());
        let (pipeline, peer_log) = (&self.context.pipeline, &self.context.peer_log);
        let (shards, peer_log) = (Arc::clone(&pipeline.shards), Arc::clone(peer_log));
        let watch = move || {
            Arc::clone(&losses).watch(Arc::clone(&shards), Arc::clone(&peer_log), stop.clone())
        };
        self.housekeeping
            .spawn(self.context.panics.clone().restarting(watch));
        if let Some(period) = sd_notify::watchdog_enabled() {
            let stop = self.stop_housekeeping.clone();
            let watchdog = move || {
                let stop = stop.clone();
                async move {
                    let mut due = interval(period / 2);
                    loop {
                        select! {
                            () = stop.cancelled() => return,
                            _ = due.tick() => notify(&[sd_notify::NotifyState::Watchdog]),
                        }
                    }
                }
            };
            self.housekeeping
                .spawn(self.context.panics.clone().restarting(watchdog));
        }
    }

    /// Spawns the timer that ends windows. A stop waits for it, as for a reader: it may have summaries in hand.
    fn spawn_window_timer(&self) {
        let stopping = self.stopping.clone();
        let pipeline = Arc::clone(&self.context.pipeline);
        let queue = Arc::clone(&self.queue);
        let chores = Arc::clone(&self.chores);
        let panics = self.context.panics.clone();
        let retiring = async move {
            let mut due = interval(RETIRE_PERIOD);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut storm = Storm::default();
            let mut has_more = false;
            loop {
                select! {
                    biased;
                    () = stopping.begun() => return,
                    () = ready(()), if has_more => {}
                    _ = due.tick() => {}
                }
                fault::trip("windows");
                if pipeline.is_broken() {
                    return;
                }
                // While the queue is full this waits like every reader, until the queue is closed.
                has_more = pipeline.advance().await;
                let held = stats_of(&pipeline.shards).octets as u64;
                if storm.abates(held + queue.octets()) {
                    let released = chores.call(sys::release_free_memory);
                    let released = select! {
                        // It takes a while, and must not delay the stop.
                        () = stopping.begun() => return,
                        released = released => released,
                    };
                    if let Err(error) = released {
                        error!(%error, "cannot give free memory back to the system");
                    }
                }
            }
        };
        self.context.tasks.spawn(async move {
            if let Err(panicked) = caught(retiring).await {
                panics.fatal(PanicTask::Windows, &panicked);
            }
        });
    }
}

/// The counts of the shards; zero after a panic in one of them, when the process is about to end.
fn stats_of(shards: &Shards) -> EngineStats {
    shards.sound_stats().unwrap_or_default()
}

/// Logs how many warnings about peers were suppressed.
fn log_suppressed_warnings(reason: PeerReason, count: u64) {
    warn!(
        reason = reason.label(),
        count, "suppressed repeated warnings about peers"
    );
}

/// Raises the soft limit of open files to the hard limit.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        debug!(%error, "cannot raise the limit of open files");
    }
}

/// Sends `state` to the service manager, if there is one.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "cannot notify the service manager");
    }
}

/// How often windows are looked for that expired without another message: a summary is at most this late.
const RETIRE_PERIOD: Duration = Duration::from_millis(100);

/// How long the end of the process waits for blocked threads.
const RUNTIME_END_MAX: Duration = Duration::from_millis(100);
