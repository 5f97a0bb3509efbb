//! Listening: binds sockets, or takes them from the service manager, and reads them until told to stop.
//!
//! ```text
//! bind ──▶ Bound ──serve──▶ one thread per datagram socket        ──frames──▶ pipeline
//!                           one task per stream listener ─accept─▶ one task per connection
//! ```
//!
//! # Guarantees
//!
//! - UDP has one socket per worker thread on the same address (`SO_REUSEPORT`). The kernel keeps a sender on one of
//!   them, so its messages stay in order.
//! - A passed-in socket (`LISTEN_FDS`) is used for the listener that has its address. One that no listener names
//!   becomes a listener of its own, under its `FileDescriptorName`.
//! - A listener can take over another one's sockets, or its address. One of the two reads what the kernel holds for
//!   them, in order.
//! - An accept error never ends a listener. Running out of descriptors pauses accepting.
//! - At a stop, what the kernel has received is still read.
//! - The path of a Unix socket is only taken from a socket that no process listens on. Its mode is set before a client
//!   can connect. It is removed at a stop if it is still ours.
//!
//! # Left out
//!
//! What a frame means. Which listeners there are (see `daemon`).

mod accept;
mod bind;
mod bind_error;
mod bound;
mod complaints;
mod connections;
mod datagram;
mod held;
mod hello;
mod passed;
mod path;
mod pending;
mod relp;
mod stream;

use std::{os::unix::net::UnixStream, pin::Pin, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::connections::Home;
pub(crate) use self::{
    accept::open_files_max,
    bind::{Circumstances, Prepared, Rival},
    bind_error::BindError,
    bound::{Bound, WeakBound},
    connections::{Connections, Heir, Reassigned},
    held::{held, sockets},
    passed::PassedSockets,
    path::{MovedPath, OwnedPath, PathState, occupied},
};
use crate::{
    config::ListenerConfig,
    logging::PeerLog,
    metrics::{ListenerMetrics, Metrics, PanicTask},
    panics::{Panics, catch, caught},
    pipeline::Pipeline,
    thread::Waiting,
};

/// What every listener needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Judges frames and delivers them.
    pub pipeline: Arc<Pipeline>,
    pub metrics: Arc<Metrics>,
    pub peer_log: Arc<PeerLog>,
    /// Connections that the process may still open, over all listeners.
    pub descriptors: Arc<Semaphore>,
    /// Every task is spawned here; a stop waits for them.
    pub tasks: TaskTracker,
    /// Reports every panic, and listeners that end by themselves.
    pub panics: Panics,
}

/// What the tasks of one listener share.
#[derive(Clone, Debug)]
struct Local {
    context: Context,
    /// The settings in force; a reload changes them for new connections.
    config: watch::Receiver<Arc<ListenerConfig>>,
    metrics: Arc<ListenerMetrics>,
    /// Stops the listener; in a connection's copy, that connection alone.
    stop: CancellationToken,
    /// Cancelled if another socket takes over the address; then `stop` follows.
    is_moving: CancellationToken,
    connections: Connections,
    /// In a connection's copy: the listener that counts it.
    home: Option<Arc<Home>>,
}

impl Local {
    /// The number of open connections.
    fn connections(&self) -> u64 {
        let count = self.home.as_ref().map(|home| home.count());
        count.unwrap_or_else(|| self.connections.count()) as u64
    }

    /// Whether what is read during a stop can still be judged and handed on.
    fn may_read_last(&self) -> bool {
        let pipeline = &self.context.pipeline;
        !pipeline.delivery.is_closed() && !pipeline.is_broken()
    }

    /// How many octets a connection may read now.
    fn turn(&self) -> usize {
        if self.context.pipeline.is_pressed() {
            pending::turn_while_full(self.connections())
        } else {
            pending::READ_OCTETS
        }
    }
}

/// Ends the process when a listener's task ends before `stop` was cancelled.
struct DeadListener {
    stop: CancellationToken,
    panics: Panics,
}

impl Drop for DeadListener {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.panics.end("a listener ended by itself".to_owned());
        }
    }
}

