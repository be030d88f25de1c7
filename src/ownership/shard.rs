//! What a shard of the store must know, under its own lock, to say what may be done with a key now (PROTOCOL §7).
//!
//! The owner check and the operation happen under one lock, against the view that is stored *here*. A view change writes the
//! new view into every shard, one lock at a time, and only then is it published to the hand-off; so `Cleared` comes after
//! every operation that began under the old view. The marks of the hand-off live here too, and only while an arc is
//! unsettled: a key without a mark in a settled arc costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use super::arcs::{Arcs, Phase};
use super::member::MemberId;
use super::mistake::{Mistake, Mistakes};
use super::snapshot::Snapshot;
use crate::ring::Stretch;

/// A key and the hash of its route. Ordered as copies are sent: by hash, then by key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<K> {
    pub hash: u64,
    pub key: K,
}

/// What a replica is to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The authority: an operation may run now.
    Authority,
    /// The authority, once the key is resolved (rule 7).
    Unresolved,
    /// The authority-to-be, once everybody has cleared (rule 5).
    Gaining,
    /// Another replica's key.
    Other(MemberId),
    /// Nobody's: the ring is empty.
    Nobody,
}

/// What a removal leaves (rule 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Nothing,
    /// A version without a value: a source still has an older copy, which must not come to light again.
    Tombstone,
}

/// A shard's own view, and the marks of its keys.
#[derive(Debug)]
pub struct ShardView<K> {
    me: MemberId,
    mistakes: Mistakes,
    snapshot: Arc<Snapshot>,
    arcs: Arc<Arcs>,
    /// Keys of HELD arcs that are resolved; the value is `shadow`: a source still has an older copy.
    resolved: BTreeMap<Place<K>, bool>,
    /// To whom a copy was sent. Only copies have it.
    lent: BTreeMap<Place<K>, BTreeSet<MemberId>>,
}

impl<K: Clone + Ord + Debug> ShardView<K> {
    /// A shard of a replica that owns nothing yet.
    #[must_use]
    pub fn new(me: MemberId, snapshot: Arc<Snapshot>, mistakes: Mistakes) -> Self {
        Self { me, mistakes, snapshot, arcs: Arc::default(), resolved: BTreeMap::new(), lent: BTreeMap::new() }
    }

    /// What may be done with a key now. For an operation: under the lock under which it then runs.
    #[must_use]
    pub fn standing(&self, place: &Place<K>) -> Standing {
        match self.snapshot.owner(place.hash) {
            None => Standing::Nobody,
            Some(owner) if *owner != self.me => Standing::Other(owner.clone()),
            Some(_) => match self.arcs.phase(place.hash) {
                None => Standing::Authority,
                Some(Phase::Gaining) => Standing::Gaining,
                Some(Phase::Held) if self.resolved.contains_key(place) => Standing::Authority,
                Some(Phase::Held) => Standing::Unresolved,
            },
        }
    }

    /// The end of the stretch of hashes, from `hash` on, that are this replica's and settled.
    ///
    /// # Errors
    /// When `hash` is not in one.
    pub fn settled_through(&self, hash: u64) -> Result<u64, Standing> {
        match self.snapshot.owner(hash) {
            None => Err(Standing::Nobody),
            Some(owner) if *owner != self.me => Err(Standing::Other(owner.clone())),
            Some(_) => match self.arcs.phase(hash) {
                None => Ok(self.snapshot.ring().same_owner_through(hash).min(self.arcs.free_through(hash))),
                Some(Phase::Gaining) => Err(Standing::Gaining),
                Some(Phase::Held) => Err(Standing::Unresolved),
            },
        }
    }

    /// What to leave of a key that the authority deletes, evicts or finds expired (rule 8).
    #[must_use]
    pub fn removal(&self, place: &Place<K>) -> Removal {
        let shadowed = self.resolved.get(place).copied().unwrap_or(false);
        if shadowed && !self.mistakes.make(Mistake::NoTombstone) { Removal::Tombstone } else { Removal::Nothing }
    }

    /// After a key was resolved or removed and has no entry: a miss is not remembered (rule 7).
    pub fn forget_miss(&mut self, place: &Place<K>) {
        self.resolved.remove(place);
    }

    /// Is what the store holds of this key a copy: frozen, and to be sent to whoever owns the key (rule 10)?
    #[must_use]
    pub fn is_copy(&self, place: &Place<K>) -> bool {
        self.standing(place) != Standing::Authority
    }

