//! What all lanes of a forwarder share.

use std::sync::Arc;

use super::{source::Source, stopping::Stopping};
use crate::{
    delivery::{custody::Custody, ledger::Ledger},
    metrics::Metrics,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) source: Source,
    pub(super) ledger: Arc<Ledger>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) custody: Arc<Custody>,
    pub(super) stop: Stopping,
}
