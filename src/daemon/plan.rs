//! Plans what a reload does with listeners, and prepares it. `listeners` then carries the plan out.
//!
//! ```text
//! a wanted listener has the        of                                it gets
//! same name and URL                a listener that runs              kept; new settings
//! same socket (tcp, relp; a name)  one that runs or is just closing  its socket, and connections if it runs
//! same port (address, family)      one that runs                     a new socket
//! anything else                                                      a new socket
//! ```
//!
//! This decides about sockets only. Each connection goes to the listener that has its address afterwards.
//!
//! # Guarantees
//!
//! - Everything that can fail comes before the first change: [`Plan::of`] binds what disturbs nothing, and
//!   [`Plan::finish`] lets new sockets receive. After that nothing fails.
//! - Closed listeners whose readers wait at a full queue do not pile up with each reload.
//! - An error never takes a listener of this relay for another process.
//!
//! # Left out
//!
//! Carrying the plan out (`listeners`).

use std::io;

use tokio_util::sync::CancellationToken;

use super::{Daemon, needs_restart::NeedsRestart, serving::Serving};
use crate::{
    config::{Config, ListenerConfig, size_text, takes_only_v6},
    listen::{BindError, Bound, Circumstances, MovedPath, Prepared, Rival},
    thread::Waiting,
};

/// Why listeners cannot be opened at a reload.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("listener \"{name}\": {source}")]
    Threads { name: String, source: io::Error },
    #[error("listener \"{name}\": {source}")]
    Restart { name: String, source: NeedsRestart },
    #[error(
        "the queue is full, so {closed} listeners that earlier reloads closed are still being read and hold sockets and \
         threads; at most {max} are allowed before another listener is opened or moved. Fix the upstream, or reload with \
         another upstream and the listeners unchanged; then send SIGHUP again"
    )]
    StillRead { closed: usize, max: usize },
    #[error("listener \"{0}\" has ended by itself")]
    Ended(String),
}

/// What a reload does with each wanted listener. `S` is the type of new sockets.
pub(super) struct Plan<S> {
    pub(super) steps: Vec<Step<S>>,
}

/// Sockets that receive, and the path that was moved away for them.
pub(super) type Finished = (Bound, Option<MovedPath>);

/// What the reload does for one wanted listener.
pub(super) struct Step<S> {
    pub(super) config: ListenerConfig,
    pub(super) only_v6: bool,
    /// Index of the running listener that it is, or replaces.
    pub(super) from: Option<usize>,
    /// `None` if the running listener is kept.
    pub(super) fresh: Option<Fresh<S>>,
}

/// Sockets for a listener.
pub(super) struct Fresh<S> {
    pub(super) socket: S,
    pub(super) readers: Vec<Waiting>,
    /// One for each listener whose datagrams must be read first; cancelled when that listener has ended.
    pub(super) after: Vec<CancellationToken>,
    /// Another listener read these sockets before.
    pub(super) is_taken_over: bool,
}

/// How a wanted listener relates to a running one, given by its index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// It is the running one.
    Kept(usize),
    /// It takes over the running one's socket.
    Shared(usize),
    /// It takes over the running one's address, with a socket of its own.
    Moved(usize),
    New,
}

impl Origin {
    const fn place(self) -> Option<usize> {
        match self {
            Self::Kept(place) | Self::Shared(place) | Self::Moved(place) => Some(place),
            Self::New => None,
        }
    }

