//! Offers: one line of a log, as the trials take it.

use crate::dedup::Sighting;
use crate::identity::{Identity, Origin, Sender};
use crate::parse::Message;
use crate::rule::{PolicyId, Rules};
use crate::tick::Tick;

/// One line of a log, parsed and identified as the rules configure it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'o, 'f> {
    pub(super) rules: &'o Rules,
    pub(super) policy: PolicyId,
    pub(super) message: &'o Message<'f>,
    pub(super) identity: Identity<'o>,
    pub(super) sighting: Sighting<'o>,
    pub(super) now: Tick,
}

/// The sender of all lines is on this host, and they reach no listener that a rule could name.
pub(super) const ORIGIN: Origin<'static> = Origin {
    sender: Sender::Local,
    listener: "",
};
