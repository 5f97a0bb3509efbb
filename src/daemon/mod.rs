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
//! - Nothing is served before everything is bound; a start that fails leaves nothing behind.
//! - A reload is all or nothing. Sockets, connections and windows whose settings did not change are
//!   kept.
//! - On stop each stage ends because its input closed; what the deadline cuts off is counted as dropped.
//! - A listener or the forwarder that ends by itself is fatal: the rest is drained and the exit is
//!   unsuccessful, so that a supervisor starts us again.
//!
//! # Left out
//!
//! Exit codes (`main`), what the settings mean (`config`).

mod configuration;
mod copies;
mod cut_off;
mod listeners;
mod losses;
mod plan;
mod reload;
mod stop;
mod storm;
mod threads;
mod windows;

use std::{fs, future::ready, io, path::Path, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    runtime, select,
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

use self::{
    copies::CopiesForwarder,
    cut_off::CutOff,
    listeners::{Closing, Serving},
    losses::Losses,
    storm::Storm,
    threads::Patience,
};
use crate::{
    admin::{self, AdminState, FileState, InForce, Readiness},
    clock::Clock,
    config::{Config, ForwardConfig, RunArgs, SpoolConfig, size_text, takes_only_v6},
    custody::Custody,
    dedup::Shards,
    forward::{self, CopiesDoor, Delivery, ForwardEnded, Forwarder, Outbox, Stopping},
    ledger::Ledger,
    listen::{BindError, Bound, Context, PassedSockets},
    logging::{PeerLog, PeerReason},
    metrics::{EngineStats, Metrics},
    pipeline::Pipeline,
    rule::WindowPolicy,
    signal::{Event, Signals},
    sizing::Sizing,
    spool::{Found, OPEN_SEGMENTS_MAX, Spool, SpoolError},
    sys,
    thread::{Pool, Running, Waiting},
};

/// Why the relay did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The threads could not be made, the runtime not built, or signals not caught.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// A socket passed in by the service manager is unfit.
    #[error("{0}")]
    Passed(#[source] io::Error),
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin address could not be bound.
    #[error("admin.address: cannot bind {address}: {source}")]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The spool could not be opened.
    #[error("spool.directory: {0}")]
    Spool(#[source] SpoolError),
    /// The forwarder gave up.
    #[error(transparent)]
    Forward(#[from] ForwardEnded),
    /// A task that should outlive everything else ended.
    #[error("{0} ended by itself; this is a fault of tersed")]
    Task(&'static str),
}

/// Runs the relay as `config` says until a signal ends it. `args` is read again on SIGHUP; `read` is its file as it was
/// before `config` was read from it.
///
/// # Errors
///
/// What kept it from starting, or what ended it.
pub fn run(args: &RunArgs, config: Config, read: FileState) -> Result<(), DaemonError> {
    raise_descriptor_limit();
    let mut patience = Patience::new();
    let runtime = threads::runtime(config.workers, &mut patience).map_err(DaemonError::Runtime)?;
    let runtime = Bounded(Some(runtime));
    let daemon = async {
        let daemon = Daemon::start(args, config, read, patience).await?;
        daemon.serve(args).await
    };
    runtime
        .0
        .as_ref()
        .map_or(Ok(()), |runtime| runtime.block_on(daemon))
}

/// A runtime that ends in bounded time, by a panic too: a blocking write to a reader of standard output that has
/// stopped reading never ends.
struct Bounded(Option<runtime::Runtime>);

impl Drop for Bounded {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(RUNTIME_END_MAX);
        }
    }
}

/// A running relay.
struct Daemon {
    config: Config,
    context: Context,
    listeners: Vec<Serving>,
    /// Listeners that a reload closed, as long as something is read from them.
    closing: Vec<Closing>,
    /// What the service manager passed in, which it has open, too.
    passed: PassedSockets,
    forward: watch::Sender<Arc<ForwardConfig>>,
    outbox: Arc<Outbox>,
    forwarder: Running<Result<(), ForwardEnded>>,
    /// That of copies, if they are set aside.
    copies: Option<CopiesForwarder>,
    readiness: Readiness,
    signals: Signals,
    /// Tasks that run until everything else has ended: status page, timers.
    housekeeping: TaskTracker,
    stop_housekeeping: CancellationToken,
    /// Threads for what blocks now and then: pages of metrics, giving memory back, saving windows.
    chores: Arc<Pool>,
    /// How far the stop has come, for the forwarders.
    stopping: Stopping,
    cut_off: Arc<CutOff>,
    /// Cancelled when a listener ended by itself.
    fatal: CancellationToken,
    losses: Arc<Losses>,
    in_force: InForce,
}

impl Daemon {
    async fn start(
        args: &RunArgs,
        config: Config,
        read: FileState,
        mut patience: Patience,
    ) -> Result<Self, DaemonError> {
        let signals = Signals::new().map_err(DaemonError::Runtime)?;
        let mut passed = PassedSockets::from_environment().map_err(DaemonError::Passed)?;
        let metrics = Metrics::new();
        let mut bound = Vec::new();
        for listener in &config.listeners {
            let only_v6 = takes_only_v6(&listener.url, &config.listeners);
            let socket = Bound::bind(listener, &mut passed, config.workers, only_v6)?;
            bound.push((listener.clone(), socket, only_v6, false));
        }
        let unnamed = Self::unnamed(&config, &mut passed)?.into_iter();
        bound.extend(unnamed.map(|(listener, socket)| (listener, socket, false, true)));
        let admin = match config.admin {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| DaemonError::Admin { address, source })?,
            ),
            None => None,
        };

        // All threads that there will be, before anything is taken in hand.
        let mut listeners = Vec::with_capacity(bound.len());
        for (listener, socket, only_v6, is_extra) in bound {
            let readers = patience.insist(|| socket.readers());
            let readers = readers.map_err(DaemonError::Runtime)?;
            listeners.push((listener, socket, readers, only_v6, is_extra));
        }
        let mut waiting = |name| {
            let made = patience.insist(|| Waiting::new(name));
            made.map_err(DaemonError::Runtime)
        };
        let forwarding = waiting("tersed-forward")?;
        let copies = match config.copies() {
            Some(copies) => Some((copies, waiting(copies::THREAD)?)),
            None => None,
        };
        let chores = Pool::new("tersed-chores", CHORES_MAX);
        let with_spool = config.spool.directory.is_some();
        patience
            .insist(|| {
                chores.keep(1)?;
                forward::keep_threads(&config.forward, with_spool)
            })
            .map_err(DaemonError::Runtime)?;

        for warning in config.warnings() {
            warn!(%warning, "configuration");
        }
        let spool = match &config.spool.directory {
            Some(directory) => Some(open_spool(directory, &config.spool, &metrics)?),
            None => None,
        };
        let rules = Arc::clone(&config.rules);
        let policies: Vec<WindowPolicy> = rules.policies().map(|policy| policy.window).collect();
        let shards = Arc::new(Shards::new(
            config.dedup.shards,
            &policies,
            config.dedup.memory,
        ));
        let key = windows::restore(&config.dedup, &shards, &rules);
        let ledger = Arc::new(Ledger::new(
            Arc::clone(&metrics),
            Arc::clone(&shards),
            rules,
        ));
        let outbox = Arc::new(Outbox::new(config.forward.queue, Arc::clone(&metrics)));
        let (forward, changes) = watch::channel(Arc::new(config.forward.clone()));
        let pipeline = Arc::new(Pipeline {
            shards,
            delivery: Delivery::new(Arc::clone(&outbox), Arc::clone(&ledger), changes.clone()),
            metrics: Arc::clone(&metrics),
            key,
            identity: config.dedup.identity,
            custody: Custody::new(),
            copies_door: CopiesDoor::default(),
        });
        let in_force = InForce::new(Arc::clone(&metrics), args, read);
        let losses = Losses::new(Arc::clone(&metrics), changes.clone());
        let stopping = Stopping::default();
        let cut_off = Arc::new(CutOff::new(Arc::clone(&metrics)));
        let forwarder = Forwarder::new(
            Arc::clone(&outbox),
            ledger,
            Arc::clone(&metrics),
            Arc::clone(&pipeline.custody),
            spool,
            changes,
            stopping.clone(),
        );
        let housekeeping = TaskTracker::new();
        let forwarder =
            copies::run(forwarder, forwarding, &housekeeping).map_err(DaemonError::Runtime)?;
        let context = Context {
            pipeline,
            metrics,
            peer_log: Arc::new(PeerLog::new()),
            descriptors: Arc::new(Semaphore::new(free_descriptors(
                config.spool.directory.is_some(),
            ))),
            tasks: TaskTracker::new(),
        };
        let mut daemon = Self {
            config,
            context,
            listeners: Vec::new(),
            closing: Vec::new(),
            passed,
            forward,
            outbox,
            forwarder,
            copies: None,
            readiness: Readiness::default(),
            signals,
            housekeeping,
            stop_housekeeping: CancellationToken::new(),
            chores: Arc::new(chores),
            stopping,
            cut_off,
            fatal: CancellationToken::new(),
            losses,
            in_force,
        };
        if let Some((copies, thread)) = copies {
            let copies = daemon.start_copies(copies, thread);
            daemon.copies = Some(copies.map_err(DaemonError::Runtime)?);
        }
        for (listener, socket, readers, only_v6, is_extra) in listeners {
            daemon.open(listener, socket, readers, only_v6, is_extra);
        }
        if let Some(admin) = admin {
            daemon.open_admin(admin);
        }
        daemon.tell_memory_limit();
        daemon.spawn_timers();
        daemon.tell_in_force(&daemon.whole_config(), None);
        daemon.watch_file();
        daemon.readiness.set_ready();
        let (configuration, overridden_by) = (
            daemon.in_force.file_text(),
            daemon.in_force.over_file_text(),
        );
        info!(configuration, overridden_by, "ready");
        notify(&[sd_notify::NotifyState::Ready]);
        Ok(daemon)
    }

    /// Serves until something ends it, and drains.
    async fn serve(mut self, args: &RunArgs) -> Result<(), DaemonError> {
        let result = loop {
            select! {
                event = self.signals.next() => match event {
                    Event::Stop => break Ok(()),
                    Event::Reload => self.reload(args).await,
                },
                ended = &mut self.forwarder => break match ended {
                    Ok(Err(error)) => Err(error.into()),
                    Ok(Ok(())) | Err(_) => Err(DaemonError::Task("the forwarder")),
                },
                ended = copies::ended(&mut self.copies) => break match ended {
                    Ok(Err(error)) => Err(error.into()),
                    Ok(Ok(())) | Err(_) => Err(DaemonError::Task("the forwarder of suppressed copies")),
                },
                () = self.fatal.cancelled() => break Err(DaemonError::Task("a listener")),
            }
        };
        if let Err(error) = &result {
            error!(%error, "stopping");
        }
        self.stop(result.is_ok()).await;
        result
    }

    /// Starts setting copies aside.
    fn start_copies(&self, config: ForwardConfig, thread: Waiting) -> io::Result<CopiesForwarder> {
        let pipeline = &self.context.pipeline;
        let tasks = &self.housekeeping;
        let cut_off = Arc::clone(&self.cut_off);
        CopiesForwarder::start(config, thread, pipeline, tasks, &self.stopping, cut_off)
    }

    /// Lets the metrics say how much memory the configuration in force allows.
    fn tell_memory_limit(&self) {
        let config = self.whole_config();
        for (part, octets) in Sizing::of(&config).parts() {
            if let Some(limit) = self.context.metrics.memory_limit.get(part as usize) {
                limit.set(octets);
            }
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
            engine_stats: Arc::new(move || {
                let stats = shards.stats();
                EngineStats {
                    live: stats.live_messages as u64,
                    evicted: stats.evicted_total,
                    unremembered: stats.unremembered_total,
                    stale: stats.stale_total,
                    memory_octets: stats.octets as u64,
                    memory_budget_octets: stats.budget_octets as u64,
                }
            }),
            pool: Arc::clone(&self.chores),
            losses: Arc::new(move || losses.lines(Clock::now())),
            in_force: self.in_force.clone(),
        };
        self.housekeeping.spawn(admin::serve(
            listener,
            state,
            self.stop_housekeeping.clone(),
        ));
    }

    fn spawn_timers(&self) {
        self.housekeeping.spawn(Arc::clone(&self.losses).watch(
            Arc::clone(&self.context.pipeline.shards),
            Arc::clone(&self.context.peer_log),
            self.stop_housekeeping.clone(),
        ));
        let stop = self.stop_housekeeping.clone();
        let pipeline = Arc::clone(&self.context.pipeline);
        let outbox = Arc::clone(&self.outbox);
        let chores = Arc::clone(&self.chores);
        self.housekeeping.spawn(async move {
            let mut due = interval(RETIRE_PERIOD);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut storm = Storm::default();
            let mut has_more = false;
            loop {
                select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = ready(()), if has_more => {}
                    _ = due.tick() => {}
                }
                // With a full queue this waits like everybody else, until the queue is closed.
                has_more = pipeline.advance().await;
                let held = pipeline.shards.stats().octets as u64;
                if storm.abates(held + outbox.octets()) {
                    let released = chores.call(sys::release_free_memory);
                    if let Err(error) = released.await {
                        error!(%error, "free memory was not given back");
                    }
                }
            }
        });
        if let Some(period) = sd_notify::watchdog_enabled() {
            let stop = self.stop_housekeeping.clone();
            self.housekeeping.spawn(async move {
                let mut due = interval(period / 2);
                loop {
                    select! {
                        () = stop.cancelled() => return,
                        _ = due.tick() => notify(&[sd_notify::NotifyState::Watchdog]),
                    }
                }
            });
        }
    }
}

