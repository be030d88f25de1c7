//! Connections to other replicas' peer ports.

use std::sync::Arc;

use super::error::ForwardError;
use super::{Forward, Forwarded};
use crate::ownership::member::MemberId;
use crate::ownership::snapshot::Snapshot;

/// The other replicas, as this one reaches them. Cheap to clone.
#[derive(Clone)]
pub struct Peers(#[expect(dead_code, reason = "the connections come next")] Arc<Shared>);

struct Shared;

impl Peers {
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared))
    }

    /// Closes the connections to whoever is not present any more, or under another address: forwards under way end with
    /// [`ForwardError::Unknown`]. To be called with each topology.
    pub fn keep_only(&self, _topology: &Snapshot) {}

    /// Forwards one operation, together with all others of this worker to that member in this turn. On a worker.
    ///
    /// # Errors
    /// When there is no answer.
    #[expect(clippy::unused_async, reason = "the connections come next")]
    pub async fn forward(&self, _to: &MemberId, _address: &str, _forward: &Forward) -> Result<Forwarded, ForwardError> {
        Err(ForwardError::Refused)
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self::new()
    }
}
