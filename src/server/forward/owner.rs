//! The owner's side: what other replicas forward to this one. It runs here, waits here, or has moved; it is never forwarded on
//! (rule 6). It was counted, limited and let in where its client called, so here it passes no wall.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout_at};
use tonic::Code;

use super::lease::Leases;
use super::{Answered, Cannot, Forward, Forwarded, end_wait, here_alive, message_of, place_of};
use crate::cache::store::Mode;
use crate::ownership::Origin;
use crate::ownership::shard::Standing;
use crate::rpc::failure::Failure;
use crate::server::call::mode;
use crate::server::handoff::{Handoff, Verdict};
use crate::server::method::Method;
use crate::server::peer::CarryOut;
use crate::server::trace::{Kind, Outcome, Span, Traced, Tracer, names};
use crate::server::wall::Wall;

/// Carries out what peers forward.
#[derive(Clone, Debug)]
pub struct Owner(Arc<Wall>);

impl Owner {
    #[must_use]
    pub fn new(wall: &Arc<Wall>) -> Self {
        Self(Arc::clone(wall))
    }

    /// Tries it; none: it has to wait, for the reason given.
    fn attempt(&self, forward: &Forward, mode: Mode, now: Instant) -> Result<Forwarded, Cannot> {
        match here_alive(&self.0, forward, mode, now) {
            Ok(frame) => Ok(Forwarded::Answer(Ok(message_of(Answered::Frame(frame))))),
            Err(Cannot::Fail(failure)) => Ok(Forwarded::Answer(Err(failure))),
            Err(Cannot::Elsewhere(Standing::Other(_) | Standing::Nobody)) if has_no_key(forward.method) => {
                Ok(Forwarded::Moved)
            }
            Err(cannot) => Err(cannot),
        }
    }

    fn count(&self, forward: &Forward, forwarded: &Forwarded) {
        self.0.metrics.carry_out(forward.method, forwarded);
        if let Some(cluster) = &self.0.cluster {
            cluster.handoff.figures().forwards.received.fetch_add(1, Ordering::Relaxed);
        }
        if tracing::enabled!(target: "larder::access", tracing::Level::DEBUG) {
            log(forward, forwarded);
        }
        if let Traced::Recorded(span) = &forward.trace {
            self.end_span(span, forward, forwarded);
        }
    }

    #[cold]
    fn begin_span(tracer: &Tracer, forward: &mut Forward) {
        // Without a word from its caller it is not recorded: there it was drawn.
        let Traced::Passed(from) = std::mem::take(&mut forward.trace) else { return };
        forward.trace = tracer.server(forward.method.traits().name, Some(from));
        let Some(span) = forward.trace.span() else { return };
        let account = forward.payer.as_ref().map_or(&forward.space, |(id, _)| id);
        span.note(names::SYSTEM, "grpc");
        span.note(names::METHOD, forward.method.traits().name);
        span.note(names::HOP, 1);
        span.note(names::ACCOUNT, account.to_string());
        if forward.dry_run {
            span.note(names::DRY_RUN, true);
        }
    }

    #[cold]
    fn end_span(&self, span: &Span, forward: &Forward, forwarded: &Forwarded) {
        if let Some(cluster) = &self.0.cluster {
            span.note(names::TOPOLOGY, cluster.digest());
            if let (Forwarded::Answer(_), Some(me)) = (forwarded, cluster.address()) {
                span.note(names::OWNER, me);
            }
        }
        let code = match forwarded {
            Forwarded::Answer(answer) => answer.as_ref().err().map_or(Code::Ok, Failure::code),
            Forwarded::Moved => {
                span.outcome(Outcome::Moved);
                Code::Ok
            }
        };
        if let Some(outcome) = Outcome::of_read(forward.method, code) {
            span.outcome_unless_known(outcome);
        }
        span.end(code);
    }

