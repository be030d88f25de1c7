//! One way to carry out an operation anywhere in the cluster.
//!
//! First it is tried here, under its shard's lock ([`here::run`], or the call's own fast way). What is another's is forwarded
//! to the owner, once, by this replica's own topology, without asking anybody. Only what is turned away, or waits for a key to
//! become somebody's, goes through the hand-off's thread, whose verdicts are followed ([`carry_out`]). All of it ends at the
//! operation's deadline.
//!
//! An operation runs at most once, unless running it twice is running it once: when a forward is lost so that nobody knows
//! whether it was applied, it is tried again only if it changes nothing or has a request id.
//!
//! Not here: how forwards travel (`peer`), who owns what (`ownership`), and what operations do (`service`).

mod abroad;
mod cluster;
mod here;
mod lease;
mod owner;
mod raw;

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

pub use self::abroad::{Abroad, Fields, Item};
pub use self::cluster::{Cluster, Sent};
pub use self::here::{Cannot, run};
use self::lease::Leases;
pub use self::owner::Owner;
pub use self::raw::{Messages, operation};
use super::answer::Answered;
use super::call::mode;
use super::codec::PREFIX_BYTES;
use super::handoff::Verdict;
use super::method::Method;
pub use super::peer::{Forward, Forwarded};
use super::trace::{Kind, Outcome, Traced, names};
use super::wall::Wall;
use crate::cache::key::Key;
use crate::cache::route::route_hash;
use crate::cache::store::{Mode, Name, Place};
use crate::ownership::Origin;
use crate::ownership::member::MemberId;
use crate::ownership::shard::Standing;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// An operation on its way.
struct Journey<'a> {
    wall: &'a Wall,
    cluster: &'a Cluster,
    forward: &'a Forward,
}

/// What became of one attempt.
enum Attempt {
    Over(Result<Answered, Failure>),
    /// It did not run.
    TurnedAway,
    /// Nobody knows whether it ran, and it may run again.
    Unknown,
}

/// Carries an operation out, here or elsewhere.
///
/// # Errors
/// Whatever it may fail with.
pub async fn anywhere(wall: &Wall, forward: &Forward) -> Result<Answered, Failure> {
    match here_alive(wall, forward, mode(forward.dry_run), Instant::now()) {
        Ok(frame) => Ok(Answered::Frame(frame)),
        Err(cannot) => carry_out(wall, forward, cannot).await,
    }
}

/// Carries an operation out that this replica could not when it was asked, for the reason given.
///
/// # Errors
/// Whatever it may fail with; [`Failure::NoOwner`] when there was nobody whose key it could have been until its deadline.
pub async fn carry_out(wall: &Wall, forward: &Forward, cannot: Cannot) -> Result<Answered, Failure> {
    // Without others everything is this replica's.
    let Some(cluster) = &wall.cluster else { return Err(alone(cannot)) };
    let journey = Journey { wall, cluster, forward };
    let Some(deadline) = forward.deadline else { return journey.go(cannot).await };
    match timeout_at(deadline, journey.go(cannot)).await {
        Ok(outcome) => outcome,
        Err(_) if cluster.has_owners() => Err(Failure::DeadlineExceeded),
        Err(_) => Err(Failure::NoOwner),
    }
}

/// Tries it here; what this replica did while it stood still for too long does not count (rule 16).
fn here_alive(wall: &Wall, forward: &Forward, mode: Mode, since: Instant) -> Result<Bytes, Cannot> {
    let outcome = forward.trace.watch(|| run(wall, forward, mode, since));
    if let (Some(cluster), Ok(_) | Err(Cannot::Fail(_))) = (&wall.cluster, &outcome) {
        cluster.check_alive(since).map_err(Cannot::Fail)?;
    }
    outcome
}

