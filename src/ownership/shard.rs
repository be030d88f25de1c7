//! What a shard of the store must know, under its own lock, to say what may be done with a key now (PROTOCOL §7).
//!
//! The owner check and the operation happen under one lock, against the view that is stored *here*. A view change writes the
//! new view into every shard, one lock at a time, and only then is it published to the hand-off; so `Cleared` comes after
//! every operation that began under the old view. The marks of the hand-off live here too, and only while an arc is
//! unsettled: a key without a mark in a settled arc costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use super::arcs::{Arcs, Phase};
use super::member::MemberId;
use super::mistake::{Mistake, Mistakes};
use super::snapshot::Snapshot;
use super::stretches::difference;
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

/// A key, as marks name it: a name, or something shorter that stands for one.
pub trait Named: Clone + Ord + Debug {
    /// No key is less.
    const LEAST: Self;
}

/// A shard's own view, and the marks of its keys.
#[derive(Debug)]
pub struct ShardView<K> {
    me: MemberId,
    mistakes: Mistakes,
    snapshot: Arc<Snapshot>,
    /// This member's number among the snapshot's owners; none while it owns nothing.
    number: Option<usize>,
    arcs: Arc<Arcs>,
    /// Keys of HELD arcs that are resolved; the value is `shadow`: a source still has an older copy.
    resolved: BTreeMap<Place<K>, bool>,
    /// To whom a copy was sent, as an index of `borrowers`. Only copies have it.
    lent: BTreeSet<(Place<K>, u32)>,
    /// Each once; no more than members that were present under one view.
    borrowers: Vec<Option<MemberId>>,
}

/// Bytes that one mark is charged: its share of a tree whose nodes are half full.
const RESOLVED_BYTES: u64 = 40;
const LENT_BYTES: u64 = 56;

impl<K: Named> ShardView<K> {
    /// What lending one more copy adds to [`Self::charge`] at most, in bytes.
    pub const LENT_BYTES: u64 = LENT_BYTES;

    /// What resolving one more key adds to [`Self::charge`] at most, in bytes.
    pub const RESOLVED_BYTES: u64 = RESOLVED_BYTES;

    /// A shard of a replica that owns nothing yet.
    #[must_use]
    pub fn new(me: MemberId, snapshot: Arc<Snapshot>, mistakes: Mistakes) -> Self {
        let number = snapshot.number_of(&me);
        Self {
            me,
            mistakes,
            snapshot,
            number,
            arcs: Arc::default(),
            resolved: BTreeMap::new(),
            lent: BTreeSet::new(),
            borrowers: Vec::new(),
        }
    }

    /// Memory of all marks, in bytes.
    #[must_use]
    pub fn charge(&self) -> u64 {
        self.resolved.len() as u64 * RESOLVED_BYTES + self.lent.len() as u64 * LENT_BYTES
    }

    #[must_use]
    pub fn mistakes(&self) -> Mistakes {
        self.mistakes
    }

    /// What may be done with a key now. For an operation: under the lock under which it then runs.
    #[must_use]
    pub fn standing(&self, place: &Place<K>) -> Standing {
        if !self.is_mine(place) {
            return self.snapshot.owner(place.hash).map_or(Standing::Nobody, |owner| Standing::Other(owner.clone()));
        }
        match self.arcs.phase(place.hash) {
            None => Standing::Authority,
            Some(Phase::Gaining) => Standing::Gaining,
            Some(Phase::Held) if self.resolved.contains_key(place) => Standing::Authority,
            Some(Phase::Held) => Standing::Unresolved,
        }
    }

