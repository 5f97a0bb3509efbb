//! Start: binds every socket, makes every thread and opens every file, and only then serves.
//!
//! # Guarantees
//!
//! - Everything that can fail comes before the first message is taken: a start that fails leaves nothing behind.
//! - The spool and the saved windows are opened after the sockets are bound, so that a start that fails because of an
//!   address does not touch them.
//!
//! # Left out
//!
//! Waiting for threads (`threads`), what a listener does (`listeners`).

use std::{fs, io, sync::Arc};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{
    Daemon, DaemonError, copies, cut_off::CutOff, forwarding::Forwarding, listeners::BoundListener,
    losses::Losses, notify, threads::Patience, windows,
};
use crate::{
    admin::{FileState, InForce, Readiness},
    config::{Config, ForwardConfig, RunArgs, SpoolConfig, size_text, takes_only_v6},
    core::{dedup::Shards, rule::WindowPolicy},
    delivery::{CopiesDoor, Delivery, Queue, custody::Custody, ledger::Ledger},
    forward::{self, Forwarder, Stopping},
    listen::{Bound, Context, PassedSockets},
    logging::PeerLog,
    metrics::{Metrics, PanicTask},
    panics::Panics,
    pipeline::Pipeline,
    signal::Signals,
    spool::{Found, OPEN_SEGMENTS_MAX, Spool},
    thread::{Pool, Waiting},
};

impl Daemon {
    /// Starts the relay: when this returns, it serves.
    ///
    /// # Errors
    ///
    /// An address, a thread, the spool or a passed-in socket is not available.
    pub(super) async fn start(
        args: &RunArgs,
        config: Config,
        read: FileState,
        mut patience: Patience,
    ) -> Result<Self, DaemonError> {
        let signals = Signals::new().map_err(DaemonError::Runtime)?;
        let sockets = Sockets::bind(&config).await?;
        let threads = Threads::make(&config, &sockets.listeners, &mut patience);
        let threads = threads.map_err(DaemonError::Runtime)?;
        for warning in config.warnings() {
            warn!(%warning, "configuration");
        }
        let mut daemon = Self::assemble(args, config, read, signals, sockets.passed, threads.own)?;
        if let Some((copies, thread)) = threads.copies {
            let copies = daemon.start_copies(copies, thread);
            daemon.copies = Some(copies.map_err(DaemonError::Runtime)?);
        }
        for (listener, readers) in sockets.listeners.into_iter().zip(threads.readers) {
            daemon.open(listener, readers);
        }
        if let Some(admin) = sockets.admin {
            daemon.open_admin(admin);
        }
        daemon.update_memory_limits();
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

    /// Opens the spool and the saved windows, and starts the forwarder. No listener is open yet.
    fn assemble(
        args: &RunArgs,
        config: Config,
        read: FileState,
        signals: Signals,
        passed: PassedSockets,
        threads: OwnThreads,
    ) -> Result<Self, DaemonError> {
        let metrics = Metrics::new();
        let panics = Panics::new(Arc::clone(&metrics));
        let spool = open_spool(&config.spool, &metrics)?;
        let queue = Arc::new(Queue::new(config.forward.queue, Arc::clone(&metrics)));
        let (forward, changes) = watch::channel(Arc::new(config.forward.clone()));
        let pipeline = Arc::new(pipeline(
            &config,
            &metrics,
            &queue,
            changes.clone(),
            panics.clone(),
        ));
        let in_force = InForce::new(Arc::clone(&metrics), args, read);
        let losses = Losses::new(Arc::clone(&metrics), changes.clone());
        let stopping = Stopping::default();
        let cut_off = Arc::new(CutOff::new(Arc::clone(&metrics)));
        let forwarder = Forwarder::new(
            Arc::clone(&queue),
            Arc::clone(pipeline.delivery.ledger()),
            Arc::clone(&metrics),
            Arc::clone(&pipeline.custody),
            spool,
            changes,
            stopping.clone(),
        );
        let housekeeping = TaskTracker::new();
        let (own, task) = (Arc::clone(&queue), PanicTask::Forwarder);
        let (thread, tasks) = (threads.forward, &housekeeping);
        let forwarder = Forwarding::start(forwarder, own, thread, tasks, task, panics.clone());
        let forwarder = forwarder.map_err(DaemonError::Runtime)?;
        let free = free_descriptors(config.spool.directory.is_some());
        let context = Context {
            pipeline,
            metrics,
            peer_log: Arc::new(PeerLog::new()),
            descriptors: Arc::new(Semaphore::new(free)),
            tasks: TaskTracker::new(),
            panics,
        };
        Ok(Self {
            config,
            context,
            listeners: Vec::new(),
            closing: Vec::new(),
            passed,
            forward,
            queue,
            forwarder,
            copies: None,
            readiness: Readiness::default(),
            signals,
            housekeeping,
            stop_housekeeping: CancellationToken::new(),
            chores: Arc::new(threads.chores),
            stopping,
            cut_off,
            losses,
            in_force,
        })
    }
}

/// Every socket of a start.
struct Sockets {
    listeners: Vec<BoundListener>,
    passed: PassedSockets,
    admin: Option<TcpListener>,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, DaemonError> {
        let mut passed = PassedSockets::from_environment().map_err(DaemonError::Passed)?;
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let only_v6 = takes_only_v6(&listener.url, &config.listeners);
            listeners.push(BoundListener {
                bound: Bound::bind(listener, &mut passed, config.workers, only_v6)?,
                config: listener.clone(),
                only_v6,
                is_extra: false,
            });
        }
        for (config, bound) in Daemon::unnamed(config, &mut passed)? {
            listeners.push(BoundListener {
                config,
                bound,
                only_v6: false,
                is_extra: true,
            });
        }
        let admin = match config.admin {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| DaemonError::Admin { address, source })?,
            ),
            None => None,
        };
        Ok(Self {
            listeners,
            passed,
            admin,
        })
    }
}