impl Journey<'_> {
    async fn go(&self, cannot: Cannot) -> Result<Answered, Failure> {
        match cannot {
            Cannot::Fail(failure) => return Err(failure),
            Cannot::Lease { .. } => {
                if let Attempt::Over(outcome) = self.here(Some(cannot)).await {
                    return outcome;
                }
            }
            Cannot::Elsewhere(Standing::Other(owner)) => {
                if let Attempt::Over(outcome) = self.there(&owner).await {
                    return outcome;
                }
            }
            Cannot::Elsewhere(_) => {}
        }
        let place = place_of(self.forward)?;
        loop {
            if let Some(outcome) = self.wait(place.clone()).await? {
                return outcome;
            }
        }
    }

    /// Follows the hand-off's verdicts until one ticket's end; none: it must be submitted again.
    async fn wait(&self, place: Place) -> Result<Option<Result<Answered, Failure>>, Failure> {
        let mut ticket = self.cluster.handoff.submit(place, Origin::Client)?;
        loop {
            let waiting = self.forward.trace.child(Kind::Internal, names::WAIT);
            let verdict = ticket.verdict().await;
            end_wait(&waiting, &verdict);
            match verdict {
                // The ticket lives until the operation ran: until then the key stays resolved.
                Verdict::Run => match self.here(None).await {
                    Attempt::Over(outcome) => {
                        self.forward.trace.outcome(Outcome::Fetched);
                        return Ok(Some(outcome));
                    }
                    Attempt::TurnedAway | Attempt::Unknown => ticket.again(),
                },
                Verdict::Forward(to) => match self.there(&to).await {
                    Attempt::Over(outcome) => return Ok(Some(outcome)),
                    Attempt::TurnedAway | Attempt::Unknown => ticket.turned_away(),
                },
                // Never said to a client's operation; it did not run in any case.
                Verdict::Moved => return Ok(None),
                Verdict::Unknown => {
                    self.unknown()?;
                    return Ok(None);
                }
                Verdict::Fenced => return Err(Failure::Starting),
            }
        }
    }

    /// Runs it here, with leases as it needs them.
    async fn here(&self, mut known: Option<Cannot>) -> Attempt {
        let mut leases = Leases::new(self.forward);
        loop {
            let cannot = match known.take() {
                Some(cannot) => cannot,
                None => match here_alive(self.wall, self.forward, leases.mode(), Instant::now()) {
                    Ok(frame) => return Attempt::Over(Ok(Answered::Frame(frame))),
                    Err(cannot) => cannot,
                },
            };
            match cannot {
                Cannot::Fail(failure) => return Attempt::Over(Err(failure)),
                Cannot::Elsewhere(_) => return Attempt::TurnedAway,
                Cannot::Lease { account, keys, bytes } => {
                    let lacks = (account, keys, bytes);
                    if let Err(failure) = leases.ask(self.wall, self.cluster, self.forward, lacks).await {
                        return Attempt::Over(Err(failure));
                    }
                }
            }
        }
    }

    async fn there(&self, owner: &MemberId) -> Attempt {
        match self.cluster.send(owner, self.forward).await {
            Sent::Answer(answer) => Attempt::Over(answer.map(Answered::Message)),
            Sent::TurnedAway => Attempt::TurnedAway,
            Sent::Unknown => match self.unknown() {
                Ok(()) => Attempt::Unknown,
                Err(failure) => Attempt::Over(Err(failure)),
            },
        }
    }

    /// Whether an operation of which nobody knows whether it ran may run again (rule 6).
    fn unknown(&self) -> Result<(), Failure> {
        match repeat_of(self.forward) {
            Repeat::Freely => Ok(()),
            Repeat::ByItsClient { idempotent } => Err(Failure::AppliedUnknown { idempotent }),
        }
    }
}

/// Who may run an operation again that may have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Larder itself: it changes nothing, or the counter remembers that it ran.
    Freely,
    /// Its client, who knows whether another's write in between matters.
    ByItsClient { idempotent: bool },
}

fn repeat_of(forward: &Forward) -> Repeat {
    fn idempotent<M: prost::Message + Default>(message: &Bytes, is: impl FnOnce(&M) -> bool) -> Repeat {
        Repeat::ByItsClient { idempotent: convert::decode(message.clone()).is_ok_and(|request| is(&request)) }
    }
    if forward.dry_run {
        return Repeat::Freely;
    }
    let message = &forward.message;
    match forward.method {
        Method::Get | Method::TutorialGet | Method::PeerDumpPage | Method::PeerUsage => Repeat::Freely,
        Method::Increment => match idempotent(message, |request: &v1::IncrementRequest| !request.request_id.is_empty())
        {
            Repeat::ByItsClient { idempotent: true } => Repeat::Freely,
            other => other,
        },
        Method::Store => idempotent(message, |request: &v1::StoreRequest| request.condition == 0),
        Method::Delete => idempotent(message, |request: &v1::DeleteRequest| request.if_version == 0),
        Method::Touch => idempotent(message, |request: &v1::TouchRequest| request.mode == 0),
        method => Repeat::ByItsClient { idempotent: method.traits().idempotent },
    }
}

