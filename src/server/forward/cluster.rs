//! The other replicas, as operations see them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Forward, Forwarded};
use crate::ownership::member::MemberId;
use crate::rpc::failure::Failure;
use crate::server::handoff::Handoff;
use crate::server::peer::{ForwardError, Peers};

/// How long a caller should stay away when an owner takes no more: about what the calls that it has take.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// This replica's part in the cluster, and its connections to the others. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub handoff: Handoff,
    pub peers: Peers,
}

/// How a forward came back.
#[derive(Debug)]
pub enum Sent {
    Answer(Result<Bytes, Failure>),
    /// It surely did not run.
    TurnedAway,
    /// Nobody knows whether it ran.
    Unknown,
}

impl Cluster {
    #[must_use]
    pub fn new(handoff: Handoff, peers: Peers) -> Self {
        Self { handoff, peers }
    }

    /// Rule 16, after an operation that began at `since` was carried out and before its answer leaves.
    ///
    /// # Errors
    /// When this process stood still for too long.
    pub fn check_alive(&self, since: Instant) -> Result<(), Failure> {
        self.handoff.check_alive(since.into_std(), std::time::Instant::now())
    }

    /// Whether anybody owns keys.
    #[must_use]
    pub fn has_owners(&self) -> bool {
        self.handoff.topology().ring().entries() > 0
    }

    /// Forwards an operation to a member. The caller keeps the deadline.
    pub async fn send(&self, to: &MemberId, forward: &Forward) -> Sent {
        let topology = self.handoff.topology();
        let Some(member) = topology.present_as(&to.uid).filter(|member| member.id == *to) else {
            // The shards have another view than what is published: a moment later they will not.
            return Sent::TurnedAway;
        };
        let sent = self.peers.forward(to, &member.endpoint.peer, forward).await;
        let counts = &self.handoff.figures().forwards;
        let (count, sent) = match sent {
            Ok(Forwarded::Answer(answer)) => (&counts.sent, Sent::Answer(answer)),
            Ok(Forwarded::Moved) => (&counts.moved, Sent::TurnedAway),
            Err(ForwardError::Refused) => {
                self.handoff.refused_by(to);
                (&counts.refused, Sent::TurnedAway)
            }
            Err(ForwardError::Full) => {
                (&counts.refused, Sent::Answer(Err(Failure::Overloaded { retry_after: FULL_RETRY })))
            }
            Err(ForwardError::Unknown) => (&counts.unknown, Sent::Unknown),
        };
        count.fetch_add(1, Ordering::Relaxed);
        sent
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("handoff", &self.handoff).finish_non_exhaustive()
    }
}