    /// The end of the stretch of hashes, from `hash` on, that are this replica's and settled.
    ///
    /// # Errors
    /// When `hash` is not in one.
    pub fn settled_through(&self, hash: u64) -> Result<u64, Standing> {
        match self.snapshot.owner(hash) {
            None => Err(Standing::Nobody),
            Some(owner) if !self.owns(hash) => Err(Standing::Other(owner.clone())),
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
        !self.is_mine(place)
            || match self.arcs.phase(place.hash) {
                None => false,
                Some(Phase::Gaining) => true,
                Some(Phase::Held) => !self.resolved.contains_key(place),
            }
    }

    /// Is the key this replica's by the shard's view?
    #[must_use]
    pub fn is_mine(&self, place: &Place<K>) -> bool {
        self.owns(place.hash)
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
        let borrower = self.borrower(to);
        self.lent.insert((place.clone(), borrower));
    }

    /// Rule 10: this copy was dropped.
    pub fn dropped(&mut self, place: &Place<K>) {
        if !self.lent.is_empty() {
            self.lent.extract_if((place.clone(), 0)..=(place.clone(), u32::MAX), |_| true).for_each(drop);
        }
    }

    /// Rule 7: the key has its entry, or has none. `shadow`: a source had a copy.
    pub fn resolve(&mut self, place: &Place<K>, shadow: bool) {
        self.dropped(place);
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
        self.number = snapshot.number_of(&self.me);
        self.arcs = Arc::clone(arcs);
        // What is no longer mine freezes: it is a copy like any other.
        if !self.resolved.is_empty() {
            for stretch in difference(&[Stretch::ALL], &snapshot.stretches_of(&self.me)) {
                self.forget_resolved(stretch);
            }
        }
        if self.mistakes.make(Mistake::KeepCopiesOfCrashed) {
            return Vec::new();
        }
        let known = |of: &dyn Fn(&MemberId) -> bool| -> Vec<bool> {
            self.borrowers.iter().map(|id| id.as_ref().is_some_and(of)).collect()
        };
        let (is_lost, is_absent) = (known(&|id| lost.contains(id)), known(&|id| !snapshot.is_present(id)));
        let mut outdated = Vec::new();
        if is_lost.contains(&true) {
            outdated.extend(self.lent.iter().filter(|(_, to)| is_lost[*to as usize]).map(|(place, _)| place.clone()));
            outdated.dedup();
        }
        if is_absent.contains(&true) {
            // Members that left in good order handed everything on: who holds what they were sent has answered for it.
            self.lent.retain(|(_, to)| !is_absent[*to as usize]);
            for (borrower, _) in self.borrowers.iter_mut().zip(is_absent).filter(|(_, is_absent)| *is_absent) {
                *borrower = None;
            }
        }
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
        self.forget_resolved(settled);
        if !self.lent.is_empty() {
            let (snapshot, number) = (&self.snapshot, self.number);
            let mine = |(place, _): &(Place<K>, u32)| number.is_some() && snapshot.owner_number(place.hash) == number;
            self.lent
                .extract_if(range((least(settled.first), 0), after(settled).map(|end| (end, 0))), mine)
                .for_each(drop);
        }
    }

    /// Is this deliberate mistake to be made?
    #[must_use]
    pub fn makes(&self, mistake: Mistake) -> bool {
        self.mistakes.make(mistake)
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
        let settled = |place: &Place<K>| self.is_settled(place);
        let lent = self.lent.iter().map(|(place, _)| place);
        self.resolved.keys().chain(lent).filter(|place| settled(place)).count()
    }

    /// To whom this copy was sent.
    pub fn lent_to(&self, place: &Place<K>) -> impl Iterator<Item = &MemberId> {
        let lent = self.lent.range((place.clone(), 0)..=(place.clone(), u32::MAX));
        lent.filter_map(|(_, to)| self.borrowers.get(*to as usize)?.as_ref())
    }

    /// Does a source have an older copy of this resolved key?
    #[must_use]
    pub fn is_shadowed(&self, place: &Place<K>) -> bool {
        self.resolved.get(place).copied().unwrap_or(false)
    }

    fn owns(&self, hash: u64) -> bool {
        self.number.is_some() && self.snapshot.owner_number(hash) == self.number
    }

    /// The index of a member in `borrowers`.
    fn borrower(&mut self, id: &MemberId) -> u32 {
        let known = self.borrowers.iter().position(|known| known.as_ref() == Some(id));
        let index = known.unwrap_or_else(|| {
            let free = self.borrowers.iter().position(Option::is_none).unwrap_or(self.borrowers.len());
            if free == self.borrowers.len() {
                self.borrowers.push(None);
            }
            self.borrowers[free] = Some(id.clone());
            free
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// The work follows what goes.
    fn forget_resolved(&mut self, stretch: Stretch) {
        let (Some((first, _)), Some((last, _))) = (self.resolved.first_key_value(), self.resolved.last_key_value())
        else {
            return;
        };
        if stretch.contains(first.hash) && stretch.contains(last.hash) {
            // Twice as fast as one by one.
            self.resolved = BTreeMap::new();
        } else if first.hash <= stretch.last && stretch.first <= last.hash {
            self.resolved.extract_if(range(least(stretch.first), after(stretch)), |_, _| true).for_each(drop);
        }
    }
}

impl Named for u32 {
    const LEAST: Self = 0;
}

impl Named for u64 {
    const LEAST: Self = 0;
}

/// Before every key with this hash.
fn least<K: Named>(hash: u64) -> Place<K> {
    Place { hash, key: K::LEAST }
}

/// Before every key with a hash after the stretch; none at the end of all hashes.
fn after<K: Named>(stretch: Stretch) -> Option<Place<K>> {
    stretch.last.checked_add(1).map(least)
}

fn range<T>(first: T, end: Option<T>) -> (Bound<T>, Bound<T>) {
    (Bound::Included(first), end.map_or(Bound::Unbounded, Bound::Excluded))
}
