//! The other replicas, as operations see them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Code;

use super::{Forward, Forwarded};
use crate::ownership::member::{Endpoint, MemberId};
use crate::rpc::failure::Failure;
use crate::server::handoff::Handoff;
use crate::server::peer::{ForwardError, Peers};
use crate::server::trace::{Kind, Outcome, Span, Traced, names};

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

    /// Of the view of the members, as text.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{:?}", self.handoff.topology().digest())
    }

    /// This replica's place on the ring; none while it is in nobody's view.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        let (topology, me) = (self.handoff.topology(), self.handoff.me());
        topology.present_as(&me.uid).map(|member| member.endpoint.address.to_string())
    }

    /// Forwards an operation to a member. The caller keeps the deadline.
    pub async fn send(&self, to: &MemberId, forward: &Forward) -> Sent {
        let topology = self.handoff.topology();
        let Some(member) = topology.present_as(&to.uid).filter(|member| member.id == *to) else {
            // The shards have another view than what is published: a moment later they will not.
            return Sent::TurnedAway;
        };
        let sent = match &forward.trace {
            Traced::Recorded(span) => self.send_traced(to, &member.endpoint, forward, span).await,
            Traced::No | Traced::Passed(_) => self.peers.forward(to, &member.endpoint.peer, forward).await,
        };
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

    /// The same with a span of its own, which the owner's is a child of.
    async fn send_traced(
        &self,
        to: &MemberId,
        endpoint: &Endpoint,
        forward: &Forward,
        span: &Span,
    ) -> Result<Forwarded, ForwardError> {
        let way = span.child(Kind::Client, names::FORWARD);
        way.note(names::SYSTEM, "grpc");
        way.note(names::METHOD, names::FORWARD);
        way.note(names::OWNER, endpoint.address.to_string());
        way.note(names::TOPOLOGY, self.digest());
        if let Some((host, port)) = endpoint.peer.rsplit_once(':') {
            way.note(names::SERVER_ADDRESS, host.trim_matches(['[', ']']).to_owned());
            way.note(names::SERVER_PORT, port.parse().unwrap_or(0_i64));
        }
        let forward = Forward { trace: Traced::Recorded(way.clone()), ..forward.clone() };
        let sent = self.peers.forward(to, &endpoint.peer, &forward).await;
        let (outcome, code) = match &sent {
            Ok(Forwarded::Answer(answer)) => (None, answer.as_ref().err().map_or(Code::Ok, Failure::code)),
            Ok(Forwarded::Moved) => (Some(Outcome::Moved), Code::Ok),
            Err(ForwardError::Refused) => (Some(Outcome::Refused), Code::Unavailable),
            Err(ForwardError::Full) => (Some(Outcome::Refused), Code::ResourceExhausted),
            Err(ForwardError::Unknown) => (Some(Outcome::Unknown), Code::Unavailable),
        };
        match outcome {
            Some(outcome) => way.outcome(outcome),
            None => span.forwarded(endpoint.address.to_string()),
        }
        way.end(code);
        sent
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("handoff", &self.handoff).finish_non_exhaustive()
    }
}
