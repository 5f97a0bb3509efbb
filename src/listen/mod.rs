//! Listening: sockets are bound, or taken from the service manager, and read until told to stop.
//!
//! ```text
//! bind ──▶ Bound ──serve──▶ one thread a datagram socket        ──frames──▶ pipeline
//!                           one task a stream listener ─accept─▶ one task a connection
//! ```
//!
//! # Guarantees
//!
//! - UDP has one socket per worker thread on the same address (`SO_REUSEPORT`): the kernel keeps a
//!   sender on one of them, so its messages stay in order.
//! - A passed-in socket (`LISTEN_FDS`) is used for the listener whose address it has; one that no
//!   listener asks for becomes a listener of its own, under its `FileDescriptorName`.
//! - A listener can take over another one's sockets, or its address: what the kernel holds for them is read, by the
//!   one or the other, and in order.
//! - Accept errors never end a listener. Running out of descriptors pauses accepting.
//! - On stop, what the kernel has received already is still read.
//! - A Unix socket's path is only taken from a socket that nobody listens on any more; its mode is set
//!   before anybody can connect; it is removed on stop if it is still ours.
//!
//! # Left out
//!
//! What frames mean. Which listeners there are (see `daemon`).

mod accept;
mod bind;
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
pub use self::{
    accept::open_files_max,
    bind::{BindError, Circumstances, Prepared, Rival},
    bound::{Bound, WeakBound},
    connections::{Connections, Heir, Reassigned},
    held::{Held, held, sockets},
    passed::PassedSockets,
    path::{MovedPath, OwnedPath, PathState, occupied},
};
use crate::{
    config::ListenerConfig,
    logging::PeerLog,
    metrics::{ListenerMetrics, Metrics},
    pipeline::Pipeline,
    thread::Waiting,
};

/// What every listener needs.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where frames go.
    pub pipeline: Arc<Pipeline>,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// Log lines about peers.
    pub peer_log: Arc<PeerLog>,
    /// Connections that the process may still open, all listeners together.
    pub descriptors: Arc<Semaphore>,
    /// Every task is spawned here, so that somebody awaits it.
    pub tasks: TaskTracker,
}

/// One listener's own things.
#[derive(Clone, Debug)]
struct Local {
    context: Context,
    /// Settings in force; a reload changes them for new connections.
    config: watch::Receiver<Arc<ListenerConfig>>,
    metrics: Arc<ListenerMetrics>,
    /// Of the listener, or in a connection's copy of the connection alone.
    stop: CancellationToken,
    /// Another socket takes the address of this one, which therefore stops.
    is_moving: CancellationToken,
    connections: Connections,
    /// In a connection's copy: where it is counted.
    home: Option<Arc<Home>>,
}

impl Local {
    /// Connections that are open.
    fn connections(&self) -> u64 {
        let count = self.home.as_ref().map(|home| home.count());
        count.unwrap_or_else(|| self.connections.count()) as u64
    }

    /// Octets to read from a connection now.
    fn turn(&self) -> usize {
        if self.context.pipeline.is_pressed() {
            pending::turn_while_full(self.connections())
        } else {
            pending::READ_OCTETS
        }
    }
}

/// Cancels `fatal` when a listener's task ends, by a panic too, although nobody stopped it.
struct DeadListener {
    stop: CancellationToken,
    fatal: CancellationToken,
}

impl Drop for DeadListener {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.fatal.cancel();
        }
    }
}

/// A listener to be served.
#[derive(Debug)]
pub struct Opening {
    /// Its sockets.
    pub bound: Bound,
    /// [`Bound::readers`] of them.
    pub readers: Vec<Waiting>,
    /// Its settings; a reload changes them.
    pub config: watch::Receiver<Arc<ListenerConfig>>,
    /// Its counters.
    pub metrics: Arc<ListenerMetrics>,
    /// Who is connected already.
    pub connections: Connections,
    /// What ends when those listeners have ended whose datagrams come first.
    pub after: Vec<CancellationToken>,
    /// Its sockets were read before, and what the kernel dropped on them was counted.
    pub is_taken_over: bool,
}

/// A listener that is served.
#[derive(Clone, Debug, Default)]
pub struct Open {
    /// Cancel it to end the listener. Its connections go on.
    pub stop: CancellationToken,
    /// Cancel it before, if another socket takes its address: connections that are being opened are waited for.
    pub is_moving: CancellationToken,
    /// Cancelled when nothing reads its sockets any more.
    pub ended: CancellationToken,
}

/// Reads `bound` until `stop` is cancelled: its datagram sockets on `readers`, all else on tasks of `context`. A task or
/// thread that ends before that cancels `fatal`.
pub fn serve(opening: Opening, context: Context, fatal: CancellationToken) -> Open {
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
        let dead = DeadListener {
            stop: local.stop.clone(),
            fatal: fatal.clone(),
        };
        let ended = Arc::clone(&ended);
        tasks.spawn(async move {
            serving.await;
            drop((dead, ended));
        });
    };
    let on_threads = |sockets: Vec<datagram::Socket>, path: Option<Arc<OwnedPath>>| {
        assert_eq!(sockets.len(), readers.len(), "each socket has a thread");
        // Threads hear of the stop by the end of a stream; without descriptors left, when they look up next.
        let (bell, stopped) = UnixStream::pair().ok().unzip();
        let (stop, stopped) = (local.stop.clone(), stopped.map(Arc::new));
        tasks.spawn(async move {
            stop.cancelled().await;
            drop(bell);
        });
        for (socket, reader) in sockets.into_iter().zip(readers) {
            let dead = DeadListener {
                stop: local.stop.clone(),
                fatal: fatal.clone(),
            };
            let (local, stopped, path) = (local.clone(), stopped.clone(), path.clone());
            let (after, ended) = (after.clone(), Arc::clone(&ended));
            let (runtime, tracked) = (Handle::current(), tasks.token());
            reader.run(move || {
                let entered = runtime.enter();
                // What others have read already goes first: a sender's messages stay in order.
                for before in after {
                    runtime.block_on(before.cancelled());
                }
                datagram::serve(&socket, local, stopped.as_deref(), is_taken_over);
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