/// A span of waiting for the hand-off is over.
fn end_wait(waiting: &Traced, verdict: &Verdict) {
    let Some(span) = waiting.span() else { return };
    span.outcome(match verdict {
        Verdict::Run => Outcome::Fetched,
        Verdict::Forward(_) => Outcome::Forwarded,
        Verdict::Moved => Outcome::Moved,
        Verdict::Unknown => Outcome::Unknown,
        Verdict::Fenced => Outcome::Refused,
    });
    span.end_without_code();
}

/// Where the key of an operation lies. Its messages all have the key as field 1.
fn place_of(forward: &Forward) -> Result<Place, Failure> {
    let request: v1::GetRequest = convert::decode(raw::first_field(&forward.message))?;
    let hash = route_hash(&forward.space, Key::new(&request.key)?);
    Ok(Place { hash, key: Name { space: forward.space.clone(), key: Arc::from(request.key) } })
}

/// What a replica without others says.
fn alone(cannot: Cannot) -> Failure {
    match cannot {
        Cannot::Fail(failure) => failure,
        Cannot::Elsewhere(_) | Cannot::Lease { .. } => Failure::Internal,
    }
}

/// The message of an answer.
pub(super) fn message_of(answered: Answered) -> Bytes {
    match answered {
        Answered::Frame(mut frame) => frame.split_off(PREFIX_BYTES.min(frame.len())),
        Answered::Message(message) => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::AccountId;
    use crate::server::trace::Traced;

    fn repeat(method: Method, message: &impl prost::Message, dry_run: bool) -> Repeat {
        repeat_of(&Forward {
            method,
            message: message.encode_to_vec().into(),
            space: AccountId::new("one").unwrap(),
            payer: None,
            deadline: None,
            dry_run,
            trace: Traced::No,
        })
    }

    #[test]
    fn only_what_changes_nothing_or_remembers_that_it_ran_is_repeated_by_itself() {
        let (key, once) = ("k".to_owned(), Repeat::ByItsClient { idempotent: false });
        let client_may = Repeat::ByItsClient { idempotent: true };
        let store = v1::StoreRequest { key: key.clone(), ..Default::default() };
        let if_absent = v1::StoreRequest { condition: v1::StoreCondition::IfAbsent.into(), ..store.clone() };
        let counted = v1::IncrementRequest { key: key.clone(), delta: 1, ..Default::default() };
        let named = v1::IncrementRequest { request_id: "id".into(), ..counted.clone() };
        let touch = v1::TouchRequest { key: key.clone(), ..Default::default() };
        let extend = v1::TouchRequest { mode: v1::TouchMode::ExtendOnly.into(), ..touch.clone() };
        let delete = v1::DeleteRequest { key: key.clone(), if_version: 0 };
        let versioned = v1::DeleteRequest { if_version: 1, ..delete.clone() };
        assert_eq!(repeat(Method::Get, &v1::GetRequest { key }, false), Repeat::Freely);
        assert_eq!(repeat(Method::Store, &store, false), client_may);
        assert_eq!(repeat(Method::Store, &if_absent, false), once);
        assert_eq!(repeat(Method::Store, &if_absent, true), Repeat::Freely);
        assert_eq!(repeat(Method::Increment, &counted, false), once);
        assert_eq!(repeat(Method::Increment, &named, false), Repeat::Freely);
        assert_eq!(repeat(Method::Touch, &touch, false), client_may);
        assert_eq!(repeat(Method::Touch, &extend, false), once);
        assert_eq!(repeat(Method::Delete, &delete, false), client_may);
        assert_eq!(repeat(Method::Delete, &versioned, false), once);
    }
}