    /// Is the key this replica's by the shard's view?
    #[must_use]
    pub fn is_mine(&self, place: &Place<K>) -> bool {
        self.snapshot.owns(&self.me, place.hash)
    }

    /// Is this replica the authority for the key, resolved or not (invariant I1)?
    #[must_use]
    pub fn is_authority(&self, place: &Place<K>) -> bool {
        matches!(self.standing(place), Standing::Authority | Standing::Unresolved)
    }

    /// Is the key this replica's, and nothing of the hand-off left of it (invariant I5)?
    #[must_use]
    pub fn is_settled(&self, place: &Place<K>) -> bool {
        self.is_mine(place) && self.arcs.phase(place.hash).is_none()
    }

    /// Does the common view give this key to `claimer`?
    #[must_use]
    pub fn is_for(&self, claimer: &MemberId, hash: u64) -> bool {
        self.snapshot.owns(claimer, hash)
    }

    /// Rule 15: this copy is being sent.
    pub fn lend(&mut self, place: &Place<K>, to: &MemberId) {
        self.lent.entry(place.clone()).or_default().insert(to.clone());
    }

    /// Rule 10: this copy was dropped.
    pub fn dropped(&mut self, place: &Place<K>) {
        self.lent.remove(place);
    }

    /// Rule 7: the key has its entry, or has none. `shadow`: a source had a copy.
    pub fn resolve(&mut self, place: &Place<K>, shadow: bool) {
        self.lent.remove(place);
        self.resolved.insert(place.clone(), shadow);
    }

    #[must_use]
    pub fn is_resolved(&self, place: &Place<K>) -> bool {
        self.resolved.contains_key(place)
    }

    /// Rules 3 and 15: from now on the new view holds. Returns the copies that were sent to one of `lost`: they may be out
    /// of date, and so is everything older, so each becomes a tombstone of the same version.
    #[must_use]
    pub fn change(&mut self, snapshot: &Arc<Snapshot>, arcs: &Arc<Arcs>, lost: &[MemberId]) -> Vec<Place<K>> {
        self.snapshot = Arc::clone(snapshot);
        self.arcs = Arc::clone(arcs);
        // What is no longer mine freezes: it is a copy like any other.
        let me = &self.me;
        self.resolved.retain(|place, _| snapshot.owns(me, place.hash));
        if self.mistakes.make(Mistake::KeepCopiesOfCrashed) {
            return Vec::new();
        }
        let outdated = self.lent.iter().filter(|(_, to)| lost.iter().any(|id| to.contains(id)));
        let outdated: Vec<Place<K>> = outdated.map(|(place, _)| place.clone()).collect();
        // Members that left in good order handed everything on: who holds what they were sent has answered for it.
        self.lent.retain(|_, to| {
            to.retain(|id| snapshot.is_present(id));
            !to.is_empty()
        });
        outdated
    }

    /// Rule 5: what was GAINING is HELD.
    pub fn advance(&mut self, arcs: &Arc<Arcs>) {
        self.arcs = Arc::clone(arcs);
    }

    /// Rule 9: what is mine in `settled` is settled, and no mark is left there. `arcs`: the rest. The caller drops the
    /// tombstones of the keys that are mine there.
    pub fn settle_below(&mut self, arcs: &Arc<Arcs>, settled: Stretch) {
        self.arcs = Arc::clone(arcs);
        self.resolved.retain(|place, _| !settled.contains(place.hash));
        let (snapshot, me) = (&self.snapshot, &self.me);
        self.lent.retain(|place, _| !(settled.contains(place.hash) && snapshot.owns(me, place.hash)));
    }

    #[must_use]
    pub fn me(&self) -> &MemberId {
        &self.me
    }

    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Invariant I5 for keys of settled arcs: no mark of the hand-off.
    #[must_use]
    pub fn marks_in_settled_arcs(&self) -> usize {
        let settled =
            |place: &Place<K>| self.snapshot.owns(&self.me, place.hash) && self.arcs.phase(place.hash).is_none();
        self.resolved.keys().chain(self.lent.keys()).filter(|place| settled(place)).count()
    }

    /// To whom this copy was sent.
    pub fn lent_to(&self, place: &Place<K>) -> impl Iterator<Item = &MemberId> {
        self.lent.get(place).into_iter().flatten()
    }

    /// Does a source have an older copy of this resolved key?
    #[must_use]
    pub fn is_shadowed(&self, place: &Place<K>) -> bool {
        self.resolved.get(place).copied().unwrap_or(false)
    }
}
