//! A view and what follows from it, computed once: who owns what, and who may still hold something.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::member::{Endpoint, MemberId, Uid};
use super::view::{Digest, View};
use crate::ring::{Move, Ring, Stretch, diff};

/// One view, its digest, and its ring. Immutable and shared; replaced whole.
#[derive(Clone, Debug)]
pub struct Snapshot {
    view: Arc<View>,
    digest: Digest,
    ring: Ring,
    /// The members of the ring, as `ring.members()` has their addresses.
    owners: Vec<MemberId>,
    present: BTreeMap<Uid, Present>,
}

/// A member that may hold something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub id: MemberId,
    pub endpoint: Endpoint,
}

impl Snapshot {
    #[must_use]
    pub fn new(view: View) -> Self {
        let mut present = BTreeMap::new();
        // By address, as an address may be reused: the process that started last has it.
        let mut ring: BTreeMap<Arc<str>, MemberId> = BTreeMap::new();
        for (uid, endpoint) in view.endpoints() {
            let id = MemberId { uid: uid.clone(), boot: view.boot(uid) };
            if view.has_left(&id) || view.is_gone(&id) {
                continue;
            }
            if endpoint.serves && !view.is_leaving(&id) {
                let newest = ring.entry(endpoint.address.clone()).or_insert_with(|| id.clone());
                if (newest.boot, &newest.uid) < (id.boot, &id.uid) {
                    *newest = id.clone();
                }
            }
            present.insert(uid.clone(), Present { id, endpoint: endpoint.clone() });
        }
        Self {
            digest: view.digest(),
            ring: Ring::new(ring.keys()),
            owners: ring.into_values().collect(),
            present,
            view: Arc::new(view),
        }
    }

    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Who owns the keys with this route hash; nobody when the ring is empty.
    #[must_use]
    pub fn owner(&self, hash: u64) -> Option<&MemberId> {
        self.ring.owner_index(hash).map(|index| &self.owners[index])
    }

    /// As [`Self::owner`]: the owner's number, for [`Self::number_of`].
    #[must_use]
    pub fn owner_number(&self, hash: u64) -> Option<usize> {
        self.ring.owner_index(hash)
    }

    /// A member's number among the owners.
    #[must_use]
    pub fn number_of(&self, id: &MemberId) -> Option<usize> {
        let address = &self.present.get(&id.uid)?.endpoint.address;
        let index = self.ring.members().binary_search_by(|member| (**member).cmp(address)).ok()?;
        (self.owners[index] == *id).then_some(index)
    }

    #[must_use]
    pub fn owns(&self, id: &MemberId, hash: u64) -> bool {
        self.owner(hash) == Some(id)
    }

    /// All that a member owns: sorted stretches.
    #[must_use]
    pub fn stretches_of(&self, id: &MemberId) -> Vec<Stretch> {
        self.number_of(id).map(|index| self.ring.stretches_of(index)).unwrap_or_default()
    }

    /// Every member that may hold something, by uid.
    pub fn present(&self) -> impl Iterator<Item = &Present> {
        self.present.values()
    }

    /// The member of a pod, if it is present.
    #[must_use]
    pub fn present_as(&self, uid: &Uid) -> Option<&Present> {
        self.present.get(uid)
    }

    /// Endpoints that were declared gone, as whoever is there now. Should one live after all, or its next process, nobody
    /// would ever speak to it: two halves of a cluster that declared each other would stay two clusters.
    pub fn lost_endpoints(&self) -> impl Iterator<Item = MemberId> {
        let lost = |uid: &&Uid| {
            let id = MemberId { uid: (*uid).clone(), boot: self.view.boot(uid) };
            !self.present.contains_key(*uid) && !self.view.has_left(&id)
        };
        self.view
            .endpoints()
            .into_keys()
            .filter(lost)
            .map(|uid| MemberId { uid: uid.clone(), boot: 0 })
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// May this process still hold something? One whose boot was not known yet is whoever was heard from first.
    #[must_use]
    pub fn is_present(&self, id: &MemberId) -> bool {
        self.present.get(&id.uid).is_some_and(|present| present.id.boot == id.boot || id.boot == 0)
    }

    /// Who was present before and is lost now: not one that left in good order.
    #[must_use]
    pub fn lost_since(&self, before: &Self) -> Vec<MemberId> {
        let were = before.present().map(|member| &member.id);
        were.filter(|id| !self.is_present(id) && !self.view.has_left(id)).cloned().collect()
    }

    /// Does `from` lose anything to `to` when `new` takes this one's place?
    #[must_use]
    pub fn loses_to(&self, new: &Self, from: &MemberId, to: &MemberId) -> bool {
        let address = |snapshot: &Self, id: &MemberId| Some(snapshot.ring.members()[snapshot.number_of(id)?].clone());
        let (from, to) = (address(self, from), address(new, to));
        let moved = |step: &Move<'_>| step.from == from.as_deref() && step.to == to.as_deref();
        from.is_some() && to.is_some() && diff(&self.ring, &new.ring).iter().any(moved)
    }
}
