//! Signals in, events out.
//!
//! # Guarantees
//!
//! - Signals are caught from the moment [`Signals::new`] returns; none is lost, several of one kind may
//!   become one event.
//!
//! # Left out
//!
//! What is done about them (see `daemon`). SIGPIPE is ignored by the standard library already.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

/// What somebody asks for by a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// SIGTERM or SIGINT: drain and end.
    Stop,
    /// SIGHUP: read the configuration again, and open files anew.
    Reload,
}

/// The signals that are listened to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    ///
    /// The handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next event.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any point; no signal is lost by it.
    pub async fn next(&mut self) -> Event {
        select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.hangup.recv() => Event::Reload,
        }
    }
}
