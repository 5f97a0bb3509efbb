//! What a reload will do with listeners: found out, prepared, and only then done (see `listeners`).
//!
//! ```text
//! wanted by a configuration        has it                            becomes of it
//! same name and URL                a listener that runs              kept; new settings
//! same socket (tcp, relp; a name)  one that runs or is just closing  its socket, and connections if it runs
//! same port (address, family)      one that runs                     a new socket
//! anything else                                                      a new socket
//! ```
//!
//! That decides about sockets. Each connection goes to the listener that has its address then, whichever that is.
//!
//! # Guarantees
//!
//! - Everything that can fail comes before the first change: [`Plan::of`] binds what disturbs nothing, [`Plan::finish`]
//!   lets new sockets receive, and then nothing fails.
//! - Closed listeners whose readers wait at a full queue do not pile up with each reload.
//! - No listener of this relay is called another process.
//!
//! # Left out
//!
//! Doing it.

use std::io;

use tokio_util::sync::CancellationToken;

use super::{Daemon, listeners::Serving, reload::TakesRestart};
use crate::{
    config::{Config, ListenerConfig, takes_only_v6},
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
    Restart { name: String, source: TakesRestart },
    #[error(
        "{closed} listeners that earlier reloads closed are still being read, because the queue to the upstream is full, and \
         each holds sockets and threads; fits: at most {max} before another listener is opened or moved. Make the upstream \
         take messages, or name one that does by a reload that leaves the listeners as they are; then send SIGHUP again"
    )]
    StillRead { closed: usize, max: usize },
    #[error("listener \"{0}\" has ended by itself")]
    Ended(String),
}

/// What a reload will do with listeners, whose new sockets are `S`.
pub(super) struct Plan<S> {
    pub(super) steps: Vec<Step<S>>,
}

/// Sockets that receive, and what stood in their place.
pub(super) type Finished = (Bound, Option<MovedPath>);

/// What becomes of one wanted listener.
pub(super) struct Step<S> {
    pub(super) config: ListenerConfig,
    pub(super) only_v6: bool,
    /// The running listener whose place it takes, or which it is.
    pub(super) from: Option<usize>,
    /// `None` if that one is kept as it is.
    pub(super) fresh: Option<Fresh<S>>,
}

/// Sockets for a listener.
pub(super) struct Fresh<S> {
    pub(super) socket: S,
    pub(super) readers: Vec<Waiting>,
    /// What ends when those have ended whose datagrams come first.
    pub(super) after: Vec<CancellationToken>,
    /// They were read before.
    pub(super) is_taken_over: bool,
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
        // A start would be refused, too.
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

impl Daemon {
    /// Refuses to close yet another listener of datagrams while many wait at a full queue: none of them would go.
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

/// A listener that does not let everybody in.
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

/// Closed listeners of datagrams that are still being read, beyond which a reload closes no more: as many as run, and
/// at least this.
const STILL_READ_MAX: usize = 16;
