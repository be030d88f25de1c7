//! For a simulation's invariants: everything that is in the store, and its marks.

use super::{StoreCopies, frozen};
use crate::cache::store::Store;
use crate::cache::store::member::{Carried, Place};
use crate::ownership::copies::Frozen;
use crate::ownership::shard::{Place as MarkPlace, ShardView};
use crate::ring::Stretch;

impl StoreCopies {
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Calls `f` with every entry and tombstone, one's own or others', in no order.
    pub fn for_each(&self, mut f: impl FnMut(&Place, Frozen<Carried>)) {
        let mut from = Some(0);
        while let Some(first) = from {
            let shard = self.store.lock_at(first);
            let (found, _) = shard.bucket(Stretch { first, last: u64::MAX });
            for (hashes, at) in found {
                if let Some(place) = shard.place(at, hashes) {
                    f(&place, frozen(&shard, at, self.now));
                }
            }
            from = shard.bucket(Stretch { first, last: u64::MAX }).1;
        }
    }

    /// The entry or tombstone of a key.
    #[must_use]
    pub fn entry(&self, place: &Place) -> Option<Frozen<Carried>> {
        self.at(place, |shard, _, at| Some(frozen(shard, at?, self.now)))
    }

    /// Calls `f` with the view of a key's shard, and how that names the key. `None`: the store is alone.
    pub fn with_view<R>(&self, place: &Place, f: impl FnOnce(&ShardView<u64>, &MarkPlace<u64>) -> R) -> Option<R> {
        self.at(place, |shard, hashes, _| shard.member.as_ref().map(|member| f(&member.view, &hashes.mark())))
    }

    /// Invariant I5: marks of the hand-off that are left in settled arcs.
    #[must_use]
    pub fn marks_in_settled_arcs(&self) -> usize {
        self.each_view(|view| view.marks_in_settled_arcs()).into_iter().sum()
    }
}
