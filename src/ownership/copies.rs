//! What the hand-off asks of a store, and how it answers others from it (rules 10 and 15).

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use super::Replica;
use super::arcs::Arcs;
use super::member::MemberId;
use super::message::{Answer, Request};
use super::mistake::Mistake;
use super::shard::{Place, Standing};
use super::snapshot::Snapshot;
use crate::cache::key::AccountId;
use crate::cache::quota::Tenant;
use crate::cache::version::{Now, Version};
use crate::ring::Stretch;

/// An entry as it travels: whatever belongs to it (remaining TTL, request ids, account) is a part of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen<V> {
    pub version: Version,
    /// None: a tombstone.
    pub value: Option<V>,
}

/// Copies of one page. `last`: there are no more after it.
pub type Page<K, V> = (Items<K, V>, bool);

/// The same in the form that goes over the wire, which the hand-off does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPage {
    pub pieces: Vec<Bytes>,
    /// Entries and tombstones in it.
    pub entries: usize,
    /// Of their keys and values.
    pub bytes: usize,
    pub last: bool,
}

/// Copies.
pub type Items<K, V> = Vec<(Place<K>, Frozen<V>)>;

/// What there is of the keys that were asked for.
pub type Found<K, V> = Vec<(Place<K>, Option<Frozen<V>>)>;

/// A store, as the hand-off sees it. Each shard holds a [`super::shard::ShardView`], which does the thinking; an implementation
/// does each of these under the lock of the shard concerned, and those that concern all shards one lock at a time.
pub trait Copies {
    type Key: Clone + Ord + Debug;
    type Value: Clone + Debug;

    /// What may be done with a key now.
    fn standing(&self, place: &Place<Self::Key>) -> Standing;

    /// Rule 3, into every shard; copies that its [`super::shard::ShardView::change`] names become tombstones.
    fn change(&mut self, snapshot: &Arc<Snapshot>, arcs: &Arc<Arcs>, lost: &[MemberId]);

    /// Rule 5, into every shard.
    fn advance(&mut self, arcs: &Arc<Arcs>);

    /// Rule 9, into every shard: what is one's own in `settled` is settled: no mark is left there, and no tombstone.
    /// `arcs` is what is left. Called with every page that is confirmed, each time for the hashes that follow those of the
    /// last time: the work must follow what lies in `settled`.
    fn settle_below(&mut self, arcs: &Arc<Arcs>, settled: Stretch);

    /// Rule 5: is there any entry or tombstone that the view gives `claimer`?
    fn has_copies(&self, claimer: &MemberId) -> bool;

    /// Rules 10 and 15: the copy of a key, if there is one, marked as lent.
    fn lend(&mut self, place: &Place<Self::Key>, to: &MemberId) -> Option<Frozen<Self::Value>>;

    /// Rules 10 and 15: the copies for `to` after a place, in the order of places over all shards (what lies below the last
    /// confirmed place of every source is settled), about `max_bytes` of them and at least one, each marked as lent.
    fn lend_page(
        &mut self,
        to: &MemberId,
        after: Option<&Place<Self::Key>>,
        max_bytes: usize,
    ) -> Page<Self::Key, Self::Value>;

    /// As [`Self::lend_page`], ready to be sent. `None`: this store writes none.
    fn write_page(
        &mut self,
        _to: &MemberId,
        _after: Option<&Place<Self::Key>>,
        _max_bytes: usize,
    ) -> Option<WrittenPage> {
        None
    }

    /// Rule 10: drops the copies for `to` up to and with a place.
    fn drop_through(&mut self, to: &MemberId, through: &Place<Self::Key>);

    fn is_resolved(&self, place: &Place<Self::Key>) -> bool;

    /// Rule 7: of `best`, the newest of the sources' copies, and one's own, what [`Frozen::newer`] says becomes the entry.
    fn resolve(&mut self, place: &Place<Self::Key>, best: Option<Frozen<Self::Value>>);

    /// Rule 7: if the key has no entry, forgets that it was resolved.
    fn forget_miss(&mut self, place: &Place<Self::Key>);

    /// What is known of an account, if anything.
    fn tenant(&self, account: &AccountId) -> Option<Tenant>;

    /// All accounts that are known.
    fn tenants(&self) -> Vec<Tenant>;

    /// Reclaims entries whose time is over, so many that it takes little time. Whether these were all.
    fn expire(&mut self) -> bool;

    /// Has it an entry, in whatever state?
    fn has_entry(&self, place: &Place<Self::Key>) -> bool;

    /// Entries and tombstones, of one's own keys or others'.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V> Frozen<V> {
    /// What makes one copy win over another: the greater version; of one version, the one with a value. Copies of one
    /// version differ when one was evicted, or was sent to a member that is lost (rule 15). In the second case a copy with
    /// the value was not sent to it, or it would be a tombstone too, so the lost member, who asks all before it changes
    /// anything, changed nothing. Were the choice left to the order of arrival, a value that was read as missing could come
    /// back with the next owner.
    #[must_use]
    pub fn rank(&self) -> (Version, bool) {
        (self.version, self.value.is_some())
    }

    /// The one that wins.
    #[must_use]
    pub fn newer(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.rank() > one.rank() { other } else { one }),
            (one, other) => one.or(other),
        }
    }
}

impl<S: Copies> Replica<S> {
    /// Answers a request of the hand-off, under the fence (rule 4), from local state and at once (invariant I6).
    pub(super) fn serve(
        &mut self,
        from: &MemberId,
        request: &Request<S::Key>,
        same_view: bool,
        now: Now,
    ) -> Answer<S::Key, S::Value> {
        let passes = same_view || self.unfenced(request);
        match request {
            Request::Ping => Answer::Pong { unreachable: self.detector.unreachable(&self.snapshot) },
            _ if !passes => Answer::Stale,
            Request::Claim => Answer::Cleared { has_copies: self.store.has_copies(from) },
            Request::Fetch(places) => {
                let store = &mut self.store;
                Answer::Copies(places.iter().map(|place| (place.clone(), store.lend(place, from))).collect())
            }
            Request::Pull { after, max_bytes } => {
                if let Some(page) = self.store.write_page(from, after.as_ref(), *max_bytes) {
                    return Answer::Written(page);
                }
                let (items, last) = self.store.lend_page(from, after.as_ref(), *max_bytes);
                if let (true, Some((through, _))) = (self.mistakes.make(Mistake::DropBeforeStored), items.last()) {
                    self.store.drop_through(from, through);
                }
                Answer::Page { items, last }
            }
            Request::Done { through } => {
                self.store.drop_through(from, through);
                Answer::DoneOk
            }
            Request::Lease(_) | Request::Count(_) | Request::AskAgain(_) => self.serve_quota(from, request, now),
        }
    }

    /// Only for deliberate mistakes: is this request let through under another view?
    fn unfenced(&self, request: &Request<S::Key>) -> bool {
        match request {
            Request::Claim => {
                self.mistakes.make(Mistake::ClearUnderOtherView)
                    || self.mistakes.make(Mistake::ClearWithoutSealing)
                    || self.mistakes.make(Mistake::NeitherFence)
            }
            Request::Done { .. } => {
                self.mistakes.make(Mistake::LateDoneAccepted) || self.mistakes.make(Mistake::NeitherFence)
            }
            _ => self.mistakes.make(Mistake::NeitherFence),
        }
    }
}
