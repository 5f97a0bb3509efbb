//! Listeners that run: opened, taken over, closed.
//!
//! ```text
//! wanted by a configuration        has it                            becomes of it
//! same name and URL                a listener that runs              kept; new settings
//! same socket (tcp, relp; a name)  one that runs or is just closing  its socket, and connections if it runs
//! same port (address, family)      one that runs                     a new socket; the connections, if they may stay
//! anything else                                                      a new socket
//! ```
//!
//! # Guarantees
//!
//! - Everything that can fail comes before the first change: [`Plan::of`], [`Plan::finish`], and then
//!   [`Daemon::carry_out`].
//! - What the kernel has received for a socket that closes is read, and what comes after that the new one gets: no TCP
//!   message and no datagram is lost on the way. (A datagram that came in the moment between is read from the old.)
//! - A sender's messages stay in order: the new socket's datagrams are read when all of the old one's are judged.
//! - No listener of this relay is called another process.
//!
//! # Left out
//!
//! What else a reload changes: see `reload`.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Daemon;
use crate::{
    config::{Config, ListenUrl, ListenerConfig, takes_only_v6},
    listen::{
        self, BindError, Bound, Circumstances, Connections, Faint, Open, Opening, PassedSockets,
        PathAside, PathState, Prepared, Rival, Stay,
    },
    metrics::ListenerMetrics,
    thread::Waiting,
};

/// A listener being served.
pub(super) struct Serving {
    pub(super) config: watch::Sender<Arc<ListenerConfig>>,
    pub(super) metrics: Arc<ListenerMetrics>,
    /// Passed in by the service manager without a listener in the configuration: no reload removes it.
    pub(super) is_extra: bool,
    open: Open,
    connections: Connections,
    sockets: Faint,
    /// Its `[::]` takes IPv6 alone.
    only_v6: bool,
}

/// A listener that closes: something may still read what its sockets have received.
#[derive(Clone)]
pub(super) struct Closing {
    name: String,
    url: ListenUrl,
    sockets: Faint,
    ended: CancellationToken,
}

/// Why listeners cannot be opened at a reload.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("listener \"{name}\": {source}")]
    Threads { name: String, source: io::Error },
    #[error("listener \"{name}\": {key}: changed; that takes a restart")]
    Restart { name: String, key: &'static str },
    #[error("listener \"{0}\" has ended by itself")]
    Ended(String),
}

/// What a reload will do with listeners, whose new sockets are `S`.
pub(super) struct Plan<S> {
    steps: Vec<Step<S>>,
}

/// Sockets that receive, and what stood in their place.
type Finished = (Bound, Option<PathAside>);

/// What becomes of one wanted listener.
struct Step<S> {
    config: ListenerConfig,
    only_v6: bool,
    /// The running listener whose place it takes, or which it is.
    from: Option<usize>,
    /// `None` if that one is kept as it is.
    fresh: Option<Fresh<S>>,
}

struct Fresh<S> {
    socket: S,
    readers: Vec<Waiting>,
    /// What ends when those have ended whose datagrams come first.
    after: Vec<CancellationToken>,
    is_taken_over: bool,
}

/// Where a wanted listener comes from, by the place of a running one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// It is that one.
    Kept(usize),
    /// It goes on with that one's socket.
    Shared(usize),
    /// It takes that one's address, with a socket of its own.
    Moved(usize),
    /// Nowhere.
    New,
}

impl Origin {
    const fn place(self) -> Option<usize> {
        match self {
            Self::Kept(place) | Self::Shared(place) | Self::Moved(place) => Some(place),
            Self::New => None,
        }
    }