    /// The origin of each of `wanted`. No running listener is the origin of two.
    fn all(wanted: &[ListenerConfig], running: &[Serving]) -> Vec<Self> {
        type Rule = (
            fn(usize) -> Origin,
            fn(&Serving, &ListenerConfig, bool) -> bool,
        );
        let rules: [Rule; 4] = [
            (Self::Kept, |running, wanted, only_v6| {
                running.serves(wanted) && running.only_v6 == only_v6
            }),
            (Self::Shared, |running, wanted, only_v6| {
                wanted.url.has_socket_of(&running.url()) && running.only_v6 == only_v6
            }),
            (Self::Moved, |running, wanted, _| {
                wanted.url.has_socket_of(&running.url()) && !running.is_extra
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
        // A start would refuse this, too.
        if let (Some((_, unnamed)), Some(listener)) = (unnamed, restricted_listener(config)) {
            return Err(PlanError::Bind(BindError::Unnamed {
                url: unnamed.url(),
                listener,
            }));
        }
        daemon
            .closing
            .retain(|closing| !closing.ended.is_cancelled());
        daemon.refuse_to_pile_up(&origins)?;
        let mut steps = Vec::with_capacity(origins.len());
        for (listener, &origin) in config.listeners.iter().zip(&origins) {
            let only_v6 = takes_only_v6(&listener.url, &config.listeners);
            let fresh = match origin {
                Origin::Kept(place) => {
                    daemon.listeners[place].refuse_what_needs_a_restart(listener)?;
                    None
                }
                Origin::Shared(place) => {
                    let old = &daemon.listeners[place];
                    old.refuse_what_needs_a_restart(listener)?;
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

    /// Takes over the sockets of `old`.
    fn share(old: &Serving, listener: &ListenerConfig) -> Result<Fresh<Prepared>, PlanError> {
        let bound = old.sockets.upgrade();
        // A listener that ended by itself is fatal: the relay is about to stop.
        let bound = bound.ok_or_else(|| PlanError::Ended(old.metrics.name().to_owned()))?;
        let prepared = Prepared::taking_over(listener, bound);
        Ok(Fresh {
            readers: readers(&prepared, listener)?,
            socket: prepared,
            after: vec![old.open.ended.clone()],
            is_taken_over: true,
        })
    }

    /// Makes sockets while others that will give the address up still have it.
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
            // A passed-in socket stays open after its listener closes.
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

    /// Lets all new sockets receive: the last step that can fail.
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

impl Daemon {
    /// Refuses to close another datagram listener while many closed ones still wait at a full queue.
    fn refuse_to_pile_up(&self, origins: &[Origin]) -> Result<(), PlanError> {
        let closes = self.listeners.iter().enumerate().any(|(place, running)| {
            let is_kept = running.is_extra || origins.contains(&Origin::Kept(place));
            !is_kept && !running.url().is_stream()
        });
        let closing = self.closing.iter();
        let closed = closing.filter(|closing| !closing.url.is_stream()).count();
        let max = STILL_READ_MAX.max(self.listeners.len());
        if closes && closed >= max {
            return Err(PlanError::StillRead { closed, max });
        }
        Ok(())
    }
}

impl Serving {
    /// Refuses `listener` if only a restart can change its sockets to it.
    fn refuse_what_needs_a_restart(&self, listener: &ListenerConfig) -> Result<(), PlanError> {
        let old = self.config.borrow();
        let mode = |listener: &ListenerConfig| format!("\"{:04o}\"", listener.unix_mode);
        let buffer = |listener: &ListenerConfig| size_text(listener.receive_buffer);
        let changed = NeedsRestart::refuse([
            ("unix_mode", mode(&old), mode(listener)),
            ("receive_buffer", buffer(&old), buffer(listener)),
        ]);
        changed.map_err(|source| PlanError::Restart {
            name: listener.name.clone(),
            source,
        })
    }
}

/// The name of a listener that restricts its senders by `allow`.
pub(super) fn restricted_listener(config: &Config) -> Option<String> {
    let mut listeners = config.listeners.iter();
    let restricted_listener = listeners.find(|listener| !listener.allow.is_empty());
    restricted_listener.map(|listener| listener.name.clone())
}

fn readers(prepared: &Prepared, listener: &ListenerConfig) -> Result<Vec<Waiting>, PlanError> {
    let readers = prepared.readers();
    readers.map_err(|source| PlanError::Threads {
        name: listener.name.clone(),
        source,
    })
}

/// The limit of closed datagram listeners that are still being read; it is raised to the number of running listeners.
const STILL_READ_MAX: usize = 16;
