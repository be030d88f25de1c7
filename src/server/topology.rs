//! `Topology.Watch`: the members, for clients that go to a key's owner by themselves; and the hint in every answer that tells
//! a client when it knows others than this replica does.
//!
//! A watcher costs a stream that says nothing: no timer and no memory beyond its place among [`MAX_WATCHERS`]. What it is
//! told is made anew for each, since it names the watcher's account. Not here: who decides who a member is (`ownership`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::body::Produce;
use super::call::Call;
use super::codec::encode;
use super::drain;
use super::handoff::{self, Handoff};
use crate::cache::key::AccountId;
use crate::ownership::member::{Endpoint, MemberId};
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::Digest;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// Clients that watch one replica at once. Each client watches one replica, so a cluster takes this many per member.
pub const MAX_WATCHERS: usize = 4096;

/// Between two messages to one watcher; changes in between make one. A scaling step is a burst of changes.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Until a watcher who found no place may ask again.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// The watchers of a replica, counted.
#[derive(Debug, Default)]
pub struct Watchers(Arc<AtomicUsize>);

/// A place among them.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

/// A watcher being told.
pub struct Watch {
    account: AccountId,
    /// None: this replica is alone.
    handoff: Option<Handoff>,
    /// What comes next: at first at once, then after a change.
    next: Pin<Box<dyn Future<Output = Option<Changes>> + Send>>,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: Place,
}

type Changes = watch::Receiver<Arc<handoff::Topology>>;

/// A view as clients know it: by half of its digest, and never 0, which stands for none.
#[derive(Clone, Debug)]
pub struct Hint {
    pub digest: u64,
    /// What goes with every answer, made once.
    pub header: HeaderValue,
}

impl Hint {
    #[must_use]
    pub fn of(digest: Digest) -> Self {
        // Of 128 bits of a hash, any 64 will do.
        let [_, _, _, _, _, _, _, _, half @ ..] = digest.as_u128().to_be_bytes();
        let digest = u64::from_be_bytes(half).max(1);
        let header = HeaderValue::try_from(format!("{digest:016x}"));
        Self { digest, header: header.unwrap_or_else(|_| HeaderValue::from_static("0")) }
    }
}

impl Watchers {
    fn enter(&self) -> Result<Place, Failure> {
        let place = Place(Arc::clone(&self.0));
        if self.0.fetch_add(1, Ordering::Relaxed) >= MAX_WATCHERS {
            return Err(Failure::Overloaded { retry_after: FULL_RETRY });
        }
        Ok(place)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watch {
    /// Ends when the connection leaves, for its age or because the replica drains.
    ///
    /// # Errors
    /// When the request is wrong, or there are too many watchers.
    pub fn new(call: &Call, message: Bytes, mut leaving: drain::Watch) -> Result<Self, Failure> {
        let v1::WatchRequest {} = convert::decode(message)?;
        let wall = &call.connection().wall;
        let place = wall.watchers.enter()?;
        let handoff = wall.cluster.as_ref().map(|cluster| cluster.handoff.clone());
        let mut changes = handoff.as_ref().map(Handoff::changes);
        if let Some(changes) = &mut changes {
            changes.mark_unchanged();
        }
        Ok(Self {
            account: call.principal()?.state.tenant.id().clone(),
            handoff,
            next: Box::pin(std::future::ready(changes)),
            leaving: Box::pin(async move {
                leaving.started().await;
            }),
            _place: place,
        })
    }
}

impl Produce for Watch {
    fn poll_next(&mut self, _call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if self.leaving.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Failure::Draining)));
        }
        let changes = ready!(self.next.as_mut().poll(cx));
        self.next = Box::pin(change(changes, Instant::now() + MIN_INTERVAL));
        let mut said = v1::WatchResponse { account_id: self.account.to_string(), ..Default::default() };
        if let Some(handoff) = &self.handoff {
            let topology = handoff.current();
            said.digest = topology.hint.digest;
            said.members = members(&topology.snapshot);
        }
        Poll::Ready(Some(Ok(encode::frame(&said))))
    }
}

/// Waits for a change, and not less than until `earliest`. A replica that is alone has none, nor one whose hand-off ended.
async fn change(changes: Option<Changes>, earliest: Instant) -> Option<Changes> {
    let Some(mut changes) = changes else { return std::future::pending().await };
    if changes.changed().await.is_err() {
        return std::future::pending().await;
    }
    sleep_until(earliest).await;
    changes.mark_unchanged();
    Some(changes)
}

fn members(snapshot: &Snapshot) -> Vec<v1::Member> {
    snapshot.view().endpoints().into_values().map(|endpoint| member(snapshot, endpoint)).collect()
}

/// An endpoint, as clients are told of it.
#[must_use]
pub fn member(snapshot: &Snapshot, endpoint: &Endpoint) -> v1::Member {
    let view = snapshot.view();
    let id = MemberId { uid: endpoint.uid.clone(), boot: view.boot(&endpoint.uid) };
    let state = if view.has_left(&id) {
        v1::MemberState::Left
    } else if view.is_gone(&id) {
        v1::MemberState::Lost
    } else if view.is_leaving(&id) {
        v1::MemberState::Leaving
    } else if endpoint.serves {
        v1::MemberState::Serving
    } else {
        v1::MemberState::NotServing
    };
    v1::Member {
        address: endpoint.address.to_string(),
        uid: endpoint.uid.to_string(),
        in_ring: snapshot.number_of(&id).is_some(),
        state: state.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_sixteen_digits_and_never_the_one_for_none() {
        let hint = Hint::of(Digest::from_u128(0xabcd << 64 | 0x12));
        assert_eq!((hint.digest, hint.header.to_str().unwrap()), (0x12, "0000000000000012"));
        assert_eq!(Hint::of(Digest::from_u128(1 << 64)).digest, 1);
    }

    #[test]
    fn a_watcher_too_many_finds_no_place_until_another_leaves() {
        let watchers = Watchers::default();
        let mut places: Vec<Place> = (0..MAX_WATCHERS).map(|_| watchers.enter().unwrap()).collect();
        assert_eq!(watchers.enter().unwrap_err(), Failure::Overloaded { retry_after: FULL_RETRY });
        places.pop();
        places.push(watchers.enter().unwrap());
        assert_eq!(watchers.count(), MAX_WATCHERS);
    }
}