    /// Where each of `wanted` comes from. No running listener is the origin of two.
    fn all(wanted: &[ListenerConfig], running: &[Serving]) -> Vec<Self> {
        type Rule = (
            fn(usize) -> Origin,
            fn(&Serving, &ListenerConfig, bool) -> bool,
        );
        let rules: [Rule; 3] = [
            (Self::Kept, |running, wanted, only_v6| {
                running.serves(wanted) && running.only_v6 == only_v6
            }),
            (Self::Shared, |running, wanted, only_v6| {
                wanted.url.has_socket_of(&running.url()) && running.only_v6 == only_v6
            }),
            (Self::Moved, |running, wanted, _| {
                wanted.url.overlaps(&running.url()) && !running.is_extra
            }),
        ];
        let mut origins = vec![Self::New; wanted.len()];
        for (origin, fits) in rules {
            for (place, listener) in wanted.iter().enumerate() {
                if origins[place] != Self::New {
                    continue;
                }
                let only_v6 = takes_only_v6(&listener.url, wanted);
                let found = running.iter().enumerate().find(|(index, running)| {
                    let is_free = origins.iter().all(|other| other.place() != Some(*index));
                    is_free && fits(running, listener, only_v6)
                });
                if let Some((index, running)) = found {
                    origins[place] = match origin(index) {
                        Self::Kept(_) if running.has_lost_its_path() => Self::Moved(index),
                        origin => origin,
                    };
                }
            }
        }
        origins
    }
}

impl Plan<Prepared> {
    /// Prepares everything that listeners of `config` need and `daemon` does not have.
    pub(super) fn of(config: &Config, daemon: &mut Daemon) -> Result<Self, PlanError> {
        let origins = Origin::all(&config.listeners, &daemon.listeners);
        let mut unnamed = daemon.listeners.iter().enumerate();
        let unnamed = unnamed.find(|(place, running)| {
            let is_named = origins.iter().any(|origin| origin.place() == Some(*place));
            running.is_extra && !is_named && running.url().address().is_some()
        });
        // A start would be refused, too.
        if let (Some((_, unnamed)), Some(listener)) = (unnamed, choosy(config)) {
            return Err(PlanError::Bind(BindError::Unnamed {
                url: unnamed.url(),
                listener,
            }));
        }
        daemon
            .closing
            .retain(|closing| !closing.ended.is_cancelled());
        let mut steps = Vec::with_capacity(origins.len());
        for (listener, &origin) in config.listeners.iter().zip(&origins) {
            let only_v6 = takes_only_v6(&listener.url, &config.listeners);
            let fresh = match origin {
                Origin::Kept(place) => {
                    daemon.listeners[place].refuse_what_takes_a_restart(listener)?;
                    None
                }
                Origin::Shared(place) => {
                    let old = &daemon.listeners[place];
                    old.refuse_what_takes_a_restart(listener)?;
                    Some(Self::share(old, listener)?)
                }
                Origin::Moved(_) | Origin::New => {
                    Some(Self::bind(listener, only_v6, &origins, daemon)?)
                }
            };
            steps.push(Step {
                config: listener.clone(),
                only_v6,
                from: origin.place(),
                fresh,
            });
        }
        Ok(Self { steps })
    }

    /// Goes on with the sockets of `old`.
    fn share(old: &Serving, listener: &ListenerConfig) -> Result<Fresh<Prepared>, PlanError> {
        let bound = old.sockets.upgrade();
        // It is fatal when a listener ends by itself, and the relay is about to stop.
        let bound = bound.ok_or_else(|| PlanError::Ended(old.metrics.name().to_owned()))?;
        let prepared = Prepared::taking_over(listener, bound);
        Ok(Fresh {
            readers: readers(&prepared, listener)?,
            socket: prepared,
            after: vec![old.open.ended.clone()],
            is_taken_over: true,
        })
    }

    /// Makes sockets, beside those that have the address now and will leave it.
    fn bind(
        listener: &ListenerConfig,
        only_v6: bool,
        origins: &[Origin],
        daemon: &mut Daemon,
    ) -> Result<Fresh<Prepared>, PlanError> {
        let stays = |place| {
            origins.contains(&Origin::Kept(place)) || origins.contains(&Origin::Shared(place))
        };
        let mut after = Vec::new();
        let mut rivals = Vec::new();
        let leaving = daemon.listeners.iter().enumerate();
        let leaving = leaving
            .filter(|&(place, running)| !running.is_extra && !stays(place))
            .map(|(_, running)| running.closing());
        for other in leaving.chain(daemon.closing.iter().cloned()) {
            if !other.url.overlaps(&listener.url) {
                continue;
            }
            after.push(other.ended);
            // What was passed in stays open, whatever becomes of the listener.
            if !daemon.passed.has(&other.url) {
                rivals.push(Rival {
                    name: other.name,
                    url: other.url,
                    sockets: other.sockets,
                });
            }
        }
        let is_taken_over = daemon.passed.has(&listener.url);
        let circumstances = Circumstances {
            workers: daemon.config.workers,
            only_v6,
            rivals,
        };
        let prepared = Prepared::new(listener, &mut daemon.passed, circumstances)?;
        Ok(Fresh {
            readers: readers(&prepared, listener)?,
            socket: prepared,
            after,
            is_taken_over,
        })
    }

