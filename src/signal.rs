//! Turns signals into events.
//!
//! # Guarantees
//!
//! - Signals are caught from the moment [`Signals::new`] returns. None is lost; several of one kind may become one event.
//!
//! # Left out
//!
//! Acting on events (see `daemon`). The standard library already ignores SIGPIPE.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

/// A request by a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// SIGTERM or SIGINT: drain and end.
    Stop,
    /// SIGHUP: read the configuration again, and open files anew.
    Reload,
}

/// The signals that are caught.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    ///
    /// A handler cannot be installed.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next event.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point without losing a signal.
    pub(crate) async fn next(&mut self) -> Event {
        select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.hangup.recv() => Event::Reload,
        }
    }
}
