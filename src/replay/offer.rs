//! Offers: one line of a log, as the trials take it.

use crate::core::dedup::Sighting;
use crate::core::identity::{Identity, Origin, Sender};
use crate::core::parse::Message;
use crate::core::rule::{PolicyId, Rules};
use crate::core::tick::Tick;

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