    /// Lets everything new receive. Nothing but this may fail now.
    pub(super) fn finish(self) -> Result<Plan<Finished>, BindError> {
        let mut steps = Vec::with_capacity(self.steps.len());
        for step in self.steps {
            let fresh = match step.fresh {
                Some(fresh) => Some(Fresh {
                    socket: fresh.socket.finish()?,
                    readers: fresh.readers,
                    after: fresh.after,
                    is_taken_over: fresh.is_taken_over,
                }),
                None => None,
            };
            steps.push(Step {
                config: step.config,
                only_v6: step.only_v6,
                from: step.from,
                fresh,
            });
        }
        Ok(Plan { steps })
    }
}

/// A listener that does not let everybody in.
fn choosy(config: &Config) -> Option<String> {
    let mut listeners = config.listeners.iter();
    let choosy = listeners.find(|listener| !listener.allow.is_empty());
    choosy.map(|listener| listener.name.clone())
}

fn readers(prepared: &Prepared, listener: &ListenerConfig) -> Result<Vec<Waiting>, PlanError> {
    let readers = prepared.readers();
    readers.map_err(|source| PlanError::Threads {
        name: listener.name.clone(),
        source,
    })
}

impl Daemon {
    /// The listeners that the service manager passed in and none of `config` takes. They are served where no listener
    /// is configured, and else with a warning, unless other listeners do not let everybody in.
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
            if let (Some(listener), Some(_)) = (choosy(config), url.address()) {
                let url = url.clone();
                return Err(BindError::Unnamed { url, listener });
            }
            warn!(%url, "no listener names this socket, which the service manager handed over; it is served with the \
                defaults, and no allow applies; add [[listener]] with this url");
        }
        Ok(rest)
    }

    /// Starts serving a bound listener.
    pub(super) fn open(
        &mut self,
        config: ListenerConfig,
        bound: Bound,
        readers: Vec<Waiting>,
        only_v6: bool,
        is_extra: bool,
    ) {
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

    /// Serves `fresh`; connections and settings are those of `old`, if it takes its place.
    fn serve_listener(
        &self,
        config: ListenerConfig,
        only_v6: bool,
        fresh: Fresh<Finished>,
        old: Option<&Serving>,
    ) -> Serving {
        let Fresh {
            socket: (bound, aside),
            readers,
            after,
            is_taken_over,
        } = fresh;
        if let Some(aside) = aside {
            aside.discard();
        }
        let metrics = &self.context.metrics;
        let metrics = metrics.listener(&config.name, &config.url.to_string());
        let address = bound.address();
        let receive_buffer = bound.receive_buffer();
        metrics.set_address(&address);
        metrics.receive_buffer.set(receive_buffer as u64);
        info!(listener = config.name, address, receive_buffer, "listening");
        // The kernel counts its own bookkeeping in, and reports twice what was asked for.
        if receive_buffer > 0 && receive_buffer / 2 < config.receive_buffer {
            warn!(
                listener = config.name,
                asked = config.receive_buffer,
                given = receive_buffer / 2,
                "receive buffer is smaller than configured; raise net.core.rmem_max"
            );
        }
        let sockets = bound.faint();
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
        let open = listen::serve(opening, self.context.clone(), self.fatal.clone());
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

    /// Waits for listeners whose last socket is being closed at this moment: it can neither be found nor be bound beside.
    pub(super) async fn let_sockets_close(&self) {
        for closing in &self.closing {
            if !closing.sockets.is_open()
                && timeout(CLOSE_MAX, closing.ended.cancelled()).await.is_err()
            {
                warn!(
                    listener = closing.name,
                    "the listener's sockets do not close; this is a fault of tersed"
                );
            }
        }
    }

    /// Does what was planned. Nothing fails.
    pub(super) fn carry_out(&mut self, plan: Plan<Finished>) {
        let mut old: Vec<Option<Serving>> = self.listeners.drain(..).map(Some).collect();
        let fate = |place| {
            let step = plan.steps.iter().find(|step| step.from == Some(place));
            step.map(|step| step.fresh.is_none())
        };
        // What is opened below may have the names of those that end.
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
        // New sockets, and so addresses that others leave.
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
                    let kept = kept.expect("a step without a socket has a listener that runs");
                    kept.config.send_replace(Arc::new(step.config));
                    kept
                }
            };
            serving.tell_who_goes();
            self.listeners.push(serving);
        }
        for (place, is_succeeded) in ending {
            let Some(running) = old[place].take() else {
                continue;
            };
            if !is_succeeded {
                info!(listener = running.metrics.name(), "closing");
                running.connections.stop();
            }
            let url = running.url();
            let has_moved =
                bound.iter().any(|bound| bound.overlaps(&url)) && !self.passed.has(&url);
            running.end(has_moved);
            self.closing.push(running.closing());
        }
        // What an earlier reload has left to close may have an address that is wanted again.
        for closing in &self.closing {
            let is_wanted = bound.iter().any(|bound| bound.overlaps(&closing.url));
            if is_wanted && !self.passed.has(&closing.url) {
                closing.sockets.leave_address();
            }
        }
    }
}

