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
mod complaints;
mod datagram;
mod held;
mod hello;
mod relp;
mod stream;
mod unread;

use std::{os::unix::net::UnixStream, pin::Pin, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    bind::{BindError, Bound, OwnedPath, PassedSockets},
    held::{Held, held, sockets},
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
    stop: CancellationToken,
}

impl Local {
    /// Connections that are open.
    fn connections(&self) -> u64 {
        u64::try_from(self.metrics.connections.get()).unwrap_or(0)
    }

    /// Octets to read from a connection now.
    fn turn(&self) -> usize {
        if self.context.pipeline.is_pressed() {
            unread::turn_at_the_door(self.connections())
        } else {
            unread::READ_OCTETS
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

/// Reads `bound` until `stop` is cancelled: its datagram sockets on `readers`, which are [`Bound::readers`], all else on
/// tasks of `context`. A task or thread that ends before that cancels `fatal`.
pub fn serve(
    bound: Bound,
    readers: Vec<Waiting>,
    context: Context,
    config: watch::Receiver<Arc<ListenerConfig>>,
    metrics: Arc<ListenerMetrics>,
    stop: CancellationToken,
    fatal: CancellationToken,
) {
    let tasks = context.tasks.clone();
    let local = Local {
        context,
        config,
        metrics,
        stop,
    };
    let watched = |serving: Pin<Box<dyn Future<Output = ()> + Send>>| {
        let dead = DeadListener {
            stop: local.stop.clone(),
            fatal: fatal.clone(),
        };
        tasks.spawn(async move {
            serving.await;
            drop(dead);
        });
    };
    let on_threads = |sockets: Vec<datagram::Socket>, path: Option<OwnedPath>| {
        assert_eq!(sockets.len(), readers.len(), "each socket has a thread");
        // Threads hear of the stop by the end of a stream; without descriptors left, when they look up next.
        let (bell, stopped) = UnixStream::pair().ok().unzip();
        let (stop, stopped) = (local.stop.clone(), stopped.map(Arc::new));
        tasks.spawn(async move {
            stop.cancelled().await;
            drop(bell);
        });
        let path = path.map(Arc::new);
        for (socket, reader) in sockets.into_iter().zip(readers) {
            let dead = DeadListener {
                stop: local.stop.clone(),
                fatal: fatal.clone(),
            };
            let (local, stopped, path) = (local.clone(), stopped.clone(), path.clone());
            let (runtime, tracked) = (Handle::current(), tasks.token());
            reader.run(move || {
                let entered = runtime.enter();
                datagram::serve(&socket, local, stopped.as_deref());
                drop((socket, path, dead, entered, tracked));
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
            watched(Box::pin(accept::serve(
                accept::Listener::Tcp(listener),
                local.clone(),
            )));
        }
        Bound::UnixStream(listener, path) => {
            let local = local.clone();
            watched(Box::pin(async move {
                accept::serve(accept::Listener::Unix(listener), local).await;
                drop(path);
            }));
        }
    }
}
