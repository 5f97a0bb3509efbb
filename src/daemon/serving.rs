//! A listener being served, and what remains of one that closes: what start, reload and stop hold of it.
//!
//! # Guarantees
//!
//! - A datagram socket whose address another one got is still read for longer than the kernel takes to queue a datagram
//!   that it had already meant for this socket.
//! - A Unix socket's path does not count as lost if the service manager made it, or if another program's file is there
//!   now: nothing makes such a path again.
//!
//! # Left out
//!
//! Opening and replacing listeners (`listeners`), deciding which are kept (`plan`), reading (`listen`).

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    config::{ListenUrl, ListenerConfig},
    listen::{Connections, Open, PathState, WeakBound},
    metrics::ListenerMetrics,
};

/// A listener being served.
pub(super) struct Serving {
    pub(super) config: watch::Sender<Arc<ListenerConfig>>,
    pub(super) metrics: Arc<ListenerMetrics>,
    /// The service manager passed it in, and no configured listener names it: no reload removes it.
    pub(super) is_extra: bool,
    pub(super) open: Open,
    pub(super) connections: Connections,
    pub(super) sockets: WeakBound,
    /// Its `[::]` takes IPv6 alone.
    pub(super) only_v6: bool,
}

/// A closing listener: what its sockets have received may still be read.
#[derive(Clone)]
pub(super) struct Closing {
    pub(super) name: String,
    pub(super) url: ListenUrl,
    pub(super) sockets: WeakBound,
    pub(super) ended: CancellationToken,
}

impl Serving {
    pub(super) fn url(&self) -> ListenUrl {
        self.config.borrow().url.clone()
    }

    pub(super) fn serves(&self, listener: &ListenerConfig) -> bool {
        let config = self.config.borrow();
        config.url == listener.url && config.name == listener.name
    }

    /// Ends the listener and its connections: the relay stops.
    pub(super) fn stop(&self) {
        self.open.stop.cancel();
        self.connections.stop();
    }

    /// Ends the listener but not its connections. If it `has_moved`, another socket has its address.
    pub(super) fn end(self, has_moved: bool, tasks: &TaskTracker) {
        if !has_moved {
            self.open.stop.cancel();
            return;
        }
        self.open.is_moving.cancel();
        self.sockets.leave_address();
        if self.url().is_stream() {
            self.open.stop.cancel();
            return;
        }
        // The kernel may still be queueing a datagram on this socket.
        let stop = self.open.stop;
        tasks.spawn(async move {
            sleep(LAST_DATAGRAMS).await;
            stop.cancel();
        });
    }

    pub(super) fn closing(&self) -> Closing {
        Closing {
            name: self.metrics.name().to_owned(),
            url: self.url(),
            sockets: self.sockets.clone(),
            ended: self.open.ended.clone(),
        }
    }

    /// Whether the path of its Unix socket is gone and has to be made again.
    pub(super) fn has_lost_its_path(&self) -> bool {
        let Some(path) = self.sockets.path() else {
            return false;
        };
        let listener = self.metrics.name();
        match path.state() {
            PathState::Ours => false,
            PathState::Gone if path.is_passed() => {
                warn!(listener, path = %path.path().display(),
                    "the socket's path is gone; the service manager made it: \
                    restart the .socket unit");
                false
            }
            PathState::Gone => {
                info!(listener, path = %path.path().display(),
                    "the socket's path is gone; making it again");
                true
            }
            PathState::Foreign => {
                warn!(listener, path = %path.path().display(),
                    "another file is at the socket's path; remove it and send \
                    SIGHUP to make the socket again");
                false
            }
        }
    }
}

/// How long an old datagram socket is still read after another one got its address: longer than the kernel takes from
/// choosing a socket to queueing the datagram, also on a busy processor.
const LAST_DATAGRAMS: Duration = Duration::from_millis(20);
