//! What the metrics and the log say about the spool.
//!
//! # Guarantees
//!
//! - After each call that changes it, the metrics say how full the spool is, how old its oldest frame, and what its disk
//!   refuses.
//!
//! # Left out
//!
//! Which lines are due: see `logged`.

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    LOG_PERIOD, Overflow,
    logged::percent,
    state::{State, Way},
};
use crate::{clock::Clock, config::WhenFull};

impl State {
    /// Logs that the way leads through memory, if the log said otherwise last. Not while the disk refuses: then the next
    /// chunks may have to wait for it.
    pub(super) fn log_memory(&mut self) {
        let is_memory = matches!(self.way, Way::Memory) && !self.disk.writing.refuses();
        if is_memory && self.log.way.enter_memory() {
            info!("forwarding from memory");
        }
    }
}

impl Overflow {
    /// Reports to the metrics how the spool is. Logs it if the spool fills up.
    pub(super) fn measure(&self) {
        let (octets, limit) = (self.spool.octets(), self.spool.max_octets());
        let (frames, oldest) = (self.spool.records(), self.spool.oldest());
        let spool = &self.metrics.spool;
        spool.octets.set(octets);
        spool.frames.set(frames);
        let micros = oldest.map_or(0, |at| u64::try_from(at.micros()).unwrap_or(0));
        spool.oldest.set(micros);
        let mut state = self.lock();
        spool.set_trouble(state.disk.trouble());
        let is_due = state.log.fill.is_due(octets, limit, Clock::now());
        drop(state);
        if is_due {
            let percent = percent(octets, limit);
            let when_full = match self.config.borrow().when_full {
                WhenFull::Wait => "wait: reading will pause when it is full",
                WhenFull::DropNewest => "drop-newest: new messages will be dropped when it is full",
                WhenFull::DropOldest => {
                    "drop-oldest: the oldest messages will be dropped when it is full"
                }
            };
            warn!(
                percent,
                octets,
                max_size = limit,
                frames,
                when_full,
                "spool is filling up"
            );
        }
    }

    /// Logs that the way leads over the spool from now on, and why. Call before it does.
    pub(super) fn log_spool(&self, state: &mut State) {
        let is_change = matches!(state.way, Way::Memory);
        if !is_change || !state.log.way.enter_spool() {
            return;
        }
        let queued_octets = self.queue.octets();
        let is_half_full = queued_octets > self.queue.bound() / 2;
        let is_full = is_half_full || self.queue.is_pressed();
        let why = match (state.upstreams.are_up(), is_full) {
            (true, _) => {
                "the queue is half full: messages come faster than the upstream takes them"
            }
            (false, true) => "the queue is half full: no upstream is up",
            (false, false) => "no upstream is up",
        };
        let frames = self.spool.records();
        info!(
            why,
            queued_octets,
            queue = self.queue.bound(),
            spooled_frames = frames,
            spooled_octets = self.spool.octets(),
            max_size = self.spool.max_octets(),
            "forwarding over the spool"
        );
    }

    /// Logs how many frames were dropped since the last such line, unless that was a moment ago.
    pub(super) fn log_dropped(&self) {
        let mut state = self.lock();
        let log = &mut state.log;
        let is_due = log
            .dropped_logged_at
            .is_none_or(|at| at.elapsed() >= LOG_PERIOD || self.queue.is_closed());
        if log.dropped > 0 && is_due {
            let frames = std::mem::take(&mut log.dropped);
            log.dropped_logged_at = Some(Instant::now());
            error!(
                frames,
                "dropped the oldest frames because the spool is full"
            );
        }
    }
}
