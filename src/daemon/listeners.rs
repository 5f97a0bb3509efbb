//! Running listeners: opens, replaces and closes them.
//!
//! # Guarantees
//!
//! - Everything that the kernel received for a closing socket is read, and everything later goes to the new one: no TCP
//!   message and no datagram is lost in between. (A datagram that arrives at the moment of the change is read from the
//!   old socket.)
//! - A sender's messages stay in order: datagrams of the new socket are read after all of the old one's were judged.
//!
//! # Left out
//!
//! A listener being served: see `serving`. What a reload does with each listener: see `plan`. What else a reload changes:
//! see `reload`.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tracing::{debug, info, warn};

use super::{
    Daemon,
    plan::{Finished, Fresh, Plan, restricted_listener},
    serving::{Closing, Serving},
};
use crate::{
    config::{Config, ListenUrl, ListenerConfig},
    listen::{self, BindError, Bound, Connections, Heir, Opening, PassedSockets, Reassigned},
    thread::Waiting,
};

/// Sockets of one listener, and how they were bound.
pub(super) struct BoundListener {
    pub(super) config: ListenerConfig,
    pub(super) bound: Bound,
    /// Its `[::]` takes IPv6 alone.
    pub(super) only_v6: bool,
    /// The service manager passed it in, and no listener of the configuration names it.
    pub(super) is_extra: bool,
}

impl Daemon {
    /// Listeners for the passed-in sockets that none of `config` names. If listeners are configured, they are served with
    /// a warning.
    ///
    /// # Errors
    ///
    /// A configured listener restricts its senders: serving an unnamed IP socket would bypass its `allow`.
    pub(super) fn unnamed(
        config: &Config,
        passed: &mut PassedSockets,
    ) -> Result<Vec<(ListenerConfig, Bound)>, BindError> {
        let rest = passed.rest();
        if config.listeners == Config::default().listeners {
            return Ok(rest);
        }
        for (listener, _) in &rest {
            let url = &listener.url;
            if let (Some(listener), Some(_)) = (restricted_listener(config), url.address()) {
                let url = url.clone();
                return Err(BindError::Unnamed { url, listener });
            }
            warn!(%url, "no listener names this socket from the service manager; it is served with default settings, and \
                no allow applies; add a [[listener]] with this url");
        }
        Ok(rest)
    }

    /// Starts serving a bound listener.
    pub(super) fn open(&mut self, listener: BoundListener, readers: Vec<Waiting>) {
        let BoundListener {
            config,
            bound,
            only_v6,
            is_extra,
        } = listener;
        let fresh = Fresh {
            socket: (bound, None),
            readers,
            after: Vec::new(),
            is_taken_over: false,
        };
        let serving = self.serve_listener(config, only_v6, fresh, None);
        self.listeners.push(Serving {
            is_extra,
            ..serving
        });
    }

    /// Serves `fresh`. If it replaces `old`, it takes over the connections and settings of that one.
    fn serve_listener(
        &self,
        config: ListenerConfig,
        only_v6: bool,
        fresh: Fresh<Finished>,
        old: Option<&Serving>,
    ) -> Serving {
        let Fresh {
            socket: (bound, moved),
            readers,
            after,
            is_taken_over,
        } = fresh;
        if let Some(moved) = moved {
            moved.discard();
        }
        let metrics = &self.context.metrics;
        let metrics = metrics.listener(&config.name, &config.url.to_string());
        let address = bound.address();
        let receive_buffer = bound.receive_buffer();
        metrics.set_address(&address);
        metrics.receive_buffer.set(receive_buffer as u64);
        info!(listener = config.name, address, receive_buffer, "listening");
        // The kernel includes its own bookkeeping: it reports twice the size that was asked for.
        if receive_buffer > 0 && receive_buffer / 2 < config.receive_buffer {
            warn!(
                listener = config.name,
                configured = config.receive_buffer,
                actual = receive_buffer / 2,
                "receive buffer is smaller than configured; raise net.core.rmem_max"
            );
        }
        let sockets = bound.downgrade();
        let config = Arc::new(config);
        let (sender, connections) = match old {
            Some(old) => {
                old.config.send_replace(Arc::clone(&config));
                (old.config.clone(), old.connections.clone())
            }
            None => (watch::Sender::new(config), Connections::default()),
        };
        let opening = Opening {
            bound,
            readers,
            config: sender.subscribe(),
            metrics: Arc::clone(&metrics),
            connections: connections.clone(),
            after,
            is_taken_over,
        };
        let open = listen::serve(opening, self.context.clone());
        Serving {
            config: sender,
            metrics,
            is_extra: false,
            open,
            connections,
            sockets,
            only_v6,
        }
    }

    /// Waits up to [`CLOSE_MAX`] for closing listeners that share an address with one of `config`. Beside a new socket of
    /// that address, theirs would change which socket a sender's datagrams go to, and so their order. A closing listener
    /// that waits for room in the queue takes longer, and is not waited for.
    pub(super) async fn let_sockets_close(&self, config: &Config) {
        let is_wanted = |closing: &&Closing| {
            let mut listeners = config.listeners.iter();
            listeners.any(|listener| listener.url.overlaps(&closing.url))
        };
        let ends = async {
            for closing in self.closing.iter().filter(is_wanted) {
                closing.ended.cancelled().await;
            }
        };
        if timeout(CLOSE_MAX, ends).await.is_err() {
            debug!("listeners that an earlier reload closed are still being read");
        }
    }