/// Every thread of a start, made before a socket is read or a file opened.
struct Threads {
    /// For the datagram sockets of each listener.
    readers: Vec<Vec<Waiting>>,
    copies: Option<(ForwardConfig, Waiting)>,
    own: OwnThreads,
}

/// The threads that every relay has.
struct OwnThreads {
    forward: Waiting,
    chores: Pool,
}

impl Threads {
    fn make(
        config: &Config,
        listeners: &[BoundListener],
        patience: &mut Patience,
    ) -> io::Result<Self> {
        let mut readers = Vec::with_capacity(listeners.len());
        for listener in listeners {
            readers.push(patience.insist(|| listener.bound.readers())?);
        }
        let forward = patience.insist(|| Waiting::new("tersed-forward"))?;
        let copies = match config.copies() {
            Some(copies) => Some((copies, patience.insist(|| Waiting::new(copies::THREAD))?)),
            None => None,
        };
        let chores = Pool::new("tersed-chores", CHORES_MAX);
        let with_spool = config.spool.directory.is_some();
        patience.insist(|| {
            chores.keep(1)?;
            forward::keep_threads(&config.forward, with_spool)
        })?;
        Ok(Self {
            readers,
            copies,
            own: OwnThreads { forward, chores },
        })
    }
}

/// The stages from a frame to the queue, with the windows that the last run saved.
fn pipeline(
    config: &Config,
    metrics: &Arc<Metrics>,
    queue: &Arc<Queue>,
    changes: watch::Receiver<Arc<ForwardConfig>>,
    panics: Panics,
) -> Pipeline {
    let rules = Arc::clone(&config.rules);
    let policies: Vec<WindowPolicy> = rules.policies().map(|policy| policy.window).collect();
    let shards = Shards::new(config.dedup.shards, &policies, config.dedup.memory);
    let shards = Arc::new(shards);
    let key = windows::restore(&config.dedup, &shards, &rules);
    let ledger = Ledger::new(Arc::clone(metrics), Arc::clone(&shards), rules);
    Pipeline {
        shards,
        delivery: Delivery::new(Arc::clone(queue), Arc::new(ledger), changes),
        metrics: Arc::clone(metrics),
        key,
        identity: config.dedup.identity,
        custody: Custody::new(),
        copies_door: CopiesDoor::default(),
        panics,
    }
}

/// Opens the spool if there is one, counts what an earlier run left in it, and warns about damage.
fn open_spool(config: &SpoolConfig, metrics: &Metrics) -> Result<Option<Arc<Spool>>, DaemonError> {
    let Some(directory) = &config.directory else {
        return Ok(None);
    };
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
            "the disk has less free space than spool.max_size; free some space there, or lower spool.max_size"
        );
    }
    if unreadable_segments > 0 || cursor_damaged {
        warn!(
            unreadable_segments,
            cursor_damaged,
            "the spool is damaged; everything readable is sent, some of it perhaps twice"
        );
    }
    if cursor_foreign {
        warn!(
            cursor = %directory.join("cursor").display(),
            "the spool's cursor does not belong to these segments and is ignored; everything in the segments is sent, \
             some of it perhaps twice"
        );
    }
    if let Some(first) = not_safe.first() {
        error!(
            files = not_safe.len(),
            first = first.error,
            "spool files are not safe to open; their messages wait until the files are fixed"
        );
    }
    Ok(Some(Arc::new(spool)))
}

/// How many connections the process may have open, so that upstreams, files and the admin port still get a
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

/// Chores that may run at once: making a page, giving memory back, saving windows.
const CHORES_MAX: usize = 3;

/// Descriptors that connections do not get.
const DESCRIPTOR_RESERVE: usize = 16;