    async fn wait(&self, forward: &Forward, mut cannot: Cannot) -> Forwarded {
        let Some(cluster) = &self.0.cluster else { return Forwarded::Moved };
        let mut leases = Leases::new(forward);
        loop {
            let waited = match cannot {
                Cannot::Lease { account, keys, bytes } => {
                    leases.ask(&self.0, cluster, forward, (account, keys, bytes)).await.map(|()| None)
                }
                Cannot::Elsewhere(_) => self.settle(&cluster.handoff, forward, leases.mode()).await,
                Cannot::Fail(failure) => Err(failure),
            };
            match waited {
                Ok(None) => {}
                Ok(Some(forwarded)) => return forwarded,
                Err(failure) => return Forwarded::Answer(Err(failure)),
            }
            match self.attempt(forward, leases.mode(), Instant::now()) {
                Ok(forwarded) => return forwarded,
                Err(again) => cannot = again,
            }
        }
    }

    /// Waits until the key is this replica's, and runs the operation; none: ask the shard again.
    async fn settle(&self, handoff: &Handoff, forward: &Forward, mode: Mode) -> Result<Option<Forwarded>, Failure> {
        let mut ticket = handoff.submit(place_of(forward)?, Origin::Peer)?;
        let waiting = forward.trace.child(Kind::Internal, names::WAIT);
        let verdict = ticket.verdict().await;
        end_wait(&waiting, &verdict);
        Ok(match verdict {
            // While the ticket lives, so that the key stays resolved.
            Verdict::Run => {
                forward.trace.outcome(Outcome::Fetched);
                self.attempt(forward, mode, Instant::now()).ok()
            }
            Verdict::Moved | Verdict::Forward(_) | Verdict::Unknown | Verdict::Fenced => Some(Forwarded::Moved),
        })
    }
}

impl CarryOut for Owner {
    fn take_up(&self, forward: &mut Forward) {
        if let (Some(tracer), Traced::Passed(_)) = (&self.0.tracer, &forward.trace) {
            Self::begin_span(tracer, forward);
        }
    }

    fn try_now(&self, forward: &Forward, now: Instant) -> Option<Forwarded> {
        let outcome = if forward.deadline.is_some_and(|deadline| now >= deadline) {
            Some(Forwarded::Answer(Err(Failure::DeadlineExceeded)))
        } else {
            self.attempt(forward, mode(forward.dry_run), now).ok()
        };
        if let Some(forwarded) = &outcome {
            self.count(forward, forwarded);
        }
        outcome
    }

    fn carry_out(&self, forward: Forward) -> Pin<Box<dyn Future<Output = Forwarded> + Send>> {
        let owner = self.clone();
        Box::pin(async move {
            let run = async {
                match owner.attempt(&forward, mode(forward.dry_run), Instant::now()) {
                    Ok(forwarded) => forwarded,
                    Err(cannot) => owner.wait(&forward, cannot).await,
                }
            };
            let forwarded = match forward.deadline {
                Some(deadline) => {
                    let late = Forwarded::Answer(Err(Failure::DeadlineExceeded));
                    timeout_at(deadline, run).await.unwrap_or(late)
                }
                None => run.await,
            };
            owner.count(&forward, &forwarded);
            forwarded
        })
    }
}

#[cold]
fn log(forward: &Forward, forwarded: &Forwarded) {
    let code = match forwarded {
        Forwarded::Answer(answer) => Some(answer.as_ref().err().map_or(Code::Ok, Failure::code)),
        Forwarded::Moved => None,
    };
    let left = forward.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    tracing::debug!(
        target: "larder::access",
        method = forward.method.traits().name,
        code = ?code,
        space = %forward.space,
        deadline_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        trace_id = forward.trace.trace_id(),
        span_id = forward.trace.span_id(),
        dry_run = forward.dry_run.then_some(true),
        "carried out for another replica"
    );
}

/// Whether it is a step of a walk, which waits at the replica that asks.
fn has_no_key(method: Method) -> bool {
    matches!(method, Method::PeerDumpPage | Method::PeerClearPage | Method::PeerUsage)
}