/// A listener to be served.
#[derive(Debug)]
pub(crate) struct Opening {
    pub bound: Bound,
    /// The threads from [`Bound::readers`].
    pub readers: Vec<Waiting>,
    /// The settings; a reload changes them.
    pub config: watch::Receiver<Arc<ListenerConfig>>,
    pub metrics: Arc<ListenerMetrics>,
    /// The connections that are open already.
    pub connections: Connections,
    /// One for each listener whose datagrams must be read first; cancelled when that listener has ended.
    pub after: Vec<CancellationToken>,
    /// Another listener read these sockets before, and counted what the kernel dropped on them.
    pub is_taken_over: bool,
}

/// How to end a listener that is served.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open {
    /// Cancel this to end the listener. Its connections stay open.
    pub stop: CancellationToken,
    /// Cancel this first if another socket takes over the address: handshakes in progress are then completed.
    pub is_moving: CancellationToken,
    /// Cancelled when nothing reads its sockets any more.
    pub ended: CancellationToken,
}

/// Serves a listener until `stop` is cancelled: datagram sockets on its `readers`, everything else on tasks of `context`.
/// A task or thread that ends before that, or panics, ends the process.
pub(crate) fn serve(opening: Opening, context: Context) -> Open {
    let open = Open::default();
    let tasks = context.tasks.clone();
    let Opening {
        bound,
        readers,
        config,
        metrics,
        connections,
        after,
        is_taken_over,
    } = opening;
    let local = Local {
        context,
        config,
        metrics,
        stop: open.stop.clone(),
        is_moving: open.is_moving.clone(),
        connections,
        home: None,
    };
    let ended = Arc::new(open.ended.clone().drop_guard());
    let watched = |serving: Pin<Box<dyn Future<Output = ()> + Send>>| {
        let panics = local.context.panics.clone();
        let dead = DeadListener {
            stop: local.stop.clone(),
            panics: panics.clone(),
        };
        let ended = Arc::clone(&ended);
        tasks.spawn(async move {
            if let Err(panicked) = caught(serving).await {
                panics.fatal(PanicTask::Listener, &panicked);
            }
            drop((dead, ended));
        });
    };
    let on_threads = |sockets: Vec<datagram::Socket>, path: Option<Arc<OwnedPath>>| {
        assert_eq!(sockets.len(), readers.len(), "each socket has a thread");
        // The threads are woken by EOF on this socket pair; if none could be made, they notice at their next poll
        // time-out.
        let (bell, stopped) = UnixStream::pair().ok().unzip();
        let (stop, stopped) = (local.stop.clone(), stopped.map(Arc::new));
        tasks.spawn(async move {
            stop.cancelled().await;
            drop(bell);
        });
        for (socket, reader) in sockets.into_iter().zip(readers) {
            let panics = local.context.panics.clone();
            let dead = DeadListener {
                stop: local.stop.clone(),
                panics: panics.clone(),
            };
            let (local, stopped, path) = (local.clone(), stopped.clone(), path.clone());
            let (after, ended) = (after.clone(), Arc::clone(&ended));
            let (runtime, tracked) = (Handle::current(), tasks.token());
            reader.run(move || {
                let entered = runtime.enter();
                // Datagrams that other listeners have read already go first: a sender's messages stay in order.
                for before in after {
                    runtime.block_on(before.cancelled());
                }
                let served = catch(|| {
                    datagram::serve(&socket, local, stopped.as_deref(), is_taken_over);
                });
                if let Err(panicked) = served {
                    panics.fatal(PanicTask::Datagram, &panicked);
                }
                drop((socket, path, ended, dead, entered, tracked));
            });
        }
    };
    match bound {
        Bound::Udp(sockets) => {
            let sockets = sockets.into_iter().map(datagram::Socket::Udp);
            on_threads(sockets.collect(), None);
        }
        Bound::UnixDgram(socket, path) => {
            on_threads(vec![datagram::Socket::Unix(socket)], Some(path));
        }
        Bound::Tcp(listener) => {
            let listener = accept::Listener::Tcp(listener);
            watched(Box::pin(accept::serve(listener, local.clone())));
        }
        Bound::UnixStream(listener, path) => {
            let listener = accept::Listener::Unix(listener);
            let local = local.clone();
            watched(Box::pin(async move {
                accept::serve(listener, local).await;
                drop(path);
            }));
        }
    }
    open
}