/// Opens the spool, and counts what it kept of an earlier run.
fn open_spool(
    directory: &Path,
    config: &SpoolConfig,
    metrics: &Metrics,
) -> Result<Arc<Spool>, DaemonError> {
    let max = u64::try_from(config.max_size).unwrap_or(u64::MAX);
    let spool = Spool::open(directory, max).map_err(DaemonError::Spool)?;
    let &Found {
        recovered,
        torn_octets,
        unreadable_segments,
        cursor_damaged,
        cursor_foreign,
        lacking_octets,
        ref not_safe,
    } = spool.found();
    metrics.frames.recover(recovered);
    info!(directory = %directory.display(), recovered, torn_octets, "spool open");
    if lacking_octets > 0 {
        warn!(
            directory = %directory.display(),
            max_size = size_text(config.max_size),
            lacking_octets,
            "the disk has less room than spool.max_size; it will be full first: make room there, or lower spool.max_size"
        );
    }
    if unreadable_segments > 0 || cursor_damaged {
        warn!(
            unreadable_segments,
            cursor_damaged,
            "the spool is damaged; what can be read is sent, some of it perhaps again"
        );
    }
    if cursor_foreign {
        warn!(
            cursor = %directory.join("cursor").display(),
            "the spool's cursor is of another history and not believed; all that is in the segments is sent, some of \
             it perhaps again"
        );
    }
    if let Some(first) = not_safe.first() {
        error!(
            files = not_safe.len(),
            first,
            "files of the spool are not safe; what is in them waits until they are put right"
        );
    }
    Ok(Arc::new(spool))
}

/// Logs how many lines about peers were held back.
fn tell_of_more(reason: PeerReason, count: u64) {
    warn!(
        reason = reason.label(),
        count, "more of the same from peers"
    );
}

/// Lets the process open as many descriptors as it may.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        debug!(%error, "the limit of open files stays as it is");
    }
}

/// Connections that the process can take, so that upstreams, files and the status page still find a
/// descriptor.
fn free_descriptors(has_spool: bool) -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let limit = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS);
    let open = fs::read_dir("/proc/self/fd").map_or(64, Iterator::count);
    let held = if has_spool { OPEN_SEGMENTS_MAX } else { 0 };
    limit
        .saturating_sub(open + held + DESCRIPTOR_RESERVE)
        .max(1)
}

/// Tells the service manager, if there is one.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager could not be told");
    }
}

/// How often windows that ended by themselves are looked for: the most that a summary is late.
const RETIRE_PERIOD: Duration = Duration::from_millis(100);

/// Chores at once: a page, memory given back, windows saved.
const CHORES_MAX: usize = 3;

/// Descriptors that connections do not get.
const DESCRIPTOR_RESERVE: usize = 16;

/// How long threads that are blocked are waited for at the end.
const RUNTIME_END_MAX: Duration = Duration::from_millis(100);
