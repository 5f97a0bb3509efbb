//! The upstream in charge of a lane: its place in the list, the connection to it, and what that has shown.

use std::sync::Arc;

use super::{
    connection::Connection, encode::Encoder, evidence::Evidence, shared::Shared, standing::Standing,
};
use crate::core::tick::Tick;

/// The upstream in charge and the connection to it.
#[derive(Debug)]
pub(super) struct Active {
    /// Its place in the lane's list.
    pub(super) index: usize,
    pub(super) connection: Connection,
    pub(super) encoder: Encoder,
    pub(super) evidence: Evidence,
    _in_charge: InCharge,
}

/// Tells the source that this lane has an upstream in charge, until dropped.
#[derive(Debug)]
struct InCharge(Arc<Shared>);

impl InCharge {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.source.lane_up(true);
        Self(Arc::clone(shared))
    }
}

impl Drop for InCharge {
    fn drop(&mut self) {
        self.0.source.lane_up(false);
    }
}

impl Active {
    /// Puts upstream `index`, of this `standing`, in charge.
    pub(super) fn new(
        index: usize,
        connection: Connection,
        encoder: Encoder,
        standing: &Standing,
        shared: &Arc<Shared>,
        now: Tick,
    ) -> Self {
        let probation = connection.probation(standing);
        Self {
            index,
            connection,
            encoder,
            evidence: Evidence::new(standing, probation, shared, now),
            _in_charge: InCharge::new(shared),
        }
    }
}