impl Serving {
    fn url(&self) -> ListenUrl {
        self.config.borrow().url.clone()
    }

    fn serves(&self, listener: &ListenerConfig) -> bool {
        let config = self.config.borrow();
        config.url == listener.url && config.name == listener.name
    }

    /// Ends it with the relay.
    pub(super) fn stop(&self) {
        self.open.stop.cancel();
        self.connections.stop();
    }

    /// Ends it, and not its connections. Another socket may have its address.
    fn end(&self, has_moved: bool) {
        if has_moved {
            self.open.is_moving.cancel();
            self.sockets.leave_address();
        }
        self.open.stop.cancel();
    }

    fn closing(&self) -> Closing {
        Closing {
            name: self.metrics.name().to_owned(),
            url: self.url(),
            sockets: self.sockets.clone(),
            ended: self.open.ended.clone(),
        }
    }

    /// Its Unix socket's path is gone, and is to be made again.
    fn has_lost_its_path(&self) -> bool {
        let Some(path) = self.sockets.path() else {
            return false;
        };
        let listener = self.metrics.name();
        match path.state() {
            PathState::Ours => false,
            PathState::Gone if path.is_passed() => {
                warn!(listener, path = %path.path().display(), "the path of the socket is gone; the service manager made \
                    it: restart the .socket unit");
                false
            }
            PathState::Gone => {
                info!(listener, path = %path.path().display(), "the path of the socket is gone; making it again");
                true
            }
            PathState::Foreign => {
                warn!(listener, path = %path.path().display(), "something else is at the path of the socket; remove it, \
                    and send SIGHUP to make the socket again");
                false
            }
        }
    }

    fn refuse_what_takes_a_restart(&self, listener: &ListenerConfig) -> Result<(), PlanError> {
        let old = self.config.borrow();
        for (changed, key) in [
            (old.unix_mode != listener.unix_mode, "listener.unix_mode"),
            (
                old.receive_buffer != listener.receive_buffer,
                "listener.receive_buffer",
            ),
        ] {
            if changed {
                let name = listener.name.clone();
                return Err(PlanError::Restart { name, key });
            }
        }
        Ok(())
    }

    /// Closes connections that may not stay by the settings in force, and tells how many.
    fn tell_who_goes(&self) {
        let config = Arc::clone(&self.config.borrow());
        let Stay {
            not_allowed,
            elsewhere,
            other_protocol,
        } = self.connections.stop_unfit(&config);
        let listener = self.metrics.name();
        if not_allowed > 0 {
            info!(
                listener,
                connections = not_allowed,
                "closing connections: allow does not name their peers any more"
            );
        }
        if elsewhere > 0 {
            info!(
                listener,
                connections = elsewhere,
                "closing connections: the listener left the address that they came to"
            );
        }
        if other_protocol > 0 {
            info!(
                listener,
                connections = other_protocol,
                "connections keep the protocol that they began with until they end"
            );
        }
    }
}

/// How long it may take to close a socket that nothing reads any more; it takes microseconds.
const CLOSE_MAX: Duration = Duration::from_secs(1);
