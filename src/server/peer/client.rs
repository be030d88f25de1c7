//! Connections to other replicas' peer ports.

use std::sync::{Arc, OnceLock};

use super::desk::{Desk, Reply};
use super::error::{CallError, ForwardError};
use super::{Forward, Forwarded};
use crate::cache::store::Name;
use crate::ownership::member::MemberId;
use crate::ownership::message::{Request, Stamp};
use crate::ownership::snapshot::Snapshot;
use crate::server::clock::Clock;
use crate::server::tls::Tls;

/// The other replicas, as this one reaches them. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

/// What this replica's connections to the others need.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// The cluster's name; others of another are strangers.
    pub cluster: String,
    /// `None`: plain text.
    pub tls: Option<Tls>,
    /// What times to live are told by.
    pub clock: Clock,
}

struct Shared {
    #[expect(dead_code, reason = "the connections come next")]
    config: PeersConfig,
    desk: OnceLock<Arc<dyn Desk>>,
}

impl Peers {
    /// Nobody is reached before [`Self::attach`].
    #[must_use]
    pub fn new(config: PeersConfig) -> Self {
        Self(Arc::new(Shared { config, desk: OnceLock::new() }))
    }

    /// Whose stamps forwards carry, and who takes those of their answers. Once, before the first forward.
    pub fn attach(&self, desk: Arc<dyn Desk>) {
        let first = self.0.desk.set(desk).is_ok();
        debug_assert!(first, "a replica has one desk");
    }

    /// Closes the connections to whoever is not present any more, or under another address: forwards under way end with
    /// [`ForwardError::Unknown`]. To be called with each topology.
    pub fn keep_only(&self, _topology: &Snapshot) {}

    /// Says one message of the hand-off. `address` is that of the peer port. On the hand-off's thread.
    ///
    /// # Errors
    /// When there is no answer. The caller repeats what may be repeated.
    #[expect(clippy::unused_async, reason = "the connections come next")]
    pub async fn call(&self, _address: &str, _stamp: Stamp, _request: Request<Name>) -> Result<Reply, CallError> {
        Err(CallError::Lost)
    }

    /// Forwards one operation, together with all others of this worker to that member in this turn. On a worker.
    ///
    /// # Errors
    /// When there is no answer.
    #[expect(clippy::unused_async, reason = "the connections come next")]
    pub async fn forward(&self, _to: &MemberId, _address: &str, _forward: &Forward) -> Result<Forwarded, ForwardError> {
        Err(ForwardError::Refused)
    }
}