    /// Carries out `plan`. Nothing here fails.
    pub(super) fn carry_out(&mut self, plan: Plan<Finished>) {
        let mut old: Vec<Option<Serving>> = self.listeners.drain(..).map(Some).collect();
        let fate = |place| {
            let step = plan.steps.iter().find(|step| step.from == Some(place));
            step.map(|step| step.fresh.is_none())
        };
        // Collected first, because listeners opened below may have the names of those that end.
        let mut ending = Vec::new();
        for (place, running) in old.iter_mut().enumerate() {
            let is_extra = running.as_ref().is_some_and(|running| running.is_extra);
            match fate(place) {
                Some(true) => {}
                None if is_extra => self.listeners.extend(running.take()),
                is_succeeded => {
                    if let Some(running) = running {
                        running.metrics.clear_address();
                    }
                    ending.push((place, is_succeeded.is_some()));
                }
            }
        }
        // Addresses with new sockets: others must leave them.
        let bound = plan.steps.iter().filter(|step| {
            let fresh = step.fresh.as_ref();
            fresh.is_some_and(|fresh| !fresh.is_taken_over)
        });
        let bound: Vec<ListenUrl> = bound.map(|step| step.config.url.clone()).collect();
        for step in plan.steps {
            let serving = match (step.fresh, step.from) {
                (Some(fresh), from) => {
                    let from = from.and_then(|place| old[place].as_ref());
                    if let Some(from) = from {
                        info!(
                            listener = step.config.name, url = %step.config.url,
                            from = from.metrics.name(), from_url = %from.url(),
                            "taking over"
                        );
                    }
                    self.serve_listener(step.config, step.only_v6, fresh, from)
                }
                (None, from) => {
                    let kept = from.and_then(|place| old[place].take());
                    let kept = kept.expect("a step without new sockets keeps a running listener");
                    kept.config.send_replace(Arc::new(step.config));
                    kept
                }
            };
            self.listeners.push(serving);
        }
        for running in &self.listeners {
            let config = Arc::clone(&running.config.borrow());
            self.reassign_connections(running, Some(&config));
        }
        for (place, is_succeeded) in ending {
            let Some(running) = old[place].take() else {
                continue;
            };
            if !is_succeeded {
                info!(listener = running.metrics.name(), "closing");
                self.reassign_connections(&running, None);
            }
            let url = running.url();
            let has_moved =
                bound.iter().any(|bound| bound.overlaps(&url)) && !self.passed.has(&url);
            self.closing.push(running.closing());
            running.end(has_moved, &self.context.tasks);
        }
        for url in self.passed.urls() {
            let is_read = |serving: &Serving| serving.url().has_socket_of(url);
            if !self.listeners.iter().any(is_read) {
                warn!(%url, "no listener names this socket from the service manager any more; it stays open and is not \
                    read; add a [[listener]] with this url, or remove the socket from the .socket unit");
            }
        }
        // Listeners that earlier reloads closed may have an address that is wanted again.
        for closing in &self.closing {
            let is_wanted = bound.iter().any(|bound| bound.overlaps(&closing.url));
            if is_wanted && !self.passed.has(&closing.url) {
                closing.sockets.leave_address();
            }
        }
    }

    /// Assigns each connection of `running`, whose settings in force are `own`, to the listener that has its address
    /// now. Closes the connections that may not stay, and logs how many.
    fn reassign_connections(&self, running: &Serving, own: Option<&ListenerConfig>) {
        let port = |url: ListenUrl| url.address().map(|address| address.port());
        // Listeners on port 0 have a port of their own each.
        let own_port = port(running.url()).filter(|port| *port != 0);
        let heirs = self.listeners.iter().filter(|other| {
            let url = other.url();
            url.is_stream() && own_port.is_some() && port(url) == own_port
        });
        let heirs = heirs.filter(|other| !other.connections.is(&running.connections));
        let heirs = heirs.map(|other| Heir {
            connections: other.connections.clone(),
            config: other.config.subscribe(),
            only_v6: other.only_v6,
        });
        let Reassigned {
            not_allowed,
            elsewhere,
            handed_over,
            other_protocol,
        } = running
            .connections
            .reassign(own, running.only_v6, heirs.collect());
        let listener = running.metrics.name();
        for (connections, text) in [
            (
                handed_over,
                "connections moved to the listener that has their local address now",
            ),
            (
                not_allowed,
                "closing connections: their peers are no longer in allow",
            ),
            (
                elsewhere,
                "closing connections: no listener has their local address any more",
            ),
            (
                other_protocol,
                "connections keep the protocol they started with until they end",
            ),
        ] {
            if connections > 0 {
                info!(listener, connections, "{text}");
            }
        }
    }
}

/// How long a reload waits for listeners that an earlier one closed.
const CLOSE_MAX: Duration = Duration::from_millis(500);
